"""GoogLeNet: Szegedy et al. 2014, "Going deeper with convolutions", arXiv:1409.4842.

Table 1 of the paper. An inception module lays four branches side by side: 1x1; 1x1 then 3x3; 1x1 then 5x5; max pool 3x3
then 1x1. Its output has the channels of all four.

| layer | output | 1x1 | 3x3 reduce | 3x3 | 5x5 reduce | 5x5 | pool proj |
|---|---|---|---|---|---|---|---|
| conv 7x7 / 2 | 112x112x64 | | | | | | |
| max pool 3x3 / 2 | 56x56x64 | | | | | | |
| conv 1x1, conv 3x3 | 56x56x192 | | 64 | 192 | | | |
| max pool 3x3 / 2 | 28x28x192 | | | | | | |
| inception 3a | 28x28x256 | 64 | 96 | 128 | 16 | 32 | 32 |
| inception 3b | 28x28x480 | 128 | 128 | 192 | 32 | 96 | 64 |
| max pool 3x3 / 2 | 14x14x480 | | | | | | |
| inception 4a | 14x14x512 | 192 | 96 | 208 | 16 | 48 | 64 |
| inception 4b | 14x14x512 | 160 | 112 | 224 | 24 | 64 | 64 |
| inception 4c | 14x14x512 | 128 | 128 | 256 | 24 | 64 | 64 |
| inception 4d | 14x14x528 | 112 | 144 | 288 | 32 | 64 | 64 |
| inception 4e | 14x14x832 | 256 | 160 | 320 | 32 | 128 | 128 |
| max pool 3x3 / 2 | 7x7x832 | | | | | | |
| inception 5a | 7x7x832 | 256 | 160 | 320 | 32 | 128 | 128 |
| inception 5b | 7x7x1024 | 384 | 192 | 384 | 48 | 128 | 128 |
| mean of each map | 1024 | | | | | | |
| dropout 0.4, dense | 1000 | | | | | | |

Auxiliary heads on 4a and 4d, while training, their loss counted 0.3 times: mean pool 5x5 / 3, conv 1x1 of 128, dense
1024, dropout 0.7, dense.

| variant | 5x5 branch | batch-norm | response norm | 4th pool | parameters | with auxiliary heads |
|---|---|---|---|---|---|---|
| `googlenet`, as public weight files | 3x3, a slip they all share | yes | no | 2x2 | 6,624,904 | 13,004,888 |
| `googlenet:paper` | 5x5 | no | yes | 3x3 | 6,998,552 | 13,378,280 |
"""

import torch
from torch import Tensor, nn

from headstart.nets.staged import Staged, checked_counts

