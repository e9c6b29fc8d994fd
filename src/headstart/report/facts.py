"""The numbers and sentences of the report, worked out before any HTML is written."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from headstart.metrics import accuracy_interval

Row = Mapping[str, Any]  # {"path", "label", "predicted", "probability", "probabilities"}: a row of predictions.csv

GROUP, MOST_GROUPS = 25, 10  # answers a point of the calibration chart, and how many points it has at most
THRESHOLDS = (0.0, 0.8, 0.9, 0.95, 0.99)  # of "answer only when at least so sure"
SHADES = 8  # steps of the shading of the confusion matrix
MATRIX_CLASSES = 30  # a larger matrix is drawn as a picture, with its worst pairs as a table
PAIRS = 8  # most confused pairs that are listed
MISTAKES = 24  # thumbnails
APART = 0.05  # by which the best and the worst class must differ for the worst to be named at the top


def headline(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """How good, how sure, and what a guess would score.

    Args:
        metrics: the document of CONTRACT; `test` needs accuracy, accuracy_ci95 and per_class with supports.

    Returns:
        accuracy, low, high, baseline (shares); photos, right, wrong (counts); common (the most frequent class);
        better (a guess is outside the interval).
    """
    test = metrics["test"]
    supports = {name: int(row["support"]) for name, row in test["per_class"].items()}
    photos = sum(supports.values())
    common = max(supports, key=lambda name: supports[name])
    right = round(test["accuracy"] * photos)
    baseline = supports[common] / max(photos, 1)
    low, high = test["accuracy_ci95"]
    return {
        "accuracy": test["accuracy"],
        "low": low,
        "high": high,
        "photos": photos,
        "right": right,
        "wrong": photos - right,
        "baseline": baseline,
        "common": common,
        "better": low > baseline,
        "one_photo": 1 / max(photos, 1),
    }


def verdict(metrics: Mapping[str, Any], head: Mapping[str, Any]) -> dict[str, Any]:
    """What the first screen says besides the figure: the class to watch, and the first thing to do.

    Args:
        metrics: the document of CONTRACT.
        head: from `headline`.

    Returns:
        weakest: the row of the class that is recognised least often, or None where none stands out (all are within
        five points); first: the gravest finding, or None; more: how many others there are; held_out: the measures on
        photos that were held out of the training, or None; one_in: one answer in so many is wrong, or None where
        that says nothing.
    """
    rows = [row for row in class_rows(metrics["test"]) if row["recall"] is not None and row["support"]]
    apart = len(rows) > 1 and rows[-1]["recall"] - rows[0]["recall"] > APART
    diagnosis = metrics.get("diagnosis") or []
    held = metrics.get("validation") or {}
    return {
        "weakest": rows[0] if apart else None,
        "first": diagnosis[0] if diagnosis else None,
        "more": max(len(diagnosis) - 1, 0),
        "held_out": held if isinstance(held.get("accuracy"), float | int) else None,
        "one_in": round(1 / (1 - head["accuracy"])) if 0.5 <= head["accuracy"] < 1 else None,
    }


def matrix(test: Mapping[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The confusion matrix row by row: true class, its photos, and a shaded cell for each predicted class.

    Returns:
        One dict a class: name, place, total, cells; a cell has count, share (of the row), column, right (on the
        diagonal), and shade: 0 for none, else 1..SHADES: by the share of the row on the diagonal, by its square root
        off it, where shares are small.
    """
    rows = []
    for index, (name, counts) in enumerate(zip(classes, test["confusion"], strict=True)):
        total = sum(counts)
        cells = [
            {
                "count": count,
                "share": count / total if total else 0.0,
                "right": column == index,
                "column": column,
                "shade": _shade(count / total, column == index) if count else 0,
            }
            for column, count in enumerate(counts)
        ]
        rows.append({"name": name, "place": index, "total": total, "cells": cells})
    return rows


def _shade(share: float, right: bool) -> int:
    return math.ceil(SHADES * (share if right else share**0.5))


