"""What the functions that a net's `forward` calls between its layers do to a shape: sums, concatenations, reshapes."""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from headstart.layers.rules import Effect, Shape, adaptive_effect, padding_effect

ADD = {torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__, Tensor.add_, Tensor.__iadd__, torch.sub, Tensor.sub}
SCALE = {torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__, torch.div, Tensor.div, Tensor.__truediv__}
POINTWISE = {
    torch.relu, Tensor.relu, functional.relu, functional.relu6, functional.leaky_relu, functional.hardtanh,
    torch.tanh, Tensor.tanh, functional.tanh, torch.sigmoid, Tensor.sigmoid, functional.sigmoid, functional.silu,
    functional.gelu, functional.dropout, functional.softmax, torch.softmax, Tensor.softmax, functional.log_softmax,
    Tensor.contiguous, Tensor.clone, torch.clone, Tensor.detach,
}  # fmt: skip
CONCATENATE = {torch.cat, torch.concat, torch.concatenate}
RESHAPE = {torch.flatten, Tensor.flatten, Tensor.view, Tensor.reshape, torch.reshape}
MEAN = {torch.mean, Tensor.mean}
PICK = {torch.index_select, Tensor.index_select}


def function_effect(
    function: Callable[..., Any], inputs: list[Tensor], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Effect | None:
    """What a function does to its inputs, without the batch; None if it has no rule here.

    Args:
        function: as PyTorch names it.
        inputs: the tensors among its arguments that come from the photo.
        args, kwargs: all its arguments.
    """
    shapes = [tuple(value.shape[1:]) for value in inputs]
    if function in ADD or function in SCALE:
        return _same(shapes)
    if function in POINTWISE:
        return Effect(shapes[0]) if len(shapes) == 1 else None
    if function in CONCATENATE:
        return _concatenated(shapes, args[1] if len(args) > 1 else kwargs.get("dim", 0))
    if function in RESHAPE:
        return _reshaped(function, inputs[0], args, kwargs)
    if function in MEAN:
        return _mean(inputs[0], args, kwargs)
    if function in PICK:
        return _picked(inputs[0], args, kwargs)
    if function is functional.pad:
        return _padded(shapes[0], args, kwargs)
    if function is functional.adaptive_avg_pool2d:
        wanted = args[1] if len(args) > 1 else kwargs["output_size"]
        return adaptive_effect(wanted if isinstance(wanted, tuple) else (wanted, wanted), shapes[0])
    return None


def _same(shapes: list[Shape]) -> Effect | None:
    """Number by number; a map of another size (broadcast) sees differently, so it is not understood."""
    return Effect(shapes[0]) if len(set(shapes)) == 1 else None


def _concatenated(shapes: list[Shape], dim: int) -> Effect | None:
    """Along the channels."""
    axes = len(shapes[0]) + 1
    if dim % axes != 1 or len({shape[1:] for shape in shapes}) != 1:
        return None
    return Effect((sum(shape[0] for shape in shapes), *shapes[0][1:]))


def _reshaped(
    function: Callable[..., Any], value: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Effect | None:
    """Only to one vector a photo: all units side by side."""
    if function in (torch.flatten, Tensor.flatten):
        start = args[1] if len(args) > 1 else kwargs.get("start_dim", 0)
        wanted: tuple[int, ...] = (
            (value.shape[0], -1) if start == 1 and len(args) < 3 and "end_dim" not in kwargs else ()
        )
    else:
        sizes = args[1:] if args[1:] else (kwargs.get("shape", ()),)
        wanted = tuple(sizes[0]) if isinstance(sizes[0], tuple | list | torch.Size) else sizes
    features = math.prod(value.shape[1:])
    if len(wanted) != 2 or wanted[0] not in (value.shape[0], -1) or wanted[1] not in (features, -1):
        return None
    return Effect((features,), 0, "whole")


def _mean(value: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Effect | None:
    """Over all pixels of each channel: global average pooling."""
    dims = args[1] if len(args) > 1 else kwargs.get("dim")
    if value.ndim != 4 or not isinstance(dims, tuple | list) or {dim % 4 for dim in dims} != {2, 3}:
        return None
    keep = args[2] if len(args) > 2 else kwargs.get("keepdim", False)
    channels = value.shape[1]
    return Effect((channels, 1, 1) if keep else (channels,), 0, "whole")


def _picked(value: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Effect | None:
    """Some of the channels."""
    dim = args[1] if len(args) > 1 else kwargs.get("dim")
    index = args[2] if len(args) > 2 else kwargs.get("index")
    if dim != 1 or not isinstance(index, Tensor):
        return None
    return Effect((len(index), *value.shape[2:]))


def _padded(shape: Shape, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Effect | None:
    """Zeros around a map."""
    sides = tuple(args[1] if len(args) > 1 else kwargs["pad"])
    mode = args[2] if len(args) > 2 else kwargs.get("mode", "constant")
    value = args[3] if len(args) > 3 else kwargs.get("value", 0)
    if len(sides) != 4 or mode != "constant" or value:
        return None
    return padding_effect((sides[0], sides[1], sides[2], sides[3]), shape)
