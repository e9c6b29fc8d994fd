"""What a training remembers: a row of numbers an epoch, and the state that callbacks look at."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from torch import nn, optim

from headstart.config import LoopConfig

Row = dict[str, float]


@dataclass
class History:
    """How a training went.

    Args:
        rows: one an epoch, in order: `epoch` (from 1), `loss`, `accuracy` (of the training photos, as they were
            trained on), `val_loss`, `val_accuracy` (where there are validation photos), `learning_rate` (at the end of
            the epoch), `seconds`, `gradient_norm` (length of the gradient, the mean of a sample of steps).
        stopped: why it ended before its last epoch, for example "diverged"; "" where it did not.
        reason: the same as a sentence.
        kept: the epoch, from 1, whose weights the net has, where a callback chose; 0: none did.
    """

    rows: list[Row] = field(default_factory=list)
    stopped: str = ""
    reason: str = ""
    kept: int = 0


@dataclass
class LoopState:
    """Where a training stands. Callbacks may read all of it, set `learning_rate`, and call `stop_with`.

    Args:
        net: what is trained.
        optimiser: what trains it.
        config: the settings.
        steps: batches an epoch.
        learning_rate: the highest rate of the schedule, > 0.
        history: the rows of the epochs that are over.
        epoch: the epoch that runs, from 0.
        batch: how many batches of it are done.
        measures: the keys that the logs have at the end of an epoch.
        writes: is this the process that writes files? Of several that train together only one is.
        say: takes sentences for the user.
    """

    net: nn.Module
    optimiser: optim.Optimizer
    config: LoopConfig
    steps: int
    learning_rate: float
    history: History = field(default_factory=History)
    epoch: int = 0
    batch: int = 0
    measures: tuple[str, ...] = ()
    writes: bool = True
    say: Callable[[str], None] = lambda _: None

    @property
    def stopping(self) -> bool:
        """Is this batch, or epoch, the last?"""
        return bool(self.history.stopped)

    def stop_with(self, stopped: str, reason: str) -> None:
        """End the training after this batch (called from a batch's hook) or epoch. The first reason counts."""
        if not self.stopping:
            self.history.stopped, self.history.reason = stopped, reason

    def to_document(self) -> dict[str, Any]:
        """What a checkpoint keeps of it, ready for JSON."""
        return {
            "epoch": self.epoch,
            "batch": self.batch,
            "learning_rate": self.learning_rate,
            "rows": self.history.rows,
            "stopped": self.history.stopped,
            "reason": self.history.reason,
            "kept": self.history.kept,
        }

    def restore(self, document: dict[str, Any]) -> None:
        """Take over what `to_document` gave."""
        self.epoch, self.batch = document["epoch"], document["batch"]
        self.learning_rate = document["learning_rate"]
        self.history.rows[:] = document["rows"]
        self.history.stopped, self.history.reason = document["stopped"], document["reason"]
        self.history.kept = document.get("kept", 0)
