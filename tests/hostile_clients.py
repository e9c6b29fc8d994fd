"""Clients that mean harm, for whatever listens on a port of this machine: the service and the local pages alike."""

import random
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

TELLS = re.compile(rb"Traceback|\.py\b|/home/|/root/|/usr/|/tmp/|site-packages|Starlette|uvicorn|Python/", re.I)
HOST = b"Host: 127.0.0.1\r\n"

UPS = ("../", "..%2f", "%2e%2e/", "%2e%2e%2f", "..\\", "..%5c", "....//", "%c0%ae%c0%ae/", "..%00/", "..;/", "//", "")
TARGETS = ("etc/passwd", "model.json", "windows/win.ini", "proc/self/environ", "secret.txt")


def traversals(starts: Sequence[str], count: int) -> list[str]:
    """Addresses that would leave a folder if an address ever opened a file."""
    found = [f"{start}{up * depth}{name}" for start in starts for up in UPS for depth in (1, 4) for name in TARGETS]
    return random.Random(37).sample(found, count)


def names_that_climb(count: int) -> list[str]:
    """File names and names of runs that would be somebody's file, if a name ever opened one."""
    ups = (
        "../",
        "..\\",
        "/",
        "\\\\host\\share\\",
        "C:\\",
        "~/",
        "a/../../",
        "%2e%2e%2f",
        "..%5c",
        ".//..//",
        "\x00",
        "a\x00/",
    )
    ends = (
        "etc/passwd",
        "model.json",
        "win.ini",
        "nul",
        "con",
        "x.jpg\x00.png",
        "a" * 300,
        "\u202egpj.exe",
        "a\r\nX: y",
    )
    found = [f"{up * depth}{end}" for up in ups for depth in (1, 2, 3, 6) for end in ends]
    return random.Random(38).sample(found, count)


def range_storm(count: int) -> bytes:
    """A header with so many ranges."""
    return b"Range: bytes=" + b",".join(b"%d-%d" % (number % 10, number % 10) for number in range(count)) + b"\r\n"


def form_of_parts(count: int) -> tuple[bytes, str]:
    """A form with so many empty files, and its type."""
    part = b'--x\r\nContent-Disposition: form-data; name="a"; filename="b"\r\n\r\n\r\n'
    return part * count + b"--x--\r\n", "multipart/form-data; boundary=x"


def form_of_fields(count: int) -> tuple[bytes, str]:
    """A form with so many fields, and its type."""
    return b"a=1&" * count, "application/x-www-form-urlencoded"


def send_in_single_bytes(port: int, path: str, count: int, kind: str = "image/jpeg") -> bytes:
    """Send so many bytes, each a chunk of its own, and return what is answered."""
    head = f"POST {path} HTTP/1.1\r\n".encode() + HOST + f"Content-Type: {kind}\r\n".encode()
    with socket.create_connection(("127.0.0.1", port), timeout=60) as channel:
        channel.sendall(head + b"Connection: close\r\nTransfer-Encoding: chunked\r\n\r\n")
        return answer_to(channel, [b"1\r\nx\r\n" * 1000] * (count // 1000) + [b"0\r\n\r\n"])


def answer_to(channel: socket.socket, pieces: Sequence[bytes]) -> bytes:
    """Send piece by piece until all is sent or the other side has ended; return what it said."""
    try:
        for piece in pieces:
            channel.sendall(piece)
    except OSError:  # it does not want the rest
        pass
    said = bytearray()
    try:
        while piece := channel.recv(65536):
            said += piece
    except OSError:
        pass
    return bytes(said)


def ask_raw(port: int, content: bytes, seconds: float = 60) -> bytes:
    """Send bytes as they are and return all that comes back."""
    with socket.create_connection(("127.0.0.1", port), timeout=seconds) as channel:
        return answer_to(channel, [content])


def trickle(
    port: int, starts: Sequence[bytes], count: int, seconds: float, meanwhile: Callable[[], object]
) -> tuple[int, float]:
    """Open connections that send their start and then a byte now and then, while somebody else is served.

    Args:
        port: on 127.0.0.1.
        starts: taken in turn; of an empty one nothing is ever sent.
        count: connections.
        seconds: after which the rest is given up.
        meanwhile: called again and again.

    Returns:
        How many were still open in the end, and the seconds until the last one was closed.
    """
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]
    began = time.monotonic()
    for number, channel in enumerate(slow):
        channel.sendall(starts[number % len(starts)])
        channel.setblocking(False)
    left = dict(enumerate(slow))
    while left and time.monotonic() - began < seconds:
        meanwhile()
        for number, channel in list(left.items()):
            try:
                if starts[number % len(starts)]:
                    channel.send(b"1")
                if channel.recv(65536) == b"":
                    del left[number]
            except BlockingIOError:
                pass
            except OSError:
                del left[number]
        time.sleep(0.2)
    took = time.monotonic() - began
    for channel in slow:
        channel.close()
    return len(left), took


def slow_starts(get: str, post: str, kind: str) -> tuple[bytes, ...]:
    """The ways to be slow: in the head, in an announced body, in one in chunks, and in saying anything at all."""
    head = f"POST {post} HTTP/1.1\r\n".encode() + HOST + f"Content-Type: {kind}\r\n".encode()
    return (
        f"GET {get} HTTP/1.1\r\n".encode() + HOST + b"X: ",
        head + b"Content-Length: 1000\r\n\r\n",
        head + b"Transfer-Encoding: chunked\r\n\r\n3e8\r\n",
        b"",
    )


def peak_memory(pid: int) -> float:
    """The most memory that a process ever had, MB; Linux."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024


def mutated_heads(count: int) -> Iterator[bytes]:
    """Requests whose head has bytes turned over, lines doubled or lines left out; the same ones every time."""
    draw = random.Random(39)
    lines = [b"POST /v1/predict?topk=2 HTTP/1.1", b"Host: 127.0.0.1", b"Content-Type: image/jpeg", b"Content-Length: 3"]
    lines += [b"Expect: 100-continue", b"Connection: close", b"Accept: */*", b"Range: bytes=0-1", b"Upgrade: websocket"]
    odd = (
        b"Transfer-Encoding: chunked",
        b"Content-Length: -1",
        b"Content-Length: 99999999999999999999",
        b": x",
        b"\xff\xfe: 1",
    )
    odd += (
        b"Host: evil.example",
        b"Transfer-Encoding: gzip, chunked",
        b" folded",
        b"X" * 40_000,
        b"Cookie: " + b"a=b;" * 9000,
    )
    for _ in range(count):
        taken = lines[:2] + draw.sample(lines[2:], draw.randint(0, len(lines) - 2))
        for _ in range(draw.randint(0, 2)):
            taken.insert(draw.randint(1, len(taken)), draw.choice(odd))
        head = bytearray(b"\r\n".join(taken) + b"\r\n\r\n")
        for _ in range(draw.randint(0, 3)):
            head[draw.randrange(len(head))] = draw.randrange(256)
        yield bytes(head) + b"abc"
