"""The photos of a job and all that is known of them before anything is fitted: facts, features, faults, the split."""

import dataclasses
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float64, Int64

from headstart import heads, quality
from headstart.backbones import Backbone
from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.errors import ConfigError, DataError
from headstart.features import Survey, survey_photos
from headstart.job import evidence
from headstart.progress import Progress
from headstart.report import make_thumbnail
from headstart.split import Split, make_split
from headstart.store import Store

Say = Callable[[str], None]


@dataclass
class Timings:
    """Wall-clock seconds of each step of a run."""

    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)
    _open: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        self._open[name] = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._open.pop(name)

    def to_json(self) -> dict[str, float]:
        """Return every step, one that still runs up to now, and `total`."""
        now = time.perf_counter()
        running = {name: self.seconds.get(name, 0.0) + now - begun for name, begun in self._open.items()}
        steps = self.seconds | running | {"total": now - self.begun}
        return {name: round(value, 4) for name, value in steps.items()}


@dataclass(frozen=True, eq=False)
class Material:
    """The photos and what is known of them before anything is trained.

    Args:
        dataset: the photos.
        survey: facts of each of them, and the features of a pretrained backbone where one is used.
        report: what is wrong with them.
        split: training, validation and final test.
        clusters: near duplicates and groups have the same number.
        about: `data` of metrics.json.
    """

    dataset: Dataset
    survey: Survey
    report: quality.ScanReport
    split: Split
    clusters: Int64[np.ndarray, "photos"]
    about: dict[str, Any]

    def labels(self, part: Int64[np.ndarray, "part"]) -> Int64[np.ndarray, "part"]:
        """The classes of some photos."""
        return np.asarray(self.dataset.labels()[part])

    def sample_weights(self, config: TrainConfig) -> Float64[np.ndarray, "train"] | None:
        """How much each training photo counts; None: all the same."""
        own = self.labels(self.split.train)
        return heads.balanced_weights(own, len(self.dataset.classes)) if config.class_weights == "balanced" else None


def look(
    dataset: Dataset,
    config: TrainConfig,
    backbone: Backbone | None = None,
    *,
    cuts: Sequence[str] = ("pooled",),
    folds: int = 0,
    quiet: bool,
    say: Say,
) -> Material:
    """Visit every photo once, find what is wrong with them, and divide them.

    Args:
        dataset: the photos.
        config: the settings.
        backbone: its features are taken; None: none.
        cuts: where.
        folds: of the training photos, for held-out predictions; 0: a part of them is set apart for validation.
        quiet: show no progress line.
        say: told what the user should know of the store.

    Raises:
        ConfigError: a network is to be trained and there are fewer training photos than a batch has.
        DataError: the photos cannot be divided.
    """
    with Store() as store, Progress(len(dataset.photos), "photos", quiet=quiet) as progress:
        survey = survey_photos(
            dataset,
            backbone=backbone,
            cuts=tuple(cuts),
            engine=config.engine,
            store=store,
            threads=config.threads,
            progress=progress,
        )
    for notice in survey.notices:
        say(notice)
    found = quality.find_duplicates(survey.facts)
    report = quality.inspect(dataset, survey.facts, found)
    clusters = quality.clusters(dataset, survey.facts, found)
    split = make_split(
        dataset,
        [index for index, fact in enumerate(survey.facts) if fact.rejected is None],
        clusters,
        seed=config.seed,
        test_fraction=config.test_fraction,
        folds=folds or max(2, round(1 / config.validation_fraction)),
        digests=[fact.digest for fact in survey.facts],
    )
    if not folds:
        split = with_validation(split, config.seed)
    if not folds and config.batch_size > len(split.train):
        raise ConfigError(
            f"a batch of {config.batch_size:,} photos is larger than the data: there are {len(split.train):,} training "
            f"photos; give --batch-size {max(1, len(split.train) // 4)} or smaller"
        )
    about = evidence.describe_data(dataset, survey, split, report)
    return Material(dataset, survey, report, split, clusters, about)


def with_validation(split: Split, seed: int, *, fold: int = 0) -> Split:
    """The split with validation photos: the data's own, or else those of one fold."""
    if len(split.validation):
        how = f"The validation photos are the data's own val split ({len(split.validation):,} photos)."
        return dataclasses.replace(split, how=f"{split.how} {how}")
    held = split.folds == fold
    how = (
        f"{np.count_nonzero(held):,} of {len(held):,} training photos were set apart for validation with seed "
        f"{seed}; every class in proportion, copies and groups on one side."
    )
    return dataclasses.replace(
        split,
        train=split.train[~held],
        validation=split.train[held],
        folds=split.folds[~held],
        how=f"{split.how} {how}",
        apart=True,
    )


def with_all_photos(split: Split) -> Split | None:
    """The split with the validation photos among the training photos again; None where the data gave them."""
    if not split.apart:
        return None
    order = np.argsort(both := np.concatenate([split.train, split.validation]), kind="stable")
    folds = np.concatenate([split.folds, np.full(len(split.validation), split.folds.max(initial=-1) + 1)])
    return dataclasses.replace(
        split, train=both[order], validation=both[:0], folds=folds[order].astype(np.int64), apart=False
    )


def read_thumbnails(dataset: Dataset) -> Callable[[str], bytes | None]:
    """Return a function from a photo's path to the bytes of its file, for the few photos a report shows."""
    photos = {photo.path: photo for photo in dataset.photos}

    def read(path: str) -> bytes | None:
        try:
            return make_thumbnail(dataset.fetch(photos[path]))
        except (DataError, KeyError):
            return None

    return read
