"""Measures, in a process of its own, what decoding a file costs: `python photos_memory.py FILE:TARGET ...`.

Each file is decoded in a child forked from a warm process, so that one peak does not hide the next. One JSON line a
file: outcome (the format or the reason), seconds, and how far the resident memory rose over its idle level, MiB.
"""

import json
import os
import sys
import time
from pathlib import Path

import photos_make
from headstart import images
from headstart.errors import ImageRejected
from headstart.images import pillow


def resident(key: str) -> float:
    """VmRSS (now) or VmHWM (peak) of this process, MiB."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith(key):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def measure(path: str, target: int | None) -> dict[str, object]:
    """Decode one file; the file's own bytes count as idle, because whoever calls the decoder holds them."""
    data = Path(path).read_bytes()
    estimate: list[int] = []
    bound = pillow.working_memory
    pillow.working_memory = lambda *arguments: estimate.append(bound(*arguments)) or estimate[-1]
    idle = resident("VmRSS")
    start = time.perf_counter()
    try:
        picture = images.decode(data, target=target, name=path)
        outcome, result = picture.format, picture.pixels.nbytes
    except ImageRejected as error:
        outcome, result = error.reason, 0
    seconds = time.perf_counter() - start
    estimated = (estimate[0] + result) / 2**20 if estimate else None
    return {"outcome": outcome, "seconds": seconds, "rise": resident("VmHWM") - idle, "estimated": estimated}


def main() -> None:
    """Warm up, then one forked child a file."""
    for data in photos_make.seeds().values():  # so that no import or first allocation is counted
        images.decode(data)
    for argument in sys.argv[1:]:
        path, target = argument.rsplit(":", 1)
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            print(json.dumps(measure(path, int(target) if target else None)), flush=True)
            os._exit(0)
        os.waitpid(child, 0)


if __name__ == "__main__":
    main()
