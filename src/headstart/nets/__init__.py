"""The nets by name. Looking a name up imports nothing; `build_net` imports the one file that is needed, and torch.

To add a net: write its family in a file here, as a function `(classes=1000, **options) -> nn.Module`, and add one line
to `NETS`. A net has `cuts` (names of its stages, in order), `feature_dim` (channels at each cut), `stages(x)` (every
named intermediate, with "pooled" and "logits"), `resume(cut, x)` (the rest of the net from a stage's output), and
`forward(x)` gives the logits. One with published weights has `names_in(names)` too: what a foreign file calls its
tensors, or None where it uses the net's own names.
"""

import importlib
from typing import Any

from headstart.errors import UsageError

NETS_VERSION = "1"  # part of every cache key: raise it when a net with the same weights could give other values

#: name -> (module, function in it)
NETS: dict[str, tuple[str, str]] = {
    "efficientnet-lite0": ("headstart.nets.efficientnet_lite", "efficientnet_lite0"),
    "efficientnet-lite1": ("headstart.nets.efficientnet_lite", "efficientnet_lite1"),
    "efficientnet-lite2": ("headstart.nets.efficientnet_lite", "efficientnet_lite2"),
    "mlp": ("headstart.nets.mlp", "mlp"),
    "mlp:cifar": ("headstart.nets.mlp", "mlp_cifar"),
    "small-cnn": ("headstart.nets.smallcnn", "small_cnn"),
    "cifar-cnn": ("headstart.nets.smallcnn", "cifar_cnn"),
    "lenet": ("headstart.nets.lenet", "lenet"),
    "lenet:paper": ("headstart.nets.lenet", "lenet_paper"),
    "alexnet": ("headstart.nets.alexnet", "alexnet"),
    "alexnet:paper": ("headstart.nets.alexnet", "alexnet_paper"),
    "vgg11": ("headstart.nets.vgg", "vgg11"),
    "vgg13": ("headstart.nets.vgg", "vgg13"),
    "vgg16": ("headstart.nets.vgg", "vgg16"),
    "vgg19": ("headstart.nets.vgg", "vgg19"),
    "nin": ("headstart.nets.nin", "nin"),
    "nin:cifar": ("headstart.nets.nin", "nin_cifar"),
    "googlenet": ("headstart.nets.googlenet", "googlenet"),
    "googlenet:paper": ("headstart.nets.googlenet", "googlenet_paper"),
    "inception-v3": ("headstart.nets.inception", "inception_v3"),
    "inception-v3:keras": ("headstart.nets.inception", "inception_v3_keras"),
    "resnet18": ("headstart.nets.resnet", "resnet18"),
    "resnet34": ("headstart.nets.resnet", "resnet34"),
    "resnet50": ("headstart.nets.resnet", "resnet50"),
    "resnet50:paper": ("headstart.nets.resnet", "resnet50_paper"),
    "resnet50:keras": ("headstart.nets.resnet", "resnet50_keras"),
    "resnet101": ("headstart.nets.resnet", "resnet101"),
    "resnet101:paper": ("headstart.nets.resnet", "resnet101_paper"),
    "resnet152": ("headstart.nets.resnet", "resnet152"),
    "resnet152:paper": ("headstart.nets.resnet", "resnet152_paper"),
}


def build_net(name: str, classes: int | None = None, **options: Any) -> Any:
    """A net with random weights.

    Args:
        name: a key of `NETS`.
        classes: number of outputs, >= 1; the net's own (1,000, or 10 of the small nets) if not given.
        options: what the net's own function takes besides, such as `in_channels`.

    Returns:
        An `nn.Module` with the members described above.

    Raises:
        UsageError: no net has this name.
    """
    if name not in NETS:
        raise UsageError(f"unknown net {name!r}; choose one of: {', '.join(sorted(NETS))}")
    module, function = NETS[name]
    given = options if classes is None else {"classes": classes, **options}
    return getattr(importlib.import_module(module), function)(**given)
