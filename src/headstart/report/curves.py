"""The curves of a training, placed on two charts: loss and accuracy, training and validation, the best epoch marked."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

LEFT, TOP, WIDTH, HEIGHT = 48, 12, 256, 208  # of the plot inside a chart of 320 x 268 units
TICKS = 4  # steps of an axis, about
HIGHEST = 3.0  # a loss above this many times the first one of its curve is drawn at the upper edge

Rows = Sequence[Mapping[str, float | int]]


def training_curves(rows: Rows) -> dict[str, Any] | None:
    """Both charts, or None where no network was trained for two epochs.

    Args:
        rows: of history.csv: `epoch`, `loss`, `accuracy`, and, where there were validation photos, `val_loss` and
            `val_accuracy`.

    Returns:
        charts: of loss and accuracy, each with `title`, `lines` (`name`, `kind`, `points` as SVG has them, `last`),
        `x_ticks`, `y_ticks` (place and text) and `best_x`; best: the row of the epoch with the lowest validation loss.
    """
    rows = [{name: float(value) for name, value in row.items()} for row in rows]
    rows = [row for row in rows if math.isfinite(row.get("loss", math.nan))]
    if len(rows) < 2:
        return None
    checked = [row for row in rows if math.isfinite(row.get("val_loss", math.nan))]
    best = min(checked, key=lambda row: row["val_loss"]) if checked else None
    first = max(row[key] for row in rows[:1] for key in ("loss", "val_loss") if math.isfinite(row.get(key, math.nan)))
    charts = [
        _chart("Loss", rows, "loss", best, low=0.0, high=_highest(rows, "loss", HIGHEST * first), percent=False),
        _chart("Accuracy, %", rows, "accuracy", best, low=_lowest(rows, "accuracy"), high=1.0, percent=True),
    ]
    return {"charts": charts, "best": best, "last": rows[-1]}


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
