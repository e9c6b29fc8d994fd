"""What a classifier says of photos it has not seen, and whether another one says better of the same ones."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64, Int64

from headstart.heads.calibration import tempered_losses
from headstart.transfer.probes import mean_and_error

CLEARLY = 2.0  # standard errors of a log loss; within it a second look at other photos may well say the contrary

Fold = tuple[Float[np.ndarray, "photos classes"], Int64[np.ndarray, "photos"]]  # logits, labels


@dataclass(frozen=True, eq=False)
class HeldOut:
    """A classifier's answers to the training photos, each held out when it was answered.

    Args:
        correct: whether the photo was right.
        losses: its log loss, nats.
    """

    correct: Bool[np.ndarray, "photos"]
    losses: Float64[np.ndarray, "photos"]

    @classmethod
    def of(cls, logits: Float[np.ndarray, "photos classes"], labels: Int64[np.ndarray, "photos"]) -> "HeldOut":
        """From held-out logits, such as `FittedHead.held_out`; losses at the temperature that suits them best.

        What is compared takes its temperature from the same photos: over more of them its prior is sharper, and whoever
        is calibrated so seems better by that alone.
        """
        return cls(np.asarray(logits.argmax(axis=1) == labels), tempered_losses(logits, labels))


@dataclass(frozen=True, eq=False)
class Answers:
    """What a way to train says of photos held out, fold by fold: each was fitted without the photos it answers.

    Args:
        name: "the head", "strategy deeper".
        folds: logits and labels.
    """

    name: str
    folds: tuple[Fold, ...]

    def held_out(self, count: int) -> HeldOut:
        """Its answers to the photos of the first `count` folds together."""
        logits, labels = zip(*self.folds[:count], strict=True)
        return HeldOut.of(np.concatenate(logits), np.concatenate(labels))


def is_better(new: HeldOut, old: HeldOut) -> bool:
    """Whether a network takes the place of what stands.

    Its log loss on the same photos must be clearly lower, or lower with an accuracy that is clearly higher; clearly is
    by more than one standard error, photo by photo.

    >>> old, losses = HeldOut(np.arange(40) < 26, np.full(40, 1.0)), 0.4 + np.arange(40) % 2 * 1.1  # 0.95 on average
    >>> [is_better(HeldOut(np.arange(40) < right, losses), old) for right in (26, 33)]
    [False, True]
    >>> [is_better(HeldOut(np.arange(40) < 33, losses + more), old) for more in (0.1, -0.2)]
    [False, True]
    """
    lower, error = mean_and_error(old.losses - new.losses)
    more, spread = mean_and_error(new.correct.astype(np.float64) - old.correct)
    return lower > error or (lower > 0 and more > spread)


def is_beyond_doubt(new: HeldOut, old: HeldOut) -> bool:
    """Whether the log loss is lower by so much that other photos would hardly say otherwise.

    >>> losses = 1.0 + np.arange(40) % 2
    >>> old = HeldOut(np.arange(40) < 26, losses)
    >>> [is_beyond_doubt(HeldOut(old.correct, losses - less * losses), old) for less in (0.01, 0.0)]
    [True, False]
    """
    lower, error = mean_and_error(old.losses - new.losses)
    return lower > CLEARLY * error
