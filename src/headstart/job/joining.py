"""From a trained network to what every later step works with: a backbone with its cuts, and its last layer as head."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from headstart.backbones import Backbone, backbone_from_tensors
from headstart.heads import Head
from headstart.preprocess import Preprocessing
from headstart.training.evaluation import modes_kept
from headstart.weights import tensors_of

SOURCE = "trained from random weights"
TOLERANCE = 1e-4  # share of the largest logit by which the last layer alone may differ from the whole net


def classifier_of(
    net: nn.Module,
    name: str,
    options: Mapping[str, Any],
    preprocessing: Preprocessing,
    say: Callable[[str], None] | None = None,
) -> tuple[Backbone, str, Head]:
    """Part a trained net into a backbone, the cut of its last layer, and that layer.

    Args:
        net: what was trained, with the stages "pooled" and "logits".
        name, options: how `headstart.nets.build_net` makes such a net.
        preprocessing: how its photos were prepared.
        say: told when the net is converted for the fast engine.

    Returns:
        Where the logits are `pooled @ weight.T + bias`: the cut "pooled" and a "linear" head. Else (the means of maps,
        distances to codes) the cut "logits", and a head that changes nothing.
    """
    backbone = backbone_from_tensors(
        name, tensors_of(net), preprocessing, net_options=dict(options), source=SOURCE, say=say
    )
    last = _last_linear(net, preprocessing)
    if last is None:
        return backbone, "logits", Head("identity", {}, {"length": backbone.vectors["logits"]})
    weight = last.weight.detach().cpu().numpy().copy()
    bias = torch.zeros(len(weight)) if last.bias is None else last.bias.detach().cpu()
    return backbone, "pooled", Head("linear", {"weight": weight, "bias": bias.numpy().copy()})


def _last_linear(net: Any, preprocessing: Preprocessing) -> nn.Linear | None:
    """The dense layer that makes the logits of the cut "pooled", if it does, shown on two noisy pictures."""
    layers = [module for module in net.modules() if isinstance(module, nn.Linear)]
    draw = torch.Generator().manual_seed(0)
    side = preprocessing.size
    noise = torch.randn(2, preprocessing.channels, side, side, generator=draw)
    with modes_kept(net), torch.no_grad():
        net.eval()
        found = net.stages(noise)
        if not layers or found["pooled"].ndim != 2 or found["pooled"].shape[1] != layers[-1].in_features:
            return None
        logits = layers[-1](found["pooled"])
    if logits.shape != found["logits"].shape:
        return None
    within = TOLERANCE * max(float(found["logits"].abs().max()), 1e-6)
    return layers[-1] if float((logits - found["logits"]).abs().max()) <= within else None
