"""What a net is trained to make small.

To add a loss: write a function `(logits, targets, class_weights) -> scalar` and add one line to `LOSSES`. The targets
are always probabilities there, one row a photo.
"""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from headstart.config import LoopConfig
from headstart.errors import ConfigError

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(
    logits: Float[Tensor, "batch classes"],
    targets: Float[Tensor, "batch classes"],
    class_weights: Float[Tensor, "classes"] | None = None,
) -> Float[Tensor, ""]:
    """Categorical cross-entropy: `-sum over c of w[c] * t[c] * log softmax(x)[c]`, the mean over the batch.

    The mean is over photos, not over their weights, so that the losses of several batches, or several computers, add up
    to the loss of all their photos.

    Args:
        logits: what the last layer gives, before softmax.
        targets: probabilities; one-hot labels are such.
        class_weights: how much each class counts, >= 0; None: each 1.
    """
    terms = targets * functional.log_softmax(logits, dim=1)
    return -(terms if class_weights is None else terms * class_weights).sum() / len(logits)


def mean_squared_error(
    logits: Float[Tensor, "batch classes"],
    targets: Float[Tensor, "batch classes"],
    class_weights: Float[Tensor, "classes"] | None = None,
) -> Float[Tensor, ""]:
    """`1/2 * sum over c of w[c] * (softmax(x)[c] - t[c])**2`, the mean over the batch.

    It compares probabilities, since probabilities are what a trained net is asked for.

    Args:
        logits, targets, class_weights: as of `cross_entropy`.
    """
    terms = (torch.softmax(logits, dim=1) - targets).square()
    return 0.5 * (terms if class_weights is None else terms * class_weights).sum() / len(logits)


#: name -> function of logits, target probabilities and class weights
LOSSES: dict[str, Callable[[Tensor, Tensor, Tensor | None], Tensor]] = {
    "cross-entropy": cross_entropy,
    "mse": mean_squared_error,
}


def make_loss(config: LoopConfig, classes: int, class_weights: Tensor | None = None) -> Loss:
    """The loss that the settings name, as a function of logits and targets.

    Label smoothing takes its share of each target and spreads it evenly over all classes: `(1 - s) * t + s / classes`
    (Szegedy et al. 2016, arXiv:1512.00567, section 7).

    Args:
        config: `loss` and `label_smoothing` count here.
        classes: number of classes, >= 1.
        class_weights: (classes,), how much each class counts, >= 0; None: each 1.

    Returns:
        A function of logits `(batch, classes)` and targets, which are labels `(batch,)` int64 or probabilities
        `(batch, classes)` float; it gives a scalar to call `backward` on.

    Raises:
        ConfigError: no loss has this name, the smoothing is out of range, or the weights do not fit the classes.
    """
    if config.loss not in LOSSES:
        raise ConfigError(f"unknown loss {config.loss!r}; choose one of: {', '.join(sorted(LOSSES))}")
    if not 0 <= config.label_smoothing < 1:
        raise ConfigError(f"setting label_smoothing must lie from 0 to below 1; received {config.label_smoothing:g}")
    if class_weights is not None and class_weights.shape != (classes,):
        raise ConfigError(f"{class_weights.numel()} class weights for {classes} classes; give one weight a class")
    function, smoothing = LOSSES[config.loss], config.label_smoothing

    def loss(logits: Tensor, targets: Tensor) -> Tensor:
        if function is cross_entropy and class_weights is None and not targets.is_floating_point():
            return functional.cross_entropy(logits, targets, label_smoothing=smoothing)  # the same, faster
        if not targets.is_floating_point():
            targets = functional.one_hot(targets, classes)
        targets = targets.to(logits.dtype)
        if smoothing:
            targets = (1 - smoothing) * targets + smoothing / classes
        return function(logits, targets, None if class_weights is None else class_weights.to(logits))

    return loss
