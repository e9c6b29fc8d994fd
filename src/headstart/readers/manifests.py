"""Photos listed in a table: CSV, TSV, JSON Lines or Parquet, one row a photo.

```
file_name,label,split,group
images/1.jpg,cat,train,house-7
```
"""

import math
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.dataset import SPLIT_NAMES, Dataset, Photo, Skipped, list_names
from headstart.errors import DataError
from headstart.files import shown
from headstart.readers.tables import COLUMNS, Table, read_table
from headstart.readers.walk import is_inside, kind_of_file

_HELD_OUT = {"test": 2, "val": 1, "train": 0, None: 0}  # a photo listed twice belongs to the part that is held out more


def read_manifest(manifest: Path, *, follow_links: bool = False) -> Dataset:
    """List the photos of a table.

    Columns (upper or lower case): `COLUMNS` of `headstart.readers.tables`; the path and the label are needed, split
    (names in `SPLIT_NAMES`, empty: none) and group are not. Paths are relative to the table's folder. Labels are text;
    blanks around them are dropped. Classes are sorted by code point, or by value where all labels are whole numbers.

    A path that leads out of the table's folder (absolute, `..` or a link) is skipped unless `follow_links`: tables
    come from other people together with the photos, and nobody wants a stranger's table to choose what is read.

    Args:
        manifest: the table, with a suffix of `headstart.readers.tables.TABLES`.
        follow_links: also read photos outside the table's folder.

    Returns:
        The photos in the order of their paths; rows that give no photo are in `skipped`, each with its reason.

    Raises:
        DataError: the table cannot be read, lacks a column, or no row gives a photo.
    """
    table = read_table(manifest)
    listing = _Listing(_Locator(str(manifest.parent.absolute()), os.path.realpath(manifest.parent), follow_links))
    for number, cells in table.rows:
        listing.add(number, cells)
    if not listing.entries:
        raise DataError(_nothing_found(manifest, table, listing.skipped))
    classes = _ordered({entry.label for entry in listing.entries.values()})
    number_of = {name: number for number, name in enumerate(classes)}
    photos = [
        Photo(path, number_of[entry.label], entry.split, entry.group) for path, entry in sorted(listing.entries.items())
    ]
    return Dataset(
        name=manifest.stem,
        root=manifest.parent,
        classes=classes,
        photos=tuple(photos),
        skipped=tuple(listing.skipped),
        warnings=tuple(listing.warnings(classes)),
    )


@dataclass(frozen=True, slots=True)
class _Entry:
    label: str
    split: str | None
    group: str | None


@dataclass
class _Listing:
    """The photos of the rows read so far; a photo that comes twice is merged or, under two labels, left out."""

    locate: "_Locator"
    entries: dict[str, _Entry] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    labels: set[str] = field(default_factory=set)
    conflicts: dict[str, _Entry] = field(default_factory=dict)
    repeated: int = 0
    moved: int = 0

    def add(self, number: int, cells: dict[str, Any] | str) -> None:
        """Take one row in, or say why not."""
        row = _interpret(number, cells)
        if isinstance(row, Skipped):
            self.skipped.append(row)
            return
        written, entry = row
        self.labels.add(entry.label)
        found = self.locate(written)
        if isinstance(found, Skipped):
            self.skipped.append(found)
        elif found in self.conflicts:
            self.repeated += 1
        elif found in self.entries:
            self._merge(found, self.entries[found], entry)
        else:
            self.entries[found] = entry

    def _merge(self, path: str, old: _Entry, new: _Entry) -> None:
        if old.label != new.label:
            self.conflicts[path] = self.entries.pop(path)
            detail = f"listed as {list_names([old.label])} and as {list_names([new.label])}"
            self.skipped.append(Skipped(path, "label_conflict", detail))
            return
        self.repeated += 1
        if _HELD_OUT[old.split] != _HELD_OUT[new.split]:
            self.moved += 1
        if _HELD_OUT[new.split] > _HELD_OUT[old.split]:
            self.entries[path] = new

    def warnings(self, classes: tuple[str, ...]) -> Iterator[str]:
        """Sentences about what was merged or lost."""
        if self.repeated:
            yield f"{self.repeated:,} rows list a photo again; each photo counts once"
        if self.moved:
            yield f"{self.moved:,} photos are listed in two splits; they count for test before val before train"
        if lost := sorted(self.labels.difference(classes)):
            yield f"no photo was found for the labels {list_names(lost)}: they are no classes of this data set"


