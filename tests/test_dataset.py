"""The values that every reader returns."""

from pathlib import Path

import numpy as np
import pytest

from headstart.dataset import IMAGE_SUFFIXES, SPLIT_NAMES, Dataset, Photo, list_names, number_photos
from headstart.errors import ImageRejected


def on_disk(root: Path) -> Dataset:
    (root / "cat").mkdir()
    (root / "cat" / "1#2.jpg").write_bytes(b"the bytes of a file")
    return Dataset("pets", root, ("cat", "dog"), (Photo("cat/1#2.jpg", 0), Photo("dog/gone.jpg", 1)))


def test_fetching_a_file_gives_its_bytes(tmp_path: Path) -> None:
    data = on_disk(tmp_path)
    assert data.fetch(data.photos[0]) == b"the bytes of a file"


def test_fetching_a_missing_file_names_the_reason(tmp_path: Path) -> None:
    data = on_disk(tmp_path)
    with pytest.raises(ImageRejected) as caught:
        data.fetch(data.photos[1])
    assert caught.value.reason == "missing"


def test_fetching_from_memory_gives_the_image_of_that_number() -> None:
    pixels = (
        np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5).transpose(0, 2, 3, 1)
    )  # two of 4x5 and 3 planes
    data = Dataset("made", Path(), ("a",), tuple(number_photos("plane#s", [0, 0])), arrays={"plane#s": pixels})
    image = data.fetch(data.photos[1])
    assert isinstance(image, np.ndarray)
    assert image.shape == (4, 5, 3)
    assert image[0, 0].tolist() == [60, 80, 100]  # the first pixel of each of its planes
    assert image.flags.c_contiguous


def test_labels_come_in_the_order_of_the_photos() -> None:
    data = Dataset("made", Path(), ("a", "b", "c"), tuple(number_photos("x", [2, 0, 1, 2])))
    assert data.labels().tolist() == [2, 0, 1, 2]


def test_a_subset_keeps_the_classes_and_everything_else(tmp_path: Path) -> None:
    data = on_disk(tmp_path).warn("mind the gap")
    part = data.subset(data.photos[1:])
    assert part.photos == data.photos[1:]
    assert (part.classes, part.root, part.warnings) == (data.classes, data.root, ("mind the gap",))
    assert len(data.photos) == 2


def test_many_names_are_cut_short_and_made_printable() -> None:
    assert list_names(["a\x1b[2J", "b\n", "c"], limit=2) == r"'a\x1b[2J', 'b\x0a' and 1 more"
    assert list_names([]) == ""


def test_suffixes_and_split_names_are_lower_case_for_lookup() -> None:
    assert all(suffix == suffix.lower() and suffix.startswith(".") for suffix in IMAGE_SUFFIXES)
    assert set(SPLIT_NAMES.values()) == {"train", "val", "test"}
    assert all(name == name.lower() for name in SPLIT_NAMES)
