"""What a run tells about itself: how good it is, on what, why it was built this way, and from what."""

import hashlib
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headstart import __version__, heads, metrics
from headstart.backbones import Backbone
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.features import Survey
from headstart.heads import FittedHead
from headstart.quality import ScanReport
from headstart.split import Split

SUSPICIOUS_OWN, SUSPICIOUS_OTHER = 0.01, 0.99  # held-out probabilities that make a label doubtful


@dataclass(frozen=True, eq=False)
class Judged:
    """What the classifier does on photos it was not fitted to, and on those it was."""

    test: dict[str, Any]
    validation: dict[str, Any]
    held_out: Float64[np.ndarray, "train classes"]  # each training photo, by a model that has not seen it
    test_probabilities: Float64[np.ndarray, "test classes"]
    train_accuracy: float


def judge(
    classifier: Classifier,
    fitted: FittedHead,
    features: Float32[np.ndarray, "photos features"],
    labels: Int64[np.ndarray, "photos"],
    split: Split,
) -> Judged:
    """Measure on the final test, and on the validation photos: the given ones, else each training photo held out once.

    The temperature was fitted to the held-out logits, so the validation log loss and ECE have one fitted number in
    them; those of the test have none.
    """
    classes = classifier.classes
    held_out = heads.probabilities(fitted.held_out, classifier.temperature)
    test = classifier.probabilities_from_features(features[split.test])
    if len(split.validation):
        checked, checked_labels = classifier.probabilities_from_features(features[split.validation]), split.validation
    else:
        checked, checked_labels = held_out, split.train
    own = classifier.probabilities_from_features(features[split.train])
    return Judged(
        test=metrics.evaluate(test, labels[split.test], classes),
        validation=metrics.evaluate(checked, labels[checked_labels], classes),
        held_out=held_out,
        test_probabilities=test,
        train_accuracy=float(np.mean(own.argmax(axis=1) == labels[split.train])),
    )


def make_plan(
    config: TrainConfig,
    fitted: FittedHead,
    split: Split,
    dataset: Dataset,
    advice: Any = None,
    told: Mapping[str, Any] | None = None,
    tried: Sequence[str] = (),
) -> dict[str, Any]:
    """Say what was chosen, why, and on which evidence; the final test is no part of it.

    Args:
        config: the settings, with the cut that is used.
        fitted: the head.
        split: how the photos were divided.
        dataset: the photos.
        advice: the `headstart.job.advice.Advice` that the choice of strategy rests on; None: it was asked for.
        told: its evidence.
        tried: sentences on what else was tried.
    """
    per_class = len(split.train) / len(dataset.classes)
    settings = fitted.head.settings
    named = "early" if config.strategy == "early" else "head"
    reason = "The cut was named" if config.strategy == "auto" else f"Strategy {named} was asked for"
    asked = [
        f"{reason}: {len(split.train):,} training photos, {per_class:,.0f} a class; the backbone stays frozen and only "
        "a new last layer is trained.",
        "How similar the photos are to those the backbone was trained on was not measured; 'similar' is assumed.",
    ]
    return {
        "case": "small-similar" if advice is None else advice.standing.case.name,
        "strategy": named if advice is None else advice.strategy,
        "backbone": config.backbone,
        "cut": config.cut,
        "head": fitted.head.kind,
        "why": [
            *(asked if advice is None else advice.why),
            *tried,
            f"Head {fitted.head.kind}, strength {_number(fitted.strength)}: chosen by held-out log loss among "
            f"{len(fitted.tried)} candidates, on {_folds(split)}.",
            split.how,
        ],
        "evidence": {**(told or {}), "heads": list(fitted.tried), "settings": dict(settings)},
    }


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4g}"


def _folds(split: Split) -> str:
    return f"{len(set(split.folds.tolist()))} folds of the training photos"


def describe_data(dataset: Dataset, survey: Survey, split: Split, report: ScanReport) -> dict[str, Any]:
    """Count the photos, name the skipped ones, and fingerprint what was used: every path, label and content."""
    digest = hashlib.sha256()
    for photo, fact in zip(dataset.photos, survey.facts, strict=True):
        line = f"{photo.path}\0{dataset.classes[photo.label]}\0{fact.digest}\n"
        digest.update(line.encode("utf-8", "surrogateescape"))
    kept_out = [{"path": dataset.photos[index].path, "reason": why} for index, why in sorted(split.kept_out.items())]
    return {
        "name": dataset.name,
        "images": len(dataset.photos) + len(dataset.skipped),
        "used": len(split.train) + len(split.validation) + len(split.test),
        "skipped": list(report.to_json()["skipped"]),
        "kept_out": kept_out,
        "train": len(split.train),
        "validation": len(split.validation),
        "test": len(split.test),
        "fingerprint": digest.hexdigest(),
        "warnings": list(report.to_json()["warnings"]),
    }


def find_suspicious(
    dataset: Dataset, split: Split, held_out: Float64[np.ndarray, "train classes"], labels: Int64[np.ndarray, "photos"]
) -> list[dict[str, Any]]:
    """List training photos whose label a model that has not seen them all but rules out in favour of another."""
    own = held_out[np.arange(len(split.train)), labels[split.train]]
    other = held_out.argmax(axis=1)
    doubtful = np.flatnonzero((own < SUSPICIOUS_OWN) & (held_out.max(axis=1) > SUSPICIOUS_OTHER))
    return [
        {
            "path": dataset.photos[split.train[row]].path,
            "label": dataset.classes[labels[split.train[row]]],
            "predicted": dataset.classes[other[row]],
            "probability": float(held_out[row, other[row]]),
        }
        for row in doubtful[np.argsort(own[doubtful], kind="stable")]
    ]


def prediction_rows(
    dataset: Dataset,
    split: Split,
    probabilities: Float64[np.ndarray, "test classes"],
    labels: Int64[np.ndarray, "photos"],
) -> list[dict[str, Any]]:
    """Return one row a test photo: path, label, predicted class and every probability."""
    rows = []
    for index, values in zip(split.test, probabilities, strict=True):
        best = int(values.argmax())
        rows.append(
            {
                "path": dataset.photos[index].path,
                "label": dataset.classes[labels[index]],
                "predicted": dataset.classes[best],
                "probability": float(values[best]),
                "probabilities": dict(zip(dataset.classes, map(float, values), strict=True)),
            }
        )
    return rows


def provenance(config: TrainConfig, backbone: Backbone) -> dict[str, Any]:
    """Return versions and fingerprints: enough to make the run again, nothing about who or where."""
    return {
        "headstart": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "machine": f"{platform.system()} {platform.machine()}",
        "weights": backbone.weights_sha256,
        "source": backbone.source,
        "seed": config.seed,
    }
