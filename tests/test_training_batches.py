"""Batches: every photo once an epoch, the same draws whatever the way, the same pixels from memory and from disk."""

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.config import LoopConfig
from headstart.dataset import Dataset, number_photos
from headstart.errors import ConfigError, DataError
from headstart.images import decode
from headstart.preprocess import Preprocessing
from headstart.readers import open_dataset
from headstart.training import streamed
from headstart.training.augment import Augmentation
from headstart.training.batches import Batches, BatchOrder, MemoryBatches
from headstart.training.presets import PRESETS
from headstart.training.streamed import StreamedBatches, load_batches, memory_for_photos, read_pixels

COLOUR = Preprocessing(24, 0.875, (120.0, 110.0, 100.0), (60.0, 61.0, 62.0))
GREY = Preprocessing(24, 1.0, (99.0,), (55.0,))
EVERYTHING = Augmentation(
    crop=0.7, flip_horizontal=0.5, rotation=20.0, brightness=0.3, saturation=0.3, hue=20.0, erase=0.5
)


def memory(count: int = 10, *, channels: int = 1, batch_size: int = 4, **options: object) -> MemoryBatches:
    """Photo i has its number in its first pixel and, modulo 3, as its label."""
    pixels = np.random.default_rng(0).integers(0, 256, (count, channels, 5, 6), dtype=np.uint8)
    pixels[:, 0, 0, 0] = np.arange(count)
    settings = {"mean": [0.0] * channels, "std": [1.0] * channels, "classes": 3, **options}
    return MemoryBatches(torch.from_numpy(pixels), torch.arange(count) % 3, batch_size=batch_size, **settings)


def same(left: Iterator[tuple[torch.Tensor, ...]], right: Iterator[tuple[torch.Tensor, ...]]) -> bool:
    pairs = list(zip(left, right, strict=True))
    return bool(pairs) and all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def numbers(batches: Batches, epoch: int) -> list[list[int]]:
    return [images[:, 0, 0, 0].long().tolist() for images, _ in batches.epoch(epoch)]


# The order.


def test_an_epoch_shows_every_photo_once_in_batches_of_which_the_last_is_smaller() -> None:
    batches = memory()
    drawn = numbers(batches, 0)
    assert [len(batch) for batch in drawn] == [4, 4, 2] and batches.steps == 3
    assert sorted(number for batch in drawn for number in batch) == list(range(10))
    assert [len(batch) for batch in numbers(memory(drop_last=True), 0)] == [4, 4]


def test_each_epoch_and_each_seed_has_its_own_order_and_without_shuffling_there_is_one() -> None:
    orders = [numbers(memory(seed=seed), epoch) for seed in (0, 1) for epoch in (0, 1)]
    assert all(orders.count(order) == 1 for order in orders)
    assert numbers(memory(shuffle=False), 5) == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]]


def test_orders_are_drawn_evenly() -> None:
    order = BatchOrder(images=5, batch_size=5)
    firsts = torch.bincount(torch.stack([order.epoch(number)[0] for number in range(2_000)]), minlength=5)
    assert firsts.min() > 330 and firsts.max() < 470  # 400 expected; 18 is one standard deviation


def test_labels_stay_with_their_photos() -> None:
    for images, labels in memory(seed=3).epoch(2):
        assert torch.equal(images[:, 0, 0, 0].long() % 3, labels)


def test_batches_larger_than_the_data_are_all_of_it() -> None:
    for drop_last in (False, True):
        batches = memory(batch_size=64, drop_last=drop_last)
        assert batches.steps == 1 and [len(batch) for batch in numbers(batches, 0)] == [10]


def test_a_batch_is_normalised_to_the_last_bit_as_prediction_does_it() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (6, 7, 7, 3), dtype=np.uint8)
    recipe = Preprocessing(7, 1.0, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4))
    batches = MemoryBatches(
        torch.from_numpy(pixels).permute(0, 3, 1, 2), torch.zeros(6, dtype=torch.int64), classes=1, batch_size=6,
        mean=recipe.mean, std=recipe.std, shuffle=False,
    )  # fmt: skip
    ((images, _),) = batches.epoch(0)
    assert images.dtype == torch.float32 and np.array_equal(images.numpy(), recipe.normalise(pixels))
    assert batches.shape == (3, 7, 7) and batches.images == 6


