"""A map of photos by what a net makes of them: near each other where their features are alike.

t-SNE (van der Maaten & Hinton 2008, "Visualizing data using t-SNE", JMLR 9) keeps neighbours together; distances
between groups, and their sizes, mean nothing on it. The two main axes (PCA) keep large distances and lose neighbours.
No map of two dimensions keeps all, so how much it lost is told beside it, with a map at random for comparison.
"""

import importlib.util
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64, UInt8
from PIL import Image

from headstart.dataset import Dataset, Photo
from headstart.errors import DataError, ImageRejected, UsageError, WeightsError
from headstart.explain.explanation import Step, silent
from headstart.explain.subject import Subject, unknown_layer
from headstart.features import survey_photos
from headstart.files import shown
from headstart.images import decode
from headstart.look.features_sheet import draw_map
from headstart.look.neighbours import agreement, chance, trustworthiness
from headstart.store import Store
from headstart.transfer.similarity import choose_photos

KINDS = ("tsne", "pca")
TITLES = {"tsne": "t-SNE", "pca": "PCA"}
MOST = 400  # photos on a map, if no other number is given: their thumbnails fill a screen
FEWEST, ENOUGH = 4, 30  # photos of a map, and of one by t-SNE
NEIGHBOURS = 10  # of trustworthiness
PERPLEXITY = 30.0  # about how many neighbours a photo of a t-SNE has; a third of the photos at most
THUMBNAIL = 64  # px a side
CHUNK = 16  # photos that go through torch at a time

Matrix = Float32[np.ndarray, "photos features"]
Places = Float64[np.ndarray, "photos 2"]
Thumbnails = UInt8[np.ndarray, "photos side side 3"]


@dataclass(frozen=True, eq=False)
class FeatureMap:
    """Photos on a map.

    Args:
        subject: the net.
        data: name of the photos, for people.
        layer: whose values were compared.
        kind: "tsne" or "pca".
        names: of the photos.
        labels: of the photos, as places among `classes`.
        classes: names; one empty name where the photos have no labels.
        features: of the photos.
        places: on the map, any unit; the longest way across it lies along the first axis.
        thumbnails: the photos.
        trust: trustworthiness of the map, and of "pca" and "random" maps of the same photos.
        alike: share of the 5 nearest photos that have the same label: among the "features", on the "map", on "pca", and
            by "chance"; empty where the photos have no labels.
        notes: what a reader must know.
        seed: of the choice of photos and of the map at random.
        skipped: photos that cannot be read: path and reason.
    """

    subject: Subject = field(repr=False)
    data: str
    layer: str
    kind: str
    names: tuple[str, ...] = field(repr=False)
    labels: Int64[np.ndarray, "photos"] = field(repr=False)
    classes: tuple[str, ...]
    features: Matrix = field(repr=False)
    places: Places = field(repr=False)
    thumbnails: Thumbnails = field(repr=False)
    trust: dict[str, float]
    alike: dict[str, float]
    notes: tuple[str, ...]
    seed: int
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        rows = zip(self.names, self.labels.tolist(), self.places.tolist(), strict=True)
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "data": self.data,
            "layer": self.layer,
            "features": self.features.shape[1],
            "kind": self.kind,
            "seed": self.seed,
            "trustworthiness": self.trust,
            "same_label_among_nearest": self.alike,
            "notes": list(self.notes),
            "photos": [{"name": name, "label": self.classes[label], "place": place} for name, label, place in rows],
        }

    def to_text(self) -> str:
        """What the map shows and what it lost."""
        return "\n".join((f"{self.title}.", *self.words))

    @property
    def title(self) -> str:
        """What the map is of."""
        return (
            f"{len(self.names)} photos of {shown(self.data)} as {shown(self.subject.name)} sees them: {self.layer}, "
            f"{self.features.shape[1]:,} numbers a photo, by {TITLES[self.kind]}"
        )

    @property
    def words(self) -> tuple[str, ...]:
        """The numbers that belong beside the map."""
        others = [f"{TITLES.get(name, name)} {share:.3f}" for name, share in self.trust.items() if name != self.kind]
        said = [
            f"Trustworthiness {self.trust[self.kind]:.3f} ({', '.join(others)}; 1: all neighbours here are neighbours "
            "in truth)."
        ]
        if self.alike:
            said.append(
                f"Same label among the 5 nearest: {self.alike['features']:.3f} by all numbers, {self.alike['map']:.3f} "
                f"on this map, {self.alike['chance']:.3f} by chance."
            )
        return (*said, *self.notes)

    def sheet(self) -> Image.Image:
        """The map with thumbnails that do not cover each other, each near its place."""
        return draw_map(self.title, self.words, self.places, self.thumbnails, self.labels, self.classes)

    def files(self) -> dict[str, Any]:
        """Name -> content: the map, the places and the features."""
        return {"map.png": self.sheet(), "places.npy": self.places, "features.npy": self.features}


