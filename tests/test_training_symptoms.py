"""What the course of a training says: symptoms from numbers that have them by definition, none from a good one."""

import math

import numpy as np
import pytest

from headstart.diagnose import Share, difference
from headstart.training.symptoms import diagnose_history

CLASSES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu", "hen", "ibis", "jay")


def rows(losses: list[float], accuracy: float = 0.95, val_accuracy: float = 0.94, **more: list[float]) -> list[dict]:
    return [
        {
            "epoch": place + 1.0,
            "loss": loss,
            "accuracy": accuracy,
            "val_loss": more.get("val_loss", losses)[place],
            "val_accuracy": val_accuracy,
            "learning_rate": 0.01,
        }
        for place, loss in enumerate(losses)
    ]


def causes(history: list[dict], **more: object) -> list[str]:
    found = diagnose_history(history, classes=CLASSES, train_images=1000, validation_images=500, **more)
    assert all(item[part].endswith((".", "?")) for item in found for part in ("finding", "evidence", "remedy"))
    assert all(set(item) == {"finding", "evidence", "remedy", "expected_gain", "cause"} for item in found)
    return [item["cause"] for item in found]


GOOD = [1.2, 0.5, 0.3, 0.24, 0.22, 0.215, 0.214, 0.2139]


def test_a_good_training_that_has_settled_is_left_in_peace() -> None:
    assert causes(rows(GOOD)) == []


def test_no_epoch_says_nothing() -> None:
    assert causes([]) == []


@pytest.mark.parametrize(
    "losses",
    [
        [1.2, 0.8, math.nan],
        [1.2, 0.8, math.inf, math.nan],
        [1.2, 0.5, 2.31, 2.31],  # it had learned, and is back at guessing
        [9.0, 2.32, 2.31, 2.31],  # a spike, then guessing
        [1.2, 1.0, 2.6],  # more than twice the first
    ],
)
def test_a_training_that_blew_up_has_diverged(losses: list[float]) -> None:
    found = diagnose_history(rows(losses, 0.1, 0.1), classes=CLASSES, train_images=1000, validation_images=500)
    assert [item["cause"] for item in found] == ["diverged"] and "--learning-rate 0.001" in found[0]["remedy"]


def test_a_loss_that_leaps_means_a_rate_too_high() -> None:
    assert causes(rows([1.2, 0.6, 1.1, 0.5, 0.9, 0.5, 0.8, 0.6]))[0] == "rate-too-high"


def test_a_loss_that_falls_as_slowly_as_at_first_means_a_rate_too_low() -> None:
    found = causes(rows([2.30, 2.27, 2.24, 2.21, 2.18, 2.15, 2.12], 0.2, 0.2))
    assert found[0] == "rate-too-low"


def test_a_loss_that_fell_fast_and_then_slowly_does_not() -> None:
    assert "rate-too-low" not in causes(rows([1.9, 1.5, 1.38, 1.31, 1.27, 1.25, 1.24], 0.5, 0.5))


def test_a_gap_beyond_chance_is_overfitting_with_its_interval() -> None:
    history = rows(GOOD, 1.0, 0.7, val_loss=[1.2, 0.9, 0.8, 0.9, 1.0, 1.2, 1.4, 1.6])
    found = diagnose_history(history, classes=CLASSES, train_images=1000, validation_images=500)
    low, high = difference(Share.of(1000, 1000), Share.of(350, 500))
    assert [item["cause"] for item in found] == ["overfitting"]
    assert f"30.0 points ({100 * low:.1f} points to {100 * high:.1f} points)" in found[0]["evidence"]
    assert "lowest in epoch 3" in found[0]["evidence"]
    words = ("more photos", "augmentation", "generalises better", "regularisation", "smaller")
    places = [found[0]["remedy"].index(word) for word in words]
    assert places == sorted(places)


def test_the_same_gap_on_few_photos_is_not_told() -> None:
    found = diagnose_history(rows(GOOD, 1.0, 0.9), classes=CLASSES, train_images=20, validation_images=20)
    assert found == []


