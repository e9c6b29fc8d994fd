"""Two small nets to learn with.

The classic chain, conv relu conv relu pool relu conv relu pool dense (the ReLU behind the first pool changes nothing,
as pooling keeps numbers >= 0; it is there because the classic drawing has it):

| layer | output | parameters |
|---|---|---|
| conv 3x3, ReLU | 32x32x32 | 896 |
| conv 3x3, ReLU | 32x32x32 | 9,248 |
| max pool 2, ReLU | 16x16x32 | 0 |
| conv 3x3, ReLU | 16x16x64 | 18,496 |
| max pool 2 | 8x8x64 | 0 |
| dense | 10 | 40,970 |
| all | | 69,610 |

The CIFAR-10 net of the Keras lesson, with windows of 2x2 padded as "same" (the odd pixel behind):

| layer | output | parameters |
|---|---|---|
| conv 2x2 same, ReLU, max pool 2 | 16x16x16 | 208 |
| conv 2x2 same, ReLU, max pool 2 | 8x8x32 | 2,080 |
| conv 2x2 same, ReLU, max pool 2 | 4x4x64 | 8,256 |
| dropout 0.3, flatten | 1024 | 0 |
| dense, ReLU, dropout 0.4 | 500 | 512,500 |
| dense | 10 | 5,010 |
| all | | 528,054 |
"""

from torch import nn

from headstart.errors import UsageError
from headstart.nets.staged import Staged, checked_counts

WIDTHS = (16, 32, 64)  # of the CIFAR net's convolutions


class SmallCNN(Staged):
    """The classic chain.

    Args:
        classes, in_channels: >= 1.
        input_size: (height, width), each a multiple of 4: the dense layer fixes it.
    """

    def __init__(self, classes: int = 10, in_channels: int = 3, input_size: tuple[int, int] = (32, 32)) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        height, width = _divided(input_size, 4)
        self.conv1, self.relu1 = nn.Conv2d(in_channels, 32, 3, padding=1), nn.ReLU()
        self.conv2, self.relu2 = nn.Conv2d(32, 32, 3, padding=1), nn.ReLU()
        self.pool1, self.relu3 = nn.MaxPool2d(2), nn.ReLU()
        self.conv3, self.relu4 = nn.Conv2d(32, 64, 3, padding=1), nn.ReLU()
        self.pool2, self.flatten = nn.MaxPool2d(2), nn.Flatten()
        self.classifier = nn.Linear(64 * height * width, classes)
        chain = {
            "conv1": ("conv1", "relu1"),
            "conv2": ("conv2", "relu2"),
            "pool1": ("pool1", "relu3"),
            "conv3": ("conv3", "relu4"),
            "pool2": ("pool2",),
            "pooled": ("flatten",),
            "logits": ("classifier",),
        }
        self.chain_up(chain, (32, 32, 32, 64, 64, 64 * height * width), (*input_size, in_channels))


class CifarCNN(Staged):
    """The CIFAR-10 net of the Keras lesson.

    Args:
        classes, in_channels: >= 1.
        input_size: (height, width), each a multiple of 8: the dense layer fixes it.
    """

    def __init__(self, classes: int = 10, in_channels: int = 3, input_size: tuple[int, int] = (32, 32)) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        height, width = _divided(input_size, 8)
        chain: dict[str, tuple[str, ...]] = {}
        channels = in_channels
        for number, filters in enumerate(WIDTHS, start=1):
            names = tuple(f"{kind}{number}" for kind in ("pad", "conv", "relu", "pool"))
            layers = nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(channels, filters, 2), nn.ReLU(), nn.MaxPool2d(2)
            for name, layer in zip(names, layers, strict=True):
                self.add_module(name, layer)
            chain[f"block{number}"] = names
            channels = filters
        self.drop1, self.flatten = nn.Dropout(0.3), nn.Flatten()
        self.dense, self.relu = nn.Linear(channels * height * width, 500), nn.ReLU()
        self.drop2, self.classifier = nn.Dropout(0.4), nn.Linear(500, classes)
        chain |= {"flat": ("drop1", "flatten"), "pooled": ("dense", "relu"), "logits": ("drop2", "classifier")}
        self.chain_up(chain, (*WIDTHS, channels * height * width, 500), (*input_size, in_channels))


def _divided(size: tuple[int, int], by: int) -> tuple[int, int]:
    """The size behind the pools. Raises UsageError."""
    if size[0] < by or size[1] < by or size[0] % by or size[1] % by:
        raise UsageError(f"the net needs photos whose sides are multiples of {by}; got {size[0]} x {size[1]}")
    return size[0] // by, size[1] // by


def small_cnn(classes: int = 10, in_channels: int = 3, input_size: tuple[int, int] = (32, 32)) -> SmallCNN:
    """69,610 parameters with 10 classes on 32x32x3."""
    return SmallCNN(classes, in_channels, input_size)


def cifar_cnn(classes: int = 10, in_channels: int = 3, input_size: tuple[int, int] = (32, 32)) -> CifarCNN:
    """528,054 parameters with 10 classes on 32x32x3."""
    return CifarCNN(classes, in_channels, input_size)
