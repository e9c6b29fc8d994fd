"""The service as programs meet it: the answers of the command line, and nothing but them, whatever is sent."""

import csv
import http.client
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.runs import Run
from service_running import Answer, Running, ask, form, jpeg, write_real_run

ROUTES = ("/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json")
CAP = 3_000_000  # bytes of a request, in these tests
TELLS = re.compile(r"Traceback|\.py\b|/home/|/root/|/usr/|/tmp/|site-packages|Starlette|uvicorn|Python/", re.I)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, converted_backbones: Path) -> Run:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(converted_backbones))
        return write_real_run(tmp_path_factory.mktemp("service") / "insects")


@pytest.fixture(scope="module")
def service(run: Run, converted_backbones: Path) -> Iterator[Running]:
    with Running(run.path, converted_backbones, {"max_body": CAP, "receipt_seconds": 4.0}, {"workers": 2}) as running:
        yield running
    assert running.process.returncode == 0
    assert running.errors == ""  # no error, no file written, no connection made, no program started


def cli(cache: Path, *arguments: object) -> str:
    command = [sys.executable, "-m", "headstart", *map(str, arguments)]
    environment = {**os.environ, "HEADSTART_CACHE": str(cache)}
    return subprocess.run(command, capture_output=True, text=True, timeout=120, env=environment, check=False).stdout


def well_formed(answer: Answer) -> bool:
    """Whether it is an answer a program can read, with the headers of every answer, that gives nothing away."""
    for name in ("content-security-policy", "x-content-type-options", "x-frame-options"):
        assert name in answer.headers
    assert not TELLS.search(answer.body.decode())
    assert answer.status == 200 or answer.status == 422 or set(answer.json["error"]) == {"code", "message", "id"}
    return True


def test_a_photo_gets_the_probabilities_of_the_command_line_sent_raw_in_a_form_or_by_curl(
    service: Running, converted_backbones: Path, tmp_path: Path
) -> None:
    photos = []
    for number in range(3):
        photos.append(tmp_path / f"{number}.jpg")
        photos[-1].write_bytes(jpeg(number, 200 + 150 * number))
    lines = cli(converted_backbones, "predict", service.run, *photos, "--format", "jsonl").splitlines()
    expected = [json.loads(line) for line in lines]
    body, headers = form([(path.name, path.read_bytes()) for path in photos])
    together = service.ask("POST", "/v1/predict", body, headers).json["predictions"]
    alone = [service.predict(path.read_bytes()).json["predictions"][0] for path in photos]
    assert [row["name"] for row in together] == ["0.jpg", "1.jpg", "2.jpg"]
    for told, *given in zip(expected, together, alone, strict=True):
        for row in given:
            assert row["label"] == told["label"] and list(row["probabilities"]) == list(told["probabilities"])
            assert row["probabilities"] == pytest.approx(told["probabilities"], abs=1e-6)
    if shutil.which("curl"):
        address = f"http://127.0.0.1:{service.port}/v1/predict"
        command = ["curl", "-s", "--data-binary", f"@{photos[1]}", "-H", "Content-Type: image/jpeg", address]
        said = json.loads(subprocess.run(command, capture_output=True, timeout=60, check=True).stdout)
        assert said["predictions"][0]["probabilities"] == pytest.approx(expected[1]["probabilities"], abs=1e-6)


def test_topk_names_as_many_classes_as_asked_for_the_most_probable_first(service: Running) -> None:
    every = service.predict(jpeg()).json["predictions"][0]["probabilities"]
    two = service.ask("POST", "/v1/predict?topk=2", jpeg(), {"Content-Type": "image/png"}).json["predictions"][0]
    assert list(two["probabilities"].items()) == sorted(every.items(), key=lambda item: -item[1])[:2]
    for wrong in ("0", "-1", "x", "", "1e3", "99999999999999999999", "%00"):
        answer = service.ask("POST", f"/v1/predict?topk={wrong}", jpeg(), {"Content-Type": "image/png"})
        assert answer.status == 400 and "topk" in answer.json["error"]["message"]


def test_the_model_is_described_and_the_counts_grow(service: Running) -> None:
    told = service.ask("GET", "/v1/model").json
    assert told["classes"] == ["ants", "bees", "wasps"] and told["limits"] == {"bytes": CAP, "photos": 32}
    assert told["model"] == service.predict(jpeg()).json["model"]
    before = service.metric('headstart_photos_total{outcome="predicted"}')
    service.predict(jpeg())
    assert service.metric('headstart_photos_total{outcome="predicted"}') == before + 1
    assert service.metric("headstart_ready") == 1


