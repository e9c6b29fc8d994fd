"""The guard, alone: who may ask, how much a request may hold, and what every answer carries."""

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from headstart.errors import UsageError
from headstart.service.guard import HEADERS, Guard, GuardSettings, guarded
from headstart.service.refusals import Refused

TOKEN = "correct-horse-battery"
CALLS: list[bytes] = []


async def _count(request: Request) -> Response:
    CALLS.append(await request.body())
    return PlainTextResponse(str(len(CALLS[-1])))


async def _fail(_request: Request) -> Response:
    raise RuntimeError("/home/someone/secret.py, line 3")


async def _refuse(_request: Request) -> Response:
    raise Refused(503, "come back", retry_after=7)


async def _own(_request: Request) -> Response:
    return PlainTextResponse("x", headers={"content-security-policy": "default-src 'none'"})


async def _range(request: Request) -> Response:
    return PlainTextResponse(str("range" in request.headers))


ROUTES = [
    Route("/count", _count, methods=["GET", "POST"]),
    Route("/fail", _fail),
    Route("/refuse", _refuse),
    Route("/own", _own),
    Route("/range", _range),
    Route("/healthz", _own),
]


def guard(**settings: Any) -> Guard:
    CALLS.clear()
    return guarded(Starlette(routes=ROUTES), GuardSettings(**settings))


def ask(
    app: Guard, path: str = "/count", method: str = "POST", chunks: tuple[bytes, ...] = (b"",), **given: str
) -> tuple[int, dict[str, str], bytes]:
    """Send a request the way an ASGI server does; `host_` stands for the header host, and so on."""
    headers = {"host": "127.0.0.1:8000", **{name.rstrip("_").replace("_", "-"): value for name, value in given.items()}}
    scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "http_version": "1.1",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
    }
    sent: list[dict[str, Any]] = []
    parts: Iterator[bytes] = iter(chunks)
    left = len(chunks)

    async def receive() -> dict[str, Any]:
        nonlocal left
        left -= 1
        return {"type": "http.request", "body": next(parts), "more_body": left > 0}

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, receive, send))
    body = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], {name.decode(): value.decode() for name, value in sent[0]["headers"]}, body


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:8000", "localhost", "LOCALHOST:1", "[::1]:8000", "photos.example"]
)
def test_requests_for_this_machine_and_for_named_hosts_are_let_in(host: str) -> None:
    assert ask(guard(names=("photos.example",)), host=host)[0] == 200


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "127.0.0.1.evil.example", "evil@127.0.0.1", "127.0.0.1/x", "127.0.0.1\\x", "[::1", "10.0.0.5"],
)
def test_requests_for_any_other_host_are_refused_and_nothing_is_computed(host: str) -> None:
    status, _, body = ask(guard(), host=host)
    assert status == 403 and json.loads(body)["error"]["code"] == "forbidden" and not CALLS


def test_open_to_other_machines_a_bare_address_is_accepted_but_a_foreign_name_is_not() -> None:
    app = guard(host="0.0.0.0", token=TOKEN)
    bearer = {"authorization": f"Bearer {TOKEN}"}
    assert ask(app, host="10.0.0.5:8000", **bearer)[0] == 200
    assert ask(app, host="[fe80::1]:8000", **bearer)[0] == 200
    assert ask(app, host="evil.example", **bearer)[0] == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "http://evil.example"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "http://127.0.0.1:8000.evil.example"},
        {"origin": "file://"},
        {"origin": "http://["},
        {"origin": ""},
        {"sec_fetch_site": "cross-site"},
        {"sec_fetch_site": "same-site"},
        {"sec_fetch_site": "nonsense"},
        {"origin": "http://127.0.0.1:8000", "sec_fetch_site": "cross-site"},
    ],
)
def test_what_a_page_of_another_site_sends_is_refused_and_nothing_is_computed(headers: dict[str, str]) -> None:
    assert ask(guard(), **headers)[0] == 403
    assert not CALLS
    assert ask(guard(), method="GET", **headers)[0] == 200  # looking is harmless: the browser keeps the answer


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"origin": "http://127.0.0.1:8000"},
        {"origin": "https://127.0.0.1:8000", "sec_fetch_site": "same-origin"},
        {"sec_fetch_site": "none"},
    ],
)
def test_what_its_own_pages_and_programs_send_is_let_in(headers: dict[str, str]) -> None:
    assert ask(guard(), **headers)[0] == 200


@pytest.mark.parametrize("given", ["", "Bearer", "Bearer ", f"bearer {TOKEN}", f"Bearer {TOKEN}x", TOKEN, "Bearer é"])
def test_without_the_token_nothing_is_answered_but_what_a_balancer_asks(given: str) -> None:
    app = guard(token=TOKEN)
    status, headers, _ = ask(app, authorization=given)
    assert status == 401 and headers["www-authenticate"] == "Bearer" and not CALLS
    assert ask(app, "/healthz", "GET", authorization=given)[0] == 200
    assert ask(app, authorization=f"Bearer {TOKEN}")[0] == 200


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.4", "example.com", ""])
def test_listening_for_other_machines_without_a_token_is_refused_unless_it_is_said_to_be_wanted(host: str) -> None:
    with pytest.raises(UsageError, match="there is no token; set HEADSTART_TOKEN"):
        GuardSettings(host=host)
    assert not GuardSettings(host=host, without_token=True).local


