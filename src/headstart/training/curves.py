"""A drawing of losses against learning rate and against steps: one list of strokes, written as SVG or as PNG."""

import html
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from headstart.errors import UsageError
from headstart.files import shown, write_atomic
from headstart.training.range_finder import RangeResult, Trial

WIDTH, HEIGHT = 1160, 420  # of the picture, units; PNG has two pixels a unit
PANEL = (500.0, 300.0)  # of one set of axes
SHARP = 2
INK, SOFT, GRID = "#1f2430", "#6b7280", "#e3e6eb"
COLOURS = {"too low": "#8b95a5", "good": "#1a7f4b", "bouncing": "#c77700", "diverged": "#c0272d"}  # verdict -> line
RANGE = "#2457a7"

Points = list[tuple[float, float]]


@dataclass
class Drawing:
    """Lines and words at places of a picture, left to right and top to bottom, in units."""

    strokes: list[tuple[Points, str, float]] = field(default_factory=list)  # points, colour, width
    words: list[tuple[float, float, str, str, str, int]] = field(
        default_factory=list
    )  # x, y, text, colour, anchor, size

    def line(self, points: Points, colour: str, width: float = 1.0) -> None:
        """A line through points."""
        self.strokes.append((points, colour, width))

    def text(self, x: float, y: float, text: str, colour: str = SOFT, anchor: str = "start", size: int = 13) -> None:
        """Words on the line y; `anchor` says which part of them is at x: start, middle or end."""
        self.words.append((x, y, text, colour, anchor, size))

    def to_svg(self) -> str:
        """The picture as text."""
        parts = [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            'font-family="system-ui, sans-serif">',
            f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        ]
        for points, colour, width in self.strokes:
            path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
            parts.append(
                f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="{width:g}" '
                'stroke-linejoin="round" stroke-linecap="round"/>'
            )
        for x, y, text, colour, anchor, size in self.words:
            parts.append(
                f'<text x="{x:.1f}" y="{y:.1f}" fill="{colour}" font-size="{size}" text-anchor="{anchor}">'
                f"{html.escape(text)}</text>"
            )
        return "\n".join([*parts, "</svg>", ""])

    def to_png(self) -> bytes:
        """The picture as pixels, drawn twice as large again and reduced, so that lines are smooth."""
        scale = 2 * SHARP
        image = Image.new("RGB", (WIDTH * scale, HEIGHT * scale), "#ffffff")
        pen = ImageDraw.Draw(image)
        for points, colour, width in self.strokes:
            pen.line([(x * scale, y * scale) for x, y in points], colour, round(width * scale), joint="curve")
        for x, y, text, colour, anchor, size in self.words:
            side = {"start": "l", "middle": "m", "end": "r"}[anchor]
            pen.text((x * scale, y * scale), text, colour, ImageFont.load_default(size * scale), anchor=side + "s")
        file = BytesIO()
        image.resize((WIDTH * SHARP, HEIGHT * SHARP), Image.Resampling.LANCZOS).save(file, "PNG")
        return file.getvalue()


