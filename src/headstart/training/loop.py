"""The loop that trains a net: forward, loss, backward, step, on four lines one below the other."""

import dataclasses
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed, nn

from headstart.config import LoopConfig
from headstart.errors import ConfigError, DataError, RunError
from headstart.training import checkpoint as files
from headstart.training.batches import Batches
from headstart.training.callbacks import Callback, ReduceLROnPlateau
from headstart.training.evaluation import (
    Tally,
    device_of,
    evaluate,
    forward_all,
    layout_of,
    predict_logits,
    summed,
)
from headstart.training.history import History, LoopState, Row
from headstart.training.interrupts import interrupt_kept
from headstart.training.live import LiveLine, describe_epoch
from headstart.training.losses import make_loss
from headstart.training.optimisers import make_optimiser, set_rate, usual_rate
from headstart.training.schedules import learning_rate_at
from headstart.training.surroundings import check_net, seed_dropout, surroundings, together

__all__ = ["History", "evaluate", "fit", "predict_logits"]

FETCH_EVERY = 16  # steps between two looks at the loss where the net is on an accelerator or on several computers
NORM_EVERY = 8  # steps between two measurements of the gradient's length
ANY_EPOCHS = ("constant", "plateau")  # schedules that do not look at the number of epochs


def fit(
    net: nn.Module,
    train: Batches,
    validation: Batches | None,
    config: LoopConfig,
    *,
    callbacks: Sequence[Callback] = (),
    checkpoint: Path | None = None,
    checkpoint_seconds: float = 60.0,
    resume: bool = False,
    class_weights: Tensor | None = None,
    rate_of: Callable[[str], float] | None = None,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> History:
    """Train a net.

    The same net, batches and settings give the same weights, bit for bit, on the same machine with the same number of
    threads, and so does a training that was killed and resumed any number of times. What dropout draws depends on the
    seed and the step alone; the caller's random numbers, the modes of every layer and the number of threads are left as
    they were found. Batch norms whose parameters are all frozen run as in evaluation, as in Keras.

    Args:
        net: gives logits (batch, classes); trained in place.
        train: what it is trained on.
        validation: measured at the end of each epoch, without class weights.
        config: the settings.
        callbacks: called in this order.
        checkpoint: where the state is kept; None: nowhere.
        checkpoint_seconds: how often, at least; it is also written at the end, and when interrupted.
        resume: go on from the checkpoint, if there is one.
        class_weights: (classes,), how much each class counts in the loss; None: each 1.
        rate_of: from a parameter's name to the share of the learning rate that it is trained at; None: 1 for all.
        quiet: show no progress on stderr.
        say: takes sentences for the user; None: they go to stderr, unless quiet.

    Returns:
        A row of numbers for each epoch. A loss that is no number any more ends the training: `stopped` is "diverged".

    Raises:
        ConfigError: a setting is unknown or out of range.
        DataError: there is nothing to train on, or a photo holds values that are no numbers.
        ShapeError: the net does not take these photos, or has another number of classes.
        RunError: the checkpoint is damaged, or of another training.
        KeyboardInterrupt: the user interrupted; the checkpoint is written first.
    """
    loop = _Loop(net, train, validation, config, callbacks, class_weights, rate_of)
    loop.show(quiet, say)
    with surroundings(net, config):
        check_net(net, train)
        if checkpoint is not None and resume and checkpoint.exists():
            loop.load(checkpoint)
        loop.keep(checkpoint, checkpoint_seconds)
        loop.run()
    return loop.state.history


class _Loop:
    """One training: what it works with, and where it stands."""

    def __init__(
        self,
        net: nn.Module,
        train: Batches,
        validation: Batches | None,
        config: LoopConfig,
        callbacks: Sequence[Callback],
        class_weights: Tensor | None,
        rate_of: Callable[[str], float] | None,
    ) -> None:
        _check_settings(train, config)
        self.net, self.train, self.validation, self.config = net, train, validation, config
        self.plain = net.module if isinstance(net, nn.parallel.DistributedDataParallel) else net
        self.device = device_of(net)
        if class_weights is not None:
            class_weights = class_weights.to(self.device)
        self.loss = make_loss(config, train.classes, class_weights)
        self.plain_loss = make_loss(config, train.classes)
        self.optimiser = make_optimiser(net, config, self._watch, rate_of)
        self.state = LoopState(self.plain, self.optimiser, config, train.steps, usual_rate(config))
        validated = () if validation is None else ("val_loss", "val_accuracy")
        self.state.measures = ("loss", "accuracy", *validated, "learning_rate")
        self.state.writes = not together() or distributed.get_rank() == 0
        self.callbacks = [*callbacks]
        if config.schedule == "plateau" and not any(isinstance(one, ReduceLROnPlateau) for one in callbacks):
            self.callbacks.append(ReduceLROnPlateau("loss" if validation is None else "val_loss"))
        self.batch_begins = [one.on_train_batch_begin for one in self.callbacks if _has(one, "on_train_batch_begin")]
        self.batch_ends = [one.on_train_batch_end for one in self.callbacks if _has(one, "on_train_batch_end")]
        alone = self.device.type == "cpu" and not together()
        self.fetch_every = 1 if alone or self.batch_ends else FETCH_EVERY
        self.tally, self.norms, self.norm_count = Tally(self.fetch_every), 0.0, 0
        self.rate, self.seconds, self.finished = math.nan, 0.0, False
        self.path: Path | None = None
        self.layout = torch.contiguous_format
        self.remembered: list[dict[str, Any]] = []
        for one in self.callbacks:
            one.loop = self.state

    # ---- training -----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """All epochs that are left."""
        state, history = self.state, self.state.history
        self.layout = layout_of(self.plain)
        self.optimiser.zero_grad(set_to_none=True)
        if self.finished:
            self.say(f"the training is over already: {len(history.rows)} epochs are in the checkpoint")
            return
        with interrupt_kept(self.path is not None) as self.interrupt, self.line:
            self._call("on_train_begin", {})
            for one, remembered in zip(self.callbacks, self.remembered, strict=False):
                one.load_state(remembered)
            while state.epoch < self.config.epochs and not state.stopping:
                self._run_epoch()
            self._call("on_train_end", dict(history.rows[-1]) if history.rows else {})
            self.finished = True
            self.save()
            if state.stopping:
                self.say(f"training ended early: {history.reason}")

    def _run_epoch(self) -> None:
        state, begun = self.state, time.monotonic() - self.seconds
        if state.batch == 0:
            self._call("on_epoch_begin", state.epoch, {})
        self._train_modes()
        if state.batch < state.steps:
            for images, targets in self.train.epoch(state.epoch, first=state.batch):
                self._step(images, targets)
                self.seconds = time.monotonic() - begun
                self._between_batches()
                if state.stopping:
                    break
        row = self._row(begun)
        logs = {name: value for name, value in row.items() if name not in ("epoch", "seconds", "gradient_norm")}
        state.history.rows.append(row)
        self._call("on_epoch_end", state.epoch, logs)
        self.line.print_above(describe_epoch(row, self.config.epochs))
        state.epoch, state.batch, self.seconds = state.epoch + 1, 0, 0.0
        self.tally, self.norms, self.norm_count = Tally(self.fetch_every), 0.0, 0
        self._between_batches()

    def _step(self, images: Tensor, targets: Tensor) -> None:
        """One batch: forward, loss, backward, step."""
        state = self.state
        step = state.epoch * state.steps + state.batch
        self._set_rate(learning_rate_at(self.config, state.learning_rate, step, state.steps))
        seed_dropout(self.config.seed, step, self.device)
        images = images.to(self.device, non_blocking=True, memory_format=self.layout)
        targets = targets.to(self.device, non_blocking=True)
        for hook in self.batch_begins:
            hook(state.batch, {})

        logits = self.net(images)
        loss = self.loss(logits, targets)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()

        self.optimiser.zero_grad(set_to_none=True)
        self.tally.add(loss, logits, targets)
        state.batch += 1
        self._look_for_divergence(images)
        if self.batch_ends:
            means = self.tally.means()
            logs = {"loss": means[0], "accuracy": means[1], "learning_rate": self.rate}
            for hook in self.batch_ends:
                hook(state.batch - 1, logs)
        self.line.advance(len(targets))

    def _look_for_divergence(self, images: Tensor) -> None:
        if self.state.batch % self.fetch_every and self.state.batch < self.state.steps:
            return
        self.tally.fetch()
        if math.isfinite(summed([self.tally.loss_sum])[0]):
            return
        if not bool(torch.isfinite(images).all()):
            raise DataError(
                f"a photo of batch {self.state.batch} of epoch {self.state.epoch + 1} holds values that are no "
                "numbers (not-a-number or infinite); run headstart scan to find what cannot be used"
            )
        self.state.stop_with(
            "diverged",
            f"the loss became {self.tally.loss_sum} in epoch {self.state.epoch + 1}, batch {self.state.batch}, at "
            f"learning rate {self.rate:g}; train again with a tenth of that rate, or with --clip-norm 1",
        )

    def _row(self, begun: float) -> Row:
        """The numbers of an epoch; those of the validation are not-a-number where the training diverged."""
        state = self.state
        loss, accuracy = self.tally.over_all_processes()
        row = {"epoch": float(state.epoch + 1), "loss": loss, "accuracy": accuracy}
        if self.validation is not None:
            diverged = state.history.stopped == "diverged"
            row["val_loss"], row["val_accuracy"] = (math.nan, math.nan) if diverged else self._validate(self.validation)
        row["learning_rate"] = self.rate
        row["seconds"] = time.monotonic() - begun
        row["gradient_norm"] = self.norms / self.norm_count if self.norm_count else math.nan
        return row

    def _validate(self, validation: Batches) -> tuple[float, float]:
        tally = Tally(FETCH_EVERY)
        for logits, targets in forward_all(self.plain, validation):
            tally.add(self.plain_loss(logits, targets), logits, targets)
            self._stop_if_interrupted()
        return tally.over_all_processes()

    def _train_modes(self) -> None:
        """Training for all layers, but evaluation for those whose own parameters are all frozen."""
        self.net.train()
        for module in self.net.modules():
            own = list(module.parameters(recurse=False))
            if own and not any(parameter.requires_grad for parameter in own):
                module.eval()

    def _set_rate(self, rate: float) -> None:
        if rate != self.rate:
            self.rate = rate
            set_rate(self.optimiser, rate)

    def _watch(self, gradients: list[Tensor]) -> None:
        """Measure the gradient's length every few steps."""
        if self.state.batch % NORM_EVERY == 0:
            self.norms += float(nn.utils.get_total_norm(gradients))
            self.norm_count += 1

    def _call(self, hook: str, *arguments: Any) -> None:
        for one in self.callbacks:
            getattr(one, hook)(*arguments)

    # ---- what the user sees -------------------------------------------------------------------------------------

    def show(self, quiet: bool, say: Callable[[str], None] | None) -> None:
        """Say where sentences go."""
        self.quiet = quiet
        self.say = self.state.say = say or (lambda text: None if quiet else print(text, file=sys.stderr))

    def _numbers(self) -> tuple[int, float, float]:
        return self.state.epoch + 1, *self.tally.means()

    # ---- the checkpoint -----------------------------------------------------------------------------------------

    def keep(self, path: Path | None, seconds: float) -> None:
        """Say where the state is kept and how often, now that it is known where the training stands."""
        state = self.state
        left = (self.config.epochs - state.epoch) * self.train.images - state.batch * self.config.batch_size
        self.line = LiveLine(max(left, 0), self.config.epochs, self._numbers, quiet=self.quiet)
        self.path = path if state.writes else None
        self.save_every, self.saved = seconds, time.monotonic()

    def _between_batches(self) -> None:
        """The places where a training can be cut: nothing is half done."""
        if self.path is not None and time.monotonic() - self.saved >= self.save_every:
            self.save()
        self._stop_if_interrupted()

    def _stop_if_interrupted(self) -> None:
        if self.interrupt.seen:
            self.save()
            raise KeyboardInterrupt

    def save(self) -> None:
        """Write the checkpoint, where one is kept."""
        if self.path is None:
            return
        self.tally.fetch()
        tensors = files.net_tensors(self.plain) | files.optimiser_tensors(self.optimiser)
        kept = []
        for number, one in enumerate(self.callbacks):
            plain, own = files.split_state(one.state_dict(), f"callbacks/{number}/")
            kept.append(plain)
            tensors |= own
        document = {
            "loop": self.state.to_document(),
            "tally": [self.tally.loss_sum, self.tally.right, self.tally.images, self.norms, self.norm_count],
            "seconds": self.seconds,
            "rate": self.rate,
            "finished": self.finished,
            "callbacks": kept,
            "identity": self._identity(),
        }
        files.write_checkpoint(self.path, files.Checkpoint(document, tensors))
        self.saved = time.monotonic()

    def load(self, path: Path) -> None:
        """Stand where the checkpoint stands. Raises RunError if it is damaged or of another training."""
        kept = files.read_checkpoint(path)
        document = kept.document
        self._check_identity(document)
        files.restore_net(self.plain, kept.tensors)
        files.restore_optimiser(self.optimiser, kept.tensors)
        self.remembered = [
            files.join_state(plain, kept.tensors, f"callbacks/{number}/")
            for number, plain in enumerate(document["callbacks"])
        ]
        self.state.restore(document["loop"])
        sums = document["tally"]
        self.tally.loss_sum, self.tally.right, self.tally.images, self.norms, self.norm_count = sums
        self.seconds, self.finished = document["seconds"], document["finished"]
        self._set_rate(document["rate"])
        if self.finished and not self.state.stopping and self.state.epoch < self.config.epochs:
            self.finished = False  # more epochs than before
        self.say(f"going on from the checkpoint: epoch {self.state.epoch + 1}, batch {self.state.batch + 1}")

    def _identity(self) -> dict[str, Any]:
        """What must be the same for a checkpoint to go on."""
        settings = {field.name: getattr(self.config, field.name) for field in dataclasses.fields(LoopConfig)}
        settings.pop("threads")
        if self.config.schedule in ANY_EPOCHS:
            settings.pop("epochs")
        train = self.train
        data = {"images": train.images, "classes": train.classes, "shape": list(train.shape), "steps": train.steps}
        return {**settings, **data, "callbacks": [type(one).__name__ for one in self.callbacks]}

    def _check_identity(self, document: dict[str, Any]) -> None:
        then = document["identity"]
        for name, now in self._identity().items():
            if then.get(name) != now:
                raise RunError(
                    f"the checkpoint is of another training: {name} was {then.get(name)} and is {now}; "
                    "start again without resuming, or with the same settings, photos and callbacks"
                )


def _has(callback: Callback, hook: str) -> bool:
    return getattr(getattr(callback, hook), "__func__", None) is not getattr(Callback, hook)


def _check_settings(train: Batches, config: LoopConfig) -> None:
    if config.epochs < 1 or config.batch_size < 1:
        raise ConfigError(
            f"epochs and batch_size must be 1 or more; received epochs={config.epochs}, batch_size={config.batch_size}"
        )
    if train.images < 1 or train.steps < 1:
        raise DataError("there is no photo to train on; give at least one photo a class")
