"""Deconvnet, guided backpropagation and gradients written out by hand: lists of layers, forward and back, no autograd.

Convolutions go back as transposed convolutions of the recorded size, batch norms as gamma / sigma, max pooling by
adding to the places of the maxima, rectifiers by their rule.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.nets.efficientnet_lite import EfficientNetLite, MBConv, SamePadding
from headstart.nets.googlenet import Inception
from headstart.nets.resnet import Basic
from headstart.nets.staged import Staged

Back = Callable[[Tensor], Tensor]


@dataclass
class Tape:
    """What ran: values by number, and for each the numbers it came from with the way back to them."""

    mode: str
    values: list[Tensor] = field(default_factory=list)
    ways: list[list[tuple[int, Back]]] = field(default_factory=list)
    entered: dict[str, int] = field(default_factory=dict)  # number of a layer's input, by the layer's name
    left: dict[str, int] = field(default_factory=dict)  # of its output

    def add(self, value: Tensor, *ways: tuple[int, Back]) -> int:
        assert not value.requires_grad
        self.values.append(value)
        self.ways.append(list(ways))
        return len(self.values) - 1

    def back(self, start: int, signal: Tensor) -> Tensor:
        """The signal at the net's input when `signal` is put in at a value."""
        signals = {start: signal}
        for number in range(start, 0, -1):
            if number in signals:
                for below, way in self.ways[number]:
                    arrived = way(signals[number])
                    signals[below] = signals[below] + arrived if below in signals else arrived
        return signals.get(0, torch.zeros_like(self.values[0]))


@torch.no_grad()
def run(net: nn.Module, x: Tensor, mode: str) -> Tape:
    """Run a net and keep the way back; the last value is its output."""
    tape = Tape(mode)
    _layer(tape, net, "", tape.add(x.clone()))
    return tape


def _layer(tape: Tape, module: nn.Module, name: str, at: int) -> int:
    tape.entered[name] = at
    parts = f"{name}." if name else ""
    if isinstance(module, nn.Sequential):
        out = at
        for child, layer in module.named_children():
            out = _layer(tape, layer, f"{parts}{child}", out)
    elif isinstance(module, Staged):
        out = at
        for layers in module.chain.values():
            for layer in layers:
                out = _layer(tape, module.get_submodule(layer), f"{parts}{layer}", out)
    elif isinstance(module, EfficientNetLite):
        out = at
        for layer in (*module.cuts, "dropout", "classifier"):
            out = _layer(tape, module.get_submodule(layer), f"{parts}{layer}", out)
    elif isinstance(module, Inception):
        out = _joined(tape, [_layer(tape, module.get_submodule(b), f"{parts}{b}", at) for b in BRANCHES])
    elif isinstance(module, MBConv):
        out = at
        for layer in ("expand", "depthwise", "project"):
            out = _layer(tape, module.get_submodule(layer), f"{parts}{layer}", out)
        out = _sum(tape, at, out) if module.residual else out
    elif isinstance(module, Basic):
        out = at
        for layer in ("conv1", "bn1", "relu1", "conv2", "bn2"):
            out = _layer(tape, module.get_submodule(layer), f"{parts}{layer}", out)
        out = _sum(tape, _layer(tape, module.downsample, f"{parts}downsample", at), out)
        out = _layer(tape, module.relu2, f"{parts}relu2", out)
    else:
        value, way = _single(module, tape.values[at], tape.mode)
        out = tape.add(value, (at, way))
    tape.left[name] = out
    return out


BRANCHES = ("branch1", "branch2", "branch3", "branch4")


def _joined(tape: Tape, parts: list[int]) -> int:
    ways, first = [], 0
    for part in parts:
        wide = tape.values[part].shape[1]
        ways.append((part, lambda signal, first=first, wide=wide: signal[:, first : first + wide]))
        first += wide
    return tape.add(torch.cat([tape.values[part] for part in parts], dim=1), *ways)


def _sum(tape: Tape, one: int, other: int) -> int:
    return tape.add(tape.values[one] + tape.values[other], (one, lambda r: r), (other, lambda r: r))


