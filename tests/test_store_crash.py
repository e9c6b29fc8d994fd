"""A power cut, a full disk or a read-only one costs at most what was not yet on the disk, and never a wrong vector."""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from crash_disk import small_disk
from crash_store import ENTRIES, batch_of, wrong_vectors
from headstart.errors import StoreError
from headstart.store import NAME, Store

HERE = Path(__file__).parent
SECTOR, PAGE = 512, 4096
Files = dict[str, bytes]  # suffix -> content


def steps_of(folder: Path, batches: int) -> list[Files]:
    """The files of a store after it was opened and after each batch, copied while the writer waits."""
    path = folder / NAME
    child = subprocess.Popen(
        [sys.executable, str(HERE / "crash_steps.py"), str(path), "40"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None
    assert child.stdout is not None
    steps = []
    for _ in range(batches + 1):
        assert child.stdout.readline()
        steps.append({suffix: path.with_name(NAME + suffix).read_bytes() for suffix in ("", "-wal")})
        child.stdin.write("next\n")
        child.stdin.flush()
    child.kill()
    child.wait()
    child.stdin.close()
    child.stdout.close()
    return steps


def torn(old: bytes, new: bytes, rng: random.Random) -> bytes:
    """What a disk may hold after a power cut while `new` was being written over `old` and not yet synced.

    Each changed sector is, by itself, new, old, zero or garbage; what was appended may be cut off anywhere.
    """
    length = rng.choice([len(new), rng.randrange(min(len(old), len(new)), max(len(old), len(new)) + 1)])
    old, new = old.ljust(length, b"\0")[:length], new.ljust(length, b"\0")[:length]
    mood = rng.choice([(1, 0, 0, 0), (6, 1, 0, 0), (6, 0, 1, 0), (6, 0, 0, 1), (1, 1, 1, 1), (0, 1, 0, 0)])
    written = rng.choice([length, rng.randrange(length + 1)])  # the later sectors were not reached
    state = bytearray()
    for start in range(0, length, SECTOR):
        sectors = old[start : start + SECTOR], new[start : start + SECTOR]
        if sectors[0] == sectors[1] or start >= written:
            state += sectors[0] if start >= written else sectors[1]
            continue
        fate = rng.choices(["new", "old", "zero", "garbage"], mood)[0]
        filler = {"new": sectors[1], "old": sectors[0], "zero": bytes(len(sectors[1]))}
        state += filler.get(fate) or rng.randbytes(len(sectors[1]))
    return bytes(state)


def crash_states(steps: list[Files], count: int, seed: int) -> Iterator[tuple[Files, int, int]]:
    """(files after a power cut, batches that must be there, batches that may be there)."""
    rng = random.Random(seed)
    synced = [0]  # how many batches are safely in the database before each step
    for step in range(1, len(steps)):
        checkpoint = steps[step][""] != steps[step - 1][""]
        synced.append(step if checkpoint else synced[-1])
    for number in range(count):
        step = 1 + number % (len(steps) - 1)
        before, after = steps[step - 1], steps[step]
        if after[""] != before[""] and number // (len(steps) - 1) % 2:
            # the journal was synced, then the database was written page by page
            yield {"": torn(before[""], after[""], rng), "-wal": after["-wal"]}, step, step
        else:
            yield {"": before[""], "-wal": torn(before["-wal"], after["-wal"], rng)}, synced[step - 1], step


def check_crash_states(folder: Path, count: int, seed: int) -> None:
    steps = steps_of(folder, 12)
    assert len({step[""] for step in steps}) > 3, "no checkpoint was caught"
    lost = 0
    for number, (files, least, most) in enumerate(crash_states(steps, count, seed)):
        path = folder / f"{number}.sqlite3"
        for suffix, content in files.items():
            path.with_name(path.name + suffix).write_bytes(content)
        with Store(path) as store:
            message = f"seed {seed}, state {number}"
            found = [wrong_vectors(store, batch + 1, first=batch) for batch in range(13)]
            assert sum(wrong for wrong, _, _ in found) == 0, message
            counts = [count for _, count, _ in found]
            there = counts.index(0)
            assert counts == [ENTRIES] * there + [0] * (13 - there), message  # whole batches, and the oldest of them
            assert least <= there <= most, message
            assert store.notices == (), message  # an old or a new state, not a damaged one
            store.put_many(batch_of(there))
            assert wrong_vectors(store, there + 1, first=there) == (0, ENTRIES, 0), message
            assert number % 4 or store.verify().sound, message
        lost += there < most
        for suffix in files:
            path.with_name(path.name + suffix).unlink(missing_ok=True)
    assert 0 < lost < count  # the states do differ


def test_after_a_power_cut_at_any_write_the_store_opens_in_an_old_or_a_new_state(tmp_path: Path) -> None:
    check_crash_states(tmp_path, 60, seed=1)


@pytest.mark.full
def test_after_each_of_600_power_cuts_the_store_opens_in_an_old_or_a_new_state(tmp_path: Path) -> None:
    check_crash_states(tmp_path, 600, seed=2)


def test_a_store_whose_making_was_cut_off_is_made_again(tmp_path: Path) -> None:
    made = steps_of(tmp_path, 0)[0]
    for number, length in enumerate(range(0, len(made[""]) + 1, SECTOR)):
        path = tmp_path / f"{number}.sqlite3"
        path.write_bytes(made[""][:length])
        path.with_name(path.name + "-wal").write_bytes(made["-wal"][: 3 * length])
        with Store(path) as store:
            store.put_many(batch_of(0))
            store.put_many(batch_of(0))
            assert wrong_vectors(store, 1) == (0, ENTRIES, 0)


def put_until_it_fails(store: Store, first: int) -> tuple[int, str]:
    """How many batches were stored, and what was said about the one that was not."""
    for number in range(first, 2000):
        try:
            store.put_many(batch_of(number))
        except StoreError as error:
            return number, str(error)
    raise AssertionError("nothing failed")


def check_failing_disk(store: Store, stored: int, path: Path) -> None:
    done, message = put_until_it_fails(store, stored)
    assert str(path) in message
    assert "MB free there" in message
    assert "set HEADSTART_CACHE" in message
    assert "\n" not in message
    if stored:  # else there was never a store
        wrong, found, partial = wrong_vectors(store, done + 1)
        assert (wrong, partial) == (0, 0)
        assert found >= ENTRIES * stored


def test_a_disk_that_becomes_full_at_any_write_loses_nothing_that_was_stored(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    tries = 100 if request.config.getoption("--full") else 24
    with small_disk(tmp_path / "disk") as disk:
        for number in range(tries):
            folder = disk / str(number)
            folder.mkdir()
            path, filler = folder / NAME, disk / "filler"
            stored = 2 if number % 2 else 0  # with and without a store that was there before
            with Store(path) as store:
                for batch in range(stored):
                    store.put_many(batch_of(batch))
            free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
            filler.write_bytes(bytes(max(0, free - number * 2 * PAGE)))
            with Store(path) as store:
                check_failing_disk(store, stored, path)
                filler.unlink()
                done = [len(store.get_many(list(batch_of(batch)))) for batch in range(stored)]
                assert done == [ENTRIES] * stored
                for batch in range(stored + 2):
                    store.put_many(batch_of(batch))
                assert wrong_vectors(store, stored + 2) == (0, ENTRIES * (stored + 2), 0)
                assert store.notices == ()
            for file in folder.iterdir():
                file.unlink()


@pytest.mark.skipif(sys.platform == "win32", reason="no such limit there")
def test_a_write_that_the_system_refuses_at_any_size_of_a_file_loses_nothing_that_was_stored(tmp_path: Path) -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    path = tmp_path / NAME
    with Store(path) as store:
        store.put_many(batch_of(0))
    try:
        for limit in range(0, 60 * PAGE, 3 * PAGE):
            with Store(path) as store:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
                check_failing_disk(store, 1, path)
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
                store.put_many(batch_of(1))
                assert wrong_vectors(store, 2) == (0, 2 * ENTRIES, 0)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_store_on_a_read_only_disk_is_read_and_says_that_it_cannot_be_written(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk") as disk:
        path = disk / NAME
        with Store(path) as store:
            store.put_many(batch_of(0))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Store(path) as store:
            assert wrong_vectors(store, 1) == (0, ENTRIES, 0)
            with pytest.raises(StoreError, match=r"attempt to write a readonly database \(.* MB free there\)"):
                store.put_many(batch_of(1))
            assert wrong_vectors(store, 2) == (0, ENTRIES, 0)
            assert store.info().features == ENTRIES
            assert store.verify().sound
            with pytest.raises(StoreError):
                store.prune(older_than_days=0)
        with Store(disk / "absent" / NAME) as store, pytest.raises(StoreError, match="Read-only file system"):
            store.get_many(list(batch_of(0)))
        subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        with Store(path) as store:
            store.put_many(batch_of(1))
            assert wrong_vectors(store, 2) == (0, 2 * ENTRIES, 0)


def test_a_store_in_a_place_that_cannot_be_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for path in (tmp_path / "file" / NAME, tmp_path):
        with Store(path) as store, pytest.raises(StoreError, match=r"cannot be used: .* MB free there.*") as caught:
            store.put_many(batch_of(0))
        assert "\n" not in str(caught.value)
    assert (tmp_path / "file").read_bytes() == b""
