"""The gradient of every net on a batch of two photos equals central finite differences in float64.

Everything is as in training: batch norms take the statistics of the batch, and dropout draws, the same at every look.
"""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from headstart.config import LoopConfig
from headstart.nets import NETS, build_net
from headstart.training.losses import make_loss

CLASSES = 5
STEPS = (1e-8, 1e-9)  # of one parameter, or of a tensor: long ones pass kinks of ReLU and pooling, short ones drown
SAMPLED = 4  # parameters of a net that are looked at one by one
SIDES = {
    "mlp": 28, "mlp:cifar": 32, "small-cnn": 32, "cifar-cnn": 32, "lenet": 32, "lenet:paper": 32, "nin:cifar": 32,
    "nin": 96, "alexnet": 224, "alexnet:paper": 227, "vgg11": 224, "vgg13": 224, "vgg16": 224, "vgg19": 224,
    "inception-v3": 107, "inception-v3:keras": 107,
}  # fmt: skip
GRAY = ("mlp", "lenet", "lenet:paper")
LARGE = (
    "alexnet",
    "vgg",
    "resnet34",
    "resnet50",
    "resnet101",
    "resnet152",
    "inception",
    "efficientnet-lite1",
    "efficientnet-lite2",
)
NAMES = [pytest.param(name, marks=pytest.mark.full) if name.startswith(LARGE) else name for name in sorted(NETS)]


class Problem:
    """A net in float64 with two photos, their labels, and the gradient of the loss."""

    def __init__(self, name: str) -> None:
        torch.manual_seed(0)
        side = SIDES.get(name, 64)
        self.net: nn.Module = build_net(name, CLASSES).double().train()
        self.photos = torch.randn(2, 1 if name in GRAY else 3, side, side, dtype=torch.float64)
        self.loss_of = make_loss(LoopConfig(label_smoothing=0.1), CLASSES)
        self.loss().backward()
        named = [(name, one) for name, one in self.net.named_parameters() if one.grad is not None]
        self.parameters = dict(named)

    def loss(self) -> Tensor:
        torch.manual_seed(1)  # of dropout
        return self.loss_of(self.net(self.photos), torch.tensor([1, 3]))

    def slopes_along(self, moves: dict[str, Tensor], expected: float, tolerance: float) -> bool:
        """Does the loss change as expected when the parameters go both ways along `moves`, by one of the steps?"""
        slopes = ((self._loss_at(moves, step) - self._loss_at(moves, -step)) / (2 * step) for step in STEPS)
        return any(abs(slope - expected) <= 1e-3 * abs(expected) + tolerance for slope in slopes)

    @torch.no_grad()
    def _loss_at(self, moves: dict[str, Tensor], step: float) -> float:
        kept = {name: self.parameters[name].clone() for name in moves}
        for name, move in moves.items():
            self.parameters[name].add_(move, alpha=step)
        loss = self.loss().item()
        for name, value in kept.items():
            self.parameters[name].copy_(value)
        return loss

    def gradient(self, name: str) -> Tensor:
        gradient = self.parameters[name].grad
        assert gradient is not None
        return gradient


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_of_a_net_equals_finite_differences(name: str) -> None:
    with torch.random.fork_rng():
        problem = Problem(name)
        random = np.random.default_rng(2)
        directions = {}
        for key, value in problem.parameters.items():  # all parameters at once, each tensor by the same share
            drawn = torch.tensor(random.normal(size=1)).item() * torch.randn_like(value)
            directions[key] = drawn / drawn.norm()
        expected = sum((problem.gradient(key) * move).sum().item() for key, move in directions.items())
        assert abs(expected) > 1e-3  # the test can fail
        assert problem.slopes_along(directions, expected, 0.0)
        steepest = max(1.0, *(problem.gradient(key).abs().max().item() for key in problem.parameters))
        for key in random.choice(sorted(problem.parameters), min(SAMPLED, len(problem.parameters)), replace=False):
            gradient = problem.gradient(key)
            place = int(gradient.abs().argmax()) if random.random() < 0.5 else int(random.integers(gradient.numel()))
            move = torch.zeros_like(gradient)
            move.view(-1)[place] = 1.0
            largest = gradient.abs().max().item()
            expected = gradient.reshape(-1)[place].item()
            assert problem.slopes_along({key: move}, expected, 1e-4 * largest + 1e-6 * steepest), key
        assert all(torch.isfinite(problem.gradient(key)).all() for key in problem.parameters)
