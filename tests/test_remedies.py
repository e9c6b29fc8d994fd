"""Remedies: every gain is paired, by its definition, and not flattered by choosing the luckiest."""

import json
import math

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

from headstart.errors import UsageError
from headstart.heads import fit_head
from headstart.metrics import difference_interval
from headstart.transfer import remedies
from headstart.transfer.forecast import learning_curve
from headstart.transfer.held_out import HeldOut
from headstart.transfer.remedies import Remedy, choose_on_folds, paired_gain, rank

NONE: dict[str, str] = {}


def held_out(correct: np.ndarray) -> HeldOut:
    return HeldOut(correct, np.where(correct, 0.1, 2.0))


def clouds(photos: int, *, length: int = 12, apart: float = 1.0, seed: int = 0) -> tuple[np.ndarray, ...]:
    random = np.random.default_rng(seed)
    labels = np.arange(photos) % 2
    features = random.normal(size=(photos, length))
    features[:, 0] += apart * (2 * labels - 1)
    return features.astype(np.float32), labels, np.arange(photos) // 2 % 5


def leave_out(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, alpha: float, judged: int) -> np.ndarray:
    """Ridge fitted again for each of the first photos, without any photo of its group: who is right."""
    scaled = (features - features.mean(axis=0)) / math.sqrt(features.var(axis=0).mean())
    targets = np.where(labels[:, None] == np.arange(labels.max() + 1), 1.0, -1.0)
    right = np.zeros(judged, bool)
    for photo in range(judged):
        kept = groups != groups[photo]
        ridge = Ridge(alpha=alpha).fit(scaled[kept], targets[kept])
        right[photo] = ridge.predict(scaled[photo : photo + 1]).argmax() == labels[photo]
    return right


def test_a_gain_has_the_interval_of_paired_shares() -> None:
    random = np.random.default_rng(0)
    before, after = random.random(200) < 0.7, random.random(200) < 0.8
    gain, low, high = paired_gain(before, after)
    fixed, broken = sum(after & ~before), sum(before & ~after)
    assert gain == pytest.approx(after.mean() - before.mean())
    assert (low, high) == pytest.approx(difference_interval(int(fixed), int(broken), 200))


def test_copies_do_not_make_a_gain_surer() -> None:
    random = np.random.default_rng(1)
    before, after = random.random(150) < 0.7, random.random(150) < 0.8
    single = paired_gain(before, after)
    copied = paired_gain(np.tile(before, 4), np.tile(after, 4), np.tile(np.arange(150), 4))
    assert copied[0] == pytest.approx(single[0])
    assert (copied[2] - copied[1]) / (single[2] - single[1]) == pytest.approx(1, abs=0.03)


def test_intervals_of_a_gain_hold_with_near_duplicates() -> None:
    random, held = np.random.default_rng(2), 0
    for _ in range(400):
        groups = np.repeat(np.arange(60), random.integers(1, 6, size=60))
        lucky = random.random((60, 2))  # the photos of one group are all right or all wrong
        before, after = (lucky[:, 0] < 0.7)[groups], (lucky[:, 1] < 0.8)[groups]
        _, low, high = paired_gain(before, after, groups)
        held += low <= 0.1 <= high
    assert held >= 0.93 * 400


def test_two_classifiers_of_other_photos_are_refused() -> None:
    with pytest.raises(UsageError, match="same photos twice; received 3 and 2"):
        paired_gain(np.ones(3, bool), np.ones(2, bool))


def test_each_fold_is_answered_by_the_candidate_that_is_best_on_the_others() -> None:
    random = np.random.default_rng(3)
    folds = random.integers(0, 4, 50)
    candidates = [HeldOut(random.random(50) < 0.5, random.random(50)) for _ in range(5)]
    expected = []
    for photo in range(50):
        means = [
            np.mean([candidate.losses[other] for other in range(50) if folds[other] != folds[photo]])
            for candidate in candidates
        ]
        expected.append(candidates[int(np.argmin(means))].correct[photo])
    assert choose_on_folds(candidates, folds).tolist() == expected


