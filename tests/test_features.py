"""One pass gives the facts and features of every photo, computes only what is not stored, and mixes nothing up."""

import dataclasses
import hashlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from crash_disk import small_disk
from crash_features import CUTS, PREPROCESSING, PaperEngine, make_photos, paper_backbone, paper_features
from headstart import features
from headstart.dataset import Dataset, Photo
from headstart.errors import BackboneError, ImageRejected, StoreError, UsageError
from headstart.features import Survey, decoding, survey_photos
from headstart.images import decode, read_photo_bytes
from headstart.quality import PhotoFacts, photo_fingerprint
from headstart.store import NAME, Store

N = 150  # more than two batches for each of two threads


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_photos(tmp_path_factory.mktemp("photos"), N)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / NAME) as opened:
        yield opened


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("photos-")] == []


def survey(dataset: Dataset, store: Store | None, **options: Any) -> Survey:
    options = {"backbone": paper_backbone(), "engine": PaperEngine(), "threads": 2} | options
    return survey_photos(dataset, store=store, **options)


def plain_loop(dataset: Dataset) -> tuple[list[PhotoFacts], np.ndarray]:
    """The definition: one photo after the other, no store, no threads."""
    facts, rows = [], []
    for photo in dataset.photos:
        data = read_photo_bytes(dataset.root / photo.path)
        picture = decode(data, target=PREPROCESSING.decode_target(), name=photo.path)
        dhash, thumb = photo_fingerprint(picture.pixels)
        digest = hashlib.sha256(data).hexdigest()
        facts.append(PhotoFacts(digest, None, picture.width, picture.height, picture.format, picture.mode,
                                picture.notes, dhash, thumb))  # fmt: skip
        rows.append(paper_features(PREPROCESSING.apply(picture))["pooled"])
    return facts, np.stack(rows)


def same_facts(one: Survey | list[PhotoFacts], other: Survey | list[PhotoFacts]) -> bool:
    lists = [list(facts.facts) if isinstance(facts, Survey) else facts for facts in (one, other)]
    return [facts.to_dict() for facts in lists[0]] == [facts.to_dict() for facts in lists[1]]


def forbidden(*_: object, **__: object) -> Any:
    raise AssertionError("this must not be called")


def test_facts_and_features_are_those_of_a_plain_loop_however_many_threads(photos: Dataset, tmp_path: Path) -> None:
    facts, matrix = plain_loop(photos)
    for threads in (1, 2, 5):
        with Store(tmp_path / f"{threads}.sqlite3") as store:
            for turn in range(2):
                result = survey(photos, store, threads=threads)
                assert same_facts(result, facts)
                assert result.features["pooled"].dtype == np.float32
                assert np.array_equal(result.features["pooled"], matrix)
                assert (result.computed, result.reused) == ((N, 0) if turn == 0 else (0, N))
                assert result.notices == ()
    result = survey(photos, None)
    assert np.array_equal(result.features["pooled"], matrix)
    assert (result.computed, result.reused) == (N, 0)


