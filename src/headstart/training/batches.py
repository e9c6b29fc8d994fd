"""Labelled photos as normalised batches: the whole set in memory as bytes, in an order that only the seed decides.

A batch is gathered by index, augmented, converted to float32 and normalised when it is asked for. Everything that is
drawn for it (its place in the order, flips, shifts, partners for mixing) comes from generators seeded by (seed, epoch,
number of the batch) and from nothing else: a run that resumes in the middle of an epoch, a run that streams its photos
from disk and a run on several processes see the same batches, bit for bit.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Float32, Int64, UInt8
from torch import Tensor

from headstart.errors import ConfigError, DataError
from headstart.training.augment_mixing import draw_mixup, mixed

Pixels = UInt8[Tensor, "images channels height width"] | Float[Tensor, "images channels height width"]
Targets = Int64[Tensor, "batch"] | Float32[Tensor, "batch classes"]
ORDER, DRAWS = 0, 1  # what a generator is for: the order of an epoch, or what is drawn for one batch


@runtime_checkable
class Batches(Protocol):
    """Labelled photos as normalised batches; the same (seed, epoch) gives the same batches, bit for bit.

    Args:
        images: photos in all.
        classes: how many classes the labels may name.
        shape: channels, height, width of a photo.
        steps: batches an epoch.
    """

    images: int
    classes: int
    shape: tuple[int, int, int]
    steps: int

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`, from the batch `first` on.

        Returns:
            Photos (batch, channels, height, width) float32, normalised, and their targets: labels (batch,) int64, or
            shares of every class (batch, classes) float32 where photos are mixed.
        """


@runtime_checkable
class Augmenter(Protocol):
    """What changes a batch of photos at random: `headstart.training.augment.Augmentation`, or anything of this form."""

    def draw(self, images: int, shape: tuple[int, int, int], generator: torch.Generator) -> Mapping[str, Tensor]:
        """Parameters for so many photos of (channels, height, width): each tensor has one entry a photo."""

    def apply(self, batch: Tensor, drawn: Mapping[str, Tensor], fill: Tensor) -> Tensor:
        """Photos (batch, channels, height, width), 0..255, changed as drawn; float32, 0..255."""


@dataclass(frozen=True, kw_only=True)
class BatchOrder:
    """Which photos make up which batch, and which of them are this process's.

    Args:
        images: photos in all, >= 1.
        batch_size: photos a step, over all processes, >= 1; more than there are means all of them.
        shuffle: a new order every epoch; else always that of the data.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        seed: of the order and of everything drawn for a batch.
        rank: number of this process, 0 to world - 1; it gets its slice of every batch.
        world: how many processes train together.

    Raises:
        ConfigError: a value is out of range.
        DataError: there is no photo.
    """

    images: int
    batch_size: int
    shuffle: bool = True
    drop_last: bool = False
    seed: int = 0
    rank: int = 0
    world: int = 1

    def __post_init__(self) -> None:
        if self.images < 1:
            raise DataError("there is no photo to make a batch of; expected at least 1")
        if self.batch_size < 1:
            raise ConfigError(f"setting batch_size must be at least 1 photo; received {self.batch_size}")
        if self.world < 1 or not 0 <= self.rank < self.world:
            raise ConfigError(
                f"rank must lie between 0 and world - 1; received rank {self.rank} in a world of {self.world}"
            )

    @property
    def steps(self) -> int:
        """Batches an epoch.

        >>> BatchOrder(images=10, batch_size=4).steps
        3
        """
        size = min(self.batch_size, self.images)
        return self.images // size if self.drop_last else math.ceil(self.images / size)

    def epoch(self, number: int) -> Int64[Tensor, "images"]:
        """The photos in the order of epoch `number`."""
        if not self.shuffle:
            return torch.arange(self.images)
        return torch.randperm(self.images, generator=seeded(self.seed, ORDER, number))

    def rows(self, order: Int64[Tensor, "images"], step: int) -> Int64[Tensor, "batch"]:
        """The photos of one batch, those of every process."""
        return order[step * self.batch_size : (step + 1) * self.batch_size]

    def own(self, count: int) -> slice:
        """The part of a batch of `count` photos that is this process's; parts differ by one photo at most.

        >>> [BatchOrder(images=5, batch_size=5, rank=rank, world=2).own(5) for rank in (0, 1)]
        [slice(0, 3, None), slice(3, 5, None)]
        """
        share, rest = divmod(count, self.world)
        start = self.rank * share + min(self.rank, rest)
        return slice(start, start + share + (self.rank < rest))