def feature_map(
    subject: Subject,
    dataset: Dataset,
    *,
    layer: str | None = None,
    kind: str = "tsne",
    most: int = MOST,
    seed: int = 0,
    store: Store | None = None,
    step: Step = silent,
) -> FeatureMap:
    """Place photos by their features.

    Args:
        subject: the net.
        dataset: the photos; one class of the empty name: they have no labels.
        layer: whose values are compared, the mean over its places: a stage or module, by the names of `headstart
            summary`; if not given, where the head reads, or the last stage.
        kind: "tsne" or "pca"; of fewer than 30 photos, or without scikit-learn, it is "pca", and a note says so.
        most: photos; of more so many are chosen, each class in proportion.
        seed: of the choice and of the map at random; the same seed gives the same bytes.
        store: where features of backbones are kept; None: nowhere.
        step: told how far the work is.

    Raises:
        UsageError: there is no such layer or kind of map.
        DataError: fewer than 4 photos can be read.
        WeightsError: a feature is no number.
    """
    if kind not in KINDS:
        raise UsageError(f"unknown map {kind!r}; choose one of: {', '.join(KINDS)}")
    listed, notes = _chosen(dataset, most, seed)
    layer = layer or default_layer(subject)
    features, thumbnails, kept = _collected(subject, listed, layer, store, step)
    if lost := len(listed.photos) - len(kept):
        notes.append(f"{lost} of {len(listed.photos)} photos cannot be read and are left out.")
    if len(kept) < FEWEST:
        raise DataError(f"a map needs {FEWEST} photos or more that can be read; {shown(dataset.name)} has {len(kept)}")
    if not np.isfinite(features).all():
        raise _no_number(subject, layer)
    kind = _possible(kind, len(kept), notes)
    main = principal(features)
    places = main if kind == "pca" else upright(stochastic(features, seed))
    labels = listed.labels()[kept]
    labelled = dataset.classes != ("",)
    return FeatureMap(
        subject,
        dataset.name,
        layer,
        kind,
        tuple(listed.photos[row].path for row in kept),
        labels,
        dataset.classes,
        features,
        places,
        thumbnails,
        _trusted(features, {kind: places, "pca": main}, seed),
        _alike(features, places, main, labels) if labelled else {},
        tuple(notes),
        seed,
        tuple(_reason(listed, row) for row in sorted(set(range(len(listed.photos))) - set(kept))),
    )


def _reason(dataset: Dataset, row: int) -> str:
    """Why a photo cannot be read, with its path."""
    photo = dataset.photos[row]
    try:
        thumbnail(dataset.fetch(photo))
    except ImageRejected as error:
        return f"{shown(photo.path)}: {error}"
    return f"{shown(photo.path)}: it could not be read a moment ago"


def _no_number(subject: Subject, layer: str) -> WeightsError:
    return WeightsError(
        f"{layer} of {shown(subject.name)} gives what is no number: its weights are damaged or its training diverged"
    )


def default_layer(subject: Subject) -> str:
    """Where the head of a run reads; of a net the last stage before its logits."""
    if subject.classifier is not None:
        return subject.classifier.cut
    cuts = getattr(subject.trunk, "cuts", ())
    return str(cuts[-1]) if cuts else subject.summary.layers[-1].name


def _chosen(dataset: Dataset, most: int, seed: int) -> tuple[Dataset, list[str]]:
    if len(dataset.photos) <= most:
        return dataset, []
    rows = np.sort(choose_photos(dataset.labels(), most, seed))
    note = f"{len(rows)} of {len(dataset.photos):,} photos, each class in proportion, seed {seed}."
    return dataset.subset([dataset.photos[row] for row in rows]), [note]


def _possible(kind: str, count: int, notes: list[str]) -> str:
    """The kind of map that can be made; a note tells why it is another than was asked for."""
    if kind == "tsne" and count < ENOUGH:
        notes.append(f"{count} photos are too few for a t-SNE ({ENOUGH} at least), so this is PCA.")
        return "pca"
    if kind == "tsne" and importlib.util.find_spec("sklearn") is None:
        notes.append("t-SNE needs scikit-learn (pip install scikit-learn), so this is PCA.")
        return "pca"
    return kind


