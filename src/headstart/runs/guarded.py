"""Reading files a stranger may have written: sizes first, regular files only, never through a link, nothing executed.

A run directory is mailed, shared and fetched, so each of its files is read through this module. The limits say what a
file of that kind may cost; they are checked before anything of that size is allocated.
"""

import errno
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from headstart.errors import RunError
from headstart.files import shown

MEGABYTE = 2**20
JSON_LIMIT = MEGABYTE  # bytes of a JSON file
METRICS_LIMIT = 6 * MEGABYTE  # bytes of metrics.json; two confusion matrices of 1,000 classes take 4 MB
CONTAINER_LIMIT = 100_000  # lists and objects in one JSON document: each costs 20 times the bytes that write it
HEADER_LIMIT = MEGABYTE  # bytes of the header of a tensor file; 1,000 tensors take about 0.1 MB
PIECE = MEGABYTE  # bytes read at a time while hashing
DTYPES: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F64": np.dtype("<f8"),
    "I64": np.dtype("<i8"),
}  # safetensors name -> NumPy
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_NO_WAIT = getattr(os, "O_NONBLOCK", 0)  # opening a pipe must not wait for a writer
_BINARY = getattr(os, "O_BINARY", 0)

Declared = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor name -> (safetensors dtype, shape)


@contextmanager
def open_regular(folder: Path, name: str, limit: int) -> Iterator[tuple[BinaryIO, int]]:
    """Open one file of a folder by its fixed name.

    Args:
        folder: the directory, as its user gave it.
        name: a name of the program's own, never one that was read from a file.
        limit: largest size accepted, bytes.

    Yields:
        The open file, and its size in bytes.

    Raises:
        RunError: it is missing, a link, a hard link, a pipe, a device or a folder, or larger than `limit`.
    """
    path = folder / name
    if not _NO_LINK and path.is_symlink():
        raise RunError(f"{shown(path)} cannot be opened: {_why(OSError(errno.ELOOP, ''))}")
    try:
        handle = os.open(path, os.O_RDONLY | _NO_LINK | _NO_WAIT | _BINARY)
    except OSError as error:
        raise RunError(f"{shown(path)} cannot be opened: {_why(error)}") from error
    try:
        size = _regular_size(path, os.fstat(handle), limit)
        with os.fdopen(handle, "rb", buffering=0, closefd=False) as file:
            yield file, size
    finally:
        os.close(handle)


def _regular_size(path: Path, facts: os.stat_result, limit: int) -> int:
    if not stat.S_ISREG(facts.st_mode):
        raise RunError(f"{shown(path)} is not a regular file; a run holds plain files only")
    if facts.st_nlink > 1:
        raise RunError(
            f"{shown(path)} has {facts.st_nlink} names (hard links), so it may be a file from elsewhere; "
            "make a plain copy of the run (cp -r) and use that"
        )
    if facts.st_size > limit:
        raise RunError(f"{shown(path)} is {facts.st_size:,} bytes; at most {limit:,} can be right for it")
    return facts.st_size


def _why(error: OSError) -> str:
    if error.errno == errno.ENOENT:
        return "it is missing; the copy of the run is not complete"
    if error.errno == errno.ELOOP:
        return "it is a link; a run holds plain files only"
    return error.strerror or type(error).__name__


def read_regular(folder: Path, name: str, limit: int) -> bytes:
    """Return the content of one file of a folder, refused as `open_regular` says."""
    with open_regular(folder, name, limit) as (file, size):
        pieces, rest = [], size
        while rest and (piece := file.read(rest)):
            pieces.append(piece)
            rest -= len(piece)
        return b"".join(pieces)


def check_regular(folder: Path, name: str, size: int, sha256: str) -> None:
    """Compare one file of a folder with what is known of it: the size first, then the content; memory stays flat.

    Args:
        folder, name: as for `open_regular`.
        size: bytes.
        sha256: hexadecimal.

    Raises:
        RunError: as `open_regular`, or the file has another size or content.
    """
    with open_regular(folder, name, size) as (file, found):
        digest = hashlib.sha256()
        while piece := file.read(PIECE):
            digest.update(piece)
    if found != size or digest.hexdigest() != sha256:
        raise RunError(
            f"{shown(folder / name)} is damaged or cut short: {found:,} bytes that differ from the {size:,} bytes of "
            "the manifest; copy the run again"
        )


