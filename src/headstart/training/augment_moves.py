"""Augmentation that moves pixels: flips and whole-pixel shifts by index, everything else as one bilinear sampling.

A move is a 3x3 matrix a photo, in pixels, x to the right and y down from the middle of the photo: it says where a point
of the photo goes. Moves are composed by multiplying (`after @ before`), so that however many there are, the photo is
sampled once and blurred once.

Every function takes parameters as tensors of one entry a photo, and photos of any scale of values.
"""

import math
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from headstart.errors import ConfigError

Photos = Float[Tensor, "batch channels height width"]
Moves = Float[Tensor, "batch 3 3"]
PerPhoto = Float[Tensor, "batch"]
# What lies beyond the edge: reflection mirrors the photo, edge pixels included; border repeats the edge pixels.
Padding = Literal["reflection", "border"]
PADDINGS = ("reflection", "border")


def flip_horizontally(
    batch: Shaped[Tensor, "batch channels height width"], which: Bool[Tensor, "batch"]
) -> Shaped[Tensor, "batch channels height width"]:
    """Swap left and right of the photos that `which` names; exact, any type of pixels.

    >>> flip_horizontally(torch.tensor([[[[1, 2, 3]]], [[[1, 2, 3]]]]), torch.tensor([True, False])).flatten().tolist()
    [3, 2, 1, 1, 2, 3]
    """
    height, width = batch.shape[2:]
    rows, columns = torch.arange(height), torch.arange(width)
    return gather_pixels(batch, rows.expand(len(batch), -1), torch.where(which[:, None], columns.flip(0), columns))


def flip_vertically(
    batch: Shaped[Tensor, "batch channels height width"], which: Bool[Tensor, "batch"]
) -> Shaped[Tensor, "batch channels height width"]:
    """Turn the photos that `which` names upside down, as a mirror below them would; exact, any type of pixels."""
    height, width = batch.shape[2:]
    rows, columns = torch.arange(height), torch.arange(width)
    return gather_pixels(batch, torch.where(which[:, None], rows.flip(0), rows), columns.expand(len(batch), -1))


def shift_pixels(
    batch: Shaped[Tensor, "batch channels height width"],
    right: Int64[Tensor, "batch"],
    down: Int64[Tensor, "batch"],
    padding: Padding = "reflection",
) -> Shaped[Tensor, "batch channels height width"]:
    """Shift by whole pixels; exact, any type of pixels. What comes in over the edge is the photo mirrored, or its edge.

    >>> shift_pixels(torch.tensor([[[[1, 2, 3]]]]), torch.tensor([1]), torch.tensor([0])).flatten().tolist()
    [1, 1, 2]
    """
    height, width = batch.shape[2:]
    return gather_pixels(batch, shifted_index(height, down, padding), shifted_index(width, right, padding))


def shifted_index(
    side: int, pixels: Int64[Tensor, "batch"], padding: Padding = "reflection"
) -> Int64[Tensor, "batch side"]:
    """Which row (or column) of the photo each row of the shifted photo shows.

    >>> shifted_index(4, torch.tensor([2, -1])).tolist()
    [[1, 0, 0, 1], [1, 2, 3, 3]]
    """
    index = torch.arange(side) - pixels[:, None]
    if padding == "border":
        return index.clamp(0, side - 1)
    index = index.remainder(2 * side)  # mirrored again and again, edge pixels included
    return torch.minimum(index, 2 * side - 1 - index)


def gather_pixels(
    batch: Shaped[Tensor, "batch channels height width"],
    rows: Int64[Tensor, "batch height"],
    columns: Int64[Tensor, "batch width"],
) -> Shaped[Tensor, "batch channels height width"]:
    """`out[i, :, y, x] = batch[i, :, rows[i, y], columns[i, x]]`.

    Two takes of NumPy a photo: for bytes this is several times faster than one indexing of the whole batch by torch.
    """
    source = batch.numpy()
    taken = np.empty_like(source, order="C")
    for photo, out, row, column in zip(source, taken, rows.numpy(), columns.numpy(), strict=True):
        photo.take(row, 1).take(column, 2, out, "clip")  # every index is inside; "raise" would copy `out` once more
    return torch.from_numpy(taken)


def flips(horizontal: Bool[Tensor, "batch"], vertical: Bool[Tensor, "batch"]) -> Moves:
    """Flips as moves, where a photo is sampled anyway; determinant -1 a flip."""
    return _matrices(1.0 - 2.0 * horizontal.float(), 0.0, 0.0, 0.0, 1.0 - 2.0 * vertical.float(), 0.0, len(horizontal))


