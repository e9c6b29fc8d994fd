"""The temperature is the best one by brute force, finite for separable photos, and scales as the logits do."""

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.heads import fit_temperature, probabilities
from headstart.heads.calibration import tempered_losses


def draws(photos: int, classes: int, temperature: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits, and labels drawn from softmax(logits / temperature)."""
    random = np.random.default_rng(seed)
    logits = 3 * random.normal(size=(photos, classes))
    noisy = logits / temperature + random.gumbel(size=(photos, classes))
    return logits, noisy.argmax(axis=1)


def smoothed_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    """Log loss with Platt's targets, photo by photo."""
    total, count = 0.0, len(labels)
    for row, label in zip(logits / temperature, labels, strict=True):
        logs = row - row.max() - np.log(np.exp(row - row.max()).sum())
        others = (logs.sum() - logs[label]) / (len(row) - 1)
        total -= (count + 1) / (count + 2) * logs[label] + 1 / (count + 2) * others
    return total / count


@pytest.mark.parametrize(("photos", "classes", "true"), [(30, 2, 1.0), (80, 5, 3.0), (50, 3, 0.2)])
def test_no_other_temperature_is_better(photos: int, classes: int, true: float) -> None:
    logits, labels = draws(photos, classes, true)
    found = fit_temperature(logits, labels)
    lowest = smoothed_loss(logits, labels, found)
    grid = np.exp(np.linspace(np.log(1e-3), np.log(1e3), 400))
    assert lowest <= min(smoothed_loss(logits, labels, temperature) for temperature in grid) + 1e-9
    assert tempered_losses(logits, labels).mean() == pytest.approx(lowest)


@pytest.mark.parametrize("true", [0.5, 1.0, 2.5])
def test_the_temperature_that_made_the_labels_is_found_again(true: float) -> None:
    logits, labels = draws(20_000, 4, true)
    assert fit_temperature(logits, labels) == pytest.approx(true, rel=0.05)


@pytest.mark.parametrize("scale", [1e-2, 1.0, 30.0])
def test_photos_told_apart_without_error_keep_a_finite_sharpness(scale: float) -> None:
    logits = scale * np.array([[1.0, -1.0], [-1.0, 1.0], [2.0, -2.0], [-3.0, 3.0]])
    labels = np.array([0, 1, 0, 1])
    chances = probabilities(logits, fit_temperature(logits, labels))
    # Platt's target for four photos is 5/6; three or more bits of confidence would be made up, whatever the scale.
    assert 0.7 < chances.max(axis=1).mean() < 0.9


def test_logits_that_say_nothing_get_the_flattest_probabilities() -> None:
    logits, _ = draws(200, 3, 1.0)
    wrong = logits.argmin(axis=1)
    assert fit_temperature(logits, wrong) == pytest.approx(1e3)
    assert fit_temperature(np.zeros((5, 3)), np.array([0, 1, 2, 0, 1])) > 0


def test_probabilities_sum_to_one_and_survive_huge_logits() -> None:
    logits = np.array([[1e4, -1e4, 0.0], [3e4, 3e4, 3e4]], np.float32)
    chances = probabilities(logits, 0.001)
    np.testing.assert_allclose(chances.sum(axis=1), 1)
    np.testing.assert_allclose(chances[1], 1 / 3)
    np.testing.assert_allclose(probabilities(np.array([[2.0, 0.0]]), 2.0)[0, 0], 1 / (1 + np.exp(-1)))


def test_logits_that_are_not_finite_are_refused() -> None:
    with pytest.raises(DataError, match="finite logits of at least one photo; received 2 photos"):
        fit_temperature(np.array([[1.0, np.nan], [0.0, 1.0]]), np.array([0, 1]))
    with pytest.raises(DataError, match="received 0 photos"):
        fit_temperature(np.zeros((0, 2)), np.zeros(0, np.int64))
