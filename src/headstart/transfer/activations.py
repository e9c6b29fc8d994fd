"""Cached activations: what the frozen beginning of a net makes of each photo, and of a few changed views of it.

The beginning never changes, so its output is computed once, by the fast engine, and every epoch of the training starts
from there. Numbers of 16 bits halve the room; where they are many they lie in an unnamed file. Photos cannot be changed
at random in each epoch any more: instead so many views of each are kept, the first as it is, and an epoch takes one of
them at random.
"""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np
import torch
from jaxtyping import Float16, Int64, UInt8
from torch import Tensor

from headstart.backbones import Backbone
from headstart.backbones.engines import open_engine
from headstart.dataset import Dataset
from headstart.errors import ConfigError
from headstart.features.matrix import Matrix
from headstart.progress import Progress
from headstart.training.batches import DRAWS, Augmenter, BatchOrder, check_labels, seeded
from headstart.training.streamed import decode_groups

GROUP = 16  # photos that are decoded together
LARGEST = 65504.0  # of a number of 16 bits


class Views:
    """The views of some photos, which lie in several arrays; indexed like one of `shape` by photos and views.

    Args:
        parts: arrays of (photos, views, length).
        places: of each photo: which part, and which row of it.
        views: of each photo; a part may have more.
    """

    def __init__(
        self,
        parts: Sequence[Float16[np.ndarray, "_ _ length"]],
        places: Sequence[tuple[int, int]],
        views: int,
    ) -> None:
        self.shape = len(places), views, parts[0].shape[2] if parts else 0
        self._parts, self._places = parts, places

    def __getitem__(
        self, wanted: tuple[Int64[np.ndarray, "taken"], Int64[np.ndarray, "taken"]]
    ) -> Float16[np.ndarray, "taken length"]:
        found = np.empty((len(wanted[0]), self.shape[2]), np.float16)
        for row, (photo, view) in enumerate(zip(*wanted, strict=True)):
            part, place = self._places[photo]
            found[row] = self._parts[part][place, view]
        return found


class KeptViews:
    """Views of photos for several trainings on different ones of them: what was computed once is not computed again.

    Args:
        dataset, backbone, cut, views, augment, engine, threads, seed: as of `cache_activations`.
    """

    def __init__(self, dataset: Dataset, backbone: Backbone, cut: str, *, views: int, **settings: Any) -> None:
        self.views = views
        self._given, self._settings = (dataset, backbone, cut), settings
        self._parts: list[Float16[np.ndarray, "_ _ length"]] = []
        self._places: dict[int, tuple[int, int]] = {}

    def missing(self, indices: Int64[np.ndarray, "photos"], *, plain: bool = False) -> list[int]:
        """The photos whose views are still to be computed."""
        wanted, places, parts = 1 if plain else self.views, self._places, self._parts
        return [at for at in indices.tolist() if at not in places or parts[places[at][0]].shape[1] < wanted]

    def of(
        self, indices: Int64[np.ndarray, "photos"], *, plain: bool = False, progress: Progress | None = None
    ) -> Views:
        """The views of photos; `plain`: the photos as they are alone."""
        wanted = 1 if plain else self.views
        if missing := self.missing(indices, plain=plain):
            dataset, backbone, cut = self._given
            settings = self._settings | ({"augment": None} if plain else {}) | {"views": wanted, "progress": progress}
            self._parts.append(cache_activations(dataset, np.array(missing), backbone, cut, **settings))
            self._places |= {at: (len(self._parts) - 1, row) for row, at in enumerate(missing)}
        return Views(self._parts, [self._places[at] for at in indices.tolist()], wanted)