def _collected(
    subject: Subject, dataset: Dataset, layer: str, store: Store | None, step: Step
) -> tuple[Matrix, Thumbnails, list[int]]:
    """Features and thumbnails of the photos that can be read, and which these are."""
    known = _known(subject, dataset, layer, store, step)
    kept, small, rows, waiting = list[int](), list[Any](), list[Any](), list[Any]()
    for row, listed in enumerate(dataset.photos):
        if known is not None and np.isnan(known[row, 0]):
            continue  # it could not be read
        try:
            source = dataset.fetch(listed)
            picture = thumbnail(source)
            if known is None:
                waiting.append(subject.photo(source).pixels)
        except ImageRejected:
            continue
        kept.append(row)
        small.append(picture)
        if len(waiting) == CHUNK:
            rows += _recorded(subject, layer, waiting)
            waiting.clear()
            step(row + 1, len(dataset.photos), "features")
    if waiting:
        rows += _recorded(subject, layer, waiting)
    features = np.array(rows, np.float32).reshape(len(kept), -1) if known is None else known[kept]
    return features, np.array(small, np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL, 3), kept


def _known(subject: Subject, dataset: Dataset, layer: str, store: Store | None, step: Step) -> Matrix | None:
    """Features by the fast engine, or as they are stored, NaN of photos that cannot be read; None: not an output."""
    if subject.classifier is None or layer not in subject.classifier.backbone.lengths:
        return None
    survey = survey_photos(
        dataset,
        backbone=subject.classifier.backbone,
        cuts=(layer,),
        engine=subject.classifier.engine,
        store=store,
        threads=subject.threads,
        progress=_Told(step, len(dataset.photos)),
    )
    features = survey.features[layer].copy()
    readable = np.array([facts.rejected is None for facts in survey.facts])
    if not np.isfinite(features[readable]).all():
        raise _no_number(subject, layer)
    return features


class _Told:
    """A counter of `survey_photos` that tells a `Step`."""

    def __init__(self, step: Step, of: int) -> None:
        self._step, self._of, self._done = step, of, 0

    def advance(self, units: int = 1) -> None:
        self._done += units
        self._step(self._done, self._of, "features")


def _recorded(subject: Subject, layer: str, photos: Sequence[Any]) -> list[Any]:
    """A layer's values after its activation, the mean over their places, by torch."""
    import torch

    from headstart.explain.recording import record

    with torch.no_grad():
        x = torch.from_numpy(subject.preprocessing.normalise(np.stack(photos)))
        after = record(subject, x, (layer,))[1][layer].after
    if after.ndim not in (2, 4):
        raise unknown_layer(subject, layer)
    return list((after.mean(dim=(2, 3)) if after.ndim == 4 else after).numpy())


def thumbnail(source: bytes | UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "side side 3"]:
    """The middle square of a photo, small. Raises ImageRejected."""
    image = Image.fromarray(np.array(decode(source, target=THUMBNAIL).pixels))
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    box = left, top, left + side, top + side
    return np.asarray(image.resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS, box=box))


def principal(features: Float[np.ndarray, "photos features"]) -> Places:
    """The two axes along which the photos differ most (PCA), each turned so that its largest value is above 0."""
    centred = features.astype(np.float64) - features.astype(np.float64).mean(axis=0)
    values, vectors = np.linalg.eigh(centred @ centred.T)  # of photos, which are fewer than features
    places = vectors[:, [-1, -2]] * np.sqrt(np.maximum(values[[-1, -2]], 0.0))
    largest = places[np.abs(places).argmax(axis=0), [0, 1]]
    return np.asarray(places * np.where(largest < 0, -1.0, 1.0))


def upright(places: Places) -> Places:
    """The map turned about, nothing else: its longest way across lies along the first axis."""
    return principal(places)


def stochastic(features: Float[np.ndarray, "photos features"], seed: int) -> Places:
    """Places by t-SNE, from those of the main axes. Needs scikit-learn."""
    from sklearn.manifold import TSNE

    first = principal(features)
    first = first / max(float(first[:, 0].std()), 1e-12) * 1e-4  # small, as t-SNE wants it
    perplexity = min(PERPLEXITY, (len(features) - 1) / 3)
    made = TSNE(2, perplexity=perplexity, init=first.astype(np.float32), random_state=seed, n_jobs=1)
    return np.asarray(made.fit_transform(features), np.float64)


def _trusted(features: Matrix, maps: dict[str, Places], seed: int) -> dict[str, float]:
    neighbours = min(NEIGHBOURS, (len(features) - 1) // 2)
    at_random = np.random.default_rng(seed).random((len(features), 2))
    told = {name: trustworthiness(features, places, neighbours) for name, places in maps.items()}
    return told | {"random": trustworthiness(features, at_random, neighbours)}


def _alike(features: Matrix, places: Places, main: Places, labels: Int64[np.ndarray, "photos"]) -> dict[str, float]:
    return {
        "features": agreement(features, labels),
        "map": agreement(places, labels),
        "pca": agreement(main, labels),
        "chance": chance(labels),
    }


def unlabelled(name: str, photos: Sequence[str], root: Any) -> Dataset:
    """A data set of photos without labels: paths relative to a folder."""
    return Dataset(name, root, ("",), tuple(Photo(path, 0) for path in photos))
