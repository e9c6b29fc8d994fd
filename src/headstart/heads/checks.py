"""What a head is fitted to, checked once, with a message for what does not fit."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, Integer

from headstart.errors import DataError, UsageError
from headstart.heads.model import ROOT, root

LARGEST = 1e8  # features of a net are of the order of 1; beyond this they come from somewhere else or are damaged
OFFSET = 0.02  # of the root, times the mean size of a feature


@dataclass(frozen=True, eq=False)
class Material:
    """Checked training material.

    Args:
        features: finite, |x| <= 1e8.
        labels: 0..classes-1; at least two classes occur.
        classes: how many there are, occurring or not.
        folds: 0.., the part that a photo is held out with; at least two.
        groups: photos with the same number are held out together where photos are held out singly.
        weights: how much each photo counts, mean 1.
        seed: of the heads that draw.
    """

    features: Float[np.ndarray, "photos features"]
    labels: Int64[np.ndarray, "photos"]
    classes: int
    folds: Int64[np.ndarray, "photos"]
    groups: Int64[np.ndarray, "photos"]
    weights: Float64[np.ndarray, "photos"]
    seed: int

    def transformed(self, kind: str) -> tuple[Float[np.ndarray, "photos features"], dict[str, float]]:
        """Features as a head of this kind takes them, and the settings that say how."""
        if not kind.startswith(ROOT):
            return self.features, {}
        offset = float(np.float32(OFFSET * np.abs(self.features).mean(dtype=np.float64)))
        return root(self.features, offset), {"root_offset": offset}

    @property
    def counts(self) -> Int64[np.ndarray, "classes"]:
        """Photos of each class."""
        return np.bincount(self.labels, minlength=self.classes)


def check(
    features: np.ndarray,
    labels: np.ndarray,
    classes: int,
    folds: np.ndarray,
    sample_weights: np.ndarray | None,
    clusters: np.ndarray | None,
    seed: int,
) -> Material:
    """Return the material, or say what is wrong with it.

    Raises:
        UsageError: the arrays do not belong together.
        DataError: features that are not finite or beyond 1e8, a label out of range, fewer than two classes or folds.
    """
    if features.ndim != 2 or features.dtype.kind != "f" or 0 in features.shape:
        raise UsageError(f"features must be a (photos, features) array of floats; received {_said(features)}")
    count = len(features)
    _check_values(features)
    labels = _integers("labels", labels, count)
    outside = np.flatnonzero((labels < 0) | (labels >= classes))
    if len(outside):
        raise DataError(
            f"{len(outside)} of {count} labels are outside 0..{classes - 1} (the first: {labels[outside[0]]} of photo "
            f"{outside[0]}); give each photo the number of its class"
        )
    weights = _check_weights(sample_weights, count)
    if len(distinct(labels[weights > 0])) < 2:
        raise DataError(f"a head needs photos of two or more classes; all {count} are of one; add photos of another")
    folds = _integers("folds", folds, count)
    if folds.min(initial=0) < 0 or len(distinct(folds)) < 2:
        raise DataError(
            f"folds must be numbers from 0 with at least two different ones; received {np.unique(folds)[:5]}"
        )
    groups = np.arange(count) if clusters is None else _integers("clusters", clusters, count)
    if len(distinct(groups)) < 2:
        raise DataError(f"all {count} training photos are near duplicates of one another; add different photos")
    for what, parts in (("fold", folds), ("cluster", groups)):
        shares = np.bincount(np.unique(parts, return_inverse=True)[1], weights)
        if shares.max() >= weights.sum():
            raise DataError(f"all the weight of the training photos lies in one {what}; nothing is left when it is out")
    return Material(features, labels, int(classes), folds, groups, weights, seed)


def _check_values(features: Float[np.ndarray, "photos features"]) -> None:
    # A NaN compares as false, so it counts as bad; the largest of each row first, as most matrices are sound.
    top = np.abs(features).max(axis=1)
    bad = np.flatnonzero(~(top <= LARGEST))
    if len(bad):
        value = "not finite" if not np.isfinite(top[bad[0]]) else f"as large as {top[bad[0]]:.3g}"
        raise DataError(
            f"the features of {len(bad)} of {len(features)} photos are unusable (the first: photo {bad[0]}, {value}); "
            f"expected finite values up to {LARGEST:g}; leave these photos out or compute their features again"
        )


def _check_weights(weights: np.ndarray | None, count: int) -> Float64[np.ndarray, "photos"]:
    if weights is None:
        return np.ones(count)
    sound = weights.shape == (count,) and weights.dtype.kind in "fiu" and np.isfinite(weights).all()
    if not sound or weights.min() < 0 or weights.sum() <= 0:
        raise UsageError(f"sample_weights must be {count} finite numbers >= 0, not all 0; received {_said(weights)}")
    return np.asarray(weights, np.float64) * (count / float(weights.sum(dtype=np.float64)))


def _integers(name: str, values: np.ndarray, count: int) -> Int64[np.ndarray, "photos"]:
    if values.shape != (count,) or values.dtype.kind not in "iu":
        raise UsageError(f"{name} must be {count} whole numbers, one a photo; received {_said(values)}")
    return values.astype(np.int64, copy=False)


def _said(values: np.ndarray) -> str:
    return f"{values.dtype} of shape {values.shape}"


def distinct(numbers: Int64[np.ndarray, "n"]) -> Int64[np.ndarray, "distinct"]:
    """The different numbers, in order: `np.unique`, which imports `numpy.ma` the first time, 0.04 s of a fresh process.

    >>> distinct(np.array([3, 1, 3]))
    array([1, 3])
    """
    return np.array(sorted(set(numbers.tolist())), np.int64)


def one_hot(labels: Integer[np.ndarray, "photos"], classes: int) -> Float64[np.ndarray, "photos classes"]:
    """One row a photo: 1 at its class, 0 elsewhere."""
    rows = np.zeros((len(labels), classes))
    rows[np.arange(len(labels)), labels] = 1
    return rows