def test_floats_of_the_same_scale_give_the_same_batches_as_bytes() -> None:
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (6, 3, 8, 8), dtype=np.uint8))
    options = {"classes": 2, "batch_size": 4, "mean": [9.0] * 3, "std": [3.0] * 3, "augment": EVERYTHING}
    labels = torch.zeros(6, dtype=torch.int64)
    for kind in (torch.float32, torch.float64):
        kept = pixels.to(kind)
        floats = MemoryBatches(kept, labels, **options)
        assert same(floats.epoch(0), MemoryBatches(pixels, labels, **options).epoch(0))
        assert torch.equal(kept, pixels.to(kind))  # the photos themselves are never changed


# What is drawn.


@pytest.mark.parametrize("options", [{}, {"augment": EVERYTHING}, {"augment": PRESETS["cifar"], "mixup": 0.4}])
def test_batches_depend_on_seed_and_epoch_and_on_nothing_else(options: dict[str, object]) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = list(memory(channels=3, **options).epoch(3))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    again = memory(channels=3, **options)
    list(again.epoch(0))  # another epoch before
    assert same(iter(first), again.epoch(3))
    assert not same(iter(first), again.epoch(4))
    assert not same(iter(first), memory(channels=3, seed=1, **options).epoch(3))


@pytest.mark.parametrize("options", [{}, {"augment": EVERYTHING}, {"augment": EVERYTHING, "mixup": 1.0}])
def test_an_epoch_that_resumes_in_the_middle_goes_on_as_if_never_left(options: dict[str, object]) -> None:
    whole = list(memory(channels=3, **options).epoch(1))
    for first in (1, 2):
        assert same(iter(whole[first:]), memory(channels=3, **options).epoch(1, first=first))
    assert list(memory(**options).epoch(1, first=3)) == []


@pytest.mark.parametrize("world", [2, 3])
@pytest.mark.parametrize("options", [{}, {"augment": EVERYTHING}, {"augment": EVERYTHING, "mixup": 1.0}])
def test_the_slices_of_all_processes_make_up_the_batch_of_one(options: dict[str, object], world: int) -> None:
    ranks = [memory(channels=3, rank=rank, world=world, **options) for rank in range(world)]
    parts = zip(*(list(one.epoch(2)) for one in ranks), strict=True)
    joined = [tuple(torch.cat(tensors) for tensors in zip(*part, strict=True)) for part in parts]
    assert same(iter(joined), memory(channels=3, **options).epoch(2))
    assert {one.steps for one in ranks} == {3}


@pytest.mark.parametrize("augment", [None, EVERYTHING, PRESETS["cifar"]])
def test_a_process_for_which_no_photo_of_a_batch_is_left_gets_an_empty_one(augment: Augmentation | None) -> None:
    *_, (images, labels) = memory(9, channels=3, rank=1, world=2, augment=augment).epoch(0)
    assert images.shape == (0, 3, 5, 6) and labels.shape == (0,)


def test_mixed_photos_and_their_targets_are_mixed_by_the_same_shares() -> None:
    pixels = 100 * torch.eye(3, dtype=torch.uint8)[:, :, None, None]  # photo i is bright in channel i alone
    batches = MemoryBatches(
        pixels.repeat(4, 1, 2, 2), torch.arange(12) % 3, classes=3, batch_size=5, mean=[0.0] * 3, std=[100.0] * 3,
        mixup=1.0,
    )  # fmt: skip
    seen = [(images, targets) for epoch in range(5) for images, targets in batches.epoch(epoch)]
    for images, targets in seen:
        assert targets.dtype == torch.float32 and torch.allclose(targets.sum(dim=1), torch.ones(len(targets)))
        assert torch.allclose(images[:, :, 1, 1], targets, atol=1e-6)
    assert 0.5 < min(float(targets.max(dim=1).values.min()) for _, targets in seen) < 0.6


def test_the_memory_layout_changes_no_number() -> None:
    plain, last = memory(channels=3, augment=EVERYTHING), memory(channels=3, augment=EVERYTHING, channels_last=True)
    assert same(plain.epoch(0), last.epoch(0))
    assert all(images.is_contiguous(memory_format=torch.channels_last) for images, _ in last.epoch(0))


# Bad input.


