"""The container, the unit and the balancer of docs/service.md: what can be run of them is run, the rest is checked."""

import configparser
import http.client
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from headstart.cli import cli
from headstart.service.guard import GuardSettings
from headstart.service.protocol import LAST_RECEIPT
from headstart.service.running import LAST_ANSWERS
from service_running import ask, jpeg, write_real_run

PAGE = (Path(__file__).resolve().parent.parent / "docs" / "service.md").read_text(encoding="utf-8")
TOKEN = "correct-horse-battery"
#: of systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.resource-control(5), systemd.kill(5)
DIRECTIVES = {
    "Unit": {"Description", "After", "Wants", "Requires", "Documentation"},
    "Service": {
        *("Type", "ExecStart", "Environment", "EnvironmentFile", "CacheDirectory", "DynamicUser", "Restart", "User"),
        *("TimeoutStopSec", "MemoryMax", "TasksMax", "CapabilityBoundingSet", "NoNewPrivileges", "PrivateDevices"),
        *("PrivateTmp", "ProtectHome", "ProtectSystem", "ProtectKernelTunables", "ProtectControlGroups", "KillMode"),
        *("RestrictAddressFamilies", "RestrictNamespaces", "SystemCallArchitectures", "RestartSec"),
    },
    "Install": {"WantedBy"},
}


def block(language: str) -> str:
    [found] = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)
    return str(found)


def instructions() -> list[tuple[str, str]]:
    """Of the Dockerfile: word and rest."""
    lines = block("dockerfile").splitlines()
    return [tuple(line.split(" ", 1)) for line in lines]  # type: ignore[misc]


def accepted(words: list[str]) -> dict[str, Any]:
    """What `headstart serve` makes of a command line; raises where an option is unknown."""
    serve = cli.get_command(None, "serve")  # type: ignore[arg-type]
    assert serve is not None
    return dict(serve.make_context("serve", words).params)


def test_the_container_has_only_instructions_of_docker_and_the_commands_that_exist() -> None:
    known = {"FROM", "COPY", "RUN", "ENV", "USER", "EXPOSE", "HEALTHCHECK", "ENTRYPOINT"}
    found = instructions()
    assert {word for word, _ in found} == known and found[0][0] == "FROM"
    entry = json.loads(dict(found)["ENTRYPOINT"])
    assert entry[:2] == ["headstart", "serve"]
    told = accepted(entry[2:])
    assert told["host"] == "0.0.0.0" and str(told["port"]) == dict(found)["EXPOSE"]
    assert dict(found)["USER"] == "65534"  # nobody
    version = re.match(r"python:(\d+)\.(\d+)", dict(found)["FROM"])
    assert version and (int(version[1]), int(version[2])) >= (3, 11)


def test_the_steps_of_the_container_make_a_service_that_answers(
    converted_backbones: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its `RUN` of Python, its entry point and its health check, as they stand but for places and the port."""
    monkeypatch.setenv("HEADSTART_CACHE", str(converted_backbones))
    run, cache = write_real_run(tmp_path / "run").path, tmp_path / "cache"
    found = instructions()
    [prepare] = [rest for word, rest in found if word == "RUN" and rest.startswith("python -c")]
    places = {"/run-directory": str(run), "/cache": str(cache), "python": sys.executable}

    def placed(text: str) -> str:
        for name, place in places.items():
            text = re.sub(rf"(?<![\w/-]){re.escape(name)}(?![\w-])", place, text)
        return text

    environment = {**os.environ, "HEADSTART_CACHE": str(cache), "HEADSTART_TOKEN": TOKEN}
    subprocess.run(["bash", "-c", placed(prepare)], env=environment, check=True, timeout=120, capture_output=True)
    kept = sorted(path.name for path in cache.rglob("*"))
    assert kept and not any(path.stat().st_mode & 0o222 for path in cache.rglob("*"))
    words = [placed(word) for word in json.loads(dict(found)["ENTRYPOINT"])[1:]]
    process = subprocess.Popen(
        [sys.executable, "-m", "headstart", *words, "--port", "0", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        text=True,
    )
    try:
        assert process.stdout is not None
        port = json.loads(process.stdout.readline())["url"].rpartition(":")[2]
        check = placed(dict(found)["HEALTHCHECK"].removeprefix("CMD ")).replace(":8000/", f":{port}/")
        connection = http.client.HTTPConnection("127.0.0.1", int(port), timeout=60)
        while (answer := ask(connection, "GET", "/readyz")).status != 200:
            assert answer.status == 503
        subprocess.run(shlex.split(check), check=True, timeout=30, capture_output=True)
        assert ask(connection, "POST", "/v1/predict", jpeg(), {"Content-Type": "image/jpeg"}).status == 401
        headers = {"Content-Type": "image/jpeg", "Authorization": f"Bearer {TOKEN}"}
        assert len(ask(connection, "POST", "/v1/predict", jpeg(), headers).json["predictions"]) == 1
        connection.close()
    finally:
        process.terminate()
        errors = process.communicate(timeout=30)[1]
    assert (process.returncode, errors) == (0, "")
    assert sorted(path.name for path in cache.rglob("*")) == kept  # it can be read-only


def test_the_unit_has_only_directives_of_systemd_and_leaves_time_to_stop(tmp_path: Path) -> None:
    unit = configparser.ConfigParser(interpolation=None, strict=True)
    unit.optionxform = str  # type: ignore[assignment, method-assign]
    unit.read_string(block("ini"))
    for section in unit.sections():
        assert set(unit[section]) <= DIRECTIVES[section]
    service = unit["Service"]
    program, name, *words = shlex.split(service["ExecStart"])
    assert Path(program).name == "headstart" and name == "serve" and accepted(words)["host"] == "127.0.0.1"
    assert float(service["TimeoutStopSec"]) > LAST_ANSWERS + LAST_RECEIPT
    assert service["Environment"] == f"HEADSTART_CACHE=%C/{service['CacheDirectory']}"
    assert "MemoryDenyWriteExecute" not in service
    if shutil.which("systemd-analyze"):
        path = tmp_path / "headstart.service"
        path.write_text(block("ini").replace(program, sys.executable), encoding="utf-8")
        done = subprocess.run(
            ["systemd-analyze", "verify", path], capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0 and "Unknown" not in done.stderr, done.stderr


def test_the_balancer_lets_through_what_the_service_accepts(tmp_path: Path) -> None:
    told = block("nginx")
    size = re.search(r"client_max_body_size (\d+)m;", told)
    assert size and int(size[1]) * 1_000_000 >= GuardSettings().max_body
    assert told.count("{") == told.count("}") == 3
    if shutil.which("nginx"):
        path = tmp_path / "nginx.conf"
        plain = told.replace("listen 443 ssl;", "listen 127.0.0.1:0;")
        path.write_text(f"pid {tmp_path}/pid;\nevents {{}}\nhttp {{\n{plain}\n}}\n", encoding="utf-8")
        subprocess.run(["nginx", "-t", "-c", path], check=True, timeout=30, capture_output=True)