def test_the_luckiest_of_many_equal_candidates_is_not_told_as_a_gain() -> None:
    flattered, told, spurious = [], [], 0
    for seed in range(60):
        random = np.random.default_rng(seed)
        now = held_out(random.random(200) < 0.8)
        others = {str(number): held_out(random.random(200) < 0.8) for number in range(20)}
        remedy = remedies.of_backbone(now, others, folds=np.arange(200) % 5, commands=NONE, seconds=0.0)
        flattered.append(max(other.correct.mean() for other in others.values()) - now.correct.mean())
        told.append(remedy.gain)
        spurious += remedy.sure
    assert np.mean(flattered) > 0.03
    assert abs(np.mean(told)) < 0.015
    assert spurious <= 0.1 * 60


def test_the_candidate_with_the_lowest_loss_is_named_with_its_command_and_its_numbers() -> None:
    now, worse, better = (held_out(np.arange(100) < right) for right in (70, 60, 90))
    remedy = remedies.of_backbone(
        now,
        {"lite1": worse, "lite2": better},
        folds=np.arange(100) % 5,
        commands={"lite1": "headstart train X --backbone lite1", "lite2": "headstart train X --backbone lite2"},
        seconds=3.5,
    )
    assert (remedy.name, remedy.command, remedy.seconds) == (
        "another backbone",
        "headstart train X --backbone lite2",
        3.5,
    )
    assert remedy.gain == pytest.approx(0.20)
    low, high = difference_interval(20, 0, 100)
    assert (remedy.low, remedy.high) == pytest.approx((low, high))
    assert remedy.sentence == (
        f"Another backbone, lite2: 70.0 % -> 90.0 %, +20.0 points ({100 * low:+.1f} to {100 * high:+.1f}), on 100 "
        "held-out photos."
    )


def test_a_gain_that_chance_may_explain_is_told_as_such() -> None:
    now, other = held_out(np.arange(100) < 70), held_out(np.arange(100) < 71)
    remedy = remedies.of_regularisation(now, {"x": other}, folds=np.arange(100) % 5, commands=NONE, seconds=0.0)
    assert remedy.sentence.endswith("; chance may explain it.")
    assert not remedy.sure


@pytest.mark.parametrize(
    ("measure", "reverse", "names"),
    [
        (remedies.of_regularisation, "less", ("regularisation", "less regularisation")),
        (remedies.of_less_complexity, "more", ("less complexity", "more complexity")),
    ],
)
def test_a_remedy_and_its_reverse_have_their_own_names(measure: object, reverse: str, names: tuple[str, str]) -> None:
    now = held_out(np.arange(20) < 10)
    for flag, name in zip((False, True), names, strict=True):
        told = measure(now, {"a": now}, folds=np.arange(20) % 2, commands=NONE, seconds=0.0, **{reverse: flag})
        assert told.name == name
        assert name in remedies.OVERFITTING + remedies.UNDERFITTING
        assert told.gain == 0


def test_nothing_to_try_is_told_and_not_measured() -> None:
    now = held_out(np.arange(20) < 10)
    remedy = remedies.of_backbone(now, {}, folds=np.arange(20) % 2, commands=NONE, seconds=0.0)
    assert (remedy.gain, remedy.low, remedy.high) == (None, None, None)
    assert "nothing else to try" in remedy.sentence
    assert json.loads(json.dumps(remedy.to_json()))["gain_ci95"] is None


def test_sure_gains_come_first_then_possible_ones_then_those_not_measured() -> None:
    made = [
        Remedy(name, gain, low, high, "", "", 0.0)
        for name, gain, low, high in [
            ("not measured", None, None, None),
            ("large, unsure", 0.09, -0.01, 0.2),
            ("sure", 0.02, 0.01, 0.03),
            ("harmful", -0.05, -0.08, -0.02),
            ("larger, sure", 0.03, 0.001, 0.06),
        ]
    ]
    assert [remedy.name for remedy in rank(made)] == [
        "larger, sure", "sure", "large, unsure", "harmful", "not measured",
    ]  # fmt: skip


