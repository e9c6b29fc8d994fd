"""Photos on their way into batches: all of them into memory, or, where they do not fit, a few batches ahead at a time.

Threads decode; Pillow lets them run side by side. What a photo becomes is the same on both ways, bit for bit, and so is
the order and everything that is drawn: only the time differs.
"""

import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Tensor

from headstart.config import LoopConfig
from headstart.dataset import Dataset, Photo
from headstart.errors import ConfigError, DataError, ImageRejected
from headstart.files import shown
from headstart.images import decode
from headstart.preprocess import Preprocessing
from headstart.progress import Progress
from headstart.training.batches import (
    DRAWS,
    Augmenter,
    Batches,
    BatchOrder,
    MemoryBatches,
    Preparer,
    check_labels,
    normalisation,
    seeded,
)
from headstart.training.presets import find_preset

AHEAD = 2  # batches that are decoded while the network is busy with one; more would only take memory
TASK = 8  # photos a thread takes at once: of small photos, handing over one takes longer than decoding it
GROUP = 256  # photos handed over together on the way into memory
MEMORY_SHARE = 0.25  # of the machine's memory that photos may fill; a second set, the network and the system need room
UNKNOWN_MEMORY = 4 * 2**30  # bytes that a machine which does not say is taken to have

Rows = Sequence[int] | Int64[np.ndarray, "photos"]
Planes = UInt8[np.ndarray, "channels size size"]
Block = UInt8[np.ndarray, "photos channels size size"]


