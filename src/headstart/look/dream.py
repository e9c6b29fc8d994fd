"""Deep dream: a photo changed until a layer answers more strongly to whatever it saw in it.

Mordvintsev, Olah & Tyka 2015, "Inceptionism: going deeper into neural networks" (Google Research blog). Steps along
the gradient of the mean square of a layer's values, first on the photo made small, then on larger and larger ones
(octaves), so that what is found has parts of every size. The photo keeps its shape: the layers below a map take any.
"""

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float32, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from headstart.errors import ShapeError, UsageError, WeightsError
from headstart.explain.drawing import Panel, draw_sheet
from headstart.explain.explanation import Step, silent
from headstart.explain.recording import reach
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.canvas import enlarged

RATIO = 1.4  # of the sizes of the photo (octaves), each to the one before
SMALLEST = 0.45  # of the net's side: below that octaves are left out, if their number is not given
STEPS = 10  # of each octave
STRIDE = 1.5  # grey levels that the mean pixel changes in a step
JITTER = 1 / 14  # of the shorter side, by which the photo is rolled before each step: no grid stays visible
SIDES = 9 / 7  # longer side of the dream as a multiple of the net's, if not given: 288 of 224 px
SHEET = 440  # px, the longer side of a picture on the sheet

Planes = Float[Tensor, "1 channels height width"]


@dataclass(frozen=True, eq=False)
class Dream:
    """A photo and what was made of it.

    Args:
        subject: the net.
        photo: the photo.
        layer: whose values were raised.
        before: the photo at the size of the dream.
        pixels: the dream as stored.
        raw: the dream, grey levels 0..255, not rounded.
        strengths: mean square of the layer's values for `before` and for `pixels`.
        answers: the net's first class and its probability for both.
        steps: steps that were made, over all octaves.
        asked: steps that were asked for.
        seed: of the jitter.
        seconds: wall time.
    """

    subject: Subject = field(repr=False)
    photo: Photo = field(repr=False)
    layer: str
    before: UInt8[np.ndarray, "height width channels"] = field(repr=False)
    pixels: UInt8[np.ndarray, "height width channels"] = field(repr=False)
    raw: Float32[np.ndarray, "height width channels"] = field(repr=False)
    strengths: tuple[float, float]
    answers: tuple[tuple[str, float], tuple[str, float]]
    steps: int
    asked: int
    seed: int
    seconds: float

    @property
    def stamps(self) -> tuple[str, ...]:
        """Short remarks that belong on the picture."""
        return (f"stopped after {self.steps} of {self.asked} steps",) if self.steps < self.asked else ()

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "photo": self.photo.name,
            "layer": self.layer,
            "strength": list(self.strengths),
            "answers": [{"label": label, "probability": share} for label, share in self.answers],
            "steps": self.steps,
            "asked": self.asked,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "stamps": list(self.stamps),
        }

    def to_text(self) -> str:
        """What happened, in one line."""
        (was, share), (now, new) = self.answers
        told = (
            f"{shown(self.photo.name)}: mean square of {self.layer} {self.strengths[0]:.3g} -> {self.strengths[1]:.3g}",
            f"the net sees {shown(was)} ({share:.3f}), then {shown(now)} ({new:.3f})",
        )
        return "; ".join((*told, *self.stamps))

    def sheet(self) -> Image.Image:
        """The photo and the dream side by side."""
        panels = []
        for title, pixels, strength, (label, share) in zip(
            ("photo", "dream"), (self.before, self.pixels), self.strengths, self.answers, strict=True
        ):
            lines = (f"mean square of {self.layer}: {strength:.3g}", f"the net sees {shown(label)} ({share:.3f})")
            panels.append(Panel(title, enlarged(pixels, SHEET), lines + (self.stamps if title == "dream" else ())))
        words = (f"{shown(Path(self.photo.name).name)}: {self.steps} steps that raise {self.layer}, seed {self.seed}.",)
        return draw_sheet(f"A dream of {shown(self.subject.name)}", words, panels, 2)

    def files(self) -> dict[str, Any]:
        """Name -> content: the dream, its raw values, and the sheet."""
        grey = self.pixels.shape[2] == 1
        picture = Image.fromarray(self.pixels[:, :, 0] if grey else self.pixels)
        return {"dream.png": picture, "dream.npy": self.raw, "sheet.png": self.sheet()}