def test_every_photo_is_read_once_and_decoded_once(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = {"read": 0, "decode": 0}

    def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            calls[name] += 1
            return function(*arguments, **named)

        return call

    monkeypatch.setattr("headstart.dataset.read_photo_bytes", counting("read", read_photo_bytes))
    monkeypatch.setattr(decoding, "decode", counting("decode", decode))
    survey(photos, store)
    assert calls == {"read": N, "decode": N}
    survey(photos, store)
    assert calls == {"read": 2 * N, "decode": N}


def test_what_is_stored_needs_neither_decoder_nor_engine(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = survey(photos, store, cuts=("pooled", "stage1"))
    monkeypatch.setattr(decoding, "decode", forbidden)
    monkeypatch.setattr(features, "open_engine", forbidden)
    again = survey(photos, store, cuts=("stage1", "pooled"), engine="openvino-paper")
    assert same_facts(first, again)
    assert list(again.features) == ["stage1", "pooled"]
    assert all(np.array_equal(first.features[cut], again.features[cut]) for cut in CUTS)


def test_adding_ten_photos_computes_ten_and_renaming_computes_none(tmp_path: Path, store: Store) -> None:
    dataset = make_photos(tmp_path / "photos", 60)
    survey(dataset, store)
    more = make_photos(tmp_path / "more", 10, seed=9)
    for photo in more.photos:
        (tmp_path / "more" / photo.path).rename(tmp_path / "photos" / f"new-{photo.path}")
    names = sorted(path.name for path in (tmp_path / "photos").iterdir())
    grown = dataclasses.replace(dataset, photos=tuple(Photo(name, 0) for name in reversed(names)))
    engine = PaperEngine()
    result = survey(grown, store, engine=engine)
    assert (result.computed, result.reused, engine.computed) == (10, 60, 10)
    (tmp_path / "photos").rename(tmp_path / "moved")
    moved = dataclasses.replace(grown, root=tmp_path / "moved")
    assert survey(moved, store, engine=engine).computed == 0
    assert np.array_equal(survey(moved, store).features["pooled"], plain_loop(moved)[1])


def test_a_photo_replaced_by_other_bytes_of_equal_size_and_time_is_noticed(tmp_path: Path, store: Store) -> None:
    dataset = make_photos(tmp_path / "photos", 120, suffix="bmp")
    other = make_photos(tmp_path / "other", 120, suffix="bmp", seed=5)
    survey(dataset, store)
    for photo in dataset.photos[:100]:
        path = dataset.root / photo.path
        before = path.stat()
        path.write_bytes((other.root / photo.path).read_bytes())
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)
    result = survey(dataset, store)
    assert (result.computed, result.reused) == (100, 20)
    assert np.array_equal(result.features["pooled"], plain_loop(dataset)[1])


@pytest.mark.parametrize(
    "changed",
    [
        {"backbone": paper_backbone(weights="1" * 64)},
        {"backbone": dataclasses.replace(paper_backbone(), name="efficientnet-lite1")},
        {"backbone": paper_backbone(preprocessing=dataclasses.replace(PREPROCESSING, filter="bicubic"))},
        {"backbone": paper_backbone(preprocessing=dataclasses.replace(PREPROCESSING, mean=(0.0, 0.0, 0.0)))},
        {"cuts": ("stage1",)},
        {"decoder": "another version"},
        {"engine": "another engine"},
    ],
    ids=["weights", "net", "filter", "mean", "cut", "decoder", "engine"],
)
def test_nothing_that_was_stored_is_used_when_anything_it_depends_on_changes(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any]
) -> None:
    survey(photos, store)
    assert survey(photos, store).reused == N
    if changed.pop("decoder", None):
        monkeypatch.setattr("headstart.backbones.DECODER_VERSION", "another version")
    if changed.pop("engine", None):
        monkeypatch.setattr(PaperEngine, "name", "openvino-other")
    result = survey(photos, store, **changed)
    assert (result.computed, result.reused) == (N, 0)


@pytest.mark.parametrize("constant", ["DECODER_VERSION", "QUALITY_VERSION"])
def test_facts_are_made_again_when_decoder_or_fingerprint_change_and_features_stay(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch, constant: str
) -> None:
    survey(photos, store, backbone=None)
    assert survey(photos, store, backbone=None).reused == N
    monkeypatch.setattr(decoding, constant, "another version")
    assert survey(photos, store, backbone=None).computed == N


def test_a_scan_shares_its_facts_with_a_survey_of_the_same_decoding(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "SCAN_TARGET", PREPROCESSING.decode_target())
    facts = survey(photos, store, backbone=None)
    assert facts.features == {}
    monkeypatch.setattr(decoding, "photo_fingerprint", forbidden)
    assert same_facts(facts, survey(photos, store))
    assert survey(photos, store, backbone=None).reused == N


