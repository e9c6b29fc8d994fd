"""The rows of a CSV, TSV, JSON Lines or Parquet file that lists photos and their labels."""

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.dataset import list_names
from headstart.errors import DataError
from headstart.files import shown

# What a column means, and the names it may have (upper or lower case); the first one found counts.
COLUMNS: dict[str, tuple[str, ...]] = {
    "path": ("file_name", "image", "path", "filepath", "filename", "file", "image_path", "file_path"),
    "label": ("label", "class", "target", "class_name", "category"),
    "split": ("split",),
    "group": ("group",),
}

Row = tuple[int, dict[str, Any] | str]  # line number; the cells by meaning, or a sentence that says why there are none


@dataclass(frozen=True)
class Table:
    """A table as read.

    Args:
        columns: the name of the column that was taken for each meaning: {"path": "Image", "label": "class"}.
        rows: (line number, 1-based; the cells by meaning, or a sentence that says why the row has none).
    """

    columns: dict[str, str]
    rows: list[Row]


def read_table(path: Path) -> Table:
    """Read a table in the form that the file's suffix says.

    Args:
        path: a file with a suffix of `TABLES`.

    Raises:
        DataError: the file is not readable as such a table, or it has no column of paths or of labels.
    """
    try:
        return TABLES[path.suffix.lower()](path)
    except OSError as error:
        raise DataError(f"cannot read {shown(path)}: {error.strerror or error}") from error


def find_columns(names: Iterable[str]) -> dict[str, str]:
    """Find the column of each meaning.

    >>> find_columns(["id", "Image", "CLASS"])
    {'path': 'Image', 'label': 'CLASS'}
    """
    by_name = {name.strip().lower(): name for name in reversed(list(names))}
    fitting = {role: [by_name[alias] for alias in aliases if alias in by_name] for role, aliases in COLUMNS.items()}
    return {role: found[0] for role, found in fitting.items() if found}


def _require_columns(path: Path, names: list[str]) -> dict[str, str]:
    found = find_columns(names)
    missing = [role for role in ("path", "label") if role not in found]
    if missing:
        wanted = " and ".join(f"a {role} column ({' | '.join(COLUMNS[role])})" for role in missing)
        raise DataError(f"{shown(path)} lacks {wanted}; found the columns {list_names(names, 20) or 'none'}")
    return found


def _read_text(path: Path) -> str:
    """Text of a file: UTF-16 where a byte order mark says so, else UTF-8; other bytes are kept as in file names."""
    data = path.read_bytes()
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def _read_delimited(path: Path) -> Table:
    """CSV or TSV, quoted as in RFC 4180; spreadsheets of many countries write a semicolon, so the header decides."""
    text = _read_text(path)
    marks = "\t,;" if path.suffix.lower() == ".tsv" else ",;\t"
    line = 0
    try:
        headers = {mark: next(_cells(text, mark), (1, []))[1] for mark in marks}
        mark = next((mark for mark in marks if {"path", "label"} <= find_columns(headers[mark]).keys()), marks[0])
        columns = _require_columns(path, headers[mark])
        places = {role: headers[mark].index(name) for role, name in columns.items()}
        rows: list[Row] = []
        for line, cells in _cells(text, mark):
            rows.append((line, _pick(cells, places, len(headers[mark]))))
    except csv.Error as error:
        raise DataError(
            f"{shown(path)}: no table row after line {line}: {error}; check the quotation marks there"
        ) from error
    return Table(columns, rows[1:])


def _cells(text: str, mark: str) -> Iterator[tuple[int, list[str]]]:
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=mark, strict=True)
    return ((reader.line_num, cells) for cells in reader if any(cells))


def _pick(cells: list[str], places: dict[str, int], width: int) -> dict[str, Any] | str:
    if any(cells[width:]):
        return f"{len(cells)} cells for {width} columns: a cell that holds the separator must be quoted"
    return {role: cells[place] for role, place in places.items() if place < len(cells)}


def _read_json_lines(path: Path) -> Table:
    """One JSON object a line; the columns are all keys of all lines."""
    names: dict[str, None] = {}
    lines: list[tuple[int, Any]] = []
    for number, line in enumerate(_read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        try:
            cells = json.loads(line)
            lines.append((number, cells if isinstance(cells, dict) else "expected a JSON object"))
            names |= dict.fromkeys(cells) if isinstance(cells, dict) else {}
        except (ValueError, RecursionError) as error:
            lines.append((number, f"no JSON: {error}"))
    columns = _require_columns(path, list(names))
    return Table(
        columns,
        [
            (number, cells if isinstance(cells, str) else {role: cells.get(name) for role, name in columns.items()})
            for number, cells in lines
        ],
    )


def _read_parquet(path: Path) -> Table:
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError as error:
        raise DataError(
            f"{shown(path)} is a Parquet file and pyarrow, which reads those, is not installed; "
            "pip install 'headstart[parquet]', or save the table as CSV"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            nested = pyarrow.types.is_nested
            columns = _require_columns(
                path, [item.name + " (nested)" * nested(item.type) for item in file.schema_arrow]
            )
            rows = file.read(columns=list(columns.values())).to_pylist()
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        raise DataError(f"{shown(path)} is no readable Parquet file: {shown(str(error))}") from error
    return Table(
        columns,
        [(number, {role: row[name] for role, name in columns.items()}) for number, row in enumerate(rows, start=1)],
    )


TABLES: dict[str, Callable[[Path], Table]] = {
    ".csv": _read_delimited,
    ".tsv": _read_delimited,
    ".jsonl": _read_json_lines,
    ".ndjson": _read_json_lines,
    ".parquet": _read_parquet,
}
