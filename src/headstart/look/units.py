"""What excites a unit: the nine photo patches with its largest values, each beside the unit's own view of it.

Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks" (arXiv:1311.2901), figure 2: one patch a
photo, cut out of the original exactly where the unit looks (its receptive field in closed form), and the unit's value
sent back alone to the pixels. Where the field is larger than the photo the patch is the part that matters: a square of
six standard deviations of the projection's energy around its centre.
"""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32
from PIL import Image

from headstart.dataset import Dataset
from headstart.errors import UsageError
from headstart.explain.explanation import Step, silent
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.scan import Scan, scan
from headstart.look.wiring import checked_units, row_of

if TYPE_CHECKING:
    from headstart.explain.rectifiers import Rule
    from headstart.layers.receptive import ReceptiveField

TOP, SHOWN, CROWD = 9, 6, 50  # patches of a unit; units when nobody chose; photos whose classes are counted
FEW = 3  # photos that are projected together: a tenth of a second or two each
WIDTH = 6.0  # standard deviations of a projection's energy across its effective field
SMALLEST = 8  # px of the net's input: a patch is at least so wide where the field is not
CONSTANT = 1e-4  # of the median unit's spread over the photos: a unit below says the same of every photo
Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Patch:
    """Where one photo excites a unit most.

    Args:
        photo: its name in the data.
        label: the name of its class; None where there is none.
        value: the unit's value there, before the activation.
        place: row and column of the layer's map.
        field: the receptive field, pixels of the net's input, (x0, y0, x1, y1) half open; beyond the photo is padding.
        crop: what is shown, in the same pixels.
        original: `crop` in pixels of the photo itself, as far as it lies inside.
    """

    photo: str
    label: str | None
    value: float
    place: tuple[int, int]
    field: Box | None
    crop: Box
    original: Box

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "photo": self.photo,
            "label": self.label,
            "value": self.value,
            "place": list(self.place),
            "field": None if self.field is None else list(self.field),
            "shown": list(self.crop),
            "original": list(self.original),
        }


@dataclass(frozen=True, eq=False)
class Unit:
    """One unit and what excites it.

    Args:
        number: of the unit.
        patches: the strongest first.
        photos: of the patches, as the net sees them and as people do.
        projections: raw, (patches, channels, size, size), each in the pixels of the net's input.
        facts: shares over all photos, of `Scan.facts`.
        classes: how many of the `crowd` strongest photos are of each class, the commonest first.
        crowd: photos that `classes` counts.
        constant: it says the same of every photo, so which are the strongest means nothing.
    """

    number: int
    patches: tuple[Patch, ...]
    photos: tuple[Photo, ...] = field(repr=False)
    projections: Float32[np.ndarray, "patches channels size size"] = field(repr=False)
    facts: Mapping[str, float | None]
    classes: Mapping[str, int]
    crowd: int
    constant: bool

    def to_json(self) -> dict[str, Any]:
        """Plain values, without the pictures."""
        return {
            "unit": self.number,
            "patches": [patch.to_json() for patch in self.patches],
            "facts": dict(self.facts),
            "classes": dict(self.classes),
            "classes_of": self.crowd,
            "constant": self.constant,
        }


