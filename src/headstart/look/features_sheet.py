"""The picture of a map of photos: thumbnails in the free cells nearest to their places, so that none covers another."""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float64, Int64, UInt8
from PIL import Image, ImageDraw

from headstart.explain.drawing import FAINT, INK, LINE, MARGIN, PAPER, TEXT, TITLE, font, lines_of, shortened
from headstart.files import shown

WIDTH = 1180  # px of the map, about
ROOM = 2.2  # cells for each photo: groups stay apart
NARROW, WIDE = 1.0, 2.2  # width over height of the grid, at least and at most
SMALLEST, LARGEST = 30, 76  # px, side of a cell
EDGE = 3  # px of colour around a thumbnail
# of Okabe & Ito 2008, "Color universal design": told apart with any colour vision
COLOURS = ("#E69F00", "#0072B2", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
OTHER = "#9aa1ab"


def draw_map(
    title: str,
    words: Sequence[str],
    places: Float64[np.ndarray, "photos 2"],
    thumbnails: UInt8[np.ndarray, "photos side side 3"],
    labels: Int64[np.ndarray, "photos"],
    classes: Sequence[str],
) -> Image.Image:
    """Draw the map.

    Args:
        title: the first line.
        words: below it.
        places: on the map; the first axis goes to the right, the second up.
        thumbnails: of the photos.
        labels: places among `classes`; the edge of a thumbnail has its colour.
        classes: names; one empty name: no edges and no legend.
    """
    cells, columns, rows = snapped(places)
    side = max(SMALLEST, min(LARGEST, WIDTH // columns))
    width = columns * side + 2 * MARGIN
    colours, legend = _colours(labels, classes)
    moved = 100 * float(np.median(_moves(places, cells, columns, rows)))
    said = (*words, f"Thumbnails lie in the nearest free cell, moved by {moved:.1f} % of the width (median).")
    body, head = font(TEXT), font(TITLE + 3)
    lines = [line for entry in said for line in lines_of(entry, body, width - 2 * MARGIN)]
    keys = _legend_rows(legend, width - 2 * MARGIN)
    top = MARGIN + TITLE + 12 + len(lines) * LINE + 8 + len(keys) * (LINE + 2) + 10
    sheet = Image.new("RGB", (width, top + rows * side + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), shortened(title, head, width - 2 * MARGIN), fill=INK, font=head)
    for number, line in enumerate(lines):
        pen.text((MARGIN, MARGIN + TITLE + 12 + number * LINE), line, fill=FAINT, font=body)
    _write_legend(pen, keys, top - 10 - len(keys) * (LINE + 2))
    edge = EDGE if legend else 0
    for (column, row), picture, colour in zip(cells.tolist(), thumbnails, colours, strict=True):
        left, upper = MARGIN + column * side, top + row * side
        if edge:
            pen.rectangle((left + 1, upper + 1, left + side - 2, upper + side - 2), fill=colour)
        inner = side - 2 - 2 * edge
        small = Image.fromarray(np.ascontiguousarray(picture)).resize((inner, inner), Image.Resampling.LANCZOS)
        sheet.paste(small, (left + 1 + edge, upper + 1 + edge))
    return sheet


def snapped(places: Float64[np.ndarray, "photos 2"]) -> tuple[Int64[np.ndarray, "photos 2"], int, int]:
    """A cell of a grid for each place: the nearest free one, those that lie closest to a cell first.

    Args:
        places: any unit; both axes are scaled alike.

    Returns:
        (column, row) of each, row 0 on top, no two alike; and how many columns and rows there are.
    """
    count = len(places)
    across, up = np.maximum(np.ptp(places, axis=0), 1e-12)
    shape = min(max(across / up, NARROW), WIDE)
    columns = max(2, math.ceil(math.sqrt(ROOM * count * shape)))
    rows = max(2, math.ceil(ROOM * count / columns))
    x, y = _in_cells(places, columns, rows).T
    grid = np.stack(np.meshgrid(np.arange(columns), np.arange(rows)), axis=-1).reshape(-1, 2)
    far = np.square(grid[None, :, 0] - x[:, None]) + np.square(grid[None, :, 1] - y[:, None])
    cells = np.zeros((count, 2), np.int64)
    for photo in np.argsort(far.min(axis=1), kind="stable"):
        cell = int(far[photo].argmin())
        cells[photo] = grid[cell]
        far[:, cell] = np.inf
    return cells, columns, rows


def _in_cells(places: Float64[np.ndarray, "photos 2"], columns: int, rows: int) -> Float64[np.ndarray, "photos 2"]:
    """Places in units of cells, both axes alike, in the middle of the grid; the second axis downwards."""
    low, high = places.min(axis=0), places.max(axis=0)
    reach = np.maximum(high - low, 1e-12)
    scale = min((columns - 1) / reach[0], (rows - 1) / reach[1])
    centred = (places - (low + high) / 2) * scale * np.array([1.0, -1.0])
    return np.asarray(centred + np.array([(columns - 1) / 2, (rows - 1) / 2]))


def _moves(
    places: Float64[np.ndarray, "photos 2"], cells: Int64[np.ndarray, "photos 2"], columns: int, rows: int
) -> Float64[np.ndarray, "photos"]:
    """How far each cell is from its place, as a share of the width of the grid."""
    return np.asarray(np.hypot(*(cells - _in_cells(places, columns, rows)).T) / columns)


def _colours(labels: Int64[np.ndarray, "photos"], classes: Sequence[str]) -> tuple[list[str], list[tuple[str, str]]]:
    """The colour of each photo, and the legend: colour and name; the rarer classes share a grey."""
    if tuple(classes) == ("",):
        return [PAPER] * len(labels), []
    counts = np.bincount(labels, minlength=len(classes))
    common = [label for label in np.argsort(-counts, kind="stable").tolist() if counts[label]][: len(COLOURS)]
    chosen = {label: COLOURS[number] for number, label in enumerate(sorted(common))}
    legend = [(colour, f"{shown(classes[label])} ({counts[label]})") for label, colour in chosen.items()]
    if others := int((counts > 0).sum()) - len(chosen):
        legend.append((OTHER, f"{others} other classes"))
    return [chosen.get(label, OTHER) for label in labels.tolist()], legend


def _legend_rows(legend: Sequence[tuple[str, str]], width: int) -> list[list[tuple[int, str, str]]]:
    """The legend in rows that fit `width` pixels: (left edge, colour, name)."""
    rows: list[list[tuple[int, str, str]]] = []
    right = width
    for colour, name in legend:
        text = shortened(name, font(TEXT), width - 60)
        wide = 22 + round(font(TEXT).getlength(text)) + 20
        if right + wide > width:
            rows.append([])
            right = 0
        rows[-1].append((right, colour, text))
        right += wide
    return rows


def _write_legend(pen: ImageDraw.ImageDraw, rows: Sequence[Sequence[tuple[int, str, str]]], top: int) -> None:
    for number, row in enumerate(rows):
        upper = top + number * (LINE + 2)
        for left, colour, text in row:
            pen.rectangle((MARGIN + left, upper + 2, MARGIN + left + 13, upper + 15), fill=colour)
            pen.text((MARGIN + left + 20, upper), text, fill=INK, font=font(TEXT))
