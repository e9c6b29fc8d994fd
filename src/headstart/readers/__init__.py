"""Every form in which labelled photos arrive, and `open_dataset`, which recognises them."""

import os
import re
from pathlib import Path

from headstart.dataset import Dataset
from headstart.errors import DataError
from headstart.files import shown
from headstart.readers.builtin import BUILTIN
from headstart.readers.cifar import find_batches, read_cifar
from headstart.readers.folders import read_folders
from headstart.readers.idx import FILE_NAME, has_idx_files, read_idx_folder
from headstart.readers.manifests import read_manifest
from headstart.readers.tables import TABLES

__all__ = ["BUILTIN", "open_dataset"]

_FORMS = (
    "a folder of class folders (with train, val, test above them or not), a table of paths and labels "
    f"({' '.join(TABLES)}), a folder of IDX files or CIFAR-10 batches"
)
_ARCHIVE = re.compile(r".*\.(zip|tar|tgz|tbz2|txz|7z|rar|tar\.\w+)", re.IGNORECASE | re.DOTALL)


def open_dataset(data: str | Path, *, follow_links: bool = False) -> Dataset:
    """List the labelled photos of a data set in whatever form it is; nothing is decoded and nothing is written.

    Args:
        data: a folder of class folders, with the folders train, val, test above them or not
            (`headstart.readers.folders`); a CSV, TSV, JSON Lines or Parquet table (`manifests`); a folder of
            MNIST-style IDX files, or one of them (`idx`); a folder of CIFAR-10 batches (`cifar`); a built-in name, or
            name=FOLDER or name=URL#sha256=... (`builtin`). What exists as a file or folder goes before a built-in name.
        follow_links: also read what lies outside the folder and is reached by links or by paths in a table.

    Returns:
        The data set, with everything that was skipped and why.

    Raises:
        DataError: there is no such data set, or no photo in it; the message says what was expected.
    """
    text = os.fspath(data)
    path = Path(text)
    if not text or not _exists(path):
        return _open_builtin(text)
    try:
        dataset = _open_path(path, follow_links=follow_links)
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}") from error
    if text in BUILTIN:
        note = f"'{text}' is a file or folder here, so that was read, not the built-in data set of this name"
        return dataset.warn(note)
    return dataset


def _exists(path: Path) -> bool:
    try:
        path.lstat()
    except (OSError, ValueError):  # ValueError: the name holds a NUL character
        return False
    return True


def _open_builtin(text: str) -> Dataset:
    name, given, source = text.partition("=")
    if name in BUILTIN:
        return BUILTIN[name](source if given else None)
    if re.match(r"https?:", text, re.IGNORECASE):
        raise DataError(
            f"an address alone does not say what is there; expected NAME=URL#sha256=... with a name of "
            f"{', '.join(sorted(BUILTIN))}; download and unpack other data and give the folder"
        )
    raise DataError(
        f"'{shown(text)}' is neither a file or folder here nor a built-in data set; "
        f"built-in: {', '.join(sorted(BUILTIN))}; expected {_FORMS}"
    )


def _open_path(path: Path, *, follow_links: bool) -> Dataset:
    if path.is_dir():
        if has_idx_files(path):
            return read_idx_folder(path)
        if find_batches(path):
            return read_cifar(path)
        return read_folders(path, follow_links=follow_links)
    if not path.is_file():
        raise DataError(f"{shown(path)} is neither a folder nor a regular file; expected {_FORMS}")
    if path.suffix.lower() in TABLES:
        return read_manifest(path, follow_links=follow_links)
    if FILE_NAME.fullmatch(path.name):
        return read_idx_folder(path)
    if _ARCHIVE.fullmatch(path.name):
        raise DataError(f"{shown(path)} is an archive; unpack it and give the folder")
    raise DataError(f"{shown(path)} is a single file; expected {_FORMS}")
