"""What helps an overfitting or underfitting model, and by how much: each remedy measured on photos held out.

Every measure here compares two classifiers photo by photo on the same photos, none of which either has seen, and gives
the difference with its 95 % interval. Nothing is trained but heads on features; features, views and the results of
fine-tuning come from outside.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int64

from headstart import heads
from headstart.errors import UsageError
from headstart.heads import FittedHead
from headstart.heads.checks import check
from headstart.heads.ridge import STRENGTHS, ridge_path
from headstart.heads.spectrum import decompose
from headstart.metrics import difference_interval
from headstart.transfer.forecast import LearningCurve
from headstart.transfer.held_out import HeldOut

OVERFITTING = ("more photos", "augmentation", "another backbone", "regularisation", "less complexity")  # in this order
UNDERFITTING = ("more complexity", "another backbone", "less regularisation", "less augmentation", "more photos")
COMPONENTS = (16, 32, 64, 128, 256)  # principal axes kept by `try_components`


@dataclass(frozen=True)
class Remedy:
    """One remedy and what it would bring.

    Args:
        name: of `OVERFITTING` or `UNDERFITTING`.
        gain: accuracy expected less that of now, -1..1; None: not measured, and `sentence` says why.
        low, high: ends of its 95 % interval.
        sentence: for a person, with the numbers.
        command: what applies it.
        seconds: that measuring it took.
    """

    name: str
    gain: float | None
    low: float | None
    high: float | None
    sentence: str
    command: str
    seconds: float

    @property
    def sure(self) -> bool:
        """Whether chance does not explain the gain: the whole interval lies above 0."""
        return self.low is not None and self.low > 0

    def to_json(self) -> dict[str, Any]:
        """As plain values; gains are differences of accuracies, 0.01 is a point."""
        return {
            "remedy": self.name,
            "gain": self.gain,
            "gain_ci95": None if self.gain is None else [self.low, self.high],
            "sentence": self.sentence,
            "command": self.command,
            "seconds": round(self.seconds, 3),
        }


def rank(remedies: Sequence[Remedy]) -> tuple[Remedy, ...]:
    """The best first: those whose gain is sure, then those that chance may explain, then those not measured.

    Among the first two kinds the larger expected gain goes first; what is equal stays in the order given.
    """
    return tuple(sorted(remedies, key=lambda remedy: (remedy.gain is None, not remedy.sure, -(remedy.gain or 0.0))))


def of_more_photos(curve: LearningCurve, *, each: int, command: str) -> Remedy:
    """`each` more photos of every class: what the learning curve forecasts.

    Args:
        curve: measured on the training photos.
        each: photos added to each class, >= 1.
        command: what to do.
    """
    if not curve.measured:
        sentence = (
            f"More photos: {len(curve.labels):,} training photos are too few to measure how the accuracy grows with "
            "their number."
        )
        return Remedy("more photos", None, None, None, sentence, command, curve.seconds)
    told = curve.forecast_more(each)
    sentence = (
        f"More photos: {told.sentence()}, a gain of {100 * told.gain:.1f} points "
        f"({100 * told.gain_low:.1f} to {100 * told.gain_high:.1f})."
    )
    return Remedy("more photos", told.gain, told.gain_low, told.gain_high, sentence, command, curve.seconds)


def of_augmentation(
    features: Float32[np.ndarray, "photos length"],
    views: Float32[np.ndarray, "views others columns"],
    labels: Int64[np.ndarray, "photos"],
    classes: int,
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    fitted: FittedHead | None = None,
    command: str,
) -> Remedy:
    """Augmented views of each photo beside the photo: ridge fitted with and without them, judged on plain photos.

    A photo is held out together with its views and its near duplicates, exactly (see `heads.ridge.Path.held_out`).

    Args:
        features: of the plain photos.
        views: of the augmented views; view k of photo i at [k, i].
        labels, classes, folds, clusters: as for `heads.fit_head`.
        fitted: the ridge head of the plain photos, where it is known already.
        command: what applies it.

    Raises:
        UsageError: the views are not of these photos.
    """
    begun = time.perf_counter()
    if views.shape[1:] != features.shape or not len(views):
        raise UsageError(f"views must be (views, {len(features)}, {features.shape[1]}); received {views.shape}")
    groups = np.arange(len(labels)) if clusters is None else clusters
    if fitted is None:
        fitted = heads.fit_head("ridge", features, labels, classes, folds=folds, clusters=groups)
    times = len(views) + 1
    everything = np.concatenate([features[None], views]).reshape(-1, features.shape[1])
    augmented = heads.fit_head(
        "ridge",
        everything,
        np.tile(labels, times),
        classes,
        folds=np.tile(folds, times),
        clusters=np.tile(groups, times),
    )
    before = np.asarray(fitted.held_out.argmax(axis=1) == labels)
    after = np.asarray(augmented.held_out[: len(labels)].argmax(axis=1) == labels)
    what = f"Augmentation, {len(views)} view{'s' * (len(views) != 1)} of each photo"
    seconds = time.perf_counter() - begun
    return _compare("augmentation", what, before, after, groups, command, seconds)


def of_backbone(
    now: HeldOut,
    others: Mapping[str, HeldOut],
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    commands: Mapping[str, str],
    seconds: float,
) -> Remedy:
    """Another pretrained network: its probe against that of the present one.

    Args:
        now: the present classifier.
        others: name -> the same for each candidate, on the same photos. The one with the lowest log loss is named.
        folds: part of each photo; the gain is that of choosing on the other parts (`choose_on_folds`).
        clusters: near duplicates have the same number.
        commands: name -> what applies it.
        seconds: that measuring took, features included.
    """
    return _best_of("another backbone", now, others, folds, clusters, commands, seconds)


def of_regularisation(
    now: HeldOut,
    others: Mapping[str, HeldOut],
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    commands: Mapping[str, str],
    seconds: float,
    less: bool = False,
) -> Remedy:
    """Stronger regularisation: a larger penalty (`try_strengths`), dropout, batch normalisation.

    Args:
        now, others, folds, clusters, commands, seconds: as for `of_backbone`.
        less: the others are regularised less than now: the reverse, for a model that underfits.
    """
    name = "less regularisation" if less else "regularisation"
    return _best_of(name, now, others, folds, clusters, commands, seconds)


def of_less_complexity(
    now: HeldOut,
    others: Mapping[str, HeldOut],
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    commands: Mapping[str, str],
    seconds: float,
    more: bool = False,
) -> Remedy:
    """A smaller model: an earlier cut, fewer features (`try_components`), fewer blocks trained.

    Args:
        now, others, folds, clusters, commands, seconds: as for `of_backbone`.
        more: the others are larger than now: the reverse, for a model that underfits.
    """
    name = "more complexity" if more else "less complexity"
    return _best_of(name, now, others, folds, clusters, commands, seconds)


def try_strengths(
    features: Float32[np.ndarray, "photos length"],
    labels: Int64[np.ndarray, "photos"],
    classes: int,
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    strengths: Sequence[float] = STRENGTHS,
) -> dict[float, HeldOut]:
    """Ridge at each strength of its penalty, every photo left out with its near duplicates; one decomposition for all.

    Args:
        features, labels, classes, folds, clusters: as for `heads.fit_head`.
        strengths: > 0, times the number of features.
    """
    material = check(features, labels, classes, folds, None, clusters, 0)
    path = ridge_path(material, features)
    return {strength: HeldOut.of(path.held_out(strength, material.groups), labels) for strength in strengths}


def try_components(
    features: Float32[np.ndarray, "photos length"],
    labels: Int64[np.ndarray, "photos"],
    classes: int,
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    counts: Sequence[int] = COMPONENTS,
) -> dict[int, HeldOut]:
    """Ridge on the first principal components of the features, so many of them; each photo left out.

    The components come from all photos; labels have no part in them.

    Args:
        features, labels, classes, folds, clusters: as for `heads.fit_head`.
        counts: of components; those that the features do not have are left out.
    """
    rotated = decompose(features, np.ones(len(features))).rotated[:, ::-1]  # the largest first
    return {
        count: HeldOut.of(
            heads.fit_head("ridge", rotated[:, :count], labels, classes, folds=folds, clusters=clusters).held_out,
            labels,
        )
        for count in counts
        if count < rotated.shape[1]
    }


def choose_on_folds(candidates: Sequence[HeldOut], folds: Int64[np.ndarray, "photos"]) -> Bool[np.ndarray, "photos"]:
    """Whether each photo is right when the candidate with the lowest log loss on the other parts answers it.

    The best of several on the same photos would be flattered by its luck there; so nobody is judged by photos it was
    chosen on (nested cross-validation; Cawley and Talbot 2010, JMLR 11, 2079).
    """
    losses = np.stack([candidate.losses for candidate in candidates])
    correct = np.stack([candidate.correct for candidate in candidates])
    answered = np.empty(len(folds), bool)
    for part in sorted(set(folds.tolist())):
        inside = folds == part
        best = int((losses @ ~inside).argmin())
        answered[inside] = correct[best, inside]
    return answered


def paired_gain(
    before: Bool[np.ndarray, "photos"],
    after: Bool[np.ndarray, "others"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
) -> tuple[float, float, float]:
    """Accuracy gained from `before` to `after` on the same photos, with its 95 % interval.

    The interval is that of `metrics.difference_interval` (Bonett and Price 2012). Where photos have near duplicates it
    is widened by the ratio of the standard errors with whole clusters and with single photos (Cameron and Miller 2015,
    J. Hum. Resour. 50, 317, section II).

    >>> before, after = np.arange(100) < 80, np.arange(100) < 90
    >>> gain, low, high = paired_gain(before, after)
    >>> f"{gain:.2f} {low:.2f} {high:.2f}"
    '0.10 0.03 0.16'
    """
    if before.shape != after.shape or not len(before):
        raise UsageError(f"a paired gain needs the same photos twice; received {len(before)} and {len(after)}")
    fixed, broken = int((after & ~before).sum()), int((before & ~after).sum())
    gain = (fixed - broken) / len(before)
    low, high = difference_interval(fixed, broken, len(before))
    wider = _design_effect(after.astype(np.float64) - before - gain, clusters)
    middle, reach = (low + high) / 2, (high - low) / 2 * wider
    return gain, max(-1.0, middle - reach), min(1.0, middle + reach)


def _design_effect(apart: Float64[np.ndarray, "photos"], clusters: Int64[np.ndarray, "photos"] | None) -> float:
    """How many times larger the standard error is when clusters, not photos, are independent; 1 or more."""
    single = float(np.square(apart).sum())
    if clusters is None or single == 0:
        return 1.0
    together = np.bincount(np.unique(clusters, return_inverse=True)[1], apart)
    return max(1.0, math.sqrt(float(np.square(together).sum()) / single))


def _best_of(
    name: str,
    now: HeldOut,
    others: Mapping[str, HeldOut],
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None,
    commands: Mapping[str, str],
    seconds: float,
) -> Remedy:
    """The remedy that consists in choosing among others."""
    title = name[0].upper() + name[1:]
    if not others:
        return Remedy(name, None, None, None, f"{title}: nothing else to try here.", "", seconds)
    best = min(others, key=lambda other: float(others[other].losses.mean()))
    then = choose_on_folds(list(others.values()), folds)
    return _compare(name, f"{title}, {best}", now.correct, then, clusters, commands.get(best, ""), seconds)


def _compare(
    name: str,
    what: str,
    before: Bool[np.ndarray, "photos"],
    after: Bool[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None,
    command: str,
    seconds: float,
) -> Remedy:
    gain, low, high = paired_gain(before, after, clusters)
    sentence = (
        f"{what}: {100 * before.mean():.1f} % -> {100 * after.mean():.1f} %, {100 * gain:+.1f} points "
        f"({100 * low:+.1f} to {100 * high:+.1f}), on {len(before):,} held-out photos"
        + ("; chance may explain it." if low <= 0 <= high else ".")
    )
    return Remedy(name, gain, low, high, sentence, command, seconds)
