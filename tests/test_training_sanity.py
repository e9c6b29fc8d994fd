"""The 50-photo check: a sound net passes without a word, and each planted fault is named first."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from headstart.config import LoopConfig
from headstart.errors import DataError
from headstart.training.causes import CAUSES
from headstart.training.optimisers import make_optimiser
from headstart.training.probes import dead_share, dead_shares, ignored_by, neighbour_agreement, probe
from headstart.training.sanity import CheckResult, check_net, choose_photos

ADAM = LoopConfig()


def digits() -> tuple[Tensor, Tensor]:
    data = load_digits()
    pixels = torch.from_numpy(data.images.astype(np.float32))[:600, None]
    return (pixels - pixels.mean()) / pixels.std(), torch.from_numpy(data.target[:600])


IMAGES, LABELS = digits()


class Through(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def cnn(between: nn.Module | None = None, seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), between or nn.Identity(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(256, 32), nn.ReLU(), nn.Dropout(0.5), nn.Linear(32, 10),
    )  # fmt: skip


def first(result: CheckResult) -> str:
    assert all(item["cause"] in CAUSES for item in result.findings)
    assert all(
        item[part].endswith((".", "?")) for item in result.findings for part in ("finding", "evidence", "remedy")
    )
    json.dumps(result.to_json(), allow_nan=False)
    return result.findings[0]["cause"] if result.findings else ""


@pytest.mark.parametrize("config", [ADAM, LoopConfig(optimiser="sgd"), LoopConfig(weight_decay=0.5, loss="mse")])
def test_a_sound_net_learns_50_photos_by_heart_and_nothing_is_found(config: LoopConfig) -> None:
    result = check_net(cnn(), IMAGES, LABELS, config)
    assert result.passed and result.findings == ()
    assert (result.attempt.right, result.attempt.photos) == (50, 50)
    assert result.to_text().startswith("passed: 50 of 50 photos")


def test_the_net_and_the_random_numbers_are_left_as_they_were() -> None:
    net = cnn().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    check_net(net, IMAGES, LABELS, ADAM)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training or module._forward_hooks for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_shuffled_labels_are_named_although_the_net_learns_them_by_heart() -> None:
    order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(1))
    result = check_net(cnn(), IMAGES, LABELS[order], ADAM)
    assert result.passed and first(result) == "labels"
    assert "The labels do not follow the photos" in result.to_text()


def freeze(net: nn.Sequential, *layers: int) -> nn.Sequential:
    for layer in layers:
        net[layer].requires_grad_(False)
    return net


@pytest.mark.parametrize(
    ("layers", "told"), [((0, 5, 8), "No layer can learn"), ((0, 5), "2 of 3 layers cannot learn")]
)
def test_frozen_weights_are_named(layers: tuple[int, ...], told: str) -> None:
    result = check_net(freeze(cnn(), *layers), IMAGES, LABELS, ADAM)
    assert first(result) == "frozen" and result.findings[0]["finding"].startswith(told)
    assert "requires_grad" in result.findings[0]["evidence"]


def test_a_layer_that_the_optimiser_was_not_given_is_named() -> None:
    def make(net: nn.Module, config: LoopConfig) -> torch.optim.Optimizer:
        return torch.optim.Adam(net.get_submodule("8").parameters(), config.learning_rate or 1e-3)

    result = check_net(cnn(), IMAGES, LABELS, ADAM, make=make)
    assert first(result) == "frozen" and "0, 5: not among the optimiser's parameters" in result.findings[0]["evidence"]


@pytest.mark.parametrize(("rate", "cause"), [(3.0, "rate-too-high"), (1e-8, "rate-too-low")])
def test_a_wrong_learning_rate_is_named_and_the_one_advised_works(rate: float, cause: str) -> None:
    result = check_net(cnn(), IMAGES, LABELS, LoopConfig(learning_rate=rate))
    assert not result.passed and first(result) == cause
    advised = float(result.findings[0]["remedy"].split("--learning-rate ")[1].split(";")[0])
    assert check_net(cnn(), IMAGES, LABELS, LoopConfig(learning_rate=advised)).passed


@pytest.mark.parametrize("share", [1.0, 0.75])
def test_dead_units_are_named_with_their_share(share: float) -> None:
    net = cnn()
    with torch.no_grad():
        net[5].bias[: int(32 * share)] = -1000
    result = check_net(net, IMAGES, LABELS, ADAM)
    assert first(result) == "dead-units" and f"6 {100 * share:.1f} %" in result.findings[0]["evidence"]


def test_saturated_units_are_dead_too() -> None:
    net = cnn()
    net[6] = nn.Tanh()
    with torch.no_grad():
        net[5].bias[:] = 1000
    assert first(check_net(net, IMAGES, LABELS, ADAM)) == "dead-units"


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda logits, labels: nn.functional.cross_entropy(0 * logits, labels), "the net's output"),
        (lambda logits, labels: torch.tensor(1.5), "the net's output"),
        (lambda logits, labels: logits.square().mean(), "the labels"),
    ],
)
def test_a_loss_that_does_not_look_is_named(loss: Callable[[Tensor, Tensor], Tensor], what: str) -> None:
    result = check_net(cnn(), IMAGES, LABELS, ADAM, loss=loss)
    assert first(result) == "input-ignored" and what in result.findings[0]["finding"]
    assert [item["cause"] for item in result.findings] == ["input-ignored"]


def test_a_net_that_does_not_look_at_its_photos_is_named() -> None:
    result = check_net(cnn(Through(lambda x: 0 * x + 1)), IMAGES, LABELS, ADAM)
    assert first(result) == "input-ignored" and "the same answer" in result.findings[0]["finding"]


def test_a_last_layer_that_starts_at_zero_is_no_fault() -> None:
    net = cnn()
    nn.init.zeros_(net[8].weight)
    nn.init.zeros_(net[8].bias)
    assert check_net(net, IMAGES, LABELS, ADAM).findings == ()


@pytest.mark.parametrize("step", [torch.detach, torch.round, torch.sign])
def test_a_gradient_that_is_lost_on_its_way_is_named_with_the_place(step: Callable[[Tensor], Tensor]) -> None:
    result = check_net(cnn(Through(step)), IMAGES, LABELS, ADAM)
    assert first(result) == "no-gradient" and "lost between 0 and 5" in result.findings[0]["evidence"]


def test_a_loss_of_a_detached_output_is_named() -> None:
    def loss(logits: Tensor, labels: Tensor) -> Tensor:
        return nn.functional.cross_entropy(logits.detach(), labels)

    result = check_net(cnn(), IMAGES, LABELS, ADAM, loss=loss)
    assert first(result) == "no-gradient" and "lost between 8 and the loss" in result.findings[0]["evidence"]


@pytest.mark.parametrize(
    ("images", "cause"),
    [
        (60 * IMAGES + 110, "input-scale"),
        (IMAGES / 255, "input-scale"),
        (0 * IMAGES, "input-constant"),
        (torch.where(IMAGES > 1.5, torch.nan, IMAGES), "input-not-finite"),
    ],
)
def test_photos_that_are_not_normalised_are_named(images: Tensor, cause: str) -> None:
    assert first(check_net(cnn(), images, LABELS, ADAM)) == cause


def test_a_gradient_that_vanishes_is_named() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(8) for layer in (nn.Linear(32, 32), nn.Sigmoid())]
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.Sigmoid(), *layers, nn.Linear(32, 10))
    assert first(check_net(net, IMAGES, LABELS, ADAM)) == "gradient-vanishes"


def test_a_signal_that_explodes_is_named() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), *[nn.Linear(32, 32) for _ in range(12)], nn.Linear(32, 10))
    torch.manual_seed(0)
    for layer in net[1:]:
        nn.init.normal_(layer.weight, std=2.0)
    assert first(check_net(net, IMAGES, LABELS, ADAM)) == "gradient-explodes"


def test_a_net_too_small_for_50_photos_is_named() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 2), nn.Tanh(), nn.Linear(2, 1), nn.Tanh(), nn.Linear(1, 10))
    result = check_net(net, IMAGES, LABELS, ADAM)
    assert not result.passed and first(result) in ("capacity", "unknown")


def test_the_50_photos_are_spread_over_the_classes() -> None:
    labels = torch.tensor([0] * 900 + [1] * 90 + [2] * 5)
    counts = torch.bincount(labels[choose_photos(labels, 50, seed=3)])
    assert counts[2] == 5 and counts.sum() == 50 and abs(int(counts[0]) - int(counts[1])) <= 1


def test_one_class_is_refused_and_so_are_labels_out_of_range() -> None:
    with pytest.raises(DataError, match="at least 2 classes; received 1"):
        check_net(cnn(), IMAGES, 0 * LABELS, ADAM)
    with pytest.raises(DataError, match="out of range"):
        check_net(cnn(), IMAGES, LABELS, ADAM, classes=5)


def test_neighbours_are_those_of_a_slow_search() -> None:
    photos, labels = IMAGES[:60], LABELS[:60]
    thumbs = [photo.flatten().double() - photo.double().mean() for photo in photos]
    thumbs = [thumb / thumb.norm() for thumb in thumbs]
    right = 0
    for i in range(60):
        nearest = min((j for j in range(60) if j != i), key=lambda j: float((thumbs[i] - thumbs[j]).norm()))
        right += bool(labels[i] == labels[nearest])
    share, chance, deviation = neighbour_agreement(photos, labels)
    assert share.right == right and 0.05 < chance < 0.15 and 0 < deviation < 0.1


def test_shuffled_labels_are_within_what_chance_does() -> None:
    for seed in range(20):
        order = torch.randperm(len(LABELS), generator=torch.Generator().manual_seed(seed))
        share, chance, deviation = neighbour_agreement(IMAGES, LABELS[order])
        assert abs(share.value - chance) < 4 * deviation


def test_a_probe_measures_the_gradients_that_autograd_gives() -> None:
    net = cnn().eval()
    logits = net(IMAGES[:20])
    nn.functional.cross_entropy(logits, LABELS[:20]).backward()
    expected = {
        str(place): float(torch.cat([value.grad.flatten() for value in net[place].parameters()]).square().mean().sqrt())
        for place in (0, 5, 8)
    }
    measured = probe(net, IMAGES[:20], LABELS[:20], nn.functional.cross_entropy)
    assert {layer.name: layer.gradient for layer in measured.layers} == pytest.approx(expected, rel=1e-5)
    assert torch.equal(measured.logits, logits.detach())


def test_a_map_is_dead_only_where_it_is_silent_everywhere() -> None:
    outputs = torch.zeros(3, 4, 5, 5)
    outputs[2, 1, 4, 4] = 0.1
    assert dead_share(nn.ReLU(), outputs) == 0.75


def test_usual_losses_ignore_nothing() -> None:
    assert ignored_by(nn.functional.cross_entropy, 10) is None


def test_an_optimiser_of_the_package_holds_every_weight() -> None:
    assert check_net(lambda: cnn(), IMAGES, LABELS, ADAM, make=make_optimiser).findings == ()


def test_dead_units_are_counted_in_evaluation_mode_and_the_net_is_left_as_it_was() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.Dropout(0.9), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        net[1].weight.fill_(1.0)
        net[1].bias.copy_(torch.tensor([1.0, -100.0, 1.0]))  # the second unit is silent for pixels of 0..1
    net.train()
    net[2].eval()
    modes = [module.training for module in net.modules()]
    assert dead_shares(net, torch.rand(5, 1, 2, 2)) == {"3": pytest.approx(1 / 3)}
    assert [module.training for module in net.modules()] == modes
