"""Pictures of what a layer computes: all units as one sprite, one unit large, and the patches that excite it."""

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32
from PIL import Image

from headstart.errors import UsageError
from headstart.explain.drawing import heat
from headstart.look.tiles import limit_of, signed_picture
from headstart.web.rendering import inline

if TYPE_CHECKING:
    from headstart.explain import Photo, Subject
    from headstart.layers.summary import LayerRow
    from headstart.look.activations import Activations
    from headstart.look.units import Patch, Unit, Units

GAP = 2  # px between the units of a sprite
LARGE, PATCH = 288, 104  # px: one unit, one patch
NUMBERED = 14  # places a side up to which a page shows every value of a unit
BEYOND = 0.005  # share of a layer's values that may lie beyond its colour scale
LINE = np.array([143, 150, 160], np.uint8)  # the colour between units

Maps = Float32[np.ndarray, "units rows columns"]


def layers_of(subject: "Subject") -> dict[str, Any]:
    """The stages and layers of a net in the order they run, each with the grid of its sprite.

    Returns:
        `{"stages": [...], "layers": [...]}` of `{"name", "type", "units", "rows", "columns", "field", "sprite"}`.
    """
    modules = dict(subject.trunk.named_modules())
    rows = [row for row in subject.summary.layers if row.name in modules]
    stages = [_layer(row, stage) for row in subject.summary.layers for stage in row.stages if stage != "logits"]
    return {"stages": stages, "layers": [_layer(row, row.name) for row in rows]}


def _layer(row: "LayerRow", name: str) -> dict[str, Any]:
    shape = row.output_shape
    rows, columns, units = shape if len(shape) == 3 else (1, 1, shape[-1])
    field = row.receptive_field
    across, tile = sprite_grid(units, rows, columns)
    return {
        "name": name,
        "type": row.type,
        "units": units,
        "rows": rows,
        "columns": columns,
        "field": None if field is None else max(field.rows.size, field.columns.size),
        "sprite": {"across": across, "tile": tile, "gap": GAP},
    }


