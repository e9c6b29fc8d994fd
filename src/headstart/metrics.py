"""How good predictions are, and how sure that figure is: accuracy, classes, confusion, calibration, comparison."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from headstart.errors import UsageError

Z95 = 1.959963984540054  # the 97.5 % quantile of the normal distribution
ECE_BINS = 15
LEAST_PROBABILITY = 1e-15  # log loss counts nothing as more impossible than this
TOP = (1, 3, 5)
MOST_PAIRS = 10
EXACT_COMBINATIONS = 1000  # flips up to which the binomial sum is done in whole numbers


def accuracy_interval(correct: int, count: int) -> tuple[float, float]:
    """Wilson 95 % interval of a share (Wilson 1927, J. Am. Stat. Assoc. 22, 209-212).

    Args:
        correct: successes, 0..count.
        count: trials, >= 1.

    Returns:
        Lower and upper bound, 0..1. It never leaves 0..1 and is not empty at 0 or `count` successes.

    Raises:
        UsageError: no trials, or more successes than trials.

    >>> low, high = accuracy_interval(145, 153)
    >>> f"{low:.3f} {high:.3f}"
    '0.900 0.973'
    """
    if count < 1 or not 0 <= correct <= count:
        raise UsageError(f"an interval needs 0 <= correct <= count and count >= 1; received {correct} of {count}")
    share = correct / count
    middle = share + Z95**2 / (2 * count)
    reach = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2))
    scale = 1 + Z95**2 / count
    low = 0.0 if correct == 0 else max(0.0, (middle - reach) / scale)
    high = 1.0 if correct == count else min(1.0, (middle + reach) / scale)
    return low, high


def confusion(
    labels: Int64[np.ndarray, "photos"], predicted: Int64[np.ndarray, "photos"], classes: int
) -> Int64[np.ndarray, "classes classes"]:
    """Count the photos of each true class (rows) that were given each class (columns)."""
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    return counts


def per_class(counts: Int64[np.ndarray, "classes classes"], classes: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Precision, recall, F1 and support of each class, from a confusion matrix.

    What is undefined is None: the precision of a class that was never predicted, the recall of one without photos. F1
    is 2 TP / (2 TP + FP + FN): 0 for a class that was never found, and None only where there is nothing to count.
    """
    rows = {}
    for index, name in enumerate(classes):
        hit, true, said = (int(value) for value in (counts[index, index], counts[index].sum(), counts[:, index].sum()))
        rows[name] = {
            "precision": hit / said if said else None,
            "recall": hit / true if true else None,
            "f1": 2 * hit / (true + said) if true + said else None,
            "support": true,
        }
    return rows


def most_confused(counts: Int64[np.ndarray, "classes classes"], classes: Sequence[str]) -> list[dict[str, Any]]:
    """List the pairs of classes most often taken for each other, the largest count first, at most `MOST_PAIRS`."""
    off = counts - np.diag(np.diag(counts))
    order = np.argsort(-off, axis=None, kind="stable")[:MOST_PAIRS]
    pairs = [divmod(int(place), len(classes)) for place in order]
    return [
        {"true": classes[true], "predicted": classes[said], "count": int(off[true, said])}
        for true, said in pairs
        if off[true, said]
    ]


