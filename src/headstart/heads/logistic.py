"""Multinomial logistic regression, its strength chosen on folds; the size alone decides how thoroughly."""

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64

from headstart.heads.blas import one_thread
from headstart.heads.calibration import log_softmax, tempered_losses
from headstart.heads.checks import Material, distinct
from headstart.heads.model import FittedHead, Head
from headstart.heads.ridge import row
from headstart.heads.softmax import Problems, Solutions, Solved, minimise
from headstart.heads.spectrum import Spectrum, decompose

STRENGTHS = tuple(10.0 ** (step / 2) for step in range(1, -13, -1))  # from strong to weak: each starts the next
COARSE = STRENGTHS[1:10:2]  # ten times apart, where every step is dear
GAIN, COARSE_GAIN = 0.005, 0.05  # part of the log loss that a weaker strength must save to be worth its steps
STEPS = 20  # at each strength
TOLERANCE = 1e-3  # more exact solutions changed no held-out log loss in its third digit
THOROUGH = 2e8  # photos x axes x classes up to which every fold tries every strength
TOGETHER = 5_000_000  # photos x classes x problems solved in the same products: bounds the memory
SMALL = 4e8  # photos x axes x classes x problems: below, a second thread costs more than it brings
EVERYONE = -1  # the column without held-out photos


@dataclass(frozen=True, eq=False)
class Folds:
    """The problems of one head: for each fold one that does not see its photos, and one that sees all."""

    material: Material
    scatter: Float64[np.ndarray, "axes"]
    rotated: Float32[np.ndarray, "photos axes"]

    @property
    def numbers(self) -> list[int]:
        """The folds that there are."""
        return [int(number) for number in distinct(self.material.folds)]

    def problems(self, strength: float, columns: list[int]) -> Problems:
        """Problems at a strength; `strength x features / photos` is the penalty beside the mean loss."""
        material = self.material
        seen = material.folds[:, None] != np.array(columns)
        penalties = np.full(len(columns), strength * material.features.shape[1] / len(material.features))
        weights = material.weights[:, None] * seen
        return Problems(self.rotated, self.scatter, material.labels, weights, penalties, material.classes)

    def collect(self, solved: Solved, columns: list[int], held_out: Float32[np.ndarray, "photos classes"]) -> None:
        """Write the logits of each fold's photos, by the problem that has not seen them, into `held_out`."""
        for place, column in enumerate(columns):
            members = self.material.folds == column
            weights = self.material.weights * ~members
            seen = np.bincount(self.material.labels, weights, self.material.classes) > 0
            held_out[members] = without_absent(solved.logits[members, place], seen, int(np.count_nonzero(weights)))


def without_absent(
    logits: Float[np.ndarray, "photos classes"], seen: Bool[np.ndarray, "classes"], count: int
) -> Float[np.ndarray, "photos classes"]:
    """Give a class of which no photo was seen the chance of half a photo among `count`, whatever the features.

    Its intercept has no lowest point: the objective falls for ever as it goes to minus infinity.
    """
    if seen.all():
        return logits
    result = logits.astype(np.float64)
    top = result[:, seen].max(axis=1)
    known = np.log(np.exp(result[:, seen] - top[:, None]).sum(axis=1)) + top
    result[:, ~seen] = (known + np.log(0.5 / count))[:, None]
    return result.astype(logits.dtype)


def fit_logistic(material: Material, kind: str = "logistic") -> FittedHead:
    """Fit multinomial logistic regression with an L2 penalty; see `headstart.heads.fit_head`.

    From strong to weak, each strength starts from the solution before; the one with the lowest log loss on held-out
    folds, at its own temperature, is taken. With many photos, features and classes only the first fold tries strengths,
    ten times apart, and the others are solved at its choice. That rule counts numbers, not seconds, so the result does
    not depend on how busy the machine is.
    """
    start = time.perf_counter()
    features, settings = material.transformed(kind)
    fit = Fit(decompose(features, material.weights), material, kind, settings)
    return fit.finish(fit.choose(), start)


@dataclass(frozen=True, eq=False)
class Chosen:
    """The best strength: its place in the list, held-out logits and last solution there, and all that were tried."""

    place: int
    held_out: Float32[np.ndarray, "photos classes"]
    solution: Float32[np.ndarray, "rows classes"]
    tried: tuple[dict[str, Any], ...]


