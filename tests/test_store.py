"""The store gives back what was put in, or nothing: for every kind of value, user, neighbour and damage."""

import datetime
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from crash_store import batch_of, key_of, vector_of, wrong_vectors
from headstart.errors import StoreError
from headstart.store import NAME, Store, database, entry_key
from headstart.store import care as storecare
from headstart.store.entries import NUMBER_TYPES, decode_entry, encode_entry

HERE = Path(__file__).parent


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / NAME) as opened:
        yield opened


def filled(path: Path, batches: int = 4) -> Path:
    with Store(path) as store:
        for number in range(batches):
            store.put_many(batch_of(number))
    return path


@pytest.mark.parametrize("kind", NUMBER_TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 4, 5)])
def test_an_array_comes_back_with_type_shape_and_every_bit(store: Store, kind: str, shape: tuple[int, ...]) -> None:
    raw = np.random.default_rng(0).integers(0, 2, (*shape, 8), dtype=np.uint8)
    array = np.asarray(raw[..., 0] if kind == "|b1" else raw[..., 0] * 1.5).astype(kind)
    store.put_many({key_of(1): array})
    back = store.get_many([key_of(1)])[key_of(1)]
    assert isinstance(back, np.ndarray)
    assert (back.dtype, back.shape, back.tobytes()) == (array.dtype, array.shape, array.tobytes())


def test_special_numbers_and_foreign_layouts_come_back_as_the_same_numbers(store: Store) -> None:
    special = np.array([np.nan, np.inf, -np.inf, -0.0, 1e-45], np.float32)
    turned = np.arange(12, dtype=">f4").reshape(3, 4).T
    store.put_many({key_of(1): special, key_of(2): turned})
    found = store.get_many([key_of(1), key_of(2)])
    assert found[key_of(1)].tobytes() == special.tobytes()
    assert np.array_equal(found[key_of(2)], turned)
    with pytest.raises(ValueError, match="read-only"):
        found[key_of(1)][0] = 1


def test_a_record_comes_back_equal(store: Store) -> None:
    record = {
        "digest": "ab",
        "rejected": None,
        "notes": ["na\u00efve", "lone \udcff byte"],
        "dhash": 2**64 - 1,
        "x": 0.1,
    }
    store.put_many({key_of(1): record})
    assert store.get_many([key_of(1)]) == {key_of(1): record}


@pytest.mark.parametrize(
    "value", [object(), "text", np.array(["text"]), np.array([object()]), np.zeros(2, complex), {"x": object()}]
)
def test_a_value_of_another_kind_is_refused(store: Store, value: object) -> None:
    with pytest.raises(TypeError):
        encode_entry(b"key", value)


def test_thousands_of_keys_are_found_in_one_call_and_the_absent_are_absent(store: Store) -> None:
    items = {key_of(number): {"n": number} for number in range(2_300)}
    store.put_many(items)
    absent = [key_of(number) for number in range(5_000, 6_000)]
    assert store.get_many([*absent, *items]) == items
    assert store.get_many([]) == {}
    store.put_many({})


def test_a_later_value_replaces_an_earlier_one(store: Store) -> None:
    store.put_many({key_of(1): {"n": 1}})
    store.put_many({key_of(1): {"n": 2}})
    assert store.get_many([key_of(1)]) == {key_of(1): {"n": 2}}
    assert store.info().facts == 1


def test_parts_of_a_key_cannot_run_into_each_other() -> None:
    keys = [entry_key(*parts) for parts in ([], [""], ["", ""], ["a"], ["a", ""], ["ab", "c"], ["a", "bc"], ["abc"])]
    assert len(set(keys)) == len(keys)
    assert all(len(key) == 32 for key in keys)
    assert entry_key("a") == entry_key(b"a")


