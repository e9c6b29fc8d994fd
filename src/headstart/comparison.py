"""Two runs on the test photos they share: which photos flipped, and whether that is more than chance."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.errors import RunError
from headstart.files import shown
from headstart.metrics import difference_interval, mcnemar
from headstart.runs import Run

LEAST_SHARE = 0.5  # of the smaller test set that must be in the other one too
LISTED = 20  # flipped photos in the text; all of them are in the JSON
SIGNIFICANT = 0.05  # probability below which a difference is called more than chance


@dataclass(frozen=True, eq=False)
class Comparison:
    """What two runs do on their common test photos.

    Args:
        first, second: names of the runs.
        common: number of test photos both have, with the same label.
        only_first, only_second: test photos only one has.
        relabelled: photos both have, with another label in each; they count in none of the figures.
        right: (first, second) right answers among the common photos.
        fixed: photos the first got wrong and the second right: path, label, and what each said.
        broken: the other way round.
        p_value: of McNemar's exact test: how probable so lopsided a set of flips is if the two are equally good.
        interval: 95% interval of accuracy(second) - accuracy(first), shares.
        settings: what differs in config and plan: name -> (first, second).
    """

    first: str
    second: str
    common: int
    only_first: int
    only_second: int
    relabelled: int
    right: tuple[int, int]
    fixed: tuple[dict[str, str], ...]
    broken: tuple[dict[str, str], ...]
    p_value: float
    interval: tuple[float, float]
    settings: dict[str, tuple[Any, Any]]

    @property
    def difference(self) -> float:
        """Accuracy of the second minus that of the first, -1..1."""
        return (self.right[1] - self.right[0]) / self.common

    def verdict(self) -> str:
        """One sentence: which is better, and whether that can be told."""
        if not self.fixed and not self.broken:
            return "They are right and wrong on the same photos."
        if self.p_value >= SIGNIFICANT:
            return "No difference that these photos can show: the flips may be chance."
        return f"The {'second' if self.difference > 0 else 'first'} is better: more than chance."

    def to_json(self) -> dict[str, Any]:
        """Everything, as a JSON object; accuracies as shares."""
        return {
            "runs": [self.first, self.second],
            "photos": {
                "common": self.common,
                "only_first": self.only_first,
                "only_second": self.only_second,
                "relabelled": self.relabelled,
            },
            "accuracy": [count / self.common for count in self.right],
            "difference": self.difference,
            "difference_ci95": list(self.interval),
            "mcnemar_p": self.p_value,
            "verdict": self.verdict(),
            "fixed": list(self.fixed),
            "broken": list(self.broken),
            "settings": {name: list(pair) for name, pair in self.settings.items()},
        }

    def to_text(self) -> str:
        """The same for a person."""
        low, high = (100 * value for value in self.interval)
        lines = [
            f"On {self.common:,} test photos of both runs{self._left_out()}:",
            f"  first   {shown(self.first)}: {100 * self.right[0] / self.common:.1f} % right",
            f"  second  {shown(self.second)}: {100 * self.right[1] / self.common:.1f} % right",
            f"  difference {100 * self.difference:+.1f} points (95 % interval {low:+.1f} to {high:+.1f}); "
            f"{len(self.fixed)} fixed, {len(self.broken)} broken, McNemar p = {self.p_value:.3g}",
            self.verdict(),
        ]
        for title, photos in (("Fixed by the second", self.fixed), ("Broken by the second", self.broken)):
            lines += [f"{title}:"] if photos else []
            lines += [f"  {_flip_text(item)}" for item in photos[:LISTED]]
            lines += [f"  ... and {len(photos) - LISTED} more"] if len(photos) > LISTED else []
        lines += ["Settings that differ:"] if self.settings else ["No setting differs."]
        lines += [f"  {shown(name)}: {_brief(one)} -> {_brief(two)}" for name, (one, two) in self.settings.items()]
        return "\n".join(lines)

    def _left_out(self) -> str:
        parts = [
            f"{count:,} {what}"
            for count, what in (
                (self.only_first, "only in the first"),
                (self.only_second, "only in the second"),
                (self.relabelled, "labelled differently"),
            )
            if count
        ]
        return f" ({', '.join(parts)}: left out)" if parts else ""


def _flip_text(flip: Mapping[str, str]) -> str:
    path, label, first, second = (shown(flip[name]) for name in ("path", "label", "first", "second"))
    return f"{path}: {label}, said {first}, then {second}"


def _brief(value: object) -> str:
    text = shown(str(value))
    return text if len(text) <= 60 else f"{text[:57]}..."


def compare(first: Run, second: Run) -> Comparison:
    """Compare two runs on the photos that are in the test of both.

    A photo is known by its path inside its data set. Photos that have another label in each run are left out and
    counted.

    Args:
        first: the run to start from.
        second: the run that may be better.

    Raises:
        RunError: the tests share fewer than half of the photos of the smaller one.
    """
    one = {row["path"]: row for row in first.predictions()}
    two = {row["path"]: row for row in second.predictions()}
    shared = [path for path in one if path in two]
    same = [path for path in shared if one[path]["label"] == two[path]["label"]]
    smaller = min(len(one), len(two))
    if len(same) < max(LEAST_SHARE * smaller, 1):
        raise RunError(
            f"the test photos of {shown(first.path)} ({len(one):,}) and {shown(second.path)} ({len(two):,}) do not "
            f"match: {len(same):,} are in both with the same label, {100 * len(same) / max(smaller, 1):.0f} % of the "
            "smaller set; compare runs that were trained on the same data with the same --seed"
        )
    right = [
        (one[path]["predicted"] == one[path]["label"], two[path]["predicted"] == two[path]["label"]) for path in same
    ]
    flips = [_flip(path, one[path], two[path]) for path in same]
    fixed = tuple(flip for flip, (before, after) in zip(flips, right, strict=True) if after and not before)
    broken = tuple(flip for flip, (before, after) in zip(flips, right, strict=True) if before and not after)
    return Comparison(
        first=first.path.as_posix(),
        second=second.path.as_posix(),
        common=len(same),
        only_first=len(one) - len(shared),
        only_second=len(two) - len(shared),
        relabelled=len(shared) - len(same),
        right=(sum(before for before, _ in right), sum(after for _, after in right)),
        fixed=fixed,
        broken=broken,
        p_value=mcnemar(len(fixed), len(broken)),
        interval=difference_interval(len(fixed), len(broken), len(same)),
        settings=_differences(_settings(first), _settings(second)),
    )


def _flip(path: str, before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, str]:
    return {"path": path, "label": before["label"], "first": before["predicted"], "second": after["predicted"]}


def _settings(run: Run) -> dict[str, Any]:
    """What may explain a difference: the settings, what was chosen, and the data."""
    chosen = {f"plan.{name}": value for name, value in run.plan.items() if name not in ("why", "evidence")}
    data = {
        f"data.{name}": run.metrics["data"].get(name)
        for name in ("fingerprint", "train", "test")
        if "data" in run.metrics
    }
    versions = {f"provenance.{name}": value for name, value in run.metrics.get("provenance", {}).items()}
    return {**run.config, **chosen, **data, **versions}


def _differences(one: Mapping[str, Any], two: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    names = [*one, *(name for name in two if name not in one)]
    return {name: (one.get(name), two.get(name)) for name in names if one.get(name) != two.get(name)}
