"""The derivative of every function in `reference.py`, written out: what backpropagation computes, one layer at a time.

`upstream` is the gradient of the loss with respect to the layer's output; each function returns it with respect to the
layer's input and parameters, by the chain rule.
"""

import itertools

import numpy as np
from jaxtyping import Bool, Float64

from headstart.layers.reference import (
    DropoutKind,
    Images,
    Logits,
    OutImages,
    Pooled,
    Rows,
    Weight,
    batch_statistics,
    check_channels,
    pad,
    sigmoid,
    softmax,
    tanh,
    window_at,
)
from headstart.layers.shape_reports import PoolKind

Values = Float64[np.ndarray, "*shape"]


def conv2d_gradients(
    upstream: OutImages,
    x: Images,
    weight: Weight,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> tuple[Images, Weight, Float64[np.ndarray, "filters"]]:
    """Gradients of `conv2d` with respect to x, weight and bias.

    Each product `x * w` of the forward sum sends `upstream * w` back to its pixel and `upstream * x` to its weight.
    """
    check_channels(x, weight, groups)
    padded = pad(x, padding)
    to_x, to_weight = np.zeros_like(padded), np.zeros_like(weight)
    for k, r, c in itertools.product(*map(range, upstream.shape[1:])):
        at = window_at(weight, k, r, c, stride, dilation, groups)
        above = upstream[:, k, r, c, None, None, None]  # one number a photo
        to_x[at] += above * weight[k]
        to_weight[k] += (above * padded[at]).sum(axis=0)
    height, width = x.shape[2:]
    inside = to_x[:, :, padding : padding + height, padding : padding + width]
    return inside, to_weight, upstream.sum(axis=(0, 2, 3))


def pool2d_gradient(
    upstream: Pooled, x: Images, size: int, stride: int | None = None, kind: PoolKind = "max"
) -> Images:
    """Gradient of `pool2d` with respect to x; overlapping windows add up.

    The maximum sends everything to the pixel that won (the first in reading order if several are equal), the mean sends
    each pixel its share, the L2 norm sends each pixel its share of the norm, `x / y` (0 where y is 0).
    """
    step = stride or size
    to_x = np.zeros_like(x)
    for n, d, r, c in itertools.product(*map(range, upstream.shape)):
        at = n, d, slice(r * step, r * step + size), slice(c * step, c * step + size)
        window = x[at]
        if kind == "max":
            share = np.zeros_like(window)
            share.flat[window.argmax()] = 1.0
        elif kind == "average":
            share = np.full_like(window, 1 / size**2)
        else:
            norm = np.sqrt((window**2).sum())
            share = window / norm if norm > 0 else np.zeros_like(window)
        to_x[at] += upstream[n, d, r, c] * share
    return to_x


def global_average_pool_gradient(upstream: Float64[np.ndarray, "batch channels"], x: Images) -> Images:
    """Gradient of `global_average_pool`: every pixel gets the same share."""
    height, width = x.shape[2:]
    return np.broadcast_to(upstream[:, :, None, None] / (height * width), x.shape)


def dense_gradients(
    upstream: Float64[np.ndarray, "batch units"], x: Rows, weight: Float64[np.ndarray, "units features"]
) -> tuple[Rows, Float64[np.ndarray, "units features"], Float64[np.ndarray, "units"]]:
    """Gradients of `dense` with respect to x, weight and bias."""
    to_x, to_weight = np.zeros_like(x), np.zeros_like(weight)
    for n, u in itertools.product(range(len(x)), range(len(weight))):
        to_x[n] += upstream[n, u] * weight[u]
        to_weight[u] += upstream[n, u] * x[n]
    return to_x, to_weight, upstream.sum(axis=0)


def batch_norm_gradients(
    upstream: Images, x: Images, scale: Float64[np.ndarray, "channels"], epsilon: float = 1e-5
) -> tuple[Images, Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """Gradients of `batch_norm` with the batch's own statistics, with respect to x, scale and shift.

    Mean and variance depend on every x of the channel, so a part of the gradient goes through them: what is left is the
    upstream gradient without its mean and without its part along the normalised values (Ioffe & Szegedy 2015, section
    3).
    """
    mean, variance = batch_statistics(x)
    to_x, to_scale, to_shift = np.empty_like(x), np.empty_like(scale), np.empty_like(scale)
    for d in range(x.shape[1]):
        spread = np.sqrt(variance[d] + epsilon)
        normal, above = (x[:, d] - mean[d]) / spread, upstream[:, d]
        to_scale[d], to_shift[d] = (above * normal).sum(), above.sum()
        to_x[:, d] = scale[d] / spread * (above - above.mean() - normal * (above * normal).mean())
    return to_x, to_scale, to_shift


def dropout_gradient(
    upstream: Rows, rate: float, keep: Bool[np.ndarray, "batch features"] | None, kind: DropoutKind = "inverted"
) -> Rows:
    """Gradient of `dropout`: it is linear, so the gradient passes through the same zeros and the same factor."""
    survive = 1 - rate
    if keep is None:
        return upstream if kind == "inverted" else upstream * survive
    return np.asarray(upstream * keep / survive if kind == "inverted" else upstream * keep)


def relu_gradient(upstream: Values, x: Values) -> Values:
    """Where x > 0 the gradient passes, elsewhere it stops (at exactly 0 too)."""
    return np.where(x > 0, upstream, 0.0)


def tanh_gradient(upstream: Values, x: Values) -> Values:
    """`upstream * (1 - tanh(x)**2)`."""
    return np.asarray(upstream * (1 - tanh(x) ** 2))


def sigmoid_gradient(upstream: Values, x: Values) -> Values:
    """`upstream * s * (1 - s)` with `s = sigmoid(x)`: at most a quarter of what came."""
    s = sigmoid(x)
    return np.asarray(upstream * s * (1 - s))


def softmax_gradient(upstream: Logits, x: Logits) -> Logits:
    """`p[c] * (upstream[c] - sum of upstream * p)` with `p = softmax(x)`."""
    p = softmax(x)
    return np.asarray(p * (upstream - (upstream * p).sum(axis=1, keepdims=True)))


def cross_entropy_gradient(logits: Logits, targets: Logits) -> Logits:
    """Gradient of `cross_entropy` with respect to the logits: `(softmax(x) - t) / batch` where t adds up to 1."""
    total = targets.sum(axis=1, keepdims=True)
    return np.asarray((softmax(logits) * total - targets) / len(logits))


def mean_squared_error_gradient(outputs: Logits, targets: Logits) -> Logits:
    """Gradient of `mean_squared_error` with respect to the outputs: `(y - t) / batch`."""
    return np.asarray((outputs - targets) / len(outputs))