def sprite_grid(units: int, rows: int, columns: int) -> tuple[int, int]:
    """How many units a row of a sprite has, and the side of one, px.

    >>> sprite_grid(320, 7, 7)
    (26, 35)
    """
    side = max(rows, columns)
    small = units > 400
    tile = 12 if side == 1 else min(40, side * max(1, (18 if small else 36) // side))
    return min(units, math.ceil(math.sqrt(2 * units))), tile


def sprite(maps: "Activations", view: str, scale: str) -> Image.Image:
    """All units of a layer side by side, unit 0 first, row by row.

    Args:
        maps: the layer's.
        view: "before" or "after" the activation, or "pooled".
        scale: "layer": one colour scale for all; "unit": each its own.
    """
    values = viewed(maps, view)
    count, rows, columns = maps.before.shape
    across, tile = sprite_grid(count, rows, columns)
    step = tile + GAP
    down = math.ceil(count / across)
    pixels = np.empty((down * step - GAP, across * step - GAP, 3), np.uint8)
    pixels[:] = 255
    shared = limit_of(maps.before, BEYOND)
    for unit, one in enumerate(values):
        limit = shared if scale == "layer" else limit_of(one)
        small = Image.fromarray(heat(_reduced(one, tile), limit)).resize((tile, tile), Image.Resampling.NEAREST)
        top, left = unit // across * step, unit % across * step
        pixels[max(0, top - GAP) : top + step, max(0, left - GAP) : left + step] = LINE
        pixels[top : top + tile, left : left + tile] = np.asarray(small)
    return Image.fromarray(pixels)


def _reduced(values: Float32[np.ndarray, "rows columns"], tile: int) -> Float[np.ndarray, "fewer_rows fewer_columns"]:
    """A map that is finer than its tile, averaged down before it is coloured: nothing is lost between pixels."""
    step = math.ceil(max(values.shape) / tile)
    if step == 1:
        return values.astype(np.float64)
    rows, columns = (np.arange(0, side, step) for side in values.shape)
    sums = np.add.reduceat(np.add.reduceat(values.astype(np.float64), rows, axis=0), columns, axis=1)
    high, wide = np.diff([*rows, values.shape[0]]), np.diff([*columns, values.shape[1]])
    return np.asarray(sums / (high[:, None] * wide[None]))


def viewed(maps: "Activations", view: str) -> Maps:
    """The values of a view."""
    return maps.before if view == "before" else maps.after if view == "after" else maps.pooled


def unit_document(
    subject: "Subject", maps: "Activations", unit: int, view: str, back: str, pool: int
) -> dict[str, Any]:
    """One unit for the page: its map as a picture, its values, and what in the photo its largest value comes from.

    Args:
        subject: the net; nobody else may use it meanwhile.
        maps: of the photo and layer.
        unit: of the layer.
        view: of the picture and the values.
        back: the rule by which the value is sent back to the pixels; "auto": the one that fits the net.
        pool: what "pooled" pools by.
    """
    values = viewed(maps, view)[unit]
    before = maps.before[unit]
    place = divmod(int(before.argmax()), before.shape[1])
    limit = limit_of(maps.before, BEYOND)
    picture = Image.fromarray(heat(values.astype(np.float64), limit))
    factor = LARGE / max(picture.size)
    size = max(1, round(picture.width * factor)), max(1, round(picture.height * factor))
    signal, rule, reason = _sent_back(subject, maps.photo, maps.layer, unit, place, back)
    return {
        "unit": unit,
        "layer": maps.layer,
        "activation": maps.activation,
        "view": view if view != "pooled" else f"the largest of each {pool} x {pool}",
        "shape": list(values.shape),
        "least": float(values.min()),
        "largest": float(values.max()),
        "place": list(place),
        "value": float(before[place]),
        "saturated": float(maps.saturated[unit]) if maps.ceiling is not None else None,
        "dead": unit in maps.dead,
        "scale": limit,
        "picture": inline(picture.resize(size, Image.Resampling.NEAREST), sharp=True),
        "values": values.tolist() if max(values.shape) <= NUMBERED else None,
        "projection": inline(Image.fromarray(signed_picture(signal, limit_of(signal, BEYOND)))),
        "rule": rule,
        "reason": reason,
    }


def _sent_back(
    subject: "Subject", photo: "Photo", layer: str, unit: int, place: tuple[int, int], back: str
) -> "tuple[Float32[np.ndarray, 'channels size size'], str, str]":
    """A unit's largest value sent back to the pixels: the signal, the rule, and why this one."""
    from headstart.explain.gradients import taken
    from headstart.explain.projection import project_units, rule_for
    from headstart.explain.recording import to_numpy
    from headstart.look.wiring import row_of

    named, reason = rule_for(subject, layer)
    rule: Any = named if back == "auto" else back
    is_map = len(row_of(subject, layer).output_shape) == 3
    x = taken(subject, photo.pixels)
    try:
        signal = project_units(subject, x, layer, [unit], [place] if is_map else None, rule)
    except UsageError:
        if rule == "gradient":
            raise
        rule, reason = (
            "gradient",
            "the plain gradient: the other rules are for nets whose activations are all rectifiers",
        )
        signal = project_units(subject, x, layer, [unit], [place] if is_map else None, "gradient")
    found: Float32[np.ndarray, "channels size size"] = to_numpy(signal)[0]
    return found, rule, reason


def unit_tiles(found: "Units", unit: "Unit") -> dict[str, Any]:
    """The patches that excite a unit most, each with what the unit takes from it, for the page."""
    limit = limit_of(
        np.concatenate(
            [_inside(signal, patch).reshape(-1) for signal, patch in zip(unit.projections, unit.patches, strict=True)]
        ),
        BEYOND,
    )
    told = []
    for signal, patch, photo in zip(unit.projections, unit.patches, unit.photos, strict=True):
        told.append(
            {
                **patch.to_json(),
                "picture": inline(_cut(photo, patch)),
                "projection": inline(_fitted(Image.fromarray(signed_picture(_inside(signal, patch), limit)))),
            }
        )
    return {
        "unit": unit.number,
        "layer": found.layer,
        "patches": told,
        "lines": [*found.lines(unit), *found.words()],
        "constant": unit.constant,
    }


def _inside(
    signal: Float32[np.ndarray, "channels rows columns"], patch: "Patch"
) -> Float32[np.ndarray, "channels high wide"]:
    left, top, right, bottom = patch.crop
    return signal[:, max(0, top) : max(1, bottom), max(0, left) : max(1, right)]


def _cut(photo: "Photo", patch: "Patch") -> Image.Image:
    """A patch out of the photo's own pixels."""
    box = [edge / photo.picture.reduction for edge in patch.original]
    image = Image.fromarray(np.ascontiguousarray(photo.picture.pixels))
    wide, high = max(box[2] - box[0], 1.0), max(box[3] - box[1], 1.0)
    scale = PATCH / max(wide, high)
    size = max(1, round(wide * scale)), max(1, round(high * scale))
    inside = box[0], box[1], min(box[0] + wide, image.width), min(box[1] + high, image.height)
    return image.resize(size, Image.Resampling.BICUBIC, box=inside)


def _fitted(image: Image.Image) -> Image.Image:
    scale = PATCH / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BICUBIC)