def test_every_odd_image_gets_the_answer_of_the_library(
    service: Running, run: Run, shared_data: Path, converted_backbones: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(converted_backbones))
    folder = shared_data / "odd_images"
    with (folder / "manifest.csv").open(newline="", encoding="utf-8") as file:
        listed = {row["file"]: row["expect"] for row in csv.DictReader(file)}
    names = sorted(name for name in listed if (folder / name).is_file() and (folder / name).stat().st_size < CAP)
    expected = run.predict([folder / name for name in names])
    used = 0
    for name, told in zip(names, expected, strict=True):
        body, headers = form([(name, (folder / name).read_bytes())])
        answer = service.ask("POST", "/v1/predict", body, headers)
        assert well_formed(answer)
        row = answer.json["predictions"][0]
        assert (answer.status == 200) == (listed[name] == "used"), name
        if told.error is None:
            used += 1
            assert row["probabilities"] == pytest.approx(dict(told.probabilities), abs=1e-6), name
        else:
            assert row["error"]["code"] == told.error.split(":")[0], name
    assert used > 50 and len(names) - used > 50
    assert service.metric("headstart_decoder_restarts_total") == 0


def malformed(folder: Path, count: int) -> Iterator[tuple[str, bytes, dict[str, str]]]:
    """Yield requests that no honest client sends: path, body, headers; the same ones every time."""
    draw = random.Random(35)
    seeds = [path.read_bytes() for path in sorted(folder.iterdir()) if 0 < path.stat().st_size < 60_000]
    good, kind = form([("a.jpg", seeds[0]), ("b.png", seeds[1])])
    boundary = kind["Content-Type"].split("=")[1].encode()
    many = b"".join(
        b'--%s\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n\r\n' % boundary for _ in range(9999)
    )
    types = ["image/jpeg", "image/../x", "text/html", "application/json", "multipart/form-data", "a" * 9000, "\x01", ""]
    for number in range(count):
        data = bytearray(draw.choice(seeds))
        match number % 8:
            case 0 | 1:  # bits of a picture turned over
                for _ in range(draw.randint(1, 20)):
                    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
                yield "/v1/predict", bytes(data), {"Content-Type": "image/jpeg"}
            case 2:  # a picture cut short
                yield "/v1/predict", bytes(data[: draw.randrange(len(data))]), {"Content-Type": "image/png"}
            case 3 | 4:  # a form with bytes turned over, cut or doubled
                text = bytearray(good)
                for _ in range(draw.randint(1, 10)):
                    text[draw.randrange(min(len(text), 400))] = draw.randrange(256)
                yield "/v1/predict", bytes(text[draw.randrange(3) :]) * draw.randint(1, 2), kind
            case 5:
                yield "/v1/predict", bytes(data), {"Content-Type": draw.choice(types)}
            case 6:
                yield f"/v1/predict?topk={draw.choice(['a', '0', '-3', '%ff', '1&topk=x'])}", bytes(data), {}
            case _:
                body = draw.choice([many, b"a=1&" * 500_000, b"", b"\0" * 100, b"--" + boundary + b"--\r\n"])
                yield "/v1/predict", body, draw.choice([kind, {"Content-Type": "application/x-www-form-urlencoded"}])


def test_whatever_is_sent_is_a_fault_of_the_client_and_no_decoder_dies(
    service: Running, shared_data: Path, pytestconfig: pytest.Config
) -> None:
    count = 5000 if pytestconfig.getoption("--full") else 500
    statuses: dict[int, int] = {}
    for path, body, headers in malformed(shared_data / "odd_images", count):
        answer = service.ask("POST", path, body, headers)
        assert well_formed(answer), (path, headers)
        assert answer.status in (200, 400, 413, 415, 422), (answer.status, path, headers, body[:300])
        statuses[answer.status] = statuses.get(answer.status, 0) + 1
    assert len(statuses) >= 4
    assert service.metric("headstart_decoder_restarts_total") == 0
    assert max(service.memory(pid) for pid in service.decoders()) < 600


