"""The preview of an augmentation as one picture: a row a photo, the original first, each tile with what was drawn."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

TILE = 160  # px, side of a tile; a photo of fewer pixels is enlarged with its pixels as squares
MARGIN, GAP = 24, 14  # px around the sheet and between tiles
TITLE, NAME, TEXT = 17, 13, 12  # px, type sizes
LINE = TEXT + 4  # px a line of text
INK, FAINT, EDGE, PAPER = "#22262c", "#5b616a", "#c9ced6", "#ffffff"

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Planes = UInt8[np.ndarray, "channels height width"]


@dataclass(frozen=True, eq=False)
class Tile:
    """One picture of the sheet.

    Args:
        pixels: (channels, height, width); one channel is grey.
        title: the line above it; empty for none.
        words: what was drawn, one entry each, below it.
    """

    pixels: Planes
    title: str
    words: Sequence[str]


def draw_sheet(title: str, words: Sequence[str], rows: Sequence[Sequence[Tile]]) -> Image.Image:
    """Draw the sheet.

    Args:
        title: the first line.
        words: below it, joined by commas and broken into lines.
        rows: the tiles of each photo, at least one in each row.
    """
    columns = max(len(row) for row in rows)
    width = 2 * MARGIN + max(columns, 4) * (TILE + GAP) - GAP
    body = ImageFont.load_default(TEXT)
    note = broken(words, body, width - 2 * MARGIN)
    texts = [[broken(tile.words, body, TILE) for tile in row] for row in rows]
    heights = [NAME + 6 + TILE + 6 + max(len(text) for text in row) * LINE + GAP for row in texts]
    head = MARGIN + TITLE + 8 + len(note) * LINE + GAP
    sheet = Image.new("RGB", (width, head + sum(heights) + MARGIN - GAP), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), title, fill=INK, font=ImageFont.load_default(TITLE))
    _write(pen, note, MARGIN, MARGIN + TITLE + 8)
    top = head
    for row, text, height in zip(rows, texts, heights, strict=True):
        for column, (tile, words) in enumerate(zip(row, text, strict=True)):
            left = MARGIN + column * (TILE + GAP)
            _place(sheet, tile, words, left, top)
        top += height
    return sheet


def broken(entries: Sequence[str], font: Font, width: int) -> list[str]:
    """Entries joined by commas, in lines that fit `width` pixels; one that is wider than a line is cut short."""
    lines: list[str] = []
    for place, entry in enumerate(entries):
        text = shortened(entry, font, width) + "," * (place < len(entries) - 1)
        if lines and font.getlength(f"{lines[-1]} {text}") <= width:
            lines[-1] += f" {text}"
        else:
            lines.append(text)
    return lines


def shortened(text: str, font: Font, width: int) -> str:
    """A text that fits `width` pixels: as it is, or its end (of a path the file's name) after an ellipsis."""
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength("…" + kept) > width:
        kept = kept[1:]
    return "…" + kept


def _place(sheet: Image.Image, tile: Tile, words: Sequence[str], left: int, top: int) -> None:
    """Put a tile under its title and over its words."""
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(NAME)
    pen.text((left, top), shortened(tile.title, font, TILE), fill=INK, font=font)
    upper = top + NAME + 6
    image = _image(tile.pixels)
    sheet.paste(image, (left + (TILE - image.width) // 2, upper + (TILE - image.height) // 2))
    pen.rectangle((left - 1, upper - 1, left + TILE, upper + TILE), outline=EDGE)
    _write(pen, words, left, upper + TILE + 6)


def _write(pen: ImageDraw.ImageDraw, lines: Sequence[str], left: int, top: int) -> None:
    for number, line in enumerate(lines):
        pen.text((left, top + number * LINE), line, fill=FAINT, font=ImageFont.load_default(TEXT))


def _image(pixels: Planes) -> Image.Image:
    """A photo at the size of a tile: a small one by whole factors, so that each of its pixels stays a square."""
    packed = np.ascontiguousarray(pixels.transpose(1, 2, 0))
    image = Image.fromarray(packed[:, :, 0] if packed.shape[2] == 1 else packed).convert("RGB")
    side = max(image.size)
    if side > TILE:
        return image.resize((TILE, TILE), Image.Resampling.LANCZOS)
    factor = TILE // side
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
