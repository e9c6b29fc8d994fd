"""Filters made by hand: edge detectors, blur, sharpening, the curve detector, and any matrix the user types.

A filter is used as it stands (cross-correlation, what a convolutional layer computes): it is never flipped first.
"""

import json
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64

from headstart.errors import UsageError

MAX_SIDE = 101  # rows or columns of a typed matrix; more is a mistake, not a filter
MAX_TEXT = 200_000  # characters of a typed matrix

Plane = Float64[np.ndarray, "kernel_height kernel_width"]
Kernel = Plane | Float64[np.ndarray, "kernel_channels kernel_height kernel_width"]


def _matrix(*rows: Sequence[int | float]) -> Plane:
    matrix = np.array(rows, dtype=np.float64)
    matrix.setflags(write=False)  # the tables below are shared by everyone
    return matrix


_TOP_EDGE = _matrix((-1, -1, -1), (1, 1, 1), (0, 0, 0))
_SOBEL_X = _matrix((-1, 0, 1), (-2, 0, 2), (-1, 0, 1))

_CURVE = _matrix(
    (0, 0, 0, 0, 0, 30, 0),
    (0, 0, 0, 0, 30, 0, 0),
    (0, 0, 0, 30, 0, 0, 0),
    (0, 0, 0, 30, 0, 0, 0),
    (0, 0, 0, 30, 0, 0, 0),
    (0, 0, 0, 30, 0, 0, 0),
    (0, 0, 0, 0, 0, 0, 0),
)

KERNELS: dict[str, Plane] = {
    "top-edge": _TOP_EDGE,  # bright below dark
    "left-edge": np.rot90(_TOP_EDGE, 1),
    "bottom-edge": np.rot90(_TOP_EDGE, 2),
    "right-edge": np.rot90(_TOP_EDGE, 3),
    "edge-4x4": _matrix(*4 * [(-1, -1, 1, 1)]),
    "blur": _matrix(*3 * [3 * [1 / 9]]),
    "sharpen": _matrix((0, -1, 0), (-1, 5, -1), (0, -1, 0)),
    "sobel-x": _SOBEL_X,
    "sobel-y": _SOBEL_X.T,
    "laplacian": _matrix((0, 1, 0), (1, -4, 1), (0, 1, 0)),
    "identity": _matrix((0, 0, 0), (0, 1, 0), (0, 0, 0)),
    "curve": _CURVE,
    "curve-zero-mean": _matrix(*(49 * _CURVE / 30 - 6).tolist()),  # for photos: no answer to mere brightness
}

# Two patches of a drawing: one holds the curve that the filter looks for, the other a different line.
CURVE_PATCH = _matrix(
    (0, 0, 0, 0, 0, 0, 30),
    (0, 0, 0, 0, 50, 50, 50),
    (0, 0, 0, 20, 50, 0, 0),
    (0, 0, 0, 50, 50, 0, 0),
    (0, 0, 0, 50, 50, 0, 0),
    (0, 0, 0, 50, 50, 0, 0),
    (0, 0, 0, 50, 50, 0, 0),
)
OTHER_PATCH = _matrix(
    (0, 0, 0, 0, 0, 0, 0),
    (0, 40, 0, 0, 0, 0, 0),
    (40, 0, 40, 0, 0, 0, 0),
    (40, 20, 0, 0, 0, 0, 0),
    (0, 50, 0, 0, 0, 0, 0),
    (0, 0, 50, 0, 0, 0, 0),
    (25, 25, 0, 50, 0, 0, 0),
)


def rotations(kernel: Kernel) -> tuple[Kernel, Kernel, Kernel, Kernel]:
    """The filter turned by 0, 90, 180 and 270 degrees, counter-clockwise.

    For `edge-4x4` these are also {f, -f, f transposed, -f transposed}; for most filters (the curve) they are not.

    >>> [turned[0].tolist() for turned in rotations(KERNELS["top-edge"])]
    [[-1.0, -1.0, -1.0], [-1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 1.0, -1.0]]
    """
    first, second, third, fourth = (np.rot90(kernel, turns, axes=(-2, -1)) for turns in range(4))
    return first, second, third, fourth