def log_loss(probabilities: Float64[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"]) -> float:
    """Mean of -ln(probability given to the true class); 0 is perfect, ln(classes) is guessing."""
    own = probabilities[np.arange(len(labels)), labels]
    return float(-np.log(np.maximum(own, LEAST_PROBABILITY)).mean())


def brier(probabilities: Float64[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"]) -> float:
    """Mean over photos of the summed squared distance to the one-hot label, 0..2 (Brier 1950)."""
    distance = probabilities.copy()
    distance[np.arange(len(labels)), labels] -= 1.0
    return float((distance**2).sum(axis=1).mean())


def ece(probabilities: Float64[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"]) -> float:
    """Expected calibration error of the predicted class, 0..1 (Guo et al. 2017, arXiv:1706.04599, equation 3).

    The photos are put into 15 bins of equal width by the probability of the predicted class, each bin open below and
    closed above; the distance between mean probability and accuracy of each is averaged by its share of the photos.
    """
    said = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    bins = np.clip(np.ceil(said * ECE_BINS).astype(np.int64) - 1, 0, ECE_BINS - 1)
    gaps = np.bincount(bins, weights=said, minlength=ECE_BINS) - np.bincount(bins, weights=right, minlength=ECE_BINS)
    return float(np.abs(gaps).sum() / len(labels))


def top_k(probabilities: Float64[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"], k: int) -> float:
    """Share of photos whose true class is among the k most probable; of equal ones the first comes first."""
    best = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    return float((best == labels[:, None]).any(axis=1).mean())


def mcnemar(fixed: int, broken: int) -> float:
    """Exact two-sided p-value that two classifiers err equally often (McNemar 1947, binomial form).

    Args:
        fixed: photos only the second gets right.
        broken: photos only the first gets right.

    Returns:
        Probability, 0..1, of a difference at least so large if each flip were a fair coin.

    >>> mcnemar(1, 9)
    0.021484375
    """
    flips, fewer = fixed + broken, min(fixed, broken)
    if flips <= EXACT_COMBINATIONS:
        tail: float = sum(math.comb(flips, k) for k in range(fewer + 1)) / (1 << flips)
    else:
        whole = math.lgamma(flips + 1) - flips * math.log(2)
        tail = math.fsum(math.exp(whole - math.lgamma(k + 1) - math.lgamma(flips - k + 1)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def difference_interval(fixed: int, broken: int, count: int) -> tuple[float, float]:
    """95 % interval of the accuracy of the second classifier minus that of the first, on the same photos.

    The adjusted Wald interval for paired shares: one photo is added to each kind of flip and two to the count
    (Bonett & Price 2012, J. Educ. Behav. Stat. 37, 479-488).

    Args:
        fixed: photos only the second gets right.
        broken: photos only the first gets right.
        count: photos in all, >= 1.

    Returns:
        Lower and upper bound, -1..1.
    """
    if count < 1 or fixed < 0 or broken < 0 or fixed + broken > count:
        raise UsageError(f"an interval needs fixed + broken <= count; received {fixed}, {broken} of {count}")
    up, down, total = (fixed + 1) / (count + 2), (broken + 1) / (count + 2), count + 2
    difference = up - down
    reach = Z95 * math.sqrt((up + down - difference**2) / total)
    return max(-1.0, difference - reach), min(1.0, difference + reach)


def evaluate(
    probabilities: Float64[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"], classes: Sequence[str]
) -> dict[str, Any]:
    """Every measure of a set of predictions, as plain values that JSON can hold.

    Args:
        probabilities: finite, rows sum to 1.
        labels: the true classes, 0..classes-1.
        classes: the names.

    Returns:
        n, accuracy, accuracy_ci95 (Wilson), macro_f1 (mean over the classes where F1 is defined), per_class, confusion
        (rows true, columns predicted), most_confused, log_loss, brier, ece, top_k ({"1": share, ...}).

    Raises:
        UsageError: no photos, labels out of range, shapes that do not belong together, or values that are not finite.
    """
    if len(labels) == 0 or probabilities.shape != (len(labels), len(classes)):
        raise UsageError(
            f"measuring needs one row of {len(classes)} probabilities for each of 1 or more labels; "
            f"received {probabilities.shape} for {len(labels)} labels"
        )
    if labels.min() < 0 or labels.max() >= len(classes) or not np.isfinite(probabilities).all():
        raise UsageError(f"measuring needs labels in 0..{len(classes) - 1} and finite probabilities")
    predicted = probabilities.argmax(axis=1)
    counts = confusion(labels, predicted, len(classes))
    correct = int(np.trace(counts))
    rows = per_class(counts, classes)
    defined = [row["f1"] for row in rows.values() if row["f1"] is not None]
    return {
        "n": len(labels),
        "accuracy": correct / len(labels),
        "accuracy_ci95": list(accuracy_interval(correct, len(labels))),
        "macro_f1": sum(defined) / len(defined),
        "per_class": rows,
        "confusion": counts.tolist(),
        "most_confused": most_confused(counts, classes),
        "log_loss": log_loss(probabilities, labels),
        "brier": brier(probabilities, labels),
        "ece": ece(probabilities, labels),
        "top_k": {str(k): top_k(probabilities, labels, k) for k in TOP if k <= len(classes)},
    }
