"""Similarity: the divergence by its definition, its interval on photos of a known law, sets known to be near or far."""

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.backbones import Backbone
from headstart.backbones.conversion import NormLayer
from headstart.backbones.converted import ConvertedNet
from headstart.errors import DataError, UsageError
from headstart.metrics import accuracy_interval
from headstart.preprocess import Preprocessing
from headstart.transfer.probes import Probe
from headstart.transfer.similarity import (
    DIFFERENT,
    SIMILAR,
    Similarity,
    choose_photos,
    measure_similarity,
    similarity_from_probes,
    symmetric_divergence,
)

SMALL = Preprocessing(size=16, crop_fraction=0.875, mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0), filter="bilinear")
LAYERS = (
    NormLayer("stem.norm", "stem", 6, 1e-3),
    NormLayer("body.0", "body", 4, 1e-5),
    NormLayer("body.1", "body", 5, 0.1),
)


class PaperBackbone(Backbone):
    """Batch norms without a net: their tensors are made up."""

    def tensors(self) -> dict[str, np.ndarray]:
        return paper_tensors()


def paper_tensors() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(4)
    found = {}
    for layer in LAYERS:
        found[f"{layer.name}.running_mean"] = draw.normal(size=layer.channels)
        found[f"{layer.name}.running_var"] = draw.uniform(0.2, 3, layer.channels)
        if layer.name != "body.0":  # one without scale and shift
            found[f"{layer.name}.weight"] = draw.choice([-1, 1], layer.channels) * draw.uniform(0.5, 2, layer.channels)
            found[f"{layer.name}.bias"] = draw.normal(size=layer.channels)
    return {name: values.astype(np.float32) for name, values in found.items()}


def paper_backbone(norms: tuple[NormLayer, ...] = LAYERS) -> Backbone:
    length = 2 * sum(layer.channels for layer in norms)
    return PaperBackbone(
        name="paper",
        preprocessing=SMALL,
        cuts={"pooled": 5},
        outputs={"pooled": (5,), "statistics": (length,)} if norms else {"pooled": (5,)},
        weights_sha256="0" * 64,
        classes=None,
        source="made up",
        net_options={},
        converted=ConvertedNet("paper", {}, "0" * 64, SMALL, dict),
        norms=norms,
    )


def reference(layer: NormLayer) -> tuple[list[float], list[float]]:
    """Mean and variance of what a batch norm puts out when its input is as in the training: of y = g z + b."""
    tensors = paper_tensors()
    spread = tensors[f"{layer.name}.running_var"].tolist()
    scale = tensors.get(f"{layer.name}.weight", np.ones(layer.channels)).tolist()
    shift = tensors.get(f"{layer.name}.bias", np.zeros(layer.channels)).tolist()
    return shift, [g * g * v / (v + layer.epsilon) for g, v in zip(scale, spread, strict=True)]


def photos_of_law(draw: np.random.Generator, count: int, shift: float, wander: float, scale: float) -> np.ndarray:
    """Statistics of photos; with the reference as the unit, each has the mean `shift` + noise, and variance `scale`."""
    rows = []
    for _ in range(count):
        row: list[float] = []
        for layer in LAYERS:
            means, spreads = reference(layer)
            noise = draw.normal(0, wander, layer.channels)
            m = [b + math.sqrt(v) * (shift + e) for b, v, e in zip(means, spreads, noise, strict=True)]
            row += m + [a * a + v * scale for a, v in zip(m, spreads, strict=True)]
        rows.append(row)
    return np.array(rows, np.float32)


def jeffreys(m: float, v: float) -> float:
    """Half the sum of both divergences of N(m, v) and N(0, 1), integrated numerically from the definition."""
    x = np.linspace(-40, 40, 400_001)
    p = np.exp(-((x - m) ** 2) / (2 * v)) / math.sqrt(2 * math.pi * v)
    q = np.exp(-(x**2) / 2) / math.sqrt(2 * math.pi)
    logs = (-((x - m) ** 2) / (2 * v) - math.log(v) / 2) + x**2 / 2
    return float(((p - q) * logs).sum() * (x[1] - x[0]) / 2)


# the measure


@pytest.mark.parametrize(("m", "v"), [(0.0, 1.0), (0.7, 1.0), (-0.3, 0.4), (1.5, 2.5)])
def test_the_divergence_is_the_integral_of_its_definition(m: float, v: float) -> None:
    assert symmetric_divergence(np.array(m * m), np.array(v)) == pytest.approx(jeffreys(m, v), abs=1e-6)


