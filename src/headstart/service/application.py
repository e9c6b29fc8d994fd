"""The routes of the service and what they answer."""

import asyncio
import contextlib
import io
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from PIL import Image
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from headstart.backbones.engines import available_threads
from headstart.errors import HeadstartError, ImageRejected
from headstart.runs import Run
from headstart.service.batching import Batcher
from headstart.service.decoding import Decoders
from headstart.service.metrics import CONTENT_TYPE, Metrics
from headstart.service.openapi import describe
from headstart.service.refusals import Refused, log_error, refusal
from headstart.service.settings import ServiceSettings
from headstart.service.uploads import Upload, read_photos

MOST_DECODERS = 4


class Service:
    """A run that answers.

    Args:
        run: whose classifier answers.
        settings: how much it takes on.
    """

    def __init__(self, run: Run, settings: ServiceSettings) -> None:
        self.failure = ""  # why it cannot go on
        self.ready = False
        self.draining = False
        self._run, self._settings = run, settings
        self._busy = 0  # photos that are being answered
        self._decoders: Decoders | None = None
        self._batcher: Batcher | None = None
        routes = [
            Route("/v1/predict", self._predict, methods=["POST"]),
            Route("/v1/model", self._model, methods=["GET"]),
            Route("/healthz", self._healthz, methods=["GET"]),
            Route("/readyz", self._readyz, methods=["GET"]),
            Route("/metrics", self._metrics, methods=["GET"]),
            Route("/openapi.json", self._openapi, methods=["GET"]),
        ]
        gauges = {
            "headstart_photos_in_work": ("Photos that are being answered.", lambda: float(self._busy)),
            "headstart_queue_limit": ("Photos that are taken on at a time.", lambda: float(settings.queue)),
            "headstart_ready": ("1 if predictions can be made.", lambda: float(self.ready)),
            "headstart_decoder_restarts_total": ("Decoders that were started again.", self._restarts),
        }
        self.metrics = Metrics(tuple(route.path for route in routes), gauges)
        self.app = Starlette(
            routes=routes,
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _tell_http},
        )
        self.app.router.redirect_slashes = False
        self.app.state.service = self

    def observe(self, scope: Scope, status: int, seconds: float) -> None:
        """Count an answer; for the guard, which sees those that never came here, too."""
        self.metrics.request(scope["path"], status, seconds)

    def drain(self) -> None:
        """Say from now on that this service takes no more; a balancer then sends requests elsewhere."""
        self.draining = True

    @contextlib.asynccontextmanager
    async def _lifespan(self, _app: Starlette) -> AsyncIterator[None]:
        warming = asyncio.create_task(self._warm_up())
        try:
            yield
        finally:
            warming.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await warming
            if self._decoders is not None:
                await self._decoders.close()
            if self._batcher is not None:
                await asyncio.to_thread(self._batcher.close)

    async def _warm_up(self) -> None:
        """Start everything and predict one photo; only then is the service ready."""
        settings = self._settings
        try:
            classifier = await asyncio.to_thread(lambda: self._run.classifier)
            self._decoders = Decoders(
                classifier.backbone.preprocessing,
                count=settings.workers or min(available_threads(), MOST_DECODERS),
                max_bytes=settings.guard.max_body,
                seconds=settings.decode_seconds,
            )
            await self._decoders.open()
            self._batcher = Batcher(classifier, settings.threads)
            await asyncio.to_thread(self._batcher.open)
            await self._batcher.compute(await self._decoders.decode("", _made_up_photo()))
        except HeadstartError as error:
            self.failure = str(error)
        except Exception as error:  # the server must end and say why, whatever it was
            log_error(error, "start")
            self.failure = f"the service does not start: {type(error).__name__}"
        else:
            self.ready = True

    async def _predict(self, request: Request) -> Response:
        topk = _topk(request)
        self._check_room(1)  # before the body is read
        guard = self._settings.guard
        photos = await read_photos(request, max_photos=self._settings.max_photos, max_body=guard.max_body)
        with self._taken_on(len(photos)):
            rows = await asyncio.gather(*(self._judge(photo, topk) for photo in photos), return_exceptions=True)
        for row in rows:
            if isinstance(row, BaseException):
                raise row
        read = sum("error" not in row for row in rows if isinstance(row, dict))
        return _json({"model": self._identity, "predictions": rows}, 200 if read else 422)

    async def _judge(self, photo: Upload, topk: int | None) -> dict[str, Any]:
        """One row of the answer."""
        name, data = photo
        if self._decoders is None or self._batcher is None:
            raise Refused(503, "the service is not ready yet", retry_after=2)
        try:
            pixels = await self._decoders.decode(name, data)
        except ImageRejected as error:
            self.metrics.photo("unreadable")
            return {"name": name, "error": {"code": error.reason, "message": error.detail}}
        row = await self._batcher.compute(pixels)
        self.metrics.photo("predicted")
        told = self._run.classifier.judge("", row).to_json(topk)
        del told["path"]
        return {"name": name, **told}

    @contextlib.contextmanager
    def _taken_on(self, count: int) -> Iterator[None]:
        self._check_room(count)
        self._busy += count
        try:
            yield
        finally:
            self._busy -= count

    def _check_room(self, count: int) -> None:
        if not self.ready:
            raise Refused(503, "the service is not ready yet", retry_after=2)
        if count > self._settings.queue:
            raise Refused(413, f"the service takes on {self._settings.queue} photos at a time; send fewer")
        if self._busy + count > self._settings.queue:
            raise Refused(503, "the service has all the photos it can take on; try again", retry_after=1)

    @property
    def _identity(self) -> str:
        """Names the model: the same for every replica that serves the same run."""
        return str(self._run.manifest["seal"])[:16]

    async def _model(self, _request: Request) -> Response:
        model, test = self._run.model, self._run.metrics["test"]
        return _json(
            {
                "model": self._identity,
                "classes": list(model["classes"]),
                "accuracy": test["accuracy"],
                "accuracy_ci95": test["accuracy_ci95"],
                "limits": {
                    "bytes": self._settings.guard.max_body,
                    "photos": min(self._settings.max_photos, self._settings.queue),
                },
            }
        )

    async def _healthz(self, _request: Request) -> Response:
        return _json({"status": "ok"})

    async def _readyz(self, _request: Request) -> Response:
        if self.ready and not self.draining:
            return _json({"status": "ready"})
        raise Refused(503, "stopping" if self.draining else "not ready yet", retry_after=2)

    async def _metrics(self, _request: Request) -> Response:
        return PlainTextResponse(self.metrics.text(), headers={"content-type": CONTENT_TYPE})

    async def _openapi(self, _request: Request) -> Response:
        return _json(describe(token=self._settings.guard.token is not None))

    def _restarts(self) -> float:
        return float(self._decoders.restarts if self._decoders is not None else 0)


def _topk(request: Request) -> int | None:
    given = request.query_params.get("topk")
    if given is None:
        return None
    if not (given.isascii() and given.isdigit() and 0 < len(given) < 6 and int(given) > 0):
        raise Refused(400, "topk must be a whole number of at least 1: how many classes to name")
    return int(given)


def _json(document: Any, status: int = 200) -> Response:
    return Response(json.dumps(document, allow_nan=False), status, media_type="application/json")


async def _tell_http(_request: Request, error: Exception) -> Response:
    """Say 404 and 405 in the form of every refusal."""
    if not isinstance(error, HTTPException):
        raise error
    words = {404: ("not_found", "there is no such page"), 405: ("method_not_allowed", "this page has other methods")}
    code, message = words.get(error.status_code, ("bad_request", "the request cannot be answered"))
    answer = refusal(Refused(error.status_code, message, code=code))
    answer.headers.update(error.headers or {})
    return answer


def _made_up_photo() -> bytes:
    """Return a photo that every run can judge: a grey ramp."""
    out = io.BytesIO()
    Image.linear_gradient("L").save(out, "PNG")
    return out.getvalue()
