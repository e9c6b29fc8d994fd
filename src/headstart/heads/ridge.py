"""Ridge regression to one target a class: closed form, and exact held-out predictions without fitting again."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float32, Float64, Int64

from headstart.heads.blas import one_thread
from headstart.heads.calibration import tempered_losses
from headstart.heads.checks import Material, one_hot
from headstart.heads.model import FittedHead, Head
from headstart.heads.spectrum import Spectrum, decompose

STRENGTHS = tuple(10.0 ** (step / 2) for step in range(-6, 5))  # times the number of features, added to the scatter
JUDGED = 2048  # photos by which a strength is chosen; more would not change the choice
BLOCK = 4096  # photos a time


@dataclass(frozen=True, eq=False)
class Path:
    """Ridge in rotated features at every strength; nothing is fitted twice.

    Args:
        spectrum: the features.
        weights: how much each photo counts.
        targets: +1 at the class of a photo, -1 elsewhere.
        middle: weighted mean of the targets, the intercept of the rotated features.
        products: scatter of axes with targets.
    """

    spectrum: Spectrum
    weights: Float64[np.ndarray, "photos"]
    targets: Float64[np.ndarray, "photos classes"]
    middle: Float64[np.ndarray, "classes"]
    products: Float64[np.ndarray, "axes classes"]

    def slopes(self, strength: float) -> Float64[np.ndarray, "axes classes"]:
        """Coefficients of the rotated features."""
        return np.asarray(self.products / (self.spectrum.scatter + self._penalty(strength))[:, None])

    def leverages(self, strengths: Sequence[float]) -> Float64[np.ndarray, "photos strengths"]:
        """How much each photo's target with weight 1 moves its own prediction, at each strength."""
        rotated = self.spectrum.rotated
        inverses = np.column_stack([1 / (self.spectrum.scatter + self._penalty(strength)) for strength in strengths])
        result = np.full((len(rotated), len(strengths)), 1 / self.weights.sum())
        for at in range(0, len(rotated), BLOCK):
            rows = slice(at, at + BLOCK)
            result[rows] += np.square(rotated[rows]) @ inverses.astype(rotated.dtype)
        return result

    def held_out(
        self,
        strength: float,
        groups: Int64[np.ndarray, "photos"],
        leverage: Float64[np.ndarray, "photos"] | None = None,
    ) -> Float64[np.ndarray, "photos classes"]:
        """Predictions for each photo by ridge fitted without any photo of its group: exact, not approximate.

        With residuals r = Y - Ŷ of the fit to all photos and M = z (S + λ)⁻¹ zᵀ + 1/Σw, those of a group g that is left
        out are (I - M_gg W_g)⁻¹ r_g: the deletion formula of least squares (Allen 1974; Cook & Weisberg 1982, section
        2.2.3) with weights, penalty and a free intercept. A group of one needs a division, one smaller than the number
        of axes a system of its own size, a larger one a system of the size of the axes (Woodbury).

        Args:
            strength: of the penalty.
            groups: photos with the same number are left out together.
            leverage: `leverages` of this strength, where it is known already.
        """
        rotated = self.spectrum.rotated
        leverage = self.leverages([strength])[:, 0] if leverage is None else leverage
        inverse = 1 / (self.spectrum.scatter + self._penalty(strength))
        residuals = self.targets - self.middle
        for at in range(0, len(rotated), BLOCK):
            rows = slice(at, at + BLOCK)
            residuals[rows] -= rotated[rows] @ self.slopes(strength).astype(rotated.dtype)
        _, inside, sizes = np.unique(groups, return_inverse=True, return_counts=True)
        alone = sizes[inside] == 1
        left_out = residuals / np.where(alone, 1 - leverage * self.weights, 1.0)[:, None]
        order = np.argsort(inside, kind="stable")
        ends = np.cumsum(sizes)
        for group in np.flatnonzero(sizes > 1):
            members = order[ends[group] - sizes[group] : ends[group]]
            left_out[members] = self._delete(members, residuals[members], inverse)
        return np.asarray(self.targets - left_out)

    def _delete(
        self,
        members: Int64[np.ndarray, "members"],
        residuals: Float64[np.ndarray, "members classes"],
        inverse: Float64[np.ndarray, "axes"],
    ) -> Float64[np.ndarray, "members classes"]:
        """Residuals of one group of photos by the fit without them."""
        weights = self.weights[members]
        rotated = np.column_stack([self.spectrum.rotated[members].astype(np.float64), np.ones(len(members))])
        inverse = np.append(inverse, 1 / self.weights.sum())
        weighted = rotated * weights[:, None]
        with one_thread():
            if len(members) <= len(inverse):
                hat = (rotated * inverse) @ weighted.T
                return np.asarray(np.linalg.solve(np.eye(len(members)) - hat, residuals))
            inner = np.diag(1 / inverse) - rotated.T @ weighted
            return np.asarray(residuals + rotated @ np.linalg.solve(inner, weighted.T @ residuals))

    def _penalty(self, strength: float) -> float:
        return strength * len(self.spectrum.mean)


