"""AlexNet: Krizhevsky, Sutskever & Hinton 2012, "ImageNet classification with deep convolutional neural networks".

The paper splits the net over two GPUs ("towers"): conv2, conv4 and conv5 see the maps of their own half only, which is
a convolution of two groups. The one-tower net is that of Krizhevsky 2014 (arXiv:1404.5997) in the form that public
weight files have.

| layer | window, stride, padding | paper: output | parameters | one tower: output | parameters |
|---|---|---|---|---|---|
| input | | 227x227x3 | | 224x224x3 | |
| conv1, ReLU | 11, 4, 0 (one tower 2) | 55x55x96 | 34,944 | 55x55x64 | 23,296 |
| LRN (paper only), max pool | 3, 2 | 27x27x96 | 0 | 27x27x64 | 0 |
| conv2, ReLU | 5, 1, 2 | 27x27x256 in 2 groups | 307,456 | 27x27x192 | 307,392 |
| LRN (paper only), max pool | 3, 2 | 13x13x256 | 0 | 13x13x192 | 0 |
| conv3, ReLU | 3, 1, 1 | 13x13x384 | 885,120 | 13x13x384 | 663,936 |
| conv4, ReLU | 3, 1, 1 | 13x13x384 in 2 groups | 663,936 | 13x13x256 | 884,992 |
| conv5, ReLU | 3, 1, 1 | 13x13x256 in 2 groups | 442,624 | 13x13x256 | 590,080 |
| max pool | 3, 2 | 6x6x256 | 0 | 6x6x256 | 0 |
| dense, ReLU, dropout 0.5 | | 4096 | 37,752,832 | 4096 | 37,752,832 |
| dense, ReLU, dropout 0.5 | | 4096 | 16,781,312 | 4096 | 16,781,312 |
| dense | | 1000 | 4,097,000 | 1000 | 4,097,000 |
| all | | | 60,965,224 | | 61,100,840 |

The paper says 224x224, but its 55x55 maps need 227x227 without padding. In the one-tower net the dropout stands before
its dense layer, as in the public files.
"""

from torch import nn

from headstart.nets.staged import Staged, checked_counts

UNITS = 4096  # of the two dense layers


class AlexNet(Staged):
    """One tower, with the names of public weight files.

    Args:
        classes, in_channels: >= 1.
    """

    def __init__(self, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        self.features = nn.Sequential(
            nn.Conv2d(in_channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
            nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
            nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
            nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
        )  # fmt: skip
        self.avgpool = nn.AdaptiveAvgPool2d(6)  # does nothing at 224x224; other sizes are brought to 6x6
        self.flatten = nn.Flatten()
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Linear(256 * 6 * 6, UNITS), nn.ReLU(),
            nn.Dropout(0.5), nn.Linear(UNITS, UNITS), nn.ReLU(),
            nn.Linear(UNITS, classes),
        )  # fmt: skip
        chain = {
            "conv1": ("features.0", "features.1"),
            "pool1": ("features.2",),
            "conv2": ("features.3", "features.4"),
            "pool2": ("features.5",),
            "conv3": ("features.6", "features.7"),
            "conv4": ("features.8", "features.9"),
            "conv5": ("features.10", "features.11"),
            "pool5": ("features.12",),
            "fc6": ("avgpool", "flatten", "classifier.0", "classifier.1", "classifier.2"),
            "pooled": ("classifier.3", "classifier.4", "classifier.5"),
            "logits": ("classifier.6",),
        }
        self.chain_up(chain, (64, 64, 192, 192, 384, 256, 256, 256, UNITS, UNITS), (224, 224, in_channels))


class PaperAlexNet(Staged):
    """Two towers and local response normalisation, as in the paper.

    Args:
        classes, in_channels: >= 1.
    """

    def __init__(self, classes: int = 1000, in_channels: int = 3) -> None:
        super().__init__()
        checked_counts(classes, in_channels)
        self.conv1, self.relu1 = nn.Conv2d(in_channels, 96, 11, stride=4), nn.ReLU()
        self.norm1, self.pool1 = _response_norm(), nn.MaxPool2d(3, 2)
        self.conv2, self.relu2 = nn.Conv2d(96, 256, 5, padding=2, groups=2), nn.ReLU()
        self.norm2, self.pool2 = _response_norm(), nn.MaxPool2d(3, 2)
        self.conv3, self.relu3 = nn.Conv2d(256, 384, 3, padding=1), nn.ReLU()
        self.conv4, self.relu4 = nn.Conv2d(384, 384, 3, padding=1, groups=2), nn.ReLU()
        self.conv5, self.relu5 = nn.Conv2d(384, 256, 3, padding=1, groups=2), nn.ReLU()
        self.pool5, self.flatten = nn.MaxPool2d(3, 2), nn.Flatten()
        self.fc6, self.relu6, self.drop6 = nn.Linear(256 * 6 * 6, UNITS), nn.ReLU(), nn.Dropout(0.5)
        self.fc7, self.relu7, self.drop7 = nn.Linear(UNITS, UNITS), nn.ReLU(), nn.Dropout(0.5)
        self.fc8 = nn.Linear(UNITS, classes)
        chain = {
            "conv1": ("conv1", "relu1"),
            "pool1": ("norm1", "pool1"),
            "conv2": ("conv2", "relu2"),
            "pool2": ("norm2", "pool2"),
            "conv3": ("conv3", "relu3"),
            "conv4": ("conv4", "relu4"),
            "conv5": ("conv5", "relu5"),
            "pool5": ("pool5",),
            "fc6": ("flatten", "fc6", "relu6"),
            "pooled": ("drop6", "fc7", "relu7"),
            "logits": ("drop7", "fc8"),
        }
        self.chain_up(chain, (96, 96, 256, 256, 384, 384, 256, 256, UNITS, UNITS), (227, 227, in_channels))


def _response_norm() -> nn.LocalResponseNorm:
    """Section 3.3: each value over `(2 + 1e-4 * sum of squares of 5 neighbouring maps) ** 0.75`.

    PyTorch divides alpha by the number of maps, so the paper's 1e-4 is five times that here.
    """
    return nn.LocalResponseNorm(5, alpha=5e-4, beta=0.75, k=2.0)


def alexnet(classes: int = 1000, in_channels: int = 3) -> AlexNet:
    """One tower: 61,100,840 parameters with 1,000 classes."""
    return AlexNet(classes, in_channels)


def alexnet_paper(classes: int = 1000, in_channels: int = 3) -> PaperAlexNet:
    """Two towers: 60,965,224 parameters with 1,000 classes."""
    return PaperAlexNet(classes, in_channels)
