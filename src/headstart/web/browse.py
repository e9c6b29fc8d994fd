"""The list of runs, two of them compared, and one run: its numbers, and the photos behind every one of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headstart.comparison import compare
from headstart.errors import RunError
from headstart.runs import RunSummary
from headstart.runs.guarded import read_regular
from headstart.runs.places import FILES
from headstart.web.forms import fields_of
from headstart.web.jobs import Jobs
from headstart.web.opened import Opened, OpenRun
from headstart.web.rendering import answer, page, picture, thumbnail, whole_number

DRAWN = 24  # classes up to which the confusion matrix is a table of cells; beyond it the worst cells are listed
LISTED = 60  # cells of such a list, flips of a comparison
SHEET = 48  # photos a page of a cell
LARGE = 900  # px, a photo that was opened


class RunPages:
    """The pages of finished runs.

    Args:
        opened: the runs.
        jobs: what runs now, for the list.
    """

    def __init__(self, opened: Opened, jobs: Jobs) -> None:
        self._opened, self._jobs = opened, jobs

    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/", self.runs),
            Route("/compare", self.compared),
            Route("/runs/{name}", self.run),
            Route("/runs/{name}/report", self.report),
            Route("/runs/{name}/photos", self.photos),
            Route("/runs/{name}/photos/{number:int}", self.photo),
            Route("/runs/{name}/data", self.say_data, methods=["POST"]),
        ]

    def runs(self, _request: Request) -> Response:
        """GET /: every run of the folder, the latest first."""
        found = sorted(self._opened.summaries(), key=_age)
        return page("runs.html", here="runs", runs=found, folder=self._opened.place, jobs=self._jobs.all()[:6])

    def compared(self, request: Request) -> Response:
        """GET /compare?first=&second=: what flipped between two runs, and whether it is more than chance."""
        first, second = (request.query_params.get(name, "") for name in ("first", "second"))
        if not first or not second or first == second:
            raise RunError(
                "choose two different runs to compare; go back to the list and mark a first and a second one"
            )
        one, two = self._opened.get(first), self._opened.get(second)
        found = compare(one.run, two.run)
        places = {row["path"]: number for number, row in enumerate(one.rows)}
        return page(
            "compare.html",
            here="runs",
            first=first,
            second=second,
            found=found,
            flips=[
                (title, [flip | {"number": places[flip["path"]]} for flip in flips[:LISTED]], len(flips))
                for title, flips in (("Fixed by the second", found.fixed), ("Broken by the second", found.broken))
            ],
            known=one.data is not None,
        )

    def run(self, request: Request) -> Response:
        """GET /runs/NAME: how good, how sure, what to do next; every cell of the confusion matrix opens its photos."""
        opened = self._opened.get(request.path_params["name"])
        metrics = opened.run.metrics
        return page("run.html", here="runs", name=opened.name, metrics=metrics, data=opened.data, **_told(opened))

    def report(self, request: Request) -> Response:
        """GET /runs/NAME/report: the run's own page, as it was written; its own policy allows nothing but its style."""
        opened = self._opened.get(request.path_params["name"])
        if "report.html" not in opened.run.manifest["files"]:
            raise RunError(f"{opened.name} was written without a report")
        content = read_regular(opened.run.path, "report.html", FILES["report.html"])
        return Response(content, media_type="text/html", headers={"Content-Security-Policy": REPORT_POLICY})

    def photos(self, request: Request) -> Response:
        """GET /runs/NAME/photos?label=&predicted=&from=: the test photos of one cell, the surest first."""
        opened = self._opened.get(request.path_params["name"])
        classes = opened.run.metrics["classes"]
        label = whole_number(request, "label", high=len(classes) - 1)
        predicted = whole_number(request, "predicted", high=len(classes) - 1)
        start = whole_number(request, "from", 0)
        rows = opened.cells.get((classes[label], classes[predicted]), [])
        shown_rows = [
            {
                "number": number,
                "path": opened.rows[number]["path"],
                "label": classes[label],
                "predicted": classes[predicted],
                "probability": opened.rows[number]["probability"],
            }
            for number in rows[start : start + SHEET]
        ]
        known = opened.data is not None
        return answer({"total": len(rows), "from": start, "each": SHEET, "photos": shown_rows, "pictures": known})

    def photo(self, request: Request) -> Response:
        """GET /runs/NAME/photos/N: test photo N as a small JPEG, made from its pixels; ?large=1 a larger one."""
        opened = self._opened.get(request.path_params["name"])
        content = opened.test_photo(request.path_params["number"])
        return picture(thumbnail(content, LARGE) if "large" in request.query_params else thumbnail(content))

    async def say_data(self, request: Request) -> Response:
        """POST /runs/NAME/data: where the run's photos are (a form with the field `data`)."""
        data = (await fields_of(request)).get("data", "")
        await run_in_threadpool(self._assign, request.path_params["name"], data)
        return RedirectResponse(f"/runs/{request.path_params['name']}", 303)

    def _assign(self, name: str, data: str) -> None:
        opened = self._opened.get(name)
        key = self._opened.folders.remember(data)
        opened.check_data(self._opened.folders.data(key) or data)
        self._opened.folders.assign(name, key)


REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)


def _age(summary: RunSummary) -> tuple[float, str]:
    try:
        return -summary.path.stat().st_mtime, summary.path.name
    except OSError:
        return 0.0, summary.path.name


def _told(opened: OpenRun) -> dict[str, Any]:
    """The facts of a run's page."""
    metrics = opened.run.metrics
    test, classes = metrics["test"], metrics["classes"]
    confusion = test.get("confusion")
    photos = sum(row["support"] for row in test["per_class"].values())
    commonest = max(row["support"] for row in test["per_class"].values()) / max(photos, 1)
    return {
        "classes": classes,
        "photos": photos,
        "commonest": commonest,
        "matrix": _matrix(confusion, classes) if confusion and len(classes) <= DRAWN else None,
        "worst": _worst(opened.cells, classes),
        "per_class": list(enumerate(test["per_class"].items())),
        "has_report": "report.html" in opened.run.manifest["files"],
    }


def _matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of cells with their shade, 0 (none) to 8, by their share of the row; off the diagonal by its square root."""
    rows = []
    for place, (name, counts) in enumerate(zip(classes, confusion, strict=True)):
        total = max(sum(counts), 1)
        shades = [
            0 if not count else max(1, round(8 * (count / total) ** (1.0 if column == place else 0.5)))
            for column, count in enumerate(counts)
        ]
        rows.append({"name": name, "total": sum(counts), "cells": list(zip(counts, shades, strict=True))})
    return rows


def _worst(cells: Mapping[tuple[str, str], Sequence[int]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The cells off the diagonal that hold most photos."""
    places = {name: place for place, name in enumerate(classes)}
    found = [(len(rows), pair) for pair, rows in cells.items() if pair[0] != pair[1]]
    found.sort(key=lambda item: (-item[0], item[1]))
    return [
        {"label": label, "predicted": said, "row": places[label], "column": places[said], "count": count}
        for count, (label, said) in found[:LISTED]
    ]
