"""Which photos show the same: exact copies by content, near copies by what they look like.

Near copies are re-compressed, resized, recoloured or slightly cropped. Two thumbnails are compared after each is freed
of its mean and brought to length 1, so brightness and contrast do not count: their distance is
sqrt(2 - 2 * correlation), 0 for the same picture, 1.41 for unrelated ones. A pair is near

- when the difference is at most `COPY_CONTRAST` of the contrast, or `COPY_LEVELS` grey levels where the contrast is
  low: as much as re-compression and rounding do by themselves; or
- when it is larger, up to `ALIKE`, but the pair stands apart: `APART` times closer than the `USUAL`-th nearest photo of
  either. Digits are all alike, so among them 0.1 says nothing; where nothing else comes nearer than 0.6, two photos
  at 0.2 show the same scene.

The numbers were chosen between what planted copies reach and what different photos keep: the docstring of
`benchmarks/duplicates.py` holds the table, and running it prints it again. It also shows why a difference hash does not
decide here: with as many copies found, it calls several per cent of the pairs of different digits or hands alike.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64, UInt8

from headstart.dataset import Dataset
from headstart.quality.fingerprint import THUMB_SIDE, PhotoFacts

COPY_CONTRAST = 0.05
COPY_LEVELS = 0.6  # grey levels of 255, root mean square
ALIKE = 0.25  # nothing beyond this distance is ever near
APART, USUAL = 3.0, 9
CROWD = 30  # a photo with more near copies than this shows a fixed scene, not copies: its near pairs say nothing
FLAT = 1.0  # grey levels: below this contrast a thumbnail is only equal or different
_ROWS, _COLUMNS = 512, 4096  # one tile of the distance table: small enough for a processor's cache
_SLACK = 1e-5  # of rounding, in squared distance
_FEW = 20_000  # pairs of a tile that are compared one by one instead of as a table
_SAMPLE, _DIRECTIONS = 4096, 24  # photos that choose how many directions of the 256 in which photos are compared first


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Which photos show the same.

    Args:
        exact: groups of photos (indices, ascending) with the same bytes, in the order of their first photo.
        near: pairs of photos of different bytes that look the same, first < second; of each content only its first
            photo stands here.
        crowded: photos that look like more than `CROWD` others: no near copy is reported of them.
    """

    exact: tuple[tuple[int, ...], ...]
    near: Int64[np.ndarray, "pairs 2"]
    crowded: tuple[int, ...]


def find_duplicates(facts: Sequence[PhotoFacts]) -> Duplicates:
    """Find the copies among photos: exact by content, near by their thumbnails.

    Every pair is looked at, so none within the rules above is missed. Time grows with the square of the number of
    photos (seconds at 50,000), memory in proportion to it.

    Args:
        facts: of every photo; rejected ones are in no group.

    Returns:
        Groups and pairs, as indices into `facts`.
    """
    contents: dict[str, list[int]] = {}
    for index, fact in enumerate(facts):
        if fact.rejected is None:
            contents.setdefault(fact.digest, []).append(index)
    exact = tuple(tuple(group) for group in contents.values() if len(group) > 1)
    thumbs = {group[0]: thumb for group in contents.values() if (thumb := facts[group[0]].thumb) is not None}
    if len(thumbs) < 2:
        return Duplicates(exact, np.empty((0, 2), dtype=np.int64), ())
    pairs, crowded = find_near(np.stack(list(thumbs.values())))
    firsts = np.array(list(thumbs), dtype=np.int64)
    return Duplicates(exact, firsts[pairs], tuple(int(index) for index in firsts[crowded]))


def clusters(
    dataset: Dataset, facts: Sequence[PhotoFacts], found: Duplicates | None = None
) -> Int64[np.ndarray, "photos"]:
    """Number the photos so that those which must stay on one side of a split share a number.

    Exact copies, near copies and photos of one `group` are united, also over several steps.

    Args:
        dataset: for the groups.
        facts: of each photo of the data set, in order.
        found: what `find_duplicates(facts)` returned, where it is known already.

    Returns:
        For each photo the index of the first photo of its cluster.
    """
    found = find_duplicates(facts) if found is None else found
    groups: dict[str, list[int]] = {}
    for index, photo in enumerate(dataset.photos):
        if photo.group is not None:
            groups.setdefault(photo.group, []).append(index)
    return unite(len(dataset.photos), [*found.exact, *groups.values(), *found.near.tolist()])


