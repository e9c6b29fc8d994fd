"""How small a change of a photo gives it another class: in grey levels, beside noise of the same size.

Two changes are looked for, both with the gradient, and both are stored in whole grey levels and read again before
anything is said of them:

    signs     every value moved by the same number of grey levels, up or down as the gradient says: Goodfellow,
              Shlens & Szegedy 2015, "Explaining and harnessing adversarial examples" (arXiv:1412.6572), section 4
    shortest  the least sum of squares, step by step to the nearest of the planes that bound the class:
              Moosavi-Dezfooli, Fawzi & Frossard 2016, "DeepFool" (arXiv:1511.04599), algorithm 2

Both find a change that works, so the smallest is no larger than the one that is told. What a net withstands is told
only in comparison: random signs of the same size, and of how much larger a size, that give the photo another class.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor

from headstart.errors import UsageError, WeightsError
from headstart.explain.explanation import Step, silent
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.adversarial_sheet import draw_flip

LARGEST = 64  # grey levels: beyond, a photo of another class is no longer the same photo
DRAWS = 8  # of random signs
NEAREST = 8  # classes whose planes are looked at
TRIES = 50  # steps of the shortest change, as in the paper
OVERSHOOT = 0.02  # beyond the plane, as in the paper
HALVINGS = 12  # of the interval in which the smallest step lies

Levels = UInt8[np.ndarray, "size size channels"]


@dataclass(frozen=True, eq=False)
class Change:
    """A changed photo, and the class that the net gives it.

    Args:
        kind: "signs", "shortest" or "noise".
        pixels: the changed photo, in whole grey levels.
        label: its class.
        probability: of that class, 0..1.
        largest: grey levels by which a value differs, at most.
        typical: root mean square of the differences, grey levels.
        relative: length of the difference over the length of the photo, both as vectors of grey levels.
        exact: the size before rounding: the step of all values, or of "shortest" the root mean square; grey levels.
    """

    kind: str
    pixels: Levels = field(repr=False)
    label: str
    probability: float
    largest: int
    typical: float
    relative: float
    exact: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        names = ("kind", "label", "probability", "largest", "typical", "relative", "exact")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True, eq=False)
class Flip:
    """What changes the class of one photo.

    Args:
        photo: the photo.
        label: the class that the net gives it.
        probability: of that, 0..1.
        signs: the smallest change of all values by the same amount; None: none up to `LARGEST` grey levels.
        shortest: the change of least sum of squares; None: none was found.
        noisy: the photo with the first draw of random signs of the size of `signs` (of `LARGEST` where there is none).
        noise: of `DRAWS` such draws, how many change the class.
        noise_size: grey levels of random signs, 1, 2, 4 .. 128, from which on half of the draws change the class; None:
            not even 128.
    """

    photo: Photo = field(repr=False)
    label: str
    probability: float
    signs: Change | None
    shortest: Change | None
    noisy: Change
    noise: int
    noise_size: int | None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "photo": self.photo.name,
            "label": self.label,
            "probability": self.probability,
            "signs": None if self.signs is None else self.signs.to_json(),
            "shortest": None if self.shortest is None else self.shortest.to_json(),
            "noise": {**self.noisy.to_json(), "changed": self.noise, "draws": DRAWS, "size": self.noise_size},
        }

    def to_text(self) -> str:
        """What happened, in one line."""
        told = [f"{shown(self.photo.name)}: {shown(self.label)} ({self.probability:.3f})"]
        if self.signs is None:
            told.append(f"signs: none up to {LARGEST} grey levels")
        else:
            told.append(
                f"signs: {self.signs.largest} of 255 grey levels make it {shown(self.signs.label)} "
                f"({self.signs.probability:.3f}); random signs of that size in {self.noise} of {DRAWS} draws"
            )
        told.append(f"random signs change it from {self.noise_size or 'more than 128'} grey levels on")
        if self.shortest is None:
            told.append("shortest: none found")
        else:
            told.append(
                f"shortest: {self.shortest.typical:.2f} grey levels (root mean square) make it "
                f"{shown(self.shortest.label)} ({self.shortest.probability:.3f})"
            )
        return "; ".join(told)


@dataclass(frozen=True, eq=False)
class Fragility:
    """How small a change gives each photo another class.

    Args:
        subject: the net.
        flips: one for each photo; fewer if the work was interrupted.
        seed: of the random signs.
        seconds: wall time.
    """

    subject: Subject = field(repr=False)
    flips: tuple[Flip, ...]
    seed: int
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Plain values, for a manifest."""
        return {
            "subject": self.subject.name,
            "weights": self.subject.weights,
            "seed": self.seed,
            "seconds": round(self.seconds, 3),
            "photos": [flip.to_json() for flip in self.flips],
        }

    def to_text(self) -> str:
        """A line a photo, and the medians of several."""
        lines = [flip.to_text() for flip in self.flips]
        if len(self.flips) > 1:
            lines.append(self.summary())
        return "\n".join(lines)

    def summary(self) -> str:
        """Medians over the photos; where no change was found, as if it were larger than all others."""
        signs = [np.inf if flip.signs is None else float(flip.signs.largest) for flip in self.flips]
        short = [np.inf if flip.shortest is None else flip.shortest.typical for flip in self.flips]
        noise = [np.inf if flip.noise_size is None else float(flip.noise_size) for flip in self.flips]
        return (
            f"median of {len(self.flips)} photos, grey levels: signs {_middle(signs, LARGEST)}, shortest "
            f"{_middle(short, LARGEST)} (root mean square), random signs {_middle(noise, 128)}"
        )

    def sheets(self) -> dict[str, Image.Image]:
        """A sheet for each photo."""
        return {
            f"{number:03d}.png": draw_flip(self.subject, flip, LARGEST, DRAWS) for number, flip in enumerate(self.flips)
        }

    def files(self) -> dict[str, Any]:
        """Name -> content: the changed photos, the sheets, and the differences in grey levels, signed."""
        made: dict[str, Any] = dict(self.sheets())
        for number, flip in enumerate(self.flips):
            for change in (flip.signs, flip.shortest):
                if change is not None:
                    grey = change.pixels.shape[2] == 1
                    name = f"{number:03d}-{change.kind}"
                    made[f"{name}.png"] = Image.fromarray(change.pixels[:, :, 0] if grey else change.pixels)
                    made[f"{name}.npy"] = change.pixels.astype(np.float32) - flip.photo.pixels
        return made


