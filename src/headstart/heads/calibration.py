"""From logits to probabilities: one number, the temperature, fitted to logits of held-out photos."""

import numpy as np
from jaxtyping import Float, Float64, Int64

from headstart.errors import DataError

LOWEST, HIGHEST = 1e-3, 1e3  # the temperature stays between them, whatever the logits
STEPS = 60  # of the safeguarded Newton iteration; some 6 are enough for ordinary logits
EXACT, ROUGH = 1e-7, 1e-3  # parts of a temperature; a log loss at its lowest point changes by their square


def probabilities(
    logits: Float[np.ndarray, "photos classes"], temperature: float
) -> Float64[np.ndarray, "photos classes"]:
    """Return softmax(logits / temperature); rows sum to 1.

    >>> probabilities(np.array([[2.0, 0.0]]), 2.0).round(3)
    array([[0.731, 0.269]])
    """
    raised = np.exp(log_softmax(logits, temperature))
    return np.asarray(raised / raised.sum(axis=1, keepdims=True))


def log_softmax(
    logits: Float[np.ndarray, "photos classes"], temperature: float = 1.0
) -> Float64[np.ndarray, "photos classes"]:
    """Natural logarithm of softmax(logits / temperature)."""
    scaled = logits.astype(np.float64) / temperature
    scaled -= scaled.max(axis=1, keepdims=True)
    return np.asarray(scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True)))


def fit_temperature(
    logits: Float[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"], *, tolerance: float = EXACT
) -> float:
    """Temperature with the lowest log loss on held-out logits (Guo et al. 2017, arXiv:1706.04599, section 4.2).

    Where every photo is told apart, the lowest log loss would be at infinite sharpness. So the target is not 1 for the
    label but 1 - 1/(n + 2), the rest shared by the other classes: Platt's prior (Platt 1999, section 2.2), which
    fades with the number of photos n. The same is used for the scores of ridge, which are no log odds of their own.

    Args:
        logits: of photos that the model has not seen.
        labels: 0..classes-1.
        tolerance: part of the temperature up to which it is found.

    Returns:
        The temperature, between 0.001 and 1000: logits are divided by it.

    Raises:
        DataError: there is no photo, or a logit is not finite.

    >>> sharp = np.array([[1.0, 0.0], [0.0, 1.0], [0.6, 0.4]])
    >>> 0.001 < fit_temperature(sharp, np.array([0, 1, 0])) < 1
    True
    """
    if not len(logits) or not np.isfinite(logits).all():
        raise DataError(
            f"a temperature is fitted to finite logits of at least one photo; received {len(logits)} photos"
        )
    centred = logits.astype(np.float64)
    centred -= centred.max(axis=1, keepdims=True)
    count, classes = centred.shape
    rest = 1 / (count + 2)
    own = centred[np.arange(count), labels]
    others = (centred.sum(axis=1) - own) / max(classes - 1, 1)
    target = float(np.mean((1 - rest) * own + rest * others))
    return 1 / _sharpness(centred, target, tolerance)


def _sharpness(centred: Float64[np.ndarray, "photos classes"], target: float, tolerance: float) -> float:
    """Where the slope of the log loss over the sharpness is 0; the log loss is convex in it (a log-sum-exp)."""
    low, high = 1 / HIGHEST, 1 / LOWEST
    spread = float(np.sqrt(np.mean(np.square(centred - centred.mean(axis=1, keepdims=True)))))
    sharpness = min(max(1 / spread if spread > 0 else 1.0, low), high)
    for _ in range(STEPS):
        raised = np.exp(centred * sharpness)
        raised /= raised.sum(axis=1, keepdims=True)
        weighted = raised * centred
        mean = weighted.sum(axis=1)
        slope = float(mean.mean()) - target
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        curvature = float(np.mean(np.einsum("ij,ij->i", weighted, centred) - mean**2))
        following = sharpness - slope / curvature if curvature > 0 else 0.0
        if not low < following < high:
            following = float(np.sqrt(low * high))
        if abs(following - sharpness) <= tolerance * sharpness:
            break
        sharpness = following
    return sharpness


def tempered_losses(
    logits: Float[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"]
) -> Float64[np.ndarray, "photos"]:
    """Log loss of each photo, in nats, at the temperature fitted to these logits: what candidates are compared by.

    The target has the same prior as in `fit_temperature`: otherwise a candidate that happens to separate all of a few
    photos would beat every other by any margin.
    """
    logs = log_softmax(logits, fit_temperature(logits, labels, tolerance=ROUGH))
    count, classes = logs.shape
    rest = 1 / (count + 2)
    own = logs[np.arange(count), labels]
    return np.asarray(-(1 - rest) * own - rest * (logs.sum(axis=1) - own) / max(classes - 1, 1))
