"""The law of a learning curve, error(n) = a + b n^-c, with everything that the measured points leave open about it."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from headstart.errors import UsageError

LEVELS, REACH = 40, 5.0  # values tried for the error at the last point, and standard errors to either side
FLOORS = np.arange(16) / 16  # tried for a, as a share of the error at the last point
EXPONENTS = np.geomspace(0.05, 2.0, 33)  # tried for c
USUAL_EXPONENT, EXPONENT_SPREAD = 0.5, 0.7  # median and log-scale deviation of c before anything is measured
USUAL_FLOOR = 2.0  # before anything is measured a weight of (1 - a / error)^this: floors are low more often than high
BENT = 0.03  # of the error for each halving of the photos: how far a true curve may leave the law there
LEAST_WRONG = 1.5  # standard error of a count, at least: none among n may be one that happens up to 3 times in n
TOGETHER = 1.4  # times the variance of a binomial share: heads that learned from the same photos err together
MIDDLE95 = (0.025, 0.975)


@dataclass(frozen=True, eq=False)
class PowerLaw:
    """All laws error(n) = a + b n^-c with a, b, c >= 0, each with the weight that measured points leave it.

    One best law would tell nothing of how far it can be trusted: the points of a small set fit a law that goes down to
    nothing and one that stays where it is about equally well. So none is chosen. The law is that of Hestness et al.
    2017 (arXiv:1712.00409, section 2) with the irreducible error of Cortes et al. 1993 (Learning curves, NIPS 6).

    Args:
        photos: number at the last measured point, n0.
        errors: tried for error(n0), 0..1.
        weights: of each combination of error(n0), a / error(n0) in `FLOORS` and c in `EXPONENTS`; their sum is 1.
    """

    photos: float
    errors: Float64[np.ndarray, "errors"]
    weights: Float64[np.ndarray, "errors floors exponents"]

    def error(self, photos: float | int) -> tuple[float, float, float]:
        """Error at a number of photos: mean, and the ends of its 95 % interval."""
        remaining = self.errors[:, None, None] * _remaining(photos / self.photos)
        return _describe(remaining, self.weights)

    def gain(self, photos: float | int, more: float | int) -> tuple[float, float, float]:
        """Error at `photos` less that at `more` photos: mean, and the ends of its 95 % interval."""
        saved = _remaining(photos / self.photos) - _remaining(more / self.photos)
        return _describe(self.errors[:, None, None] * saved, self.weights)

    def to_json(self) -> dict[str, Any]:
        """The means of a, b and c, and the 95 % interval of c."""
        level = float(np.einsum("efc,e->", self.weights, self.errors))
        floor = float(np.einsum("efc,e,f->", self.weights, self.errors, FLOORS))
        exponent, low, high = _describe(np.broadcast_to(EXPONENTS, self.weights.shape), self.weights)
        scale = (level - floor) * self.photos**exponent
        return {"law": "error = a + b n^-c", "a": floor, "b": scale, "c": exponent, "c_ci95": [low, high]}


def fit_law(
    photos: Float64[np.ndarray, "points"],
    errors: Float64[np.ndarray, "points"],
    covariance: Float64[np.ndarray, "points points"],
    *,
    judged: float | int,
) -> PowerLaw:
    """Weigh every law by how well it explains measured errors (Bayes' rule on a grid).

    The error of the last point is a share of `judged` photos and as uncertain as such a share is (the binomial with the
    prior of Jeffreys 1946; Brown, Cai and DasGupta 2001, Stat. Sci. 16, 101): no error in 20 photos does not mean that
    there is none at all. The other points were measured on the same photos, so they are taken together with it, as
    Gaussian with the covariance given: the differences are known better than the level. A true curve is no power law
    where photos are very few: each halving away from the last point lets it leave the law by `BENT` of its error.

    Before any point, c is log-normal around 0.5 and low floors are likelier than high ones. How well forecasts and
    intervals hold is measured by `benchmarks/forecast.py`.

    Args:
        photos: at each point, > 0, ascending.
        errors: share of held-out photos that were wrong, 0..1.
        covariance: of these shares, from the photos they were measured on.
        judged: how many independent photos the last error is a share of, > 0.

    Raises:
        UsageError: no point, or numbers of photos that are not ascending.
    """
    if not len(photos) or photos[0] <= 0 or (np.diff(photos) <= 0).any():
        raise UsageError(f"a law needs points at ascending numbers of photos, at least one; received {photos.tolist()}")
    judged, covariance = judged / TOGETHER, covariance * TOGETHER
    levels = _levels(float(errors[-1]), judged)
    score = judged * (errors[-1] * np.log(levels) + (1 - errors[-1]) * np.log1p(-levels))
    score = score[:, None, None] - 0.5 * _misfit(photos, errors, covariance, levels, judged)
    weights = np.exp(score - score.max()) * _usual()
    return PowerLaw(float(photos[-1]), levels, weights / weights.sum())


def _levels(error: float, judged: float | int) -> Float64[np.ndarray, "levels"]:
    """Errors to try: evenly spread after the arcsine of the root, which is the prior of Jeffreys."""
    reach = REACH / (2 * np.sqrt(judged))
    middle = np.arcsin(np.sqrt(error))
    angles = np.linspace(max(middle - reach, 0.0), min(middle + reach, np.pi / 2), LEVELS + 1)
    return np.asarray(np.sin((angles[:-1] + angles[1:]) / 2) ** 2)


def _misfit(
    photos: Float64[np.ndarray, "points"],
    errors: Float64[np.ndarray, "points"],
    covariance: Float64[np.ndarray, "points points"],
    levels: Float64[np.ndarray, "levels"],
    judged: float | int,
) -> Float64[np.ndarray, "levels floors exponents"]:
    """Squared distance of the earlier points from each law, in standard errors, given how far off the last one is."""
    if len(photos) == 1:
        return np.zeros((len(levels), len(FLOORS), len(EXPONENTS)))
    last = covariance[-1, -1]
    follow = covariance[:-1, -1] / last if last > 0 else np.zeros(len(photos) - 1)  # the last one's error in the others
    bent = BENT * np.log2(photos[-1] / photos[:-1]) * errors[:-1]
    least = (LEAST_WRONG / judged) ** 2
    own = covariance[:-1, :-1] - np.outer(follow, covariance[-1, :-1]) + np.diag(bent**2 + least)
    laws = np.stack([_remaining(count / photos[-1]) for count in photos[:-1]], axis=-1)
    apart = errors[:-1] - levels[:, None, None, None] * laws
    apart -= (errors[-1] - levels)[:, None, None, None] * follow
    return np.asarray(np.einsum("lfcp,lfcp->lfc", apart @ np.linalg.inv(own), apart))


def _remaining(times: float) -> Float64[np.ndarray, "floors exponents"]:
    """Share of the last point's error that is left at so many times its photos, by each law."""
    return np.asarray(FLOORS[:, None] + (1 - FLOORS[:, None]) * times**-EXPONENTS)


def _usual() -> Float64[np.ndarray, "floors exponents"]:
    """What is expected before anything is measured. The exponents tried are evenly spread on a log scale."""
    score = np.log(EXPONENTS / USUAL_EXPONENT) / EXPONENT_SPREAD
    return np.asarray((1 - FLOORS[:, None]) ** USUAL_FLOOR * np.exp(-0.5 * score**2))


def _describe(
    values: Float64[np.ndarray, "*grid"], weights: Float64[np.ndarray, "*grid"]
) -> tuple[float, float, float]:
    """Weighted mean, and the weighted quantiles between which 95 % lies."""
    order = np.argsort(values, axis=None)
    heights = np.cumsum(weights.ravel()[order])
    ends = np.searchsorted(heights, np.array(MIDDLE95) * heights[-1])
    low, high = values.ravel()[order[np.minimum(ends, len(order) - 1)]].tolist()
    return float((values * weights).sum() / heights[-1]), low, high
