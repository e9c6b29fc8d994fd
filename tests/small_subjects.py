"""Small nets of every shape to look into, and everything about a net that looking must not change."""

import copy
import hashlib
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from headstart.explain.explanation import Asked
from headstart.explain.subject import Photo, Subject
from headstart.layers.initialise import initialise
from headstart.nets.efficientnet_lite import EfficientNetLite
from headstart.nets.googlenet import Inception
from headstart.nets.nin import NiN
from headstart.nets.resnet import Basic
from headstart.preprocess import Preprocessing


def alexnet_shape() -> nn.Module:
    """Overlapping 3x3 / 2 pooling, dense layers above."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 12, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(12, 12, 3, padding=1, groups=2), nn.ReLU(),
        nn.Conv2d(12, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(), nn.Linear(32, 16), nn.ReLU(), nn.Linear(16, 5),
    )  # fmt: skip


def vgg_shape() -> nn.Module:
    """2x2 / 2 pooling and batch norm."""
    layers: list[nn.Module] = []
    for channels, filters in ((3, 6), (6, 8), (8, 8)):
        layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU()]
        layers += [nn.Conv2d(filters, filters, 3, padding=1), nn.BatchNorm2d(filters), nn.ReLU(), nn.MaxPool2d(2)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 9 * 9, 20), nn.ReLU(), nn.Linear(20, 5))


def googlenet_shape() -> nn.Module:
    """Branches side by side, one of them with a max pool, and the mean of maps at the end."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
        Inception(False, 8, 4, 4, 6, 2, 4, 4), nn.MaxPool2d(3, 2, ceil_mode=True),
        Inception(True, 18, 4, 4, 6, 2, 4, 4),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(18, 5),
    )  # fmt: skip


def nin_shape() -> nn.Module:
    """1x1 convolutions, a max pool and an average pool that round up, and one map a class."""
    blocks = ((5, 1, 2, (8, 8, 6)), (5, 1, 2, (8, 8, 8)), (3, 1, 1, (8, 8, 5)))
    pools = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout()), nn.AvgPool2d(3, 2, ceil_mode=True)
    return NiN(blocks, pools, (72, 72, 3))


def lenet_shape() -> nn.Module:
    """LeNet with ReLU and max pooling, for grey photos."""
    return nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 5), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(8 * 15 * 15, 12), nn.ReLU(), nn.Linear(12, 10),
    )  # fmt: skip


def resnet_shape() -> nn.Module:
    """Sums, a strided short cut, one padded max pool."""

    def conv(channels: int, filters: int, window: int, stride: int = 1) -> nn.Conv2d:
        return nn.Conv2d(channels, filters, window, stride, window // 2, bias=False)

    return nn.Sequential(
        conv(3, 8, 7, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(3, 2, 1),
        Basic(8, 8, 1, conv, nn.BatchNorm2d, False), Basic(8, 12, 2, conv, nn.BatchNorm2d, False),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 5),
    )  # fmt: skip


def lite_shape() -> nn.Module:
    """EfficientNet-Lite with few channels: ReLU6, linear bottlenecks, no max pooling."""
    return EfficientNetLite(0.2, 0.5, 72, classes=5)


SHAPES = {
    "alexnet": alexnet_shape, "vgg": vgg_shape, "googlenet": googlenet_shape, "nin": nin_shape, "lenet": lenet_shape,
    "resnet": resnet_shape, "lite": lite_shape,
}  # fmt: skip
POOLED = tuple(name for name in SHAPES if name != "lite")  # those with max pooling


def random_net(shape: str, seed: int = 0, *, clipped: bool | None = None) -> nn.Module:
    """A net as after training: random weights and statistics, in eval mode, float64.

    Args:
        shape: a key of `SHAPES`.
        seed: of the numbers.
        clipped: every rectifier is a ReLU6 (True) or a ReLU (False); None: as the net has them.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        net = SHAPES[shape]()
        if not isinstance(net, EfficientNetLite):
            initialise(net, "he", seed=None)
        for module in net.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.running_mean, 0, 0.2)
                nn.init.uniform_(module.running_var, 0.3, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.3)
            elif isinstance(module, nn.Conv2d | nn.Linear) and module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)
    if clipped is not None:
        for parent in list(net.modules()):
            for name, child in list(parent.named_children()):
                if isinstance(child, nn.ReLU | nn.ReLU6):
                    setattr(parent, name, nn.ReLU6() if clipped else nn.ReLU())
    return net.double().eval()


def subject_for(net: nn.Module, side: int = 72, channels: int = 3, classes: int = 5, middle: float = 127.0) -> Subject:
    """A net with a preprocessing that only normalises."""
    levels = (middle,) * channels
    names = tuple(f"class {number}" for number in range(classes))
    return Subject("net", Preprocessing(side, 1.0, levels, (60.0,) * channels), names, lambda: net, "0" * 64)


def subject_of_shape(shape: str, seed: int = 0, *, clipped: bool | None = None) -> Subject:
    """A subject with a random net of a shape."""
    grey = shape == "lenet"
    net = random_net(shape, seed, clipped=clipped)
    return subject_for(net, channels=1 if grey else 3, classes=10 if grey else 5)


def noise_photo(subject: Subject, seed: int = 0) -> Photo:
    """A photo of blocks and noise, at the size of the net."""
    random = np.random.default_rng(seed)
    side = subject.preprocessing.size
    coarse = random.integers(0, 200, (-(-side // 12), -(-side // 12), 3)).repeat(12, 0).repeat(12, 1)[:side, :side]
    return subject.photo((coarse + random.integers(0, 56, coarse.shape)).astype(np.uint8))


def asked(subject: Subject, target: int = 1, seed: int = 0, layer: str | None = None, **settings: object) -> Asked:
    """A question about a photo of noise."""
    return Asked(subject, noise_photo(subject, seed), target, layer, settings=settings)


def saturated(net: nn.Module, x: torch.Tensor) -> int:
    """How many units of its ReLU6 layers are at 6 or above."""
    counts = []
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_hook(lambda _module, inputs, _output: counts.append(int((inputs[0] >= 6).sum())))
    net(x)
    return sum(counts)


def everything(net: nn.Module) -> str:
    """A hash of all that looking into a net must leave as it is."""
    digest = hashlib.sha256()
    for part in _parts(net):
        digest.update(part if isinstance(part, bytes) else repr(part).encode())
    return digest.hexdigest()


def _parts(net: nn.Module) -> Iterator[object]:
    yield torch.get_rng_state().numpy().tobytes()
    yield np.random.get_state()[1].tobytes()
    yield torch.is_grad_enabled()
    for name, value in (*net.named_parameters(), *net.named_buffers()):
        yield name, value.requires_grad, value.grad is None, value._version
        yield value.detach().numpy().tobytes()
    for name, module in net.named_modules():
        yield name, type(module).__name__, module.training, sorted(vars(module))
        yield len(module._forward_hooks), len(module._forward_pre_hooks), len(module._backward_hooks)
