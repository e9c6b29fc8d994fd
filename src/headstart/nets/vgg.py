"""VGG: Simonyan & Zisserman 2014, "Very deep convolutional networks for large-scale image recognition",
arXiv:1409.1556.

Table 1 of the paper; every convolution is 3x3 with padding 1 and ReLU, every pool 2x2 with stride 2.

| block | A (vgg11) | B (vgg13) | D (vgg16) | E (vgg19) | output |
|---|---|---|---|---|---|
| 1 | 64 | 64, 64 | 64, 64 | 64, 64 | 112x112x64 |
| 2 | 128 | 128, 128 | 128, 128 | 128, 128 | 56x56x128 |
| 3 | 256, 256 | 256, 256 | 256 three times | 256 four times | 28x28x256 |
| 4 | 512, 512 | 512, 512 | 512 three times | 512 four times | 14x14x512 |
| 5 | 512, 512 | 512, 512 | 512 three times | 512 four times | 7x7x512 |
| dense 4096, 4096, 1000 | | | | | dropout 0.5 behind the first two |
| parameters | 132,863,336 | 133,047,848 | 138,357,544 | 143,667,240 | |

VGG16's convolutions alone have 14,714,688.
"""

from torch import nn

from headstart.nets.staged import Staged, checked_counts

CHANNELS = (64, 128, 256, 512, 512)
DEPTHS = {"A": (1, 1, 2, 2, 2), "B": (2, 2, 2, 2, 2), "D": (2, 2, 3, 3, 3), "E": (2, 2, 4, 4, 4)}
UNITS = 4096


class VGG(Staged):
    """VGG, with the names of public weight files.

    Args:
        configuration: column of table 1: "A", "B", "D" or "E".
        classes, in_channels: >= 1.
    """

    def __init__(self, configuration: str, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        chain: dict[str, tuple[str, ...]] = {}
        layers: list[nn.Module] = []
        channels = in_channels
        for block, (filters, depth) in enumerate(zip(CHANNELS, DEPTHS[configuration], strict=True), start=1):
            for number in range(1, depth + 1):
                layers += [nn.Conv2d(channels, filters, 3, padding=1), nn.ReLU()]
                chain[f"conv{block}_{number}"] = (f"features.{len(layers) - 2}", f"features.{len(layers) - 1}")
                channels = filters
            layers.append(nn.MaxPool2d(2))
            chain[f"pool{block}"] = (f"features.{len(layers) - 1}",)
        self.features = nn.Sequential(*layers)
        self.avgpool = nn.AdaptiveAvgPool2d(7)  # does nothing at 224x224; other sizes are brought to 7x7
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Linear(512 * 7 * 7, UNITS), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Dropout(0.5),
            nn.Linear(UNITS, classes),
        )  # fmt: skip
        widths = [CHANNELS[int(name.removeprefix("conv").removeprefix("pool")[0]) - 1] for name in chain]
        chain |= {
            "fc6": ("avgpool", "flatten", "classifier.0", "classifier.1"),
            "pooled": ("classifier.2", "classifier.3", "classifier.4"),
            "logits": ("classifier.5", "classifier.6"),
        }
        self.chain_up(chain, (*widths, UNITS, UNITS), (224, 224, in_channels))


def vgg11(classes: int = 1000, in_channels: int = 3) -> VGG:
    """Configuration A: 132,863,336 parameters with 1,000 classes."""
    return VGG("A", classes, in_channels)


def vgg13(classes: int = 1000, in_channels: int = 3) -> VGG:
    """Configuration B: 133,047,848 parameters with 1,000 classes."""
    return VGG("B", classes, in_channels)


def vgg16(classes: int = 1000, in_channels: int = 3) -> VGG:
    """Configuration D: 138,357,544 parameters with 1,000 classes."""
    return VGG("D", classes, in_channels)


def vgg19(classes: int = 1000, in_channels: int = 3) -> VGG:
    """Configuration E: 143,667,240 parameters with 1,000 classes."""
    return VGG("E", classes, in_channels)