@dataclass(frozen=True)
class Axes:
    """A frame in which numbers have places.

    Args:
        left, top: corner of the frame, units.
        across: smallest and largest number from left to right.
        up: smallest and largest number from bottom to top.
        log: the numbers across are powers of ten apart.
    """

    left: float
    top: float
    across: tuple[float, float]
    up: tuple[float, float]
    log: bool = False

    def place(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair of numbers is; what lies outside is at the edge, and what is no number at the top."""
        scale = math.log10 if self.log else float
        low, high = (scale(end) for end in self.across)
        right = (scale(x) - low) / max(high - low, 1e-12)
        bottom, top = self.up
        height = (y - bottom) / max(top - bottom, 1e-12) if math.isfinite(y) else 1.0
        right, height = (min(max(share, 0.0), 1.0) for share in (right, height))
        return self.left + PANEL[0] * right, self.top + PANEL[1] * (1 - height)

    def points(self, xs: Sequence[float], ys: Sequence[float]) -> Points:
        """The places of many."""
        return [self.place(x, y) for x, y in zip(xs, ys, strict=True)]

    def draw(self, drawing: Drawing, title: str, below: str) -> None:
        """Grid, numbers and words."""
        for value in _ticks(*self.up):
            y = self.place(self.across[0], value)[1]
            drawing.line([(self.left, y), (self.left + PANEL[0], y)], GRID)
            drawing.text(self.left - 8, y + 4, f"{value:g}", anchor="end")
        marks = _decades(*self.across) if self.log else _ticks(*self.across)
        for value in marks:
            x = self.place(value, self.up[0])[0]
            bottom = self.top + PANEL[1]
            drawing.line([(x, bottom), (x, bottom + 4)], SOFT)
            drawing.text(x, bottom + 19, f"{value:g}", anchor="middle")
        drawing.text(self.left, self.top - 16, title, INK, size=15)
        drawing.text(self.left + PANEL[0], self.top + PANEL[1] + 40, below, anchor="end")


def draw_rates(tested: RangeResult, trials: Sequence[Trial], title: str) -> Drawing:
    """The range test on the left, the trainings of the sweep on the right.

    Losses above one and a half times the first are drawn at the upper edge.

    Args:
        tested: the range test.
        trials: the sweep; may be empty.
        title: what was trained on what.
    """
    drawing = Drawing()
    drawing.text(50.0, 26.0, title, INK, size=17)
    finite = [value for value in tested.losses if math.isfinite(value)]
    top = 1.5 * max(finite[:10], default=1.0)
    left = Axes(50.0, 70.0, (tested.rates[0], max(tested.rates[-1], 1.01 * tested.rates[0])), (0.0, top), log=True)
    left.draw(drawing, "Loss while the learning rate grows at every step", "learning rate")
    drawing.line(left.points(tested.rates, tested.losses), "#b9c8e2")
    drawing.line(left.points(tested.rates, tested.smoothed), RANGE, 2.5)
    x = left.place(tested.suggestion, 0.0)[0]
    drawing.line([(x, 70.0), (x, 70.0 + PANEL[1])], COLOURS["good"], 1.5)
    drawing.text(x - 6, 86.0, f"{tested.suggestion:.2g}", COLOURS["good"], anchor="end", size=14)
    if trials:
        _draw_sweep(drawing, trials, top)
    return drawing


def _draw_sweep(drawing: Drawing, trials: Sequence[Trial], top: float) -> None:
    steps = max(len(trial.losses) for trial in trials)
    axes = Axes(620.0, 70.0, (0.0, max(1.25 * steps, 1.0)), (0.0, top))  # room for the names of the lines
    axes.draw(drawing, "Loss of short trainings, a line a learning rate", "step")
    ends = []
    for trial in trials:
        values = _blocks(trial.losses)
        drawing.line(axes.points(*values), COLOURS[trial.verdict], 2.5 if trial.verdict == "good" else 1.5)
        x, y = axes.place(values[0][-1], values[1][-1])
        ends.append((y, x, f"{trial.rate:g} {trial.verdict}", COLOURS[trial.verdict]))
    ends.sort()
    for (_, x, name, colour), y in zip(ends, _apart([end[0] for end in ends], 70 + PANEL[1] - 4), strict=True):
        drawing.text(x + 8, y + 4, name, colour)


def _apart(places: Sequence[float], lowest: float, gap: float = 15.0) -> list[float]:
    """Heights of names, downwards, near the sorted `places` and at least `gap` from one another, none below `lowest`.

    >>> _apart([10.0, 12.0, 99.0], 100.0), _apart([98.0, 99.0], 100.0)
    ([10.0, 25.0, 99.0], [85.0, 100.0])
    """
    heights: list[float] = []
    for place in places:
        heights.append(max(place, heights[-1] + gap) if heights else place)
    for index in range(len(heights) - 1, -1, -1):
        heights[index] = min(heights[index], lowest)
        lowest = heights[index] - gap
    return heights


def _blocks(losses: Sequence[float], count: int = 50) -> tuple[list[float], list[float]]:
    """Means over neighbouring steps, and the step in the middle of each."""
    parts = [part for part in np.array_split(np.arange(len(losses)), count) if len(part)]
    with np.errstate(all="ignore"):
        means = [float(np.mean([losses[place] for place in part])) for part in parts]
    return [float(part.mean()) for part in parts], means


def write_drawing(drawing: Drawing, path: Path) -> None:
    """Write SVG or PNG, as the suffix says.

    Raises:
        UsageError: another suffix.
        OutputError: it cannot be written.
    """
    check_suffix(path)
    writers: dict[str, Callable[[], bytes]] = {".svg": lambda: drawing.to_svg().encode("utf-8"), ".png": drawing.to_png}
    write_atomic(path, writers[path.suffix.lower()]())


def check_suffix(path: Path) -> None:
    """Refuse, before any work, a file that no drawing can be written to. Raises UsageError."""
    if path.suffix.lower() not in (".svg", ".png"):
        raise UsageError(f"a drawing is an .svg or a .png file; received '{shown(path.name)}'")


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers."""
    span = max(high - low, 1e-12)
    step = 10.0 ** math.floor(math.log10(span / 3))
    step *= next((factor for factor in (1, 2, 5) if span / (factor * step) <= 7), 10)
    return [float(f"{number * step:.6g}") for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _decades(low: float, high: float) -> list[float]:
    return [10.0**power for power in range(math.ceil(math.log10(low)), math.floor(math.log10(high)) + 1)]
