"""How a gradient becomes a step of the weights.

The defaults are those of Keras 3 (keras.io/api/optimizers), so that a lesson written for Keras takes the same steps
here, with these exceptions. Adadelta's rate is the 1.0 of its paper and Adagrad's is torch's 0.01: with Keras's 0.001
both hardly move in ten epochs. Nadam's momentum grows as its paper recommends, 250 times as slowly as Keras's. Momentum
of SGD is a setting of its own.

| name | rate | besides | paper |
|---|---|---|---|
| sgd | 0.01 | momentum | Sutskever et al. 2013 |
| rmsprop | 0.001 | rho 0.9 | Hinton 2012, lecture 6e |
| adagrad | 0.01 | sums start at 0.1 | Duchi et al. 2011 |
| adadelta | 1.0 | rho 0.95 | Zeiler 2012, arXiv:1212.5701 |
| adam, adamax | 0.001 | betas 0.9, 0.999 | Kingma & Ba 2015, arXiv:1412.6980 |
| nadam | 0.001 | betas 0.9, 0.999 | Dozat 2016 |
| adamw | 0.001 | as adam; weight decay 0.004 | Loshchilov & Hutter 2019, arXiv:1711.05101 |

Epsilon, which keeps a division by zero away, is 1e-7 everywhere; it is added where torch adds it, which is not Keras's
place and tells for gradients near 1e-6. To add an optimiser: write a function here and add one line to `OPTIMISERS` and
to `USUAL_RATES`.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn, optim

from headstart.config import LoopConfig
from headstart.errors import ConfigError

EPSILON = 1e-7
ADAMW_DECAY = 0.004  # where no weight decay is set: without any, adamw would be adam
BETAS = (0.9, 0.999)

Parameters = list[nn.Parameter]


def sgd(parameters: Parameters, rate: float, config: LoopConfig) -> optim.Optimizer:
    """`v = momentum * v + g; w -= rate * v`; with Nesterov's look ahead `w -= rate * (g + momentum * v)`."""
    nesterov = config.nesterov and config.momentum > 0
    return optim.SGD(parameters, rate, config.momentum, nesterov=nesterov, fused=True)


def rmsprop(parameters: Parameters, rate: float, _: LoopConfig) -> optim.Optimizer:
    """`w -= rate * g / sqrt(running mean of g**2)`."""
    return optim.RMSprop(parameters, rate, alpha=0.9, eps=EPSILON, foreach=True)


def adagrad(parameters: Parameters, rate: float, _: LoopConfig) -> optim.Optimizer:
    """`w -= rate * g / sqrt(sum of g**2)`."""
    return optim.Adagrad(parameters, rate, initial_accumulator_value=0.1, eps=EPSILON, fused=True)


def adadelta(parameters: Parameters, rate: float, _: LoopConfig) -> optim.Optimizer:
    """`w -= rate * g * sqrt(running mean of step**2) / sqrt(running mean of g**2)`."""
    return optim.Adadelta(parameters, rate, rho=0.95, eps=EPSILON, foreach=True)


def adam(parameters: Parameters, rate: float, _: LoopConfig) -> optim.Optimizer:
    """`w -= rate * running mean of g / sqrt(running mean of g**2)`, both means corrected for their start at zero."""
    return optim.Adam(parameters, rate, betas=BETAS, eps=EPSILON, fused=True)


def adamax(parameters: Parameters, rate: float, _: LoopConfig) -> optim.Optimizer:
    """Adam with the largest recent `|g|` in the place of the root."""
    return optim.Adamax(parameters, rate, betas=BETAS, eps=EPSILON, foreach=True)


def nadam(parameters: Parameters, rate: float, _: LoopConfig) -> optim.Optimizer:
    """Adam with Nesterov's look ahead, whose momentum grows slowly: `0.9 * (1 - 0.96**(step / 250) / 2)`."""
    return optim.NAdam(parameters, rate, betas=BETAS, eps=EPSILON, foreach=True)


#: name -> function of parameters, rate and settings. adamw is adam: the decay of `make_optimiser` is what sets it apart
OPTIMISERS: dict[str, Callable[[Parameters, float, LoopConfig], optim.Optimizer]] = {
    "sgd": sgd,
    "rmsprop": rmsprop,
    "adagrad": adagrad,
    "adadelta": adadelta,
    "adam": adam,
    "adamax": adamax,
    "nadam": nadam,
    "adamw": adam,
}

#: name -> learning rate where none is set
USUAL_RATES: dict[str, float] = {
    "sgd": 0.01,
    "rmsprop": 0.001,
    "adagrad": 0.01,
    "adadelta": 1.0,
    "adam": 0.001,
    "adamax": 0.001,
    "nadam": 0.001,
    "adamw": 0.001,
}


