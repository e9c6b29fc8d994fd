"""How the feature store is laid out, and what that costs: the variants take turns on the same values.

    python benchmarks/store.py [--entries 8000] [--rounds 3]

Values of 1,280 float32 under random keys are written in batches of 32, one transaction each, then read in batches of
64. Variants: a table with row numbers and an index of keys, or one ordered by key (WITHOUT ROWID); the disk synced at
checkpoints (NORMAL) or at every transaction (FULL). The last row is `Store` itself, with checksums.
"""

import argparse
import hashlib
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import machine, spread

from headstart.store import Store

WRITE, READ = 32, 64  # entries
INDEXED = "CREATE TABLE entries(id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE, day INTEGER, value BLOB)"
ORDERED = "CREATE TABLE entries(key BLOB PRIMARY KEY, day INTEGER, value BLOB) WITHOUT ROWID"

Keys = list[bytes]
Result = tuple[float, float, float, float]  # microseconds to write and to read an entry, worst batch in ms, size ratio


def plain(schema: str, sync: str, page: int, value: bytes) -> Callable[[Path, Keys], Result]:
    def run(path: Path, keys: Keys) -> Result:
        connection = sqlite3.connect(path, isolation_level=None)
        for setting in (f"page_size = {page}", "journal_mode = WAL", f"synchronous = {sync}"):
            connection.execute(f"PRAGMA {setting}")
        connection.execute(schema)

        def put(some: Keys) -> None:
            connection.execute("BEGIN IMMEDIATE")
            rows = [(key, 1, value) for key in some]
            connection.executemany("INSERT OR REPLACE INTO entries(key, day, value) VALUES(?, ?, ?)", rows)
            connection.execute("COMMIT")

        def get(some: Keys) -> int:
            marks = ",".join("?" * len(some))
            return len(connection.execute(f"SELECT key, value FROM entries WHERE key IN ({marks})", some).fetchall())

        return measure(put, get, connection.close, path, keys, len(value))

    return run


def ours(vector: np.ndarray) -> Callable[[Path, Keys], Result]:
    def run(path: Path, keys: Keys) -> Result:
        store = Store(path)
        return measure(
            lambda some: store.put_many(dict.fromkeys(some, vector)),
            lambda some: len(store.get_many(some)),
            store.close,
            path,
            keys,
            vector.nbytes,
        )

    return run


def measure(
    put: Callable[[Keys], None],
    get: Callable[[Keys], int],
    close: Callable[[], None],
    path: Path,
    keys: Keys,
    size: int,
) -> Result:
    worst, begun = 0.0, time.perf_counter()
    for start in range(0, len(keys), WRITE):
        before = time.perf_counter()
        put(keys[start : start + WRITE])
        worst = max(worst, time.perf_counter() - before)
    write = time.perf_counter() - begun
    begun = time.perf_counter()
    for start in range(0, len(keys), READ):
        assert get(keys[start : start + READ]) == len(keys[start : start + READ])
    read = time.perf_counter() - begun
    close()
    return write / len(keys) * 1e6, read / len(keys) * 1e6, worst * 1e3, path.stat().st_size / (len(keys) * size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--entries", type=int, default=8000)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    print(machine() + f", SQLite {sqlite3.sqlite_version}")
    keys = [hashlib.sha256(str(number).encode()).digest() for number in range(given.entries)]
    vector = np.random.default_rng(0).standard_normal(1280).astype(np.float32)
    value = os.urandom(16) + vector.tobytes()
    variants = {
        f"{name}, {sync}, pages of {page:5}": plain(schema, sync, page, value)
        for name, schema in (("row numbers + index", INDEXED), ("ordered by key", ORDERED))
        for sync, page in (("NORMAL", 4096), ("NORMAL", 16384), ("FULL", 4096))
    }
    variants["Store"] = ours(vector)
    rows: dict[str, list[Result]] = {name: [] for name in variants}
    for _ in range(given.rounds):
        for name, run in variants.items():
            with tempfile.TemporaryDirectory() as folder:
                rows[name].append(run(Path(folder) / "store.sqlite3", keys))
    print(f"{given.entries:,} entries; median [least-most] of rounds")
    for name, results in rows.items():
        write, read, worst, ratio = (list(column) for column in zip(*results, strict=True))
        print(f"  {name:43} write {spread(write, 0)} us, worst batch {spread(worst, 0)} ms")
        print(f"  {'':43} read {spread(read, 1)} us, file / values {ratio[0]:.2f}")


if __name__ == "__main__":
    main()
