"""Which learning rate: a test that tries them all in one short run, a sweep that trains with a few, and why there is
a limit at all.

The range test raises the rate at every step and watches the loss (Smith 2015, arXiv:1506.01186, section 3.3; there the
rate grows by a constant amount, here by a constant factor, so that every decade gets as many steps).
"""

import copy
import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headstart.allocator import memory_kept
from headstart.config import LoopConfig
from headstart.errors import ConfigError, UsageError
from headstart.progress import Progress
from headstart.training.batches import Batches
from headstart.training.losses import make_loss
from headstart.training.optimisers import make_optimiser

LOWEST, HIGHEST = 1e-6, 10.0  # learning rates of the range test
STEPS = 100  # of the range test: 14 a decade
TOO_FAR = 4.0  # the range test ends where the loss is this many times its lowest
SPIKE = 2.0  # times the first loss: after `SETTLED` steps, training has diverged
SETTLED = 10  # steps in which any loss is forgiven
SLACK = 0.1  # of the loss of guessing: what a good rate may be behind the best of a sweep
RISES = 0.5  # of the fall: what the loss may rise again on its way
VERDICTS = ("too low", "good", "bouncing", "diverged")


@dataclass(frozen=True)
class RangeResult:
    """The range test of one net.

    Args:
        rates: learning rate of each step.
        losses: of each step's batch, before the step; the last may be infinite or NaN, as it came.
        smoothed: means over neighbouring steps.
        suggestion: where the loss falls fastest, no higher than a third of the rate at which it is lowest.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float

    def to_json(self) -> dict[str, Any]:
        """Plain values; a loss that is no number is null."""
        return {
            "rates": list(self.rates),
            "losses": _finite_or_none(self.losses),
            "smoothed": _finite_or_none(self.smoothed),
            "suggestion": self.suggestion,
        }


@dataclass(frozen=True)
class Trial:
    """A short training with one learning rate.

    Args:
        rate: learning rate.
        losses: of each step's batch, before the step.
        verdict: one of `VERDICTS`.
        why: a sentence with the numbers.
    """

    rate: float
    losses: tuple[float, ...]
    verdict: str
    why: str

    def to_json(self) -> dict[str, Any]:
        """Plain values; a loss that is no number is null."""
        return {**dataclasses.asdict(self), "losses": _finite_or_none(self.losses)}


@memory_kept()
def find_range(
    net: nn.Module,
    batches: Batches,
    config: LoopConfig,
    *,
    lowest: float = LOWEST,
    highest: float = HIGHEST,
    steps: int = STEPS,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    make: Callable[[nn.Module, LoopConfig], torch.optim.Optimizer] = make_optimiser,
) -> RangeResult:
    """Train a copy of the net with a learning rate that grows at every step, and say where the loss falls fastest.

    Args:
        net: left as it was found.
        batches: `headstart.training.batches.Batches`: normalised photos (batch, channels, height, width) and targets.
        config: the loss and the optimiser; its learning rate and schedule are not used.
        lowest, highest: learning rates of the first and the last step, > 0.
        steps: >= 10; fewer are made where the loss explodes.
        loss: of (logits, targets); the one of the config if not given.
        make: gives the optimiser.

    Raises:
        ConfigError: the rates are not 0 < lowest < highest, or fewer than 10 steps.

    Source: Smith 2015, arXiv:1506.01186.
    """
    if not (0 < lowest < highest < math.inf) or steps < SETTLED:
        raise ConfigError(
            f"a range test needs 0 < lowest < highest and at least {SETTLED} steps; received {lowest:g}, {highest:g} "
            f"and {steps}"
        )
    rates = np.geomspace(lowest, highest, steps).tolist()
    loss = loss or make_loss(config, batches.classes, None)
    losses: list[float] = []
    for value in _train(net, batches, config, rates, loss, make):
        losses.append(value)
        best = min(losses)
        if not math.isfinite(value) or (len(losses) > SETTLED and np.mean(losses[-3:]) > TOO_FAR * max(best, 0.1)):
            break
    rates = rates[: len(losses)]
    smoothed = smooth(losses)
    suggestion = suggest_rate(rates, smoothed, chance_loss(config, batches.classes))
    return RangeResult(tuple(rates), tuple(losses), tuple(smoothed), suggestion)


def suggest_rate(rates: Sequence[float], smoothed: Sequence[float], chance: float = math.inf) -> float:
    """The rate at which the loss falls fastest, a step of the logarithm; at most a third of where it is lowest.

    The way down to the loss of guessing does not count: a net that starts with loud outputs first learns to keep them
    quiet, which a tiny rate is enough for.

    Args:
        rates: growing.
        smoothed: loss at each; what is no number counts as very high.
        chance: the loss of guessing, as of `chance_loss`.

    >>> rates = [0.001, 0.01, 0.1, 1.0, 10.0]
    >>> suggest_rate(rates, [2.3, 2.2, 1.2, 1.1, 9.0])
    0.1
    """
    values = np.array([value if math.isfinite(value) else np.inf for value in smoothed])
    lowest = int(np.argmin(values))
    if lowest < 2:
        return float(rates[0])  # it only ever rose: nothing lower was tried
    finite = values[: lowest + 1]
    if finite[-1] < chance:
        finite = np.minimum(finite, chance)
    steepest = int(np.argmin(np.gradient(finite, np.log(np.array(rates[: lowest + 1])))))
    return float(min(rates[steepest], rates[lowest] / 3))


def smooth(losses: Sequence[float], reach: int = 3) -> list[float]:
    """The mean of each value and its `reach` neighbours on either side; fewer at the ends.

    >>> smooth([1.0, 2.0, 6.0], reach=1)
    [1.5, 3.0, 4.0]
    """
    values = np.array(losses, dtype=np.float64)
    with np.errstate(all="ignore"):  # a loss that exploded stays infinite
        return [float(values[max(0, place - reach) : place + reach + 1].mean()) for place in range(len(values))]


@memory_kept()
def sweep(
    build_net: Callable[[], nn.Module],
    batches: Batches,
    config: LoopConfig,
    rates: Sequence[float],
    *,
    steps: int = 150,
    loss: Callable[[Tensor, Tensor], Tensor] | None = None,
    progress: Progress | None = None,
) -> tuple[Trial, ...]:
    """Train the same net on the same batches with each learning rate, and say what became of it.

    Args:
        build_net: gives the net; the global random numbers are seeded for it, and put back afterwards.
        batches: `headstart.training.batches.Batches`.
        config: everything but the learning rate.
        rates: learning rates, > 0; at least one.
        steps: of each training.
        loss: of (logits, targets); the one of the config if not given.
        progress: told of every step.

    Returns:
        One trial a rate, in rising order.
    """
    if not rates or min(rates) <= 0:
        raise UsageError(f"a sweep needs learning rates above 0; received {list(rates)}")
    net = build_seeded(build_net, config.seed)
    loss = loss or make_loss(config, batches.classes, None)
    ordered = sorted(set(rates))
    curves = []
    for rate in ordered:
        curve: list[float] = []
        for value in _train(net, batches, config, [rate] * steps, loss, make_optimiser):
            curve.append(value)
            if progress is not None:
                progress.advance()
            if not math.isfinite(value):
                break
        curves.append(curve)
    verdicts = judge_sweep(ordered, curves, chance_loss(config, batches.classes))
    return tuple(
        Trial(rate, tuple(curve), verdict, why)
        for rate, curve, (verdict, why) in zip(ordered, curves, verdicts, strict=True)
    )


def chance_loss(config: LoopConfig, classes: int) -> float:
    """The loss of one who gives every class the same probability: ln(classes), or half of 1 - 1/classes for mse."""
    return math.log(classes) if config.loss == "cross-entropy" else (1 - 1 / classes) / 2


def judge_curve(losses: Sequence[float], chance: float) -> tuple[str, str]:
    """What the loss of a short training says of its learning rate, by itself.

    Diverged: a loss that is no number, or after 10 steps more than twice the first, or at the end no better than
    guessing after it had moved. Too low: it has hardly moved. Bouncing: on its way it rises by more than half of what
    it falls.

    Args:
        losses: of each step, at least one.
        chance: the loss of guessing, as of `chance_loss`.

    Returns:
        One of `VERDICTS`, and a sentence.
    """
    first, number = losses[0], len(losses)
    if not all(math.isfinite(value) for value in losses):
        wrong = next(place for place, value in enumerate(losses) if not math.isfinite(value))
        return "diverged", f"The loss is no number any more after {wrong} steps."
    late = losses[SETTLED:]
    if late and max(late) > SPIKE * first:
        return (
            "diverged",
            f"The loss jumps to {max(late):.3g} at step {SETTLED + late.index(max(late))}, from {first:.3g}.",
        )
    head, tail = float(np.mean(losses[: min(5, number)])), _tail(losses)
    if _hardly_moved(losses, chance):
        return "too low", f"After {number} steps the loss is {tail:.3g}, from {head:.3g}."
    if tail >= chance:
        return "diverged", f"The loss ends at {tail:.3g}; guessing gives {chance:.3g}."
    blocks = np.array([part.mean() for part in np.array_split(np.array(losses), 15) if len(part)])
    steps = np.diff(blocks[1:])
    rises, fall = float(steps[steps > 0].sum()), head - tail
    if len(steps) and rises > RISES * max(fall, 0.0) and rises > SLACK * chance:
        return "bouncing", f"The loss falls from {head:.3g} to {tail:.3g}, but rises by {rises:.3g} on its way."
    return "good", f"The loss falls from {head:.3g} to {tail:.3g} in {number} steps."


def judge_sweep(rates: Sequence[float], curves: Sequence[Sequence[float]], chance: float) -> list[tuple[str, str]]:
    """Verdicts of several rates, compared: one that is well behind the best is too low below it, and bounces above it.

    Args:
        rates: rising.
        curves: the losses of each.
        chance: the loss of guessing, as of `chance_loss`.
    """
    verdicts = [judge_curve(curve, chance) for curve in curves]
    learned = [place for place, (verdict, _) in enumerate(verdicts) if verdict in ("good", "bouncing")]
    if not learned:
        return verdicts
    best = min(learned, key=lambda place: _tail(curves[place]))
    lowest = _tail(curves[best])
    for place, (verdict, why) in enumerate(verdicts):  # a flat curve by itself does not tell which of the two it is
        if verdict == "diverged" and rates[place] < rates[best] and max(curves[place]) <= SPIKE * curves[place][0]:
            verdicts[place] = "too low", why
        if verdict == "too low" and rates[place] > rates[best]:
            verdicts[place] = "diverged", why
    slack = min(SLACK * chance, max(chance - lowest, 0.0) / 3)
    for place in learned:
        tail = _tail(curves[place])
        if tail > lowest + slack and place != best:
            verdict = "too low" if rates[place] < rates[best] else "bouncing"
            why = f"The loss ends at {tail:.3g}; with the rate {rates[best]:g} it ends at {lowest:.3g}."
            verdicts[place] = verdict, why
    return verdicts


def descend_bowl(curvature: float, rate: float, steps: int = 50, start: float = 1.0) -> list[float]:
    """Plain gradient descent in the simplest valley there is: `curvature / 2 * x**2`.

    Its slope is `curvature * x`, so each step multiplies x by `1 - rate * curvature`: x shrinks if and only if
    `rate * curvature` lies between 0 and 2. Above 2 each step lands farther up on the other side.

    Args:
        curvature: > 0.
        rate: learning rate, > 0.
        steps: how many.
        start: the first x.

    Returns:
        x before the first step and after each.

    >>> descend_bowl(curvature=4.0, rate=0.25, steps=2), descend_bowl(curvature=4.0, rate=1.0, steps=2)
    ([1.0, 0.0, 0.0], [1.0, -3.0, 9.0])
    """
    places = [start]
    for _ in range(steps):
        slope = curvature * places[-1]
        places.append(places[-1] - rate * slope)
    return places


def judge_bowl(curvature: float, rate: float) -> str:
    """What becomes of `descend_bowl`: "good" up to `rate * curvature` = 1, then "bouncing", above 2 "diverged".

    At exactly 2 it swings between two places for ever, which is bouncing.
    """
    product = rate * curvature
    return "good" if product <= 1 else "bouncing" if product <= 2 else "diverged"


def build_seeded(build_net: Callable[[], nn.Module], seed: int) -> nn.Module:
    """Build a net from this seed and leave the global random numbers as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_net()


