"""The local pages, asked by a plain client: what they say, what they refuse, and what they never do."""

import contextlib
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import make_photo_folder
from headstart.errors import DataError
from headstart.web.folders import Folders
from headstart.web.jobs import Job
from headstart.web.server import UiSettings, build_ui
from make_run import CLASSES, small_classifier, small_metrics, small_rows, write_small_run
from service_running import jpeg
from web_server import Server, serving, until

LESSONS = ("convolution", "windows", "pooling", "filters", "rate", "dropout", "cases", "cases?run=small")
PAGES = dict.fromkeys(("/", "/train", "/data", "/learn", *(f"/learn/{lesson}" for lesson in LESSONS)), 200)
PAGES |= dict.fromkeys(("/runs/small", "/runs/small/try", "/runs/small/look", "/compare?first=small&second=many"), 200)
PAGES |= {"/nothing": 404, "/runs/nothing": 404, "/jobs/99": 400, "/data/none": 409, "/runs/unfinished": 409}
HOSTILE = (
    '<script>alert("x")</script>',
    "<img src=x onerror=alert(1)>",
    "'\"><svg/onload=alert(2)>",
    "a\x1b[31m\u202eb",
)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs: a small one, one with 10,000 test photos, one with hostile names, and a folder that is none."""
    place = tmp_path_factory.mktemp("web")
    write_small_run(place / "runs" / "small")
    many = small_rows(count=10_000)
    write_small_run(place / "runs" / "many", predictions=many, metrics=small_metrics(many))
    bad = small_rows(HOSTILE, count=40)
    for row in bad:
        row["path"] = f"{HOSTILE[0]}/{row['path']}"
    classifier = small_classifier(HOSTILE)
    write_small_run(place / "runs" / "bad", predictions=bad, metrics=small_metrics(bad, HOSTILE), classifier=classifier)
    (place / "runs" / "unfinished").mkdir()
    (place / "secret.txt").write_text("not for anybody")
    return place


@pytest.fixture(scope="module")
def server(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with serving(place / "runs", tmp_path_factory.mktemp("cache")) as server:
        yield server


@pytest.mark.parametrize("path", PAGES)
def test_every_page_is_shown_with_the_headers_that_protect_it(server: Server, path: str):
    status, headers, body = server.ask(path, Accept="text/html")
    assert status == PAGES[path]
    assert headers["content-type"].startswith("text/html") and b"<h1>" in body
    assert "default-src 'self'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff" and headers["x-frame-options"] == "DENY"
    assert not re.search(rb"<script(?![^>]* src=)", body), "a script of the page's own"
    assert not re.search(rb'(src|href|action)="(https?:)?//', body), "something from another machine"


def test_a_run_says_how_good_and_how_sure_it_is(server: Server, place: Path):
    body = server.ask("/runs/small", Accept="text/html")[2].decode()
    test = json.loads((place / "runs" / "small" / "metrics.json").read_text())["test"]
    assert f"{100 * test['accuracy']:.1f} %" in body and f"{100 * test['accuracy_ci95'][0]:.1f} %" in body


def _cells(place: Path, run: str) -> dict[tuple[str, str], set[str]]:
    """The photos of each cell, read from the table of the run by Python's own reader."""
    cells: dict[tuple[str, str], set[str]] = defaultdict(set)
    with (place / "runs" / run / "predictions.csv").open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            cells[row["label"], row["predicted"]].add(row["path"])
    return cells


@pytest.mark.parametrize("run", ["small", "many"])
def test_a_cell_holds_exactly_its_photos_whatever_the_page(server: Server, place: Path, run: str):
    cells = _cells(place, run)
    for label, name in enumerate(CLASSES):
        for predicted, said in enumerate(CLASSES):
            if run == "many" and label != predicted:
                continue
            found: list[str] = []
            start = f"/runs/{run}/photos?label={label}&predicted={predicted}&from="
            while (told := server.json(f"{start}{len(found)}"))["photos"]:
                assert len(told["photos"]) <= told["each"]
                found += [photo["path"] for photo in told["photos"]]
            assert len(found) == len(set(found)) == told["total"] and set(found) == cells[name, said]


