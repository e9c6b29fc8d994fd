"""The hooks of a training that callbacks hang on to."""

import math
from collections.abc import Callable
from typing import Any

from headstart.errors import ConfigError
from headstart.training.history import LoopState

Logs = dict[str, float]
HOOKS = (
    "on_train_begin", "on_train_end", "on_epoch_begin", "on_epoch_end", "on_train_batch_begin", "on_train_batch_end"
)  # fmt: skip


class Callback:
    """Base of all callbacks: every hook does nothing.

    `logs` has `loss`, `accuracy`, `learning_rate`, and at the end of an epoch `val_loss` and `val_accuracy` where there
    are validation photos. Epochs and batches count from 0. `loop` is the state of the training.

    A callback that remembers anything gives it as `state_dict`, a flat table of tensors and of what JSON can hold, so
    that a resumed training goes on as if it had not stopped. `load_state` is called after `on_train_begin`.
    """

    loop: LoopState

    def on_train_begin(self, logs: Logs) -> None:
        """Before the first epoch, and when a training is resumed."""

    def on_train_end(self, logs: Logs) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs) -> None:
        """Before the first batch of an epoch."""

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """After the last batch of an epoch and the validation."""

    def on_train_batch_begin(self, batch: int, logs: Logs) -> None:
        """Before a step."""

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """After a step; `logs` are the means of the epoch so far."""

    def state_dict(self) -> dict[str, Any]:
        """What must survive a restart."""
        return {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take over what `state_dict` gave."""


class LambdaCallback(Callback):
    """Call a function at a hook.

    Args:
        hooks: functions by the name of their hook, such as `on_epoch_end=lambda epoch, logs: ...`.

    Raises:
        ConfigError: there is no such hook.
    """

    def __init__(self, **hooks: Callable[..., Any] | None) -> None:
        for name, function in hooks.items():
            if name not in HOOKS:
                raise ConfigError(f"there is no hook {name!r}; choose one of: {', '.join(HOOKS)}")
            if function is not None:
                setattr(self, name, function)


class TerminateOnNaN(Callback):
    """End the training at the first loss that is no number.

    The loop does so by itself, whatever the callbacks; this one does it after the very batch on any machine.
    """

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Look at the loss."""
        if not math.isfinite(logs["loss"]):
            self.loop.stop_with("diverged", f"the loss became {logs['loss']} in batch {batch + 1}")
