"""The service under load: throughput beside that of the library, waiting times, overload, memory.

    python benchmarks/service.py DATA [--run RUN] [--seconds 20] [--rounds 3]

DATA holds ants_bees; see CONTRIBUTING.md. Without RUN, one is trained on it. The clients are raw sockets in this
process and share the processors with the server.

closed    so many clients, each sends its next photo when it has its answer; beside the library (`Run.predict` on the
          same photos) in alternating rounds
overload  photos are sent on a fixed schedule at three times the throughput, whatever becomes of them; beside it, a
          client that asks /healthz every 50 ms; then, how long until a photo takes no longer than before
slow      one client alone, and beside 200 connections that send a byte a second, in alternating rounds
kills     every decoder is killed; how long until a photo is answered again
curl      50 requests by curl, one after the other
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from harness import given_or_trained, machine, spread
from load import HEALTH, beside_trickling, closed, overload, quantile, request

import headstart
from headstart.readers.walk import walk
from headstart.runs import Run

CLIENTS = (1, 4, 16, 64)
QUEUE = 128
OVERLOAD = 3
TRICKLING = 200
KILLS = 10


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
        path = given_or_trained(given.run, given.data, Path(folder) / "run")
        run = headstart.load(path)
        files = [given.data / "ants_bees" / name for name in walk(given.data / "ants_bees").files][:128]
        photos = [file.read_bytes() for file in files]
        with serving(path) as (port, pid):
            measure(run, photos, port, pid, given.seconds, given.rounds)
            requests = [request(photo) for photo in photos]
            slow_clients(port, requests, max(given.seconds, 20), given.rounds)
            kills(port, pid, requests[0])
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
    alone, _ = asyncio.run(closed(port, requests, 1, 5))
    before = resident(pid)
    for _ in range(rounds):
        tally, health, wall = asyncio.run(overload(port, requests, OVERLOAD * best, seconds))
        back = until_normal(port, requests[0], 2 * quantile(alone.seconds, 0.5) / 1000)
        print(f"overload: {tally.to_text(wall)}; goodput {len(tally.seconds) / wall / best:.2f} of the throughput")
        print(f"  refusals p99 {quantile(tally.refused, 0.99):.0f} ms; ", end="")
        print(f"/healthz p99 {quantile(health.seconds, 0.99):.0f} ms, statuses {dict(health.statuses)}")
        print(f"  memory {before:.0f} -> {resident(pid):.0f} MB; as before {back:.2f} s after the end")


def until_normal(port: int, content: bytes, usual: float) -> float:
    """Seconds until a photo takes no longer than `usual` seconds."""
    began = time.perf_counter()
    while True:
        sent = time.perf_counter()
        tally, _ = asyncio.run(closed(port, [content], 1, 1e-4))
        if tally.statuses[200] and tally.seconds[0] <= usual:
            return sent - began


def slow_clients(port: int, requests: list[bytes], seconds: float, rounds: int) -> None:
    ratios = []
    for _ in range(rounds):
        idle, _ = asyncio.run(closed(port, requests, 1, seconds))
        tally, ended = asyncio.run(beside_trickling(port, requests, TRICKLING, seconds))
        ratios.append(quantile(tally.seconds, 0.99) / quantile(idle.seconds, 0.99))
        print(f"one client alone: p99 {quantile(idle.seconds, 0.99):.0f} ms; beside {TRICKLING} that trickle: ", end="")
        print(f"{quantile(tally.seconds, 0.99):.0f} ms, statuses {dict(tally.statuses)}; {ended} of them were ended")
    print(f"p99 beside connections that trickle, times that alone: {spread(ratios)}")


def kills(port: int, pid: int, content: bytes) -> None:
    found, asked = [], Counter[int]()
    for _ in range(KILLS):
        for decoder in decoders(pid):
            os.kill(decoder, signal.SIGKILL)
        began = time.perf_counter()
        while True:
            tally, _ = asyncio.run(closed(port, [content], 1, 1e-4))
            asked += tally.statuses
            if tally.statuses[200]:
                break
        found.append(time.perf_counter() - began)
    print(f"every decoder killed, seconds until a photo is answered: {spread(found)}; statuses {dict(asked)}")


def decoders(pid: int) -> list[int]:
    """Process ids."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    return [int(one) for one in children if b"service.worker" in Path(f"/proc/{one}/cmdline").read_bytes()]


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
