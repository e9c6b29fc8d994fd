"""One pass over the photos: the facts of each, and its features, computed or taken from the store.

Features are computed once. The store knows them by the photo's content and by everything else they depend on, so a
photo that was changed without changing its name, size or time is noticed, and a renamed one is not computed again.
"""

import time
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float32, UInt8

from headstart.backbones import Backbone
from headstart.backbones.engines import Engine, available_threads, flattened, open_engine
from headstart.dataset import Dataset
from headstart.errors import BackboneError, UsageError
from headstart.features.decoding import BATCH, Batch, Decoders, Keeper, Outcome, Recipe
from headstart.features.matrix import Matrix
from headstart.quality import THUMB_SIDE, PhotoFacts
from headstart.store import Store, Value

SCAN_TARGET = 256  # pixels; that of the default backbone, so that a scan and a training share what they store
COMMIT_PHOTOS = 32  # photos whose results go into one transaction,
COMMIT_SECONDS = 2.0  # or fewer, when they took this long
PATIENCE_SECONDS = 60.0  # for a process that computes the same photos and does not get on with it
POLL_SECONDS = 0.05


@runtime_checkable
class OpenEngine(Engine, Protocol):
    """An engine that is open already, for several surveys one after the other."""


@runtime_checkable
class Counter(Protocol):
    """What is told how many photos are finished; `headstart.progress.Progress` is one."""

    def advance(self, units: int = 1) -> None:
        """Count `units` more."""


@dataclass(frozen=True, eq=False)
class Survey:
    """What is known of every photo of a data set.

    Args:
        facts: one for each photo, in the order of the data set.
        features: cut -> matrix, a row for each photo in the same order; the rows of rejected photos are NaN.
        computed: usable photos of which something was computed now.
        reused: usable photos of which everything was in the store.
        seconds: wall-clock time.
        notices: what the user should be told about the store, one sentence each.
    """

    facts: tuple[PhotoFacts, ...]
    features: dict[str, Float32[np.ndarray, "photos _"]]
    computed: int
    reused: int
    seconds: float
    notices: tuple[str, ...] = ()


def survey_photos(
    dataset: Dataset,
    *,
    backbone: Backbone | None = None,
    cuts: Sequence[str] = ("pooled",),
    engine: str | OpenEngine = "auto",
    store: Store | None,
    threads: int = 0,
    progress: Counter | None = None,
) -> Survey:
    """Visit every photo once: read, hash, look up, and decode and compute what is missing.

    Results are stored while the work goes on, so an interrupt (or a crash) loses at most the last photos. Several
    processes may survey the same photos with the same store: they divide the work. A store that cannot be used is told
    in `Survey.notices` and costs only the reuse.

    Args:
        dataset: the photos.
        backbone: the network for the features; None: facts only, no network is opened.
        cuts: where to take features: names in `backbone.lengths`; a map is flattened, channel by channel.
        engine: "auto", "openvino" or "torch"; or an open engine, which stays open.
        store: where results are kept; None: nowhere.
        threads: decoding threads, and threads of the engine; 0: all that this process may use.
        progress: told of every finished photo.

    Returns:
        Facts and features in the order of the data set.

    Raises:
        BackboneError: there is no such cut or engine.
        UsageError: `threads` is negative.
    """
    begun = time.perf_counter()
    if threads < 0:
        raise UsageError(f"threads must be 0 (all) or more; got {threads}")
    threads = threads or available_threads()
    recipe = _recipe(backbone, cuts, engine)
    keeper = Keeper(store)
    decoders = Decoders(dataset, recipe, keeper, threads)
    collector = _Collector(dataset, backbone, recipe, keeper, progress)
    network = _Network(backbone, tuple(recipe.fingerprints), engine, threads)
    batches = everything = _batches(len(dataset.photos), threads)
    patience = _Patience()
    try:
        while batches:
            finished = collector.finished
            outcomes = collector.take_complete(decoders.run(batches, use_locks=patience.lasts(finished)))
            with closing(network.run(outcomes)) as results:  # closed at once: an interrupt leaves no computation behind
                for outcome, features in results:
                    collector.take(outcome, flattened(features))
            collector.commit()
            batches = decoders.put_off
            if batches and collector.finished == finished:
                time.sleep(POLL_SECONDS)
    finally:
        decoders.stop()
        network.close()
        collector.commit()
        for batch in everything:
            batch.release()
    return collector.survey(begun)


