"""What is common to every network that was trained: how it is tested, told about and written."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32

from headstart import heads, runs
from headstart.backbones import Backbone
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.diagnose import diagnose
from headstart.heads import Head
from headstart.job import evidence, outcome
from headstart.job.material import Material, Timings
from headstart.job.writing import Finished, write
from headstart.training.batches import Batches
from headstart.training.callbacks import Callback, ClearlyBest, EarlyStopping
from headstart.training.choosing import CALIBRATED
from headstart.training.symptoms import diagnose_history


@dataclass(frozen=True, eq=False)
class Trained:
    """What training left.

    Args:
        epochs: a row each.
        kept: the epoch whose weights the net has, from 1.
        dead: share of the dead units of each activation layer.
        take_apart: gives the net in two parts, converted for the fast engine: a backbone, its cut, and the head there.
        held_out: logits of the validation photos by a net that had not seen them, where this one has; None: it has not.
        photos: that it was trained on; 0: those of the split's training part.
    """

    epochs: list[dict[str, float | int]]
    kept: int
    dead: dict[str, float]
    take_apart: Callable[[], tuple[Backbone, str, Head]]
    held_out: Float32[np.ndarray, "validation classes"] | None = None
    photos: int = 0


Planner = Callable[[Classifier, outcome.Judged], dict[str, Any]]  # what plan.json shall hold


def write_trained(
    place: Path,
    config: TrainConfig,
    material: Material,
    trained: Trained,
    make_plan: Planner,
    clock: Timings,
    *,
    picture: str = "",
    overwrite: bool,
    quiet: bool,
) -> runs.Run:
    """Test a trained net and write its run."""
    dataset, split, labels = material.dataset, material.split, material.dataset.labels()
    with clock.step("evaluate"):
        backbone, cut, head = trained.take_apart()
        parts = outcome.compute_parts(dataset, split, backbone, cut, config, quiet=quiet)
        held_out = head.logits(parts.validation) if trained.held_out is None else trained.held_out
        temperature = heads.fit_temperature(held_out, labels[split.validation])
        classifier = Classifier(backbone, cut, head, dataset.classes, temperature, engine=config.engine)
        judged = outcome.judge(classifier, parts, held_out, labels, split)
        plan = make_plan(classifier, judged)
        diagnosis = _diagnose(judged, material, trained, config)
    finished = Finished(
        classifier,
        plan,
        judged.test,
        judged.validation,
        judged.test_probabilities,
        diagnosis,
        _features(material, parts),
        provenance={"torch": torch.__version__},
        history=trained.epochs,
        picture=picture,
    )
    return write(place, finished, material, config, clock, overwrite=overwrite)


def _features(material: Material, parts: outcome.Parts) -> dict[str, int]:
    """How many photos' features were computed: those of the pretrained net, or else of the one that was trained."""
    survey = material.survey
    if survey.features:
        return {"computed": survey.computed, "reused": survey.reused}
    return {"computed": len(parts.validation) + len(parts.test) + len(parts.train), "reused": 0}


def class_weights_of(material: Material, config: TrainConfig) -> torch.Tensor | None:
    """How much each class counts in the loss; None: each photo the same."""
    if config.class_weights == "none":
        return None
    classes = len(material.dataset.classes)
    labels = material.dataset.labels()[material.split.train]
    weights = np.ones(classes, np.float32)
    weights[labels] = heads.balanced_weights(labels, classes)
    return torch.from_numpy(weights)


def callbacks_of(config: TrainConfig, validation: Batches | None) -> list[Callback]:
    """What ends the training early and gives the weights of the best epoch back, as far as the settings ask for it.

    From pretrained weights the last epoch is kept unless an earlier one is clearly better (`ClearlyBest`).
    """
    if validation is None or (config.keep == "last" and not config.patience):
        return []
    patience, restore = config.patience or config.epochs, config.keep == "best"
    if config.strategy == "scratch":
        return [EarlyStopping("val_loss", patience=patience, restore_best_weights=restore)]
    chosen: list[Callback] = [ClearlyBest(validation)] if restore else []
    if config.patience:
        chosen.append(
            EarlyStopping(CALIBRATED if restore else "val_loss", patience=patience, restore_best_weights=False)
        )
    return chosen


def _diagnose(
    judged: outcome.Judged, material: Material, trained: Trained, config: TrainConfig
) -> list[dict[str, Any]]:
    """What the curves say, then what the photos and the classes say."""
    dataset, split, labels = material.dataset, material.split, material.dataset.labels()
    classes, held = dataset.classes, judged.validation_probabilities
    counts = np.bincount(labels[split.train], minlength=len(classes)).tolist()
    of_curves = diagnose_history(
        [{name: float(value) for name, value in row.items()} for row in trained.epochs],
        classes=classes,
        train_images=len(split.train),
        validation_images=len(split.validation),
        chance=None if config.loss == "cross-entropy" else (1 - 1 / len(classes)) / 2,
        counts=dict(zip(classes, counts, strict=True)),
        labels=labels[split.validation],
        probabilities=held,
        dead=trained.dead,
    )
    return of_curves + diagnose(
        {"test": judged.test, "validation": judged.validation},
        material.report,
        classes=classes,
        train_accuracy=judged.train_accuracy,
        suspicious=evidence.find_suspicious(dataset, outcome.as_validation(split), held, labels),
        scratch=True,
    )