def test_a_token_that_can_be_guessed_is_refused_and_none_is_ever_shown() -> None:
    with pytest.raises(UsageError, match="at least 16"):
        GuardSettings(token="short")
    assert TOKEN not in repr(GuardSettings(token=TOKEN))


def test_by_default_only_this_machine_is_listened_to() -> None:
    assert GuardSettings().host == "127.0.0.1" and GuardSettings().local and GuardSettings(host="::1").local


def test_an_announced_size_over_the_cap_is_refused_before_a_byte_is_read() -> None:
    status, headers, _ = ask(guard(max_body=100), chunks=(), content_length="101")
    assert status == 413 and not CALLS
    assert "connection" not in headers  # so little can be read and dropped
    status, headers, _ = ask(guard(max_body=100), chunks=(), content_length="300000000")
    assert status == 413 and headers["connection"] == "close"
    assert ask(guard(max_body=100), chunks=(b"x" * 100,), content_length="100")[2] == b"100"


@pytest.mark.parametrize("size", ["-1", "1e3", "", "0x10", "²"])
def test_an_announced_size_that_is_no_number_is_refused(size: str) -> None:
    assert ask(guard(), content_length=size)[0] == 400


def test_a_size_that_was_not_announced_is_cut_at_the_cap() -> None:
    status, headers, body = ask(guard(max_body=100), chunks=(b"x" * 60,) * 3, transfer_encoding="chunked")
    assert status == 413 and headers["connection"] == "close" and not CALLS
    assert json.loads(body)["error"]["code"] == "too_large"


def test_when_too_much_is_held_at_a_time_a_request_is_told_to_come_back_and_the_count_is_kept() -> None:
    app = guard(max_body=100, max_held=50)
    status, headers, _ = ask(app, chunks=(b"x" * 60,))
    assert status == 503 and int(headers["retry-after"]) >= 1
    assert app.held == 0
    assert ask(app, chunks=(b"x" * 40,))[0] == 200
    assert app.held == 0


def test_an_error_nobody_foresaw_is_told_without_what_it_says_and_logged_in_one_line(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status, _, body = ask(guard(), "/fail", "GET")
    told, logged = json.loads(body)["error"], capsys.readouterr().err
    assert status == 500 and b"secret" not in body and b"Traceback" not in body
    assert logged.count("\n") == 1 and json.loads(logged)["id"] == told["id"]
    assert json.loads(logged)["error"] == "RuntimeError"


def test_a_refusal_of_the_application_keeps_its_status_and_says_when_to_come_back() -> None:
    status, headers, body = ask(guard(), "/refuse", "GET")
    assert (status, headers["retry-after"], json.loads(body)["error"]["message"]) == (503, "7", "come back")


@pytest.mark.parametrize("path", ["/count", "/fail", "/refuse", "/nowhere", "/healthz"])
@pytest.mark.parametrize("host", ["127.0.0.1", "evil.example"])
def test_every_answer_carries_the_headers_that_bind_browsers(path: str, host: str) -> None:
    _, headers, _ = ask(guard(), path, "GET", host=host)
    for name, value in HEADERS.items():
        assert headers[name] == value or (path == "/healthz" and name == "content-security-policy")
    assert not [name for name in headers if name.startswith("access-control")]
    assert "set-cookie" not in headers


def test_a_page_may_set_a_policy_of_its_own() -> None:
    assert ask(guard(), "/own", "GET")[1]["content-security-policy"] == "default-src 'none'"


def test_ranges_are_dropped() -> None:
    assert ask(guard(), "/range", "GET", range="bytes=" + ",".join(["0-1"] * 10_000))[2] == b"False"


def test_when_the_server_is_about_to_stop_every_answer_ends_its_connection() -> None:
    app = guard()
    assert "connection" not in ask(app)[1]
    app.draining = True
    assert ask(app)[1]["connection"] == "close"


def test_a_client_that_leaves_in_the_middle_is_no_error(capsys: pytest.CaptureFixture[str]) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        raise AssertionError(message)

    scope = {"type": "http", "method": "POST", "path": "/count", "raw_path": b"", "query_string": b"", "root_path": ""}
    asyncio.run(guard()({**scope, "headers": [(b"host", b"localhost")]}, receive, send))
    assert capsys.readouterr().err == "" and not CALLS


def test_every_answer_is_told_to_the_observer_refusals_too() -> None:
    told: list[tuple[str, int]] = []
    app = Guard(
        Starlette(routes=ROUTES), GuardSettings(), lambda scope, status, _: told.append((scope["path"], status))
    )
    ask(app)
    ask(app, host="evil.example")
    ask(app, "/fail", "GET")
    assert told == [("/count", 200), ("/count", 403), ("/fail", 500)]
