"""The documents of a run as bytes: JSON without NaN, nothing about the machine that made them, within their limits."""

import csv
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

import numpy as np

from headstart.errors import RunError
from headstart.runs.cells import cell_text, write_predictions_csv
from headstart.runs.guarded import METRICS_LIMIT, parse_json

_PLACES = {"run", "out", "weights"}  # keys whose value is a path
_EXACT = {"classes"}  # keys whose value must stay as it is: names, whatever they look like
_LISTED = 5_000  # files that metrics.json names when all of them would not fit


def portable(value: Any) -> Any:
    """Copy a JSON value without what belongs to this machine: absolute paths, the home and the working folder.

    A path that stands alone becomes its last name; in a sentence, the home folder becomes `~` and the working folder
    is left out. Names of classes stay exactly as they are.

    >>> portable({"weights": "/home/ann/nets/mine.safetensors", "classes": ["/a"], "seed": 0})
    {'weights': 'mine.safetensors', 'classes': ['/a'], 'seed': 0}
    """
    return _portable(value, _own_places())


def _own_places() -> list[tuple[str, str]]:
    """What to replace, the longest first, each with a separator at its end."""
    found = {f"{Path.cwd()}{os.sep}": ""}
    with suppress(RuntimeError):  # no home folder is known
        found[f"{Path.home()}{os.sep}"] = f"~{os.sep}"
    return sorted(((place, short) for place, short in found.items() if len(place) > 2), key=lambda item: -len(item[0]))


def _portable(value: Any, places: Sequence[tuple[str, str]], key: str = "") -> Any:
    if key in _EXACT:
        return value
    if isinstance(value, Mapping):
        return {name: _portable(item, places, name) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_portable(item, places, key) for item in value]
    if not isinstance(value, str):
        return value
    if key in _PLACES and (PurePosixPath(value).is_absolute() or PureWindowsPath(value).is_absolute()):
        return PureWindowsPath(value).name
    for place, short in places:
        value = value.replace(place, short)
    return value


def json_bytes(value: Any, *, spacious: bool = True) -> bytes:
    """Write a JSON document: ASCII only, so that any file name survives; NaN and infinite numbers become null.

    Args:
        value: of dicts, lists, text, numbers (NumPy's too), booleans and None.
        spacious: a line for each entry; False: no spaces at all, for large documents.
    """
    plain = finite(value)
    if spacious:
        return (json.dumps(plain, indent=1, allow_nan=False) + "\n").encode()
    return (json.dumps(plain, separators=(",", ":"), allow_nan=False) + "\n").encode()


def finite(value: Any) -> Any:
    """Copy a JSON value with NumPy numbers made plain, tuples made lists, and NaN and infinite numbers made None."""
    if isinstance(value, Mapping):
        return {str(name): finite(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | np.generic):
        return finite(value.tolist())
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def metrics_bytes(metrics: Mapping[str, Any]) -> bytes:
    """Write metrics.json within its limit, leaving out the bulkiest parts if need be, and saying so in `left_out`.

    First the confusion matrices go (thousands of classes), then all but the first skipped files (hundreds of
    thousands of them); the counts stay.
    """
    left_out: list[str] = []
    for shrink in (_as_it_is, _without_confusion, _with_short_lists):
        metrics = shrink(metrics, left_out)
        data = json_bytes(metrics | {"left_out": left_out} if left_out else metrics, spacious=False)
        if len(data) <= METRICS_LIMIT and _readable(data):
            spacious = json_bytes(json.loads(data))
            return spacious if len(spacious) <= METRICS_LIMIT // 8 else data
    return data


def _readable(data: bytes) -> bool:
    try:
        parse_json(data, "metrics.json")
    except RunError:
        return False
    return True


def _as_it_is(metrics: Mapping[str, Any], _: list[str]) -> dict[str, Any]:
    return dict(metrics)


def _without_confusion(metrics: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    left_out.append("the confusion matrices: too many classes")
    parts = {name: {**metrics[name], "confusion": None} for name in ("test", "validation") if metrics.get(name)}
    return {**metrics, **parts}


def _with_short_lists(metrics: Mapping[str, Any], left_out: list[str]) -> dict[str, Any]:
    data = dict(metrics["data"])
    for name in ("skipped", "kept_out"):
        files = data.get(name, [])
        if len(files) > _LISTED:
            left_out.append(f"{len(files) - _LISTED} of the {len(files)} files of data.{name}: too many to list")
            data[name] = files[:_LISTED]
    return {**metrics, "data": data}


def predictions_text(rows: Iterable[Mapping[str, Any]], classes: Sequence[str]) -> str:
    """Return predictions.csv; `headstart.runs.cells` says how."""
    out = io.StringIO(newline="")
    write_predictions_csv(rows, classes, out)
    return out.getvalue()


def history_text(history: Sequence[Mapping[str, float | int]]) -> str:
    """Return history.csv: a row an epoch, the columns of the first row."""
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, [cell_text(name) for name in history[0]], lineterminator="\n")
    writer.writeheader()
    writer.writerows({cell_text(name): value for name, value in row.items()} for row in history)
    return out.getvalue()
