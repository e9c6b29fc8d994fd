"""A service in a process of its own, and plain HTTP to speak with it."""

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.backbones import open_backbone
from headstart.classifier import Classifier
from headstart.heads import Head
from headstart.runs import Run, write_run
from hostile_clients import TELLS, ask_raw
from make_run import CLASSES, CONFIG, PLAN, small_metrics, small_rows

LAUNCH = Path(__file__).with_name("service_launch.py")


def write_real_run(path: Path) -> Run:
    """Write a run that can predict: the real backbone with a head of random weights."""
    backbone, draw = open_backbone("efficientnet-lite0"), np.random.default_rng(0)
    shape = (len(CLASSES), backbone.classifier_cuts["pooled"])
    tensors = {"weight": (draw.normal(size=shape) / 10).astype(np.float32), "bias": np.zeros(len(CLASSES), np.float32)}
    rows = small_rows()
    return write_run(
        path,
        classifier=Classifier(backbone, "pooled", Head("logistic", tensors, {}), CLASSES, temperature=1.7),
        metrics=small_metrics(rows),
        plan=PLAN,
        config=CONFIG,
        predictions=rows,
        embed_backbone=False,
    )


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Running:
    """A service that runs until the block ends; `errors` is what it wrote to stderr."""

    run: Path
    cache: Path
    guard: Mapping[str, Any] = field(default_factory=dict)
    service: Mapping[str, Any] = field(default_factory=dict)
    ready: bool = True
    port: int = 0
    errors: str = ""

    def __enter__(self) -> "Running":
        told = json.dumps({"run": str(self.run), "guard": dict(self.guard), "service": dict(self.service)})
        environment = {**os.environ, "HEADSTART_CACHE": str(self.cache), "HEADSTART_TOKEN_OF_TEST": "secret"}
        self.process = subprocess.Popen(
            [sys.executable, str(LAUNCH), told],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        line = self.process.stdout.readline() if self.process.stdout else ""
        if not line:
            raise RuntimeError(self.process.communicate()[1])
        self.port = int(json.loads(line)["url"].rsplit(":", 1)[1])
        if self.ready:
            self.wait_until_ready()
        return self

    def wait_until_ready(self, seconds: float = 90) -> None:
        end = time.monotonic() + seconds
        while self.ask("GET", "/readyz").status != 200:
            if time.monotonic() > end:
                raise TimeoutError("not ready")
            time.sleep(0.05)

    def stop(self, seconds: float = 20) -> int:
        """SIGTERM; return the exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        self.errors += self.process.communicate(timeout=seconds)[1]
        return self.process.returncode

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            try:
                self.stop()
            finally:
                self.process.kill()

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        connection = self.connect()
        try:
            return ask(connection, method, path, body, headers)
        finally:
            connection.close()

    def predict(self, photo: bytes, **headers: str) -> Answer:
        return self.ask("POST", "/v1/predict", photo, {"Content-Type": "image/jpeg", **headers})

    def raw(self, content: bytes, seconds: float = 30) -> bytes:
        """Send bytes as they are and return all that comes back."""
        return ask_raw(self.port, content, seconds)

    def decoders(self) -> list[int]:
        """Process ids of the decoders."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text(encoding="ascii")
        lines = {int(pid): Path(f"/proc/{pid}/cmdline").read_bytes() for pid in children.split()}
        return [pid for pid, line in lines.items() if b"headstart.service.worker" in line]

    def memory(self, pid: int | None = None) -> float:
        """Resident memory of the server or a child, MB."""
        lines = Path(f"/proc/{pid or self.process.pid}/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024

    def metric(self, name: str) -> float:
        lines = self.ask("GET", "/metrics").body.decode().splitlines()
        return float(next(line for line in lines if line.startswith(name + " ")).split()[1])


def well_formed(answer: Answer) -> bool:
    """Whether it is an answer a program can read, with the headers of every answer, that gives nothing away."""
    for name in ("content-security-policy", "x-content-type-options", "x-frame-options"):
        assert name in answer.headers
    assert not TELLS.search(answer.body)
    assert answer.status == 200 or answer.status == 422 or set(answer.json["error"]) == {"code", "message", "id"}
    return True


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it may answer before it has everything
        connection.request(method, path, body, dict(headers or {}))
    answer = connection.getresponse()
    return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, answer.read())


def form(files: Sequence[tuple[str, bytes]]) -> tuple[bytes, dict[str, str]]:
    """Write a form by hand: (file name, content) pairs."""
    boundary = uuid.uuid4().hex
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="photo"; filename="{name}"\r\n\r\n'.encode()
        + content
        + b"\r\n"
        for name, content in files
    ]
    return b"".join([*parts, f"--{boundary}--\r\n".encode()]), {
        "Content-Type": f"multipart/form-data; boundary={boundary}"
    }


def jpeg(seed: int = 0, side: int = 320) -> bytes:
    """A photo of soft random colours."""
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    out = io.BytesIO()
    Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC).save(out, "JPEG", quality=90)
    return out.getvalue()
