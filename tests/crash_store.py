"""Run in a process of its own, to be killed or starved: writes batches of known vectors into a store for ever.

    python tests/crash_store.py STORE SEED [BATCHES]

A vector is a function of its key, so any reader can tell whether it is right. "committed N" is printed after each
batch.
"""

import functools
import sys
from pathlib import Path

import numpy as np

from headstart.store import Store, entry_key

LENGTH = 320
ENTRIES = 24  # a batch


def key_of(number: int) -> bytes:
    return entry_key("vector", str(number))


@functools.cache
def vector_of(number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal(LENGTH).astype(np.float32)


def batch_of(number: int) -> dict[bytes, np.ndarray]:
    numbers = range(number * ENTRIES, (number + 1) * ENTRIES)
    return {key_of(entry): vector_of(entry) for entry in numbers}


def wrong_vectors(store: Store, batches: int, first: int = 0) -> tuple[int, int, int]:
    """(wrong, found, batches of which only a part is there), of the batches from `first` to before `batches`."""
    wrong = found = partial = 0
    for number in range(first, batches):
        expected = batch_of(number)
        stored = store.get_many(list(expected))
        wrong += sum(not np.array_equal(vector, expected[key]) for key, vector in stored.items())
        found += len(stored)
        partial += 0 < len(stored) < ENTRIES
    return wrong, found, partial


def main() -> None:
    first, last = int(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else sys.maxsize
    with Store(Path(sys.argv[1])) as store:
        for number in range(first, last):
            store.put_many(batch_of(number))
            print("committed", number, flush=True)


if __name__ == "__main__":
    main()
