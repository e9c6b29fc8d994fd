"""Run in a process of its own: trains a small net with everything that has a memory, so that it can be killed.

    python tests/crash_training.py

For each line `start FOLDER` or `resume FOLDER` of the input it forks a child that trains, and prints `child PID`, and
`exit CODE` when that has ended. FOLDER gets `checkpoint.safetensors`, `log.csv`, and at the end `result.json`: the
SHA-256 of the weights, and the history without its seconds. The child exits with 130 when interrupted. The parent
computes nothing, so that it can be forked; torch is loaded once.
"""

import hashlib
import json
import os
import signal
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor, nn

from headstart.config import LoopConfig
from headstart.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
)
from headstart.training.history import History
from headstart.training.loop import fit

CLASSES, SIDE = 3, 8


class Noise:
    """Photos of noise with a class's pattern in it, in an order of each epoch's own; `batch_size` a step."""

    def __init__(self, images: int, batch_size: int = 8, seed: int = 0) -> None:
        random = torch.Generator().manual_seed(seed)
        patterns = torch.randn(CLASSES, 1, SIDE, SIDE, generator=torch.Generator().manual_seed(99))
        self.labels = torch.randint(0, CLASSES, (images,), generator=random)
        self.photos = torch.randn(images, 1, SIDE, SIDE, generator=random) + 0.4 * patterns[self.labels]
        self.images, self.classes, self.shape, self.batch_size = images, CLASSES, (1, SIDE, SIDE), batch_size
        self.steps = -(-images // batch_size)

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.randperm(self.images, generator=torch.Generator().manual_seed(number))
        for step in range(first, self.steps):
            chosen = order[step * self.batch_size : (step + 1) * self.batch_size]
            yield self.photos[chosen], self.labels[chosen]


def small_net(seed: int = 0) -> nn.Module:
    """Convolution, batch norm and dropout: filters, running statistics and random numbers."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(4 * 9, CLASSES),
        )  # fmt: skip


def digest(net: nn.Module) -> str:
    """SHA-256 of all tensors of a net."""
    found = hashlib.sha256()
    for name, value in sorted(net.state_dict().items()):
        found.update(name.encode() + value.contiguous().numpy().tobytes())
    return found.hexdigest()


def train(
    folder: Path,
    *,
    resume: bool,
    epochs: int = 4,
    optimiser: str = "adam",
    restore: bool = True,
    extra: Callback | None = None,
    every: float = 60.0,
) -> tuple[nn.Module, History]:
    net = small_net()
    callbacks = [
        extra or LambdaCallback(),
        EarlyStopping(patience=50, restore_best_weights=restore),
        ReduceLROnPlateau(patience=1, factor=0.7, min_delta=0.05),
        ModelCheckpoint(folder / "best.safetensors"),
        CSVLogger(folder / "log.csv"),
    ]
    config = LoopConfig(epochs=epochs, batch_size=8, optimiser=optimiser, seed=5, clip_norm=1.0, l2=1e-3)
    path = folder / "checkpoint.safetensors"
    history = fit(
        net, Noise(160), Noise(40, seed=1), config,
        callbacks=callbacks, checkpoint=path, checkpoint_seconds=every, resume=resume,
    )  # fmt: skip
    return net, history


def write_result(folder: Path, *, resume: bool) -> None:
    net, history = train(folder, resume=resume, every=0.03)
    rows = [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]
    document = {"weights": digest(net), "rows": rows, "stopped": history.stopped}
    (folder / "result.json").write_text(json.dumps(document), encoding="utf-8")


def child_of(folder: Path, *, resume: bool) -> int:
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        torch.set_num_threads(1)
        write_result(folder, resume=resume)
        code = 0
    except KeyboardInterrupt:
        code = 130
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for line in sys.stdin:
        verb, folder = line.split(maxsplit=1)
        child = child_of(Path(folder.strip()), resume=verb == "resume")
        print("child", child, flush=True)
        print("exit", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()
