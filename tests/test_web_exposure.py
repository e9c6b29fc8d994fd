"""Whatever is sent to the local pages: nothing outside is opened, nothing goes out, and nobody else waits for it."""

import json
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest

from headstart.service.guard import GuardSettings
from headstart.web.forms import FIELDS, KIND, LARGEST
from hostile_clients import (
    HOST,
    TELLS,
    ask_raw,
    form_of_fields,
    form_of_parts,
    names_that_climb,
    peak_memory,
    range_storm,
    send_in_single_bytes,
    slow_starts,
    traversals,
    trickle,
)
from make_run import write_small_run
from service_running import jpeg
from web_server import Server, serving

CAP = GuardSettings().max_body
STARTS = ("/static/", "/runs/", "/runs/small/photos/", "/runs/small/training/", "/data/", "/learn/filters/", "/jobs/")
STARTS += ("/runs/small/look/", "/compare?first=", "/train?data=", "/learn/cases?run=", "/")
FORMS = ("/train", "/data", "/runs/small/data", "/learn/rate")


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("exposure")
    write_small_run(place / "runs" / "small")
    (place / "secret.txt").write_text("not for anybody")
    return place


@pytest.fixture(scope="module")
def server(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server whose own process connects to nothing and writes nothing but where photos are; see `watched`."""
    with serving(place / "runs", tmp_path_factory.mktemp("cache"), watched=True) as server:
        yield server
        if sys.platform == "linux":
            assert peak_memory(server.process.pid) < 600
    told = server.errors
    assert "connects" not in told and "starts" not in told and '"level": "error"' not in told, told
    assert sorted(path.name for path in place.iterdir()) == ["runs", "secret.txt"]


def test_no_address_opens_a_file(server: Server, place: Path) -> None:
    for path in traversals(STARTS, 300):
        said = ask_raw(server.port, f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n\r\n")
        assert said.split()[1] in (b"400", b"404", b"405", b"409") or b"?" in path.encode(), path
        assert b"not for anybody" not in said and b"root:" not in said and b"PATH=" not in said
        assert str(place).encode() not in said.replace(f"in {place / 'runs'}".encode(), b"")


def test_no_name_of_a_run_or_of_data_climbs_out_of_its_folder(server: Server, place: Path) -> None:
    for name in names_that_climb(300):
        for path in (f"/runs/{quote(name, safe='')}", f"/data/{quote(name, safe='')}", f"/compare?first={quote(name)}"):
            status, _, body = server.ask(path)
            assert 400 <= status < 500 and b"not for anybody" not in body and b"root:" not in body, path
        # a form may name any folder of one's own computer; but a run goes nowhere but among the runs
        form = urlencode({"data": str(place), "name": name}, errors="surrogatepass").encode()
        status, _, body = server.ask("/train", "POST", form, Content_Type=KIND)
        assert status == 400 and b"no name for a run" in body, name


@pytest.mark.parametrize("path", ["/", "/static/look.js", "/runs/small", "/learn", "/healthz"])
def test_a_storm_of_ranges_is_answered_like_any_request(server: Server, path: str) -> None:
    head = f"GET {path} HTTP/1.1\r\n".encode() + HOST + b"Connection: close\r\n"
    began = time.monotonic()
    said = ask_raw(server.port, head + range_storm(10_000) + b"\r\n")
    assert said.split()[1] in (b"200", b"400", b"404") and b"content-range" not in said
    assert time.monotonic() - began < 2


def test_a_large_body_is_refused_announced_or_not_and_kept_nowhere(server: Server) -> None:
    head = b"POST /runs/small/predict HTTP/1.1\r\n" + HOST + b"Content-Type: image/jpeg\r\n"
    assert ask_raw(server.port, head + b"Content-Length: 300000000\r\n\r\n").startswith(b"HTTP/1.1 413")
    chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    many = head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (CAP // 65536 + 2)
    assert ask_raw(server.port, many).startswith(b"HTTP/1.1 413")


@pytest.mark.parametrize("path", FORMS)
def test_a_form_has_few_fields_of_text_and_no_file(server: Server, path: str) -> None:
    files, kind = form_of_parts(10)
    assert server.ask(path, "POST", files, Content_Type=kind)[0] == 400
    assert server.ask(path, "POST", b'{"data": "/tmp"}', Content_Type="application/json")[0] == 400
    assert server.ask(path, "POST", form_of_fields(FIELDS + 2)[0], Content_Type=KIND)[0] == 400
    for content in (b"data=" + b"x" * LARGEST, form_of_fields(1_000_000)[0], form_of_fields(7_000_000)[0]):
        with ThreadPoolExecutor(1) as pool:
            sent = pool.submit(server.ask, path, "POST", content, Content_Type=KIND)
            began = time.monotonic()
            assert server.ask("/learn")[0] == 200
            assert time.monotonic() - began < 2
        status, _, body = sent.result()
        assert status == 413 and json.loads(body)["error"]["message"]
    assert server.ask("/jobs/1")[0] == 400  # none of them started anything


def test_three_million_bytes_in_chunks_of_one_keep_nobody_waiting(server: Server) -> None:
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(send_in_single_bytes, server.port, "/learn/convolution/photo?kernel=blur", 3_000_000)
        slowest = 0.0
        while not sent.done():
            began = time.monotonic()
            assert server.ask("/learn")[0] == 200
            slowest = max(slowest, time.monotonic() - began)
            time.sleep(0.05)
    said = sent.result()
    assert said.split()[1] in (b"408", b"413", b"422") and not TELLS.search(said) and slowest < 2


def test_clients_that_trickle_are_cut_off_and_disturb_nobody(server: Server, pytestconfig: pytest.Config) -> None:
    photo, answers = jpeg(side=64), []

    def meanwhile() -> None:
        answers.append(server.ask("/learn")[0])
        answers.append(server.ask("/learn/convolution/photo?kernel=blur", "POST", photo)[0])

    starts = slow_starts("/learn", "/train", KIND)
    still_open, took = trickle(server.port, starts, 200 if pytestconfig.getoption("--full") else 40, 22, meanwhile)
    assert still_open == 0 and set(answers) == {200} and len(answers) > 10
    assert took < GuardSettings().receipt_seconds + 5
