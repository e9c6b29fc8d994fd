"""Starting a training from a page, watching it while it runs, and stopping it."""

import asyncio
import itertools
import json
import math
import os
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

from headstart.errors import UsageError
from headstart.files import shown
from headstart.nets import NETS
from headstart.runs.places import is_training
from headstart.web.forms import fields_of
from headstart.web.jobs import Job, Jobs
from headstart.web.opened import Opened
from headstart.web.rendering import answer, page

STRATEGIES = ("auto", "head", "early", "deeper", "full", "scratch")
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,79}", re.ASCII)
OFTEN, ALIVE = 0.25, 10.0  # seconds between looks at a job; between signs of life to a page that waits


class StartPages:
    """The pages of what runs.

    Args:
        opened: the runs.
        jobs: the processes.
    """

    def __init__(self, opened: Opened, jobs: Jobs) -> None:
        self._opened, self._jobs = opened, jobs

    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/train", self.form),
            Route("/train", self.train, methods=["POST"]),
            Route("/jobs/{number:int}", self.job),
            Route("/jobs/{number:int}/events", self.events),
            Route("/jobs/{number:int}/result", self.result),
            Route("/jobs/{number:int}/stop", self.stop, methods=["POST"]),
        ]

    def form(self, request: Request) -> Response:
        """GET /train: the form."""
        key = request.query_params.get("data", "")
        return page(
            "train.html",
            here="train",
            data=self._opened.folders.data(key) or "",
            folders=list(self._opened.folders.all().values())[:8],
            strategies=STRATEGIES,
            nets=sorted(NETS),
            jobs=self._jobs.all(),
        )

    async def train(self, request: Request) -> Response:
        """POST /train: start it and go to its page."""
        job = await run_in_threadpool(self._start, await fields_of(request))
        return RedirectResponse(f"/jobs/{job.number}", 303)

    def _start(self, form: dict[str, str]) -> Job:
        key = self._opened.folders.remember(form.get("data", ""))
        data = self._opened.folders.data(key) or ""
        out = self._place(form.get("name", ""), data)
        command = ["train", "--json", f"--out={out}", *_options(form), "--", data]
        self._opened.place.mkdir(parents=True, exist_ok=True)
        return self._jobs.start(
            "train",
            f"Training {out.name}",
            command,
            {"run": out.name, "data": key},
            lambda job: self._opened.folders.assign(job.about["run"], key),
        )

    def _place(self, name: str, data: str) -> Path:
        """Where the run goes. Raises UsageError: the name is taken, or no name of a folder."""
        if name:
            if not NAME.fullmatch(name):
                raise UsageError(
                    f"{shown(name)[:80]!r} is no name for a run; use letters, digits, dots, dashes and underscores"
                )
            if os.path.lexists(self._opened.place / name) or is_training(self._opened.place / name):
                raise UsageError(f"there is a run {name} already; choose another name")
            return self._opened.place / name
        stem = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "-" for c in Path(data).name).strip("-.")
        places = (self._opened.place / f"{(stem or 'run')[:60]}-{number}" for number in itertools.count(1))
        taken = {job.about.get("run") for job in self._jobs.all() if job.state == "running"}
        return next(
            place
            for place in places
            if not os.path.lexists(place) and not is_training(place) and place.name not in taken
        )

    def job(self, request: Request) -> Response:
        """GET /jobs/N: how it goes, alive."""
        job = self._jobs.get(request.path_params["number"])
        return page("job.html", here="train", job=job, command=" ".join(["headstart", *map(_quoted, job.command)]))

    def result(self, request: Request) -> Response:
        """GET /jobs/N/result: the document that it printed, null until it is done."""
        return answer(self._jobs.get(request.path_params["number"]).result)

    def stop(self, request: Request) -> Response:
        """POST /jobs/N/stop: Ctrl-C."""
        self._jobs.stop(request.path_params["number"])
        return RedirectResponse(f"/jobs/{request.path_params['number']}", 303)

    def events(self, request: Request) -> Response:
        """GET /jobs/N/events: the state whenever it changes, as server-sent events; it ends with the job."""
        job = self._jobs.get(request.path_params["number"])
        return StreamingResponse(
            _events(job, self._jobs), media_type="text/event-stream", headers={"Cache-Control": "no-store"}
        )


async def _events(job: Job, jobs: Jobs) -> AsyncIterator[str]:
    known, quiet = -1, 0.0
    while True:
        over, version = job.state != "running", job.version
        if version != known:
            known, quiet = version, 0.0
            yield f"data: {json.dumps(job.to_json())}\n\n"
        elif quiet >= ALIVE:
            quiet = 0.0
            yield ": still running\n\n"
        if jobs.ending:
            return
        if over:
            yield "event: over\ndata: {}\n\n"
            return
        await asyncio.sleep(OFTEN)
        quiet += OFTEN


def _quoted(word: str) -> str:
    import shlex

    return shlex.quote(shown(word))


def _options(form: dict[str, str]) -> list[str]:
    """The settings of the form as words of a command. Raises UsageError."""
    words: list[str] = []
    if net := form.get("net", ""):
        if net not in NETS:
            raise UsageError(f"unknown net {shown(net)[:40]!r}; choose one of: {', '.join(sorted(NETS))}")
        words.append(f"--net={net}")
    elif (strategy := form.get("strategy", "auto")) != "auto":
        if strategy not in STRATEGIES:
            raise UsageError(f"unknown strategy {shown(strategy)[:40]!r}; choose one of: {', '.join(STRATEGIES)}")
        words.append(f"--strategy={strategy}")
    for name, option, low, high, whole in (
        ("minutes", "budget", 0.0, 1e5, False),
        ("epochs", "epochs", 1.0, 1e5, True),
        ("seed", "seed", 0.0, 2**32 - 1, True),
    ):
        if text := form.get(name, ""):
            value = _number(name, text, low, high, whole)
            words.append(f"--{option}={value}m" if name == "minutes" else f"--{option}={value}")
    return words


def _number(name: str, text: str, low: float, high: float, whole: bool) -> Any:
    try:
        value: Any = int(text) if whole else float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        kind = "whole number" if whole else "number"
        raise UsageError(f"{name} must be a {kind} from {low:g} to {high:g}; received {shown(text)[:40]!r}")
    return value
