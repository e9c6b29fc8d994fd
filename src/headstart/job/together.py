"""Train a network on several processes, computers or accelerators: `torchrun ... -m headstart.job.together`.

    torchrun --nproc-per-node 2 -m headstart.job.together DATA --net lenet --out RUN [--epochs 10] ...

Each process reads the data and comes to the same split by itself; a setting is any of `TrainConfig`. Process 0 keeps
the state of the training in RUN.training, tests the net and writes RUN, the same run directory as of `headstart train`.
Alone, without torchrun, it does the same in one process.
"""

import argparse
import dataclasses
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from headstart import runs
from headstart.config import TrainConfig
from headstart.errors import ConfigError, HeadstartError
from headstart.files import shown
from headstart.job.choices import check_settings
from headstart.job.material import Timings
from headstart.job.network import underway
from headstart.job.unfinished import Unfinished
from headstart.readers import open_dataset
from headstart.runs.places import new_run_path
from headstart.training.distributed import Place, together

WORDS = {"True": True, "False": False}


def train_together(
    data: str,
    out: Path,
    config: TrainConfig,
    among: Place,
    *,
    overwrite: bool = False,
    resume: bool = False,
    say: Callable[[str], None],
) -> runs.Run | None:
    """Train on this process's part of the photos.

    Args:
        data: as for `headstart train`.
        out: the run directory; `<out>.training` beside it every process must be able to read where one resumes.
        config: `net` must name a network; `batch_size` is that of all processes together.
        among: this process, of `headstart.training.distributed.together`.
        overwrite: replace a run that exists at `out`.
        resume: go on with a training that was interrupted.
        say: receives a sentence at each step.

    Returns:
        The run, from process 0; None from the others.

    Raises:
        HeadstartError: the data or a setting cannot be used.
    """
    if config.net is None and config.strategy != "scratch":
        raise ConfigError("no network to train: give --net lenet, or another name (headstart summary lists them)")
    config = check_settings(config)
    clock = Timings()
    with clock.step("scan"):
        dataset = open_dataset(data)
        place = new_run_path(out, dataset.name, overwrite=overwrite, resume=resume)
        unfinished = Unfinished(place, resume=resume, overwrite=overwrite)
    with underway(
        dataset,
        place,
        unfinished,
        config,
        clock,
        among=among,
        overwrite=overwrite,
        resume=resume,
        quiet=not among.writes,
        say=say if among.writes else _silence,
    ) as job:
        trained = job.train()
        return job.write(trained, overwrite=overwrite) if among.writes else None


def main(words: Sequence[str] | None = None) -> int:
    """The command; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--overwrite", action="store_true")
    parser.add_argument("--resume", action="store_true")
    for field in dataclasses.fields(TrainConfig):
        kind: Any = WORDS.__getitem__ if isinstance(field.default, bool) else type(field.default)
        kind = str if field.default is None else kind
        parser.add_argument(f"--{field.name.replace('_', '-')}", type=kind, default=field.default)
    given = vars(parser.parse_args(words))
    data, out, flags = given.pop("data"), given.pop("out"), {name: given.pop(name) for name in ("overwrite", "resume")}
    try:
        with together() as among:
            run = train_together(data, out, TrainConfig.from_dict(given), among, **flags, say=_tell)
    except HeadstartError as error:
        _tell(f"Error: {error}")
        return 1
    if run is not None:
        test = run.metrics["test"]
        _tell(f"test accuracy {test['accuracy']:.4f} of {test['n']:,} photos; {shown(run.path)}")
    return 0


def _tell(sentence: str) -> None:
    print(sentence, file=sys.stderr)


def _silence(_: str) -> None:
    """Say nothing."""


if __name__ == "__main__":
    sys.exit(main())
