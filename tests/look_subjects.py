"""Small nets to look into, and a fingerprint of everything that looking must not change."""

import hashlib
from collections.abc import Callable

import numpy as np
import torch
from torch import nn

from headstart.explain.subject import Photo, Subject
from headstart.images import decode
from headstart.preprocess import Preprocessing

MEAN, STD = 120.0, 60.0


class Chain(nn.Sequential):
    """A net whose layers have names."""

    def __init__(self, **layers: nn.Module) -> None:
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)


def subject_of_net(net: nn.Module, size: int, channels: int = 3, classes: int = 3) -> Subject:
    how = Preprocessing(size, 1.0, (MEAN,) * channels, (STD,) * channels)
    return Subject("a small net", how, tuple(f"class {n}" for n in range(classes)), lambda: net, "0" * 64)


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return make()


def small_cnn(size: int = 32, channels: int = 3, classes: int = 3, seed: int = 0) -> Subject:
    """Convolution, batch norm, ReLU6, max pooling, convolution, ReLU, the mean, a linear layer."""

    def make() -> nn.Module:
        net = Chain(
            conv1=nn.Conv2d(channels, 8, 3, padding=1),
            norm1=nn.BatchNorm2d(8),
            act1=nn.ReLU6(),
            pool=nn.MaxPool2d(2),
            conv2=nn.Conv2d(8, 12, 3, padding=1),
            act2=nn.ReLU(),
            gap=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            dense=nn.Linear(12, classes),
        )
        with torch.no_grad():
            net.norm1.running_mean.normal_()
            net.norm1.running_var.uniform_(0.5, 2)
            for parameter in net.parameters():
                parameter.mul_(2)
        return net

    return subject_of_net(seeded(make, seed), size, channels, classes)


def linear_net(weight: np.ndarray, bias: np.ndarray) -> Subject:
    """Logits that are linear in the pixels: weight (classes, channels, size, size), of normalised pixels."""
    classes, channels, size, _ = weight.shape
    net = Chain(flat=nn.Flatten(), dense=nn.Linear(weight[0].size, classes))
    with torch.no_grad():
        net.dense.weight.copy_(torch.from_numpy(weight.reshape(classes, -1)))
        net.dense.bias.copy_(torch.from_numpy(bias))
    return subject_of_net(net, size, channels, classes)


def photo_of(subject: Subject, seed: int = 0, low: int = 90, high: int = 160) -> Photo:
    """A photo of noise, away from black and white, so that small changes are not cut off."""
    size = subject.preprocessing.size
    pixels = np.random.default_rng(seed).integers(low, high, (size, size, 3)).astype(np.uint8)
    picture = decode(pixels, name="noise")
    return Photo("noise.png", picture, subject.preprocessing.apply(picture), (0.0, 0.0, float(size), float(size)))


def traces(subject: Subject) -> str:
    """A hash of all that looking must leave alone: tensors, modes, gradients, hooks, methods, random numbers."""
    found = hashlib.sha256()
    for name, module in subject.net.named_modules():
        hooks = len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)
        found.update(f"{name} {module.training} {hooks} {sorted(vars(module))}".encode())
    for name, tensor in [*subject.net.named_parameters(), *subject.net.named_buffers()]:
        found.update(
            f"{name} {tensor.requires_grad} {tensor.grad is None}".encode() + tensor.detach().numpy().tobytes()
        )
    found.update(torch.random.get_rng_state().numpy().tobytes())
    found.update(np.random.get_state()[1].tobytes())
    return found.hexdigest()
