"""A short training for test_training_distributed.py: alone when called, with others when started as a process."""

import sys
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import nn

from headstart.config import LoopConfig
from headstart.training.batches import MemoryBatches
from headstart.training.distributed import Place, share, together
from headstart.training.loop import History, fit

PHOTOS, CLASSES = 23, 3


def build(kind: str) -> nn.Module:
    torch.manual_seed(5)
    norms = [nn.BatchNorm2d(4)] if kind == "normed" else []
    return nn.Sequential(nn.Conv2d(2, 4, 3), *norms, nn.ReLU(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES))


def batches(place: Place, batch_size: int, *, shuffle: bool) -> MemoryBatches:
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (PHOTOS, 2, 8, 8), generator=random, dtype=torch.uint8)
    labels = torch.randint(0, CLASSES, (PHOTOS,), generator=random)
    return MemoryBatches(
        pixels,
        labels,
        classes=CLASSES,
        batch_size=batch_size,
        mean=[100.0, 128.0],
        std=[60.0, 70.0],
        shuffle=shuffle,
        seed=3,
        rank=place.rank,
        world=place.world,
    )


def train(net: nn.Module, place: Place, batch_size: int, checkpoint: Path | None = None) -> History:
    config = LoopConfig(epochs=3, batch_size=batch_size, optimiser="sgd", learning_rate=0.05, clip_norm=1.0, l2=1e-4)
    own, measured = (batches(place, batch_size, shuffle=shuffle) for shuffle in (True, False))
    return fit(net, own, measured, config, checkpoint=checkpoint)


def main() -> None:
    folder = Path(sys.argv[1])
    with together() as place:
        for kind in ("plain", "normed"):
            for batch_size in (8, 11):
                net = build(kind)
                name = f"{kind}{batch_size}"
                history = train(share(net, place), place, batch_size, folder / f"{name}.rank{place.rank}")
                if place.rank == 0:
                    save_file(net.state_dict(), folder / f"{name}.safetensors")
                    keys = ("loss", "accuracy", "val_loss", "val_accuracy")
                    numbers = "\n".join(repr(row[key]) for row in history.rows for key in keys)
                    (folder / f"{name}.txt").write_text(numbers)


if __name__ == "__main__":
    main()
