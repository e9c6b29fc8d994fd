"""Where the features of a data set lie: in memory, or, where they are many, in an unnamed file of the cache folder."""

import mmap
import os
import tempfile

import numpy as np
from jaxtyping import Float

from headstart.errors import OutputError
from headstart.files import cache_dir

IN_MEMORY = 256 << 20  # bytes of a matrix that stay in memory: 50,000 photos of 1,280 features are a file
RELEASE = 64 << 20  # bytes written between two times that the memory is given back


class Matrix:
    """A matrix that is filled row by row, in any order, and costs little memory meanwhile however many rows it has.

    A large one is a file without a name, mapped into memory; what was written is handed to the system's page cache
    every now and then. The file is gone with the last array that shows it, and with the process. Where the room for it
    cannot be reserved, the matrix lies in memory.

    Args:
        rows: how many, >= 0.
        length: numbers a row, >= 1.
        in_memory: bytes up to which no file is used.
        half: numbers of 16 bits instead of 32, which keep three decimal digits.
    """

    def __init__(self, rows: int, length: int, *, in_memory: int = IN_MEMORY, half: bool = False) -> None:
        kind = np.dtype(np.float16 if half else np.float32)
        size = rows * length * kind.itemsize
        self._mapped = _mapping(size) if size > in_memory else None
        if self._mapped is None:
            self._values = np.empty((rows, length), kind)
        else:
            self._values = np.frombuffer(self._mapped, kind).reshape(rows, length)
        self._written = 0

    @property
    def is_file(self) -> bool:
        """Whether the matrix lies in a file."""
        return self._mapped is not None

    def write(self, row: int, values: Float[np.ndarray, "length"] | float) -> None:
        """Fill a row: with numbers, or with one number throughout."""
        self._values[row] = values
        self._written += self._values[row].nbytes
        if self._mapped is not None and self._written >= RELEASE:
            self._written = 0
            self._mapped.madvise(mmap.MADV_DONTNEED)  # of a shared mapping: the pages stay with the file

    def array(self) -> Float[np.ndarray, "rows length"]:
        """The whole matrix, no copy."""
        return self._values


def _mapping(size: int) -> mmap.mmap | None:
    """An unnamed file of that size, mapped; None where the system has none or the disk has no room for it."""
    if not hasattr(os, "posix_fallocate") or not hasattr(mmap, "MADV_DONTNEED"):
        return None
    try:
        with tempfile.TemporaryFile(dir=cache_dir()) as file:
            os.posix_fallocate(file.fileno(), 0, size)  # a file with holes would end the process when the disk is full
            return mmap.mmap(file.fileno(), size)
    except (OSError, OutputError):
        return None
