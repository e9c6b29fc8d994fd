"""The learning curve: measured as its definition says, laws weighed by Bayes' rule, intervals that hold."""

import json
import math

import numpy as np
import pytest
from scipy.stats import multivariate_normal

from headstart.errors import UsageError
from headstart.heads import fit_head
from headstart.transfer import forecast, power_law
from headstart.transfer.forecast import learning_curve
from headstart.transfer.power_law import (
    BENT,
    EXPONENT_SPREAD,
    EXPONENTS,
    FLOORS,
    LEAST_WRONG,
    TOGETHER,
    USUAL_EXPONENT,
    USUAL_FLOOR,
    fit_law,
)
from headstart.transfer.subsamples import deal

SIZES = np.array([50.0, 100.0, 200.0, 400.0])


def clouds(photos: int, classes: int, *, length: int = 20, seed: int = 0, apart: float = 2.0) -> tuple[np.ndarray, ...]:
    """One Gaussian cloud a class: features, labels, folds."""
    random = np.random.default_rng(seed)
    middles = np.random.default_rng(99).normal(size=(classes, length)) * apart / math.sqrt(length)
    labels = random.permutation(np.arange(photos) % classes)
    features = middles[labels] + random.normal(size=(photos, length)) / 2
    return features.astype(np.float32), labels, np.arange(photos) % 5


