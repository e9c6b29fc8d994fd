"""How the learning rate changes from step to step: pure functions of the step, so that a resumed run needs no memory.

To add a schedule: write a function `(step, total) -> share of the highest rate` and add one line to `SCHEDULES`.
"""

import math
from collections.abc import Callable

from headstart.config import LoopConfig
from headstart.errors import ConfigError

STEP_PLACES = (0.5, 0.75)  # share of the steps after which "step" divides the rate by ten
WARM_UP = 0.3  # share of the steps in which "one-cycle" climbs
START_DIVISOR = 25.0  # the first rate of "one-cycle" is the highest divided by this
END_DIVISOR = 1e4  # and the last is the first divided by this


def constant(step: int, total: int) -> float:  # noqa: ARG001 - every schedule takes both
    """The same rate from the first step to the last."""
    return 1.0


def step_down(step: int, total: int) -> float:
    """A tenth of the rate after one half of the steps, a hundredth after three quarters.

    He et al. 2016 (arXiv:1512.03385, section 4.2) do so after 32,000 and 48,000 of 64,000 steps.

    >>> [step_down(step, 100) for step in (0, 49, 50, 75)]
    [1.0, 1.0, 0.1, 0.01]
    """
    return float(10.0 ** -sum(step >= place * total for place in STEP_PLACES))


def cosine(step: int, total: int) -> float:
    """Half a wave, from the full rate down to nothing: `(1 + cos(pi * step / total)) / 2`.

    Loshchilov & Hutter 2017, arXiv:1608.03983, equation 5, without restarts.

    >>> [round(cosine(step, 100), 3) for step in (0, 50, 100)]
    [1.0, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * min(step, total) / total)) / 2


def one_cycle(step: int, total: int) -> float:
    """Up from 1/25 of the rate in the first 30 % of the steps, then down to almost nothing; both as half waves.

    Smith & Topin 2018, arXiv:1708.07120, in the form of torch's `OneCycleLR`; the momentum stays as it is.

    >>> [round(one_cycle(step, 101), 3) for step in (0, 29, 100)]
    [0.04, 1.0, 0.0]
    """
    peak, last = WARM_UP * total - 1, total - 1
    low = 1 / START_DIVISOR
    if step <= peak:
        return _wave(low, 1.0, step / peak if peak else 1.0)
    return _wave(1.0, low / END_DIVISOR, min((step - peak) / (last - peak), 1.0) if last > peak else 1.0)


def _wave(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2


#: name -> share of the highest rate, at a step of all steps. A plateau is seen by the callback ReduceLROnPlateau
SCHEDULES: dict[str, Callable[[int, int], float]] = {
    "constant": constant,
    "step": step_down,
    "cosine": cosine,
    "one-cycle": one_cycle,
    "plateau": constant,
}


def learning_rate_at(config: LoopConfig, base: float, step: int, steps_per_epoch: int) -> float:
    """The learning rate of one step.

    Args:
        config: `schedule` and `epochs` count here.
        base: the highest rate, > 0.
        step: which step of the whole training, from 0.
        steps_per_epoch: >= 1.

    Raises:
        ConfigError: no schedule has this name.

    >>> learning_rate_at(LoopConfig(schedule="cosine", epochs=2), 0.1, 10, steps_per_epoch=10)
    0.05
    """
    if config.schedule not in SCHEDULES:
        raise ConfigError(f"unknown schedule {config.schedule!r}; choose one of: {', '.join(sorted(SCHEDULES))}")
    return base * SCHEDULES[config.schedule](step, max(config.epochs * steps_per_epoch, 1))