def _middle(values: list[float], most: int) -> str:
    middle = float(np.sort(values)[(len(values) - 1) // 2])  # an infinite one cannot be averaged with another
    return f"{middle:.3g}" if np.isfinite(middle) else f"more than {most}"


def adversarial(subject: Subject, photos: Sequence[Photo], *, seed: int = 0, step: Step = silent) -> Fragility:
    """Look for the smallest changes that give photos another class than the net gives them now.

    Args:
        subject: the net.
        photos: prepared; at least one.
        seed: of the random signs; the same seed gives the same bytes.
        step: told how far the work is.

    Raises:
        UsageError: no photo.
        WeightsError: the net answers with what is no number.
    """
    if not photos:
        raise UsageError("no photo to change: give one at least")
    begun, flips = time.perf_counter(), list[Flip]()
    for number, photo in enumerate(photos):
        try:
            flips.append(_flip(subject, photo, seed))
        except KeyboardInterrupt:
            if not flips:
                raise
            break
        step(number + 1, len(photos), photo.name)
    return Fragility(subject, tuple(flips), seed, time.perf_counter() - begun)


def _flip(subject: Subject, photo: Photo, seed: int) -> Flip:
    logits = subject.logits([photo.pixels])[0]
    if not np.isfinite(logits).all():
        raise WeightsError(
            f"{shown(subject.name)} answers with what is no number: its weights are damaged or its training diverged"
        )
    target = int(logits.argmax())
    direction = np.sign(_gradients(subject, _floats(photo.pixels), [target], None)[0][0])  # 0 stays where it is
    signs, step = smallest_signs(subject, photo.pixels, target, -direction)
    found = shortest(subject, photo.pixels, target)
    size = LARGEST if signs is None else int(np.abs(signs.astype(int) - photo.pixels).max())
    random = np.random.default_rng(seed)
    draws = random.choice(np.array([-1.0, 1.0], np.float32), (DRAWS, *photo.pixels.shape))
    return Flip(
        photo,
        subject.classes[target],
        float(subject.probabilities(logits[None])[0, target]),
        None if signs is None else _change(subject, photo.pixels, signs, "signs", step),
        None if found is None else _change(subject, photo.pixels, found[0], "shortest", found[1]),
        _change(subject, photo.pixels, _stored(photo.pixels + size * draws[0]), "noise", float(size)),
        _changed(subject, photo.pixels, size * draws, target),
        next((2**k for k in range(8) if 2 * _changed(subject, photo.pixels, 2**k * draws, target) >= DRAWS), None),
    )


def smallest_signs(
    subject: Subject, pixels: Levels, target: int, direction: Float32[np.ndarray, "size size channels"]
) -> tuple[Levels | None, float]:
    """The photo moved along signs by the smallest step that changes its class.

    The step is bracketed by doubling and then halved: between two steps a class may come and go, so it is the smallest
    in the neighbourhood of the first that was found. Then whole grey levels are tried from 1 on until one changes the
    class as stored.

    Args:
        subject: the net.
        pixels: the photo.
        target: its class.
        direction: -1, 0 or 1 for each value.

    Returns:
        The photo in whole grey levels, None where up to `LARGEST` none changes the class; and the step before rounding
        (infinite where none was found).
    """
    levels = pixels.astype(np.float32)

    def flips(step: float) -> bool:
        return _label(subject, np.clip(levels + step * direction, 0, 255)) != target

    above = next((2.0**k for k in range(-6, 7) if flips(2.0**k)), np.inf)
    below = 0.0 if above == 2.0**-6 else above / 2
    if np.isfinite(above):
        for _ in range(HALVINGS):
            middle = (above + below) / 2
            above, below = (middle, below) if flips(middle) else (above, middle)
    for start in range(1, LARGEST + 1, 8):
        tried = [_stored(levels + step * direction) for step in range(start, min(start + 8, LARGEST + 1))]
        changed = subject.logits(tried).argmax(axis=1) != target
        if changed.any():
            return tried[int(changed.argmax())], float(above)
    return None, float(above)


def shortest(subject: Subject, pixels: Levels, target: int) -> tuple[Levels, float] | None:
    """The photo with the change of least sum of squares that was found, in whole grey levels.

    Where rounding undoes the change, it is made larger by the smallest factor that keeps it.

    Returns:
        The photo, and the root mean square of the change before rounding; None where the class did not change.
    """
    levels = _floats(pixels)
    others = [place for place in np.argsort(-subject.logits([pixels])[0]).tolist() if place != target][:NEAREST]
    change = np.zeros_like(levels)
    for _ in range(TRIES):
        here = np.clip(levels + (1 + OVERSHOOT) * change, 0, 255)
        gradients, values = _gradients(subject, here, [target, *others], target)
        if int(values.argmax()) != target:
            break
        nearest = _nearest(gradients, values[[target, *others]])
        if nearest is None:
            return None
        change += nearest
    else:
        return None
    size = float(np.sqrt(np.mean(np.square(here - levels))))
    kept = _kept(subject, levels, (1 + OVERSHOOT) * change, target)
    return None if kept is None else (kept, size)


def _nearest(gradients: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """The step to the nearest plane on which another class is as likely; the first row is the class now."""
    slopes, gaps = gradients[1:] - gradients[0], values[0] - values[1:]
    lengths = np.sqrt(np.square(slopes).sum(axis=(1, 2, 3)))
    if not lengths.max() > 0:
        return None
    distances = np.where(lengths > 0, gaps / np.maximum(lengths, 1e-20), np.inf)
    near = int(distances.argmin())
    # the paper's small constant: a step that is exactly on the plane never crosses it
    return np.asarray((distances[near] + 1e-4) * slopes[near] / lengths[near], np.float32)


def _kept(subject: Subject, levels: np.ndarray, change: np.ndarray, target: int) -> Levels | None:
    """The changed photo in whole grey levels: the change times 1, 1.1, 1.21 .. up to 100, the first that flips."""
    for start in range(0, 50, 10):
        tried = [_stored(levels + 1.1**power * change) for power in range(start, start + 10)]
        changed = subject.logits(tried).argmax(axis=1) != target
        if changed.any():
            return tried[int(changed.argmax())]
    return None


def _gradients(
    subject: Subject, levels: Float32[np.ndarray, "size size channels"], classes: list[int], target: int | None
) -> tuple[Float32[np.ndarray, "asked size size channels"], Float32[np.ndarray, "classes"]]:
    """Gradients of logits by grey levels, and all logits. Where the class is no longer `target`, none is computed."""
    x = _normalised(subject, levels).requires_grad_()
    logits = subject.net(x)[0]
    values = logits.detach().numpy().astype(np.float32)
    if target is not None and int(values.argmax()) != target:
        return np.zeros((0, *levels.shape), np.float32), values
    std = np.array(subject.preprocessing.std, np.float32)
    found = [torch.autograd.grad(logits[place], x, retain_graph=True)[0][0] for place in classes]
    return np.stack([gradient.permute(1, 2, 0).numpy() / std for gradient in found]), values


def _normalised(subject: Subject, levels: np.ndarray) -> Tensor:
    how = subject.preprocessing
    planes = (levels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return torch.from_numpy(np.ascontiguousarray(planes.transpose(2, 0, 1)))[None]


def _label(subject: Subject, levels: np.ndarray) -> int:
    """The class of a photo that is not rounded."""
    with torch.no_grad():
        return int(subject.net(_normalised(subject, levels))[0].argmax())


def _floats(pixels: Levels) -> Float32[np.ndarray, "size size channels"]:
    return pixels.astype(np.float32)


def _stored(levels: np.ndarray) -> Levels:
    return np.asarray(np.rint(np.clip(levels, 0, 255)), np.uint8)


def _changed(subject: Subject, pixels: Levels, noises: np.ndarray, target: int) -> int:
    """How many of some changes give the photo another class, as stored."""
    tried = [_stored(pixels + noise) for noise in noises]
    return int((subject.logits(tried).argmax(axis=1) != target).sum())


def _change(subject: Subject, before: Levels, after: Levels, kind: str, exact: float) -> Change:
    shares = subject.probabilities(subject.logits([after]))[0]
    difference = after.astype(np.float64) - before
    length = np.sqrt(np.square(before.astype(np.float64)).sum())
    return Change(
        kind,
        after,
        subject.classes[int(shares.argmax())],
        float(shares.max()),
        int(np.abs(difference).max()),
        float(np.sqrt(np.mean(np.square(difference)))),
        float(np.sqrt(np.square(difference).sum()) / max(length, 1.0)),
        exact,
    )
