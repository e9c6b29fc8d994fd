"""Decoders: processes that can be killed. A photo that hangs or breaks one costs itself its answer, nothing else."""

import asyncio
import json
import os
import signal
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from headstart.errors import HeadstartError, ImageRejected
from headstart.preprocess import Preprocessing
from headstart.service import worker
from headstart.service.refusals import Refused

START_SECONDS = 60.0  # a busy machine takes its time
#: of the environment, all that a decoder is told; a token is not among it
KEPT = ("PATH", "PYTHONPATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SYSTEMROOT", "LANG", "LC_ALL", "TMPDIR")
NAME = 200  # letters of a file name that a decoder sees; only the suffix matters to it

Pixels = UInt8[np.ndarray, "size size channels"]


class Decoders:
    """A few decoders and the photos that wait for one, first come, first served.

    Args:
        preprocessing: what comes after decoding; None: photos are only tried, at their full size.
        count: processes.
        max_bytes: of one photo.
        seconds: that one photo may take.
        headroom: address space that a decoder may use beyond what it has when it is ready, bytes.
    """

    def __init__(
        self,
        preprocessing: Preprocessing | None,
        *,
        count: int,
        max_bytes: int,
        seconds: float = 5.0,
        headroom: int = worker.HEADROOM,
    ) -> None:
        settings = {
            "preprocessing": None if preprocessing is None else preprocessing.to_dict(),
            "max_bytes": max_bytes,
            "seconds": seconds,
            "headroom": headroom,
        }
        self._shape = () if preprocessing is None else preprocessing.shape
        self._all = [_Decoder(json.dumps(settings), seconds) for _ in range(count)]
        self._idle: asyncio.Queue[_Decoder] = asyncio.Queue()

    async def open(self) -> None:
        """Start the processes.

        Raises:
            HeadstartError: they do not start.
        """
        await asyncio.gather(*(one.start() for one in self._all))
        for one in self._all:
            self._idle.put_nowait(one)

    async def decode(self, name: str, data: bytes) -> Pixels:
        """Decode and prepare one photo.

        Raises:
            ImageRejected: it cannot be read, takes too long, or broke the decoder.
            Refused: the decoder was killed from outside, twice.
        """
        return np.frombuffer(await self._answer(name, data), np.uint8).reshape(self._shape)

    async def check(self, name: str, data: bytes) -> None:
        """Decode a photo for no other purpose than to see that it can be done; raises as `decode`."""
        await self._answer(name, data)

    async def _answer(self, name: str, data: bytes) -> bytes:
        one = await self._idle.get()
        try:
            return await one.decode(name, data)
        finally:
            self._idle.put_nowait(one)

    @property
    def restarts(self) -> int:
        """How many decoders had to be started again."""
        return sum(one.starts - 1 for one in self._all if one.starts)

    @property
    def processes(self) -> list[int]:
        """The process ids of those that run."""
        return [one.process.pid for one in self._all if one.process is not None]

    async def close(self) -> None:
        """Stop the processes."""
        await asyncio.gather(*(one.stop() for one in self._all))


class _Killed(Exception):
    """The process was killed from outside, by a person or by a system short of memory."""


class _Decoder:
    def __init__(self, settings: str, seconds: float) -> None:
        self.process: asyncio.subprocess.Process | None = None
        self.starts = 0
        self._settings, self._seconds = settings, seconds

    async def start(self) -> None:
        self.starts += 1
        home = str(Path(worker.__file__).parents[2])
        kept = {name: os.environ[name] for name in KEPT if name in os.environ}
        path = os.pathsep.join(filter(None, (home, kept.get("PYTHONPATH"))))
        self.process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-m", worker.__name__, self._settings),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            limit=worker.ROOM,
            env={**kept, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
        )
        try:
            async with asyncio.timeout(START_SECONDS):
                kind, _ = await self._receive(self.process)
        except (TimeoutError, asyncio.IncompleteReadError, OSError):
            kind = b""
        if kind != worker.HELLO:
            await self.stop()
            raise HeadstartError("a decoder process does not start; see what headstart doctor says")

    async def decode(self, name: str, data: bytes) -> bytes:
        for last in (False, True):
            try:
                return await self._exchange(name, data)
            except _Killed:
                if last:
                    raise Refused(503, "the decoder of this photo was killed; try again", retry_after=1) from None
        raise _Killed

    async def _exchange(self, name: str, data: bytes) -> bytes:
        process = await self._living()
        try:
            async with asyncio.timeout(self._seconds):
                await self._send(process, name[-NAME:].replace("\0", "").encode(errors="replace") + b"\0", data)
                kind, content = await self._receive(process)
        except TimeoutError:
            await self.stop()
            raise ImageRejected(
                "bomb", f"decoding took longer than {self._seconds:g} s; scale the photo down"
            ) from None
        except (asyncio.IncompleteReadError, OSError):
            code = await _end_of(process)
            await self.stop()
            if code == -getattr(signal, "SIGKILL", 9):
                raise _Killed from None
            raise ImageRejected("corrupt", "the decoder broke off at this photo; save it again as JPEG") from None
        except BaseException:  # cancelled half-way: what comes next on the pipe would be of this photo
            await self.stop()
            raise
        if kind == worker.REJECTED:
            raise ImageRejected(**json.loads(content))
        return content

    async def _living(self) -> asyncio.subprocess.Process:
        if self.process is None or self.process.returncode is not None:
            try:
                await self.start()
            except HeadstartError:
                raise _Killed from None
        if self.process is None:
            raise _Killed
        return self.process

    async def _send(self, process: asyncio.subprocess.Process, *parts: bytes) -> None:
        if process.stdin is None:
            raise ConnectionError
        # in one piece: every write wakes the decoder
        process.stdin.write(b"".join((worker.LENGTH.pack(sum(map(len, parts))), *parts)))
        await process.stdin.drain()

    async def _receive(self, process: asyncio.subprocess.Process) -> tuple[bytes, bytes]:
        if process.stdout is None:
            raise ConnectionError
        size = worker.LENGTH.unpack(await process.stdout.readexactly(worker.LENGTH.size))[0]
        message = await process.stdout.readexactly(size)
        return message[:1], message[1:]

    async def stop(self) -> None:
        """Kill the process and wait for its end; it holds nothing that could be lost."""
        process, self.process = self.process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        with suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _end_of(process: asyncio.subprocess.Process) -> int | None:
    """Return the exit code of a process that has closed its pipes; None if it lives on all the same."""
    with suppress(TimeoutError):
        async with asyncio.timeout(1.0):
            await process.wait()
    return process.returncode
