"""A head as torch layers: for the full network, its gradients and its export."""

from typing import TYPE_CHECKING

from headstart.errors import UsageError
from headstart.heads.model import ROOT, Head

if TYPE_CHECKING:
    import torch


def head_layers(head: Head) -> "torch.nn.Module":
    """Build a module with the same outputs as `head.logits`. Imports torch.

    Args:
        head: of any kind but "knn".

    Returns:
        A module in eval mode: (photos, features) in, (photos, classes) out. For a linear head it is one `Linear`.

    Raises:
        UsageError: a "knn" head compares with every known photo, and has no form as layers.
    """
    import torch

    if head.kind == "knn":
        raise UsageError("a 'knn' head keeps the known photos and has no form as layers; train with --head logistic")
    if head.kind == "identity":
        return torch.nn.Identity().eval()
    last = _linear(head, "weight", "bias")
    if head.kind == "mlp":
        return torch.nn.Sequential(_linear(head, "hidden_weight", "hidden_bias"), torch.nn.ReLU(), last).eval()
    if not head.kind.startswith(ROOT):
        return last.eval()

    class Root(torch.nn.Module):
        """The signed square root of `headstart.heads.model.root`."""

        rectifies = False  # for `headstart.explain.rectifiers`: it goes back as its derivative

        def __init__(self, offset: float) -> None:
            super().__init__()
            self.offset = offset

        def forward(self, features: torch.Tensor) -> torch.Tensor:
            size: torch.Tensor = torch.sqrt(features.abs() + self.offset) - self.offset**0.5
            return torch.sign(features) * size

    return torch.nn.Sequential(Root(float(head.settings["root_offset"])), last).eval()


def _linear(head: Head, weight: str, bias: str) -> "torch.nn.Linear":
    import torch

    values = torch.from_numpy(head.tensors[weight]).float().clone()
    layer = torch.nn.Linear(values.shape[1], values.shape[0])
    with torch.no_grad():
        layer.weight.copy_(values)
        layer.bias.copy_(torch.from_numpy(head.tensors[bias]).float())
    return layer
