"""The sheet of units: for each, projections and patches side by side, every tile on the same scale of pixels."""

import math

import numpy as np
from jaxtyping import Float32
from PIL import Image, ImageDraw

from headstart.explain.drawing import EDGE, FAINT, PAPER, Panel, draw_sheet, font
from headstart.explain.subject import Photo
from headstart.look.tiles import grid, limit_of, signed_picture
from headstart.look.units import Box, Patch, Unit, Units

TILE, BETWEEN = 96, 14  # px: the side of a patch; between projections and patches
BEYOND = 0.005  # share of a unit's projections that may lie beyond its colour scale
BESIDE = "#e9ecf0"  # what lies beyond the photo
SQUARES = 32  # px of the net's input: patches up to this size are shown as squares of pixels, not smoothed


def draw_units(found: Units) -> Image.Image:
    """The sheet."""
    panels = [Panel(f"unit {unit.number}", _pair(found, unit), found.lines(unit)) for unit in found.units]
    middle = "white" if found.subject.preprocessing.channels == 1 else "mid-grey"
    note = f"left: what the unit takes from each patch, one scale a unit, {middle} is 0; right: the patches"
    if any(min(patch.crop) < 0 or max(patch.crop) > found.subject.preprocessing.size for patch in _patches(found)):
        note += "; pale: beyond the photo"
    return draw_sheet(found.title, [*found.words(), note], panels, 2)


def _patches(found: Units) -> list[Patch]:
    return [patch for unit in found.units for patch in unit.patches]


def _pair(found: Units, unit: Unit) -> Image.Image:
    size, columns = found.subject.preprocessing.size, math.ceil(math.sqrt(len(unit.patches)))
    shown = [_inside(signal, patch.crop) for signal, patch in zip(unit.projections, unit.patches, strict=True)]
    limit = limit_of(np.concatenate([signal.reshape(-1) for signal in shown]), BEYOND)
    if unit.constant:
        return _nothing(columns, math.ceil(len(unit.patches) / columns), unit)
    gray = found.subject.preprocessing.channels == 1
    left, right = [], []
    for signal, patch, photo in zip(unit.projections, unit.patches, unit.photos, strict=True):
        picture = Image.fromarray(np.ascontiguousarray(signed_picture(signal, limit)))
        smooth = patch.crop[2] - patch.crop[0] > SQUARES
        kind = Image.Resampling.BICUBIC if smooth else Image.Resampling.NEAREST
        left.append(_cut(picture, tuple(map(float, patch.crop)), kind))
        right.append(_patch(photo, patch.crop, size, gray))
    return grid([grid(tiles, columns, 1, line=EDGE) for tiles in (left, right)], 2, BETWEEN)


def _nothing(columns: int, rows: int, unit: Unit) -> Image.Image:
    """Words instead of pictures that would mean nothing."""
    image = Image.new("RGB", (2 * columns * (TILE + 1) + BETWEEN, rows * (TILE + 1)), PAPER)
    said = f"the same value, {unit.patches[0].value:.3g}, in every photo"
    ImageDraw.Draw(image).text((image.width / 2, image.height / 2), said, FAINT, font(13), "mm")
    return image


def _inside(signal: Float32[np.ndarray, "channels rows columns"], box: Box) -> Float32[np.ndarray, "channels h w"]:
    """The part of a projection that is shown."""
    return signal[:, max(0, box[1]) : max(0, box[3]), max(0, box[0]) : max(0, box[2])]


def _patch(photo: Photo, box: Box, size: int, gray: bool) -> Image.Image:
    """The patch out of the original's own pixels; what lies beyond what the net sees stays pale."""
    left, top, right, bottom = (edge / photo.picture.reduction for edge in photo.crop)
    image = Image.fromarray(np.ascontiguousarray(photo.picture.pixels))
    window = image.convert("L").convert("RGB") if gray else image
    across, down = (right - left) / size, (bottom - top) / size
    wanted = (left + box[0] * across, top + box[1] * down, left + box[2] * across, top + box[3] * down)
    return _cut(window, wanted, Image.Resampling.BICUBIC, (left, top, right, bottom))


def _cut(
    image: Image.Image,
    box: tuple[float, ...],
    kind: Image.Resampling,
    inside: tuple[float, float, float, float] | None = None,
) -> Image.Image:
    """A part of a picture as a tile; what lies outside `inside` (the picture itself by default) stays pale."""
    edge = inside or (0.0, 0.0, float(image.width), float(image.height))
    edge = max(0.0, edge[0]), max(0.0, edge[1]), min(edge[2], image.width), min(edge[3], image.height)
    scale = TILE / max(box[2] - box[0], box[3] - box[1])
    tile = Image.new("RGB", (round((box[2] - box[0]) * scale), round((box[3] - box[1]) * scale)), BESIDE)
    x0, y0, x1, y1 = max(box[0], edge[0]), max(box[1], edge[1]), min(box[2], edge[2]), min(box[3], edge[3])
    if x1 <= x0 or y1 <= y0:
        return tile
    size = max(1, round((x1 - x0) * scale)), max(1, round((y1 - y0) * scale))
    tile.paste(
        image.resize(size, kind, box=(x0, y0, x1, y1)), (round((x0 - box[0]) * scale), round((y0 - box[1]) * scale))
    )
    return tile
