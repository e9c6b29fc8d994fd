"""How state reaches the disk: written aside, synced, renamed; and how a file name is shown to a person.

Everything headstart writes goes through `write_atomic` (one file), `new_directory` (a folder that appears complete or
not at all) or the store. A process that is killed leaves at most a hidden file or folder `.headstart-*.tmp` behind,
which `sweep_leftovers` removes at the next start.

The order of the steps (write, fsync, rename, fsync the folder) is the one of Pillai et al. 2014, "All File Systems Are
Not Created Equal", OSDI.
"""

import errno
import hashlib
import os
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.errors import OutputError

_LEFTOVER = re.compile(r"\.headstart-(?P<host>[0-9a-f]{8})-(?P<pid>\d+)-[0-9a-f]{8}\.(?P<kind>tmp|old)")
_FOREIGN_AGE = 24 * 3600  # seconds after which a leftover of another machine is taken for dead
_own_leftovers: set[str] = set()  # names this process is writing at the moment

_ADVICE = {
    errno.ENOSPC: "free some space there or choose another place",
    errno.EDQUOT: "your quota there is used up: remove something or choose another place",
    errno.EROFS: "the place is read-only: choose another one",
    errno.EACCES: "you have no permission to write there: choose another place",
    errno.EPERM: "you have no permission to write there: choose another place",
    errno.EIO: "the disk reports an error: check it, and choose another place",
}


def shown(name: str | os.PathLike[str]) -> str:
    r"""A file name as it may be printed: nothing in it can move the cursor, change colours or reverse the line.

    Every character that Unicode calls not printable (control and format characters, bidirectional marks, private and
    unassigned ones, all spaces but the plain one) is replaced by its escape; a byte that is no valid UTF-8 likewise.

    Args:
        name: any file name or path, bytes in it that do not decode included (`os.fsdecode` form).

    Returns:
        A printable text of one line. It is for eyes, not for opening the file.

    >>> print(shown("cat\x1b[31m.jpg"))
    cat\x1b[31m.jpg
    >>> print(shown(b"caf\xe9.jpg".decode("utf-8", "surrogateescape")))
    caf\xe9.jpg
    """
    text = os.fspath(name)
    if text.isprintable():
        return text
    return "".join(letter if letter.isprintable() else _escape(ord(letter)) for letter in text)


def _escape(code: int) -> str:
    if 0xDC80 <= code <= 0xDCFF:  # a byte that did not decode
        return f"\\x{code - 0xDC00:02x}"
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def write_failure(path: Path, error: OSError) -> OutputError:
    """The error for a user whose file could not be written: where, why, how much space is free there, what to do.

    Args:
        path: what should have been written.
        error: what the operating system said.

    Returns:
        The error to raise `from error`.
    """
    reason = error.strerror or type(error).__name__
    advice = _ADVICE.get(error.errno or 0, "choose another place")
    return OutputError(f"cannot write {shown(path)}: {reason} ({free_space(path)}); {advice}")


def free_space(path: Path) -> str:
    """How much space is free where `path` is or would be, as words for a message."""
    for folder in (path, *path.parents):
        with suppress(OSError):
            return f"{shutil.disk_usage(folder).free / 1e6:,.1f} MB free there"
    return "free space unknown"


