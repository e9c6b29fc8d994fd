"""One SQLite file that many threads and processes share, and that is begun anew when it is damaged.

Every access goes through `Database.run`, the one place that decides what an error of SQLite means: another process is
writing (wait), the disk is full or read-only (tell), or the content of the file is wrong (set it aside, begin anew).
"""

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar
from urllib.parse import quote

from headstart.errors import StoreError
from headstart.files import free_space, shown, sweep_leftovers
from headstart.locks import FileLock

T = TypeVar("T")

BUSY_SECONDS = 30.0  # patience with other writers, in steps short enough for an interrupt
BUSY_STEP = 0.1  # seconds SQLite itself waits before it lets Python look for an interrupt
LARGEST_VALUE = 256 * 2**20  # bytes; a damaged length field must not allocate more
SIDE_FILES = ("", "-wal", "-shm")

_BUSY: Final = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL, sqlite3.SQLITE_SCHEMA}
_SURROUNDINGS: Final = {  # the file may be sound: the disk, the rights or the memory are at fault
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_FULL,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_AUTH,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_NOLFS,
}
_inherited: list[sqlite3.Connection] = []  # of a parent process: SQLite forbids to use or even to close them here


class Database:
    """A database file in WAL mode; nothing is opened before the first `run`.

    Args:
        path: the file. Where it can be read but not written, reading goes on.
        schema: statements that make the tables where they are absent.
        what: how messages call it, for example "feature store".

    Attributes:
        notices: what the user should be told, one sentence each.
        read_only: the file that is open now cannot be written.
    """

    def __init__(self, path: Path, schema: tuple[str, ...], what: str) -> None:
        self.path = path
        self.notices: list[str] = []
        self.read_only = False
        self._schema = schema
        self._what = what
        self._guard = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._owner = os.getpid()
        self._identity: tuple[int, int] | None = None  # device and number of the file that is open

    def run(self, work: Callable[[sqlite3.Connection], T], patience: float | None = None) -> T:
        """Run `work` on the open database; again from its start when another process was in the way.

        Args:
            work: what to do; it may be called more than once.
            patience: seconds to wait for other processes; `BUSY_SECONDS` when absent.

        Returns:
            What `work` returns.

        Raises:
            StoreError: the file cannot be read or written.
        """
        deadline = time.monotonic() + (BUSY_SECONDS if patience is None else patience)
        fresh_starts, reopened = 0, False
        with self._guard:
            while True:
                try:
                    connection = self._open()
                    if connection.in_transaction:  # an interrupt hit the last work between BEGIN and its block
                        connection.rollback()
                    return work(connection)
                except sqlite3.ProgrammingError:
                    raise
                except (sqlite3.DatabaseError, UnicodeError) as error:
                    kind = self._kind_of(error)
                    if kind == "busy" and time.monotonic() < deadline:
                        time.sleep(0.01)
                    elif kind == "damaged" and fresh_starts < 2 and not self.read_only:
                        fresh_starts += 1
                        self._begin_anew(error)
                    elif self.read_only and not reopened:  # what made it so may have passed
                        reopened = True
                        self.close()
                    else:
                        raise self._failure(error) from error
                except OSError as error:
                    raise self._failure(error) from error

    def close(self) -> None:
        """Close the file; a later `run` opens it again."""
        with self._guard:
            connection, self._connection = self._connection, None
            if connection is None:
                return
            if self._owner != os.getpid():
                _inherited.append(connection)
                return
            with suppress(sqlite3.Error):
                connection.close()

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._owner == os.getpid():
            return self._connection
        self.close()  # this process was forked: it needs a connection of its own
        self._owner = os.getpid()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            sweep_leftovers(self.path.parent)
            # SQLite would make the file with a mode of its own; its side files copy the mode of this one
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666))
            self._identity = _identify(self.path)
            self._connection = _connect(str(self.path), self._schema)
            self.read_only = False
        except (OSError, sqlite3.OperationalError) as error:
            if isinstance(error, sqlite3.Error) and self._kind_of(error) != "surroundings":
                raise
            self._connection = _connect_read_only(self.path, error)
            self.read_only = True
        return self._connection

    def _kind_of(self, error: Exception) -> str:
        """`busy`: try again; `surroundings`: disk or rights; `damaged`: the content of the file is wrong.

        A `UnicodeError` is a message of SQLite about a damaged name, which Python fails to decode.
        """
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT)
        primary = code & 0xFF
        if primary in _BUSY:
            return "busy"
        if code in (sqlite3.SQLITE_READONLY_DBMOVED, sqlite3.SQLITE_IOERR_SHORT_READ):
            return "damaged"
        if primary == sqlite3.SQLITE_READONLY and _has_wrong_version(self.path):
            return "damaged"
        return "surroundings" if primary in _SURROUNDINGS else "damaged"

    def _begin_anew(self, error: Exception) -> None:
        """Set the damaged file aside, unless another process has done so already."""
        path = self.path
        self.close()
        try:
            if not self._set_aside():
                return
        except OSError as failure:
            raise self._failure(failure) from error
        self.notices.append(
            f"the {self._what} {shown(path)} was damaged ({error}); it was set aside as {shown(path.name)}.damaged "
            "and begun anew: what it held is computed again"
        )

    def _set_aside(self) -> bool:
        path = self.path
        with FileLock(path.with_name(f"{path.name}.lock")) as lock:
            deadline = time.monotonic() + BUSY_SECONDS
            while not lock.acquire() and time.monotonic() < deadline:
                time.sleep(0.02)
            if self._identity != _identify(path):
                return False
            for suffix in SIDE_FILES:
                with suppress(FileNotFoundError):
                    path.with_name(path.name + suffix).replace(path.with_name(f"{path.name}{suffix}.damaged"))
        return True

    def _failure(self, error: Exception) -> StoreError:
        reason = getattr(error, "strerror", None) or str(error)
        if not isinstance(error, sqlite3.Error) or self._kind_of(error) != "busy":
            self.close()
        return StoreError(
            f"the {self._what} {shown(self.path)} cannot be used: {reason} ({free_space(self.path)}); what was stored "
            "before stays; free some space, or set HEADSTART_CACHE to a folder that can be written"
        )


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[None]:
    """All statements of the block take effect together, or none does."""
    connection.execute("BEGIN IMMEDIATE")  # takes the write lock at once: two readers cannot block each other later
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            with suppress(sqlite3.Error):
                connection.rollback()
        raise


