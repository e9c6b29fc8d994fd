"""What more photos would bring: a learning curve measured on stored features, carried on with an honest interval."""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headstart.errors import UsageError
from headstart.heads.blas import one_thread
from headstart.heads.checks import check, distinct
from headstart.heads.ridge import fit_ridge
from headstart.metrics import Z95, accuracy_interval
from headstart.transfer.power_law import PowerLaw, fit_law
from headstart.transfer.subsamples import LAST, deal, prepare_ridge, worthwhile_repeats

PARTS = (8, 4, 2)  # the photos are dealt into so many parts, each of which is learned from alone
LEAST_PART = 8  # photos in a part, and two a class on average: fewer say nothing about more
LUCK = 0.15  # variance of the accuracy over which photos are learned from, in parts of p (1 - p) / their number


@dataclass(frozen=True)
class CurvePoint:
    """Accuracy on held-out photos when so many are learned from.

    Args:
        photos: learned from, on average.
        accuracy: 0..1, with its Wilson 95 % interval.
        repeats: classifiers that it is the mean of.
    """

    photos: float
    accuracy: float
    low: float
    high: float
    repeats: int

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "photos": round(self.photos, 1),
            "accuracy": self.accuracy,
            "accuracy_ci95": [self.low, self.high],
            "classifiers": self.repeats,
        }


@dataclass(frozen=True)
class Forecast:
    """The accuracy to expect with so many photos, 0..1, and the ends of its 95 % interval.

    The interval is of the accuracy itself, as a test on endless photos would find it.
    """

    photos: int
    accuracy: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {"photos": self.photos, "accuracy": self.accuracy, "accuracy_ci95": [self.low, self.high]}


@dataclass(frozen=True)
class ClassForecast:
    """The share of a class's photos that are recognised (its recall), now and with more photos, 0..1."""

    label: int
    photos: int
    now: float
    then: float
    low: float
    high: float

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "photos": self.photos,
            "now": self.now,
            "then": self.then,
            "then_ci95": [self.low, self.high],
        }


@dataclass(frozen=True)
class MoreForecast:
    """What more photos of each class would bring.

    Args:
        each: photos added to each class.
        photos: learned from then, in all.
        now: accuracy by the law with the photos there are.
        then: accuracy expected, with its 95 % interval `low` to `high`.
        gain: then - now, with its own 95 % interval (`LearningCurve.gain`).
        classes: the same for each class with photos.
    """

    each: int
    photos: int
    now: float
    then: float
    low: float
    high: float
    gain: float
    gain_low: float
    gain_high: float
    classes: tuple[ClassForecast, ...]

    def sentence(self) -> str:
        """One line for a person."""
        return (
            f"{self.each:,} more photo{'s' * (self.each != 1)} of each: {100 * self.now:.1f} % -> "
            f"{100 * self.then:.1f} % ({100 * self.low:.1f} to {100 * self.high:.1f})"
        )

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """As plain values, classes by their names."""
        return {
            "each": self.each,
            "photos": self.photos,
            "now": self.now,
            "then": self.then,
            "then_ci95": [self.low, self.high],
            "gain": self.gain,
            "gain_ci95": [self.gain_low, self.gain_high],
            "sentence": self.sentence(),
            "classes": {names[entry.label]: entry.to_json() for entry in self.classes},
        }


@dataclass(frozen=True, eq=False)
class LearningCurve:
    """Held-out accuracy over the number of photos learned from, and the laws that explain it.

    Args:
        points: ascending in photos; the last is of seven eighths of the photos.
        law: fitted to them.
        labels: of the photos, 0..
        wrong: how often each photo was wrong when held out, 0..1, at each point.
        clusters: near duplicates have the same number.
        seconds: wall time.
    """

    points: tuple[CurvePoint, ...]
    law: PowerLaw
    labels: Int64[np.ndarray, "photos"]
    wrong: Float64[np.ndarray, "photos points"]
    clusters: Int64[np.ndarray, "photos"]
    seconds: float

    @property
    def measured(self) -> bool:
        """Whether there are two points or more; else a forecast rests on what other data showed alone."""
        return len(self.points) > 1

    def forecast(self, photos: int) -> Forecast:
        """The accuracy to expect with so many photos of the same kind, in the same mixture of classes.

        Args:
            photos: to learn from, in all, >= 1. The further from what was measured, the wider the interval.
        """
        _check_positive("photos", photos)
        error, low, high = self.law.error(photos)
        return Forecast(photos, 1 - error, 1 - high, 1 - low)

    def gain(self, photos: int) -> tuple[float, float, float]:
        """Accuracy that so many photos in all would add to that of now, with the ends of its 95 % interval.

        The law is of the mean over all sets of so many photos. A user has one set and will add one other, so the
        interval is widened (root of the sum of squares) by the luck of both: `LUCK`, as measured by
        `benchmarks/forecast.py`.
        """
        _check_positive("photos", photos)
        now = len(self.labels)
        gain, low, high = self.law.gain(now, photos)
        spread = sum(error * (1 - error) / count for count in (now, photos) for error, _, _ in [self.law.error(count)])
        luck = Z95 * math.sqrt(LUCK * spread)
        return gain, gain - math.hypot(gain - low, luck), gain + math.hypot(high - gain, luck)

    def forecast_more(self, each: int) -> MoreForecast:
        """What `each` more photos of every class would bring, in all and class by class.

        Overall the law of the whole curve is followed; a class follows a law of its own over its own photos.

        Args:
            each: photos to add to each class, >= 1.
        """
        _check_positive("each", each)
        counts = np.bincount(self.labels)
        present = np.flatnonzero(counts)
        photos = len(self.labels) + each * len(present)
        now, _, _ = self.law.error(len(self.labels))
        then, low, high = self.law.error(photos)
        gain, least, most = self.gain(photos)
        classes = []
        for label in present.tolist():
            law, count = self.class_laws[label], int(counts[label])
            error, best, worst = law.error(count + each)
            classes.append(ClassForecast(label, count, 1 - law.error(count)[0], 1 - error, 1 - worst, 1 - best))
        return MoreForecast(each, photos, 1 - now, 1 - then, 1 - high, 1 - low, gain, least, most, tuple(classes))

    def to_json(self) -> dict[str, Any]:
        """The points, the law and a forecast for twice the photos."""
        return {
            "points": [point.to_json() for point in self.points],
            **self.law.to_json(),
            "twice": self.forecast(2 * len(self.labels)).to_json(),
            "seconds": round(self.seconds, 3),
        }

    @cached_property
    def class_laws(self) -> dict[int, PowerLaw]:
        """The law of each class with photos, over its own photos."""
        sizes = np.array([point.photos for point in self.points])
        laws = {}
        for label in sorted(set(self.labels.tolist())):
            own = self.labels == label
            count = int(own.sum())
            laws[label] = _law(sizes * count / len(own), self.wrong[own], self.clusters[own])
        return laws


