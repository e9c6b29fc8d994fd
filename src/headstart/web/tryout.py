"""Trying a run on a photo: the label with every probability, what in the photo speaks for it, and what it is like.

The photo is the body of the request. It is decoded in memory, answered, and forgotten: nothing of it is stored or
written to a log.
"""

from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headstart.errors import ImageRejected
from headstart.explain import Explanation, Photo, explain, first_method
from headstart.web.opened import Opened, OpenRun
from headstart.web.rendering import answer, inline, page, picture, thumbnail
from headstart.web.screening import photo_bytes

OVERLAY = 448  # px, longer side of a map over its photo
QUICK = {"occlusion": {"window": 56, "stride": 28}}  # settings of slow methods, so that an answer takes a few seconds


class TryPages:
    """The page where photos are dropped.

    Args:
        opened: the runs.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened

    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/runs/{name}/try", self.form),
            Route("/runs/{name}/predict", self.predict, methods=["POST"]),
            Route("/runs/{name}/explain", self.explain, methods=["POST"]),
            Route("/runs/{name}/nearest", self.nearest, methods=["POST"]),
            Route("/runs/{name}/training/{number:int}", self.training_photo),
        ]

    def form(self, request: Request) -> Response:
        """GET /runs/NAME/try: drop, paste, choose or take a photo."""
        opened = self._opened.get(request.path_params["name"])
        return page("try.html", here="runs", name=opened.name, classes=opened.run.metrics["classes"], data=opened.data)

    async def predict(self, request: Request) -> Response:
        """POST /runs/NAME/predict: what `headstart predict` says of the photo in the body, as JSON."""
        content, name = await photo_bytes(request), request.path_params["name"]
        return answer(await run_in_threadpool(_predicted, self._opened.get(name), content))

    async def explain(self, request: Request) -> Response:
        """POST /runs/NAME/explain?class=: the map of the photo in the body, over it, and what it adds up to."""
        content, name = await photo_bytes(request), request.path_params["name"]
        label = request.query_params.get("class")
        return answer(await run_in_threadpool(explained, self._opened.get(name), content, label))

    async def nearest(self, request: Request) -> Response:
        """POST /runs/NAME/nearest: the training photos that the net finds most like the photo in the body."""
        content, name = await photo_bytes(request), request.path_params["name"]
        return answer(await run_in_threadpool(_nearest, self._opened.get(name), content))

    def training_photo(self, request: Request) -> Response:
        """GET /runs/NAME/training/N: training photo N as a small JPEG."""
        opened = self._opened.get(request.path_params["name"])
        return picture(thumbnail(opened.training_photo(request.path_params["number"])))


def _predicted(opened: OpenRun, content: bytes) -> dict[str, Any]:
    with opened.lock:
        found = opened.run.predict(content)
    if found.error is not None:
        reason, _, detail = found.error.partition(": ")
        raise ImageRejected(reason, detail)
    document = found.to_json(len(found.probabilities))
    return {name: value for name, value in document.items() if name != "path"}


def explained(
    opened: OpenRun, source: Any, label: str | None = None, method: str | None = None, side: int = OVERLAY
) -> dict[str, Any]:
    """One map of a photo for the pages: over the photo, with its class, what it shows and what it adds up to.

    Args:
        opened: the run.
        source: of the photo, or a prepared one.
        label: the class; None: the predicted one.
        method: of `headstart.explain.METHODS`; None: the one that says most.
        side: px, the longer side of the picture.
    """
    with opened.lock:
        photo = source if isinstance(source, Photo) else opened.subject.photo(source)
        name = method or first_method(opened.subject, photo)
        labels = () if label is None else (label,)
        found: Explanation = explain(opened.subject, photo, (name,), labels, settings=QUICK.get(name, {}))[0]
        image = found.overlay(side)
    check = found.check
    return {
        "overlay": inline(image),
        "label": found.label,
        "probability": found.probability,
        "logit": found.score,
        "method": found.method.title,
        "sentence": found.method.sentence,
        "check": None if check is None else check.to_json(),
        "stamps": list(found.stamps),
    }


def _nearest(opened: OpenRun, content: bytes) -> dict[str, Any]:
    if opened.dataset() is None:
        return {"missing": "The photos of this run are not known here: say on the page of the run where they are."}
    cut = opened.run.classifier.cut
    with opened.lock:
        photo = opened.subject.photo(content)
        features = opened.subject.outputs([photo.pixels], (cut,))[cut][0].reshape(-1)
        photos, of = opened.nearest(features)
    return {"photos": photos, "of": of}
