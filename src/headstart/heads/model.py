"""What a head is: the last layers of a classifier, as plain arrays, and how it turns features into logits."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float32

from headstart.errors import RunError, UsageError

ROOT = "root-"  # heads whose name begins so take the root of each feature first
LINEAR = ("ridge", "logistic", "centroid", "linear")  # heads whose logits are features @ weight.T + bias
TRAINED = ("linear", "identity")  # heads that were trained as the end of a network, not fitted to stored features
BLOCK = 4096  # photos a time: the memory beside the result does not grow with their number

_AXES = {"weight": 2, "bias": 1, "hidden_weight": 2, "hidden_bias": 1, "references": 2, "votes": 2}
_HIDDEN = ("hidden_weight", "hidden_bias", "weight", "bias")


@dataclass(frozen=True, eq=False)
class Head:
    """The last layers of a classifier. It never changes.

    Args:
        kind: a name of `headstart.heads.HEADS`; or "linear", the last layer of a network that was trained as a whole;
            or "identity", where the features are the logits already.
        tensors: of the linear heads `weight` (classes, features) and `bias` (classes); every scaling is folded in.
            The root heads have the same, applied to the `root` of the features. Of "mlp" `hidden_weight`
            (units, features), `hidden_bias` (units), `weight` (classes, units), `bias` (classes); of "knn"
            `references` (photos, features) of length 1 and `votes` (photos, classes). Of "identity" none.
        settings: plain values that belong to them: `root_offset` of the root heads, `neighbours` and `prior` of "knn",
            `length` of "identity".

    Raises:
        RunError: the tensors or settings are not those of a head of this kind.
    """

    kind: str
    tensors: dict[str, np.ndarray]
    settings: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check names, axes and settings: a head may come from a file that anyone wrote."""
        names = {"mlp": _HIDDEN, "knn": ("references", "votes"), "identity": ()}.get(self.kind, ("weight", "bias"))
        found = {name: np.shape(value) for name, value in self.tensors.items()}
        whole = set(found) == set(names) and all(
            len(found[name]) == _AXES[name] and 0 not in found[name] for name in names
        )
        if whole and names:
            last, first = found[names[-1]], found[names[-2]]
            whole = last[0] == first[0]
            if self.kind == "mlp":
                whole &= found["hidden_weight"][0] == found["hidden_bias"][0] == found["weight"][1]
        if not whole or not self._settings_fit():
            raise RunError(
                f"a {self.kind!r} head has the tensors {', '.join(names) or 'none'} and their settings; received "
                f"{', '.join(f'{name} {shape}' for name, shape in found.items()) or 'none'} and "
                f"{sorted(self.settings)}; train it again"
            )

    def _settings_fit(self) -> bool:
        settings = self.settings
        if self.kind.startswith(ROOT):
            offset = settings.get("root_offset")
            return isinstance(offset, int | float) and math.isfinite(offset) and offset >= 0
        if self.kind == "knn":
            prior, asked = settings.get("prior"), settings.get("neighbours")
            sound = isinstance(prior, list) and all(isinstance(share, float) and 0 < share <= 1 for share in prior)
            return sound and len(prior or ()) == self.tensors["votes"].shape[1] and isinstance(asked, int) and asked > 0
        if self.kind == "identity":
            return type(settings.get("length")) is int and settings["length"] > 0
        return True

    @property
    def linear(self) -> bool:
        """Whether the logits are `features @ weight.T + bias`: such a head can be the last layer of the net."""
        return self.kind in LINEAR

    @property
    def length(self) -> int:
        """How many features of a photo it takes."""
        if self.kind == "identity":
            return int(self.settings["length"])
        name = {"mlp": "hidden_weight", "knn": "references"}.get(self.kind, "weight")
        return int(self.tensors[name].shape[1])

    def logits(self, features: Float[np.ndarray, "photos features"]) -> Float32[np.ndarray, "photos classes"]:
        """Raw outputs, one a class; before the temperature.

        Args:
            features: of the cut that the head was fitted to.

        Raises:
            UsageError: the features are not of the length that the head was fitted to.
        """
        if features.shape[1] != self.length:
            raise UsageError(f"the head was fitted to {self.length} features a photo; received {features.shape[1]}")
        blocks = [self._block(features[at : at + BLOCK]) for at in range(0, max(len(features), 1), BLOCK)]
        return np.concatenate(blocks).astype(np.float32, copy=False)

    def _block(self, features: Float[np.ndarray, "photos features"]) -> np.ndarray:
        features = features.astype(np.float32, copy=False)
        if self.kind == "identity":
            return features
        if self.kind == "knn":
            return vote(features, self.tensors["references"], self.tensors["votes"], self.settings)
        if self.kind.startswith(ROOT):
            features = root(features, self.settings["root_offset"])
        elif self.kind == "mlp":
            features = np.maximum(features @ self.tensors["hidden_weight"].T + self.tensors["hidden_bias"], 0)
        return np.asarray(features @ self.tensors["weight"].T + self.tensors["bias"])


