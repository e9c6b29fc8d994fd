"""The service under load: throughput beside that of the library, waiting times, overload, memory.

    python benchmarks/service.py DATA [--run RUN] [--seconds 20] [--rounds 3]

DATA holds ants_bees; see CONTRIBUTING.md. Without RUN, one is trained on it. The clients are raw sockets in this
process and share the processors with the server. Three measurements:

closed    so many clients, each sends its next photo when it has its answer; beside the library (`Run.predict` on the
          same photos) in alternating rounds
overload  photos are sent on a fixed schedule at three times the throughput, whatever becomes of them; beside it, a
          client that asks /healthz every 50 ms
curl      50 requests by curl, one after the other
"""

import argparse
import asyncio
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from harness import machine, spread

import headstart
from headstart.config import TrainConfig
from headstart.readers.walk import walk
from headstart.runs import Run

CLIENTS = (1, 4, 16, 64)
QUEUE = 128
OVERLOAD = 3
OPEN_CONNECTIONS = 400


@dataclass
class Tally:
    """What became of requests."""

    seconds: list[float] = field(default_factory=list)  # of those answered with 200
    refused: list[float] = field(default_factory=list)  # of those answered with 503
    statuses: Counter[int] = field(default_factory=Counter)
    without_retry: int = 0
    broken: int = 0

    def add(self, status: int, seconds: float, head: bytes) -> None:
        """Count an answer."""
        self.statuses[status] += 1
        if status == 200:
            self.seconds.append(seconds)
        elif status == 503:
            self.refused.append(seconds)
            self.without_retry += b"\r\nretry-after:" not in head.lower()

    def to_text(self, wall: float) -> str:
        """One line."""
        return (
            f"{len(self.seconds) / wall:6.1f} photos/s, p50 {quantile(self.seconds, 0.5):6.0f} ms, "
            f"p99 {quantile(self.seconds, 0.99):6.0f} ms, statuses {dict(self.statuses)}, "
            f"{self.broken} broken connections, {self.without_retry} refusals without Retry-After"
        )


def quantile(seconds: list[float], share: float) -> float:
    """In milliseconds."""
    return 1000 * sorted(seconds)[min(int(share * len(seconds)), len(seconds) - 1)] if seconds else float("nan")


def request(photo: bytes) -> bytes:
    lines = (
        "POST /v1/predict HTTP/1.1",
        "Host: localhost",
        "Content-Type: image/jpeg",
        f"Content-Length: {len(photo)}",
    )
    return "\r\n".join([*lines, "", ""]).encode() + photo


HEALTH = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Client:
    """One connection that is kept."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.pipe: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, content: bytes, tally: Tally) -> None:
        """Send a request and count its answer."""
        began = time.perf_counter()
        try:
            if self.pipe is not None and self.pipe[0].at_eof():
                self.close()  # the server ended it while it was idle
            if self.pipe is None:
                self.pipe = await asyncio.open_connection("127.0.0.1", self.port)
            reader, writer = self.pipe
            writer.write(content)
            await writer.drain()
            head = await reader.readuntil(b"\r\n\r\n")
            size = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
            await reader.readexactly(size)
            tally.add(int(head.split(b" ", 2)[1]), time.perf_counter() - began, head)
            if b"connection: close" in head.lower():
                self.close()
        except (OSError, asyncio.IncompleteReadError):
            tally.broken += 1
            self.close()

    def close(self) -> None:
        """Leave."""
        if self.pipe is not None:
            self.pipe[1].close()
            self.pipe = None


async def closed(port: int, requests: list[bytes], clients: int, seconds: float) -> tuple[Tally, float]:
    """So many clients at a time, each with one request under way."""
    tally, supply = Tally(), itertools.cycle(requests)
    began = time.perf_counter()

    async def loop() -> None:
        client = Client(port)
        while time.perf_counter() - began < seconds:
            await client.send(next(supply), tally)
        client.close()

    await asyncio.gather(*(loop() for _ in range(clients)))
    return tally, time.perf_counter() - began


async def overload(port: int, requests: list[bytes], rate: float, seconds: float) -> tuple[Tally, Tally, float]:
    """Requests at fixed moments; a client that is free takes the next, and their number has an end."""
    tally, health = Tally(), Tally()
    supply = itertools.cycle(requests)
    free = [Client(port) for _ in range(OPEN_CONNECTIONS)]
    under_way: set[asyncio.Task[None]] = set()
    began = time.perf_counter()

    async def one(client: Client, content: bytes) -> None:
        await client.send(content, tally)
        free.append(client)

    async def watch() -> None:
        client = Client(port)
        while time.perf_counter() - began < seconds:
            await client.send(HEALTH, health)
            await asyncio.sleep(0.05)

    watching = asyncio.create_task(watch())
    for number in range(int(rate * seconds)):
        delay = began + number / rate - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        if free:
            task = asyncio.create_task(one(free.pop(), next(supply)))
            under_way.add(task)
            task.add_done_callback(under_way.discard)
        else:
            tally.statuses[0] += 1  # not sent
    wall = time.perf_counter() - began
    await asyncio.gather(*under_way, watching)
    return tally, health, wall


@contextmanager
def serving(run: Path) -> Iterator[tuple[int, int]]:
    """Serve a run; port and process id."""
    command = [sys.executable, "-m", "headstart", "serve", str(run), "--port", "0", "--json", "--quiet"]
    process = subprocess.Popen([*command, "--queue", str(QUEUE)], stdout=subprocess.PIPE, text=True)
    try:
        port = int(json.loads(process.stdout.readline())["url"].rsplit(":", 1)[1]) if process.stdout else 0
        while asyncio.run(closed(port, [HEALTH.replace(b"healthz", b"readyz")], 1, 0.0001))[0].statuses[200] == 0:
            time.sleep(0.1)
        yield port, process.pid
    finally:
        process.terminate()
        process.wait()


def resident(pid: int) -> float:
    """MB."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmRSS")).split()[1]) / 1024


