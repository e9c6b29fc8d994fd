"""Trainings and other commands that are started from a page: each a process of its own, watched line by line.

A process writes its progress as it would in a terminal; here that is read, and a page shows it. Stopping is Ctrl-C:
what was finished is kept.
"""

import contextlib
import io
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.errors import HeadstartError, UsageError
from headstart.files import shown

LINES = 200  # of what a process said that are kept
MOST = 2  # processes at a time
WIDTH = "240"  # columns of the terminal that a process believes to have
PATIENCE = 5.0  # seconds after a Ctrl-C until a process is ended
DONE_CODES, STOPPED_CODE = (0, 3), 130  # exit codes: done, perhaps with files that were left out; interrupted
BAR = re.compile(r"(?:epoch (\d+)/(\d+): )?\[#*\.*\] ([\d,]+)/([\d,]+) (.*)")
EPOCH = re.compile(r"epoch (\d+)/(\d+): (?:.*?, )?loss ([\d.]+), accuracy ([\d.]+)%(.*)")
MEASURES = re.compile(r"validation (loss|accuracy) ([\d.]+)")


@dataclass
class Job:
    """A process and what it has said.

    Args:
        number: its place among the jobs, from 1: its address.
        kind: "train", "rates" or "scan".
        title: for people.
        command: after `headstart`.
        about: what the pages keep with it (the run's name, the key of the data).
        state: "running", "done", "stopped" or "failed".
        done, of, what: how far it is, as it said last; of 0: it has not said.
        lines: sentences it said, the last `LINES`.
        epochs: `{"epoch", "of", "loss", "accuracy", "val_loss", "val_accuracy"}`, shares 0..1.
        result: the document that it printed.
        version: grows with every change.
    """

    number: int
    kind: str
    title: str
    command: tuple[str, ...]
    about: dict[str, str] = field(default_factory=dict)
    state: str = "running"
    done: int = 0
    of: int = 0
    what: str = ""
    lines: deque[str] = field(default_factory=lambda: deque(maxlen=LINES))
    epochs: list[dict[str, float]] = field(default_factory=list)
    result: dict[str, Any] | None = None
    version: int = 0

    def to_json(self) -> dict[str, Any]:
        """What a page shows while it runs; the result is asked for when it is done."""
        return {
            "number": self.number,
            "kind": self.kind,
            "state": self.state,
            "done": self.done,
            "of": self.of,
            "what": self.what,
            "lines": list(self.lines),
            "epochs": self.epochs,
            "about": self.about,
        }

    def hear(self, line: str) -> None:
        """Take a line that the process wrote for people."""
        text = shown(line).strip()
        if not text:
            return
        self.version += 1
        if bar := BAR.match(text):
            self.done, self.of = (int(bar[part].replace(",", "")) for part in (3, 4))
            self.what = f"epoch {bar[1]} of {bar[2]}: {bar[5]}" if bar[1] else bar[5]
            return
        if row := EPOCH.match(text):
            found = {
                "epoch": float(row[1]),
                "of": float(row[2]),
                "loss": float(row[3]),
                "accuracy": float(row[4]) / 100,
            }
            for name, value in MEASURES.findall(row[5]):
                found[f"val_{name}"] = float(value) / (100 if name == "accuracy" else 1)
            self.epochs.append(found)
        self.lines.append(text[:600])


