"""Ridge: held-out predictions are those of fits that were made without the photo, and what is folded is equal."""

import numpy as np
import pytest

from headstart.heads import fit_head
from headstart.heads.checks import Material, check
from headstart.heads.ridge import STRENGTHS, Path, ridge_path

SHAPES = [(14, 30, 3), (40, 6, 3), (25, 25, 2)]  # photos, features, classes: fewer, more and as many photos as features


def material(
    photos: int, features: int, classes: int, *, weighted: bool = False, clusters: np.ndarray | None = None
) -> Material:
    random = np.random.default_rng(photos)
    labels = np.arange(photos) % classes
    values = random.normal(size=(photos, features)) + random.normal(size=(classes, features))[labels]
    weights = random.uniform(0.2, 3, photos) if weighted else None
    return check(values, labels, classes, np.arange(photos) % 4, weights, clusters, 0)


def refit(path: Path, given: Material, keep: np.ndarray, strength: float) -> np.ndarray:
    """Ridge with a free intercept from its definition, on the kept photos; predictions for all photos."""
    features = given.features / path.spectrum.scale
    ones = np.column_stack([features, np.ones(len(features))])
    penalty = np.diag([strength * features.shape[1]] * features.shape[1] + [0.0])
    weighted = ones[keep].T * given.weights[keep]
    targets = np.where(given.labels[:, None] == np.arange(given.classes), 1.0, -1.0)
    return ones @ np.linalg.solve(weighted @ ones[keep] + penalty, weighted @ targets[keep])


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_each_photo_out_equals_fitting_without_it(shape: tuple[int, int, int], weighted: bool) -> None:
    given = material(*shape, weighted=weighted)
    path = ridge_path(given, given.features)
    for strength in STRENGTHS:
        held_out = path.held_out(strength, given.groups)
        for photo in range(shape[0]):
            keep = np.arange(shape[0]) != photo
            np.testing.assert_allclose(held_out[photo], refit(path, given, keep, strength)[photo], atol=1e-8)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_leaving_groups_out_equals_fitting_without_them(shape: tuple[int, int, int], weighted: bool) -> None:
    # Groups of 1, 2 and 10 photos: by a division, by a system of their size and, with 6 features, by one of the axes.
    groups = np.concatenate([[0, 1, 1], np.full(10, 7), np.arange(100, 100 + shape[0] - 13)])
    given = material(*shape, weighted=weighted, clusters=groups)
    path = ridge_path(given, given.features)
    for strength in (0.01, 1.0):
        held_out = path.held_out(strength, given.groups)
        for group in np.unique(groups):
            expected = refit(path, given, groups != group, strength)[groups == group]
            np.testing.assert_allclose(held_out[groups == group], expected, atol=1e-8)


def test_the_intercept_is_free_and_a_weight_of_two_is_a_photo_twice() -> None:
    given = material(30, 8, 3)
    twice = np.r_[np.arange(30), 4]
    weights = np.ones(30)
    weights[4] = 2
    doubled = check(given.features[twice] + 100.0, given.labels[twice], 3, given.folds[twice], None, None, 0)
    weighted = check(given.features, given.labels, 3, given.folds, weights, None, 0)
    plain, heavy = ridge_path(doubled, doubled.features), ridge_path(weighted, weighted.features)
    # The weights are scaled to a mean of 1, so the same penalty is a different strength.
    first = plain.spectrum.unfold(plain.slopes(0.5), plain.middle)
    second = heavy.spectrum.unfold(heavy.slopes(0.5 * 30 / 31), heavy.middle)
    np.testing.assert_allclose(first[0], second[0], atol=1e-9)
    np.testing.assert_allclose(first[1] + first[0].sum(axis=1) * 100, second[1], atol=1e-7)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_coefficients_are_those_of_scikit_learn(shape: tuple[int, int, int]) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    given = material(*shape, weighted=True)
    fitted = fit_head("ridge", given.features, given.labels, shape[2], folds=given.folds, sample_weights=given.weights)
    path = ridge_path(given, given.features)
    assert isinstance(fitted.strength, float)
    oracle = linear_model.Ridge(alpha=fitted.strength * shape[1] * path.spectrum.scale**2)
    targets = np.where(given.labels[:, None] == np.arange(shape[2]), 1.0, -1.0)
    oracle.fit(given.features, targets, sample_weight=given.weights)
    np.testing.assert_allclose(fitted.head.tensors["weight"], oracle.coef_, atol=1e-5)
    np.testing.assert_allclose(fitted.head.logits(given.features), oracle.predict(given.features), atol=1e-5)


def test_many_photos_take_the_path_in_float32_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.heads.spectrum.DOUBLE", 1000)
    monkeypatch.setattr("headstart.heads.spectrum.BLOCK", 300)
    monkeypatch.setattr("headstart.heads.ridge.BLOCK", 300)
    random = np.random.default_rng(0)
    labels = random.integers(0, 2, 1000)
    features = (random.normal(size=(1000, 64)) + 0.3 * labels[:, None]).astype(np.float32)
    given = check(features, labels, 2, np.arange(1000) % 5, None, None, 0)
    path = ridge_path(given, features)
    assert path.spectrum.rotated.dtype == np.float32
    keep = np.arange(1000) != 11
    expected = refit(path, given, keep, 1.0)[11]
    np.testing.assert_allclose(path.held_out(1.0, given.groups)[11], expected, atol=1e-4)


def test_the_strength_is_the_one_with_the_lowest_log_loss_of_all_that_were_tried() -> None:
    given = material(60, 20, 3)
    fitted = fit_head("ridge", given.features, given.labels, 3, folds=given.folds)
    best = min(fitted.tried, key=lambda entry: entry["log_loss"])
    assert fitted.strength == best["strength"]
    assert [entry["strength"] for entry in fitted.tried] == list(STRENGTHS)
    assert best["accuracy"] == np.mean(fitted.held_out.argmax(axis=1) == given.labels)