def unite(count: int, sets: Iterable[Sequence[int]]) -> Int64[np.ndarray, "count"]:
    """Number `count` things so that two share a number if a chain of the sets joins them.

    >>> unite(6, [(4, 1), (5, 4), (2, 3)]).tolist()
    [0, 1, 2, 2, 1, 1]
    """
    parent = list(range(count))

    def root(item: int) -> int:
        while parent[item] != item:
            parent[item] = parent[parent[item]]  # halves the path for the next time
            item = parent[item]
        return item

    for members in sets:
        for item in members:
            low, high = sorted((root(members[0]), root(item)))
            parent[high] = low  # the root of a cluster is always its first photo
    return np.array([root(item) for item in range(count)], dtype=np.int64)


def find_near(
    thumbs: UInt8[np.ndarray, "photos 16 16"],
) -> tuple[Int64[np.ndarray, "pairs 2"], Int64[np.ndarray, "crowded"]]:
    """Find the pairs of photos that show the same, by the rules at the top of this module.

    Args:
        thumbs: luminance of each photo, 0..255, at least two photos, each of other bytes than the rest.

    Returns:
        The pairs, first < second, ascending; and the photos that look like too many others to tell.
    """
    levels = thumbs.reshape(len(thumbs), -1).astype(np.float32)
    levels -= levels.mean(axis=1, keepdims=True)
    contrast = np.sqrt(np.mean(np.square(levels), axis=1))
    textured = np.flatnonzero(contrast >= FLAT)
    looks = levels[textured] / (THUMB_SIDE * contrast[textured, None])
    reach = np.clip(COPY_LEVELS / contrast[textured], COPY_CONTRAST, ALIKE)
    pairs, crowded = _Search(looks, reach).run()
    flat_pairs, flat_crowded = _equal_flat(thumbs, np.flatnonzero(contrast < FLAT))
    found = np.concatenate([textured[pairs], flat_pairs])
    order = np.lexsort((found[:, 1], found[:, 0]))
    return found[order], np.sort(np.concatenate([textured[crowded], flat_crowded]))


def _equal_flat(
    thumbs: UInt8[np.ndarray, "photos 16 16"], flat: Int64[np.ndarray, "flat"]
) -> tuple[Int64[np.ndarray, "pairs 2"], Int64[np.ndarray, "crowded"]]:
    """Pair the photos without contrast whose thumbnails are equal in every cell."""
    same: dict[bytes, list[int]] = {}
    for index in flat:
        same.setdefault(thumbs[index].tobytes(), []).append(int(index))
    pairs = [
        (first, second)
        for group in same.values()
        if len(group) <= CROWD + 1
        for place, first in enumerate(group)
        for second in group[place + 1 :]
    ]
    crowded = [index for group in same.values() if len(group) > CROWD + 1 for index in group]
    return np.array(pairs, dtype=np.int64).reshape(-1, 2), np.array(crowded, dtype=np.int64)