def ridge_path(material: Material, features: Float[np.ndarray, "photos features"]) -> Path:
    """Prepare ridge for every strength; `features` are those of the material, or their roots."""
    spectrum = decompose(features, material.weights)
    targets = 2 * one_hot(material.labels, material.classes) - 1
    weights = material.weights
    middle = weights @ targets / weights.sum()
    centred = (targets - middle) * weights[:, None]
    rotated = spectrum.rotated
    products = np.zeros((rotated.shape[1], material.classes))
    for at in range(0, len(rotated), BLOCK):
        rows = slice(at, at + BLOCK)
        products += rotated[rows].T @ centred[rows].astype(rotated.dtype)
    return Path(spectrum, weights, targets, middle, products)


@dataclass(frozen=True, eq=False)
class Choice:
    """A strength, and what it was chosen by.

    Args:
        strength: with the lowest held-out log loss.
        judged: numbers of the photos it was judged by.
        losses: their log losses at that strength.
        tried: a row for each strength.
    """

    strength: float
    judged: Int64[np.ndarray, "judged"]
    losses: Float64[np.ndarray, "judged"]
    tried: tuple[dict[str, Any], ...]


def choose(path: Path, material: Material, kind: str) -> Choice:
    """Choose the strength with the lowest log loss of photos left out singly (with their near duplicates)."""
    judged = spread(len(material.labels), JUDGED)
    tried, losses = [], []
    for strength, leverage in zip(STRENGTHS, path.leverages(STRENGTHS).T, strict=True):
        scores = path.held_out(strength, material.groups, leverage)[judged]
        losses.append(tempered_losses(scores, material.labels[judged]))
        tried.append(row(kind, strength, losses[-1], scores, material, judged, "leave-one-out"))
    best = int(np.argmin([entry["log_loss"] for entry in tried]))
    return Choice(STRENGTHS[best], judged, losses[best], tuple(tried))


def spread(count: int, most: int) -> Int64[np.ndarray, "judged"]:
    """Numbers of at most `most` photos, evenly spread over all."""
    return np.linspace(0, count - 1, min(count, most)).astype(np.int64)  # steps of 1 or more: no number twice


def row(
    kind: str,
    strength: float | int,
    losses: Float64[np.ndarray, "judged"],
    logits: Float[np.ndarray, "judged classes"],
    material: Material,
    judged: Int64[np.ndarray, "judged"],
    by: str,
) -> dict[str, Any]:
    """Describe one candidate: held-out log loss and accuracy, weighted as the photos are."""
    weights = material.weights[judged]
    right = logits.argmax(axis=1) == material.labels[judged]
    return {
        "head": kind,
        "strength": strength,
        "log_loss": float(np.average(losses, weights=weights)),
        "accuracy": float(np.average(right, weights=weights)),
        "by": by,
    }


def ridge_head(path: Path, strength: float, kind: str, settings: dict[str, Any]) -> Head:
    """Fold centring, scale and rotation into weight and bias."""
    weight, bias = path.spectrum.unfold(path.slopes(strength), path.middle)
    return Head(kind, {"weight": weight.astype(np.float32), "bias": bias.astype(np.float32)}, settings)


def fit_ridge(material: Material, kind: str = "ridge") -> FittedHead:
    """Fit ridge to targets of +1 and -1, one against the rest; see `headstart.heads.fit_head`.

    The strength is the one with the lowest exact leave-one-out log loss at its own temperature. Photos of one cluster
    of near duplicates leave together, so that none is judged by its own copy. The overall scale of the features is
    taken from all photos; no label enters it.
    """
    start = time.perf_counter()
    features, settings = material.transformed(kind)
    path = ridge_path(material, features)
    chosen = choose(path, material, kind)
    held_out: Float32[np.ndarray, "photos classes"] = path.held_out(chosen.strength, material.groups).astype(np.float32)
    head = ridge_head(path, chosen.strength, kind, settings)
    return FittedHead(head, held_out, chosen.strength, chosen.tried, time.perf_counter() - start)
