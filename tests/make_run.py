"""A run directory of some kilobytes for the tests: a real format around a backbone that is too small to be one."""

import hashlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.backbones.converted import ConvertedNet
from headstart.classifier import Classifier
from headstart.heads import Head
from headstart.preprocess import Preprocessing
from headstart.runs import Run, write_run
from headstart.weights import digest

FEATURES = 12
CLASSES = ("ants", "bees", "wasps")
PREPROCESSING = Preprocessing(size=224, crop_fraction=0.875, mean=(127.0,) * 3, std=(128.0,) * 3, filter="bicubic")


class SmallBackbone(Backbone):
    """A backbone whose tensors are at hand; no engine can run it."""

    def tensors(self) -> dict[str, np.ndarray]:
        return small_tensors()


def small_tensors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(7)
    return {
        "stem.weight": draw.normal(size=(4, 3, 3, 3)).astype(np.float32),
        "stem.norm.num_batches_tracked": np.array(5, np.int64),
        "classifier.bias": draw.normal(size=10).astype(np.float32),
    }


def small_classifier(classes: tuple[str, ...] = CLASSES, seed: int = 0, **changes: Any) -> Classifier:
    known = digest(small_tensors())
    options = {"classes": 10}
    backbone = SmallBackbone(
        name="efficientnet-lite0",
        preprocessing=PREPROCESSING,
        cuts={"pooled": FEATURES},
        outputs={"pooled": (FEATURES,)},
        weights_sha256=known,
        classes=None,
        source="made up",
        net_options=options,
        converted=ConvertedNet("efficientnet-lite0", options, known, PREPROCESSING, small_tensors),
    )
    draw = np.random.default_rng(seed)
    tensors = {
        "weight": draw.normal(size=(len(classes), FEATURES)).astype(np.float32),
        "bias": draw.normal(size=len(classes)).astype(np.float32),
    }
    head = Head("ridge", tensors, {"strength": 0.1})
    return Classifier(**{"backbone": backbone, "cut": "pooled", "head": head, "classes": classes, **changes})


def small_rows(classes: tuple[str, ...] = CLASSES, count: int = 24, seed: int = 0) -> list[dict[str, Any]]:
    """Rows of predictions.csv; about three in four are right."""
    draw = np.random.default_rng(seed)
    rows = []
    for index in range(count):
        label = index % len(classes)
        values = draw.dirichlet(np.ones(len(classes)) + 3 * np.eye(len(classes))[label])
        best = int(values.argmax())
        rows.append(
            {
                "path": f"{classes[label]}/{index:03d}.jpg",
                "label": classes[label],
                "predicted": classes[best],
                "probability": float(values[best]),
                "probabilities": dict(zip(classes, map(float, values), strict=True)),
            }
        )
    return rows


def small_metrics(rows: list[dict[str, Any]], classes: tuple[str, ...] = CLASSES) -> dict[str, Any]:
    """The document of a training, its measures counted one by one."""
    pairs = Counter((row["label"], row["predicted"]) for row in rows)
    counts = [[pairs[label, said] for said in classes] for label in classes]
    right = sum(counts[index][index] for index in range(len(classes)))
    per_class = {}
    for index, name in enumerate(classes):
        said = sum(row[index] for row in counts)
        recall = counts[index][index] / max(sum(counts[index]), 1)
        precision = counts[index][index] / said if said else None
        f1 = 2 * counts[index][index] / max(sum(counts[index]) + said, 1)
        per_class[name] = {"precision": precision, "recall": recall, "f1": f1, "support": sum(counts[index])}
    test = {
        "accuracy": right / len(rows),
        "accuracy_ci95": [max(right / len(rows) - 0.1, 0.0), min(right / len(rows) + 0.1, 1.0)],
        "per_class": per_class,
        "confusion": counts,
        "log_loss": 0.5,
        "ece": 0.04,
    }
    return {
        "run": "runs/insects-1",
        "schema": 1,
        "classes": list(classes),
        "data": {
            "name": "insects",
            "images": 81,
            "used": 80,
            "skipped": [{"path": "bees/broken.jpg", "reason": "truncated"}],
            "kept_out": [],
            "train": 56,
            "validation": 0,
            "test": len(rows),
            "fingerprint": hashlib.sha256(b"insects").hexdigest(),
            "warnings": [],
        },
        "plan": {"strategy": "head"},
        "test": test,
        "validation": test,
        "diagnosis": [{"finding": "f", "evidence": "e", "remedy": "r", "expected_gain": None}],
        "timings": {"total": 1.5, "start": 0.2, "features": 1.1, "fit": 0.2},
        "features": {"computed": 80, "reused": 0},
        "provenance": {"headstart": "0.1.0", "seed": 0},
    }


PLAN = {
    "case": "small-similar",
    "strategy": "head",
    "cut": "pooled",
    "head": "ridge",
    "why": ["Few photos."],
    "evidence": {},
}
CONFIG = {"backbone": "efficientnet-lite0", "weights": None, "seed": 0}


def write_small_run(path: Path, *, seed: int = 0, **changes: Any) -> Run:
    """Write a complete run; `changes` replace arguments of `write_run`."""
    rows = small_rows(seed=seed)
    values: dict[str, Any] = {
        "classifier": small_classifier(),
        "metrics": small_metrics(rows),
        "plan": PLAN,
        "config": CONFIG,
        "predictions": rows,
        "history": [{"epoch": 1, "loss": 0.9}, {"epoch": 2, "loss": 0.5}],
        "report": "<!doctype html><title>report</title>",
    }
    return write_run(path, **{**values, **changes})