class _Search:
    """All pairs of look-alikes among vectors of length 1, in blocks of rows.

    Args:
        looks: the thumbnails without mean, of length 1.
        reach: for each photo the distance up to which a pair with it is a copy.
    """

    def __init__(self, looks: Float32[np.ndarray, "photos cells"], reach: Float32[np.ndarray, "photos"]) -> None:
        self.looks, self.reach = looks, reach
        self.copies = np.zeros(len(looks), dtype=np.int64)  # near copies of each photo, so far
        self.alikes = np.zeros(len(looks), dtype=np.int64)  # photos within ALIKE of each, so far
        # A projection onto the directions in which these photos differ most: no two photos are further apart in it than
        # they are, and what is out of reach there need not be compared in full.
        coarse = looks @ _main_directions(looks)
        norms = np.sum(np.square(coarse), axis=1, keepdims=True) / 2
        ones = np.ones_like(norms)  # so that left @ right is minus half the squared distance
        self.left, self.right = np.hstack([coarse, -norms, ones]), np.hstack([coarse, ones, -norms])

    def run(self) -> tuple[Int64[np.ndarray, "pairs 2"], Int64[np.ndarray, "crowded"]]:
        """Return the near pairs and the crowded photos."""
        photos = np.arange(len(self.looks))
        tiles = [
            self._compare(photos[row : row + _ROWS], photos[column : column + _COLUMNS])
            for row in range(0, len(photos), _ROWS)
            for column in range(row, len(photos), _COLUMNS)
        ]
        pairs = np.concatenate([np.empty((0, 2), dtype=np.int64), *(pairs for pairs, _ in tiles)])
        distance = np.concatenate([np.empty(0, dtype=np.float32), *(distance for _, distance in tiles)])
        is_copy = _as_likeness(distance) >= _as_likeness(self.reach[pairs].max(axis=1))
        copy = is_copy & (self.copies[pairs].max(axis=1) <= CROWD)
        apart = ~is_copy & (self.alikes[pairs].max(axis=1) <= CROWD)
        apart[apart] = distance[apart] * APART <= self._usual_distance(pairs[apart]).min(axis=1)
        return pairs[copy | apart], np.flatnonzero(self.copies > CROWD)

    def _compare(
        self, rows: Int64[np.ndarray, "rows"], columns: Int64[np.ndarray, "columns"]
    ) -> tuple[Int64[np.ndarray, "pairs 2"], Float32[np.ndarray, "pairs"]]:
        """Compare each row photo with the column photos after it; return what may be near pairs, and their distances.

        A pair with a photo that is crowded by now is left out: the count can only grow. So the pairs stay few, also
        where all photos are alike.
        """
        crowded = self.copies > CROWD
        if crowded[rows].all():  # what two crowded photos have in common no longer matters
            columns = columns[~crowded[columns]]
        close = self.left[rows] @ self.right[columns].T >= -(ALIKE**2) / 2 - _SLACK
        if np.count_nonzero(close) <= _FEW:
            row, column = np.divmod(np.flatnonzero(close), close.shape[1])  # much faster than nonzero of two axes
            return self._compare_pairs(rows[row], columns[column])
        rows, columns = rows[close.any(axis=1)], columns[close.any(axis=0)]
        likeness = self.looks[rows] @ self.looks[columns].T
        later = columns > rows[:, None]
        alike = (likeness >= _as_likeness(ALIKE)) & later
        least = _as_likeness(self.reach)
        copy = (likeness >= np.minimum.outer(least[rows], least[columns])) & later
        for mask, count in ((alike, self.alikes), (copy, self.copies)):
            count[rows] += np.count_nonzero(mask, axis=1)
            count[columns] += np.count_nonzero(mask, axis=0)
            mask[count[rows] > CROWD] = False
            mask[:, count[columns] > CROWD] = False
        row, column = np.nonzero(alike | copy)
        distance = np.sqrt(np.maximum(2 - 2 * likeness[row, column], 0))
        return np.stack([rows[row], columns[column]], axis=1), distance

    def _compare_pairs(
        self, first: Int64[np.ndarray, "candidates"], second: Int64[np.ndarray, "candidates"]
    ) -> tuple[Int64[np.ndarray, "pairs 2"], Float32[np.ndarray, "pairs"]]:
        """Do what `_compare` does, for the few pairs that are left of its table."""
        first, second = first[second > first], second[second > first]
        likeness = np.einsum("pc,pc->p", self.looks[first], self.looks[second])
        least = _as_likeness(self.reach)
        alike = likeness >= _as_likeness(ALIKE)
        copy = likeness >= np.minimum(least[first], least[second])
        for mask, count in ((alike, self.alikes), (copy, self.copies)):
            count[:] += np.bincount(np.concatenate([first[mask], second[mask]]), minlength=len(count))
            mask[np.maximum(count[first], count[second]) > CROWD] = False
        kept = alike | copy
        distance = np.sqrt(np.maximum(2 - 2 * likeness[kept], 0))
        return np.stack([first[kept], second[kept]], axis=1), distance

    def _usual_distance(self, pairs: Int64[np.ndarray, "pairs 2"]) -> Float32[np.ndarray, "pairs 2"]:
        """For each photo of the pairs the distance to its `USUAL`-th nearest photo; 0 where there are not so many."""
        photos, place = np.unique(pairs, return_inverse=True)
        last = len(self.looks) - 1 - USUAL  # in ascending likeness; the very last is the photo itself
        if last < 0:
            return np.zeros(pairs.shape, dtype=np.float32)
        usual = np.empty(len(photos), dtype=np.float32)
        step = max(1, _ROWS * _COLUMNS // len(self.looks))
        for start in range(0, len(photos), step):
            likeness = self.looks[photos[start : start + step]] @ self.looks.T
            usual[start : start + step] = np.partition(likeness, last, axis=1)[:, last]
        return np.sqrt(np.maximum(2 - 2 * usual, 0))[place.reshape(-1, 2)]


def _main_directions(looks: Float32[np.ndarray, "photos cells"]) -> Float32[np.ndarray, "cells directions"]:
    """Orthonormal directions along which a sample of the photos varies most (principal components)."""
    sample = looks[:: max(1, len(looks) // _SAMPLE)].astype(np.float64)
    _, directions = np.linalg.eigh(sample.T @ sample)  # in ascending order of what they explain
    return directions[:, -_DIRECTIONS:].astype(np.float32)


def _as_likeness(distance: Any) -> Any:
    """The scalar product of two vectors of length 1 at this distance."""
    return 1 - np.square(distance) / 2
