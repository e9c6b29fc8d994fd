"""The feature store: what was computed from a photo, kept under everything it was computed from.

One SQLite file for each user. A value is never trusted because of where it lies: each carries a checksum over its key
and its content, so a damaged one is absent, not wrong. A database that SQLite itself calls damaged is set aside and
begun anew.

How it is written, and why (numbers: `benchmarks/store.py`):

- WAL journal, one transaction a batch: a process killed at any moment leaves every finished batch and nothing else.
- `synchronous=NORMAL`: after a power cut the last batches may be missing, which costs their computation and nothing
  more; `FULL` would sync the disk at every batch to protect what can be computed again.
- A table with row numbers and an index of keys, not `WITHOUT ROWID`: values of 5 kB in a tree ordered by random keys
  split its pages, for several times the writing and more space.
- No pickle: a value is an array of a listed number type, or JSON.

A shared store detects damage, not malice: whoever may write it may put any vector there. The default one belongs to the
user alone.
"""

import hashlib
import sqlite3
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Shaped

from headstart.errors import OutputError, StoreError
from headstart.files import cache_dir
from headstart.locks import FileLock
from headstart.store.care import StoreCheck, StoreInfo, StorePrune, check_entries, describe, remove_entries
from headstart.store.database import SIDE_FILES, Database, transaction
from headstart.store.entries import decode_entry, encode_entry

Value = Shaped[np.ndarray, "..."] | dict[str, Any]

NAME = "features.sqlite3"
LOCK_SLOTS = 256  # lock files for work in progress; two pieces of work in one slot only wait for each other
KEYS_A_QUERY = 500

SCHEMA = (
    "CREATE TABLE IF NOT EXISTS entries(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, day INTEGER, value BLOB)",
    "CREATE TABLE IF NOT EXISTS uses(id INTEGER PRIMARY KEY, day INTEGER)",  # apart, so that a look-up moves no values
    "CREATE VIEW IF NOT EXISTS kept AS SELECT entries.id AS id, key, value, coalesce(uses.day, entries.day) AS day "
    "FROM entries LEFT JOIN uses USING(id)",
)


