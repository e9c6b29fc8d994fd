"""Threads that read, hash, look up and decode photos, a batch each, and hand them over through a bounded queue.

One visit to a photo gives everything: its bytes are read once, hashed, and looked up in the store; if anything is
missing, one decode gives both the facts and the picture for the network. The queue holds a few photos, so memory does
not grow with their number.

Several processes may survey the same photos at once. A thread that finds a batch not yet stored takes the batch's lock;
if another process holds it, the batch is put off and the next one taken. Nobody waits while holding a lock, so there is
no circle to wait in.
"""

import hashlib
import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Shaped, UInt8

from headstart.dataset import Dataset
from headstart.errors import ImageRejected, StoreError
from headstart.images import DECODER_VERSION, Picture, decode
from headstart.locks import FileLock
from headstart.preprocess import Preprocessing
from headstart.quality import QUALITY_VERSION, PhotoFacts, photo_fingerprint
from headstart.store import Store, Value, entry_key

BATCH = 64  # photos a thread looks up together, and the unit that processes divide among themselves
KEEP_BYTES = 16 * 2**20  # of a batch's files stay in memory until they are decoded; the rest is read again
STOP_SECONDS = 1.5  # how long an interrupted survey waits for a thread to finish the photo it is at

Source = bytes | UInt8[np.ndarray, "..."]


@dataclass(frozen=True)
class Recipe:
    """Everything besides the photo that its facts and features depend on.

    Args:
        target: short side the decoder must at least keep, pixels.
        preprocessing: for the network; None: facts only.
        fingerprints: cut -> fingerprint of backbone, cut, preprocessing and engine.
    """

    target: int
    preprocessing: Preprocessing | None = None
    fingerprints: Mapping[str, str] = field(default_factory=dict)

    def facts_key(self, digest: str, path: str) -> bytes:
        """The key of the facts; the suffix of the name is in it because the notes compare it with the content."""
        suffix = PurePosixPath(path).suffix.lower()
        return entry_key("facts", digest, suffix, str(self.target), DECODER_VERSION, QUALITY_VERSION)

    def feature_key(self, digest: str, cut: str) -> bytes:
        """The key of the features of a photo at a cut."""
        return entry_key("features", digest, self.fingerprints[cut])


@dataclass(eq=False)
class Batch:
    """Neighbouring photos that one thread handles together.

    Args:
        photos: indices into the data set, those still to do.
        digests: SHA-256 of their contents, once read.
        name: names the batch in every process that surveys the same photos in the same way.
        left: photos that are not yet stored; the lock is kept until there is none.
    """

    photos: list[int]
    digests: dict[int, str] | None = None
    name: bytes = b""
    lock: FileLock | None = None
    left: int = 0

    def release(self) -> None:
        """Let other processes at the batch."""
        if self.lock is not None:
            self.lock.release()


@dataclass(frozen=True, eq=False)
class Outcome:
    """One photo as a thread leaves it.

    Args:
        photo: index into the data set.
        facts: its facts, those of a rejected photo included.
        features: cut -> stored vector; None: none stored, or not asked for.
        picture: prepared for the network, if its features must be computed.
        fresh: the facts were made now and are not in the store.
        batch: to be told when this photo is stored; None: nothing to store.
    """

    photo: int
    facts: PhotoFacts
    features: dict[str, Any] | None = None
    picture: UInt8[np.ndarray, "size size channels"] | None = None
    fresh: bool = False
    batch: Batch | None = None


class Keeper:
    """The store as a survey uses it: a store that fails costs computation, never the run, and is told once."""

    def __init__(self, store: Store | None) -> None:
        self.notices: list[str] = []
        self._store = store
        self._writable = store is not None
        self._before = () if store is None else store.notices

    def get_many(self, keys: Sequence[bytes]) -> dict[bytes, Value]:
        """What the store holds; nothing, once it has failed."""
        if self._store is None:
            return {}
        try:
            return self._store.get_many(keys)
        except StoreError as error:
            self._store = None
            self._tell(f"{error}. Going on without stored features")
            return {}

    def put_many(self, items: Mapping[bytes, Value]) -> None:
        """Store values, as long as that works."""
        if self._store is None or not self._writable or not items:
            return
        try:
            self._store.put_many(items)
        except StoreError as error:
            self._tell(f"{error}. Going on; what is computed from here on is not kept for the next time")

    def claim(self, name: bytes) -> tuple[bool, FileLock | None]:
        """Whether this process may compute a batch now, and the lock to release when it is stored."""
        store = self._store
        if store is None or not self._writable:
            return True, None
        try:
            lock = store.lock(name)
            return (True, lock) if lock.acquire() else (False, None)
        except OSError:  # no lock to be had here: at worst two processes compute the same
            return True, None

    def told(self) -> tuple[str, ...]:
        """What the user should be told, one sentence each."""
        of_store = () if self._store is None else self._store.notices
        return (*self.notices, *(notice for notice in of_store if notice not in self._before))

    def _tell(self, sentence: str) -> None:
        if self._writable:
            self.notices.append(sentence)
        self._writable = False