def dream(
    subject: Subject,
    photo: Photo,
    layer: str,
    *,
    side: int | None = None,
    octaves: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    step: Step = silent,
) -> Dream:
    """Let a net dream on from a photo. An interrupt keeps what there is; the net is left as it was.

    Args:
        subject: the net.
        photo: where it starts.
        layer: a stage or module that gives maps, by the names of `headstart summary`: early ones give textures, late
            ones parts of things.
        side: the longer side of the dream, pixels; 9/7 of the net's if not given.
        octaves: sizes that are worked on, from the smallest, at least 1; if not given, as many as have at least 45 % of
            the net's side.
        steps: of each octave, at least 1.
        seed: of the jitter; the same seed gives the same bytes.
        step: told how far the work is.

    Raises:
        UsageError: the layer is unknown or gives no maps, or a number is out of range.
        WeightsError: the layer's values are no numbers.
    """
    size = subject.preprocessing.size
    side = round(SIDES * size) if side is None else side
    if octaves is None:
        octaves = 1 + max(0, math.floor(math.log(max(side, 1) / (SMALLEST * size), RATIO)))
    if min(side, octaves, steps) < 1 or side > 4096:
        raise UsageError(
            f"a dream needs a side of 1 to 4096 px, an octave and a step at least; received {side=}, {octaves=}, "
            f"{steps=}"
        )
    if subject.field(layer) is None or len(subject.summary.row(layer).output_shape) != 3:
        raise UsageError(f"{layer} of {subject.name} gives no maps, only values without a place; choose a layer below")
    begun = time.perf_counter()
    first = _levels(subject, photo, side)
    x, done = _sleep(subject, first, layer, (octaves, steps), torch.Generator().manual_seed(seed), step)
    raw = x[0].permute(1, 2, 0).numpy()
    before, pixels = (np.rint(values[0].permute(1, 2, 0).numpy()).astype(np.uint8) for values in (first, x))
    pair = before, pixels
    strengths = tuple(_strength(subject, layer, pixels) for pixels in pair)
    answers = tuple(_answer(subject, pixels) for pixels in pair)
    return Dream(
        subject,
        photo,
        layer,
        before,
        pixels,
        raw.astype(np.float32),
        (strengths[0], strengths[1]),
        (answers[0], answers[1]),
        done,
        octaves * steps,
        seed,
        time.perf_counter() - begun,
    )


def _levels(subject: Subject, photo: Photo, side: int) -> Planes:
    """The whole photo in grey levels, its longer side `side` pixels."""
    image = Image.fromarray(np.array(photo.picture.pixels))
    image = image if subject.preprocessing.channels == 3 else image.convert("L")
    scale = side / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    levels = np.asarray(image.resize(size, Image.Resampling.LANCZOS), np.float32).reshape(size[1], size[0], -1)
    return torch.from_numpy(levels.transpose(2, 0, 1).copy())[None]


def _sleep(
    subject: Subject, first: Planes, layer: str, lengths: tuple[int, int], random: torch.Generator, step: Step
) -> tuple[Planes, int]:
    """Grey levels after the steps of every octave, or as far as an interrupt let it come, and how many those were."""
    octaves, steps = lengths
    done, detail, base = 0, torch.zeros_like(first), first
    try:
        for octave in range(octaves):
            scale = RATIO ** (octave + 1 - octaves)
            base = _resized(first, (round(first.shape[2] * scale), round(first.shape[3] * scale)))
            detail = _resized(detail, (base.shape[2], base.shape[3]))
            for _ in range(steps):
                changed = _stepped(subject, base + detail, layer, random)
                detail = changed - base
                done += 1
                step(done, octaves * steps, f"octave {octave + 1} of {octaves}")
    except KeyboardInterrupt:
        if not done:
            raise
    shape = first.shape[2], first.shape[3]
    return (first + _resized(detail, shape)).clamp(0, 255), done


def _resized(x: Planes, shape: tuple[int, int]) -> Float[Tensor, "1 channels rows columns"]:
    height, width = max(1, shape[0]), max(1, shape[1])
    if (height, width) == tuple(x.shape[2:]):
        return x
    return functional.interpolate(x, size=(height, width), mode="bilinear", align_corners=False, antialias=True)


def _stepped(subject: Subject, x: Planes, layer: str, random: torch.Generator) -> Planes:
    """One step uphill: the mean pixel changes by STRIDE grey levels."""
    reach_ = max(1, round(JITTER * min(x.shape[2:])))
    draws = torch.randint(-reach_, reach_ + 1, (2,), generator=random)
    down, right = int(draws[0]), int(draws[1])
    rolled = torch.roll(x, (down, right), dims=(2, 3)).requires_grad_()
    strength = _mean_square(subject, layer, rolled)
    if not torch.isfinite(strength):
        raise WeightsError(
            f"{layer} of {shown(subject.name)} gives {float(strength.detach())}, which is no number: its weights are "
            "damaged or its training diverged"
        )
    (gradient,) = torch.autograd.grad(strength, rolled)
    size = gradient.abs().mean()
    uphill = gradient * (STRIDE / size) if size > 0 else gradient
    changed = (rolled.detach() + uphill).clamp(0, 255)
    return torch.roll(changed, (-down, -right), dims=(2, 3))


def _mean_square(subject: Subject, layer: str, levels: Planes) -> Tensor:
    how = subject.preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    try:
        values = reach(subject, (levels - mean) / std, layer).before
    except RuntimeError as error:
        height, width = levels.shape[2:]
        raise ShapeError(
            f"{layer} of {shown(subject.name)} cannot take a photo of {width} x {height} px "
            f"({' '.join(str(error).split())[:120]}); give a larger side, or fewer octaves"
        ) from error
    return values.square().mean()


def _strength(subject: Subject, layer: str, pixels: UInt8[np.ndarray, "height width channels"]) -> float:
    with torch.no_grad():
        levels = torch.from_numpy(pixels.astype(np.float32).transpose(2, 0, 1).copy())[None]
        return float(_mean_square(subject, layer, levels))


def _answer(subject: Subject, pixels: UInt8[np.ndarray, "height width channels"]) -> tuple[str, float]:
    """The first class and its probability, of the photo prepared as any other."""
    prepared = subject.photo(np.ascontiguousarray(pixels.repeat(3, axis=2) if pixels.shape[2] == 1 else pixels)).pixels
    shares = subject.probabilities(subject.logits([prepared]))[0]
    return subject.classes[int(shares.argmax())], float(shares.max())
