"""Strategies auto, head and early: a pretrained backbone with a new last layer, or what is measurably better."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np

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
    least_cost,
    not_tried,
    picture_of,
)
from headstart.job.material import Material, Say, Timings, look, read_thumbnails
from headstart.job.outlook import Outlook, look_ahead
from headstart.readers import open_dataset
from headstart.report import render_report

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
    clock = Timings()
    with clock.step("scan"):
        dataset = open_dataset(data, follow_links=follow_links)
        place = runs.new_run_path(out, dataset.name, overwrite=overwrite)
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
        trial = _try(material, backbone, advice, fitted, config, quiet=quiet, say=say)
    outlook = None
    with clock.step("outlook"):
        if advice is not None:
            spent = 0.0 if trial is None else trial.candidate.seconds or 0.0
            budget = config.budget - spent if config.strategy == "auto" else 0.0
            place_of_data = shown(str(data))
            outlook = look_ahead(place_of_data, material, backbone, advice, config, budget=budget, quiet=quiet, say=say)
    if advice is not None and trial is not None and trial.won is not None:
        from headstart.job import outcome
        from headstart.job.trained import write_trained

        won, chosen, tried = trial.won, advice, trial
        ready, trained = won.ready, won.trained
        return write_trained(
            place,
            dataclasses.replace(ready.config, strategy=config.strategy, budget=config.budget),
            won.material,
            trained,
            lambda classifier, _: outcome.trained_plan(
                ready.config,
                classifier,
                won.material.split,
                trained.epochs,
                case=chosen.standing.case.name,
                begun=(*chosen.why, tried.why),
                why=ready.why,
                told=ready.told | _told(chosen, tried, outlook),
            ),
            clock,
            picture=picture_of(dataset.name, chosen.standing),
            overwrite=overwrite,
            quiet=quiet,
        )
    return _write(place, config, material, backbone, fitted, advice, trial, outlook, clock, overwrite=overwrite)


def _write(
    place: Path,
    config: TrainConfig,
    material: Material,
    backbone: Backbone,
    fitted: FittedHead,
    advice: Advice | None,
    trial: Tried | None,
    outlook: Outlook | None,
    clock: Timings,
    *,
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
            config, fitted, split, dataset, advice, _told(advice, trial, outlook), trial.why if trial else ""
        )
        document = {
            "run": place.as_posix(),
            "schema": runs.SCHEMA,
            "classes": list(dataset.classes),
            "data": material.about,
            "plan": plan,
            "test": judged.test,
            "validation": judged.validation,
            "diagnosis": _with_remedies(
                diagnose(
                    {"test": judged.test, "validation": judged.validation},
                    material.report,
                    classes=dataset.classes,
                    train_accuracy=judged.train_accuracy,
                    suspicious=evidence.find_suspicious(dataset, split, judged.held_out, labels),
                ),
                outlook,
            ),
            "provenance": evidence.provenance(config, backbone),
            "features": {"computed": material.survey.computed, "reused": material.survey.reused},
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
            picture="" if advice is None else picture_of(dataset.name, advice.standing),
        )
        return runs.write_run(
            place,
            classifier=classifier,
            metrics=lambda: document | {"timings": clock.to_json()},
            plan=plan,
            config=config.to_dict(),
            predictions=rows,
            report=page,
            overwrite=overwrite,
        )


def _try(
    material: Material,
    backbone: Backbone,
    advice: Advice | None,
    fitted: FittedHead,
    config: TrainConfig,
    *,
    quiet: bool,
    say: Say,
) -> Tried | None:
    """Try what is more than a last layer, where the case asks for it and there is something to gain."""
    if advice is None or config.strategy != "auto" or "deeper" not in advice.standing.candidates:
        return None
    right = np.mean(fitted.held_out.argmax(axis=1) == material.labels(material.split.train))
    if right >= NEARLY_ALL:
        return None
    cost = least_cost(config, len(material.split.train))
    if config.budget < cost:
        return Tried(*not_tried(config, cost))
    from headstart.job.trial import try_deeper  # imports torch, which takes seconds

    checked = fitted.head.logits(material.survey.features[config.cut][material.split.validation])
    return try_deeper(material, backbone, advice.standing, fitted.held_out, checked, config, quiet=quiet, say=say)


def _told(advice: Advice | None, trial: Tried | None, outlook: Outlook | None) -> dict[str, Any]:
    """What the plan's evidence holds of the choice of strategy, and of what would help."""
    if advice is None:
        return {}
    rows = candidates_of(advice, () if trial is None else (trial.candidate,))
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
