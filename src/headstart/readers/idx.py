"""MNIST-style IDX files: images and labels as big-endian arrays of bytes, packed by gzip or not.

The format is the one of LeCun, Cortes and Burges, "The MNIST database of handwritten digits": two zero bytes, the type
of the elements (8: unsigned byte), the number of axes, the length of each axis as 32-bit big-endian, then the elements.
"""

import gzip
import io
import math
import re
import zlib
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from headstart.dataset import Dataset, Photo, list_names, number_photos
from headstart.errors import DataError
from headstart.files import shown

# Official names end in "-idx3-ubyte"; some copies have a dot there. A part before it names one of several sets in a
# folder ("emnist-letters-train-images-idx3-ubyte").
FILE_NAME = re.compile(
    r"(?P<set>(?!\.).*?)(?P<part>train|t10k|test)-(?P<what>images|labels)[-.]idx[134]-ubyte(?P<packed>\.gz)?",
    re.IGNORECASE,
)
_UNSIGNED_BYTE = 8
_GZIP_BEST = 1032  # deflate cannot shrink by more than this (zlib's technical details), so a header can be checked
_MOST_BYTES = 1 << 34  # 16 GiB: more than any set of this form, less than what would hang a machine


def read_idx(path: Path) -> UInt8[np.ndarray, "..."]:
    """Read one IDX file of unsigned bytes.

    Args:
        path: the file; packed by gzip where the name ends in ".gz".

    Returns:
        The array in the shape that the header gives, values 0..255.

    Raises:
        DataError: bad magic number, another element type, fewer or more bytes than the header says, broken gzip.
    """
    packed = path.suffix.lower() == ".gz"
    try:
        with gzip.open(path) if packed else path.open("rb") as file:
            return _parse(file, path, path.stat().st_size * (_GZIP_BEST if packed else 1))
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"{shown(path)} is damaged: {error}; get the file again") from error
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}") from error


def _parse(file: io.BufferedIOBase, path: Path, possible: int) -> UInt8[np.ndarray, "..."]:
    magic = file.read(4)
    if len(magic) < 4 or magic[:2] != b"\0\0" or magic[2] != _UNSIGNED_BYTE or not 1 <= magic[3] <= 4:
        raise DataError(
            f"{shown(path)} is no IDX file of bytes: it begins with {magic.hex(' ') or 'nothing'}; "
            "expected 00 00 08 and the number of axes, 1 to 4"
        )
    sizes = file.read(4 * magic[3])
    shape = tuple(int.from_bytes(sizes[at : at + 4], "big") for at in range(0, len(sizes), 4))
    expected = math.prod(shape)
    if len(sizes) < 4 * magic[3] or expected > min(possible, _MOST_BYTES):
        raise DataError(f"{shown(path)} is cut off: its header promises {expected:,} bytes in the shape {shape}")
    data = file.read(expected)
    if len(data) < expected:
        raise DataError(f"{shown(path)} is cut off: {len(data):,} of {expected:,} bytes are there; get the file again")
    if file.read(1):
        raise DataError(f"{shown(path)} is longer than the {expected:,} bytes its header promises; get the file again")
    return np.frombuffer(data, dtype=np.uint8).reshape(shape)


def has_idx_files(folder: Path) -> bool:
    """Does a folder hold IDX files, by their names?"""
    return bool(_matches(folder))


def read_idx_folder(place: Path, *, name: str | None = None, classes: tuple[str, ...] | None = None) -> Dataset:
    """Read the IDX files of a folder: `train-*` are the training set, `t10k-*` or `test-*` the test set.

    Args:
        place: the folder, or one of the files in it (needed where the folder holds several sets).
        name: short name for people; the folder's by default.
        classes: the names of labels 0, 1, ...; by default the numbers that occur, as text.

    Raises:
        DataError: a file is damaged, images and labels do not agree in number, or one of the two is missing.
    """
    folder = place if place.is_dir() else place.parent
    files = _choose(place, folder)
    arrays: dict[str, np.ndarray] = {}
    labels: dict[str, np.ndarray] = {}
    for part in sorted({part for part, _ in files}, reverse=True):  # train before t10k
        images, answers = (files.get((part, what)) for what in ("images", "labels"))
        if images is None or answers is None:
            lacking = "images" if images is None else "labels"
            expected = f"{part}-{lacking}-idx{3 if images is None else 1}-ubyte"
            raise DataError(f"{shown(folder)} lacks the {part} {lacking}; expected {expected}, with .gz or not")
        stem = f"{part}-images"
        arrays[stem], labels[stem] = _read_pair(images, answers)
    names = classes or tuple(str(value) for value in np.unique(np.concatenate(list(labels.values()))))
    photos: list[Photo] = []
    for stem, values in labels.items():
        photos += number_photos(stem, _to_indices(values, names, classes is None, folder), _split(stem))
    if not photos:
        raise DataError(f"the IDX files in {shown(folder)} hold no image")
    return Dataset(name=name or folder.resolve().name, root=folder, classes=names, photos=tuple(photos), arrays=arrays)


def _matches(folder: Path) -> list[re.Match[str]]:
    found = [match for path in folder.iterdir() if (match := FILE_NAME.fullmatch(path.name)) and path.is_file()]
    return sorted(found, key=lambda match: match.string)


def _choose(place: Path, folder: Path) -> dict[tuple[str, str], Path]:
    """The file of each (part, images or labels) of one set; an unpacked file goes before a packed one."""
    matches = _matches(folder)
    sets = sorted({match["set"] for match in matches})
    given = FILE_NAME.fullmatch(place.name) if place != folder else None
    wanted = given["set"] if given else sets[0] if len(sets) == 1 else None
    if wanted is None:
        raise DataError(f"{shown(folder)} holds the sets {list_names(sets)}; give one of their files, not the folder")
    files: dict[tuple[str, str], Path] = {}
    for match in sorted(matches, key=lambda match: match["packed"] is None):
        if match["set"] == wanted:
            files[match["part"].lower(), match["what"].lower()] = folder / match.string
    return files


def _read_pair(images: Path, labels: Path) -> tuple[UInt8[np.ndarray, "..."], UInt8[np.ndarray, "images"]]:
    pixels, answers = read_idx(images), read_idx(labels)
    gray, colour = pixels.ndim == 3, pixels.ndim == 4 and pixels.shape[3] == 3
    if not (gray or colour) or 0 in pixels.shape[1:]:
        raise DataError(
            f"{shown(images)} has the shape {pixels.shape}; expected (images, height, width) "
            "or (images, height, width, 3)"
        )
    if answers.ndim != 1 or len(answers) != len(pixels):
        raise DataError(f"{shown(images)} holds {len(pixels):,} images, but {shown(labels)} {answers.size:,} labels")
    return pixels, answers


def _to_indices(values: UInt8[np.ndarray, "images"], names: tuple[str, ...], numbers: bool, folder: Path) -> list[int]:
    if numbers:
        index = {int(name): position for position, name in enumerate(names)}
        return [index[value] for value in values.tolist()]
    if len(values) and int(values.max()) >= len(names):
        raise DataError(f"{shown(folder)} has the label {int(values.max())}; expected 0 to {len(names) - 1}")
    return [int(value) for value in values.tolist()]


def _split(stem: str) -> str:
    return "train" if stem.startswith("train") else "test"
