"""What is in a folder of photos and what is wrong with it: problems, and copies side by side."""

import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headstart.dataset import Dataset, Photo
from headstart.errors import DataError, ImageRejected, UsageError
from headstart.files import shown
from headstart.readers import open_dataset
from headstart.web.forms import fields_of
from headstart.web.jobs import Job, Jobs
from headstart.web.opened import Opened
from headstart.web.rendering import answer, page, picture, thumbnail, whole_number

GROUPS = 20  # of copies, a page
MEMBERS = 8  # photos of a group that are shown
KEPT = 4  # data sets that stay listed


class DataPages:
    """The pages of data.

    Args:
        opened: the runs, and the folders that were named.
        jobs: the processes.
    """

    def __init__(self, opened: Opened, jobs: Jobs) -> None:
        self._opened, self._jobs = opened, jobs
        self._listed: OrderedDict[str, tuple[Dataset, dict[str, int]]] = OrderedDict()
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/data", self.start),
            Route("/data", self.scan, methods=["POST"]),
            Route("/data/{key}", self.data),
            Route("/data/{key}/groups", self.groups),
            Route("/data/{key}/photos/{number:int}", self.photo),
        ]

    def start(self, _request: Request) -> Response:
        """GET /data: name a folder, or choose one that was named before."""
        return page("data.html", here="data", folders=self._opened.folders.all())

    async def scan(self, request: Request) -> Response:
        """POST /data: look at a folder; the answer is its page."""
        key = await run_in_threadpool(self._scan, (await fields_of(request)).get("data", ""))
        return RedirectResponse(f"/data/{key}", 303)

    def _scan(self, data: str) -> str:
        key = self._opened.folders.remember(data)
        running = [job for job in self._scans(key) if job.state == "running"]
        if not running:
            with self._lock:
                self._listed.pop(key, None)
            named = self._opened.folders.data(key) or data
            self._jobs.start("scan", f"Looking at {shown(named)}", ["scan", "--json", "--", named], {"data": key})
        return key

    def _scans(self, key: str) -> list[Job]:
        """The scans of some data, the latest first."""
        return [job for job in self._jobs.all() if job.kind == "scan" and job.about.get("data") == key]

    def data(self, request: Request) -> Response:
        """GET /data/KEY: the problems; while the scan runs, how far it is."""
        key = request.path_params["key"]
        named = self._named(key)
        scans = self._scans(key)
        job = scans[0] if scans else None
        found = _summed(job.result) if job is not None and job.result is not None else None
        return page("scanned.html", here="data", key=key, data=named, job=job, found=found)

    def groups(self, request: Request) -> Response:
        """GET /data/KEY/groups?kind=&from=: groups of copies, each photo with its number and label, page by page."""
        key, kind = request.path_params["key"], request.query_params.get("kind", "")
        scans = [job for job in self._scans(key) if job.result is not None]
        if not scans or scans[0].result is None:
            raise UsageError("these data were not looked at since headstart ui started; look at them first")
        every = list(_groups(scans[0].result, kind))
        dataset, places = self._opened_data(key)
        start = whole_number(request, "from", 0)
        told = [
            {
                "size": len(group),
                "photos": [_told(path, dataset, places) for path in group[:MEMBERS]],
            }
            for group in every[start : start + GROUPS]
        ]
        return answer({"total": len(every), "from": start, "each": GROUPS, "groups": told})

    def photo(self, request: Request) -> Response:
        """GET /data/KEY/photos/N: photo N of the data as a small JPEG."""
        dataset, _ = self._opened_data(request.path_params["key"])
        number = request.path_params["number"]
        if not 0 <= number < len(dataset.photos):
            raise ImageRejected("missing", f"the data have {len(dataset.photos):,} photos, counted from 0")
        return picture(thumbnail(dataset.fetch(dataset.photos[number])))

    def _named(self, key: str) -> str:
        named = self._opened.folders.data(key)
        if named is None:
            raise DataError("there are no data of that address; name their folder")
        return named

    def _opened_data(self, key: str) -> tuple[Dataset, dict[str, int]]:
        """The data with the number of each path; listed once."""
        named = self._named(key)
        with self._lock:
            if key not in self._listed:
                dataset = open_dataset(named)
                self._listed[key] = dataset, {photo.path: number for number, photo in enumerate(dataset.photos)}
                while len(self._listed) > KEPT:
                    self._listed.popitem(last=False)
            return self._listed[key]


KINDS = {
    "leaks": "Copies in different splits",
    "conflicts": "The same photo under different labels",
    "near_conflicts": "Photos that look the same under different labels",
    "duplicates": "Exact copies",
    "near": "Near copies",
}


def _groups(found: Mapping[str, Any], kind: str) -> Iterator[Sequence[str]]:
    """The groups of paths of one kind of problem. Raises UsageError: there is no such kind."""
    if kind == "leaks":
        yield from ([leak["test"], leak["train"]] for leak in found["leaks"])
    elif kind in ("conflicts", "near_conflicts"):
        name = "label_conflicts" if kind == "conflicts" else "near_label_conflicts"
        yield from (conflict["paths"] for conflict in found.get(name, []))
    elif kind in ("duplicates", "near"):
        yield from found["duplicates" if kind == "duplicates" else "near_duplicates"]
    else:
        raise UsageError(f"unknown kind {shown(kind)[:40]!r}; choose one of: {', '.join(KINDS)}")


def _summed(found: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows at once: counts, warnings, what was left out; the groups are asked for."""
    classes = sorted(found["classes"].items(), key=lambda item: (-item[1], item[0]))
    most = max((count for _, count in classes), default=1)
    return {
        "images": found["images"],
        "classes": [(name, count, count / max(most, 1)) for name, count in classes[:60]],
        "more_classes": max(0, len(classes) - 60),
        "splits": found["splits"],
        "sizes": found["sizes"],
        "formats": found.get("formats", {}),
        "skipped": found["skipped"][:200],
        "more_skipped": max(0, len(found["skipped"]) - 200),
        "warnings": found["warnings"],
        "kinds": [(kind, title, count) for kind, title in KINDS.items() if (count := len(list(_groups(found, kind))))],
    }


def _told(path: str, dataset: Dataset, places: Mapping[str, int]) -> dict[str, Any]:
    number = places.get(path)
    photo: Photo | None = None if number is None else dataset.photos[number]
    label = None if photo is None else dataset.classes[photo.label]
    return {"path": shown(path), "number": number, "label": label, "split": None if photo is None else photo.split}