class StreamedBatches:
    """Batches of photos that are read and decoded again in every epoch, by threads, a few batches ahead.

    Args:
        dataset: the photos.
        indices: which of them, as places in `dataset.photos`.
        preprocessing: from a photo to what the network sees.
        batch_size, shuffle, augment, mixup, seed, drop_last, channels_last, rank, world: as of `MemoryBatches`, which
            gives the same batches for the same photos.
        threads: that decode; 0: one a processor.
        ahead: batches that are decoded in advance, >= 0; so many and one more are in memory.

    Raises:
        ConfigError: a setting is out of range.
        DataError: there is no photo, or a label is none of the classes; from `epoch`, when a photo cannot be read.
    """

    def __init__(
        self,
        dataset: Dataset,
        indices: Rows,
        preprocessing: Preprocessing,
        *,
        batch_size: int,
        shuffle: bool = True,
        augment: Augmenter | None = None,
        mixup: float = 0.0,
        seed: int = 0,
        drop_last: bool = False,
        channels_last: bool = False,
        rank: int = 0,
        world: int = 1,
        threads: int = 0,
        ahead: int = AHEAD,
    ) -> None:
        self.order = BatchOrder(
            images=len(indices),
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
        )
        if ahead < 0:
            raise ConfigError(f"ahead must be 0 batches or more; received {ahead}")
        size, _, channels = preprocessing.shape
        middle, spread = normalisation(preprocessing.mean, preprocessing.std, channels)
        self._prepare = Preparer(
            classes=len(dataset.classes),
            mean=middle,
            std=spread,
            augment=augment,
            mixup=mixup,
            channels_last=channels_last,
        )
        self.images, self.classes, self.steps = len(indices), len(dataset.classes), self.order.steps
        self.shape: tuple[int, int, int] = (channels, size, size)
        self.labels = labels_of(dataset, indices)
        self._photos = [dataset.photos[index] for index in indices]
        self._dataset, self._preprocessing = dataset, preprocessing
        self._threads, self._ahead = threads, ahead

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`, from the batch `first` on; see `headstart.training.batches.Batches.epoch`."""
        order = self.order.epoch(number)
        batches = [self.order.rows(order, step) for step in range(first, self.steps)]
        owns = [self.order.own(len(rows)) for rows in batches]
        needed = [rows[self._prepare.needed(own, len(rows))] for rows, own in zip(batches, owns, strict=True)]
        groups = ([self._photos[row] for row in rows.tolist()] for rows in needed)
        arrays = decode_groups(self._dataset, self._preprocessing, groups, threads=self._threads, ahead=self._ahead)
        with closing(arrays):  # at once, when an epoch is left in the middle
            for step, rows, own, wanted in zip(range(first, self.steps), batches, owns, needed, strict=True):
                pixels, generator = torch.from_numpy(next(arrays)), seeded(self.order.seed, DRAWS, number, step)
                yield self._prepare.finish(pixels, self.labels[wanted], own, len(rows), generator)


def load_batches(
    dataset: Dataset,
    indices: Rows,
    preprocessing: Preprocessing,
    config: LoopConfig,
    *,
    shuffle: bool = True,
    drop_last: bool = False,
    channels_last: bool = False,
    rank: int = 0,
    world: int = 1,
    memory_limit: int | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] | None = None,
) -> Batches:
    """Batches of a data set's photos: from memory if they fit there, else streamed from disk; it says which.

    Args:
        dataset: the photos.
        indices: which of them, as places in `dataset.photos`.
        preprocessing: from a photo to what the network sees.
        config: batch size, augmentation, mixup, seed and threads are used.
        shuffle: a new order every epoch; False for photos that are only measured.
        drop_last, channels_last, rank, world: as of `MemoryBatches`.
        memory_limit: bytes that the photos may take, one a channel of a pixel; None: a quarter of the machine's memory.
        progress: told of every photo that is decoded into memory.
        say: told, in a sentence, where the photos are kept, and of a batch size that is more than the photos.

    Raises:
        ConfigError: the batch size, the augmentation or another setting does not exist or is out of range.
        DataError: there is no photo, or one cannot be read.
    """
    say = say or _say_nothing
    options: dict[str, Any] = {
        "batch_size": config.batch_size,
        "shuffle": shuffle,
        "augment": find_preset(config.augment),
        "mixup": config.mixup,
        "seed": config.seed,
        "drop_last": drop_last,
        "channels_last": channels_last,
        "rank": rank,
        "world": world,
    }
    if config.batch_size > len(indices) > 0:
        say(
            f"a batch of {config.batch_size:,} is more than the {len(indices):,} photos there are: every step sees all "
            f"of them; a smaller batch size gives more steps an epoch"
        )
    size, _, channels = preprocessing.shape
    needed, limit = len(indices) * channels * size * size, memory_for_photos() if memory_limit is None else memory_limit
    what = f"{len(indices):,} photos of {size} x {size} x {channels}"
    if needed > limit:
        say(
            f"{what} would take {_amount(needed)} of memory, more than {_amount(limit)}: streamed from disk every epoch"
        )
        return StreamedBatches(dataset, indices, preprocessing, threads=config.threads, **options)
    say(f"{what} kept in memory: {_amount(needed)}")
    pixels = read_pixels(dataset, indices, preprocessing, threads=config.threads, progress=progress)
    return MemoryBatches(
        torch.from_numpy(pixels),
        labels_of(dataset, indices),
        classes=len(dataset.classes),
        mean=preprocessing.mean,
        std=preprocessing.std,
        **options,
    )


def read_pixels(
    dataset: Dataset,
    indices: Rows,
    preprocessing: Preprocessing,
    *,
    threads: int = 0,
    progress: Progress | None = None,
) -> Block:
    """Photos as the network sees them, before normalisation.

    Args:
        dataset: the photos.
        indices: which of them.
        preprocessing: crop, size, grey or colour.
        threads: that decode; 0: one a processor.
        progress: told of every photo.

    Raises:
        DataError: a photo cannot be read.
    """
    size, _, channels = preprocessing.shape
    pixels = np.empty((len(indices), channels, size, size), np.uint8)
    photos = [dataset.photos[index] for index in indices]
    if _is_ready(dataset, preprocessing):
        _copy_arrays(dataset, photos, pixels)
        if progress is not None:
            progress.advance(len(photos))
        return pixels
    starts = range(0, len(photos), GROUP)
    groups = (photos[start : start + GROUP] for start in starts)
    with closing(decode_groups(dataset, preprocessing, groups, threads=threads)) as decoded:
        for start, group in zip(starts, decoded, strict=True):
            pixels[start : start + len(group)] = group
            if progress is not None:
                progress.advance(len(group))
    return pixels


def decode_groups(
    dataset: Dataset,
    preprocessing: Preprocessing,
    groups: Iterable[Sequence[Photo]],
    *,
    threads: int = 0,
    ahead: int = AHEAD,
) -> Generator[Block, None, None]:
    """Decode groups of photos, in order, `ahead` groups in advance; ends its threads however it is left.

    Raises:
        DataError: a photo cannot be read; the message names it.
    """
    size, _, channels = preprocessing.shape
    stop = threading.Event()

    def fill(places: Block, photos: Sequence[Photo]) -> None:
        for place, photo in zip(places, photos, strict=True):
            if stop.is_set():
                return
            place[...] = read_planes(dataset, photo, preprocessing)

    pool = ThreadPoolExecutor(threads or _processors(), thread_name_prefix="photos")
    waiting: deque[tuple[Block, list[Future[None]]]] = deque()
    todo = iter(groups)
    try:
        while True:
            while len(waiting) <= ahead and (group := next(todo, None)) is not None:
                pixels = np.empty((len(group), channels, size, size), np.uint8)
                parts = [slice(start, start + TASK) for start in range(0, len(group), TASK)]
                waiting.append((pixels, [pool.submit(fill, pixels[part], group[part]) for part in parts]))
            if not waiting:
                return
            pixels, tasks = waiting.popleft()
            for task in tasks:
                task.result()
            yield pixels
    finally:
        stop.set()
        pool.shutdown(wait=True, cancel_futures=True)


def read_planes(dataset: Dataset, photo: Photo, preprocessing: Preprocessing) -> Planes:
    """One photo as the network sees it, channels in front, before normalisation.

    Raises:
        DataError: it cannot be read.
    """
    try:
        picture = decode(dataset.fetch(photo), target=preprocessing.decode_target(), name=photo.path)
    except ImageRejected as error:
        raise DataError(
            f"photo '{shown(photo.path)}' cannot be read ({error.reason}: {error.detail}); put it right, or start "
            "again without it"
        ) from error
    return preprocessing.apply(picture).transpose(2, 0, 1)


def labels_of(dataset: Dataset, indices: Rows) -> Int64[Tensor, "photos"]:
    """The labels of these photos, checked."""
    labels = torch.from_numpy(np.fromiter((dataset.photos[index].label for index in indices), np.int64, len(indices)))
    check_labels(labels, len(indices), len(dataset.classes))
    return labels


def memory_for_photos() -> int:
    """Bytes that photos may fill when nothing else is said: a quarter of what this machine, or this container, has."""
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows has no sysconf
        total = UNKNOWN_MEMORY
    try:
        allowed = Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        allowed = "max"
    return int(MEMORY_SHARE * min(total, int(allowed) if allowed.isdigit() else total))


def _is_ready(dataset: Dataset, preprocessing: Preprocessing) -> bool:
    """Whether the data hold pixels that are already what the network sees, so that no photo need be decoded."""
    size, _, channels = preprocessing.shape
    return (
        bool(dataset.arrays)
        and preprocessing.crop_fraction == 1
        and all(array.shape[1:3] == (size, size) for array in dataset.arrays.values())
        and (channels == 3 or all(array.ndim == 3 for array in dataset.arrays.values()))  # 3: (images, height, width)
    )


def _copy_arrays(dataset: Dataset, photos: Sequence[Photo], pixels: Block) -> None:
    """Copy what `fetch`, `decode` and `apply` would give of each photo, a whole array at a time."""
    places: dict[str, tuple[list[int], list[int]]] = {}
    for place, photo in enumerate(photos):
        stem, _, number = photo.path.rpartition("#")
        into, source = places.setdefault(stem, ([], []))
        into.append(place)
        source.append(int(number))
    for stem, (into, source) in places.items():
        chosen = dataset.arrays[stem][source]
        pixels[into] = chosen[:, None] if chosen.ndim == 3 else chosen.transpose(0, 3, 1, 2)


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _amount(size: int) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e9 else f"{size / 1e6:,.1f} MB"


def _say_nothing(_: str) -> None:
    """Where nobody listens."""
