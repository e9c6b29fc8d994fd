"""The measures equal scikit-learn's, slow loops from the definitions, and published values."""

import itertools
import json
import math

import numpy as np
import pytest

from headstart import metrics
from headstart.errors import UsageError


def random_predictions(seed: int, photos: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray, list[str]]:
    random = np.random.default_rng(seed)
    scores = random.gumbel(size=(photos, classes)) * 2
    probabilities = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    return probabilities, random.integers(0, classes, photos), [f"class {number}" for number in range(classes)]


def test_the_interval_solves_the_equation_it_is_defined_by() -> None:
    # Wilson's bounds are the shares p at which the observed share lies 1.96 standard errors of p away.
    for correct, count in ((145, 153), (1, 10), (5, 5000), (9, 10)):
        for bound in metrics.accuracy_interval(correct, count):
            distance = abs(correct / count - bound) / math.sqrt(bound * (1 - bound) / count)
            assert distance == pytest.approx(1.959963984540054)
    assert metrics.accuracy_interval(0, 10) == pytest.approx(
        (0.0, 0.2775), abs=1e-4
    )  # Wilson for 0 of 10, as published
    assert metrics.accuracy_interval(10, 10) == pytest.approx((0.7225, 1.0), abs=1e-4)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    random = np.random.default_rng(0)
    for share in (0.6, 0.9):
        hits = random.binomial(150, share, 4000)
        intervals = {hit: metrics.accuracy_interval(int(hit), 150) for hit in np.unique(hits)}
        covered = np.mean([intervals[hit][0] <= share <= intervals[hit][1] for hit in hits])
        assert 0.935 <= covered <= 0.97


@pytest.mark.parametrize("seed", range(5))
def test_the_measures_equal_those_of_scikit_learn(seed: int) -> None:
    oracle = pytest.importorskip("sklearn.metrics")
    probabilities, labels, classes = random_predictions(seed)
    predicted = probabilities.argmax(axis=1)
    document = metrics.evaluate(probabilities, labels, classes)
    assert document["accuracy"] == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert document["confusion"] == oracle.confusion_matrix(labels, predicted, labels=range(4)).tolist()
    assert document["log_loss"] == pytest.approx(oracle.log_loss(labels, probabilities, labels=range(4)))
    table = oracle.precision_recall_fscore_support(labels, predicted, labels=range(4), zero_division=0)
    for index, name in enumerate(classes):
        row = document["per_class"][name]
        assert [row["precision"], row["recall"], row["f1"], row["support"]] == pytest.approx([c[index] for c in table])
    assert document["macro_f1"] == pytest.approx(oracle.f1_score(labels, predicted, average="macro"))
    assert document["top_k"]["3"] == pytest.approx(
        oracle.top_k_accuracy_score(labels, probabilities, k=3, labels=range(4))
    )


def test_calibration_error_and_brier_score_equal_slow_loops() -> None:
    probabilities, labels, _ = random_predictions(7)
    gap = 0.0
    for low in range(15):
        members = [i for i in range(200) if low / 15 < probabilities[i].max() <= (low + 1) / 15]
        if members:
            sure = sum(probabilities[i].max() for i in members) / len(members)
            right = sum(probabilities[i].argmax() == labels[i] for i in members) / len(members)
            gap += len(members) / 200 * abs(sure - right)
    assert metrics.ece(probabilities, labels) == pytest.approx(gap)
    slow = sum((probabilities[i][c] - (labels[i] == c)) ** 2 for i in range(200) for c in range(4)) / 200
    assert metrics.brier(probabilities, labels) == pytest.approx(slow)


def test_mcnemar_counts_every_sequence_of_coins() -> None:
    for fixed, broken in itertools.product(range(5), range(5)):
        flips, worst = fixed + broken, abs(fixed - broken)
        heads = [sum(coins) for coins in itertools.product((0, 1), repeat=flips)]
        extreme = sum(abs(2 * head - flips) >= worst for head in heads) / len(heads)
        assert metrics.mcnemar(fixed, broken) == pytest.approx(extreme)
    exact = 2 * sum(math.comb(1200, k) for k in range(571)) / 2**1200
    assert metrics.mcnemar(570, 630) == pytest.approx(exact, rel=1e-9)


def test_the_interval_of_a_difference_covers_the_truth_and_knows_its_sign() -> None:
    random = np.random.default_rng(1)
    fixed_share, broken_share, count = 0.06, 0.03, 200
    draws = random.multinomial(count, [fixed_share, broken_share, 1 - fixed_share - broken_share], 4000)
    bounds = [metrics.difference_interval(int(up), int(down), count) for up, down, _ in draws]
    covered = np.mean([low <= fixed_share - broken_share <= high for low, high in bounds])
    assert 0.935 <= covered <= 0.975
    low, high = metrics.difference_interval(30, 2, 200)
    assert 0 < low < high
    assert metrics.difference_interval(2, 30, 200) == pytest.approx((-high, -low))


def test_what_is_undefined_is_null_and_the_document_is_json() -> None:
    probabilities = np.array([[0.9, 0.1, 0.0], [0.8, 0.2, 0.0]])
    document = metrics.evaluate(probabilities, np.array([0, 1]), ["a", "b", "c"])
    assert document["per_class"]["b"] == {"precision": None, "recall": 0.0, "f1": 0.0, "support": 1}
    assert document["per_class"]["c"] == {"precision": None, "recall": None, "f1": None, "support": 0}
    assert document["most_confused"] == [{"true": "b", "predicted": "a", "count": 1}]
    assert json.loads(json.dumps(document, allow_nan=False)) == document


def test_arrays_that_do_not_belong_together_are_refused() -> None:
    with pytest.raises(UsageError, match=r"received \(1, 3\) for 1 labels"):
        metrics.evaluate(np.full((1, 3), 1 / 3), np.array([0]), ["a", "b"])
    with pytest.raises(UsageError, match=r"labels in 0\.\.1"):
        metrics.evaluate(np.full((1, 2), 0.5), np.array([2]), ["a", "b"])
    with pytest.raises(UsageError, match="received 3 of 2"):
        metrics.accuracy_interval(3, 2)
