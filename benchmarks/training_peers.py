"""One contender of `benchmarks/training.py`: a process that trains a net for one epoch each time it is told to.

It runs in the interpreter of its library, so it imports that library alone. A line on stdin is one epoch, the answer
on stdout its photos a second.

    python training_peers.py CONTENDER NET PHOTOS BATCH
"""

import os
import sys
import time
from collections.abc import Callable

import numpy as np

SHAPES = {"lenet": (28, 28, 1), "cifar-cnn": (32, 32, 3)}  # height, width, channels
RATE, CLASSES = 1e-3, 10


def photos(net: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Noise, as bytes: how long a step takes does not hang on what the photos show."""
    random = np.random.default_rng(0)
    return random.integers(0, 256, (count, *SHAPES[net]), np.uint8), random.integers(0, CLASSES, count)


def floats(pixels: np.ndarray) -> np.ndarray:
    return (pixels.astype(np.float32) - 127.5) / 73.9


def headstart_loop(net: str, count: int, batch: int, way: str) -> Callable[[], None]:
    from contextlib import nullcontext

    import torch

    from headstart.config import LoopConfig
    from headstart.nets import build_net
    from headstart.training import surroundings
    from headstart.training.batches import MemoryBatches
    from headstart.training.loop import fit

    if way == "no-shortcuts":
        surroundings.shortcuts = lambda _: nullcontext()  # type: ignore[assignment]
    if way == "memory-returned":
        surroundings.memory_kept = nullcontext  # type: ignore[assignment]
    pixels, labels = photos(net, count)
    model = build_net(net, CLASSES, **({"padding": 2} if net == "lenet" else {}))
    channels = pixels.shape[3]
    batches = MemoryBatches(
        torch.from_numpy(pixels).permute(0, 3, 1, 2).contiguous(),
        torch.from_numpy(labels),
        classes=CLASSES,
        batch_size=batch,
        mean=[127.5] * channels,
        std=[73.9] * channels,
    )
    config = LoopConfig(epochs=1, batch_size=batch, optimiser="adam", threads=1 if way == "one-thread" else 0)
    return lambda: fit(model, batches, None, config)


def torch_loop(net: str, count: int, batch: int, channels_last: bool) -> Callable[[], None]:
    """What the tutorials write: a DataLoader of tensors, Adam as it comes."""
    import torch
    from torch import nn

    pixels, labels = photos(net, count)
    pool: type[nn.Module] = nn.AvgPool2d
    if net == "lenet":
        layers = [nn.Conv2d(1, 6, 5, padding=2), nn.Tanh(), pool(2), nn.Conv2d(6, 16, 5), nn.Tanh(), pool(2)]
        layers += [nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten(), nn.Linear(120, 84), nn.Tanh(), nn.Linear(84, 10)]
    else:
        layers, before = [], 3
        for width in (16, 32, 64):
            layers += [nn.Conv2d(before, width, 2, padding="same"), nn.ReLU(), nn.MaxPool2d(2)]
            before = width
        layers += [nn.Dropout(0.3), nn.Flatten(), nn.Linear(1024, 500), nn.ReLU(), nn.Dropout(0.4), nn.Linear(500, 10)]
    model = nn.Sequential(*layers)
    images = torch.from_numpy(floats(pixels)).permute(0, 3, 1, 2).contiguous()
    if channels_last:
        model, images = (
            model.to(memory_format=torch.channels_last),
            images.contiguous(memory_format=torch.channels_last),
        )
    data = torch.utils.data.TensorDataset(images, torch.from_numpy(labels))
    loader = torch.utils.data.DataLoader(data, batch_size=batch, shuffle=True)
    optimiser, loss_of = torch.optim.Adam(model.parameters(), lr=RATE), nn.CrossEntropyLoss()

    def epoch() -> None:
        model.train()
        total, right = 0.0, 0
        for some, targets in loader:
            optimiser.zero_grad()
            logits = model(some)
            loss = loss_of(logits, targets)
            loss.backward()
            optimiser.step()
            total += loss.item() * len(targets)
            right += int((logits.argmax(1) == targets).sum())

    return epoch


def keras_fit(net: str, count: int, batch: int, jit: str) -> Callable[[], None]:
    import keras
    from keras import layers

    pixels, labels = photos(net, count)
    if net == "lenet":
        stack = [
            layers.Conv2D(6, 5, padding="same", activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(16, 5, activation="tanh"),
            layers.AveragePooling2D(2),
            layers.Conv2D(120, 5, activation="tanh"),
            layers.Flatten(),
            layers.Dense(84, activation="tanh"),
            layers.Dense(CLASSES),
        ]
    else:
        stack = []
        for width in (16, 32, 64):
            stack += [layers.Conv2D(width, 2, padding="same", activation="relu"), layers.MaxPooling2D(2)]
        stack += [layers.Dropout(0.3), layers.Flatten(), layers.Dense(500, activation="relu"), layers.Dropout(0.4)]
        stack += [layers.Dense(CLASSES)]
    model = keras.Sequential([keras.Input(SHAPES[net]), *stack])
    model.compile(
        optimizer=keras.optimizers.Adam(RATE),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        jit_compile={"auto": "auto", "off": False, "on": True}[jit],
    )
    images, targets = floats(pixels), labels.astype(np.int32)
    return lambda: model.fit(images, targets, batch_size=batch, epochs=1, verbose=0)


def sgemm(count: int) -> Callable[[], None]:
    """So many multiply-adds, in millions, as products of square matrices."""
    import torch

    side = 2048
    left, right = torch.randn(side, side), torch.randn(side, side)
    return lambda: [left @ right for _ in range(count * 1_000_000 // side**3)] and None


def make(contender: str, net: str, count: int, batch: int) -> Callable[[], None]:
    name, _, way = contender.partition(":")
    if name == "headstart":
        return headstart_loop(net, count, batch, way)
    if name == "torch":
        return torch_loop(net, count, batch, way == "channels-last")
    if name == "sgemm":
        return sgemm(count)
    os.environ["KERAS_BACKEND"] = name.removeprefix("keras-")
    return keras_fit(net, count, batch, way or "auto")


def main() -> None:
    contender, net, count, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    begun = time.perf_counter()
    epoch = make(contender, net, count, batch)
    epoch()  # compiles, fills caches
    print(time.perf_counter() - begun, flush=True)
    for _ in sys.stdin:
        begun = time.perf_counter()
        epoch()
        print(count / (time.perf_counter() - begun), flush=True)


if __name__ == "__main__":
    main()
