"""Clients for a service under load: raw sockets in one process, which share the processors with the server."""

import asyncio
import itertools
import time
from collections import Counter
from dataclasses import dataclass, field

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


async def trickle(port: int, count: int, seconds: float) -> int:
    """Connections that send a byte a second, half of them in the head and half in a body; how many were ended."""
    head = b"POST /v1/predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/jpeg\r\n"
    starts = (head, head + b"Content-Length: 100000\r\n\r\n")
    ended, began = 0, time.perf_counter()

    async def one(number: int) -> None:
        nonlocal ended
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(starts[number % 2])
        try:
            while time.perf_counter() - began < seconds and not reader.at_eof():
                writer.write(b"1")
                await writer.drain()
                await asyncio.sleep(1)
            ended += reader.at_eof()
        except OSError:
            ended += 1
        writer.close()

    await asyncio.gather(*(one(number) for number in range(count)))
    return ended


async def beside_trickling(port: int, requests: list[bytes], count: int, seconds: float) -> tuple[Tally, int]:
    """One ordinary client while so many trickle; how many of these were ended."""
    slow = asyncio.create_task(trickle(port, count, seconds))
    tally, _ = await closed(port, requests, 1, seconds)
    return tally, await slow


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