def test_the_page_of_ten_thousand_test_photos_is_small(server: Server):
    body = server.ask("/runs/many", Accept="text/html")[2]
    assert len(body) < 40_000
    assert len(server.ask("/runs/many/photos?label=0&predicted=0")[2]) < 12_000


def test_names_of_classes_and_files_never_become_markup(server: Server):
    for path in ("/runs/bad", "/runs/bad/try", "/runs/bad/look", "/learn/cases?run=bad", "/nothing/" + "%3Cscript%3E"):
        body = server.ask(path, Accept="text/html")[2].decode()
        assert "<script>alert" not in body and "<img src=x" not in body and "<svg/onload" not in body
        assert "\x1b" not in body and "\u202e" not in body
    assert "&lt;script&gt;" in server.ask("/runs/bad", Accept="text/html")[2].decode()
    status, headers, _ = server.ask("/runs/bad/photos?label=0&predicted=0")
    assert status == 200 and headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Host": "evil.example"},
    ],
)
def test_no_page_of_another_site_starts_or_asks_anything(server: Server, headers: dict[str, str]):
    paths = _paths_that_do_something()
    assert {"/train", "/data", "/runs/small/data", "/jobs/1/stop", "/learn/rate"} <= paths and len(paths) >= 10
    for path in paths:
        status, _, body = server.ask(path, "POST", b"data=/tmp", **headers)
        assert status == 403, (path, body)
    jobs = server.ask("/train", Accept="text/html")[2].decode()
    assert "Started since" not in jobs


def _paths_that_do_something() -> set[str]:
    """Every address that takes a POST, from the application's own table."""
    routes: Any = getattr(build_ui(UiSettings()).app, "routes")  # noqa: B009 (an ASGI application has no such name)
    taken = [route.path for route in routes if "POST" in (getattr(route, "methods", None) or ())]
    return {re.sub(r"\{[^}]*\}", "1", path.replace("{name}", "small")) for path in taken}


def test_nothing_outside_the_package_and_the_runs_is_ever_sent(server: Server, place: Path):
    ups = ("..", "%2e%2e", "..%2f", "%2e%2e%2f", "..\\", "%5c..", "....//", "%00", "..%00", "%252e%252e", "//", ".")
    ends = ("secret.txt", "..%2fsecret.txt", "../../etc/passwd", "%2fetc%2fpasswd", "C:%5cwindows", "server.py")
    starts = (
        "/static/",
        "/runs/",
        "/runs/small/photos/",
        "/runs/small/training/",
        "/data/",
        "/learn/filters/",
        "/jobs/",
    )
    for start in starts:
        for up in ups:
            for end in ends:
                request = (
                    f"GET {start}{up}/{end} HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nConnection: close\r\n\r\n"
                )
                with socket.create_connection(("127.0.0.1", server.port), 20) as connection:
                    connection.sendall(request.encode())
                    answer = b"".join(iter(lambda: connection.recv(65536), b""))
                assert b" 200 " not in answer.split(b"\r\n")[0], request
                assert b"not for anybody" not in answer and b"root:" not in answer
                assert str(place).encode() not in answer.replace(f"in {place / 'runs'}".encode(), b"")


