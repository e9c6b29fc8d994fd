"""Every layer written out from its definition in NumPy: slow, short, and the oracle for everything fast.

Arrays are float64. Images are `(batch, channels, height, width)`, vectors `(batch, features)`. The loops run over what
the formula's sum runs over, so that the code can be read beside it; `reference_gradients.py` has the derivatives.
"""

import itertools
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float64, Int64

from headstart.errors import ShapeError
from headstart.layers.shape_reports import PoolKind
from headstart.layers.shapes import Axis

Images = Float64[np.ndarray, "batch channels height width"]
OutImages = Float64[np.ndarray, "batch filters rows columns"]
Pooled = Float64[np.ndarray, "batch channels rows columns"]
Weight = Float64[np.ndarray, "filters group_channels kernel_height kernel_width"]
Rows = Float64[np.ndarray, "batch features"]
Logits = Float64[np.ndarray, "batch classes"]
Values = Float64[np.ndarray, "*shape"]
DropoutKind = Literal["inverted", "classical"]


def conv2d(
    x: Images,
    weight: Weight,
    bias: Float64[np.ndarray, "filters"] | None = None,
    stride: int = 1,
    padding: int = 0,
    dilation: int = 1,
    groups: int = 1,
) -> OutImages:
    """Convolution as networks mean it, which is cross-correlation: the filter is not flipped.

    `y[n, k, r, c] = b[k] + sum over d, i, j of x[n, d, r*stride + i*dilation, c*stride + j*dilation] * w[k, d, i, j]`,
    with x zero-padded; `d` runs over the channels of the filter's group.

    Raises:
        ShapeError: the channels do not match, or the window does not fit.

    >>> conv2d(np.ones((1, 1, 3, 3)), np.ones((1, 1, 2, 2))).tolist()
    [[[[4.0, 4.0], [4.0, 4.0]]]]
    """
    check_channels(x, weight, groups)
    filters, _, kernel_height, kernel_width = weight.shape
    rows = Axis.of(x.shape[2], kernel_height, stride, padding, dilation).output
    columns = Axis.of(x.shape[3], kernel_width, stride, padding, dilation).output
    padded = pad(x, padding)
    y = np.zeros((len(x), filters, rows, columns))
    for k, r, c in itertools.product(range(filters), range(rows), range(columns)):
        window = padded[window_at(weight, k, r, c, stride, dilation, groups)]
        y[:, k, r, c] = (window * weight[k]).sum(axis=(1, 2, 3))
    return y if bias is None else y + bias[None, :, None, None]


def pool2d(x: Images, size: int, stride: int | None = None, kind: PoolKind = "max") -> Pooled:
    """Pooling of square windows, each channel for itself; the stride is the window's size where it is not given.

    A window w gives `max(w)`, `sum(w) / size**2` or `sqrt(sum(w**2))`.

    Raises:
        ShapeError: the window does not fit.

    >>> pool2d(np.array([[[[3.0, 4.0]]]]), 1, kind="l2").tolist()
    [[[[3.0, 4.0]]]]
    """
    step = stride or size
    rows = Axis.of_pool(x.shape[2], size, step).output
    columns = Axis.of_pool(x.shape[3], size, step).output
    y = np.zeros((*x.shape[:2], rows, columns))
    for r, c in itertools.product(range(rows), range(columns)):
        window = x[:, :, r * step : r * step + size, c * step : c * step + size]
        if kind == "max":
            y[:, :, r, c] = window.max(axis=(2, 3))
        elif kind == "average":
            y[:, :, r, c] = window.sum(axis=(2, 3)) / size**2
        else:
            y[:, :, r, c] = np.sqrt((window**2).sum(axis=(2, 3)))
    return y


def global_average_pool(x: Images) -> Float64[np.ndarray, "batch channels"]:
    """The mean of each channel over all its pixels."""
    return np.asarray(x.sum(axis=(2, 3)) / (x.shape[2] * x.shape[3]))


def dense(
    x: Rows, weight: Float64[np.ndarray, "units features"], bias: Float64[np.ndarray, "units"]
) -> Float64[np.ndarray, "batch units"]:
    """`y[n, u] = b[u] + sum over f of x[n, f] * w[u, f]`.

    >>> dense(np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]]), np.array([5.0])).tolist()
    [[16.0]]
    """
    y = np.zeros((len(x), len(weight)))
    for u in range(len(weight)):
        y[:, u] = bias[u] + (x * weight[u]).sum(axis=1)
    return y


def batch_statistics(x: Images) -> tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """Mean and variance (over n, not n - 1) of each channel, over all photos and pixels of the batch."""
    mean = x.mean(axis=(0, 2, 3))
    variance = ((x - mean[None, :, None, None]) ** 2).mean(axis=(0, 2, 3))
    return mean, variance


def batch_norm(
    x: Images,
    mean: Float64[np.ndarray, "channels"],
    variance: Float64[np.ndarray, "channels"],
    scale: Float64[np.ndarray, "channels"],
    shift: Float64[np.ndarray, "channels"],
    epsilon: float = 1e-5,
) -> Images:
    """`scale * (x - mean) / sqrt(variance + epsilon) + shift`, a channel at a time (Ioffe & Szegedy 2015, algorithm 1).

    While training, mean and variance are `batch_statistics(x)`; afterwards they are the running ones.
    """
    y = np.empty_like(x)
    for d in range(x.shape[1]):
        y[:, d] = scale[d] * (x[:, d] - mean[d]) / np.sqrt(variance[d] + epsilon) + shift[d]
    return y


