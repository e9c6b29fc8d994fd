"""What each cut of a backbone knows of the user's classes: a linear probe a cut, judged on photos it has not seen."""

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

from headstart.errors import UsageError
from headstart.heads import SMALL, FittedHead
from headstart.heads.blas import one_thread
from headstart.heads.calibration import tempered_losses
from headstart.heads.checks import Material, check
from headstart.heads.model import ROOT
from headstart.heads.ridge import choose, ridge_path
from headstart.metrics import accuracy_interval

LAST = "pooled"  # the cut behind all convolutions: what a new last layer is fitted to
ROUNDING = 1e-5  # nats; cuts whose features are the same but for rounding differ by less


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear probe on the features of one cut, every photo judged by a probe that has not seen it.

    Args:
        cut: where the features were taken.
        length: of a photo's feature vector.
        accuracy: share of the photos that are right, 0..1.
        low, high: its Wilson 95 % interval.
        log_loss: mean of `losses`, nats.
        losses: log loss of each photo at the probe's own temperature, nats, times the photo's weight (mean 1).
        strength: of the penalty, chosen by the same held-out log loss.
        seconds: wall time of the fit, without that of the features.
        correct: whether each photo was right.
        scores: the held-out logits behind it all.
        clusters: near duplicates have the same number; None: no photo has a near duplicate.
    """

    cut: str
    length: int
    accuracy: float
    low: float
    high: float
    log_loss: float
    losses: Float64[np.ndarray, "photos"] = field(repr=False)
    strength: float
    seconds: float
    correct: Bool[np.ndarray, "photos"] = field(repr=False)
    scores: Float[np.ndarray, "photos classes"] = field(repr=False)
    clusters: Int64[np.ndarray, "photos"] | None = field(default=None, repr=False)

    def to_json(self) -> dict[str, Any]:
        """Return everything but the values of single photos."""
        return {
            "cut": self.cut,
            "length": self.length,
            "photos": len(self.losses),
            "accuracy": self.accuracy,
            "accuracy_ci95": [self.low, self.high],
            "log_loss": self.log_loss,
            "strength": self.strength,
            "seconds": round(self.seconds, 4),
        }


def probe_cuts(
    features: Mapping[str, Float32[np.ndarray, "photos _"]],
    labels: Int64[np.ndarray, "photos"],
    classes: int,
    *,
    folds: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"] | None = None,
    sample_weights: Float64[np.ndarray, "photos"] | None = None,
) -> tuple[Probe, ...]:
    """Fit a linear probe at every cut and judge it on held-out photos (Alain & Bengio 2016, arXiv:1610.01644).

    The probe is ridge regression. One decomposition a cut gives its predictions without any part of the photos, exactly
    and without a second fit: the strength is chosen by leaving out photos singly, and the probe is judged by leaving
    out folds. Judged singly it would look far worse where a class has few photos: without one of four the class is
    rarer than the others, and the probe leans away from it. The cuts are visited one after the other: a mapping that
    reads a matrix when it is asked for holds one at a time.

    Args:
        features: cut -> features of the training photos, finite; a probe is made for each, in this order.
        labels: 0..classes-1.
        classes: how many there are.
        folds: the part each photo is held out with, every class in every part where it can be.
        clusters: near duplicates have the same number; they are left out together, with the fold of the first. None: no
            photo has a near duplicate.
        sample_weights: how much each photo counts in fit and log loss, >= 0; None: all the same. The accuracy is that
            of the photos, unweighted.

    Returns:
        One probe a cut, in the order of the mapping.

    Raises:
        UsageError: no cut is given, or the arrays do not belong together.
        DataError: the features or labels cannot be used (see `headstart.heads.fit_head`).

    >>> random, labels = np.random.default_rng(0), np.arange(40) % 2
    >>> noise = random.normal(size=(40, 3)).astype(np.float32)
    >>> telling = noise + 4 * labels[:, None].astype(np.float32)
    >>> probes = probe_cuts({"stem": noise, "pooled": telling}, labels, 2, folds=np.arange(40) % 5)
    >>> [(probe.cut, probe.length) for probe in probes], probes[1].accuracy
    ([('stem', 3), ('pooled', 3)], 1.0)
    """
    if not features:
        raise UsageError("no cut to probe; give the features of at least one")
    probes = []
    for cut in features:
        start = time.perf_counter()
        material = check(features[cut], labels, classes, folds, sample_weights, clusters, 0)
        with _threads(material):
            path = ridge_path(material, material.features)
            strength = choose(path, material, "ridge").strength
            scores = path.held_out(strength, _parts(material))
        length = material.features.shape[1]
        probes.append(_probe(cut, length, scores, labels, material.weights, strength, start, clusters))
    return tuple(probes)


def judge_head(
    cut: str,
    fitted: FittedHead,
    labels: Int64[np.ndarray, "photos"],
    *,
    features: Float32[np.ndarray, "photos length"] | None = None,
    folds: Int64[np.ndarray, "photos"] | None = None,
    clusters: Int64[np.ndarray, "photos"] | None = None,
    sample_weights: Float64[np.ndarray, "photos"] | None = None,
) -> Probe:
    """Judge a fitted head of any kind as a probe is judged: each photo by a head that was fitted without its fold.

    Ridge, whose held-out answers leave photos out singly, predicts the folds again, from `features`. The other kinds
    are judged by their held-out answers as they are, and so is ridge without `features`.

    Args:
        cut: where its features were taken.
        fitted: from `headstart.heads.fit_head`.
        labels, features, folds, clusters, sample_weights: what it was fitted with.
    """
    start = time.perf_counter() - fitted.seconds
    kind, strength, scores = fitted.head.kind, float(fitted.strength or 0), fitted.held_out
    if features is not None and folds is not None and kind in ("ridge", ROOT + "ridge"):
        material = check(features, labels, scores.shape[1], folds, sample_weights, clusters, 0)
        with _threads(material):
            path = ridge_path(material, material.transformed(kind)[0])
            scores = path.held_out(strength, _parts(material)).astype(np.float32)
    weights = np.ones(len(labels)) if sample_weights is None else sample_weights / sample_weights.mean()
    return _probe(cut, fitted.head.length, scores, labels, weights, strength, start, clusters)


def _threads(material: Material) -> AbstractContextManager[None]:
    """One thread where the products are small, as in `headstart.heads.fit_head`."""
    count, length = material.features.shape
    return one_thread() if count * length * min(count, length) < SMALL else nullcontext()


def _parts(material: Material) -> Int64[np.ndarray, "photos"]:
    """The fold of each photo; of near duplicates that of the first, so that none is judged by its own copy."""
    _, first, inside = np.unique(material.groups, return_index=True, return_inverse=True)
    return np.asarray(material.folds[first][inside])


def _probe(
    cut: str,
    length: int,
    scores: Float[np.ndarray, "photos classes"],
    labels: Int64[np.ndarray, "photos"],
    weights: Float64[np.ndarray, "photos"],
    strength: float,
    start: float,
    clusters: Int64[np.ndarray, "photos"] | None,
) -> Probe:
    losses = tempered_losses(scores, labels) * weights
    correct = np.asarray(scores.argmax(axis=1) == labels)
    low, high = accuracy_interval(int(correct.sum()), len(correct))
    return Probe(
        cut=cut,
        length=length,
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        log_loss=float(losses.mean()),
        losses=losses,
        strength=strength,
        seconds=time.perf_counter() - start,
        correct=correct,
        scores=scores,
        clusters=clusters,
    )


def lower_by(new: Probe, old: Probe) -> tuple[float, float]:
    """How much lower the held-out log loss of one probe is than that of another on the same photos.

    Returns:
        The mean difference over photos in nats, above 0 where `new` is better, and its standard error.

    Raises:
        UsageError: the probes are not of the same photos.
    """
    if len(new.losses) != len(old.losses):
        raise UsageError(
            f"two probes are compared photo by photo; {new.cut} has {len(new.losses)}, {old.cut} {len(old.losses)}: "
            "probe both on the same photos"
        )
    return mean_and_error(old.losses - new.losses, new.clusters)


def mean_and_error(
    values: Float64[np.ndarray, "photos"], clusters: Int64[np.ndarray, "photos"] | None = None
) -> tuple[float, float]:
    """Mean over photos and its standard error; near duplicates count as one observation.

    The cluster-robust variance of a mean: Cameron & Miller 2015, J. Hum. Resour. 50, 317-372, section II.
    """
    apart = values - values.mean()
    if clusters is not None:
        apart = np.bincount(np.unique(clusters, return_inverse=True)[1], apart)
    return float(values.mean()), math.sqrt(float(np.square(apart).sum())) / len(values)


def _clearly_better(new: Probe, old: Probe) -> bool:
    gain, error = lower_by(new, old)
    right, unsure = mean_and_error(new.correct.astype(np.float64) - old.correct, new.clusters)
    return gain > max(error, ROUNDING) and right >= -unsure


def best_cut(probes: Sequence[Probe], last: str = LAST) -> tuple[Probe, str]:
    """Choose the cut for a new last layer: the last one, unless another is clearly better.

    Another is clearly better where its held-out log loss is lower by more than one standard error of the difference,
    photo by photo, and its accuracy is not lower by more than one. Of those the one with the lowest log loss is taken;
    of equal ones the first.

    Call it twice: with the probes of all cuts, and, where they name another one, with `judge_head` of the heads that
    would be used at both. A head that is better than ridge helps the long features of the last cut most; without the
    second question a choice by probes can cost more than it brings (`benchmarks/cuts.py`).

    Args:
        probes: of the same photos, that of `last` among them.
        last: the cut that stands where nothing speaks against it.

    Returns:
        The probe of the chosen cut, and a sentence that says why.

    Raises:
        UsageError: `last` was not probed, or the probes are not of the same photos.
    """
    known = {probe.cut: probe for probe in probes}
    if last not in known:
        raise UsageError(f"the cut {last!r} was not probed; probed: {', '.join(known) or 'none'}")
    stands = known[last]
    others = sorted((probe for probe in probes if probe.cut != last), key=lambda probe: probe.log_loss)
    if not others:
        return stands, f"Cut {last}: no other was probed."
    for probe in others:
        if _clearly_better(probe, stands):
            gain, error = lower_by(probe, stands)
            return probe, (
                f"Cut {probe.cut} instead of {last}: its held-out log loss is {probe.log_loss:.3f} against "
                f"{stands.log_loss:.3f}, lower by {gain:.3f} with a standard error of {error:.3f} over "
                f"{len(probe.losses):,} training photos; accuracy {_percent(probe)} against {_percent(stands)}."
            )
    gain, error = lower_by(others[0], stands)
    return stands, (
        f"Cut {last}: no other has a held-out log loss that is lower by more than one standard error, and no lower "
        f"accuracy. {last} has {stands.log_loss:.3f}, the best of the others, {others[0].cut}, "
        f"{others[0].log_loss:.3f} ({'lower' if gain > 0 else 'higher'} by {abs(gain):.3f}, standard error "
        f"{error:.3f}); accuracy {_percent(stands)} against {_percent(others[0])}."
    )


def _percent(probe: Probe) -> str:
    return f"{100 * probe.accuracy:.1f} %"