def _train(
    net: nn.Module,
    batches: Batches,
    config: LoopConfig,
    rates: Sequence[float],
    loss: Callable[[Tensor, Tensor], Tensor],
    make: Callable[[nn.Module, LoopConfig], torch.optim.Optimizer],
) -> Iterator[float]:
    """Train a copy of the net, a step for each rate, and yield the loss before each step."""
    net = copy.deepcopy(net).train()
    optimiser = make(net, dataclasses.replace(config, learning_rate=float(rates[0])))
    with torch.random.fork_rng(devices=[]):  # dropout draws from the global numbers
        torch.manual_seed(config.seed)
        for rate, (images, targets) in zip(rates, _endless(batches), strict=False):
            for group in optimiser.param_groups:
                group["lr"] = rate
            yield step(net, images, targets, loss, optimiser)


def step(
    net: nn.Module,
    images: Float[Tensor, "batch channels height width"],
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    optimiser: torch.optim.Optimizer,
) -> float:
    """One step of training: forward, loss, backward, step. Returns the loss before it."""
    optimiser.zero_grad()
    value = loss(net(images), targets)
    value.backward()  # type: ignore[no-untyped-call]
    optimiser.step()
    return float(value.detach())


def _endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    return itertools.chain.from_iterable(batches.epoch(number) for number in itertools.count())


def _tail(losses: Sequence[float]) -> float:
    return float(np.mean(losses[-max(5, len(losses) // 10) :]))


def _hardly_moved(losses: Sequence[float], chance: float) -> bool:
    """It is where it began, or above guessing and still falling, without ever having jumped."""
    smoothed = smooth(losses)
    head, tail = smoothed[0], _tail(losses)
    if max(smoothed) > 1.2 * head:
        return False
    if abs(head - tail) < 0.05 * head:
        return True
    before = float(np.mean(losses[len(losses) // 2 : -max(5, len(losses) // 10)] or losses[:1]))
    return tail > 1.1 * chance and tail < 0.98 * before


def _finite_or_none(values: Sequence[float]) -> list[float | None]:
    return [value if math.isfinite(value) else None for value in values]
