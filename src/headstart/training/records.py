"""The callbacks that write down how a training goes."""

import csv
import importlib
import io
from pathlib import Path
from typing import Any, Literal

from headstart.errors import ConfigError, OutputError
from headstart.files import shown, write_atomic
from headstart.training.hooks import Callback, Logs


class CSVLogger(Callback):
    """A line of the logs an epoch, in a CSV file. In a resumed training the file has no epoch twice.

    Args:
        filename: the file.
        separator: between the values of a line.
        append: go on below what the file holds.
    """

    def __init__(self, filename: str | Path, separator: str = ",", append: bool = False) -> None:
        self.path, self.separator, self.append = Path(filename), separator, append

    def on_train_begin(self, logs: Logs) -> None:  # noqa: ARG002 - as every hook
        """Begin the file."""
        self.text = self._read() if self.append else ""
        self._write()

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write a line."""
        names = sorted(logs)
        if not self.text:
            self._add(["epoch", *names])
        self._add([epoch, *(logs[name] for name in names)])
        self._write()

    def _add(self, cells: list[Any]) -> None:
        line = io.StringIO()
        csv.writer(line, delimiter=self.separator, lineterminator="\n").writerow(cells)
        self.text += line.getvalue()

    def _read(self) -> str:
        try:
            return self.path.read_text(encoding="utf-8") if self.path.exists() else ""
        except (OSError, ValueError) as error:
            raise OutputError(f"cannot go on below {shown(self.path)}: {error}; give another file") from error

    def _write(self) -> None:
        if self.loop.writes:
            write_atomic(self.path, self.text.encode())

    def state_dict(self) -> dict[str, Any]:
        """The text of the file."""
        return {"text": self.text}

    def load_state(self, state: dict[str, Any]) -> None:
        """Go back to the text as it was."""
        self.text = state["text"]
        self._write()


class TensorBoard(Callback):
    """Curves for TensorBoard, in the folders and under the names that Keras gives them.

    Args:
        log_dir: the folder; `train` and `validation` are made in it.
        update_freq: "epoch"; or "batch", or every so many batches, for curves over batches as well.

    Raises:
        ConfigError: TensorBoard is not installed.
    """

    def __init__(self, log_dir: str | Path = "logs", update_freq: Literal["epoch", "batch"] | int = "epoch") -> None:
        self.log_dir, self.every = Path(log_dir), {"epoch": 0, "batch": 1}.get(str(update_freq), update_freq)
        try:
            self.board = importlib.import_module("torch.utils.tensorboard")
        except ImportError as error:
            raise ConfigError(
                "TensorBoard is not installed, so its files cannot be written; pip install tensorboard, "
                "or use CSVLogger"
            ) from error

    def on_train_begin(self, logs: Logs) -> None:  # noqa: ARG002 - as every hook
        """Begin the files; in a resumed training what was written after the checkpoint is marked as void."""
        self.writers: dict[str, Any] = {}

    def on_train_batch_end(self, batch: int, logs: Logs) -> None:
        """Write a point of the curves over batches."""
        step = self.loop.epoch * self.loop.steps + batch
        if isinstance(self.every, int) and self.every and step % self.every == 0:
            for name, value in logs.items():
                self._write("train", f"batch_{name}", value, step)

    def on_epoch_end(self, epoch: int, logs: Logs) -> None:
        """Write a point of the curves over epochs."""
        for name, value in logs.items():
            part = "validation" if name.startswith("val_") else "train"
            self._write(part, f"epoch_{name.removeprefix('val_')}", value, epoch)
        for writer in self.writers.values():
            writer.flush()

    def _write(self, part: str, name: str, value: float, step: int) -> None:
        if not self.loop.writes:
            return
        if part not in self.writers:
            self.writers[part] = self.board.SummaryWriter(str(self.log_dir / part), purge_step=step or None)
        self.writers[part].add_scalar(name, value, step)

    def on_train_end(self, logs: Logs) -> None:  # noqa: ARG002 - as every hook
        """Close the files."""
        for writer in self.writers.values():
            writer.close()
