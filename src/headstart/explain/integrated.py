"""Integrated gradients: what each pixel adds to the logit on the straight way from a picture without content.

Sundararajan, Taly & Yan 2017, "Axiomatic attribution for deep networks" (arXiv:1703.01365), equation 1: with the photo
x and the baseline b,

    M = (x - b) * integral over a from 0 to 1 of the gradient at b + a (x - b)        sum of M = f(x) - f(b)

The integral is a sum of gradients at places of the way, and a few dozen evenly spaced ones can miss half of it: the
logit of a trained net rises mostly within the first tenth. Here the places are chosen: the logit at both ends of an
interval says what the interval must add up to, and those that are farthest from it are halved.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, ImageFilter
from torch import Tensor

from headstart.errors import UsageError
from headstart.explain.explanation import Asked, Check, Found, Step
from headstart.explain.gradients import EMPTY, refuse_not_finite, taken
from headstart.explain.recording import to_numpy
from headstart.explain.subject import Subject

LAW = "sum of the map = logit of the photo - logit of the baseline"
BASELINES = ("grey", "black", "blur")
GRADIENTS = 128  # at most
CLOSE = 0.02  # share of the difference of the logits that the sum may miss
LOOSE = 5  # times `CLOSE` that the intervals may miss when their errors are added up without their signs
FIRST = 9  # places to begin with, evenly
BATCH = 8  # gradients at a time
Evaluate = Callable[[list[float]], tuple[list[float], list[Tensor]]]  # places -> logits, gradients


@dataclass(frozen=True, eq=False)
class Integral:
    """A sum over the way from the baseline to the photo.

    Args:
        mean: the gradient, averaged over the way.
        places: where gradients were taken, ascending, 0 to 1.
        start, end: the logit of the baseline and of the photo.
        rough: the errors of the intervals, added up without their signs, as a share of `end - start`.
    """

    mean: Float[Tensor, "channels height width"]
    places: tuple[float, ...]
    start: float
    end: float
    rough: float


def integrated_gradients(asked: Asked) -> Found:
    """Integrated gradients of the class's logit, with the error of its sum.

    Args:
        asked: settings `baseline` ("grey": the mean of the preprocessing; "black"; "blur": the photo without detail)
            and `gradients` (2 to 10,000, default 128: how many at most).

    Returns:
        (channels, size, size), logits; signed. Its check says what the sum misses; above 2 % the stamp does, too.

    Raises:
        UsageError: a setting has no such value.
        DataError: a number is not finite.
    """
    kind, most = asked.settings.get("baseline", "grey"), asked.settings.get("gradients", GRADIENTS)
    if type(most) is not int or not 2 <= most <= 10_000:
        raise UsageError(f"integrated gradients take 2 to 10,000 gradients, not {most!r}")
    x, base = taken(asked.subject, asked.photo.pixels), baseline(asked, kind)

    def evaluate(places: list[float]) -> tuple[list[float], list[Tensor]]:
        way = base + torch.tensor(places, dtype=x.dtype)[:, None, None, None] * (x - base)
        logits, slopes = slopes_at(asked.subject, way, asked.target)
        refuse_not_finite(asked, "the gradient", logits, slopes)
        return logits.tolist(), list(slopes)

    found = integrate(evaluate, (x - base)[0], most, step=asked.step)
    raw = found.mean * (x - base)[0]
    check = Check(float(raw.to(torch.float64).sum()), found.end - found.start, LAW, CLOSE)
    stamps: tuple[str, ...] = ()
    if not check.holds:
        stamps = (f"not converged: {100 * check.residual:.1f} %",)
    stamps += () if bool(raw.any()) else (EMPTY,)
    parameters = {"baseline": kind, "gradients": len(found.places), "rough": found.rough}
    return Found(to_numpy(raw), "", check, stamps, parameters)


def baseline(asked: Asked, kind: object) -> Float[Tensor, "1 channels size size"]:
    """The picture without content, normalised. Raises UsageError: there is no such kind."""
    pixels = asked.photo.pixels
    x = taken(asked.subject, pixels)
    if kind == "grey":
        return torch.zeros_like(x)
    if kind == "black":
        return taken(asked.subject, np.zeros_like(pixels))
    if kind != "blur":
        raise UsageError(f"unknown baseline {kind!r}; choose one of: {', '.join(BASELINES)}")
    blur = ImageFilter.GaussianBlur(max(1.0, len(pixels) / 20))
    planes = [
        np.asarray(Image.fromarray(np.ascontiguousarray(plane)).filter(blur)) for plane in pixels.transpose(2, 0, 1)
    ]
    return taken(asked.subject, np.stack(planes, axis=2))


def slopes_at(
    subject: Subject, x: Float[Tensor, "batch channels height width"], target: int
) -> tuple[Float[Tensor, "batch"], Float[Tensor, "batch channels height width"]]:
    """The logit of a class for each picture, and its gradient."""
    with torch.enable_grad():
        leaf = x.detach().requires_grad_()
        logits = subject.net(leaf)[:, target]
        (slopes,) = torch.autograd.grad(logits.sum(), leaf)
    return logits.detach(), slopes


def integrate(evaluate: Evaluate, way: Float[Tensor, "channels height width"], most: int, step: Step) -> Integral:
    """The mean gradient on a straight way, by trapezoids whose width follows the error.

    Args:
        evaluate: gives logits and gradients at places from 0 (baseline) to 1 (photo).
        way: photo - baseline.
        most: gradients, >= 2.
        step: told how many are done.
    """
    places: list[float] = []
    logits: dict[float, float] = {}
    slopes: dict[float, Tensor] = {}
    rises: dict[float, float] = {}  # the logit's slope along the way
    wanted = np.linspace(0, 1, min(FIRST, most)).tolist()
    while wanted:
        for start in range(0, len(wanted), BATCH):
            part = wanted[start : start + BATCH]
            found = evaluate(part)
            logits.update(zip(part, found[0], strict=True))
            slopes.update(zip(part, found[1], strict=True))
            rises.update((place, float((slopes[place] * way).sum(dtype=torch.float64))) for place in part)
            step(len(slopes), most, "gradients")
        places = sorted(slopes)
        errors = _errors(places, logits, rises)
        wanted = _halved(places, errors, logits[1.0] - logits[0.0], most)
    mean = torch.zeros_like(way)
    for place, weight in zip(places, _trapezoid_weights(places), strict=True):
        mean += weight * slopes[place]
    rise = logits[1.0] - logits[0.0]
    return Integral(mean, tuple(places), logits[0.0], logits[1.0], float(np.abs(errors).sum()) / max(abs(rise), 1e-12))


def _errors(places: Sequence[float], logits: dict[float, float], rises: dict[float, float]) -> np.ndarray:
    """By how much the trapezoid of each interval misses the rise of the logit there."""
    a, f, s = (np.array(values) for values in (places, [logits[p] for p in places], [rises[p] for p in places]))
    return np.asarray(np.diff(a) * (s[:-1] + s[1:]) / 2 - np.diff(f))


def _halved(places: Sequence[float], errors: np.ndarray, rise: float, most: int) -> list[float]:
    """The middles of the worst intervals; none where the sum is close enough, or enough gradients were taken.

    A sum can be right by luck while its parts are wrong, so the parts must be nearly right, too.
    """
    sizes = np.abs(errors)
    close = abs(errors.sum()) <= CLOSE * abs(rise) and sizes.sum() <= LOOSE * CLOSE * abs(rise)
    worst = np.argsort(-sizes, kind="stable")[: min(BATCH, most - len(places))]
    if close:
        return []
    return [(places[at] + places[at + 1]) / 2 for at in worst if sizes[at] >= sizes.max() / 4]


def _trapezoid_weights(places: Sequence[float]) -> list[float]:
    widths = np.diff(places)
    return list((np.append(widths, 0.0) + np.append(0.0, widths)) / 2)
