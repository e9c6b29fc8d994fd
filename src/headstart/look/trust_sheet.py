"""The table of `headstart trust` as a picture: a row a method, a column a test, what must be beaten as dashed lines."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float64
from PIL import Image, ImageDraw

from headstart.explain.drawing import (
    BOX,
    EDGE,
    FAINT,
    GAP,
    INK,
    LINE,
    MARGIN,
    PAPER,
    TEXT,
    TITLE,
    Panel,
    draw_sheet,
    fitted,
    font,
    lines_of,
    overlay,
    shortened,
)
from headstart.files import shown

if TYPE_CHECKING:
    from headstart.look.mosaic import Made
    from headstart.look.trust import Mean, Trust

NAMES, COLUMN, BETWEEN, ROW = 186, 158, 26, 34  # px: column of names, a test, the room between two, a method
HEAD = 3 * LINE
DOT = 5
MOSAIC = 252  # px, the side of a mosaic
SHOWN = 0.995  # of the pixels are within the colours: one pixel of a gradient would make the rest pale
MARK = "#b4501e"  # of a method: the dark end of the colour map's orange
BAND = "#eef1f5"


@dataclass(frozen=True)
class _Test:
    """A column: what stands above it, its axis, and where a good map lies."""

    key: str
    title: str
    low: float
    high: float
    good: tuple[float, float]


_TESTS = (
    _Test("sanity", "last layer shuffled: correlation with before", -0.5, 1.0, (-0.35, 0.35)),
    _Test("mosaic_peak", "mosaic: peak on the right photo", 0.0, 1.0, (0.95, 1.0)),
    _Test("mosaic_mass", "mosaic: share on the right photo", 0.0, 1.0, (0.65, 1.0)),
    _Test("pasted_peak", "pasted photo: peak on it", 0.0, 1.0, (0.65, 1.0)),
    _Test("pasted_mass", "pasted photo: share on it", 0.0, 1.0, (0.5, 1.0)),
    _Test("gain", "insertion minus deletion", -0.5, 1.0, (math.nan, 1.0)),  # better than the centre
)


def draw(trust: "Trust") -> Image.Image:
    """The table, the words that belong to it, and one mosaic with the maps for its first class."""
    table = _table(trust)
    words = [f"{one.method.title}: {one.says}" for one in trust.judged if one.says] + list(trust.notes)
    parts = [table, _text(words, table.width)]
    if trust.example is not None and trust.maps:
        titles = {one.method.name: one.method.title for one in trust.judged}
        parts.append(_mosaics(trust.example, trust.maps, titles))
    sheet = Image.new("RGB", (max(part.width for part in parts), sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _table(trust: "Trust") -> Image.Image:
    width = MARGIN + NAMES + len(_TESTS) * (COLUMN + BETWEEN) + MARGIN - BETWEEN + 10
    top = MARGIN + TITLE + 10 + 2 * LINE + GAP
    legs = 1 + max((len(row) for row in trust.to_beat.values()), default=0)
    image = Image.new("RGB", (width, top + HEAD + len(trust.judged) * ROW + legs * LINE + GAP), PAPER)
    pen = ImageDraw.Draw(image)
    head = f"How far can these maps be trusted? {shown(trust.subject)} on {trust.photos} photos of {shown(trust.data)}"
    pen.text((MARGIN, MARGIN), shortened(head, font(TITLE + 3), width - 2 * MARGIN), fill=INK, font=font(TITLE + 3))
    note = (
        "A dot is the mean over photos, its line the 95 % interval. Dashed: what a map reaches that knows nothing of "
    )
    note += "the net. Shaded: where a good map of a class lies."
    for number, line in enumerate(lines_of(note, font(TEXT), width - 2 * MARGIN)):
        pen.text((MARGIN, MARGIN + TITLE + 10 + number * LINE), line, fill=FAINT, font=font(TEXT))
    for number, one in enumerate(trust.judged):
        middle = top + HEAD + number * ROW + ROW // 2
        label = shortened(one.method.title, font(TEXT), NAMES - 10)
        pen.text((MARGIN, middle), label, fill=INK, font=font(TEXT), anchor="lm")
    for number, test in enumerate(_TESTS):
        left = MARGIN + NAMES + number * (COLUMN + BETWEEN)
        _column(pen, left, top, test, trust)
    return image


def _column(pen: ImageDraw.ImageDraw, left: int, top: int, test: _Test, trust: "Trust") -> None:
    """One test: its title, a frame, dashed lines with their names below, a dot a method."""
    body = top + HEAD
    bottom = body + len(trust.judged) * ROW
    beaten = trust.to_beat.get(test.key, {})
    for number, line in enumerate(lines_of(test.title, font(TEXT), COLUMN)):
        pen.text((left, top + number * LINE), line, fill=INK, font=font(TEXT))

    def across(value: float) -> float:
        return left + COLUMN * (min(max(value, test.low), test.high) - test.low) / (test.high - test.low)

    start = beaten["centre"].value if math.isnan(test.good[0]) and "centre" in beaten else test.good[0]
    if math.isfinite(start):
        pen.rectangle((across(start), body, across(test.good[1]), bottom), fill=BAND)
    for number in range(len(trust.judged)):
        middle = body + number * ROW + ROW // 2
        pen.line((left, middle, left + COLUMN, middle), fill=EDGE)
    pen.rectangle((left, body, left + COLUMN, bottom), outline=EDGE)
    for value in (test.low, 0.0, test.high):
        pen.text((across(value), bottom + 4), f"{value:g}", fill=FAINT, font=font(TEXT - 2), anchor="ma")
    for number, (name, mean) in enumerate(sorted(beaten.items(), key=lambda item: -item[1].value)):
        if math.isfinite(mean.value):
            _dashed(pen, across(mean.value), body, bottom)
            words = f"{name} {mean.value:.2f}"
            pen.text((left, bottom + (number + 1) * LINE), words, fill=FAINT, font=font(TEXT - 1))
    for number, one in enumerate(trust.judged):
        _dot(pen, body + number * ROW + ROW // 2, one.numbers, test, across)


def _dot(
    pen: ImageDraw.ImageDraw, middle: int, numbers: Mapping[str, "Mean"], test: _Test, across: Callable[[float], float]
) -> None:
    """The mean of a method with its interval, and the number above."""
    mean = numbers.get(test.key)
    if mean is None or not math.isfinite(mean.value):
        room = pen.textbbox((across(test.low) + 6, middle), "not measured", font=font(TEXT - 2), anchor="lm")
        pen.rectangle((room[0] - 3, room[1] - 2, room[2] + 3, room[3] + 2), fill=PAPER)
        pen.text((across(test.low) + 6, middle), "not measured", fill=FAINT, font=font(TEXT - 2), anchor="lm")
        return
    x = across(mean.value)
    if math.isfinite(mean.spread):
        pen.line(
            (across(mean.value - mean.spread), middle, across(mean.value + mean.spread), middle), fill=MARK, width=3
        )
    pen.ellipse((x - DOT, middle - DOT, x + DOT, middle + DOT), fill=MARK)
    right = x + DOT + 4 + font(TEXT - 2).getlength("-0.00") < across(test.high)
    anchor, at = ("lm", x + DOT + 4) if right else ("rm", x - DOT - 4)
    pen.text((at, middle - 9), f"{mean.value:.2f}", fill=INK, font=font(TEXT - 2), anchor=anchor)


def _dashed(pen: ImageDraw.ImageDraw, x: float, top: int, bottom: int) -> None:
    for start in range(top, bottom, 7):
        pen.line((x, start, x, min(start + 3, bottom)), fill=INK)


def _text(words: list[str], width: int) -> Image.Image:
    lines = [line for entry in words for line in lines_of(entry, font(TEXT), width - 2 * MARGIN)]
    image = Image.new("RGB", (width, max(1, len(lines) * LINE)), PAPER)
    pen = ImageDraw.Draw(image)
    for number, line in enumerate(lines):
        pen.text((MARGIN, number * LINE), line, fill=FAINT, font=font(TEXT))
    return image


def _mosaics(
    made: "Made", maps: Mapping[str, Float64[np.ndarray, "size size"]], titles: Mapping[str, str]
) -> Image.Image:
    area = next(iter(made.areas.values()))
    original = fitted(Image.fromarray(made.photo.picture.pixels.copy()), MOSAIC)
    panels = [Panel("one of the mosaics", _framed(original, area), ("framed: what shows the class",))]
    for name, values in maps.items():
        total, limit = float(values.sum()), float(np.quantile(values, SHOWN))
        share = float(values[area].sum()) / total if total > 0 else 0.0
        lines = (f"{100 * share:.0f} % on the right photo", f"colours 0 to {limit:.3g}, largest {values.max():.3g}")
        panels.append(Panel(titles[name], _framed(overlay(made.photo, values, MOSAIC, limit), area), lines))
    return draw_sheet("A mosaic, and what the maps mark in it", (), panels, columns=4)


def _framed(image: Image.Image, area: Bool[np.ndarray, "size size"]) -> Image.Image:
    """A frame around each quarter that shows the class."""
    framed, half = image.copy(), image.width // 2
    pen = ImageDraw.Draw(framed)
    for row, column in np.ndindex(2, 2):
        if area[-row, -column]:  # a corner of the quarter: the first or the last row, and column
            left, top = column * half + 1, row * half + 1
            pen.rectangle((left, top, left + half - 3, top + half - 3), outline=BOX, width=3)
    return framed
