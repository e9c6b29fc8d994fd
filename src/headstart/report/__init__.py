"""One self-contained page that says how good a model is, how sure that is, what is wrong and what to do next.

The page holds no script and makes no request: its style and pictures are inside it, and its content security policy
allows nothing else. Everything that comes from the data (class names, file names) is escaped when it is printed. A cell
of the confusion matrix is a link to its photos: a part of the page that is hidden until its address is opened.
"""

import re
import shlex
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from html import unescape
from typing import Any

from headstart.backbones.engines import available_threads
from headstart.files import shown
from headstart.report import facts
from headstart.report.cells import PICTURES, Cell, cells_of, pages_of
from headstart.report.curves import learning_chart, measured_rows, training_curves
from headstart.report.maps import Maps, answer_maps
from headstart.report.pictures import SMALL_SIDE, as_text, make_thumbnail, matrix_picture, shade_matrix
from headstart.report.printing import asset, safe, style_hash, template
from headstart.report.problems import data_problems
from headstart.runs.documents import portable

__all__ = ["SMALL_SIDE", "Maps", "answer_maps", "make_thumbnail", "render_report", "shade_matrix"]

Draw = Callable[[str], bytes | None]  # from a photo's path to the bytes of a JPEG without metadata
WEIGHT = 3_500_000  # characters of all pictures of cells: photos of mere noise would make the page too large
ELSEWHERE = {"size", "similarity", "remedies", "state", "forecast", "candidates", "probes"}  # told with a picture


