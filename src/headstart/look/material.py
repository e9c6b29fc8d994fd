"""Photos to test maps with: those of which the net is sure, and right as far as their labels tell."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np

from headstart.dataset import Dataset
from headstart.errors import DataError, ImageRejected
from headstart.explain.explanation import Step, silent
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.mosaic import Sure, groups_of
from headstart.readers import open_dataset
from headstart.readers.walk import walk

SURE = 0.7  # probability of a class from which on the net counts as sure
MOST = 20  # photos read for each one that is wanted, at most
CHUNK = 32

Data = str | Path | Dataset | Sequence[str | Path]
Labelled = tuple[Photo, int, int | None]  # the data's label, and its place among the net's classes where there is one


@dataclass(frozen=True, eq=False)
class Material:
    """What a test of maps is made from.

    Args:
        name: of the data, for people.
        sure: photos with the class that the net gives them, of as many classes as possible, in the order of use.
        spare: all that were found, those of `sure` first.
        notes: what a reader must know about the choice.
        skipped: photos that were tried and cannot be read: path and reason.
    """

    name: str
    sure: tuple[Sure, ...]
    spare: tuple[Sure, ...]
    notes: tuple[str, ...]
    skipped: tuple[str, ...] = ()


def gather(subject: Subject, data: Data, wanted: int, seed: int = 0, step: Step = silent) -> Material:
    """Choose photos of which the net is sure.

    Args:
        subject: the net.
        data: anything `headstart train` takes, or a folder of photos, or a list of photos and folders.
        wanted: photos; fewer come where the net is sure of fewer.
        seed: of the order in which photos are tried.
        step: told after each few photos.

    Raises:
        DataError: there is no photo that can be read.
    """
    dataset, name = _opened(data)
    known = _label_places(subject, dataset)
    notes = [] if known else ["no label is a class of the net, so its own confident answers stand for the truth"]
    order = np.random.default_rng(seed).permutation(len(dataset.photos))[: wanted * MOST].tolist()
    tried: list[Sure] = []
    skipped: list[str] = []
    photos = _photos(subject, dataset, known, order, skipped)
    read = 0
    while len(_sure(tried)) < 2 * wanted and (some := list(islice(photos, CHUNK))):
        read += len(some)
        tried += _judged(subject, some)
        step(min(len(_sure(tried)), wanted), wanted, "photos the net is sure of")
    if not read:
        raise DataError(f"no photo of {shown(name)} can be read; expected at least one")
    chosen = _sure(tried)
    if len(chosen) < min(4, wanted):
        notes.append(
            f"the net is sure (probability {SURE} or more) of {len(chosen)} of {read} photos: the most probable ones "
            "stand in"
        )
        chosen = sorted(tried, key=lambda one: -one.probability)[: 2 * wanted]
    ordered = tuple(_by_turns(chosen))
    return Material(name, ordered[:wanted], ordered, tuple(notes), tuple(skipped))


def _opened(data: Data) -> tuple[Dataset, str]:
    """Any data as a data set; photos without class folders are one of no class."""
    if isinstance(data, Dataset):
        return data, data.name
    if isinstance(data, str | Path):
        try:
            dataset = open_dataset(data)
        except DataError:
            if not Path(data).is_dir():
                raise
            return _unlabelled(_files(data)), Path(data).name
        return dataset, dataset.name
    return _unlabelled([file for path in data for file in _files(path)]), "these photos"


def _files(path: str | Path) -> list[Path]:
    """The photos under a folder; a file is itself."""
    return [Path(path) / name for name in walk(Path(path)).files] if Path(path).is_dir() else [Path(path)]


def _unlabelled(paths: Sequence[Path]) -> Dataset:
    from headstart.dataset import Photo as Listed

    if not paths:
        raise DataError("there are no photos; give a folder with photos in it")
    listed = tuple(Listed(str(path.absolute()), 0) for path in paths)
    return Dataset("photos", Path("/"), ("",), listed)


def _label_places(subject: Subject, dataset: Dataset) -> dict[int, int]:
    """The place of each label among the net's classes; empty unless all are there."""
    places = {name: place for place, name in enumerate(subject.classes)}
    known = {label: places[name] for label, name in enumerate(dataset.classes) if name in places}
    return known if len(known) == len(dataset.classes) else {}


def _photos(
    subject: Subject, dataset: Dataset, known: dict[int, int], order: Sequence[int], skipped: list[str]
) -> Iterator[Labelled]:
    """Prepared photos; those that cannot be read are passed over, and listed in `skipped`."""
    for place in order:
        listed = dataset.photos[place]
        try:
            source = dataset.fetch(listed)
            photo = subject.photo(source)
        except ImageRejected as error:
            skipped.append(f"{shown(listed.path)}: {error}")
            continue
        yield (
            Photo(Path(listed.path).name, photo.picture, photo.pixels, photo.crop),
            listed.label,
            known.get(listed.label),
        )


def _judged(subject: Subject, photos: Sequence[Labelled]) -> list[Sure]:
    """Photos with the net's answer; those with another label are left out."""
    shares = subject.probabilities(subject.logits([photo.pixels for photo, *_ in photos]))
    found = []
    for (photo, label, place), row in zip(photos, shares, strict=True):
        best = int(row.argmax())
        if place is None or place == best:
            found.append(Sure(photo, best, float(row[best]), label if place is None else None))
    return found


def _sure(tried: Sequence[Sure]) -> list[Sure]:
    return [one for one in tried if one.probability >= SURE]


def _by_turns(chosen: Sequence[Sure]) -> list[Sure]:
    """One of each class (or kind, see `groups_of`), then a second of each, and so on."""
    turns: dict[int, int] = {}
    keyed = []
    for place, (one, group) in enumerate(zip(chosen, groups_of(chosen), strict=True)):
        turns[group] = turns.get(group, -1) + 1
        keyed.append((turns[group], place, one))
    return [one for *_, one in sorted(keyed, key=lambda entry: entry[:2])]