def test_the_value_is_the_mean_over_layers_of_the_median_over_channels_computed_one_by_one() -> None:
    means = np.split(np.random.default_rng(8).normal(size=15), [6, 10])
    row = np.concatenate([part for mean in means for part in (mean, mean**2 + 0.8)])
    alike = np.tile(row.astype(np.float32), (5, 1))  # photos that are all the same: their interval is a point
    found = measure_similarity(paper_backbone(), alike)
    expected, place = [], 0
    for layer in LAYERS:
        channels = []
        for number, (mean, spread) in enumerate(zip(*reference(layer), strict=True)):
            m, square = float(row[place + number]), float(row[place + layer.channels + number])
            channels.append(jeffreys((m - mean) / math.sqrt(spread), (square - m * m) / spread))
        channels.sort()
        half = len(channels) // 2
        expected.append(channels[half] if len(channels) % 2 else (channels[half - 1] + channels[half]) / 2)
        place += 2 * layer.channels
    assert [layer.value for layer in found.layers] == pytest.approx(expected, rel=1e-3)
    assert found.value == pytest.approx(sum(expected) / 3, rel=1e-3)
    assert (found.low, found.high) == pytest.approx((found.value, found.value))
    assert found.stages == pytest.approx({"stem": expected[0], "body": (expected[1] + expected[2]) / 2}, rel=1e-3)
    assert [(layer.name, layer.stage) for layer in found.layers] == [(layer.name, layer.stage) for layer in LAYERS]


def test_photos_with_the_statistics_of_the_training_are_at_distance_zero() -> None:
    found = measure_similarity(paper_backbone(), photos_of_law(np.random.default_rng(0), 40, 0.0, 0.0, 1.0))
    assert found.value == pytest.approx(0, abs=1e-6)
    assert (found.verdict, found.measure, found.photos) == ("similar", "batch norm", 40)


@pytest.mark.parametrize("count", [16, 64])
def test_the_interval_covers_the_true_distance_and_few_photos_do_not_look_further_away(count: int) -> None:
    draw = np.random.default_rng(count)
    shift, wander, scale = 0.5, 0.6, 0.9
    true = jeffreys(shift, scale + wander**2)  # the variance over all photos and pixels; the same for every channel
    found = [
        measure_similarity(paper_backbone(), photos_of_law(draw, count, shift, wander, scale), seed=turn)
        for turn in range(60)
    ]
    values = np.array([one.value for one in found])
    covered = sum(one.low <= true <= one.high for one in found)
    assert covered >= 0.85 * 60  # of intervals of 95 %; the bootstrap is a little short of photos
    assert abs(values.mean() - true) < 0.1 * true
    assert 0.3 < np.mean([one.high - one.low for one in found]) / (2 * 1.96 * values.std()) < 3


def test_few_photos_far_from_zero_by_chance_alone_are_brought_nearer_to_it() -> None:
    """Eight photos of the training itself: without the correction chance alone puts them at wander^2 / (4 * 8) * 2."""
    draw = np.random.default_rng(3)
    values = [measure_similarity(paper_backbone(), photos_of_law(draw, 8, 0.0, 1.0, 0.001)).value for _ in range(40)]
    assert np.mean(values) < 0.1


def test_channels_that_carry_nothing_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    statistics = photos_of_law(np.random.default_rng(1), 20, 0.6, 0.3, 1.2)
    tensors = paper_tensors()
    tensors["stem.norm.weight"][[0, 3]] = 0
    monkeypatch.setattr(PaperBackbone, "tensors", lambda _: tensors)
    before = measure_similarity(paper_backbone(), statistics)
    statistics[:, [0, 3, 6, 9]] = 77
    assert measure_similarity(paper_backbone(), statistics) == before
    tensors["stem.norm.weight"][:] = 0
    assert measure_similarity(paper_backbone(), statistics).layers[0].value == 0


def test_photos_of_one_colour_are_far_away_and_not_infinitely_far() -> None:
    found = measure_similarity(paper_backbone(), photos_of_law(np.random.default_rng(1), 10, 0.0, 0.0, 0.0))
    assert found.verdict == "different"
    assert DIFFERENT < found.value < 100
    json.dumps(found.to_json(), allow_nan=False)


