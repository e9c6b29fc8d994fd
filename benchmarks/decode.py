"""CPU time a photo from file bytes to the network's input: headstart's path against the textbook path of Pillow.

    python benchmarks/decode.py ../shared/data/ants_bees/val [--photos 150] [--rounds 5] [--filter bilinear]

The textbook path opens, converts to RGB, resizes the shorter side to `size / crop_fraction` and cuts out the centre.
The variants take turns in every round, so that a busy machine hurts them alike; the ratio of each round is what counts.
"""

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from harness import machine, spread
from PIL import Image, ImageOps

from headstart.errors import ImageRejected
from headstart.images import decode
from headstart.preprocess import FILTERS, Preprocessing


def textbook(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    size, target = preprocessing.size, preprocessing.decode_target()
    image = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    scale = target / min(image.size)
    width, height = round(image.width * scale), round(image.height * scale)
    image = image.resize((width, height), FILTERS[preprocessing.filter])
    left, top = (width - size) // 2, (height - size) // 2
    return np.asarray(image.crop((left, top, left + size, top + size)))


def ours(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    return preprocessing.apply(decode(data, target=preprocessing.decode_target()))


def full_size(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    return preprocessing.apply(decode(data))


def decode_only(data: bytes, preprocessing: Preprocessing) -> np.ndarray:
    return decode(data, target=preprocessing.decode_target()).pixels


def milliseconds(path: Callable[..., np.ndarray], photos: list[bytes], preprocessing: Preprocessing) -> float:
    start = time.process_time()
    for data in photos:
        path(data, preprocessing)
    return (time.process_time() - start) / len(photos) * 1e3


def readable(folder: Path, most: int) -> list[bytes]:
    photos = []
    for path in sorted(folder.rglob("*.*")):
        try:
            data = path.read_bytes()
            decode(data, target=64)
        except (ImageRejected, OSError):
            continue
        photos.append(data)
        if len(photos) == most:
            break
    return photos


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--photos", type=int, default=150)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--filter", choices=list(FILTERS), default="bilinear")
    arguments = parser.parse_args()
    preprocessing = Preprocessing(224, 0.875, (127.0,) * 3, (128.0,) * 3, arguments.filter)
    photos = readable(arguments.folder, arguments.photos)
    sides = sorted(min(Image.open(io.BytesIO(data)).size) for data in photos)
    print(machine())
    print(f"{len(photos)} photos of {arguments.folder}, shorter side {sides[0]} to {sides[-1]} px, {arguments.filter}")
    paths = {"textbook": textbook, "headstart": ours, "headstart, full size": full_size, "decode alone": decode_only}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for _ in range(arguments.rounds):
        for name, path in paths.items():
            times[name].append(milliseconds(path, photos, preprocessing))
    for name, values in times.items():
        ratios = [base / value for base, value in zip(times["textbook"], values, strict=True)]
        print(f"{name:22} CPU ms a photo {spread(values)}; textbook / this {spread(ratios)}")


if __name__ == "__main__":
    main()
