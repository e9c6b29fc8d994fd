"""Which photos a model may learn from, and which judge it once at the end.

The choice depends on the seed and on names alone: each cluster of photos gets a place in line from the SHA-256 of the
seed and its first path. So it is the same on every machine and with every version of NumPy, and photos that are added
later change little of it (and nothing in the other classes).
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter

import numpy as np
from jaxtyping import Int64

from headstart.dataset import Dataset, list_names
from headstart.errors import DataError, UsageError

LEAST_TRAIN = 2  # independent photos of a class: one can be held out and there is still one to learn from
LEAST_TEST = 1

LABEL_CONFLICT = "the same photo is there under two labels"
ALSO_IN_TEST = "also in the test set, as a copy, a near copy or in the same group"
ALSO_IN_VALIDATION = "also in the validation set, as a copy, a near copy or in the same group"


@dataclass(frozen=True, eq=False)
class Split:
    """The photos of each part, as ascending indices into `Dataset.photos`; no photo and no cluster is in two parts.

    Args:
        train: to learn from.
        validation: given by the data for choosing settings; empty where they give none: then cross-validate on `folds`.
        test: seen once, at the end; no choice of anything depends on it.
        folds: the fold of each train photo, 0, 1, ...; clusters are whole, classes are spread evenly.
        kept_out: photo index -> why it is in no part.
        how: one sentence, where the test comes from.
        apart: the validation photos were training photos and were set apart; else the data gave them or have none.
    """

    train: Int64[np.ndarray, "train"]
    validation: Int64[np.ndarray, "validation"]
    test: Int64[np.ndarray, "test"]
    folds: Int64[np.ndarray, "train"]
    kept_out: dict[int, str]
    how: str
    apart: bool = False


def make_split(
    dataset: Dataset,
    usable: Sequence[int],
    clusters: Int64[np.ndarray, "photos"],
    *,
    seed: int,
    test_fraction: float = 0.2,
    folds: int = 5,
    digests: Sequence[str] | None = None,
) -> Split:
    """Divide the usable photos into training, validation and final test.

    The final test is the `test` split of the data if they have one (then `val`, if present, is the validation set),
    else their `val` split, else a stratified hold-out. Photos that the data put into no split are training photos
    where others are in one. A given split is never re-assigned; only, a training photo in a cluster with a test photo
    is left out, and so is a validation photo, and a training photo in a cluster with a validation photo.

    Args:
        dataset: the photos.
        usable: indices of the photos that can be decoded.
        clusters: for each photo of the data set a number; photos of the same number (copies, near copies, one group)
            stay on one side.
        seed: of the hold-out and the folds, any whole number.
        test_fraction: share of each class in the hold-out, above 0 and below 1; rounded to the nearest photo, and at
            least one photo.
        folds: parts of the training photos, at least 2; fewer where there are fewer clusters.
        digests: the content of each photo of the data set (any text that is equal for equal bytes). Photos of equal
            content under two labels are kept out of every part. None: not checked.

    Returns:
        The split, the same for the same names, labels, clusters and seed on every machine.

    Raises:
        DataError: fewer than two classes; a class with too few photos; no training photos; a class of the test or
            validation set that the training set lacks. Names and counts are in the message.
        UsageError: a fraction, a number of folds or a length that makes no sense.
    """
    _check_arguments(dataset, clusters, test_fraction, folds, digests)
    kept_out = _find_conflicts(dataset, usable, digests)
    conflicts = len(kept_out)
    try:
        return _divide(dataset, sorted(set(usable) - kept_out.keys()), clusters, kept_out, seed, test_fraction, folds)
    except DataError as error:
        if not conflicts:
            raise
        raise DataError(
            f"{error}; {conflicts:,} photos were left out before, because the same photo stands in two classes: "
            "headstart scan names them"
        ) from error


def _divide(
    dataset: Dataset,
    candidates: list[int],
    clusters: Int64[np.ndarray, "photos"],
    kept_out: dict[int, str],
    seed: int,
    test_fraction: float,
    folds: int,
) -> Split:
    """Divide the photos that may be used; those that must leave a part are noted in `kept_out`."""
    _check_classes(dataset, candidates)
    test_split = _given_test(dataset)
    if test_split is None:
        validation: list[int] = []
        train, test = _hold_out(dataset, candidates, clusters, seed, test_fraction)
        how = (
            f"The final test is a hold-out of {len(test):,} of {len(candidates):,} photos, drawn with seed {seed}; "
            "every class in proportion, copies and groups on one side."
        )
    else:
        train, validation, test = _take_given(dataset, candidates, test_split)
        validation = _without(validation, test, clusters, kept_out, ALSO_IN_TEST)
        train = _without(train, test, clusters, kept_out, ALSO_IN_TEST)
        train = _without(train, validation, clusters, kept_out, ALSO_IN_VALIDATION)
        how = f"The final test is the data's own {test_split} split ({len(test):,} photos)."
        _check_given(dataset, train, validation, test, test_split)
    return Split(
        train=np.array(train, dtype=np.int64),
        validation=np.array(validation, dtype=np.int64),
        test=np.array(test, dtype=np.int64),
        folds=_fold(dataset, train, clusters, seed, folds),
        kept_out=dict(sorted(kept_out.items())),
        how=how,
    )


def _check_arguments(
    dataset: Dataset,
    clusters: Int64[np.ndarray, "photos"],
    test_fraction: float,
    folds: int,
    digests: Sequence[str] | None,
) -> None:
    if not 0 < test_fraction < 1:
        raise UsageError(f"test_fraction must lie between 0 and 1; received {test_fraction!r}")
    if folds < 2:
        raise UsageError(f"folds must be 2 or more; received {folds!r}")
    for name, values in (("clusters", clusters), ("digests", digests)):
        if values is not None and len(values) != len(dataset.photos):
            raise UsageError(
                f"{name} must have one entry for each of {len(dataset.photos)} photos; received {len(values)}"
            )


def _find_conflicts(dataset: Dataset, usable: Sequence[int], digests: Sequence[str] | None) -> dict[int, str]:
    if digests is None:
        return {}
    same: dict[str, list[int]] = defaultdict(list)
    for index in usable:
        same[digests[index]].append(index)
    labels = [photo.label for photo in dataset.photos]
    mixed = [copies for copies in same.values() if len({labels[index] for index in copies}) > 1]
    return {index: LABEL_CONFLICT for copies in mixed for index in copies}


def _check_classes(dataset: Dataset, candidates: list[int]) -> None:
    counts = _count_labels(dataset, candidates)
    if len(dataset.classes) < 2:
        raise DataError(
            f"only one class, {list_names(dataset.classes)} ({sum(counts):,} photos); at least 2 classes are needed: "
            "add a folder with photos of something else"
        )
    if not any(counts):
        raise DataError(f"none of the {len(dataset.photos):,} photos can be used; see the reasons that scan gives")


def _given_test(dataset: Dataset) -> str | None:
    given = {photo.split for photo in dataset.photos}
    return next((name for name in ("test", "val") if name in given), None)


def _take_given(dataset: Dataset, candidates: list[int], test_split: str) -> tuple[list[int], list[int], list[int]]:
    parts: dict[str, list[int]] = {"train": [], "val": [], "test": []}
    for index in candidates:
        parts[dataset.photos[index].split or "train"].append(index)
    if not parts[test_split]:
        raise DataError(f"no photo of the {test_split} split can be used; see the reasons that scan gives")
    if not parts["train"]:
        there = ", ".join(f"{name}: {len(photos):,}" for name, photos in parts.items() if photos)
        raise DataError(f"there are no training photos ({there}); expected a split named train beside {test_split}")
    return parts["train"], parts["val"] if test_split == "test" else [], parts[test_split]


def _without(
    part: list[int], other: list[int], clusters: Int64[np.ndarray, "photos"], kept_out: dict[int, str], why: str
) -> list[int]:
    """The photos of a part whose cluster is not in the other part; the rest is noted in `kept_out`."""
    taken = {int(clusters[index]) for index in other}
    kept_out |= {index: why for index in part if int(clusters[index]) in taken}
    return [index for index in part if int(clusters[index]) not in taken]


def _check_given(dataset: Dataset, train: list[int], validation: list[int], test: list[int], test_split: str) -> None:
    in_train = _count_labels(dataset, train)
    for name, part in (("val", validation), (test_split, test)):
        in_part = _count_labels(dataset, part)
        unknown = [label for label, count in enumerate(in_part) if count and not in_train[label]]
        if unknown:
            raise DataError(
                f"the {name} split has classes without a training photo: {_with_counts(dataset, unknown, in_part)}; "
                "add training photos of them, or remove them from the split"
            )
    few = [label for label, count in enumerate(in_train) if count < LEAST_TRAIN]
    if few:
        raise DataError(
            f"too few training photos: {_with_counts(dataset, few, in_train)}; each class needs at least "
            f"{LEAST_TRAIN}: add photos, or remove the class folder"
        )


def _count_labels(dataset: Dataset, indices: list[int]) -> list[int]:
    counts = [0] * len(dataset.classes)
    for index in indices:
        counts[dataset.photos[index].label] += 1
    return counts


def _with_counts(dataset: Dataset, labels: list[int], counts: Sequence[int]) -> str:
    shown_ones = ", ".join(f"{list_names([dataset.classes[label]])}: {counts[label]:,}" for label in labels[:8])
    return shown_ones + (f" and {len(labels) - 8:,} more" if len(labels) > 8 else "")


@dataclass(frozen=True, eq=False)
class _Cluster:
    """Photos that stay together."""

    photos: tuple[int, ...]
    counts: dict[int, int]  # label -> photos


def _gather(dataset: Dataset, indices: list[int], clusters: Int64[np.ndarray, "photos"], seed: int) -> list[_Cluster]:
    """The clusters among some photos, in an order as good as random."""
    members: dict[int, list[int]] = defaultdict(list)
    for index, number in zip(indices, clusters[indices].tolist(), strict=True):
        members[number].append(index)
    salt = f"{seed}\0"
    placed = []
    for photos in members.values():
        first = min([dataset.photos[index].path for index in photos])
        place = hashlib.sha256((salt + first).encode("utf-8", "surrogatepass")).digest()
        counts: dict[int, int] = {}
        for index in photos:
            label = dataset.photos[index].label
            counts[label] = counts.get(label, 0) + 1
        placed.append((place, _Cluster(tuple(photos), counts)))
    placed.sort(key=itemgetter(0))
    return [cluster for _, cluster in placed]


def _hold_out(
    dataset: Dataset, candidates: list[int], clusters: Int64[np.ndarray, "photos"], seed: int, fraction: float
) -> tuple[list[int], list[int]]:
    """Draw the test set: every class as near to its share as its clusters allow, without taking one apart."""
    line = _gather(dataset, candidates, clusters, seed)
    total = _count_labels(dataset, candidates)
    _check_holdable(dataset, line, total)
    goal = [min(max(LEAST_TEST, int(fraction * count + 0.5)), count - LEAST_TRAIN) for count in total]
    draw = _Draw(goal, room=[count - LEAST_TRAIN for count in total])
    rest = [cluster for cluster in line if not (draw.fits(cluster) and draw.take(cluster))]
    for cluster in rest:  # the large ones that did not fit: one photo too many may still be nearer to the share
        if draw.gain(cluster) > 0:
            draw.take(cluster)
    for label in range(len(total)):
        if not draw.taken[label]:
            draw.take_best(label, line, dataset.classes[label])
    test = sorted(index for cluster in draw.test for index in cluster.photos)
    held_out = set(test)
    return [index for index in candidates if index not in held_out], test


@dataclass(eq=False)
class _Draw:
    """A test set in the making; the lists have one entry a class."""

    goal: list[int]  # photos wanted
    room: list[int]  # photos that may be taken at most
    test: list[_Cluster] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.taken = [0] * len(self.goal)

    def fits(self, cluster: _Cluster) -> bool:
        """Would no class get more photos than wanted?"""
        return all(self.taken[label] + count <= self.goal[label] for label, count in cluster.counts.items())

    def gain(self, cluster: _Cluster) -> int:
        """How many photos nearer to the goal the test set would come, over all classes."""
        return sum(
            abs(self.goal[label] - self.taken[label]) - abs(self.goal[label] - self.taken[label] - count)
            for label, count in cluster.counts.items()
        )

    def take(self, cluster: _Cluster) -> bool:
        """Take a cluster, if that leaves enough photos of its classes to learn from."""
        for label, count in cluster.counts.items():
            if self.taken[label] + count > self.room[label]:
                return False
        for label, count in cluster.counts.items():
            self.taken[label] += count
        self.test.append(cluster)
        return True

    def take_best(self, label: int, line: list[_Cluster], name: str) -> None:
        """Take the cluster of a class that costs least, where all of them are larger than wanted."""
        fitting = sorted((cluster for cluster in line if label in cluster.counts), key=self.gain, reverse=True)
        if not any(self.take(cluster) for cluster in fitting):
            raise DataError(
                f"no hold-out has photos of {list_names([name])} on both sides: its copies and groups also hold photos "
                "of other classes; give a test split, or groups that are smaller"
            )


def _check_holdable(dataset: Dataset, line: list[_Cluster], total: list[int]) -> None:
    least = LEAST_TRAIN + LEAST_TEST
    few = [label for label, count in enumerate(total) if count < least]
    if few:
        raise DataError(
            f"too few usable photos: {_with_counts(dataset, few, total)}; each class needs at least {least}, "
            f"{LEAST_TRAIN} to learn from and {LEAST_TEST} to test: add photos, or remove the class folder"
        )
    independent = Counter(label for cluster in line for label in cluster.counts)
    alike = [label for label in range(len(total)) if independent[label] < 2]
    if alike:
        raise DataError(
            "all photos of a class are copies of one photo or belong to one group: "
            f"{_with_counts(dataset, alike, total)}; each class needs at least 2 independent ones, one to learn from "
            "and one to test: add photos, or remove the class folder"
        )


def _fold(
    dataset: Dataset, train: list[int], clusters: Int64[np.ndarray, "photos"], seed: int, folds: int
) -> Int64[np.ndarray, "train"]:
    """Give each training photo a fold: large clusters first, each to the fold that has least of its classes."""
    line = sorted(_gather(dataset, train, clusters, seed), key=lambda cluster: -len(cluster.photos))
    plan = _Folding(_count_labels(dataset, train), min(folds, len(line)))
    fold_of = {index: fold for cluster in line for fold in [plan.place(cluster)] for index in cluster.photos}
    return np.array([fold_of[index] for index in train], dtype=np.int64)


class _Folding:
    """Folds in the making."""

    def __init__(self, total: list[int], folds: int) -> None:
        self._total = total
        self._placed = [0] * len(total)  # photos of each class
        self._in_fold = [[0] * len(total) for _ in range(folds)]
        self._sizes = [0] * folds

    def place(self, cluster: _Cluster) -> int:
        """Put a cluster into the fold that has least of its classes, then into the smallest; return which."""
        costs = [self._cost(fold, cluster.counts) for fold in range(len(self._sizes))]
        best = costs.index(min(costs))
        for label, added in cluster.counts.items():
            self._in_fold[best][label] += added
            self._placed[label] += added
        self._sizes[best] += len(cluster.photos)
        return best

    def _cost(self, fold: int, counts: dict[int, int]) -> tuple[bool, float, int]:
        here, alone, share = self._in_fold[fold], False, 0.0
        for label, added in counts.items():
            share += here[label] * added / self._total[label]
            alone |= 0 < here[label] == self._placed[label]  # the class would lie in this fold only
        return alone, share, self._sizes[fold]
