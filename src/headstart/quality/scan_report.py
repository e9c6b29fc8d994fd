"""The result of a scan: a value for programs, and the same as text for a terminal."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.files import shown

MOST_LEAKS = 10_000  # pairs listed; their number can grow with the square of the copies
LISTED = 8  # cases of each kind in the text; the document has all
CLASSES = 20  # classes in the text
_WRAP = textwrap.TextWrapper(  # file names stay whole, so that they can be copied
    100, initial_indent="  - ", subsequent_indent="    ", break_long_words=False, break_on_hyphens=False
)


@dataclass(frozen=True, eq=False)
class ScanReport:
    """What `headstart scan` tells. Paths are those of `Photo.path`, relative to the data.

    Args:
        name: short name of the data.
        images: photos that can be used.
        classes: class -> usable photos, in the order of the labels; a class may have none.
        splits: "train", "val", "test" -> usable photos; empty where the data bring no split.
        sizes: "width", "height" (pixels), "megapixels", "aspect" (width / height) -> {"min", "median", "max"}.
        formats, modes: format or colour mode -> photos, the most frequent first.
        skipped: {"path", "reason", "detail"} of each file that cannot be used.
        ignored: files and folders that are no data (hidden ones and the like).
        duplicates: groups of paths with the same bytes.
        near_duplicates: groups of paths that look the same; exact copies of a member are members.
        leaks: {"test", "train", "kind", "splits"} of each pair of copies in different splits, at most `MOST_LEAKS`;
            "test" is the photo of the later split of train, val, test; kind is "exact" or "near".
        label_conflicts: {"paths", "labels"} of photos with the same bytes and different labels; the lists are parallel.
        near_label_conflicts: the same of pairs of near copies.
        imbalance: {"ratio", "largest", "smallest", "sentence"}; None with fewer than two classes that have photos.
        warnings: sentences for the user: the reader's, then the others, the gravest first.
    """

    name: str
    images: int
    classes: dict[str, int]
    splits: dict[str, int]
    sizes: dict[str, dict[str, float]]
    formats: dict[str, int]
    modes: dict[str, int]
    skipped: tuple[dict[str, str], ...]
    ignored: int
    duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[tuple[str, ...], ...]
    leaks: tuple[dict[str, str], ...]
    label_conflicts: tuple[dict[str, list[str]], ...]
    near_label_conflicts: tuple[dict[str, list[str]], ...]
    imbalance: dict[str, Any] | None
    warnings: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The document of `headstart scan --json`."""
        return {
            "name": self.name,
            "images": self.images,
            "classes": dict(self.classes),
            "splits": dict(self.splits),
            "sizes": self.sizes,
            "formats": self.formats,
            "modes": self.modes,
            "skipped": [dict(item) for item in self.skipped],
            "ignored": self.ignored,
            "duplicates": [list(group) for group in self.duplicates],
            "near_duplicates": [list(group) for group in self.near_duplicates],
            "leaks": [dict(leak) for leak in self.leaks],
            "label_conflicts": [dict(conflict) for conflict in self.label_conflicts],
            "near_label_conflicts": [dict(conflict) for conflict in self.near_label_conflicts],
            "imbalance": self.imbalance,
            "warnings": list(self.warnings),
        }


def format_report(report: ScanReport) -> str:
    """The report as text for a terminal: what there is, then what is wrong, names made printable.

    Args:
        report: of `headstart.quality.inspect`.

    Returns:
        Lines without a newline at the end.
    """
    sizes = report.sizes
    lines = [f"{shown(report.name)}: {_photos(report.images)} in {len(report.classes)} classes"]
    if report.splits:
        lines.append("  splits   " + ", ".join(f"{name} {count:,}" for name, count in report.splits.items()))
    if sizes:
        width, height = sizes["width"], sizes["height"]
        lines += [
            f"  sizes    width {width['min']:g} to {width['max']:g} (median {width['median']:g}), "
            f"height {height['min']:g} to {height['max']:g} (median {height['median']:g}) pixels",
            f"  formats  {_counts(report.formats)}",
            f"  colours  {_counts(report.modes)}",
        ]
    lines += ["", *_class_lines(report)]
    lines += _section("Skipped files", [_skipped_line(item) for item in report.skipped])
    lines += _section("Photos with several labels", [_conflict_line(item) for item in report.label_conflicts])
    lines += _section("Near copies with different labels", [_conflict_line(i) for i in report.near_label_conflicts])
    lines += _section("Copies in different splits", [_leak_line(leak) for leak in report.leaks])
    lines += _section("Exact copies", [" = ".join(_few(group)) for group in report.duplicates])
    lines += _section("Near copies", [" ~ ".join(_few(group)) for group in report.near_duplicates])
    if report.warnings:
        lines += ["", "What to know"]
        for warning in report.warnings:
            lines += _WRAP.wrap(warning)
    else:
        lines += ["", "Nothing to complain about."]
    return "\n".join(lines)


def _photos(count: int) -> str:
    return "1 photo" if count == 1 else f"{count:,} photos"


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{shown(name)} {count:,}" for name, count in counts.items())


def _class_lines(report: ScanReport) -> Iterator[str]:
    """The classes, most photos first, with a bar in proportion; of many only the largest and the three smallest."""
    ranked = sorted(report.classes.items(), key=lambda item: -item[1])
    width = min(40, max((len(shown(name)) for name, _ in ranked), default=0))
    most = max((count for _, count in ranked), default=0)
    digits = len(f"{most:,}")
    listed = len(ranked) if len(ranked) <= CLASSES else CLASSES - 4
    for name, count in ranked[:listed]:
        yield _class_line(name, count, most, width, digits)
    if rest := ranked[listed:-3]:
        yield f"  ... {len(rest):,} more classes"
        for name, count in ranked[-3:]:
            yield _class_line(name, count, most, width, digits)


def _class_line(name: str, count: int, most: int, width: int, digits: int) -> str:
    bar = "#" * round(30 * count / most) if most else ""
    return f"  {shown(name):<{width}}  {count:>{digits},}  {bar}".rstrip()


def _section(title: str, cases: Sequence[str]) -> list[str]:
    if not cases:
        return []
    lines = ["", f"{title}: {len(cases):,}", *(f"  {case}" for case in cases[:LISTED])]
    return [*lines, f"  ... and {len(cases) - LISTED:,} more"] if len(cases) > LISTED else lines


def _few(group: Sequence[str]) -> list[str]:
    return [*map(shown, group[:3]), *([f"{len(group) - 3} more"] if len(group) > 3 else [])]


def _skipped_line(item: Mapping[str, str]) -> str:
    detail = f" ({shown(item['detail'])})" if item["detail"] else ""
    return f"{shown(item['path'])}: {shown(item['reason'])}{detail}"


def _conflict_line(conflict: Mapping[str, Sequence[str]]) -> str:
    cases = [f"{path} ({label})" for path, label in zip(conflict["paths"], conflict["labels"], strict=True)]
    return " = ".join(_few(cases))


def _leak_line(leak: Mapping[str, str]) -> str:
    return f"{shown(leak['test'])} {'=' if leak['kind'] == 'exact' else '~'} {shown(leak['train'])}"
