"""What each type of layer does to a shape, and what it costs: one plain function a type, in one plain dictionary.

A layer of another type can tell by itself: a method `layer_effect(shape) -> Effect`. Whatever is neither here nor tells
is shown as an unknown layer, never guessed from its name.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

from torch import nn

from headstart.layers.shapes import Axis, size_keeping_padding

Shape = tuple[int, ...]  # without the batch: (channels, height, width) of maps, (features,) of vectors


@dataclass(frozen=True)
class Effect:
    """What a layer does to one photo.

    Args:
        output: shape without the batch.
        macs: multiply-adds, those of convolutions and dense layers only, biases not counted; None if unknown.
        reach: which of its input's units an output unit sees: the one at its place, those under a window, all, or
            unknown.
        windows: rows and columns, where the reach is a window.
    """

    output: Shape
    macs: int | None = 0
    reach: Literal["place", "window", "whole", "unknown"] = "place"
    windows: tuple[Axis, Axis] | None = None


Rule = Callable[[Any, Shape], Effect | None]  # None: this use of the layer is not understood


def convolution(layer: nn.Conv2d, shape: Shape) -> Effect | None:
    """A multiply-add for each place, filter and weight."""
    if layer.padding_mode != "zeros" or len(shape) != 3:
        return None
    if layer.padding == "same":
        sides = [
            size_keeping_padding(kernel, step) for kernel, step in zip(layer.kernel_size, layer.dilation, strict=True)
        ]
    else:
        pads = (0, 0) if layer.padding == "valid" else layer.padding
        sides = [(int(pad), int(pad)) for pad in pads]
    rows, columns = (
        Axis.of(size, kernel, stride, pad, dilation)
        for size, kernel, stride, pad, dilation in zip(
            shape[1:], layer.kernel_size, layer.stride, sides, layer.dilation, strict=True
        )
    )
    taps = math.prod(layer.kernel_size) * layer.in_channels // layer.groups
    places = rows.output * columns.output
    output = (layer.out_channels, rows.output, columns.output)
    return Effect(output, places * taps * layer.out_channels, "window", (rows, columns))


def transposed_convolution(layer: nn.ConvTranspose2d, shape: Shape) -> Effect | None:
    """A multiply-add for each *input* place, filter and weight; its field is not on a whole-pixel grid."""
    if len(shape) != 3:
        return None
    sides = [
        (size - 1) * stride - 2 * int(pad) + dilation * (kernel - 1) + extra + 1
        for size, stride, pad, dilation, kernel, extra in zip(
            shape[1:], layer.stride, layer.padding, layer.dilation, layer.kernel_size, layer.output_padding, strict=True
        )
    ]
    taps = math.prod(layer.kernel_size) * layer.out_channels // layer.groups
    return Effect((layer.out_channels, *sides), shape[0] * shape[1] * shape[2] * taps, "unknown")


def dense(layer: nn.Linear, shape: Shape) -> Effect | None:
    """A multiply-add for each weight."""
    if len(shape) != 1:
        return None
    return Effect((layer.out_features,), layer.in_features * layer.out_features, "whole")


def pooling(layer: Any, shape: Shape) -> Effect | None:
    """Windows; nothing is multiplied by a weight."""
    if len(shape) != 3 or getattr(layer, "return_indices", False):
        return None
    kernel, dilation, padding = (_pair(getattr(layer, name, default)) for name, default in _POOL_DEFAULTS)
    stride = _pair(layer.stride or layer.kernel_size)
    rows, columns = (
        Axis.of_pool(size, kernel[axis], stride[axis], padding[axis], dilation[axis], bool(layer.ceil_mode))
        for axis, size in enumerate(shape[1:])
    )
    return Effect((shape[0], rows.output, columns.output), 0, "window", (rows, columns))


_POOL_DEFAULTS = (("kernel_size", 1), ("dilation", 1), ("padding", 0))


def adaptive_pooling(layer: Any, shape: Shape) -> Effect | None:
    """Windows that share the map out evenly: `floor(i*n/out)` to `ceil((i+1)*n/out)`; known if all are alike."""
    if len(shape) != 3 or getattr(layer, "return_indices", False):
        return None
    return adaptive_effect(_pair(layer.output_size), shape)


def adaptive_effect(wanted: tuple[int | None, int | None], shape: Shape) -> Effect:
    """Of adaptive pooling to `wanted` rows and columns; None keeps the size."""
    axes = [even_windows(size, size if out is None else out) for size, out in zip(shape[1:], wanted, strict=True)]
    output = (shape[0], *(size if out is None else out for size, out in zip(shape[1:], wanted, strict=True)))
    rows, columns = axes
    if rows is None or columns is None:
        return Effect(output, 0, "unknown")
    return Effect(output, 0, "window", (rows, columns))


def even_windows(size: int, wanted: int) -> Axis | None:
    """The windows of adaptive pooling, if they are all of one size and distance.

    >>> even_windows(14, 7), even_windows(8, 7), even_windows(10, 7)
    (Axis(size=14, kernel=2, stride=2, padding=(0, 0), dilation=1, ceil=False), \
Axis(size=8, kernel=2, stride=1, padding=(0, 0), dilation=1, ceil=False), None)
    """
    starts = [i * size // wanted for i in range(wanted)]
    ends = [-(-(i + 1) * size // wanted) for i in range(wanted)]
    lengths = {end - start for start, end in zip(starts, ends, strict=True)}
    steps = {later - earlier for earlier, later in pairwise(starts)} or {1}
    if len(lengths) != 1 or len(steps) != 1 or steps == {0}:
        return None
    return Axis(size, lengths.pop(), steps.pop(), (0, 0))


def zero_padding(layer: nn.ZeroPad2d, shape: Shape) -> Effect | None:
    """A window of one pixel that starts in the padding."""
    left, right, top, bottom = layer.padding
    return padding_effect((left, right, top, bottom), shape)


def padding_effect(sides: tuple[int, int, int, int], shape: Shape) -> Effect | None:
    """Of zeros at the left, right, top and bottom; None for cropping (numbers below 0)."""
    left, right, top, bottom = sides
    if len(shape) != 3 or min(sides) < 0:
        return None
    rows, columns = Axis(shape[1], 1, 1, (top, bottom)), Axis(shape[2], 1, 1, (left, right))
    return Effect((shape[0], rows.output, columns.output), 0, "window", (rows, columns))


def flattening(layer: nn.Flatten, shape: Shape) -> Effect | None:
    """All units side by side: what comes after sees all of them."""
    if (layer.start_dim, layer.end_dim) != (1, -1):
        return None
    return Effect((math.prod(shape),), 0, "whole")


def pointwise(layer: nn.Module, shape: Shape) -> Effect | None:  # noqa: ARG001 - the table's signature
    """Each unit for itself (activations, dropout, batch-norm with its stored statistics)."""
    return Effect(shape)


RULES: dict[type[nn.Module], Rule] = {
    nn.Conv2d: convolution,
    nn.ConvTranspose2d: transposed_convolution,
    nn.Linear: dense,
    nn.MaxPool2d: pooling,
    nn.AvgPool2d: pooling,
    nn.LPPool2d: pooling,
    nn.AdaptiveAvgPool2d: adaptive_pooling,
    nn.AdaptiveMaxPool2d: adaptive_pooling,
    nn.ZeroPad2d: zero_padding,
    nn.Flatten: flattening,
}
POINTWISE: tuple[type[nn.Module], ...] = (
    nn.Identity, nn.BatchNorm1d, nn.BatchNorm2d, nn.LocalResponseNorm, nn.Dropout, nn.Dropout2d, nn.AlphaDropout,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.PReLU, nn.ELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Hardtanh, nn.Hardswish,
    nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Softplus, nn.Softmax, nn.LogSoftmax,
)  # fmt: skip
RULES |= dict.fromkeys(POINTWISE, pointwise)


def rule_of(layer: nn.Module) -> Rule | None:
    """The rule of a layer's type; None if there is none.

    A subclass has its base's rule as long as it has its base's `forward`.
    """
    if hasattr(layer, "layer_effect"):
        return lambda module, shape: module.layer_effect(shape)
    for kind in type(layer).__mro__:
        if kind in RULES:
            return RULES[kind] if type(layer).forward is kind.forward else None
    return None


def _pair(value: Any) -> tuple[Any, Any]:
    return value if isinstance(value, tuple) else (value, value)
