"""Weights of a net: read from a file without running code, compared name by name, copied in only if everything fits."""

import hashlib
import sys
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import numpy as np
import safetensors

from headstart.errors import WeightsError
from headstart.files import shown

if TYPE_CHECKING:
    import torch

Tensors = dict[str, np.ndarray]

#: safetensors' names of the number types; bfloat16, which NumPy lacks, is read through its bits
_TYPES = {
    "F64": "<f8",
    "F32": "<f4",
    "F16": "<f2",
    "BF16": "<u2",
    "I64": "<i8",
    "I32": "<i4",
    "I16": "<i2",
    "I8": "i1",
    "U8": "u1",
    "BOOL": "?",
}


def read_weights(path: Path, *, legacy: bool = False) -> Tensors:
    """Named tensors of a weights file: `.safetensors`, or what `torch.save(net.state_dict(), path)` wrote.

    The content decides, not the suffix. Nothing in the file is executed: of torch's format only tensors are read
    (`weights_only`); pickles with code, TorchScript programs and the torch format of before 2020 are refused.

    Args:
        path: the file.
        legacy: also read torch's old format; for files whose hash is known only.

    Returns:
        Name -> array; bfloat16 becomes float32, everything else keeps its type. Torch is imported for its own format
        only.

    Raises:
        WeightsError: no such file, another format, or a damaged or truncated one.
    """
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {shown(path)}: {error.strerror or error}") from error
    if start[:4] == b"PK\x03\x04":
        return _read_torch_zip(path)
    if start[8:9] == b"{":  # eight bytes of length, then a JSON object
        return _read_safetensors(path)
    if start[:1] == b"\x80" and legacy:
        return _read_torch(path)
    if start[:1] == b"\x80":
        _refuse(path, "is a plain pickle or torch's format of before 2020, which could run code when read")
    _refuse(path, "is empty" if not start else "is no weights file this program knows")


def _refuse(path: Path, why: str, advice: str = "") -> NoReturn:
    advice = advice or "save the tensors again with safetensors or torch.save(net.state_dict(), ...)"
    raise WeightsError(f"{shown(path)} {why}; expected safetensors or torch's zip of tensors: {advice}")


def _read_safetensors(path: Path) -> Tensors:
    try:
        entries = safetensors.deserialize(path.read_bytes())  # type: ignore[no-untyped-call]
    except safetensors.SafetensorError as error:
        raise _damaged(path, error) from error
    tensors = {}
    for name, entry in entries:
        if entry["dtype"] not in _TYPES:
            _refuse(path, f"holds {shown(name)} as {entry['dtype']}, no plain number type", "save it as float32")
        array = np.frombuffer(entry["data"], _TYPES[entry["dtype"]]).reshape(entry["shape"])
        if entry["dtype"] == "BF16":  # the upper half of a float32
            array = (array.astype("<u4") << 16).view("<f4")
        tensors[name] = array
    return tensors


def _read_torch_zip(path: Path) -> Tensors:
    try:
        with zipfile.ZipFile(path) as archive:
            parts = {name.partition("/")[2] for name in archive.namelist()}
            program = "constants.pkl" in parts or any(part.startswith("code/") for part in parts)
            broken = None if program else archive.testzip()  # torch itself does not look at the checksums
    except (zipfile.BadZipFile, OSError, EOFError) as error:
        raise _damaged(path, error) from error
    if program:
        _refuse(path, "is a TorchScript program, not plain weights")
    if "data.pkl" not in parts:
        _refuse(path, "is a zip file without torch's tensors in it")
    if broken is not None:
        raise _damaged(path, f"the checksum of {shown(broken)} is wrong")
    return _read_torch(path)


