"""Optimisers step by step against Keras's with the same gradients, and what goes before each against slow loops."""

import inspect
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.config import LoopConfig
from headstart.errors import ConfigError
from headstart.training.optimisers import ADAMW_DECAY, OPTIMISERS, USUAL_RATES, make_optimiser, usual_rate
from keras_oracle import keras

STEPS = 12
AS_KERAS = sorted(set(OPTIMISERS) - {"nadam"})  # Keras's Nadam lets its momentum grow 250 times as fast as the paper's
KERAS_NAMES = {name: name.capitalize() for name in OPTIMISERS} | {"sgd": "SGD", "rmsprop": "RMSprop", "adamw": "AdamW"}


class Two(nn.Module):
    """A weight and a bias."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = nn.Parameter(torch.tensor(rng.normal(size=(3, 4)), dtype=torch.float32))
        self.bias = nn.Parameter(torch.tensor(rng.normal(size=3), dtype=torch.float32))


def gradients(step: int) -> list[np.ndarray]:
    """Of the weight and the bias, different at each step; none so small that it matters where epsilon is added."""
    rng = np.random.default_rng([7, step])
    drawn = [rng.normal(size=shape) for shape in ((3, 4), (3,))]
    return [(gradient + 0.5 * np.sign(gradient)).astype(np.float32) for gradient in drawn]


def take_steps(net: Two, optimiser: torch.optim.Optimizer, steps: int = STEPS) -> list[list[np.ndarray]]:
    """The parameters after each step."""
    trail = []
    for step in range(steps):
        for parameter, gradient in zip(net.parameters(), gradients(step), strict=True):
            parameter.grad = torch.tensor(gradient)
        optimiser.step()
        trail.append([parameter.detach().numpy().copy() for parameter in net.parameters()])
    return trail


def keras_trail(name: str, **settings: Any) -> list[list[np.ndarray]]:
    """The same with Keras's optimiser."""
    library = keras()
    variables = [library.Variable(parameter.detach().numpy().copy()) for parameter in Two().parameters()]
    optimiser = getattr(library.optimizers, KERAS_NAMES[name])(**settings)
    optimiser.build(variables)
    if settings.get("weight_decay"):
        optimiser.exclude_from_weight_decay(var_list=variables[1:])
    trail = []
    for step in range(STEPS):
        optimiser.apply([library.ops.convert_to_tensor(gradient) for gradient in gradients(step)])
        trail.append([variable.value.detach().cpu().numpy().copy() for variable in variables])
    return trail


def assert_same(ours: list[list[np.ndarray]], theirs: list[list[np.ndarray]]) -> None:
    for step, (one, other) in enumerate(zip(ours, theirs, strict=True)):
        for mine, expected in zip(one, other, strict=True):
            np.testing.assert_allclose(mine, expected, rtol=2e-5, atol=5e-6, err_msg=f"step {step}")
    start = [parameter.detach().numpy() for parameter in Two().parameters()]
    assert not np.allclose(ours[-1][0], start[0], atol=1e-4)  # they have moved at all


@pytest.mark.parametrize("name", AS_KERAS)
def test_every_optimiser_takes_the_steps_of_keras(name: str) -> None:
    settings: dict[str, Any] = {"learning_rate": USUAL_RATES[name]}
    if name == "sgd":
        settings["momentum"] = 0.9
    if name == "adamw":
        settings["weight_decay"] = ADAMW_DECAY
    net = Two()
    assert_same(take_steps(net, make_optimiser(net, LoopConfig(optimiser=name))), keras_trail(name, **settings))


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_nadam_takes_the_steps_of_its_paper(decay: float) -> None:
    """Dozat 2016, algorithm 2, with the schedule of momentum that it recommends, in float64."""
    net = Two()
    ours = take_steps(net, make_optimiser(net, LoopConfig(optimiser="nadam", learning_rate=0.05, weight_decay=decay)))
    values = [parameter.detach().numpy().astype(np.float64) for parameter in Two().parameters()]
    means, squares = [np.zeros((3, 4)), np.zeros(3)], [np.zeros((3, 4)), np.zeros(3)]
    product, trail = 1.0, []
    for step in range(STEPS):
        now, following = (0.9 * (1 - 0.5 * 0.96 ** (number / 250)) for number in (step + 1, step + 2))
        product *= now
        for i, gradient in enumerate(gradients(step)):
            if i == 0:
                values[i] = values[i] * (1 - 0.05 * decay)
            means[i] = 0.9 * means[i] + 0.1 * gradient
            squares[i] = 0.999 * squares[i] + 0.001 * gradient.astype(np.float64) ** 2
            mean = following * means[i] / (1 - product * following) + (1 - now) * gradient / (1 - product)
            values[i] = values[i] - 0.05 * mean / (np.sqrt(squares[i] / (1 - 0.999 ** (step + 1))) + 1e-7)
        trail.append([value.copy() for value in values])
    assert_same(ours, trail)


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_sgd_takes_the_steps_of_keras_with_any_momentum(momentum: float, nesterov: bool) -> None:
    net = Two()
    config = LoopConfig(optimiser="sgd", learning_rate=0.1, momentum=momentum, nesterov=nesterov)
    expected = keras_trail("sgd", learning_rate=0.1, momentum=momentum, nesterov=nesterov)
    assert_same(take_steps(net, make_optimiser(net, config)), expected)