def test_every_single_bit_of_an_entry_and_of_its_key_is_under_the_checksum() -> None:
    for value in (np.arange(5, dtype=np.float32), {"width": 3}):
        blob = encode_entry(b"key", value)
        assert decode_entry(b"key", blob) is not None
        for bit in range(8 * len(blob)):
            damaged = bytearray(blob)
            damaged[bit // 8] ^= 1 << bit % 8
            assert decode_entry(b"key", bytes(damaged)) is None
        for cut in range(len(blob)):
            assert decode_entry(b"key", blob[:cut]) is None
        assert decode_entry(b"kez", blob) is None
        assert decode_entry(None, blob) is None
        assert decode_entry(b"key", 7) is None


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_the_files_of_the_store_have_the_mode_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        with Store(tmp_path / NAME) as store:
            store.put_many(batch_of(0))
            modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    finally:
        os.umask(before)
    assert modes == dict.fromkeys([NAME, f"{NAME}-wal", f"{NAME}-shm"], 0o666 & ~umask)


def test_the_default_place_is_the_cache_folder(own_cache: Path) -> None:
    with Store() as store:
        store.put_many(batch_of(0))
        assert store.path == own_cache / NAME
    assert (own_cache / NAME).is_file()


def test_threads_may_share_a_store(store: Store) -> None:
    errors: list[BaseException] = []

    def work(first: int) -> None:
        try:
            for number in range(first, first + 6):
                store.put_many(batch_of(number))
                assert wrong_vectors(store, number + 1, first=number) == (0, 24, 0)
                assert wrong_vectors(store, 3)[0] == 0
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in (0, 6, 12, 18)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert wrong_vectors(store, 24) == (0, 24 * 24, 0)


def test_processes_may_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / NAME
    ranges = [(0, 12), (4, 16), (8, 20), (8, 24)]
    children = [
        subprocess.Popen(
            [sys.executable, str(HERE / "crash_store.py"), str(path), str(first), str(last)], stdout=subprocess.DEVNULL
        )
        for first, last in ranges
    ]
    assert [child.wait(timeout=60) for child in children] == [0, 0, 0, 0]
    with Store(path) as store:
        assert wrong_vectors(store, 24) == (0, 24 * 24, 0)
        assert store.verify().sound


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")
def test_a_forked_child_uses_a_connection_of_its_own(store: Store) -> None:
    store.put_many(batch_of(0))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            store.put_many(batch_of(1))
            code = wrong_vectors(store, 2) != (0, 48, 0)
            store.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    store.put_many(batch_of(2))
    assert wrong_vectors(store, 3) == (0, 72, 0)


def test_a_writer_waits_for_another_and_says_so_when_it_takes_too_long(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.put_many(batch_of(0))
    other = sqlite3.connect(store.path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    timer = threading.Timer(0.4, other.rollback)
    timer.start()
    store.put_many(batch_of(1))
    timer.join()
    assert wrong_vectors(store, 2) == (0, 48, 0)
    other.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr(database, "BUSY_SECONDS", 0.3)
    with pytest.raises(StoreError, match="locked"):
        store.put_many(batch_of(2))
    assert wrong_vectors(store, 2) == (0, 48, 0)  # reading goes on beside a writer
    other.close()


def test_info_counts_vectors_and_records_and_names_the_place(store: Store) -> None:
    store.put_many(batch_of(0))
    store.put_many({key_of(100 + number): {"n": number} for number in range(3)})
    info = store.info()
    assert (info.features, info.facts, info.set_aside) == (24, 3, 0)
    assert info.oldest == datetime.datetime.now(datetime.UTC).date()
    files = [store.path, store.path.with_name(f"{NAME}-wal")]
    assert info.bytes == sum(path.stat().st_size for path in files)
    assert "24 feature vectors and the facts of 3 photos" in info.to_text()
    assert info.to_json()["features"] == 24
    empty = Store(store.path.with_name("empty.sqlite3")).info()
    assert (empty.features, empty.facts, empty.oldest) == (0, 0, None)


def age(path: Path, days: dict[int, int]) -> None:
    """Pretend that the entries of a batch were stored so many days ago."""
    today = int(time.time() // 86_400)
    with sqlite3.connect(path) as connection:
        for number, back in days.items():
            for key in batch_of(number):
                connection.execute("UPDATE entries SET day = ? WHERE key = ?", (today - back, key))
    connection.close()


def test_pruning_by_age_removes_what_was_not_used_for_that_long(tmp_path: Path) -> None:
    path = filled(tmp_path / NAME)
    age(path, {0: 100, 1: 40, 2: 40, 3: 5})
    with Store(path) as store:
        assert len(store.get_many(list(batch_of(1)))) == 24  # used today
        result = store.prune(older_than_days=30)
        assert result.removed == 48
        assert [len(store.get_many(list(batch_of(number)))) for number in range(4)] == [0, 24, 0, 24]
        assert store.prune(older_than_days=0).removed == 48
        assert store.info().features == 0
        assert "48 entries removed" in result.to_text()
        assert result.to_json()["removed"] == 48


def test_pruning_to_a_size_removes_the_longest_unused_and_gives_the_space_back(tmp_path: Path) -> None:
    path = filled(tmp_path / NAME, batches=20)
    age(path, {number: 20 - number for number in range(20)})
    size = path.stat().st_size
    with Store(path) as store:
        result = store.prune(max_bytes=size // 2)
        assert result.bytes_before >= size
        assert size // 3 < result.bytes_after <= size // 2
        there = [len(store.get_many(list(batch_of(number)))) for number in range(20)]
        assert there == sorted(there)
        assert there[0] == 0
        assert there[-1] == 24
        assert store.prune(max_bytes=size).removed == 0
        assert store.prune(max_bytes=0).bytes_after <= 64_000
        assert store.verify().sound
    assert path.stat().st_size <= 64_000


def test_verify_finds_and_drops_damaged_entries(tmp_path: Path) -> None:
    path = filled(tmp_path / NAME)
    with sqlite3.connect(path) as connection:
        for number in (3, 50):
            blob = bytearray(encode_entry(key_of(number), vector_of(number)))
            blob[500] ^= 4
            connection.execute("UPDATE entries SET value = ? WHERE key = ?", (bytes(blob), key_of(number)))
        connection.execute("UPDATE entries SET value = 7 WHERE key = ?", (key_of(60),))
        connection.execute("UPDATE entries SET value = 'text' WHERE key = ?", (key_of(61),))
    connection.close()
    with Store(path) as store:
        assert store.get_many([key_of(3)]) == {}
        assert store.damaged == 1
        assert store.notices == ("dropped 1 damaged entry of the feature store, to be computed again",)
        check = store.verify()
        assert (check.entries, check.damaged, check.sound) == (92, 3, False)
        assert "92 entries are sound, 3 were damaged" in check.to_text()
        assert check.to_json()["damaged"] == 3
        store.put_many({key_of(3): vector_of(3)})
        assert store.verify().sound
        assert wrong_vectors(store, 4) == (0, 93, 1)


def test_a_file_that_is_no_database_is_set_aside_said_and_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / NAME
    path.write_bytes(b"not a database, but larger than a header" * 100)
    with Store(path) as store:
        assert store.get_many(list(batch_of(0))) == {}
        assert len(store.notices) == 1
        assert "was damaged (file is not a database); it was set aside as features.sqlite3.damaged" in store.notices[0]
        store.put_many(batch_of(0))
        assert wrong_vectors(store, 1) == (0, 24, 0)
        assert store.info().set_aside == 4_000
        store.prune(older_than_days=1)
        assert store.info().set_aside == 0
    assert sorted(file.name for file in tmp_path.iterdir()) == [NAME, f"{NAME}.lock"]


@pytest.mark.parametrize("damage", ["header", "root page", "version", "schema", "cut", "dropped table"])
def test_a_database_that_sqlite_cannot_use_is_begun_anew_while_it_is_read_and_while_it_is_written(
    tmp_path: Path, damage: str
) -> None:
    for writing in (False, True):
        path = filled(tmp_path / f"{writing}.sqlite3")
        data = bytearray(path.read_bytes())
        if damage == "header":
            data[:16] = b"SQLite format 4\0"
        elif damage == "root page":
            data[4096 * 2 : 4096 * 5] = bytes(4096 * 3)
        elif damage == "version":
            data[18] = 77  # SQLite opens this as read-only
        elif damage == "schema":
            data[:4096] = data[:4096].replace(b"value BLOB", b"valve BLOB")
        elif damage == "cut":
            del data[len(data) // 2 :]
        path.write_bytes(data)
        if damage == "dropped table":
            with sqlite3.connect(path) as connection:
                connection.execute("DROP VIEW kept")
                connection.execute("CREATE VIEW kept AS SELECT 1")
            connection.close()
        with Store(path) as store:
            for number in range(4, 8):
                if writing:
                    store.put_many(batch_of(number))
                assert wrong_vectors(store, 8)[0] == 0
            store.put_many({key: value for number in range(8) for key, value in batch_of(number).items()})
            assert wrong_vectors(store, 8) == (0, 192, 0)
            store.verify()
            store.put_many({key: value for number in range(8) for key, value in batch_of(number).items()})
            assert store.verify().sound


def test_two_users_of_a_damaged_store_set_it_aside_once(tmp_path: Path) -> None:
    path = filled(tmp_path / NAME)
    with Store(path) as first, Store(path) as second:
        for store in (first, second):
            assert wrong_vectors(store, 4) == (0, 96, 0)
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(bytes(4096 * 8))
        for store in (first, second):
            assert wrong_vectors(store, 4)[0] == 0
            store.verify()
        first.put_many(batch_of(0))
        assert wrong_vectors(second, 1) == (0, 24, 0)
        second.put_many(batch_of(1))
        assert wrong_vectors(first, 2) == (0, 48, 0)
        assert len(first.notices) + len(second.notices) == 1
    with Store(path) as store:
        assert store.verify().sound
        assert wrong_vectors(store, 2) == (0, 48, 0)


def rot(path: Path, tries: int, seed: int) -> dict[str, int]:
    """Change one random byte of the database at a time; count what became of it. Nothing may be wrong or raise."""
    rng = random.Random(seed)
    sound = path.read_bytes()
    copy = path.with_name("copy.sqlite3")
    seen = {"no effect": 0, "entries recomputed": 0, "begun anew": 0}
    with Store(path) as store:
        assert wrong_vectors(store, 4) == (0, 96, 0)
    first = batch_of(0)
    rest = batch_of(1) | batch_of(2) | batch_of(3)
    for _ in range(tries):
        place, flip = rng.randrange(len(sound)), rng.randrange(1, 256)
        for name in copy.parent.glob("copy*"):
            name.unlink()
        copy.write_bytes(sound[:place] + bytes([sound[place] ^ flip]) + sound[place + 1 :])
        with Store(copy) as store:
            wrong, found, _ = wrong_vectors(store, 4)
            message = f"seed {seed}, byte {place}, changed by {flip}"
            assert wrong == 0, message
            store.put_many(first)
            store.put_many(rest)  # damage that only writing meets may begin the store anew here,
            assert wrong_vectors(store, 4)[0] == 0, message
            store.put_many(first | rest)  # so everything once more
            assert wrong_vectors(store, 4) == (0, 96, 0), message
            begun_anew = any("begun anew" in notice for notice in store.notices)
            seen["begun anew" if begun_anew else "no effect" if found == 96 else "entries recomputed"] += 1
    return seen


def test_one_changed_byte_anywhere_in_the_file_never_gives_a_wrong_vector(tmp_path: Path) -> None:
    seen = rot(filled(tmp_path / NAME), tries=60, seed=1)
    assert seen["entries recomputed"] > 10  # the test does hit values
    assert sum(seen.values()) == 60


@pytest.mark.full
def test_a_thousand_changed_bytes_never_give_a_wrong_vector(tmp_path: Path) -> None:
    assert sum(rot(filled(tmp_path / NAME), tries=1000, seed=2).values()) == 1000


def test_every_byte_of_the_first_page_may_change(tmp_path: Path) -> None:
    path = filled(tmp_path / NAME, batches=1)
    sound = path.read_bytes()
    used = [place for place in range(4096) if sound[place]]
    copy = tmp_path / "copy.sqlite3"
    for place in used[:: max(1, len(used) // 40)]:
        for name in tmp_path.glob("copy*"):
            name.unlink()
        copy.write_bytes(sound[:place] + bytes([sound[place] ^ 0x55]) + sound[place + 1 :])
        with Store(copy) as store:
            assert wrong_vectors(store, 1)[0] == 0
            store.put_many(batch_of(0))
            assert wrong_vectors(store, 1) == (0, 24, 0), f"byte {place}"


def test_memory_does_not_grow_with_the_store_when_it_is_verified(tmp_path: Path) -> None:
    assert storecare.ENTRIES_A_READ * 1280 * 4 < 2e6  # of the largest usual vectors: what is in memory at a time
    path = filled(tmp_path / NAME, batches=30)
    with Store(path) as store:
        assert store.verify().entries == 720