def draw_points(error: np.ndarray, photos: int, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Shares of wrong photos and their covariance, each photo with a hardness of its own that all points share."""
    hardness = random.random(photos)
    wrong = (hardness[:, None] + 0.1 * random.normal(size=(photos, len(error)))) % 1 < error
    return wrong.mean(axis=0), np.cov(wrong.T, bias=True) / photos


@pytest.mark.parametrize(("floor", "scale", "exponent"), [(0.0, 1.5, 0.5), (0.05, 2.0, 0.8), (0.0, 0.5, 0.2)])
@pytest.mark.parametrize("times", [2, 4])
def test_the_law_behind_nearly_exact_points_is_carried_on(
    monkeypatch: pytest.MonkeyPatch, floor: float, scale: float, exponent: float, times: int
) -> None:
    monkeypatch.setattr(power_law, "BENT", 0.0)
    errors = floor + scale * SIZES**-exponent
    law = fit_law(SIZES, errors, np.diag((0.01 * errors) ** 2), judged=1e6)
    truth = floor + scale * (times * SIZES[-1]) ** -exponent
    told, low, high = law.error(times * SIZES[-1])
    assert abs(told - truth) < 0.08 * truth
    assert low <= truth <= high


def test_weights_are_those_of_bayes_rule_by_its_definition() -> None:
    sizes, errors = np.array([20.0, 40.0, 80.0]), np.array([0.30, 0.22, 0.15])
    covariance = np.array([[5.0, 2.0, 1.0], [2.0, 4.0, 1.5], [1.0, 1.5, 3.0]]) * 1e-4
    law = fit_law(sizes, errors, covariance, judged=80)
    independent = 80 / TOGETHER
    least = (LEAST_WRONG / independent) ** 2
    uncertain = TOGETHER * covariance + np.diag([(2 * BENT * 0.30) ** 2 + least, (BENT * 0.22) ** 2 + least, 0])
    random = np.random.default_rng(0)
    places = [tuple(place) for place in np.argwhere(law.weights > 1e-3 * law.weights.max())]
    scores = []
    for level, floor, exponent in (places[number] for number in random.choice(len(places), 200, replace=False)):
        error, share, power = law.errors[level], FLOORS[floor], EXPONENTS[exponent]
        model = [error * (share + (1 - share) * (n / 80) ** -power) for n in sizes]
        joint = multivariate_normal(model, uncertain).logpdf(errors)
        alone = multivariate_normal([model[-1]], uncertain[-1:, -1:]).logpdf(errors[-1])
        share_of_wrong = independent * (0.15 * math.log(error) + 0.85 * math.log1p(-error))
        prior = USUAL_FLOOR * math.log(1 - share) - 0.5 * (math.log(power / USUAL_EXPONENT) / EXPONENT_SPREAD) ** 2
        scores.append(joint - alone + share_of_wrong + prior - math.log(law.weights[level, floor, exponent]))
    assert np.ptp(scores) < 1e-6
    assert law.weights.sum() == pytest.approx(1)


def test_intervals_of_twice_the_photos_hold_for_nearly_all_known_laws() -> None:
    random = np.random.default_rng(0)
    held, widths = 0, []
    for _ in range(300):
        exponent, floor = random.uniform(0.2, 0.9), random.uniform(0, 0.05)
        errors = floor + random.uniform(0.02, 0.2) * (SIZES / SIZES[-1]) ** -exponent
        points, covariance = draw_points(np.minimum(errors, 0.9), 400, random)
        _, low, high = fit_law(SIZES, points, covariance, judged=400).error(800)
        truth = floor + (errors[-1] - floor) * 2**-exponent
        held += low <= truth <= high
        widths.append(high - low)
    assert held >= 0.93 * 300
    assert np.median(widths) < 0.09  # and they are not so wide that they say nothing


def test_no_mistake_in_few_photos_is_not_taken_for_none_at_all() -> None:
    law = fit_law(np.array([10.0, 20.0]), np.zeros(2), np.zeros((2, 2)), judged=20)
    _, low, high = law.error(20)
    assert low < 0.005
    assert 0.06 < high < 0.2  # the exact 95 % bound of 0 of 20 alone is 0.139 (one side) to 0.168 (two sides)


def test_further_ahead_the_error_is_lower_and_the_gain_less_certain() -> None:
    random = np.random.default_rng(1)
    points, covariance = draw_points(0.6 * (SIZES / 50) ** -0.5, 400, random)
    law = fit_law(SIZES, points, covariance, judged=400)
    told = [law.error(photos)[0] for photos in (400, 800, 1600, 6400)]
    assert told == sorted(told, reverse=True)
    spans = [high - low for _, low, high in (law.gain(400, more) for more in (500, 800, 1600, 6400))]
    assert spans == sorted(spans)
    assert law.gain(400, 400) == (0, 0, 0)


def test_a_gain_is_known_better_than_the_accuracy_itself() -> None:
    points, covariance = draw_points(0.4 * (SIZES / 50) ** -0.4, 400, np.random.default_rng(2))
    law = fit_law(SIZES, points, covariance, judged=400)
    _, low, high = law.error(800)
    _, least, most = law.gain(400, 800)
    assert most - least < 0.7 * (high - low)


@pytest.mark.parametrize("sizes", [[], [0.0, 1.0], [20.0, 10.0]])
def test_points_that_are_none_are_refused(sizes: list[float]) -> None:
    with pytest.raises(UsageError, match="ascending"):
        fit_law(np.array(sizes), np.zeros(len(sizes)), np.zeros((len(sizes),) * 2), judged=10)


@pytest.mark.parametrize(("photos", "length"), [(96, 140), (300, 20)])  # fewer and more photos than features
def test_each_point_is_that_of_ridge_fitted_to_its_photos_and_judged_on_the_others(
    monkeypatch: pytest.MonkeyPatch, photos: int, length: int
) -> None:
    from sklearn.linear_model import Ridge

    features, labels, folds = clouds(photos, 3, length=length, apart=1.0)
    dealt = np.random.default_rng(5).permutation(photos)
    monkeypatch.setattr(forecast, "deal", lambda *_: dealt)
    curve = learning_curve(features, labels, 3, folds=folds, parts=(4, 2), repeats=1)
    strength = fit_head("ridge", features, labels, 3, folds=folds).strength
    scaled = (features - features.mean(axis=0)) / math.sqrt(features.var(axis=0).mean())
    targets = np.where(labels[:, None] == np.arange(3), 1.0, -1.0)
    for place, (parts, without) in enumerate(((4, False), (2, False), (8, True))):
        wrong, judged = np.zeros(photos), np.zeros(photos)
        for part in range(parts):
            learned = (dealt % parts == part) != without
            ridge = Ridge(alpha=strength * length).fit(scaled[learned], targets[learned])
            wrong[~learned] += ridge.predict(scaled[~learned]).argmax(axis=1) != labels[~learned]
            judged[~learned] += 1
        np.testing.assert_allclose(curve.wrong[:, place], wrong / judged)
        assert 0 < wrong.sum() < judged.sum()
        assert curve.points[place].photos == photos * (7 / 8 if without else 1 / parts)
        assert curve.points[place].accuracy == pytest.approx(1 - (wrong / judged).mean())
        assert curve.points[place].repeats == parts


def test_parts_hold_every_class_evenly_and_clusters_whole_and_smaller_ones_lie_in_larger_ones() -> None:
    random = np.random.default_rng(3)
    labels = random.choice(3, size=400, p=[0.7, 0.2, 0.1])
    clusters = np.arange(400)
    clusters[:10] = clusters[50]
    labels[:10] = labels[50]
    dealt = deal(labels, clusters, random)
    assert len(set(dealt[[*range(10), 50]].tolist())) == 1
    for parts in (8, 4, 2):
        counts = np.array([np.bincount(labels[dealt % parts == part], minlength=3) for part in range(parts)])
        counts = np.sort(counts, axis=0)
        assert (counts[-2] - counts[0] <= 1).all()  # all but the part that holds the cluster of 11
        assert (counts[-1] - counts[0] <= 11).all()
    for parts in (4, 2):
        for part in range(2 * parts):
            assert len(set((dealt[dealt % (2 * parts) == part] % parts).tolist())) == 1


def test_the_forecast_for_twice_the_photos_is_near_what_twice_the_photos_give() -> None:
    near = []
    for seed in range(8):
        features, labels, folds = clouds(400, 4, length=60, apart=1.3, seed=seed)
        curve = learning_curve(features, labels, 4, folds=folds, seed=seed)
        told, (_, least, most) = curve.forecast(800), curve.gain(800)
        twice, own, parts = clouds(800, 4, length=60, apart=1.3, seed=1000 + seed)
        judged, truth, _ = clouds(20_000, 4, length=60, apart=1.3, seed=2000 + seed)
        now, then = (
            float((fit_head("ridge", *given, 4, folds=parted).head.logits(judged).argmax(axis=1) == truth).mean())
            for given, parted in (((features, labels), folds), ((twice, own), parts))
        )
        near.append((told.low <= then <= told.high, least <= then - now <= most, told.accuracy - then))
    assert sum(inside for inside, _, _ in near) >= 7
    assert sum(inside for _, inside, _ in near) >= 7
    assert abs(np.mean([apart for _, _, apart in near])) < 0.02


@pytest.mark.full
def test_on_real_digits_the_forecast_is_within_two_points_and_its_interval_holds() -> None:
    from sklearn.datasets import load_digits

    pixels, digits = load_digits(return_X_y=True)
    within, held = 0, 0
    for seed in range(10):
        order = np.random.default_rng(seed).permutation(len(digits))
        features, labels = pixels[order].astype(np.float32), digits[order].astype(np.int64)
        told = learning_curve(features[:500], labels[:500], 10, folds=np.arange(500) % 5, seed=seed).forecast(1000)
        head = fit_head("ridge", features[:1000], labels[:1000], 10, folds=np.arange(1000) % 5).head
        accuracy = float((head.logits(features[1000:]).argmax(axis=1) == labels[1000:]).mean())
        noise = 1.96 * math.sqrt(accuracy * (1 - accuracy) / 797)
        within += abs(told.accuracy - accuracy) <= 0.02
        held += told.low - noise <= accuracy <= told.high + noise
    assert within >= 7  # chance alone keeps a perfect forecast out of two points in 2 of 10
    assert held >= 9


def test_copies_of_every_photo_add_no_certainty() -> None:
    features, labels, folds = clouds(160, 2, apart=1.0)
    single = learning_curve(features, labels, 2, folds=folds)
    copied = learning_curve(
        np.tile(features, (3, 1)),
        np.tile(labels, 3),
        2,
        folds=np.tile(folds, 3),
        clusters=np.tile(np.arange(160), 3),
    )
    widths = [told.high - told.low for told in (single.forecast(160), copied.forecast(480))]
    assert 0.8 < widths[1] / widths[0] < 1.25


def test_the_same_seed_gives_the_same_curve_and_a_known_strength_is_taken() -> None:
    features, labels, folds = clouds(200, 2, apart=1.0)
    known = fit_head("ridge", features, labels, 2, folds=folds).strength
    first, second, other = (
        learning_curve(features, labels, 2, folds=folds, seed=4, strength=strength)
        for strength in (None, known, 1000 * known)
    )
    assert (first.wrong == second.wrong).all()
    assert first.forecast(400) == second.forecast(400)
    assert (first.wrong != other.wrong).any()


def test_more_photos_of_each_class_are_told_in_all_and_class_by_class() -> None:
    features, labels, folds = clouds(300, 3, apart=1.2)
    labels = np.where(labels == 2, 3, labels)  # class 2 has no photo
    curve = learning_curve(features, labels, 4, folds=folds)
    told = curve.forecast_more(100)
    assert (told.photos, [entry.label for entry in told.classes]) == (600, [0, 1, 3])
    overall = curve.forecast(600)
    assert (told.then, told.low, told.high) == (overall.accuracy, overall.low, overall.high)
    assert told.now <= told.then
    assert told.gain == pytest.approx(told.then - told.now, abs=1e-9)
    assert told.gain_low <= told.gain <= told.gain_high
    for entry in told.classes:
        assert entry.photos == 100
        assert 0 <= entry.low <= entry.then <= entry.high <= 1
        assert entry.now == pytest.approx(1 - curve.wrong[labels == entry.label, -1].mean(), abs=0.06)
    assert told.sentence().startswith("100 more photos of each: ")
    assert set(json.loads(json.dumps(told.to_json("abcd")))["classes"]) == {"a", "b", "d"}
    assert json.loads(json.dumps(curve.to_json()))["twice"]["photos"] == 600


def test_classes_that_are_hard_are_forecast_lower_than_easy_ones() -> None:
    random = np.random.default_rng(0)
    labels = np.arange(300) % 3
    features = random.normal(size=(300, 10)).astype(np.float32)
    features[labels == 0, 0] += 8  # class 0 stands apart, 1 and 2 overlap
    curve = learning_curve(features, labels, 3, folds=np.arange(300) % 5)
    easy, *hard = curve.forecast_more(50).classes
    assert easy.low > max(entry.high for entry in hard)


def test_too_few_photos_for_a_curve_leave_a_wide_interval_and_say_so() -> None:
    features, labels, folds = clouds(14, 2)
    curve = learning_curve(features, labels, 2, folds=folds)
    assert not curve.measured
    told = curve.forecast(28)
    assert told.high - told.low > 0.1


def test_few_groups_of_many_photos_are_few_photos() -> None:
    features, labels, folds = clouds(120, 2, apart=0.5)
    curve = learning_curve(features, labels, 2, folds=folds, clusters=np.arange(120) // 2 % 5)
    assert not curve.measured
    told = curve.forecast(240)
    assert told.high - told.low > 0.15


@pytest.mark.parametrize("count", [0, -5])
def test_a_forecast_for_no_photos_is_refused(count: int) -> None:
    features, labels, folds = clouds(40, 2)
    curve = learning_curve(features, labels, 2, folds=folds)
    with pytest.raises(UsageError, match="photos of 1 or more"):
        curve.forecast(count)
    with pytest.raises(UsageError, match="each of 1 or more"):
        curve.forecast_more(count)