def test_what_is_no_photo_is_refused_with_a_sentence_and_stays_nowhere(server: Server, place: Path):
    before = sorted(path.name for path in place.rglob("*"))
    for body in (b"", b"GIF89a", b"<svg onload=alert(1)>", b"\x89PNG\r\n\x1a\n" * 9):
        status, _, content = server.ask("/learn/convolution/photo?kernel=blur", "POST", body)
        message = json.loads(content)["error"]["message"]
        assert status == 422 and message and "Traceback" not in message
    assert sorted(path.name for path in place.rglob("*")) == before


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc, which this system has not")
def test_a_photo_whose_decoder_is_killed_again_and_again_is_told_to_come_back(server: Server):
    """It is stopped before the photo comes, killed with it, and killed again while it starts."""
    photo, over = jpeg(3, 700), threading.Event()
    assert server.ask("/learn/convolution/photo?kernel=blur", "POST", photo)[0] == 200

    def send(number: signal.Signals) -> int:
        """To the children of the server that decode; how many there were."""
        found = 0
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, IndexError, ValueError):
                parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
                if parent == server.process.pid and b"service.worker" in (folder / "cmdline").read_bytes():
                    os.kill(int(folder.name), number)
                    found += 1
        return found

    def hunt() -> None:
        while not over.is_set():
            send(signal.SIGKILL)

    assert send(signal.SIGSTOP) == 1
    hunter = threading.Thread(target=hunt)
    hunter.start()
    try:
        status, headers, content = server.ask("/learn/convolution/photo?kernel=blur", "POST", photo)
    finally:
        over.set()
        hunter.join()
    assert status == 503 and headers["retry-after"] == "1" and "try again" in json.loads(content)["error"]["message"]
    assert server.ask("/learn/convolution/photo?kernel=blur", "POST", photo)[0] == 200


def test_wrong_addresses_are_refused_in_words_and_not_with_an_internal_error(server: Server):
    for path in (
        "/runs/small/photos?label=9&predicted=0", "/runs/small/photos?label=x&predicted=0", "/runs/small/photos/99999",
        "/learn/convolution/numbers?kernel=[[1,", "/learn/convolution/numbers?picture=none",
        "/learn/windows/numbers?size=3&kernel=9", "/learn/pooling/numbers?kind=sum", "/learn/rate/numbers?rate=nan",
        "/learn/dropout/numbers?rate=1e400", "/compare?first=small&second=small", "/compare?first=small&second=none",
        "/runs/unfinished", "/data/none/groups?kind=near", "/jobs/1/result",
        "/runs/small/look/sent-0/stage1/sprite.png",
    ):  # fmt: skip
        status, _, body = server.ask(path)
        assert 400 <= status < 500 and json.loads(body)["error"]["message"], (path, status)


def test_the_numbers_of_the_convolution_are_those_of_a_slow_loop(server: Server):
    for picture in ("curve", "other", "seven", "steps"):
        for kernel in ("curve", "top-edge", "blur", "[[1,-2],[0,3]]"):
            quoted = kernel.replace("[", "%5B").replace("]", "%5D")
            told = server.json(f"/learn/convolution/numbers?picture={picture}&kernel={quoted}")
            x, w = np.array(told["picture"]), np.array(told["kernel"])
            for r, row in enumerate(told["response"]):
                for c, value in enumerate(row):
                    by_hand = sum(x[r + i, c + j] * w[i, j] for i in range(len(w)) for j in range(w.shape[1]))
                    assert value == pytest.approx(by_hand, abs=1e-9)
                    assert told["relu"][r][c] == max(value, 0)
            assert np.shape(told["response"]) == (len(x) - len(w) + 1, x.shape[1] - w.shape[1] + 1)
    assert server.json("/learn/convolution/numbers?picture=curve&kernel=curve")["response"] == [[6600.0]]


def test_every_number_of_the_windows_is_read_where_a_slow_loop_reads_it(server: Server):
    told = server.json("/learn/windows/numbers?size=8&kernel=3&stride=2&padding=1&dilation=2")
    assert told["windows"] == [[at * 2 - 1 + cell * 2 for cell in range(3)] for at in range(3)]
    assert told["output"] == (8 + 2 * 1 - 2 * 2 - 1) // 2 + 1 and told["unread"] == [0, 2, 4, 6]


def test_dropout_keeps_the_mean_and_zeroes_what_it_says(server: Server):
    told = server.json("/learn/dropout/numbers?rate=0.5&kind=inverted&seed=3")
    assert [after == 0 for after in told["training"]] == [not kept for kept in told["keep"]]
    assert told["mean_sum"] == pytest.approx(told["sum"], rel=0.02) and told["use"] == told["values"]