def test_the_same_photos_and_seed_give_the_same_numbers_and_another_seed_other_bounds() -> None:
    statistics = photos_of_law(np.random.default_rng(2), 30, 0.3, 0.5, 1.1)
    first, again, other = (measure_similarity(paper_backbone(), statistics, seed=seed) for seed in (0, 0, 1))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)
    assert first.value == pytest.approx(other.value, rel=0.05)


@pytest.mark.parametrize(
    ("statistics", "error", "message"),
    [
        (np.zeros((3, 7), np.float32), UsageError, r"paper are 30 numbers a photo; received 7; take the output"),
        (np.zeros((0, 30), np.float32), DataError, "no photo to measure"),
        (np.full((2, 30), np.nan, np.float32), DataError, "not finite; leave out the rows of unreadable photos"),
    ],
)
def test_numbers_that_cannot_be_compared_are_refused(
    statistics: np.ndarray, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        measure_similarity(paper_backbone(), statistics)


def test_a_backbone_without_batch_norm_is_refused_with_the_measure_that_takes_its_place() -> None:
    with pytest.raises(UsageError, match="paper has no batch norm to compare photos with; use similarity_from_probes"):
        measure_similarity(paper_backbone(()), np.zeros((3, 4), np.float32))


# the verdict in words


@pytest.mark.parametrize(
    ("shift", "verdict", "words"),
    [
        (0.2, "similar", "similar to"),
        (0.7, "in between", "neither similar to nor"),
        (1.5, "different", "different from"),
    ],
)
def test_the_sentence_has_the_verdict_the_number_its_interval_and_the_thresholds(
    shift: float, verdict: str, words: str
) -> None:
    found = measure_similarity(paper_backbone(), photos_of_law(np.random.default_rng(5), 32, shift, 0.2, 1.0))
    assert found.verdict == verdict
    told = found.why()
    assert f"The photos are {words} " in told
    assert f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f}) nats over 32 photos" in told
    assert f"similar is up to {SIMILAR:g}, different from {DIFFERENT:g}" in told
    assert ("Most at " in told) == (verdict != "similar")
    document = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert document["why"] == told
    assert document["thresholds"] == {"similar": SIMILAR, "different": DIFFERENT}
    assert document["stages"] == found.stages
    assert len(document["layers"]) == 3


def test_the_verdict_changes_at_the_thresholds() -> None:
    verdicts = []
    for distance in (0.99 * SIMILAR, 1.01 * SIMILAR, 0.99 * DIFFERENT, 1.01 * DIFFERENT):
        shift = math.sqrt(2 * distance)  # with the same variance the divergence is half the square of the shift
        found = measure_similarity(paper_backbone(), photos_of_law(np.random.default_rng(0), 20, shift, 0.0, 1.0))
        verdicts.append(found.verdict)
    assert verdicts == ["similar", "in between", "in between", "different"]


def test_a_number_from_very_few_photos_says_so() -> None:
    few, enough = (
        measure_similarity(paper_backbone(), photos_of_law(np.random.default_rng(0), count, 0.3, 0.1, 1.0))
        for count in (5, 16)
    )
    assert few.why().endswith("Only 5 photos: the number is uncertain.")
    assert "uncertain" not in enough.why()


# which photos


@pytest.mark.parametrize("counts", [[500, 500], [900, 100, 10], [40] * 30, [1000] + [1] * 20])
def test_every_class_is_chosen_from_in_proportion_up_or_down_by_one(counts: list[int]) -> None:
    labels = np.random.default_rng(1).permutation(np.repeat(np.arange(len(counts)), counts))
    rows = choose_photos(labels, limit=64)
    assert len(rows) == 64 == len(set(rows.tolist()))
    assert rows.tolist() == sorted(rows.tolist())
    found = np.bincount(labels[rows], minlength=len(counts))
    share = np.array(counts) * 64 / sum(counts)
    assert np.all(np.abs(found - share) < 1)


def test_the_choice_is_the_same_every_time_differs_by_seed_and_is_everything_where_photos_are_few() -> None:
    labels = np.arange(300) % 3
    assert choose_photos(labels).tolist() == choose_photos(labels).tolist() != choose_photos(labels, seed=1).tolist()
    assert len(choose_photos(labels)) == 48
    assert choose_photos(labels[:40]).tolist() == list(range(40))
    with pytest.raises(UsageError, match="must be 1 or more; received 0"):
        choose_photos(labels, limit=0)


def test_every_photo_of_a_class_is_chosen_about_as_often() -> None:
    labels = np.repeat([0, 1], [70, 30])
    times = np.zeros(100)
    for seed in range(400):
        times[choose_photos(labels, limit=20, seed=seed)] += 1
    assert times.min() > 45 and times.max() < 115  # 80 expected, with a standard deviation of 8