def usual_rate(config: LoopConfig) -> float:
    """The learning rate that is set, or else the optimiser's usual one.

    Raises:
        ConfigError: no optimiser has this name, or the rate is below 0.
    """
    if config.optimiser not in OPTIMISERS:
        raise ConfigError(f"unknown optimiser {config.optimiser!r}; choose one of: {', '.join(sorted(OPTIMISERS))}")
    if config.learning_rate < 0:
        raise ConfigError(
            f"setting learning_rate must be above 0, or 0 for the usual one; got {config.learning_rate:g}"
        )
    return config.learning_rate or USUAL_RATES[config.optimiser]


def make_optimiser(
    net: nn.Module,
    config: LoopConfig,
    watch: Callable[[list[Tensor]], None] | None = None,
    rate_of: Callable[[str], float] | None = None,
) -> optim.Optimizer:
    """The optimiser that the settings name, for the parameters of a net that are trained.

    Each `step` does, in this order: add the gradient of the L1 and L2 terms; hand all gradients to `watch`; scale them
    so that their length as one vector is at most `clip_norm` (Pascanu et al. 2013, arXiv:1211.5063); shrink the weights
    by rate times `weight_decay`; and then the optimiser's own rule. Decay, L1 and L2 are for weights: not for biases
    and the scales of normalisations, which are vectors.

    Args:
        net: its parameters with `requires_grad` are trained.
        config: `optimiser`, `learning_rate`, `momentum`, `nesterov`, `weight_decay`, `l1`, `l2`, `clip_norm` count.
        watch: called at each step with the gradients, before they are clipped.
        rate_of: from a parameter's name to the share of the learning rate that it is trained at, > 0; None: 1 for all.
            Each share is a group of the optimiser, which has it as `rate_share`.

    Raises:
        ConfigError: no optimiser has this name, a number is out of range, or nothing in the net is trained.
    """
    rate = usual_rate(config)
    _check(config)
    named = [(name, parameter) for name, parameter in net.named_parameters() if parameter.requires_grad]
    if not named:
        raise ConfigError("no parameter of the net is trained: every one is frozen; unfreeze at least the last layer")
    groups: dict[float, Parameters] = {}
    for name, parameter in named:
        groups.setdefault(1.0 if rate_of is None else rate_of(name), []).append(parameter)
    (first, members), *others = groups.items()
    optimiser = OPTIMISERS[config.optimiser](members, rate, config)
    for share, parameters in others:
        optimiser.add_param_group({"params": parameters, "rate_share": share})
    optimiser.param_groups[0]["rate_share"] = first
    set_rate(optimiser, rate)
    _register(optimiser, [parameter for _, parameter in named], config, watch)
    return optimiser


def set_rate(optimiser: optim.Optimizer, rate: float) -> None:
    """Give every group of the optimiser its share of a learning rate."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["rate_share"]


def _check(config: LoopConfig) -> None:
    for name in ("weight_decay", "l1", "l2", "clip_norm"):
        if getattr(config, name) < 0:
            raise ConfigError(f"setting {name} must be 0 or more; received {getattr(config, name):g}")
    if not 0 <= config.momentum < 1:
        raise ConfigError(f"setting momentum must lie from 0 to below 1; received {config.momentum:g}")


def _register(
    optimiser: optim.Optimizer, parameters: Parameters, config: LoopConfig, watch: Callable[[list[Tensor]], None] | None
) -> None:
    """Hang what goes before the optimiser's own rule in front of its `step`."""
    weights: list[Tensor] = [parameter for parameter in parameters if parameter.ndim > 1]
    matrices = [[one for one in group["params"] if one.ndim > 1] for group in optimiser.param_groups]
    decay = config.weight_decay or (ADAMW_DECAY if config.optimiser == "adamw" else 0.0)

    @torch.no_grad()
    def prepare(optimiser: optim.Optimizer, *_: Any) -> None:
        used = [weight for weight in weights if weight.grad is not None]
        gradients = [weight.grad for weight in used if weight.grad is not None]
        if config.l1 and used:
            torch._foreach_add_(gradients, torch._foreach_sign(used), alpha=config.l1)
        if config.l2 and used:
            torch._foreach_add_(gradients, used, alpha=2 * config.l2)
        if watch is not None:
            watch([parameter.grad for parameter in parameters if parameter.grad is not None])
        if config.clip_norm:
            nn.utils.clip_grad_norm_(parameters, config.clip_norm)
        for group, members in zip(optimiser.param_groups, matrices, strict=True) if decay else ():
            if shrinking := [weight for weight in members if weight.grad is not None]:
                torch._foreach_mul_(shrinking, 1 - group["lr"] * decay)

    if config.l1 or config.l2 or config.clip_norm or decay or watch is not None:
        optimiser.register_step_pre_hook(prepare)
