"""What the numbers say: each finding where it is true, none where chance explains it, and only gains that follow."""

import json
import math
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.dataset import Dataset, Photo
from headstart.diagnose import Share, diagnose, difference
from headstart.metrics import evaluate
from headstart.quality import PhotoFacts, ScanReport, inspect

CLASSES = ("ant", "bee", "wasp")


def report_of(**changes: Any) -> ScanReport:
    photos = tuple(Photo(f"{number}.jpg", number % 3) for number in range(90))
    facts = [PhotoFacts(f"{number:064x}", None, 400, 300, "JPEG", "RGB") for number in range(90)]
    return replace(inspect(Dataset("insects", Path(), CLASSES, photos), facts), **changes)


def judged(*rows: list[int]) -> dict[str, Any]:
    return {"confusion": [list(row) for row in rows]}


def sound(each: int = 300, wrong: int = 6) -> dict[str, Any]:
    half = wrong // 2
    return judged([each - wrong, half, half], [half, each - wrong, half], [half, half, each - wrong])


NINE_OF_TEN = judged([9, 1, 0], [0, 9, 1], [1, 0, 9])


def findings(test: Any = None, validation: Any = None, **other: Any) -> list[dict[str, Any]]:
    report = other.pop("report", None) or report_of()
    classes = other.pop("classes", CLASSES)
    found = diagnose({"test": test, "validation": validation}, report, classes=classes, **other)
    assert json.loads(json.dumps(found)) == found
    for item in found:
        assert item.keys() >= {"finding", "evidence", "remedy", "expected_gain"}
        assert item["finding"]
        assert item["remedy"]
        assert any(letter.isdigit() for letter in item["evidence"])  # evidence is numbers
    return found


def words(found: list[dict[str, Any]]) -> str:
    return " ".join(item["finding"] for item in found)


# ------------------------------------------------------------------------------------------- intervals


@pytest.mark.parametrize(("right", "count"), [(0, 5), (1, 1), (5, 5), (145, 153), (7, 20), (999, 1000), (50, 100)])
def test_the_interval_of_a_share_holds_what_the_score_test_accepts(right: int, count: int) -> None:
    shares = np.linspace(0, 1, 400_001)
    accepted = shares[np.abs(right / count - shares) <= 1.959964 * np.sqrt(shares * (1 - shares) / count) + 1e-12]
    share = Share.of(right, count)
    assert share.low == pytest.approx(accepted.min(), abs=1e-5)
    assert share.high == pytest.approx(accepted.max(), abs=1e-5)


def test_the_interval_of_a_difference_is_the_published_one() -> None:
    # Newcombe 1998, Statistics in Medicine 17:873, table II, method 10.
    published = [
        ((56, 70), (48, 80), (0.0524, 0.3339)),
        ((9, 10), (3, 10), (0.1705, 0.8090)),
        ((6, 7), (2, 7), (0.0582, 0.8062)),
        ((5, 56), (0, 29), (-0.0381, 0.1926)),
        ((0, 10), (0, 20), (-0.1611, 0.2775)),
        ((10, 10), (0, 20), (0.6791, 1.0000)),
    ]
    for first, second, expected in published:
        assert difference(Share.of(*first), Share.of(*second)) == pytest.approx(expected, abs=1e-3)


def test_intervals_of_many_comparisons_hold_together() -> None:
    one, many = Share.of(40, 50), Share.of(40, 50, comparisons=100)
    assert many.low < one.low < one.high < many.high
    z = 3.4807564  # normal quantile of 1 - 0.025 / 100
    centre = (0.8 + z * z / 100) / (1 + z * z / 50)
    reach = z / (1 + z * z / 50) * math.sqrt(0.16 / 50 + z * z / (4 * 50 * 50))
    assert (many.low, many.high) == pytest.approx((centre - reach, centre + reach), abs=1e-6)


# ---------------------------------------------------------------------------------------- each finding


def test_a_sound_result_has_no_finding() -> None:
    assert findings(sound(), sound(), train_accuracy=0.99) == []


@pytest.mark.parametrize("empty", [None, {}, {"confusion": []}, judged([0, 0, 0], [0, 0, 0], [0, 0, 0])])
def test_nothing_measured_gives_no_finding(empty: Any) -> None:
    assert findings(empty, empty, train_accuracy=1.0) == []


def test_accuracy_no_better_than_the_largest_class_is_told() -> None:
    lazy = judged([200, 0, 0], [50, 0, 0], [50, 0, 0])
    first = findings(lazy, None)[0]
    assert first["finding"] == "It is not shown to be better than answering 'ant' every time."
    assert "66.7 % of 300" in first["evidence"]
    assert "earlier cut" in first["remedy"]
    by_heart = findings(lazy, None, train_accuracy=1.0)[0]
    assert "by heart" in by_heart["remedy"]


