"""What a layer computes from one photo: the map of each unit before and after its activation, and pooled.

Also which units are dead (nothing of them passes the rectifier anywhere) and which are saturated (a ReLU6 passes 6
where it takes 6 or more: everything above looks the same to the next layer).
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image

from headstart.errors import UsageError
from headstart.explain.drawing import PAPER, Panel, draw_sheet, fitted, heat, input_image
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.tiles import CELL, enlarged, folded, grid, limit_of
from headstart.look.wiring import RECTIFIERS, ceiling_of, checked_units, refuse_not_finite, row_of

SHOWN = 8  # units of a picture when nobody chose
TILE, TALL = 112, 280  # px, a map in a row; the photo and the sprite of all units
BEYOND = 0.005  # share of a layer's values that may lie beyond its colour scale
Maps = Float32[np.ndarray, "units rows columns"]


@dataclass(frozen=True, eq=False)
class Activations:
    """One layer's answer to one photo.

    Args:
        subject: the net.
        photo: what it saw.
        layer: as it was named.
        activation: what stands between `before` and `after` ("ReLU6"); None: nothing does.
        ceiling: where the activation stops rising; None: nowhere.
        before, after: (units, rows, columns); a vector has maps of one place.
        window: side of the pooling of `pooled`, places; 1: none.
        units: those in the picture.
        scale: "layer": one colour scale for all units; "unit": each its own; a number: the value of the darkest colour.
    """

    subject: Subject = field(repr=False)
    photo: Photo = field(repr=False)
    layer: str
    activation: str | None
    ceiling: float | None
    before: Maps = field(repr=False)
    after: Maps = field(repr=False)
    window: int
    units: tuple[int, ...]
    scale: str | float

    @property
    def pooled(self) -> Maps:
        """The largest value of `after` in each window; the last windows may be cut by the edge."""
        across = [np.arange(0, side, self.window) for side in self.after.shape[1:]]
        return np.maximum.reduceat(np.maximum.reduceat(self.after, across[0], axis=1), across[1], axis=2)

    @property
    def saturated(self) -> Float64[np.ndarray, "units"]:
        """Share of a unit's places, 0..1, that reach the ceiling; 0 where there is none."""
        reached = np.zeros_like(self.before) if self.ceiling is None else self.before >= self.ceiling
        return np.asarray(reached.mean(axis=(1, 2), dtype=np.float64))

    @property
    def dead(self) -> tuple[int, ...]:
        """Units of which the rectifier passes nothing anywhere; none where the layer has no rectifier."""
        if self.activation not in RECTIFIERS:
            return ()
        return tuple(np.flatnonzero(self.before.max(axis=(1, 2)) <= 0).tolist())

    @property
    def is_vector(self) -> bool:
        """Whether each unit has one place only."""
        return self.before.shape[1:] == (1, 1)

    def to_json(self) -> dict[str, Any]:
        """The facts of every unit."""
        return {
            "net": self.subject.name,
            "photo": self.photo.name,
            "layer": self.layer,
            "activation": self.activation,
            "shape": list(self.before.shape),
            "largest_before": [round(value, 6) for value in self.before.max(axis=(1, 2)).tolist()],
            "saturated": [round(value, 6) for value in self.saturated.tolist()],
            "dead": list(self.dead),
            "shown": list(self.units),
            "scale": self.scale,
        }

    def to_text(self) -> str:
        """A few lines for the terminal."""
        best = np.argsort(-self.before.max(axis=(1, 2)), kind="stable")[:5].tolist()
        strongest = ", ".join(f"{self._name(place)} ({self.before[place].max():.3g})" for place in best)
        return "\n".join([f"{self.title}: {self._facts()}", f"strongest units, before the activation: {strongest}"])

    @property
    def title(self) -> str:
        """What stands above the picture."""
        return f"{self.layer} of {shown(self.subject.name)} on {shown(Path(self.photo.name).name)}"

    def _facts(self) -> str:
        count, rows, columns = self.before.shape
        said = [f"{count} units of {rows} x {columns}" if not self.is_vector else f"{count} units"]
        if self.activation in RECTIFIERS:
            said.append(f"{np.mean(self.after <= 0):.0%} of all values are 0 after {self.activation}")
            said.append(f"{_units(len(self.dead))} dead here")
        if self.ceiling is not None:
            always = int((self.saturated == 1).sum())
            said.append(
                f"{self.saturated.mean():.0%} of all values are at {self.ceiling:g}, {_units(always)} so everywhere"
            )
        return "; ".join(said)

    def _name(self, unit: int) -> str:
        is_class = self.layer == "logits" and len(self.subject.classes) == len(self.before)
        return shown(self.subject.classes[unit]) if is_class else str(unit)

    def _limit(self, values: Float32[np.ndarray, "..."]) -> float:
        """The value of the darkest colour for one unit's values."""
        if self.scale == "unit":
            return limit_of(values)
        return limit_of(self.before, BEYOND) if self.scale == "layer" else float(self.scale)

    def _tile(self, values: Float32[np.ndarray, "rows columns"], side: int, limit: float) -> Image.Image:
        return fitted(Image.fromarray(heat(values.astype(np.float64), limit)), side, smooth=False)

    def _all(self) -> Panel:
        """The photo beside every unit after its activation."""
        photo = input_image(self.photo, TALL)
        if self.is_vector:
            cells = np.nan_to_num(folded(self.after[:, 0, 0].astype(np.float64)))
            sprite = enlarged(heat(cells, self._limit(self.after)), TALL)
        else:
            per_row = int(np.ceil(np.sqrt(len(self.after) * 2)))
            rows = int(np.ceil(len(self.after) / per_row))
            side = max(14, min(2 * TALL // per_row, TALL // rows) - 1)
            sprite = grid([self._tile(one, side, self._limit(one)) for one in self.after], per_row, 1, line=CELL)
        high = max(photo.height, sprite.height)
        both = Image.new("RGB", (photo.width + 16 + sprite.width, high), PAPER)
        both.paste(photo, (0, 0))
        both.paste(sprite, (photo.width + 16, 0))
        when = f" after {self.activation}" if self.activation else ""
        return Panel(f"what the net sees, and all {len(self.after)} units{when}, 0 first, row by row", both)

    def _row(self, title: str, maps: Maps, notes: Sequence[str]) -> Panel:
        tiles = [self._tile(maps[unit], TILE, self._limit(maps[unit])) for unit in self.units]
        return Panel(title, grid(tiles, SHOWN, 6, notes))

    def sheet(self) -> Image.Image:
        """The picture: the photo, all units small, and the chosen ones large."""
        scale = (
            "each unit has its own scale"
            if self.scale == "unit"
            else f"one scale: {-self._limit(self.before):.3g} to {self._limit(self.before):.3g}"
        )
        words = [self._facts(), f"{scale}; white is 0, orange above, blue below"]
        panels = [self._all()]
        if not self.is_vector:
            ranges = [f"{unit}: {self.before[unit].min():.2g} to {self.before[unit].max():.2g}" for unit in self.units]
            panels.append(self._row("before the activation" if self.activation else "its values", self.before, ranges))
            if self.activation:
                shares = [f"{unit}: {np.mean(self.after[unit] == 0):.0%} at 0" for unit in self.units]
                if self.ceiling is not None:
                    shares = [f"{unit}: {self.saturated[unit]:.0%} at {self.ceiling:g}" for unit in self.units]
                panels.append(self._row(f"after {self.activation}", self.after, shares))
            if self.window > 1:
                peaks = [f"{unit}: max {self.after[unit].max():.3g}" for unit in self.units]
                panels.append(self._row(f"the largest of each {self.window} x {self.window}", self.pooled, peaks))
        return draw_sheet(self.title, words, panels, 1)

    def files(self) -> dict[str, Any]:
        """What is worth keeping: the raw maps, and the picture."""
        return {"before.npy": self.before, "after.npy": self.after, "activations.png": self.sheet()}


def _units(count: int) -> str:
    return "1 unit is" if count == 1 else f"{count} units are"


def look_at_activations(
    subject: Subject,
    photo: Photo,
    layer: str,
    units: Sequence[int] | None = None,
    window: int = 1,
    scale: str | float = "layer",
) -> Activations:
    """What a layer computes from a photo.

    Args:
        subject: the net.
        photo: prepared.
        layer: a stage, a block or a layer.
        units: those to show large; None: those whose values differ most from place to place.
        window: side of the pooling, places, >= 1; 1: none.
        scale: "layer", "unit", or the value (> 0) of the darkest colour.

    Raises:
        UsageError: no such layer or unit, or the scale or window is none.
    """
    import torch

    from headstart.explain.gradients import taken
    from headstart.explain.recording import record, to_numpy

    if window < 1:
        raise UsageError(f"a pooling window has 1 place or more a side, not {window}")
    if scale not in ("layer", "unit") and not (isinstance(scale, int | float) and scale > 0):
        raise UsageError(f"the colour scale is 'layer', 'unit' or a number above 0, not {shown(str(scale))!r}")
    own = layer == "logits" and subject.classifier is not None  # a run's, not those of its backbone
    with torch.no_grad():
        logits, found = record(subject, taken(subject, photo.pixels), [] if own else [layer])
    maps = (logits, logits) if own else (found[layer].before, found[layer].after)
    before, after = (_as_maps(to_numpy(values)[0]) for values in maps)
    refuse_not_finite(subject, layer, before, after)
    differing = np.argsort(-before.std(axis=(1, 2)), kind="stable")[:SHOWN]
    chosen = differing.tolist() if units is None else checked_units(tuple(units), len(before), layer)
    ceiling = None if own else ceiling_of(subject, row_of(subject, layer))
    kind = None if own else found[layer].activation
    return Activations(subject, photo, layer, kind, ceiling, before, after, window, tuple(chosen), scale)


def _as_maps(values: Float32[np.ndarray, "..."]) -> Maps:
    return values.reshape(-1, 1, 1) if values.ndim == 1 else values
