"""What a network that was trained from scratch does on photos it was not fitted to, and how it came about."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64, Int64

from headstart import heads, metrics
from headstart.backbones import Backbone
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.features import survey_photos
from headstart.progress import Progress
from headstart.split import Split

TRAIN_SAMPLE = 2_000  # training photos on which the accuracy of the finished net is measured

STATISTICS = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms: kept, but not trained
CALIBRATED = "val_calibrated_loss"  # as `headstart.training.monitors` has it
COLUMNS = (
    *("epoch", "loss", "accuracy", "val_loss", "val_accuracy", CALIBRATED),
    *("learning_rate", "seconds", "gradient_norm"),
)
Rows = Sequence[Mapping[str, float | int]]  # of a history: a row an epoch


@dataclass(frozen=True, eq=False)
class Parts:
    """Features and photos of the parts that judge a trained net, as the engine that will be used computes them.

    Args:
        validation, test: features of every photo of the part, in the order of the split.
        train: of `sample`, photos out of the training set.
    """

    validation: Float32[np.ndarray, "validation features"]
    test: Float32[np.ndarray, "test features"]
    train: Float32[np.ndarray, "sample features"]
    sample: Int64[np.ndarray, "sample"]


@dataclass(frozen=True, eq=False)
class Judged:
    """Measures of test and validation, the probabilities behind them, and the accuracy on training photos."""

    test: dict[str, Any]
    validation: dict[str, Any]
    test_probabilities: Float64[np.ndarray, "test classes"]
    validation_probabilities: Float64[np.ndarray, "validation classes"]
    train_accuracy: float


def compute_parts(
    dataset: Dataset, split: Split, backbone: Backbone, cut: str, config: TrainConfig, *, quiet: bool
) -> Parts:
    """Run the photos of validation and test, and a sample of the training photos, through the engine."""
    places = np.linspace(0, len(split.train) - 1, min(len(split.train), TRAIN_SAMPLE)).astype(np.int64)
    sample = split.train[places]
    order = np.concatenate([split.validation, split.test, sample])
    chosen = dataset.subset(dataset.photos[index] for index in order)
    with Progress(len(order), "photos", quiet=quiet) as progress:
        survey = survey_photos(
            chosen,
            backbone=backbone,
            cuts=(cut,),
            engine=config.engine,
            store=None,  # the net is new: nobody has its features, and nobody will ask for them under another net
            threads=config.threads,
            progress=progress,
        )
    bounds = np.cumsum([len(split.validation), len(split.test)])
    validation, test, train = np.split(survey.features[cut], bounds)
    return Parts(validation, test, train, sample)


def judge(
    classifier: Classifier,
    parts: Parts,
    held_out: Float32[np.ndarray, "validation classes"],
    labels: Int64[np.ndarray, "photos"],
    split: Split,
) -> Judged:
    """Measure. The temperature was fitted to the validation photos: their log loss and ECE have one fitted number.

    Args:
        classifier: what came out.
        parts: the photos that judge it.
        held_out: logits of the validation photos, by a net that had not seen them.
        labels: of every photo of the data.
        split: how the photos were divided.
    """
    classes = classifier.classes
    test, own = (classifier.probabilities_from_features(part) for part in (parts.test, parts.train))
    validation = heads.probabilities(held_out, classifier.temperature)
    return Judged(
        test=metrics.evaluate(test, labels[split.test], classes),
        validation=metrics.evaluate(validation, labels[split.validation], classes),
        test_probabilities=test,
        validation_probabilities=validation,
        train_accuracy=float(np.mean(own.argmax(axis=1) == labels[parts.sample])),
    )


def rows_of(rows: Rows) -> list[dict[str, float | int]]:
    """The rows of history.csv: in the same columns also where a checkpoint, which sorts them, was read in between."""
    ordered = [{name: row[name] for name in COLUMNS if name in row} for row in rows]
    return [{**row, "epoch": int(row["epoch"])} for row in ordered]


def best_row(rows: Rows) -> Mapping[str, float | int]:
    """The epoch with the lowest validation loss, the first of several."""
    known = [row for row in rows if math.isfinite(row.get("val_loss", math.nan))]
    return min(known, key=lambda row: row["val_loss"]) if known else rows[-1]


def trained_plan(
    config: TrainConfig,
    classifier: Classifier,
    split: Split,
    rows: Rows,
    *,
    kept: int,
    case: str,
    begun: Sequence[str],
    why: Sequence[str],
    told: Mapping[str, Any],
    photos: int = 0,
) -> dict[str, Any]:
    """Say what was trained, how, and on which evidence; the final test is no part of it.

    Args:
        config: with every setting filled in.
        classifier: what came out.
        split: how the photos were divided.
        rows: of the history.
        kept: the epoch whose weights the net has, from 1.
        case: of transfer learning, or "scratch".
        begun: why this strategy, in sentences.
        why: what was trained from what, in sentences.
        told: `backbone`, and what else was decided.
        photos: on which it was trained again, those of the validation among them; 0: it was not.
    """
    last, chosen = rows[-1], rows[kept - 1]
    tensors = classifier.backbone.tensors()
    parameters = sum(values.size for name, values in tensors.items() if not name.endswith(STATISTICS))
    return {
        "case": case,
        "strategy": config.strategy,
        "net": config.net,
        "backbone": told["backbone"],
        "cut": classifier.cut,
        "head": classifier.head.kind,
        "epochs": len(rows),
        "best_epoch": kept,
        "why": [
            *begun,
            f"{parameters:,} parameters, {len(split.train):,} training photos, "
            f"{len(split.train) / len(classifier.classes):,.0f} a class.",
            *why,
            f"{config.optimiser}, learning rate up to {config.learning_rate:g}, schedule {config.schedule}, batches of "
            f"{config.batch_size:,}: {len(rows):,} of {config.epochs:,} epochs were run; "
            f"the validation loss went from {rows[0]['val_loss']:.4g} to "
            f"{last['val_loss']:.4g}.",
            f"The weights are those of epoch {kept}, with validation loss {chosen['val_loss']:.4g} and validation "
            f"accuracy {100 * chosen['val_accuracy']:.1f} %{_why_kept(rows, kept, config)}",
            *([_trained_again(photos)] if photos else []),
            f"Its logits are divided by {classifier.temperature:.3g}, which makes the probabilities of the "
            f"{len(split.validation):,} validation photos true on average.",
            split.how,
        ],
        "evidence": {name: value for name, value in told.items() if name != "backbone"}
        | ({"trained_again_on": photos} if photos else {}),
    }


def _why_kept(rows: Rows, kept: int, config: TrainConfig) -> str:
    """Why this epoch, as the end of a sentence."""
    if config.keep == "last":
        return "; the lowest loss was not asked for."
    if CALIBRATED not in rows[0]:
        return ": the lowest loss of all."
    if len(rows) < config.epochs:
        return ": the lowest loss of all, once calibrated."
    if kept == len(rows):
        return ": the last, and no earlier one is clearly better."
    return ": once calibrated its loss is lower than that of the last by more than one standard error."


def _trained_again(photos: int) -> str:
    return (
        f"Then it was trained again, from the same beginning and for as many epochs, on all {photos:,} photos, those "
        "of the validation among them. These weights are kept. The measures of the validation and the temperature are "
        "of the first training, which had not seen its photos."
    )


def as_validation(split: Split) -> Split:
    """The split with the validation photos in the place of the training photos: the net was not fitted to them."""
    return dataclasses.replace(split, train=split.validation, folds=np.zeros(len(split.validation), np.int64))
