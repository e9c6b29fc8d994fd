"""Photos a second from files to features, against what the processor allows and an eager torch loop; and memory.

    python benchmarks/features.py ../shared/data/ants_bees [--photos 192] [--rounds 5] [--memory 400 4000]

Every round takes, one after the other: `survey_photos` into an empty store; the CPU time of a photo's reading, hashing,
decoding and describing on one thread, and of its inference on one stream; how many cores the machine really gave (busy
threads that only hash); and a loop as tutorials write it: Pillow's open, convert, resize, crop, then torch, eager,
channels_last, batches of 32. The limit is the cores given, over the CPU time of a photo. The ratios of each round
count; the machine need not be quiet.

Memory: peak of a fresh process that surveys as many photos with distinct bytes (a real photo, and a number behind its
end).
"""

import argparse
import hashlib
import io
import json
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine, peak_memory, spread
from PIL import Image

from headstart.backbones import Backbone, open_backbone
from headstart.backbones.engines import Engine, available_threads, open_engine
from headstart.dataset import Dataset, Photo
from headstart.features import survey_photos
from headstart.features.decoding import content_digest
from headstart.images import decode
from headstart.quality import photo_fingerprint
from headstart.readers import open_dataset
from headstart.store import Store

TORCH_PHOTOS = 64  # of the slow loop, two batches


class Repeated(Dataset):
    """The same photos again and again, each time with other bytes behind the end of the image."""

    def fetch(self, photo: Photo) -> bytes:
        """Read the photo and append its number."""
        path, _, number = photo.path.rpartition("#")
        return (self.root / path).read_bytes() + number.encode()


def repeated(dataset: Dataset, count: int) -> Dataset:
    listed = [dataset.photos[number % len(dataset.photos)] for number in range(count)]
    photos = tuple(Photo(f"{photo.path}#{number}", photo.label) for number, photo in enumerate(listed))
    return Repeated(dataset.name, dataset.root, dataset.classes, photos)


def cores_given(seconds: float = 0.5) -> float:
    """CPU seconds a second that as many busy threads as there are cores get here, now."""
    block, stop = bytes(2**20), time.perf_counter() + seconds

    def burn() -> None:
        while time.perf_counter() < stop:
            hashlib.sha256(block)

    begun, begun_cpu = time.perf_counter(), time.process_time()
    threads = [threading.Thread(target=burn) for _ in range(available_threads())]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return (time.process_time() - begun_cpu) / (time.perf_counter() - begun)


def survey_rate(dataset: Dataset, backbone: Backbone, engine: object) -> tuple[float, float]:
    """Photos a second, and CPU seconds a photo."""
    with tempfile.TemporaryDirectory() as folder, Store(Path(folder) / "store.sqlite3") as store:
        begun = time.process_time()
        survey = survey_photos(dataset, backbone=backbone, engine=engine, store=store)
        cpu = time.process_time() - begun
    assert survey.computed == len(dataset.photos), survey.notices
    return survey.computed / survey.seconds, cpu / survey.computed


def cpu_of_a_photo(dataset: Dataset, backbone: Backbone, single: object) -> tuple[float, float]:
    """CPU seconds on one thread: of everything before the network, and of the network."""
    preprocessing, prepared = backbone.preprocessing, []
    begun = time.thread_time()
    for photo in dataset.photos:
        data = dataset.fetch(photo)
        content_digest(data)
        picture = decode(data, target=preprocessing.decode_target(), name=photo.path)
        photo_fingerprint(picture.pixels)
        prepared.append(preprocessing.apply(picture))
    before = (time.thread_time() - begun) / len(prepared)
    begun = time.process_time()
    for _ in single.run(enumerate(prepared)):
        pass
    return before, (time.process_time() - begun) / len(prepared)


def torch_rate(dataset: Dataset, net: object) -> float:
    """Photos a second of the loop in tutorials."""
    import torch

    side, crop = 256, 224
    begun = time.perf_counter()
    with torch.inference_mode():
        for start in range(0, TORCH_PHOTOS, 32):
            batch = []
            for photo in dataset.photos[start : start + 32]:
                with Image.open(io.BytesIO(dataset.fetch(photo))) as image:
                    rgb = image.convert("RGB")
                scale = side / min(rgb.size)
                small = rgb.resize((round(rgb.width * scale), round(rgb.height * scale)), Image.Resampling.BICUBIC)
                left, top = (small.width - crop) // 2, (small.height - crop) // 2
                pixels = np.asarray(small.crop((left, top, left + crop, top + crop)), np.float32)
                batch.append(torch.from_numpy((pixels - 127.0) / 128.0).permute(2, 0, 1))
            x = torch.stack(batch).contiguous(memory_format=torch.channels_last)
            net.stages(x)["pooled"].numpy()
    return TORCH_PHOTOS / (time.perf_counter() - begun)


