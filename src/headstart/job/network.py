"""Strategies scratch, full and deeper: a network is trained on the photos at hand, tested, and kept like any run."""

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart import runs
from headstart.backbones import Backbone, open_backbone
from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.errors import ConfigError, OutputError
from headstart.files import shown
from headstart.job import outcome
from headstart.job.advice import Standing, cuts_to_probe, picture_of, probe, stand
from headstart.job.material import Material, Say, Timings, look, with_all_photos
from headstart.job.preparations import PREPARATIONS, Preparation
from headstart.job.trained import Trained, callbacks_of, class_weights_of, write_trained
from headstart.job.unfinished import Unfinished
from headstart.readers import open_dataset
from headstart.runs.places import new_run_path
from headstart.training.distributed import ALONE, Place, share
from headstart.training.evaluation import predict_logits
from headstart.training.history import History
from headstart.training.loop import fit
from headstart.training.probes import dead_shares
from headstart.transfer.probes import Probe

LATE = 0.7  # share of the epochs
MANY = 2_000  # training photos from which a fifth more of them is not worth a second training


@dataclass(eq=False)
class Underway:
    """A training of a network that is ready to run, and how it becomes a run.

    Args:
        place: the run directory that it will be.
        config: the settings as they were given.
        material: the photos.
        ready: what is trained on what.
        standing: the case of transfer learning; None: from scratch.
        unfinished: where its state is kept.
        fresh: it begins anew; False: it goes on from that state.
        clock: seconds of each step.
        among: this process among those that train together.
        quiet: show no progress line.
        say: told what happens.
    """

    place: Path
    config: TrainConfig
    material: Material
    ready: Preparation
    standing: Standing | None
    unfinished: Unfinished
    fresh: bool
    clock: Timings
    among: Place
    quiet: bool
    say: Say

    def train(self, checkpoint_seconds: float = 60.0) -> Trained:
        """Train; `checkpoint_seconds` is how often the state is kept.

        Raises:
            ConfigError: the training diverged.
        """
        with self.clock.step("fit"):
            common: dict[str, Any] = {
                "unfinished": self.unfinished,
                "fresh": self.fresh,
                "checkpoint_seconds": checkpoint_seconds,
                "quiet": self.quiet,
                "say": self.say,
            }
            trained = run_training(self.ready, self.material, among=self.among, **common)
            return train_again(self.ready, trained, self.material, **common)

    def write(self, trained: Trained, *, overwrite: bool) -> runs.Run:
        """Test what was trained and write its run; of processes that train together one does so."""
        standing = self.standing
        return write_trained(
            self.place,
            self.config,
            self.material,
            trained,
            lambda classifier, _: outcome.trained_plan(
                self.ready.config,
                classifier,
                self.material.split,
                trained.epochs,
                kept=trained.kept,
                case="scratch" if standing is None else standing.case.name,
                begun=_begun(self.config, standing, self.among),
                why=self.ready.why,
                told=self.ready.told | ({} if standing is None else standing.to_json()),
                photos=trained.photos,
            ),
            self.clock,
            picture="" if standing is None else picture_of(self.material.dataset.name, standing),
            overwrite=overwrite,
            quiet=self.quiet,
        )


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
    with underway(
        dataset, place, unfinished, config, clock, overwrite=overwrite, resume=resume, quiet=quiet, say=say
    ) as job:
        return job.write(job.train(checkpoint_seconds), overwrite=overwrite)


@contextmanager
def underway(
    dataset: Dataset,
    place: Path,
    unfinished: Unfinished,
    config: TrainConfig,
    clock: Timings,
    *,
    among: Place = ALONE,
    overwrite: bool,
    resume: bool,
    quiet: bool,
    say: Say,
) -> Iterator[Underway]:
    """Everything up to the first step of a training; after the block, which trains and writes, its state is forgotten.

    Args:
        dataset: the photos.
        place: the run directory that it will be.
        unfinished: the folder of its state.
        config: the settings.
        clock: takes the seconds of each step.
        among: this process among those that train together; the first has charge of the state.
        overwrite: a run at `place` may be replaced.
        resume: go on from the state that was kept.
        quiet: show no progress line.
        say: told what happens.

    Raises:
        HeadstartError: the data, the settings or the place to write to cannot be used.
    """
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
            asked = config if standing is None else standing.with_choices(config)
            ready = PREPARATIONS[config.strategy](material, asked, backbone, among=among, quiet=quiet, say=say)
            if among.writes:
                fresh = not unfinished.open(config, material.about["fingerprint"])
            else:
                fresh = not (resume and unfinished.checkpoint.exists())
        yield Underway(place, config, material, ready, standing, unfinished, fresh, clock, among, quiet=quiet, say=say)
    except KeyboardInterrupt:
        if not unfinished.checkpoint.exists():
            raise
        again = f"the same command with --resume goes on from there ({shown(unfinished.folder)})"
        raise KeyboardInterrupt(again) from None
    finally:
        unfinished.release()
    if among.writes:
        unfinished.remove()


