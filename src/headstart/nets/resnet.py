"""ResNet: He, Zhang, Ren & Sun 2015, "Deep residual learning for image recognition", arXiv:1512.03385.

Table 1 of the paper. A block adds its input to its output; where the size or the channels change, the input goes
through a 1x1 convolution first. Every convolution has batch-norm and no bias.

| stage | output | 18 | 34 | 50 | 101 | 152 |
|---|---|---|---|---|---|---|
| conv1 | 112x112x64 | 7x7 / 2 | | | | |
| max pool | 56x56x64 | 3x3 / 2 | | | | |
| layer1 | 56x56 | basic 64, 2 times | 3 times | bottleneck 64, 3 times | 3 | 3 |
| layer2 | 28x28 | basic 128, 2 | 4 | bottleneck 128, 4 | 4 | 8 |
| layer3 | 14x14 | basic 256, 2 | 6 | bottleneck 256, 6 | 23 | 36 |
| layer4 | 7x7 | basic 512, 2 | 3 | bottleneck 512, 3 | 3 | 3 |
| mean, dense | 1000 | | | | | |
| parameters | | 11,689,512 | 21,797,672 | 25,557,032 | 44,549,160 | 60,192,808 |

basic: 3x3, 3x3. bottleneck of n: 1x1 of n, 3x3 of n, 1x1 of 4n. The paper halves the map in the bottleneck's first 1x1,
which never sees three of four places; public weight files halve it in the 3x3. Keras's form is the paper's, with
biases.
"""

from collections.abc import Callable

from torch import Tensor, nn

from headstart.nets.staged import Staged, checked_counts

WIDTHS = (64, 128, 256, 512)
DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}

Conv = Callable[..., nn.Conv2d]
Norm = Callable[[int], nn.BatchNorm2d]


class ResNet(Staged):
    """ResNet, with the names of public weight files.

    Args:
        depth: 18, 34, 50, 101 or 152.
        classes, in_channels: >= 1.
        paper: bottlenecks halve the map in their first 1x1, else in their 3x3.
        bias: convolutions have a bias, which their batch-norm takes away again; Keras's have.
        epsilon: of the batch-norms.
    """

    def __init__(
        self,
        depth: int,
        classes: int = 1000,
        in_channels: int = 3,
        *,
        paper: bool = False,
        bias: bool = False,
        epsilon: float = 1e-5,
    ) -> None:
        super().__init__()
        checked_counts(classes, in_channels)

        def conv(channels: int, filters: int, window: int, stride: int = 1) -> nn.Conv2d:
            return nn.Conv2d(channels, filters, window, stride, window // 2, bias=bias)

        def norm(channels: int) -> nn.BatchNorm2d:
            return nn.BatchNorm2d(channels, eps=epsilon)

        self.conv1, self.bn1, self.relu = conv(in_channels, 64, 7, 2), norm(64), nn.ReLU()
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        channels, widths = 64, []
        for number, (width, repeats) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True), start=1):
            blocks: list[nn.Module] = []
            for index in range(repeats):
                stride = 2 if number > 1 and index == 0 else 1
                block = Basic if depth < 50 else Bottleneck
                blocks.append(block(channels, width, stride, conv, norm, paper))
                channels = width * block.expansion
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            widths.append(channels)
        self.avgpool, self.flatten, self.fc = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)
        chain = {
            "conv1": ("conv1", "bn1", "relu"),
            "pool1": ("maxpool",),
            **{f"layer{number}": (f"layer{number}",) for number in range(1, 5)},
            "pooled": ("avgpool", "flatten"),
            "logits": ("fc",),
        }
        self.chain_up(chain, (64, 64, *widths, channels), (224, 224, in_channels))


class Basic(nn.Module):
    """3x3 and 3x3, and the input added.

    Args:
        channels, width: of input and output.
        stride: of the first convolution.
        conv, norm: how the net makes them.
    """

    expansion = 1

    def __init__(self, channels: int, width: int, stride: int, conv: Conv, norm: Norm, _: bool) -> None:
        super().__init__()
        self.conv1, self.bn1, self.relu1 = conv(channels, width, 3, stride), norm(width), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = conv(width, width, 3), norm(width), nn.ReLU()
        self.downsample = shortcut(channels, width, stride, conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, width, height / stride, width / stride)."""
        out = self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x)))))
        added: Tensor = self.relu2(out + self.downsample(x))
        return added


class Bottleneck(nn.Module):
    """1x1 to few channels, 3x3 on them, 1x1 to four times as many, and the input added.

    Args:
        channels: of the input.
        width: of the 3x3; the output has four times as many.
        stride: of the block.
        conv, norm: how the net makes them.
        paper: the first 1x1 has the stride, else the 3x3.
    """

    expansion = 4

    def __init__(self, channels: int, width: int, stride: int, conv: Conv, norm: Norm, paper: bool) -> None:
        super().__init__()
        first, second = (stride, 1) if paper else (1, stride)
        self.conv1, self.bn1, self.relu1 = conv(channels, width, 1, first), norm(width), nn.ReLU()
        self.conv2, self.bn2, self.relu2 = conv(width, width, 3, second), norm(width), nn.ReLU()
        self.conv3, self.bn3, self.relu3 = conv(width, width * 4, 1), norm(width * 4), nn.ReLU()
        self.downsample = shortcut(channels, width * 4, stride, conv, norm)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, 4 * width, height / stride, width / stride)."""
        out = self.relu1(self.bn1(self.conv1(x)))
        out = self.relu2(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        added: Tensor = self.relu3(out + self.downsample(x))
        return added


def shortcut(channels: int, filters: int, stride: int, conv: Conv, norm: Norm) -> nn.Module:
    """The way past a block: nothing, or a 1x1 convolution where size or channels change (option B of the paper)."""
    if stride == 1 and channels == filters:
        return nn.Identity()
    return nn.Sequential(conv(channels, filters, 1, stride), norm(filters))


def resnet18(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """11,689,512 parameters with 1,000 classes."""
    return ResNet(18, classes, in_channels)


def resnet34(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """21,797,672 parameters with 1,000 classes."""
    return ResNet(34, classes, in_channels)


def resnet50(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """25,557,032 parameters with 1,000 classes."""
    return ResNet(50, classes, in_channels)


def resnet101(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """44,549,160 parameters with 1,000 classes."""
    return ResNet(101, classes, in_channels)


def resnet152(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """60,192,808 parameters with 1,000 classes."""
    return ResNet(152, classes, in_channels)


def resnet50_paper(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """25,557,032 parameters; each stage halves the map in its first 1x1, as in the paper."""
    return ResNet(50, classes, in_channels, paper=True)


def resnet101_paper(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """44,549,160 parameters; each stage halves the map in its first 1x1, as in the paper."""
    return ResNet(101, classes, in_channels, paper=True)


def resnet152_paper(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """60,192,808 parameters; each stage halves the map in its first 1x1, as in the paper."""
    return ResNet(152, classes, in_channels, paper=True)


def resnet50_keras(classes: int = 1000, in_channels: int = 3) -> ResNet:
    """As Keras builds it: the paper's, with biases and its own epsilon: 25,583,592 parameters with 1,000 classes."""
    return ResNet(50, classes, in_channels, paper=True, bias=True, epsilon=1.001e-5)