class Store:
    """Values under content keys, safe from several threads and several processes at once.

    Nothing is opened before the first use. Where the store can be read but not written, reading goes on and `put_many`
    raises.

    Args:
        path: the database file; `features.sqlite3` in the cache folder by default.

    Attributes:
        damaged: entries found damaged and dropped since this object was made.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "features.sqlite3") as store:
    ...     key = entry_key("features", "photo", "net")
    ...     store.put_many({key: np.arange(3, dtype=np.float32)})
    ...     print(store.get_many([key])[key])
    [0. 1. 2.]
    """

    def __init__(self, path: Path | None = None) -> None:
        self.damaged = 0
        self._given = path
        self._guard = threading.Lock()
        self._opened: Database | None = None

    @property
    def path(self) -> Path:
        """Where the database is.

        Raises:
            StoreError: there is no place for it.
        """
        return self._database.path

    @property
    def notices(self) -> tuple[str, ...]:
        """What the user should be told about the store, one sentence each; empty when all is well."""
        told = () if self._opened is None else tuple(self._opened.notices)
        if self.damaged:
            entries = "entry" if self.damaged == 1 else "entries"
            told += (f"dropped {self.damaged:,} damaged {entries} of the feature store, to be computed again",)
        return told

    @property
    def _database(self) -> Database:
        with self._guard:
            if self._opened is None:
                try:
                    place = cache_dir() / NAME if self._given is None else self._given
                except OutputError as error:
                    raise StoreError(str(error)) from error
                self._opened = Database(place, SCHEMA, "feature store")
            return self._opened

    def __enter__(self) -> "Store":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file; a later use opens it again."""
        if self._opened is not None:
            self._opened.close()

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Value]:
        """The values that are there, in one query for every 500 keys.

        A value whose checksum does not fit is removed, counted in `damaged` and not returned.

        Args:
            keys: 32 bytes each, from `entry_key`.

        Returns:
            The values found; arrays are read-only.

        Raises:
            StoreError: the store cannot be read.
        """
        found: dict[bytes, Value] = {}
        today = _today()
        for start in range(0, len(keys), KEYS_A_QUERY):
            wanted = set(keys[start : start + KEYS_A_QUERY])
            unused: list[Any] = []
            damaged: list[Any] = []
            for number, key, value, day in self._select(list(wanted)):
                entry = decode_entry(key, value)
                if entry is None:
                    damaged.append(number)
                elif key in wanted:
                    found[key] = entry
                    if not isinstance(day, int) or day < today:
                        unused.append(number)
            self._note_use(unused, today)
            self._drop(damaged)
        return found

    def put_many(self, items: Mapping[bytes, Value]) -> None:
        """Store values in one transaction: all of them, or none.

        Args:
            items: key -> array (of a type in `headstart.store.entries.NUMBER_TYPES`) or a dict that JSON can hold.

        Raises:
            StoreError: the store cannot be written; what it held before is intact.
            TypeError: a value is of another kind.
        """
        today = _today()
        rows = [(key, today, encode_entry(key, value)) for key, value in items.items()]

        def insert(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany("INSERT OR REPLACE INTO entries(key, day, value) VALUES(?, ?, ?)", rows)

        if rows:
            self._database.run(insert)

    def lock(self, name: bytes) -> FileLock:
        """A lock between processes for a piece of work, for example a batch of photos that one of them computes.

        Args:
            name: what the work is, from `entry_key`; the same name gives the same lock in every process.

        Raises:
            OSError: the folder for the locks cannot be made.
        """
        slot = int.from_bytes(name[:4], "big") % LOCK_SLOTS
        folder = self.path.with_name("locks")
        folder.mkdir(exist_ok=True)
        return FileLock(folder / f"{slot:03d}")

    def info(self) -> StoreInfo:
        """Where the store is and what it holds.

        Raises:
            StoreError: it cannot be read.
        """
        return self._database.run(lambda connection: describe(connection, self.path))

    def verify(self) -> StoreCheck:
        """Read every value, compare its checksum, drop the damaged ones, and let SQLite check its own structure.

        Raises:
            StoreError: the store cannot be read.
        """
        before = len(self._database.notices)
        sound, damaged = self._database.run(check_entries)
        self._drop(damaged)
        notices = tuple(self._database.notices[before:])
        return StoreCheck(path=self.path, entries=sound, damaged=len(damaged), notices=notices)

    def prune(self, older_than_days: float | int | None = None, max_bytes: int | None = None) -> StorePrune:
        """Make the store smaller: what was not used for longest goes first. A damaged file set aside goes, too.

        Args:
            older_than_days: remove what was not used for that many days; 0 removes everything.
            max_bytes: remove until the file is at most this large; an empty store takes some 30 kB.

        Raises:
            StoreError: the store cannot be written.
        """
        for suffix in SIDE_FILES:
            with suppress(OSError):
                self.path.with_name(f"{self.path.name}{suffix}.damaged").unlink()
        return self._database.run(lambda connection: remove_entries(connection, self.path, older_than_days, max_bytes))

    def _select(self, keys: list[bytes]) -> list[tuple[Any, ...]]:
        """Row number, key, value and day of last use; in a damaged file each can be of any type."""
        query = f"SELECT id, key, value, day FROM kept WHERE key IN ({','.join('?' * len(keys))})"  # noqa: S608
        return self._database.run(lambda connection: connection.execute(query, keys).fetchall())

    def _note_use(self, numbers: list[Any], today: int) -> None:
        """Remember, once a day, that entries were used; a store that cannot be written forgets it."""

        def note(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                rows = [(number, today) for number in numbers]
                connection.executemany("INSERT OR REPLACE INTO uses(id, day) VALUES(?, ?)", rows)

        if numbers and not self._database.read_only:
            with suppress(StoreError):
                self._database.run(note, patience=0.0)

    def _drop(self, numbers: list[Any]) -> None:
        """Remove damaged entries; where that is not possible they stay, and stay unused."""

        def drop(connection: sqlite3.Connection) -> None:
            with transaction(connection):
                connection.executemany("DELETE FROM entries WHERE id = ?", [(number,) for number in numbers])

        if numbers:
            with self._guard:
                self.damaged += len(numbers)
            if not self._database.read_only:
                with suppress(StoreError):
                    self._database.run(drop)


def entry_key(*parts: bytes | str) -> bytes:
    """The key of a value: a hash of everything the value depends on.

    Each part enters with its length, so that ("ab", "c") and ("a", "bc") differ.

    Args:
        parts: what the value depends on; text is taken as UTF-8.

    Returns:
        32 bytes (SHA-256).

    >>> entry_key("ab", "c") == entry_key("a", "bc")
    False
    """
    key = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass") if isinstance(part, str) else part
        key.update(len(data).to_bytes(8, "little"))
        key.update(data)
    return key.digest()


def _today() -> int:
    return int(time.time() // 86_400)  # days since 1970
