"""Features turned into the axes of their scatter: there ridge is a division, and logistic regression well scaled."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64

from headstart.heads.blas import one_thread

BLOCK = 4096  # photos a time
DOUBLE = 1 << 22  # rotated features up to so many numbers are kept in float64, more in float32
NOTHING = 1e-10  # axes with less than this part of the largest scatter hold rounding errors


@dataclass(frozen=True, eq=False)
class Spectrum:
    """Features centred, divided by one number, and rotated so that their weighted scatter is diagonal.

    One number for all features, not one each: on the pooled features of a net a feature that hardly varies is noise,
    and dividing by its own deviation makes it loud (`benchmarks/heads.py` compares them).

    Args:
        mean: weighted mean of each feature.
        scale: root of the mean weighted variance, so that strengths mean the same for any features.
        basis: orthonormal axes, the one with the largest scatter last.
        scatter: weighted sum of squares along each axis.
        rotated: the features along each axis; float32 where they are many.
    """

    mean: Float64[np.ndarray, "features"]
    scale: float
    basis: Float64[np.ndarray, "features axes"]
    scatter: Float64[np.ndarray, "axes"]
    rotated: Float[np.ndarray, "photos axes"]

    def unfold(
        self, slopes: Float[np.ndarray, "axes classes"], intercept: Float[np.ndarray, "classes"]
    ) -> tuple[Float64[np.ndarray, "classes features"], Float64[np.ndarray, "classes"]]:
        """Weight and bias for the features as they came, from those for the rotated ones."""
        weight = (self.basis @ slopes.astype(np.float64)).T / self.scale
        return np.ascontiguousarray(weight), intercept - weight @ self.mean


def decompose(features: Float[np.ndarray, "photos features"], weights: Float64[np.ndarray, "photos"]) -> Spectrum:
    """Return the spectrum of some features.

    With fewer photos than features the products of photos with photos are decomposed, else those of features with
    features: the cost is min(photos, features)^3 + photos features min(photos, features).

    Args:
        features: finite.
        weights: how much each photo counts, >= 0, not all 0.
    """
    count, length = features.shape
    mean = np.zeros(length)
    for rows in _blocks(count):
        mean += weights[rows] @ features[rows].astype(np.float64)
    mean /= weights.sum()
    scatter, basis = (_by_photos if count < length else _by_features)(features, weights, mean)
    total = float(np.maximum(scatter, 0).sum())
    scale = float(np.sqrt(total / weights.sum() / length)) or 1.0
    kept = scatter > NOTHING * max(float(scatter.max(initial=0.0)), np.finfo(np.float64).tiny)
    basis = np.ascontiguousarray(basis[:, kept])
    kind = np.float64 if count * basis.shape[1] <= DOUBLE else np.float32
    rotated = np.empty((count, basis.shape[1]), kind)
    scaled = (basis / scale).astype(kind)
    for rows in _blocks(count):
        rotated[rows] = np.matmul((features[rows] - mean).astype(kind), scaled)
    return Spectrum(mean, scale, basis, np.ascontiguousarray(scatter[kept]) / scale**2, rotated)


def _blocks(count: int) -> list[slice]:
    return [slice(at, at + BLOCK) for at in range(0, count, BLOCK)]


def _by_photos(
    features: Float[np.ndarray, "photos features"],
    weights: Float64[np.ndarray, "photos"],
    mean: Float64[np.ndarray, "features"],
) -> tuple[Float64[np.ndarray, "axes"], Float64[np.ndarray, "features axes"]]:
    centred = (features - mean) * np.sqrt(weights)[:, None]
    with one_thread():
        scatter, vectors = np.linalg.eigh(centred @ centred.T)
    length = np.sqrt(np.maximum(scatter, np.finfo(np.float64).tiny))
    return scatter, centred.T @ (vectors / length)


def _by_features(
    features: Float[np.ndarray, "photos features"],
    weights: Float64[np.ndarray, "photos"],
    mean: Float64[np.ndarray, "features"],
) -> tuple[Float64[np.ndarray, "axes"], Float64[np.ndarray, "features axes"]]:
    total = np.zeros((features.shape[1], features.shape[1]))
    for rows in _blocks(len(features)):
        centred = (features[rows] - mean) * np.sqrt(weights[rows])[:, None]
        total += centred.T @ centred
    with one_thread():
        scatter, basis = np.linalg.eigh(total)
    return scatter, basis
