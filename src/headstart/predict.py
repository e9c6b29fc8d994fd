"""Naming the class of files and folders of photos, and printing the answers as they come."""

import csv
import io
import json
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from headstart.classifier import Classifier, Prediction
from headstart.errors import DataError, UsageError
from headstart.files import shown
from headstart.readers.walk import walk
from headstart.runs import Run
from headstart.runs.cells import cell_text, number_text
from headstart.store import Store

LAYOUTS = ("table", "csv", "jsonl")
WIDEST_LABEL = 32  # characters of the label column of a table; longer names push the line to the right


@runtime_checkable
class Stream(Protocol):
    """Where text can be printed: `sys.stdout`, an open file, an `io.StringIO`."""

    def write(self, text: str, /) -> int:
        """Take some text."""

    def flush(self) -> None:
        """Hand on what was taken."""


def predict_paths(
    model: Run | Classifier, paths: Iterable[str | Path], *, threads: int = 0, store: Store | None = None
) -> Iterator[Prediction]:
    """Predict files, and every photo in folders and the folders in them.

    In a folder, files are taken in the order of their names; hidden ones, those that operating systems make, and files
    with the suffix of something that is no image are passed over, as when a data set is read. A file that is named
    itself is always tried. Memory does not grow with the number of photos, but for their names.

    Args:
        model: a run or its classifier.
        paths: files and folders.
        threads: processor threads; 0: all this process may use.
        store: where features are looked up and kept; None: computed and forgotten.

    Yields:
        A prediction for each photo, in that order; one that cannot be read has `error`.

    Raises:
        DataError: a folder cannot be read or has no photo in it.
    """
    classifier = model.classifier if isinstance(model, Run) else model
    waiting: deque[Prediction | None] = deque()  # in order: what is known to be unreadable, None for what is under way

    def readable() -> Iterator[str]:
        for path in paths:
            for name, error in _photos(path):
                waiting.append(None if error is None else Prediction(name, error=error, classes=classifier.classes))
                if error is None:
                    yield name

    for prediction in classifier.predict(readable(), threads=threads, store=store):
        while (known := waiting.popleft()) is not None:
            yield known
        yield prediction
    yield from (known for known in waiting if known is not None)


def _photos(path: str | Path) -> Iterator[tuple[str, str | None]]:
    """Yield the name of each photo, and why it cannot be read if that is known already."""
    if not Path(path).is_dir():
        yield str(path), None
        return
    tree = walk(Path(path))
    found: list[tuple[str, str | None]] = [(name, None) for name in tree.files]
    found += [(item.path, f"{item.reason}: {item.detail}") for item in tree.skipped if item.reason != "not_an_image"]
    if not found:
        raise DataError(f"no photos under {shown(path)}: it holds no file with the suffix of an image")
    for name, error in sorted(found):
        yield str(Path(path) / name), error


def write_predictions(rows: Iterable[Prediction], layout: str, stream: Stream, *, topk: int = 1) -> int:
    """Print predictions as they come.

    table: the label, its probability, and the path; `topk` pairs. For eyes: names are shown without control characters.
    csv: path, label, probability (`topk` pairs), error, then a column for each class; see `headstart.runs.cells`.
    jsonl: one object a line, `{"path", "label", "probability", "probabilities"}` or `{"path", "error"}`; with `topk`
    above 1 also "top", the most probable first. ASCII, so any path survives.

    Args:
        rows: the predictions. They are closed when the reader of `stream` has left: that is no error.
        layout: one of `LAYOUTS`.
        stream: where to print.
        topk: how many classes to name for each photo.

    Returns:
        How many photos could not be read.

    Raises:
        UsageError: there is no such layout.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"unknown format {layout!r}; choose one of: {', '.join(LAYOUTS)}")
    writers: dict[str, type[_Table] | type[_Csv] | type[_JsonLines]]
    writers = {"table": _Table, "csv": _Csv, "jsonl": _JsonLines}
    writer = writers[layout](topk)
    failed = 0
    try:
        for row in rows:
            failed += row.error is not None
            _print(stream, writer.lines(row))
        stream.flush()
    except BrokenPipeError:
        pass  # the reader wants no more, as `| head` does
    finally:
        if isinstance(rows, Generator):
            rows.close()
    return failed


def _print(stream: Stream, lines: Sequence[str]) -> None:
    """A terminal that lacks a letter gets its escape."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    for line in lines:
        stream.write(line.encode(encoding, "backslashreplace").decode(encoding) + "\n")


class _Table:
    def __init__(self, topk: int) -> None:
        self._topk = topk
        self._width = 0

    def lines(self, row: Prediction) -> list[str]:
        if row.error is not None:
            return [f"error: {shown(row.error)}  {shown(row.path)}"]
        if not self._width:
            self._width = min(max(len(shown(name)) for name in row.classes), WIDEST_LABEL)
        named = [f"{shown(name):<{self._width}} {100 * p:5.1f} %" for name, p in row.top(self._topk).items()]
        return ["  ".join([*named, shown(row.path)]) + ("  (unsure)" if row.unsure else "")]


class _Csv:
    def __init__(self, topk: int) -> None:
        self._topk = topk
        self._begun = False

    def lines(self, row: Prediction) -> list[str]:
        count = min(self._topk, len(row.classes))
        lines = [] if self._begun else [_csv_line(self._header(row, count))]
        self._begun = True
        named = [cell for name, p in row.top(count).items() for cell in (cell_text(name), number_text(p))]
        values = [number_text(p) for p in row.probabilities.values()]
        if row.error is not None:
            named, values = [""] * (2 * count), [""] * len(row.classes)
        return [*lines, _csv_line([cell_text(row.path), *named, cell_text(row.error or ""), *values])]

    def _header(self, row: Prediction, count: int) -> list[str]:
        more = [f"{what}_{place}" for place in range(2, count + 1) for what in ("label", "probability")]
        return ["path", "label", "probability", *more, "error", *map(cell_text, row.classes)]


def _csv_line(cells: Sequence[str]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="").writerow(cells)
    return out.getvalue()


class _JsonLines:
    def __init__(self, topk: int) -> None:
        self._topk = topk

    def lines(self, row: Prediction) -> list[str]:
        told = row.to_json()
        if row.error is None and self._topk > 1:
            told["top"] = [{"label": name, "probability": p} for name, p in row.top(self._topk).items()]
        return [json.dumps(told).replace("\x7f", "\\u007f")]
