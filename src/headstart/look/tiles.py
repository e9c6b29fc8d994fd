"""Small pictures side by side: the tiles of filters, maps and patches, and colours for a signed picture of three
channels.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

from headstart.explain.drawing import FAINT, PAPER, font, heat, shortened

GREY = 128  # what 0 is in a signed colour picture
LABEL = 11  # px, type size of a tile's label
CELL = "#8f96a0"  # the line between maps that would run into each other


def signed_picture(
    values: Float[np.ndarray, "channels rows columns"], limit: float
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Signed values as pixels: of three channels a colour around mid-grey, of one blue to orange around white.

    Args:
        values: any unit, as many channels as a photo has (3 or 1).
        limit: the size, > 0, that reaches black or full colour.
    """
    if values.shape[0] == 1:
        return heat(values[0].astype(np.float64), limit)
    scaled = np.clip(values / limit if limit > 0 else np.zeros_like(values), -1.0, 1.0)
    return np.rint(GREY - 0.5 + 127.5 * scaled).clip(0, 255).astype(np.uint8).transpose(1, 2, 0)


def enlarged(pixels: UInt8[np.ndarray, "rows columns 3"], side: int) -> Image.Image:
    """Pixels as squares, the longer side about `side`; a picture larger than that is averaged down."""
    image = Image.fromarray(np.ascontiguousarray(pixels))
    factor = side // max(image.size)
    if factor >= 1:
        return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    return image.resize(size, Image.Resampling.BOX)


def grid(
    tiles: Sequence[Image.Image], columns: int = 0, gap: int = 2, labels: Sequence[str] = (), line: str = PAPER
) -> Image.Image:
    """Tiles in rows.

    Args:
        tiles: at least one; a cell is as large as the largest.
        columns: a row; 0: about as many as rows.
        gap: px between them.
        labels: above each tile, as far as they fit; none: no room for them.
        line: the colour between them; what has no tile stays paper.
    """
    columns = min(columns or math.ceil(math.sqrt(len(tiles))), len(tiles))
    head = LABEL + 5 if labels else 0
    wide, high = max(tile.width for tile in tiles), max(tile.height for tile in tiles) + head
    rows = math.ceil(len(tiles) / columns)
    sheet = Image.new("RGB", (columns * (wide + gap) - gap, rows * (high + gap) - gap), PAPER)
    pen, type_ = ImageDraw.Draw(sheet), font(LABEL)
    for number, tile in enumerate(tiles):
        left, top = number % columns * (wide + gap), number // columns * (high + gap)
        if labels:
            pen.text((left, top), shortened(labels[number], type_, wide), fill=FAINT, font=type_)
        if line != PAPER:
            pen.rectangle((left - gap, top + head - gap, left + tile.width, top + head + tile.height), fill=line)
        sheet.paste(tile, (left, top + head))
    return sheet


def folded(values: Float[np.ndarray, "count"], columns: int = 0) -> Float[np.ndarray, "rows columns"]:
    """A vector in rows, read like a text; the cells that the last row has too many hold NaN.

    >>> folded(np.arange(5.0), columns=3).tolist()
    [[0.0, 1.0, 2.0], [3.0, 4.0, nan]]
    """
    columns = columns or math.ceil(math.sqrt(len(values)))
    cells = np.full(math.ceil(len(values) / columns) * columns, np.nan, values.dtype)
    cells[: len(values)] = values
    return cells.reshape(-1, columns)


def limit_of(values: Float[np.ndarray, "..."], beyond: float = 0.0) -> float:
    """The size that the darkest colour stands for: all but a share of the finite values lie within.

    Args:
        values: any unit; NaN is passed over.
        beyond: share of the values that may lie beyond, so that one speck does not pale the rest.

    Returns:
        At least the largest size where the quantile is 0; 1.0 where everything is 0.
    """
    sizes = np.abs(values[np.isfinite(values)]).astype(np.float64)
    if not sizes.size:
        return 1.0
    return float(np.quantile(sizes, 1 - beyond)) or float(sizes.max()) or 1.0
