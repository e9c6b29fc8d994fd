"""Fetching the files of a built-in data set from an address that the user gives, with its checksum."""

import gzip
import hashlib
import lzma
import re
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, cast

from headstart.errors import DataError
from headstart.files import cache_dir, new_directory, sha256_file, shown

_CHECKED = re.compile(r"(?P<url>https?://[^#]+)#sha256=(?P<sha256>[0-9a-f]{64})", re.IGNORECASE)
_MOST_BYTES = 1 << 31  # of one file, packed or unpacked: more than any built-in data set
_MOST_MEMBERS = 10_000  # of one archive
_BROKEN_ARCHIVE = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,  # a packing method this Python lacks
    RuntimeError,  # a zip archive with a password
)
_SECONDS = 60  # without a byte from the other side
_PIECE = 1 << 20


def fetch_files(addresses: str, wanted: re.Pattern[str]) -> Path:
    """Download the files of a data set into the cache, once.

    Every address ends in "#sha256=" and 64 hexadecimal digits; several are separated by commas. A file is one of the
    wanted ones, or a tar or zip archive that holds them. Only files whose own name (without folders) is wanted are
    taken out of an archive, and they are written side by side under that name, so no member can choose a place.

    Args:
        addresses: "https://host/set.tar.gz#sha256=..." or several of them.
        wanted: full match on the names of the files to keep.

    Returns:
        The folder in the cache that holds the wanted files.

    Raises:
        DataError: an address has no checksum or does not answer, the content has another checksum, or nothing wanted
            is in it.
        OutputError: the cache cannot be written.
    """
    sources = [_parse(address) for address in re.split(r",(?=https?://)", addresses)]
    key = hashlib.sha256("\n".join([wanted.pattern, *(sha256 for _, sha256 in sources)]).encode()).hexdigest()
    folder = cache_dir() / "datasets" / key
    if folder.is_dir():
        return folder
    with new_directory(folder) as aside:
        for url, sha256 in sources:
            arrived = aside / ".download"
            _write(_pieces(url), arrived, _short(url))
            if (received := sha256_file(arrived)) != sha256:
                raise DataError(f"{_short(url)} has the SHA-256 {received}; expected {sha256}: check the address")
            _keep(arrived, url, wanted, aside)
            arrived.unlink(missing_ok=True)
        if not any(aside.iterdir()):
            raise DataError(f"nothing in {_short(sources[0][0])} is a file of this data set")
    return folder


def _parse(address: str) -> tuple[str, str]:
    if re.match(r"\s*https?://[^/#]*@", address, re.IGNORECASE):
        raise DataError("an address with a user name or a password is not read; download the file and give its folder")
    match = _CHECKED.fullmatch(address.strip())
    if match is None:
        raise DataError(
            f"'{shown(address)}' has no checksum; expected https://host/file#sha256= and 64 hexadecimal digits, "
            "so that what arrives is what you meant"
        )
    return match["url"], match["sha256"].lower()


def _short(url: str) -> str:
    """An address without its query, which may hold a secret."""
    return shown(url.partition("?")[0])


def _pieces(url: str) -> Iterator[bytes]:
    """The bytes behind an address as they arrive; what goes wrong here is the address's fault, not the disk's."""
    import http.client
    from urllib.request import urlopen

    try:
        with urlopen(url, timeout=_SECONDS) as answer:  # noqa: S310 - _CHECKED lets http and https through only
            while piece := answer.read(_PIECE):
                yield piece
    except (OSError, http.client.HTTPException, ValueError) as error:  # URLError and timeouts are OSErrors
        reason = getattr(error, "reason", None) or error
        raise DataError(f"cannot fetch {_short(url)}: {shown(str(reason))}") from error


def _write(pieces: Iterable[bytes], path: Path, what: str) -> None:
    size = 0
    with path.open("wb") as file:
        for piece in pieces:
            size += len(piece)
            if size > _MOST_BYTES:
                raise DataError(f"{what} is larger than {_MOST_BYTES:,} bytes; that is no built-in data set")
            file.write(piece)


def _keep(arrived: Path, url: str, wanted: re.Pattern[str], folder: Path) -> None:
    name = PurePosixPath(url.partition("?")[0]).name
    if wanted.fullmatch(name):
        arrived.rename(folder / name)
        return
    try:
        for member, content in _members(arrived, wanted):
            with content:
                _write(iter(partial(content.read, _PIECE), b""), folder / member, f"'{shown(member)}' in {_short(url)}")
    except _BROKEN_ARCHIVE as error:
        raise DataError(
            f"{_short(url)} is neither a file of this data set nor a readable tar or zip archive: {shown(str(error))}"
        ) from error


def _members(archive: Path, wanted: re.Pattern[str]) -> Iterator[tuple[str, IO[bytes]]]:
    """The wanted regular files of an archive, by their own names."""
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as packed:
            _check_count(len(packed.infolist()))
            for info in packed.infolist():
                name = PurePosixPath(info.filename).name
                if wanted.fullmatch(name) and not info.is_dir():
                    yield name, packed.open(info)
        return
    with tarfile.open(archive) as tape:
        for number, member in enumerate(tape):
            _check_count(number)
            if member.size > _MOST_BYTES:
                raise DataError(f"a member of the archive has {member.size:,} bytes; that is no built-in data set")
            name = PurePosixPath(member.name).name
            if wanted.fullmatch(name) and member.isreg():
                yield name, cast("IO[bytes]", tape.extractfile(member))


def _check_count(members: int) -> None:
    if members > _MOST_MEMBERS:
        raise DataError(f"the archive holds more than {_MOST_MEMBERS:,} files; that is no built-in data set")
