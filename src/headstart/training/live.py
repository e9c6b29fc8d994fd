"""What a training shows while it runs: one live line in a terminal, a line an epoch in a pipe."""

import math
from collections.abc import Callable

from headstart.progress import Progress
from headstart.training.history import Row


class LiveLine(Progress):
    """The progress of a training: epoch, photos done, photos a second, time left, loss and accuracy.

    Args:
        photos: how many are still to be seen, over all epochs.
        numbers: gives the running epoch, from 1, and its loss and accuracy so far; asked only when the line is drawn.
        quiet: show nothing.
    """

    def __init__(
        self, photos: int, epochs: int, numbers: Callable[[], tuple[int, float, float]], *, quiet: bool
    ) -> None:
        super().__init__(photos, "photos", quiet=quiet)
        self._epochs, self._numbers = epochs, numbers

    def describe(self, seconds: float) -> str:
        """Return the line for `seconds` since the start."""
        epoch, loss, accuracy = self._numbers()
        seen = f", loss {loss:.4f}, accuracy {accuracy:.2%}" if not math.isnan(accuracy) else ""
        return f"epoch {epoch}/{self._epochs}: {super().describe(seconds)}{seen}"

    def print_above(self, text: str) -> None:
        """Print a line that stays; the live one goes on below it."""
        with self._lock:
            if self._terminal and self._length:
                self._write("\r" + " " * self._length + "\r")
                self._length = 0
            self._write(text + "\n")


def describe_epoch(row: Row, epochs: int) -> str:
    """One line for an epoch that is over.

    >>> row = {"epoch": 2.0, "loss": 0.5, "accuracy": 0.75, "learning_rate": 0.001, "seconds": 1.23}
    >>> describe_epoch(row, epochs=10)
    'epoch 2/10: loss 0.5000, accuracy 75.00%, rate 0.001, 1.2 s'
    """
    parts = [f"loss {row['loss']:.4f}", f"accuracy {row['accuracy']:.2%}"]
    if "val_loss" in row:
        parts += [f"validation loss {row['val_loss']:.4f}", f"validation accuracy {row['val_accuracy']:.2%}"]
    parts += [f"rate {row['learning_rate']:.3g}", f"{row['seconds']:.1f} s"]
    return f"epoch {row['epoch']:.0f}/{epochs}: {', '.join(parts)}"
