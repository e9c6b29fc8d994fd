"""Strategy scratch: a network with random weights, trained on the photos at hand, tested, and kept as any other run."""

import dataclasses
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64

from headstart import heads, quality, runs
from headstart.backbones import Backbone
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.diagnose import diagnose
from headstart.errors import ConfigError, OutputError
from headstart.features import Survey, survey_photos
from headstart.files import shown
from headstart.heads import Head
from headstart.job import Timings, evidence, outcome, read_thumbnails
from headstart.job.joining import classifier_of
from headstart.job.levels import measured
from headstart.job.net_input import NetInput, choose_input
from headstart.job.unfinished import Unfinished
from headstart.nets import build_net
from headstart.preprocess import Preprocessing
from headstart.progress import Progress
from headstart.quality import PhotoFacts
from headstart.readers import open_dataset
from headstart.report import render_report
from headstart.split import Split, make_split
from headstart.store import Store
from headstart.training.batches import Batches
from headstart.training.callbacks import Callback, EarlyStopping
from headstart.training.loop import fit
from headstart.training.optimisers import usual_rate
from headstart.training.probes import dead_shares
from headstart.training.streamed import load_batches
from headstart.training.symptoms import diagnose_history

Say = Callable[[str], None]
PEAK = 3.0  # times the usual rate, where a schedule climbs to it slowly and spends few steps there


def train_scratch(
    data: str | Path,
    out: str | Path | None,
    *,
    config: TrainConfig,
    overwrite: bool,
    resume: bool,
    checkpoint_seconds: float,
    follow_links: bool,
    quiet: bool,
    say: Say,
) -> runs.Run:
    """Train the net that `config.net` names; arguments, result and errors as of `headstart.job.train`."""
    clock, rated = Timings(), with_rate(config)
    with clock.step("scan"):
        dataset = open_dataset(data, follow_links=follow_links)
        place = runs.new_run_path(out, dataset.name, overwrite=overwrite, resume=resume)
        unfinished = Unfinished(place, resume=resume, overwrite=overwrite)
        if (run := unfinished.finished_run()) is not None:
            say(f"{shown(place)} is complete: nothing was left to resume")
            return run
        if os.path.lexists(place) and not overwrite:
            raise OutputError(f"{shown(place)} exists already; add --overwrite to replace it when the training is done")
        say(f"{len(dataset.photos):,} photos in {len(dataset.classes)} classes; the run goes to {shown(place)}")
        material = look(dataset, config, quiet=quiet, say=say)
    with clock.step("start"):
        facts = material.survey.facts
        chosen = choose_input(config, dataset, [facts[index] for index in material.split.train])
        preprocessing = measured(dataset, material.split.train, chosen, threads=config.threads)
        net = build(config, chosen)
    try:
        with clock.step("fit"):
            training, validation = _batches(material, preprocessing, config, say)
            history = fit(
                net,
                training,
                validation,
                rated,
                callbacks=callbacks_of(config),
                checkpoint=unfinished.checkpoint,
                checkpoint_seconds=checkpoint_seconds,
                resume=unfinished.open(config, material.about["fingerprint"]),
                class_weights=class_weights_of(material, config),
                quiet=quiet,
                say=say,
            )
            if history.stopped == "diverged":
                unfinished.remove()
                raise ConfigError(f"the training diverged: {history.reason}")
            trained = Trained(
                *classifier_of(net, str(config.net), chosen.options, preprocessing, say),
                epochs=outcome.rows_of(history.rows),
                dead=dead_shares(net, next(iter(validation.epoch(0)))[0]),
            )
        run = _write(place, config, material, chosen, trained, clock, overwrite=overwrite, quiet=quiet)
    except KeyboardInterrupt:
        if not unfinished.checkpoint.exists():
            raise
        again = f"the same command with --resume goes on from there ({shown(unfinished.folder)})"
        raise KeyboardInterrupt(again) from None
    finally:
        unfinished.release()
    unfinished.remove()
    return run


@dataclass(frozen=True, eq=False)
class Material:
    """The photos and what is known of them before anything is trained.

    Args:
        dataset: the photos.
        survey: facts of each of them.
        report: what is wrong with them.
        split: training, validation and final test.
        about: `data` of metrics.json.
    """

    dataset: Dataset
    survey: Survey
    report: quality.ScanReport
    split: Split
    about: dict[str, Any]


def look(dataset: Dataset, config: TrainConfig, *, quiet: bool, say: Say) -> Material:
    """Visit every photo once, find what is wrong with them, and divide them.

    Raises:
        ConfigError: there are fewer training photos than a batch has.
        DataError: the photos cannot be divided.
    """
    with Store() as store, Progress(len(dataset.photos), "photos", quiet=quiet) as progress:
        survey = survey_photos(dataset, store=store, threads=config.threads, progress=progress)
    for notice in survey.notices:
        say(notice)
    found = quality.find_duplicates(survey.facts)
    report = quality.inspect(dataset, survey.facts, found)
    split = split_for_training(dataset, survey.facts, quality.clusters(dataset, survey.facts, found), config)
    if config.batch_size > len(split.train):
        raise ConfigError(
            f"a batch of {config.batch_size:,} photos is larger than the data: there are {len(split.train):,} training "
            f"photos; give --batch-size {max(1, len(split.train) // 4)} or smaller"
        )
    return Material(dataset, survey, report, split, evidence.describe_data(dataset, survey, split, report))


