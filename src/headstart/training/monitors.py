"""The callbacks that watch one quantity get better."""

import math
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from torch import Tensor

from headstart.errors import ConfigError
from headstart.files import shown, write_atomic, write_failure
from headstart.training.hooks import Callback, Logs


class Monitor(Callback):
    """Base of the callbacks that watch one quantity get better.

    Args:
        monitor: a key of the logs.
        mode: `min` or `max` is better; `auto`: more is better for an accuracy, less for anything else.
        min_delta: an improvement by no more than this is none.
        best: what the first value must beat; None: nothing.

    Raises:
        ConfigError: the mode is none of these.
    """

    def __init__(self, monitor: str, mode: str, min_delta: float = 0.0, best: float | None = None) -> None:
        if mode not in ("auto", "min", "max"):
            raise ConfigError(f"mode must be auto, min or max; received {mode!r}")
        self.monitor, self.mode, self.min_delta = monitor, mode, abs(min_delta)
        self.more_is_better = mode == "max" or (mode == "auto" and monitor.endswith("accuracy"))
        self.best = best

    def on_train_begin(self, logs: Logs) -> None:  # noqa: ARG002 - as every hook
        """Refuse a quantity that this training does not measure. Raises ConfigError."""
        if self.monitor not in self.loop.measures:
            raise ConfigError(
                f"{type(self).__name__} watches {self.monitor!r}, which this training does not measure; "
                f"choose one of: {', '.join(self.loop.measures)}"
            )

    def is_improvement(self, value: float, reference: float | None) -> bool:
        """Is the value better than the reference by more than `min_delta`?"""
        if not math.isfinite(value):
            return False
        if reference is None:
            return True
        if self.more_is_better:
            return value - self.min_delta > reference
        return value + self.min_delta < reference


