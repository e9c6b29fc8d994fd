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
}


def build_net(name: str, classes: int = 1000, **options: Any) -> Any:
    """A net with random weights.

    Args:
        name: a key of `NETS`.
        classes: number of outputs, >= 1.
        options: what the net's own function takes besides, such as `in_channels`.

    Returns:
        An `nn.Module` with the members described above.

    Raises:
        UsageError: no net has this name.
    """
    if name not in NETS:
        raise UsageError(f"unknown net {name!r}; choose one of: {', '.join(sorted(NETS))}")
    module, function = NETS[name]
    return getattr(importlib.import_module(module), function)(classes=classes, **options)