def test_copies_are_shown_in_groups_with_the_numbers_of_their_photos(server: Server, tmp_path: Path):
    folder = make_photo_folder(tmp_path / "copies", per_class=5)
    (folder / "disks" / "again.png").write_bytes((folder / "disks" / "00.png").read_bytes())
    (folder / "bars" / "wrong.png").write_bytes((folder / "disks" / "01.png").read_bytes())
    status, headers, _ = server.post_form("/data", data=str(folder))
    assert status == 303
    body = server.ask(headers["location"], Accept="text/html")[2].decode()
    number = re.search(r'data-number="(\d+)"', body)
    if number:
        assert server.wait(int(number[1]))["state"] == "done"
    body = server.ask(headers["location"], Accept="text/html")[2].decode()
    assert "Exact copies: 2" in body and "The same photo under different labels: 1" in body
    told = server.json(f"{headers['location']}/groups?kind=conflicts")
    photos = {photo["path"]: photo for photo in told["groups"][0]["photos"]}
    assert set(photos) == {"bars/wrong.png", "disks/01.png"} and photos["bars/wrong.png"]["label"] == "bars"
    pictures = {server.ask(f"{headers['location']}/photos/{photo['number']}")[2] for photo in photos.values()}
    assert len(pictures) == 1 and pictures.pop().startswith(b"\xff\xd8"), "both are the same picture, as JPEG"


def test_a_job_that_cannot_do_its_work_says_why(server: Server, tmp_path: Path):
    (tmp_path / "empty").mkdir()
    status, headers, _ = server.post_form("/train", data=str(tmp_path / "empty"), name="never")
    assert status == 303
    told = server.wait(int(headers["location"].rsplit("/", 1)[1]))
    assert told["state"] == "failed" and "Error: " in told["lines"][-1]
    for wrong in ({"data": "/no/such/folder"}, {"data": str(tmp_path), "name": "../x"}, {"data": "digits", "net": "x"}):
        assert 400 <= server.post_form("/train", **wrong)[0] < 500


def test_the_data_of_another_run_are_refused(server: Server, tmp_path: Path):
    folder = make_photo_folder(tmp_path / "other", per_class=3)
    status, _, body = server.post_form("/runs/small/data", data=str(folder))
    assert status == 409 and b"0 of the 24 test photos" in body


def test_what_a_terminal_would_show_is_understood():
    job = Job(1, "train", "t", ())
    job.hear("[######..................] 12/48 photos, 3.2/s, 11 s left")
    assert (job.done, job.of, job.what) == (12, 48, "photos, 3.2/s, 11 s left")
    job.hear("epoch 2/10: [###.....................] 1,200/4,800 photos, 99.0/s, loss 0.5, accuracy 75.00%")
    assert (job.done, job.of) == (1200, 4800) and job.what.startswith("epoch 2 of 10")
    job.hear(
        "epoch 2/10: loss 0.5000, accuracy 75.00%, validation loss 0.6, validation accuracy 70.00%, rate 0.001, 1.2 s"
    )
    assert job.epochs == [{"epoch": 2, "of": 10, "loss": 0.5, "accuracy": 0.75, "val_loss": 0.6, "val_accuracy": 0.7}]
    job.hear("a name \x1b[31m with colours")
    assert job.lines[-1] == "a name \\x1b[31m with colours"


def test_where_photos_are_survives_the_server(tmp_path: Path):
    key = Folders(tmp_path / "runs").remember(str(tmp_path))
    Folders(tmp_path / "runs").assign("first", key)
    again = Folders(tmp_path / "runs")
    assert again.of_run("first") == str(tmp_path) and again.data(key) == str(tmp_path) and again.data("other") is None
    (tmp_path / "runs" / ".ui.json").write_text("[1, 2")
    assert again.of_run("first") is None
    with pytest.raises(DataError, match="there is no folder or file"):
        again.remember(str(tmp_path / "nowhere"))


def test_the_command_prints_the_address_as_json_before_it_serves(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "headstart", "ui", "--port", "0", "--no-browser", "--json", "--quiet"]
    process = subprocess.Popen([*command, "--runs", str(tmp_path)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())["url"]
        until(lambda: _answers(address))
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()


def _answers(address: str) -> bool:
    with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/learn", timeout=5) as answer:
        return bool(answer.status == 200)
    return False