class Jobs:
    """All processes that this server has started. `close` ends those that still run."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._lock = threading.Lock()
        self.ending = False  # the server is about to stop: pages that wait are let go

    def end(self) -> None:
        """Let the pages go that wait for news."""
        self.ending = True

    def start(
        self,
        kind: str,
        title: str,
        command: Sequence[str],
        about: dict[str, str] | None = None,
        then: Callable[[Job], None] | None = None,
    ) -> Job:
        """Run `headstart <command>` in a process of its own.

        Args:
            kind, title, about: as of `Job`.
            command: the words; nothing of it passes a shell.
            then: called when it is done, before the page is told.

        Raises:
            UsageError: two run already.
        """
        with self._lock:
            if sum(job.state == "running" for job in self._jobs.values()) >= MOST:
                raise UsageError(f"{MOST} jobs run already, as many as run at a time; wait for one or stop it")
            job = Job(next(self._numbers), kind, title, tuple(command), dict(about or {}))
            terminal, writer = _terminal()
            process = subprocess.Popen(
                [sys.executable, "-m", "headstart", *command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE if writer is None else writer,
                env={**os.environ, "COLUMNS": WIDTH},
                start_new_session=True,
            )
            if writer is not None:
                os.close(writer)
            self._jobs[job.number], self._processes[job.number] = job, process
        errors: Any = process.stderr if terminal is None else io.FileIO(terminal)
        threading.Thread(target=_watch, args=(job, process, errors, then), daemon=True).start()
        return job

    def get(self, number: int) -> Job:
        """A job by its number. Raises UsageError: there is none."""
        if number not in self._jobs:
            raise UsageError(f"there is no job {number}; jobs are forgotten when headstart ui ends, runs are not")
        return self._jobs[number]

    def all(self) -> list[Job]:
        """Every job, the latest first."""
        return sorted(self._jobs.values(), key=lambda job: -job.number)

    def stop(self, number: int) -> None:
        """Send Ctrl-C to a job that runs; one that does not is left alone. Raises UsageError: there is none."""
        job = self.get(number)
        if job.state == "running":
            _interrupt(self._processes[number])

    def close(self) -> None:
        """Send Ctrl-C to all that run, and end what does not listen."""
        running = [process for process in self._processes.values() if process.poll() is None]
        for process in running:
            _interrupt(process)
        for process in running:
            try:
                process.wait(PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _terminal() -> tuple[int | None, int | None]:
    """Two ends of a terminal, so that the process shows its progress as it goes; none where there are no terminals."""
    try:
        import pty
    except ImportError:
        return None, None
    reader, writer = pty.openpty()
    return reader, writer


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        if os.name == "nt":
            process.terminate()
        else:
            os.killpg(process.pid, signal.SIGINT)


def _watch(job: Job, process: "subprocess.Popen[bytes]", errors: Any, then: Callable[[Job], None] | None) -> None:
    """Read what a process says until it ends; the document on its standard output is the result."""
    printed: list[bytes] = []
    out: Any = process.stdout
    reader = threading.Thread(target=lambda: printed.append(out.read()), daemon=True)
    reader.start()
    for line in _lines(errors):
        job.hear(line)
    code = process.wait()
    reader.join()
    out.close()
    errors.close()
    state = "done" if code in DONE_CODES else "stopped" if code in (STOPPED_CODE, -signal.SIGINT) else "failed"
    try:
        job.result = json.loads(printed[0]) if printed and state == "done" else None
    except ValueError:
        state = "failed"
        job.lines.append("what the process printed is no result; look at what it said")
    try:
        if state == "done" and then is not None:
            then(job)
    except HeadstartError as error:
        job.lines.append(shown(str(error)))
    job.state = state
    job.version += 1


def _lines(stream: Any) -> Iterator[str]:
    """What is written to a terminal, split at line ends and at returns to the start of the line."""
    waiting = b""
    while True:
        try:
            some = stream.read(4096) if isinstance(stream, io.FileIO) else stream.read1(4096)
        except OSError:  # the other end of a terminal is closed
            some = b""
        if not some:
            break
        *whole, waiting = re.split(rb"[\r\n]+", waiting + some)
        for line in whole:
            yield line.decode("utf-8", "backslashreplace")
        bar = waiting.decode("utf-8", "backslashreplace").rstrip()
        if BAR.match(bar) and bar.endswith(("left", "/s", "each", "%")):  # the next drawing may be long in coming
            yield bar
            waiting = b""
    if waiting:
        yield waiting.decode("utf-8", "backslashreplace")
