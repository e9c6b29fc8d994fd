"""A training that goes on: `RUN.training` beside the run it will become, until the run is written.

RUN.training/settings.json      what was asked for and on which data, so that nothing else is continued by mistake
             checkpoint         the state of the training, replaced as it goes on (headstart.training.checkpoint)
             again              the same of the training on all photos that follows, where one does
             lock               held by the process that trains
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.config import TrainConfig
from headstart.errors import OutputError, RunError
from headstart.files import shown, sweep_leftovers, write_atomic, write_failure
from headstart.locks import FileLock
from headstart.runs import Run, load_run
from headstart.runs.places import TRAINING

SETTINGS, CHECKPOINT, AGAIN, LOCK = "settings.json", "checkpoint", "again", "lock"
OWN = (SETTINGS, CHECKPOINT, AGAIN, LOCK)
FREE = ("threads",)  # settings that a resumed training may have otherwise: they change no result but rounding


class Unfinished:
    """The folder of a training in progress.

    Args:
        place: the run directory that the training will become.
        resume: go on from what is there.
        overwrite: what is there may be thrown away, unless it is resumed.

    Raises:
        OutputError: an unfinished training is there and nobody said what to do with it, or the folder holds something
            else.
    """

    def __init__(self, place: Path, *, resume: bool, overwrite: bool) -> None:
        self.folder = folder_of(place)
        self.checkpoint, self.again = self.folder / CHECKPOINT, self.folder / AGAIN
        self._place = place
        self._lock = FileLock(self.folder / LOCK)
        self._held = False
        self.found = self.folder.is_dir()
        if os.path.lexists(self.folder):
            self._check_own()
            if self.checkpoint.exists() and not resume and not overwrite:
                raise OutputError(
                    f"{shown(self.folder)} holds a training that was interrupted; go on with --resume, or start anew "
                    "with --overwrite"
                )
        self.resume = resume and self.found

    def open(self, config: TrainConfig, fingerprint: str) -> bool:
        """Make the folder, or compare what it was begun with.

        Args:
            config: every setting.
            fingerprint: of the data.

        Returns:
            Whether there is a checkpoint to go on from.

        Raises:
            OutputError: another process trains there, or the folder cannot be written.
            RunError: it was begun with other settings or on other data.
        """
        record = {"headstart": __version__, "data": fingerprint, "settings": config.to_dict()}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._held = self._lock.acquire()
        except OSError as error:
            raise write_failure(self.folder, error) from error
        if not self._held:
            raise OutputError(
                f"another process is training in {shown(self.folder)}; wait for it, or give another --out"
            )
        sweep_leftovers(self.folder)
        try:
            if self.resume and (self.folder / SETTINGS).exists():
                self._compare(record)
            else:
                self._empty()
                write_atomic(self.folder / SETTINGS, json.dumps(record, indent=1).encode())
        except BaseException:
            self.release()
            raise
        return self.checkpoint.exists()

    def finished_run(self) -> Run | None:
        """The run, where the training had ended and only this folder was not yet removed when the process died."""
        if not (self.resume and self._place.is_dir()):
            return None
        record, run = self._record(), load_run(self._place)
        if (run.config, run.metrics["data"].get("fingerprint")) != (record["settings"], record["data"]):
            return None
        self.remove()
        return run

    def remove(self) -> None:
        """The run is written: forget how it came about."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()

    def release(self) -> None:
        """Let another process go on; a folder in which nothing was kept yet is removed."""
        if self._held and not self.checkpoint.exists():
            self.remove()
        self._held = False
        self._lock.release()

    def _check_own(self) -> None:
        names = {entry.name for entry in self.folder.iterdir()} if self.found else {""}
        if odd := sorted(name for name in names if name not in OWN and not _leftover(name)):
            what = f"it holds {shown(odd[0])}" if odd[0] else "it is no folder"
            raise OutputError(f"{shown(self.folder)} is no training of headstart ({what}); give another --out")

    def _empty(self) -> None:
        for name in (AGAIN, CHECKPOINT, SETTINGS):
            (self.folder / name).unlink(missing_ok=True)

    def _record(self) -> dict[str, Any]:
        try:
            record = json.loads((self.folder / SETTINGS).read_bytes())
            return {"headstart": record["headstart"], "data": record["data"], "settings": dict(record["settings"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise RunError(
                f"{shown(self.folder / SETTINGS)} is damaged, so it cannot be resumed; start anew with --overwrite"
            ) from error

    def _compare(self, record: dict[str, Any]) -> None:
        known = self._record()
        advice = "resume with what it was begun with, or start anew with --overwrite"
        before, now = known["settings"], record["settings"]
        for name in sorted((before.keys() | now.keys()) - set(FREE)):
            if before.get(name) != now.get(name):
                raise RunError(
                    f"{shown(self.folder)} was begun with {name} {shown(str(before.get(name)))}, now it is "
                    f"{shown(str(now.get(name)))}; {advice}"
                )
        if known["data"] != record["data"]:
            raise RunError(f"{shown(self.folder)} was begun on other photos than these (or other labels); {advice}")
        if known["headstart"] != record["headstart"]:
            raise RunError(
                f"{shown(self.folder)} was begun by headstart {shown(str(known['headstart']))}, this is {__version__}; "
                "finish it there, or start anew with --overwrite"
            )


def folder_of(place: Path) -> Path:
    """Where the training of a run is kept."""
    return place.with_name(place.name + TRAINING)


def _leftover(name: str) -> bool:
    return name.startswith(".headstart-") and name.endswith(".tmp")
