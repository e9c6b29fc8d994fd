"""How the weights of a net start: Glorot, He, or with a gain of your own to see it go wrong.

A layer's output is a sum of `fan_in` products. Its scale stays that of its input where the weights' standard deviation
is about `sqrt(1 / fan_in)`, and behind ReLU, which halves the mean square, `sqrt(2 / fan_in)` (He et al. 2015,
arXiv:1502.01852). Glorot and Bengio 2010 weigh the way forward against the way back: `sqrt(2 / (fan_in + fan_out))`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from headstart.errors import UsageError

Fill = Callable[[Tensor, torch.Generator | None], None]


def fans(weight: Tensor) -> tuple[int, int]:
    """Inputs that one output sums over, and outputs that one input goes into (at stride 1).

    Args:
        weight: (units, features) of a dense layer, (filters, channels of the group, height, width) of a convolution.

    >>> fans(torch.empty(20, 3, 5, 5))
    (75, 500)
    """
    window = math.prod(weight.shape[2:])
    return weight.shape[1] * window, weight.shape[0] * window


def glorot_uniform(weight: Tensor, random: torch.Generator | None) -> None:
    """Uniform between plus and minus `sqrt(6 / (fan_in + fan_out))`."""
    limit = math.sqrt(6 / sum(fans(weight)))
    nn.init.uniform_(weight, -limit, limit, generator=random)


def he_normal(weight: Tensor, random: torch.Generator | None, gain: float = 1.0) -> None:
    """Normal with standard deviation `gain * sqrt(2 / fan_in)`.

    With gain k every layer of a ReLU net multiplies the scale of its signal, and of the gradient on its way back, by
    about
    k: after n layers by k**n.
    """
    nn.init.normal_(weight, 0.0, gain * math.sqrt(2 / fans(weight)[0]), generator=random)


def fill_by_name(init: str) -> Fill:
    """The initialisation called "glorot", "he", or a number such as "0.5": He with this gain.

    Raises:
        UsageError: neither a name nor a number > 0.
    """
    if init == "glorot":
        return glorot_uniform
    if init == "he":
        return he_normal
    try:
        gain = float(init)
    except ValueError:
        gain = math.nan
    if not (math.isfinite(gain) and gain > 0):
        raise UsageError(f"no initialisation is called {init!r}; expected glorot, he, or a gain > 0 such as 0.5")
    return lambda weight, random: he_normal(weight, random, gain)


def initialise(net: nn.Module, init: str, seed: int | None = 0) -> None:
    """Start a net anew, in place: weights by `init`, biases 0, batch-norms as if they were not there.

    Args:
        net: its convolutions and dense layers are filled.
        init: as of `fill_by_name`.
        seed: the same seed gives the same weights; None draws from PyTorch's global random numbers.

    Raises:
        UsageError: no such initialisation.
    """
    fill = fill_by_name(init)
    random = None if seed is None else torch.Generator(device="cpu").manual_seed(seed)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fill(layer.weight, random)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
        elif isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            layer.reset_parameters()
