"""The local pages in a process of their own, and a client for them that is nobody's framework."""

import contextlib
import http.client
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

WATCHED = """
import os, sys
def watch(event, arguments):
    if event == "socket.connect" or (event == "socket.sendto" and len(arguments) > 1 and arguments[1]):
        sys.stderr.write(f"connects: {arguments[1]!r}\\n")
    elif event in ("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn"):
        if "headstart.service.worker" not in str(arguments[1]):
            sys.stderr.write(f"starts: {arguments[:2]!r}\\n")
sys.addaudithook(watch)
"""
SERVE = """
import sys
from pathlib import Path
from headstart.web.server import UiSettings, serve_ui
serve_ui(UiSettings(runs=Path(sys.argv[1]), port=0), tell=lambda text: print(text, flush=True), browser=False)
"""


class Server:
    """A running server.

    Args:
        port: on 127.0.0.1.
        process: it.
    """

    def __init__(self, port: int, process: "subprocess.Popen[str]") -> None:
        self.port, self.process = port, process
        self.errors = ""  # what it wrote to stderr, once it has ended and where it was watched
        self.address = f"http://127.0.0.1:{port}"

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        """Status, headers (names in lower case) and body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has everything
                connection.request(method, path, body, {name.replace("_", "-"): text for name, text in headers.items()})
            answer = connection.getresponse()
            told = {name.lower(): text for name, text in answer.getheaders()}
            return answer.status, told, answer.read()
        finally:
            connection.close()

    def json(self, path: str, method: str = "GET", body: bytes | None = None) -> Any:
        status, _, content = self.ask(path, method, body)
        assert status in (200, 202), (path, status, content[:300])
        return json.loads(content)

    def post_form(self, path: str, **values: str) -> tuple[int, dict[str, str], bytes]:
        kind = "application/x-www-form-urlencoded"
        return self.ask(path, "POST", urlencode(values).encode(), Content_Type=kind, Accept="text/html")

    def wait(self, number: int, seconds: float = 120) -> dict[str, Any]:
        """The last state that the events of a job tell."""
        status, headers, content = self.ask(f"/jobs/{number}/events")
        assert status == 200 and headers["content-type"].startswith("text/event-stream")
        told: dict[str, Any] = json.loads(re.findall(r"^data: (\{\".*\})$", content.decode(), re.M)[-1])
        return told


@contextlib.contextmanager
def serving(runs: Path, cache: Path, *, watched: bool = False) -> Iterator[Server]:
    """The pages of a folder of runs; at the end Ctrl-C must end the process with 0.

    Watched, it writes to `errors` each connection that its process opens and each program that it starts.
    """
    environment = {**os.environ, "HEADSTART_CACHE": str(cache), "OMP_WAIT_POLICY": "passive"}
    process = subprocess.Popen(
        [sys.executable, "-c", WATCHED * watched + SERVE, str(runs)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if watched else None,
        text=True,
        env=environment,
    )
    assert process.stdout is not None
    try:
        found = re.search(r"127\.0\.0\.1:(\d+)", process.stdout.readline())
        assert found, "the server did not start"
        yield (server := Server(int(found[1]), process))
        process.send_signal(signal.SIGINT)
        server.errors = process.communicate(timeout=20)[1] or ""
        assert process.returncode == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def until(condition: Any, seconds: float = 60) -> None:
    """Wait for something that happens elsewhere."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.1)