def processor_seconds(pid: int) -> float:
    """Of the server and its decoders."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    rows = [
        Path(f"/proc/{each}/stat").read_text(encoding="ascii").rsplit(")", 1)[1].split() for each in (pid, *children)
    ]
    return sum(int(row[11]) + int(row[12]) for row in rows) / os.sysconf("SC_CLK_TCK")


def library_rate(run: Run, photos: list[bytes], seconds: float) -> tuple[float, float]:
    """Photos a second, and processor seconds a photo."""
    began, used, done = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - began < seconds:
        done += len(run.predict(photos))
    return done / (time.perf_counter() - began), (time.process_time() - used) / done


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        path = given.run or Path(folder) / "run"
        if given.run is None:
            headstart.train(given.data / "ants_bees", path, config=TrainConfig(strategy="head"))
        run = headstart.load(path)
        files = [given.data / "ants_bees" / name for name in walk(given.data / "ants_bees").files][:128]
        photos = [file.read_bytes() for file in files]
        with serving(path) as (port, pid):
            measure(run, photos, port, pid, given.seconds, given.rounds)
            curl(port, files[:50])


def measure(run: Run, photos: list[bytes], port: int, pid: int, seconds: float, rounds: int) -> None:
    requests = [request(photo) for photo in photos]
    library_rate(run, photos[:16], 1)  # opens the engine
    rates: list[float] = []
    ratios: list[float] = []
    costs: list[float] = []
    for _ in range(rounds):
        library, cost = library_rate(run, photos, seconds)
        run.classifier.close()  # its memory and threads are not in the server's way
        used = processor_seconds(pid)
        tally, wall = asyncio.run(closed(port, requests, 64, seconds))
        costs.append((processor_seconds(pid) - used) / len(tally.seconds) / cost)
        rates.append(len(tally.seconds) / wall)
        ratios.append(rates[-1] / library)
        print(f"library {library:.1f} photos/s; 64 clients: {tally.to_text(wall)}")
    print(f"64 clients beside the library: {spread(ratios)} of its photos a second")
    print(f"processor time a photo, the service beside the library: {spread(costs)}")
    best = statistics.median(rates)
    for clients in CLIENTS[:-1]:
        tally, wall = asyncio.run(closed(port, requests, clients, seconds))
        print(f"{clients:>2} clients: {tally.to_text(wall)}")
    print(f"limit of p99: {1500 * QUEUE / best:.0f} ms (1.5 x queue / throughput)")
    before = resident(pid)
    tally, health, wall = asyncio.run(overload(port, requests, OVERLOAD * best, seconds))
    after, _ = asyncio.run(closed(port, requests, 1, 2))
    print(f"overload: {tally.to_text(wall)}; goodput {len(tally.seconds) / wall / best:.2f} of the throughput")
    print(
        f"  refusals p99 {quantile(tally.refused, 0.99):.0f} ms; /healthz p99 {quantile(health.seconds, 0.99):.0f} ms"
    )
    print(f"  memory {before:.0f} -> {resident(pid):.0f} MB; afterwards p50 {quantile(after.seconds, 0.5):.0f} ms")


def curl(port: int, files: list[Path]) -> None:
    seconds = []
    for file in files:
        began = time.perf_counter()
        address = f"http://127.0.0.1:{port}/v1/predict"
        done = subprocess.run(
            ["curl", "-sf", "--data-binary", f"@{file}", "-H", "Content-Type: image/jpeg", address],
            capture_output=True,
            check=True,
        )
        seconds.append(1000 * (time.perf_counter() - began))
        json.loads(done.stdout)
    print(f"curl, ms a request with the start of curl: {spread(seconds, 0)}")


if __name__ == "__main__":
    main()
