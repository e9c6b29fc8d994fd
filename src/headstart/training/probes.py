"""What can be measured of a net, a loss and a few photos before anything is trained: which units answer, where the
gradient arrives, what the loss depends on, whether the labels follow the photos.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headstart.diagnose import Share
from headstart.training.evaluation import modes_kept

RECTIFIERS = (nn.ReLU, nn.ReLU6)  # a unit that is 0 for every photo is dead
SQUASHES = (nn.Tanh, nn.Sigmoid, nn.Hardtanh, nn.Hardsigmoid)  # one that is at its limit for every photo is, too
LIMIT = 1e-3  # of the limit of a squashing function
SAME = 1e-6  # outputs that differ by less than this share of their size are the same
THUMB = 16  # pixels: photos are compared at this size
COMPARED = 2000  # photos, at most: their distances are a square table
ORDERS = 200  # random orders of the labels, to see what chance does


@dataclass(frozen=True)
class Layer:
    """One layer with weights of its own, as the photos found it.

    Args:
        name: in the net.
        frozen: parameters that do not want a gradient.
        parameters: how many tensors it owns.
        gradient: root mean square of its weights' gradient; None: none of its tensors got one.
        weight: root mean square of its weights.
    """

    name: str
    frozen: int
    parameters: int
    gradient: float | None
    weight: float


@dataclass(frozen=True)
class Probe:
    """One forward and one backward pass, looked at.

    Args:
        loss: of the photos.
        logits: (photos, classes).
        layers: those with weights that the photos passed through, in order.
        dead: share of the units of each activation layer that give no answer to any photo.
        output_gradient: root mean square of the loss's gradient with respect to the logits; None: there is none.
    """

    loss: float
    logits: Float[Tensor, "photos classes"]
    layers: tuple[Layer, ...]
    dead: dict[str, float] = field(default_factory=dict)
    output_gradient: float | None = None


def probe(
    net: nn.Module,
    images: Float[Tensor, "photos channels height width"],
    targets: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
) -> Probe:
    """Pass photos forward and the gradient back, and note what happens on the way. Gradients are cleared afterwards.

    Args:
        net: in the mode it is in.
        images: normalised.
        targets: labels or probabilities, as the loss takes them.
        loss: of (logits, targets).
    """
    seen: list[str] = []
    dead: dict[str, float] = {}
    net.zero_grad(set_to_none=True)
    with _watching(net, seen, dead):
        logits = net(images)
    if logits.requires_grad:
        logits.retain_grad()
    value = loss(logits, targets)
    if value.requires_grad:
        value.backward()  # type: ignore[no-untyped-call]
    layers = tuple(_layer(name, net.get_submodule(name)) for name in seen)
    gradient = None if logits.grad is None else _rms([logits.grad])
    net.zero_grad(set_to_none=True)
    return Probe(float(value.detach()), logits.detach(), layers, dead, gradient)


def dead_shares(net: nn.Module, images: Float[Tensor, "photos channels height width"]) -> dict[str, float]:
    """The dead share of every activation layer, by name, as it is after training: in evaluation mode.

    Args:
        net: left in the modes it is in.
        images: normalised; the more, the surer that a unit silent for all of them is dead.
    """
    dead: dict[str, float] = {}
    with modes_kept(net), torch.no_grad(), _watching(net, [], dead):
        net.eval()
        net(images)
    return dead


def dead_share(layer: nn.Module, outputs: Float[Tensor, "photos units *places"]) -> float:
    """The share of an activation layer's units (of a map: its channels) that are silent for every photo.

    A rectifier is silent at 0, where its slope is 0 too; a squashing function at its limits, where it is nearly 0.

    >>> dead_share(nn.ReLU(), torch.tensor([[0.0, 1.0], [0.0, 0.0]]))
    0.5
    """
    values = outputs.detach().flatten(2) if outputs.ndim > 2 else outputs.detach()[:, :, None]
    if isinstance(layer, RECTIFIERS):
        silent = values <= 0
    else:
        low, high = (-1.0, 1.0) if isinstance(layer, nn.Tanh | nn.Hardtanh) else (0.0, 1.0)
        silent = (values <= low + LIMIT) | (values >= high - LIMIT)
    return float(silent.all(dim=2).all(dim=0).double().mean())


def is_same_for_all(logits: Float[Tensor, "photos classes"]) -> bool:
    """Is the answer to every photo the same, but for rounding?"""
    spread = (logits - logits.mean(dim=0)).abs().max()
    return bool(spread <= SAME * logits.abs().max().clamp_min(1.0))


def ignored_by(loss: Callable[[Tensor, Tensor], Tensor], classes: int) -> str | None:
    """What a loss does not look at: "the net's output", "the labels", or None where it looks at both.

    It is asked about outputs and labels that differ widely; a loss that gives the same number every time ignores them.
    """
    random = torch.Generator().manual_seed(0)
    outputs = [3 * torch.randn(8, classes, generator=random) for _ in range(4)]
    labels = [torch.randint(0, classes, (8,), generator=random) for _ in range(4)]
    if _constant([float(loss(output, labels[0])) for output in outputs]):
        return "the net's output"
    if classes > 1 and _constant([float(loss(outputs[0], label)) for label in labels]):
        return "the labels"
    return None


def neighbour_agreement(
    images: Float[Tensor, "photos channels height width"], labels: Int64[Tensor, "photos"]
) -> tuple[Share, float, float]:
    """How often a photo has the label of the photo that looks most like it, and how often chance alone would do that.

    Pairs that are each other's neighbour, and photos that are the neighbour of many, make chance vary more than
    independent draws would: the labels are put in random orders to see by how much.

    Photos are compared as thumbnails of equal brightness and contrast, by the distance of their pixels (the nearest
    neighbour rule of Cover & Hart 1967). Exact copies do not count as neighbours.

    Args:
        images: at least 3; no more than 2,000 are looked at.
        labels: of each.

    Returns:
        The share, the mean of the shares that random orders of the labels give, and their standard deviation.
    """
    images, labels = images[:COMPARED].double(), labels[:COMPARED]
    side = min(THUMB, images.shape[2], images.shape[3])
    thumbs = nn.functional.adaptive_avg_pool2d(images, side).flatten(1)
    thumbs = thumbs - thumbs.mean(dim=1, keepdim=True)
    thumbs = thumbs / thumbs.norm(dim=1, keepdim=True).clamp_min(1e-12)
    likeness = thumbs @ thumbs.T
    likeness[likeness > 1 - 1e-9] = -math.inf  # itself, and its copies
    nearest = likeness.argmax(dim=1)
    right = int((labels[nearest] == labels).sum())
    random = torch.Generator().manual_seed(0)
    orders = (labels[torch.randperm(len(labels), generator=random)] for _ in range(ORDERS))
    shares = torch.stack([(order[nearest] == order).double().mean() for order in orders])
    return Share.of(right, len(labels)), float(shares.mean()), float(shares.std())


@contextmanager
def still(net: nn.Module) -> Iterator[None]:
    """Switch dropout off inside the block: a net that is to learn a few photos by heart needs no help to forget."""
    drops = [module for module in net.modules() if isinstance(module, nn.Dropout | nn.Dropout2d | nn.AlphaDropout)]
    modes = [module.training for module in drops]
    for module in drops:
        module.training = False
    try:
        yield
    finally:
        for module, mode in zip(drops, modes, strict=True):
            module.training = mode


@contextmanager
def _watching(net: nn.Module, seen: list[str], dead: dict[str, float]) -> Iterator[None]:
    """Note the layers with weights that are called, in order, and the dead units of every activation."""

    def note(name: str) -> Callable[[nn.Module, object, Tensor], None]:
        def hook(module: nn.Module, _: object, output: Tensor) -> None:
            if isinstance(module, RECTIFIERS + SQUASHES) and output.ndim > 1:
                dead[name] = dead_share(module, output)
            if name not in seen and any(True for _ in module.parameters(recurse=False)):
                seen.append(name)

        return hook

    hooks = [module.register_forward_hook(note(name)) for name, module in net.named_modules()]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _layer(name: str, module: nn.Module) -> Layer:
    own = list(module.parameters(recurse=False))
    gradients = [parameter.grad for parameter in own if parameter.grad is not None]
    weights = [parameter.detach() for parameter in own if parameter.ndim > 1] or [own[0].detach()]
    return Layer(
        name,
        frozen=sum(not parameter.requires_grad for parameter in own),
        parameters=len(own),
        gradient=_rms(gradients) if gradients else None,
        weight=_rms(weights),
    )


def _rms(tensors: list[Tensor]) -> float:
    values = torch.cat([tensor.detach().double().flatten() for tensor in tensors])
    return float(values.square().mean().sqrt())


def _constant(values: list[float]) -> bool:
    return bool(np.ptp(values) <= SAME * max(1.0, *map(abs, values)))
