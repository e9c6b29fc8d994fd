"""What a connection may do: a request arrives within a time, connections are counted, bad HTTP is told so."""

import asyncio
import socket
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from headstart.service.guard import HEADERS, GuardSettings
from headstart.service.refusals import error_body

SLICE = 16 * 1024  # bytes parsed at a time, where a flood of one-byte chunks could keep the others waiting
PARTING = 0.25  # seconds in which a request that is on its way when the server stops is still answered
LAST_RECEIPT = 2.0  # seconds that half a request has to become a whole one when the server stops
_REASONS = {400: "Bad Request", 408: "Request Timeout", 503: "Service Unavailable"}


class GuardedProtocol(H11Protocol):
    """HTTP/1.1 with a deadline for the receipt of a request and a cap on connections."""

    settings = GuardSettings()

    def __init__(self, *args: Any, **values: Any) -> None:
        super().__init__(*args, **values)
        self._deadline: asyncio.TimerHandle | None = None
        self._waiting = bytearray()  # received, to be parsed

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin, or refuse what is one connection too many."""
        super().connection_made(transport)
        # asyncio does this only for sockets that it made itself; without it the second half of an answer waits 40 ms.
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if len(self.connections) > self.settings.connections:
            self._part(503, "busy", "too many connections; try again")
        else:
            self._arm(self.settings.receipt_seconds)

    def data_received(self, data: bytes) -> None:
        """Parse what arrived: a body whose length is known at once, anything else a slice at a time."""
        busy = bool(self._waiting)
        self._waiting += data
        if not busy:
            self._parse()

    def _parse(self) -> None:
        if self.transport.is_closing():
            self._waiting.clear()
            return
        size = len(self._waiting) if self._in_plain_body() else SLICE
        piece = bytes(self._waiting[:size])
        super().data_received(piece)
        del self._waiting[:size]
        self._watch()
        if self._waiting:
            self.transport.pause_reading()
            self.loop.call_soon(self._parse)
        elif not (self.flow.read_paused or self.transport.is_closing()):
            self.transport.resume_reading()

    def _in_plain_body(self) -> bool:
        """Whether what comes next is part of a body that is not in chunks: one piece, however long."""
        return self.conn.their_state is h11.SEND_BODY and not any(
            name == b"transfer-encoding" for name, _ in self.headers
        )

    def on_response_complete(self) -> None:
        """Go on to the next request."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """End."""
        self._disarm()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """Leave an idle connection a moment: a request may be on its way, and is then answered like the others."""
        if self.cycle is None or self.cycle.response_complete:
            self.loop.call_later(PARTING, self._leave)
            return
        super().shutdown()
        if self._deadline is not None:
            self._disarm()
            self._arm(min(LAST_RECEIPT, self.settings.receipt_seconds))

    def send_400_response(self, msg: str) -> None:
        """Say that this is no HTTP, in the form of every refusal."""
        self._part(400, "bad_request", msg)

    def _leave(self) -> None:
        if not self.transport.is_closing():
            super().shutdown()

    def _watch(self) -> None:
        """Run the deadline while a request has begun to arrive and is not whole."""
        state = self.conn.their_state
        begun = state is h11.SEND_BODY or (state is h11.IDLE and bool(self.conn.trailing_data[0]))
        if not begun:
            self._disarm()
        elif self._deadline is None:
            self._arm(self.settings.receipt_seconds)

    def _arm(self, seconds: float) -> None:
        self._deadline = self.loop.call_later(seconds, self._too_late, seconds)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _too_late(self, seconds: float) -> None:
        self._part(408, "too_slow", f"the request did not arrive within {seconds:g} s")

    def _part(self, status: int, code: str, message: str) -> None:
        """Answer if no answer was begun, and end the connection."""
        if self.transport.is_closing():
            return
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(_last_words(status, error_body(code, message, "")))
        self.transport.close()
        self.loop.call_later(1.0, self.transport.abort)  # who does not read cannot keep the connection open


def protocol_for(settings: GuardSettings) -> type[GuardedProtocol]:
    """Return the protocol with these settings, for `uvicorn.Config(http=...)`."""
    return type("GuardedProtocol", (GuardedProtocol,), {"settings": settings})


def _last_words(status: int, body: bytes) -> bytes:
    headers = {**HEADERS, "content-type": "application/json", "content-length": str(len(body)), "connection": "close"}
    if status == 503:
        headers["retry-after"] = "1"
    lines = [f"HTTP/1.1 {status} {_REASONS[status]}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body