class Fit:
    """Logistic regression on features whose spectrum is known, in two halves: choose the strength, then solve the rest.

    Args:
        spectrum: of the features as this kind takes them.
        material: photos, labels, folds and weights.
        kind: the name of the head.
        settings: of the head.
    """

    def __init__(self, spectrum: Spectrum, material: Material, kind: str, settings: dict[str, float]) -> None:
        self._spectrum, self._material, self._kind, self._settings = spectrum, material, kind, settings
        self._folds = Folds(material, spectrum.scatter, spectrum.rotated.astype(np.float32, copy=False))
        thorough = spectrum.rotated.size * material.classes <= THOROUGH
        columns = [*self._folds.numbers, EVERYONE]
        self._walked, self._others = (columns, []) if thorough else (columns[:1], columns[1:])
        self._strengths, self._patience, self._gain = (STRENGTHS, 2, GAIN) if thorough else (COARSE, 1, COARSE_GAIN)

    @property
    def judged(self) -> Bool[np.ndarray, "photos"]:
        """The photos that the strength is chosen by: of all folds, or of the first."""
        return np.isin(self._material.folds, self._walked)

    def choose(self) -> Chosen:
        """Walk until some strengths after the best were hardly better."""
        material, judged = self._material, np.flatnonzero(self.judged)
        tried: list[dict[str, Any]] = []
        best: Chosen | None = None
        for place, solved in enumerate(walk(self._folds, self._walked, self._strengths)):
            held_out = np.zeros((len(material.labels), material.classes), np.float32)
            self._folds.collect(solved, self._walked, held_out)
            losses = tempered_losses(held_out[judged], material.labels[judged])
            strength = self._strengths[place]
            tried.append(row(self._kind, strength, losses, held_out[judged], material, judged, "folds"))
            if best is None or tried[-1]["log_loss"] < (1 - self._gain) * tried[best.place]["log_loss"]:
                best = Chosen(place, held_out, solved.solutions[-1], ())
            elif place - best.place >= self._patience:
                break
        if best is None:
            raise ValueError("there are no strengths to choose from")
        return replace(best, tried=tuple(tried))

    def finish(self, chosen: Chosen, start: float) -> FittedHead:
        """Solve the problems that took no part in the choice, and put the head together."""
        held_out, solution = chosen.held_out.copy(), chosen.solution
        size = max(1, TOGETHER // (len(held_out) * self._material.classes))
        for at in range(0, len(self._others), size):
            some = self._others[at : at + size]
            (last,) = walk(self._folds, some, self._strengths[chosen.place : chosen.place + 1])
            self._folds.collect(last, some, held_out)
            solution = last.solutions[-1]
        head = _head(self._spectrum, self._material, solution, self._kind, self._settings)
        strength = self._strengths[chosen.place]
        return FittedHead(head, held_out, strength, chosen.tried, time.perf_counter() - start)


def walk(folds: Folds, columns: list[int], strengths: tuple[float, ...]) -> Iterator[Solved]:
    """Solve at one strength after the other, each from the solution before."""
    start: Solutions | None = None
    small = folds.rotated.size * folds.material.classes * len(columns) < SMALL
    for strength in strengths:
        with one_thread() if small else nullcontext():
            solved = minimise(folds.problems(strength, columns), start, steps=STEPS, tolerance=TOLERANCE)
        start = solved.solutions
        yield solved


def _head(
    spectrum: Spectrum,
    material: Material,
    solution: Float32[np.ndarray, "rows classes"],
    kind: str,
    settings: dict[str, float],
) -> Head:
    weight, bias = spectrum.unfold(solution[:-1], solution[-1])
    absent = np.bincount(material.labels, material.weights, material.classes) == 0
    if absent.any():
        features, _ = material.transformed(kind)
        seen = features.astype(np.float64) @ weight[~absent].T + bias[~absent]
        weight[absent] = 0
        bias[absent] = -float(np.mean(log_softmax(seen)[:, 0] - seen[:, 0])) + np.log(0.5 / len(features))
    return Head(kind, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}, settings)
