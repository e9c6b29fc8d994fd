"""The picture of a photo whose class a small change turned: the photo, the changes magnified, and what came of them."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from headstart.explain.drawing import Panel, draw_sheet, fitted
from headstart.explain.subject import Subject
from headstart.files import shown

if TYPE_CHECKING:
    from headstart.look.adversarial import Change, Flip

SIDE = 300  # px, of a picture
VISIBLE = 100  # grey levels that the largest difference is drawn with, up or down from the middle grey
TITLES = {"signs": "all values by the same step", "shortest": "the shortest change"}


def draw_flip(subject: Subject, flip: "Flip", largest: int, draws: int) -> Image.Image:
    """The sheet of one photo.

    Args:
        subject: the net.
        flip: what was found.
        largest: grey levels up to which a step was looked for.
        draws: of random signs.
    """
    size = largest if flip.signs is None else flip.signs.largest
    panels = [Panel("photo, as the net sees it", _image(flip.photo.pixels), _answer(flip.label, flip.probability))]
    panels += _pair(flip, flip.signs, "signs", largest)
    noise = _answer(flip.noisy.label, flip.noisy.probability)
    panels.append(Panel(f"random signs, {size} of 255 grey levels", _image(flip.noisy.pixels), noise))
    panels += _pair(flip, flip.shortest, "shortest", largest)
    from_on = str(flip.noise_size) if flip.noise_size else "more than 128"
    words = (
        f"{shown(Path(flip.photo.name).name)}. Each changed photo was stored in whole grey levels (0 to 255) and read "
        f"again. Random signs of {size} of 255 grey levels change the class in {flip.noise} of {draws} draws; it takes "
        f"{from_on} until half of the draws do.",
    )
    return draw_sheet(f"How small a change turns {shown(subject.name)}", words, panels, 3)


def _pair(flip: "Flip", change: "Change | None", kind: str, largest: int) -> list[Panel]:
    """The change, magnified, and the changed photo."""
    if change is None:
        reason = f"none up to {largest} grey levels" if kind == "signs" else "none was found"
        empty = Image.new("RGB", (SIDE, SIDE), "#808080")
        return [Panel(TITLES[kind], empty, (reason,)), Panel("changed", _image(flip.photo.pixels), ("unchanged",))]
    difference = change.pixels.astype(np.float64) - flip.photo.pixels
    factor = VISIBLE / max(change.largest, 1)
    magnified = np.rint(np.clip(128 + factor * difference, 0, 255)).astype(np.uint8)
    told = (
        f"drawn {factor:.0f} times as strong; at most {change.largest} of 255",
        f"root mean square {change.typical:.2f}, {100 * change.relative:.2f} % of the photo",
    )
    return [
        Panel(TITLES[kind], _image(magnified), told),
        Panel("changed", _image(change.pixels), _answer(change.label, change.probability)),
    ]


def _answer(label: str, probability: float) -> tuple[str]:
    return (f"{shown(label)} ({probability:.3f})",)


def _image(pixels: UInt8[np.ndarray, "size size channels"]) -> Image.Image:
    colours = pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)
    return fitted(Image.fromarray(np.ascontiguousarray(colours)), SIDE, smooth=pixels.shape[0] >= SIDE // 2)
