"""One self-contained page that says how good a model is, how sure that is, what is wrong and what to do next.

The page holds no script and makes no request: its style and thumbnails are inside it, and its content security policy
allows nothing else. Everything that comes from the data (class names, file names) is escaped when it is printed.
"""

import base64
import functools
import hashlib
import io
import shlex
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from headstart.errors import ImageRejected
from headstart.files import shown
from headstart.images import decode
from headstart.report import facts
from headstart.report.curves import training_curves
from headstart.report.problems import data_problems
from headstart.runs.documents import portable

THUMBNAIL_SIDE = 208  # pixels of the longer side; the page shows them about 168 wide
THUMBNAIL_QUALITY = 72
GOOD, BAD = np.array([0, 114, 178]), np.array([213, 94, 0])  # blue and vermilion of Okabe & Ito's colour-blind-safe set


def make_thumbnail(source: bytes | np.ndarray) -> bytes | None:
    """A small JPEG of a photo, made anew from its pixels, so that no metadata of the original is left in it.

    Args:
        source: the bytes of an image file, or uint8 pixels (height, width) or (height, width, 3).

    Returns:
        The bytes of a JPEG of at most `THUMBNAIL_SIDE` pixels a side, or None if the photo cannot be decoded.
    """
    try:
        picture = decode(source, target=THUMBNAIL_SIDE)
    except ImageRejected:
        return None
    image = Image.fromarray(picture.pixels)
    image.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "JPEG", quality=THUMBNAIL_QUALITY, optimize=True)
    return out.getvalue()


def render_report(
    metrics: Mapping[str, Any],
    plan: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    predictions: Sequence[facts.Row],
    thumbnail: Callable[[str], bytes | None],
    scan: Mapping[str, Any] | None = None,
    history: Sequence[Mapping[str, float | int]] = (),
    picture: str = "",
) -> str:
    """Return the report of a run as one HTML page.

    Args:
        metrics: what `metrics.json` holds.
        plan: what `plan.json` holds.
        config: what `config.json` holds.
        predictions: every test photo: path, label, predicted, probability.
        thumbnail: from a photo's path to the bytes of a JPEG without metadata (`make_thumbnail`), or None. Called for
            the worst mistakes only, at most 24 times.
        scan: what `headstart scan --json` prints, for the problems of the data.
        history: a row an epoch, as in history.csv; none where no network was trained.
        picture: of the four cases, SVG; none where the case was not measured.

    Returns:
        HTML, complete in itself.
    """
    metrics, plan, config = portable(metrics), portable(plan), portable(config)
    test, classes = metrics["test"], metrics["classes"]
    head = facts.headline(metrics)
    calibration = facts.calibration(predictions)
    drawn = len(classes) <= facts.MATRIX_CLASSES and test.get("confusion") is not None
    style, run = _asset("report.css"), metrics.get("run", "RUN")
    page: str = _template().render(
        title=metrics["data"].get("name") or run,
        style=_safe(style),
        style_hash=_safe(_style_hash(style)),
        head=head,
        test=test,
        classes=classes,
        data=metrics["data"],
        timings=metrics.get("timings", {}),
        diagnosis=metrics.get("diagnosis", []),
        matrix=facts.matrix(test, classes) if drawn else None,
        matrix_picture=None if drawn else _matrix_picture(test.get("confusion")),
        pairs=facts.confused_pairs(test, classes),
        class_rows=facts.class_rows(test),
        calibration=calibration,
        calibration_words=facts.calibration_words(calibration["said"], head["low"], head["high"]),
        curve=_curve(calibration["points"]),
        training=training_curves(history),
        coverage=facts.coverage(predictions),
        mistakes=[_mistake(row, thumbnail) for row in facts.worst_mistakes(predictions)],
        problems=data_problems(metrics["data"], scan or {}),
        warnings=(scan or {}).get("warnings") or metrics["data"].get("warnings", []),
        per_class_photos=_photos_of_classes((scan or {}).get("classes", {})),
        plan=plan,
        evidence=_evidence(plan.get("evidence", {})),
        remedies=plan.get("evidence", {}).get("remedies", []),
        picture=base64.b64encode(picture.encode()).decode(),
        time_steps=facts.steps_of_time(metrics.get("timings", {})),
        features=metrics.get("features"),
        provenance=_provenance(metrics),
        config=config,
        version=metrics.get("provenance", {}).get("headstart", ""),
        **_how_to_use(run),
    )
    return page.encode("utf-8", "backslashreplace").decode("utf-8")