@dataclass(frozen=True, eq=False)
class Units:
    """The strongest patches of some units of a layer, and their projections.

    Args:
        subject: the net.
        layer: as it was named.
        rule: how the values were sent back.
        reason: why so.
        no_border: maxima at the border of the map were passed over.
        scanned: the maxima of all units in all photos.
        units: those looked at.
    """

    subject: Subject = field(repr=False)
    layer: str
    rule: str
    reason: str
    no_border: bool
    scanned: Scan = field(repr=False)
    units: tuple[Unit, ...]

    @property
    def field_size(self) -> int | None:
        """The receptive field of a unit in the middle, pixels of the net's input; None: not on a grid."""
        found = row_of(self.subject, self.layer).receptive_field
        return None if found is None else max(found.rows.size, found.columns.size)

    def shown_size(self, unit: Unit) -> int:
        """The side of a unit's patches, pixels of the net's input."""
        left, _, right, _ = unit.patches[0].crop
        return right - left

    @property
    def title(self) -> str:
        """What stands above the picture."""
        return f"units of {self.layer} of {shown(self.subject.name)}"

    def words(self) -> list[str]:
        """What holds for all units: the photos, the field, the rule."""
        size = self.subject.preprocessing.size
        data = self.scanned
        said = (
            f"{data.read} photos of {shown(data.dataset.name)}, {data.units} units of {data.grid[0]} x {data.grid[1]}"
        )
        if data.rejected:
            said += f", {len(data.rejected)} photos could not be read"
        if self.no_border:
            said += "; maxima at the border left out"
        wide = self.field_size
        if wide is None:
            about = "the receptive field is not on a grid"
        elif wide > size:
            about = f"receptive field {wide} px, larger than the photo ({size} px): shown is the part that matters"
        else:
            about = f"receptive field {wide} px of the {size} px that the net sees"
        return [said, about, self.reason]

    def lines(self, unit: Unit) -> tuple[str, ...]:
        """What is said of one unit."""
        values = [patch.value for patch in unit.patches]
        said = [f"values {values[0]:.3g} to {values[-1]:.3g}, shown {self.shown_size(unit)} px"]
        if unit.classes:
            counted = ", ".join(f"{shown(name)} {count}" for name, count in list(unit.classes.items())[:3])
            said.append(f"the {unit.crowd} strongest photos: {counted}")
        border, even = unit.facts["border"], unit.facts["border_places"]
        if even is not None and border is not None and even < 1:
            said.append(f"{border:.0%} of maxima at the border ({even:.0%} of places)")
        if (dead := unit.facts["dead"]) is not None:
            silent_ = f"dead in {dead:.0%} of photos"
            share = unit.facts["saturated"]
            said.append(silent_ if share is None else f"{silent_}; {share:.1%} of places saturated")
        if unit.constant:
            said.append("it says the same of every photo: no patch means anything")
        return tuple(said)

    @property
    def skipped(self) -> tuple[str, ...]:
        """The photos that cannot be read: path and reason."""
        return tuple(self.scanned.rejected.values())

    def to_json(self) -> dict[str, Any]:
        """Everything but the pictures."""
        return {
            "net": self.subject.name,
            "layer": self.layer,
            "rule": self.rule,
            "reason": self.reason,
            "no_border": self.no_border,
            "photos": self.scanned.read,
            "unreadable": len(self.scanned.rejected),
            "receptive_field": self.field_size,
            "units": [unit.to_json() for unit in self.units],
        }

    def to_text(self) -> str:
        """A few lines for the terminal."""
        lines = [f"{self.title}: {'; '.join(self.words())}"]
        lines += [f"unit {unit.number}: {'; '.join(self.lines(unit))}" for unit in self.units]
        return "\n".join(lines)

    def sheet(self) -> Image.Image:
        """The picture: for each unit its projections, and right of them the patches."""
        from headstart.look.unit_picture import draw_units

        return draw_units(self)

    def files(self) -> dict[str, Any]:
        """What is worth keeping: the raw projections and the picture."""
        raw = {f"unit-{unit.number}.npy": unit.projections for unit in self.units}
        return {**raw, "units.png": self.sheet()}