@dataclass(frozen=True, kw_only=True)
class Preparer:
    """From the bytes of a batch to what the network sees.

    Args:
        classes: how many there are.
        mean: (channels, 1, 1), grey levels.
        std: likewise, > 0.
        augment: changes photos at random; None: they stay as they are.
        mixup: alpha of the Beta distribution that pairs of photos are mixed by; 0: they are not mixed.
        channels_last: memory layout of the batches.
    """

    classes: int
    mean: Float32[Tensor, "channels 1 1"]
    std: Float32[Tensor, "channels 1 1"]
    augment: Augmenter | None = None
    mixup: float = 0.0
    channels_last: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.mixup < math.inf:
            raise ConfigError(f"setting mixup must be 0 (not mixed) or above; received {self.mixup!r}")

    def needed(self, own: slice, count: int) -> slice:
        """The photos of a batch that must be fetched: all, where a photo's partner may be another process's."""
        return slice(0, count) if self.mixup else own

    def finish(
        self, pixels: Tensor, labels: Int64[Tensor, "needed"], own: slice, count: int, generator: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """Augment, normalise and mix.

        Args:
            pixels: of the needed photos, (needed, channels, height, width), 0..255.
            labels: of the needed photos.
            own: which of the batch are this process's.
            count: photos in the batch of all processes; so many parameters are drawn, whatever the process.
            generator: of this batch.
        """
        needed = self.needed(own, count)
        if self.augment is None:
            images = pixels.to(torch.float32)  # always a copy: pixels are bytes, or gathered
        else:
            shape = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
            drawn = {name: values[needed] for name, values in self.augment.draw(count, shape, generator).items()}
            images = self.augment.apply(pixels, drawn, self.mean)
        images = images.sub_(self.mean).div_(self.std)
        if self.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        if not self.mixup:
            return images, labels
        share, partner = draw_mixup(count, self.mixup, generator)
        shares = torch.nn.functional.one_hot(labels, self.classes).to(torch.float32)
        return mixed(images, share, partner)[own], mixed(shares, share, partner)[own]


class MemoryBatches:
    """Batches of photos that lie in memory as bytes.

    Args:
        pixels: (images, channels, height, width) grey levels, uint8; or floats of the same scale, which take four
            times the memory.
        labels: of each photo, 0 to classes - 1.
        classes: how many there are.
        batch_size: photos a step, over all processes; more than there are means all of them.
        mean: of each channel, grey levels.
        std: likewise, > 0.
        shuffle: a new order every epoch; else always that of `pixels`.
        augment: changes photos at random; None: they stay as they are.
        mixup: alpha of the Beta distribution that pairs of photos are mixed by; 0: they are not mixed.
        seed: of the order and of everything drawn.
        drop_last: leave out the last batch of an epoch if it is smaller than the others.
        channels_last: memory layout of the batches; the faster one depends on the network.
        rank: number of this process; it gets its slice of every batch.
        world: how many processes train together.

    Raises:
        ConfigError: a setting is out of range.
        DataError: a label is none of the classes, a pixel is not finite, or the counts do not fit each other.

    >>> pixels = torch.arange(4, dtype=torch.uint8).reshape(4, 1, 1, 1)
    >>> batches = MemoryBatches(pixels, torch.tensor([0, 1, 0, 1]), classes=2, batch_size=3, mean=[1.0], std=[2.0],
    ...                         shuffle=False)
    >>> [(images.flatten().tolist(), labels.tolist()) for images, labels in batches.epoch(0)]
    [([-0.5, 0.0, 0.5], [0, 1, 0]), ([1.0], [1])]
    """

    def __init__(
        self,
        pixels: Pixels,
        labels: Int64[Tensor, "labels"],
        *,
        classes: int,
        batch_size: int,
        mean: Sequence[float],
        std: Sequence[float],
        shuffle: bool = True,
        augment: Augmenter | None = None,
        mixup: float = 0.0,
        seed: int = 0,
        drop_last: bool = False,
        channels_last: bool = False,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.order = BatchOrder(
            images=len(pixels),
            batch_size=batch_size,
            shuffle=shuffle,
            drop_last=drop_last,
            seed=seed,
            rank=rank,
            world=world,
        )
        check_labels(labels, len(pixels), classes)
        check_finite(pixels)
        middle, spread = normalisation(mean, std, pixels.shape[1])
        self._prepare = Preparer(
            classes=classes, mean=middle, std=spread, augment=augment, mixup=mixup, channels_last=channels_last
        )
        self.images, self.classes, self.steps = len(pixels), classes, self.order.steps
        self.shape: tuple[int, int, int] = (pixels.shape[1], pixels.shape[2], pixels.shape[3])
        self.labels = labels
        self._pixels = pixels.contiguous()

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`, from the batch `first` on; see `Batches.epoch`."""
        order = self.order.epoch(number)
        for step in range(first, self.steps):
            rows = self.order.rows(order, step)
            own = self.order.own(len(rows))
            needed = rows[self._prepare.needed(own, len(rows))]
            generator = seeded(self.order.seed, DRAWS, number, step)
            pixels = self._pixels.index_select(0, needed)
            yield self._prepare.finish(pixels, self.labels[needed], own, len(rows), generator)


def seeded(*numbers: int) -> torch.Generator:
    """A generator for one purpose: other numbers, unrelated draws (SeedSequence of O'Neill 2015, as NumPy has it)."""
    state = np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(state >> np.uint64(1)))


def normalisation(
    mean: Sequence[float], std: Sequence[float], channels: int
) -> tuple[Float32[Tensor, "channels 1 1"], Float32[Tensor, "channels 1 1"]]:
    """Mean and standard deviation of each channel as tensors that fit a batch.

    Raises:
        ConfigError: not one number a channel, not finite, or a deviation of 0.
    """
    for name, values in (("mean", mean), ("std", std)):
        if len(values) != channels or not all(math.isfinite(value) for value in values):
            raise ConfigError(f"{name} must be {channels} numbers, one a channel; received {list(values)}")
    if min(std) <= 0:
        raise ConfigError(f"std must be above 0 in every channel; received {list(std)}")
    middle, spread = (torch.tensor(list(values), dtype=torch.float32).reshape(-1, 1, 1) for values in (mean, std))
    return middle, spread


def check_labels(labels: Int64[Tensor, "labels"], images: int, classes: int) -> None:
    """Raise a DataError if there is not one label a photo, or one is none of the classes."""
    if len(labels) != images:
        raise DataError(f"expected a label for each of {images:,} photos; received {len(labels):,} labels")
    wrong = torch.nonzero((labels < 0) | (labels >= classes)).flatten()
    if len(wrong):
        first = int(wrong[0])
        raise DataError(
            f"a label is out of range: photo {first:,} has label {int(labels[first])}, expected 0 to {classes - 1} for "
            f"{classes} classes ({len(wrong):,} of {images:,} labels are wrong); correct the labels"
        )


def check_finite(pixels: Pixels) -> None:
    """Raise a DataError if a pixel is NaN or infinite, which only floats can be."""
    if not pixels.is_floating_point():
        return
    bad = torch.nonzero(~torch.isfinite(pixels).flatten(1).all(dim=1)).flatten()
    if len(bad):
        raise DataError(
            f"{len(bad):,} of {len(pixels):,} photos have pixels that are NaN or infinite, the first is photo "
            f"{int(bad[0]):,}; expected grey levels 0 to 255; correct or remove them"
        )
