"""Linear probes at every cut: what they tell is that of fits which have not seen the photo, and the rule is kept."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from headstart.backbones import open_backbone
from headstart.errors import DataError, UsageError
from headstart.features import survey_photos
from headstart.heads import fit_head
from headstart.readers import open_dataset
from headstart.transfer.probes import Probe, best_cut, judge_head, lower_by, probe_cuts
from headstart.transfer.similarity import choose_photos


def photos(count: int, length: int, classes: int, apart: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Features with the class means `apart` times a standard normal draw from each other, and labels."""
    random = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    means = apart * random.normal(size=(classes, length))
    return (random.normal(size=(count, length)) + means[labels]).astype(np.float32), labels


def made(cut: str, losses: list[float] | np.ndarray, clusters: np.ndarray | None = None) -> Probe:
    """A probe with these losses; half of its photos are right."""
    values = np.asarray(losses, np.float64)
    right = np.arange(len(values)) % 2 == 0
    return Probe(
        cut, 3, 0.5, 0.2, 0.8, float(values.mean()), values, 1.0, 0.1, right, np.zeros((len(values), 3)), clusters
    )


def left_out_by_sklearn(
    features: np.ndarray, labels: np.ndarray, classes: int, strength: float, groups: np.ndarray, weights: np.ndarray
) -> np.ndarray:
    """Scores of each photo by scikit-learn's ridge, fitted again without the photo's group."""
    values, count = features.astype(np.float64), len(labels)
    weights = weights * count / weights.sum()
    middle = np.average(values, axis=0, weights=weights)
    variance = np.average(np.square(values - middle), axis=0, weights=weights).mean()
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    scores = np.zeros((count, classes))
    for group in np.unique(groups):
        keep = groups != group
        ridge = Ridge(alpha=strength * values.shape[1] * variance).fit(values[keep], targets[keep], weights[keep])
        scores[~keep] = ridge.predict(values[~keep])
    return scores


