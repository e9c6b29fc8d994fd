"""What the user typed, read strictly: a size, a padding, a place, the matrix of a filter. Nothing is ever evaluated."""

import re
from typing import Literal

from headstart.errors import ShapeError

# Pixels on every side, (rows, columns), (above, below, left, right), or a rule.
Padding2d = int | tuple[int, int] | tuple[int, int, int, int] | Literal["valid", "same"]


def parse_size(text: str) -> tuple[int, int, int]:
    """Read `HxWxC`, or `HxW` for one channel.

    >>> parse_size("224x224x3"), parse_size("28x28")
    ((224, 224, 3), (28, 28, 1))
    """
    match = re.fullmatch(r"\s*(\d{1,7})\s*[xX×]\s*(\d{1,7})(?:\s*[xX×]\s*(\d{1,7}))?\s*", text, re.ASCII)
    if match is None:
        raise ShapeError(f"{text!r} is not a size; expected HEIGHTxWIDTHxCHANNELS in pixels, for example 224x224x3")
    height, width, channels = match.groups(default="1")
    return checked_size((int(height), int(width), int(channels)))


def parse_padding(text: str) -> Padding2d:
    """Read a padding as typed: 'valid', 'same', or pixels as `2`, `1,2` (rows, columns) or `0,1,0,1` (all four sides).

    >>> parse_padding("same"), parse_padding("2"), parse_padding("1,0")
    ('same', 2, (1, 0))
    """
    if text == "valid":
        return "valid"
    if text == "same":
        return "same"
    is_list = re.fullmatch(r"\d{1,7}(,\d{1,7})*", text, re.ASCII)
    match [int(part) for part in text.split(",")] if is_list else []:
        case [one]:
            return one
        case [rows, columns]:
            return rows, columns
        case [top, bottom, left, right]:
            return top, bottom, left, right
    raise ShapeError(
        f"padding is {text!r}; expected valid, same, or pixels: 2, or 1,0 (rows, columns), or 0,1,0,1 (sides)"
    )


def checked_size(size: tuple[int, int, int]) -> tuple[int, int, int]:
    """`(height, width, channels)` with every number >= 1. Raises ShapeError."""
    if len(size) != 3 or any(isinstance(side, bool) or not isinstance(side, int) or side < 1 for side in size):
        raise ShapeError(f"the input is {' x '.join(map(str, size))}; expected height x width x channels, each >= 1")
    return size


def check_counts(**counts: int) -> None:
    """Refuse, by its name, anything but a whole number >= 1. Raises ShapeError."""
    for name, count in counts.items():
        if isinstance(count, bool) or not isinstance(count, int) or count < 1:
            raise ShapeError(f"{name} is {count!r}; expected a whole number >= 1")
