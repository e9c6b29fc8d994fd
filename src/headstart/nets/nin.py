"""Network in network: Lin, Chen & Yan 2013, arXiv:1312.4400.

Each block is a convolution and two 1x1 convolutions: at every place a small dense net over the channels (a weighted sum
over depth). The last 1x1 layer has one map a class, and the mean of a map is the class's logit: no dense layer at all.

| block | CIFAR-10, the paper's | output | ImageNet, the authors' published one | output |
|---|---|---|---|---|
| 1 | 5x5 padding 2: 192; 1x1: 160, 96 | 32x32x96 | 11x11 stride 4: 96; 1x1: 96, 96 | 54x54x96 |
| pool 3 stride 2 | max, dropout 0.5 | 16x16x96 | max | 27x27x96 |
| 2 | 5x5 padding 2: 192; 1x1: 192, 192 | 16x16x192 | 5x5 padding 2: 256; 1x1: 256, 256 | 27x27x256 |
| pool 3 stride 2 | average, dropout 0.5 | 8x8x192 | max | 13x13x256 |
| 3 | 3x3 padding 1: 192; 1x1: 192, 10 | 8x8x10 | 3x3 padding 1: 384; 1x1: 384, 384 | 13x13x384 |
| pool 3 stride 2 | | | max, dropout 0.5 | 6x6x384 |
| 4 | | | 3x3 padding 1: 1024; 1x1: 1024, 1000 | 6x6x1000 |
| mean of each map | | 10 | | 1000 |
| parameters | | 966,986 | | 7,595,176 |

Pools round up, as in the authors' framework. ReLU follows every convolution but the last, so that a logit can be
negative.
"""

from torch import nn

from headstart.nets.staged import Staged, checked_counts

Block = tuple[int, int, int, tuple[int, int, int]]  # window, stride, padding; channels of the three convolutions


class NiN(Staged):
    """Blocks of three convolutions with pools between them.

    Args:
        blocks: from the first to the last; the last channel number is the number of classes.
        pools: what stands behind each block but the last.
        input_size: (height, width, channels) that the net was made for.
    """

    def __init__(
        self, blocks: tuple[Block, ...], pools: tuple[nn.Module, ...], input_size: tuple[int, int, int]
    ) -> None:
        super().__init__()
        checked_counts(blocks[-1][3][2], input_size[2])
        chain: dict[str, tuple[str, ...]] = {}
        channels, widths = input_size[2], []
        for number, (window, stride, padding, (first, second, third)) in enumerate(blocks, start=1):
            layers = [
                nn.Conv2d(channels, first, window, stride, padding),
                nn.ReLU(),
                nn.Conv2d(first, second, 1),
                nn.ReLU(),
            ]
            names = [f"block{number}"]
            channels = second
            if number < len(blocks):
                layers += [nn.Conv2d(second, third, 1), nn.ReLU()]
                names.append(f"pool{number}")
                self.add_module(f"pool{number}", pools[number - 1])
                channels = third
            self.add_module(f"block{number}", nn.Sequential(*layers))
            chain |= {name: (name,) for name in names}
            widths += [channels] * len(names)
        classes = blocks[-1][3][2]
        self.maps, self.mean, self.flatten = nn.Conv2d(channels, classes, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        self.output = nn.Identity()  # the means of the maps are the logits
        chain |= {"maps": ("maps",), "pooled": ("mean", "flatten"), "logits": ("output",)}
        self.chain_up(chain, (*widths, classes, classes), input_size)


def nin(classes: int = 1000, in_channels: int = 3) -> NiN:
    """For ImageNet: 7,595,176 parameters with 1,000 classes."""
    blocks: tuple[Block, ...] = (
        (11, 4, 0, (96, 96, 96)),
        (5, 1, 2, (256, 256, 256)),
        (3, 1, 1, (384, 384, 384)),
        (3, 1, 1, (1024, 1024, classes)),
    )
    last = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5))
    pools = (nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(3, 2, ceil_mode=True), last)
    return NiN(blocks, pools, (224, 224, in_channels))


def nin_cifar(classes: int = 10, in_channels: int = 3) -> NiN:
    """For CIFAR-10, as in the paper: 966,986 parameters with 10 classes."""
    blocks: tuple[Block, ...] = (
        (5, 1, 2, (192, 160, 96)),
        (5, 1, 2, (192, 192, 192)),
        (3, 1, 1, (192, 192, classes)),
    )
    first = nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5))
    second = nn.Sequential(nn.AvgPool2d(3, 2, ceil_mode=True), nn.Dropout(0.5))
    return NiN(blocks, (first, second), (32, 32, in_channels))
