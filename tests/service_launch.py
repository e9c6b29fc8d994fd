"""Serve a run as `headstart serve` does, with any settings, and report on stderr what a server must never do.

python tests/service_launch.py '{"run": "...", "guard": {...}, "service": {...}}'
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

READY = []  # once this is filled, what the process opens is watched


def watch(event: str, arguments: tuple[Any, ...]) -> None:
    """An audit hook: connections to anywhere, programs started beside the decoders, files opened for writing."""
    if event == "socket.connect":
        sys.stderr.write(f"connects: {arguments[1]!r}\n")
    elif event == "subprocess.Popen" and "headstart.service.worker" not in arguments[1]:
        sys.stderr.write(f"starts: {arguments[1]!r}\n")
    elif event == "open" and READY and isinstance(arguments[0], str | bytes):
        path, flags = arguments[0], arguments[2]
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and path not in (os.devnull, os.devnull.encode()):
            sys.stderr.write(f"writes: {path!r}\n")


def main() -> None:
    given = json.loads(sys.argv[1])
    from headstart.service import serve
    from headstart.service.application import Service
    from headstart.service.guard import GuardSettings
    from headstart.service.settings import ServiceSettings

    settings = ServiceSettings(guard=GuardSettings(**{"port": 0, **given.get("guard", {})}), **given.get("service", {}))
    before = Service.observe

    def observe(self: Service, scope: Any, status: int, seconds: float) -> None:
        if self.ready and not READY:
            READY.append(True)
        before(self, scope, status, seconds)

    Service.observe = observe  # type: ignore[method-assign]
    sys.addaudithook(watch)
    serve(Path(given["run"]), settings=settings, started=lambda url: print(json.dumps({"url": url}), flush=True))


if __name__ == "__main__":
    main()