def _recipe(backbone: Backbone | None, cuts: Sequence[str], engine: str | OpenEngine) -> Recipe:
    if backbone is None:
        return Recipe(target=SCAN_TARGET)
    if unknown := [cut for cut in cuts if cut not in backbone.outputs]:
        raise BackboneError(f"{backbone.name} has no cut {unknown[0]!r}; choose from: {', '.join(backbone.outputs)}")
    name = engine if isinstance(engine, str) else engine.name
    return Recipe(
        target=backbone.preprocessing.decode_target(),
        preprocessing=backbone.preprocessing,
        fingerprints={cut: backbone.fingerprint(cut, name) for cut in cuts},
    )


def _batches(photos: int, threads: int) -> list[Batch]:
    """Neighbours together; of few photos smaller batches, so that every thread has work."""
    size = min(BATCH, max(1, -(-photos // (4 * threads))))
    return [Batch(list(range(start, min(start + size, photos)))) for start in range(0, photos, size)]


class _Patience:
    """Other processes' locks are respected as long as photos get finished, by whomever."""

    def __init__(self) -> None:
        self._finished = -1
        self._since = time.monotonic()

    def lasts(self, finished: int) -> bool:
        if finished != self._finished:
            self._finished, self._since = finished, time.monotonic()
        return time.monotonic() - self._since < PATIENCE_SECONDS


class _Network:
    """The engine, opened when the first photo needs it: a run in which everything is stored does not pay for it."""

    def __init__(
        self, backbone: Backbone | None, cuts: tuple[str, ...], engine: str | OpenEngine, threads: int
    ) -> None:
        self._backbone = backbone
        self._cuts = cuts
        self._kind = engine
        self._threads = threads
        self._engine: Engine | None = None if isinstance(engine, str) else engine

    def run(self, outcomes: Iterator[Outcome]) -> Generator[tuple[Outcome, dict[str, Any]], None, None]:
        first = next(outcomes, None)
        if first is None or self._backbone is None:
            return
        if self._engine is None:
            self._engine = open_engine(self._backbone, cuts=self._cuts, kind=str(self._kind), threads=self._threads)
        yield from self._engine.run(_pictures(chain([first], outcomes)), self._cuts)

    def close(self) -> None:
        if self._engine is not None and isinstance(self._kind, str):
            self._engine.close()


def _is_passing(facts: PhotoFacts) -> bool:
    """A photo too large for the memory at hand may fit another time: that is not kept."""
    return facts.rejected is not None and facts.rejected[0] == "bomb"


def _pictures(outcomes: Iterator[Outcome]) -> Iterator[tuple[Outcome, UInt8[np.ndarray, "size size channels"]]]:
    for outcome in outcomes:
        if outcome.picture is not None:
            yield outcome, outcome.picture


class _Notebook:
    """The facts of all photos in a few arrays.

    As objects of their own, made one by one between large pictures, they would scatter over the memory and keep the
    space between them from being used again (`benchmarks/features.py` shows it in the peak memory).
    """

    def __init__(self, photos: int) -> None:
        self._digests = np.zeros((photos, 32), np.uint8)
        self._sizes = np.zeros((photos, 2), np.int64)
        self._hashes = np.zeros(photos, np.uint64)
        self._thumbs = np.zeros((photos, THUMB_SIDE, THUMB_SIDE), np.uint8)
        self._words: list[tuple[str, str, tuple[str, ...]] | None] = [None] * photos
        self._known_words: dict[tuple[str, str, tuple[str, ...]], tuple[str, str, tuple[str, ...]]] = {}
        self._rejected: dict[int, PhotoFacts] = {}

    def write(self, photo: int, facts: PhotoFacts) -> None:
        if facts.rejected is not None or facts.thumb is None:
            self._rejected[photo] = facts
            return
        self._digests[photo] = np.frombuffer(bytes.fromhex(facts.digest), np.uint8)
        self._sizes[photo] = facts.width, facts.height
        self._hashes[photo] = facts.dhash
        self._thumbs[photo] = facts.thumb
        words = (facts.format, facts.mode, facts.notes)
        self._words[photo] = self._known_words.setdefault(words, words)

    def read(self) -> tuple[PhotoFacts, ...]:
        self._thumbs.flags.writeable = False
        return tuple(
            self._rejected[photo] if words is None else self._facts(photo, words)
            for photo, words in enumerate(self._words)
        )

    def _facts(self, photo: int, words: tuple[str, str, tuple[str, ...]]) -> PhotoFacts:
        width, height = self._sizes[photo].tolist()
        return PhotoFacts(
            digest=self._digests[photo].tobytes().hex(),
            width=width,
            height=height,
            format=words[0],
            mode=words[1],
            notes=words[2],
            dhash=int(self._hashes[photo]),
            thumb=self._thumbs[photo],
        )


class _Collector:
    """Puts every result in its place, and into the store by the batch."""

    def __init__(
        self, dataset: Dataset, backbone: Backbone | None, recipe: Recipe, keeper: Keeper, progress: Counter | None
    ) -> None:
        photos = len(dataset.photos)
        self.finished = 0
        self._dataset = dataset
        self._recipe = recipe
        self._keeper = keeper
        self._progress = progress
        self._facts = _Notebook(photos)
        lengths = {} if backbone is None else {cut: backbone.lengths[cut] for cut in recipe.fingerprints}
        self._features = {cut: Matrix(photos, length) for cut, length in lengths.items()}
        self._computed = self._reused = 0
        self._pending: dict[bytes, Value] = {}
        self._done: list[Batch] = []  # the batch of each photo that waits for its transaction
        self._committed = time.monotonic()

    def take_complete(self, outcomes: Iterator[Outcome]) -> Iterator[Outcome]:
        """Take what is complete, pass on what needs the network."""
        for outcome in outcomes:
            if outcome.picture is None:
                self.take(outcome, outcome.features)
            else:
                yield outcome

    def take(self, outcome: Outcome, features: dict[str, Any] | None) -> None:
        """Enter one finished photo."""
        facts = outcome.facts
        self._facts.write(outcome.photo, facts)
        for cut, matrix in self._features.items():
            matrix.write(outcome.photo, np.nan if features is None else features[cut])
        if facts.rejected is None:
            self._reused += outcome.batch is None
            self._computed += outcome.batch is not None
        self.finished += 1
        if self._progress is not None:
            self._progress.advance(1)
        if outcome.batch is not None:
            self._keep(outcome, features)

    def _keep(self, outcome: Outcome, features: dict[str, Any] | None) -> None:
        facts, path = outcome.facts, self._dataset.photos[outcome.photo].path
        if facts.digest and outcome.fresh and not _is_passing(facts):
            self._pending[self._recipe.facts_key(facts.digest, path)] = facts.to_dict()
        for cut, vector in (features or {}).items():
            self._pending[self._recipe.feature_key(facts.digest, cut)] = vector
        if outcome.batch is not None:
            self._done.append(outcome.batch)
        if len(self._done) >= COMMIT_PHOTOS or time.monotonic() - self._committed > COMMIT_SECONDS:
            self.commit()

    def commit(self) -> None:
        """Store what waits, in one transaction, and give back the locks of finished batches."""
        pending, self._pending = self._pending, {}
        done, self._done = self._done, []
        self._keeper.put_many(pending)
        for batch in done:
            batch.left -= 1
            if batch.left == 0:
                batch.release()
        self._committed = time.monotonic()

    def survey(self, begun: float) -> Survey:
        """Everything, once every photo is finished."""
        return Survey(
            facts=self._facts.read(),
            features={cut: matrix.array() for cut, matrix in self._features.items()},
            computed=self._computed,
            reused=self._reused,
            seconds=time.perf_counter() - begun,
            notices=self._keeper.told(),
        )
