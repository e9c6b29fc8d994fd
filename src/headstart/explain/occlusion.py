"""Occlusion: how far the class's logit falls when a window of the photo is covered. Only forward passes are needed.

Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks" (arXiv:1311.2901), section 4.2. Windows
overlap; a pixel gets the mean of the drops of all windows that cover it. The logit is used, not the probability: a
probability near 1 hardly moves, whatever is covered.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Float64, UInt8

from headstart.errors import UsageError
from headstart.explain.explanation import Asked, Found
from headstart.preprocess import Preprocessing

WINDOW, STRIDE = 1 / 7, 1 / 14  # of the side: 32 and 16 of 224 pixels, 13 x 13 windows
FILLS = ("grey", "black", "white")
CHUNK = 32  # covered photos a time: between two lines of progress, and in memory


def occlusion(asked: Asked) -> Found:
    """Cover the photo window by window.

    Settings: `window` and `stride`, pixels of the net's input (1/7 and 1/14 of its side if 0 or not given); `fill`,
    what stands in the window: "grey" (the mean of the preprocessing, 0 after normalisation), "black" or "white".

    Returns:
        (size, size): logit of the photo minus logit of the covered one, the mean over the windows at a pixel.

    Raises:
        UsageError: a setting is out of its range; windows further apart than they are wide would leave pixels out.
    """
    side = asked.subject.preprocessing.size
    window = _length(asked, "window", max(1, round(side * WINDOW)), side)
    stride = _length(asked, "stride", min(max(1, round(side * STRIDE)), window), window)
    name = asked.settings.get("fill") or "grey"
    level = fill_level(asked.subject.preprocessing, name)
    starts = window_starts(side, window, stride)
    places = [(top, left) for top in starts for left in starts]
    logits = _covered_logits(asked, places, window, level)
    drops = logits[0] - logits[1:]
    raw = mean_over_windows(drops, places, window, side)
    parameters: dict[str, Any] = {"window": window, "stride": stride, "fill": name, "windows": len(places)}
    return Found(raw.astype(np.float32), parameters={**parameters, "largest_drop": float(drops.max())})


def window_starts(side: int, window: int, stride: int) -> list[int]:
    """Where windows begin along an axis; the last ends with the axis, so that every pixel is covered.

    >>> window_starts(10, window=4, stride=4)
    [0, 4, 6]
    """
    starts = list(range(0, side - window + 1, stride))
    return starts if starts[-1] + window == side else [*starts, side - window]


def mean_over_windows(
    values: Float64[np.ndarray, "windows"], places: list[tuple[int, int]], window: int, side: int
) -> Float64[np.ndarray, "side side"]:
    """One value a window in, one a pixel out: the mean of the windows that cover it.

    Args:
        values: any unit.
        places: (top, left) of each window; together they cover the square.
        window, side: pixels.
    """
    total, count = np.zeros((side, side)), np.zeros((side, side))
    for value, (top, left) in zip(values, places, strict=True):
        total[top : top + window, left : left + window] += value
        count[top : top + window, left : left + window] += 1
    return np.asarray(total / count)


def fill_level(preprocessing: Preprocessing, name: str) -> UInt8[np.ndarray, "channels"]:
    """The colour that means "nothing here", one level a channel.

    Args:
        preprocessing: of the net.
        name: "grey", the mean of the preprocessing, in whole levels; "black" or "white".

    Raises:
        UsageError: there is no such fill.
    """
    if name not in FILLS:
        raise UsageError(f"fill must be one of {', '.join(FILLS)}, not {name!r}")
    levels = {"grey": preprocessing.mean, "black": (0,), "white": (255,)}[name]
    return np.broadcast_to(np.clip(np.rint(levels), 0, 255).astype(np.uint8), (preprocessing.channels,))


def _covered_logits(
    asked: Asked, places: list[tuple[int, int]], window: int, level: UInt8[np.ndarray, "channels"]
) -> Float64[np.ndarray, "photos"]:
    """The class's logit of the photo as it is, then with each window covered."""
    pixels = asked.photo.pixels

    def covered(some: list[tuple[int, int]]) -> Iterator[UInt8[np.ndarray, "size size channels"]]:
        for top, left in some:
            copy = pixels.copy()
            copy[top : top + window, left : left + window] = level
            yield copy

    found = [asked.subject.logits([pixels])[:, asked.target]]
    for start in range(0, len(places), CHUNK):
        found.append(asked.subject.logits(covered(places[start : start + CHUNK]))[:, asked.target])
        asked.step(min(start + CHUNK, len(places)), len(places), "windows")
    return np.concatenate(found).astype(np.float64)


def _length(asked: Asked, name: str, default: int, most: int) -> int:
    value = asked.settings.get(name)
    if value is None or (type(value) is int and value == 0):
        return default
    if type(value) is not int or not 1 <= value <= most:
        last = "the side of the net's input" if name == "window" else "the window's side, or pixels would be left out"
        raise UsageError(f"{name} must be a whole number of pixels from 1 to {most} ({last}), not {value!r}")
    return value
