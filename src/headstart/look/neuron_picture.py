"""The picture of one value's sum: what the unit sees, its terms as bars, the strongest channels window by window."""

import numpy as np
from PIL import Image, ImageDraw

from headstart.explain.drawing import BOX, FAINT, INK, PANEL, PAPER, Panel, draw_sheet, font, input_image, shortened
from headstart.files import shown
from headstart.layers.colours import signed_colours
from headstart.look.neuron import Neuron
from headstart.look.tiles import enlarged, grid, limit_of, signed_picture

TERMS, CLOSE = 12, 4  # terms that have a bar of their own; channels that are shown window by window
BAR, LABELS, ROW, NUMBER = 240, 100, 19, 48  # px: the bars, the names beside them, the height of one, a number
WINDOW = 74  # px, one channel's window


def draw_neuron(found: Neuron) -> Image.Image:
    """The sheet."""
    sees: tuple[str, ...] = ()
    if found.box is not None:
        sees = (f"receptive field {found.box[2] - found.box[0]} x {found.box[3] - found.box[1]} px of the photo",)
    panels = [
        Panel("what the net sees, and what this unit sees", _seen(found), sees),
        Panel(f"the largest of {len(found.terms)} terms", _bars(found), (found.sums(), found.passed())),
    ]
    if found.kernel[:1].size > 1:
        panels.append(_windows(found))
    return draw_sheet(found.title, [found.how], panels, 3)


def _seen(found: Neuron) -> Image.Image:
    """The net's input with the receptive field."""
    image = input_image(found.photo, PANEL)
    if found.box is not None:
        scale = image.width / found.photo.pixels.shape[1]
        left, top, right, bottom = (edge * scale for edge in found.box)
        pen = ImageDraw.Draw(image)
        pen.rectangle((left, top, max(left, right - 1), max(top, bottom - 1)), outline=PAPER, width=4)
        pen.rectangle((left + 1, top + 1, max(left + 1, right - 2), max(top + 1, bottom - 2)), outline=BOX, width=2)
    return image


def _bars(found: Neuron) -> Image.Image:
    """The largest terms, the others as one, the bias, and the sum, on one scale."""
    order = found.order
    rows = [(shown(found.names[place]), float(found.terms[place])) for place in order[:TERMS]]
    if others := order[TERMS:]:
        rows.append((f"{len(others)} others", float(found.terms[others].sum())))
    if found.kernel.size > 0 or found.rest != 0:
        rows.append(("bias", found.rest))
    rows.append(("sum", found.check.sum))
    highest, lowest = max(0.0, *(value for _, value in rows)), min(0.0, *(value for _, value in rows))
    per_px = max(highest - lowest, 1e-30) / (BAR - 2 * NUMBER)
    image = Image.new("RGB", (LABELS + BAR, len(rows) * ROW), PAPER)
    pen, type_ = ImageDraw.Draw(image), font(12)
    middle = LABELS + NUMBER + round(-lowest / per_px)
    pen.line((0, image.height - ROW, image.width, image.height - ROW), fill=FAINT)
    for number, (name, value) in enumerate(rows):
        top, end = number * ROW, middle + round(value / per_px)
        colour = tuple(map(int, signed_colours(np.array([np.sign(value)]), 1.6)[0]))
        pen.text((LABELS - 8, top + ROW / 2), shortened(name, type_, LABELS - 12), INK, type_, "rm")
        if end != middle:
            pen.rectangle((min(middle, end), top + 3, max(middle, end), top + ROW - 4), fill=colour)
        beside = (end + 5, "lm") if value >= 0 else (end - 5, "rm")
        pen.text((beside[0], top + ROW / 2), f"{value:.3g}", FAINT, type_, beside[1])
    pen.line((middle, 0, middle, image.height), fill=FAINT)
    return image


def _windows(found: Neuron) -> Panel:
    """Input, weights and products of the channels with the largest terms."""
    alone = len(found.kernel) == 1  # then the terms are the places of its window
    chosen = [0] if alone else found.order[:CLOSE]
    tiles, labels, said = [], [], []
    planes = {"input": found.patch, "weights": found.kernel, "products": found.patch * found.kernel}
    for name, values in planes.items():
        limit = limit_of(values[chosen])
        said.append(f"{name} {limit:.3g}")
        for place in chosen:
            tiles.append(enlarged(signed_picture(values[place][None], limit), WINDOW))
            labels.append(name if alone else f"{name} {shown(found.names[place]).removeprefix('channel ')}")
    return Panel(
        "input x weights = products" if alone else "the strongest channels: input x weights = products",
        grid(tiles, 3 if alone else len(chosen), 8, labels),
        (f"darkest: {', '.join(said)}; orange above 0, blue below",),
    )
