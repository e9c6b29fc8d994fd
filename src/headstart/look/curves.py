"""Does the net need what a map marks? Pixels are taken away, or brought back, the strongest first.

Deletion: the photo becomes grey, and the probability of the class should fall early. Insertion: a blurred photo becomes
sharp, and it should rise early (Petsiuk et al. 2018, "RISE", arXiv:1806.07421). Scattered pixels win at
deletion alone, since holes make pictures that no net has seen; so insertion minus deletion counts, and only as far as
it beats maps that know nothing of the net: the centre of the picture, its edges, and chance.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64, UInt8
from PIL import Image, ImageFilter

from headstart.explain.occlusion import fill_level
from headstart.explain.placing import spread
from headstart.explain.subject import Photo, Subject

STEPS = 14
BLUR = 1 / 20  # standard deviation over the side of the input: 11 of 224 pixels
BLOCKS = 7  # a side, of the map of chance


@dataclass(frozen=True, eq=False)
class Curves:
    """The probability of a class while pixels go and come.

    Args:
        deletion: after 0, 1/steps, ... 1 of the pixels were made grey.
        insertion: after as many were made sharp.
    """

    deletion: Float64[np.ndarray, "points"]
    insertion: Float64[np.ndarray, "points"]

    @property
    def gain(self) -> float:
        """Area under insertion minus area under deletion, -1..1: the more the better."""
        return area_under(self.insertion) - area_under(self.deletion)


def area_under(points: Float64[np.ndarray, "points"]) -> float:
    """Mean height of a curve over equal steps, by trapezoids.

    >>> area_under(np.array([1.0, 0.5, 0.0]))
    0.5
    """
    return float((points[1:] + points[:-1]).mean() / 2)


def curves(
    subject: Subject, photo: Photo, target: int, orders: Mapping[str, Int64[np.ndarray, "pixels"]], steps: int = STEPS
) -> dict[str, Curves]:
    """Both curves for each order of the pixels.

    Args:
        subject: the net.
        photo: prepared.
        target: the class whose probability is followed.
        orders: by name: places of the pixels in the flattened input, the first to go or come first (`order_of`).
        steps: >= 1.
    """
    flat = np.broadcast_to(fill_level(subject.preprocessing, "grey"), photo.pixels.shape)
    soft = blurred(photo.pixels)

    def pictures() -> Iterator[UInt8[np.ndarray, "size size channels"]]:
        for order in orders.values():
            yield from _mixtures(photo.pixels, flat, order, steps)
            yield from _mixtures(soft, photo.pixels, order, steps)

    found = subject.probabilities(subject.logits(pictures()))[:, target].astype(np.float64)
    pairs = found.reshape(len(orders), 2, steps + 1)
    return {name: Curves(pair[0], pair[1]) for name, pair in zip(orders, pairs, strict=True)}


def order_of(values: Float[np.ndarray, "rows columns"], side: int, seed: int = 0) -> Int64[np.ndarray, "pixels"]:
    """Places of the input's pixels from the largest value to the smallest; equal ones in a random order.

    Args:
        values: over the input; a coarse map is spread over it.
        side: of the input, pixels.
        seed: of equal values.
    """
    fine = values.astype(np.float64)
    fine = fine if fine.shape == (side, side) else spread(fine, side, side)
    tie = np.random.default_rng(seed).permutation(side * side)
    return np.lexsort((tie, -fine.reshape(-1))).astype(np.int64)


def map_order(raw: Float[np.ndarray, "..."], side: int, seed: int = 0) -> Int64[np.ndarray, "pixels"]:
    """The order that a map gives (`Found.raw`): of a map of pixels by size, of a grid by value."""
    return order_of(np.abs(raw).max(axis=0) if raw.ndim == 3 else raw, side, seed)


def centre(pixels: UInt8[np.ndarray, "size size channels"], _seed: int) -> Float64[np.ndarray, "size size"]:
    """The nearer to the middle, the stronger: photographers put things there."""
    place = np.arange(len(pixels)) - (len(pixels) - 1) / 2
    return -(place[:, None] ** 2 + place[None] ** 2)


def edges(pixels: UInt8[np.ndarray, "size size channels"], _seed: int) -> Float64[np.ndarray, "size size"]:
    """Length of Sobel's two differences of the mean over the channels."""
    padded = np.pad(pixels.astype(np.float64).mean(axis=2), 1, mode="edge")
    rows = padded[:-2] + 2 * padded[1:-1] + padded[2:]
    columns = padded[:, :-2] + 2 * padded[:, 1:-1] + padded[:, 2:]
    return np.asarray(np.hypot(rows[:, 2:] - rows[:, :-2], columns[2:] - columns[:-2]))


def chance(pixels: UInt8[np.ndarray, "size size channels"], seed: int) -> Float64[np.ndarray, "size size"]:
    """Blocks of random strength."""
    side = len(pixels)
    place = np.arange(side) * BLOCKS // side
    return np.asarray(np.random.default_rng(seed).random((BLOCKS, BLOCKS))[place[:, None], place[None]])


#: maps that know nothing of the net: what a method must beat
BASELINES: dict[str, Callable[[UInt8[np.ndarray, "size size channels"], int], Float64[np.ndarray, "size size"]]] = {
    "centre": centre,
    "edges": edges,
    "chance": chance,
}


def blurred(pixels: UInt8[np.ndarray, "size size channels"]) -> UInt8[np.ndarray, "size size channels"]:
    """What is left without detail: a Gaussian of a twentieth of the side."""
    image = Image.fromarray(pixels if pixels.shape[2] == 3 else pixels[..., 0])
    soft = image.filter(ImageFilter.GaussianBlur(len(pixels) * BLUR))
    return np.asarray(soft, np.uint8).reshape(pixels.shape)


def _mixtures(
    start: UInt8[np.ndarray, "size size channels"],
    end: UInt8[np.ndarray, "size size channels"],
    order: Int64[np.ndarray, "pixels"],
    steps: int,
) -> Iterator[UInt8[np.ndarray, "size size channels"]]:
    """From one picture to another, an equal share of the pixels a step."""
    channels = start.shape[2]
    mixed, goal = start.reshape(-1, channels).copy(), end.reshape(-1, channels)
    for step in range(steps + 1):
        chosen = order[: round(len(order) * step / steps)]
        mixed[chosen] = goal[chosen]
        yield mixed.reshape(start.shape).copy()