class EarlyStopping(Monitor):
    """Stop when the watched quantity has not improved for `patience` epochs, and go back to the best weights.

    Args:
        monitor, min_delta, mode: as of `Monitor`.
        patience: epochs without improvement after which the training ends.
        verbose: 1: say what happens.
        baseline: only what beats this starts the waiting anew.
        restore_best_weights: end with the weights of the best epoch, not with the last ones.
        start_from_epoch: epochs before this one are not looked at.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = True,
        start_from_epoch: int = 0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        self.patience, self.verbose, self.baseline = patience, verbose, baseline
        self.restore_best_weights, self.start_from_epoch = restore_best_weights, start_from_epoch

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        super().on_train_begin(logs)
        self.best, self.best_epoch, self.wait, self.stopped_epoch = None, 0, 0, 0
        self.best_weights: dict[str, Tensor] = {}

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Count the epochs without improvement."""
        if epoch < self.start_from_epoch:
            return
        value = logs[self.monitor]
        self.wait += 1
        if self.is_improvement(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = {name: one.clone() for name, one in self.loop.net.state_dict().items()}
            if self.baseline is None or self.is_improvement(value, self.baseline):
                self.wait = 0
        elif self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            best = f"; the best was epoch {self.best_epoch + 1}, with {self.best:g}" if self.best is not None else ""
            self.loop.stop_with("early stopping", f"{self.monitor} has not improved for {self.wait} epochs{best}")

    def on_train_end(self, logs: Logs) -> None:  # noqa: ARG002 - as every hook
        """Give the best weights back."""
        if self.stopped_epoch and self.verbose:
            self.loop.say(f"epoch {self.stopped_epoch + 1}: early stopping")
        if self.best_weights:
            self.loop.net.load_state_dict(self.best_weights)
            if self.verbose:
                self.loop.say(f"the weights are those of the best epoch: {self.best_epoch + 1}")

    def state_dict(self) -> dict[str, Any]:
        """Counters and the best weights."""
        plain = {"best": self.best, "best_epoch": self.best_epoch, "wait": self.wait, "stopped": self.stopped_epoch}
        return plain | {f"weights.{name}": value for name, value in self.best_weights.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.best, self.best_epoch, self.wait = state["best"], state["best_epoch"], state["wait"]
        self.stopped_epoch = state["stopped"]
        self.best_weights = {
            name.removeprefix("weights."): value for name, value in state.items() if isinstance(value, Tensor)
        }


class ReduceLROnPlateau(Monitor):
    """Lower the learning rate when the watched quantity has not improved for `patience` epochs.

    Args:
        monitor, min_delta, mode: as of `Monitor`.
        factor: the new rate is the old times this, 0 < factor < 1.
        patience: epochs without improvement.
        verbose: 1: say what happens.
        cooldown: epochs after a change in which nothing is counted.
        min_lr: the rate never gets lower.

    Raises:
        ConfigError: the factor is not below 1.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        super().__init__(monitor, mode, min_delta)
        if not 0 < factor < 1:
            raise ConfigError(f"ReduceLROnPlateau needs a factor between 0 and 1; received {factor:g}")
        self.factor, self.patience, self.verbose = factor, patience, verbose
        self.cooldown, self.min_lr = cooldown, min_lr

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        super().on_train_begin(logs)
        self.best, self.wait, self.cooldown_counter = None, 0, 0

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Count the epochs without improvement, but for those of the cooldown."""
        if self.cooldown_counter:
            self.cooldown_counter -= 1
            self.wait = 0
        if self.is_improvement(logs[self.monitor], self.best):
            self.best, self.wait = logs[self.monitor], 0
        elif not self.cooldown_counter:
            self.wait += 1
            if self.wait >= self.patience and self.loop.learning_rate > self.min_lr:
                self.loop.learning_rate = max(self.loop.learning_rate * self.factor, self.min_lr)
                self.cooldown_counter, self.wait = self.cooldown, 0
                if self.verbose:
                    self.loop.say(f"epoch {epoch + 1}: the learning rate is now {self.loop.learning_rate:g}")

    def state_dict(self) -> dict[str, Any]:
        """Counters and the best value."""
        return {"best": self.best, "wait": self.wait, "cooldown_counter": self.cooldown_counter}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.best, self.wait, self.cooldown_counter = state["best"], state["wait"], state["cooldown_counter"]


class ModelCheckpoint(Monitor):
    """Write the weights to a safetensors file, complete or not at all: the best so far, or all.

    Args:
        filepath: the file; `{epoch:02d}` and keys of the logs such as `{val_loss:.2f}` are filled in.
        monitor, mode: as of `Monitor`.
        verbose: 1: say what happens.
        save_best_only: write only when the watched quantity has improved.
        save_weights_only: always true here: the architecture is code of this program and not stored.
        save_freq: "epoch", or every so many batches.
        initial_value_threshold: what the first value must beat.

    Raises:
        ConfigError: a value is none of these.
    """

    def __init__(
        self,
        filepath: str | Path,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = True,
        save_weights_only: bool = True,
        mode: str = "auto",
        save_freq: Literal["epoch"] | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        super().__init__(monitor, mode, best=initial_value_threshold)
        if not save_weights_only:
            raise ConfigError("ModelCheckpoint writes weights only; leave save_weights_only as it is")
        if save_freq != "epoch" and (isinstance(save_freq, str) or save_freq < 1):
            raise ConfigError(f"save_freq must be 'epoch' or a number of batches >= 1; received {save_freq!r}")
        self.filepath, self.verbose, self.save_best_only = str(filepath), verbose, save_best_only
        self.save_freq, self.threshold, self.batches = save_freq, initial_value_threshold, 0

    def on_train_begin(self, logs: Logs) -> None:
        """Forget an earlier training."""
        if self.save_best_only:
            super().on_train_begin(logs)
        self.best, self.batches = self.threshold, 0

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Count batches, where they decide."""
        if isinstance(self.save_freq, int):
            self.batches += 1
            if self.batches >= self.save_freq:
                self.batches = 0
                self._save(self.loop.epoch, logs | {"batch": batch + 1})

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write, where epochs decide."""
        if self.save_freq == "epoch":
            self._save(epoch, logs)

    def _save(self, epoch: int, logs: Logs) -> None:
        if self.save_best_only:
            if self.monitor not in logs:
                raise ConfigError(f"{self.monitor} is known at the end of an epoch only; set save_freq to 'epoch'")
            if not self.is_improvement(logs[self.monitor], self.best):
                return
            self.best = logs[self.monitor]
        try:
            path = Path(self.filepath.format(epoch=epoch + 1, **logs))
        except (KeyError, ValueError, IndexError) as error:
            raise ConfigError(
                f"the file name {self.filepath!r} cannot be filled in ({error}); known: epoch, {', '.join(logs)}"
            ) from error
        if self.loop.writes:
            _write_weights(path, self.loop.net.state_dict())
            if self.verbose:
                self.loop.say(f"epoch {epoch + 1}: the weights are written to {shown(path)}")

    def state_dict(self) -> dict[str, Any]:
        """The best value, and how many batches since the last file."""
        return {"best": self.best, "batches": self.batches}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.best, self.batches = state["best"], state["batches"]


def _write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(path, error) from error
    write_atomic(path, safetensors.torch.save({name: value.cpu().contiguous() for name, value in tensors.items()}))