@pytest.mark.parametrize("name", AS_KERAS)
def test_weight_decay_shrinks_weights_and_not_biases_as_keras_does(name: str) -> None:
    net = Two()
    config = LoopConfig(optimiser=name, learning_rate=0.05, momentum=0.0, weight_decay=0.2)
    expected = keras_trail(name, learning_rate=0.05, weight_decay=0.2)
    assert_same(take_steps(net, make_optimiser(net, config)), expected)


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_the_usual_rates_are_those_of_keras_but_for_two_that_are_named(name: str) -> None:
    signature = inspect.signature(getattr(keras().optimizers, KERAS_NAMES[name]).__init__)
    usual = signature.parameters["learning_rate"].default
    assert USUAL_RATES[name] == {"adagrad": 0.01, "adadelta": 1.0}.get(name, usual)
    if name == "adamw":
        assert signature.parameters["weight_decay"].default == ADAMW_DECAY


def test_adamw_equals_torchs_own() -> None:
    net, other = Two(), Two()
    ours = take_steps(net, make_optimiser(net, LoopConfig(optimiser="adamw", weight_decay=0.1)))
    groups = [{"params": [other.weight], "weight_decay": 0.1}, {"params": [other.bias], "weight_decay": 0.0}]
    theirs = take_steps(other, torch.optim.AdamW(groups, 0.001, eps=1e-7))
    assert_same(ours, theirs)


def test_l1_and_l2_add_the_gradient_of_their_terms() -> None:
    net = Two()
    config = LoopConfig(optimiser="sgd", learning_rate=0.1, momentum=0.0, l1=0.3, l2=0.2)
    ours = take_steps(net, make_optimiser(net, config), steps=1)
    weight, bias = (parameter.detach().double().requires_grad_() for parameter in Two().parameters())
    slopes = [torch.tensor(gradient) for gradient in gradients(0)]
    loss = (weight * slopes[0]).sum() + (bias * slopes[1]).sum()
    (loss + 0.3 * weight.abs().sum() + 0.2 * weight.square().sum()).backward()
    assert weight.grad is not None and bias.grad is not None
    np.testing.assert_allclose(ours[0][0], (weight - 0.1 * weight.grad).detach().numpy(), rtol=1e-5)
    np.testing.assert_allclose(ours[0][1], (bias - 0.1 * bias.grad).detach().numpy(), rtol=1e-5)


@pytest.mark.parametrize("limit", [0.5, 100.0])
def test_a_gradient_longer_than_the_limit_is_scaled_down_to_it_and_watched_before(limit: float) -> None:
    net, seen = Two(), []
    config = LoopConfig(optimiser="sgd", learning_rate=1.0, momentum=0.0, clip_norm=limit)
    optimiser = make_optimiser(net, config, lambda found: seen.append([one.numpy().copy() for one in found]))
    ours = take_steps(net, optimiser, steps=1)
    raw = gradients(0)
    length = math.sqrt(sum(float(value) ** 2 for gradient in raw for value in gradient.reshape(-1)))
    scale = min(1.0, limit / length)
    for mine, before, gradient in zip(ours[0], Two().parameters(), raw, strict=True):
        np.testing.assert_allclose(mine, before.detach().numpy() - scale * gradient, rtol=1e-4, atol=1e-6)
    for one, gradient in zip(seen[0], raw, strict=True):
        np.testing.assert_array_equal(one, gradient)


@pytest.mark.parametrize("name", sorted(OPTIMISERS))
def test_filters_with_channels_innermost_take_the_same_steps(name: str) -> None:
    def trained(layout: torch.memory_format) -> torch.Tensor:
        torch.manual_seed(0)
        conv = nn.Conv2d(3, 4, 3).to(memory_format=layout)
        optimiser = make_optimiser(conv, LoopConfig(optimiser=name, l1=0.1, l2=0.1, clip_norm=1.0, weight_decay=0.1))
        photos = torch.randn(2, 3, 5, 5, generator=torch.Generator().manual_seed(1)).contiguous(memory_format=layout)
        for _ in range(3):
            optimiser.zero_grad()
            conv(photos).square().sum().backward()
            optimiser.step()
        return conv.weight.detach().contiguous()

    torch.testing.assert_close(trained(torch.channels_last), trained(torch.contiguous_format), rtol=1e-4, atol=1e-5)


def test_frozen_parameters_stay_and_unused_ones_do_no_harm() -> None:
    net = Two()
    net.bias.requires_grad_(False)
    bias = net.bias.detach().clone()
    optimiser = make_optimiser(net, LoopConfig(optimiser="sgd", weight_decay=0.1, l1=0.1, l2=0.1, clip_norm=1.0))
    optimiser.step()  # no gradient at all
    net.weight.grad = torch.ones(3, 4)
    optimiser.step()
    assert torch.equal(net.bias, bias)
    net.weight.requires_grad_(False)
    with pytest.raises(ConfigError, match="every one is frozen; unfreeze at least the last layer"):
        make_optimiser(net, LoopConfig())


def test_a_set_rate_is_taken_and_a_wrong_setting_is_named() -> None:
    assert usual_rate(LoopConfig(learning_rate=0.3)) == 0.3
    with pytest.raises(ConfigError, match="unknown optimiser 'lion'; choose one of: adadelta, adagrad, adam,"):
        make_optimiser(Two(), LoopConfig(optimiser="lion"))
    with pytest.raises(ConfigError, match="learning_rate must be above 0"):
        make_optimiser(Two(), LoopConfig(learning_rate=-1.0))
    with pytest.raises(ConfigError, match="clip_norm must be 0 or more; received -1"):
        make_optimiser(Two(), LoopConfig(clip_norm=-1.0))
    with pytest.raises(ConfigError, match="momentum must lie from 0 to below 1; received 1"):
        make_optimiser(Two(), LoopConfig(momentum=1.0))