@dataclass(frozen=True, eq=False)
class FittedHead:
    """A head and the evidence for it.

    Args:
        head: fitted to all the photos given.
        held_out: logits of each photo by a model of the same kind and strength that has not seen it.
        strength: what was chosen on held-out photos (regularisation, neighbours, epochs, shrinkage).
        tried: every candidate: `head`, `strength`, `log_loss` and `accuracy` on held-out photos, and `by`: how they
            were held out, "leave-one-out" or "folds".
        seconds: wall time of choice and fit.
    """

    head: Head
    held_out: Float32[np.ndarray, "photos classes"]
    strength: float | int | None
    tried: tuple[dict[str, Any], ...]
    seconds: float


def root(features: Float[np.ndarray, "photos features"], offset: float) -> Float[np.ndarray, "photos features"]:
    """Signed square root of each feature, `sign(x) (sqrt(|x| + offset) - sqrt(offset))`.

    Averages of rectified maps are skewed: most are near zero and a few are large. The root evens them out, as it does
    for counts (Hellinger kernel; Arandjelovic & Zisserman 2012, section 3). The offset keeps the slope finite at 0.

    >>> root(np.array([[-4.0, 0.0, 9.0]]), 0.0)
    array([[-2.,  0.,  3.]])
    """
    start = np.asarray(offset, features.dtype)
    return np.asarray(np.copysign(np.sqrt(np.abs(features) + start) - np.sqrt(start), features))


def vote(
    features: Float32[np.ndarray, "photos features"],
    references: Float[np.ndarray, "references features"],
    votes: Float[np.ndarray, "references classes"],
    settings: dict[str, Any],
) -> Float32[np.ndarray, "photos classes"]:
    """Logits of the nearest neighbours by cosine: log of each class's share of the votes, with a prior of one vote.

    Args:
        features: of the photos to judge.
        references: features of the known photos, of length 1.
        votes: one row a known photo: its weight at its class, zeros elsewhere.
        settings: `neighbours` how many are asked; `prior` the share of each class among the known photos.
    """
    asked = min(int(settings["neighbours"]), len(references))
    near = unit(features) @ references.T
    chosen = np.argpartition(-near, asked - 1, axis=1)[:, :asked]
    return shares(votes[chosen].sum(axis=1), np.asarray(settings["prior"], np.float32))


def shares(
    votes: Float[np.ndarray, "photos classes"], prior: Float[np.ndarray, "classes"]
) -> Float32[np.ndarray, "photos classes"]:
    """Log of the share of the votes that each class has, when the prior has one vote as well."""
    return np.asarray(np.log((votes + prior) / (votes.sum(axis=1, keepdims=True) + 1)), np.float32)


def unit(features: Float[np.ndarray, "photos features"]) -> Float[np.ndarray, "photos features"]:
    """Rows of length 1; a row of zeros stays as it is."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return np.asarray(features / np.where(length > 0, length, np.ones_like(length)))