def look_at_units(
    subject: Subject,
    sources: Dataset | str | Path | Sequence[str | Path],
    layer: str,
    units: Sequence[int] | None = None,
    top: int = TOP,
    no_border: bool = False,
    step: Step = silent,
) -> Units:
    """The patches that excite units most, with their projections.

    Args:
        subject: the net.
        sources: the photos, as of `headstart.look.scan.photos_of`.
        layer: a stage, a block or a layer.
        units: which; None: those whose strongest photos stand out most, in standard deviations over the photos.
        top: patches of a unit, 1 to 100.
        no_border: pass over maxima at the border of the map, where units see padding.
        step: told how far the scan and the projections are.

    Raises:
        UsageError: no such layer or unit, or all of a map is border.
        DataError: no photo can be read.
    """
    if not 1 <= top <= 100:
        raise UsageError(f"a unit is shown with 1 to 100 patches, not {top}")
    if layer == "logits" and subject.classifier is not None:
        raise UsageError("the units of 'logits' are the classes; headstart explain shows what speaks for one")
    name, reason = _rule(subject, layer)
    scanned = scan(subject, sources, layer, step)
    chosen = _outstanding(scanned, top) if units is None else checked_units(tuple(units), scanned.units, layer)
    found = []
    for done, unit in enumerate(chosen):
        wait = partial(step, done, len(chosen), "units projected")
        found.append(_unit(subject, scanned, unit, top, no_border, name, wait))
    step(len(chosen), len(chosen), "units projected")
    return Units(subject, layer, name, reason, no_border, scanned, tuple(found))


def _rule(subject: Subject, layer: str) -> "tuple[Rule, str]":
    """How to send a unit's value back, and why so."""
    from headstart.explain.projection import rule_for
    from headstart.explain.rectifiers import rule

    name, reason = rule_for(subject, layer)
    try:
        with rule(subject.net, name):
            return name, reason
    except UsageError:
        return "gradient", "the plain gradient: the other rules are for nets whose activations are all rectifiers"


def _outstanding(scanned: Scan, top: int) -> list[int]:
    """The units whose strongest photos lie furthest above their mean, in standard deviations."""
    values = scanned.values[np.isfinite(scanned.values).all(axis=1)].astype(np.float64)
    spread = values.std(axis=0)
    usable = spread > CONSTANT * np.median(spread)
    strongest = np.sort(values, axis=0)[::-1][:top].mean(axis=0)
    stands_out = np.where(usable, (strongest - values.mean(axis=0)) / np.maximum(spread, 1e-12), -np.inf)
    return [int(unit) for unit in np.argsort(-stands_out, kind="stable")[:SHOWN]]


def _unit(
    subject: Subject, scanned: Scan, number: int, top: int, no_border: bool, name: "Rule", wait: Callable[[], None]
) -> Unit:
    """One unit: its strongest photos, the projections, and the patches that both are cut to."""
    listed, dataset = scanned.best(number, top, no_border), scanned.dataset
    photos = tuple(subject.photo(dataset.fetch(dataset.photos[at])) for at in listed)
    places = [scanned.place(at, number, no_border) for at in listed]
    projections = _projected(subject, photos, scanned, number, places, name, wait)
    found = row_of(subject, scanned.layer).receptive_field
    size = subject.preprocessing.size
    fields = [None if found is None else field_of(found, place) for place in places]
    crops = crops_of(fields, projections, size)
    patches = tuple(
        Patch(
            dataset.photos[at].path,
            dataset.classes[dataset.photos[at].label] if dataset.classes else None,
            scanned.value(at, number, no_border),
            place,
            seen,
            crop,
            in_original(crop, photo, size),
        )
        for at, place, seen, crop, photo in zip(listed, places, fields, crops, photos, strict=True)
    )
    crowd = scanned.best(number, CROWD, no_border) if dataset.classes else []
    labels = Counter(dataset.classes[dataset.photos[at].label] for at in crowd)
    classes = dict(sorted(labels.items(), key=lambda item: (-item[1], item[0])))
    spread = np.nanstd(scanned.values.astype(np.float64), axis=0)
    constant = bool(spread[number] <= CONSTANT * np.median(spread))
    return Unit(number, patches, photos, projections, scanned.facts(number), classes, len(crowd), constant)