def run_training(
    ready: Preparation,
    material: Material,
    *,
    unfinished: Unfinished | None = None,
    fresh: bool = True,
    checkpoint_seconds: float = 60.0,
    among: Place = ALONE,
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
        among: this process among those that train together.
        quiet: show no progress line.
        say: told what happens.

    Raises:
        ConfigError: the training diverged.
    """
    settings: dict[str, Any] = {"checkpoint_seconds": checkpoint_seconds, "resume": not fresh}
    place = None if unfinished is None else unfinished.checkpoint
    history = _fit(ready, material, place, among=among, quiet=quiet, say=say, **settings)
    if history.stopped == "diverged":
        if unfinished is not None and among.writes:
            unfinished.remove()
        raise ConfigError(f"the training diverged: {history.reason}")
    net = ready.net.cpu()
    return Trained(
        epochs=(rows := outcome.rows_of(history.rows)),
        kept=history.kept or int((outcome.best_row(rows) if ready.config.keep == "best" else rows[-1])["epoch"]),
        dead=dead_shares(net, next(iter((ready.validation or ready.training).epoch(0)))[0]) if among.writes else {},
        take_apart=lambda: ready.finish(net),
    )


def train_again(
    ready: Preparation,
    trained: Trained,
    material: Material,
    *,
    unfinished: Unfinished | None = None,
    fresh: bool = True,
    checkpoint_seconds: float = 60.0,
    left: float = math.inf,
    quiet: bool,
    say: Say,
) -> Trained:
    """The same training on the validation photos too: what they had to tell is known then, and photos are few.

    It is left out where the settings say so, where the data gave the validation photos, where there are many photos, or
    where the best epoch came early: a schedule that was cut off cannot be repeated on other photos. It is dropped where
    it is right on fewer of the validation photos, which it learns from, than the first one that had not seen them.

    Args:
        ready, trained: the first training, and what it left.
        material, unfinished, fresh, checkpoint_seconds, quiet, say: as of `run_training`.
        left: seconds that it may take, by how long the first one took.

    Returns:
        What the second training left, with the first one's word on the validation photos; else `trained`.
    """
    split, config = with_all_photos(material.split), ready.config
    if ready.again is None or ready.validation is None or split is None or not config.again:
        return trained
    if len(split.train) > MANY or len(trained.epochs) < config.epochs or trained.kept < LATE * config.epochs:
        return trained
    cost = sum(row["seconds"] for row in trained.epochs) * len(split.train) / max(len(material.split.train), 1)
    if cost > left:
        say(f"too little of the budget is left ({left:,.0f} s) to train again on all photos, which takes {cost:,.0f} s")
        return trained
    held_out = predict_logits(ready.net, ready.validation).numpy()
    say(f"training again on all {len(split.train):,} photos, those of the validation among them")
    whole = replace(material, split=split)
    second = ready.again(whole)
    settings: dict[str, Any] = {"checkpoint_seconds": checkpoint_seconds, "resume": not fresh}
    place = None if unfinished is None else unfinished.again
    history = _fit(second, whole, place, among=ALONE, quiet=quiet, say=say, **settings)
    if history.stopped == "diverged":
        say(f"that training diverged ({history.reason}); the first one is kept")
        return trained
    net = second.net.cpu()
    labels = material.labels(material.split.validation)
    seen, unseen = (
        int((logits.argmax(axis=1) == labels).sum())
        for logits in (predict_logits(net, ready.validation).numpy(), held_out)
    )
    if seen < unseen:  # one of a few dozen trainings breaks down on the way, and no validation tells of this one
        say(
            f"that training failed: it is right on {seen} of the {len(labels)} photos it learned from, the first one "
            f"on {unseen} without having seen them; the first one is kept"
        )
        return trained
    return replace(trained, take_apart=lambda: second.finish(net), held_out=held_out, photos=len(split.train))


def _fit(ready: Preparation, material: Material, checkpoint: Path | None, *, among: Place, **settings: Any) -> History:
    return fit(
        share(ready.net, among),
        ready.training,
        ready.validation,
        ready.config,
        callbacks=callbacks_of(ready.config, ready.validation),
        checkpoint=checkpoint,
        class_weights=class_weights_of(material, ready.config),
        rate_of=ready.rate_of,
        **settings,
    )


def _probed(material: Material, backbone: Backbone, config: TrainConfig) -> Sequence[Probe]:
    """Probes at every cut, which stand in for batch norms where the backbone has none."""
    return () if backbone.norms else probe(material, config, cuts_to_probe(backbone))


def _begun(config: TrainConfig, standing: Standing | None, among: Place) -> Sequence[str]:
    shared = [f"{among.world} processes trained it together."] if among.world > 1 else []
    if standing is None:
        name = config.net or config.backbone
        return [f"{name} was to be trained from random weights, so no pretrained backbone was used.", *shared]
    return [f"Strategy {config.strategy} was asked for.", *standing.why]
