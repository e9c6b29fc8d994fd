"""The four cases: the rule of size, which case a data set belongs to, and what is worth trying there."""

import math
from collections.abc import Sequence

import numpy as np
import pytest

from headstart.errors import UsageError
from headstart.transfer.cases import CASES, STRATEGIES, Size, find_case, judge_size
from headstart.transfer.similarity import DIFFERENT, SIMILAR, Similarity

LITE0 = 3_374_000  # parameters, about


def likeness(value: float, verdict: str) -> Similarity:
    return Similarity(
        value=value, low=value / 1.2, high=value * 1.2, layers=(), photos=64, measure="batch norm", verdict=verdict
    )


def sized(large: bool) -> Size:
    return judge_size([5_000] * 10 if large else [50] * 10, LITE0)


@pytest.mark.parametrize(
    ("counts", "parameters", "large"),
    [
        ([122, 122], LITE0, False),  # ants and bees
        ([5_000] * 10, LITE0, True),  # CIFAR-10
        ([200, 200], 400_000, True),  # both borders at once
        ([200, 199], 399_000, False),  # 199.5 a class
        ([200, 200], 400_001, False),  # one photo for 1,000.0025 parameters
        ([399, 1], 1_000, True),  # the average counts
        ([20_000] + [10] * 132, LITE0, False),  # 133 classes: 160 a class
    ],
)
def test_large_is_200_photos_a_class_and_one_for_every_1000_parameters(
    counts: Sequence[int], parameters: int, large: bool
) -> None:
    size = judge_size(counts, parameters)
    assert size.large is large
    assert (size.photos >= size.enough) is large
    mean, share = sum(counts) / len(counts), sum(counts) / parameters
    assert large is (mean >= 200 and share >= 1 / 1000)


def test_the_reason_of_a_size_holds_its_numbers() -> None:
    size = judge_size(np.array([130, 114]), 3_374_000)
    assert (size.photos, size.classes, size.smallest, size.enough) == (244, 2, 114, 3_374)
    assert size.why == (
        "244 training photos, 122 a class, for 3,374,000 parameters: small (large is from 3,374 photos: 200 a class, "
        "and one for every 1,000 parameters)."
    )


@pytest.mark.parametrize("asked", [True, False])
def test_the_word_of_the_user_goes_before_the_rule_and_is_told(asked: bool) -> None:
    against = judge_size([50] * 10 if asked else [5_000] * 10, LITE0, large=asked)
    assert against.large is asked
    word = "large all the same, as asked for with --large." if asked else "small all the same, as asked for."
    assert against.why.endswith(f"Counted as {word}")
    assert ("small (large is from" in against.why) is asked
    same = judge_size([5_000] * 10 if asked else [50] * 10, LITE0, large=asked)
    assert same == judge_size([5_000] * 10 if asked else [50] * 10, LITE0)


def test_a_size_that_cannot_be_judged_is_refused() -> None:
    for counts, parameters in (([], 10), ([3, -1], 10), ([3, 3], 0)):
        with pytest.raises(UsageError, match=r"photos of each class \(>= 0\) and the net's parameters \(>= 1\)"):
            judge_size(counts, parameters)


@pytest.mark.parametrize(
    ("large", "verdict", "name", "strategy", "candidates"),
    [
        (False, "similar", "small-similar", "head", "head early"),
        (False, "different", "small-different", "early", "head early deeper"),
        (True, "similar", "large-similar", "full", "head deeper full"),
        (True, "different", "large-different", "scratch", "head early deeper full scratch"),
    ],
)
def test_each_of_the_four_corners_is_its_case(
    large: bool, verdict: str, name: str, strategy: str, candidates: str
) -> None:
    value = SIMILAR / 2 if verdict == "similar" else DIFFERENT * 2
    case, tried, why = find_case(sized(large), likeness(value, verdict))
    assert (case.name, case.strategy, " ".join(tried)) == (name, strategy, candidates)
    assert why == f"The case {name}. {case.sentence}"


@pytest.mark.parametrize("large", [False, True])
def test_in_between_the_nearer_side_names_the_case_and_both_sides_are_tried(large: bool) -> None:
    # On a logarithmic scale the middle is where the ratio to both thresholds is the same.
    middle = math.exp((math.log(SIMILAR) + math.log(DIFFERENT)) / 2)
    here = "large" if large else "small"
    for factor, side in ((0.99, "similar"), (1.01, "different")):
        case, tried, why = find_case(sized(large), likeness(middle * factor, "in between"))
        assert case.name == f"{here}-{side}"
        both = {*CASES[f"{here}-similar"].candidates, *CASES[f"{here}-different"].candidates}
        assert set(tried) == both
        assert list(tried) == [name for name in STRATEGIES if name in both]
        assert why.startswith(f"Between the cases {here}-similar and {here}-different, nearer to {here}-{side};")


def test_the_table_of_cases_is_whole() -> None:
    assert sorted(CASES) == ["large-different", "large-similar", "small-different", "small-similar"]
    order = list(STRATEGIES)
    for name, case in CASES.items():
        assert case.name == name
        assert case.strategy in case.candidates
        assert case.candidates[0] == "head", "the cheapest is always known"
        assert list(case.candidates) == sorted(case.candidates, key=order.index)
        assert case.sentence.endswith(".")
    assert {case.strategy for case in CASES.values()} | {"deeper"} == set(STRATEGIES)


def test_a_size_is_written_with_the_border_it_was_judged_by() -> None:
    told = judge_size([122, 122], LITE0).to_json()
    assert {key: told[key] for key in ("photos", "classes", "smallest", "large", "enough")} == {
        "photos": 244,
        "classes": 2,
        "smallest": 122,
        "large": False,
        "enough": 3_374,
    }
