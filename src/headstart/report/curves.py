"""Curves, placed on charts: loss and accuracy by epoch, accuracy by the number of photos, strategies with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEFT, TOP, WIDTH, HEIGHT = 48, 12, 256, 208  # of the plot inside a chart of 320 x 268 units
TICKS = 4  # steps of an axis, about
HIGHEST = 3.0  # a loss above this many times the first one of its curve is drawn at the upper edge

Rows = Sequence[Mapping[str, float | int]]


def training_curves(rows: Rows, kept: object = None) -> dict[str, Any] | None:
    """Both charts, or None where no network was trained for two epochs.

    Args:
        rows: of history.csv: `epoch`, `loss`, `accuracy`, and, where there were validation photos, `val_loss` and
            `val_accuracy`.
        kept: the epoch whose weights the net has, where it is known; else that of the lowest validation loss.

    Returns:
        charts: of loss and accuracy, each with `title`, `lines` (`name`, `kind`, `points` as SVG has them, `last`),
        `x_ticks`, `y_ticks` (place and text) and `best_x`; best: the row of that epoch; lowest: whether its validation
        loss is the lowest.
    """
    rows = [{name: float(value) for name, value in row.items()} for row in rows]
    rows = [row for row in rows if math.isfinite(row.get("loss", math.nan))]
    if len(rows) < 2:
        return None
    checked = [row for row in rows if math.isfinite(row.get("val_loss", math.nan))]
    lowest = min(checked, key=lambda row: row["val_loss"]) if checked else None
    best = next((row for row in checked if row["epoch"] == kept), lowest)
    first = max(row[key] for row in rows[:1] for key in ("loss", "val_loss") if math.isfinite(row.get(key, math.nan)))
    charts = [
        _chart("Loss", rows, "loss", best, low=0.0, high=_highest(rows, "loss", HIGHEST * first), percent=False),
        _chart("Accuracy, %", rows, "accuracy", best, low=_lowest(rows, "accuracy"), high=1.0, percent=True),
    ]
    return {"charts": charts, "best": best, "lowest": best is lowest, "last": rows[-1]}


def _chart(
    title: str, rows: Rows, key: str, best: Mapping[str, float | int] | None, *, low: float, high: float, percent: bool
) -> dict[str, Any]:
    step = nice_step(high - low)
    low, high = math.floor(low / step + 1e-9) * step, math.ceil(high / step - 1e-9) * step
    first, last = rows[0]["epoch"], rows[-1]["epoch"]

    def x(epoch: float) -> float:
        return round(LEFT + WIDTH * (epoch - first) / (last - first), 1)

    def y(value: float) -> float:
        return round(TOP + HEIGHT * (1 - (min(value, high) - low) / (high - low)), 1)

    lines = []
    for name, kind, column in (("training", "train", key), ("validation", "valid", f"val_{key}")):
        known = [(x(row["epoch"]), y(row[column])) for row in rows if math.isfinite(row.get(column, math.nan))]
        if known:
            lines.append({"name": name, "kind": kind, "points": " ".join(f"{across},{up}" for across, up in known)})
    count = round((high - low) / step)
    scale = 100 if percent else 1
    epochs = nice_step(last - first, whole=True)
    marks = [first, *(float(mark) for mark in range(int(epochs), int(last) + 1, int(epochs)) if mark > first)]
    return {
        "title": title,
        "lines": lines,
        "y_ticks": [
            {"place": y(low + number * step), "text": f"{scale * (low + number * step):.4g}"}
            for number in range(count + 1)
        ],
        "x_ticks": [{"place": x(mark), "text": f"{mark:.0f}"} for mark in marks],
        "best_x": None if best is None else x(best["epoch"]),
    }


def learning_chart(forecast: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Accuracy over the number of photos learned from, and what twice as many would give; None where not measured.

    Args:
        forecast: as in plan.json: `points` (photos, accuracy, accuracy_ci95) and `twice`.

    Returns:
        points: x, y, top, bottom, photos, accuracy, ahead (a forecast) each; line: of the measured ones, as SVG has it;
        ahead: from the last of them to the forecast; x_ticks, y_ticks: place and text.
    """
    measured = list((forecast or {}).get("points") or [])
    if forecast is None or len(measured) < 2:
        return None
    twice = forecast.get("twice")
    every = [*measured, *([twice] if twice else [])]
    lowest = float(min(point["accuracy_ci95"][0] for point in every))
    step = nice_step(1.0 - lowest)
    low = math.floor(lowest / step + 1e-9) * step
    first, last = math.log(measured[0]["photos"]), math.log(every[-1]["photos"])

    def x(photos: float | int) -> float:
        return round(LEFT + WIDTH * (math.log(photos) - first) / (last - first), 1)

    def y(value: float | int) -> float:
        return round(TOP + HEIGHT * (1 - (value - low) / (1.0 - low)), 1)

    points = [
        {
            "x": x(point["photos"]),
            "y": y(point["accuracy"]),
            "top": y(point["accuracy_ci95"][1]),
            "bottom": y(point["accuracy_ci95"][0]),
            "photos": round(point["photos"]),
            "accuracy": point["accuracy"],
            "ahead": point is twice,
        }
        for point in every
    ]
    known = [point for point in points if not point["ahead"]]
    return {
        "points": points,
        "line": " ".join(f"{point['x']},{point['y']}" for point in known),
        "ahead": " ".join(f"{point['x']},{point['y']}" for point in (known[-1], points[-1])) if twice else "",
        "x_ticks": [{"place": point["x"], "text": f"{point['photos']:,}"} for point in points],
        "y_ticks": [
            {"place": y(low + number * step), "text": f"{100 * (low + number * step):.4g}"}
            for number in range(round((1.0 - low) / step) + 1)
        ],
    }