def write_atomic(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old content or the new one, whatever happens in between.

    The bytes go to a hidden file in the same folder, are synced to the disk, and the file is renamed; then the folder
    is synced. The mode of the file is what the umask of the process says.

    Args:
        path: the file; its folder must exist. A symbolic link at this place is replaced, not followed.
        data: the whole content.

    Raises:
        OutputError: the disk is full, read-only or broken, or there is no permission; the old content is intact.
    """
    path = Path(path)
    with _own_name(path.parent, "tmp") as aside:
        try:
            _write_synced(aside, data)
            aside.replace(path)
            _sync_folder(path.parent)
        except OSError as error:
            raise write_failure(path, error) from error
        finally:
            with suppress(OSError):
                aside.unlink(missing_ok=True)


def _write_synced(path: Path, data: bytes) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), 0o666)
    try:
        rest = memoryview(data)
        while rest:
            rest = rest[os.write(handle, rest) :]
        os.fsync(handle)
    finally:
        os.close(handle)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # a folder cannot be opened there; NTFS journals the rename itself
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # file systems that cannot sync a folder
            raise
    finally:
        os.close(handle)


@contextmanager
def new_directory(path: Path, overwrite: bool = False) -> Iterator[Path]:
    """Fill a directory that appears at `path` complete, or not at all.

    The block writes into a hidden directory beside `path`. When it ends well, everything in it is synced and the
    directory is renamed to `path`; when it raises (an interrupt included), the directory is removed. Missing parent
    folders are made.

    Args:
        path: where the directory shall appear.
        overwrite: an existing `path` is moved aside and, once the new one stands, removed. A process killed between
            the two steps leaves the old one hidden beside `path`; `sweep_leftovers` puts it back.

    Yields:
        The directory to write into.

    Raises:
        OutputError: `path` exists and `overwrite` is false, or the place cannot be written.
    """
    path = Path(path)
    if os.path.lexists(path) and not overwrite:
        raise OutputError(f"{shown(path)} exists already; give another name, or say that it may be overwritten")
    with _own_name(path.parent, "tmp") as aside:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            sweep_leftovers(path.parent)
            aside.mkdir()
        except OSError as error:
            raise write_failure(path, error) from error
        try:
            yield aside
            _move_into_place(aside, path, overwrite)
        except OSError as error:
            if error.errno not in _ADVICE:  # a mistake of the block itself, such as a missing input
                raise
            raise write_failure(path, error) from error
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _move_into_place(aside: Path, path: Path, overwrite: bool) -> None:
    for folder, _, names in os.walk(aside, topdown=False):
        for name in names:
            _sync_file(Path(folder) / name)
        _sync_folder(Path(folder))
    try:
        if overwrite and os.path.lexists(path):
            _replace_directory(aside, path)
        else:
            aside.rename(path)
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
            raise OutputError(f"{shown(path)} was made by another process meanwhile; give another name") from error
        raise
    _sync_folder(path.parent)


def _sync_file(path: Path) -> None:
    handle = os.open(path, os.O_RDWR if os.name == "nt" else os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _replace_directory(aside: Path, path: Path) -> None:
    """No portable call swaps two directories: the old one waits, under its own name, in a hidden folder."""
    with _own_name(path.parent, "old") as holder:
        holder.mkdir()
        try:
            path.rename(holder / path.name)
            try:
                aside.rename(path)
            except OSError:
                (holder / path.name).rename(path)
                raise
        finally:
            if os.path.lexists(path):
                _remove(holder)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's content, 64 hexadecimal digits; read in pieces, so memory stays flat.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def cache_dir() -> Path:
    """The folder for what can be computed again: features, converted networks.

    `$HEADSTART_CACHE`, else `$XDG_CACHE_HOME/headstart`, else `~/.cache/headstart` (macOS:
    `~/Library/Caches/headstart`, Windows: `%LOCALAPPDATA%/headstart`). A folder that is made here can be read by its
    owner only (mode 0700); an existing one keeps its mode.

    Returns:
        The existing folder.

    Raises:
        OutputError: it cannot be made.
    """
    folder = _cache_place()
    try:
        if not folder.is_dir():
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder


def _cache_place() -> Path:
    try:
        if given := os.environ.get("HEADSTART_CACHE"):
            return Path(given).expanduser().absolute()
        shared = os.environ.get("XDG_CACHE_HOME", "")
        if Path(shared).is_absolute():  # the XDG base directory specification: a relative one is ignored
            return Path(shared) / "headstart"
        if sys.platform == "win32":
            return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "headstart"
        return Path.home() / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "headstart"
    except RuntimeError as error:  # no home folder is known
        raise OutputError("no place for the cache: you have no home folder; set HEADSTART_CACHE to a folder") from error


@contextmanager
def _own_name(folder: Path, kind: str) -> Iterator[Path]:
    """A hidden name that says which process writes it: machine (hashed), process id, random part."""
    name = f".headstart-{_host()}-{os.getpid()}-{os.urandom(4).hex()}.{kind}"
    _own_leftovers.add(name)
    try:
        yield folder / name
    finally:
        _own_leftovers.discard(name)


def _host() -> str:
    return hashlib.sha256(socket.gethostname().encode("utf-8", "surrogateescape")).hexdigest()[:8]


def sweep_leftovers(folder: Path) -> int:
    """Remove what killed writers left in a folder; put a directory back that was moved aside and not yet replaced.

    Only names of the form that this module gives are touched, and none of a process that is still running (on another
    machine: none younger than a day).

    Args:
        folder: where `write_atomic` or `new_directory` wrote. A missing one has no leftovers.

    Returns:
        How many were removed or put back.
    """
    swept = 0
    with suppress(OSError):
        for entry in list(os.scandir(folder)):
            match = _LEFTOVER.fullmatch(entry.name)
            if match is None or _is_alive(entry, match):
                continue
            with suppress(OSError):
                if match["kind"] == "old":
                    _put_back(Path(entry.path), Path(folder))
                _remove(Path(entry.path))
                swept += 1
    return swept


def _is_alive(entry: os.DirEntry[str], match: re.Match[str]) -> bool:
    pid = int(match["pid"])
    if match["host"] != _host():
        with suppress(OSError):
            return time.time() - entry.stat(follow_symlinks=False).st_mtime < _FOREIGN_AGE
        return True
    if pid == os.getpid():
        return entry.name in _own_leftovers
    return process_exists(pid)


def process_exists(pid: int) -> bool:
    """Is there a process of this id here? On Windows the answer is always yes: to ask there can end the process."""
    if os.name == "nt":
        return True
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _put_back(holder: Path, folder: Path) -> None:
    for kept in list(holder.iterdir()):
        if not os.path.lexists(folder / kept.name):
            kept.rename(folder / kept.name)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
