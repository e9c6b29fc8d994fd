"""The end of a pretrained net as a net of its own, its batch norms folded away; and the way back to the whole net.

What lies before the cut is frozen, so its output for a photo never changes and is computed once; without a cut the end
is the whole net. It is trained with its batch norms as they are, since a batch of a few photos that look alike has
statistics far from those the weights were made for. Each is then a scale and a shift of a channel, which go into the
convolution before it (Jacob et al. 2018, arXiv:1712.05877, section 3.2). Putting them back needs no approximation: the
trained filters and shifts go into the net's own convolutions and batch norms, the latter with mean 0 and variance 1.
"""

import copy
import itertools
import math
from collections.abc import Iterator
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from headstart.errors import UsageError
from headstart.heads import Head, head_layers
from headstart.weights import Tensors, load_checked, tensors_of


class Tail(nn.Module):
    """The stages of a net behind a cut, without batch norms, and a new last layer.

    Args:
        net: with `stages`, `resume` and a last layer `classifier`, such as `headstart.nets.efficientnet_lite`.
        cut: name of a map of the net; what comes behind it is trained. None: all of it, from the photos on.
        head: where the last layer starts: a linear head fitted to "pooled" features; None: from small random weights.
        classes: outputs of the last layer, >= 2.

    Raises:
        UsageError: the net has no such cut, its end has another form, or the head is not linear.
    """

    def __init__(self, net: nn.Module, cut: str | None, head: Head | None, classes: int) -> None:
        super().__init__()
        cuts: tuple[str, ...] = getattr(net, "cuts", ())
        if cut is not None and cut not in cuts[:-1]:
            raise UsageError(f"{type(net).__name__} cannot be trained behind {cut!r}: choose {', '.join(cuts[:-1])}")
        last = getattr(net, "classifier", None)
        if not isinstance(last, nn.Linear):
            raise UsageError(f"{type(net).__name__} does not end in one dense layer called classifier")
        self.cut, self.classes = cut, classes
        self.net: Any = copy.deepcopy(net)
        for name in cuts[: cuts.index(cut) + 1] if cut is not None else ():
            self.net.set_submodule(name, nn.Identity())
        self.net.classifier = last_layer(last.in_features, classes, head)
        self.folded = tuple(_fold(self.net))

    def forward(self, maps: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of the frozen part's output, or of normalised photos where nothing is frozen."""
        logits: Tensor = self.net(maps) if self.cut is None else self.net.resume(self.cut, maps)
        return logits

    def merge(self, net: nn.Module) -> nn.Module:
        """A whole net: the beginning of `net`, which this was made from, and this end.

        Args:
            net: of the same kind as the original, with as many classes as this end; its weights are overwritten from
                the cut on, those before it are kept.
        """
        tensors = tensors_of(net)
        for name, value in tensors_of(self.net).items():
            if name in tensors and not name.endswith("num_batches_tracked"):
                tensors[name] = value
        for conv, norm, epsilon in self.folded:
            shift = self.net.get_parameter(f"{conv}.bias").detach()
            zeros, ones = torch.zeros_like(shift), torch.ones_like(shift)
            parts = {"weight": ones * math.sqrt(1 + epsilon), "bias": shift, "running_mean": zeros, "running_var": ones}
            tensors |= {f"{norm}.{leaf}": value.numpy().copy() for leaf, value in parts.items()}
        load_checked(net, tensors)
        return net.eval()


def load_beginning(net: nn.Module, tensors: Tensors) -> nn.Module:
    """Give a net the pretrained tensors of all its layers but the last, which has other classes; returns the net."""
    last = "classifier."
    own = {name: value for name, value in tensors_of(net).items() if name.startswith(last)}
    load_checked(net, own | {name: value for name, value in tensors.items() if not name.startswith(last)})
    return net


def last_layer(features: int, classes: int, head: Head | None) -> nn.Linear:
    """A dense layer with the weights of a linear head; without one, with the small ones torch draws, no shift."""
    if head is None:
        layer = nn.Linear(features, classes)
        nn.init.zeros_(layer.bias)
        return layer
    if not head.linear or head.length != features:
        raise UsageError(
            f"the last layer starts from a linear head of {features} features; received a {head.kind} one of "
            f"{head.length}"
        )
    layers = head_layers(head)
    found = next(module for module in layers.modules() if isinstance(module, nn.Linear))
    return copy.deepcopy(found).requires_grad_(True)


def _fold(net: nn.Module) -> Iterator[tuple[str, str, float]]:
    """Fold each batch norm into the convolution before it; yields the names of both, and its epsilon."""
    for parent, module in list(net.named_modules()):
        children = list(module.named_children()) if isinstance(module, nn.Sequential) else []
        for (first, conv), (second, norm) in itertools.pairwise(children):
            if not isinstance(conv, nn.Conv2d) or not isinstance(norm, nn.BatchNorm2d):
                continue
            if norm.running_mean is not None and norm.running_var is not None:
                weight, bias = fuse_conv_bn_weights(
                    conv.weight, conv.bias, norm.running_mean, norm.running_var, norm.eps, norm.weight, norm.bias
                )
                conv.weight, conv.bias = nn.Parameter(weight.detach().clone()), nn.Parameter(bias.detach().clone())
                module.set_submodule(second, nn.Identity())
                yield f"{parent}.{first}", f"{parent}.{second}", norm.eps
