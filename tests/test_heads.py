"""What every head promises: shapes, repeatability, honest held-out logits, small and odd data, clear refusals."""

import subprocess
import sys

import numpy as np
import pytest

from headstart.errors import DataError, HeadstartError, RunError, UsageError
from headstart.heads import HEADS, FittedHead, Head, balanced_weights, fit_head, head_layers
from headstart.heads.blas import _openblas, one_thread
from headstart.heads.checks import check
from headstart.heads.model import root

KINDS = [*HEADS, "auto"]


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """A network of the usual form that is trained in a blink."""
    monkeypatch.setattr("headstart.heads.mlp.UNITS", 48)


def photos(count: int = 60, length: int = 12, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Features >= 0, as those of a net, of classes that overlap a little."""
    middles = 2 * np.random.default_rng(seed).random((classes, length))
    labels = np.arange(count) % classes
    values = np.random.default_rng(seed + count).gamma(2.0, 0.4, (count, length)) + middles[labels]
    return values.astype(np.float32), labels


def folds_of(count: int, folds: int = 5) -> np.ndarray:
    return np.random.default_rng(99).permutation(np.arange(count) % folds)


def fit(kind: str, features: np.ndarray, labels: np.ndarray, classes: int, **more: object) -> FittedHead:
    given = {"folds": folds_of(len(labels))} | more
    return fit_head(kind, features, labels, classes, **given)


def share(logits: np.ndarray, labels: np.ndarray) -> float:
    return float(np.mean(logits.argmax(axis=1) == labels))


@pytest.mark.parametrize("kind", KINDS)
def test_every_head_learns_and_tells_what_it_tried(kind: str) -> None:
    features, labels = photos()
    fitted = fit(kind, features, labels, 3)
    fresh, fresh_labels = photos(300, seed=0)
    assert fitted.held_out.shape == (60, 3)
    assert np.isfinite(fitted.held_out).all()
    assert share(fitted.held_out, labels) > 0.8
    assert share(fitted.head.logits(fresh), fresh_labels) > 0.8
    assert fitted.head.logits(fresh).dtype == np.float32
    assert fitted.head.kind == kind or kind == "auto"
    assert fitted.seconds > 0
    assert fitted.strength in [entry["strength"] for entry in fitted.tried]
    for entry in fitted.tried:
        assert entry.keys() == {"head", "strength", "log_loss", "accuracy", "by"}
        assert entry["by"] in ("leave-one-out", "folds")
        assert 0 <= entry["accuracy"] <= 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_photos_give_the_same_head(kind: str) -> None:
    features, labels = photos()
    first, second = (fit(kind, features, labels, 3, seed=7) for _ in range(2))
    assert first.strength == second.strength
    np.testing.assert_array_equal(first.held_out, second.held_out)
    assert first.head.tensors.keys() == second.head.tensors.keys()
    for name, values in first.head.tensors.items():
        np.testing.assert_array_equal(values, second.head.tensors[name])


def test_the_seed_changes_the_head_that_draws_and_leaves_numpy_and_torch_alone() -> None:
    torch = pytest.importorskip("torch")
    features, labels = photos()
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    first, second = (fit("mlp", features, labels, 3, seed=seed) for seed in (1, 2))
    assert not np.array_equal(first.held_out, second.held_out)
    after = torch.random.get_rng_state(), np.random.get_state()[1], torch.get_num_threads()
    assert torch.equal(before[0], after[0])
    np.testing.assert_array_equal(before[1], after[1])
    assert before[2] == after[2]


@pytest.mark.parametrize("kind", KINDS)
def test_labels_that_are_noise_are_not_predicted_for_held_out_photos(kind: str) -> None:
    # More features than photos: a model that had seen a photo would know its label by heart.
    random = np.random.default_rng(4)
    features = random.random((200, 300)).astype(np.float32)
    labels = random.permutation(np.arange(200) % 2)
    fitted = fit(kind, features, labels, 2)
    # 3.4 standard errors above chance. Below it is no leak: among those left, the other class has one photo more.
    assert share(fitted.held_out, labels) < 0.62
    if kind in ("ridge", "logistic"):
        path = fit(kind, features, labels, 2, folds=np.arange(200) % 2)
        assert share(path.head.logits(features), labels) > 0.65


@pytest.mark.parametrize("kind", ["ridge", "root-ridge", "knn"])
def test_a_photo_is_not_judged_by_its_own_near_duplicate(kind: str) -> None:
    random = np.random.default_rng(5)
    features = np.repeat(random.random((100, 150)), 2, axis=0).astype(np.float32)
    features += 0.001 * random.random(features.shape, np.float32)
    labels = np.repeat(random.permutation(np.arange(100) % 2), 2)
    clusters = np.repeat(np.arange(100), 2)
    told = fit(kind, features, labels, 2, clusters=clusters, folds=clusters % 5)
    assert share(told.held_out, labels) < 0.67  # of 100 independent pairs
    fooled = fit(kind, features, labels, 2, folds=clusters % 5)
    assert share(fooled.held_out, labels) > 0.9


@pytest.mark.parametrize("kind", KINDS)
def test_classes_with_one_photo_or_none_are_lived_with(kind: str) -> None:
    features, labels = photos(40)
    labels[labels == 2] = 0
    labels[7] = 2
    fitted = fit(kind, features, labels, 5)
    assert fitted.held_out.shape == (40, 5)
    for logits in (fitted.held_out, fitted.head.logits(features)):
        assert np.isfinite(logits).all()
        assert not set(logits.argmax(axis=1)) & {3, 4}


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_photos_than_classes_and_one_photo_a_class_still_give_a_head(kind: str) -> None:
    features, _ = photos(4)
    fitted = fit(kind, features, np.array([0, 3, 1, 6]), 8, folds=np.array([0, 1, 0, 1]))
    assert np.isfinite(fitted.held_out).all()
    assert np.isfinite(fitted.head.logits(features)).all()
    two = fit(kind, features[:2], np.array([0, 1]), 2, folds=np.array([0, 1]))
    assert np.isfinite(two.head.logits(features)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_features_that_never_vary_give_the_shares_of_the_classes(kind: str) -> None:
    labels = np.array([0] * 12 + [1] * 8)
    fitted = fit(kind, np.full((20, 6), 0.5, np.float32), labels, 2, folds=np.arange(20) % 4)
    logits = fitted.head.logits(np.full((3, 6), 0.5, np.float32))
    assert np.isfinite(fitted.held_out).all()
    assert np.isfinite(logits).all()
    if kind not in ("centroid", "knn"):
        assert (logits.argmax(axis=1) == 0).all()
    zero = fit(kind, np.zeros((20, 6), np.float32), labels, 2, folds=np.arange(20) % 4)
    assert np.isfinite(zero.head.logits(np.ones((3, 6), np.float32))).all()


@pytest.mark.parametrize("kind", ["ridge", "logistic", "root-ridge", "root-logistic", "mlp"])
def test_balanced_weights_find_more_of_the_rare_class(kind: str) -> None:
    random = np.random.default_rng(6)
    labels = (np.arange(240) % 12 == 0).astype(np.int64)
    features = (random.random((240, 8)) + 0.25 * labels[:, None]).astype(np.float32)
    plain = fit(kind, features, labels, 2).held_out.argmax(axis=1)
    weights = balanced_weights(labels, 2)
    even = fit(kind, features, labels, 2, sample_weights=weights).held_out.argmax(axis=1)
    assert plain[labels == 1].mean() + 0.2 < even[labels == 1].mean()
    assert weights[labels == 1].sum() == pytest.approx(weights[labels == 0].sum())
    assert weights.mean() == pytest.approx(1)


@pytest.mark.parametrize("kind", [kind for kind in HEADS if kind != "knn"])
def test_the_layers_of_a_head_give_its_logits(kind: str) -> None:
    torch = pytest.importorskip("torch")
    features, labels = photos()
    head = fit(kind, features, labels, 3).head
    signed = features - 1  # other cuts have features below zero
    layers = head_layers(head)
    assert not layers.training
    assert isinstance(layers, torch.nn.Linear) == head.linear
    with torch.no_grad():
        np.testing.assert_allclose(layers(torch.from_numpy(signed)).numpy(), head.logits(signed), atol=1e-4)
    inputs = torch.zeros(1, 12, requires_grad=True)
    layers(inputs).sum().backward()
    assert torch.isfinite(inputs.grad).all()


def test_a_head_that_keeps_the_photos_has_no_layers() -> None:
    features, labels = photos()
    with pytest.raises(UsageError, match="no form as layers; train with --head logistic"):
        head_layers(fit("knn", features, labels, 3).head)


@pytest.mark.parametrize("kind", ["ridge", "logistic", "centroid"])
def test_a_linear_head_needs_nothing_but_weight_and_bias(kind: str) -> None:
    features, labels = photos()
    head = fit(kind, features, labels, 3).head
    assert head.linear
    np.testing.assert_allclose(
        head.logits(features), features @ head.tensors["weight"].T + head.tensors["bias"], atol=1e-6
    )


def test_scale_and_offset_of_the_features_do_not_matter() -> None:
    features, labels = photos()
    for kind in ("ridge", "logistic", "centroid"):
        first = fit(kind, features, labels, 3)
        moved = fit(kind, features * 50 + 7, labels, 3)
        assert first.strength == moved.strength
        np.testing.assert_allclose(first.held_out, moved.held_out, atol=5e-3)


def test_the_neighbours_are_those_of_a_slow_search() -> None:
    features, labels = photos()
    fitted = fit("knn", features, labels, 3)
    asked = int(fitted.strength or 0)
    near = features / np.linalg.norm(features, axis=1)[:, None]
    for photo in range(60):
        order = [other for other in np.argsort(-(near @ near[photo]), kind="stable") if other != photo][:asked]
        votes = np.bincount(labels[order], minlength=3) + 1 / 3
        np.testing.assert_allclose(np.exp(fitted.held_out[photo]), votes / votes.sum(), rtol=1e-5)


def test_the_centroids_are_those_of_a_slow_loop() -> None:
    features, labels = photos()
    folds = folds_of(60)
    fitted = fit("centroid", features, labels, 3, folds=folds)
    scaled = features.astype(np.float64)
    scaled /= np.sqrt(np.mean((scaled - scaled.mean(axis=0)) ** 2))
    for photo in range(60):
        known = folds != folds[photo]
        middle = scaled[known].mean(axis=0)
        scores = []
        for label in range(3):
            members = scaled[known & (labels == label)]
            centre = (members.sum(axis=0) + fitted.strength * middle) / (len(members) + fitted.strength)
            scores.append(-((scaled[photo] - centre) ** 2).sum() / 2)
        ours = fitted.held_out[photo]
        np.testing.assert_allclose(ours - ours[0], np.array(scores) - scores[0], atol=1e-3)


def test_auto_takes_the_roots_only_where_they_help() -> None:
    random = np.random.default_rng(8)
    plain = random.random((300, 20)) * 3
    rule = random.normal(size=20)
    labels = ((plain - 1.5) @ rule > 0).astype(np.int64)
    straight = fit("auto", plain.astype(np.float32), labels, 2)
    squared = fit("auto", (plain**2).astype(np.float32), labels, 2)
    assert straight.head.linear
    assert squared.head.kind.startswith("root-")
    assert {entry["head"] for entry in squared.tried} == {"ridge", "root-ridge", "root-logistic"}


def test_auto_is_as_good_on_held_out_photos_as_the_best_it_tried() -> None:
    features, labels = photos(150, 40, 5, seed=3)
    alone = {kind: fit(kind, features, labels, 5) for kind in ("ridge", "logistic", "root-ridge", "root-logistic")}
    auto = fit("auto", features, labels, 5)
    same = alone[auto.head.kind]
    np.testing.assert_allclose(auto.held_out, same.held_out, atol=1e-5)
    assert auto.strength == same.strength


def test_auto_takes_the_kind_with_the_lower_log_loss_on_the_same_folds() -> None:
    taken = set()
    for seed in range(6):
        count, length, classes = (60, 300, 2 + seed % 3) if seed % 2 else (40 + 25 * seed, 10, 2 + seed % 3)
        features, labels = photos(count, length, classes, seed=seed)
        auto = fit("auto", features, labels, classes)
        by_folds = {"ridge": np.inf, "logistic": np.inf}
        for entry in auto.tried:
            if entry["by"] == "folds":
                kind = str(entry["head"]).removeprefix("root-")
                by_folds[kind] = min(by_folds[kind], entry["log_loss"])
        best = min(by_folds, key=lambda kind: by_folds[kind])
        assert auto.head.kind.removeprefix("root-") == best
        taken.add(best)
    assert taken == {"ridge", "logistic"}


def test_beyond_the_work_limit_auto_takes_ridge(monkeypatch: pytest.MonkeyPatch) -> None:
    features, labels = photos()
    monkeypatch.setattr("headstart.heads.auto.WORK", 0)
    assert fit("auto", features, labels, 3).head.kind.endswith("ridge")


def test_the_signed_root_equals_its_definition_and_is_smooth_at_zero() -> None:
    values = np.array([[-9.0, -0.5, 0.0, 0.25, 4.0]])
    expected = [[-np.sqrt(9.01) + 0.1, -np.sqrt(0.51) + 0.1, 0.0, np.sqrt(0.26) - 0.1, np.sqrt(4.01) - 0.1]]
    np.testing.assert_allclose(root(values, 0.01), expected)
    np.testing.assert_allclose((root(np.array([[1e-7]]), 0.01) - root(np.array([[-1e-7]]), 0.01)) / 2e-7, 5, rtol=1e-3)


BAD = [
    ({"features": np.full((6, 2), np.nan, np.float32)}, DataError, "features of 6 of 6 photos are unusable"),
    ({"features": np.diag([np.inf] * 6)}, DataError, "not finite"),
    ({"features": np.diag([1, 1, 1, 1, 1, 3e9])}, DataError, r"the first: photo 5, as large as 3e\+09"),
    ({"features": np.zeros((6, 0))}, UsageError, r"received float64 of shape \(6, 0\)"),
    ({"labels": np.array([0, 1, 0, 1, 0, 2])}, DataError, r"outside 0\.\.1 \(the first: 2 of photo 5\)"),
    ({"labels": np.array([0, 1, 0, 1, 0, -1])}, DataError, "the first: -1 of photo 5"),
    ({"labels": np.zeros(6, np.int64)}, DataError, "two or more classes; all 6 are of one"),
    ({"folds": np.zeros(6, np.int64)}, DataError, "at least two different"),
    ({"folds": np.array([-1, 0, 1, 0, 1, 0])}, DataError, "folds must be numbers from 0"),
    ({"sample_weights": np.array([1.0, -1, 1, 1, 1, 1])}, UsageError, "6 finite numbers >= 0"),
    ({"sample_weights": np.zeros(6)}, UsageError, "not all 0"),
    ({"sample_weights": np.array([1.0, 0, 1, 0, 1, 0])}, DataError, "two or more classes"),
    ({"sample_weights": np.array([1.0, 1, 0, 0, 0, 0]), "folds": np.array([0, 0, 1, 1, 1, 1])}, DataError, "one fold"),
    ({"clusters": np.zeros(6, np.int64)}, DataError, "all 6 training photos are near duplicates"),
]


@pytest.mark.parametrize(("change", "error", "words"), BAD)
@pytest.mark.parametrize("kind", ["ridge", "auto"])
def test_what_cannot_be_fitted_is_refused_in_one_clear_line(
    kind: str, change: dict[str, np.ndarray], error: type[HeadstartError], words: str
) -> None:
    given = {"features": np.random.default_rng(0).random((6, 2)), "labels": np.arange(6) % 2, "folds": np.arange(6) % 3}
    given |= change
    with pytest.raises(error, match=words) as caught:
        fit_head(kind, given.pop("features"), given.pop("labels"), 2, **given)
    assert "\n" not in str(caught.value)


def test_arrays_of_the_wrong_kind_or_length_are_refused() -> None:
    features, labels = photos(6)
    with pytest.raises(UsageError, match="array of floats; received int64"):
        check(np.zeros((6, 2), np.int64), labels, 3, labels, None, None, 0)
    with pytest.raises(
        UsageError, match=r"labels must be 6 whole numbers, one a photo; received int64 of shape \(5,\)"
    ):
        check(features, labels[:5], 3, labels, None, None, 0)
    with pytest.raises(UsageError, match="folds must be 6 whole numbers, one a photo; received float64"):
        check(features, labels, 3, labels * 1.0, None, None, 0)


def test_an_unknown_head_is_refused_with_the_known_ones() -> None:
    features, labels = photos()
    with pytest.raises(UsageError, match="unknown head 'svm'; known: auto, ridge, logistic"):
        fit("svm", features, labels, 3)


def test_features_of_another_length_are_refused() -> None:
    features, labels = photos()
    with pytest.raises(UsageError, match="fitted to 12 features a photo; received 5"):
        fit("ridge", features, labels, 3).head.logits(np.zeros((2, 5), np.float32))


PARTS = {"weight": np.zeros((3, 4)), "bias": np.zeros(3)}
FOREIGN = [
    ("ridge", {}, {}),
    ("ridge", {"weight": np.zeros((3, 4))}, {}),
    ("ridge", {"weight": np.zeros((3, 4)), "bias": np.zeros(2)}, {}),
    ("ridge", {"weight": np.zeros(12), "bias": np.zeros(3)}, {}),
    ("ridge", PARTS | {"more": np.zeros(3)}, {}),
    ("root-ridge", PARTS, {}),
    ("root-ridge", PARTS, {"root_offset": float("nan")}),
    ("root-ridge", PARTS, {"root_offset": -1.0}),
    ("mlp", PARTS, {}),
    ("mlp", PARTS | {"hidden_weight": np.zeros((5, 9)), "hidden_bias": np.zeros(5)}, {}),
    ("knn", {"references": np.zeros((7, 4)), "votes": np.zeros((6, 3))}, {"neighbours": 1, "prior": [0.2, 0.3, 0.5]}),
    ("knn", {"references": np.zeros((7, 4)), "votes": np.zeros((7, 3))}, {"neighbours": 0, "prior": [0.2, 0.3, 0.5]}),
    ("knn", {"references": np.zeros((7, 4)), "votes": np.zeros((7, 3))}, {"neighbours": 1, "prior": [0.2, 0.8]}),
]


@pytest.mark.parametrize(("kind", "tensors", "settings"), FOREIGN)
def test_tensors_of_no_head_of_that_kind_are_refused(
    kind: str, tensors: dict[str, np.ndarray], settings: dict[str, object]
) -> None:
    with pytest.raises(RunError, match=f"a '{kind}' head has the tensors"):
        Head(kind, tensors, settings)


def test_no_photo_gives_no_logits() -> None:
    for kind, tensors, settings in (
        ("ridge", PARTS, {}),
        ("knn", {"references": np.eye(3, 4), "votes": np.eye(3)}, {"neighbours": 50, "prior": [0.2, 0.3, 0.5]}),
    ):
        assert Head(kind, tensors, settings).logits(np.zeros((0, 4), np.float32)).shape == (0, 3)


def test_the_number_of_threads_is_restored_when_the_block_fails() -> None:
    control = _openblas()
    if control is None:
        pytest.skip("numpy brings no OpenBLAS here")
    before = control[0]()
    with pytest.raises(ZeroDivisionError), one_thread():
        assert control[0]() == 1
        raise ZeroDivisionError
    assert control[0]() == before


def test_fitting_and_predicting_import_no_torch_scikit_learn_or_scipy() -> None:
    program = (
        "import sys, numpy as np; from headstart.heads import fit_head, fit_temperature; x = np.random.rand(30, 5);"
        "y = np.arange(30) % 2; f = fit_head('auto', x, y, 2, folds=y); f.head.logits(x);"
        "fit_temperature(f.held_out, y); fit_head('knn', x, y, 2, folds=y);"
        "print({'torch', 'sklearn', 'scipy'} & sys.modules.keys())"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
