"""Dense layers only: every pixel is a feature, and the net does not know which pixels are neighbours.

| layer | MNIST, 28x28x1 | parameters | CIFAR-10, 32x32x3 | parameters |
|---|---|---|---|---|
| flatten | 784 | 0 | 3072 | 0 |
| dense, ReLU, dropout 0.2 | 512 | 401,920 | 1000 | 3,073,000 |
| dense, ReLU, dropout 0.2 | 512 | 262,656 | 512 | 512,512 |
| dense | 10 | 5,130 | 10 | 5,130 |
| all | | 669,706 | | 3,590,642 |
"""

import math

from torch import nn

from headstart.nets.staged import Staged, checked_counts


class MLP(Staged):
    """A chain of dense layers with ReLU and dropout.

    Args:
        input_size: (height, width, channels); dense layers fix it.
        hidden: units of each layer but the last.
        classes: number of outputs, >= 1.
        dropout: share of units zeroed while training, behind each hidden layer.
    """

    def __init__(
        self, input_size: tuple[int, int, int], hidden: tuple[int, ...], classes: int = 10, dropout: float = 0.2
    ) -> None:
        super().__init__()
        checked_counts(classes, input_size[2])
        self.flatten = nn.Flatten()
        units = math.prod(input_size)
        chain: dict[str, tuple[str, ...]] = {"pixels": ("flatten",)}
        for number, width in enumerate(hidden, start=1):
            self.add_module(f"dense{number}", nn.Linear(units, width))
            self.add_module(f"relu{number}", nn.ReLU())
            self.add_module(f"drop{number}", nn.Dropout(dropout))
            last = number == len(hidden)
            before = (f"drop{number - 1}",) if number > 1 else ()
            chain["pooled" if last else f"hidden{number}"] = (*before, f"dense{number}", f"relu{number}")
            units = width
        self.classifier = nn.Linear(units, classes)
        chain["logits"] = (f"drop{len(hidden)}", "classifier")
        self.chain_up(chain, (math.prod(input_size), *hidden), input_size)


def mlp(classes: int = 10, in_channels: int = 1, input_size: tuple[int, int] = (28, 28)) -> MLP:
    """For MNIST: 669,706 parameters with 10 classes."""
    return MLP((*input_size, in_channels), (512, 512), classes)


def mlp_cifar(classes: int = 10, in_channels: int = 3, input_size: tuple[int, int] = (32, 32)) -> MLP:
    """For CIFAR-10: 3,590,642 parameters with 10 classes."""
    return MLP((*input_size, in_channels), (1000, 512), classes)