# without batch norm


def probe(cut: str, losses: Sequence[float] | np.ndarray, clusters: np.ndarray | None = None, length: int = 9) -> Probe:
    values = np.asarray(losses, np.float64)
    low, high = accuracy_interval(1, 2)
    scores = np.zeros((len(values), 2))
    return Probe(cut, length, 0.5, low, high, float(values.mean()), values, 1.0, 0.0, values < 1, scores, clusters)


def gamma(mean: float, count: int = 400, seed: int = 0) -> np.ndarray:
    losses = np.random.default_rng(seed).gamma(1.0, 1.0, count)
    return losses * (mean / losses.mean())


@pytest.mark.parametrize(
    ("quotient", "value"), [(1.0, math.sqrt(SIMILAR * DIFFERENT)), (1.1, DIFFERENT), (1 / 1.1, SIMILAR)]
)
def test_equal_losses_lie_midway_and_a_tenth_more_or_less_at_the_thresholds(quotient: float, value: float) -> None:
    found = similarity_from_probes(
        [probe("stem", gamma(0.9)), probe("stage5", gamma(0.5)), probe("pooled", gamma(0.5 * quotient, seed=1))]
    )
    assert found.value == pytest.approx(value)
    assert found.low < found.value < found.high
    assert (found.measure, found.photos) == ("probes", 400)
    assert [(layer.name, round(layer.value, 6)) for layer in found.layers][:2] == [("stem", 0.9), ("stage5", 0.5)]


def test_the_sentence_says_that_it_is_another_measure_and_between_which_cuts() -> None:
    near = similarity_from_probes([probe("stage5", gamma(0.5)), probe("pooled", gamma(0.2, seed=1))])
    far = similarity_from_probes([probe("stage5", gamma(0.2)), probe("pooled", gamma(0.5, seed=1))])
    assert (near.verdict, far.verdict) == ("similar", "different")
    assert "no batch norm" in far.why() and "another measure is used" in far.why()
    assert far.why().endswith("The log loss is 0.500 at pooled and 0.200 at stage5.")
    json.dumps(far.to_json(), allow_nan=False)


def test_the_interval_over_probes_is_that_of_drawing_the_photos_again_and_duplicates_widen_it() -> None:
    early, last = gamma(0.5, seed=3), gamma(0.52, seed=4)
    found = similarity_from_probes([probe("stage5", early), probe("pooled", last)])
    draw = np.random.default_rng(0).integers(0, 400, (4000, 400))
    logs = np.log(last[draw].mean(axis=1) / early[draw].mean(axis=1))
    power = math.log(DIFFERENT / math.sqrt(SIMILAR * DIFFERENT)) / math.log(1.1)
    assert math.log(found.high / found.low) == pytest.approx(power * 2 * 1.96 * logs.std(), rel=0.1)
    four = np.repeat(np.arange(400), 4)
    doubled = [probe(cut, np.repeat(losses, 4), four) for cut, losses in (("stage5", early), ("pooled", last))]
    again = similarity_from_probes(doubled)
    assert (again.low, again.high) == pytest.approx((found.low, found.high))


def test_the_pooled_last_map_is_no_earlier_cut() -> None:
    last = gamma(0.5)
    probes = [probe("stage5", gamma(0.8, seed=1)), probe("head", last), probe("pooled", last)]
    assert similarity_from_probes(probes) == dataclasses.replace(
        similarity_from_probes([probes[0], probes[2]]), layers=similarity_from_probes(probes).layers
    )
    with pytest.raises(UsageError, match="needs a probe of a cut before 'pooled'; probed: head, pooled"):
        similarity_from_probes(probes[1:])
    with pytest.raises(UsageError, match="'pooled' was not probed; probed: stage5"):
        similarity_from_probes(probes[:1])


def test_a_probe_without_any_loss_gives_numbers_all_the_same() -> None:
    for first, last in ((0.0, 0.4), (0.4, 0.0)):
        found = similarity_from_probes([probe("stage5", [first] * 9), probe("pooled", [last] * 9)])
        assert found.verdict == ("different" if last else "similar")
        json.dumps(found.to_json(), allow_nan=False)


# a real net


