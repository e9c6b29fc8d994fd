"""What is wrong with the photos, told in the report: each kind of problem with its meaning and its first cases."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

LISTED = 40  # cases listed of each problem; all of them are in metrics.json or in `headstart scan --json`


def data_problems(data: Mapping[str, Any], scan: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Collect the problems that were found, the gravest first.

    Args:
        data: the `data` object of metrics.json (`skipped`, `kept_out`).
        scan: what `headstart scan --json` prints, or empty.

    Returns:
        One dict a kind of problem: what, meaning, count, entries (texts, at most `LISTED`).
    """
    found = [
        _problem(
            "photo with more than one label",
            "photos with more than one label",
            "The same picture stands in several classes. It is used in none of them: decide which class is right.",
            scan.get("label_conflicts", []),
            _conflict,
        ),
        _problem(
            "training photo that is also in the test",
            "training photos that are also in the test",
            "They were removed from the training, so that the test stays a test.",
            scan.get("leaks", []),
            lambda leak: f"{leak['train']} = {leak['test']} ({leak['kind']})",
        ),
        _problem(
            "file could not be used",
            "files could not be used",
            "They were left out. Repair or remove them.",
            data.get("skipped", []),
            lambda item: f"{item['path']}: {item['reason']}" + (f" ({item['detail']})" if item.get("detail") else ""),
        ),
        _problem(
            "photo was kept out",
            "photos were kept out",
            "They are readable but take no part, for the reason given.",
            data.get("kept_out", []),
            lambda item: f"{item['path']}: {item['reason']}",
        ),
        _problem(
            "group of identical photos",
            "groups of identical photos",
            "Copies teach nothing new. All copies of a photo are kept on one side of the split.",
            scan.get("duplicates", []),
            " = ".join,
        ),
        _problem(
            "group of nearly identical photos",
            "groups of nearly identical photos",
            "Resized, re-compressed or turned copies. Each group is kept on one side of the split.",
            scan.get("near_duplicates", []),
            " ~ ".join,
        ),
    ]
    return [problem for problem in found if problem["count"]]


def _problem(one: str, many: str, meaning: str, cases: Sequence[Any], text: Callable[[Any], str]) -> dict[str, Any]:
    what = one if len(cases) == 1 else many
    return {"what": what, "meaning": meaning, "count": len(cases), "entries": [text(case) for case in cases[:LISTED]]}


def _conflict(conflict: Mapping[str, Any]) -> str:
    return " = ".join(f"{path} ({label})" for path, label in zip(conflict["paths"], conflict["labels"], strict=False))
