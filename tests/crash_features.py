"""A survey with a network made of paper: real photos, decoding, threads and store; the engine only adds up pixels.

`survey_in_child` runs one in a forked process that can be killed or interrupted.
"""

import os
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from headstart.backbones import Backbone
from headstart.backbones.converted import ConvertedNet
from headstart.dataset import Dataset, Photo
from headstart.features import survey_photos
from headstart.preprocess import Preprocessing
from headstart.store import Store

SIZE = 16  # pixels of the paper network's input
CUTS = {"pooled": 48, "stage1": 16}
PREPROCESSING = Preprocessing(
    size=SIZE, crop_fraction=0.5, mean=(127.0, 127.0, 127.0), std=(128.0, 128.0, 128.0), filter="bilinear"
)


def paper_features(picture: np.ndarray) -> dict[str, np.ndarray]:
    """Sums over rows, which differ for any two of our photos."""
    values = picture.astype(np.float32)
    return {"pooled": values.sum(axis=0).reshape(-1) / 7, "stage1": values.sum(axis=(1, 2)) / 3}


class PaperEngine:
    """Computes `paper_features`, `seconds` a photo, and appends a line to `log` for each."""

    name = "openvino-paper"

    def __init__(self, log: Path | None = None, seconds: float = 0.0) -> None:
        self.computed = 0
        self._log = log
        self._seconds = seconds

    def run(
        self, images: Iterable[tuple[Any, np.ndarray]], cuts: Sequence[str] | None = None
    ) -> Iterator[tuple[Any, dict[str, np.ndarray]]]:
        for key, picture in images:
            assert picture.shape == (SIZE, SIZE, 3)
            if self._seconds:
                time.sleep(self._seconds)
            self.computed += 1
            if self._log is not None:
                with self._log.open("ab", buffering=0) as file:
                    file.write(b"photo\n")
            every = paper_features(picture)
            yield key, {cut: every[cut] for cut in cuts or CUTS}

    def close(self) -> None:
        raise AssertionError("an engine that was given open stays open")


def paper_backbone(weights: str = "0" * 64, preprocessing: Preprocessing = PREPROCESSING) -> Backbone:
    return Backbone(
        name="efficientnet-lite0",
        preprocessing=preprocessing,
        cuts=dict(CUTS),
        outputs={cut: (length,) for cut, length in CUTS.items()},
        weights_sha256=weights,
        classes=None,
        source="paper",
        net_options={},
        converted=ConvertedNet("efficientnet-lite0", {}, weights, preprocessing, dict),
    )


def make_photos(folder: Path, count: int, *, suffix: str = "png", seed: int = 0) -> Dataset:
    """Photos of noise, no two alike, 40 x 32 pixels."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True, exist_ok=True)
    names = [f"{number:04d}.{suffix}" for number in range(count)]
    for name in names:
        Image.fromarray(rng.integers(0, 256, (32, 40, 3), dtype=np.uint8)).save(folder / name)
    return Dataset("photos", folder, ("only",), tuple(Photo(name, 0) for name in names))


def survey_in_child(
    dataset: Dataset, store: Path, log: Path, *, seconds: float, result: Path | None = None, threads: int = 2
) -> int:
    """Start a survey in a forked process, which exits with 0 when done and 130 when interrupted and tidy."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        engine = PaperEngine(log, seconds)
        with Store(store) as opened:
            survey = survey_photos(dataset, backbone=paper_backbone(), engine=engine, store=opened, threads=threads)
        if result is not None:
            np.save(result, survey.features["pooled"])
        code = 0
    except KeyboardInterrupt:
        code = 130 if threading.active_count() == 1 else 99
    finally:
        os._exit(code)


def exit_code(child: int, seconds: float) -> int:
    """Wait for a child; one that takes longer is killed and counts as -9."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def lines_of(log: Path) -> int:
    return log.read_bytes().count(b"\n") if log.exists() else 0
