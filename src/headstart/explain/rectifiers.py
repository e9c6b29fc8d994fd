"""How the signal goes back through a rectifier: the rule that makes a gradient, guided backpropagation or a deconvnet.

With f the rectifier's input and R what comes from above, what goes on below is

    gradient   R where f passes           the derivative
    deconv     R where R > 0              Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks"
    guided     R where f passes and R > 0 Springenberg et al. 2015, "Striving for simplicity" (arXiv:1412.6806)

and f passes where it is above 0 and, for a ReLU6, below 6. Everything else (convolutions, batch norm, pooling) goes
back as its derivative: of max pooling, to the places where the maxima were (the switches), added up where windows
overlap.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headstart.errors import UsageError

Rule = Literal["gradient", "guided", "deconv"]
RULES: tuple[Rule, ...] = ("gradient", "guided", "deconv")
#: functions that bend the signal when a forward calls them itself: no module is there to be replaced
_FUNCTIONAL = {
    *("relu", "relu_", "relu6", "hardtanh", "hardtanh_", "threshold", "threshold_", "_threshold"),
    *("clamp", "clamp_", "clamp_min", "clamp_min_", "clip", "clip_", "leaky_relu", "leaky_relu_", "elu", "elu_"),
    *("selu", "selu_", "celu", "celu_", "prelu", "rrelu", "rrelu_", "glu", "tanh", "tanh_", "sigmoid", "sigmoid_"),
    *("gelu", "silu", "mish", "softplus", "softsign", "log_sigmoid", "hardswish", "hardsigmoid", "hardshrink"),
    *("softshrink", "tanhshrink", "softmax", "softmin", "log_softmax", "where", "maximum", "minimum", "fmax", "fmin"),
    *("heaviside", "gt", "ge", "lt", "le", "__gt__", "__ge__", "__lt__", "__le__", "greater", "less"),
}
#: layers that go back as their derivative by any rule; of one's own those with `rectifies = False`
_PLAIN = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.Linear, nn.Identity, nn.Flatten, nn.Unflatten),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.GroupNorm, nn.InstanceNorm2d, nn.LayerNorm, nn.LocalResponseNorm),
    *(nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.ZeroPad2d, nn.ConstantPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d),
    *(nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveMaxPool2d, nn.AdaptiveAvgPool2d),
    *(nn.Upsample, nn.PixelShuffle, nn.PixelUnshuffle, nn.ChannelShuffle),
)


@contextmanager
def rule(net: nn.Module, name: Rule) -> Iterator[int]:
    """Let a net's rectifiers send the signal back by a rule, until the end of the block.

    Args:
        net: it must not be used by another thread meanwhile. Its parameters and hooks are not touched.
        name: one of `RULES`.

    Yields:
        How many rectifiers follow the rule.

    Raises:
        UsageError: "guided" or "deconv" on a net with another activation, or with a rectifier that is no module of
            its own; the message names it. A rule that silently did nothing would give the plain gradient.
    """
    places = {module: ceiling(module, place) for place, module in net.named_modules() if _is_rectifier(module)}
    if name == "gradient":
        yield len(places)
        return
    _refuse_others(net)
    try:
        for module, clip in places.items():
            # an attribute of the instance stands before the method of its class
            object.__setattr__(module, "forward", _Ruled(name, clip))
        with _NoFunctional():
            yield len(places)
    finally:
        for module in places:
            vars(module).pop("forward", None)


def _is_rectifier(module: nn.Module) -> bool:
    return isinstance(module, nn.ReLU | nn.Hardtanh)


def ceiling(module: Any, place: str) -> float | None:
    """Where a rectifier stops rising: 6 of a ReLU6, None of a ReLU. Raises UsageError: its floor is not 0."""
    if isinstance(module, nn.ReLU):
        return None
    if module.min_val != 0:
        raise UsageError(f"{place} is a Hardtanh from {module.min_val}, no rectifier: only those from 0 have the rules")
    return float(module.max_val)


def _refuse_others(net: nn.Module) -> None:
    """Refuse a net with a layer that may bend the signal: any that is neither a rectifier nor known to be plain."""
    for place, module in net.named_modules():
        if _is_rectifier(module) or isinstance(module, _PLAIN) or not getattr(module, "rectifies", True):
            continue
        if next(module.children(), None) is None:
            raise UsageError(
                f"the rules of guided backpropagation and of the deconvnet are for rectifiers (ReLU, ReLU6), and "
                f"{place or 'the net'} is a {type(module).__name__}; use the plain gradient"
            )


def follows_rules(net: nn.Module) -> bool:
    """Whether guided backpropagation has a meaning: the net has rectifiers, and no other activation."""
    try:
        _refuse_others(net)
    except UsageError:
        return False
    return any(_is_rectifier(module) for module in net.modules())


class _Ruled:
    """What takes the place of a rectifier's `forward`."""

    def __init__(self, name: Rule, clip: float | None) -> None:
        self._name, self._clip = name, clip

    def __call__(self, x: Tensor) -> Tensor:
        ruled: Tensor = Rectifier.apply(x, self._name, self._clip)  # type: ignore[no-untyped-call]
        return ruled


class Rectifier(torch.autograd.Function):
    """`min(max(x, 0), clip)`, with the way back by a rule."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: Rule, clip: float | None) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x)
        ctx.name, ctx.clip = name, clip
        with torch._C.DisableTorchFunction():  # these are the rule; in a net's own forward they are refused
            return x.clamp(min=0, max=clip)

    @staticmethod
    def backward(ctx: Any, *above: Tensor) -> tuple[Tensor, None, None]:  # noqa: D102
        (x,) = ctx.saved_tensors
        signal = above[0]
        with torch._C.DisableTorchFunction():
            if ctx.name != "deconv":
                passes = x > 0 if ctx.clip is None else (x > 0) & (x < ctx.clip)
                signal = torch.where(passes, signal, torch.zeros_like(signal))
            if ctx.name != "gradient":
                signal = signal.clamp(min=0)
        return signal, None, None


class _NoFunctional(TorchFunctionMode):
    """Stops at an activation that is called as a function: no rule reaches it."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        if name in _FUNCTIONAL:
            raise UsageError(
                f"the net calls {name} as a function, where no rule of guided backpropagation or of the deconvnet can "
                "reach it: each rectifier needs a module of its own (nn.ReLU); use the plain gradient"
            )
        return func(*args, **(kwargs or {}))
