"""The shelf of converted nets in the cache: what stands there, whether it is sound, and what nobody uses any more.

Every trained network and every version of a backbone is converted once and kept; all of it can be made again from the
run or the weights file it came from. The day an entry was last used is the modification time of its manifest.
"""

import datetime
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones.converted import DAY, ENTRY_FILES, read_entry, same_hashes
from headstart.errors import OutputError
from headstart.files import cache_dir, shown

_ENTRY = re.compile(r"[0-9a-f]{64}")  # what `ConvertedNet.folder` calls an entry


@dataclass(frozen=True)
class Shelf:
    """What stands on the shelf.

    Args:
        path: the folder.
        nets: how many converted nets.
        bytes: of all their files.
        oldest: day on which the one that was unused for longest was last used; None on an empty shelf.
    """

    path: Path
    nets: int
    bytes: int
    oldest: datetime.date | None

    def to_json(self) -> dict[str, Any]:
        """The part `converted` of `headstart cache info --json`."""
        oldest = None if self.oldest is None else self.oldest.isoformat()
        return {"path": str(self.path), "nets": self.nets, "bytes": self.bytes, "oldest": oldest}

    def to_text(self) -> str:
        """The same for a person."""
        text = f"{shown(self.path)}: {_nets(self.nets)}, {self.bytes / 1e6:,.1f} MB"
        return text if self.oldest is None else f"{text}; the longest unused was last used on {self.oldest.isoformat()}"


@dataclass(frozen=True)
class Removal:
    """Converted nets that were removed, and the bytes that this gave back."""

    path: Path
    removed: int
    bytes: int

    def to_json(self) -> dict[str, Any]:
        """The part `converted` of `headstart cache prune --json` and `verify --json`."""
        return {"path": str(self.path), "removed": self.removed, "bytes": self.bytes}

    def to_text(self, why: str) -> str:
        """The same for a person; `why` they were removed."""
        return f"{shown(self.path)}: {_nets(self.removed)} {why} removed, {self.bytes / 1e6:,.1f} MB"


def look_at_shelf() -> Shelf:
    """Count the converted nets; nothing is read but sizes and times."""
    path = cache_dir() / "backbones"
    entries = list(_entries(path))
    used = [when for when in map(_last_used, entries) if when is not None]
    oldest = datetime.date.fromtimestamp(min(used)) if used else None
    return Shelf(path, len(entries), sum(map(_size, entries)), oldest)


def check_shelf() -> Removal:
    """Compare every file with its hash and remove the nets that are damaged; they are made again when needed."""
    path = cache_dir() / "backbones"
    damaged = []
    for entry in _entries(path):
        manifest = read_entry(entry)
        if manifest is None or not same_hashes(entry, manifest, ENTRY_FILES):
            damaged.append(entry)
    return _remove(path, damaged)


def prune_shelf(older_than_days: float | int) -> Removal:
    """Remove the nets that were not used for that many days; 0 removes all.

    Raises:
        OutputError: a net cannot be removed.
    """
    path = cache_dir() / "backbones"
    limit = time.time() - older_than_days * DAY
    return _remove(path, [entry for entry in _entries(path) if (_last_used(entry) or 0.0) <= limit])


def _entries(path: Path) -> Iterator[Path]:
    with suppress(FileNotFoundError):
        yield from sorted(entry for entry in path.iterdir() if _ENTRY.fullmatch(entry.name) and entry.is_dir())


def _last_used(entry: Path) -> float | None:
    try:
        return (entry / "manifest.json").stat().st_mtime
    except OSError:
        return None


def _size(entry: Path) -> int:
    return sum(file.stat().st_size for file in entry.iterdir() if file.is_file())


def _remove(path: Path, entries: list[Path]) -> Removal:
    freed = 0
    for entry in entries:
        size = _size(entry)
        try:
            with suppress(FileNotFoundError):
                (entry / "manifest.json").unlink()  # first: an entry that is half gone is none
            shutil.rmtree(entry)
        except OSError as error:
            raise OutputError(f"cannot remove {shown(entry)}: {error.strerror or error}") from error
        freed += size
    return Removal(path, len(entries), freed)


def _nets(count: int) -> str:
    return "1 converted net" if count == 1 else f"{count:,} converted nets"
