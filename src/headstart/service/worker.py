"""The process in which strangers' photos are decoded: it can be killed, its memory is capped, it writes no file.

`python -m headstart.service.worker SETTINGS` reads photos from stdin and writes prepared pixels to stdout until stdin
ends. A message is its length (8 bytes, big-endian) and its content. In: the name of the file, a zero byte, the file.
Out: one letter, then for `P` the pixels (none where photos are only tried), for `R` the rejection as JSON, for `H`
nothing (ready).
"""

import contextlib
import json
import os
import signal
import struct
import sys
from typing import Any, BinaryIO

from headstart.errors import ImageRejected
from headstart.images import DecodeLimits, decode
from headstart.preprocess import Preprocessing

LENGTH = struct.Struct(">Q")
HELLO, PIXELS, REJECTED = b"H", b"P", b"R"
ROOM = 2**20  # bytes that a pipe holds, where the system allows it: the pixels of a photo are written at once
HEADROOM = 768 * 2**20  # bytes of address space beyond what the process has when it is ready


def main(arguments: list[str]) -> None:
    """Serve until stdin ends."""
    settings = json.loads(arguments[0])
    chosen = settings["preprocessing"]
    preprocessing = None if chosen is None else Preprocessing.from_dict(chosen)
    limits = DecodeLimits(max_bytes=settings["max_bytes"])
    source, sink = _private_pipes()
    for number in (signal.SIGINT, signal.SIGTERM):  # both reach the whole group or unit; the parent decides the end
        signal.signal(number, signal.SIG_IGN)
    _confine(settings["headroom"])
    send(sink, HELLO)
    while (message := receive(source)) is not None:
        _watch(settings["seconds"] + 1.0)
        send(sink, *_answer(message, preprocessing, limits))
        _watch(0)


def _answer(message: bytes, preprocessing: Preprocessing | None, limits: DecodeLimits) -> tuple[bytes, bytes]:
    name, _, data = message.partition(b"\0")
    try:
        if preprocessing is None:
            decode(data, name=name.decode(), limits=limits)
            return PIXELS, b""
        picture = decode(data, target=preprocessing.decode_target(), name=name.decode(), limits=limits)
        return PIXELS, preprocessing.apply(picture).tobytes()
    except ImageRejected as error:
        reason, detail = error.reason, error.detail
    except MemoryError:
        reason, detail = "bomb", "decoding it needs more memory than a decoder has; scale the photo down"
    return REJECTED, json.dumps({"reason": reason, "detail": detail}).encode()


def send(sink: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    """Write one message."""
    sink.write(b"".join((LENGTH.pack(len(kind) + len(content)), kind, content)))
    sink.flush()


def receive(source: BinaryIO) -> bytes | None:
    """Read one message; None at the end."""
    head = source.read(LENGTH.size)
    return source.read(LENGTH.unpack(head)[0]) if len(head) == LENGTH.size else None


def _private_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Keep the pipes to ourselves: whatever a codec prints goes nowhere."""
    source, sink = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    with contextlib.suppress(ImportError, AttributeError, OSError):  # Linux alone has this
        import fcntl

        fcntl.fcntl(sink, fcntl.F_SETPIPE_SZ, ROOM)
    with open(os.devnull, "r+b") as nowhere:  # noqa: PTH123 (a device, not a file)
        for number in (0, 1, 2):
            os.dup2(nowhere.fileno(), number)
    return source, sink


def _confine(headroom: int) -> None:
    """Cap memory and forbid to write files, where the system can."""
    try:
        import resource
    except ImportError:  # Windows
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    with contextlib.suppress(OSError, ValueError, IndexError):  # there is no /proc on macOS, and no such limit either
        with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123
            used = int(file.read().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + headroom, used + headroom))


def _watch(seconds: float) -> None:
    """Die if a photo takes so long, even inside a codec and without the parent; 0: no longer."""
    timer: Any = getattr(signal, "setitimer", None)
    if timer is not None:
        timer(signal.ITIMER_REAL, seconds)


if __name__ == "__main__":
    main(sys.argv[1:])
