"""How similar photos are to those a backbone was trained on, by the statistics that its batch norms remember.

While a net was trained, every batch norm kept the mean and the variance of each channel: a summary of the photos of the
training, layer by layer. The same numbers of new photos are compared with it; none of the training photos is needed.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headstart.backbones import Backbone
from headstart.backbones.conversion import STATISTICS, NormLayer
from headstart.errors import DataError, UsageError
from headstart.metrics import Z95
from headstart.transfer.probes import LAST, Probe

__all__ = [
    "DIFFERENT", "SIMILAR", "SIMILARITY_VERSION", "STATISTICS", "LayerDistance", "Similarity", "choose_photos",
    "measure_similarity", "similarity_from_probes",
]  # fmt: skip

SIMILAR = 0.1  # nats; up to here photos count as similar,
DIFFERENT = 0.4  # and from here as different: see `Similarity`
SIMILARITY_VERSION = "1"  # part of what a kept result is found by: raise it when the same photos may give another
LIMIT = 48  # photos measured: as many as the thresholds need; more only narrow the interval
LEAST = 16  # photos below which the measure says little
DRAWS = 200  # of the bootstrap
BATCH_NORM = "batch norm"  # names of the two measures
PROBES = "probes"
FLOOR = 1e-2  # a variance counts as at least this share of the reference: photos of one colour have none
DEAD = 1e-6  # a channel whose reference has less than this share of its layer's largest variance is left out
LIKE_DIFFERENT = 1.1  # a log loss so many times that of an earlier cut counts as a distance of `DIFFERENT`
TINY = 1e-6  # nats: the least log loss that is divided by
LARGEST = 5.0  # of the logarithm of a place on the scale: beyond, a quotient says no more


@dataclass(frozen=True)
class LayerDistance:
    """How far the photos are from the training at one layer.

    Args:
        name: of the batch norm in the net; where probes are compared, the cut.
        stage: the cut it belongs to.
        value: median over its channels of the symmetric divergence; of a probe, its log loss. Nats, >= 0.
    """

    name: str
    stage: str
    value: float


@dataclass(frozen=True)
class Similarity:
    """How far photos are from those of the training, with a verdict.

    The thresholds were set on ten sets of photos by linear probes at every cut (`benchmarks/similarity.py --probes`).
    Those where the last cut has clearly the lowest held-out log loss (animals) are nearest; then come those where an
    earlier one is about even (clothes, hand signs, tiny photos); furthest those where an earlier one is clearly better
    (characters, digits, blood cells). Each threshold lies in the gap between two of these groups, at the rounded
    geometric mean of its ends. One set does not fit, solar panels, which are far and still best told apart at the last
    cut: the distance says what to expect, and the probes what is.

    Args:
        value: mean of the layers' distances, nats, >= 0; 0 for photos with the statistics of the training.
        low, high: 95 % interval over the choice of photos.
        layers: every layer in the order of the net.
        photos: measured.
        measure: "batch norm", or "probes" for a backbone without.
        verdict: "similar" (value <= SIMILAR), "different" (value >= DIFFERENT), or "in between".
        note: what else is to be said, a sentence; often nothing.
    """

    value: float
    low: float
    high: float
    layers: tuple[LayerDistance, ...]
    photos: int
    measure: str
    verdict: str
    note: str = ""

    @property
    def stages(self) -> dict[str, float]:
        """Stage -> mean of the distances of its layers: the profile over depth."""
        found: dict[str, list[float]] = {}
        for layer in self.layers:
            found.setdefault(layer.stage, []).append(layer.value)
        return {stage: math.fsum(values) / len(values) for stage, values in found.items()}

    def to_json(self) -> dict[str, Any]:
        """Return every field, the profile over depth, the thresholds and the sentence, as JSON can hold them."""
        thresholds = {"similar": SIMILAR, "different": DIFFERENT}
        layers = [asdict(layer) for layer in self.layers]
        more = {"layers": layers, "stages": self.stages, "thresholds": thresholds, "why": self.why()}
        return asdict(self) | more

    def to_store(self) -> dict[str, Any]:
        """Return every field, as JSON can hold them, for `from_store`."""
        return asdict(self)

    @classmethod
    def from_store(cls, values: Mapping[str, Any]) -> "Similarity":
        """What `to_store` gave.

        >>> plain = Similarity(0.5, 0.4, 0.6, (LayerDistance("stem.norm", "stem", 0.5),), 64, "batch norm", "different")
        >>> Similarity.from_store(plain.to_store()) == plain
        True
        """
        layers = tuple(LayerDistance(**layer) for layer in values["layers"])
        return cls(**{**values, "layers": layers})

    def why(self) -> str:
        """Return the verdict with its numbers and thresholds, for people."""
        rule = f"similar is up to {SIMILAR:g}, different from {DIFFERENT:g}"
        number = f"{self.value:.3f} ({self.low:.3f} to {self.high:.3f})"
        if self.measure == BATCH_NORM:
            text = (
                f"The photos are {_PHRASE[self.verdict]} those the backbone was trained on: the statistics of its "
                f"batch norms differ by {number} nats over {self.photos} photos; {rule}."
            )
            stages = self.stages
            furthest = max(stages, key=lambda stage: stages[stage])
            if self.verdict != "similar" and len(stages) > 1:
                text += f" Most at {furthest} ({stages[furthest]:.2f})."
        else:
            text = (
                "This backbone has no batch norm to compare photos with, so another measure is used, whether an "
                "earlier cut tells the classes apart better than the last one: by it the photos are "
                f"{_PHRASE[self.verdict]} those it was trained on, {number} over {self.photos} photos; {rule}."
            )
        return f"{text} {self.note}".rstrip()


_PHRASE = {
    "similar": "similar to",
    "in between": "neither similar to nor different from",
    "different": "different from",
}


def choose_photos(
    labels: Int64[np.ndarray, "photos"], limit: int = LIMIT, seed: int = 0
) -> Int64[np.ndarray, "sample"]:
    """Choose photos to measure: each class in proportion, at random within a class; the same every time.

    The photos are put in the order of their classes, shuffled within each, and taken at equal distances (systematic
    sampling: Cochran 1977, Sampling Techniques, ch. 8). Of each class come as many as its share asks for, up or down
    by one.

    Args:
        labels: class of each photo.
        limit: how many at most, >= 1.
        seed: of the shuffling.

    Returns:
        Numbers of the chosen photos, ascending.

    Raises:
        UsageError: `limit` is below 1.

    >>> labels = np.repeat([0, 1], [600, 300])
    >>> np.bincount(labels[choose_photos(labels, limit=30)]).tolist()
    [20, 10]
    """
    if limit < 1:
        raise UsageError(f"the photos to choose must be 1 or more; received {limit}")
    count = len(labels)
    order = np.lexsort((np.random.default_rng(seed).random(count), labels))
    if count > limit:
        order = order[(2 * np.arange(limit) + 1) * count // (2 * limit)]
    return np.sort(order)


def measure_similarity(
    backbone: Backbone, statistics: Float32[np.ndarray, "photos length"], seed: int = 0
) -> Similarity:
    """Compare photos with those a backbone was trained on, by the statistics of its batch norms.

    At each batch norm and channel, two normal distributions are compared: that of the training, N(m0, v0) with the
    layer's running mean and variance, and that of the photos, N(m, v), over all photos and pixels. Their divergence is
    Kullback & Leibler's (1951, Ann. Math. Stat. 22, 79-86, section 2), the mean of both directions:
    `((v/v0 + v0/v - 2) + (m - m0)^2 (1/v + 1/v0)) / 4`. It does not change under an affine map, so it may be taken
    after the batch norm as before it: there, the training has the mean `beta` and the variance
    `gamma^2 v0 / (v0 + eps)`. The value of a layer is the median over its channels, so that a few odd ones do not
    decide; the value of the whole is the mean over the layers.

    Few photos look further away than they are, because their own statistics are uncertain; the bootstrap over photos
    shows by how much, and that is taken off (Efron & Tibshirani 1993, An Introduction to the Bootstrap, sections 10.2
    and 13.3).

    Args:
        backbone: with batch norms.
        statistics: the output "statistics" of its engine, finite, >= 1 photo.
        seed: of the bootstrap.

    Returns:
        The value with a 95 % interval, the layers, the verdict.

    Raises:
        UsageError: the backbone has no batch norm, or the numbers are not of this backbone.
        DataError: there is no photo, or the numbers are not finite.
    """
    _check(backbone, statistics)
    tensors = backbone.tensors()
    count = len(statistics)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), DRAWS) / count
    shares = np.vstack([np.full((1, count), 1 / count), drawn])  # each photo once, then as it was drawn
    found, place = [], 0
    for norm in backbone.norms:
        found.append(_distances(shares @ statistics[:, place : place + 2 * norm.channels], *_reference(norm, tensors)))
        place += 2 * norm.channels
    plain, again = np.array(found)[:, 0], np.array(found)[:, 1:]
    layers = plain * _ratio(plain, again.mean(axis=1))  # drawn from the photos they are further away, by as much again
    value, together = float(layers.mean()), again.mean(axis=0)
    low, high = (value * _ratio(np.quantile(together, q), together.mean()) for q in (0.025, 0.975))
    return Similarity(
        value=value,
        low=float(low),
        high=float(high),
        layers=tuple(
            LayerDistance(norm.name, norm.stage, float(distance))
            for norm, distance in zip(backbone.norms, layers, strict=True)
        ),
        photos=count,
        measure=BATCH_NORM,
        verdict=_verdict(value),
        note=f"Only {count} photos: the number is uncertain." if count < LEAST else "",
    )


def _check(backbone: Backbone, statistics: Float32[np.ndarray, "photos length"]) -> None:
    if not backbone.norms:
        raise UsageError(f"{backbone.name} has no batch norm to compare photos with; use similarity_from_probes")
    if statistics.shape[1] != backbone.lengths[STATISTICS]:
        raise UsageError(
            f"the statistics of {backbone.name} are {backbone.lengths[STATISTICS]:,} numbers a photo; received "
            f"{statistics.shape[1]:,}; take the output {STATISTICS!r} of its engine"
        )
    if not len(statistics):
        raise DataError("no photo to measure the similarity of; give one or more that can be read")
    if not np.isfinite(statistics).all():
        raise DataError("the statistics hold numbers that are not finite; leave out the rows of unreadable photos")


def _reference(
    norm: NormLayer, tensors: Mapping[str, np.ndarray]
) -> tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """Mean and variance of what a batch norm puts out on the photos of the training."""
    spread = tensors[f"{norm.name}.running_var"].astype(np.float64)
    gamma = np.asarray(tensors.get(f"{norm.name}.weight", np.ones(norm.channels)), np.float64)
    beta = np.asarray(tensors.get(f"{norm.name}.bias", np.zeros(norm.channels)), np.float64)
    return beta, gamma**2 * spread / (spread + norm.epsilon)


def _distances(
    moments: Float64[np.ndarray, "draws moments"],
    mean: Float64[np.ndarray, "channels"],
    variance: Float64[np.ndarray, "channels"],
) -> Float64[np.ndarray, "draws"]:
    """Median over the channels of a layer of the divergence from the reference, for several draws of photos.

    Args:
        moments: mean of each channel, then mean of the squares of each.
        mean, variance: of the reference.
    """
    alive = variance > DEAD * variance.max()
    if not alive.any():
        return np.zeros(len(moments))
    means, squares = (part[:, alive] for part in np.split(moments, 2, axis=1))
    spread = np.maximum((squares - means**2) / variance[alive], FLOOR)  # both measured with the reference as the unit
    apart = (means - mean[alive]) ** 2 / variance[alive]
    return np.asarray(np.median(symmetric_divergence(apart, spread), axis=1))


def symmetric_divergence(
    apart: Float64[np.ndarray, "*shape"], spread: Float64[np.ndarray, "*shape"]
) -> Float64[np.ndarray, "*shape"]:
    """Mean of both Kullback-Leibler divergences between N(0, 1) and N(m, v), nats.

    `((v - 1)^2 / v + m^2 (1 + 1/v)) / 4`

    Args:
        apart: m^2, >= 0.
        spread: v, > 0.

    >>> symmetric_divergence(np.array([0.0, 1.0]), np.array([1.0, 1.0])).tolist()
    [0.0, 0.5]
    """
    return np.asarray(((spread - 1) ** 2 / spread + apart * (1 + 1 / spread)) / 4)


def _ratio(above: Any, below: Any) -> Any:
    """The quotient; 1 where both are 0, as for a layer without a living channel."""
    return np.divide(above, below, out=np.ones_like(np.asarray(above, float)), where=np.asarray(below) > 0)


def _verdict(value: float) -> str:
    if value <= SIMILAR:
        return "similar"
    return "different" if value >= DIFFERENT else "in between"


def similarity_from_probes(probes: Sequence[Probe], last: str = LAST) -> Similarity:
    """Judge the similarity for a backbone without batch norm: does an earlier cut beat the last one?

    Where photos are unlike those of the training, the last layers are too special for them, and earlier features tell
    their classes apart as well or better (Yosinski et al. 2014, arXiv:1411.1792). The held-out log loss of the last cut
    is divided by the lowest one of the earlier cuts. To be told by the same thresholds, the quotient is put on their
    scale: 1 lies midway between them, on a logarithmic scale, and `LIKE_DIFFERENT` at `DIFFERENT`.

    Args:
        probes: linear probes of the same photos, one a cut; see `headstart.transfer.probes.probe_cuts`.
        last: the last cut.

    Returns:
        The verdict; `layers` are the cuts with their log losses. The interval is that of the quotient over photos, near
        duplicates counted as one (delta method: Cochran 1977, Sampling Techniques, section 6.3).

    Raises:
        UsageError: `last` was not probed, or no cut besides.
    """
    known = {probe.cut: probe for probe in probes}
    if last not in known:
        raise UsageError(f"the cut {last!r} was not probed; probed: {', '.join(known) or 'none'}")
    end = known[last]
    # the means of the last map are the pooled features once more
    earlier = [probe for probe in probes if probe.cut != last and not _same(probe, end)]
    if not earlier:
        raise UsageError(f"similarity needs a probe of a cut before {last!r}; probed: {', '.join(known)}")
    best = min(earlier, key=lambda probe: probe.log_loss)
    quotient = math.log(max(end.log_loss, TINY) / max(best.log_loss, TINY))
    error = _error_of_log_quotient(end, best)
    value, low, high = (_on_the_scale(number) for number in (quotient, quotient - Z95 * error, quotient + Z95 * error))
    return Similarity(
        value=value,
        low=low,
        high=high,
        layers=tuple(LayerDistance(probe.cut, probe.cut, probe.log_loss) for probe in probes),
        photos=len(end.losses),
        measure=PROBES,
        verdict=_verdict(value),
        note=f"The log loss is {end.log_loss:.3f} at {last} and {best.log_loss:.3f} at {best.cut}.",
    )


def _same(probe: Probe, other: Probe) -> bool:
    return probe.length == other.length and bool(np.allclose(probe.losses, other.losses, rtol=1e-3, atol=1e-6))


def _error_of_log_quotient(above: Probe, below: Probe) -> float:
    """Standard error of the logarithm of the quotient of two mean losses on the same photos."""
    parts = above.losses / max(above.log_loss, TINY) - below.losses / max(below.log_loss, TINY)
    apart = parts - parts.mean()
    if above.clusters is not None:
        apart = np.bincount(np.unique(above.clusters, return_inverse=True)[1], apart)
    return math.sqrt(float(np.square(apart).sum())) / len(above.losses)


def _on_the_scale(log_quotient: float) -> float:
    middle = math.sqrt(SIMILAR * DIFFERENT)
    steepness = math.log(DIFFERENT / middle) / math.log(LIKE_DIFFERENT)
    return middle * math.exp(min(max(steepness * log_quotient, -LARGEST), LARGEST))
