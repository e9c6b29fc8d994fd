"""IDX files: the format by its definition, MNIST by its published facts, and damage by name."""

import gzip
import io
import os
import struct
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.readers import open_dataset
from headstart.readers.idx import read_idx, read_idx_folder

# The first labels of MNIST's two files, as shown in countless tutorials and readable with `zcat FILE | xxd`.
FIRST_TRAIN = [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
FIRST_TEST = [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]


def idx(array: np.ndarray, kind: int = 8) -> bytes:
    """The format written out from its definition, independent of the reader."""
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, kind, array.ndim, *array.shape) + array.tobytes()


def plant(root: Path, *, train: int = 4, test: int = 2, suffix: str = "", prefix: str = "") -> Path:
    """A small set of 2x3 images whose pixels tell their number; labels 0, 1, 2, 0, ..."""
    root.mkdir(parents=True, exist_ok=True)
    for part, count in (("train", train), ("t10k", test)):
        images = np.arange(count * 6, dtype=np.uint8).reshape(count, 2, 3)
        labels = (np.arange(count) % 3).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            data = idx(array)
            (root / f"{prefix}{name}{suffix}").write_bytes(gzip.compress(data) if suffix == ".gz" else data)
    return root


def test_mnist_has_its_published_counts_split_and_first_labels(shared_data: Path) -> None:
    data = open_dataset(shared_data / "mnist")
    assert Counter(photo.split for photo in data.photos) == {"train": 60_000, "test": 10_000}
    assert data.classes == tuple("0123456789")
    train = [photo for photo in data.photos if photo.split == "train"]
    test = [photo for photo in data.photos if photo.split == "test"]
    assert [photo.label for photo in train[:10]] == FIRST_TRAIN
    assert [photo.label for photo in test[:10]] == FIRST_TEST
    assert (train[17].path, test[0].path) == ("train-images#17", "t10k-images#0")
    # the class counts of the training set, as in LeCun's and many later tables
    assert list(np.bincount([photo.label for photo in train])) == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    packed = gzip.decompress((shared_data / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())
    assert data.fetch(test[123]).tobytes() == packed[16 + 123 * 784 : 16 + 124 * 784]


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_packed_and_unpacked_files_are_read_alike(tmp_path: Path, suffix: str) -> None:
    data = open_dataset(plant(tmp_path / "small", suffix=suffix))
    assert data.name == "small"
    assert data.classes == ("0", "1", "2")
    assert [(photo.path, photo.label, photo.split) for photo in data.photos] == [
        ("train-images#0", 0, "train"),
        ("train-images#1", 1, "train"),
        ("train-images#2", 2, "train"),
        ("train-images#3", 0, "train"),
        ("t10k-images#0", 0, "test"),
        ("t10k-images#1", 1, "test"),
    ]
    assert data.fetch(data.photos[1]).tolist() == [[6, 7, 8], [9, 10, 11]]


def test_an_unpacked_file_goes_before_a_packed_one(tmp_path: Path) -> None:
    plant(tmp_path, train=5, suffix="")
    plant(tmp_path, train=3, suffix=".gz")
    assert sum(photo.split == "train" for photo in open_dataset(tmp_path).photos) == 5


@pytest.mark.parametrize("form", ["train-images.idx3-ubyte", "TRAIN-IMAGES-IDX3-UBYTE", "train-images-idx3-ubyte"])
def test_usual_spellings_of_the_names_are_known(tmp_path: Path, form: str) -> None:
    plant(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").rename(tmp_path / "aside")
    (tmp_path / "aside").rename(tmp_path / form)
    assert len(open_dataset(tmp_path).photos) == 6


def test_one_of_several_sets_in_a_folder_is_chosen_by_its_file(tmp_path: Path) -> None:
    plant(tmp_path, train=4, prefix="emnist-letters-")
    plant(tmp_path, train=7, prefix="emnist-digits-")
    (tmp_path / "._train-images-idx3-ubyte").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"holds the sets 'emnist-digits-', 'emnist-letters-'; give one of their files"):
        open_dataset(tmp_path)
    data = open_dataset(tmp_path / "emnist-digits-train-labels-idx1-ubyte")
    assert sum(photo.split == "train" for photo in data.photos) == 7


def test_colour_images_and_any_numbers_of_labels_are_read(tmp_path: Path) -> None:
    images = np.arange(2 * 2 * 2 * 3, dtype=np.uint8).reshape(2, 2, 2, 3)
    (tmp_path / "train-images-idx4-ubyte").write_bytes(idx(images))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.array([200, 7], dtype=np.uint8)))
    data = open_dataset(tmp_path)
    assert data.classes == ("7", "200")
    assert [photo.label for photo in data.photos] == [1, 0]
    assert data.fetch(data.photos[1]).tolist() == images[1].tolist()