@dataclass(frozen=True, eq=False)
class Trained:
    """What training left.

    Args:
        backbone, cut, head: the net, in two parts.
        epochs: a row each.
        dead: share of the dead units of each activation layer.
    """

    backbone: Backbone
    cut: str
    head: Head
    epochs: list[dict[str, float | int]]
    dead: dict[str, float]


def _write(
    place: Path,
    config: TrainConfig,
    material: Material,
    chosen: NetInput,
    trained: Trained,
    clock: Timings,
    *,
    overwrite: bool,
    quiet: bool,
) -> runs.Run:
    """Test the trained net and write its run."""
    dataset, split, labels = material.dataset, material.split, material.dataset.labels()
    backbone, cut, head = trained.backbone, trained.cut, trained.head
    with clock.step("evaluate"):
        parts = outcome.compute_parts(dataset, split, backbone, cut, config, quiet=quiet)
        temperature = outcome.fitted_temperature(head, parts, labels, split)
        classifier = Classifier(backbone, cut, head, dataset.classes, temperature, engine=config.engine)
        judged = outcome.judge(classifier, parts, labels, split)
        plan = outcome.scratch_plan(with_rate(config), classifier, chosen, split, trained.epochs)
        document = {
            "run": place.as_posix(),
            "schema": runs.SCHEMA,
            "classes": list(dataset.classes),
            "data": material.about,
            "plan": plan,
            "test": judged.test,
            "validation": judged.validation,
            "diagnosis": _diagnose(judged, material, trained, config),
            "provenance": evidence.provenance(config, backbone) | {"torch": torch.__version__},
            "features": {"computed": len(split.validation) + len(split.test) + len(parts.sample), "reused": 0},
        }
    with clock.step("write"):
        rows = evidence.prediction_rows(dataset, split, judged.test_probabilities, labels)
        document["timings"] = clock.to_json()
        page = render_report(
            document,
            plan,
            config.to_dict(),
            predictions=rows,
            thumbnail=read_thumbnails(dataset),
            scan=material.report.to_json(),
            history=trained.epochs,
        )
        return runs.write_run(
            place,
            classifier=classifier,
            metrics=lambda: document | {"timings": clock.to_json()},
            plan=plan,
            config=config.to_dict(),
            predictions=rows,
            history=trained.epochs,
            report=page,
            overwrite=overwrite,
        )


def with_rate(config: TrainConfig) -> TrainConfig:
    """The settings with a learning rate: at the top of "one-cycle" three times the optimiser's usual one, else that."""
    if config.learning_rate:
        return config
    return dataclasses.replace(
        config, learning_rate=usual_rate(config) * (PEAK if config.schedule == "one-cycle" else 1.0)
    )


def split_for_training(
    dataset: Dataset, facts: Sequence[PhotoFacts], clusters: Int64[np.ndarray, "photos"], config: TrainConfig
) -> Split:
    """Divide the photos as `make_split` does; where the data bring no validation photos, the first fold becomes them.

    Args:
        dataset: the photos.
        facts: of each of them.
        clusters: photos of the same number stay on one side.
        config: `seed`, `test_fraction` and `validation_fraction` count here.
    """
    split = make_split(
        dataset,
        [index for index, fact in enumerate(facts) if fact.rejected is None],
        clusters,
        seed=config.seed,
        test_fraction=config.test_fraction,
        folds=max(2, round(1 / config.validation_fraction)),
        digests=[fact.digest for fact in facts],
    )
    if len(split.validation):
        how = f"The validation photos are the data's own val split ({len(split.validation):,} photos)."
        return dataclasses.replace(split, how=f"{split.how} {how}")
    held = split.folds == 0
    how = (
        f"{np.count_nonzero(held):,} of {len(held):,} training photos were set apart for validation with seed "
        f"{config.seed}; every class in proportion, copies and groups on one side."
    )
    return dataclasses.replace(
        split,
        train=split.train[~held],
        validation=split.train[held],
        folds=split.folds[~held],
        how=f"{split.how} {how}",
    )


def build(config: TrainConfig, chosen: NetInput) -> Any:
    """The net with the random weights of the seed; the caller's random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_net(str(config.net), **chosen.options)


def class_weights_of(material: Material, config: TrainConfig) -> torch.Tensor | None:
    """How much each class counts in the loss; None: each photo the same."""
    if config.class_weights == "none":
        return None
    classes = len(material.dataset.classes)
    labels = material.dataset.labels()[material.split.train]
    weights = np.ones(classes, np.float32)
    weights[labels] = heads.balanced_weights(labels, classes)
    return torch.from_numpy(weights)


def callbacks_of(config: TrainConfig) -> list[Callback]:
    """What ends the training early and gives the weights of the best epoch back, as far as the settings ask for it."""
    if config.keep == "last" and not config.patience:
        return []
    patience = config.patience or config.epochs
    return [EarlyStopping("val_loss", patience=patience, restore_best_weights=config.keep == "best")]


def _batches(
    material: Material, preprocessing: Preprocessing, config: TrainConfig, say: Say
) -> tuple[Batches, Batches]:
    """The training photos, shuffled and augmented, and the validation photos, as they are."""
    dataset, split = material.dataset, material.split
    plain = dataclasses.replace(
        config, augment="none", mixup=0.0, batch_size=min(config.batch_size, len(split.validation))
    )
    return (
        load_batches(dataset, split.train, preprocessing, config, say=say),
        load_batches(dataset, split.validation, preprocessing, plain, shuffle=False, say=lambda _: None),
    )


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
