"""What a net answers to most strongly: a picture made for a class, or for one unit of a layer, by gradient ascent.

From an almost grey picture the steps follow the gradient of the class's logit, or of a unit's mean value before its
activation (after it a unit that is off, or at its ceiling, has no gradient). The picture is then stored in whole
grey levels, read again, and asked about: what is told of it is told of the picture that can be saved.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from headstart.errors import UsageError, WeightsError
from headstart.explain.drawing import PANEL, Panel, draw_sheet
from headstart.explain.explanation import Step, silent
from headstart.explain.recording import reach
from headstart.explain.subject import Subject
from headstart.files import shown
from headstart.look.canvas import Canvas, as_seen, enlarged, moved
from headstart.look.wiring import checked_units

STEPS = 128
RATE = 0.05  # of a wave in a step; the second half of the steps brings it down to 0 evenly
MOVES = 8  # draws that tell what is left of the answer when the picture moves
KEPT = 0.7  # share of the answer that must be left on average, or the picture is marked
ALONE = 504  # px, side of a picture that has the sheet for itself
MEMORY = 0.8  # of the running mean that says which picture was the best so far: a single value depends on its draw


@dataclass(frozen=True)
class Aim:
    """What a picture is made for.

    Args:
        layer: the unit's layer; None: a class.
        unit: the channel of a map, the place in a vector, or the place of the class among the logits.
        label: the class, or the layer and unit, for people.
    """

    layer: str | None
    unit: int
    label: str

    @property
    def file(self) -> str:
        """The name of its files, without a suffix."""
        return f"class-{self.unit}" if self.layer is None else f"{self.layer}-{self.unit}"


@dataclass(frozen=True, eq=False)
class Drawn:
    """A picture made for one aim.

    Args:
        aim: what for.
        raw: the picture, 0..1.
        pixels: the picture as stored.
        first: the answer (logit, or mean value before the activation) to the almost grey picture at the start.
        value: the answer to `pixels`.
        moved: the answers to `pixels` turned, scaled and shifted at random.
        probability: of the class, for `pixels`, 0..1; None of a unit.
        history: the answer at each step, each to a moved picture.
        asked: steps that were asked for.
    """

    aim: Aim
    raw: Float32[np.ndarray, "channels size size"] = field(repr=False)
    pixels: UInt8[np.ndarray, "size size channels"] = field(repr=False)
    first: float
    value: float
    moved: tuple[float, ...]
    probability: float | None
    history: tuple[float, ...] = field(repr=False)
    asked: int

    @property
    def left(self) -> float:
        """The mean answer to the moved picture, as a share of `value`; 0 where `value` is not above 0."""
        return float(np.mean(self.moved)) / self.value if self.value > 0 else 0.0

    @property
    def stamps(self) -> tuple[str, ...]:
        """Short remarks that belong on the picture."""
        said = []
        if len(self.history) < self.asked:
            said.append(f"stopped after {len(self.history)} of {self.asked} steps")
        if self.value <= self.first:
            said.append("the answer did not rise")
        elif self.left < KEPT:
            said.append("does not survive small moves")
        if self.probability is not None and self.probability < 0.5:
            said.append("not recognised by the net")
        return tuple(said)

    @property
    def lines(self) -> tuple[str, ...]:
        """What stands under the picture."""
        kind = "logit" if self.aim.layer is None else "before its activation"
        answer = f"{kind} {self.first:.1f} -> {self.value:.1f}"
        if self.probability is not None:
            answer += f", probability {self.probability:.3f}"
        moves = f"turned, scaled, shifted: {np.mean(self.moved):.1f} ({min(self.moved):.1f} to {max(self.moved):.1f})"
        return (answer, moves, *self.stamps)

    def to_json(self) -> dict[str, Any]:
        """Plain values; the pictures are in the files."""
        return {
            "label": self.aim.label,
            "layer": self.aim.layer,
            "unit": self.aim.unit,
            "first": self.first,
            "value": self.value,
            "moved": list(self.moved),
            "probability": self.probability,
            "steps": len(self.history),
            "asked": self.asked,
            "stamps": list(self.stamps),
            "file": f"{self.aim.file}.png",
        }


@dataclass(frozen=True, eq=False)
class Maximised:
    """Pictures made for classes or units.

    Args:
        subject: the net.
        drawn: one for each aim; fewer if the work was interrupted.
        seed: of the first pictures and of all moves.
        seconds: wall time.
    """

    subject: Subject = field(repr=False)
    drawn: tuple[Drawn, ...]
    seed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "pictures": [one.to_json() for one in self.drawn],
        }

    def to_text(self) -> str:
        """A line a picture, for a terminal."""
        return "\n".join(f"{shown(one.aim.label)}: {'; '.join(one.lines)}" for one in self.drawn)

    def sheet(self) -> Image.Image:
        """The pictures side by side."""
        side = PANEL if len(self.drawn) > 1 else ALONE
        panels = [Panel(shown(one.aim.label), enlarged(one.pixels, side), one.lines) for one in self.drawn]
        words = (
            f"Gradient ascent on the waves of a picture, from grey, seed {self.seed}: no photo went in. The numbers "
            "are those of the picture as it is saved, in whole grey levels.",
        )
        columns = 3 if len(panels) in (3, 5, 6, 9) else 4
        return draw_sheet(f"What {shown(self.subject.name)} answers to most", words, panels, columns)

    def files(self) -> dict[str, Any]:
        """Name -> content: each picture at the size of the net, its raw values 0..1, and the sheet."""
        made: dict[str, Any] = {"sheet.png": self.sheet()}
        for one in self.drawn:
            grey = one.pixels.shape[2] == 1
            made[f"{one.aim.file}.png"] = Image.fromarray(one.pixels[:, :, 0] if grey else one.pixels)
            made[f"{one.aim.file}.npy"] = one.raw
        return made


def maximise(
    subject: Subject,
    *,
    classes: Sequence[str] = (),
    layer: str | None = None,
    units: Sequence[int] = (),
    steps: int = STEPS,
    seed: int = 0,
    step: Step = silent,
) -> Maximised:
    """Make a picture for each class or unit. An interrupt keeps the best so far; the net is left as it was.

    Source: Erhan et al. 2009, "Visualizing higher-layer features of a deep network"; the way the picture is made is
    that of `headstart.look.canvas`.

    Args:
        subject: the net.
        classes: names of classes, or their numbers.
        layer: of `units`: a stage or module, by the names of `headstart summary`.
        units: channels of a map, or places in a vector, from 0.
        steps: of gradient ascent, at least 1; each is a forward and a backward pass of one picture.
        seed: of the first pictures and all moves; the same seed gives the same bytes.
        step: told how far the work is.

    Raises:
        UsageError: nothing to make, or there is no such class, layer or unit.
        WeightsError: the net answers with what is no number.
    """
    aims = _aims(subject, classes, layer, units)
    if steps < 1:
        raise UsageError(f"a picture takes at least 1 step; received {steps}")
    begun, drawn = time.perf_counter(), list[Drawn]()
    for number, aim in enumerate(aims):

        def told(done: int, of: int, what: str, before: int = number * steps) -> None:
            step(before + done, of, what)

        try:
            drawn.append(_draw(subject, aim, steps, seed, lambda done, what: told(done, len(aims) * steps, what)))
        except KeyboardInterrupt:
            if not drawn:
                raise
            break
        if len(drawn[-1].history) < steps:
            break
    return Maximised(subject, tuple(drawn), seed, time.perf_counter() - begun)


def _aims(subject: Subject, classes: Sequence[str], layer: str | None, units: Sequence[int]) -> list[Aim]:
    if (layer is None) != (not units) or not (classes or units):
        raise UsageError("say what the pictures are for: classes, or a layer and units of it")
    places = list(dict.fromkeys(subject.class_index(label) for label in classes))
    aims = [Aim(None, place, subject.classes[place]) for place in places]
    if layer is not None:
        with torch.no_grad():
            probe = torch.zeros(1, *_shape(subject))
            checked_units(tuple(units), reach(subject, probe, layer).before.shape[1], layer)
        aims += [Aim(layer, unit, f"{layer} unit {unit}") for unit in dict.fromkeys(units)]
    return aims


def _shape(subject: Subject) -> tuple[int, int, int]:
    size, _, channels = subject.preprocessing.shape
    return channels, size, size


def answer(subject: Subject, aim: Aim, x: Tensor) -> Tensor:
    """The logit of a class, or the mean of a unit before its activation, for each of a batch: (batch,)."""
    if aim.layer is None:
        logits: Tensor = subject.net(x)
        return logits[:, aim.unit]
    return reach(subject, x, aim.layer).before[:, aim.unit].reshape(len(x), -1).mean(dim=1)


def _draw(subject: Subject, aim: Aim, steps: int, seed: int, step: Callable[[int, str], None]) -> Drawn:
    channels, size, _ = _shape(subject)
    canvas = Canvas(size, channels, seed)
    with torch.no_grad():
        first = float(answer(subject, aim, as_seen(subject, canvas.pixels())))
    history = _climb(subject, aim, canvas, steps, seed, step)
    return _judged(subject, aim, canvas, first, history, steps, seed)


def _climb(
    subject: Subject, aim: Aim, canvas: Canvas, steps: int, seed: int, step: Callable[[int, str], None]
) -> list[float]:
    """Draw on the canvas; it ends with the best waves, also after an interrupt that comes after the first step."""
    random = torch.Generator().manual_seed(seed + 1)
    history: list[float] = []
    best, mean, waves = -np.inf, 0.0, canvas.waves.detach().clone()
    try:
        for number in range(steps):
            value = answer(subject, aim, moved(as_seen(subject, canvas.pixels()), random))[0]
            history.append(_finite(float(value.detach()), aim, subject))
            mean = MEMORY * mean + (1 - MEMORY) * history[-1] if number else history[-1]
            if mean > best:
                best, waves = mean, canvas.waves.detach().clone()
            (gradient,) = torch.autograd.grad(value, canvas.waves)
            canvas.climb(gradient, RATE * min(1.0, 2 * (1 - number / steps)))
            step(number + 1, f"{shown(aim.label)} {history[-1]:.1f}")
    except KeyboardInterrupt:
        if not history:
            raise
    with torch.no_grad():
        canvas.waves.copy_(waves)
    return history


def _finite(value: float, aim: Aim, subject: Subject) -> float:
    if not np.isfinite(value):
        raise WeightsError(
            f"{shown(subject.name)} answers {value} for {shown(aim.label)}, which is no number: its weights are "
            "damaged or its training diverged"
        )
    return value


def _judged(
    subject: Subject, aim: Aim, canvas: Canvas, first: float, history: list[float], steps: int, seed: int
) -> Drawn:
    """What the net answers to the picture as it would be stored, as it is and moved."""
    pixels = canvas.levels()
    x = subject.normalised(pixels)
    random = torch.Generator().manual_seed(seed + 2)
    with torch.no_grad():
        value = float(answer(subject, aim, x))
        answers = tuple(float(answer(subject, aim, moved(x, random))) for _ in range(MOVES))
        raw = canvas.pixels().numpy().astype(np.float32)
    probability = None
    if aim.layer is None:
        probability = float(subject.probabilities(subject.logits([pixels]))[0, aim.unit])
    return Drawn(aim, raw, pixels, first, value, answers, probability, tuple(history), steps)