def test_names_of_classes_can_be_given_and_must_cover_every_label(tmp_path: Path) -> None:
    plant(tmp_path)
    assert read_idx_folder(tmp_path, classes=("a", "b", "c", "d")).classes == ("a", "b", "c", "d")
    with pytest.raises(DataError, match="has the label 2; expected 0 to 1"):
        read_idx_folder(tmp_path, classes=("a", "b"))


def damaged(tmp_path: Path, data: bytes, packed: bool = False) -> str:
    path = tmp_path / ("x-idx3-ubyte" + ".gz" * packed)
    path.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(DataError) as caught:
        read_idx(path)
    assert "x-idx3-ubyte" in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("packed", [False, True])
def test_damage_is_named(tmp_path: Path, packed: bool) -> None:
    good = idx(np.zeros((3, 4, 5), dtype=np.uint8))
    assert "begins with nothing" in damaged(tmp_path, b"", packed)
    assert "begins with 89 50 4e 47; expected 00 00 08" in damaged(tmp_path, b"\x89PNG\r\n\x1a\n" + good, packed)
    assert "is no IDX file of bytes: it begins with 00 00 0d 03" in damaged(
        tmp_path, b"\0\0\x0d\x03" + good[4:], packed
    )
    assert "59 of 60 bytes" in damaged(tmp_path, good[:-1], packed)
    assert "longer than the 60 bytes" in damaged(tmp_path, good + b"x", packed)
    assert "is cut off" in damaged(tmp_path, good[:9], packed)


def test_every_cut_of_a_file_is_noticed(tmp_path: Path) -> None:
    good = idx(np.ones((2, 3, 2), dtype=np.uint8))
    for length in range(len(good)):
        damaged(tmp_path, good[:length])
    packed = gzip.compress(good)
    path = tmp_path / "y-idx3-ubyte.gz"
    for length in range(len(packed) - 8):  # the last 8 bytes are the checksum and the length
        path.write_bytes(packed[:length])
        with pytest.raises(DataError, match="y-idx3-ubyte"):
            read_idx(path)


def test_a_flipped_bit_in_a_packed_file_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    packed = bytearray(gzip.compress(idx(np.arange(240, dtype=np.uint8).reshape(4, 6, 10))))
    packed[60] ^= 4
    path = tmp_path / "z-idx3-ubyte.gz"
    path.write_bytes(packed)
    with pytest.raises(DataError, match=r"is damaged|is cut off|is longer|begins with"):
        read_idx(path)


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_promises_too_much_reserves_no_memory(tmp_path: Path, packed: bool) -> None:
    lie = struct.pack(">BBBB3I", 0, 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1)
    assert "is cut off: its header promises" in damaged(tmp_path, lie + bytes(50), packed)


def test_images_and_labels_must_be_as_many(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(np.zeros(3, dtype=np.uint8)))
    with pytest.raises(DataError, match=r"holds 4 images, but .*train-labels-idx1-ubyte 3 labels"):
        open_dataset(tmp_path)


@pytest.mark.parametrize(("gone", "text"), [("images", "lacks the train images"), ("labels", "lacks the train labels")])
def test_a_missing_half_is_named(tmp_path: Path, gone: str, text: str) -> None:
    plant(tmp_path)
    next(tmp_path.glob(f"train-{gone}*")).unlink()
    with pytest.raises(DataError, match=text):
        open_dataset(tmp_path)


def test_images_of_a_strange_shape_are_refused(tmp_path: Path) -> None:
    plant(tmp_path)
    (tmp_path / "train-images-idx3-ubyte").write_bytes(idx(np.zeros((4, 6), dtype=np.uint8)))
    with pytest.raises(DataError, match=r"has the shape \(4, 6\); expected \(images, height, width\)"):
        open_dataset(tmp_path)


def test_a_set_without_images_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="hold no image"):
        open_dataset(plant(tmp_path, train=0, test=0))


@pytest.mark.skipif(os.name == "nt", reason="needs pipes")
def test_a_pipe_with_the_name_of_an_idx_file_is_not_opened(tmp_path: Path) -> None:
    plant(tmp_path, prefix="a-")
    os.mkfifo(tmp_path / "train-images-idx3-ubyte")
    assert len(open_dataset(tmp_path).photos) == 6


def test_what_is_read_can_not_be_changed_by_accident(tmp_path: Path) -> None:
    data = open_dataset(plant(tmp_path))
    with pytest.raises(ValueError, match="read-only"):
        data.arrays["train-images"][0, 0, 0] = 1


def test_numpy_agrees_with_the_reader(tmp_path: Path) -> None:
    array = np.random.default_rng(0).integers(0, 256, (5, 7, 11), dtype=np.uint8)
    path = tmp_path / "r-idx3-ubyte"
    path.write_bytes(idx(array))
    file = io.BytesIO(path.read_bytes())
    file.seek(4 + 3 * 4)
    assert np.array_equal(read_idx(path), np.frombuffer(file.read(), dtype=np.uint8).reshape(5, 7, 11))
