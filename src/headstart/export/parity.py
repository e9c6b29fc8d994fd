"""Does the exported file say of each photo what the run says of it?"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from headstart.classifier import Classifier
from headstart.errors import DataError, ImageRejected
from headstart.export.formats import Opened
from headstart.files import shown
from headstart.images import decode, read_photo_bytes
from headstart.readers import open_dataset
from headstart.readers.cifar import find_batches
from headstart.readers.idx import FILE_NAME, has_idx_files
from headstart.readers.tables import TABLES
from headstart.readers.walk import walk

LIMIT = 1e-4  # of the largest difference between two logits, as a share of the largest logit
SYNTHETIC = 64  # pictures that are made up where no photos are given
BATCH = 16  # photos the exported file computes together; the first comes alone, so that both kinds are seen
NAMED = 5  # photos with another answer that are named

Step = Callable[[int, int, str], None]  # photos done, all of them, "photos"
Square = UInt8[np.ndarray, "size size channels"]
Photo = tuple[str, Callable[[], Any]]  # a name, and what reads its bytes or pixels


def silent(_done: int, _of: int, _what: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Parity:
    """How far an exported file is from its run.

    Args:
        photos: compared.
        synthetic: they were made up; no photos were given.
        skipped: photos that could not be read: path and reason.
        largest_difference: between two logits of one photo and class.
        largest_logit: by size, of the run.
        probability_difference: the largest, 0..1.
        same_top1: photos with the same most probable class.
        others: the first photos with another one: path, the run's class, the file's class.
        engine, runtime: what computed the run's answers and the file's.
        limit: of `relative`.
    """

    photos: int
    synthetic: bool
    skipped: tuple[dict[str, str], ...]
    largest_difference: float
    largest_logit: float
    probability_difference: float
    same_top1: int
    others: tuple[dict[str, str], ...]
    engine: str
    runtime: str
    limit: float = LIMIT

    @property
    def relative(self) -> float:
        """The largest difference as a share of the largest logit."""
        return self.largest_difference / max(self.largest_logit, float(np.finfo(np.float32).tiny))

    @property
    def holds(self) -> bool:
        """Whether the file may be used in place of the run; never where a number is not finite."""
        return self.relative <= self.limit and self.same_top1 == self.photos

    def to_json(self) -> dict[str, Any]:
        """Everything, and what follows from it."""
        return {
            "holds": self.holds,
            "photos": self.photos,
            "synthetic": self.synthetic,
            "skipped": list(self.skipped),
            "relative_difference": _number(self.relative),
            "limit": self.limit,
            "largest_difference": _number(self.largest_difference),
            "largest_logit": _number(self.largest_logit),
            "probability_difference": _number(self.probability_difference),
            "same_top1": self.same_top1 / self.photos,
            "others": list(self.others),
            "engine": self.engine,
            "runtime": self.runtime,
        }

    def to_text(self) -> str:
        """One or two sentences."""
        what = "synthetic pictures (no photos were given)" if self.synthetic else "photos"
        return (
            f"On {self.photos:,} {what} the largest difference between two logits is {self.relative:.1e} of the "
            f"largest logit (limit {self.limit:.0e}), and {self.same_top1:,} have the same most probable class. "
            f"The largest difference between two probabilities is {self.probability_difference:.1e}."
        )


def _number(value: float) -> float | None:
    return value if np.isfinite(value) else None


def measure(
    classifier: Classifier,
    exported: Opened,
    data: Sequence[str | Path] = (),
    *,
    seed: int = 0,
    threads: int = 0,
    step: Step = silent,
) -> Parity:
    """Compare an exported file with the classifier, photo by photo.

    Args:
        classifier: computes with its own engine.
        exported: the file, opened.
        data: photos, folders of photos, or anything `headstart train` takes; none: pictures are made up.
        seed: of these.
        threads: processor threads; 0: all this process may use.
        step: told after each few photos.

    Raises:
        DataError: there is no photo that can be read.
    """
    shape = classifier.backbone.preprocessing.shape
    photos = find_photos(data) if data else synthetic(shape, seed)
    seen = _Seen(classifier, exported, threads)
    waiting: list[tuple[str, Square]] = []
    for done, (name, read) in enumerate(photos):
        try:
            waiting.append((name, read() if not data else _prepared(classifier, name, read)))
        except ImageRejected as error:
            seen.skipped.append({"path": name, "reason": str(error)})
        if len(waiting) >= (BATCH if seen.photos else 1):
            seen.compare(waiting)
            waiting = []
            step(done + 1, len(photos), "photos")
    if waiting:
        seen.compare(waiting)
    step(len(photos), len(photos), "photos")
    if not seen.photos:
        first = seen.skipped[0]
        raise DataError(
            f"none of the {len(photos)} photos can be read; the first, {shown(first['path'])}: {first['reason']}"
        )
    return seen.parity(synthetic=not data)


def _prepared(classifier: Classifier, name: str, read: Callable[[], Any]) -> Square:
    preprocessing = classifier.backbone.preprocessing
    return preprocessing.apply(decode(read(), target=preprocessing.decode_target(), name=name))


class _Seen:
    """What has been compared so far."""

    def __init__(self, classifier: Classifier, exported: Opened, threads: int) -> None:
        self._classifier, self._exported = classifier, exported
        self._engine = classifier.engine_for(threads)
        self.skipped: list[dict[str, str]] = []
        self.photos = self._same = 0
        self._difference = self._logit = self._probability = 0.0
        self._others: list[dict[str, str]] = []

    def compare(self, pictures: list[tuple[str, Square]]) -> None:
        classifier, cut = self._classifier, self._classifier.cut
        squares = [square for _, square in pictures]
        features = [found[cut].reshape(-1) for _, found in self._engine.run(enumerate(squares), (cut,))]
        expected = classifier.logits_from_features(np.stack(features))
        likely = classifier.probabilities_from_features(np.stack(features))
        logits, probabilities = self._exported.run(np.stack(squares))
        if logits.shape != expected.shape or probabilities.shape != expected.shape:
            raise DataError(f"the exported file gives {logits.shape} and {probabilities.shape} for {expected.shape}")
        # np.maximum and not max: a value that is no number must win
        self._difference = float(np.maximum(self._difference, np.abs(logits - expected).max()))
        self._logit = float(np.maximum(self._logit, np.abs(expected).max()))
        self._probability = float(np.maximum(self._probability, np.abs(probabilities - likely).max()))
        ours, theirs = likely.argmax(axis=1), probabilities.argmax(axis=1)
        for (name, _), own, other in zip(pictures, ours, theirs, strict=True):
            if own != other and len(self._others) < NAMED:
                classes = classifier.classes
                self._others.append({"path": name, "run": classes[own], "file": classes[other]})
        self._same += int((ours == theirs).sum())
        self.photos += len(pictures)

    def parity(self, *, synthetic: bool) -> Parity:
        return Parity(
            self.photos,
            synthetic,
            tuple(self.skipped),
            self._difference,
            self._logit,
            self._probability,
            self._same,
            tuple(self._others),
            self._engine.name,
            self._exported.runtime,
        )


def find_photos(data: Sequence[str | Path]) -> list[Photo]:
    """List the photos of files, folders and data sets in other forms; none is opened yet.

    Args:
        data: a photo; a folder, with all folders in it; or anything else `headstart train` takes.

    Returns:
        For each its name, relative to the folder or data set that it is in, and what reads it.

    Raises:
        DataError: something is none of these, or there is no photo.
    """
    found: list[Photo] = []
    for entry in data:
        path = Path(entry)
        if path.is_file() and path.suffix.lower() not in TABLES and not FILE_NAME.fullmatch(path.name):
            found.append((str(path), partial(read_photo_bytes, path)))
        elif path.is_dir() and not has_idx_files(path) and not find_batches(path):
            found += [(name, partial(read_photo_bytes, path / name)) for name in walk(path).files]
        else:
            dataset = open_dataset(entry)
            found += [(photo.path, partial(dataset.fetch, photo)) for photo in dataset.photos]
    if not found:
        raise DataError(f"no photos under {', '.join(shown(entry) for entry in data)}")
    return found


def synthetic(shape: tuple[int, int, int], seed: int = 0, count: int = SYNTHETIC) -> list[Photo]:
    """Pictures with edges, ramps and noise of every scale and contrast, already of the size that the net sees.

    Args:
        shape: (size, size, channels).
        seed: the same one gives the same pictures.
        count: how many.

    >>> (name, make), *_ = synthetic((8, 8, 3), count=2)
    >>> name, make().shape, make().dtype.name
    ('synthetic 1', (8, 8, 3), 'uint8')
    """
    return [(f"synthetic {number + 1}", partial(_picture, shape, seed, number)) for number in range(count)]


def _picture(shape: tuple[int, int, int], seed: int, number: int) -> Square:
    draw = np.random.default_rng((seed, number))
    side, _, channels = shape
    total = np.zeros(shape)
    for cells in _scales(side):
        coarse = draw.normal(size=(cells, cells, channels)) * draw.exponential()
        index = np.arange(side) * cells // side
        total += coarse[index][:, index]
    total *= draw.uniform(10, 90) / max(float(total.std()), 1e-9)
    return np.clip(total + draw.uniform(60, 200, channels), 0, 255).astype(np.uint8)


def _scales(side: int) -> Iterator[int]:
    cells = 2
    while cells < side:
        yield cells
        cells *= 3
    yield side
