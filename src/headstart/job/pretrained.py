"""Strategies auto, head and early: a pretrained backbone with a new last layer, or what is measurably better."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headstart import heads, runs
from headstart.backbones import Backbone, open_backbone
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.diagnose import diagnose
from headstart.errors import ConfigError
from headstart.files import shown
from headstart.heads import FittedHead
from headstart.job import evidence
from headstart.job.advice import (
    Advice,
    Tried,
    advise,
    candidates_of,
    cuts_to_probe,
    fit_at,
    judged_at,
    least_cost,
    not_tried,
    picture_of,
)
from headstart.job.material import Material, Say, Timings, look
from headstart.job.outlook import Outlook, look_ahead
from headstart.job.writing import Finished, write
from headstart.readers import open_dataset
from headstart.runs.places import new_run_path
from headstart.transfer.held_out import Answers
from headstart.transfer.probes import Probe

LOOKS = 2  # folds by which a network is judged, at most
NEARLY_ALL = 0.995  # of the held-out photos are right: what is left to gain cannot be measured


def train_head(
    data: str | Path,
    out: str | Path | None,
    *,
    config: TrainConfig,
    overwrite: bool,
    follow_links: bool,
    quiet: bool,
    say: Say,
) -> runs.Run:
    """Train by strategy auto, head or early; arguments, result and errors as of `headstart.job.train`."""
    clock, given = Timings(), config
    with clock.step("scan"):
        dataset = open_dataset(data, follow_links=follow_links)
        place = new_run_path(out, dataset.name, overwrite=overwrite)
        say(f"{len(dataset.photos):,} photos in {len(dataset.classes)} classes; the run goes to {place}")
    with clock.step("start"):
        backbone = open_backbone(config.backbone, Path(config.weights) if config.weights else None, say=say)
        _check_choices(config, backbone)
    measures = config.strategy != "head" and config.cut == "pooled"
    with clock.step("features"):
        cuts = cuts_to_probe(backbone) if measures else (config.cut,)
        material = look(dataset, config, backbone, cuts=cuts, folds=config.folds, quiet=quiet, say=say)
    advice = None
    with clock.step("evidence"):
        if measures:
            advice, material = advise(material, backbone, config, quiet=quiet)
            config = dataclasses.replace(config, cut=advice.cut)
    with clock.step("fit"):
        computed, reused = material.survey.computed, material.survey.reused
        say(f"features ready ({computed:,} computed, {reused:,} reused); fitting the last layer")
        fitted = fit_at(material, config, config.cut) if advice is None else advice.fitted
    with clock.step("trial"):
        tried = _try(material, backbone, advice, fitted, config, quiet=quiet, say=say)
    winners = [one.won for one in tried if one.won is not None]
    trained = None
    with clock.step("again"):
        if winners:
            from headstart.job.network import train_again

            won, left = winners[-1], config.budget - clock.seconds["trial"]
            trained = train_again(won.ready, won.trained, won.material, left=left, quiet=quiet, say=say)
    outlook = None
    with clock.step("outlook"):
        if advice is not None:
            spent = clock.seconds["trial"] + clock.seconds["again"]
            budget = max(0.0, config.budget - spent) if config.strategy == "auto" else 0.0
            place_of_data = shown(str(data))
            outlook = look_ahead(place_of_data, material, backbone, advice, config, budget=budget, quiet=quiet, say=say)
    if advice is None or trained is None:
        return _write(place, given, config, material, backbone, fitted, advice, tried, outlook, clock, overwrite)
    from headstart.job import outcome
    from headstart.job.trained import write_trained

    chosen, final = advice, trained
    return write_trained(
        place,
        given,
        won.material,
        final,
        lambda classifier, _: outcome.trained_plan(
            won.ready.config,
            classifier,
            won.material.split,
            final.epochs,
            kept=final.kept,
            case=chosen.standing.case.name,
            begun=(*chosen.why, *(one.why for one in tried)),
            why=won.ready.why,
            told=won.ready.told | _told(chosen, tried, outlook),
            photos=final.photos,
        ),
        clock,
        picture=picture_of(dataset.name, chosen.standing),
        overwrite=overwrite,
        quiet=quiet,
    )


def _write(
    place: Path,
    given: TrainConfig,
    config: TrainConfig,
    material: Material,
    backbone: Backbone,
    fitted: FittedHead,
    advice: Advice | None,
    tried: Sequence[Tried],
    outlook: Outlook | None,
    clock: Timings,
    overwrite: bool,
) -> runs.Run:
    """Test the head and write its run."""
    dataset, split, labels = material.dataset, material.split, material.dataset.labels()
    features = material.survey.features[config.cut]
    with clock.step("fit"):
        temperature = heads.fit_temperature(fitted.held_out, labels[split.train])
        classifier = Classifier(
            backbone=backbone,
            cut=config.cut,
            head=fitted.head,
            classes=dataset.classes,
            temperature=temperature,
            engine=config.engine,
        )
    with clock.step("evaluate"):
        judged = evidence.judge(classifier, fitted, features, labels, split)
        plan = evidence.make_plan(
            config, fitted, split, dataset, advice, _told(advice, tried, outlook), [one.why for one in tried]
        )
        findings = diagnose(
            {"test": judged.test, "validation": judged.validation},
            material.report,
            classes=dataset.classes,
            train_accuracy=judged.train_accuracy,
            suspicious=evidence.find_suspicious(dataset, split, judged.held_out, labels),
        )
    finished = Finished(
        classifier,
        plan,
        judged.test,
        judged.validation,
        judged.test_probabilities,
        _with_remedies(findings, outlook),
        {"computed": material.survey.computed, "reused": material.survey.reused},
        provenance={},
        picture="" if advice is None else picture_of(dataset.name, advice.standing),
    )
    return write(place, finished, material, given, clock, overwrite=overwrite)


def _try(
    material: Material,
    backbone: Backbone,
    advice: Advice | None,
    fitted: FittedHead,
    config: TrainConfig,
    *,
    quiet: bool,
    say: Say,
) -> tuple[Tried, ...]:
    """Try what is more than a last layer, where the case asks for it and there is something to gain."""
    if advice is None or config.strategy != "auto" or "deeper" not in advice.standing.candidates:
        return ()
    judged = judged_at(material, config, advice.cut, fitted)
    if judged.accuracy >= NEARLY_ALL:
        return ()
    cost = least_cost(config, len(material.split.train))
    if config.budget < cost:
        return (Tried(*not_tried("deeper", config.budget, cost)),)
    from headstart.job.trial import try_networks  # imports torch, which takes seconds

    rival = to_beat(material, config.cut, fitted, judged)
    return try_networks(material, backbone, advice.standing, rival, config, quiet=quiet, say=say)


def to_beat(material: Material, cut: str, fitted: FittedHead, judged: Probe) -> Answers:
    """What the head, fitted without them, says of the photos that a network will be judged by.

    Args:
        material: the photos.
        cut: whose features the head takes.
        fitted: the head.
        judged: the same head, fold by fold.
    """
    validation, folds = material.split.validation, material.split.folds
    if len(validation):
        scores = fitted.head.logits(material.survey.features[cut][validation])
        return Answers("the head", ((scores, material.labels(validation)),))
    labels = material.labels(material.split.train)
    parts = [
        folds == number for number in range(LOOKS)
    ]  # the second may be empty where copies and groups fill one fold
    return Answers("the head", tuple((judged.scores[part], labels[part]) for part in parts if part.any()))


def _told(advice: Advice | None, tried: Sequence[Tried], outlook: Outlook | None) -> dict[str, Any]:
    """What the plan's evidence holds of the choice of strategy, and of what would help."""
    if advice is None:
        return {}
    rows = candidates_of(advice, [one.candidate for one in tried])
    told = advice.to_json() | {"candidates": [candidate.to_json() for candidate in rows]}
    return told if outlook is None else told | outlook.to_json()


def _with_remedies(findings: list[dict[str, Any]], outlook: Outlook | None) -> list[dict[str, Any]]:
    """The findings, of over- and underfitting with the best measured remedy and its command."""
    measured = [] if outlook is None else [remedy for remedy in outlook.remedies if remedy.sure]
    if not measured:
        return findings
    best = measured[0]
    return [
        finding | {"expected_gain": f"{best.sentence} {best.command}".strip()}
        if finding["finding"].startswith(("It overfits", "It underfits"))
        else finding
        for finding in findings
    ]


def _check_choices(config: TrainConfig, backbone: Backbone) -> None:
    """Refuse a cut or a head that does not exist, before any photo is decoded."""
    known = [cut for cut in backbone.classifier_cuts if cut != "logits"]
    if config.cut not in known:
        raise ConfigError(f"{backbone.name} has no cut {config.cut!r}; its cuts are {', '.join(known)}")
    if config.head != "auto" and config.head not in heads.HEADS:
        raise ConfigError(f"unknown head {config.head!r}; known: auto, {', '.join(heads.HEADS)}")