def test_a_small_test_cannot_show_that_it_is_better_than_guessing() -> None:
    assert "not shown to be better" in words(findings(judged([2, 1, 0], [1, 1, 1], [0, 1, 2]), None))
    assert "not shown to be better" not in words(findings(sound(), None))


@pytest.mark.parametrize(("count", "told"), [(20, True), (90, True), (900, False)])
def test_a_test_too_small_for_a_sure_statement_is_told_with_the_size_that_is_enough(count: int, told: bool) -> None:
    each = count // 3
    wrong = each // 5
    found = findings(sound(each, 2 * (wrong // 2)), None)
    unsure = [item for item in found if "too few" in item["finding"]]
    assert bool(unsure) == told
    if told:
        assert f"{3 * each} test photos" in unsure[0]["finding"]
        needed = int(unsure[0]["remedy"].removeprefix("Test on about ").removesuffix(" photos.").replace(",", ""))
        right = round(needed * (each - 2 * (wrong // 2)) / each)
        share = Share.of(right, needed)
        assert (share.high - share.low) / 2 <= 0.0255
        assert "2.5 points" in unsure[0]["expected_gain"]


def test_a_class_recognised_less_than_the_others_is_told_with_its_rival_and_the_most_it_can_cost() -> None:
    weak = judged([290, 5, 5], [5, 290, 5], [20, 100, 180])
    found = findings(sound(), weak)
    item = next(item for item in found if "'wasp'" in item["finding"])
    assert "60.0 % of its 300 unseen photos" in item["evidence"]
    assert "96.7 % of the others'" in item["evidence"]
    assert "100 of 120 mistakes: taken for 'bee'" in item["evidence"]
    # were wasps recognised like the others: (580 / 600 - 180 / 300) * 300 more of 900
    assert f"At most {100 * (580 / 600 - 180 / 300) * 300 / 900:.1f} points" in item["expected_gain"]
    assert "'ant'" not in words(found)
    assert "'bee'" not in words(found)


def test_a_class_that_is_weak_by_chance_is_not_told() -> None:
    assert "'wasp'" not in words(findings(None, judged([9, 1, 0], [0, 10, 0], [2, 0, 8])))


def test_among_a_hundred_equal_classes_no_weak_one_is_invented() -> None:
    random = np.random.default_rng(0)
    names = [f"class{number}" for number in range(100)]
    report = report_of(classes=dict.fromkeys(names, 30))
    told = 0
    for _ in range(20):
        right = random.binomial(30, 0.8, 100)
        counts = np.diag(right)
        counts[np.arange(100), (np.arange(100) + 1) % 100] += 30 - right
        told += len(findings(None, {"confusion": counts.tolist()}, classes=names, report=report))
    assert told <= 1  # at 95 % for all classes together, one in twenty


def test_a_rare_class_taken_for_a_frequent_one_is_told_as_imbalance() -> None:
    report = report_of(classes={"ant": 900, "bee": 850, "wasp": 60})
    weak = judged([880, 10, 10], [10, 830, 10], [30, 2, 28])
    item = next(item for item in findings(None, weak, report=report) if "'wasp'" in item["finding"])
    assert "and there are fewer photos of it than of 'ant'" in item["finding"]
    assert "'wasp' has 60 photos, 'ant' 900." in item["evidence"]
    assert "--class-weights balanced" in item["remedy"]


def test_a_test_below_the_validation_beyond_chance_is_told_as_another_kind_of_photos() -> None:
    found = findings(sound(300, 60), sound(300, 6))
    shift = [item for item in found if "another kind" in item["finding"]]
    assert len(shift) == 1
    assert "80.0 % of 900" in shift[0]["evidence"]
    assert "98.0 % of 900" in shift[0]["evidence"]
    low, high = difference(Share.of(720, 900), Share.of(882, 900))
    assert f"between {100 * low:.1f} points and {100 * high:.1f} points" in shift[0]["evidence"]
    assert "another kind" not in words(findings(NINE_OF_TEN, sound(10, 0)))  # chance can do that
    assert "easier" in words(findings(sound(300, 6), sound(300, 60)))


def test_overfitting_is_told_only_beyond_the_interval() -> None:
    found = findings(None, sound(300, 60), train_accuracy=1.0)
    item = next(item for item in found if "overfits" in item["finding"])
    lost = 100 * (1.0 - Share.of(720, 900).high)
    assert f"at least {lost:.1f} points lost" in item["evidence"]
    assert item["expected_gain"] is None
    assert "overfits" not in words(findings(None, NINE_OF_TEN, train_accuracy=1.0))
    assert "overfits" not in words(findings(None, sound(300, 60), train_accuracy=0.82))


def test_underfitting_is_told_where_the_training_photos_are_not_learned() -> None:
    assert "underfits" in words(findings(None, sound(300, 90), train_accuracy=0.71))
    assert "underfits" not in words(findings(None, sound(300, 6), train_accuracy=0.97))
    assert "underfits" not in words(findings(None, sound(300, 90), train_accuracy=None))


def test_doubtful_labels_are_listed_with_both_classes() -> None:
    suspicious = [
        {"path": f"ant/{number}\x1b[1m.jpg", "label": "ant", "predicted": "bee", "probability": 0.995}
        for number in range(7)
    ]
    item = findings(None, None, suspicious=suspicious)[0]
    assert item["finding"] == "7 training photos may carry the wrong label."
    assert "labelled 'ant', looks like 'bee' (99.5 %)" in item["evidence"]
    assert "and 2 more" in item["evidence"]
    assert item["evidence"].isprintable()
    assert item["photos"] == [case["path"] for case in suspicious]
    assert "1 training photo may" in words(findings(None, None, suspicious=suspicious[:1]))


def test_faults_of_the_data_are_told_with_what_was_done_about_them() -> None:
    report = report_of(
        label_conflicts=({"paths": ["a.jpg", "b.jpg"], "labels": ["ant", "bee"]},),
        leaks=(
            {"test": "t1.jpg", "train": "a1.jpg", "kind": "exact"},
            {"test": "t1.jpg", "train": "a2.jpg", "kind": "near"},
            {"test": "t2.jpg", "train": "a3.jpg", "kind": "near"},
        ),
        duplicates=(("c.jpg", "d.jpg", "e.jpg"),),
    )
    conflict, leak, copies = findings(None, None, report=report)
    assert conflict["finding"].startswith("2 photos stand in several classes")
    assert leak["finding"].startswith("2 test or validation photos have a copy")
    assert leak["evidence"].startswith("1 with the same bytes, 1 as near copies")
    assert copies["finding"] == "2 of the 90 photos are exact copies of another."
    assert copies["remedy"].startswith("Count on 88 different photos")
    assert all(item["expected_gain"] is None for item in (conflict, leak, copies))


def test_a_few_copies_among_many_photos_are_no_finding() -> None:
    assert findings(None, None, report=report_of(images=10_000, duplicates=(("c.jpg", "d.jpg"),))) == []


def test_names_of_classes_cannot_write_control_characters() -> None:
    weak = judged([290, 5, 5], [5, 290, 5], [20, 100, 180])
    classes = ("a\x1b[31m", "b\n", "\u202ec")
    for item in findings(weak, weak, classes=classes, report=report_of(classes=dict.fromkeys(classes, 30))):
        assert all(
            item[key] is None or item[key].isprintable() for key in ("finding", "evidence", "remedy", "expected_gain")
        )


def test_it_reads_what_evaluate_returns() -> None:
    random = np.random.default_rng(2)
    labels = np.repeat(np.arange(3), 200)
    logits = random.normal(0, 1, (600, 3)) + 4 * np.eye(3)[labels]
    logits[labels == 2] = random.normal(0, 1, (200, 3)) + 2 * np.eye(3)[1]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    measured = evaluate(chances, labels, CLASSES)
    found = findings(measured, measured, train_accuracy=measured["accuracy"])
    assert any(item["finding"].startswith("'wasp' is recognised far less often") for item in found)
    assert f"{100 * measured['per_class']['wasp']['recall']:.1f} % of its 200 unseen photos" in found[-1]["evidence"]


def test_the_gravest_comes_first() -> None:
    lazy = judged([20, 0, 0], [6, 0, 0], [6, 0, 0])
    suspicious = [{"path": "a.jpg", "label": "ant", "predicted": "bee", "probability": 0.999}]
    report = report_of(label_conflicts=({"paths": ["a.jpg", "b.jpg"], "labels": ["ant", "bee"]},))
    found = findings(lazy, lazy, report=report, suspicious=suspicious, train_accuracy=1.0)
    starts = ["not shown to be better", "stand in several classes", "wrong label", "overfits"]
    places = [next(place for place, item in enumerate(found) if start in item["finding"]) for start in starts]
    assert places == sorted(places)
    assert "too few" in found[-1]["finding"]


def test_a_thousand_classes_are_diagnosed_at_once() -> None:
    random = np.random.default_rng(1)
    counts = np.diag(random.integers(10, 50, 1000)) + random.integers(0, 2, (1000, 1000))
    names = [str(number) for number in range(1000)]
    table = {"confusion": counts.tolist()}
    begun = time.process_time()
    diagnose({"test": table, "validation": table}, report_of(), classes=names, train_accuracy=0.9)
    assert time.process_time() - begun < 2.0