def _read_torch(path: Path) -> Tensors:
    import torch

    try:
        with path.open("rb") as file:  # given a name, torch would look at the suffix
            loaded = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes torch raise almost anything
        if type(error).__name__ == "UnpicklingError":  # how `weights_only` refuses; the checksums were right
            _refuse(path, "holds more than tensors (Python objects that could run code)")
        raise _damaged(path, error) from error
    if not isinstance(loaded, Mapping) or not all(isinstance(name, str) for name in loaded):
        _refuse(path, f"holds a {type(loaded).__name__}, not a table of named tensors")
    if others := [name for name, value in loaded.items() if not isinstance(value, torch.Tensor)]:
        advice = "save the table of tensors alone, for example torch.save(checkpoint['state_dict'], ...)"
        _refuse(path, f"holds other things than tensors: {_listed(others)}", advice)
    return {name: _as_array(value) for name, value in loaded.items()}


def _as_array(value: "torch.Tensor") -> np.ndarray:
    import torch

    value = value.detach().cpu()
    return np.asarray((value.float() if value.dtype == torch.bfloat16 else value).contiguous().numpy())


def _damaged(path: Path, error: object) -> WeightsError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    return WeightsError(f"the weights file {shown(path)} is damaged or cut short ({reason}); get a fresh copy")


def _listed(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in names)


def tensors_of(net: "torch.nn.Module") -> Tensors:
    """Copies of all tensors of a net (parameters and batch-norm statistics) by name, on the CPU."""
    return {name: _as_array(value).copy() for name, value in net.state_dict().items()}


def load_checked(
    net: "torch.nn.Module", tensors: Mapping[str, np.ndarray], rename: Callable[[str], str] | None = None
) -> None:
    """Copy tensors into a net if every one fits; otherwise raise and leave the net untouched.

    Args:
        net: receives the values; its own number types and devices stay.
        tensors: name -> array. Every tensor of the net must be there (counters of batch norm included), no other.
        rename: gives, for a name in the net, the name in `tensors`; the same name when absent.

    Raises:
        WeightsError: names every missing and every unexpected tensor, every wrong shape and type, and every tensor with
            a NaN or an infinity.
    """
    import torch

    own = net.state_dict()
    tensors = {name: np.asarray(value) for name, value in tensors.items()}
    names = {name: rename(name) if rename else name for name in own}
    faults = [
        *(f"missing {shown(there)}" for there in names.values() if there not in tensors),
        *(f"unexpected {shown(there)}" for there in sorted(set(tensors) - set(names.values()))),
    ]
    for name, there in names.items():
        if there in tensors:
            faults += _faults(there, tensors[there], own[name])
    if faults:
        told = f"{len(faults)} faults: {'; '.join(faults)}"
        raise WeightsError(f"the weights do not fit {type(net).__name__}, nothing was loaded; {told}")
    with torch.no_grad():
        for name, there in names.items():
            own[name].copy_(torch.tensor(tensors[there]))


def _faults(name: str, given: np.ndarray, expected: "torch.Tensor") -> list[str]:
    if given.shape != tuple(expected.shape):
        return [f"{shown(name)} has shape {list(given.shape)}, expected {list(expected.shape)}"]
    if np.issubdtype(given.dtype, np.floating) != expected.is_floating_point():
        return [f"{shown(name)} has type {given.dtype}, expected {str(expected.dtype).removeprefix('torch.')}"]
    if np.issubdtype(given.dtype, np.floating) and not np.isfinite(given).all():
        return [f"{shown(name)} holds NaN or infinity"]
    return []


def digest(tensors: Mapping[str, np.ndarray]) -> str:
    """SHA-256 over names, types, shapes and values, whatever the order and the file they came from.

    >>> import numpy as np
    >>> a, b = np.zeros(2, np.float32), np.ones(1, np.float32)
    >>> digest({"a": a, "b": b}) == digest({"b": b, "a": a}), digest({"a": a}) == digest({"a": b})
    (True, False)
    """
    total = hashlib.sha256()
    for name in sorted(tensors):
        value = np.ascontiguousarray(tensors[name])
        if sys.byteorder == "big":
            value = value.byteswap()
        head = f"{len(name)} {name} {value.dtype.kind}{value.dtype.itemsize} {np.shape(tensors[name])}\n"
        total.update(head.encode("utf-8", "surrogatepass"))
        total.update(value.data)
    return total.hexdigest()