def loss_by_search(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """Weighted log loss at the best of many temperatures, each label sharing 1/(n + 2) with the other classes."""
    count, classes = scores.shape
    targets = np.full(scores.shape, 1 / (count + 2) / (classes - 1))
    targets[np.arange(count), labels] = 1 - 1 / (count + 2)
    best, chosen = math.inf, np.zeros(count)
    for temperature in np.geomspace(1e-3, 1e2, 4000):
        raised = scores / temperature
        logs = raised - raised.max(axis=1, keepdims=True)
        logs -= np.log(np.exp(logs).sum(axis=1, keepdims=True))
        losses = -(targets * logs).sum(axis=1)
        if losses.mean() < best:
            best, chosen = losses.mean(), losses
    return float(np.average(chosen, weights=weights))


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("clustered", [False, True])
def test_a_probe_tells_what_scikit_learns_ridge_tells_of_photos_it_was_not_fitted_to(
    weighted: bool, clustered: bool
) -> None:
    features, labels = photos(48, 7, 3, 0.8, seed=1)
    weights = np.random.default_rng(2).uniform(0.3, 3, 48)
    clusters = np.where(np.arange(48) < 30, np.arange(48) // 6 * 6 + np.arange(48) % 3, np.arange(48))
    probe = probe_cuts(
        {"stage1": features},
        labels,
        3,
        folds=np.arange(48) % 4,
        clusters=clusters if clustered else None,
        sample_weights=weights if weighted else None,
    )[0]
    used = weights if weighted else np.ones(48)
    groups = np.arange(48) % 4  # what is left out at a time; a copy goes with the first of its kind
    if clustered:
        groups = np.array([groups[np.flatnonzero(clusters == number)[0]] for number in clusters])
    scores = left_out_by_sklearn(features, labels, 3, probe.strength, groups, used)
    right = scores.argmax(axis=1) == labels
    np.testing.assert_array_equal(probe.correct, right)
    assert 16 < right.sum() < 48
    assert probe.accuracy == right.mean()
    assert probe.low < probe.accuracy < probe.high
    assert probe.log_loss == pytest.approx(loss_by_search(scores, labels, used), rel=2e-4)
    assert probe.losses.mean() == pytest.approx(probe.log_loss)


def test_the_cuts_are_probed_in_the_order_of_the_mapping_and_equal_features_tell_the_same() -> None:
    features, labels = photos(30, 5, 2, 1.0, seed=3)
    given = dict.fromkeys(("stage7", "pooled", "stem"), features)
    probes = probe_cuts(given, labels, 2, folds=np.arange(30) % 3)
    assert [probe.cut for probe in probes] == ["stage7", "pooled", "stem"]
    assert probes[0].log_loss == probes[1].log_loss == probes[2].log_loss


def test_a_class_that_only_an_early_cut_can_tell_moves_the_cut_there() -> None:
    telling, labels = photos(200, 8, 4, 1.5, seed=4)
    noise = photos(200, 20, 4, 0.0, seed=5)[0]
    probes = probe_cuts({"stem": noise, "stage3": telling, "pooled": noise}, labels, 4, folds=np.arange(200) % 5)
    chosen, why = best_cut(probes)
    assert chosen.cut == "stage3"
    assert chosen.accuracy > 0.8 > 0.4 > probes[0].accuracy
    assert why.startswith("Cut stage3 instead of pooled: its held-out log loss is ")
    assert "200 training photos" in why


def test_where_all_cuts_tell_the_same_the_last_stays() -> None:
    features, labels = photos(60, 6, 3, 1.0, seed=6)
    probes = probe_cuts({"stage5": features, "pooled": features}, labels, 3, folds=np.arange(60) % 5)
    chosen, why = best_cut(probes)
    assert chosen.cut == "pooled"
    assert why.startswith("Cut pooled: no other has a held-out log loss that is lower by more than one standard error,")


def test_noise_overrules_the_last_cut_no_more_often_than_the_rule_says() -> None:
    # Differences of mean 0: beyond one standard error in one direction with the normal law's 15.9 %.
    random = np.random.default_rng(7)
    moved = 0
    for _ in range(2000):
        last = random.normal(1.0, 0.3, 100)
        moved += best_cut([made("stage5", last + random.normal(0, 0.2, 100)), made("pooled", last)])[0].cut == "stage5"
    assert 0.13 < moved / 2000 < 0.19


def test_the_lowest_loss_is_taken_among_those_that_are_clearly_lower() -> None:
    last = made("pooled", np.ones(4))
    wild = made("stage2", [0.0, 0.0, 0.0, 3.2])  # lower by 0.2, standard error 0.69
    sure = made("stage3", [0.9, 0.9, 0.9, 0.8])  # lower by 0.125, standard error 0.02
    surer = made("stage4", [0.95, 0.95, 0.95, 0.95])  # lower by 0.05, standard error 0
    assert best_cut([surer, wild, sure, last])[0] is sure
    assert best_cut([wild, last])[0] is last
    assert best_cut([surer, last, wild])[0] is surer


def test_a_lower_loss_does_not_move_the_cut_where_fewer_photos_are_right() -> None:
    # Of 16 photos, of which the last cut has the first 8 right, the other misses some: 1 is 1.03 standard errors, ...
    last = dataclasses.replace(made("pooled", np.ones(16)), correct=np.arange(16) < 8, accuracy=0.5)
    for right, expected in ((8, "stage3"), (7, "pooled"), (9, "stage3")):
        other = made("stage3", np.full(16, 0.5))
        other = dataclasses.replace(other, correct=np.arange(16) < right, accuracy=right / 16)
        assert best_cut([other, last])[0].cut == expected
    # ... and 1 lost, 1 won, another lost makes 0.58 of one.
    other = dataclasses.replace(made("stage3", np.full(16, 0.5)), correct=np.isin(np.arange(16), [0, 1, 2, 3, 4, 5, 8]))
    assert best_cut([other, last])[0].cut == "stage3"


def test_features_that_differ_by_rounding_do_not_move_the_cut() -> None:
    losses = np.random.default_rng(11).uniform(0, 1, 50)
    assert best_cut([made("head", losses - 1e-7), made("pooled", losses)])[0].cut == "pooled"


@pytest.mark.parametrize("kind", ["ridge", "root-ridge", "logistic", "mlp", "knn", "centroid", "auto"])
def test_a_head_of_any_kind_is_judged_by_its_held_out_answers(kind: str) -> None:
    features, labels = photos(60, 6, 3, 1.2, seed=12)
    folds = np.arange(60) // 3 % 4
    fitted = fit_head(kind, features, labels, 3, folds=folds)
    judged = judge_head("stage6", fitted, labels, features=features, folds=folds)
    expected = fitted.held_out
    if "ridge" in fitted.head.kind:
        offset = fitted.head.settings.get("root_offset", 0.0)
        rooted = np.sign(features) * (np.sqrt(np.abs(features) + offset) - math.sqrt(offset))
        given = rooted if fitted.head.kind.startswith("root") else features
        expected = left_out_by_sklearn(given, labels, 3, float(fitted.strength or 0), folds, np.ones(60))
    singly = judge_head("stage6", fitted, labels)  # the held-out answers as they are
    assert singly.log_loss == pytest.approx(loss_by_search(fitted.held_out, labels, np.ones(60)), rel=2e-3)
    assert (judged.cut, judged.length) == ("stage6", 6)
    assert judged.accuracy == float(np.mean(expected.argmax(axis=1) == labels))
    assert judged.log_loss == pytest.approx(loss_by_search(expected, labels, np.ones(60)), rel=2e-3)


def test_a_probe_is_not_judged_worse_because_a_class_is_rarer_without_its_photo() -> None:
    # 40 classes of 4 photos that one dense layer tells apart by half: what it does on new photos is known.
    features, labels = photos(4_160, 30, 40, 0.6, seed=13)
    own, rest = np.arange(160), np.arange(160, 4_160)
    folds = np.arange(160) // 40
    fitted = fit_head("ridge", features[own], labels[own], 40, folds=folds)
    truth = float(np.mean(fitted.head.logits(features[rest]).argmax(axis=1) == labels[rest]))
    probe = probe_cuts({"pooled": features[own]}, labels[own], 40, folds=folds)[0]
    singly = float(np.mean(fitted.held_out.argmax(axis=1) == labels[own]))
    assert probe.strength == fitted.strength
    assert abs(probe.accuracy - truth) < abs(singly - truth)
    assert probe.low < truth


def test_one_standard_error_is_the_border() -> None:
    # Differences +d and -d about m have the standard error d / sqrt(2) of their mean m.
    last = made("pooled", np.ones(2))
    for mean, apart, expected in ((0.1, 0.14, "early"), (0.1, 0.1416, "pooled")):
        assert best_cut([made("early", [1 - mean - apart, 1 - mean + apart]), last])[0].cut == expected


def test_a_photo_that_lies_there_five_times_counts_once_for_the_standard_error() -> None:
    random = np.random.default_rng(8)
    first, second = random.uniform(0, 2, 40), random.uniform(0, 2, 40)
    once = lower_by(made("a", first), made("b", second))
    groups = np.tile(np.arange(40), 5)
    copied = lower_by(made("a", np.tile(first, 5), groups), made("b", np.tile(second, 5), groups))
    np.testing.assert_allclose(copied, once)
    assert once[1] == pytest.approx(float(np.std(second - first)) / math.sqrt(40))
    unaware = lower_by(made("a", np.tile(first, 5)), made("b", np.tile(second, 5)))
    assert unaware[1] == pytest.approx(once[1] / math.sqrt(5))


def test_the_name_of_the_last_cut_can_be_another() -> None:
    chosen, why = best_cut([made("stage7_map", [0.5, 0.5])], last="stage7_map")
    assert (chosen.cut, why) == ("stage7_map", "Cut stage7_map: no other was probed.")


def test_what_is_written_holds_the_numbers_and_no_photo() -> None:
    features, labels = photos(40, 5, 2, 1.0, seed=9)
    told = probe_cuts({"head": features}, labels, 2, folds=np.arange(40) % 5)[0].to_json()
    assert sorted(told) == sorted(
        ["cut", "length", "photos", "accuracy", "accuracy_ci95", "log_loss", "strength", "seconds"]
    )
    assert (told["cut"], told["length"], told["photos"]) == ("head", 5, 40)
    assert told["accuracy_ci95"][0] < told["accuracy"] < told["accuracy_ci95"][1]


def test_what_cannot_be_probed_or_compared_is_refused() -> None:
    features, labels = photos(20, 4, 2, 1.0, seed=10)
    folds = np.arange(20) % 2
    with pytest.raises(UsageError, match="no cut to probe; give the features of at least one"):
        probe_cuts({}, labels, 2, folds=folds)
    with pytest.raises(DataError, match="1 of 20 photos are unusable"):
        probe_cuts({"head": np.where(np.arange(20)[:, None] == 3, np.float32("nan"), features)}, labels, 2, folds=folds)
    with pytest.raises(UsageError, match="the cut 'pooled' was not probed; probed: head, stem"):
        best_cut([made("head", [1.0, 1.0]), made("stem", [1.0, 1.0])])
    with pytest.raises(UsageError, match="the cut 'pooled' was not probed; probed: none"):
        best_cut([])
    with pytest.raises(UsageError, match="head has 3, pooled 2: probe both on the same photos"):
        best_cut([made("head", [0.1, 0.1, 0.1]), made("pooled", [1.0, 1.0])])


@pytest.mark.full
@pytest.mark.parametrize(("folder", "moves"), [("ants_bees", False), ("mnist", True)])
def test_handwriting_moves_the_cut_and_ants_and_bees_do_not(
    shared_data: Path, ready_cache: Path, folder: str, moves: bool
) -> None:
    backbone = open_backbone("efficientnet-lite0")
    dataset = open_dataset(shared_data / folder)
    dataset = dataset.subset([dataset.photos[row] for row in choose_photos(dataset.labels(), 300)])
    cuts = ("stage4", "stage5", "stage6", "stage7", "pooled")
    survey = survey_photos(dataset, backbone=backbone, cuts=cuts, store=None)
    usable = np.array([fact.rejected is None for fact in survey.facts])
    features = {cut: matrix[usable] for cut, matrix in survey.features.items()}
    labels, folds = dataset.labels()[usable], np.arange(int(usable.sum())) // 10 % 5
    chosen, why = best_cut(probe_cuts(features, labels, len(dataset.classes), folds=folds))
    assert (chosen.cut != "pooled") is moves, why
