"""The prediction service: a run behind HTTP, for other programs.

A request passes the guard (`guard`: host, origin, token, size; `refusals`), its photos are taken from it (`uploads`),
decoded in processes that can be killed (`decoding`, `worker`), computed by one engine for all clients (`batching`) and
answered as JSON (`application`). `protocol` and `running` are the connections and the server's life; `guard`,
`protocol` and `running` serve the local pages, too.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from headstart.runs import Run, load_run

if TYPE_CHECKING:
    from starlette.applications import Starlette

    from headstart.service.settings import ServiceSettings


def build_service(run: Run, settings: "ServiceSettings | None" = None) -> "Starlette":
    """Return the application that answers for a run, without the guard; its lifespan starts and stops what it needs.

    Args:
        run: whose classifier answers.
        settings: how much it takes on.
    """
    from headstart.service.application import Service
    from headstart.service.settings import ServiceSettings

    return Service(run, settings or ServiceSettings()).app


def serve(
    run: str | Path | Run,
    *,
    settings: "ServiceSettings | None" = None,
    started: Callable[[str], None] | None = None,
) -> None:
    """Serve a run over HTTP until SIGTERM or Ctrl-C; requests that were accepted are answered first.

    Args:
        run: a run or its directory.
        settings: where to listen, whom to let in, how much to take on.
        started: receives the address once clients can connect; `/readyz` tells when predictions are ready.

    Raises:
        RunError: there is no such run, or it is damaged.
        UsageError: the settings would let everybody in, or the address is taken.
        HeadstartError: the engine or the decoders do not start.
    """
    from headstart.service.application import Service
    from headstart.service.guard import guarded
    from headstart.service.running import address_of, listen, run_app
    from headstart.service.settings import ServiceSettings

    settings = settings or ServiceSettings()
    service = Service(run if isinstance(run, Run) else load_run(run), settings)
    bound = listen(settings.guard)
    if started is not None:
        started(address_of(bound))
    guard = guarded(service.app, settings.guard, service.observe)
    run_app(guard, bound, on_stop=service.drain, fatal=lambda: service.failure)
