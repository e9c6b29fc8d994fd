"""Which epoch is kept where validation photos are few: the last, unless an earlier one is clearly better."""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from torch import Tensor

from headstart.heads.calibration import tempered_losses
from headstart.training.batches import Batches
from headstart.training.evaluation import forward_all
from headstart.training.hooks import Callback, Logs

CALIBRATED = "val_calibrated_loss"


class ClearlyBest(Callback):
    """Go back to an earlier epoch at the end, if its loss is lower than the last one's by more than one standard error.

    The loss is that of the validation photos at the temperature that suits the logits best, which stands in the logs
    and the history as `val_calibrated_loss`. A net fitted to few photos is soon far too sure of itself: its plain loss
    rises while it still learns to tell the classes apart, and calibrating afterwards mends that for nothing. The
    difference is taken photo by photo. A schedule that ends at almost no learning rate makes its last epochs the best
    ones, as a rule, and 40 photos cannot say otherwise by a little. Where the training ended early, that is not so, and
    the epoch of the lowest loss is kept.

    Args:
        validation: the photos; not shuffled.
    """

    def __init__(self, validation: Batches) -> None:
        self.validation = validation

    def on_train_begin(self, logs: Logs) -> None:  # noqa: ARG002 - as every hook
        """Forget an earlier training, and let others watch the loss."""
        self.loop.measures = (*self.loop.measures, CALIBRATED)
        self.best_epoch, self.best_weights = -1, dict[str, Tensor]()
        self.best, self.last = np.zeros(0), np.zeros(0)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Measure."""
        self.last = self._losses()
        logs[CALIBRATED] = self.loop.history.rows[-1][CALIBRATED] = float(self.last.mean())
        if not self.best_weights or self.last.mean() < self.best.mean():
            self.best, self.best_epoch = self.last, epoch
            self.best_weights = {name: one.clone() for name, one in self.loop.net.state_dict().items()}

    def on_train_end(self, logs: Logs) -> None:  # noqa: ARG002
        """Choose."""
        history = self.loop.history
        history.kept = len(history.rows)
        cut_off = len(history.rows) < self.loop.config.epochs  # the rate was still high: the last is as any other
        if self.best_weights and (cut_off or is_clearly_lower(self.best, self.last)):
            self.loop.net.load_state_dict(self.best_weights)
            history.kept = self.best_epoch + 1

    def state_dict(self) -> dict[str, Any]:
        """The best epoch, its weights and both losses."""
        plain = {"best_epoch": self.best_epoch, "best": self.best.tolist(), "last": self.last.tolist()}
        return plain | {f"weights.{name}": value for name, value in self.best_weights.items()}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take them over."""
        self.best_epoch, self.best, self.last = state["best_epoch"], np.array(state["best"]), np.array(state["last"])
        self.best_weights = {
            name.removeprefix("weights."): value for name, value in state.items() if isinstance(value, Tensor)
        }

    def _losses(self) -> Float64[np.ndarray, "photos"]:
        """Of each photo, nats; infinite where a logit is no number."""
        batches = forward_all(self.loop.net, self.validation)
        pairs = [(logits.cpu().numpy(), labels.cpu().numpy()) for logits, labels in batches]
        logits, labels = (np.concatenate(parts) for parts in zip(*pairs, strict=True))
        return tempered_losses(logits, labels) if np.isfinite(logits).all() else np.full(len(labels), math.inf)


def is_clearly_lower(ours: Float64[np.ndarray, "photos"], theirs: Float64[np.ndarray, "photos"]) -> bool:
    """Whether our losses of the same photos are lower by more than one standard error of the mean difference.

    >>> is_clearly_lower(np.array([0.1, 0.2, 0.1]), np.array([0.5, 0.5, 0.6]))
    True
    >>> is_clearly_lower(np.array([0.1, 0.9]), np.array([0.9, 0.2]))
    False
    """
    if not np.isfinite(theirs).all():
        return bool(np.isfinite(ours).all())
    apart = theirs - ours
    return bool(apart.mean() > apart.std() / math.sqrt(len(apart)))