def _single(module: nn.Module, x: Tensor, mode: str) -> tuple[Tensor, Back]:
    if isinstance(module, nn.ReLU | nn.ReLU6):
        top = math.inf if isinstance(module, nn.ReLU) else 6.0
        return torch.minimum(torch.relu(x), torch.tensor(top, dtype=x.dtype)), _rectified(x, top, mode)
    if isinstance(module, nn.Conv2d):
        return functional.conv2d(
            x, module.weight, module.bias, module.stride, module.padding, module.dilation, module.groups
        ), lambda r: _transposed(module, x, r)
    if isinstance(module, nn.Linear):
        return x @ module.weight.T + module.bias, lambda r: r @ module.weight
    if isinstance(module, nn.BatchNorm2d):
        scale = (module.weight / torch.sqrt(module.running_var + module.eps))[:, None, None]
        moved = (x - module.running_mean[:, None, None]) * scale + module.bias[:, None, None]
        return moved, lambda r: r * scale
    if isinstance(module, nn.MaxPool2d):
        value, switches = functional.max_pool2d(
            x, module.kernel_size, module.stride, module.padding, ceil_mode=module.ceil_mode, return_indices=True
        )
        return value, lambda r: _unpooled(x, switches, r)
    if isinstance(module, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        value = module(x)
        return value, lambda r: _spread(module, x, r)
    if isinstance(module, nn.Flatten):
        return x.flatten(1), lambda r: r.reshape(x.shape)
    if isinstance(module, nn.Dropout | nn.Identity):
        return x.clone(), lambda r: r
    if isinstance(module, SamePadding):
        value = module(x)
        top, left = (value.shape[-2] - x.shape[-2]) // 2, (value.shape[-1] - x.shape[-1]) // 2
        return value, lambda r: r[..., top : top + x.shape[-2], left : left + x.shape[-1]]
    raise TypeError(type(module))


def _rectified(x: Tensor, top: float, mode: str) -> Back:
    passes = ((x > 0) & (x < top)).to(x.dtype)

    def way(signal: Tensor) -> Tensor:
        positive = torch.where(signal > 0, signal, torch.zeros_like(signal))
        return {"gradient": signal * passes, "deconv": positive, "guided": positive * passes}[mode]

    return way


def _transposed(module: nn.Conv2d, x: Tensor, signal: Tensor) -> Tensor:
    left_over = [
        x.shape[axis + 2]
        - ((signal.shape[axis + 2] - 1) * module.stride[axis] - 2 * module.padding[axis])
        - (module.dilation[axis] * (module.kernel_size[axis] - 1) + 1)
        for axis in (0, 1)
    ]
    return functional.conv_transpose2d(
        signal, module.weight, None, module.stride, module.padding, left_over, module.groups, module.dilation
    )


def _unpooled(x: Tensor, switches: Tensor, signal: Tensor) -> Tensor:
    flat = torch.zeros_like(x).flatten(2)
    return flat.scatter_add_(2, switches.flatten(2), signal.flatten(2)).reshape(x.shape)


def _spread(module: nn.AvgPool2d | nn.AdaptiveAvgPool2d, x: Tensor, signal: Tensor) -> Tensor:
    """Each mean's signal in equal shares over its window."""
    below = torch.zeros_like(x)
    height, width = x.shape[2:]
    for row in range(signal.shape[2]):
        for column in range(signal.shape[3]):
            top, bottom, rows = _window(module, row, height, signal.shape[2])
            left, right, columns = _window(module, column, width, signal.shape[3])
            share = signal[:, :, row : row + 1, column : column + 1] / (rows * columns)
            below[:, :, top:bottom, left:right] += share
    return below


def _window(module: nn.AvgPool2d | nn.AdaptiveAvgPool2d, at: int, side: int, units: int) -> tuple[int, int, int]:
    """First and one past the last pixel of a window, and how many it counts as."""
    if isinstance(module, nn.AdaptiveAvgPool2d):
        first, last = at * side // units, -(-(at + 1) * side // units)
        return first, last, last - first
    first = at * module.stride - module.padding
    last = min(first + module.kernel_size, side + module.padding)  # padding counts, what is beyond it does not
    return max(first, 0), min(last, side), last - first