def mixed(folder: Path) -> Dataset:
    """Six good photos and five that cannot be used."""
    dataset = make_photos(folder, 6)
    (folder / "text.jpg").write_bytes(b"this is no photo at all")
    (folder / "empty.png").write_bytes(b"")
    (folder / "cut.png").write_bytes((folder / "0000.png").read_bytes()[:600])
    (folder / "folder.png").mkdir()
    names = ["text.jpg", "0000.png", "empty.png", "0001.png", "cut.png", "0002.png", "folder.png", "gone.png"]
    names += ["0003.png", "0004.png", "0005.png"]
    return dataclasses.replace(dataset, photos=tuple(Photo(name, 0) for name in names))


def test_photos_that_cannot_be_used_are_facts_with_a_reason_and_rows_of_nan(tmp_path: Path, store: Store) -> None:
    dataset = mixed(tmp_path / "photos")
    expected = []
    for photo in dataset.photos:
        try:
            decode(read_photo_bytes(dataset.root / photo.path), target=PREPROCESSING.decode_target(), name=photo.path)
            expected.append(None)
        except ImageRejected as error:
            expected.append((error.reason, error.detail))
    assert sum(reason is not None for reason in expected) == 5
    for turn in range(2):
        result = survey(dataset, store)
        assert [facts.rejected for facts in result.facts] == expected
        empty = np.isnan(result.features["pooled"]).all(axis=1)
        assert empty.tolist() == [reason is not None for reason in expected]
        assert np.isfinite(result.features["pooled"][~empty]).all()
        assert (result.computed, result.reused) == ((6, 0) if turn == 0 else (0, 6))


