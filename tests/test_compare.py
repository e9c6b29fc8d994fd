"""Comparing two runs: which photos flipped, whether it is chance, and when a comparison is refused."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from headstart.comparison import compare
from headstart.errors import RunError
from headstart.runs import Run
from make_run import CONFIG, PLAN, small_metrics, small_rows, write_small_run

A, B = "ants", "bees"


def run_of(path: Path, answers: dict[str, tuple[str, str]], **changes: Any) -> Run:
    """A run whose test has these photos: path -> (label, what was said)."""
    classes = ("ants", "bees", "wasps")
    rows = []
    for name, (label, said) in answers.items():
        values = {item: 0.8 if item == said else 0.1 for item in classes}
        rows.append({"path": name, "label": label, "predicted": said, "probability": 0.8, "probabilities": values})
    return write_small_run(path, predictions=rows, metrics=small_metrics(small_rows()), **changes)


def test_flips_are_told_apart_into_fixed_and_broken(tmp_path: Path) -> None:
    first = run_of(
        tmp_path / "1", {"both": (A, A), "fixed": (A, B), "broken": (B, B), "neither": (A, B), "only1": (A, A)}
    )
    second = run_of(
        tmp_path / "2", {"both": (A, A), "fixed": (A, A), "broken": (B, A), "neither": (A, "wasps"), "2": (B, B)}
    )
    result = compare(first, second)
    assert result.fixed == ({"path": "fixed", "label": A, "first": B, "second": A},)
    assert result.broken == ({"path": "broken", "label": B, "first": B, "second": A},)
    assert (result.common, result.only_first, result.only_second) == (4, 1, 1)
    assert result.right == (2, 2) and result.difference == 0
    assert "only in the first" in result.to_text() and "fixed: ants, said bees, then ants" in result.to_text()


def test_the_p_value_is_that_of_the_exact_sign_test_and_the_verdict_follows_it(tmp_path: Path) -> None:
    photos = [f"{number:02d}" for number in range(40)]
    first = run_of(tmp_path / "1", {name: (A, B if int(name) < 12 else A) for name in photos})
    better = run_of(tmp_path / "2", {name: (A, B if int(name) == 39 else A) for name in photos})
    result = compare(first, better)
    flips = len(result.fixed) + len(result.broken)
    assert (len(result.fixed), len(result.broken)) == (12, 1)
    expected = 2 * sum(math.comb(flips, few) for few in range(2)) / 2**flips  # binomial, two-sided, by counting
    assert result.p_value == pytest.approx(expected)
    assert "second is better" in result.verdict() and "first is better" in compare(better, first).verdict()
    low, high = result.interval
    assert low < 11 / 40 < high and low > 0
    slightly = run_of(tmp_path / "3", {name: (A, B if int(name) < 11 else A) for name in photos})
    assert "may be chance" in compare(first, slightly).verdict()
    assert "same photos" in compare(first, first).verdict()


def test_settings_that_differ_are_listed_and_no_others(tmp_path: Path) -> None:
    first = write_small_run(tmp_path / "1")
    second = write_small_run(
        tmp_path / "2", config={**CONFIG, "seed": 7, "new": True}, plan={**PLAN, "head": "logistic"}
    )
    settings = compare(first, second).settings
    assert settings == {"seed": (0, 7), "new": (None, True), "plan.head": ("ridge", "logistic")}
    assert "seed: 0 -> 7" in compare(first, second).to_text()
    assert "No setting differs" in compare(first, first).to_text()


def test_tests_that_do_not_match_are_refused_with_the_share_of_common_photos(tmp_path: Path) -> None:
    first = run_of(tmp_path / "1", {f"{number}": (A, A) for number in range(10)})
    second = run_of(tmp_path / "2", {f"{number}": (A, A) for number in range(6, 26)})
    with pytest.raises(RunError, match=r"\(10\) and .* \(20\) do not match: 4 are in both .* 40 % of the smaller set"):
        compare(first, second)
    other_labels = run_of(tmp_path / "3", {f"{number}": (B, B) for number in range(10)})
    with pytest.raises(RunError, match="0 are in both"):
        compare(first, other_labels)


def test_a_photo_with_another_label_in_each_run_is_left_out_and_counted(tmp_path: Path) -> None:
    first = run_of(tmp_path / "1", {"a": (A, A), "b": (A, A), "c": (A, B)})
    second = run_of(tmp_path / "2", {"a": (A, A), "b": (A, A), "c": (B, B)})
    result = compare(first, second)
    assert (result.common, result.relabelled) == (2, 1)
    assert "1 labelled differently" in result.to_text()


def test_the_json_can_be_written_and_names_everything_the_text_names(tmp_path: Path) -> None:
    result = compare(write_small_run(tmp_path / "1"), write_small_run(tmp_path / "2", seed=3))
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert document["photos"]["common"] == 24
    assert set(document) == {
        "runs",
        "photos",
        "accuracy",
        "difference",
        "difference_ci95",
        "mcnemar_p",
        "verdict",
        "fixed",
        "broken",
        "settings",
    }
    assert document["difference"] == pytest.approx(document["accuracy"][1] - document["accuracy"][0])
    assert all(letter.isprintable() or letter == "\n" for letter in result.to_text())