def shifts(right: PerPhoto, down: PerPhoto) -> Moves:
    """Shifts by pixels, whole or not; determinant 1."""
    return _matrices(1.0, 0.0, right, 0.0, 1.0, down, len(right))


def rotations(degrees: PerPhoto) -> Moves:
    """Rotations about the middle, counter-clockwise as one sees them; determinant 1."""
    angle = degrees * (math.pi / 180)
    cosine, sine = angle.cos(), angle.sin()
    return _matrices(cosine, sine, 0.0, -sine, cosine, 0.0, len(degrees))


def zooms(factor: PerPhoto) -> Moves:
    """Enlarge about the middle by `factor` (below 1: shrink); determinant the factor's square."""
    return _matrices(factor, 0.0, 0.0, 0.0, factor, 0.0, len(factor))


def stretches(factor: PerPhoto) -> Moves:
    """Make the width `factor` times as long against the height, at the same area; determinant 1."""
    root = factor.sqrt()
    return _matrices(root, 0.0, 0.0, 0.0, 1 / root, 0.0, len(factor))


def shears(degrees: PerPhoto) -> Moves:
    """Let upright lines lean to the right by `degrees`; rows stay rows; determinant 1."""
    return _matrices(1.0, -(degrees * (math.pi / 180)).tan(), 0.0, 0.0, 1.0, 0.0, len(degrees))


def crops(side: PerPhoto, right: PerPhoto, down: PerPhoto, height: int, width: int) -> Moves:
    """Cut a window out and enlarge it to the whole photo; determinant one over the square of `side`.

    Args:
        side: of the window over that of the photo, 0 < side <= 1.
        right: where the window lies, -1 at the left edge, 1 at the right edge.
        down: likewise, -1 at the top.
        height: of the photo, pixels.
        width: likewise.
    """
    across, along = right * (1 - side) * (width / 2), down * (1 - side) * (height / 2)
    return _matrices(1 / side, 0.0, -across / side, 0.0, 1 / side, -along / side, len(side))


def move(batch: Photos, moves: Moves, padding: Padding = "reflection") -> Photos:
    """Move photos: each pixel of the result is sampled, bilinear, where the inverse of its photo's move leads.

    Args:
        batch: float32, any scale of values.
        moves: one a photo; invertible, the last row 0, 0, 1.
        padding: what lies beyond the edge.

    Returns:
        Photos of the same size.

    Raises:
        ConfigError: `padding` is unknown.

    >>> photo = torch.tensor([[[[0.0, 10.0], [20.0, 30.0]]]])
    >>> move(photo, rotations(torch.tensor([90.0]))).round().tolist()
    [[[[10.0, 30.0], [0.0, 20.0]]]]
    """
    if padding not in PADDINGS:
        raise ConfigError(f"padding must be one of {', '.join(PADDINGS)}; received {padding!r}")
    grid = _sampling_grid(moves, batch.shape[2], batch.shape[3])
    return torch.nn.functional.grid_sample(batch, grid, mode="bilinear", padding_mode=padding, align_corners=False)


def _sampling_grid(moves: Moves, height: int, width: int) -> Float[Tensor, "batch height width 2"]:
    """Where each pixel of the result looks, in `grid_sample`'s units: -1 and 1 are the outer edges of the photo.

    Written out because `affine_grid`, a matrix product, takes longer than the sampling itself.
    """
    a, b, c, d = moves[:, 0, 0], moves[:, 0, 1], moves[:, 1, 0], moves[:, 1, 1]
    area = a * d - b * c
    back = torch.stack((d, -b, -c, a), dim=1).reshape(-1, 2, 2) / area[:, None, None]
    start = -(back @ moves[:, :2, 2:])[:, :, 0]
    half = torch.tensor([width / 2, height / 2])
    x = (torch.arange(width) * 2 + 1) / width - 1
    y = (torch.arange(height) * 2 + 1) / height - 1
    scaled = back * half / half[:, None]  # from units of the result's side to units of the photo's side
    by_row = scaled[:, :, 1, None] * y + (start / half)[:, :, None]
    return (scaled[:, :, 0, None, None] * x + by_row[..., None]).movedim(1, -1)


def _matrices(
    a: PerPhoto | float,
    b: PerPhoto | float,
    right: PerPhoto | float,
    c: PerPhoto | float,
    d: PerPhoto | float,
    down: PerPhoto | float,
    count: int,
) -> Moves:
    """`[[a, b, right], [c, d, down], [0, 0, 1]]` for each photo."""
    result = np.zeros((count, 9), np.float32)  # NumPy: on tensors this small, torch's overhead is ten times the work
    for place, value in enumerate((a, b, right, c, d, down)):
        result[:, place] = value
    result[:, 8] = 1.0
    return torch.from_numpy(result).reshape(count, 3, 3)
