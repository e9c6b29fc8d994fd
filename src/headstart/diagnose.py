"""What the numbers of a trained classifier say, in words: what is wrong, how that is known, and what to do about it.

A finding is made only where chance does not explain it: every comparison is between 95 % intervals (Wilson for a share,
Newcombe's hybrid of two of them for a difference), and where many classes are compared the intervals are widened so
that all of them hold together (Bonferroni). An expected gain is given where it follows from the numbers, never guessed.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from jaxtyping import Int64

from headstart.files import shown
from headstart.quality.scan_report import ScanReport

UNSURE = 0.05  # half the width of the test accuracy's interval that is worth a word
PRECISE = 0.025  # half the width that the advice aims at
GAP = 0.05  # accuracy lost from the training photos to unseen ones, beyond chance
FITTED = 0.9  # a classifier below this on its own training photos has not learned them
WEAK = 0.1  # share of photos recognised less of a class than of the others
RARER = 1.5  # times as many photos of the class it is taken for
LISTED = 5  # photos or classes named in a sentence

Finding = dict[str, Any]  # {"finding", "evidence", "remedy", "expected_gain"}, and what a program may want to list


@dataclass(frozen=True)
class Share:
    """`right` of `count`, with the ends of its Wilson interval (Wilson 1927, JASA 22:209).

    >>> print(Share.of(145, 153))
    94.8 % of 153 (90.0 % to 97.3 %)
    """

    right: int
    count: int
    low: float
    high: float

    @classmethod
    def of(cls, right: int, count: int, comparisons: int = 1) -> "Share":
        """The share with its 95 % interval; of several comparisons, so that all of them hold together."""
        z = NormalDist().inv_cdf(1 - 0.025 / comparisons)
        share, weight = right / count, z * z / count
        middle = (share + weight / 2) / (1 + weight)
        reach = z / (1 + weight) * math.sqrt(share * (1 - share) / count + weight / (4 * count))
        return cls(right, count, max(0.0, middle - reach), min(1.0, middle + reach))

    @property
    def value(self) -> float:
        """The share itself, 0..1."""
        return self.right / self.count

    def __str__(self) -> str:
        return f"{_percent(self.value)} of {self.count:,} ({_percent(self.low)} to {_percent(self.high)})"


def difference(first: Share, second: Share) -> tuple[float, float]:
    """The interval of first - second of two independent shares (Newcombe 1998, Stat. Med. 17:873, method 10).

    >>> low, high = difference(Share.of(56, 70), Share.of(48, 80))
    >>> round(low, 4), round(high, 4)
    (0.0524, 0.3339)
    """
    apart = first.value - second.value
    return (
        apart - math.hypot(first.value - first.low, second.high - second.value),
        apart + math.hypot(first.high - first.value, second.value - second.low),
    )


def diagnose(
    metrics: Mapping[str, Any],
    report: ScanReport,
    *,
    classes: Sequence[str],
    train_accuracy: float | None = None,
    suspicious: Sequence[Mapping[str, Any]] = (),
    scratch: bool = False,
) -> list[Finding]:
    """Say what is wrong with a classifier or its data, and what to do, the gravest first.

    Args:
        metrics: "test" and "validation" as `headstart.metrics.evaluate` returns them; of each only "confusion" is read:
            counts, a row a true class, a column a predicted one. Either may be absent or empty.
        report: of the photos.
        classes: the names of rows and columns.
        train_accuracy: on the photos it was fitted to, 0..1.
        suspicious: photos whose label a classifier that has not seen them rules out: {"path", "label", "predicted",
            "probability"}.
        scratch: a network was trained from random weights; `headstart.training.symptoms` says what its curves show.

    Returns:
        Findings: "finding", "evidence" and "remedy" are sentences; "expected_gain" is a sentence, or None where it is
        not known. An empty list: nothing stands out.
    """
    tested, checked = _table(metrics, "test"), _table(metrics, "validation")
    held_out = tested if checked is None else checked
    found: list[Finding] = []
    if tested is not None:
        found += _near_guessing(tested, classes, train_accuracy, scratch)
    found += _data_faults(report)
    if suspicious:
        found.append(_doubtful_labels(suspicious))
    if tested is not None and checked is not None:
        found += _shift(tested, checked)
    if held_out is not None:
        found += [] if scratch else _fit(_overall(held_out), train_accuracy)
        found += _weak_classes(held_out, classes, report)
    if tested is not None:
        found += _unsure(_overall(tested))
    return found


def _finding(finding: str, evidence: str, remedy: str, expected_gain: str | None = None, **more: Any) -> Finding:
    return {"finding": finding, "evidence": evidence, "remedy": remedy, "expected_gain": expected_gain, **more}


def _table(metrics: Mapping[str, Any], part: str) -> Int64[np.ndarray, "true predicted"] | None:
    counts = np.array((metrics.get(part) or {}).get("confusion", ()), dtype=np.int64)
    return counts if counts.ndim == 2 and counts.sum() else None


def _overall(counts: Int64[np.ndarray, "true predicted"]) -> Share:
    return Share.of(int(np.trace(counts)), int(counts.sum()))


def _near_guessing(
    counts: Int64[np.ndarray, "true predicted"], classes: Sequence[str], train_accuracy: float | None, scratch: bool
) -> Iterator[Finding]:
    overall, largest = _overall(counts), int(counts.sum(axis=1).argmax())
    baseline = counts[largest].sum() / overall.count
    if overall.low > baseline:
        return
    learned = train_accuracy is not None and train_accuracy >= FITTED
    yield _finding(
        f"It is not shown to be better than answering '{shown(classes[largest])}' every time.",
        f"Test accuracy {overall}; that answer alone is right in {_percent(baseline)}.",
        "It knows its training photos by heart, nothing more: add photos, and check that the labels follow something "
        "that can be seen."
        if learned
        else "Look at photos of each class: can a person tell them apart? If so, "
        + (
            "see whether the network can learn at all (headstart check), try another learning rate (headstart lr), and "
            "a pretrained backbone (without --net)."
            if scratch
            else "try an earlier cut (--cut) or another backbone, and add photos."
        ),
    )


def _data_faults(report: ScanReport) -> Iterator[Finding]:
    if report.label_conflicts:
        photos = sum(len(conflict["paths"]) for conflict in report.label_conflicts)
        yield _finding(
            f"{photos:,} photos stand in several classes and were used in none.",
            f"{_cases(len(report.label_conflicts))} of the same bytes with different labels, for example "
            f"{_names(report.label_conflicts[0]['paths'])}.",
            "Keep the one with the right label and remove the others.",
        )
    if report.leaks:
        tested = sorted({leak["test"] for leak in report.leaks})
        exact = len({leak["test"] for leak in report.leaks if leak["kind"] == "exact"})
        yield _finding(
            f"{len(tested):,} test or validation photos have a copy in another split.",
            f"{exact:,} with the same bytes, {len(tested) - exact:,} as near copies, for example {_names(tested)}. "
            "Their copies were left out of training, so the accuracy told here is not flattered by them.",
            "Remove the copies from one side; an accuracy that was measured elsewhere on this split is too high.",
        )
    copies = sum(len(group) - 1 for group in report.duplicates)
    if copies >= 0.01 * max(report.images, 1):
        yield _finding(
            f"{copies:,} of the {report.images:,} photos are exact copies of another.",
            f"{len(report.duplicates):,} groups of the same bytes, for example {_names(report.duplicates[0])}. Every "
            "group is on one side of the split.",
            f"Count on {report.images - copies:,} different photos: copies teach nothing new.",
        )


def _doubtful_labels(suspicious: Sequence[Mapping[str, Any]]) -> Finding:
    cases = "; ".join(
        f"{shown(item['path'])} labelled '{shown(item['label'])}', looks like '{shown(item['predicted'])}' "
        f"({_percent(item['probability'])})"
        for item in suspicious[:LISTED]
    )
    more = f"; and {len(suspicious) - LISTED:,} more" if len(suspicious) > LISTED else ""
    some = "1 training photo may" if len(suspicious) == 1 else f"{len(suspicious):,} training photos may"
    return _finding(
        f"{some} carry the wrong label.",
        f"A classifier that had not seen them gives their label less than 1 % and another more than 99 %: {cases}"
        f"{more}.",
        "Look at them, correct the labels that are wrong, and train again.",
        photos=[item["path"] for item in suspicious],
    )


def _shift(
    tested: Int64[np.ndarray, "true predicted"], checked: Int64[np.ndarray, "true predicted"]
) -> Iterator[Finding]:
    test, validation = _overall(tested), _overall(checked)
    low, high = difference(test, validation)
    if high < 0:
        yield _finding(
            "The test photos are harder than those of the validation: they seem to be of another kind.",
            f"Test accuracy {test}, validation {validation}; the difference of "
            f"{_points(test.value - validation.value)} lies between {_points(low)} and {_points(high)}, so chance does "
            "not explain it.",
            "Compare the photos of both: camera, light, place, time. Train on photos like those it will meet; until "
            "then expect the accuracy of the test.",
        )
    elif low > 0:
        yield _finding(
            "The test photos are easier than those of the validation.",
            f"Test accuracy {test}, validation {validation}; the difference lies between {_points(low)} and "
            f"{_points(high)}.",
            "Expect the accuracy of the validation in use, unless the test photos are the ones it will meet.",
        )


def _fit(unseen: Share, train_accuracy: float | None) -> Iterator[Finding]:
    if train_accuracy is None:
        return
    gap = f"{_percent(train_accuracy)} of the training photos are right, of unseen ones {unseen}"
    if train_accuracy - unseen.high >= GAP:
        yield _finding(
            "It overfits: it knows its training photos better than unseen ones.",
            f"{gap}: at least {_points(train_accuracy - unseen.high)} lost, beyond chance.",
            "In this order: more photos; augmentation; a network that generalises better; more regularisation; a "
            "smaller one.",
        )
    elif train_accuracy < FITTED and train_accuracy <= unseen.high:
        yield _finding(
            "It underfits: it cannot tell even its training photos apart.",
            f"{gap}: no better on the photos it was fitted to.",
            "More photos alone will not help: use features that fit the subject (another --cut or --backbone), and "
            "check that a person can tell the classes apart.",
        )


def _weak_classes(
    counts: Int64[np.ndarray, "true predicted"], classes: Sequence[str], report: ScanReport
) -> Iterator[Finding]:
    """The classes that are recognised less often than the rest, beyond chance, the worst first."""
    weak = []
    for index in np.flatnonzero(counts.sum(axis=1)).tolist():
        own = Share.of(int(counts[index, index]), int(counts[index].sum()), len(classes))
        count = int(counts.sum()) - own.count
        if count == 0:
            continue
        others = Share.of(int(np.trace(counts)) - own.right, count, len(classes))
        if others.value - own.value >= WEAK and difference(own, others)[1] < 0:
            weak.append((own.value - others.value, index, own, others))
    for _, index, own, others in sorted(weak, key=lambda case: case[:2])[:LISTED]:
        yield _weak_class(counts, classes, report, index, own, others)


def _weak_class(
    counts: Int64[np.ndarray, "true predicted"],
    classes: Sequence[str],
    report: ScanReport,
    index: int,
    own: Share,
    others: Share,
) -> Finding:
    mistakes = counts[index].copy()
    mistakes[index] = 0
    taken = int(mistakes.argmax())
    name, other = (f"'{shown(classes[place])}'" for place in (index, taken))
    photos, rivals = (report.classes.get(classes[place], 0) for place in (index, taken))
    evidence = (
        f"{_percent(own.value)} of its {own.count:,} unseen photos are recognised ({_percent(own.low)} to "
        f"{_percent(own.high)}), {_percent(others.value)} of the others'. {mistakes[taken]:,} of "
        f"{mistakes.sum():,} mistakes: taken for {other}."
    )
    rare = 0 < photos * RARER <= rivals
    rest = f"'{shown(classes[1 - index])}'" if len(classes) == 2 else "the other classes"
    if rare:
        evidence += f" {name} has {photos:,} photos, {other} {rivals:,}."
    gain = (others.value - own.value) * own.count / (own.count + others.count)
    return _finding(
        f"{name} is recognised far less often than {rest}"
        + (f", and there are fewer photos of it than of {other}." if rare else "."),
        evidence,
        f"Add photos of {name}; until then try --class-weights balanced and compare."
        if rare
        else f"Look at the photos of {name} that were taken for {other}: are the labels right, can a person tell? Then "
        "add photos of both.",
        f"At most {_points(gain)} of accuracy: as much as {name} recognised like the others would add.",
    )


def _unsure(overall: Share) -> Iterator[Finding]:
    reach = (overall.high - overall.low) / 2
    if reach <= UNSURE:
        return
    spread = max(overall.value * (1 - overall.value), overall.low * (1 - overall.low))
    needed = math.ceil(NormalDist().inv_cdf(0.975) ** 2 * spread / PRECISE**2 / 10) * 10
    yield _finding(
        f"{overall.count:,} test photos are too few for a sure statement.",
        f"Test accuracy {_percent(overall.value)}; the true one may lie anywhere from {_percent(overall.low)} to "
        f"{_percent(overall.high)}. Two classifiers that differ by less cannot be told apart by this test.",
        f"Test on about {needed:,} photos.",
        f"An interval of about {_points(PRECISE)} to either side instead of {_points(reach)}; the accuracy itself does "
        "not change.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(difference: float) -> str:
    return f"{100 * difference:.1f} points"


def _cases(count: int) -> str:
    return "1 case" if count == 1 else f"{count:,} cases"


def _names(paths: Sequence[str]) -> str:
    return " and ".join(shown(path) for path in paths[:2])