def test_augmentation_is_judged_on_plain_photos_held_out_with_their_views_and_copies() -> None:
    features, labels, folds = clouds(60, apart=0.6)
    random = np.random.default_rng(7)
    views = features + random.normal(size=(2, *features.shape)).astype(np.float32)
    clusters = np.arange(60)
    clusters[1::10] = clusters[3::10]
    remedy = remedies.of_augmentation(features, views, labels, 2, folds=folds, clusters=clusters, command="c")
    everything = np.concatenate([features, *views])
    groups, three = np.tile(clusters, 3), np.tile(labels, 3)
    with_views = fit_head("ridge", everything, three, 2, folds=np.tile(folds, 3), clusters=groups)
    without = fit_head("ridge", features, labels, 2, folds=folds, clusters=clusters)
    after = leave_out(everything, three, groups, with_views.strength * 12, 60)
    before = leave_out(features, labels, clusters, without.strength * 12, 60)
    assert remedy.gain == pytest.approx(after.mean() - before.mean())
    assert (remedy.gain, remedy.low, remedy.high) == pytest.approx(paired_gain(before, after, clusters))
    assert remedy.sentence.startswith("Augmentation, 2 views of each photo: ")


def test_views_that_show_what_does_not_matter_help_and_useless_ones_do_not() -> None:
    features, labels, folds = clouds(100, length=80, apart=1.5, seed=3)
    features[:, 1:] *= 4  # the pose of a thing, say: loud, and nothing to do with its class
    random = np.random.default_rng(8)
    moved = np.repeat(features[None], 6, axis=0)
    moved[:, :, 1:] += 8 * random.normal(size=moved[:, :, 1:].shape).astype(np.float32)
    helped = remedies.of_augmentation(features, moved, labels, 2, folds=folds, command="")
    same = remedies.of_augmentation(features, features[None].copy(), labels, 2, folds=folds, command="")
    assert helped.sure
    assert abs(same.gain) <= 0.04
    assert not same.sure


def test_views_of_other_photos_are_refused() -> None:
    features, labels, folds = clouds(20)
    with pytest.raises(UsageError, match=r"views must be \(views, 20, 12\); received \(2, 19, 12\)"):
        remedies.of_augmentation(features, np.zeros((2, 19, 12), np.float32), labels, 2, folds=folds, command="")


def test_strengths_are_tried_as_if_fitted_again_without_each_photo() -> None:
    features, labels, folds = clouds(40, apart=0.7)
    tried = remedies.try_strengths(features, labels, 2, folds=folds, strengths=(0.01, 1.0, 100.0))
    for strength, result in tried.items():
        expected = leave_out(features, labels, np.arange(40), strength * 12, 40)
        assert (result.correct == expected).all()


def test_components_are_those_of_a_principal_component_analysis() -> None:
    features, labels, folds = clouds(80, length=30, apart=2.0)
    tried = remedies.try_components(features, labels, 2, folds=folds, counts=(1, 5, 400))
    assert list(tried) == [1, 5]
    for count, result in tried.items():
        reduced = PCA(count).fit_transform(features.astype(np.float64))
        strength = fit_head("ridge", reduced, labels, 2, folds=folds).strength
        expected = leave_out(reduced, labels, np.arange(80), strength * count, 80)
        assert (result.correct == expected).mean() > 0.97  # a photo on the border may fall to either side


def test_more_photos_are_told_with_the_gain_of_the_curve() -> None:
    features, labels, folds = clouds(300, length=60, apart=0.8)
    curve = learning_curve(features, labels, 2, folds=folds)
    remedy = remedies.of_more_photos(curve, each=100, command="add photos")
    told = curve.forecast_more(100)
    assert (remedy.gain, remedy.low, remedy.high) == (told.gain, told.gain_low, told.gain_high)
    assert remedy.sentence.startswith("More photos: 100 more photos of each: ")


def test_too_few_photos_for_a_curve_are_told() -> None:
    features, labels, folds = clouds(14)
    curve = learning_curve(features, labels, 2, folds=folds)
    remedy = remedies.of_more_photos(curve, each=100, command="add photos")
    assert remedy.gain is None
    assert "14 training photos are too few" in remedy.sentence
