"""Which head: ridge or logistic regression, on the features or on their roots, by held-out log loss."""

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Bool

from headstart.heads.blas import one_thread
from headstart.heads.calibration import tempered_losses
from headstart.heads.checks import Material
from headstart.heads.logistic import Fit
from headstart.heads.model import ROOT, FittedHead
from headstart.heads.ridge import Choice, Path, choose, ridge_head, ridge_path, row

TOGETHER = 2e9  # multiplications of a decomposition from which two at a time are faster than one after the other
WORK = 8e8  # photos x axes x classes beyond which ridge is taken without trying logistic regression


@dataclass(frozen=True, eq=False)
class Candidate:
    """Ridge on the features or on their roots, with its strength chosen."""

    kind: str
    path: Path
    choice: Choice
    settings: dict[str, float]


def fit_auto(material: Material) -> FittedHead:
    """Choose between `ridge`, `logistic`, `root-ridge` and `root-logistic`.

    First the features: ridge is fitted to them and to their roots, and the roots are taken if their leave-one-out log
    loss is lower by more than one standard error of the difference, photo by photo; in doubt the head stays linear.
    Then the kind, on the features taken: ridge and logistic regression predict the same folds, and the lower log loss
    wins. Beyond `photos x features x classes` of 8e8 ridge is taken without the second step: the rule counts numbers,
    not seconds, so the same photos give the same head on a busy machine.
    """
    start = time.perf_counter()
    plain, rooted = _both(material)
    taken = rooted if _clearly_lower(rooted.choice, plain.choice, material) else plain
    tried = plain.choice.tried + rooted.choice.tried
    del plain, rooted  # at most one of the two rotated copies of the features is kept
    if taken.path.spectrum.rotated.size * material.classes <= WORK:
        logistic = Fit(taken.path.spectrum, material, taken.kind.replace("ridge", "logistic"), taken.settings)
        chosen = logistic.choose()
        by_folds = _on_folds(taken, material, logistic.judged)
        tried += (*chosen.tried, by_folds)
        if min(entry["log_loss"] for entry in chosen.tried) < by_folds["log_loss"]:
            return replace(logistic.finish(chosen, start), tried=tried)
    head = ridge_head(taken.path, taken.choice.strength, taken.kind, taken.settings)
    held_out = taken.path.held_out(taken.choice.strength, material.groups).astype(np.float32)
    return FittedHead(head, held_out, taken.choice.strength, tried, time.perf_counter() - start)


def _both(material: Material) -> tuple[Candidate, Candidate]:
    """Ridge on the features and on their roots, side by side: half of the work is a decomposition on one thread."""
    kinds = ("ridge", ROOT + "ridge")
    if material.features.size * min(material.features.shape) < TOGETHER:
        plain, rooted = (_candidate(material, kind) for kind in kinds)
        return plain, rooted
    with one_thread(), ThreadPoolExecutor(2, thread_name_prefix="ridge") as threads:
        plain, rooted = threads.map(lambda kind: _candidate(material, kind), kinds)
    return plain, rooted


def _candidate(material: Material, kind: str) -> Candidate:
    features, settings = material.transformed(kind)
    path = ridge_path(material, features)
    return Candidate(kind, path, choose(path, material, kind), settings)


def _clearly_lower(new: Choice, old: Choice, material: Material) -> bool:
    """Whether the log loss is lower by more than one standard error of the difference."""
    better = (old.losses - new.losses) * material.weights[new.judged]
    return bool(better.mean() > better.std() / np.sqrt(len(better)))


def _on_folds(candidate: Candidate, material: Material, judged: Bool[np.ndarray, "photos"]) -> dict[str, Any]:
    """Ridge judged as logistic regression is: by the same photos, held out in the same folds."""
    alone = np.arange(len(judged)) + int(material.folds.max()) + 1
    rows = np.flatnonzero(judged)
    scores = candidate.path.held_out(candidate.choice.strength, np.where(judged, material.folds, alone))[rows]
    losses = tempered_losses(scores, material.labels[rows])
    return row(candidate.kind, candidate.choice.strength, losses, scores, material, rows, "folds")