class CachedBatches:
    """Batches of cached activations; the same (seed, epoch) gives the same batches, bit for bit.

    Args:
        maps: of every view of every photo.
        shape: channels, height, width of a map.
        labels: of each photo, 0 to classes - 1.
        classes: how many there are.
        batch_size: photos a step.
        shuffle: a new order every epoch, and any of the views; else the order of the photos, and the first view.
        seed: of the order and of the views taken.
    """

    def __init__(
        self,
        maps: "Float16[np.ndarray, 'photos views length'] | Views",
        shape: tuple[int, int, int],
        labels: Int64[np.ndarray, "photos"],
        *,
        classes: int,
        batch_size: int,
        shuffle: bool = True,
        seed: int = 0,
    ) -> None:
        images = maps.shape[0]
        self.order = BatchOrder(images=images, batch_size=batch_size, shuffle=shuffle, seed=seed)
        self.labels = torch.from_numpy(labels)
        check_labels(self.labels, images, classes)
        self.images, self.classes, self.shape, self.steps = images, classes, shape, self.order.steps
        self._maps = maps

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The batches of epoch `number`, from the batch `first` on; see `headstart.training.batches.Batches.epoch`."""
        order = self.order.epoch(number)
        views = self._maps.shape[1]
        for step in range(first, self.steps):
            rows = self.order.rows(order, step)
            taken = torch.zeros_like(rows)
            if self.order.shuffle:
                taken = torch.randint(views, rows.shape, generator=seeded(self.order.seed, DRAWS, number, step))
            maps = torch.from_numpy(self._maps[rows.numpy(), taken.numpy()].astype(np.float32))
            images = maps.reshape(-1, *self.shape).contiguous(memory_format=torch.channels_last)
            yield images, self.labels[rows]


def cache_activations(
    dataset: Dataset,
    indices: Sequence[int] | Int64[np.ndarray, "photos"],
    backbone: Backbone,
    cut: str,
    *,
    pooled: bool = False,
    views: int = 1,
    augment: Augmenter | None = None,
    engine: str = "auto",
    threads: int = 0,
    seed: int = 0,
    progress: Progress | None = None,
) -> Float16[np.ndarray, "photos views length"]:
    """Run photos, and changed views of them, through the beginning of a net.

    Args:
        dataset: the photos.
        indices: which of them, as places in `dataset.photos`; they must be readable.
        backbone: the net.
        cut: one of its cuts; of a map the map itself, else the vector.
        pooled: of a map its average over all places, a number a channel.
        views: of each photo, the first as it is.
        augment: makes the others; None allows one view.
        engine, threads: as of `headstart.backbones.engines.open_engine`.
        seed: of the changes; those of a photo depend on it, the photo's place in `dataset.photos`, and the view.
        progress: told of every finished photo.

    Returns:
        For each photo and view the map of the cut, flat, channels first; values beyond 65,504 are cut off there.

    Raises:
        ConfigError: there is no such cut, or several views are wanted without a change.
        DataError: a photo cannot be read.
    """
    output = f"{cut}_map" if not pooled and f"{cut}_map" in backbone.outputs else cut
    if output not in backbone.outputs:
        raise ConfigError(f"{backbone.name} has no cut {cut!r}; its cuts are {', '.join(backbone.cuts)}")
    if views < 1 or (views > 1 and augment is None):
        raise ConfigError(f"{views} views of a photo need an augmentation; give one, or take 1 view")
    length = int(np.prod(backbone.outputs[output]))
    matrix = Matrix(len(indices) * views, length, half=True)
    photos = _views(dataset, indices, backbone, views, augment, seed, threads)
    running = open_engine(backbone, cuts=(output,), kind=engine, threads=threads)
    try:
        with closing(running.run(photos)) as results:  # type: ignore[type-var]
            for place, found in results:
                matrix.write(int(place), np.clip(found[output], -LARGEST, LARGEST).reshape(-1))
                if progress is not None and place % views == views - 1:
                    progress.advance(1)
    finally:
        running.close()
    return matrix.array().reshape(len(indices), views, length)


def _views(
    dataset: Dataset,
    indices: Sequence[int] | Int64[np.ndarray, "photos"],
    backbone: Backbone,
    views: int,
    augment: Augmenter | None,
    seed: int,
    threads: int,
) -> Iterator[tuple[int, UInt8[np.ndarray, "size size channels"]]]:
    """The views of each photo, one photo after the other, with their places."""
    places = [int(index) for index in indices]
    groups = ([dataset.photos[index] for index in places[at : at + GROUP]] for at in range(0, len(places), GROUP))
    fill = torch.tensor(backbone.preprocessing.mean, dtype=torch.float32).reshape(-1, 1, 1)
    photo = 0
    with closing(decode_groups(dataset, backbone.preprocessing, groups, threads=threads, ahead=1)) as arrays:
        for group in arrays:
            for planes in group:
                yield photo * views, np.ascontiguousarray(planes.transpose(1, 2, 0))
                if augment is not None and views > 1:
                    for view, changed in enumerate(
                        _changed(planes, views - 1, augment, fill, seed, places[photo]), start=1
                    ):
                        yield photo * views + view, changed
                photo += 1


def _changed(
    planes: UInt8[np.ndarray, "channels size size"],
    count: int,
    augment: Augmenter,
    fill: Tensor,
    seed: int,
    photo: int,
) -> UInt8[np.ndarray, "count size size channels"]:
    batch = torch.from_numpy(planes)[None].expand(count, *planes.shape).contiguous()
    drawn = augment.draw(count, (planes.shape[0], planes.shape[1], planes.shape[2]), seeded(seed, DRAWS, photo))
    changed = augment.apply(batch, drawn, fill).round().clamp(0, 255).to(torch.uint8)
    return np.ascontiguousarray(changed.permute(0, 2, 3, 1).numpy())
