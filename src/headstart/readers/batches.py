"""The "python version" of CIFAR-10: files in pickle's format, read as plain data and never executed.

A pickle is a program for a small stack machine, and unpickling runs it: whoever wrote the file chooses what is called.
Here the standard library only cuts the program into its instructions (`pickletools.genops`, which executes none), and
the few that build numbers, texts, lists, dicts and byte arrays are followed. Any other instruction, and any name but
those that NumPy writes for an array, ends the reading with an error.
"""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from headstart.errors import DataError
from headstart.files import shown

_MOST_BYTES = 1 << 28  # a batch of the data set has 31 million
_MARK = object()
_VALUES = frozenset(
    [
        "BININT",
        "BININT1",
        "BININT2",
        "LONG1",
        "SHORT_BINSTRING",
        "BINSTRING",
        "BINUNICODE",
        "SHORT_BINUNICODE",
        "SHORT_BINBYTES",
        "BINBYTES",
    ]
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NAMES = {
    **dict.fromkeys(("numpy.core.multiarray _reconstruct", "numpy._core.multiarray _reconstruct"), "array"),
    "numpy ndarray": "class",
    "numpy dtype": "type",
    "_codecs encode": "encode",
}


class _Refused(Exception):
    """An instruction that is no plain data."""


class _Name(str):
    """What an allowed global name stands for: a value of `_NAMES`. Nothing is ever imported."""


class _Array:
    """An array of bytes under construction."""

    value: UInt8[np.ndarray, "..."] | None = None

    def fill(self, state: Any) -> None:
        _, shape, kind, fortran, data = state
        data = data.encode("latin-1") if isinstance(data, str) else data
        if kind != ("type", "u1") or fortran or not isinstance(data, bytes):
            raise _Refused("an array of another kind than bytes")
        self.value = np.frombuffer(data, dtype=np.uint8).reshape(shape)


def read_batch(path: Path) -> dict[str, Any]:
    """Read one file of the python version: a dict whose values are lists, texts, numbers and arrays of bytes.

    Args:
        path: `data_batch_1`, `test_batch`, `batches.meta`, ...

    Returns:
        The dict with text keys; arrays (rows, columns) of values 0..255.

    Raises:
        DataError: the file holds anything that is no plain data, or is damaged.
    """
    try:
        return {_text(key): _plain(value) for key, value in _follow(path).items()}
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}") from error
    except _Refused as error:
        raise DataError(
            f"{shown(path)} is no CIFAR-10 batch of plain data: it holds {shown(str(error))}; nothing of it was run; "
            "take the binary version of the data set"
        ) from error
    except Exception as error:  # bytes from a stranger: whatever goes wrong, the file is at fault
        raise DataError(f"{shown(path)} is damaged or no CIFAR-10 batch; get the file again") from error


def _follow(path: Path) -> dict[Any, Any]:
    """Build the dict that the instructions in a file describe."""
    import pickletools  # only here: nobody else needs it

    if path.stat().st_size > _MOST_BYTES:
        raise _Refused("far more bytes than a batch has")
    stack: list[Any] = []
    memo: dict[Any, Any] = {}
    for opcode, argument, _ in pickletools.genops(path.read_bytes()):
        name = opcode.name
        if name in ("PROTO", "FRAME"):
            continue
        if name in _VALUES:
            stack.append(argument)
        elif name in _CONSTANTS:
            stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            stack.append(_pop(stack, _TUPLES[name]))
        elif name in ("BINPUT", "LONG_BINPUT", "MEMOIZE"):
            memo[len(memo) if argument is None else argument] = stack[-1]  # MEMOIZE counts by itself
        elif name in ("BINGET", "LONG_BINGET"):
            stack.append(memo[argument])
        elif name == "STOP" and isinstance(stack[-1], dict):
            return dict(stack[-1])
        else:
            _build(name, argument, stack)
    raise _Refused("no dict at the end")


def _build(name: str, argument: Any, stack: list[Any]) -> None:
    """Follow one instruction that makes or fills a container, names something allowed, or makes an array."""
    if name in ("EMPTY_DICT", "EMPTY_LIST", "EMPTY_TUPLE", "MARK"):
        stack.append({"EMPTY_DICT": {}, "EMPTY_LIST": [], "EMPTY_TUPLE": (), "MARK": _MARK}[name])
    elif name == "TUPLE":
        stack.append(tuple(_pop_to_mark(stack)))
    elif name in ("APPEND", "APPENDS"):
        items = [stack.pop()] if name == "APPEND" else _pop_to_mark(stack)
        list.extend(stack[-1], items)
    elif name in ("SETITEM", "SETITEMS"):
        items = list(_pop(stack, 2)) if name == "SETITEM" else _pop_to_mark(stack)
        if not all(isinstance(key, str | bytes) for key in items[::2]):  # hashing nested tuples can take for ever
            raise _Refused("a key that is no text")
        dict.update(stack[-1], zip(items[::2], items[1::2], strict=True))
    elif name in ("GLOBAL", "STACK_GLOBAL"):
        stack.append(_allowed(argument if name == "GLOBAL" else " ".join(_pop(stack, 2))))
    elif name == "REDUCE":
        stack.append(_made(*_pop(stack, 2)))
    elif name == "BUILD":
        made, state = _pop(stack, 2)
        if isinstance(made, _Array):
            made.fill(state)
        stack.append(made)
    else:
        raise _Refused(f"the instruction {name}")


def _allowed(name: str) -> _Name:
    if name not in _NAMES:
        raise _Refused(f"a call of '{name}'")
    return _Name(_NAMES[name])


def _made(name: Any, arguments: Any) -> Any:
    """What calling an allowed name would give: an empty array, an element type, or the bytes behind a text."""
    if isinstance(name, _Name):
        if name == "array" and arguments[0] == "class":
            return _Array()
        if name == "type":
            return ("type", _text(arguments[0]))
        if name == "encode" and arguments[1:] == ("latin1",):
            return arguments[0].encode("latin-1")
    raise _Refused("a call of what is no name")


def _pop(stack: list[Any], count: int) -> tuple[Any, ...]:
    items = tuple(stack[-count:])
    del stack[-count:]
    return items


def _pop_to_mark(stack: list[Any]) -> list[Any]:
    at = len(stack) - 1 - stack[::-1].index(_MARK)
    items = stack[at + 1 :]
    del stack[at:]
    return items


def _text(value: Any) -> str:
    if not isinstance(value, str | bytes):
        raise _Refused("something else where a text belongs")
    return value.decode("latin-1") if isinstance(value, bytes) else value


def _plain(value: Any) -> Any:
    """Values as the caller sees them: arrays as arrays, and texts inside a list as texts, whoever wrote them."""
    if isinstance(value, _Array):
        return value.value
    return [_text(item) if isinstance(item, bytes) else item for item in value] if isinstance(value, list) else value
