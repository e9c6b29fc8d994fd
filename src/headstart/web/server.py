"""The local pages as one application, behind the guard: addresses, errors, and what ends with it."""

import contextlib
import importlib
import threading
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headstart.errors import HeadstartError, ImageRejected, UsageError
from headstart.files import shown
from headstart.service.guard import Guard, GuardSettings, guarded
from headstart.web.browse import RunPages
from headstart.web.checking import DataPages
from headstart.web.inside import InsidePages
from headstart.web.jobs import Jobs
from headstart.web.learn import LearnPages
from headstart.web.opened import NoSuchRunError, Opened
from headstart.web.rendering import answer, page, static
from headstart.web.screening import Screen
from headstart.web.start import StartPages
from headstart.web.tryout import TryPages

WARM_AFTER = 2.0  # seconds: the first page comes first


@dataclass(frozen=True, kw_only=True)
class UiSettings:
    """How the pages are served.

    Args:
        runs: the folder of the runs; it need not be there yet.
        port: on 127.0.0.1; the pages start programs, so no other machine ever reaches them.
    """

    runs: Path = Path("runs")
    port: int = 7860


def serve_ui(settings: UiSettings, *, tell: Callable[[str], None], browser: bool = True) -> None:
    """Serve the pages until Ctrl-C; trainings that still run then are stopped as by Ctrl-C.

    Args:
        settings: where the runs are, and the port.
        tell: is told the address, once pages can be asked for.
        browser: open it.

    Raises:
        UsageError: the port is in use.
    """
    import webbrowser

    from headstart.service.running import address_of, listen, run_app

    jobs = Jobs()
    bound = listen(GuardSettings(port=settings.port))
    tell(address_of(bound))
    if browser:
        webbrowser.open(address_of(bound))
    run_app(build_ui(settings, jobs), bound, on_stop=jobs.end)


def build_ui(settings: UiSettings, jobs: Jobs | None = None) -> Guard:
    """The application: an ASGI app, guarded.

    Args:
        settings: where the runs are.
        jobs: the processes; new ones where none are given. They end with the application.
    """
    opened, jobs = Opened(settings.runs), Jobs() if jobs is None else jobs
    inside, screen = InsidePages(opened), Screen()
    rooms: tuple[Any, ...] = (
        RunPages(opened, jobs),
        StartPages(opened, jobs),
        DataPages(opened, jobs),
        TryPages(opened),
        inside,
        LearnPages(opened, jobs),
    )

    @contextlib.asynccontextmanager
    async def life(_app: Starlette) -> AsyncIterator[None]:
        warming = threading.Timer(WARM_AFTER, _warm)
        warming.daemon = True
        warming.start()
        yield
        warming.cancel()
        inside.close()
        jobs.close()
        await screen.close()

    app = Starlette(
        routes=[Route("/static/{name}", static), *(route for room in rooms for route in room.routes())],
        exception_handlers={HeadstartError: _told, HTTPException: _no_page},
        lifespan=life,
    )
    app.state.screen = screen
    return guarded(app, GuardSettings(host="127.0.0.1", port=settings.port))


def _warm() -> None:
    """Import what takes seconds while the first page is being read."""
    for module in ("headstart.training.range_finder", "headstart.explain.projection", "headstart.look.units"):
        importlib.import_module(module)


def _told(request: Request, error: Exception) -> Response:
    """An error meant for people: a page for a browser that shows pages, JSON for what asks for anything else."""
    missing = isinstance(error, NoSuchRunError) or (isinstance(error, ImageRejected) and error.reason == "missing")
    status = 404 if missing else 422 if isinstance(error, ImageRejected) else 400 if _is_usage(error) else 409
    return _error(request, status, type(error).__name__, str(error))


def _no_page(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 404
    said = {404: "there is no such page", 405: "this address does not take such a request"}
    return _error(request, status, "HTTP", said.get(status, "the request cannot be answered"))


def _is_usage(error: Exception) -> bool:
    return isinstance(error, UsageError)


def _error(request: Request, status: int, kind: str, text: str) -> Response:
    said = shown(" ".join(text.split()))
    if "text/html" in request.headers.get("accept", ""):
        return page("error.html", status, here="", text=said[:1].upper() + said[1:])
    return answer({"error": {"code": kind, "message": said}}, status)
