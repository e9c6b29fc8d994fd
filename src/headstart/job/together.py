"""Train a network on several processes, computers or accelerators: `torchrun ... -m headstart.job.together`.

    torchrun --nproc-per-node 2 -m headstart.job.together DATA --net lenet --out FOLDER [--epochs 10] ...

Each process reads the data and comes to the same split by itself; a setting is any of `TrainConfig`. Process 0 writes
FOLDER: `weights.safetensors`, `history.csv` (a row an epoch), `test.json` and the checkpoint that `--resume` goes on
from. Alone, without torchrun, it does the same in one process.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import safetensors.torch

from headstart.config import TrainConfig
from headstart.errors import ConfigError, HeadstartError
from headstart.files import write_atomic
from headstart.job.levels import measured
from headstart.job.material import look
from headstart.job.net_input import choose_input
from headstart.job.preparations import build, with_rate
from headstart.job.trained import callbacks_of, class_weights_of
from headstart.readers import open_dataset
from headstart.training.callbacks import CSVLogger
from headstart.training.distributed import Place, share, together
from headstart.training.evaluation import evaluate
from headstart.training.loop import fit
from headstart.training.losses import make_loss
from headstart.training.streamed import load_batches

WORDS = {"True": True, "False": False}


def train_together(data: str, out: Path, config: TrainConfig, place: Place, *, resume: bool = False) -> None:
    """Train on this process's part of the photos.

    Args:
        data: as for `headstart train`.
        out: folder that process 0 writes to.
        config: `net` must name a network; `batch_size` is that of all processes together.
        place: this process, of `headstart.training.distributed.together`.
        resume: go on from the checkpoint in `out`, which every process must be able to read.

    Raises:
        HeadstartError: the data or a setting cannot be used.
    """
    if config.net is None:
        raise ConfigError("no network to train: give --net lenet, or another name (headstart summary lists them)")
    if place.rank == 0:
        out.mkdir(parents=True, exist_ok=True)
    dataset = open_dataset(data)
    material = look(dataset, config, quiet=True, say=lambda _: None)
    split, facts = material.split, material.survey.facts
    config = with_rate(config, len(split.train))
    chosen = choose_input(config, dataset, [facts[index] for index in split.train])
    preprocessing = measured(dataset, split.train, chosen, threads=config.threads)
    net = build(config, chosen.options)
    shared = share(net, place)
    still = dataclasses.replace(config, augment="none", mixup=0.0)
    train, validation, test = (
        load_batches(
            dataset, rows, preprocessing, settings, shuffle=shuffle, rank=place.rank, world=place.world, say=None
        )
        for rows, settings, shuffle in (
            (split.train, config, True),
            (split.validation, still, False),
            (split.test, still, False),
        )
    )
    fit(
        shared,
        train,
        validation,
        config,
        callbacks=[*callbacks_of(config), CSVLogger(out / "history.csv", append=resume)],
        checkpoint=out / "checkpoint",
        resume=resume,
        class_weights=class_weights_of(material, config),
        quiet=place.rank > 0,
    )
    loss, accuracy = evaluate(net, test, make_loss(config, len(dataset.classes)))
    if place.rank == 0:
        weights = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
        write_atomic(out / "weights.safetensors", safetensors.torch.save(weights))
        facts_of_test = {"photos": len(split.test), "loss": loss, "accuracy": accuracy, "world": place.world}
        write_atomic(out / "test.json", json.dumps(facts_of_test, indent=2).encode())
        print(f"test accuracy {accuracy:.4f} of {len(split.test):,} photos", file=sys.stderr)


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(TrainConfig):
        kind: Any = WORDS.__getitem__ if isinstance(field.default, bool) else type(field.default)
        kind = str if field.default is None else kind
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = vars(parser.parse_args(words))
    data, out, resume = given.pop("data"), given.pop("out"), given.pop("resume")
    try:
        with together() as place:
            train_together(data, out, TrainConfig.from_dict(given), place, resume=resume)
    except HeadstartError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