def learning_curve(
    features: Float32[np.ndarray, "photos length"],
    labels: Int64[np.ndarray, "photos"],
    classes: int,
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    seed: int = 0,
    parts: Sequence[int] = PARTS,
    repeats: int | None = None,
    strength: float | None = None,
) -> LearningCurve:
    """Measure how the accuracy grows with the number of photos, on features that are there already.

    All photos are dealt into 8 parts, every class evenly and near duplicates together; a ridge head is fitted to each
    part alone and judged on all the photos outside it. Then the same with 4 parts, which are pairs of the 8, and with
    2: nested subsamples. For the last point a head is fitted to each seven of the 8 parts and judged on the eighth. So
    every photo is judged equally often at every size, and the points differ by the number of photos learned from and by
    nothing else. The last point is not leave-one-out: a class that lacks the one photo left out is a little rarer than
    the others, and that tells against this photo, the more the fewer photos there are of a class.

    The strength of the penalty is chosen once, on all photos: in absolute size it belongs to the features, not to the
    number of photos (it is the ratio of noise to signal; Hoerl and Kennard 1970, Technometrics 12, 55).

    Args:
        features: of one cut, finite.
        labels: 0..classes-1.
        classes: how many there are.
        folds: as for `heads.fit_head`, which chooses the strength.
        clusters: near duplicates have the same number; None: there are none.
        seed: of the dealing.
        parts: how many parts the photos are dealt into, descending; numbers that leave too few photos are left out.
        repeats: of the whole dealing; None: as many as are worth their time.
        strength: of the ridge penalty for these photos, where it is known already (`FittedHead.strength`).

    Raises:
        UsageError, DataError: as `heads.fit_head`.
    """
    begun = time.perf_counter()
    material = check(features, labels, classes, folds, None, clusters, seed)
    if strength is None:
        strength = fit_ridge(material).strength
    groups, count = material.groups, len(labels)
    independent = len(distinct(groups))
    usable = [number for number in parts if independent >= number * max(LEAST_PART, 2 * classes)]
    last = min(LAST, independent)
    repeats = worthwhile_repeats(features, classes, usable) if repeats is None else repeats
    random = np.random.default_rng(seed)
    plan = [*((number, False) for number in usable), (last, True)]
    with one_thread():
        ridge = prepare_ridge(features, labels, classes, float(strength or 0.0))
        counts = sum(ridge.judge(deal(labels, groups, random), plan) for _ in range(repeats))
    wrong = counts / (repeats * np.array([*(number - 1 for number in usable), 1]))
    sizes = [*(count / number for number in usable), count * (1 - 1 / last)]
    points = [
        _point(size, share, count, repeats * number)
        for size, share, number in zip(sizes, wrong.mean(axis=0), [*usable, last], strict=True)
    ]
    law = _law(np.array(sizes), wrong, groups)
    return LearningCurve(tuple(points), law, labels, wrong, groups, time.perf_counter() - begun)


def _check_positive(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"a forecast needs {name} of 1 or more; received {value}")


def _point(photos: float, wrong: float, count: int, classifiers: int) -> CurvePoint:
    accuracy = 1 - float(wrong)
    low, high = accuracy_interval(round(accuracy * count), count)
    return CurvePoint(photos, accuracy, min(low, accuracy), max(high, accuracy), classifiers)


def _law(
    sizes: Float64[np.ndarray, "points"],
    wrong: Float64[np.ndarray, "photos points"],
    clusters: Int64[np.ndarray, "photos"],
) -> PowerLaw:
    """The law behind shares of wrong photos; clusters, not photos, are independent of each other."""
    inside = np.unique(clusters, return_inverse=True)[1]
    apart = wrong - wrong.mean(axis=0)
    together = np.zeros((int(inside.max()) + 1, len(sizes)))
    np.add.at(together, inside, apart)
    single = float(np.square(apart).sum())
    design = max(1.0, float(np.square(together).sum()) / single) if single else 1.0
    covariance = together.T @ together / len(wrong) ** 2
    return fit_law(sizes, wrong.mean(axis=0), covariance, judged=len(wrong) / design)
