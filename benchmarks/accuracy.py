"""Accuracy from scratch on the full official test sets, over seeds.

    python benchmarks/accuracy.py ROOM [--mnist DATA] [--fashion DATA] [--cifar DATA]
        [--only NAME,NAME] [--seeds 0,1,2] [--epochs N] [--photos N] [--threads N]

DATA is anything `headstart train` takes, with the official train and test split. ROOM keeps the decoded pixels, a
checkpoint of the run in progress and a line of JSON for each finished run in `results.jsonl`: the same command goes on
where it was stopped, and prints the table of all that is there. The last epoch's weights are judged, whatever their
score; nothing is chosen by the test photos.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from harness import machine
from torch import Tensor, nn

from headstart.config import LoopConfig
from headstart.layers.initialise import initialise
from headstart.nets import build_net
from headstart.nets.resnet import Basic
from headstart.preprocess import Preprocessing
from headstart.readers import open_dataset
from headstart.training.batches import MemoryBatches
from headstart.training.loop import evaluate, fit
from headstart.training.losses import make_loss
from headstart.training.presets import find_preset
from headstart.training.streamed import labels_of, read_pixels


def small_resnet(width: int = 16, repeats: int = 2) -> nn.Module:
    """The residual nets of He et al. 2015 (arXiv:1512.03385), section 4.2: three stages at 32, 16 and 8 pixels."""

    def conv(channels: int, filters: int, window: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(channels, filters, window, stride, window // 2, bias=False)

    layers: list[nn.Module] = [conv(3, width, 3), nn.BatchNorm2d(width), nn.ReLU()]
    channels = width
    for number in range(3):
        for index in range(repeats):
            stride = 2 if number and not index else 1
            layers.append(Basic(channels, width << number, stride, conv, nn.BatchNorm2d, False))
            channels = width << number
    net = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 10))
    initialise(net, "he", seed=None)
    return net


@dataclass(frozen=True)
class Recipe:
    """A net, its data and how it is trained.

    Args:
        data: "mnist", "fashion" or "cifar".
        net: builds it, from the global random numbers.
        config: the settings; the seed is set for each run.
        goal: accuracy that must be reached; 0: none.
    """

    data: str
    net: Callable[[], nn.Module]
    config: LoopConfig
    goal: float = 0.0


def cycle(epochs: int, rate: float, **others: object) -> LoopConfig:
    return LoopConfig(epochs=epochs, learning_rate=rate, schedule="one-cycle", **others)  # type: ignore[arg-type]


def lenet() -> nn.Module:
    return build_net("lenet", 10, padding=2)


def cifar_cnn() -> nn.Module:
    return build_net("cifar-cnn", 10)


RECIPES = {
    "lenet-mnist": Recipe("mnist", lenet, cycle(10, 3e-3), 0.99),
    "mlp-mnist": Recipe("mnist", lambda: build_net("mlp", 10), cycle(10, 1e-3), 0.98),
    "lenet-fashion": Recipe("fashion", lenet, cycle(15, 3e-3), 0.89),
    "cifar-cnn": Recipe("cifar", cifar_cnn, cycle(20, 2e-3), 0.70),
    "cifar-cnn-augmented": Recipe("cifar", cifar_cnn, cycle(20, 2e-3, augment="cifar"), 0.70),
    "cifar-cnn-long": Recipe("cifar", cifar_cnn, cycle(40, 2e-3), 0.70),
    "cifar-cnn-long-augmented": Recipe("cifar", cifar_cnn, cycle(40, 2e-3, augment="cifar"), 0.70),
    "resnet": Recipe(
        "cifar",
        small_resnet,
        cycle(20, 0.2, augment="cifar", optimiser="sgd", nesterov=True, weight_decay=5e-4),
    ),
}


@dataclass(frozen=True)
class Part:
    """Photos of a split, as bytes (images, channels, height, width)."""

    pixels: Tensor
    labels: Tensor


def read_parts(name: str, place: str, room: Path) -> dict[str, Part]:
    """Both splits, decoded once."""
    kept = room / f"{name}.npz"
    if not kept.exists():
        dataset = open_dataset(place)
        size, channels = (32, 3) if name == "cifar" else (28, 1)
        plain = Preprocessing(size, 1.0, (0.0,) * channels, (1.0,) * channels)
        arrays = {}
        for split in ("train", "test"):
            rows = np.array([index for index, photo in enumerate(dataset.photos) if photo.split == split])
            arrays[f"{split}-pixels"] = read_pixels(dataset, rows, plain)
            arrays[f"{split}-labels"] = labels_of(dataset, rows).numpy()
        np.savez(kept.with_suffix(".part.npz"), **arrays)
        kept.with_suffix(".part.npz").rename(kept)
    with np.load(kept) as arrays:
        return {
            split: Part(torch.from_numpy(arrays[f"{split}-pixels"]), torch.from_numpy(arrays[f"{split}-labels"]))
            for split in ("train", "test")
        }


def batches(part: Part, config: LoopConfig, like: Part, *, training: bool) -> MemoryBatches:
    levels = like.pixels.double()
    return MemoryBatches(
        part.pixels,
        part.labels,
        classes=10,
        batch_size=config.batch_size,
        mean=levels.mean(dim=(0, 2, 3)).tolist(),
        std=levels.std(dim=(0, 2, 3)).tolist(),
        shuffle=training,
        augment=find_preset(config.augment) if training else None,
        seed=config.seed,
    )


def run(name: str, seed: int, parts: dict[str, Part], arguments: argparse.Namespace) -> dict[str, object]:
    recipe = RECIPES[name]
    chosen = {"seed": seed, "threads": arguments.threads}
    if arguments.epochs:
        chosen["epochs"] = arguments.epochs
    config = LoopConfig(**asdict(recipe.config) | chosen)
    train = parts["train"]
    if arguments.photos:  # for a first look
        few = torch.randperm(len(train.labels), generator=torch.Generator().manual_seed(seed))[: arguments.photos]
        train = Part(train.pixels[few], train.labels[few])
    torch.manual_seed(seed)
    net = recipe.net()
    begun = time.perf_counter()
    given, judged = batches(train, config, train, training=True), batches(parts["test"], config, train, training=False)
    checkpoint = arguments.room / f"{name}-{seed}-{config.epochs}-{len(train.labels)}.checkpoint"
    history = fit(net, given, None, config, checkpoint=checkpoint, resume=True, quiet=arguments.quiet)
    loss, accuracy = evaluate(net, judged, make_loss(config, 10))
    checkpoint.unlink()
    return {
        "name": name,
        "seed": seed,
        "accuracy": accuracy,
        "loss": loss,
        "train_accuracy": history.rows[-1]["accuracy"],
        "seconds": sum(row["seconds"] for row in history.rows),
        "last_start_seconds": time.perf_counter() - begun,
        "parameters": sum(parameter.numel() for parameter in net.parameters()),
        "photos": len(train.labels),
        "config": asdict(config),
    }


def identity(row: dict[str, object]) -> str:
    """What makes two runs the same."""
    config = {key: value for key, value in row["config"].items() if key != "threads"}  # type: ignore[attr-defined]
    return json.dumps([row["name"], row["photos"], config], sort_keys=True)


def read_results(file: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


def show(results: list[dict[str, object]]) -> None:
    groups: dict[tuple[object, ...], list[dict[str, object]]] = {}
    for row in results:
        groups.setdefault((row["name"], row["photos"], row["config"]["epochs"]), []).append(row)  # type: ignore[index]
    print("\n| net and data | parameters | photos | epochs | test accuracy, % | seeds | goal | minutes a seed |")
    print("|---|---|---|---|---|---|---|---|")
    for (name, photos, epochs), rows in groups.items():
        right = [100 * float(row["accuracy"]) for row in rows]  # type: ignore[arg-type]
        minutes = statistics.median(float(row["seconds"]) for row in rows) / 60  # type: ignore[arg-type]
        recipe = RECIPES.get(str(name))
        goal = f">= {recipe.goal:.0%}" if recipe and recipe.goal else ""
        print(
            f"| {name} | {rows[0]['parameters']:,} | {photos:,} | {epochs} | {statistics.fmean(right):.2f} "
            f"[{min(right):.2f}-{max(right):.2f}] | {len(rows)} | {goal} | {minutes:.1f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", type=Path)
    for name in ("mnist", "fashion", "cifar"):
        parser.add_argument(f"--{name}", metavar="DATA", help="its recipes are left out where it is not given")
    parser.add_argument("--only", default=",".join(RECIPES), help="recipes, comma-separated")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--epochs", type=int, default=0, help="0: as the recipe says")
    parser.add_argument("--photos", type=int, default=0, help="train on so many only; 0: on all")
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--quiet", action="store_true", help="no progress")
    arguments = parser.parse_args()
    arguments.room.mkdir(parents=True, exist_ok=True)
    file = arguments.room / "results.jsonl"
    print(machine())
    kept: dict[str, dict[str, Part]] = {}
    for seed in map(int, arguments.seeds.split(",")):
        for name in arguments.only.split(","):
            recipe = RECIPES[name]
            place = getattr(arguments, recipe.data)
            if place is None:
                continue
            if recipe.data not in kept:
                kept[recipe.data] = read_parts(recipe.data, place, arguments.room)
            chosen = {"seed": seed} | ({"epochs": arguments.epochs} if arguments.epochs else {})
            photos = arguments.photos or len(kept[recipe.data]["train"].labels)
            planned = {"name": name, "photos": photos, "config": asdict(recipe.config) | chosen}
            if identity(planned) in {identity(row) for row in read_results(file)}:
                continue
            row = run(name, seed, kept[recipe.data], arguments)
            with file.open("a") as out:
                print(json.dumps(row), file=out, flush=True)
            print(f"{name}, seed {seed}: {row['accuracy']:.2%} in {row['seconds']:.0f} s", flush=True)
    show(read_results(file))


if __name__ == "__main__":
    main()
