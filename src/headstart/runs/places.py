"""Where a run goes, and what its folder may hold."""

import itertools
import os
from pathlib import Path

from headstart.errors import OutputError
from headstart.files import shown
from headstart.runs.guarded import JSON_LIMIT, MEGABYTE, METRICS_LIMIT

MANIFEST = "manifest.json"
TRAINING = ".training"  # what the folder of a training that goes on has behind the name of its run
#: name -> largest size accepted, bytes
FILES = {
    "metrics.json": METRICS_LIMIT,
    "plan.json": JSON_LIMIT,
    "config.json": JSON_LIMIT,
    "model.json": JSON_LIMIT,
    "model.safetensors": 640 * MEGABYTE,  # VGG19, the largest net of the program, has 575 MB of weights
    "predictions.csv": 256 * MEGABYTE,
    "history.csv": 64 * MEGABYTE,
    "report.html": 64 * MEGABYTE,
}
OPTIONAL = {"history.csv", "report.html"}


def new_run_path(out: str | Path | None, name: str, *, overwrite: bool = False, resume: bool = False) -> Path:
    """Decide where a run goes, before any work is done.

    Args:
        out: where the user wants it; None: `runs/<name>-<n>` with the first n that is free.
        name: of the data set.
        overwrite: an existing `out` may be replaced.
        resume: a training that was interrupted may go on; without `out` it is the latest of this data set.

    Raises:
        OutputError: `out` exists and may not be replaced.
    """
    if out is None:
        stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in name).strip("-.") or "run"
        places = (Path("runs") / f"{stem}-{number}" for number in itertools.count(1))
        known = list(itertools.takewhile(lambda place: os.path.lexists(place) or is_training(place), places))
        waiting = [place for place in known if is_training(place)]
        return waiting[-1] if resume and waiting else Path("runs") / f"{stem}-{len(known) + 1}"
    path = Path(out)
    if os.path.lexists(path) and not overwrite and not (resume and is_training(path)):
        raise OutputError(f"{shown(path)} exists already; give another name, or say that it may be overwritten")
    if overwrite and os.path.lexists(path) and not may_replace(path):
        raise OutputError(f"{shown(path)} is no run of headstart, so it is not replaced; give another name")
    return path


def is_training(path: Path) -> bool:
    """Whether the training of a run is under way, or was interrupted: its folder is beside the run's place."""
    return path.with_name(path.name + TRAINING).is_dir()


def may_replace(path: Path) -> bool:
    """Whether a directory holds nothing but files of a run: never replace a folder of something else."""
    return path.is_dir() and not path.is_symlink() and {entry.name for entry in path.iterdir()} <= {*FILES, MANIFEST}
