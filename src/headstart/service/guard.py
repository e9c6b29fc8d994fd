"""What stands in front of every page and every answer: who may ask, how large a request may be, what browsers may do.

The service and the local pages have no accounts and no cookies. What protects them: they listen on this machine alone
unless told otherwise; a request must name a host they answer for (so that a foreign name that was pointed at this
machine is refused); a request that changes or computes something must not come from a page of another site; on other
addresses than the machine's own, a token; and a cap on what a request may hold.
"""

import asyncio
import hmac
import ipaddress
import secrets
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.errors import UsageError
from headstart.files import shown
from headstart.service.refusals import Refused, error_body, log_error

LOOPBACK = ("127.0.0.1", "localhost", "::1")
HARMLESS = ("GET", "HEAD", "OPTIONS")  # methods that change and compute nothing
SHORTEST_TOKEN = 16  # letters
SWALLOWED = 1_000_000  # bytes of a refused request that are read and dropped, so that its connection can go on
LINGER = 0.3  # seconds that the sender of a refused large request has to read the answer
POLICY = (
    "default-src 'self'; img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
)
#: on every answer, unless the page behind the guard sets one of them itself
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}


@dataclass(frozen=True, kw_only=True)
class GuardSettings:
    """Where a server listens and what it lets in.

    Args:
        host: the address to listen on; only this machine reaches 127.0.0.1.
        port: 0: any free one.
        token: what a client must send as `Authorization: Bearer TOKEN`; None: nothing.
        without_token: listen on another address than the machine's own although there is no token.
        names: host names, besides addresses and localhost, that requests may be for.
        open_paths: paths that need no token: what a balancer asks.
        max_body: of one request, bytes.
        max_held: of all requests that are being received or answered, bytes.
        connections: at a time.
        receipt_seconds: within which a request must have arrived whole.

    Raises:
        UsageError: open to other machines without a token, or a token that is too short.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    without_token: bool = False
    names: tuple[str, ...] = ()
    open_paths: tuple[str, ...] = ("/healthz", "/readyz")
    max_body: int = 32_000_000
    max_held: int = 256_000_000
    connections: int = 512
    receipt_seconds: float = 15.0

    def __post_init__(self) -> None:
        """Refuse what would be open to everybody by mistake."""
        if self.token is not None and (len(self.token) < SHORTEST_TOKEN or not self.token.isascii()):
            raise UsageError(
                f"the token has {len(self.token)} letters; it needs at least {SHORTEST_TOKEN}, of ASCII: make one with "
                "python -c 'import secrets; print(secrets.token_urlsafe(24))'"
            )
        if not self.local and self.token is None and not self.without_token:
            raise UsageError(
                f"--host {shown(self.host)} lets other machines in, and there is no token; set HEADSTART_TOKEN, keep "
                "to 127.0.0.1, or say --insecure-no-auth"
            )

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


Observe = Callable[[Scope, int, float], None]  # told of every answer: request, status, seconds


class Guard:
    """An ASGI application around another one; see the head of this module.

    Args:
        app: what answers the requests that are let through.
        settings: what is let through.
        observe: is told of every answer.
    """

    def __init__(self, app: ASGIApp, settings: GuardSettings, observe: Observe | None = None) -> None:
        self.app = app
        self.settings = settings
        self.draining = False  # set when the server is about to stop: every answer then ends its connection
        self.held = 0  # bytes of bodies in memory
        self._observe = observe

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
        elif scope["type"] == "http":
            await _Exchange(self, scope, receive, send, self._observe).run()

    def check(self, scope: Scope) -> None:
        """Refuse a request by its head alone.

        Raises:
            Refused: the host, the token, the origin or the announced size is not accepted.
        """
        headers = _headers(scope)
        self._check_host(headers.get("host", ""))
        self._check_token(scope["path"], headers.get("authorization", ""))
        if scope["method"] not in HARMLESS:
            _check_origin(headers)
        announced = headers.get("content-length", "0")
        if not announced.isascii() or not announced.isdigit():
            raise Refused(400, "the header Content-Length must be a number of bytes")
        if int(announced) > self.settings.max_body:
            raise self.too_large()

    def too_large(self) -> Refused:
        """The refusal of a request with too many bytes."""
        limit = self.settings.max_body / 1e6
        return Refused(413, f"the request is larger than {limit:g} MB; send fewer or smaller photos")

    def _check_host(self, host: str) -> None:
        name = _host_name(host)
        if name in LOOPBACK or name in (self.settings.host.lower(), *map(str.lower, self.settings.names)):
            return
        # A foreign name can be pointed at this machine by its owner; a bare address cannot.
        if not self.settings.local and _is_address(name):
            return
        raise Refused(403, "this server does not answer for the host that the request names")

    def _check_token(self, path: str, given: str) -> None:
        token = self.settings.token
        if token is None or path in self.settings.open_paths:
            return
        if not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Refused(401, "this server wants the header Authorization: Bearer TOKEN")


class _Exchange:
    """One request and its answer."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send, observe: Observe | None) -> None:
        self._guard, self._scope, self._receive, self._send = guard, scope, receive, send
        self._observe = observe
        self._began = time.perf_counter()
        self._status = 0  # of the answer, once begun
        self._complete = False
        self._held = 0
        self._whole = False  # the body has arrived
        self._gone = False  # the client has left
        self._refused: Refused | None = None  # while the application was reading the body
        self._kept: list[Message] = []  # an answer of status 500, until it is known whether an error is behind it

    async def run(self) -> None:
        try:
            self._guard.check(self._scope)
            # Ranges serve no purpose for small files, and thousands of them in one request are a known attack.
            headers = [(name, value) for name, value in self._scope["headers"] if name != b"range"]
            await self._guard.app({**self._scope, "headers": headers}, self._take, self._give)
            if self._refused is not None:
                await self._refuse(self._refused)
            for message in self._kept:
                await self._pass_on(message)
        except Refused as refused:
            await self._refuse(refused)
        except Exception as error:  # the one place where what nobody foresaw becomes an answer
            if self._refused is not None:
                await self._refuse(self._refused)
            elif not self._gone:  # what an application says when its client has left is no error
                await self._refuse(Refused(500, "an internal error"), error)
        finally:
            self._guard.held -= self._held
            if self._observe is not None and self._status:
                self._observe(self._scope, self._status, time.perf_counter() - self._began)

    async def _take(self) -> Message:
        message = await self._receive()
        if message["type"] != "http.request":
            self._gone = True
            return message
        size = len(message.get("body", b""))
        self._held += size
        self._guard.held += size
        self._whole = not message.get("more_body", False)
        if self._held > self._guard.settings.max_body:
            self._refused = self._guard.too_large()
        elif self._guard.held > self._guard.settings.max_held:
            self._refused = Refused(503, "too much is being received at the moment; try again", retry_after=1)
        if self._refused is not None:
            raise self._refused
        return message

    async def _give(self, message: Message) -> None:
        if self._refused is not None:
            return  # what the application says of a body that it could not read
        if self._kept or message.get("status") == 500:
            self._kept.append(message)
        else:
            await self._pass_on(message)

    async def _pass_on(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._status = message["status"]
            headers = list(message.get("headers", []))
            present = {name.lower() for name, _ in headers}
            more = [(name.encode(), value.encode()) for name, value in HEADERS.items() if name.encode() not in present]
            if b"connection" not in present and self._must_close():
                more.append((b"connection", b"close"))
            message = {**message, "headers": headers + more}
        elif message["type"] == "http.response.body":
            self._complete = not message.get("more_body", False)
        await self._send(message)

    def _must_close(self) -> bool:
        """Whether the connection cannot go on: the server stops, or too much of the request is still to come."""
        if self._guard.draining:
            return True
        headers = _headers(self._scope)
        announced = headers.get("content-length", "0")
        small = announced.isdigit() and int(announced) <= SWALLOWED and "transfer-encoding" not in headers
        return not (small or self._whole)

    async def _refuse(self, refused: Refused, cause: Exception | None = None) -> None:
        number = secrets.token_hex(6)
        if cause is not None:
            log_error(cause, number)
        if self._complete:
            return
        if self._status:  # the answer is half sent: all that is left is to break off
            raise ConnectionAbortedError("the answer broke off")
        body = error_body(refused.code, refused.message, number)
        headers = [*refused.headers(), (b"content-length", str(len(body)).encode())]
        await self._pass_on({"type": "http.response.start", "status": refused.status, "headers": headers})
        if self._must_close() and not self._guard.draining:
            # Ending at once resets the connection of a client that is still sending, and it never sees the answer.
            await self._pass_on({"type": "http.response.body", "body": body, "more_body": True})
            await asyncio.sleep(LINGER)
            body = b""
        await self._pass_on({"type": "http.response.body", "body": body})


def guarded(app: ASGIApp, settings: GuardSettings, observe: Observe | None = None) -> Guard:
    """Put the guard in front of an application.

    Args:
        app: any ASGI application; it may raise `Refused`.
        settings: what is let through.
        observe: is told of every answer: request, status, seconds.

    Returns:
        An ASGI application.
    """
    return Guard(app, settings, observe)


def _headers(scope: Scope) -> dict[str, str]:
    pairs: Iterable[tuple[bytes, bytes]] = scope["headers"]
    return {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in pairs}


def _host_name(host: str) -> str:
    """Return the host of a Host header without its port.

    >>> _host_name("LocalHost:8000"), _host_name("[::1]:80"), _host_name("a@b"), _host_name("")
    ('localhost', '::1', '', '')
    """
    if not host or any(letter in host for letter in "@/\\?# "):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _check_origin(headers: dict[str, str]) -> None:
    """Refuse what a page of another site sends from the same person's browser; programs send neither header."""
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        raise Refused(403, "requests from pages of other sites are not answered")
    origin = headers.get("origin")
    if origin is None:
        return
    try:
        parts = urlsplit(origin)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or parts.netloc.lower() != headers.get("host", "").lower():
        raise Refused(403, "requests from pages of other sites are not answered")