def _interpret(number: int, cells: dict[str, Any] | str) -> tuple[str, _Entry] | Skipped:
    """The path as written and what the row says about it, or why the row cannot be used."""
    line = f"line {number}"
    if isinstance(cells, str):
        return Skipped(line, "malformed_row", cells)
    try:
        path, label, split, group = (_text(cells.get(role)) for role in COLUMNS)
    except TypeError as error:
        return Skipped(line, "malformed_row", str(error))
    if not path.strip():
        return Skipped(line, "malformed_row", "no path")
    if not label.strip():
        return Skipped(path, "no_label", line)
    known = SPLIT_NAMES.get(split.strip().lower())
    if split.strip() and known is None:
        return Skipped(path, "unknown_split", f"{line}: {list_names([split])}")
    return path, _Entry(label.strip(), known, group.strip() or None)


def _text(value: Any) -> str:
    """A cell as text: 3 and 3.0 are the same label, and so are an empty cell, null and NaN.

    >>> _text(3.0), _text(True), _text(float("nan"))
    ('3', 'true', '')
    """
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, bytes):
        return os.fsdecode(value)
    if isinstance(value, list | dict):
        raise TypeError(f"a cell holds a {type(value).__name__}; expected text or a number")
    return str(value)


@dataclass
class _Locator:
    """Finds the file that a row means, and refuses what lies outside the folder of the table.

    It works on text: making a `Path` for every row takes longer than everything else that is done with the row.
    """

    root: str  # absolute
    real_root: str
    follow_links: bool
    real_folders: dict[str, str] = field(default_factory=dict)  # resolving a folder is slow: once each

    def __call__(self, written: str) -> str | Skipped:
        """Return the photo's path as in `Photo.path`, or why there is none."""
        for name in _spellings(written):
            path = os.path.normpath(name)
            full = os.path.join(self.root, path)  # noqa: PTH118 - see above
            try:
                mode = os.lstat(full).st_mode
                real = self._resolve(full, stat.S_ISLNK(mode))
                mode = os.stat(full).st_mode if stat.S_ISLNK(mode) else mode  # noqa: PTH116
            except (OSError, ValueError):  # ValueError: the name holds a NUL character
                continue
            if not self.follow_links and not is_inside(real, self.real_root):
                return Skipped(written, "outside", "outside the table's folder; it is read only with --follow-links")
            if not stat.S_ISREG(mode):
                return Skipped(written, "not_a_file", kind_of_file(mode))
            if full == path and is_inside(path, self.root):  # an absolute path, but into the folder
                path = os.path.relpath(path, self.root)
            return path.replace(os.sep, "/")
        return Skipped(written, "missing", "no such file")

    def _resolve(self, full: str, link: bool) -> str:
        if link:
            return os.path.realpath(full)
        folder, _, name = full.rpartition(os.sep)
        if folder not in self.real_folders:
            self.real_folders[folder] = os.path.realpath(folder or os.sep)
        return f"{self.real_folders[folder]}{os.sep}{name}"


def _spellings(written: str) -> Iterator[str]:
    """The path as written, then as a spreadsheet, another system or a Mac may have changed it."""
    yield written
    changed = [written.strip(), written.replace("\\", "/")]
    changed += [unicodedata.normalize("NFC", written), unicodedata.normalize("NFD", written)]
    yield from (name for name in dict.fromkeys(changed) if name != written)


def _ordered(labels: set[str]) -> tuple[str, ...]:
    """Labels by value where all are whole numbers, as "10" comes after "9"; else by code point."""
    if all(label.isascii() and label.isdecimal() and len(label) < 19 for label in labels):
        return tuple(sorted(labels, key=lambda label: (int(label), label)))
    return tuple(sorted(labels))


def _nothing_found(manifest: Path, table: Table, skipped: list[Skipped]) -> str:
    if not table.rows:
        return f"{shown(manifest)} has a header but no rows; expected one row per photo"
    reasons: dict[str, int] = {}
    for item in skipped:
        reasons[item.reason] = reasons.get(item.reason, 0) + 1
    found = ", ".join(f"{reason} {count:,}" for reason, count in sorted(reasons.items()))
    first = skipped[0]
    return (
        f"none of the {len(table.rows):,} rows of {shown(manifest)} gives a photo ({found}); for example "
        f"{list_names([first.path])}: {first.detail or first.reason}; paths are relative to {shown(manifest.parent)}"
    )
