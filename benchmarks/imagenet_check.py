"""Are the weights used as they were trained? Share of photos whose first ImageNet class is right.

    python benchmarks/imagenet_check.py FOLDER... [--mapping FILE] [--backbone NAME...] [--limit N] [--filters]

Each FOLDER holds class folders. A class folder is named by its ImageNet index (0 to 999), or is one of ants, bees, cat,
dog, or stands in the mapping file, one line for each: the folder's name, then its indexes, for example

    n01440764 0
    dog 151-268

The same photos are classified with the constants of EfficientNet-Lite, (x - 127) / 128, and with those most other nets
use (the mean and standard deviation of ImageNet). Where the right ones do not win clearly, something is wrong with the
preprocessing. With --filters the right constants are kept and the ways to resize are compared instead.
"""

import argparse
import dataclasses
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path

import numpy as np
from harness import machine, spread

from headstart.backbones import BACKBONES, Backbone, backbone_from_tensors, open_backbone
from headstart.backbones.engines import open_engine
from headstart.errors import ImageRejected
from headstart.images import decode, read_photo_bytes
from headstart.preprocess import Preprocessing

KNOWN = {"ants": range(310, 311), "bees": range(309, 310), "cat": range(281, 286), "dog": range(151, 269)}
OTHER_NETS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}  # of ImageNet, in 0..255


def mapping_of(file: Path | None) -> dict[str, frozenset[int]]:
    mapping = {name: frozenset(indexes) for name, indexes in KNOWN.items()}
    mapping |= {str(index): frozenset([index]) for index in range(1000)}
    for line in file.read_text(encoding="utf-8").splitlines() if file else []:
        if line.strip() and not line.startswith("#"):
            name, *parts = line.split()
            ends = [part.partition("-") for part in parts]
            mapping[name] = frozenset(
                index for begin, _, end in ends for index in range(int(begin), int(end or begin) + 1)
            )
    return mapping


def photos_of(
    folders: list[Path], mapping: dict[str, frozenset[int]], limit: int
) -> list[tuple[Path, str, frozenset[int]]]:
    found = []
    for folder in folders:
        for place in sorted(path for path in folder.iterdir() if path.is_dir() and path.name in mapping):
            files = sorted(path for path in place.iterdir() if path.is_file() and not path.name.startswith("."))
            found += [(path, place.name, mapping[place.name]) for path in files[: limit or None]]
    return found


def prepared(photos: list[tuple[Path, str, frozenset[int]]], how: Preprocessing) -> Iterator[tuple[int, np.ndarray]]:
    for number, (path, _, _) in enumerate(photos):
        try:
            yield number, how.apply(decode(read_photo_bytes(path), target=how.decode_target()))
        except ImageRejected as error:
            print(f"skipped {path.name}: {error.reason}")


def with_constants(backbone: Backbone, **constants: tuple[float, float, float]) -> Backbone:
    preprocessing = dataclasses.replace(backbone.preprocessing, **constants)
    return backbone_from_tensors(
        backbone.name, backbone.tensors(), preprocessing, net_options=backbone.net_options, source=backbone.source
    )


def check(backbone: Backbone, photos: list[tuple[Path, str, frozenset[int]]]) -> dict[str, list[bool]]:
    """For each class folder, of each photo that can be read: is the first class one of the right ones?"""
    engine = open_engine(backbone, cuts=("logits",))
    right: dict[str, list[bool]] = {}
    for number, outputs in engine.run(prepared(photos, backbone.preprocessing)):
        _, name, wanted = photos[number]
        right.setdefault(name, []).append(int(outputs["logits"].argmax()) in wanted)
    return right


def compare_filters(backbone: Backbone, photos: list[tuple[Path, str, frozenset[int]]]) -> None:
    engine = open_engine(backbone, cuts=("logits",))
    first: dict[int, bool] = {}
    for name in ("bicubic", "bilinear", "hamming"):
        how = dataclasses.replace(backbone.preprocessing, filter=name)
        hits = {
            number: int(outputs["logits"].argmax()) in photos[number][2]
            for number, outputs in engine.run(prepared(photos, how))
        }
        first = first or hits
        gained, lost = (sum(hits[n] != first[n] and hits[n] == won for n in hits) for won in (True, False))
        milliseconds = spread([_resize_milliseconds(path, how) for path, _, _ in photos[:: len(photos) // 50 or 1]])
        print(f"{name:<10} {interval(list(hits.values()))}; against the first gained {gained}, lost {lost}")
        print(f"{'':<10} CPU ms to crop and resize a decoded photo: {milliseconds}")


def _resize_milliseconds(path: Path, how: Preprocessing) -> float:
    picture = decode(read_photo_bytes(path), target=how.decode_target())
    begin = time.process_time()
    for _ in range(5):
        how.apply(picture)
    return (time.process_time() - begin) / 5 * 1e3


def interval(hits: list[bool], z: float = 1.96) -> str:
    """Share and Wilson's 95% interval (Wilson 1927)."""
    n, share = len(hits), sum(hits) / len(hits)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (share * (1 - share) / n + z * z / (4 * n * n)) ** 0.5
    return f"{share:.3f} [{centre - half:.3f}-{centre + half:.3f}], n = {n}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--mapping", type=Path)
    parser.add_argument("--backbone", nargs="+", default=["efficientnet-lite0"], choices=sorted(BACKBONES))
    parser.add_argument("--limit", type=int, default=0, help="photos of each class folder; 0: all")
    parser.add_argument("--filters", action="store_true", help="compare the ways to resize instead")
    arguments = parser.parse_args()
    photos = photos_of(arguments.folders, mapping_of(arguments.mapping), arguments.limit)
    if not photos:
        parser.error("no class folder with a known name; give --mapping")
    print(machine())
    if arguments.filters:
        for name in arguments.backbone:
            compare_filters(open_backbone(name), photos)
        return
    for name, constants in product(arguments.backbone, ("right", "wrong")):
        backbone = open_backbone(name)
        if constants == "wrong":
            backbone = with_constants(backbone, **OTHER_NETS)
        right = check(backbone, photos)
        print(f"\n{name}, {constants} constants: {interval([hit for hits in right.values() for hit in hits])}")
        for label, hits in sorted(right.items()):
            print(f"  {label:<12} {interval(hits)}")


if __name__ == "__main__":
    main()
