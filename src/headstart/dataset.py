"""What a data set is, in whatever form it arrived: its classes, its photos, and what was left out and why.

The readers (`headstart.readers`) make these values; everything after them sees only these.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from jaxtyping import Int64, UInt8

from headstart.files import shown
from headstart.images import read_photo_bytes

# Names of the three parts of a data set, as folders or in a manifest's split column; upper or lower case.
SPLIT_NAMES: dict[str, str] = {
    "train": "train",
    "training": "train",
    "val": "val",
    "valid": "val",
    "validation": "val",
    "test": "test",
    "testing": "test",
    "holdout": "test",
}

# Every suffix that a photo or a drawing is likely to have, those of formats we refuse included: the decoder says
# "EPS is not supported" of such a file, which helps more than "not an image".
IMAGE_SUFFIXES: frozenset[str] = frozenset(
    [
        ".jpg",
        ".jpeg",
        ".jpe",
        ".jfif",
        ".jif",
        ".mpo",
        ".png",
        ".apng",
        ".gif",
        ".webp",
        ".bmp",
        ".dib",
        ".tif",
        ".tiff",
        ".avif",
        ".avifs",
        ".heic",
        ".heif",
        ".hif",
        ".ico",
        ".icns",
        ".cur",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
        ".pfm",
        ".tga",
        ".psd",
        ".jp2",
        ".j2k",
        ".jpx",
        ".jxl",
        ".eps",
        ".svg",
        ".fits",
        ".pcx",
        ".sgi",
        ".dds",
        ".qoi",
        ".exr",
        ".dng",
        ".cr2",
        ".nef",
        ".arw",
        ".dcm",
    ]
)

# Why a file is left out before any decoding. The decoder has its own reasons (`headstart.images.REASONS`).
SKIP_REASONS: dict[str, str] = {
    "missing": "the file is not there, or a link leads to nothing",
    "not_a_file": "it is a pipe, a device, a socket or a folder, not a regular file",
    "not_an_image": "the file's suffix is not one of a photo",
    "unreadable": "the folder or file cannot be read",
    "link": "it is a link to a folder that is read already, or a link in a circle",
    "outside": "it leads outside the folder of the data, and links are not followed",
    "no_class": "it lies beside the class folders, not in one",
    "no_split": "it lies beside the folders train, val and test",
    "no_label": "the manifest gives no label",
    "unknown_split": "the manifest's split is none of " + ", ".join(SPLIT_NAMES),
    "label_conflict": "the manifest lists the same photo under two labels",
    "malformed_row": "the manifest's row cannot be read",
}


@dataclass(frozen=True, slots=True)
class Photo:
    """One labelled photo.

    Args:
        path: its unique name inside the data, parts joined by "/", relative to `Dataset.root`; of an image inside a
            larger file the file's stem and a number, such as "train-images#17". Bytes of a file name that do not
            decode are kept as `os.fsdecode` gives them.
        label: index into `Dataset.classes`.
        split: "train", "val" or "test" where the data say so, else None.
        group: photos of one group (one patient, one animal) must stay on one side of a split; None: no group.
    """

    path: str
    label: int
    split: str | None = None
    group: str | None = None


@dataclass(frozen=True, slots=True)
class Skipped:
    """Something that could have been a photo and is left out.

    Args:
        path: as in `Photo.path`.
        reason: a key of `SKIP_REASONS`.
        detail: what exactly, a short sentence or nothing.
    """

    path: str
    reason: str
    detail: str = ""


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled photos and everything that was noticed while they were listed; no photo has been opened yet.

    Args:
        name: short name for people: the folder's, the manifest's, or the built-in name.
        root: the folder that the paths are relative to.
        classes: class names; a label is an index into this order, which is stored with every trained model.
        photos: in a fixed order that depends on names only.
        skipped: what was left out, each with its reason.
        ignored: number of files and folders that are no data (hidden ones, `Thumbs.db`, `__MACOSX`).
        warnings: sentences for the user.
        arrays: images already in memory, by the stem in `Photo.path`: (images, height, width) gray or
            (images, height, width, 3) RGB, 0..255.
    """

    name: str
    root: Path
    classes: tuple[str, ...]
    photos: tuple[Photo, ...]
    skipped: tuple[Skipped, ...] = ()
    ignored: int = 0
    warnings: tuple[str, ...] = ()
    arrays: Mapping[str, UInt8[np.ndarray, "..."]] = field(default_factory=dict, repr=False)

    def fetch(self, photo: Photo) -> bytes | UInt8[np.ndarray, "..."]:
        """Read one photo: the bytes of its file, or its pixels where the data hold pixels. Safe from several threads.

        Returns:
            Bytes as stored, or an array (height, width) gray or (height, width, 3) RGB.

        Raises:
            ImageRejected: the file is missing, empty, too large, unreadable or not a regular file.
        """
        if not self.arrays:
            return read_photo_bytes(self.root / photo.path)
        stem, _, number = photo.path.rpartition("#")
        return np.ascontiguousarray(self.arrays[stem][int(number)])

    def labels(self) -> Int64[np.ndarray, "photos"]:
        """Return the label of each photo, in order."""
        return np.fromiter((photo.label for photo in self.photos), dtype=np.int64, count=len(self.photos))

    def subset(self, photos: Iterable[Photo]) -> "Dataset":
        """Return the same data set with only these photos; the classes and their order stay."""
        return dataclasses.replace(self, photos=tuple(photos))

    def warn(self, sentence: str) -> "Dataset":
        """Return the same data set with one more warning."""
        return dataclasses.replace(self, warnings=(*self.warnings, sentence))


def number_photos(
    stem: str, labels: Sequence[int] | Int64[np.ndarray, "images"], split: str | None = None
) -> list[Photo]:
    """Name the images of an array: one photo a label, "stem#0", "stem#1", ...

    >>> number_photos("t10k-images", [7, 2], "test")[1]
    Photo(path='t10k-images#1', label=2, split='test', group=None)
    """
    return [Photo(f"{stem}#{number}", int(label), split) for number, label in enumerate(labels)]


def list_names(names: Iterable[str], limit: int = 8) -> str:
    """Class or file names as a message shows them: quoted, printable, and not more than `limit` of them.

    >>> list_names(["ant", "bee", "wasp"], limit=2)
    "'ant', 'bee' and 1 more"
    """
    quoted = [f"'{shown(name)}'" for name in names]
    rest = len(quoted) - limit
    return ", ".join(quoted[:limit]) + (f" and {rest:,} more" if rest > 0 else "")
