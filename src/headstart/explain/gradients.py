"""How the score of a class hangs on each pixel: the plain gradient, and what the rules of `rectifiers` make of it.

The score is the logit, never the probability: the gradient of a probability shows for the most part where the other
classes are. Pixels are those of the net's square, in the units of its normalisation.
"""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from headstart.errors import DataError, UsageError
from headstart.explain.explanation import Asked, Found
from headstart.explain.recording import to_numpy
from headstart.explain.rectifiers import Rule, rule
from headstart.explain.subject import Subject
from headstart.files import shown

EMPTY = "empty: nothing comes back to the pixels"
BLIND = "no max pooling: much the same for every photo"


def gradient(asked: Asked) -> Found:
    """The gradient of the class's logit: Simonyan, Vedaldi & Zisserman 2013 (arXiv:1312.6034), section 3.

    Args:
        asked: no settings.

    Returns:
        (channels, size, size), logits for one normalised unit of a pixel; signed.

    Raises:
        DataError: a number is not finite.
    """
    signal, _ = back_to_pixels(asked.subject, taken(asked.subject, asked.photo.pixels), asked.target)
    return _found(asked, signal, {"rule": "gradient"})


def input_x_gradient(asked: Asked) -> Found:
    """The gradient times the normalised pixel: Shrikumar et al. 2016, "Not just a black box" (arXiv:1605.01713).

    Of a linear net it is what each pixel adds to the logit, counted from the mean grey (normalised 0). Of others it
    has no such meaning: integrated gradients have.

    Args:
        asked: no settings.

    Returns:
        (channels, size, size), logits; signed.

    Raises:
        DataError: a number is not finite.
    """
    x = taken(asked.subject, asked.photo.pixels)
    signal, _ = back_to_pixels(asked.subject, x, asked.target)
    return _found(asked, signal * x, {"rule": "gradient", "times": "normalised pixels"})


def guided(asked: Asked) -> Found:
    """Guided backpropagation: Springenberg et al. 2015, "Striving for simplicity" (arXiv:1412.6806), section 3.4.

    It starts with 1 at the class's logit. What it draws is what the lower layers respond to: it hardly changes with
    the class, nor when the last layers are made random (Adebayo et al. 2018, arXiv:1810.03292).

    Args:
        asked: no settings.

    Returns:
        (channels, size, size), arbitrary unit; signed.

    Raises:
        UsageError: the net has another activation than rectifiers, or none.
        DataError: a number is not finite.
    """
    signal, count = back_to_pixels(asked.subject, taken(asked.subject, asked.photo.pixels), asked.target, "guided")
    return _found(asked, signal, {"rule": "guided", "rectifiers": count, "start": 1.0})


def deconv(asked: Asked) -> Found:
    """The deconvnet: Zeiler & Fergus 2014, "Visualizing and understanding convolutional networks" (arXiv:1311.2901).

    Section 2.1: the signal goes back through the transposed convolutions, is rectified at each rectifier, and at each
    max pooling returns to the place where the maximum was. These places are all that it knows of the photo.

    Args:
        asked: the setting `anyway` (default False) asks for it also of a net without max pooling.

    Returns:
        (channels, size, size), arbitrary unit; signed.

    Raises:
        UsageError: the net has no max pooling, or another activation than rectifiers, or none.
        DataError: a number is not finite.
    """
    pools = max_pools(asked.subject)
    if not pools and not asked.settings.get("anyway", False):
        raise UsageError(
            f"{shown(asked.subject.name)} has no max pooling, and the deconvnet knows the photo only from the places "
            "of the maxima: its picture would be much the same for every photo; use guided backpropagation "
            "(--method guided), or ask for it anyway (--anyway)"
        )
    signal, count = back_to_pixels(asked.subject, taken(asked.subject, asked.photo.pixels), asked.target, "deconv")
    parameters = {"rule": "deconv", "rectifiers": count, "start": 1.0, "max_pools": len(pools)}
    return _found(asked, signal, parameters, () if pools else (BLIND,))


def back_to_pixels(
    subject: Subject, x: Float[Tensor, "batch channels height width"], target: int, name: Rule = "gradient"
) -> tuple[Float[Tensor, "batch channels height width"], int]:
    """What comes back to the pixels of each photo when 1 is put in at the logit of a class.

    Args:
        subject: the net; its precision is that of the computation.
        x: normalised pixels, in the net's precision.
        target: the class.
        name: the rule at the rectifiers.

    Returns:
        The signal, and the number of rectifiers that follow the rule.

    Raises:
        UsageError: as of `headstart.explain.rectifiers.rule`; or the net has no rectifier, and a rule would do nothing.
    """
    with torch.enable_grad(), rule(subject.net, name) as count:
        if name != "gradient" and count == 0:
            raise UsageError(
                f"{shown(subject.name)} has no rectifier (ReLU, ReLU6), so that the rule of {name} would give the "
                "plain gradient; use --method gradient"
            )
        leaf = x.detach().requires_grad_()
        (signal,) = torch.autograd.grad(subject.net(leaf)[:, target].sum(), leaf)
    return signal, count


def taken(subject: Subject, pixels: UInt8[Any, "size size channels"]) -> Float[Tensor, "1 channels size size"]:
    """One prepared photo as the net takes it, in the precision of its weights."""
    weight = next((value for value in subject.net.parameters() if value.is_floating_point()), None)
    x = subject.normalised(pixels)
    return x if weight is None else x.to(weight)


def max_pools(subject: Subject) -> tuple[str, ...]:
    """Names of the net's max-pooling layers; those above a run's cut count too."""
    kinds = nn.MaxPool2d | nn.AdaptiveMaxPool2d
    return tuple(name for name, module in subject.trunk.named_modules() if isinstance(module, kinds))


def refuse_not_finite(asked: Asked, what: str, *values: Tensor) -> None:
    """Raises DataError: NaN or infinity among the values; it would be drawn as if it were evidence."""
    if not all(bool(torch.isfinite(value).all()) for value in values):
        raise DataError(
            f"{what} of {shown(asked.photo.name)} for {shown(asked.subject.classes[asked.target])} is not finite: "
            f"expected numbers, received NaN or infinity; the weights of {shown(asked.subject.name)} may have diverged "
            "in training, so train again with a lower learning rate"
        )


def _found(asked: Asked, signal: Tensor, parameters: Mapping[str, Any], stamps: tuple[str, ...] = ()) -> Found:
    refuse_not_finite(asked, "the gradient", signal)
    asked.step(1, 1, str(parameters["rule"]))
    empty = () if bool(signal.any()) else (EMPTY,)
    return Found(to_numpy(signal[0]), stamps=(*stamps, *empty), parameters=dict(parameters))
