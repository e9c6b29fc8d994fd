"""Strategies scratch, full and deeper: a network is trained on the photos at hand, tested, and kept like any run."""

import os
from collections.abc import Sequence
from pathlib import Path

from headstart import runs
from headstart.backbones import Backbone, open_backbone
from headstart.config import TrainConfig
from headstart.errors import ConfigError, OutputError
from headstart.files import shown
from headstart.job import outcome
from headstart.job.advice import Standing, cuts_to_probe, picture_of, probe, stand
from headstart.job.material import Material, Say, Timings, look
from headstart.job.preparations import PREPARATIONS, Preparation
from headstart.job.trained import Trained, callbacks_of, class_weights_of, write_trained
from headstart.job.unfinished import Unfinished
from headstart.readers import open_dataset
from headstart.runs.places import new_run_path
from headstart.training.loop import fit
from headstart.training.probes import dead_shares
from headstart.transfer.probes import Probe


def train_network(
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
    """Train by the strategy that `config` names; arguments, result and errors as of `headstart.job.train`."""
    clock = Timings()
    with clock.step("scan"):
        dataset = open_dataset(data, follow_links=follow_links)
        place = new_run_path(out, dataset.name, overwrite=overwrite, resume=resume)
        unfinished = Unfinished(place, resume=resume, overwrite=overwrite)
        if (run := unfinished.finished_run()) is not None:
            say(f"{shown(place)} is complete: nothing was left to resume")
            return run
        if os.path.lexists(place) and not overwrite:
            raise OutputError(f"{shown(place)} exists already; add --overwrite to replace it when the training is done")
        say(f"{len(dataset.photos):,} photos in {len(dataset.classes)} classes; the run goes to {shown(place)}")
    with clock.step("start"):
        pretrained = config.strategy != "scratch"
        weights = Path(config.weights) if config.weights else None
        backbone = open_backbone(config.backbone, weights, say=say) if pretrained else None
    with clock.step("features" if pretrained else "scan"):
        cuts = ("pooled",) if backbone is None or backbone.norms else cuts_to_probe(backbone)
        material = look(dataset, config, backbone, cuts=cuts, quiet=quiet, say=say)
        standing = None if backbone is None else stand(material, backbone, config, _probed(material, backbone, config))
    try:
        with clock.step("fit"):
            asked = config if standing is None else standing.with_augmentation(config)
            ready = PREPARATIONS[config.strategy](material, asked, backbone, quiet=quiet, say=say)
            trained = run_training(
                ready,
                material,
                unfinished=unfinished,
                fresh=not unfinished.open(config, material.about["fingerprint"]),
                checkpoint_seconds=checkpoint_seconds,
                quiet=quiet,
                say=say,
            )
        run = write_trained(
            place,
            config,
            material,
            trained,
            lambda classifier, _: outcome.trained_plan(
                ready.config,
                classifier,
                material.split,
                trained.epochs,
                case="scratch" if standing is None else standing.case.name,
                begun=_begun(config, standing),
                why=ready.why,
                told=ready.told | ({} if standing is None else standing.to_json()),
            ),
            clock,
            picture="" if standing is None else picture_of(dataset.name, standing),
            overwrite=overwrite,
            quiet=quiet,
        )
    except KeyboardInterrupt:
        if not unfinished.checkpoint.exists():
            raise
        again = f"the same command with --resume goes on from there ({shown(unfinished.folder)})"
        raise KeyboardInterrupt(again) from None
    finally:
        unfinished.release()
    unfinished.remove()
    return run


def run_training(
    ready: Preparation,
    material: Material,
    *,
    unfinished: Unfinished | None = None,
    fresh: bool = True,
    checkpoint_seconds: float = 60.0,
    quiet: bool,
    say: Say,
) -> Trained:
    """Run a training that is prepared.

    Args:
        ready: the training.
        material: for the weights of its classes.
        unfinished: where its state is kept; None: nowhere.
        fresh: begin anew, whatever is kept there.
        checkpoint_seconds: how often it is kept.
        quiet: show no progress line.
        say: told what happens.

    Raises:
        ConfigError: the training diverged.
    """
    history = fit(
        ready.net,
        ready.training,
        ready.validation,
        ready.config,
        callbacks=callbacks_of(ready.config),
        checkpoint=None if unfinished is None else unfinished.checkpoint,
        checkpoint_seconds=checkpoint_seconds,
        resume=not fresh,
        class_weights=class_weights_of(material, ready.config),
        rate_of=ready.rate_of,
        quiet=quiet,
        say=say,
    )
    if history.stopped == "diverged":
        if unfinished is not None:
            unfinished.remove()
        raise ConfigError(f"the training diverged: {history.reason}")
    return Trained(
        epochs=outcome.rows_of(history.rows),
        dead=dead_shares(ready.net, next(iter(ready.validation.epoch(0)))[0]),
        take_apart=lambda: ready.finish(ready.net),
    )


def _probed(material: Material, backbone: Backbone, config: TrainConfig) -> Sequence[Probe]:
    """Probes at every cut, which stand in for batch norms where the backbone has none."""
    return () if backbone.norms else probe(material, config, cuts_to_probe(backbone))


def _begun(config: TrainConfig, standing: Standing | None) -> Sequence[str]:
    if standing is None:
        name = config.net or config.backbone
        return [f"{name} was to be trained from random weights, so no pretrained backbone was used."]
    return [f"Strategy {config.strategy} was asked for.", *standing.why]
