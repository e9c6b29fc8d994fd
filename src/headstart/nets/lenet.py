"""LeNet-5: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document recognition", section
II.B.

| layer | window | output | parameters as usual | parameters in the paper |
|---|---|---|---|---|
| input | | 32x32x1 | | |
| C1 convolution | 5x5 | 28x28x6 | 156 | 156 |
| S2 subsampling | 2x2 | 14x14x6 | 0 | 12: a coefficient and a bias a map |
| C3 convolution | 5x5 | 10x10x16 | 2,416: each map sees all six | 1,516: table I says which maps see which |
| S4 subsampling | 2x2 | 5x5x16 | 0 | 32 |
| C5 convolution | 5x5 | 1x1x120 | 48,120 | 48,120 |
| F6 dense | | 84 | 10,164 | 10,164 |
| output | | 10 | 850, dense | 0: distances to fixed codes (RBF) |
| all | | | 61,706 | 60,000 |

"As usual" is what is called LeNet-5 today: subsampling is the plain mean, C3 is complete, the output is dense.
"""

import torch
from torch import Tensor, nn

from headstart.layers.rules import Effect, Shape
from headstart.nets.staged import Staged, checked_counts

SIZE = (32, 32)
# Table I of the paper: the maps of S2 that each map of C3 sees.
SEEN_BY_C3 = (
    (0, 1, 2), (1, 2, 3), (2, 3, 4), (3, 4, 5), (0, 4, 5), (0, 1, 5),
    (0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5), (0, 3, 4, 5), (0, 1, 4, 5), (0, 1, 2, 5),
    (0, 1, 3, 4), (1, 2, 4, 5), (0, 2, 3, 5), (0, 1, 2, 3, 4, 5),
)  # fmt: skip
CODE_SEED = 1998  # of the output codes; another seed would be another net


class LeNet(Staged):
    """LeNet-5 as it is usually built.

    Args:
        classes, in_channels: >= 1.
        padding: zeros around the photo; 2 makes 28x28 digits 32x32.
    """

    def __init__(self, classes: int = 10, in_channels: int = 1, padding: int = 0) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        self.c1, self.tanh1, self.s2 = nn.Conv2d(in_channels, 6, 5, padding=padding), nn.Tanh(), nn.AvgPool2d(2)
        self.c3, self.tanh3, self.s4 = nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2)
        self.c5, self.tanh5, self.flatten = nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Flatten()
        self.f6, self.tanh6 = nn.Linear(120, 84), nn.Tanh()
        self.output = nn.Linear(84, classes)
        chain = {
            "c1": ("c1", "tanh1"),
            "s2": ("s2",),
            "c3": ("c3", "tanh3"),
            "s4": ("s4",),
            "c5": ("c5", "tanh5"),
            "pooled": ("flatten", "f6", "tanh6"),
            "logits": ("output",),
        }
        side = SIZE[0] - 2 * padding
        self.chain_up(chain, (6, 6, 16, 16, 120, 84), (side, side, in_channels), init="glorot")


class PaperLeNet(Staged):
    """LeNet-5 as the paper has it: trained subsampling, C3 of table I, an output of distances.

    Args:
        classes, in_channels: >= 1.
    """

    def __init__(self, classes: int = 10, in_channels: int = 1) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        self.c1, self.squash1 = nn.Conv2d(in_channels, 6, 5), Squash()
        self.s2, self.squash2 = subsampling(6), Squash()
        self.c3, self.squash3 = PartialConv(SEEN_BY_C3, 5), Squash()
        self.s4, self.squash4 = subsampling(16), Squash()
        self.c5, self.squash5, self.flatten = nn.Conv2d(16, 120, 5), Squash(), nn.Flatten()
        self.f6, self.squash6 = nn.Linear(120, 84), Squash()
        self.output = Distances(84, classes)
        chain = {
            "c1": ("c1", "squash1"),
            "s2": ("s2", "squash2"),
            "c3": ("c3", "squash3"),
            "s4": ("s4", "squash4"),
            "c5": ("c5", "squash5"),
            "pooled": ("flatten", "f6", "squash6"),
            "logits": ("output",),
        }
        self.chain_up(chain, (6, 6, 16, 16, 120, 84), (*SIZE, in_channels), init="glorot")


class Squash(nn.Module):
    """The paper's `1.7159 * tanh(2/3 * x)`: it gives +-1 at +-1, where its curvature is largest (appendix A)."""

    def forward(self, x: Tensor) -> Tensor:
        """The same shape, between -1.7159 and 1.7159."""
        return 1.7159 * torch.tanh(x * (2 / 3))

    def layer_effect(self, shape: Shape) -> Effect:
        """Each unit for itself."""
        return Effect(shape)


def subsampling(channels: int) -> nn.Sequential:
    """The mean of 2x2 pixels, times a coefficient, plus a bias: one of each a map.

    A 1x1 convolution of each map for itself is just that. The paper sums instead of averaging; the coefficient takes up
    the factor 4.
    """
    return nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(channels, channels, 1, groups=channels))


class PartialConv(nn.Module):
    """A convolution whose maps each see only some of the input maps.

    Args:
        seen: for each output map, the input maps it sees.
        kernel: side of the window.
    """

    def __init__(self, seen: tuple[tuple[int, ...], ...], kernel: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Conv2d(len(inputs), 1, kernel) for inputs in seen)
        for number, inputs in enumerate(seen):
            self.register_buffer(f"seen{number}", torch.tensor(inputs), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, input maps, height, width) -> (batch, output maps, ...)."""
        chosen = [torch.index_select(x, 1, self.get_buffer(f"seen{number}")) for number in range(len(self.maps))]
        return torch.cat([conv(part) for conv, part in zip(self.maps, chosen, strict=True)], dim=1)


class Distances(nn.Module):
    """Minus half the squared distance to a fixed code of +1 and -1 for each class (the paper's Euclidean RBF units).

    The paper draws the codes as small pictures of the characters and says that random ones would do; these are random.

    Args:
        units: length of a code.
        classes: number of codes.
    """

    def __init__(self, units: int, classes: int) -> None:
        super().__init__()
        random = torch.Generator().manual_seed(CODE_SEED)
        codes = torch.randint(0, 2, (classes, units), generator=random, device="cpu") * 2.0 - 1.0
        self.register_buffer("codes", codes, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, units) -> (batch, classes); the largest is the nearest code."""
        return -0.5 * (x[:, None, :] - self.get_buffer("codes")).square().sum(dim=2)

    def layer_effect(self, _: Shape) -> Effect:
        """One square a number of each code."""
        codes = self.get_buffer("codes")
        return Effect((len(codes),), codes.numel(), "whole")


def lenet(classes: int = 10, in_channels: int = 1, padding: int = 0) -> LeNet:
    """61,706 parameters with 10 classes."""
    return LeNet(classes, in_channels, padding)


def lenet_paper(classes: int = 10, in_channels: int = 1) -> PaperLeNet:
    """60,000 parameters, whatever the number of classes."""
    return PaperLeNet(classes, in_channels)
