"""Grad-CAM: which places of a map speak for a class, by the mean gradient of each of its channels. Any net, any layer.

Selvaraju et al. 2017 (arXiv:1610.02391), section 3: with maps A_k of a layer and the logit y of a class,

    a_k = mean over places of dy/dA_k        M = sum_k a_k A_k        drawn: max(M, 0)

Where the net behind the layer is a mean over places and then linear, the map times its number of places is the class
activation map, so that its sum and the bias are the logit. Anywhere else no such identity holds: an approximation.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from headstart.errors import UsageError
from headstart.explain.explanation import Asked, Check, Found
from headstart.explain.gradients import EMPTY, back_to_pixels, refuse_not_finite, taken
from headstart.explain.placing import spread
from headstart.explain.recording import module_of, to_numpy
from headstart.explain.subject import Subject, unknown_layer
from headstart.files import shown

LAW = "sum of the map + bias = logit"
SAME = 1e-3  # share of the largest gradient by which it may differ from place to place, float32
NOT_MAPS = ("Dropout", "Identity", "Flatten")  # layers that give a map on as it came


@dataclass(frozen=True, eq=False)
class Weighted:
    """Grad-CAM of one photo, before anything is thrown away.

    Args:
        maps: of the layer, (channels, rows, columns).
        slopes: the logit's gradient there.
        logit: of the class.
        without: the logit when the maps are all 0: the bias, where what follows is linear.
    """

    maps: Float[Tensor, "channels rows columns"]
    slopes: Float[Tensor, "channels rows columns"]
    logit: float
    without: float

    @property
    def raw(self) -> Float[Tensor, "rows columns"]:
        """`sum_k a_k A_k`, not rectified: logits."""
        return (self.slopes.mean(dim=(1, 2), keepdim=True) * self.maps).sum(dim=0)

    @property
    def check(self) -> Check:
        """Whether the sum of the map and the bias are the logit."""
        return Check(float(self.raw.sum()) + self.without, self.logit, LAW)

    @property
    def exact(self) -> bool:
        """Whether the map adds up, with the same gradient at every place of a channel."""
        uneven = (self.slopes - self.slopes.mean(dim=(1, 2), keepdim=True)).abs().max()
        return bool(uneven <= SAME * self.slopes.abs().max()) and self.check.holds


def grad_cam(asked: Asked) -> Found:
    """Grad-CAM of the class's logit.

    Args:
        asked: `layer` is any that gives a map; None: `default_layer`. No settings.

    Returns:
        (rows, columns), logits; signed: below 0 speaks against the class. With a check where the identity holds, else
        with the stamp "approximation".

    Raises:
        UsageError: there is no such layer, it gives no map, or it does not run.
        DataError: a number is not finite.
    """
    layer = asked.layer or default_layer(asked.subject)
    seen = weighted(asked.subject, taken(asked.subject, asked.photo.pixels), asked.target, layer)
    refuse_not_finite(asked, "the gradient", seen.maps, seen.slopes)
    asked.step(1, 1, "gradcam")
    stamps: tuple[str, ...] = () if seen.exact else ("approximation",)
    parameters = {"bias": seen.without} if seen.exact else {}
    return Found(to_numpy(seen.raw), layer, seen.check if seen.exact else None, stamps, parameters)


def guided_grad_cam(asked: Asked) -> Found:
    """Guided backpropagation times the rectified Grad-CAM map (section 3.2): fine lines where the class is.

    Args:
        asked: as of `grad_cam`.

    Returns:
        (channels, size, size), arbitrary unit; signed.

    Raises:
        UsageError: as of `grad_cam` and of guided backpropagation.
        DataError: a number is not finite.
    """
    layer = asked.layer or default_layer(asked.subject)
    x = taken(asked.subject, asked.photo.pixels)
    seen = weighted(asked.subject, x, asked.target, layer)
    fine, count = back_to_pixels(asked.subject, x, asked.target, "guided")
    refuse_not_finite(asked, "the gradient", seen.maps, seen.slopes, fine)
    asked.step(1, 1, "guided Grad-CAM")
    coarse = np.maximum(to_numpy(seen.raw).astype(np.float64), 0.0)
    raw = (to_numpy(fine[0]) * spread(coarse, fine.shape[3], fine.shape[2])).astype(np.float32)
    return Found(raw, layer, None, () if raw.any() else (EMPTY,), {"rule": "guided", "rectifiers": count})


def weighted(subject: Subject, x: Float[Tensor, "1 channels height width"], target: int, layer: str) -> Weighted:
    """The maps of a layer and the gradient of a logit there; the net below the layer runs without gradients.

    Raises:
        UsageError: there is no such layer, it gives no map, or it does not run.
    """
    module = subject.trunk.get_submodule(module_of(subject, layer))
    with torch.enable_grad(), _cut_at(module) as caught:
        logit = subject.net(x.detach())[0, target]
    if "map" not in caught:
        raise unknown_layer(subject, layer)
    maps = caught["map"]
    if maps.ndim != 4:
        raise UsageError(
            f"{shown(layer)} of {shown(subject.name)} gives {maps.shape[1]} numbers and no map: Grad-CAM needs a layer "
            f"with rows and columns, such as {default_layer(subject)}"
        )
    if not logit.requires_grad:
        raise UsageError(
            f"the logits of {shown(subject.name)} do not depend on {shown(layer)}: choose a layer on their way"
        )
    (slopes,) = torch.autograd.grad(logit, maps)
    with torch.no_grad(), _cut_at(module, erase=True):
        without = subject.net(x.detach())[0, target]
    return Weighted(maps[0].detach(), slopes[0], float(logit.detach()), float(without))


def default_layer(subject: Subject) -> str:
    """The last map before the pooling, after its activation: where Grad-CAM shows most, and is exact if anywhere.

    Raises:
        UsageError: the net has no map with more than one place.
    """
    rows, modules = list(subject.summary.layers), dict(subject.trunk.named_modules())
    top = "pooled" if subject.classifier is None else subject.classifier.cut.removesuffix("_map")
    end = next((place for place, row in enumerate(rows) if top in (*row.stages, row.name)), len(rows) - 1)
    for row in reversed(rows[: end + 1]):
        pooled = "Pool" in row.type or row.type in NOT_MAPS
        if len(row.output_shape) == 3 and row.output_shape[0] * row.output_shape[1] > 1 and not pooled:
            # a sum or a concatenation has the name of the part that makes it, and its own behind a dot
            name = row.stages[0] if row.stages else row.name if row.name in modules else row.name.rpartition(".")[0]
            if name:
                return name
    raise UsageError(f"{shown(subject.name)} has no map with rows and columns; use --method gradient or occlusion")


@contextmanager
def _cut_at(module: nn.Module, erase: bool = False) -> Iterator[dict[str, Tensor]]:
    """Catch what a layer gives, and let the net go on from there: a gradient goes back to it and no further.

    Args:
        module: the layer.
        erase: zeros go on in its place.
    """
    caught: dict[str, Tensor] = {}

    def catch(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        caught["map"] = torch.zeros_like(output) if erase else output.detach().requires_grad_()
        return caught["map"]

    handle = module.register_forward_hook(catch)
    try:
        yield caught
    finally:
        handle.remove()
