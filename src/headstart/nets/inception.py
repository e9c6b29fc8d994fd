"""Inception-v3: Szegedy et al. 2015, "Rethinking the inception architecture for computer vision", arXiv:1512.00567.

Table 1 of the paper, in the form that public weight files have. Large windows are split into small ones (5x5 into two
3x3), and in the middle into a row and a column (7x7 into 1x7 and 7x1). Every convolution has batch-norm and ReLU, and
no bias.

| layer | window / stride | output |
|---|---|---|
| Conv2d_1a_3x3 | 3x3 / 2 | 149x149x32 |
| Conv2d_2a_3x3 | 3x3 / 1 | 147x147x32 |
| Conv2d_2b_3x3 | 3x3 / 1, padded | 147x147x64 |
| max pool | 3x3 / 2 | 73x73x64 |
| Conv2d_3b_1x1 | 1x1 / 1 | 73x73x80 |
| Conv2d_4a_3x3 | 3x3 / 1 | 71x71x192 |
| max pool | 3x3 / 2 | 35x35x192 |
| Mixed_5b, 5c, 5d | figure 5 (5x5 and double 3x3 branches) | 35x35x256, 288, 288 |
| Mixed_6a | figure 10, halves the map | 17x17x768 |
| Mixed_6b .. 6e | figure 6 (1x7 and 7x1 branches of 128, 160, 160, 192) | 17x17x768 |
| Mixed_7a | halves the map | 8x8x1280 |
| Mixed_7b, 7c | figure 7 (branches that fork into 1x3 and 3x1) | 8x8x2048 |
| mean of each map | | 2048 |
| dropout 0.5, dense | | 1000 |

Auxiliary head on Mixed_6e, while training. Parameters: 23,834,568, with the auxiliary head 27,161,264. Keras's form has
no scale in its batch-norms: 23,817,352.
"""

import torch
from torch import Tensor, nn

from headstart.layers.rules import Effect, Shape
from headstart.nets.staged import Staged, checked_counts

Window = int | tuple[int, int]


class InceptionV3(Staged):
    """Inception-v3, with the names of public weight files.

    Args:
        classes, in_channels: >= 1.
        auxiliary: with the head on Mixed_6e; `stages` gives its logits as "aux".
        scale: batch-norms have a trained scale; Keras's have none.
    """

    def __init__(self, classes: int = 1000, in_channels: int = 3, auxiliary: bool = False, scale: bool = True) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        self.Conv2d_1a_3x3 = ConvNorm(in_channels, 32, 3, 2, scale=scale)
        self.Conv2d_2a_3x3 = ConvNorm(32, 32, 3, scale=scale)
        self.Conv2d_2b_3x3 = ConvNorm(32, 64, 3, padding=1, scale=scale)
        self.maxpool1 = nn.MaxPool2d(3, 2)
        self.Conv2d_3b_1x1 = ConvNorm(64, 80, 1, scale=scale)
        self.Conv2d_4a_3x3 = ConvNorm(80, 192, 3, scale=scale)
        self.maxpool2 = nn.MaxPool2d(3, 2)
        mixed = {
            "5b": FiveByFive(192, 32, scale), "5c": FiveByFive(256, 64, scale), "5d": FiveByFive(288, 64, scale),
            "6a": FirstHalving(288, scale),
            "6b": SevenBySeven(768, 128, scale), "6c": SevenBySeven(768, 160, scale),
            "6d": SevenBySeven(768, 160, scale), "6e": SevenBySeven(768, 192, scale),
            "7a": SecondHalving(768, scale), "7b": Forking(1280, scale), "7c": Forking(2048, scale),
        }  # fmt: skip
        for name, module in mixed.items():
            self.add_module(f"Mixed_{name}", module)
        if auxiliary:
            self.AuxLogits = AuxiliaryHead(768, classes, scale)
        self.avgpool, self.flatten = nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.dropout, self.fc = nn.Dropout(0.5), nn.Linear(2048, classes)
        chain = {
            "conv2": ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3"),
            "conv4": ("maxpool1", "Conv2d_3b_1x1", "Conv2d_4a_3x3"),
            "pool2": ("maxpool2",),
            **{f"mixed{name}": (f"Mixed_{name}",) for name in mixed},
            "pooled": ("avgpool", "flatten"),
            "logits": ("dropout", "fc"),
        }
        widths = (64, 192, 192, 256, 288, 288, *[768] * 5, 1280, 2048, 2048, 2048)
        sides = {"aux": ("mixed6e", "AuxLogits")} if auxiliary else {}
        self.chain_up(chain, widths, (299, 299, in_channels), sides)


