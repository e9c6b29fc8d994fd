r"""CSV files that hold any file name, come back exactly, and run nothing in a spreadsheet.

A cell of text is written so:

1. A backslash becomes `\\`; a character that is not printable (control characters, bidirectional marks, bytes that
   are no UTF-8, ...) becomes its Python escape: `\n`, `\x1b`, `\u202e`. So a row is one line, and printing the file
   moves no cursor.
2. A cell that then starts with `=`, `+`, `-`, `@` (or their full-width forms), which a spreadsheet would run as a
   formula, or with `'`, gets one `'` before it.

`cell_value` undoes both. A tab or a line end at the start is already an escape after step 1.
"""

import csv
import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from headstart.errors import RunError

FIXED = ("path", "label", "predicted", "probability")  # the first columns of predictions.csv
CELLS_LIMIT = 20_000_000  # numbers in predictions.csv; beyond it the class columns are left out (about 200 MB)
_FORMULA = tuple("=+-@'＝＋－＠")
_ESCAPE = re.compile(r"\\(\\|t|n|r|x[0-9a-f]{2}|u[0-9a-f]{4}|U[0-9a-f]{8})")
_SHORT = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", "\r": "\\r"}
_LONG = {"\\": "\\", "t": "\t", "n": "\n", "r": "\r"}


def cell_text(text: str) -> str:
    r"""Return text as it stands in a CSV cell; `cell_value` gives it back.

    >>> print(cell_text("=cmd|' /C calc'!A0"), cell_text("two\nlines"), cell_text("it's"))
    '=cmd|' /C calc'!A0 two\nlines it's
    """
    escaped = "".join(letter if letter.isprintable() and letter != "\\" else _escape(letter) for letter in text)
    return f"'{escaped}" if escaped.startswith(_FORMULA) else escaped


def _escape(letter: str) -> str:
    if letter in _SHORT:
        return _SHORT[letter]
    code = ord(letter)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"


def cell_value(cell: str) -> str:
    r"""Return the text that `cell_text` wrote.

    >>> cell_value(cell_text("-1\t'quoted'\x00")) == "-1\t'quoted'\x00"
    True
    """
    plain = cell[1:] if cell.startswith("'") and cell[1:].startswith(_FORMULA) else cell
    return _ESCAPE.sub(lambda match: _unescape(match[1]), plain)


def _unescape(escape: str) -> str:
    return _LONG.get(escape) or chr(int(escape[1:], 16))


def number_text(value: float) -> str:
    """Return a probability as it stands in a CSV cell: 7 significant digits, never with a sign.

    >>> number_text(0.98765432), number_text(0.0), number_text(1e-9)
    ('0.9876543', '0', '1e-09')
    """
    return f"{max(float(value), 0.0):.7g}"


def write_predictions_csv(rows: Iterable[Mapping[str, Any]], classes: Sequence[str], file: io.TextIOBase) -> int:
    """Write predictions.csv: every test photo with its label, what was predicted and every probability.

    Args:
        rows: `{"path", "label", "predicted", "probability", "probabilities": {class: p}}`, one a photo.
        classes: the class names, in their order; one column each, after the four of `FIXED`. Tables of more than
            `CELLS_LIMIT` numbers are written without these columns.
        file: opened with `newline=""`.

    Returns:
        The number of rows.
    """
    rows = list(rows)
    shown_classes = classes if len(rows) * len(classes) <= CELLS_LIMIT else ()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow([*FIXED, *map(cell_text, shown_classes)])
    for row in rows:
        values = row["probabilities"]
        writer.writerow(
            [cell_text(row[name]) for name in FIXED[:3]]
            + [number_text(row["probability"])]
            + [number_text(values[name]) for name in shown_classes]
        )
    return len(rows)


def read_predictions_csv(data: bytes, name: str) -> Iterator[dict[str, Any]]:
    """Read predictions.csv row by row, in the form `write_predictions_csv` took; `probabilities` may be empty.

    Args:
        data: the file.
        name: what to call it in an error.

    Raises:
        RunError: it is no such table.
    """
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(data), encoding="utf-8", newline=""))
    try:
        header = next(reader, [])
        if tuple(header[:4]) != FIXED:
            raise RunError(f"{name} is damaged: its first columns are not {', '.join(FIXED)}")
        classes = [cell_value(cell) for cell in header[4:]]
        for cells in reader:
            yield _row(cells, classes)
    except (csv.Error, ValueError) as error:
        raise RunError(f"{name} is damaged at line {reader.line_num}: {error}") from error


def _row(cells: list[str], classes: list[str]) -> dict[str, Any]:
    if len(cells) != len(FIXED) + len(classes):
        raise ValueError(f"{len(cells)} cells where the header has {len(FIXED) + len(classes)}")
    path, label, predicted = map(cell_value, cells[:3])
    return {
        "path": path,
        "label": label,
        "predicted": predicted,
        "probability": float(cells[3]),
        "probabilities": dict(zip(classes, map(float, cells[4:]), strict=True)),
    }
