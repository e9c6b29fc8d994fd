"""Dropout of both kinds, what a change of rate does to the weights, and rates that grow with depth.

Inverted dropout (PyTorch's) divides by `1 - rate` while training, so the weights behind it always see the same scale,
and a change of rate asks nothing of them. Classical dropout (Srivastava et al. 2014) multiplies by `1 - rate` in use:
the weights were trained for that scale, so with another rate they must be multiplied by `(1 - old) / (1 - new)`.
"""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from headstart.errors import UsageError
from headstart.layers.reference import DropoutKind
from headstart.layers.rules import Effect, Shape
from headstart.layers.trace import Trace, trace

LOWEST, HIGHEST = 0.2, 0.5  # rates from the first dropout to the last
# What may lie between a dropout and the weights behind it: f(a*x) = a*f(x) for every a > 0.
SCALE_FREE_LAYERS = (
    nn.ReLU, nn.LeakyReLU, nn.PReLU, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d, nn.AdaptiveAvgPool2d,
    nn.AdaptiveMaxPool2d, nn.Flatten, nn.ZeroPad2d, nn.Dropout, nn.Dropout2d,
)  # fmt: skip
SCALE_FREE_FUNCTIONS = {"relu", "flatten", "view", "reshape", "mean", "pad", "index_select", "adaptive_avg_pool2d"}


class ClassicalDropout(nn.Module):
    """Zeroes units while training, and multiplies all by `1 - rate` in use.

    Args:
        rate: share of units zeroed, 0 <= rate < 1.
    """

    rectifies = False  # for `headstart.explain.rectifiers`

    def __init__(self, rate: float = 0.5) -> None:
        super().__init__()
        self.rate = checked_rate(rate)

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        return x * (torch.rand_like(x) >= self.rate) if self.training else x * (1 - self.rate)

    def layer_effect(self, shape: Shape) -> Effect:
        """Each unit for itself."""
        return Effect(shape)

    def extra_repr(self) -> str:
        """What `print(net)` shows of it."""
        return f"rate={self.rate}"


def checked_rate(rate: float) -> float:
    """A rate from 0 to below 1. Raises UsageError."""
    if not 0 <= rate < 1:
        raise UsageError(f"the dropout rate is {rate}; expected a share of units from 0 to below 1")
    return rate


def weight_factor(old: float, new: float, kind: DropoutKind = "classical") -> float:
    """What the weights behind a dropout must be multiplied by when its rate changes.

    >>> weight_factor(0.5, 0.75), weight_factor(0.5, 0.75, "inverted")
    (2.0, 1.0)
    """
    return (1 - checked_rate(old)) / (1 - checked_rate(new)) if kind == "classical" else 1.0


def rising_rates(count: int, low: float = LOWEST, high: float = HIGHEST) -> tuple[float, ...]:
    """Rates in equal steps: early layers see pixels, of which few can be spared, late ones many redundant features.

    >>> rising_rates(4)
    (0.2, 0.3, 0.4, 0.5)
    """
    if count < 1:
        raise UsageError(f"{count} dropout layers; expected at least 1")
    checked_rate(low), checked_rate(high)
    return tuple(round(low + (high - low) * n / max(count - 1, 1), 10) for n in range(count))


def change_dropout(net: nn.Module, rates: Sequence[float], image: tuple[int, int, int]) -> nn.Module:
    """A copy of the net with other dropout rates, which gives the same outputs in use.

    Args:
        net: left as it is; its dropouts are `nn.Dropout` (inverted) or `ClassicalDropout`.
        rates: one for each dropout, in the order they run; `rising_rates(n)` for rates that grow with depth.
        image: (height, width, channels) of a photo.

    Raises:
        UsageError: another number of rates than of dropouts, a rate out of range, or a classical dropout whose scale
            does not reach the weights behind it unchanged (a batch-norm or a sigmoid lies between).
    """
    changed = copy.deepcopy(net)
    height, width, channels = image
    run = trace(changed, (channels, height, width))
    places = [
        n for n, step in enumerate(run.steps) if isinstance(step.layer, nn.Dropout | nn.Dropout2d | ClassicalDropout)
    ]
    if len(rates) != len(places):
        names = ", ".join(run.steps[n].name for n in places) or "none"
        raise UsageError(f"{len(rates)} rates for {len(places)} dropouts; expected one for each of: {names}")
    for number, rate in zip(places, map(checked_rate, rates), strict=True):
        layer = run.steps[number].layer
        if isinstance(layer, ClassicalDropout):
            factor = weight_factor(layer.rate, rate)
            for weighted in _weights_behind(run, number):
                with torch.no_grad():
                    weighted.weight *= factor
            layer.rate = rate
        elif isinstance(layer, nn.Dropout | nn.Dropout2d):
            layer.p = rate
    return changed


def _weights_behind(run: Trace, number: int) -> list[nn.Conv2d | nn.Linear]:
    """The layers whose weights take a dropout's output, past whatever leaves its scale alone."""
    found: list[nn.Conv2d | nn.Linear] = []
    readers = [n for n, step in enumerate(run.steps) if number in step.inputs]
    for reader in readers:
        step = run.steps[reader]
        if isinstance(step.layer, nn.Conv2d | nn.Linear):
            found.append(step.layer)
        elif isinstance(step.layer, SCALE_FREE_LAYERS) or (step.layer is None and step.kind in SCALE_FREE_FUNCTIONS):
            found += _weights_behind(run, reader)
        else:
            raise UsageError(
                f"{run.steps[number].name}: its rate cannot be changed exactly, as {step.name} ({step.kind}) lies "
                "between it and the next weights; use inverted dropout (nn.Dropout) there"
            )
    if not readers:
        raise UsageError(f"{run.steps[number].name}: no weights lie behind it, so its rate cannot be changed exactly")
    return found