def test_pixels_that_are_no_numbers_are_refused_with_their_photo() -> None:
    pixels = torch.zeros(4, 1, 3, 3)
    pixels[2, 0, 1, 1] = torch.nan
    pixels[3, 0, 0, 0] = torch.inf
    with pytest.raises(DataError, match="2 of 4 photos have pixels that are NaN or infinite, the first is photo 2;"):
        MemoryBatches(pixels, torch.zeros(4, dtype=torch.int64), classes=1, batch_size=2, mean=[0.0], std=[1.0])


@pytest.mark.parametrize("wrong", [-1, 3])
def test_a_label_that_is_none_of_the_classes_is_refused_with_its_photo(wrong: int) -> None:
    labels = torch.tensor([0, 1, wrong, 2])
    words = rf"photo 2 has label {wrong}, expected 0 to 2 for 3 classes \(1 of 4 labels are wrong\)"
    with pytest.raises(DataError, match=words):
        MemoryBatches(torch.zeros(4, 1, 3, 3), labels, classes=3, batch_size=2, mean=[0.0], std=[1.0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1 photo; received 0"),
        ({"mean": [1.0, 2.0]}, r"mean must be 1 numbers, one a channel; received \[1.0, 2.0\]"),
        ({"std": [0.0]}, r"std must be above 0 in every channel; received \[0.0\]"),
        ({"mixup": -0.1}, r"mixup must be 0 \(not mixed\) or above; received -0.1"),
        ({"rank": 2, "world": 2}, "rank must lie between 0 and world - 1; received rank 2 in a world of 2"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(options: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        memory(**options)


def test_no_photos_and_too_few_labels_are_said() -> None:
    with pytest.raises(DataError, match="there is no photo to make a batch of"):
        memory(0)
    with pytest.raises(DataError, match="expected a label for each of 3 photos; received 2 labels"):
        MemoryBatches(
            torch.zeros(3, 1, 2, 2), torch.zeros(2, dtype=torch.int64), classes=1, batch_size=1, mean=[0.0], std=[1.0]
        )


# Streamed from disk.


@pytest.mark.parametrize("recipe", [COLOUR, GREY], ids=["colour", "grey"])
def test_streamed_and_kept_photos_give_the_same_batches_bit_for_bit(photo_folder: Path, recipe: Preprocessing) -> None:
    dataset, rows = open_dataset(photo_folder), range(3, 40)
    slow = [recipe.apply(decode((photo_folder / dataset.photos[row].path).read_bytes(), target=recipe.decode_target()))
            for row in rows]  # fmt: skip
    pixels = np.stack(slow).transpose(0, 3, 1, 2)
    assert np.array_equal(read_pixels(dataset, rows, recipe, threads=3), pixels)
    for options in ({}, {"augment": EVERYTHING, "mixup": 0.5, "rank": 1, "world": 2}, {"shuffle": False}):
        options = {"batch_size": 8, "seed": 5, **options}
        labels = torch.from_numpy(dataset.labels()[list(rows)])
        kept = MemoryBatches(
            torch.from_numpy(pixels), labels, classes=2, mean=recipe.mean, std=recipe.std, **options
        )  # fmt: skip
        for threads, ahead in ((1, 0), (4, 3)):
            stream = StreamedBatches(dataset, rows, recipe, threads=threads, ahead=ahead, **options)
            assert (stream.images, stream.classes, stream.shape, stream.steps) == (37, 2, kept.shape, 5)
            assert same(stream.epoch(1), kept.epoch(1)) and same(stream.epoch(1, first=3), kept.epoch(1, first=3))


def test_a_photo_that_can_no_longer_be_read_is_named_and_the_threads_end(photo_folder: Path) -> None:
    dataset = open_dataset(photo_folder)
    stream = StreamedBatches(dataset, range(48), COLOUR, batch_size=4, shuffle=False, threads=2, ahead=1)
    epoch = stream.epoch(0)
    next(epoch)
    (photo_folder / "bars" / "21.png").unlink()
    (photo_folder / "bars" / "22.png").write_bytes(b"no photo")
    with pytest.raises(DataError, match=r"photo 'bars/21.png' cannot be read \(missing: .*; put it right, or"):
        list(epoch)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("photos")]
    with pytest.raises(DataError, match=r"photo 'bars/22.png' cannot be read \(not_an_image: "):
        list(StreamedBatches(dataset, range(22, 48), COLOUR, batch_size=4, shuffle=False).epoch(0))


def test_streaming_never_decodes_further_ahead_than_said(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []
    read = streamed.read_planes

    def counted(dataset: Dataset, photo: object, recipe: Preprocessing) -> np.ndarray:
        asked.append(photo.path)
        return read(dataset, photo, recipe)

    monkeypatch.setattr(streamed, "read_planes", counted)
    epoch = StreamedBatches(open_dataset(photo_folder), range(48), COLOUR, batch_size=4, threads=3, ahead=2).epoch(0)
    for step in range(5):
        next(epoch)
        assert 4 * (step + 1) <= len(asked) <= 4 * (step + 3)
    epoch.close()
    assert len(asked) <= 4 * 8
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("photos")]


# Which way.


def test_the_size_decides_between_memory_and_disk_and_a_sentence_says_it(photo_folder: Path) -> None:
    dataset, said = open_dataset(photo_folder), []
    config = LoopConfig(batch_size=8, seed=2, augment="photos", mixup=0.2)
    size = 48 * 24 * 24 * 3
    kept = load_batches(dataset, range(48), COLOUR, config, memory_limit=size, say=said.append)
    stream = load_batches(dataset, range(48), COLOUR, config, memory_limit=size - 1, say=said.append)
    assert isinstance(kept, MemoryBatches) and isinstance(stream, StreamedBatches)
    assert isinstance(kept, Batches) and isinstance(stream, Batches)
    assert said == [
        "48 photos of 24 x 24 x 3 kept in memory: 0.1 MB",
        "48 photos of 24 x 24 x 3 would take 0.1 MB of memory, more than 0.1 MB: streamed from disk every epoch",
    ]
    assert same(kept.epoch(0), stream.epoch(0))
    as_they_are = load_batches(dataset, range(48), COLOUR, LoopConfig(batch_size=8), shuffle=False)
    assert torch.equal(torch.cat([labels for _, labels in as_they_are.epoch(3)]), torch.from_numpy(dataset.labels()))


def test_a_batch_size_beyond_the_photos_is_said_in_one_line(photo_folder: Path) -> None:
    said: list[str] = []
    batches = load_batches(open_dataset(photo_folder), range(5), COLOUR, LoopConfig(batch_size=128), say=said.append)
    assert batches.steps == 1 and len(next(batches.epoch(0))[0]) == 5
    assert said[0].startswith("a batch of 128 is more than the 5 photos there are: every step sees all of them;")


def test_a_quarter_of_the_memory_is_for_photos() -> None:
    total = int(next(line for line in Path("/proc/meminfo").read_text().splitlines() if "MemTotal" in line).split()[1])
    assert 0 < memory_for_photos() <= total * 1024 / 4 + 4096


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("coloured", [False, True])
@pytest.mark.parametrize(("size", "crop"), [(12, 1.0), (12, 0.75), (16, 1.0)])
def test_pixels_that_came_as_arrays_are_read_as_the_decoder_reads_them(
    channels: int, coloured: bool, size: int, crop: float
) -> None:
    random = np.random.default_rng(0)
    arrays = {name: random.integers(0, 256, (9, 12, 12) + (3,) * coloured, dtype=np.uint8) for name in ("a", "b")}
    photos = (*number_photos("a", [0] * 9, "train"), *number_photos("b", [1] * 9, "test"))
    dataset = Dataset("both", Path(), ("x", "y"), photos, arrays=arrays)
    recipe = Preprocessing(size, crop, (0.0,) * channels, (1.0,) * channels)
    rows = [17, 2, 9, 0, 5]
    expected = [
        recipe.apply(decode(dataset.fetch(photos[row]), target=recipe.decode_target())).transpose(2, 0, 1)
        for row in rows
    ]
    assert np.array_equal(read_pixels(dataset, rows, recipe), np.stack(expected))


def test_reading_an_odd_folder_into_memory_names_the_photo_that_is_no_photo(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    Image.new("RGB", (30, 30)).save(tmp_path / "one" / "good.png")
    (tmp_path / "one" / "not.png").write_bytes(b"nothing")
    with pytest.raises(DataError, match=r"photo 'one/not.png' cannot be read"):
        load_batches(open_dataset(tmp_path), range(2), COLOUR, LoopConfig())
