"""Heads: the last layers of a classifier, fitted to features in closed form or in seconds, with held-out evidence."""

from collections.abc import Callable
from contextlib import nullcontext

import numpy as np
from jaxtyping import Float, Float64, Int64

from headstart.errors import UsageError
from headstart.heads.auto import fit_auto
from headstart.heads.blas import one_thread
from headstart.heads.calibration import fit_temperature, probabilities
from headstart.heads.checks import Material, check
from headstart.heads.layers import head_layers
from headstart.heads.logistic import fit_logistic
from headstart.heads.mlp import fit_mlp
from headstart.heads.model import TRAINED, FittedHead, Head
from headstart.heads.neighbours import fit_centroid, fit_knn
from headstart.heads.ridge import fit_ridge

__all__ = [
    "HEADS", "TRAINED", "FittedHead", "Head", "balanced_weights", "fit_head", "fit_temperature", "head_layers",
    "probabilities",
]  # fmt: skip

SMALL = 2e9  # multiplications of the largest product, 0.05 s: below, a second thread costs more than it brings

# What a function is called with: checked material, and the name under which it stands here.
HEADS: dict[str, Callable[[Material, str], FittedHead]] = {
    "ridge": fit_ridge,
    "logistic": fit_logistic,
    "root-ridge": fit_ridge,
    "root-logistic": fit_logistic,
    "centroid": fit_centroid,
    "knn": fit_knn,
    "mlp": fit_mlp,
}


def fit_head(
    kind: str,
    features: Float[np.ndarray, "photos features"],
    labels: Int64[np.ndarray, "photos"],
    classes: int,
    *,
    folds: Int64[np.ndarray, "photos"],
    sample_weights: Float64[np.ndarray, "photos"] | None = None,
    clusters: Int64[np.ndarray, "photos"] | None = None,
    seed: int = 0,
) -> FittedHead:
    """Fit a head, choosing its strength on photos that the judged model has not seen.

    "auto" chooses between ridge and logistic regression, on the features or on their roots, by held-out log loss (see
    `headstart.heads.auto.fit_auto`). The same arguments give the same head, on any number of threads up to rounding.

    Args:
        kind: a name of `HEADS`, or "auto".
        features: of one cut, finite, at most 1e8.
        labels: 0..classes-1; classes without a photo are allowed, as long as two have one.
        classes: how many logits the head gives.
        folds: the part each photo is held out with; near duplicates in the same one. Used by the kinds that are fitted
            again for each part: logistic, centroid, mlp.
        sample_weights: how much each photo counts, >= 0; None: all the same. `balanced_weights` makes every class count
            the same. The candidates are compared by the log loss weighted so.
        clusters: near duplicates have the same number. Ridge and knn leave photos out one at a time, and with a photo
            its cluster; None: no photo has a near duplicate.
        seed: of the random numbers of "mlp"; the other kinds draw none.

    Returns:
        The head, held-out logits of every photo, the strength chosen, and every candidate tried.

    Raises:
        UsageError: the kind is unknown, or the arrays do not belong together.
        DataError: features that are not finite or too large, labels out of range, fewer than two classes or folds.

    >>> features = np.array([[0.0, 1.0], [0.2, 0.9], [1.0, 0.1], [0.9, 0.0]])
    >>> fitted = fit_head("ridge", features, np.array([0, 0, 1, 1]), 2, folds=np.array([0, 1, 0, 1]))
    >>> fitted.head.logits(features).argmax(axis=1)
    array([0, 0, 1, 1])
    """
    if kind != "auto" and kind not in HEADS:
        raise UsageError(f"unknown head {kind!r}; known: auto, {', '.join(HEADS)}")
    material = check(features, labels, classes, folds, sample_weights, clusters, seed)
    count, length = features.shape
    with one_thread() if count * length * min(count, length) < SMALL else nullcontext():
        return fit_auto(material) if kind == "auto" else HEADS[kind](material, kind)


def balanced_weights(labels: Int64[np.ndarray, "photos"], classes: int) -> Float64[np.ndarray, "photos"]:
    """Weight of each photo such that every class that occurs has the same total; the mean is 1.

    >>> balanced_weights(np.array([0, 0, 0, 1]), 2)
    array([0.66666667, 0.66666667, 0.66666667, 2.        ])
    """
    counts = np.bincount(labels, minlength=classes)
    return np.asarray(len(labels) / (np.count_nonzero(counts) * counts[labels].astype(np.float64)))
