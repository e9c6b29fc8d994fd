"""How one stored value is laid out in bytes: a checksum over the key and the content, a short header, the content.

    bytes 0..15    BLAKE2b-128 of: length of the key, the key, everything from byte 16 on
    byte  16       "a": an array, "j": a dict as JSON
    array          3 bytes number type ("<f4"), 1 byte rank, 4 bytes little-endian for each axis, the numbers in C order
    dict           JSON in UTF-8, keys sorted

The key enters the checksum so that a value which lands under another key, through a damaged index, is found out.
"""

import hashlib
import json
import math
import struct
from typing import Any

import numpy as np
from jaxtyping import Shaped

CHECK = 16  # bytes of checksum: 2**-128 is the chance that a damaged value passes
ARRAY, RECORD = b"a", b"j"
NUMBER_TYPES = ("|b1", "|u1", "<f2", "<f4", "<f8", "<i4", "<i8")


def encode_entry(key: bytes, value: Shaped[np.ndarray, "..."] | dict[str, Any]) -> bytes:
    """The bytes to store for a value.

    Args:
        key: under which it will be stored.
        value: an array of one of `NUMBER_TYPES`, or a dict that JSON can hold.

    Raises:
        TypeError: the value is of another kind.
    """
    if isinstance(value, dict):
        body = RECORD + json.dumps(value, sort_keys=True, separators=(",", ":")).encode("utf-8")
    elif isinstance(value, np.ndarray):
        array = np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)
        if array.dtype.str not in NUMBER_TYPES:
            raise TypeError(f"cannot store an array of {value.dtype}; it must be one of {', '.join(NUMBER_TYPES)}")
        header = array.dtype.str.encode("ascii") + struct.pack(f"<B{array.ndim}I", array.ndim, *array.shape)
        body = ARRAY + header + array.tobytes()
    else:
        raise TypeError(f"cannot store a {type(value).__name__}; it must be a NumPy array or a dict")
    return _checksum(key, body) + body


def decode_entry(key: object, blob: object) -> Shaped[np.ndarray, "..."] | dict[str, Any] | None:
    """The value that `encode_entry` laid out, or None when key, checksum or layout do not fit together.

    Args:
        key, blob: as they came from the database; a damaged one can give any type.

    Returns:
        A read-only array, a dict, or None.

    >>> blob = encode_entry(b"key", {"width": 3})
    >>> decode_entry(b"key", blob), decode_entry(b"kez", blob)
    ({'width': 3}, None)
    """
    if not (isinstance(key, bytes) and isinstance(blob, bytes)):
        return None
    if len(blob) <= CHECK or blob[:CHECK] != _checksum(key, memoryview(blob)[CHECK:]):
        return None
    if blob[CHECK : CHECK + 1] == RECORD:
        record: dict[str, Any] = json.loads(blob[CHECK + 1 :])
        return record
    kind, rank = blob[CHECK + 1 : CHECK + 4].decode("ascii"), blob[CHECK + 4]
    shape = struct.unpack_from(f"<{rank}I", blob, CHECK + 5)
    return np.frombuffer(blob, kind, math.prod(shape), CHECK + 5 + 4 * rank).reshape(shape)


def is_array(first: object) -> bool:
    """Whether byte 16 of a stored value says that it is an array."""
    return first == ARRAY


def _checksum(key: bytes, body: bytes | memoryview) -> bytes:
    check = hashlib.blake2b(len(key).to_bytes(4, "little") + key, digest_size=CHECK)
    check.update(body)
    return check.digest()
