"""Before a training from scratch: some of the photos, the net as it would be trained, and two short trials of it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.errors import DataError
from headstart.features import survey_photos
from headstart.preprocess import Preprocessing
from headstart.progress import Progress
from headstart.readers import open_dataset

if TYPE_CHECKING:
    from torch import Tensor, nn

    from headstart.training.range_finder import RangeResult, Trial
    from headstart.training.sanity import CheckResult

SAMPLE = 2000  # photos, at most, that a trial looks at
SPREAD = (0.01, 0.1, 0.3, 1.0, 3.0, 10.0, 100.0)  # times the suggested rate: those of the sweep


@dataclass(frozen=True, eq=False)
class Sample:
    """Some of the training photos, and the net that would be trained with them.

    Args:
        pixels: (photos, channels, height, width) uint8.
        labels: (photos,) int64.
        classes: names.
        mean, std: of each channel, grey levels.
        build: gives the net, from the global random numbers.
        why: what the net sees, in words.
    """

    pixels: "Tensor"
    labels: "Tensor"
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    build: "Callable[[], nn.Module]"
    why: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class Rates:
    """What a net did with each learning rate.

    Args:
        tested: the range test.
        trials: short trainings with rates around the one that it suggests.
        chance: the loss of one who guesses.
    """

    tested: "RangeResult"
    trials: "tuple[Trial, ...]"
    chance: float


def take_sample(
    data: str, config: TrainConfig, *, photos: int = SAMPLE, quiet: bool = True, follow_links: bool = False
) -> Sample:
    """Read some training photos, of every class equally many as far as there are, as the net of the config sees them.

    Args:
        data: as for `headstart.train`; photos of its test split are left alone.
        config: `net`, `image_size`, `colour` and `seed` count here.
        photos: at most.
        quiet: show no progress line.
        follow_links: also read what symbolic links inside the folder point to.

    Raises:
        DataError: no photos of two classes can be read.
    """
    import torch

    from headstart.job.net_input import choose_input
    from headstart.nets import NETS, build_net
    from headstart.training.sanity import choose_photos
    from headstart.training.streamed import labels_of, read_pixels

    if config.net not in NETS:
        build_net(str(config.net))  # says so, and which there are
    dataset = _training_photos(open_dataset(data, follow_links=follow_links))
    chosen = choose_photos(torch.from_numpy(dataset.labels()), photos, config.seed).tolist()
    dataset = dataset.subset(dataset.photos[place] for place in chosen)
    with Progress(len(dataset.photos), "photos", quiet=quiet) as progress:
        survey = survey_photos(dataset, store=None, threads=config.threads, progress=progress)
    usable = [place for place, fact in enumerate(survey.facts) if fact.rejected is None]
    if len({dataset.photos[place].label for place in usable}) < 2:
        raise DataError(f"'{dataset.name}' has readable photos of fewer than 2 classes; there is nothing to tell apart")
    seen = choose_input(config, dataset, [survey.facts[place] for place in usable])
    blank = (0.0,) * seen.channels, (1.0,) * seen.channels
    pixels = read_pixels(dataset, usable, Preprocessing(seen.size, 1.0, *blank), threads=config.threads)
    levels = pixels.astype(np.float32)
    name, options = str(config.net), seen.options
    return Sample(
        torch.from_numpy(pixels),
        labels_of(dataset, usable),
        dataset.classes,
        tuple(levels.mean(axis=(0, 2, 3)).tolist()),
        tuple(np.maximum(levels.std(axis=(0, 2, 3)), 1.0).tolist()),
        lambda: build_net(name, **options),
        seen.why,
    )


def try_rates(
    data: str, config: TrainConfig, *, steps: int = 100, quiet: bool = True, follow_links: bool = False
) -> Rates:
    """The range test of a net on a data set, and a sweep around the rate that it suggests.

    Args:
        data: as for `headstart.train`.
        config: the net and everything else but the learning rate.
        steps: of the range test and of every training of the sweep.
        quiet: show no progress line.
        follow_links: also read what symbolic links inside the folder point to.
    """
    from headstart.training.batches import MemoryBatches
    from headstart.training.range_finder import build_seeded, chance_loss, find_range, sweep

    sample = take_sample(data, config, quiet=quiet, follow_links=follow_links)
    batches = MemoryBatches(
        sample.pixels,
        sample.labels,
        classes=len(sample.classes),
        batch_size=config.batch_size,
        mean=sample.mean,
        std=sample.std,
        seed=config.seed,
        drop_last=True,
    )
    with _threads(config.threads):
        tested = find_range(build_seeded(sample.build, config.seed), batches, config, steps=steps)
        rates = [float(f"{tested.suggestion * factor:.2g}") for factor in SPREAD]
        with Progress(len(rates) * steps, "steps", quiet=quiet) as progress:
            trials = sweep(sample.build, batches, config, rates, steps=steps, progress=progress)
    return Rates(tested, trials, chance_loss(config, len(sample.classes)))


def check(data: str, config: TrainConfig, *, quiet: bool = True, follow_links: bool = False) -> "CheckResult":
    """The 50-photo check of a net on a data set.

    Args:
        data: as for `headstart.train`.
        config: the net, the loss, the optimiser, the learning rate and the seed.
        quiet: show no progress line.
        follow_links: also read what symbolic links inside the folder point to.
    """
    import torch

    from headstart.training.sanity import check_net

    sample = take_sample(data, config, quiet=quiet, follow_links=follow_links)
    mean, std = (torch.tensor(levels)[:, None, None] for levels in (sample.mean, sample.std))
    images = (sample.pixels.float() - mean) / std
    with _threads(config.threads):
        return check_net(sample.build, images, sample.labels, config, classes=len(sample.classes))


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Let torch use so many threads inside the block; 0: as many as it would."""
    import torch

    before = torch.get_num_threads()
    try:
        if count:
            torch.set_num_threads(count)
        yield
    finally:
        torch.set_num_threads(before)


def _training_photos(dataset: Dataset) -> Dataset:
    """Those that the data do not keep for the test."""
    rest = [photo for photo in dataset.photos if photo.split in (None, "train")]
    return dataset.subset(rest) if rest else dataset


def describe_rates(found: Rates, config: TrainConfig) -> dict[str, Any]:
    """The JSON document of `headstart lr`."""
    return {
        "net": config.net,
        "optimiser": config.optimiser,
        "suggestion": float(f"{found.tested.suggestion:.2g}"),
        "chance": found.chance,
        "range": found.tested.to_json(),
        "sweep": [trial.to_json() for trial in found.trials],
    }