def speed(dataset: Dataset, rounds: int) -> None:
    import torch

    backbone = open_backbone("efficientnet-lite0")
    engine, single = open_engine(backbone), open_engine(backbone, threads=1)
    net = backbone.net().to(memory_format=torch.channels_last)
    torch.set_num_threads(available_threads())
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    for number in range(rounds + 1):  # the first is a warm-up
        given_before = cores_given()
        rate, cpu = survey_rate(dataset, backbone, engine)
        given = (given_before + cores_given()) / 2
        before, network = cpu_of_a_photo(dataset, backbone, single)
        slow = torch_rate(dataset, net)
        if number:
            note("survey_photos, photos/s", rate)
            note("torch eager channels_last + textbook Pillow, photos/s", slow)
            note("ratio of the two", rate / slow)
            note("CPU ms a photo before the network, one thread", 1e3 * before)
            note("CPU ms a photo in the network, one stream", 1e3 * network)
            note("CPU ms a photo in survey_photos, everything", 1e3 * cpu)
            note("cores given", given)
            note("limit by CPU time and cores given, photos/s", given / (before + network))
            note("share of that limit", rate * (before + network) / given)
            note("share of the limit of all cores", rate * (before + network) / available_threads())
    print(f"{len(dataset.photos)} photos, {TORCH_PHOTOS} of them in the torch loop; median [least-most] of rounds")
    for name, values in rows.items():
        print(f"  {name:56} {spread(values)}")


def memory(data: Path, sizes: list[int], every: int) -> None:
    print("photos   peak MB   of which matrix MB   photos/s   stored again: peak MB, photos/s")
    for size in sizes:
        with tempfile.TemporaryDirectory() as folder:
            lines = []
            for _ in range(2):
                command = [sys.executable, __file__, str(data), "--one-survey", str(size), folder]
                command += ["--network-every", str(every)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                lines.append(json.loads(done.stdout))
        first, again = lines
        print(f"{size:6,}   {first['peak']:7.0f}   {first['matrix']:18.1f}   {first['rate']:8.1f}", end="")
        print(f"   {again['peak']:21.0f}, {again['rate']:8.1f}", flush=True)


class SparseEngine:
    """Computes the features of one photo in some; the others get the same ones again: for memory."""

    def __init__(self, engine: Engine, every: int) -> None:
        self.name = f"{engine.name}-every-{every}"
        self._engine, self._every = engine, every

    def run(self, images: Iterable[tuple[Any, Any]], cuts: Sequence[str] | None = None) -> Iterator[tuple[Any, Any]]:
        """Yield features for every photo."""
        features = None
        for number, (key, picture) in enumerate(images):
            if number % self._every == 0:
                ((_, features),) = self._engine.run([(key, picture)], cuts)
            yield key, features

    def close(self) -> None:
        """Give the network's memory back."""
        self._engine.close()


def one_survey(data: Path, size: int, folder: Path, every: int) -> None:
    dataset = repeated(open_dataset(data), size)
    backbone = open_backbone("efficientnet-lite0")
    engine = "auto" if every == 1 else SparseEngine(open_engine(backbone, cuts=("pooled",)), every)
    with Store(folder / "store.sqlite3") as store:
        survey = survey_photos(dataset, backbone=backbone, engine=engine, store=store)
    peak = peak_memory()
    matrix = survey.features["pooled"].nbytes / 2**20
    print(json.dumps({"peak": peak, "matrix": matrix, "rate": size / survey.seconds}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, nargs="?", default=Path("../shared/data/ants_bees"))
    parser.add_argument("--photos", type=int, default=192)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--memory", type=int, nargs="*", default=[400, 4000])
    parser.add_argument("--network-every", type=int, default=1, help="for --memory: compute one photo in so many")
    parser.add_argument("--one-survey", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one_survey:
        one_survey(given.data, int(given.one_survey[0]), Path(given.one_survey[1]), given.network_every)
        return
    print(machine())
    if given.rounds:
        dataset = open_dataset(given.data)
        step = max(1, len(dataset.photos) // given.photos)
        speed(dataset.subset(dataset.photos[::step][: given.photos]), given.rounds)
    if given.memory:
        memory(given.data, given.memory, given.network_every)


if __name__ == "__main__":
    main()