def confused_pairs(test: Mapping[str, Any], classes: Sequence[str]) -> list[dict[str, Any]]:
    """The pairs taken for each other most often, at most `PAIRS`: label, predicted, count, total of the label."""
    found = [
        (count, row, column)
        for row, counts in enumerate(test["confusion"])
        for column, count in enumerate(counts)
        if count and row != column
    ]
    found.sort(key=lambda item: (-item[0], item[1], item[2]))
    return [
        {"label": classes[row], "predicted": classes[column], "count": count, "total": sum(test["confusion"][row])}
        for count, row, column in found[:PAIRS]
    ]


def class_rows(test: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The classes, the least often recognised first; a class without a measure comes last."""
    rows = [{"name": name, **row} for name, row in test["per_class"].items()]
    return sorted(rows, key=lambda row: (row["recall"] is None, row["recall"] or 0.0, row["name"]))


def calibration(rows: Sequence[Row]) -> dict[str, Any]:
    """What the classifier says against how often it is right.

    The answers are sorted by how sure they are and cut into groups of equal size, at least `GROUP` where there are so
    many, so that no point stands for a handful of photos.

    Returns:
        points: for each group the mean probability said, the share right, its 95% interval (low, high) and the count;
        said: mean probability over all; right: share right over all.
    """
    answers = sorted((row["probability"], row["label"] == row["predicted"]) for row in rows)
    groups = min(max(len(answers) // GROUP, 1), MOST_GROUPS)
    edges = [len(answers) * place // groups for place in range(groups + 1)]
    points = []
    for start, end in itertools.pairwise(edges):
        group = answers[start:end]
        if group:
            right = sum(correct for _, correct in group)
            low, high = accuracy_interval(right, len(group))
            said = sum(probability for probability, _ in group) / len(group)
            points.append({"said": said, "right": right / len(group), "low": low, "high": high, "count": len(group)})
    count = max(len(answers), 1)
    return {
        "points": points,
        "said": sum(probability for probability, _ in answers) / count,
        "right": sum(correct for _, correct in answers) / count,
    }


def calibration_words(said: float, low: float, high: float) -> str:
    """One sentence on whether a probability can be taken at its word.

    Args:
        said: mean probability of the answers, 0..1.
        low, high: 95% interval of the accuracy, 0..1.
    """
    if low <= said <= high:
        return "Its probabilities can be taken at their word: on average they agree with how often it is right."
    if said > high:
        return "It is surer than it should be: read its probabilities as a ranking, not as odds."
    return "It is less sure than it could be: it is right more often than its probabilities say."


def coverage(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """What happens if it answers only when it is sure enough, the rest going to a person.

    Returns:
        For each of `THRESHOLDS`: threshold, answered (count), share (answered of all), right (share of the answered;
        None if none), wrong (count).
    """
    table = []
    for threshold in THRESHOLDS:
        kept = [row["label"] == row["predicted"] for row in rows if row["probability"] >= threshold]
        table.append(
            {
                "threshold": threshold,
                "answered": len(kept),
                "share": len(kept) / max(len(rows), 1),
                "right": sum(kept) / len(kept) if kept else None,
                "wrong": len(kept) - sum(kept),
            }
        )
    return table


def worst_mistakes(rows: Sequence[Row]) -> list[Row]:
    """The wrong answers it was surest of, at most `MISTAKES`, the surest first."""
    wrong = [row for row in rows if row["label"] != row["predicted"]]
    return sorted(wrong, key=lambda row: (-row["probability"], row["path"]))[:MISTAKES]


def steps_of_time(timings: Mapping[str, float]) -> list[dict[str, Any]]:
    """The steps of the run, the longest first: name, seconds, share of the longest, nothing shorter than 1 ms."""
    steps = [(name, seconds) for name, seconds in timings.items() if name != "total" and seconds >= 0.001]
    longest = max((seconds for _, seconds in steps), default=1.0)
    return [
        {"name": name, "seconds": seconds, "share": seconds / longest}
        for name, seconds in sorted(steps, key=lambda item: -item[1])
    ]
