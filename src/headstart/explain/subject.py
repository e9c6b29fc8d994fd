"""What is looked into: a net with its weights, its preprocessing and its class names, in a copy nothing else uses.

Importing this needs no torch; the first look at `Subject.net` does.
"""

import functools
import hashlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, UInt8

from headstart.backbones.engines import OpenVinoEngine, TorchEngine, open_engine
from headstart.classifier import Classifier, Source, source_name
from headstart.errors import UsageError
from headstart.files import shown
from headstart.images import Picture, decode, read_photo_bytes
from headstart.preprocess import Preprocessing

if TYPE_CHECKING:
    import torch

    from headstart.layers.receptive import ReceptiveField
    from headstart.layers.summary import Summary

Box = tuple[float, float, float, float]  # left, top, right, bottom, half open, pixels of the upright original


@dataclass(frozen=True, eq=False)
class Photo:
    """A photo as the net sees it, and as people do.

    Args:
        name: the path as it was given, or "<bytes>" or "<pixels>".
        picture: the decoded photo, perhaps reduced.
        pixels: what the net takes before normalisation.
        crop: the part of the original that `pixels` shows.
        digest: SHA-256 of the file's bytes, where what is computed of it may be kept in the store; "": it may not.
    """

    name: str
    picture: Picture
    pixels: UInt8[np.ndarray, "size size channels"]
    crop: Box
    digest: str = ""

    @property
    def sha256(self) -> str:
        """Of `pixels`: what a result depends on."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes()).hexdigest()


@dataclass(frozen=True, eq=False)
class Subject:
    """A net to look into.

    Args:
        name: what it is called on pictures: a run's folder, or a net's name.
        preprocessing: how its photos are prepared.
        classes: names of the logits.
        build: makes the torch net: normalised pixels (batch, channels, size, size) in, logits (batch, classes) out.
        weights: SHA-256 of all that the logits depend on besides the photo.
        classifier: of a run, or of a pretrained backbone: then what needs no gradient runs on the fast engine.
        threads: processor threads of that; 0: all this process may use.
    """

    name: str
    preprocessing: Preprocessing
    classes: tuple[str, ...]
    build: "Callable[[], torch.nn.Module]" = field(repr=False)
    weights: str
    classifier: Classifier | None = None
    threads: int = 0

    @functools.cached_property
    def net(self) -> "torch.nn.Module":
        """The torch net, in eval mode, no parameter of it wanting a gradient."""
        import torch

        with torch.random.fork_rng(devices=[]):  # making layers draws random weights, which are then replaced
            return self.build().eval().requires_grad_(False)

    @property
    def trunk(self) -> Any:
        """The part of `net` whose layers have names: the backbone under a run's head, or the whole."""
        return self.net if self.classifier is None else self.net.get_submodule("backbone")

    @functools.cached_property
    def summary(self) -> "Summary":
        """The table of the trunk: every layer with its output, parameters and receptive field."""
        from headstart.layers.summary import summarise

        return summarise(self.trunk, self.preprocessing.shape, self.name)

    def field(self, layer: str) -> "ReceptiveField | None":
        """The receptive field of a unit of a layer or stage; None where it is not on a grid. Raises UsageError."""
        try:
            return self.summary.row(layer).receptive_field
        except KeyError:
            raise unknown_layer(self, layer) from None

    def photo(self, source: Source) -> Photo:
        """Read and prepare a photo; what is found out of one that has a path may be kept. Raises ImageRejected."""
        if not isinstance(source, str | Path):
            return self._prepared(source, source_name(source), "")
        content = read_photo_bytes(Path(source))
        return self._prepared(content, source_name(source), hashlib.sha256(content).hexdigest())

    def _prepared(self, content: bytes | UInt8[np.ndarray, "..."], name: str, digest: str) -> Photo:
        picture = decode(content, target=self.preprocessing.decode_target(), name=name)
        crop = self.preprocessing.crop_box(picture.width, picture.height)
        return Photo(name, picture, self.preprocessing.apply(picture), crop, digest)

    def class_index(self, label: str) -> int:
        """The place of a class by its name, or by its number where that is no name. Raises UsageError."""
        if label in self.classes:
            return self.classes.index(label)
        if label.isdigit() and int(label) < len(self.classes):
            return int(label)
        known = ", ".join(map(shown, self.classes[:12])) + (", ..." if len(self.classes) > 12 else "")
        raise UsageError(f"{shown(self.name)} has no class {shown(label)!r}; its {len(self.classes)} are: {known}")

    def logits(
        self, photos: Iterable[UInt8[np.ndarray, "size size channels"]]
    ) -> Float32[np.ndarray, "photos classes"]:
        """Logits of prepared photos, without gradients: on the fast engine where there is one."""
        if self.classifier is None:
            return self._torch_logits(list(photos))
        cut = self.classifier.cut
        found = dict(self.classifier.engine_for(self.threads).run(enumerate(photos), (cut,)))
        if not found:
            return np.zeros((0, len(self.classes)), np.float32)
        features = np.stack([found[place][cut].reshape(-1) for place in range(len(found))])
        return self.classifier.logits_from_features(features)

    def outputs(
        self, photos: Iterable[UInt8[np.ndarray, "size size channels"]], names: tuple[str, ...]
    ) -> dict[str, Float32[np.ndarray, "photos *shape"]]:
        """What the backbone computes at some of its outputs (names of `Backbone.outputs`), on the fast engine.

        Raises:
            UsageError: there is no backbone, or it has no such output.
        """
        classifier = self.check_outputs(names)
        if names not in self._engines:
            self._engines[names] = open_engine(
                classifier.backbone, cuts=names, kind=classifier.engine, threads=self.threads
            )
        found = dict(self._engines[names].run(enumerate(photos), names))
        return {name: np.stack([found[place][name] for place in range(len(found))]) for name in names}

    def check_outputs(self, names: tuple[str, ...]) -> Classifier:
        """The classifier whose backbone has these outputs. Raises UsageError, as `outputs`."""
        if self.classifier is None:
            raise UsageError(f"{shown(self.name)} is no run and no pretrained backbone, so nothing is converted for it")
        if unknown := [name for name in names if name not in self.classifier.backbone.outputs]:
            raise unknown_layer(self, unknown[0])
        return self.classifier

    @functools.cached_property
    def _engines(self) -> dict[tuple[str, ...], OpenVinoEngine | TorchEngine]:
        return {}

    def close(self) -> None:
        """Give the memory of the engines back; the next question opens one again."""
        while self._engines:
            self._engines.popitem()[1].close()
        if self.classifier is not None:
            self.classifier.close()

    def _torch_logits(self, photos: list[Any]) -> Float32[np.ndarray, "photos classes"]:
        import torch

        parts = [np.zeros((0, len(self.classes)), np.float32)]
        with torch.no_grad():
            for start in range(0, len(photos), 16):
                x = torch.from_numpy(self.preprocessing.normalise(np.stack(photos[start : start + 16])))
                parts.append(self.net(x).numpy())
        return np.concatenate(parts)

    def probabilities(self, logits: Float32[np.ndarray, "photos classes"]) -> Float32[np.ndarray, "photos classes"]:
        """Softmax of logits over the classifier's temperature (1 where there is none); rows sum to 1."""
        scaled = logits.astype(np.float64) / (1.0 if self.classifier is None else self.classifier.temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        shares = np.exp(scaled)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True), np.float32)

    def normalised(self, pixels: UInt8[np.ndarray, "size size channels"]) -> "torch.Tensor":
        """One prepared photo as the torch net takes it: float32 (1, channels, size, size)."""
        import torch

        return torch.from_numpy(self.preprocessing.normalise(pixels[None]))


def subject_of(classifier: Classifier, name: str, threads: int = 0) -> Subject:
    """What a classifier is made of, to look into."""
    weights = hashlib.sha256(classifier.backbone.weights_sha256.encode())
    weights.update(f"{classifier.cut} {classifier.head.kind} {sorted(classifier.head.settings.items())}".encode())
    for key, tensor in sorted(classifier.head.tensors.items()):
        weights.update(key.encode() + np.ascontiguousarray(tensor).tobytes())
    return Subject(
        name,
        classifier.backbone.preprocessing,
        classifier.classes,
        lambda: classifier.full_network(probabilities=False),
        weights.hexdigest(),
        classifier,
        threads,
    )


def unknown_layer(subject: Subject, layer: str) -> UsageError:
    """The error that names the layers there are: the stages, and how to see the rest."""
    stages = getattr(subject.trunk, "cuts", ())
    known = ", ".join(stages) or ", ".join(row.name for row in subject.summary.layers[:12])
    return UsageError(
        f"{shown(subject.name)} has no layer {shown(layer)!r}; its stages are: {known}; every layer is in the table of "
        "headstart summary"
    )