class ConvNorm(nn.Module):
    """Convolution, batch-norm and ReLU.

    Args:
        channels, filters: of input and output.
        window, stride, padding: of the convolution.
        scale: the batch-norm has a trained scale.
    """

    def __init__(
        self, channels: int, filters: int, window: Window, stride: int = 1, padding: Window = 0, scale: bool = True
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, filters, window, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(filters, eps=1e-3) if scale else ShiftNorm(filters, eps=1e-3)
        self.relu = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, filters, ...)."""
        out: Tensor = self.relu(self.bn(self.conv(x)))
        return out


class ShiftNorm(nn.BatchNorm2d):
    """Batch-norm with a trained shift and no scale: in front of ReLU and a convolution the scale changes nothing."""

    def __init__(self, channels: int, eps: float) -> None:
        super().__init__(channels, eps=eps)
        self.register_parameter("weight", None)

    def reset_parameters(self) -> None:
        """As a batch-norm's, without the scale."""
        self.reset_running_stats()
        nn.init.zeros_(self.bias)

    def layer_effect(self, shape: Shape) -> Effect:
        """Each unit for itself."""
        return Effect(shape)


def _row(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and padding of a 1 x size convolution that keeps the map's size."""
    return (1, size), (0, size // 2)


def _column(size: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Window and padding of a size x 1 convolution that keeps the map's size."""
    return (size, 1), (size // 2, 0)


class FiveByFive(nn.Module):
    """Figure 5: 1x1; 5x5; double 3x3; mean pool."""

    def __init__(self, channels: int, pool: int, scale: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 64, 1, scale=scale)
        self.branch5x5_1 = ConvNorm(channels, 48, 1, scale=scale)
        self.branch5x5_2 = ConvNorm(48, 64, 5, padding=2, scale=scale)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1, scale=scale)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1, scale=scale)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, padding=1, scale=scale)
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.branch_pool = ConvNorm(channels, pool, 1, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        """Four branches side by side."""
        five = self.branch5x5_2(self.branch5x5_1(x))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch1x1(x), five, double, self.branch_pool(self.pool(x))], dim=1)


