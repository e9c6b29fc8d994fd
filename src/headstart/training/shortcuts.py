"""The same net computed in another way while it is trained, where that takes less time; measured in docs/training.md.

None changes what the net is: parameters, their names and the function of the net are the same, and so are its layers
once the block is left.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.nets.staged import Staged


@contextmanager
def shortcuts(net: nn.Module) -> Iterator[None]:
    """Take the shortcuts in a block."""
    staged = [(module, module.chain) for module in net.modules() if isinstance(module, Staged)]
    quicker = [(module, way) for module in net.modules() if (way := _way(module)) is not None]
    try:
        for module, chain in staged:
            module.chain = {stage: _pool_first(module, names) for stage, names in chain.items()}
        for layer, way in quicker:
            layer.forward = partial(way, layer)
        yield
    finally:
        for module, chain in staged:
            module.chain = chain
        for layer, _ in quicker:
            del layer.forward


def _pool_first(net: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """Max pooling in front of the ReLU before it: `max(relu(x)) = relu(max(x))`, on fewer numbers."""
    order = list(names)
    for place, (first, second) in enumerate(pairwise(names)):
        if type(net.get_submodule(first)) is nn.ReLU and type(net.get_submodule(second)) is nn.MaxPool2d:
            order[place], order[place + 1] = second, first
    return tuple(order)


def _way(module: nn.Module) -> Callable[[Any, Tensor], Tensor] | None:
    """The quicker way of a layer, where there is one."""
    if type(module) is nn.AvgPool2d:
        usual = (module.kernel_size, module.stride, module.padding, module.divisor_override)
        return _pooled if usual in ((2, 2, 0, None), ((2, 2), (2, 2), 0, None)) else None
    if type(module) is not nn.Conv2d or module.groups != 1 or module.dilation != (1, 1):
        return None
    if module.in_channels == 1 and module.stride == (1, 1) and module.padding_mode == "zeros":
        return None if isinstance(module.padding, str) else _convolved_gray
    return _convolved if module.padding == (0, 0) and module.kernel_size != (1, 1) else None


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A window as large as the map is a dense layer, and a matrix product is faster than a convolution."""
    if x.shape[2:] != conv.kernel_size:
        return nn.Conv2d.forward(conv, x)
    numbers, weights = (tensor.permute(0, 2, 3, 1).flatten(1) for tensor in (x, conv.weight))  # as they lie in memory
    return functional.linear(numbers, weights, conv.bias)[:, :, None, None]


def _convolved_gray(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A convolution of one channel, with a quicker gradient of its weights."""
    return GrayConvolution.apply(x, conv.weight, conv.bias, conv.padding)  # type: ignore[no-any-return, no-untyped-call]


class GrayConvolution(torch.autograd.Function):
    """The gradient of the weights is itself a convolution: of the photos, as the channels of one, with the gradients.

    The library's own way for it is slow where there is a single input channel.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, int]) -> Tensor:
        """As `conv2d`, stride 1."""
        ctx.save_for_backward(x, weight)
        ctx.padding, ctx.has_bias = padding, bias is not None
        return functional.conv2d(x, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the photos, the weights and the bias."""
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        of_x = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_x = functional.conv_transpose2d(gradient, weight, padding=ctx.padding)
        if ctx.needs_input_grad[1]:
            of_weight = functional.conv2d(x.transpose(0, 1), gradient.transpose(0, 1), padding=ctx.padding)
            of_weight = of_weight.transpose(0, 1).contiguous()
        if ctx.has_bias and ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_x, of_weight, of_bias, None


def _pooled(pool: nn.AvgPool2d, x: Tensor) -> Tensor:
    """The mean of 2x2 pixels."""
    if not x.is_contiguous() or x.shape[2] % 2 or x.shape[3] % 2:  # with channels innermost the library is as quick
        return nn.AvgPool2d.forward(pool, x)
    return MeanOfFour.apply(x)  # type: ignore[no-any-return, no-untyped-call]


class MeanOfFour(torch.autograd.Function):
    """The mean of 2x2 pixels, by adding every second row and every second column."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004 - torch passes it
        """(batch, channels, height, width) to half the height and the width, both even."""
        rows = x[:, :, 0::2] + x[:, :, 1::2]
        return (rows[..., 0::2] + rows[..., 1::2]).mul_(0.25)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:  # noqa: ARG004 - torch passes it
        """A quarter of the gradient to each pixel."""
        quarter = gradients[0] * 0.25
        batch, channels, height, width = quarter.shape
        whole = quarter.new_empty((batch, channels, 2 * height, 2 * width))
        for row in (0, 1):
            for column in (0, 1):
                whole[:, :, row::2, column::2] = quarter
        return whole
