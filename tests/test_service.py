"""The service as programs meet it: the answers of the command line, a start and an end in good order."""

import csv
import http.client
import json
import os
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
from service_running import Answer, Running, ask, form, jpeg, well_formed, write_real_run

ROUTES = ("/v1/predict", "/v1/model", "/healthz", "/readyz", "/metrics", "/openapi.json")
CAP = 3_000_000  # bytes of a request, in these tests


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


def test_an_answer_on_a_connection_that_is_kept_does_not_wait_for_an_acknowledgement(service: Running) -> None:
    connection, seconds = service.connect(), []
    for _ in range(40):
        began = time.monotonic()
        ask(connection, "GET", "/healthz")
        seconds.append(time.monotonic() - began)
    connection.close()
    assert sorted(seconds)[20] < 0.03  # the system's delayed acknowledgement is 0.04


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
