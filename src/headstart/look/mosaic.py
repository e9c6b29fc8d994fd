"""Does a map point at the thing? Pictures are made in which the place of every class is known.

- grid pointing: four photos of which the net is sure, side by side in one input; the map for the class of one must
  have its peak, and its mass, in that one. Chance is the share of the area (Böhle et al. 2021, "Convolutional dynamic
  alignment networks", arXiv:2104.00032; the pointing game is that of Zhang et al. 2018, arXiv:1608.00507).
- pasted object: one photo, small, at a random place on grey.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, UInt8
from PIL import Image

from headstart.errors import UsageError
from headstart.explain.explanation import Asked, Method, Step, silent
from headstart.explain.occlusion import fill_level
from headstart.explain.placing import spread
from headstart.explain.subject import Photo, Subject
from headstart.images import Picture

PASTED = 96 / 224  # side of a pasted photo over the side of the input
KNOWN = 0.5  # probability that a photo in a mosaic must keep at half the size


@dataclass(frozen=True, eq=False)
class Sure:
    """A photo of which the net is sure.

    Args:
        photo: prepared.
        target: the class.
        probability: of the class, 0..1.
        kind: what the data call it, where that is no class of the net; else None.
    """

    photo: Photo
    target: int
    probability: float
    kind: int | None = None


@dataclass(frozen=True, eq=False)
class Made:
    """A picture made for the net, and where in it each class is.

    Args:
        photo: as the net takes it.
        areas: by class: the pixels that show it.
    """

    photo: Photo
    areas: dict[int, Bool[np.ndarray, "size size"]]


@dataclass(frozen=True, eq=False)
class Pointing:
    """Where the maps of one method pointed.

    Args:
        right: of each target: the largest value lies in the target's area.
        mass: of each target: share of what is above 0 that lies in the target's area, 0..1.
        chance: of each target: the area's share of the picture.
    """

    right: Bool[np.ndarray, "targets"]
    mass: Float64[np.ndarray, "targets"]
    chance: Float64[np.ndarray, "targets"]


def draw_mosaics(subject: Subject, sure: Sequence[Sure], count: int, seed: int = 0) -> tuple[Made, ...]:
    """Mosaics of 2 x 2 photos of different classes: four where there are as many, else as many as there are.

    With two classes two photos of each are mixed; a class is right wherever it is shown. No photo stands twice in a
    mosaic. Where the data have four kinds or more that are no classes of the net, four kinds are mixed, since a net of
    a hundred breeds of dog finds something of each breed in every dog.

    Args:
        subject: the net.
        sure: what to choose from.
        count: mosaics.
        seed: of photos and places.

    Raises:
        UsageError: too few photos or classes; the message counts them.
    """
    by_class: dict[int, list[Sure]] = {}
    for one, group in zip(sure, groups_of(sure), strict=True):
        by_class.setdefault(group, []).append(one)
    kinds = min(4, len(by_class))
    each = 2 if kinds == 2 else 1  # photos that every class must have
    ready = sorted(target for target, photos in by_class.items() if len(photos) >= each)
    if kinds < 2 or len(ready) < kinds or len(sure) < 4:
        raise UsageError(
            f"a mosaic needs four photos, of two classes or more, that the net is sure of; there are {len(sure)} of "
            f"{len(by_class)} classes; give more photos, of all classes"
        )
    random = np.random.default_rng(seed)
    made: list[Made] = []
    while len(made) < count:
        targets = list(random.permutation(ready)[:4])
        pool = {target: list(random.permutation(len(by_class[target]))) for target in targets}
        chosen: list[Sure] = []
        while len(chosen) < 4:  # one of each class in turn, until there are four
            chosen += [by_class[target][pool[target].pop()] for target in targets if pool[target]]
        made.append(mosaic(subject, [chosen[place] for place in random.permutation(4)]))
    return tuple(made)


def groups_of(sure: Sequence[Sure]) -> list[int]:
    """What each photo counts as when they are mixed: the data's kind where there are four or more, else the class."""
    kinds = [one.kind for one in sure if one.kind is not None]
    several = len(kinds) == len(sure) and len(set(kinds)) >= 4
    return kinds if several else [one.target for one in sure]


def known_small(subject: Subject, sure: Sequence[Sure]) -> tuple[Sure, ...]:
    """The photos that the net knows, with a probability of `KNOWN`, at half the size too, on grey.

    A map cannot be asked to point at what the net does not see there. This looks at the net's answer alone, at no map.
    """
    side = subject.preprocessing.size
    edge, small = side // 4, side - side // 2
    photos = []
    for one in sure:
        pixels = np.broadcast_to(fill_level(subject.preprocessing, "grey"), subject.preprocessing.shape).copy()
        pixels[edge : edge + small, edge : edge + small] = _resized(one.photo.pixels, small, small)
        photos.append(pixels)
    shares = subject.probabilities(subject.logits(photos))
    return tuple(one for one, row in zip(sure, shares, strict=True) if row[one.target] >= KNOWN)


