"""Data sets that are known by name: two that arrive as Python packages, and three that the user has on disk or fetches.

`digits` and `elpv` need nothing but their package. `mnist`, `fashion-mnist` and `cifar10` are looked for in the folder
of that name under `$HEADSTART_DATASETS`, or given as `mnist=FOLDER`, or as `mnist=URL#sha256=...` (an archive, or the
files one by one, separated by commas).
"""

import gzip
import importlib.util
import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np

from headstart.dataset import Dataset, Photo, Skipped, number_photos
from headstart.errors import DataError
from headstart.files import shown
from headstart.readers import cifar, idx
from headstart.readers.download import fetch_files

FASHION = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)  # https://github.com/zalandoresearch/fashion-mnist, "Labels"


def digits(source: str | None = None) -> Dataset:
    """1,797 gray images of handwritten digits, 8x8 pixels, from scikit-learn's package; no given split.

    The values 0..16 of the original (Alpaydin and Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI) become
    0..255. The table is read straight from the package, as importing scikit-learn takes seconds.

    Raises:
        DataError: scikit-learn is not installed, or a `source` is given.
    """
    _refuse_source("digits", source)
    table = _package_folder("sklearn", "digits", "digits") / "datasets" / "data" / "digits.csv.gz"
    try:
        with gzip.open(table, "rt", encoding="ascii") as file:
            values = np.loadtxt(file, delimiter=",", dtype=np.int64)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"cannot read {shown(table)}, scikit-learn's table of digits; install scikit-learn again"
        ) from error
    pixels = ((values[:, :64] * 255 + 8) // 16).astype(np.uint8).reshape(-1, 8, 8)
    return Dataset(
        name="digits",
        root=table.parent,
        classes=tuple("0123456789"),
        photos=tuple(number_photos("digits", values[:, 64])),
        arrays={"digits": pixels},
    )


def elpv(source: str | None = None) -> Dataset:
    """2,624 photos of solar cells in electroluminescence, 300x300 pixels, from the package `elpv-dataset`; no split.

    Experts gave each cell a probability of being defective: 0, 1/3, 2/3 or 1. The rule here: below 0.5 a cell is
    "sound", else "defective". Licence of the photos: CC BY-NC-SA 4.0, not for commercial use (Deitsch et al. 2019,
    "Automatic classification of defective photovoltaic module cells in electroluminescence images", Solar Energy 185).

    Raises:
        DataError: the package is not installed or not as expected, or a `source` is given.
    """
    _refuse_source("elpv", source)
    root = _package_folder("elpv_dataset", "elpv", "demo") / "data"
    classes = ("defective", "sound")
    photos, skipped = [], []
    try:
        for line in (root / "labels.csv").read_text("utf-8").splitlines():
            path, probability, _ = line.split()  # the third column is the kind of the cell: mono or poly
            photos.append(Photo(path, classes.index("sound" if float(probability) < 0.5 else "defective")))
            if not (root / path).is_file():
                skipped.append(Skipped(photos.pop().path, "missing", "not in the package"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {shown(root / 'labels.csv')}; pip install --force-reinstall elpv-dataset"
        ) from error
    return Dataset(
        name="elpv",
        root=root,
        classes=classes,
        photos=tuple(photos),
        skipped=tuple(skipped),
        warnings=(
            "elpv: a cell counts as defective where the experts' probability of a defect is 0.5 or more, else as sound",
            "elpv: the photos are under CC BY-NC-SA 4.0: not for commercial use",
        ),
    )


def mnist(source: str | None = None) -> Dataset:
    """70,000 gray images of handwritten digits, 28x28 pixels, with the official split into 60,000 and 10,000."""
    folder = _find_folder("mnist", source, ("mnist", "MNIST", "MNIST/raw"), idx.FILE_NAME)
    return idx.read_idx_folder(folder, name="mnist", classes=tuple("0123456789"))


def fashion_mnist(source: str | None = None) -> Dataset:
    """70,000 gray images of clothing, 28x28 pixels, with the official split (Xiao, Rasul and Vollgraf 2017)."""
    places = ("fashion-mnist", "FashionMNIST", "FashionMNIST/raw")
    folder = _find_folder("fashion-mnist", source, places, idx.FILE_NAME)
    return idx.read_idx_folder(folder, name="fashion-mnist", classes=FASHION)


def cifar10(source: str | None = None) -> Dataset:
    """60,000 colour images of 32x32 pixels in 10 classes, with the official split into 50,000 and 10,000."""
    wanted = re.compile(f"{cifar.FILE_NAME.pattern}|{cifar.META_NAME.pattern}")
    folder = _find_folder("cifar10", source, ("cifar10", "CIFAR10", "."), wanted)
    return cifar.read_cifar(folder, name="cifar10")


BUILTIN: dict[str, Callable[[str | None], Dataset]] = {
    "cifar10": cifar10,
    "digits": digits,
    "elpv": elpv,
    "fashion-mnist": fashion_mnist,
    "mnist": mnist,
}


def _refuse_source(name: str, source: str | None) -> None:
    if source is not None:
        raise DataError(f"'{name}' comes from its Python package; give the name alone, without '={shown(source)}'")


def _package_folder(package: str, name: str, extra: str) -> Path:
    """Where a package is installed; found without importing it, so none of its code runs."""
    found = importlib.util.find_spec(package)
    places = (found.submodule_search_locations or []) if found else []
    if not places:
        raise DataError(f"'{name}' needs a package that is not installed; pip install 'headstart[{extra}]'")
    return Path(places[0])


def _find_folder(name: str, source: str | None, usual: tuple[str, ...], wanted: re.Pattern[str]) -> Path:
    """The folder with the files of a set: where the user says, else a usual place under $HEADSTART_DATASETS."""
    if source is not None and re.match(r"https?:", source, re.IGNORECASE):
        return fetch_files(source, wanted)
    shelf = os.environ.get("HEADSTART_DATASETS")
    places = [Path(source)] if source is not None else [Path(shelf, place) for place in usual] if shelf else []
    for place in places:
        if place.is_dir() and (idx.has_idx_files(place) if wanted is idx.FILE_NAME else cifar.find_batches(place)):
            return place
    looked = f"not found in {shown(places[0])}" if places else "HEADSTART_DATASETS is not set"
    raise DataError(
        f"the files of '{name}' are not here ({looked}); set HEADSTART_DATASETS to the folder that holds "
        f"{shown(usual[0])}/, or give {name}=FOLDER or {name}=URL#sha256=..."
    )
