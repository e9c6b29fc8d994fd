"""The filter lesson as one picture: the photo, the filter with its numbers, the signed response, ReLU, pooling.

All maps share one colour scale, symmetric about 0 and drawn below them: the same colour is the same number everywhere.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from headstart.layers.colours import signed_colours
from headstart.layers.filters import Filtered, Map, Products, channels_of, number
from headstart.layers.filters import Image as Pixels
from headstart.layers.kernels import Kernel, Plane
from headstart.layers.shape_reports import PoolKind

PANEL, SMALL_PANEL = 360, 240  # px, longer side of a map; the smaller where the channels are shown one by one
MARGIN, GAP = 28, 26  # px around the sheet and between panels
TITLE, TEXT = 15, 13  # px, type sizes
HEAD = TITLE + TEXT + 14  # px above a panel: its title and a line below that
INK, FAINT, LINE, PAPER = "#22262c", "#6a7079", "#c9ced6", "#ffffff"
BAR_WIDTH, BAR_HEIGHT = 420, 14  # px, the colour scale
BEYOND = 0.01  # share of the response that may lie beyond the scale, so that one bright speck does not pale the rest
Pooling = tuple[int, PoolKind]  # window, px, and what is made of it

SMALLEST_CELL = 26  # px; in smaller cells the numbers of a filter cannot be read and are left out


@dataclass(frozen=True)
class Panel:
    """One picture of the sheet.

    Args:
        title, line: the two lines above it.
        image: its pixels.
    """

    title: str
    line: str
    image: Image.Image


def draw_lesson(
    photo: Pixels,
    note: str,
    filtered: Sequence[Filtered],
    titles: Sequence[str],
    pooling: Pooling | None = None,
    spot: Products | None = None,
) -> Image.Image:
    """Draw the lesson.

    Args:
        photo: `(height, width)` or `(3, height, width)`, 0..255.
        note: the line under the photo's title.
        filtered: one a filter (its rotations), drawn one below the other.
        titles: the name of each.
        pooling: the window and the kind of the pooled maps; None if there are none.
        spot: the window to mark.
    """
    limit = scale_limit(filtered)
    side = PANEL if filtered[0].terms is None else SMALL_PANEL
    shown = _fit(_photo_pixels(photo), side)
    rows = [
        [
            Panel(title, " x ".join(map(str, one.kernel.shape[-2:])), _kernel_image(one.kernel, shown.size)),
            *_map_panels(one, pooling, limit, side),
        ]
        for one, title in zip(filtered, titles, strict=True)
    ]
    if spot is not None:
        _mark(shown, photo.shape[-2:], spot, spot.patch.shape[-2:])
        response = rows[0][1 if filtered[0].terms is None else 4].image
        _mark(response, filtered[0].response.shape, spot, (1, 1))
    height = max(panel.image.height for row in [[Panel("", "", shown)], *rows] for panel in row) + HEAD + GAP
    width = (len(rows[0]) + 1) * (side + GAP) - GAP + 2 * MARGIN
    sheet = Image.new("RGB", (max(width, BAR_WIDTH + 2 * MARGIN), len(rows) * height + MARGIN + 64), PAPER)
    _place(sheet, Panel("photo", note, shown), MARGIN, MARGIN)
    for index, row in enumerate(rows):
        for column, panel in enumerate(row, start=1):
            _place(sheet, panel, MARGIN + column * (side + GAP), MARGIN + index * height)
    _draw_scale(sheet, limit, MARGIN, sheet.height - 64)
    return sheet


def scale_limit(filtered: Sequence[Filtered]) -> float:
    """The value of the darkest colour: all but BEYOND of each response lies within it."""
    sizes = [np.abs(one.response) for one in filtered]
    return (
        max(float(np.quantile(size, 1 - BEYOND)) for size in sizes) or max(float(size.max()) for size in sizes) or 1.0
    )


def _map_panels(one: Filtered, pooling: Pooling | None, limit: float, side: int) -> list[Panel]:
    """What each channel adds, the response, ReLU and pooling."""
    panels = []
    if one.terms is not None:
        for name, term in zip(("red", "green", "blue"), one.terms, strict=True):
            panels.append(_map_panel(f"{name} channel", term, limit, side))
    panels.append(_map_panel("response" if one.terms is None else "their sum", one.response, limit, side))
    panels.append(_map_panel("after ReLU", one.relu, limit, side))
    if one.pooled is not None and pooling is not None:
        window, kind = pooling
        # The L2 norm of a flat window is its value times the window's side: with this limit it keeps its colour.
        own = limit * window if kind == "l2" else limit
        panel = _map_panel(f"after {kind} pooling by {window}", one.pooled, own, side)
        panels.append(Panel(panel.title, panel.line + f", darkest {number(own)}" * (kind == "l2"), panel.image))
    return panels


def _map_panel(title: str, values: Map, limit: float, side: int) -> Panel:
    """A map in the colours of the scale; a large one is averaged down before it is coloured, never after."""
    rows, columns = values.shape
    line = f"{rows} x {columns}, {number(values.min())} to {number(values.max())}"
    width, height = _size((rows, columns), side)
    if rows > height:
        small = Image.fromarray(values.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
        values = np.asarray(small, dtype=np.float64)
    return Panel(title, line, _fit(Image.fromarray(signed_colours(values, limit)), side))


def _kernel_image(kernel: Kernel, size: tuple[int, int]) -> Image.Image:
    """The filter's cells with their numbers, inside `(width, height)`; for colour its three matrices side by side."""
    planes = channels_of(kernel)
    strongest = float(np.abs(kernel).max()) or 1.0
    rows, columns = planes.shape[1:]
    cell = max(1, min((size[0] - 8 * (len(planes) - 1)) // (columns * len(planes)), size[1] // rows))
    step = columns * cell + 8
    image = Image.new("RGB", (len(planes) * step - 7, rows * cell + 1), PAPER)
    pen = ImageDraw.Draw(image)
    for index, plane in enumerate(planes):
        _draw_cells(pen, plane, strongest, cell, index * step)
    return image


def _draw_cells(pen: ImageDraw.ImageDraw, plane: Plane, strongest: float, cell: int, start: int) -> None:
    """One matrix: a coloured cell a number."""
    colours = signed_colours(plane, strongest)
    texts = [[number(value) if value == int(value) else f"{value:.2g}" for value in row] for row in plane]
    longest = max(len(text) for row in texts for text in row)
    font = ImageFont.load_default(max(9, min(18, int(1.5 * cell / max(longest, 2)))))
    for i, row in enumerate(texts):
        for j, text in enumerate(row):
            left, upper = start + j * cell, i * cell
            pen.rectangle((left, upper, left + cell, upper + cell), tuple(map(int, colours[i, j])), LINE)
            if cell >= SMALLEST_CELL:
                ink = INK if colours[i, j].mean() > 140 else PAPER
                pen.text((left + cell / 2, upper + cell / 2), text, fill=ink, font=font, anchor="mm")


def _photo_pixels(photo: Pixels) -> Image.Image:
    pixels = np.rint(np.clip(photo, 0, 255)).astype(np.uint8)
    return Image.fromarray(pixels if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(1, 2, 0))).convert(
        "RGB"
    )


def _size(shape: tuple[int, int], side: int) -> tuple[int, int]:
    """`(width, height)` of a panel whose longer side is `side`."""
    scale = side / max(shape)
    return max(1, round(shape[1] * scale)), max(1, round(shape[0] * scale))


def _fit(image: Image.Image, side: int) -> Image.Image:
    """Bring a picture to its panel's size; a small one keeps its pixels as squares."""
    size = _size((image.height, image.width), side)
    smaller = size[0] < image.width
    return image.resize(size, Image.Resampling.LANCZOS if smaller else Image.Resampling.NEAREST)


def _mark(panel: Image.Image, shape: tuple[int, ...], spot: Products, window: tuple[int, ...]) -> None:
    """Frame a window on a panel; it is drawn at least 9 px wide, so that it can be found."""
    scale = max(panel.size) / max(shape)
    height, width = window
    middle = (spot.column + width / 2) * scale, (spot.row + height / 2) * scale
    half = max(4.5, width * scale / 2), max(4.5, height * scale / 2)
    box = (middle[0] - half[0], middle[1] - half[1], middle[0] + half[0], middle[1] + half[1])
    pen = ImageDraw.Draw(panel)
    pen.rectangle(box, outline=INK, width=3)
    pen.rectangle((box[0] + 1, box[1] + 1, box[2] - 1, box[3] - 1), outline=PAPER, width=1)


def _place(sheet: Image.Image, panel: Panel, left: int, top: int) -> None:
    """Put a panel under its two lines of text."""
    pen = ImageDraw.Draw(sheet)
    pen.text((left, top), panel.title, fill=INK, font=ImageFont.load_default(TITLE))
    pen.text((left, top + TITLE + 5), panel.line, fill=FAINT, font=ImageFont.load_default(TEXT))
    sheet.paste(panel.image, (left, top + HEAD))
    pen.rectangle((left - 1, top + HEAD - 1, left + panel.image.width, top + HEAD + panel.image.height), outline=LINE)


def _draw_scale(sheet: Image.Image, limit: float, left: int, top: int) -> None:
    """The one colour scale with its numbers."""
    ramp = np.linspace(-limit, limit, BAR_WIDTH)[None].repeat(BAR_HEIGHT, axis=0)
    sheet.paste(Image.fromarray(signed_colours(ramp, limit)), (left, top))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(TEXT)
    pen.rectangle((left - 1, top - 1, left + BAR_WIDTH, top + BAR_HEIGHT), outline=LINE)
    below = top + BAR_HEIGHT + 5
    ends = f"{limit:,.0f}" if limit >= 1000 else f"{limit:.4g}"
    for share, text, anchor in (
        (0.0, f"-{ends} and less", "la"),
        (0.5, "0", "ma"),
        (1.0, f"{ends} and more", "ra"),
    ):
        pen.text((left + share * BAR_WIDTH, below), text, fill=INK, font=font, anchor=anchor)
    pen.text((left + BAR_WIDTH + GAP, top), "one scale for every map", fill=FAINT, font=font)
