"""Where the photos of a run are: a run says nothing about this machine, so the pages keep it in a file beside them."""

import hashlib
import json
import threading
from pathlib import Path
from typing import Any

from headstart.errors import DataError
from headstart.files import shown, write_atomic
from headstart.readers.builtin import BUILTIN

NAME = ".ui.json"  # in the folder of the runs


class Folders:
    """Data that were named on a page, each with a short key for addresses, and which run was trained on which.

    Args:
        place: the folder of the runs.
    """

    def __init__(self, place: Path) -> None:
        self._path = place / NAME
        self._lock = threading.Lock()

    def remember(self, data: str) -> str:
        """Keep a data set and return its key.

        Raises:
            DataError: there is no such folder or file, and no built-in data set of that name.
        """
        text = data.strip()
        if not text:
            raise DataError("no data was named; give a folder with a sub-folder for each class, or a built-in name")
        if text not in BUILTIN and not _exists(text):
            raise DataError(
                f"there is no folder or file {shown(text)}; give one that exists on this computer, or a built-in name: "
                f"{', '.join(BUILTIN)}"
            )
        full = text if text in BUILTIN else str(Path(text).expanduser().absolute())
        key = hashlib.sha256(full.encode("utf-8", "surrogatepass")).hexdigest()[:12]
        self._change("folders", key, full)
        return key

    def data(self, key: str) -> str | None:
        """The data of a key; None: no such key."""
        found = self._read()["folders"].get(key)
        return found if isinstance(found, str) else None

    def all(self) -> dict[str, str]:
        """Every key with its data, the one named last first."""
        return dict(reversed(self._read()["folders"].items()))

    def assign(self, run: str, key: str) -> None:
        """Say that the photos of a run are those of a key."""
        self._change("runs", run, key)

    def of_run(self, run: str) -> str | None:
        """The data of a run, where they are known."""
        key = self._read()["runs"].get(run)
        return self.data(key) if isinstance(key, str) else None

    def _read(self) -> dict[str, dict[str, Any]]:
        try:
            known = json.loads(self._path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            known = {}
        known = known if isinstance(known, dict) else {}
        return {part: found if isinstance(found := known.get(part), dict) else {} for part in ("folders", "runs")}

    def _change(self, part: str, name: str, value: str) -> None:
        with self._lock:
            known = self._read()
            known[part].pop(name, None)
            known[part][name] = value
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_atomic(self._path, (json.dumps(known, indent=1) + "\n").encode())


def _exists(text: str) -> bool:
    try:
        return Path(text).expanduser().exists()
    except (OSError, ValueError, RuntimeError):  # too long, a NUL, an unknown home
        return False
