"""The same net computed in another order while it is trained, where that takes less time; measured in docs/training.md.

Neither changes what the net is: parameters, their names and the function of the net are the same, and so are its layers
once the block is left.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from headstart.nets.staged import Staged


@contextmanager
def shortcuts(net: nn.Module) -> Iterator[None]:
    """Take the shortcuts in a block."""
    staged = [(module, module.chain) for module in net.modules() if isinstance(module, Staged)]
    windows = [module for module in net.modules() if type(module) is nn.Conv2d and _is_plain(module)]
    try:
        for module, chain in staged:
            module.chain = {stage: _pool_first(module, names) for stage, names in chain.items()}
        for conv in windows:
            conv.forward = partial(_convolved, conv)  # type: ignore[method-assign]
        yield
    finally:
        for module, chain in staged:
            module.chain = chain
        for conv in windows:
            del conv.forward


def _pool_first(net: nn.Module, names: tuple[str, ...]) -> tuple[str, ...]:
    """Max pooling in front of the ReLU before it: `max(relu(x)) = relu(max(x))`, on fewer numbers."""
    order = list(names)
    for place, (first, second) in enumerate(pairwise(names)):
        if type(net.get_submodule(first)) is nn.ReLU and type(net.get_submodule(second)) is nn.MaxPool2d:
            order[place], order[place + 1] = second, first
    return tuple(order)


def _is_plain(conv: nn.Conv2d) -> bool:
    return conv.groups == 1 and conv.dilation == (1, 1) and conv.padding == (0, 0) and conv.kernel_size != (1, 1)


def _convolved(conv: nn.Conv2d, x: Tensor) -> Tensor:
    """A window as large as the map is a dense layer, and a matrix product is faster than a convolution."""
    if x.shape[2:] != conv.kernel_size:
        return nn.Conv2d.forward(conv, x)
    numbers, weights = (tensor.permute(0, 2, 3, 1).flatten(1) for tensor in (x, conv.weight))  # as they lie in memory
    return functional.linear(numbers, weights, conv.bias)[:, :, None, None]
