"""From raw numbers to pictures: one function colours, one lays a map over its photo, one puts panels on a sheet.

Signed maps are blue below 0 and orange above, symmetric; maps that are only sizes use the orange half. The scale is
written under every panel, so that an almost empty map does not look full.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8
from PIL import Image, ImageDraw, ImageFont

from headstart.explain.placing import rounded, spread
from headstart.explain.subject import Photo
from headstart.layers.colours import signed_colours

INK, FAINT, EDGE, PAPER = "#22262c", "#5b616a", "#c9ced6", "#ffffff"
BOX = "#008f6b"  # a bluish green, told apart from both ends of the colour map
MARGIN, GAP = 28, 22  # px around a sheet and between panels
TITLE, TEXT = 15, 13  # px, type sizes
LINE = TEXT + 5  # px a line of text
PANEL = 320  # px, the longer side of a panel
OPACITY = 0.75  # of a map at its largest value, over a grey photo
GREY_FROM = 96  # grey level of black under a map: colours are lost on what is darker
Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Pixels = UInt8[np.ndarray, "height width 3"]


@dataclass(frozen=True)
class Panel:
    """One picture of a sheet.

    Args:
        title: above it.
        image: its pixels, as they are drawn.
        lines: below it, each broken where it is too long.
    """

    title: str
    image: Image.Image
    lines: tuple[str, ...] = ()


def font(size: int) -> Font:
    """The type that every picture uses."""
    return ImageFont.load_default(size)


def heat(values: Float64[np.ndarray, "rows columns"], limit: float | None = None) -> Pixels:
    """A map in colours, a pixel a value.

    Args:
        values: any unit.
        limit: the value of the darkest colour; its own largest size if not given.
    """
    reach = float(np.abs(values).max(initial=0.0)) if limit is None else limit
    return np.asarray(signed_colours(values, reach))


def squares(values: Float64[np.ndarray, "rows columns"], side: int = PANEL, limit: float | None = None) -> Image.Image:
    """A map as coloured squares, its longer side `side` pixels: nothing is smoothed."""
    image = Image.fromarray(heat(values, limit))
    return fitted(image, side, smooth=False)


def fitted(image: Image.Image, side: int = PANEL, smooth: bool = True) -> Image.Image:
    """A picture with a longer side of `side` pixels; what is enlarged without smoothing keeps its pixels as squares."""
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    kind = Image.Resampling.LANCZOS if smooth or scale < 1 else Image.Resampling.NEAREST
    return image.resize(size, kind)


def photo_image(photo: Photo, side: int = PANEL) -> Image.Image:
    """The photo as people see it; what the net never sees is paler."""
    image = fitted(Image.fromarray(np.array(photo.picture.pixels)), side)
    seen = _seen(photo, image.size)
    pale = Image.blend(image, Image.new("RGB", image.size, PAPER), 0.6)
    pale.paste(image.crop(seen), seen[:2])
    return pale


def input_image(photo: Photo, side: int = PANEL) -> Image.Image:
    """The square that the net sees, pixel by pixel."""
    pixels = photo.pixels if photo.pixels.shape[2] == 3 else photo.pixels.repeat(3, axis=2)
    return fitted(Image.fromarray(np.ascontiguousarray(pixels)), side, smooth=photo.pixels.shape[0] >= side // 2)


def overlay(
    photo: Photo,
    values: Float64[np.ndarray, "rows columns"],
    side: int = PANEL,
    limit: float | None = None,
    box: tuple[int, int, int, int] | None = None,
) -> Image.Image:
    """A map over its photo, in grey: the stronger the value, the less of the photo shows through.

    Args:
        photo: what was explained.
        values: over the square that the net sees.
        side: px, the longer side of the picture.
        limit: the value of the darkest colour; its own largest size if not given.
        box: drawn green; original pixels.
    """
    image = photo_image(photo, side)
    left, top, right, bottom = _seen(photo, image.size)
    reach = float(np.abs(values).max(initial=0.0)) if limit is None else limit
    fine = spread(values, right - left, bottom - top)
    grey = np.asarray(image.crop((left, top, right, bottom)).convert("L").convert("RGB"), np.float64)
    grey = GREY_FROM + (255 - GREY_FROM) / 255 * grey
    colours = np.asarray(signed_colours(fine, reach), np.float64)
    share = OPACITY * np.clip(np.abs(fine) / reach if reach > 0 else np.zeros_like(fine), 0.0, 1.0)[..., None]
    # colours near white would only bleach the photo, so weak values leave it as it is
    mixed = grey * (1 - share) + colours * share
    image.paste(Image.fromarray(np.rint(mixed).astype(np.uint8)), (left, top))
    if box is not None:
        draw_box(image, box, photo)
    return image


def draw_box(image: Image.Image, box: tuple[int, int, int, int], photo: Photo) -> None:
    """Draw a box of original pixels on a picture of the whole photo."""
    across, down = image.width / photo.picture.width, image.height / photo.picture.height
    edges = box[0] * across, box[1] * down, box[2] * across - 1, box[3] * down - 1
    pen = ImageDraw.Draw(image)
    pen.rectangle(edges, outline=PAPER, width=5)
    pen.rectangle((edges[0] + 1, edges[1] + 1, edges[2] - 1, edges[3] - 1), outline=BOX, width=3)


def draw_sheet(title: str, words: Sequence[str], panels: Sequence[Panel], columns: int = 4) -> Image.Image:
    """Panels side by side under a title.

    Args:
        title: the first line.
        words: lines below it.
        panels: in reading order, at least one.
        columns: panels a row, at most.
    """
    columns = min(columns, len(panels))
    wide = max(panel.image.width for panel in panels)
    body, head = font(TEXT), font(TITLE)
    width = max(2 * MARGIN + columns * (wide + GAP) - GAP, 560)
    note = [line for entry in words for line in lines_of(entry, body, width - 2 * MARGIN)]
    top = MARGIN + TITLE + 10 + len(note) * LINE + GAP
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    texts = [[[part for line in panel.lines for part in lines_of(line, body, wide)] for panel in row] for row in rows]
    heights = [
        LINE + 10 + max(p.image.height + len(t) * LINE for p, t in zip(row, text, strict=True)) + GAP
        for row, text in zip(rows, texts, strict=True)
    ]
    sheet = Image.new("RGB", (width, top + sum(heights) - GAP + MARGIN), PAPER)
    pen = ImageDraw.Draw(sheet)
    pen.text((MARGIN, MARGIN), shortened(title, font(TITLE + 3), width - 2 * MARGIN), fill=INK, font=font(TITLE + 3))
    for number, line in enumerate(note):
        pen.text((MARGIN, MARGIN + TITLE + 10 + number * LINE), line, fill=FAINT, font=body)
    for row, text, height in zip(rows, texts, heights, strict=True):
        for column, (panel, lines) in enumerate(zip(row, text, strict=True)):
            left, below = MARGIN + column * (wide + GAP), top + LINE + 4 + panel.image.height + 6
            pen.text((left, top), shortened(panel.title, head, wide), fill=INK, font=head)
            sheet.paste(panel.image, (left, top + LINE + 4))
            edge = left - 1, top + LINE + 3, left + panel.image.width, top + LINE + 4 + panel.image.height
            pen.rectangle(edge, outline=EDGE)
            for number, line in enumerate(lines):
                pen.text((left, below + number * LINE), line, fill=FAINT, font=body)
        top += height
    return sheet


def lines_of(text: str, type_: Font, width: int) -> list[str]:
    """A text in lines that fit `width` pixels; a word that is wider than a line is cut short."""
    lines: list[str] = []
    for word in text.split():
        word_ = shortened(word, type_, width)
        if lines and type_.getlength(f"{lines[-1]} {word_}") <= width:
            lines[-1] += f" {word_}"
        else:
            lines.append(word_)
    return lines


def shortened(text: str, type_: Font, width: int) -> str:
    """A text that fits `width` pixels: as it is, or its end after an ellipsis."""
    if type_.getlength(text) <= width:
        return text
    while text and type_.getlength("…" + text) > width:
        text = text[1:]
    return "…" + text


def _seen(photo: Photo, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The part of a picture of the whole photo, `size` pixels, that the net sees."""
    across, down = size[0] / photo.picture.width, size[1] / photo.picture.height
    left, top, right, bottom = photo.crop
    return rounded((left * across, top * down, right * across, bottom * down), *size)
