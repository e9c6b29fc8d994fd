"""Losses against their definition in NumPy, finite differences, and torch's own."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from headstart.config import LoopConfig
from headstart.errors import ConfigError
from headstart.layers import reference
from headstart.training.losses import LOSSES, make_loss

BATCH, CLASSES = 7, 5
REFERENCES = {
    "cross-entropy": reference.cross_entropy,
    "mse": lambda logits, targets: reference.mean_squared_error(reference.softmax(logits), targets),
}


def sample(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Logits, labels and soft targets."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (BATCH, CLASSES))
    soft = rng.random((BATCH, CLASSES))
    return logits, rng.integers(0, CLASSES, BATCH), soft / soft.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_a_loss_is_what_its_definition_says_for_labels_one_hot_and_mixed_targets(name: str) -> None:
    logits, labels, soft = sample()
    loss = make_loss(LoopConfig(loss=name), CLASSES)
    one_hot = reference.one_hot(labels, CLASSES)
    expected = REFERENCES[name](logits, one_hot)
    assert loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)
    assert loss(torch.tensor(logits), torch.tensor(one_hot)).item() == pytest.approx(expected, rel=1e-12)
    mixed = loss(torch.tensor(logits), torch.tensor(soft)).item()
    assert mixed == pytest.approx(REFERENCES[name](logits, soft), rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
def test_smoothing_spreads_its_share_of_each_label_over_all_classes(name: str) -> None:
    logits, labels, _ = sample(1)
    loss = make_loss(LoopConfig(loss=name, label_smoothing=0.1), CLASSES)
    smooth = 0.9 * reference.one_hot(labels, CLASSES) + 0.1 / CLASSES
    expected = REFERENCES[name](logits, smooth)
    assert loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)
    one_hot = torch.tensor(reference.one_hot(labels, CLASSES))
    assert loss(torch.tensor(logits), one_hot).item() == pytest.approx(expected, rel=1e-12)


def test_class_weights_multiply_the_terms_of_their_class_and_the_mean_is_over_photos() -> None:
    logits, labels, _ = sample(2)
    weights = np.array([0.5, 2.0, 1.0, 0.0, 3.0])
    loss = make_loss(LoopConfig(), CLASSES, torch.tensor(weights))
    log_probabilities = np.log(reference.softmax(logits))
    expected = -sum(weights[label] * log_probabilities[n, label] for n, label in enumerate(labels)) / BATCH
    assert loss(torch.tensor(logits), torch.tensor(labels)).item() == pytest.approx(expected, rel=1e-12)


def test_losses_of_parts_add_up_to_the_loss_of_the_whole_with_class_weights_too() -> None:
    logits, labels, _ = (torch.tensor(part) for part in sample(3))
    loss = make_loss(LoopConfig(label_smoothing=0.2), CLASSES, torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0]))
    parts = loss(logits[:3], labels[:3]) * 3 + loss(logits[3:], labels[3:]) * (BATCH - 3)
    assert parts.item() == pytest.approx(loss(logits, labels).item() * BATCH, rel=1e-12)


def test_smoothed_weighted_cross_entropy_equals_torchs_sum() -> None:
    logits, labels, soft = (torch.tensor(part) for part in sample(4))
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64)
    loss = make_loss(LoopConfig(label_smoothing=0.2), CLASSES, weights)
    for targets in (labels, soft):
        expected = functional.cross_entropy(logits, targets, weights, reduction="sum", label_smoothing=0.2) / BATCH
        assert loss(logits, targets).item() == pytest.approx(expected.item(), rel=1e-12)


@pytest.mark.parametrize("name", sorted(LOSSES))
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_of_a_loss_equals_finite_differences(name: str, smoothing: float, weighted: bool) -> None:
    logits, labels, soft = (torch.tensor(part) for part in sample(5))
    weights = torch.tensor([0.5, 2.0, 1.0, 0.1, 3.0], dtype=torch.float64) if weighted else None
    loss = make_loss(LoopConfig(loss=name, label_smoothing=smoothing), CLASSES, weights)
    for targets in (labels, soft):
        variable = logits.clone().requires_grad_()
        loss(variable, targets).backward()
        step = 1e-5
        for n, c in np.ndindex(BATCH, CLASSES):
            shift = torch.zeros_like(logits)
            shift[n, c] = step
            slope = (loss(logits + shift, targets) - loss(logits - shift, targets)) / (2 * step)
            assert variable.grad is not None
            assert variable.grad[n, c].item() == pytest.approx(slope.item(), rel=1e-5, abs=1e-8)


def test_float32_logits_take_labels_and_mixed_targets() -> None:
    logits, labels, soft = sample()
    for name in LOSSES:
        loss = make_loss(LoopConfig(loss=name, label_smoothing=0.1), CLASSES)
        for targets in (torch.tensor(labels), torch.tensor(soft, dtype=torch.float32)):
            assert loss(torch.tensor(logits, dtype=torch.float32), targets).dtype == torch.float32


def test_logits_of_a_thousand_give_a_finite_loss() -> None:
    logits = torch.tensor([[1000.0, -1000.0]])
    assert make_loss(LoopConfig(), 2)(logits, torch.tensor([1])).item() == 2000.0
    assert make_loss(LoopConfig(loss="mse"), 2)(logits, torch.tensor([1])).item() == 1.0


def test_a_wrong_setting_is_named_with_what_would_be_right() -> None:
    with pytest.raises(ConfigError, match="unknown loss 'hinge'; choose one of: cross-entropy, mse"):
        make_loss(LoopConfig(loss="hinge"), 2)
    with pytest.raises(ConfigError, match="label_smoothing must lie from 0 to below 1; received 1"):
        make_loss(LoopConfig(label_smoothing=1.0), 2)
    with pytest.raises(ConfigError, match="3 class weights for 2 classes"):
        make_loss(LoopConfig(), 2, torch.ones(3))
