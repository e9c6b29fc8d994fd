"""Listening, and stopping in good order: what was accepted is answered before the process ends."""

import asyncio
import contextlib
import errno
import logging
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import uvicorn

from headstart.errors import HeadstartError, UsageError
from headstart.files import shown
from headstart.service.guard import Guard, GuardSettings
from headstart.service.protocol import protocol_for

KEEP_ALIVE = 5  # seconds an idle connection stays open
LAST_ANSWERS = 8  # seconds that accepted requests have once the server is told to stop
HEAD = 32 * 1024  # bytes of a request's head at most
BACKLOG = 512  # connections the system holds until they are accepted


def listen(settings: GuardSettings) -> socket.socket:
    """Bind the address; clients wait from then on, until `run_app` answers them.

    Raises:
        UsageError: the address is in use or none of this machine.
    """
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.port), family=family, backlog=BACKLOG)
    except (OSError, OverflowError, UnicodeError) as error:
        number = getattr(error, "errno", None)
        reason = os.strerror(number) if number and number > 0 else "there is no such address"
        advice = "choose another --port, or 0 for any" if number == errno.EADDRINUSE else "choose another --host"
        raise UsageError(f"cannot listen on {shown(settings.host)}:{settings.port}: {reason}; {advice}") from error


def address_of(bound: socket.socket) -> str:
    """Return the address that a browser takes."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run_app(
    app: Guard, bound: socket.socket, *, on_stop: Callable[[], None] | None = None, fatal: Callable[[], str] = str
) -> None:
    """Answer requests until SIGTERM or SIGINT; then answer what was accepted, refuse what is new, and return.

    Args:
        app: what `guarded` returns; its lifespan is run.
        bound: of `listen`; closed at the end.
        on_stop: called when the signal arrives.
        fatal: asked now and then; a sentence ends the server with it.

    Raises:
        HeadstartError: `fatal` said why.
    """
    for name in ("uvicorn", "uvicorn.error", "uvicorn.access", "uvicorn.asgi", "python_multipart", "asyncio"):
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)  # the guard logs, one line of JSON an error
    config = uvicorn.Config(
        app,
        http=protocol_for(app.settings),
        loop="asyncio",
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=KEEP_ALIVE,
        timeout_graceful_shutdown=LAST_ANSWERS,
        backlog=BACKLOG,
        h11_max_incomplete_event_size=HEAD,
    )
    server = _Server(config, app, on_stop, fatal)
    try:
        asyncio.run(server.serve(sockets=[bound]))
    finally:
        bound.close()
    if server.reason:
        raise HeadstartError(server.reason)


class _Server(uvicorn.Server):
    """uvicorn, but a signal ends it with a return instead of being raised again, and the guard knows of it."""

    def __init__(
        self, config: uvicorn.Config, guard: Guard, on_stop: Callable[[], None] | None, fatal: Callable[[], str]
    ) -> None:
        super().__init__(config)
        self._guard, self._on_stop, self._fatal = guard, on_stop, fatal
        self.reason = ""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        numbers = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
        before = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._on_stop is not None:
            self._on_stop()
        super().handle_exit(sig, frame)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the door behind those whose connection the system has accepted already; then go on as usual."""
        self._guard.draining = True  # not earlier: clients that are sent away would come to the same door again
        arrived = [connection for bound in sockets or [] for connection in _arrived(bound)]
        for server in self.servers:
            server.close()
        for connection in arrived:
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, connection)
        await super().shutdown(sockets)

    def _protocol(self) -> asyncio.Protocol:
        kind: Any = self.config.http_protocol_class
        protocol: asyncio.Protocol = kind(self.config, self.server_state, self.lifespan.state)
        return protocol

    async def on_tick(self, counter: int) -> bool:
        self.reason = self._fatal()
        return bool(self.reason) or await super().on_tick(counter)


def _arrived(bound: socket.socket) -> Iterator[socket.socket]:
    """Yield the connections that wait to be accepted."""
    with contextlib.suppress(OSError):  # no more
        while True:
            yield bound.accept()[0]
