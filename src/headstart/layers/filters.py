"""Filter a photo by hand: cross-correlation, ReLU, pooling, with every number to look at.

`response[row, column]` is the sum over the window of `photo[row + i, column + j] * kernel[i, j]`, without flipping the
kernel, at every place where the window fits. A colour photo has one such sum a channel, and the three are added: one
neuron of a convolutional layer, without its bias.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from headstart.errors import ShapeError, UsageError
from headstart.layers.kernels import CURVE_PATCH, KERNELS, OTHER_PATCH, Kernel
from headstart.layers.shape_reports import PoolKind
from headstart.layers.shapes import Axis

Image = Float64[np.ndarray, "height width"] | Float64[np.ndarray, "channels height width"]
Map = Float64[np.ndarray, "rows columns"]
Pooled = Float64[np.ndarray, "pooled_rows pooled_columns"]

_POOLS: dict[PoolKind, Callable[[Float64[np.ndarray, "rows columns height width"]], Map]] = {
    "max": lambda windows: windows.max(axis=(-2, -1)),
    "average": lambda windows: windows.mean(axis=(-2, -1)),
    "l2": lambda windows: np.sqrt(np.square(windows).sum(axis=(-2, -1))),
}


@dataclass(frozen=True, eq=False)
class Filtered:
    """What one filter makes of the image.

    Args:
        kernel: its numbers, `(height, width)` or `(channels, height, width)`.
        terms: the response of each channel alone, `(channels, rows, columns)`; None for a grey image.
        response: the sum, signed, `(rows, columns)`.
        relu: the response with its negative part cut off.
        pooled: `relu` after pooling; None if none was asked for.
    """

    kernel: Kernel
    terms: Float64[np.ndarray, "channels rows columns"] | None
    response: Map
    relu: Map
    pooled: Pooled | None


@dataclass(frozen=True, eq=False)
class Products:
    """The products under one window, and their sum.

    Args:
        row, column: of the response; also the image pixel under the window's top left cell.
        patch: image values under the window.
        kernel: the filter, of the patch's shape.
    """

    row: int
    column: int
    patch: Image
    kernel: Kernel

    @property
    def products(self) -> Image:
        """Patch times filter, number by number."""
        return self.patch * self.kernel

    @property
    def total(self) -> float:
        """The sum of the products: the response at this place."""
        return float(self.products.sum())

    def to_text(self) -> str:
        """Every product that is not 0, in reading order, and the sum; a line a channel for a colour image."""
        patches, kernels = channels_of(self.patch), channels_of(self.kernel)
        lines = [f"at row {self.row}, column {self.column}, pixel*weight (products of 0 left out):"]
        names = ("",) if len(patches) == 1 else ("red    ", "green  ", "blue   ")
        for name, patch, kernel in zip(names, patches, kernels, strict=True):
            terms = [f"{number(p)}*{number(w)}" for p, w in zip(patch.flat, kernel.flat, strict=True) if p * w]
            lines.append(f"  {name}{' + '.join(terms) or '0'} = {number((patch * kernel).sum())}")
        if len(patches) > 1:
            sums = " + ".join(number(plane.sum()) for plane in patches * kernels)
            lines.append(f"  in all {sums} = {number(self.total)}")
        return "\n".join(lines)


def channels_of(values: Image) -> Float64[np.ndarray, "channels height width"]:
    """The same numbers with a channel axis: one for a grey image."""
    return values[None] if values.ndim == 2 else values


def apply_kernel(image: Image, kernel: Kernel) -> Float64[np.ndarray, "channels rows columns"]:
    """The response of each channel, before they are added: `(channels, rows, columns)`; a grey image has one.

    Args:
        image: `(height, width)` or `(channels, height, width)`, any unit.
        kernel: `(height, width)`, used on every channel, or one matrix a channel.

    Raises:
        ShapeError: the kernel is larger than the image, or has another number of channels.

    >>> apply_kernel(np.array([[0.0, 1.0, 3.0]]), np.array([[-1.0, 1.0]]))
    array([[[1., 2.]]])
    """
    planes = channels_of(image)
    kernels = np.broadcast_to(kernel, (len(planes), *kernel.shape[-2:])) if kernel.ndim == 2 else kernel
    if len(kernels) != len(planes):
        raise ShapeError(
            f"the filter has {len(kernels)} channels but the image has {len(planes)}; "
            "use a colour image with a filter of three matrices, or one matrix"
        )
    kernel_height, kernel_width = kernels.shape[1:]
    rows = Axis.of(planes.shape[1], kernel_height).output
    columns = Axis.of(planes.shape[2], kernel_width).output
    response = np.zeros((len(planes), rows, columns))
    for i in range(kernel_height):  # one shifted copy of the image a cell: no window is ever stored
        for j in range(kernel_width):
            response += kernels[:, i, j, None, None] * planes[:, i : i + rows, j : j + columns]
    return response


def pool_map(values: Map, pool: int, kind: PoolKind = "max") -> Pooled:
    """Pool a map by windows of `pool` x `pool` that do not overlap; rows and columns that do not fill a window are cut.

    Raises:
        ShapeError: the window is larger than the map, or below 1.

    >>> pool_map(np.array([[1.0, 2.0, 9.0], [3.0, 4.0, 9.0]]), 2, "average")
    array([[2.5]])
    """
    rows = Axis.of_pool(values.shape[0], pool).output
    columns = Axis.of_pool(values.shape[1], pool).output
    cut = values[: rows * pool, : columns * pool].reshape(rows, pool, columns, pool)
    return _POOLS[kind](cut.swapaxes(1, 2))


def products_at(image: Image, kernel: Kernel, row: int, column: int) -> Products:
    """The products under the window whose top left cell lies on pixel `(row, column)`.

    Raises:
        UsageError: the window would leave the image.
    """
    height, width = kernel.shape[-2:]
    last_row, last_column = image.shape[-2] - height, image.shape[-1] - width
    if not (0 <= row <= last_row and 0 <= column <= last_column):
        raise UsageError(
            f"no window of {height} x {width} starts at row {row}, column {column}; "
            f"rows go from 0 to {last_row}, columns from 0 to {last_column}"
        )
    patch = image[..., row : row + height, column : column + width]
    return Products(row, column, patch, np.broadcast_to(kernel, patch.shape))


def filter_image(image: Image, kernel: Kernel, pool: int | None = None, pool_kind: PoolKind = "max") -> Filtered:
    """Filter, ReLU and pooling of one image with one kernel. Raises ShapeError."""
    terms = apply_kernel(image, kernel)
    response = terms.sum(axis=0)
    relu = np.maximum(response, 0.0)
    pooled = None if pool is None else pool_map(relu, pool, pool_kind)
    return Filtered(kernel, None if image.ndim == 2 else terms, response, relu, pooled)


@dataclass(frozen=True, eq=False)
class CurveDemo:
    """The curve detector on the patch it looks for and on another one.

    Args:
        matching, other: the products on each patch.
    """

    matching: Products
    other: Products

    def to_text(self) -> str:
        """Both sums with their products, along the curve from its foot up."""
        terms = [
            f"({number(pixel)}*{number(weight)})"
            for pixel, weight in zip(self.matching.patch.flat, KERNELS["curve"].flat, strict=True)
            if pixel * weight
        ]
        found, missed = number(self.matching.total), number(self.other.total)
        return (
            f"the curve filter on a patch with that curve: {' + '.join(reversed(terms))} = {found}\n"
            f"the same filter on a patch with another line: {missed}, as no pixel of the line lies under a weight"
        )

    def to_json(self) -> dict[str, object]:
        """The filter, the patches and the sums."""
        return {
            "kernel": KERNELS["curve"].tolist(),
            "matching": {"patch": self.matching.patch.tolist(), "sum": self.matching.total},
            "other": {"patch": self.other.patch.tolist(), "sum": self.other.total},
        }


def curve_demo() -> CurveDemo:
    """The classic example: a 7x7 filter of 30s along a curve.

    >>> print(curve_demo().to_text().splitlines()[0].split(": ")[1])
    (50*30) + (50*30) + (50*30) + (20*30) + (50*30) = 6600
    """
    return CurveDemo(products_at(CURVE_PATCH, KERNELS["curve"], 0, 0), products_at(OTHER_PATCH, KERNELS["curve"], 0, 0))


def number(value: int | float) -> str:
    """A whole number without its point, any other with four digits."""
    return str(int(value)) if float(value).is_integer() else f"{value:.4g}"
