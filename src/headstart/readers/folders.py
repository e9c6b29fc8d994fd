"""Photos in class folders, with or without the folders train, val and test above them.

```
photos/cat/1.jpg                photos/train/cat/1.jpg
photos/dog/2.jpg                photos/test/dog/2.jpg
```
The folder is walked once, in time linear in the number of files, and no file is opened.
"""

import os
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from pathlib import Path

from headstart.dataset import SPLIT_NAMES, Dataset, Photo, Skipped, list_names
from headstart.errors import DataError
from headstart.files import shown
from headstart.readers.walk import Tree, walk

MANIFEST_SUFFIXES = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")  # what `headstart.readers.manifests` reads


def read_folders(root: Path, *, follow_links: bool = False) -> Dataset:
    """List the photos of class folders.

    Layout: where the folders that hold photos are named train, val, test (see `SPLIT_NAMES`) and hold class folders,
    they are the splits; else every folder directly under `root` is a class. Folders inside a class folder belong to
    that class. Classes are sorted by name, by code point.

    Links: a link to a file is read where it leads to a place inside `root`. Every real folder is read once, at its own
    place; a link to a folder is followed only where nothing else has read it. What leads outside `root` is skipped
    unless `follow_links`. Links in a circle are never followed.

    Args:
        root: the folder; it is only read.
        follow_links: also read what links outside `root` point to.

    Returns:
        The photos, sorted by path; everything else is in `skipped` with its reason, or counted in `ignored`.

    Raises:
        DataError: the folder cannot be read, or no photo lies in a class folder.
    """
    tree = walk(root, follow_links=follow_links)
    splits = _split_folders(tree.files)
    if not splits:
        _refuse_splits_without_classes(root, tree.files)
    placed, misplaced = _place(tree.files, splits)
    skipped = sorted([*tree.skipped, *misplaced], key=lambda item: item.path)
    if not placed:
        raise DataError(_nothing_found(root, tree.files, skipped))
    classes = sorted({name for _, name, _ in placed})
    label = {name: number for number, name in enumerate(classes)}
    return Dataset(
        name=Path(os.path.realpath(root)).name or "data",
        root=Path(root),
        classes=tuple(classes),
        photos=tuple(Photo(path, label[name], split) for path, name, split in placed),
        skipped=tuple(skipped),
        ignored=tree.ignored,
        warnings=tuple(_warnings(root, tree, splits, classes)),
    )


def _place(files: Iterable[str], splits: dict[str, str]) -> tuple[list[tuple[str, str, str | None]], list[Skipped]]:
    """Return (path, class, split) of each photo, and the photos that stand where no class is."""
    placed: list[tuple[str, str, str | None]] = []
    misplaced = []
    for path in files:
        parts = path.split("/", 2 if splits else 1)
        if splits and parts[0].lower() not in SPLIT_NAMES:
            misplaced.append(Skipped(path, "no_split", "the data are the folders " + list_names(sorted(splits))))
        elif len(parts) < (3 if splits else 2):
            misplaced.append(Skipped(path, "no_class"))
        else:
            placed.append((path, parts[-2], splits.get(parts[0])))
    return placed, misplaced


def _split_folders(files: Iterable[str]) -> dict[str, str]:
    """Which top folders are splits, by their own name: {"Train": "train", "holdout": "test"}; none: class folders.

    A class may be called "train" (vehicles). So beside folders of other names, two different splits must be there, one
    of them the training set, each with class folders inside.
    """
    deep = {path.partition("/")[0] for path in files if path.count("/") >= 2}
    splits = {top: SPLIT_NAMES[top.lower()] for top in deep if top.lower() in SPLIT_NAMES}
    tops = {path.partition("/")[0] for path in files if "/" in path}
    others = {top for top in tops if top.lower() not in SPLIT_NAMES}
    if others and not ("train" in splits.values() and len(set(splits.values())) > 1):
        return {}
    return splits


def _refuse_splits_without_classes(root: Path, files: Iterable[str]) -> None:
    tops = sorted({path.partition("/")[0] for path in files if "/" in path})
    if tops and all(top.lower() in SPLIT_NAMES for top in tops):
        raise DataError(
            f"{list_names(tops)} under {shown(root)} hold photos but no class folders; expected for example "
            f"{shown(tops[0])}/cat/1.jpg and {shown(tops[0])}/dog/2.jpg: one sub-folder per class"
        )


def _nothing_found(root: Path, files: Iterable[str], skipped: list[Skipped]) -> str:
    text = f"no photos in class folders under {shown(root)}; expected one sub-folder per class, with photos in it"
    loose = [path for path in files if "/" not in path]
    if loose:
        text += f"; {len(loose):,} photos lie directly in the folder, such as {list_names(loose, 2)}"
    reasons = Counter(item.reason for item in skipped if item.reason != "no_class")
    if reasons:
        found = ", ".join(f"{reason} {count:,}" for reason, count in reasons.most_common())
        text += f"; skipped: {found}"
    manifests = [
        item.path for item in skipped if "/" not in item.path and item.path.lower().endswith(MANIFEST_SUFFIXES)
    ]
    if manifests:
        text += f"; if {list_names(manifests)} lists the labels, give that file instead of the folder"
    return text


def _warnings(root: Path, tree: Tree, splits: dict[str, str], classes: list[str]) -> list[str]:
    warnings = []
    level = 1 if splits else 0  # how many "/" the path of a class folder has
    there = {path.rpartition("/")[2] for path in tree.folders if path.count("/") == level and _in_split(path, splits)}
    if empty := sorted(there.difference(classes)):
        warnings.append(f"no photo in the folders {list_names(empty)}: they are no classes of this data set")
    warnings += [
        f"the class folders {list_names(names)} differ only in case or in how their letters are encoded; "
        "they are taken as different classes: rename them if they are one"
        for names in _look_alikes(classes)
    ]
    if len(classes) == 1 and not splits:
        inner = sorted(path.partition("/")[2] for path in tree.folders if path.startswith(f"{classes[0]}/"))
        if len(inner) > 1:
            place = shown(root / classes[0])
            warnings.append(
                f"there is one class folder only, {list_names(classes)}, and it holds the folders {list_names(inner)}: "
                f"if these are the classes, give {place}"
            )
    return warnings


def _in_split(path: str, splits: dict[str, str]) -> bool:
    return not splits or path.partition("/")[0] in splits


def _look_alikes(classes: list[str]) -> list[list[str]]:
    alike = defaultdict(list)
    for name in classes:
        alike[unicodedata.normalize("NFC", name).casefold().strip()].append(name)
    return [names for names in alike.values() if len(names) > 1]
