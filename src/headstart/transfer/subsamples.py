"""Ridge fitted to many parts of the same photos: what a learning curve is measured with."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int64

LAST = 8  # parts of which all but one are learned from, for the last point of a curve
WORK = 1e10  # multiplications of all the repeats together, about half a second
MOST_REPEATS = 8

Step = tuple[int, bool]  # a number of parts, and whether heads learn from one of them each or from all but one each


def deal(
    labels: Int64[np.ndarray, "photos"], clusters: Int64[np.ndarray, "photos"], random: np.random.Generator
) -> Int64[np.ndarray, "photos"]:
    """A number for each photo such that its remainder by any number of parts says its part: classes evenly."""
    numbers, first, inside = np.unique(clusters, return_index=True, return_inverse=True)
    order = random.permutation(len(numbers))
    order = order[np.argsort(labels[first[order]], kind="stable")]
    place = np.empty(len(numbers), np.int64)
    place[order] = np.arange(len(numbers)) + random.integers(LAST)
    return np.asarray(place[inside])


def worthwhile_repeats(features: Float[np.ndarray, "photos length"], classes: int, parts: Sequence[int]) -> int:
    """Repeats that fit into `WORK`; with few photos the luck of the dealing counts most, and they cost least."""
    count, length = features.shape
    if count <= length:
        work = sum(count**3 / number**2 for number in parts) / 3 + LAST * count**3 / 3
        work += (len(parts) + 1) * count**2 * classes
    else:
        work = count * length**2 + (sum(parts) + LAST) * length**3 / 3 + (sum(parts) + 1) * count * length * classes
    return int(np.clip(WORK / work, 1, MOST_REPEATS))


def prepare_ridge(
    features: Float32[np.ndarray, "photos length"], labels: Int64[np.ndarray, "photos"], classes: int, strength: float
) -> "ByPhotos | ByFeatures":
    """Ridge of one strength (times the number of features) for these photos, by the cheaper of two ways."""
    centred = features - features.mean(axis=0)
    centred /= np.sqrt(np.square(centred).mean()) or 1.0
    targets = np.where(labels[:, None] == np.arange(classes), 1.0, -1.0)
    count, length = features.shape
    if count <= length:
        return ByPhotos((centred @ centred.T).astype(np.float64), targets, labels, strength * length)
    return ByFeatures(centred, targets, labels, strength * length)


@dataclass(frozen=True, eq=False)
class ByPhotos:
    """Ridge of one strength with a free intercept, fitted to many parts of the same photos, by their products."""

    products: Float64[np.ndarray, "photos photos"]
    targets: Float64[np.ndarray, "photos classes"]  # +1 at the class, -1 elsewhere
    labels: Int64[np.ndarray, "photos"]
    penalty: float

    def judge(self, dealt: Int64[np.ndarray, "photos"], plan: Sequence[Step]) -> Float64[np.ndarray, "photos steps"]:
        """How many of the heads of each step are wrong about each photo that they have not learned from."""
        wrong = np.zeros((len(dealt), len(plan)))
        for step, (number, without) in enumerate(plan):
            for part in range(number):
                inside = (dealt % number == part) != without
                own = self.products[np.ix_(inside, inside)]
                middle, centre = own.mean(axis=0), self.targets[inside].mean(axis=0)
                centred = own - middle - middle[:, None] + middle.mean() + self.penalty * np.eye(len(own))
                weight = np.linalg.solve(centred, self.targets[inside] - centre)  # columns sum to 0
                scores = self.products[np.ix_(~inside, inside)] @ weight + (centre - middle @ weight)
                wrong[~inside, step] += scores.argmax(axis=1) != self.labels[~inside]
        return wrong


@dataclass(frozen=True, eq=False)
class ByFeatures:
    """The same where there are more photos than features."""

    features: Float32[np.ndarray, "photos length"]  # centred, divided by their mean deviation
    targets: Float64[np.ndarray, "photos classes"]
    labels: Int64[np.ndarray, "photos"]
    penalty: float

    def judge(self, dealt: Int64[np.ndarray, "photos"], plan: Sequence[Step]) -> Float64[np.ndarray, "photos steps"]:
        """As `ByPhotos.judge`; sums of products of the smallest parts make up those of the larger ones."""
        finest = math.lcm(*(number for number, _ in plan))
        ones = np.column_stack([self.features, np.ones(len(dealt), np.float32)])
        terms = [self._products(ones, dealt % finest == part) for part in range(finest)]
        penalty = np.diag(np.append(np.full(ones.shape[1] - 1, self.penalty), 0.0))  # none on the intercept
        wrong = np.zeros((len(dealt), len(plan)))
        for step, (number, without) in enumerate(plan):
            for part in range(number):
                inside = (dealt % number == part) != without
                own = [terms[fine] for fine in range(finest) if (fine % number == part) != without]
                scatter, aims = (np.sum(some, axis=0).astype(np.float64) for some in zip(*own, strict=True))
                weight = np.linalg.solve(scatter + penalty, aims).astype(np.float32)
                scores = ones[~inside] @ weight
                wrong[~inside, step] += scores.argmax(axis=1) != self.labels[~inside]
        return wrong

    def _products(
        self, features: Float32[np.ndarray, "photos columns"], inside: Bool[np.ndarray, "photos"]
    ) -> tuple[Float32[np.ndarray, "columns columns"], Float32[np.ndarray, "columns classes"]]:
        own = features[inside]
        return own.T @ own, own.T @ self.targets[inside].astype(np.float32)
