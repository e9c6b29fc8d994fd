"""The classifier: backbone, cut, head, class names, temperature. What comes after it never learns how it was made."""

import functools
import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64, UInt8

from headstart import heads
from headstart.backbones import Backbone
from headstart.backbones.engines import OpenVinoEngine, TorchEngine, available_threads, open_engine
from headstart.classifier.whole import join
from headstart.errors import ImageRejected, UsageError
from headstart.features.decoding import Keeper, Recipe
from headstart.files import shown
from headstart.heads import Head
from headstart.images import decode, read_photo_bytes
from headstart.store import Store

if TYPE_CHECKING:
    import torch

Source = str | Path | bytes | np.ndarray  # a file, the bytes of one, or uint8 pixels (height, width[, 3])
CHUNK = 128  # photos under way at a time: memory is that of so many prepared photos, however many there are
DECODERS = 4  # threads that decode at most; the engine needs the processors too


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a classifier says of one photo.

    Args:
        path: as it was given; "<bytes>" or "<pixels>" for what never was a file.
        label: the most probable class; None if the photo could not be read.
        probability: of `label`, 0..1.
        probabilities: of every class, in the order of the classifier; they sum to 1. Empty if unreadable.
        error: why the photo could not be read ("<reason>: <sentence>"), else None.
        unsure: the probability is below the threshold that the classifier has for this class.
        classes: the names of all classes, in the order of the classifier; there also if the photo is unreadable.
    """

    path: str
    label: str | None = None
    probability: float | None = None
    probabilities: Mapping[str, float] = field(default_factory=dict)
    error: str | None = None
    unsure: bool = False
    classes: tuple[str, ...] = ()

    def top(self, count: int) -> dict[str, float]:
        """The `count` most probable classes, the most probable first; equal ones in the order of the classifier.

        >>> Prediction("a.jpg", "cat", 0.6, {"ant": 0.1, "bee": 0.3, "cat": 0.6}).top(2)
        {'cat': 0.6, 'bee': 0.3}
        """
        return dict(sorted(self.probabilities.items(), key=lambda item: -item[1])[:count])

    def to_json(self, topk: int | None = None) -> dict[str, Any]:
        """`{"path", "label", "probability", "probabilities"}` or `{"path", "error"}`; `topk` classes, or all."""
        if self.error is not None:
            return {"path": self.path, "error": self.error}
        chosen = dict(self.probabilities) if topk is None else self.top(topk)
        told = {"path": self.path, "label": self.label, "probability": self.probability, "probabilities": chosen}
        return told | {"unsure": True} if self.unsure else told


@dataclass(frozen=True, eq=False)
class Classifier:
    """All that turns a photo into calibrated probabilities of classes. It never changes; it owns its preprocessing.

    Args:
        backbone: the pretrained or fine-tuned net, with its preprocessing.
        cut: where its features are taken.
        head: the last layers, fitted to features of that cut.
        classes: names of the outputs, in their order.
        temperature: logits are divided by it, > 0.
        thresholds: for each class the probability below which an answer is marked `unsure`; None: never.
        engine: "auto", "openvino" or "torch".

    Raises:
        UsageError: the parts do not fit together.
    """

    backbone: Backbone
    cut: str
    head: Head
    classes: tuple[str, ...]
    temperature: float = 1.0
    thresholds: tuple[float, ...] | None = None
    engine: str = "auto"

    def __post_init__(self) -> None:
        """Check that the parts fit together, so that a wrong mixture stops here and not in a wrong answer."""
        if self.cut not in self.backbone.classifier_cuts:
            known = ", ".join(self.backbone.classifier_cuts)
            raise UsageError(f"{self.backbone.name} has no cut {shown(self.cut)!r}; its cuts are {known}")
        if len(self.classes) < 2 or len(set(self.classes)) != len(self.classes):
            raise UsageError(f"a classifier needs two or more classes of different names; received {len(self.classes)}")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UsageError(f"temperature must be a number above 0; received {self.temperature}")
        if self.thresholds is not None and len(self.thresholds) != len(self.classes):
            raise UsageError(f"{len(self.thresholds)} thresholds for {len(self.classes)} classes; give one for each")
        logits = self.head.logits(np.zeros((1, self.backbone.classifier_cuts[self.cut]), np.float32))
        if logits.shape != (1, len(self.classes)):
            raise UsageError(f"the head gives {logits.shape[-1]} values a photo for {len(self.classes)} classes")

    def logits_from_features(
        self, features: Float32[np.ndarray, "photos features"]
    ) -> Float32[np.ndarray, "photos classes"]:
        """Raw outputs of the head for features of `cut`, before the temperature."""
        return self.head.logits(features)

    def probabilities_from_features(
        self, features: Float32[np.ndarray, "photos features"]
    ) -> Float64[np.ndarray, "photos classes"]:
        """Calibrated probabilities for features of `cut`: softmax of the logits over the temperature; rows sum to 1."""
        return heads.probabilities(self.logits_from_features(features), self.temperature)

    @functools.cached_property
    def _engines(self) -> dict[int, OpenVinoEngine | TorchEngine]:
        return {}

    def engine_for(self, threads: int) -> OpenVinoEngine | TorchEngine:
        """Return the engine of the backbone for a number of threads; opened once, then kept for the next photos."""
        if threads not in self._engines:
            kind = self.engine
            self._engines[threads] = open_engine(self.backbone, cuts=(self.cut,), kind=kind, threads=threads)
        return self._engines[threads]

    def close(self) -> None:
        """Give the memory of the engines back; the next prediction opens one again."""
        while self._engines:
            self._engines.popitem()[1].close()

    def predict(
        self, sources: Iterable[Source], *, threads: int = 0, store: Store | None = None
    ) -> Iterator[Prediction]:
        """Predict photos one after the other; memory does not grow with their number.

        Args:
            sources: paths, bytes of image files, or uint8 pixels (height, width) or (height, width, 3). Read lazily.
            threads: processor threads; 0: all this process may use.
            store: features of files are taken from there and kept there; None: computed and forgotten.

        Yields:
            A prediction for each source, in the order given. One that cannot be read has `error`; nothing is raised.
        """
        stream = _Stream(self, threads, Keeper(store))
        try:
            remaining = iter(sources)
            while chunk := list(islice(remaining, CHUNK)):
                features, errors = stream.run(chunk)
                order = sorted(features)
                matrix = np.array([features[index] for index in order], np.float32)
                rows = dict(zip(order, self.probabilities_from_features(matrix), strict=True)) if order else {}
                for index, source in enumerate(chunk):
                    name = source_name(source)
                    if index in errors:
                        yield Prediction(name, error=errors[index], classes=self.classes)
                    else:
                        yield self.judge(name, rows[index])
        finally:
            stream.close()

    def judge(self, path: str, probabilities: Float64[np.ndarray, "classes"]) -> Prediction:
        """Turn the probabilities of one photo into a prediction."""
        best = int(probabilities.argmax())
        probability = float(probabilities[best])
        return Prediction(
            path,
            self.classes[best],
            probability,
            dict(zip(self.classes, map(float, probabilities), strict=True)),
            unsure=self.thresholds is not None and probability < self.thresholds[best],
            classes=self.classes,
        )

    def full_network(self, *, probabilities: bool = True) -> "torch.nn.Module":
        """The head put back on the backbone: one torch net with the same outputs.

        Args:
            probabilities: calibrated probabilities come out; False: logits before the temperature.

        Returns:
            A net in eval mode. In: prepared photos, uint8 (batch, size, size, channels), or normalised ones,
            float32 (batch, channels, size, size). Out: float32 (batch, classes).

        Raises:
            UsageError: this kind of head has no form as layers.
        """
        return join(self.backbone, self.cut, self.head, self.temperature if probabilities else None)


def source_name(source: Source) -> str:
    """What a prediction calls its source: the path as it was given, or "<bytes>" or "<pixels>"."""
    if isinstance(source, str | Path):
        return str(source)
    return "<bytes>" if isinstance(source, bytes) else "<pixels>"


@dataclass(frozen=True, eq=False)
class _Prepared:
    """A photo on its way: its features, or the picture to compute them from, and the key to keep them under."""

    picture: UInt8[np.ndarray, "size size channels"] | None = None
    features: Any = None
    key: bytes | None = None


class _Stream:
    """Decodes in threads, computes features with the engine, which is opened by the first photo that needs it."""

    def __init__(self, classifier: Classifier, threads: int, keeper: Keeper) -> None:
        self._classifier = classifier
        self._threads = threads
        self._keeper = keeper
        backbone, cut = classifier.backbone, classifier.cut
        fingerprints = {cut: backbone.fingerprint(cut, classifier.engine)}
        self._recipe = Recipe(backbone.preprocessing.decode_target(), backbone.preprocessing, fingerprints)
        self._pool = ThreadPoolExecutor(min(threads or available_threads(), DECODERS), thread_name_prefix="decode")

    def run(self, chunk: Sequence[Source]) -> tuple[dict[int, Any], dict[int, str]]:
        """Return the features of the readable photos and the errors of the others, by their place in the chunk."""
        features: dict[int, Any] = {}
        errors: dict[int, str] = {}
        keys: dict[int, bytes] = {}

        def pictures() -> Iterator[tuple[int, UInt8[np.ndarray, "size size channels"]]]:
            for index, prepared in enumerate(self._pool.map(self._prepare, chunk)):
                if isinstance(prepared, ImageRejected):
                    errors[index] = str(prepared)
                elif prepared.picture is None:
                    features[index] = prepared.features
                else:
                    if prepared.key is not None:
                        keys[index] = prepared.key
                    yield index, prepared.picture

        cut = self._classifier.cut
        for index, found in self._compute(pictures()):
            features[index] = found[cut].reshape(-1)  # a head takes a map flattened
        self._keeper.put_many({key: features[index] for index, key in keys.items()})
        return features, errors

    def _compute(self, pictures: Iterator[Any]) -> Iterator[Any]:
        first = next(pictures, None)
        if first is None:
            return
        engine, cuts = self._classifier.engine_for(self._threads), (self._classifier.cut,)
        with closing(engine.run(chain([first], pictures), cuts)) as results:  # type: ignore[type-var]
            yield from results

    def _prepare(self, source: Source) -> _Prepared | ImageRejected:
        """Read, look up, decode and crop one photo; a rejection is returned, so that the other photos go on."""
        preprocessing = self._classifier.backbone.preprocessing
        try:
            content = read_photo_bytes(Path(source)) if isinstance(source, str | Path) else source
            key = None
            if isinstance(content, bytes):
                key = self._recipe.feature_key(hashlib.sha256(content).hexdigest(), self._classifier.cut)
                if (known := self._keeper.get_many([key]).get(key)) is not None:
                    return _Prepared(features=known)
            picture = decode(content, target=preprocessing.decode_target(), name=source_name(source))
            return _Prepared(picture=preprocessing.apply(picture), key=key)
        except ImageRejected as error:
            return error

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown(wait=True, cancel_futures=True)