def statistics_of(backbone: Backbone, paths: list[Path]) -> np.ndarray:
    from headstart.dataset import Dataset, Photo
    from headstart.features import survey_photos

    root = Path(*paths[0].parts[: len(paths[0].parts) - 3])
    photos = tuple(Photo(path.relative_to(root).as_posix(), 0) for path in paths)
    dataset = Dataset("some", root, ("all",), photos)
    return survey_photos(dataset, backbone=backbone, cuts=("statistics",), store=None).features["statistics"]


def some(folder: Path, pattern: str, count: int = 16) -> list[Path]:
    paths = sorted(folder.rglob(pattern))
    return [paths[len(paths) * number // count] for number in range(count)]


def test_animals_are_similar_to_imagenet_and_characters_different_at_every_depth(
    ready_cache: Path, shared_data: Path
) -> None:
    from headstart.backbones import open_backbone

    backbone = open_backbone("efficientnet-lite0")
    found: dict[str, Similarity] = {
        name: measure_similarity(backbone, statistics_of(backbone, some(shared_data / name, pattern)))
        for name, pattern in (("ants_bees", "*.jpg"), ("omniglot", "*.png"))
    }
    near, far = found["ants_bees"], found["omniglot"]
    assert (near.verdict, far.verdict) == ("similar", "different")
    # the study that led to the measure found .03 and .60 with 48 photos and code of its own
    assert near.value == pytest.approx(0.03, abs=0.02)
    assert far.value == pytest.approx(0.60, abs=0.15)
    assert list(near.stages) == [cut for cut in backbone.cuts if cut != "pooled"]
    assert all(far.stages[stage] > 3 * near.stages[stage] for stage in near.stages)


def test_the_distance_behind_a_batch_norm_is_that_before_it(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole way, from pixels through the fast engine, against the input of each batch norm in float64."""
    import torch
    from torch import nn

    from headstart.backbones import backbone_from_tensors
    from headstart.backbones.engines import open_engine
    from headstart.nets import NETS, build_net
    from headstart.weights import tensors_of

    monkeypatch.setitem(NETS, "two-norms", (__name__, "two_norms"))
    torch.manual_seed(0)
    net: Any = build_net("two-norms")
    draw = np.random.default_rng(0)
    photos = [(number, draw.integers(0, 60 + 20 * number, (16, 16, 3), np.uint8)) for number in range(6)]
    backbone = backbone_from_tensors("two-norms", tensors_of(net), SMALL, net_options={})
    rows = [features["statistics"] for _, features in open_engine(backbone, cuts=("statistics",)).run(photos)]
    alike = np.tile(np.mean(rows, axis=0, keepdims=True), (3, 1)).astype(np.float32)  # no photo differs: no correction
    found = measure_similarity(backbone, alike)

    pixels = torch.from_numpy(SMALL.normalise(np.stack([photo for _, photo in photos]))).double()
    net = net.double().eval()
    inputs: list[tuple[nn.BatchNorm2d, torch.Tensor]] = []
    for norm in (net.first[1], net.second[1]):
        norm.register_forward_pre_hook(lambda module, args: inputs.append((module, args[0])))
    with torch.no_grad():
        net(pixels)
    for (norm, x), layer in zip(inputs, found.layers, strict=True):
        m, v = x.mean((0, 2, 3)), x.var((0, 2, 3), correction=0)
        shift, ratio = (m - norm.running_mean) / norm.running_var.sqrt(), v / norm.running_var
        channels = [jeffreys(float(a), float(b)) for a, b in zip(shift, ratio, strict=True)]
        assert layer.value == pytest.approx(float(np.median(channels)), rel=2e-3)


def two_norms() -> Any:
    import torch
    from torch import nn

    class Net(nn.Module):
        cuts = ("first", "second")

        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Sequential(nn.Conv2d(3, 7, 3), nn.BatchNorm2d(7, eps=1e-3), nn.ReLU6())
            self.second = nn.Sequential(nn.Conv2d(7, 6, 3, stride=2), nn.BatchNorm2d(6, eps=1e-2))
            for norm in (self.first[1], self.second[1]):
                nn.init.uniform_(norm.weight, -1.5, 1.5)  # type: ignore[arg-type]
                nn.init.normal_(norm.bias)  # type: ignore[arg-type]
                norm.running_mean.uniform_(-0.3, 0.3)  # type: ignore[operator,union-attr]
                norm.running_var.uniform_(0.1, 0.6)  # type: ignore[operator,union-attr]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.stages(x)["logits"]

        def stages(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            first = self.first(x)
            second = self.second(first)
            return {"first": first, "second": second, "logits": second.mean((2, 3))}

    return Net()