class FirstHalving(nn.Module):
    """Figure 10: 3x3 / 2; double 3x3, the last / 2; max pool."""

    def __init__(self, channels: int, scale: bool) -> None:
        super().__init__()
        self.branch3x3 = ConvNorm(channels, 384, 3, 2, scale=scale)
        self.branch3x3dbl_1 = ConvNorm(channels, 64, 1, scale=scale)
        self.branch3x3dbl_2 = ConvNorm(64, 96, 3, padding=1, scale=scale)
        self.branch3x3dbl_3 = ConvNorm(96, 96, 3, 2, scale=scale)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Three branches side by side, half the size."""
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(x)))
        return torch.cat([self.branch3x3(x), double, self.pool(x)], dim=1)


class SevenBySeven(nn.Module):
    """Figure 6: 1x1; 7x7 as row and column; double 7x7; mean pool."""

    def __init__(self, channels: int, inner: int, scale: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 192, 1, scale=scale)
        self.branch7x7_1 = ConvNorm(channels, inner, 1, scale=scale)
        self.branch7x7_2 = _strip(inner, inner, _row(7), scale)
        self.branch7x7_3 = _strip(inner, 192, _column(7), scale)
        self.branch7x7dbl_1 = ConvNorm(channels, inner, 1, scale=scale)
        self.branch7x7dbl_2 = _strip(inner, inner, _column(7), scale)
        self.branch7x7dbl_3 = _strip(inner, inner, _row(7), scale)
        self.branch7x7dbl_4 = _strip(inner, inner, _column(7), scale)
        self.branch7x7dbl_5 = _strip(inner, 192, _row(7), scale)
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.branch_pool = ConvNorm(channels, 192, 1, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        """Four branches side by side."""
        seven = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(x)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(x)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(x), seven, double, self.branch_pool(self.pool(x))], dim=1)


class SecondHalving(nn.Module):
    """3x3 / 2; 7x7 as row and column, then 3x3 / 2; max pool."""

    def __init__(self, channels: int, scale: bool) -> None:
        super().__init__()
        self.branch3x3_1 = ConvNorm(channels, 192, 1, scale=scale)
        self.branch3x3_2 = ConvNorm(192, 320, 3, 2, scale=scale)
        self.branch7x7x3_1 = ConvNorm(channels, 192, 1, scale=scale)
        self.branch7x7x3_2 = _strip(192, 192, _row(7), scale)
        self.branch7x7x3_3 = _strip(192, 192, _column(7), scale)
        self.branch7x7x3_4 = ConvNorm(192, 192, 3, 2, scale=scale)
        self.pool = nn.MaxPool2d(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        """Three branches side by side, half the size."""
        three = self.branch3x3_2(self.branch3x3_1(x))
        seven = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(x)))
        return torch.cat([three, self.branch7x7x3_4(seven), self.pool(x)], dim=1)


class Forking(nn.Module):
    """Figure 7: 1x1; 3x3 that forks into row and column; double 3x3 that forks; mean pool."""

    def __init__(self, channels: int, scale: bool) -> None:
        super().__init__()
        self.branch1x1 = ConvNorm(channels, 320, 1, scale=scale)
        self.branch3x3_1 = ConvNorm(channels, 384, 1, scale=scale)
        self.branch3x3_2a = _strip(384, 384, _row(3), scale)
        self.branch3x3_2b = _strip(384, 384, _column(3), scale)
        self.branch3x3dbl_1 = ConvNorm(channels, 448, 1, scale=scale)
        self.branch3x3dbl_2 = ConvNorm(448, 384, 3, padding=1, scale=scale)
        self.branch3x3dbl_3a = _strip(384, 384, _row(3), scale)
        self.branch3x3dbl_3b = _strip(384, 384, _column(3), scale)
        self.pool = nn.AvgPool2d(3, 1, 1)
        self.branch_pool = ConvNorm(channels, 192, 1, scale=scale)

    def forward(self, x: Tensor) -> Tensor:
        """Six maps of four branches side by side."""
        three = self.branch3x3_1(x)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(x))
        forks = [self.branch3x3_2a(three), self.branch3x3_2b(three)]
        forks += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double)]
        return torch.cat([self.branch1x1(x), *forks, self.branch_pool(self.pool(x))], dim=1)


class AuxiliaryHead(nn.Module):
    """A classifier on Mixed_6e: mean pool 5x5 / 3, 1x1 of 128, 5x5 of 768, mean, dense."""

    def __init__(self, channels: int, classes: int, scale: bool) -> None:
        super().__init__()
        self.pool = nn.AvgPool2d(5, 3)
        self.conv0 = ConvNorm(channels, 128, 1, scale=scale)
        self.conv1 = ConvNorm(128, 768, 5, scale=scale)
        self.mean, self.flatten, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(768, classes)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, 17, 17) -> logits (batch, classes)."""
        logits: Tensor = self.fc(self.flatten(self.mean(self.conv1(self.conv0(self.pool(x))))))
        return logits


def _strip(channels: int, filters: int, shape: tuple[tuple[int, int], tuple[int, int]], scale: bool) -> ConvNorm:
    window, padding = shape
    return ConvNorm(channels, filters, window, padding=padding, scale=scale)


def inception_v3(classes: int = 1000, in_channels: int = 3, auxiliary: bool = False) -> InceptionV3:
    """23,834,568 parameters with 1,000 classes, 27,161,264 with the auxiliary head; made for 299x299."""
    return InceptionV3(classes, in_channels, auxiliary)


def inception_v3_keras(classes: int = 1000, in_channels: int = 3) -> InceptionV3:
    """As Keras builds it, without scales: 23,817,352 parameters with 1,000 classes."""
    return InceptionV3(classes, in_channels, scale=False)
