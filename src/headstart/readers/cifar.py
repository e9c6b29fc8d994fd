"""CIFAR-10: 60,000 colour images of 32x32 pixels in 10 classes, in the binary or the python version.

The layout of both is described at https://www.cs.toronto.edu/~kriz/cifar.html (Krizhevsky 2009, "Learning Multiple
Layers of Features from Tiny Images"): each image is 3,072 bytes, the red plane, then green, then blue, row by row.
"""

import re
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from headstart.dataset import Dataset, Photo, number_photos
from headstart.errors import DataError
from headstart.files import shown
from headstart.readers.batches import read_batch

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
FILE_NAME = re.compile(r"(?P<stem>data_batch_(?P<number>\d)|test_batch)(?P<binary>\.bin)?")
META_NAME = re.compile(r"batches\.meta(\.txt)?")
_SUB_FOLDERS = ("cifar-10-batches-bin", "cifar-10-batches-py")  # what the official archives unpack to
_PIXELS = 3 * 32 * 32
_TRAINING_BATCHES = 5


def find_batches(folder: Path) -> Path | None:
    """Return the folder with the batches: this one, or the one inside it that the official archive unpacks to."""
    for place in (folder, *(folder / name for name in _SUB_FOLDERS)):
        if place.is_dir() and any(FILE_NAME.fullmatch(path.name) and path.is_file() for path in place.iterdir()):
            return place
    return None


def read_cifar(folder: Path, *, name: str | None = None) -> Dataset:
    """Read the batches of a folder: `data_batch_*` are the training set, `test_batch` the test set.

    Where both versions are there, the binary one is read. Class names come from `batches.meta` (python version) or
    `batches.meta.txt`, else they are the official ones.

    Args:
        folder: as `find_batches` accepts.
        name: short name for people; the folder's by default.

    Raises:
        DataError: no batch there, a batch is cut off or damaged, or a label is out of range.
    """
    place = find_batches(folder)
    if place is None:
        raise DataError(
            f"no CIFAR-10 batches in {shown(folder)}; expected data_batch_1 ... data_batch_5 and test_batch"
        )
    files = _choose(place)
    classes = _read_classes(place)
    arrays: dict[str, np.ndarray] = {}
    photos: list[Photo] = []
    for stem, path in sorted(files.items()):
        pixels, labels = _read_binary(path) if path.suffix == ".bin" else _read_python(path)
        if wrong := [label for label in labels if not 0 <= label < len(classes)]:
            raise DataError(f"{shown(path)} has the label {wrong[0]}; expected 0 to {len(classes) - 1}")
        # rows of planes to (images, height, width, channels); a view, so one image is rearranged when it is fetched
        arrays[stem] = pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
        photos += number_photos(stem, labels, "test" if stem == "test_batch" else "train")
    there = sum(stem != "test_batch" for stem in files)
    missing = [] if there == _TRAINING_BATCHES else [f"only {there} of {_TRAINING_BATCHES} training batches are there"]
    missing += [] if "test_batch" in files else ["test_batch, the official test set, is not there"]
    return Dataset(
        name=name or folder.resolve().name,
        root=place,
        classes=classes,
        photos=tuple(photos),
        warnings=tuple(missing),
        arrays=arrays,
    )


def _choose(place: Path) -> dict[str, Path]:
    matches = [match for path in place.iterdir() if (match := FILE_NAME.fullmatch(path.name)) and path.is_file()]
    binary = any(match["binary"] for match in matches)
    return {match["stem"]: place / match.string for match in matches if bool(match["binary"]) == binary}


def _read_classes(place: Path) -> tuple[str, ...]:
    text, table = place / "batches.meta.txt", place / "batches.meta"
    if text.is_file():
        names = text.read_text("utf-8", "replace").split("\n")
        found = tuple(name.strip() for name in names if name.strip())
    elif table.is_file():
        listed = read_batch(table).get("label_names")
        found = tuple(name for name in listed if isinstance(name, str)) if isinstance(listed, list) else ()
    else:
        return CLASSES
    if len(found) != len(CLASSES) or len(set(found)) != len(found):
        raise DataError(f"{shown(place)}: the file of class names has {len(found)} names; expected {len(CLASSES)}")
    return found


def _read_binary(path: Path) -> tuple[UInt8[np.ndarray, "images 3072"], list[int]]:
    try:
        data = np.fromfile(path, dtype=np.uint8)
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}") from error
    if not len(data) or len(data) % (1 + _PIXELS):
        raise DataError(
            f"{shown(path)} is cut off: {len(data):,} bytes are no multiple of {1 + _PIXELS:,}, a label and an image"
        )
    records = data.reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].tolist()


def _read_python(path: Path) -> tuple[UInt8[np.ndarray, "images 3072"], list[int]]:
    batch = read_batch(path)
    pixels, labels = batch.get("data"), batch.get("labels")
    if not (isinstance(pixels, np.ndarray) and pixels.ndim == 2 and pixels.shape[1] == _PIXELS):
        raise DataError(f"{shown(path)} has no array 'data' of {_PIXELS:,} columns; it is no CIFAR-10 batch")
    if not (isinstance(labels, list) and len(labels) == len(pixels) and all(type(label) is int for label in labels)):
        raise DataError(f"{shown(path)} has no list 'labels' with one number for each of its {len(pixels):,} images")
    return pixels, labels