def running_statistics(
    running: tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]], x: Images, momentum: float = 0.1
) -> tuple[Float64[np.ndarray, "channels"], Float64[np.ndarray, "channels"]]:
    """The running mean and variance after one more batch: `(1 - momentum) * old + momentum * new`.

    The running variance takes the unbiased estimate of the batch (divided by n - 1), as PyTorch's does.
    """
    mean, variance = batch_statistics(x)
    count = x.size // x.shape[1]
    unbiased = variance * count / (count - 1)
    return (1 - momentum) * running[0] + momentum * mean, (1 - momentum) * running[1] + momentum * unbiased


def dropout(
    x: Rows, rate: float, keep: Bool[np.ndarray, "batch features"] | None, kind: DropoutKind = "inverted"
) -> Rows:
    """Zero what `keep` does not keep (Srivastava et al. 2014).

    Inverted: while training the rest is divided by `1 - rate`, so that afterwards nothing needs to be done. Classical:
    the rest stays as it is, and afterwards everything is multiplied by `1 - rate`.

    Args:
        x: activations.
        rate: share of units dropped, 0 <= rate < 1.
        keep: which units stay, drawn with `keep_mask`; None once training is over.
        kind: 'inverted' or 'classical'.
    """
    survive = 1 - rate
    if keep is None:
        return x if kind == "inverted" else x * survive
    return np.asarray(x * keep / survive if kind == "inverted" else x * keep)


def keep_mask(shape: tuple[int, int], rate: float, random: np.random.Generator) -> Bool[np.ndarray, "batch features"]:
    """Which units stay: each with probability `1 - rate`, independently."""
    return np.asarray(random.random(shape) >= rate)


def relu(x: Values) -> Values:
    """`max(x, 0)`."""
    return np.where(x > 0, x, 0.0)


def tanh(x: Values) -> Values:
    """`(e^x - e^-x) / (e^x + e^-x)`, from -1 to 1; written so that no power overflows."""
    decay = np.exp(-2 * np.abs(x))
    return np.asarray(np.sign(x) * (1 - decay) / (1 + decay))


def sigmoid(x: Values) -> Values:
    """`1 / (1 + e^-x)`, from 0 to 1; written so that no power overflows."""
    decay = np.exp(-np.abs(x))
    return np.asarray(np.where(x >= 0, 1.0, decay) / (1 + decay))


def softmax(x: Logits) -> Logits:
    """`e^x[c] / sum of e^x`: numbers that add up to 1. Subtracting the largest first changes nothing but the overflow.

    >>> softmax(np.array([[0.0, 0.0]])).tolist()
    [[0.5, 0.5]]
    """
    powers = np.exp(x - x.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def one_hot(labels: Int64[np.ndarray, "batch"], classes: int) -> Logits:
    """A row of zeros a photo, with a 1 in the column of its class.

    Raises:
        ShapeError: a label is below 0 or not below `classes`.

    >>> one_hot(np.array([1, 0]), 3).tolist()
    [[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]
    """
    if len(labels) and not (labels.min() >= 0 and labels.max() < classes):
        raise ShapeError(f"labels go from {labels.min()} to {labels.max()}; expected 0 to {classes - 1}")
    y = np.zeros((len(labels), classes))
    for n, label in enumerate(labels):
        y[n, label] = 1.0
    return y


def cross_entropy(logits: Logits, targets: Logits) -> float:
    """Categorical cross-entropy: `-sum over c of t[c] * log softmax(x)[c]`, the mean over the batch.

    Args:
        logits: what the last layer gives, before softmax.
        targets: one-hot labels, or probabilities.
    """
    largest = logits.max(axis=1, keepdims=True)
    log_sum = largest + np.log(np.exp(logits - largest).sum(axis=1, keepdims=True))
    return float((targets * (log_sum - logits)).sum(axis=1).mean())


def mean_squared_error(outputs: Logits, targets: Logits) -> float:
    """`1/2 * sum over c of (y[c] - t[c])**2`, the mean over the batch."""
    return float((0.5 * (outputs - targets) ** 2).sum(axis=1).mean())


def pad(x: Images, padding: int) -> Float64[np.ndarray, "batch channels padded_height padded_width"]:
    """Zeros around each channel, `padding` pixels on every side."""
    return np.pad(x, ((0, 0), (0, 0), (padding, padding), (padding, padding)))


def window_at(
    weight: Weight, k: int, r: int, c: int, stride: int, dilation: int, groups: int
) -> tuple[slice, slice, slice, slice]:
    """Where filter k looks to make output (r, c): every photo, its group's channels, the rows and the columns."""
    filters, depth, kernel_height, kernel_width = weight.shape
    group = k // (filters // groups)
    top, left = r * stride, c * stride
    return (
        slice(None),
        slice(group * depth, (group + 1) * depth),
        slice(top, top + dilation * (kernel_height - 1) + 1, dilation),
        slice(left, left + dilation * (kernel_width - 1) + 1, dilation),
    )


def check_channels(x: Images, weight: Weight, groups: int) -> None:
    """Refuse a filter of another depth than its group of channels. Raises ShapeError."""
    if groups < 1 or x.shape[1] % groups or len(weight) % groups or weight.shape[1] != x.shape[1] // groups:
        raise ShapeError(
            f"{len(weight)} filters of depth {weight.shape[1]} do not fit {x.shape[1]} channels in {groups} groups; "
            f"expected a depth of channels / groups, and groups that divide channels and filters"
        )
