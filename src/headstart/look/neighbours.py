"""Whether a map in two dimensions shows who is near whom: trustworthiness, and labels among the nearest."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from headstart.errors import UsageError

NEAREST = 5  # photos whose labels are compared with a photo's own


def distances(points: Float[np.ndarray, "points axes"]) -> Float64[np.ndarray, "points points"]:
    """Squared Euclidean distances; a point is infinitely far from itself."""
    exact = points.astype(np.float64) - points.astype(np.float64).mean(axis=0)
    lengths = np.square(exact).sum(axis=1)
    far = np.maximum(lengths[:, None] + lengths[None] - 2 * exact @ exact.T, 0.0)
    np.fill_diagonal(far, np.inf)
    return np.asarray(far)


def trustworthiness(
    points: Float[np.ndarray, "points axes"], places: Float[np.ndarray, "points 2"], neighbours: int = 10
) -> float:
    """How far the neighbours on a map are neighbours in truth: 1 all of them; about 0.5 on a map at random.

    `1 - 2 / (n k (2n - 3k - 1)) * sum over i and the k nearest j of i on the map of max(0, rank(i, j) - k)`, where
    rank(i, j) is 1 for the nearest of i in truth: Venna & Kaski 2001, "Neighborhood preservation in nonlinear
    projection methods", equation 2.

    Args:
        points: in truth.
        places: on the map.
        neighbours: k, at least 1 and below half of the points.

    Raises:
        UsageError: too few points for so many neighbours.
    """
    count = len(points)
    if not 1 <= neighbours < count / 2:
        raise UsageError(
            f"the trustworthiness of {count} points takes 1 to {(count - 1) // 2} neighbours, not {neighbours}"
        )
    order = np.argsort(distances(points), axis=1, kind="stable")
    ranks = np.empty_like(order)
    np.put_along_axis(ranks, order, np.arange(1, count + 1)[None].repeat(count, axis=0), axis=1)
    near = np.argsort(distances(places), axis=1, kind="stable")[:, :neighbours]
    beyond = np.maximum(np.take_along_axis(ranks, near, axis=1) - neighbours, 0).sum()
    return float(1 - 2 * beyond / (count * neighbours * (2 * count - 3 * neighbours - 1)))


def agreement(
    points: Float[np.ndarray, "points axes"], labels: Int64[np.ndarray, "points"], neighbours: int = NEAREST
) -> float:
    """Share of the nearest points that have the same label, mean over the points, 0..1; by chance `chance(labels)`."""
    near = np.argsort(distances(points), axis=1, kind="stable")[:, : min(neighbours, len(points) - 1)]
    return float((labels[near] == labels[:, None]).mean())


def chance(labels: Int64[np.ndarray, "points"]) -> float:
    """How often another point, taken at random, has the same label as a point.

    >>> chance(np.array([0, 0, 1, 1]))
    0.3333333333333333
    """
    counts = np.bincount(labels).astype(np.float64)
    return float((counts * (counts - 1)).sum() / (len(labels) * (len(labels) - 1)))
