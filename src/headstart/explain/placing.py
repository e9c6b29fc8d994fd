"""From a map over the net's square back to the photo: which original pixels a value stands for, and the box it implies.

The net sees a square out of the photo. A map of rows x columns is spread over that square evenly; what lies outside was
never seen, and has no value.
"""

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image

from headstart.errors import UsageError
from headstart.explain.subject import Box

THRESHOLD = 0.2  # share of the largest value; 15 to 20 % gave the best boxes where the truth is known


def spread(values: Float64[np.ndarray, "rows columns"], width: int, height: int) -> Float64[np.ndarray, "height width"]:
    """A map in another number of places: bilinear, pixel edges aligned (a whole-numbered enlargement keeps the mean).

    Args:
        values: finite.
        width, height: at least 1; fewer places than the map has are averages.
    """
    image = Image.fromarray(values.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR), np.float64)


def on_photo(
    values: Float64[np.ndarray, "rows columns"], crop: Box, width: int, height: int
) -> Float64[np.ndarray, "height width"]:
    """The map in the pixels of the original, NaN where the net never looked.

    Args:
        values: over the square that the net sees.
        crop: that square, in pixels of the original.
        width, height: of the original.
    """
    left, top, right, bottom = rounded(crop, width, height)
    placed = np.full((height, width), np.nan)
    placed[top:bottom, left:right] = spread(values, right - left, bottom - top)
    return placed


def rounded(crop: Box, width: int, height: int) -> tuple[int, int, int, int]:
    """A box in whole pixels inside the photo, at least one pixel each way."""
    left, top = (min(max(0, round(edge)), side - 1) for edge, side in zip(crop[:2], (width, height), strict=True))
    right, bottom = min(width, max(left + 1, round(crop[2]))), min(height, max(top + 1, round(crop[3])))
    return left, top, right, bottom


def box_of(
    strength: Float64[np.ndarray, "rows columns"], crop: Box, threshold: float = THRESHOLD
) -> tuple[int, int, int, int] | None:
    """The box that a map implies: Zhou et al. 2016, "Learning deep features" (arXiv:1512.04150), section 3.2.

    Values above `threshold` times the largest, of the map as it is spread over the photo; the largest group of them
    that hangs together by sides; the box around it.

    Args:
        strength: values below 0 count as 0.
        crop: what the map covers, in original pixels.
        threshold: in (0, 1).

    Returns:
        (x0, y0, x1, y1), half open, original pixels; None where no value is above 0.

    Raises:
        UsageError: the threshold is no share.
    """
    if not 0 < threshold < 1:
        raise UsageError(
            f"the threshold of a box is a share of the largest value, above 0 and below 1, not {threshold}"
        )
    left, top = round(crop[0]), round(crop[1])
    width, height = max(1, round(crop[2]) - left), max(1, round(crop[3]) - top)
    scale = min(1.0, 512 / max(width, height))  # a box of a large photo needs no finer map
    columns, rows = max(1, round(width * scale)), max(1, round(height * scale))
    fine = spread(np.maximum(strength, 0.0), columns, rows)
    if not fine.max() > 0:
        return None
    group = largest_group(fine >= threshold * fine.max())
    across, down = np.flatnonzero(group.any(axis=0)), np.flatnonzero(group.any(axis=1))
    x0, x1 = across[0] * width / columns, (across[-1] + 1) * width / columns
    y0, y1 = down[0] * height / rows, (down[-1] + 1) * height / rows
    return left + round(x0), top + round(y0), left + round(x1), top + round(y1)


def largest_group(mask: Bool[np.ndarray, "rows columns"]) -> Bool[np.ndarray, "rows columns"]:
    """The largest set of true places connected by sides; of equal ones the first, row by row.

    >>> largest_group(np.array([[True, False, True], [False, False, True]])).tolist()
    [[False, False, True], [False, False, True]]
    """
    rows, columns = mask.shape
    number = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:  # the smallest number of a group spreads through it, along whole runs at a time
        before = number.copy()
        for axis in (0, 1):
            for backwards in (False, True):
                number = _sweep(number, axis, backwards)
        if np.array_equal(before, number):
            break
    sizes = np.bincount(number.reshape(-1), minlength=rows * columns + 1)
    sizes[0] = 0
    return np.asarray((number == sizes.argmax()) & mask)


def _sweep(number: np.ndarray, axis: int, backwards: bool) -> np.ndarray:
    """Hand the smaller number on to the next row (or column), from one end to the other."""
    moved = np.moveaxis(number, axis, 0)
    moved = moved[::-1] if backwards else moved
    for place in range(1, len(moved)):
        here, behind = moved[place], moved[place - 1]
        both = (here > 0) & (behind > 0)
        here[both] = np.minimum(here[both], behind[both])
    return number