def test_a_rejected_photo_is_not_decoded_a_second_time(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = mixed(tmp_path / "photos")
    first = survey(dataset, store)
    monkeypatch.setattr(decoding, "decode", forbidden)
    assert same_facts(first, survey(dataset, store))


def test_a_photo_that_did_not_fit_the_memory_is_tried_again(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def too_large(*_: object, **__: object) -> Any:
        raise ImageRejected("bomb", "memory ran out while decoding")

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode", too_large)
        assert survey(photos, store).facts[0].rejected == ("bomb", "memory ran out while decoding")
    assert survey(photos, store).computed == N


def test_photos_that_come_as_arrays_are_known_by_shape_and_pixels(store: Store) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8)
    colour = rng.integers(0, 256, (20, 32, 32, 3), dtype=np.uint8)
    listed = [Photo(f"grey#{n}", 0) for n in range(40)] + [Photo(f"colour#{n}", 0) for n in range(20)]
    dataset = Dataset("arrays", Path(), ("only",), tuple(listed), arrays={"grey": grey, "colour": colour})
    result = survey(dataset, store)
    rows = [
        paper_features(PREPROCESSING.apply(decode(np.array(image), target=PREPROCESSING.decode_target())))["pooled"]
        for image in (*grey, *colour)
    ]
    assert np.array_equal(result.features["pooled"], np.stack(rows))
    assert {facts.format for facts in result.facts} == {"array"}
    assert survey(dataset, store).reused == 60
    black = {"a": np.zeros((1, 2, 8), np.uint8), "b": np.zeros((1, 4, 4), np.uint8)}
    two = Dataset("black", Path(), ("only",), (Photo("a#0", 0), Photo("b#0", 0)), arrays=black)
    digests = [facts.digest for facts in survey(two, store).facts]
    assert digests[0] != digests[1]


def test_the_same_content_under_another_suffix_has_facts_of_its_own(tmp_path: Path, store: Store) -> None:
    dataset = make_photos(tmp_path, 1)
    (tmp_path / "0000.jpg").write_bytes((tmp_path / "0000.png").read_bytes())
    both = dataclasses.replace(dataset, photos=(Photo("0000.png", 0), Photo("0000.jpg", 0)))
    for part in (both.subset(both.photos[:1]), both):
        result = survey(part, store, backbone=None)
    assert result.facts[0].digest == result.facts[1].digest
    assert result.facts[0].notes == ()
    assert "suffix" in result.facts[1].notes[0]


@pytest.mark.parametrize("scanned_before", [False, True])
def test_a_file_that_changes_between_hashing_and_decoding_is_never_mixed_up(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, scanned_before: bool
) -> None:
    dataset = make_photos(tmp_path / "photos", 8)
    other = make_photos(tmp_path / "other", 8, seed=3)
    if scanned_before:
        with monkeypatch.context() as patch:
            patch.setattr(features, "SCAN_TARGET", PREPROCESSING.decode_target())
            survey(dataset, store, backbone=None)
    monkeypatch.setattr(decoding, "KEEP_BYTES", 0)  # every file is read again for decoding
    reads = dict.fromkeys([photo.path for photo in dataset.photos], 0)

    def changing(path: Path) -> bytes:
        reads[path.name] += 1
        if reads[path.name] == 2 and path.name < "0004":
            path.write_bytes((other.root / path.name).read_bytes())
        if reads[path.name] == 2 and path.name == "0007.png":
            path.unlink()
        return read_photo_bytes(path)

    monkeypatch.setattr("headstart.dataset.read_photo_bytes", changing)
    result = survey(dataset, store)
    seven = dataset.subset(dataset.photos[:7])
    facts, matrix = plain_loop(seven)
    assert same_facts(list(result.facts[:7]), facts)
    assert np.array_equal(result.features["pooled"][:7], matrix)
    assert result.facts[7].rejected is not None
    assert result.facts[7].rejected[0] == "missing"
    monkeypatch.undo()
    (dataset.root / "0007.png").write_bytes((other.root / "0007.png").read_bytes())
    again = survey(dataset, store)
    assert again.reused == 7
    assert again.facts[7].rejected is None


def test_damaged_entries_are_computed_again_and_said(photos: Dataset, store: Store) -> None:
    expected = survey(photos, store)
    store.close()
    data = bytearray(store.path.read_bytes())
    for row in (3, 70, 110):  # a byte in the middle of a vector
        place = data.find(expected.features["pooled"][row].tobytes())
        assert place > 0
        data[place + 60] ^= 1
    store.path.write_bytes(data)
    with Store(store.path) as opened:
        result = survey(photos, opened)
    assert (result.computed, result.reused) == (3, N - 3)
    assert np.array_equal(result.features["pooled"], expected.features["pooled"])
    assert result.notices == ("dropped 3 damaged entries of the feature store, to be computed again",)


def test_a_store_that_cannot_be_used_costs_only_the_reuse_and_is_told_once(photos: Dataset, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with Store(tmp_path / "file" / NAME) as store:
        result = survey(photos, store)
    assert result.computed == N
    assert len(result.notices) == 1
    assert "cannot be used" in result.notices[0]
    assert "Going on without stored features" in result.notices[0]


def test_a_disk_that_becomes_full_on_the_way_does_not_lose_the_survey(photos: Dataset, tmp_path: Path) -> None:
    expected = plain_loop(photos)[1]
    with small_disk(tmp_path / "disk", "160k") as disk:
        with Store(disk / NAME) as store:
            result = survey(photos, store)
            assert np.array_equal(result.features["pooled"], expected)
            assert len(result.notices) == 1
            assert "MB free there" in result.notices[0]
            assert "is not kept for the next time" in result.notices[0]
        with Store(disk / NAME) as store:
            result = survey(photos, store)
            assert np.array_equal(result.features["pooled"], expected)
            assert result.reused > 0


def test_a_store_on_a_read_only_disk_is_used_and_what_is_new_is_not_kept(photos: Dataset, tmp_path: Path) -> None:
    expected = plain_loop(photos)[1]
    with small_disk(tmp_path / "disk") as disk:
        with Store(disk / NAME) as store:
            survey(photos.subset(photos.photos[:100]), store)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with Store(disk / NAME) as store:
            result = survey(photos, store)
            assert np.array_equal(result.features["pooled"], expected)
            assert (result.computed, result.reused) == (50, 100)
            assert len(result.notices) == 1
            assert "readonly" in result.notices[0]


@pytest.mark.parametrize("place", ["engine", "decoder", "store"])
def test_an_error_on_the_way_is_raised_and_what_was_finished_is_kept(
    photos: Dataset, store: Store, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    count = 0

    def failing(*arguments: Any, **named: Any) -> Any:
        nonlocal count
        count += 1
        if count > 100:
            raise MemoryError("planted")
        return decode(*arguments, **named)

    class FailingEngine(PaperEngine):
        def run(self, images: Any, cuts: Any = None) -> Any:
            for number, result in enumerate(super().run(images, cuts)):
                if number == 100:
                    raise MemoryError("planted")
                yield result

    with monkeypatch.context() as patch:
        if place == "decoder":
            patch.setattr(decoding, "decode", failing)
        if place == "store":
            patch.setattr(Store, "get_many", lambda *_: forbidden())
        with pytest.raises((MemoryError, AssertionError)):
            survey(photos, store, engine=FailingEngine() if place == "engine" else PaperEngine())
    result = survey(photos, store)
    assert result.reused >= (90 if place != "store" else 0)
    assert np.array_equal(result.features["pooled"], plain_loop(photos)[1])


def test_progress_is_told_of_every_photo(tmp_path: Path, store: Store) -> None:
    class Count:
        done = 0

        def advance(self, units: int = 1) -> None:
            self.done += units

    dataset = mixed(tmp_path / "photos")
    for _ in range(2):
        count = Count()
        survey(dataset, store, progress=count)
        assert count.done == 11


def test_only_a_few_photos_are_in_memory_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = make_photos(tmp_path, 400)
    alive, most = 0, 0
    guard = threading.Lock()

    class Slow(PaperEngine):
        def run(self, images: Any, cuts: Any = None) -> Any:
            nonlocal alive
            for result in super().run(images, cuts):
                with guard:
                    alive -= 1
                yield result

    def counting(*arguments: Any, **named: Any) -> Any:
        nonlocal alive, most
        with guard:
            alive += 1
            most = max(most, alive)
        return decode(*arguments, **named)

    monkeypatch.setattr(decoding, "decode", counting)
    survey(dataset, None, engine=Slow(seconds=0.0005))
    assert most <= 2 * 2 + 2 + 2 + 2  # the queue, one in each thread, one at each end


def test_a_batch_that_another_process_computes_is_waited_for(photos: Dataset, tmp_path: Path) -> None:
    with Store(tmp_path / NAME) as mine, Store(tmp_path / NAME) as theirs:
        locks = [theirs.lock(number.to_bytes(4, "big") + bytes(28)) for number in range(256)]
        assert all(lock.acquire() for lock in locks)

        def compute() -> None:
            time.sleep(0.3)
            survey(photos, None)
            reference = survey(photos, None)
            recipe = decoding.Recipe(
                PREPROCESSING.decode_target(),
                PREPROCESSING,
                {"pooled": paper_backbone().fingerprint("pooled", PaperEngine.name)},
            )
            for photo, facts, row in zip(photos.photos, reference.facts, reference.features["pooled"], strict=True):
                theirs.put_many(
                    {
                        recipe.facts_key(facts.digest, photo.path): facts.to_dict(),
                        recipe.feature_key(facts.digest, "pooled"): row,
                    }
                )
            for lock in locks:
                lock.release()

        other = threading.Thread(target=compute)
        other.start()
        engine = PaperEngine()
        result = survey(photos, mine, engine=engine)
        other.join()
        assert (engine.computed, result.computed, result.reused) == (0, 0, N)
        assert np.array_equal(result.features["pooled"], plain_loop(photos)[1])


def test_a_process_that_holds_its_locks_and_does_not_get_on_is_overtaken(
    photos: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features, "PATIENCE_SECONDS", 0.4)
    with Store(tmp_path / NAME) as mine, Store(tmp_path / NAME) as theirs:
        locks = [theirs.lock(number.to_bytes(4, "big") + bytes(28)) for number in range(256)]
        assert all(lock.acquire() for lock in locks)
        result = survey(photos, mine)
        assert result.computed == N
        assert result.seconds >= 0.4
        for lock in locks:
            lock.release()


def test_locks_are_given_back_after_success_and_after_an_error(photos: Dataset, store: Store) -> None:
    class FailingEngine(PaperEngine):
        def run(self, images: Any, cuts: Any = None) -> Any:
            next(iter(images))
            raise StoreError("planted")

    with pytest.raises(StoreError, match="planted"):
        survey(photos, store, engine=FailingEngine())
    survey(photos, store)
    locks = [store.lock(number.to_bytes(4, "big") + bytes(28)) for number in range(256)]
    assert all(lock.acquire() for lock in locks)
    for lock in locks:
        lock.release()


def test_an_empty_data_set_gives_an_empty_survey(photos: Dataset, store: Store) -> None:
    result = survey(photos.subset(()), store)
    assert result.facts == ()
    assert result.features["pooled"].shape == (0, 48)


def test_wrong_cuts_and_thread_counts_are_refused(photos: Dataset) -> None:
    with pytest.raises(BackboneError, match=r"efficientnet-lite0 has no cut 'stage9'; choose from: pooled, stage1"):
        survey(photos, None, cuts=("stage9",))
    with pytest.raises(UsageError, match=r"threads must be 0 .* got -1"):
        survey(photos, None, threads=-1)


def test_a_scan_imports_none_of_the_slow_libraries() -> None:
    slow = ("torch", "openvino", "sklearn", "scipy")
    code = f"import sys, headstart.features; print([name for name in {slow} if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_fast_engine_in_the_survey_gives_what_it_gives_one_photo_at_a_time(
    ready_cache: Path, photo_folder: Path
) -> None:
    from headstart.backbones import open_backbone
    from headstart.backbones.engines import open_engine

    names = sorted(path.relative_to(photo_folder).as_posix() for path in photo_folder.rglob("*.png"))[:20]
    dataset = Dataset("shapes", photo_folder, ("bars", "disks"), tuple(Photo(name, 0) for name in names))
    backbone = open_backbone("efficientnet-lite0")
    cuts = ("pooled", "stage3", "stage6_map", "statistics")
    with Store() as store:
        result = survey_photos(dataset, backbone=backbone, cuts=cuts, store=store, threads=2)
        again = survey_photos(dataset, backbone=backbone, cuts=cuts, store=store, threads=2)
    assert (result.computed, again.reused) == (20, 20)
    engine = open_engine(backbone, cuts=cuts, threads=1)
    for row, name in enumerate(names):
        with Image.open(photo_folder / name) as image:  # PNG of 96 x 96: nothing is reduced
            pixels = np.asarray(image.convert("RGB"))
        prepared = backbone.preprocessing.apply(decode(pixels))
        [(_, single)] = engine.run([(0, prepared)])
        for cut in ("pooled", "stage3", "statistics"):
            assert np.array_equal(result.features[cut][row], single[cut])
            assert np.array_equal(again.features[cut][row], single[cut])
        one_by_one = [value for channel in single["stage6_map"] for line in channel for value in line]
        assert single["stage6_map"].shape == (192, 7, 7)
        assert np.array_equal(result.features["stage6_map"][row], one_by_one)
        assert np.array_equal(again.features["stage6_map"][row], one_by_one)
    engine.close()
