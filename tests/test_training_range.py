"""Learning rates: the range test, the sweep with its four verdicts, the bowl, and the drawing of all that."""

import io
import json
import math
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torch import nn

from headstart.config import LoopConfig
from headstart.errors import ConfigError, UsageError
from headstart.training.batches import MemoryBatches
from headstart.training.curves import Axes, draw_rates, write_drawing
from headstart.training.range_finder import (
    RangeResult,
    Trial,
    descend_bowl,
    find_range,
    judge_bowl,
    judge_curve,
    judge_sweep,
    smooth,
    suggest_rate,
    sweep,
)

CHANCE = math.log(10)
SGD = LoopConfig(optimiser="sgd", momentum=0.9)


def digits(batch_size: int = 64) -> MemoryBatches:
    data = load_digits()
    pixels = torch.from_numpy(data.images.astype(np.float32))[:, None]
    return MemoryBatches(
        pixels, torch.from_numpy(data.target), classes=10, batch_size=batch_size, mean=[0.0], std=[16.0]
    )


def two_convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(512, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def one_layer() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


@pytest.mark.parametrize("product", [0.1, 0.99, 1.0, 1.5, 1.99, 2.01, 3.0])
def test_descent_in_a_bowl_diverges_exactly_above_rate_times_curvature_2(product: float) -> None:
    curvature = 4.0
    x = torch.tensor([1.0], dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.SGD([x], lr=product / curvature)
    places = [1.0]
    for _ in range(400):
        optimiser.zero_grad()
        (curvature / 2 * x.square().sum()).backward()
        optimiser.step()
        places.append(float(x.detach()))
    np.testing.assert_allclose(descend_bowl(curvature, product / curvature, steps=400), places, rtol=1e-9, atol=1e-12)
    assert (abs(places[-1]) > 1) == (judge_bowl(curvature, product / curvature) == "diverged")
    assert (min(places) < 0) == (judge_bowl(curvature, product / curvature) != "good")


def test_at_exactly_2_the_bowl_bounces_for_ever() -> None:
    assert descend_bowl(2.0, 1.0, steps=3) == [1.0, -1.0, 1.0, -1.0]
    assert judge_bowl(2.0, 1.0) == "bouncing"


def test_the_sweep_on_digits_shows_too_low_good_and_diverged() -> None:
    trials = sweep(two_convolutions, digits(), SGD, [0.5, 0.001, 8.0, 0.1], steps=100)
    assert [(trial.rate, trial.verdict) for trial in trials] == [
        (0.001, "too low"),
        (0.1, "good"),
        (0.5, "diverged"),
        (8.0, "diverged"),
    ]
    assert len({trial.losses[0] for trial in trials}) == 1  # the same net, the same first batch
    assert all(trial.why.endswith(".") for trial in trials)


def test_a_rate_that_leaps_about_the_minimum_is_bouncing() -> None:
    trials = sweep(one_layer, digits(), SGD, [0.3, 30.0], steps=60)
    assert trials[0].verdict == "good"
    assert trials[1].verdict in ("bouncing", "diverged") and max(trials[1].losses) > 2 * trials[1].losses[0]


def curve(*parts: tuple[float, float, int]) -> list[float]:
    return [value for start, end, count in parts for value in np.linspace(start, end, count).tolist()]


@pytest.mark.parametrize(
    ("losses", "verdict"),
    [
        (curve((2.3, 0.1, 100)), "good"),
        (curve((2.3, 2.29, 100)), "too low"),
        (curve((7.7, 6.0, 100)), "too low"),  # above guessing, but on its way
        ([*curve((2.3, 1.0, 20)), math.nan], "diverged"),
        (curve((2.3, 1.0, 20), (4.7, 4.7, 1), (0.5, 0.1, 50)), "diverged"),  # more than twice the first, after step 10
        (curve((2.3, 9.0, 5), (0.5, 0.1, 95)), "good"),  # the first ten steps are forgiven
        (curve((2.3, 12.0, 8), (2.33, 2.33, 92)), "diverged"),  # a spike, then guessing
        ([*curve((2.3, 1.0, 10)), *([2.0] * 7 + [0.6] * 7) * 6], "bouncing"),
    ],
)
def test_a_curve_is_judged_by_the_rule(losses: list[float], verdict: str) -> None:
    assert judge_curve(losses, CHANCE)[0] == verdict


def test_in_a_sweep_what_lags_behind_the_best_is_too_low_below_it_and_bounces_above() -> None:
    curves = [curve((2.3, 1.2, 100)), curve((2.3, 0.1, 100)), curve((2.3, 0.9, 100))]
    assert [verdict for verdict, _ in judge_sweep([0.01, 0.1, 1.0], curves, CHANCE)] == ["too low", "good", "bouncing"]


def test_a_flat_curve_above_the_best_rate_has_diverged() -> None:
    curves = [curve((2.3, 0.1, 100)), curve((2.3, 2.3, 100))]
    assert [verdict for verdict, _ in judge_sweep([0.1, 5.0], curves, CHANCE)] == ["good", "diverged"]


@pytest.mark.parametrize("optimiser", ["sgd", pytest.param("adam", marks=pytest.mark.full)])
def test_the_rate_that_the_range_test_suggests_is_good(optimiser: str) -> None:
    config = LoopConfig(optimiser=optimiser)
    torch.manual_seed(0)
    tested = find_range(two_convolutions(), digits(), config)
    trials = sweep(two_convolutions, digits(), config, [tested.suggestion, tested.suggestion / 1000], steps=100)
    assert [trial.verdict for trial in trials] == ["too low", "good"]


def test_the_range_test_leaves_the_net_and_the_random_numbers_as_they_were() -> None:
    net = one_layer().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    result = find_range(net, digits(), SGD, steps=20)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not net.training and torch.equal(torch.random.get_rng_state(), state)
    assert result.rates[0] == pytest.approx(1e-6) and result.rates == tuple(sorted(result.rates))
    ratios = np.diff(np.log(result.rates))
    np.testing.assert_allclose(ratios, ratios[0])


def test_the_range_test_sees_the_loss_of_the_untouched_net_first() -> None:
    net, batches = one_layer(), digits()
    images, labels = next(iter(batches.epoch(0)))
    expected = nn.functional.cross_entropy(net(images), labels)
    assert find_range(net, batches, SGD, steps=10).losses[0] == pytest.approx(float(expected.detach()), rel=1e-5)


@pytest.mark.parametrize("settings", [{"lowest": 0.0}, {"lowest": 1.0, "highest": 0.1}, {"steps": 5}])
def test_a_range_that_is_none_is_refused_with_the_numbers(settings: dict) -> None:
    with pytest.raises(ConfigError, match=r"needs 0 < lowest < highest and at least 10 steps; received"):
        find_range(one_layer(), digits(), SGD, **settings)


def test_a_sweep_without_rates_is_refused() -> None:
    with pytest.raises(UsageError, match="above 0"):
        sweep(one_layer, digits(), SGD, [])


def test_smoothing_is_the_mean_of_the_neighbours() -> None:
    values = np.random.default_rng(0).normal(size=12)
    slow = [np.mean([values[j] for j in range(12) if abs(i - j) <= 3]) for i in range(12)]
    np.testing.assert_allclose(smooth(values.tolist()), slow)


def test_the_way_down_to_guessing_does_not_count_for_the_suggestion() -> None:
    rates = [10.0**power for power in range(-6, 2)]
    losses = [9.0, 4.0, 2.5, 2.3, 2.2, 0.5, 0.4, 9.0]
    assert suggest_rate(rates, losses) < 1.1e-5  # the steepest of all is the loud start
    assert suggest_rate(rates, losses, math.log(10)) in (pytest.approx(1e-2), pytest.approx(1e-1))


def example() -> tuple[RangeResult, tuple[Trial, ...]]:
    rates, losses = (0.001, 0.01, 0.1, 1.0), (2.3, 1.5, 0.5, math.inf)
    trials = (Trial(0.1, (2.3, 1.0, 0.2), "good", "."), Trial(1.0, (2.3, math.nan), "diverged", "."))
    return RangeResult(rates, losses, losses, 0.03), trials


def test_a_drawing_is_svg_or_png_of_the_same_size(tmp_path: Path) -> None:
    drawing = draw_rates(*example(), "lenet <on> digits")
    for name in ("a.svg", "a.png"):
        write_drawing(drawing, tmp_path / name)
    svg = ElementTree.fromstring((tmp_path / "a.svg").read_text())
    words = [node.text for node in svg.iter() if node.tag.endswith("text")]
    assert "lenet <on> digits" in words and "0.1 good" in words and "1 diverged" in words
    _, _, width, height = map(float, svg.attrib["viewBox"].split())
    for node in svg.iter():
        if node.tag.endswith("polyline"):
            places = [tuple(map(float, point.split(","))) for point in node.attrib["points"].split()]
            assert all(0 <= x <= width and 0 <= y <= height for x, y in places)
    with Image.open(io.BytesIO((tmp_path / "a.png").read_bytes())) as picture:
        assert picture.size == (2 * width, 2 * height)


def test_axes_put_decades_side_by_side_and_keep_what_is_outside_at_the_edge() -> None:
    axes = Axes(0.0, 0.0, (0.01, 1.0), (0.0, 4.0), log=True)
    assert axes.place(0.1, 2.0) == (pytest.approx(250), pytest.approx(150))
    assert axes.place(10.0, math.nan) == (pytest.approx(500), pytest.approx(0))


def test_a_drawing_of_another_kind_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"an \.svg or a \.png file; received 'a\.gif'"):
        write_drawing(draw_rates(*example(), ""), tmp_path / "a.gif")


def test_a_range_result_is_strict_json() -> None:
    tested, trials = example()
    text = json.dumps([tested.to_json(), *(trial.to_json() for trial in trials)], allow_nan=False)
    assert json.loads(text)[0]["losses"] == [2.3, 1.5, 0.5, None]