def render_report(
    metrics: Mapping[str, Any],
    plan: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    predictions: Sequence[facts.Row],
    thumbnail: Draw,
    small: Draw | None = None,
    maps: Callable[[Sequence[facts.Row]], Maps] | None = None,
    scan: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, float | int]] = (),
    picture: str = "",
    layers: Mapping[str, Any] | None = None,
) -> str:
    """Return the report of a run as one HTML page.

    Args:
        metrics: what `metrics.json` holds.
        plan: what `plan.json` holds.
        config: what `config.json` holds.
        predictions: every test photo: path, label, predicted, probability.
        thumbnail: draws a photo (`make_thumbnail`). Called for the worst mistakes only, at most 24 times.
        small: draws a photo with sides of `SMALL_SIDE`, from several threads; at most `cells.PICTURES` times. None: the
            photos of a cell are listed by name.
        maps: shows where the evidence for wrong answers lies (`answer_maps`); None: not shown.
        scan: what `headstart scan --json` prints, for the problems of the data.
        history: a row an epoch, as in history.csv; none where no network was trained.
        picture: of the four cases, SVG; none where the case was not measured.
        layers: the table of the network (`headstart.report.layer_table`).

    Returns:
        HTML, complete in itself.
    """
    metrics, plan, config = portable(metrics), portable(plan), portable(config)
    test, classes = metrics["test"], metrics["classes"]
    head = facts.headline(metrics)
    calibration = facts.calibration(predictions)
    drawn = len(classes) <= facts.MATRIX_CLASSES and test.get("confusion") is not None
    style, run, evidence = asset("report.css"), metrics.get("run", "RUN"), plan.get("evidence", {})
    worst = facts.worst_mistakes(predictions)
    cells = cells_of(predictions, classes, PICTURES if small else 0)
    mistakes, mapped, pictures = _draw_all(worst, cells, thumbnail, small, maps)
    page: str = template().render(
        title=metrics["data"].get("name") or run,
        style=safe(style),
        style_hash=safe(style_hash(style)),
        head=head,
        verdict=facts.verdict(metrics, head),
        test=test,
        classes=classes,
        data=metrics["data"],
        timings=metrics.get("timings", {}),
        diagnosis=metrics.get("diagnosis", []),
        matrix=facts.matrix(test, classes) if drawn else None,
        matrix_picture=None if drawn else matrix_picture(test.get("confusion")),
        cells=[(cell, pages_of(cell, pictures)) for cell in cells],
        mixed_up=_mixed_up(cells),
        pairs=facts.confused_pairs(test, classes),
        class_rows=facts.class_rows(test),
        places={name: place for place, name in enumerate(classes)},
        calibration=calibration,
        calibration_words=facts.calibration_words(calibration["said"], head["low"], head["high"]),
        curve=_curve(calibration["points"]),
        training=training_curves(history, plan.get("best_epoch")),
        learning=learning_chart(evidence.get("forecast")),
        coverage=facts.coverage(predictions),
        mistakes=mistakes,
        maps=mapped,
        problems=data_problems(metrics["data"], scan or {}),
        warnings=(scan or {}).get("warnings") or metrics["data"].get("warnings", []),
        per_class_photos=_photos_of_classes((scan or {}).get("classes", {})),
        plan=plan,
        candidates=measured_rows(evidence.get("candidates") or [], ("strategy", "cut")),
        probes=measured_rows(evidence.get("probes") or [], ("cut", "length")),
        evidence=_evidence(evidence),
        remedies=evidence.get("remedies", []),
        picture=as_text(picture.encode()),
        picture_words=_description(picture),
        layers=layers,
        time_steps=facts.steps_of_time(metrics.get("timings", {})),
        features=metrics.get("features"),
        provenance=_provenance(metrics),
        config=config,
        version=metrics.get("provenance", {}).get("headstart", ""),
        **_how_to_use(run),
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _draw_all(
    worst: Sequence[facts.Row],
    cells: Sequence[Cell],
    thumbnail: Draw,
    small: Draw | None,
    maps: Callable[[Sequence[facts.Row]], Maps] | None,
) -> tuple[list[dict[str, Any]], Maps, dict[str, str | None]]:
    """All pictures of the page, drawn side by side: mistakes, the evidence for them, and the photos of the cells."""
    paths = [row["path"] for cell in cells for row in cell.rows[: cell.pictured]]
    pool = ThreadPoolExecutor(max(2, available_threads()), thread_name_prefix="report")
    try:
        found: Future[Maps] | None = None if maps is None else pool.submit(maps, worst)
        drawn = [] if small is None else [pool.submit(small, path) for path in paths]
        shown_large = [as_text(thumbnail(row["path"])) for row in worst]
        pictures = _within(paths, [as_text(one.result()) for one in drawn])
        template()  # made ready while the engine that draws the maps starts
        mapped = Maps() if found is None else found.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    mistakes = [
        {**row, "picture": large, "map": as_text(mapped.pictures.get(row["path"]))}
        for row, large in zip(worst, shown_large, strict=True)
    ]
    return mistakes, mapped, pictures


def _within(paths: Sequence[str], drawn: Sequence[str | None]) -> dict[str, str | None]:
    """The pictures by their paths; those beyond what a page should weigh are left out."""
    kept, weight = {}, 0
    for path, picture in zip(paths, drawn, strict=True):
        weight += len(picture or "")
        kept[path] = picture if weight <= WEIGHT else None
    return kept


def _mixed_up(cells: Sequence[Cell]) -> list[Cell]:
    """The cells of wrong answers, the fullest first."""
    wrong = [cell for cell in cells if not cell.right]
    return sorted(wrong, key=lambda cell: (-len(cell.rows), cell.row, cell.column))


def _description(picture: str) -> str:
    """What a drawing says of itself, for those who do not see it."""
    told = re.search(r"<desc>(.*?)</desc>", picture, re.DOTALL)
    return unescape(told[1]) if told else "The four cases of transfer learning, with these photos placed among them."


def _curve(points: Sequence[Mapping[str, float]]) -> list[dict[str, Any]]:
    """Place the calibration points on the chart: 260 x 240 units from (44, 250)."""
    return [
        {
            **point,
            "x": round(44 + 260 * point["said"], 1),
            "y": round(250 - 240 * point["right"], 1),
            "top": round(250 - 240 * point["high"], 1),
            "bottom": round(250 - 240 * point["low"], 1),
        }
        for point in points
    ]


def _photos_of_classes(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The classes by their number of photos; too many of them would bury what matters."""
    if not counts or len(counts) > facts.MATRIX_CLASSES:
        return []
    most = max(*counts.values(), 1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "count": count, "share": count / most} for name, count in ordered]


def _evidence(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the plan rests on besides what has a picture: a list of objects becomes a table, anything else a line."""
    items = []
    told = {name: value for name, value in evidence.items() if name not in ELSEWHERE}
    if isinstance(evidence.get("forecast"), Mapping):
        told["learning curve"] = evidence["forecast"].get("points", [])
    for name, value in told.items():
        rows = value if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value) else None
        columns = list(dict.fromkeys(key for row in rows for key in row)) if rows else []
        items.append({"name": name, "value": value, "columns": columns, "rows": (rows or [])[:40]})
    return [item for item in items if item["value"] or item["value"] == 0]


def _provenance(metrics: Mapping[str, Any]) -> list[tuple[str, Any]]:
    known = dict(metrics.get("provenance", {}))
    if fingerprint := metrics["data"].get("fingerprint"):
        known["data"] = fingerprint
    return list(known.items())


def _how_to_use(run: str) -> dict[str, str]:
    place = shlex.quote(shown(run))
    return {
        "commands": f"headstart predict {place} new.jpg\n"
        f"headstart predict {place} inbox/ --format csv > answers.csv\n"
        f"headstart explain {place} new.jpg\n"
        f"headstart evaluate {place} other_photos/",
        "python": f"import headstart\n\nrun = headstart.load({shown(run)!r})\n"
        'answer = run.predict("new.jpg")\nprint(answer.label, answer.probability)',
        "export": f"headstart export {place} --to onnx --data photos/",
        "serve": f"headstart serve {place} --port 8000\n"
        "curl --data-binary @new.jpg -H 'Content-Type: image/jpeg' localhost:8000/v1/predict",
    }