def measured_rows(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any] | None:
    """Accuracies with their intervals on one common scale; None where nothing has both.

    Args:
        rows: `accuracy` and `accuracy_ci95` (shares, or None), and the columns of `names`.
        names: of the columns that say what was measured.

    Returns:
        low: share at the left end of the scale; rows: `told` (a text for each name), accuracy, low, high, `from`,
        `to`, `at` (places, 0..100; None where not measured) and note.
    """
    known = [row["accuracy_ci95"][0] for row in rows if row.get("accuracy") is not None and row.get("accuracy_ci95")]
    if not known:
        return None
    low = math.floor(10 * min(known)) / 10

    def at(share: float | int) -> float:
        return round(100 * (share - low) / (1 - low), 1) if low < 1 else 100.0

    placed = []
    for row in rows:
        value, span = row.get("accuracy"), row.get("accuracy_ci95")
        whole = value is not None and bool(span)
        placed.append(
            {
                "told": [row.get(name) for name in names],
                "accuracy": value,
                "low": span[0] if span else None,
                "high": span[1] if span else None,
                "from": at(span[0]) if whole and span else None,
                "to": at(span[1]) if whole and span else None,
                "at": at(value) if whole and value is not None else None,
                "note": row.get("note") or "",
            }
        )
    return {"low": low, "rows": placed}


def nice_step(span: float, *, whole: bool = False) -> float:
    """Distance between two ticks: 1, 2, 2.5 or 5 times a power of ten, so that about `TICKS` fit into the span.

    >>> nice_step(0.93), nice_step(9.0, whole=True)
    (0.25, 2.0)
    """
    raw = max(span, 1e-9) / TICKS
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= raw * 0.999)
    return max(1.0, float(math.floor(step))) if whole else step


def _values(rows: Rows, key: str) -> list[float]:
    values = [row.get(column, math.nan) for row in rows for column in (key, f"val_{key}")]
    return [value for value in values if math.isfinite(value)]


def _highest(rows: Rows, key: str, limit: float) -> float:
    return max(min(max(_values(rows, key)), limit), 1e-6)


def _lowest(rows: Rows, key: str) -> float:
    return min(*_values(rows, key), 0.99)