def _asset(name: str) -> str:
    text: str = resources.files("headstart.report").joinpath(name).read_text(encoding="utf-8")
    return text


def _style_hash(style: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


def _safe(text: str) -> Any:
    """Mark our own text as HTML, so that it is not escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - never text from the data


@functools.cache
def _template() -> Any:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, finalize=_printed
    )
    environment.filters |= {"percent": _percent, "percent_figure": _percent_figure, "count": _count}
    environment.filters |= {"seconds": _seconds, "figure": _figure}
    return environment.from_string(_asset("report.html"))


def _printed(value: object) -> object:
    """What every printed expression passes: text of the data shows its control characters instead of sending them."""
    if hasattr(value, "__html__"):
        return value
    return "\n".join(map(shown, value.split("\n"))) if isinstance(value, str) else value


def _percent(share: float | None) -> Any:
    return "-" if share is None else _safe(f'<span class="num">{_percent_figure(share)}&nbsp;%</span>')


def _percent_figure(share: float) -> str:
    """One decimal, but never 100.0 when something is missing, nor 0.0 when something is there.

    >>> _percent_figure(0.99999), _percent_figure(1.0), _percent_figure(0.9477)
    ('>99.9', '100', '94.8')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}"
    text = f"{100 * share:.1f}"
    return {"100.0": ">99.9", "0.0": "<0.1"}.get(text, text)


def _count(number: int) -> str:
    return f"{number:,}"


def _seconds(seconds: float) -> Any:
    if seconds >= 120:
        return _safe(f"{seconds / 60:.1f}&nbsp;min")
    return _safe(f"{seconds:.1f}&nbsp;s" if seconds >= 1 else f"{1000 * seconds:.0f}&nbsp;ms")


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


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


def _matrix_picture(confusion: Sequence[Sequence[int]] | None) -> str | None:
    """Draw a large confusion matrix, one pixel a cell: base64 of a PNG."""
    if confusion is None:
        return None
    counts = np.asarray(confusion, dtype=np.float64)
    image = Image.fromarray(shade_matrix(counts))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return base64.b64encode(out.getvalue()).decode()


def shade_matrix(counts: np.ndarray) -> UInt8[np.ndarray, "classes classes 3"]:
    """Colour a confusion matrix: white for none; blue on the diagonal, vermilion off it, deeper with the row's share.

    Off the diagonal, where shares are small, the square root of the share decides.

    Args:
        counts: (classes, classes), rows are labels.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    depth = np.where(counts > 0, 0.2 + 0.8 * np.where(diagonal, share, np.sqrt(share)), 0.0)[..., None]
    colour = np.where(diagonal[..., None], GOOD, BAD)
    return np.rint(255 + depth * (colour - 255.0)).astype(np.uint8)


def _mistake(row: facts.Row, thumbnail: Callable[[str], bytes | None]) -> dict[str, Any]:
    picture = thumbnail(row["path"])
    return {
        "path": row["path"],
        "label": row["label"],
        "predicted": row["predicted"],
        "probability": row["probability"],
        "picture": None if picture is None else base64.b64encode(picture).decode(),
    }


def _photos_of_classes(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The classes by their number of photos; too many of them would bury what matters."""
    if not counts or len(counts) > facts.MATRIX_CLASSES:
        return []
    most = max(*counts.values(), 1)
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"name": name, "count": count, "share": count / most} for name, count in ordered]


def _evidence(evidence: Mapping[str, Any]) -> list[dict[str, Any]]:
    """What the plan rests on: a list of objects becomes a table, anything else a line.

    What is told elsewhere is left out: sizes and similarity are sentences of the plan, remedies stand at the top.
    """
    items = []
    told = {name: value for name, value in evidence.items() if name not in ("size", "similarity", "remedies", "state")}
    if isinstance(told.get("forecast"), Mapping):
        told["learning curve"] = told.pop("forecast").get("points", [])
    for name, value in told.items():
        rows = value if isinstance(value, list) and value and all(isinstance(row, Mapping) for row in value) else None
        columns = list(dict.fromkeys(key for row in rows for key in row)) if rows else []
        items.append({"name": name, "value": value, "columns": columns, "rows": (rows or [])[:40]})
    return items


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
        f"headstart evaluate {place} other_photos/",
        "python": f"import headstart\n\nrun = headstart.load({shown(run)!r})\n"
        'answer = run.predict("new.jpg")\nprint(answer.label, answer.probability)',
    }