@pytest.mark.parametrize(
    "content",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET /v1/model HTTP/1.1\r\nHost: 127.0.0.1\r\nHost: evil\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\nZZ\r\nhello\r\n0\r\n\r\n",
        b"GET /v1/model HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 200_000 + b"\r\n\r\n",
        b"GET /" + b"a" * 200_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_what_is_no_http_is_told_so_and_its_connection_ended(service: Running, content: bytes) -> None:
    said = service.raw(content)
    assert said.startswith(b"HTTP/1.1 400") and b"x-content-type-options: nosniff" in said
    assert not TELLS.search(said.decode())


def test_an_upload_over_the_cap_is_refused_at_once_announced_or_not(service: Running) -> None:
    before = service.memory()
    head = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\n"
    began = time.monotonic()
    assert service.raw(head + b"Content-Length: 300000000\r\n\r\n").startswith(b"HTTP/1.1 413")
    assert time.monotonic() - began < 3
    chunk = b"%x\r\n" % 65536 + b"x" * 65536 + b"\r\n"
    assert service.raw(head + b"Transfer-Encoding: chunked\r\n\r\n" + chunk * (CAP // 65536 + 2)).startswith(
        b"HTTP/1.1 413"
    )
    assert service.predict(b"x" * 300_000_000).status == 413
    assert service.memory() - before < 60


def test_a_form_with_more_photos_than_a_request_may_have_is_refused(service: Running) -> None:
    body, headers = form([("a.jpg", b"x")] * 33)
    assert service.ask("POST", "/v1/predict", body, headers).status == 400


def test_clients_that_trickle_are_cut_off_and_disturb_nobody(service: Running, pytestconfig: pytest.Config) -> None:
    count = 200 if pytestconfig.getoption("--full") else 40
    starts = (
        b"GET /v1/model HTTP/1.1\r\nHost: 127.0.0.1\r\nX: ",
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: image/jpeg\r\nContent-Length: 1000\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n",
        b"",
    )
    slow = [socket.create_connection(("127.0.0.1", service.port)) for _ in range(count)]
    began = time.monotonic()
    for number, channel in enumerate(slow):
        channel.sendall(starts[number % len(starts)])
    open_ones, answers = set(slow), 0
    while open_ones and time.monotonic() - began < 12:
        assert service.predict(jpeg()).status == 200
        answers += 1
        for channel in list(open_ones):
            channel.setblocking(False)
            try:
                if starts[slow.index(channel) % len(starts)]:
                    channel.send(b"1")
                if channel.recv(65536) == b"":
                    open_ones.discard(channel)
            except BlockingIOError:
                pass
            except OSError:
                open_ones.discard(channel)
        time.sleep(0.2)
    for channel in slow:
        channel.close()
    assert not open_ones and answers > 3
    assert time.monotonic() - began < 4.0 + 6.0  # the limit, and what a busy machine takes


def traversals(count: int) -> list[str]:
    """Paths that would leave a folder if a path ever opened a file."""
    target = ("etc/passwd", "model.json", "windows/win.ini", "proc/self/environ")
    ups = (
        "../",
        "..%2f",
        "%2e%2e/",
        "%2e%2e%2f",
        "..\\",
        "..%5c",
        "....//",
        "%c0%ae%c0%ae/",
        "..%00/",
        "..;/",
        "//",
        "",
    )
    found = [
        f"{start}{up * depth}{name}"
        for start in ("/", "/v1/", "/v1/model/", "/v1/predict/", "/static/", "/metrics/", "/\\\\host\\share\\", "/%00")
        for up in ups
        for depth in (1, 4)
        for name in target
    ]
    return random.Random(37).sample(found, count)


def test_no_path_opens_a_file(service: Running) -> None:
    connection = service.connect()
    for path in traversals(300):
        answer = ask(connection, "GET", path)
        assert answer.status in (400, 404, 405) and well_formed(answer), path
        assert b"root:" not in answer.body and b"PATH=" not in answer.body
        if answer.headers.get("connection") == "close":
            connection.close()
    connection.close()


def test_a_storm_of_ranges_is_answered_like_any_request(service: Running) -> None:
    ranges = "bytes=" + ",".join(f"{number}-{number}" for number in range(3000))
    began = time.monotonic()
    for route in ROUTES[1:]:
        assert service.ask("GET", route, headers={"Range": ranges}).status == 200
    assert time.monotonic() - began < 2


def test_an_answer_on_a_connection_that_is_kept_does_not_wait_for_an_acknowledgement(service: Running) -> None:
    connection, seconds = service.connect(), []
    for _ in range(40):
        began = time.monotonic()
        ask(connection, "GET", "/healthz")
        seconds.append(time.monotonic() - began)
    connection.close()
    assert sorted(seconds)[20] < 0.03  # the system's delayed acknowledgement is 0.04


@pytest.mark.parametrize(
    "name", ["../../etc/passwd", "..\\..\\win.ini", "a\x1b[31m.jpg", "<img src=x onerror=alert(1)>.jpg", "a%00b.jpg"]
)
def test_a_file_name_opens_nothing_and_is_said_back_as_text_without_its_folder(service: Running, name: str) -> None:
    body, headers = form([(name, jpeg())])
    answer = service.ask("POST", "/v1/predict", body, headers)
    said = answer.json["predictions"][0]["name"]
    assert answer.status == 200 and answer.headers["content-type"] == "application/json"
    assert "/" not in said and "\\win" not in said and said.isprintable()


@pytest.mark.parametrize("route", [*ROUTES, "/nowhere"])
def test_every_route_answers_with_the_headers_and_refuses_foreign_hosts_pages_and_methods(
    service: Running, route: str
) -> None:
    for method in ("GET", "POST", "PUT", "DELETE", "OPTIONS", "TRACE"):
        answer = service.ask(method, route, headers={"Content-Length": "0"})
        assert answer.status < 500 and "access-control-allow-origin" not in answer.headers
        assert all(name in answer.headers for name in ("content-security-policy", "x-frame-options"))
        assert service.ask(method, route, headers={"Host": "evil.example"}).status == 403
    for headers in ({"Origin": "http://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        assert service.ask("POST", route, jpeg(), headers).status == 403


def test_a_decoder_that_is_killed_costs_at_most_its_own_request(service: Running) -> None:
    before = service.metric("headstart_decoder_restarts_total")
    statuses: list[int] = []

    def send() -> None:
        connection = service.connect()
        statuses.extend(
            ask(connection, "POST", "/v1/predict", jpeg(side=1500), {"Content-Type": "image/jpeg"}).status
            for _ in range(12)
        )
        connection.close()

    senders = [threading.Thread(target=send) for _ in range(3)]
    for sender in senders:
        sender.start()
    for _ in range(4):
        time.sleep(0.15)
        for pid in service.decoders()[:1]:
            os.kill(pid, signal.SIGKILL)
    for sender in senders:
        sender.join(timeout=60)
    assert len(statuses) == 36 and set(statuses) <= {200, 503} and statuses.count(503) <= 4
    assert service.predict(jpeg()).status == 200
    assert service.metric("headstart_decoder_restarts_total") > before


def test_before_the_first_warm_prediction_it_lives_but_is_not_ready_and_connections_are_counted(
    run: Run, converted_backbones: Path
) -> None:
    with Running(run.path, converted_backbones, {"connections": 8}, ready=False) as running:
        assert running.ask("GET", "/healthz").status == 200
        early = running.ask("GET", "/readyz"), running.predict(jpeg())
        running.wait_until_ready()
        assert running.predict(jpeg()).status == 200
        idle = [socket.create_connection(("127.0.0.1", running.port)) for _ in range(8)]
        time.sleep(0.3)
        one_too_many = running.raw(b"")
        for channel in idle:
            channel.close()
        time.sleep(0.3)
        assert running.predict(jpeg()).status == 200
        assert running.stop() == 0
    assert one_too_many.startswith(b"HTTP/1.1 503") and b"retry-after: 1" in one_too_many
    assert [answer.status for answer in early] == [503, 503]
    assert all(int(answer.headers["retry-after"]) >= 1 for answer in early)


def test_more_photos_than_it_takes_on_are_told_to_come_back(run: Run, converted_backbones: Path) -> None:
    with Running(run.path, converted_backbones, service={"queue": 3, "workers": 1}) as running:
        answers: list[Answer] = []
        senders = [threading.Thread(target=lambda: answers.append(running.predict(jpeg(side=2500)))) for _ in range(12)]
        for sender in senders:
            sender.start()
        for sender in senders:
            sender.join(timeout=60)
        assert {answer.status for answer in answers} == {200, 503}
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in answers if answer.status == 503)
        assert running.predict(jpeg()).status == 200
        assert running.ask("POST", "/v1/predict", *form([("a.jpg", jpeg())] * 4)).status == 413


def test_told_to_stop_it_answers_what_it_accepted_and_leaves_with_0(
    run: Run, converted_backbones: Path, pytestconfig: pytest.Config
) -> None:
    for _ in range(20 if pytestconfig.getoption("--full") else 2):
        with Running(run.path, converted_backbones) as running:
            stuck = socket.create_connection(("127.0.0.1", running.port))
            stuck.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 10\r\n\r\n")
            cut_off, answered = [], []

            def send(port: int = running.port, cut_off: list[str] = cut_off, answered: list[int] = answered) -> None:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                while True:
                    try:
                        if connection.sock is None:
                            connection.connect()
                    except ConnectionError:
                        return  # new ones are refused: the end
                    try:
                        connection.request("POST", "/v1/predict", jpeg(), {"Content-Type": "image/jpeg"})
                        answered.append(ask_only(connection))
                    except (ConnectionError, http.client.HTTPException) as error:
                        cut_off.append(repr(error))
                        connection.close()

            senders = [threading.Thread(target=send) for _ in range(6)]
            for sender in senders:
                sender.start()
            time.sleep(1.0)
            began = time.monotonic()
            code = running.stop()
            seconds = time.monotonic() - began
            for sender in senders:
                sender.join(timeout=60)
            stuck.close()
        assert code == 0 and seconds < 8  # a stuck client has 2 s
        assert set(answered) == {200} and len(answered) > 6
        assert not cut_off


@pytest.mark.full
def test_in_a_hundred_thousand_photos_it_takes_no_more_memory_and_no_more_files(
    run: Run, converted_backbones: Path
) -> None:
    with Running(run.path, converted_backbones) as running:

        def state() -> tuple[float, int]:
            memory = running.memory() + sum(running.memory(pid) for pid in running.decoders())
            return memory, len(list(Path(f"/proc/{running.process.pid}/fd").iterdir()))

        def send(count: int) -> None:
            connection = running.connect()
            for number in range(count):
                photo = (jpeg(number % 7, 96), b"broken", jpeg()[:-700])[number % 20 // 18 + (number % 20 == 19)]
                answer = ask(connection, "POST", "/v1/predict", photo, {"Content-Type": "image/jpeg"})
                assert answer.status in (200, 422)
            connection.close()

        def load(count: int) -> None:
            senders = [threading.Thread(target=send, args=(count // 4,)) for _ in range(4)]
            for sender in senders:
                sender.start()
            for sender in senders:
                sender.join()

        load(2000)
        files, memory = state()[1], []
        for _ in range(10):
            load(10_000)
            memory.append(state()[0])
        slope = float(np.polyfit(np.arange(10), memory, 1)[0])  # MB for 10,000 photos
        assert slope <= 1.0 and abs(state()[1] - files) <= 2, (slope, memory, files, state())


def ask_only(connection: http.client.HTTPConnection) -> int:
    answer = connection.getresponse()
    answer.read()
    return answer.status


def test_a_run_that_was_damaged_is_not_served(run: Run, converted_backbones: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "insects"
    shutil.copytree(run.path, damaged)
    weights = bytearray((damaged / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (damaged / "model.safetensors").write_bytes(weights)
    with pytest.raises(RuntimeError, match=r"model\.safetensors is damaged"), Running(damaged, converted_backbones):
        pass


def test_a_port_that_is_taken_is_one_clear_line(service: Running, converted_backbones: Path) -> None:
    with (
        pytest.raises(RuntimeError, match=r"cannot listen on 127\.0\.0\.1:\d+: Address already in use; choose another"),
        Running(service.run, converted_backbones, {"port": service.port}),
    ):
        pass


def test_schemathesis_finds_nothing_against_the_description(service: Running, tmp_path: Path) -> None:
    pytest.importorskip("schemathesis")
    program = Path(sys.executable).with_name("st")
    if not program.exists():
        pytest.skip("the command st of schemathesis is not there: pip install schemathesis")
    # Left out is the check that every string of bytes is accepted as a photo.
    checks = ("--checks", "all", "--exclude-checks", "positive_data_acceptance")
    command = [
        *(str(program), "run", f"http://127.0.0.1:{service.port}/openapi.json", *checks),
        *(
            "--max-examples",
            "20",
            "--phases",
            "examples,coverage,fuzzing",
            "--seed",
            "1",
            "--generation-database",
            "none",
        ),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


def test_the_command_serves_and_leaves_in_good_order(run: Run, converted_backbones: Path, tmp_path: Path) -> None:
    code = "import sys, headstart.cli as c\nfrom headstart.cli.serving import serve\nc.cli.add_command(serve)\n"
    program = tmp_path / "serve.py"
    program.write_text(code + "sys.exit(c.run(sys.argv[1:]))\n", encoding="utf-8")
    environment = {**os.environ, "HEADSTART_CACHE": str(converted_backbones)}
    command = [sys.executable, str(program), "serve", str(run.path), "--port", "0", "--json", "--quiet"]
    process: Any = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    url = json.loads(process.stdout.readline())["url"]
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=30)
    assert url.startswith("http://127.0.0.1:") and ask(connection, "GET", "/healthz").status == 200
    connection.close()
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert (process.returncode, out, errors) == (0, "", "")
    refused = subprocess.run(
        [*command[:4], "--host", "0.0.0.0"], capture_output=True, text=True, timeout=60, check=False, env=environment
    )
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1 and "there is no token" in refused.stderr