def parse_json(data: bytes, name: str, containers: int = CONTAINER_LIMIT) -> dict[str, Any]:
    """Turn bytes into a JSON object.

    Args:
        data: UTF-8 text.
        name: what to call it in an error.
        containers: how many lists and objects it may hold.

    Raises:
        RunError: not UTF-8, not JSON, nested too deeply, too many containers, NaN or infinite numbers, or no object.
    """
    if data.count(b"[") + data.count(b"{") > containers:
        raise RunError(f"{name} holds more than {containers:,} lists and objects; it is not of a run")
    try:
        value = json.loads(data.decode(), parse_constant=_refuse_constant)  # UTF-8 only, whatever a file may claim
    except (ValueError, RecursionError) as error:
        raise RunError(f"{name} is damaged: it is not JSON ({shown(str(error))[:80]})") from error
    if not isinstance(value, dict):
        raise RunError(f"{name} is damaged: it holds no JSON object")
    return value


def _refuse_constant(text: str) -> float:
    raise ValueError(f"{text} is not a number of JSON")


def read_tensors(data: bytes, name: str, declared: Declared) -> dict[str, np.ndarray]:
    """Read the tensors of a safetensors file; every name, type and shape must be a declared one.

    The form is 8 bytes of header length, a JSON header (name -> dtype, shape, data_offsets), then the values without
    gaps (github.com/huggingface/safetensors, "Format").

    Args:
        data: the whole file, its checksum already compared.
        name: what to call it in an error.
        declared: what must be in it, and nothing else.

    Returns:
        Arrays by name, views of `data`, not writable.

    Raises:
        RunError: the file and the declaration differ, or a value is NaN or infinite.
    """
    header, body = _header(data, name)
    if header.keys() != declared.keys():
        odd = sorted(header.keys() ^ declared.keys())[0]
        raise RunError(f"{name} and model.json disagree: tensor {shown(odd)!r} is in only one of them")
    tensors, used = {}, 0
    for tensor, entry in sorted(header.items(), key=lambda item: _start(item[1], name)):
        dtype, shape = declared[tensor]
        if not isinstance(entry, dict) or (entry.get("dtype"), entry.get("shape")) != (dtype, list(shape)):
            raise RunError(f"{name}: tensor {shown(tensor)!r} is not {dtype} {list(shape)}, as model.json declares")
        begin, end = used, used + tensor_bytes(dtype, shape)
        if entry.get("data_offsets") != [begin, end] or end > len(body):
            raise RunError(f"{name}: tensor {shown(tensor)!r} does not lie at bytes {begin} to {end}; it is damaged")
        values = np.frombuffer(body[begin:end], dtype=DTYPES[dtype]).reshape(shape)
        if values.dtype.kind == "f" and not np.isfinite(values).all():
            raise RunError(f"{name}: tensor {shown(tensor)!r} holds NaN or infinite weights; train again")
        tensors[tensor], used = values, end
    if used != len(body):
        raise RunError(f"{name} has {len(body) - used:,} bytes after its last tensor; it is damaged")
    return tensors


def _header(data: bytes, name: str) -> tuple[dict[str, Any], memoryview]:
    length = int.from_bytes(data[:8], "little")
    if len(data) < 8 or length > min(HEADER_LIMIT, len(data) - 8):
        raise RunError(f"{name} is damaged: its header would be {length:,} bytes of {len(data):,}")
    header = parse_json(data[8 : 8 + length], f"the header of {name}")
    header.pop("__metadata__", None)
    return header, memoryview(data)[8 + length :]


def _start(entry: object, name: str) -> int:
    offsets = entry.get("data_offsets") if isinstance(entry, dict) else None
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(type(offset) is int for offset in offsets):
        raise RunError(f"{name} is damaged: a tensor has no place in it")
    return int(offsets[0])


def tensor_bytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Return the size of a tensor in bytes.

    >>> tensor_bytes("F32", (2, 1280))
    10240
    """
    return math.prod(shape) * DTYPES[dtype].itemsize


def parse_declared(value: object, name: str) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Check a declaration of tensors, `{tensor: {"dtype", "shape"}}`.

    Args:
        value: what stood in the JSON.
        name: what to call the file in an error.

    Returns:
        Tensor name -> (dtype, shape).

    Raises:
        RunError: an entry has another form, an unknown dtype, or sizes that are not whole numbers >= 0.
    """
    if not isinstance(value, dict):
        raise RunError(f"{name} declares no tensors")
    return {tensor: _declared_entry(entry, tensor, name) for tensor, entry in value.items()}


def _declared_entry(entry: object, tensor: str, name: str) -> tuple[str, tuple[int, ...]]:
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    shape = entry.get("shape") if isinstance(entry, dict) else None
    sound = isinstance(shape, list) and len(shape) <= 8 and all(type(size) is int and size >= 0 for size in shape)
    if dtype not in DTYPES or not sound or shape is None:
        raise RunError(f"{name}: tensor {shown(tensor)!r} is declared as {shown(repr(entry))[:80]}, which is no tensor")
    return str(dtype), tuple(shape)