def _projected(
    subject: Subject,
    photos: Sequence[Photo],
    scanned: Scan,
    number: int,
    places: list[tuple[int, int]],
    name: "Rule",
    wait: Callable[[], None],
) -> Float32[np.ndarray, "patches channels size size"]:
    """A few photos at a time: before each few, `wait` lets whoever is in a hurry go first."""
    import torch

    from headstart.explain.gradients import taken
    from headstart.explain.projection import project_units
    from headstart.explain.recording import to_numpy

    is_map = len(row_of(subject, scanned.layer).output_shape) == 3
    found: list[Float32[np.ndarray, "few channels size size"]] = []
    for start in range(0, len(photos), FEW):
        wait()
        few, where = photos[start : start + FEW], places[start : start + FEW]
        x = torch.cat([taken(subject, photo.pixels) for photo in few])
        signal = project_units(subject, x, scanned.layer, [number] * len(few), where if is_map else None, name)
        found.append(to_numpy(signal))
    return np.concatenate(found)


def field_of(found: "ReceptiveField", place: tuple[int, int]) -> Box:
    """The pixels of the net's input that a unit sees, also those that are padding: (x0, y0, x1, y1), half open."""
    top = found.rows.start + place[0] * found.rows.stride
    left = found.columns.start + place[1] * found.columns.stride
    return left, top, left + found.columns.size, top + found.rows.size


def effective_field(signal: Float32[np.ndarray, "channels rows columns"]) -> tuple[float, float, float]:
    """Where a projection's energy lies: its centre (x, y) and its width, six standard deviations, in pixels.

    The standard deviation is the root of the mean of the two variances. Nothing there: the centre, and width 0.
    """
    energy = (signal.astype(np.float64) ** 2).sum(axis=0)
    rows, columns = energy.shape
    if not energy.any():
        return columns / 2, rows / 2, 0.0
    share = energy / energy.sum()
    y, x = np.arange(rows) + 0.5, np.arange(columns) + 0.5
    down, across = share.sum(axis=1), share.sum(axis=0)
    middle_x, middle_y = float(across @ x), float(down @ y)
    variance = float(across @ (x - middle_x) ** 2 + down @ (y - middle_y) ** 2) / 2
    return middle_x, middle_y, WIDTH * math.sqrt(variance)


def crops_of(
    fields: Sequence[Box | None], projections: Float32[np.ndarray, "patches channels rows columns"], size: int
) -> list[Box]:
    """What is shown of each patch: its receptive field where that fits the photo, else its effective field.

    All patches of a unit have the same size, the median of their effective fields, so that they can be compared.

    Args:
        fields: pixels of the net's input; None: unknown.
        projections: in the same pixels.
        size: side of the net's input.
    """
    sides = [max(box[2] - box[0], box[3] - box[1]) if box is not None else size + 1 for box in fields]
    if max(sides) <= size:
        return [box for box in fields if box is not None]
    found = [effective_field(signal) for signal in projections]
    width = min(size, max(SMALLEST, math.ceil(float(np.median([one[2] for one in found])))))
    corners = [(round(x - width / 2), round(y - width / 2)) for x, y, _ in found]
    # a part of the photo, never of what lies beside it
    corners = [(min(max(0, left), size - width), min(max(0, top), size - width)) for left, top in corners]
    return [(left, top, left + width, top + width) for left, top in corners]


def in_original(box: Box, photo: Photo, size: int) -> Box:
    """A box of the net's input in pixels of the original, as far as it lies inside what the net sees."""
    left, top, right, bottom = photo.crop
    across, down = (right - left) / size, (bottom - top) / size
    x0, x1 = (left + min(max(edge, 0), size) * across for edge in (box[0], box[2]))
    y0, y1 = (top + min(max(edge, 0), size) * down for edge in (box[1], box[3]))
    return round(x0), round(y0), max(round(x0) + 1, round(x1)), max(round(y0) + 1, round(y1))