def mosaic(subject: Subject, tiles: Sequence[Sure]) -> Made:
    """Four photos as the quarters of one input, in reading order; each is what the net sees of it, at half the size."""
    side = subject.preprocessing.size
    half = side // 2
    pixels = np.zeros(subject.preprocessing.shape, np.uint8)
    areas: dict[int, np.ndarray] = {}
    for place, tile in enumerate(tiles):
        rows = slice(0, half) if place < 2 else slice(half, side)
        columns = slice(0, half) if place % 2 == 0 else slice(half, side)
        pixels[rows, columns] = _resized(tile.photo.pixels, columns.stop - columns.start, rows.stop - rows.start)
        areas.setdefault(tile.target, np.zeros((side, side), bool))[rows, columns] = True
    return Made(made_photo("mosaic of " + ", ".join(tile.photo.name for tile in tiles), pixels), areas)


def paste(subject: Subject, tile: Sure, random: np.random.Generator) -> Made:
    """A photo, small, at a random place on the grey that the preprocessing makes 0."""
    side = subject.preprocessing.size
    small = max(1, round(side * PASTED))
    top, left = (int(place) for place in random.integers(0, side - small + 1, 2))
    pixels = np.broadcast_to(fill_level(subject.preprocessing, "grey"), subject.preprocessing.shape).copy()
    pixels[top : top + small, left : left + small] = _resized(tile.photo.pixels, small, small)
    area = np.zeros((side, side), bool)
    area[top : top + small, left : left + small] = True
    return Made(made_photo(f"{tile.photo.name}, pasted", pixels), {tile.target: area})


def pointing(
    subject: Subject, pictures: Sequence[Made], method: Method, *, seed: int = 0, step: Step = silent
) -> Pointing:
    """Look where the maps of a method point, for every class in every picture.

    A coarse map is spread over the input first. A map with nothing above 0 points nowhere: wrong, with no mass.

    Args:
        subject: the net.
        pictures: of `mosaic` or `paste`.
        method: one that does not refuse this net.
        seed: of methods that draw.
        step: told after each picture.
    """
    right, mass, chance = [], [], []
    for number, made in enumerate(pictures):
        for target, area in made.areas.items():
            found = method.find(Asked(subject, made.photo, target, seed=seed, settings=method.settings))
            there, share = pointed(evidence(found.raw, len(area)), area)
            right.append(there)
            mass.append(share)
            chance.append(float(area.mean()))
        step(number + 1, len(pictures), f"where {method.name} points")
    return Pointing(np.array(right, bool), np.array(mass, np.float64), np.array(chance, np.float64))


def pointed(values: Float64[np.ndarray, "size size"], area: Bool[np.ndarray, "size size"]) -> tuple[bool, float]:
    """Whether the largest value lies in an area, and the share of the values there.

    >>> pointed(np.array([[0.0, 3.0], [1.0, 0.0]]), np.array([[False, True], [False, False]]))
    (True, 0.75)
    """
    total = float(values.sum())
    if total <= 0:
        return False, 0.0
    return bool(area.reshape(-1)[values.argmax()]), float(values[area].sum()) / total


def evidence(raw: Float[np.ndarray, "..."], side: int) -> Float64[np.ndarray, "side side"]:
    """What speaks for the class, one number >= 0 a pixel of the input.

    Args:
        raw: (channels, side, side) of pixels, of which the largest size over the channels counts; or (rows, columns)
            of a grid, of which what is above 0 counts, spread over the input.
        side: of the input.
    """
    values = raw.astype(np.float64)
    if values.ndim == 3:
        return np.asarray(np.abs(values).max(axis=0))
    return np.maximum(values if values.shape == (side, side) else spread(values, side, side), 0.0)


def made_photo(name: str, pixels: UInt8[np.ndarray, "size size channels"]) -> Photo:
    """Pixels for the net as a photo: all of it is seen."""
    side = len(pixels)
    seen = np.ascontiguousarray(np.broadcast_to(pixels, (side, side, 3)))
    return Photo(name, Picture(seen, side, side, "array", "RGB"), pixels, (0.0, 0.0, float(side), float(side)))


def _resized(
    pixels: UInt8[np.ndarray, "size size channels"], width: int, height: int
) -> UInt8[np.ndarray, "height width channels"]:
    """Every source pixel counts, so nothing aliases."""
    channels = pixels.shape[2]
    image = Image.fromarray(pixels if channels == 3 else pixels[..., 0])
    small = image.resize((width, height), Image.Resampling.BILINEAR)
    return np.asarray(small, np.uint8).reshape(height, width, channels)
