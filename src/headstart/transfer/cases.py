"""The four cases of transfer learning: how many photos, how similar, and what each case does."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Int64

from headstart.errors import UsageError
from headstart.transfer.similarity import DIFFERENT, SIMILAR, Similarity

PHOTOS_A_CLASS = 200  # on average, from which a data set can be large
PARAMETERS_A_PHOTO = 1_000  # at most, where it is

# From the cheapest to the dearest; the order in which candidates are tried.
STRATEGIES: dict[str, str] = {
    "head": "the whole net stays frozen, and a new last layer is trained",
    "early": "the net is cut near its beginning, and a new layer is trained on the early features",
    "deeper": "a new last layer is trained, then more blocks from the top with it",
    "full": "the last layer is replaced, and everything is retrained from the pretrained weights",
    "scratch": "the same net is trained from random weights",
}


@dataclass(frozen=True)
class Case:
    """One of the four cases.

    Args:
        name: as in `plan.json`.
        strategy: what the rule says, a name of `STRATEGIES`.
        candidates: what is worth measuring, the rule's own strategy among them; from cheap to dear.
        sentence: what is done and why.
    """

    name: str
    strategy: str
    candidates: tuple[str, ...]
    sentence: str


CASES: dict[str, Case] = {
    case.name: case
    for case in (
        Case(
            "small-similar",
            "head",
            ("head", "early"),
            "Few photos of things like those the backbone knows: its last features fit, and retraining it would "
            "overfit; it stays frozen, and a new last layer is trained.",
        ),
        Case(
            "small-different",
            "early",
            ("head", "early", "deeper"),
            "Few photos of things that the backbone does not know: its first layers fit them better than its last "
            "ones; it is cut near its beginning, and a new layer is trained on the early features.",
        ),
        Case(
            "large-similar",
            "full",
            ("head", "deeper", "full"),
            "Many photos of things like those the backbone knows: they are enough to retrain everything without "
            "overfitting; the last layer is replaced and training starts from the pretrained weights.",
        ),
        Case(
            "large-different",
            "scratch",
            ("head", "early", "deeper", "full", "scratch"),
            "Many photos of things that the backbone does not know: they are enough to train the net from random "
            "weights, or from the pretrained ones where that does better.",
        ),
    )
}


@dataclass(frozen=True)
class Size:
    """How many training photos there are, and whether that is a small or a large data set.

    Args:
        photos: in all.
        classes: how many there are.
        smallest: photos of the class that has fewest.
        parameters: that would be learned if the whole net were retrained.
        large: the verdict.
        why: the rule with its numbers, one sentence.
    """

    photos: int
    classes: int
    smallest: int
    parameters: int
    large: bool
    why: str

    @property
    def enough(self) -> int:
        """Photos from which a data set of so many classes counts as large by the rule, for this net."""
        return max(PHOTOS_A_CLASS * self.classes, math.ceil(self.parameters / PARAMETERS_A_PHOTO))

    def to_json(self) -> dict[str, Any]:
        """Return every field, and `enough`."""
        return asdict(self) | {"enough": self.enough}


def judge_size(
    counts: Int64[np.ndarray, "classes"] | Sequence[int], parameters: int, *, large: bool | None = None
) -> Size:
    """Judge whether a data set is large enough to retrain a whole net.

    It is large with at least 200 photos a class on average and at least one photo for every 1,000 parameters of the
    net. The first says whether each class is known, the second whether the net would overfit. A rule of thumb: where
    the evidence is measured it has the last word.

    Args:
        counts: training photos of each class, >= 0.
        parameters: of the net that would be retrained, >= 1.
        large: the user's own word; None: by the rule.

    Returns:
        The verdict with its reason.

    Raises:
        UsageError: there is no class, a count is negative, or a net without parameters.

    >>> size = judge_size([122, 122], 3_373_922)
    >>> size.large, size.enough
    (False, 3374)
    >>> judge_size([122, 122], 3_373_922, large=True).large
    True
    """
    numbers = [int(count) for count in counts]
    if not numbers or min(numbers) < 0 or parameters < 1:
        raise UsageError(
            "the size of a data set is judged by its photos of each class (>= 0) and the net's parameters (>= 1); "
            f"received {numbers[:8]} and {parameters}"
        )
    photos = sum(numbers)
    size = Size(photos, len(numbers), min(numbers), parameters, large=False, why="")
    by_rule = photos >= size.enough
    verdict = by_rule if large is None else large
    facts = (
        f"{photos:,} training photos, {photos / len(numbers):,.0f} a class, for {parameters:,} parameters: "
        f"{_word(by_rule)} (large is from {size.enough:,} photos: {PHOTOS_A_CLASS} a class, and one for every "
        f"{PARAMETERS_A_PHOTO:,} parameters)."
    )
    how = " with --large" if large else ""
    told = "" if verdict == by_rule else f" Counted as {_word(verdict)} all the same, as asked for{how}."
    return Size(photos, len(numbers), min(numbers), parameters, large=verdict, why=facts + told)


def find_case(size: Size, similarity: Similarity) -> tuple[Case, tuple[str, ...], str]:
    """Return the case of a data set, the strategies worth measuring, and why.

    Where the photos are neither similar nor different, the nearer side, on a logarithmic scale, names the case, and the
    candidates are those of both sides.

    Args:
        size: from `judge_size`.
        similarity: from `headstart.transfer.similarity`.

    Returns:
        The case; names of `STRATEGIES`, from cheap to dear; a sentence.
    """
    here, there = ("large" if size.large else "small"), nearer_side(similarity)
    case = CASES[f"{here}-{there}"]
    if similarity.verdict != "in between":
        return case, case.candidates, f"The case {case.name}. {case.sentence}"
    both = {*CASES[f"{here}-similar"].candidates, *CASES[f"{here}-different"].candidates}
    why = (
        f"Between the cases {here}-similar and {here}-different, nearer to {case.name}; the strategies of both are "
        f"candidates. {case.sentence}"
    )
    return case, tuple(name for name in STRATEGIES if name in both), why


def nearer_side(similarity: Similarity) -> str:
    """Return "similar" or "different": the verdict, or in between the nearer threshold on a logarithmic scale."""
    if similarity.verdict != "in between":
        return similarity.verdict
    return "similar" if similarity.value <= math.sqrt(SIMILAR * DIFFERENT) else "different"


def _word(large: bool) -> str:
    return "large" if large else "small"