def _identify(path: Path) -> tuple[int, int] | None:
    with suppress(OSError):
        state = path.stat()
        return state.st_dev, state.st_ino
    return None


def _connect(name: str, schema: tuple[str, ...], *, writable: bool = True) -> sqlite3.Connection:
    connection = sqlite3.connect(
        name, timeout=BUSY_STEP, isolation_level=None, check_same_thread=False, uri=not writable
    )
    try:
        connection.text_factory = bytes  # a damaged type must not raise
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LARGEST_VALUE)
        connection.execute("PRAGMA cell_size_check = ON")
        if writable:
            if Path(name).stat().st_size == 0:
                connection.execute("PRAGMA auto_vacuum = INCREMENTAL")  # so that pruning gives space back
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            for statement in schema:
                connection.execute(statement)
    except BaseException:
        connection.close()
        raise
    return connection


def _connect_read_only(path: Path, cause: Exception) -> sqlite3.Connection:
    """The last checkpoint of a file that cannot be written: its journal cannot be opened either, and is left out."""
    try:
        if path.stat().st_size == 0:
            raise cause
        return _connect(f"file:{quote(str(path.absolute()))}?mode=ro&immutable=1", (), writable=False)
    except (OSError, sqlite3.Error):
        raise cause from None


def _has_wrong_version(path: Path) -> bool:
    """Bytes 18 and 19 of an SQLite file are 1 or 2; any other value makes SQLite call a writable file read-only."""
    with suppress(OSError), path.open("rb") as file:
        version = file.read(20)[18:]
        return bool(version) and not set(version) <= {1, 2}
    return False