class Decoders:
    """The threads. `run` yields outcomes in any order; `put_off` then holds the batches that other processes had.

    Args:
        dataset: whose photos.
        recipe: what is wanted of them.
        keeper: the store.
        threads: how many.
    """

    def __init__(self, dataset: Dataset, recipe: Recipe, keeper: Keeper, threads: int) -> None:
        self.put_off: list[Batch] = []
        self._dataset = dataset
        self._recipe = recipe
        self._keeper = keeper
        self._threads = threads
        self._stop = threading.Event()
        self._running: list[threading.Thread] = []
        self._outcomes: queue.Queue[list[Outcome] | BaseException | None] = queue.Queue(maxsize=2 * threads + 2)

    def run(self, batches: Sequence[Batch], *, use_locks: bool = True) -> Iterator[Outcome]:
        """Start the threads on `batches` and yield what they find.

        Args:
            batches: each is handled by one thread, in this order.
            use_locks: put off what another process is computing.

        Raises:
            BaseException: what a thread raised.
        """
        self.put_off = []
        waiting: queue.SimpleQueue[Batch] = queue.SimpleQueue()
        for batch in batches:
            waiting.put(batch)
        count = min(self._threads, len(batches))
        self._running = [
            threading.Thread(target=self._serve, args=(waiting, use_locks), name=f"photos-{number}", daemon=True)
            for number in range(count)
        ]
        for thread in self._running:
            thread.start()
        while count:
            try:
                outcome = self._outcomes.get(timeout=0.2)  # without a time-out, Windows would not notice an interrupt
            except queue.Empty:
                continue
            if outcome is None:
                count -= 1
            elif isinstance(outcome, BaseException):
                raise outcome
            else:
                yield from outcome

    def stop(self) -> None:
        """End the threads: each finishes the photo it is at. Harmless when they have ended."""
        self._stop.set()
        deadline = time.monotonic() + STOP_SECONDS
        for thread in self._running:
            thread.join(max(0.0, deadline - time.monotonic()))

    def _serve(self, waiting: "queue.SimpleQueue[Batch]", use_locks: bool) -> None:
        with suppress(_StoppedError):
            try:
                while not self._stop.is_set():
                    self._handle(waiting.get_nowait(), use_locks)
            except queue.Empty:
                self._hand_over(None)
            except _StoppedError:
                raise
            except BaseException as error:  # the caller's thread raises it
                self._hand_over(error)

    def _handle(self, batch: Batch, use_locks: bool) -> None:
        sources = self._read(batch) if batch.digests is None else {}
        known = self._look_up(batch.photos, batch)
        missing = [photo for photo in batch.photos if photo not in known or not self._complete(known[photo])]
        if missing and use_locks:
            allowed, batch.lock = self._keeper.claim(batch.name)
            if not allowed:
                self._emit_known(known, missing)
                batch.photos = missing
                self.put_off.append(batch)
                return
            if batch.lock is not None:  # another process may have stored them since
                known |= self._look_up(missing, batch)
                missing = [photo for photo in missing if photo not in known or not self._complete(known[photo])]
        if not missing:
            batch.release()
        batch.left = len(missing)
        self._emit_known(known, missing)
        for photo in missing:
            self._hand_over([self._visit(photo, batch, sources.pop(photo, None), known.get(photo))])
        batch.photos, batch.digests = [], None

    def _read(self, batch: Batch) -> dict[int, Source]:
        """Hash every photo of the batch; what cannot be read is finished here."""
        batch.digests = {}
        sources: dict[int, Source] = {}
        size = 0
        for photo in batch.photos:
            self._check_stop()
            try:
                source = self._dataset.fetch(self._dataset.photos[photo])
            except ImageRejected as error:
                self._hand_over([Outcome(photo, _rejected("", error))])
                continue
            batch.digests[photo] = content_digest(source)
            size += source.nbytes if isinstance(source, np.ndarray) else len(source)
            if size <= KEEP_BYTES:
                sources[photo] = source
        batch.photos = list(batch.digests)
        recipe = self._recipe
        batch.name = entry_key("batch", str(recipe.target), *recipe.fingerprints.values(), *batch.digests.values())
        return sources

    def _look_up(self, photos: Sequence[int], batch: Batch) -> dict[int, Outcome]:
        """Of each photo that the store knows, what it knows."""
        recipe, digests = self._recipe, batch.digests or {}
        facts_keys = {photo: recipe.facts_key(digests[photo], self._dataset.photos[photo].path) for photo in photos}
        keys = [
            *facts_keys.values(),
            *(recipe.feature_key(digests[photo], cut) for photo in photos for cut in recipe.fingerprints),
        ]
        stored = self._keeper.get_many(keys)
        known = {}
        for photo in photos:
            record = stored.get(facts_keys[photo])
            if not isinstance(record, dict):
                continue
            vectors = {cut: stored.get(recipe.feature_key(digests[photo], cut)) for cut in recipe.fingerprints}
            complete = all(isinstance(vector, np.ndarray) for vector in vectors.values())
            known[photo] = Outcome(photo, PhotoFacts.from_dict(record), features=vectors if complete else None)
        return known

    def _complete(self, outcome: Outcome) -> bool:
        return outcome.facts.rejected is not None or outcome.features is not None

    def _emit_known(self, known: Mapping[int, Outcome], missing: Sequence[int]) -> None:
        left = set(missing)
        if done := [outcome for photo, outcome in known.items() if photo not in left]:
            self._hand_over(done)

    def _visit(self, photo: int, batch: Batch, source: Source | None, known: Outcome | None) -> Outcome:
        """Decode one photo: its facts, unless they are known, and its picture for the network."""
        self._check_stop()
        listed = self._dataset.photos[photo]
        digest = (batch.digests or {})[photo]
        if source is None:
            try:
                source = self._dataset.fetch(listed)
            except ImageRejected as error:  # gone since it was hashed
                return Outcome(photo, _rejected("", error), batch=batch)
            if digest != (digest := content_digest(source)):
                known = None  # changed since it was hashed
        try:
            picture = decode(source, target=self._recipe.target, name=listed.path)
        except ImageRejected as error:
            return Outcome(photo, _rejected(digest, error), fresh=True, batch=batch)
        facts = _facts(digest, picture) if known is None else known.facts
        preprocessing = self._recipe.preprocessing
        prepared = None if preprocessing is None else preprocessing.apply(picture)
        return Outcome(photo, facts, picture=prepared, fresh=known is None, batch=batch)

    def _hand_over(self, item: list[Outcome] | BaseException | None) -> None:
        while not self._stop.is_set():
            try:
                return self._outcomes.put(item, timeout=0.1)
            except queue.Full:
                continue
        raise _StoppedError

    def _check_stop(self) -> None:
        if self._stop.is_set():
            raise _StoppedError


class _StoppedError(Exception):
    """The survey was stopped; the thread ends."""


def _rejected(digest: str, error: ImageRejected) -> PhotoFacts:
    return PhotoFacts(digest=digest, rejected=(error.reason, error.detail))


def _facts(digest: str, picture: Picture) -> PhotoFacts:
    dhash, thumb = photo_fingerprint(picture.pixels)
    return PhotoFacts(
        digest=digest,
        width=picture.width,
        height=picture.height,
        format=picture.format,
        mode=picture.mode,
        notes=picture.notes,
        dhash=dhash,
        thumb=thumb,
    )


def content_digest(source: bytes | Shaped[np.ndarray, "..."]) -> str:
    """SHA-256 of a photo's content, 64 hexadecimal digits: of a file's bytes, or of pixels with their shape.

    >>> content_digest(np.zeros((2, 8), np.uint8)) == content_digest(np.zeros((4, 4), np.uint8))
    False
    """
    if isinstance(source, bytes):
        return hashlib.sha256(source).hexdigest()
    pixels = np.ascontiguousarray(source)
    digest = hashlib.sha256(f"array {pixels.dtype.str} {pixels.shape}\n".encode())
    digest.update(pixels.data)
    return digest.hexdigest()
