"""Looking after the feature store: what it holds, whether it is sound, and making it smaller."""

import datetime
import sqlite3
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.files import shown
from headstart.store.database import SIDE_FILES, transaction
from headstart.store.entries import decode_entry, is_array

ROUNDS = 20  # of removing what was unused for longest, before a size is called unreachable
ENTRIES_A_READ = 200


@dataclass(frozen=True)
class StoreInfo:
    """Where the store is and what it holds.

    Args:
        path: the database file.
        features: number of stored vectors.
        facts: number of stored records about photos.
        bytes: size of the database with its journal, bytes.
        oldest: day on which the entry that was unused for longest was last used; None in an empty store.
        set_aside: bytes of a damaged database that was set aside; `prune` removes it.
    """

    path: Path
    features: int
    facts: int
    bytes: int
    oldest: datetime.date | None
    set_aside: int

    def to_json(self) -> dict[str, Any]:
        """The document of `headstart cache info --json`."""
        return {
            "path": str(self.path),
            "features": self.features,
            "facts": self.facts,
            "bytes": self.bytes,
            "oldest": None if self.oldest is None else self.oldest.isoformat(),
            "set_aside": self.set_aside,
        }

    def to_text(self) -> str:
        """The same for a person."""
        text = f"{shown(self.path)}: {self.features:,} feature vectors and the facts of {self.facts:,} photos"
        text += f", {self.bytes / 1e6:,.1f} MB"
        if self.oldest is not None:
            text += f"; the longest unused was last used on {self.oldest.isoformat()}"
        if self.set_aside:
            text += f"\n{self.set_aside / 1e6:,.1f} MB of a damaged store lie aside; headstart cache prune removes them"
        return text


@dataclass(frozen=True)
class StoreCheck:
    """What `verify` found: entries that are sound, damaged ones (dropped), and what else is to be told."""

    path: Path
    entries: int
    damaged: int
    notices: tuple[str, ...]

    @property
    def sound(self) -> bool:
        """Nothing was damaged."""
        return not self.damaged and not self.notices

    def to_json(self) -> dict[str, Any]:
        """The document of `headstart cache verify --json`."""
        return {
            "path": str(self.path),
            "entries": self.entries,
            "damaged": self.damaged,
            "sound": self.sound,
            "notices": list(self.notices),
        }

    def to_text(self) -> str:
        """The same for a person."""
        found = f"{self.damaged:,} were damaged and dropped: they are computed again when needed"
        text = f"{shown(self.path)}: {self.entries:,} entries are sound, {found if self.damaged else 'none is damaged'}"
        return "\n".join((text, *self.notices))


@dataclass(frozen=True)
class StorePrune:
    """What `prune` removed: entries, and the size of the store in bytes before and after."""

    path: Path
    removed: int
    bytes_before: int
    bytes_after: int

    def to_json(self) -> dict[str, Any]:
        """The document of `headstart cache prune --json`."""
        return {
            "path": str(self.path),
            "removed": self.removed,
            "bytes_before": self.bytes_before,
            "bytes_after": self.bytes_after,
        }

    def to_text(self) -> str:
        """The same for a person."""
        sizes = f"{self.bytes_before / 1e6:,.1f} MB before, {self.bytes_after / 1e6:,.1f} MB now"
        return f"{shown(self.path)}: {self.removed:,} entries removed; {sizes}"


def describe(connection: sqlite3.Connection, path: Path) -> StoreInfo:
    """Count what the database at `path` holds."""
    counts = {True: 0, False: 0}
    for first, count in connection.execute("SELECT substr(value, 17, 1), count(*) FROM entries GROUP BY 1"):
        counts[is_array(first)] += count
    oldest = connection.execute("SELECT min(day) FROM kept").fetchone()[0]
    day = datetime.date(1970, 1, 1) + datetime.timedelta(days=oldest) if isinstance(oldest, int) else None
    damaged = (f"{path.name}{suffix}.damaged" for suffix in SIDE_FILES)
    return StoreInfo(
        path=path,
        features=counts[True],
        facts=counts[False],
        bytes=_size(path, "", "-wal"),
        oldest=day,
        set_aside=sum(_size(path.with_name(name)) for name in damaged),
    )


def check_entries(connection: sqlite3.Connection) -> tuple[int, list[Any]]:
    """Compare every checksum and let SQLite check its own structure.

    Returns:
        How many entries are sound; the row numbers of the damaged ones.

    Raises:
        sqlite3.DatabaseError: the structure of the database is damaged.
    """
    sound, damaged, last = 0, [], -(2**63)
    query = "SELECT id, key, value FROM entries WHERE id > ? ORDER BY id LIMIT ?"
    while rows := connection.execute(query, (last, ENTRIES_A_READ)).fetchall():
        for number, key, value in rows:
            if decode_entry(key, value) is None:
                damaged.append(number)
            else:
                sound += 1
        last = rows[-1][0]
    answer = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if answer not in (b"ok", "ok"):
        text = answer.decode("utf-8", "replace") if isinstance(answer, bytes) else str(answer)
        raise sqlite3.DatabaseError(" ".join(text.split()))
    return sound, damaged


def remove_entries(
    connection: sqlite3.Connection, path: Path, older_than_days: float | int | None, max_bytes: int | None
) -> StorePrune:
    """Remove entries by age and by size, the longest unused first, and give the space back to the disk."""
    before = _size(path, "", "-wal")
    removed = 0
    if older_than_days is not None:
        if older_than_days == 0:
            removed += connection.execute("DELETE FROM entries").rowcount
        else:
            limit = time.time() / 86_400 - 1 - older_than_days  # a day that ended that long ago
            old = "DELETE FROM entries WHERE id IN (SELECT id FROM kept WHERE day <= ?)"
            removed += connection.execute(old, (limit,)).rowcount
    _give_back(connection)
    for _ in range(ROUNDS):
        excess = 0 if max_bytes is None else _size(path, "", "-wal") - max_bytes
        count = _remove_longest_unused(connection, excess) if excess > 0 else 0
        if not count:
            break
        removed += count
        _give_back(connection)
    return StorePrune(path=path, removed=removed, bytes_before=before, bytes_after=_size(path, "", "-wal"))


def _remove_longest_unused(connection: sqlite3.Connection, size: int) -> int:
    """Remove entries worth about `size` bytes; returns how many."""
    numbers: list[tuple[int]] = []
    for number, length in connection.execute("SELECT id, length(value) FROM kept ORDER BY day, id"):
        numbers.append((number,))
        size -= length or 0
        if size <= 0:
            break
    with transaction(connection):
        connection.executemany("DELETE FROM entries WHERE id = ?", numbers)
    return len(numbers)


def _give_back(connection: sqlite3.Connection) -> None:
    connection.execute("DELETE FROM uses WHERE id NOT IN (SELECT id FROM entries)")
    connection.executescript("PRAGMA incremental_vacuum")  # `execute` would stop after the first page
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _size(path: Path, *suffixes: str) -> int:
    sizes = (path.with_name(path.name + suffix) for suffix in suffixes or ("",))
    return sum(file.stat().st_size for file in sizes if file.is_file())