def read_kernel(text: str) -> tuple[str, Kernel]:
    """A filter by its name, or a typed matrix such as `[[-1, 1], [-1, 1]]`; for colour three of them in a list.

    Returns:
        Its name ("your own" for a matrix) and its numbers.

    Raises:
        UsageError: no filter has this name, or the text is not a matrix of finite numbers.

    >>> read_kernel("[[0, 1], [-1, 0]]")
    ('your own', array([[ 0.,  1.],
           [-1.,  0.]]))
    """
    if text in KERNELS:
        return text, KERNELS[text]
    if not text.lstrip().startswith("["):
        raise UsageError(
            f"no filter is called {text[:40]!r}; choose one of {', '.join(KERNELS)}, "
            "or type a matrix such as [[-1,1],[-1,1]]"
        )
    if len(text) > MAX_TEXT:
        raise UsageError(f"the matrix has {len(text)} characters; expected at most {MAX_TEXT}")
    try:
        rows = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else str(error)
        raise _not_a_matrix(text, reason) from None
    return "your own", checked_kernel(rows, text)


def checked_kernel(rows: object, text: str = "") -> Kernel:
    """A matrix of finite numbers from nested lists (or an array): one, or one a colour channel.

    Args:
        rows: lists of numbers, all of one length; or three such matrices.
        text: what the user typed, for the message.

    Raises:
        UsageError: anything else.
    """
    if isinstance(rows, np.ndarray):
        rows = rows.tolist()
    shown = text or f"the {type(rows).__name__}"
    deep = isinstance(rows, list) and bool(rows) and all(isinstance(row, list) and row for row in rows)
    if deep and all(isinstance(cell, list) for row in rows for cell in row):  # type: ignore[attr-defined]
        planes: list[Plane] = [_plane(plane, shown) for plane in rows]  # type: ignore[attr-defined]
        if len(planes) != 3 or len({plane.shape for plane in planes}) != 1:
            raise _not_a_matrix(shown, f"{len(planes)} matrices; for colour expected 3 of one size (red, green, blue)")
        return np.stack(planes)
    return _plane(rows, shown)


def _plane(rows: object, shown: str) -> Plane:
    """One matrix, checked cell by cell."""
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) and row for row in rows):
        raise _not_a_matrix(shown, "expected a list of rows, each a list of numbers")
    lengths = [len(row) for row in rows]
    if len(set(lengths)) != 1:
        raise _not_a_matrix(shown, f"its rows have different lengths: {', '.join(map(str, lengths[:8]))}")
    if max(len(rows), lengths[0]) > MAX_SIDE:
        raise _not_a_matrix(shown, f"{len(rows)} x {lengths[0]} cells; expected at most {MAX_SIDE} x {MAX_SIDE}")
    for number, row in enumerate(rows):
        for place, cell in enumerate(row):
            if isinstance(cell, bool) or not isinstance(cell, int | float) or not _is_finite(cell):
                raise _not_a_matrix(shown, f"row {number}, column {place} (from 0) is not a finite number")
    return np.array(rows, dtype=np.float64)


def _is_finite(number: int | float) -> bool:
    try:
        return math.isfinite(float(number))
    except OverflowError:  # a whole number beyond the largest float
        return False


def _refuse_constant(name: str) -> float:
    raise ValueError(f"{name} is not a finite number")


def _not_a_matrix(text: str, reason: str) -> UsageError:
    shown = text if len(text) <= 60 else text[:57] + "..."
    return UsageError(f"{shown!r} is not a matrix: {reason}; type one row a list, such as [[-1,-1,-1],[1,1,1],[0,0,0]]")
