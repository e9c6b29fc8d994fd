"""Logistic regression: gradient, optimum and held-out folds against finite differences and scikit-learn."""

import numpy as np
import pytest

from headstart.heads import fit_head
from headstart.heads.checks import check
from headstart.heads.logistic import without_absent
from headstart.heads.softmax import Problems, minimise
from headstart.heads.spectrum import decompose


def problems(photos: int = 40, axes: int = 6, classes: int = 3, kind: type = np.float64) -> Problems:
    random = np.random.default_rng(photos + axes)
    labels = np.arange(photos) % classes
    features = random.normal(size=(photos, axes)) + random.normal(size=(classes, axes))[labels]
    spectrum = decompose(features, np.ones(photos))
    weights = np.column_stack([np.ones(photos), random.uniform(0.1, 2, photos), np.arange(photos) % 4 != 0])
    penalties = np.array([0.3, 0.05, 0.01])
    return Problems(spectrum.rotated.astype(kind), spectrum.scatter, labels, weights, penalties, classes)


def objective(given: Problems, problem: int, solution: np.ndarray) -> float:
    """The objective by its definition, photo by photo."""
    total = 0.0
    for row, label, weight in zip(given.rotated, given.labels, given.weights[:, problem], strict=True):
        scores = row @ solution[:-1] + solution[-1]
        total -= weight * (scores[label] - np.log(np.exp(scores).sum()))
    size = given.penalties[problem] / 2 * (solution[:-1] ** 2).sum()
    return float(total / given.weights[:, problem].sum() + size)


def test_value_and_gradient_equal_the_definition_and_finite_differences() -> None:
    given = problems()
    solutions = np.random.default_rng(1).normal(size=(3, 7, 3))
    values, chances = given.value(given.logits(solutions), solutions)
    gradient = given.gradient(chances, solutions)
    step = 1e-6
    for problem in range(3):
        assert values[problem] == pytest.approx(objective(given, problem, solutions[problem]), abs=1e-12)
        for place in np.ndindex(7, 3):
            ahead, behind = solutions[problem].copy(), solutions[problem].copy()
            ahead[place] += step
            behind[place] -= step
            slope = (objective(given, problem, ahead) - objective(given, problem, behind)) / (2 * step)
            assert gradient[problem][place] == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize(("photos", "axes", "classes"), [(40, 6, 3), (30, 60, 2), (80, 20, 8)])
def test_the_optimum_is_that_of_scikit_learn(photos: int, axes: int, classes: int) -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    given = problems(photos, axes, classes)
    solved = minimise(given, None, steps=2000, tolerance=1e-15)
    for problem, penalty in enumerate(given.penalties):
        weights = given.weights[:, problem] / given.weights[:, problem].sum()
        # With two classes the oracle has one column of slopes, our two are its half each: half the penalty.
        oracle = linear_model.LogisticRegression(C=(2 if classes == 2 else 1) / penalty, tol=1e-12, max_iter=20_000)
        oracle.fit(given.rotated, given.labels, sample_weight=weights)
        chances = oracle.predict_proba(given.rotated)
        ours = solved.logits[:, problem]
        ours = np.exp(ours - ours.max(axis=1, keepdims=True))
        np.testing.assert_allclose(ours / ours.sum(axis=1, keepdims=True), chances, atol=2e-5)


def test_float32_comes_within_a_thousandth_of_the_lowest_objective() -> None:
    exact = minimise(problems(), None, steps=2000, tolerance=1e-15)
    quick = minimise(problems(kind=np.float32), None, steps=60, tolerance=1e-5)
    assert quick.solutions.dtype == np.float32
    np.testing.assert_allclose(quick.values, exact.values, rtol=1e-3)


def test_no_step_raises_an_objective_even_far_from_the_optimum() -> None:
    given = problems()
    start = np.random.default_rng(2).normal(size=(3, 7, 3)) * 100
    values = [given.value(given.logits(start), start)[0]]
    for steps in range(1, 15):
        values.append(minimise(given, start, steps=steps, tolerance=0.0).values)
    assert (np.diff(values, axis=0) <= 1e-9).all()
    assert (values[-1] < values[0]).all()


def test_a_photo_with_weight_zero_is_a_photo_that_is_not_there() -> None:
    given = problems()
    seen = given.weights[:, 2] > 0
    alone = Problems(
        given.rotated[seen], given.scatter, given.labels[seen], np.ones((seen.sum(), 1)), given.penalties[2:], 3
    )
    together = minimise(given, None, steps=500, tolerance=1e-14).solutions[2]
    separate = minimise(alone, None, steps=500, tolerance=1e-14).solutions[0]
    np.testing.assert_allclose(together, separate, atol=1e-5)


@pytest.mark.parametrize("limit", [2e8, 0.0])
def test_held_out_logits_are_those_of_fits_without_the_fold(limit: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # With no photos allowed for the thorough way, every data set takes the one for large sets.
    linear_model = pytest.importorskip("sklearn.linear_model")
    monkeypatch.setattr("headstart.heads.logistic.THOROUGH", limit)
    monkeypatch.setattr("headstart.heads.logistic.TOLERANCE", 1e-7)
    monkeypatch.setattr("headstart.heads.logistic.STEPS", 500)
    random = np.random.default_rng(5)
    labels = np.arange(90) % 3
    features = random.normal(size=(90, 10)) + 0.8 * random.normal(size=(3, 10))[labels]
    folds = np.arange(90) // 3 % 5
    fitted = fit_head("logistic", features, labels, 3, folds=folds)
    assert isinstance(fitted.strength, float)
    scale = decompose(features, np.ones(90)).scale
    for fold in range(5):
        out = folds == fold
        penalty = fitted.strength * 10 / 90
        oracle = linear_model.LogisticRegression(C=1 / (penalty * (~out).sum()), tol=1e-10, max_iter=5000)
        oracle.fit(features[~out] / scale, labels[~out])
        ours = np.exp(fitted.held_out[out])
        ours /= ours.sum(axis=1, keepdims=True)
        np.testing.assert_allclose(ours, oracle.predict_proba(features[out] / scale), atol=5e-3)


def test_a_class_that_was_not_seen_has_the_chance_of_half_a_photo() -> None:
    logits = np.array([[3.0, 50.0, -1.0], [700.0, 0.0, 699.0]])
    filled = without_absent(logits, np.array([True, False, True]), 40)
    chances = np.exp(filled - filled.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(chances[:, 1], 0.5 / 40.5)
    np.testing.assert_array_equal(filled[:, [0, 2]], logits[:, [0, 2]])


def test_a_class_without_photos_is_improbable_and_harms_no_other() -> None:
    given = check(np.random.default_rng(0).normal(size=(40, 5)), np.arange(40) % 2, 4, np.arange(40) % 4, None, None, 0)
    with_more = fit_head("logistic", given.features, given.labels, 4, folds=given.folds).head.logits(given.features)
    chances = np.exp(with_more - with_more.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    assert (chances[:, 2:] < 0.05).all()
    assert (chances[:, :2] > 0.01).all()
