"""The grey levels of the training photos, which decide how a network that starts from nothing normalises its input."""

import numpy as np
from jaxtyping import Int64

from headstart.dataset import Dataset
from headstart.job.net_input import NetInput
from headstart.preprocess import Preprocessing
from headstart.training.streamed import read_pixels

MOST_MEASURED = 10_000  # photos, evenly spread; more move the mean by less than 0.1 grey levels
CHUNK = 256  # photos decoded at a time
LEAST_SPREAD = 1e-3  # grey levels; photos of one colour are not blown up


def measured(
    dataset: Dataset, train: Int64[np.ndarray, "train"], chosen: NetInput, *, threads: int = 0
) -> Preprocessing:
    """The preprocessing of a net: the whole shorter side of a photo, and mean and deviation of the training photos.

    Args:
        dataset: the photos.
        train: which of them are for training; no other is looked at.
        chosen: size and channels.
        threads: decoding threads; 0: all this process may use.

    Raises:
        DataError: a training photo cannot be read any more.
    """
    channels = chosen.channels
    plain = Preprocessing(chosen.size, 1.0, (0.0,) * channels, (1.0,) * channels)
    places = np.linspace(0, len(train) - 1, min(len(train), MOST_MEASURED)).astype(np.int64)
    count, total, squares = 0, np.zeros(channels, np.int64), np.zeros(channels, np.int64)
    for start in range(0, len(places), CHUNK):
        levels = read_pixels(dataset, train[places[start : start + CHUNK]], plain, threads=threads).astype(np.int64)
        count += levels[:, 0].size
        total += levels.sum(axis=(0, 2, 3))
        squares += np.square(levels).sum(axis=(0, 2, 3))
    mean = total / count
    spread = np.sqrt(np.maximum(squares / count - mean**2, 0))
    std = [float(value) if value > LEAST_SPREAD else 1.0 for value in spread]
    return Preprocessing(
        chosen.size, 1.0, tuple(round(float(value), 4) for value in mean), tuple(round(v, 4) for v in std)
    )