def test_a_net_that_fails_its_own_training_photos_underfits() -> None:
    assert causes(rows([1.9, 1.5, 1.4, 1.38, 1.379, 1.3789], 0.5, 0.5)) == ["underfitting"]


def test_a_loss_that_is_lowest_at_the_end_is_still_improving() -> None:
    found = diagnose_history(
        rows([1.2, 0.6, 0.4, 0.3, 0.25, 0.2]), classes=CLASSES, train_images=1000, validation_images=500
    )
    assert [item["cause"] for item in found] == ["still-improving"] and "--epochs 12" in found[0]["remedy"]
    assert "learning rate" not in found[0]["evidence"]


def test_a_fall_at_the_end_of_a_schedule_is_said_to_come_in_part_from_it() -> None:
    history = rows([1.2, 0.6, 0.4, 0.3, 0.25, 0.2])
    for row, rate in zip(history, (0.1, 0.3, 0.25, 0.1, 0.05, 0.001), strict=True):
        row["learning_rate"] = rate
    (found,) = diagnose_history(history, classes=CLASSES, train_images=1000, validation_images=500)
    assert found["cause"] == "still-improving" and "learning rate came to its end" in found["evidence"]


def predictions(noise: float, accuracy: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """A calibrated net on true labels, of which a share is then replaced at random."""
    random = np.random.default_rng(seed)
    truth = random.integers(0, 10, 2000)
    sure = np.clip(random.beta(8 * accuracy, 8 * (1 - accuracy), 2000), 0.1, 0.999)
    answers = np.where(random.random(2000) < sure, truth, (truth + random.integers(1, 10, 2000)) % 10)
    probabilities = np.repeat((1 - sure)[:, None] / 9, 10, axis=1)
    probabilities[np.arange(2000), answers] = sure
    labels = np.where(random.random(2000) < noise, random.integers(0, 10, 2000), truth)
    return labels, probabilities


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("noise", "accuracy"), [(0.2, 0.9), (0.1, 0.97), (0.25, 0.9)])
def test_wrong_labels_are_suspected_where_the_surest_answers_contradict_them(
    noise: float, accuracy: float, seed: int
) -> None:
    labels, probabilities = predictions(noise, accuracy, seed)
    assert causes(rows(GOOD), labels=labels, probabilities=probabilities) == ["label-noise"]


@pytest.mark.parametrize("accuracy", [0.3, 0.5, 0.7, 0.9, 0.97])
@pytest.mark.parametrize("seed", range(3))
def test_a_hard_task_with_right_labels_is_not_taken_for_wrong_labels(accuracy: float, seed: int) -> None:
    labels, probabilities = predictions(0.0, accuracy, seed)
    assert causes(rows(GOOD), labels=labels, probabilities=probabilities) == []


def test_a_class_with_few_photos_is_named_only_where_it_is_recognised_less() -> None:
    labels, probabilities = predictions(0.0, 0.97)
    counts = dict.fromkeys(CLASSES, 400) | {"cat": 9}
    assert causes(rows(GOOD), labels=labels, probabilities=probabilities, counts=counts) == []
    probabilities[labels == 2] = np.eye(10)[0]
    found = diagnose_history(
        rows(GOOD), classes=CLASSES, train_images=1000, validation_images=500, counts=counts, labels=labels,
        probabilities=probabilities,
    )  # fmt: skip
    few = next(item for item in found if item["cause"] == "few-photos")
    assert (
        "A class has too few photos: 'cat'" in few["finding"]
        and "9 training photos, the usual class 400" in few["evidence"]
    )


def test_dead_layers_are_named_the_worst_first() -> None:
    found = diagnose_history(
        rows(GOOD), classes=CLASSES, train_images=1000, validation_images=500,
        dead={"relu1": 0.1, "relu2": 0.6, "relu3": 0.9},
    )  # fmt: skip
    assert [item["cause"] for item in found] == ["dead-units"]
    assert "relu3 90.0 %, relu2 60.0 %" in found[0]["evidence"] and "relu1" not in found[0]["evidence"]