# name: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool proj
MODULES = {
    "3a": (64, 96, 128, 16, 32, 32),
    "3b": (128, 128, 192, 32, 96, 64),
    "4a": (192, 96, 208, 16, 48, 64),
    "4b": (160, 112, 224, 24, 64, 64),
    "4c": (128, 128, 256, 24, 64, 64),
    "4d": (112, 144, 288, 32, 64, 64),
    "4e": (256, 160, 320, 32, 128, 128),
    "5a": (256, 160, 320, 32, 128, 128),
    "5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY_UNITS = 1024


class GoogLeNet(Staged):
    """Both variants.

    Args:
        paper: as in the paper, else as in public weight files.
        classes, in_channels: >= 1.
        auxiliary: with the heads on 4a and 4d; `stages` gives their logits as "aux1" and "aux2".
    """

    def __init__(self, paper: bool, classes: int = 1000, in_channels: int = 3, auxiliary: bool = False) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        self.conv1 = _conv(paper, in_channels, 64, 7, 2, 3)
        self.conv2, self.conv3 = _conv(paper, 64, 64, 1), _conv(paper, 64, 192, 3, 1, 1)
        for number in range(1, 5):
            self.add_module(f"maxpool{number}", _pool(paper, number))
        if paper:
            self.norm1, self.norm2 = (nn.LocalResponseNorm(5, alpha=1e-4, beta=0.75) for _ in range(2))
        channels, widths = 192, []
        for name, branches in MODULES.items():
            self.add_module(f"inception{name}", Inception(paper, channels, *branches))
            channels = branches[0] + branches[2] + branches[4] + branches[5]
            widths.append(channels)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.dropout, self.fc = nn.Dropout(0.4 if paper else 0.2), nn.Linear(channels, classes)
        if auxiliary:
            self.aux1, self.aux2 = AuxiliaryHead(paper, 512, classes), AuxiliaryHead(paper, 528, classes)
        sides = {"aux1": ("inception4a", "aux1"), "aux2": ("inception4d", "aux2")} if auxiliary else {}
        pools = {"3b": "maxpool3", "4e": "maxpool4"}  # the pool behind a module stands before the next one
        chain = {
            "conv1": ("conv1",),
            "conv3": (*(("maxpool1", "norm1") if paper else ("maxpool1",)), "conv2", "conv3"),
            "pool2": ("norm2", "maxpool2") if paper else ("maxpool2",),
        }
        before: tuple[str, ...] = ()
        for name in MODULES:
            chain[f"inception{name}"] = (*before, f"inception{name}")
            before = (pools[name],) if name in pools else ()
        chain |= {"pooled": ("avgpool", "flatten"), "logits": ("dropout", "fc")}
        self.chain_up(chain, (64, 192, 192, *widths, channels), (224, 224, in_channels), sides)


class Inception(nn.Module):
    """Four branches side by side.

    Args:
        paper: 5x5 in the third branch and no batch-norm, else 3x3 and batch-norm.
        channels: of the input.
        one, reduce3, three, reduce5, five, pool: the numbers of table 1.
    """

    def __init__(
        self, paper: bool, channels: int, one: int, reduce3: int, three: int, reduce5: int, five: int, pool: int
    ) -> None:
        super().__init__()
        large, padding = (5, 2) if paper else (3, 1)
        self.branch1 = _conv(paper, channels, one, 1)
        self.branch2 = nn.Sequential(_conv(paper, channels, reduce3, 1), _conv(paper, reduce3, three, 3, 1, 1))
        self.branch3 = nn.Sequential(_conv(paper, channels, reduce5, 1), _conv(paper, reduce5, five, large, 1, padding))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), _conv(paper, channels, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> the same height and width."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on a map in the middle, so that the layers below get a gradient of their own.

    Args:
        paper: mean pool 5x5 / 3, else to 4x4 whatever the size.
        channels: of the map.
        classes: number of outputs.
    """

    def __init__(self, paper: bool, channels: int, classes: int) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3) if paper else nn.AdaptiveAvgPool2d(4)
        self.conv, self.flatten = _conv(paper, channels, 128, 1), nn.Flatten()
        self.fc1, self.relu = nn.Linear(128 * 4 * 4, AUXILIARY_UNITS), nn.ReLU()
        self.dropout, self.fc2 = nn.Dropout(0.7), nn.Linear(AUXILIARY_UNITS, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, 14, 14) -> logits (batch, classes)."""
        x = self.relu(self.fc1(self.flatten(self.conv(self.pool(x)))))
        logits: Tensor = self.fc2(self.dropout(x))
        return logits


def _conv(paper: bool, channels: int, filters: int, window: int, stride: int = 1, padding: int = 0) -> nn.Sequential:
    """Convolution and ReLU; with batch-norm instead of a bias where it is not the paper's."""
    layers = nn.Sequential()
    layers.add_module("conv", nn.Conv2d(channels, filters, window, stride, padding, bias=paper))
    if not paper:
        layers.add_module("bn", nn.BatchNorm2d(filters, eps=1e-3))
    layers.add_module("relu", nn.ReLU())
    return layers


def _pool(paper: bool, number: int) -> nn.MaxPool2d:
    """Halves the map: the paper's sizes need padding; public files round up, and their fourth pool is 2x2."""
    if paper:
        return nn.MaxPool2d(3, 2, padding=1)
    return nn.MaxPool2d(2 if number == 4 else 3, 2, ceil_mode=True)


def googlenet(classes: int = 1000, in_channels: int = 3, auxiliary: bool = False) -> GoogLeNet:
    """As in public weight files: 6,624,904 parameters with 1,000 classes, 13,004,888 with auxiliary heads."""
    return GoogLeNet(False, classes, in_channels, auxiliary)


def googlenet_paper(classes: int = 1000, in_channels: int = 3, auxiliary: bool = True) -> GoogLeNet:
    """As in the paper: 13,378,280 parameters with 1,000 classes, 6,998,552 without its auxiliary heads."""
    return GoogLeNet(True, classes, in_channels, auxiliary)
