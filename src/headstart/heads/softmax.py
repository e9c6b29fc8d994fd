"""Multinomial logistic regression: several problems over the same photos at once, by preconditioned L-BFGS."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

MEMORY = 6  # steps that L-BFGS remembers
HALVINGS = 20  # of a step; a convex problem needs one or two
SUFFICIENT = 1e-4  # share of the promised decrease that a step must bring (Nocedal & Wright 2006, section 3.1)

Solutions = Float[np.ndarray, "problems rows classes"]  # rows: one an axis, then the intercept
Scalars = Float64[np.ndarray, "problems"]


@dataclass(frozen=True, eq=False)
class Problems:
    """Problems that differ in the weights of the photos and in the penalty.

    Problem p is to minimise `sum_i w_pi loss_i(W) / sum_i w_pi + penalty_p / 2 |W|²` over slopes W and a free
    intercept; a photo with weight 0 is not seen, which is how folds are held out. The features are `Spectrum.rotated`,
    where the scatter is diagonal, so that dividing by the root of the curvature makes every axis equally curved: that
    of softmax is about (1 - 1/C)/C times the scatter at the start, where each of C classes is as probable.

    Args:
        rotated: the features; float32 or float64, and all the arithmetic with them.
        scatter: their sum of squares along each axis.
        labels: 0..classes-1.
        weights: of the photos, one column a problem; each column has a sum above 0.
        penalties: > 0.
    """

    rotated: Float[np.ndarray, "photos axes"]
    scatter: Float64[np.ndarray, "axes"]
    labels: Int64[np.ndarray, "photos"]
    weights: Float[np.ndarray, "photos problems"]
    penalties: Float64[np.ndarray, "problems"]
    classes: int

    def scales(self) -> Float[np.ndarray, "problems rows 1"]:
        """What each row of a solution is multiplied by to have about the same curvature."""
        curvature = (1 - 1 / self.classes) / self.classes
        slopes = curvature * self.scatter / len(self.rotated) + self.penalties[:, None]
        rows = np.column_stack([slopes, np.full(len(self.penalties), curvature)])
        return np.asarray((1 / np.sqrt(rows))[:, :, None], self.rotated.dtype)

    def logits(self, solutions: Solutions) -> Float[np.ndarray, "photos problems classes"]:
        """Logits of every photo in every problem."""
        problems, _, classes = solutions.shape
        slopes = solutions[:, :-1].transpose(1, 0, 2).reshape(-1, problems * classes)
        return np.asarray((self.rotated @ slopes).reshape(-1, problems, classes) + solutions[:, -1])

    def value(
        self, logits: Float[np.ndarray, "photos problems classes"], solutions: Solutions
    ) -> tuple[Scalars, Float[np.ndarray, "photos problems classes"]]:
        """The objective of each problem, and the probabilities."""
        top = logits.max(axis=2, keepdims=True)
        raised = np.exp(logits - top)
        total = raised.sum(axis=2, keepdims=True)
        own = logits[np.arange(len(logits)), :, self.labels]
        losses = np.log(total[:, :, 0]) + top[:, :, 0] - own
        fit = np.einsum("ip,ip->p", losses, self._shares(), dtype=np.float64)
        size = np.einsum("prc,prc->p", solutions[:, :-1], solutions[:, :-1], dtype=np.float64)
        return fit + 0.5 * self.penalties * size, raised / total

    def gradient(self, probabilities: Float[np.ndarray, "photos problems classes"], solutions: Solutions) -> Solutions:
        """Slope of the objective of each problem: features times (probability - target), plus the penalty."""
        errors = probabilities.copy()
        errors[np.arange(len(errors)), :, self.labels] -= 1
        errors *= self._shares()[:, :, None]
        problems, rows, classes = solutions.shape
        result = np.empty_like(solutions)
        products = self.rotated.T @ errors.reshape(len(errors), -1)
        result[:, :-1] = products.reshape(rows - 1, problems, classes).transpose(1, 0, 2)
        result[:, :-1] += self.penalties.astype(solutions.dtype)[:, None, None] * solutions[:, :-1]
        result[:, -1] = errors.sum(axis=0)
        return result

    def _shares(self) -> Float[np.ndarray, "photos problems"]:
        return np.asarray(self.weights / self.weights.sum(axis=0), self.rotated.dtype)


@dataclass(frozen=True, eq=False)
class Solved:
    """The end of a minimisation.

    Args:
        solutions: slopes and intercept of each problem.
        logits: of every photo in every problem.
        values: of the objectives.
        steps: that were taken.
    """

    solutions: Solutions
    logits: Float[np.ndarray, "photos problems classes"]
    values: Scalars
    steps: int


def minimise(problems: Problems, start: Solutions | None, *, steps: int, tolerance: float) -> Solved:
    """Minimise each problem by L-BFGS (Nocedal & Wright 2006, algorithm 7.5), all in the same matrix products.

    The logits are linear in the solution, so those along a direction are known after one product, and trying a shorter
    step costs none.

    Args:
        problems: what to minimise.
        start: solutions to start from; None: zero.
        steps: at most so many.
        tolerance: a problem is done when two steps running lower its objective by less than this part of it each.
    """
    scales = problems.scales()
    shape = (len(problems.penalties), len(problems.scatter) + 1, problems.classes)
    solutions = np.zeros(shape, problems.rotated.dtype) if start is None else start.copy()
    logits = problems.logits(solutions)
    values, chances = problems.value(logits, solutions)
    slope = problems.gradient(chances, solutions) * scales
    history = History(len(values))
    moving, slow = np.ones(len(values), bool), np.zeros(len(values), bool)
    taken = 0
    while taken < steps and moving.any():
        taken += 1
        direction = history.direction(slope) * scales
        promised = np.minimum(_dot(direction / scales, slope), 0.0)
        moved = Move(direction, problems.logits(direction), promised)
        step, solutions, logits, following, chances = _search(problems, moved, solutions, logits, values, moving)
        before, slope = slope, problems.gradient(chances, solutions) * scales
        history.remember(step[:, None, None].astype(slope.dtype) * direction / scales, slope - before)
        was_slow, slow = slow, (values - following) <= tolerance * np.abs(following)
        moving &= ~(slow & was_slow) & (step > 0)
        values = following
    return Solved(solutions, logits, values, taken)


@dataclass(frozen=True, eq=False)
class Move:
    """A direction in every problem, what it does to the logits, and the decrease that a small step promises."""

    direction: Solutions
    logits: Float[np.ndarray, "photos problems classes"]
    promised: Scalars


def _search(
    problems: Problems,
    move: Move,
    solutions: Solutions,
    logits: Float[np.ndarray, "photos problems classes"],
    values: Scalars,
    moving: Bool[np.ndarray, "problems"],
) -> tuple[Scalars, Solutions, np.ndarray, Scalars, np.ndarray]:
    """Halve the step of a problem until it brings its part of the promised decrease; 0 where none does."""
    step = np.where(moving & (move.promised < 0), 1.0, 0.0)
    for halving in range(HALVINGS + 1):
        short = step.astype(solutions.dtype)
        ahead = solutions + short[:, None, None] * move.direction
        seen = logits + short[None, :, None] * move.logits
        following, chances = problems.value(seen, ahead)
        good = following <= values + SUFFICIENT * step * move.promised
        good |= step == 0
        if good.all():
            break
        step = np.where(good, step, step / 2 if halving + 2 <= HALVINGS else 0.0)
    return step, ahead, seen, following, chances


class History:
    """The last steps of each problem and how the slope changed: what L-BFGS knows of the curvature."""

    def __init__(self, problems: int) -> None:
        self._steps: list[np.ndarray] = []
        self._changes: list[np.ndarray] = []
        self._rates: list[np.ndarray] = []
        self._size = np.ones(problems)

    def remember(self, step: Solutions, change: Solutions) -> None:
        """Add a step; a problem that did not move, or against the curvature, learns nothing from it."""
        along, squared = _dot(step, change), _dot(change, change)
        useful = along > 1e-10 * squared
        self._rates.append(np.where(useful, 1 / np.where(useful, along, 1.0), 0.0))
        self._size = np.where(useful, along / np.where(useful, squared, 1.0), self._size)
        self._steps.append(step)
        self._changes.append(change)
        if len(self._steps) > MEMORY:
            del self._steps[0], self._changes[0], self._rates[0]

    def direction(self, slope: Solutions) -> Solutions:
        """Minus the slope, times the inverse curvature that the steps suggest."""
        result = -slope
        parts = []
        for step, change, rate in zip(self._steps[::-1], self._changes[::-1], self._rates[::-1], strict=True):
            part = rate * _dot(step, result)
            result -= part[:, None, None].astype(slope.dtype) * change
            parts.append(part)
        result *= self._size[:, None, None].astype(slope.dtype)
        for step, change, rate, part in zip(self._steps, self._changes, self._rates, parts[::-1], strict=True):
            result += (part - rate * _dot(change, result))[:, None, None].astype(slope.dtype) * step
        return result


def _dot(left: Solutions, right: Solutions) -> Scalars:
    return np.asarray(np.einsum("prc,prc->p", left, right), np.float64)
