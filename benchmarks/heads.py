"""Which head is the better default: every head on real data sets, over seeds and numbers of photos, and their times.

    python benchmarks/heads.py DATA [DATA ...] [--seeds 5] [--per-class 10,50,all] [--kinds ridge,logistic,auto]
    python benchmarks/heads.py --times

DATA is anything `headstart train` takes, or a folder of Pascal VOC boxes (`Annotations`, `JPEGImages`): then each box
is a photo, and the boxes of one picture stay together. Features come from `headstart.features` and are stored. Where
the data have a test split it is used as it is and the seed changes the folds only; else the seed changes the hold-out
too. `--per-class` thins out the training photos alone. A kind may end in `/std` (each feature divided by its own
standard deviation), `/l2` (each photo's features divided by their length) or `/even` (every class weighted the same).
"""

import argparse
import csv
import statistics
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from harness import machine, spread
from PIL import Image

from headstart import heads, metrics, quality
from headstart.backbones import open_backbone
from headstart.dataset import Dataset
from headstart.features import survey_photos
from headstart.readers import open_dataset
from headstart.split import make_split
from headstart.store import Store

KINDS = [*heads.HEADS, "auto"]
SIZES = ((400, 2, 0.5), (5_000, 100, 6.0), (50_000, 100, 40.0))  # photos, classes, goal in seconds
LENGTH = 1280  # features of the default backbone


@dataclass(frozen=True)
class Result:
    """One head, one seed."""

    kind: str
    accuracy: float
    macro_f1: float
    log_loss: float
    ece: float
    seconds: float


def cut_boxes(folder: Path, room: Path) -> Path:
    """Write every box as a picture of its own and a manifest that names the picture it came from as its group."""
    rows = []
    for notes in sorted((folder / "Annotations").glob("*.xml")):
        source = folder / "JPEGImages" / f"{notes.stem}.jpg"
        if not source.exists():
            continue
        with Image.open(source) as picture:
            for number, thing in enumerate(ElementTree.parse(notes).getroot().iter("object")):
                left, top, right, bottom = (
                    int(float(thing.findtext(f"bndbox/{side}") or 0)) for side in ("xmin", "ymin", "xmax", "ymax")
                )
                if min(right - left, bottom - top) < 5:
                    continue
                name = f"{notes.stem}-{number}.png"
                picture.crop((left, top, right, bottom)).save(room / name)
                rows.append((name, thing.findtext("name"), notes.stem))
    manifest = room / "boxes.csv"
    with manifest.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerows([("path", "label", "group"), *rows])
    return manifest


def thin(dataset: Dataset, most: int) -> Dataset:
    """At most so many photos of each class in each split, evenly spread."""
    members: dict[tuple[int, str | None], list[int]] = {}
    for index, photo in enumerate(dataset.photos):
        members.setdefault((photo.label, photo.split), []).append(index)
    kept = [index for some in members.values() for index in some[:: -(-len(some) // most)][:most]]
    return dataset.subset([dataset.photos[index] for index in sorted(kept)])


def fit_one(kind: str, given: dict[str, np.ndarray], classes: int, seed: int) -> tuple[Result, str]:
    name, _, way = kind.partition("/")
    train, test = given["train"], given["test"]
    if way == "std":
        deviation = train.std(axis=0)
        train, test = (part / np.where(deviation > 0, deviation, 1) for part in (train, test))
    if way == "l2":
        train, test = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (train, test))
    weights = heads.balanced_weights(given["labels"], classes) if way == "even" else None
    begun = time.perf_counter()
    fitted = heads.fit_head(
        name,
        train,
        given["labels"],
        classes,
        folds=given["folds"],
        clusters=given["clusters"],
        sample_weights=weights,
        seed=seed,
    )
    temperature = heads.fit_temperature(fitted.held_out, given["labels"])
    seconds = time.perf_counter() - begun
    chances = heads.probabilities(fitted.head.logits(test), temperature)
    told = metrics.evaluate(chances, given["test_labels"], [str(label) for label in range(classes)])
    measured = Result(kind, told["accuracy"], told["macro_f1"], told["log_loss"], told["ece"], seconds)
    return measured, f"{fitted.head.kind} {fitted.strength:g}"


def compare(data: Path, arguments: argparse.Namespace) -> None:
    with tempfile.TemporaryDirectory() as room:
        place = cut_boxes(data, Path(room)) if (data / "Annotations").is_dir() else data
        dataset = open_dataset(str(place))
        dataset = thin(dataset, arguments.most) if arguments.most else dataset
        with Store() as store:
            survey = survey_photos(dataset, backbone=open_backbone("efficientnet-lite0"), store=store)
    labels, features = dataset.labels(), survey.features["pooled"]
    usable = [index for index, fact in enumerate(survey.facts) if fact.rejected is None]
    clusters = quality.clusters(dataset, survey.facts)
    digests = [fact.digest for fact in survey.facts]
    for size in arguments.per_class.split(","):
        results: dict[str, list[Result]] = {}
        chosen: Counter[str] = Counter()
        for seed in range(arguments.seeds):
            split = make_split(dataset, usable, clusters, seed=seed, test_fraction=0.33, digests=digests)
            kept = np.arange(len(split.train))
            if size != "all":
                order = np.random.default_rng(seed).permutation(kept)
                own = labels[split.train[order]]
                places = [order[own == label][: int(size)] for label in range(len(dataset.classes))]
                kept = np.sort(np.concatenate(places))
            train = split.train[kept]
            given = {
                "train": features[train],
                "labels": labels[train],
                "folds": split.folds[kept],
                "clusters": clusters[train],
                "test": features[split.test],
                "test_labels": labels[split.test],
            }
            for kind in arguments.kinds.split(","):
                result, what = fit_one(kind, given, len(dataset.classes), seed)
                results.setdefault(kind, []).append(result)
                if kind == "auto":
                    chosen[what.split()[0]] += 1
        show(
            f"{data.name}: {len(train)} photos, {len(dataset.classes)} classes, test {len(split.test)}", results, chosen
        )


def show(title: str, results: dict[str, list[Result]], chosen: Counter[str]) -> None:
    runs = len(next(iter(results.values())))
    print(f"\n{title}; mean of {runs} seeds, of the accuracy smallest and largest; seconds: median")
    print("| head | accuracy | macro F1 | log loss | ECE | seconds |\n|---|---|---|---|---|---|")
    for kind, rows in results.items():
        right = [row.accuracy for row in rows]
        means = [statistics.fmean(getattr(row, name) for row in rows) for name in ("macro_f1", "log_loss", "ece")]
        took = statistics.median(row.seconds for row in rows)
        print(
            f"| {kind} | {statistics.fmean(right):.4f} [{min(right):.3f}-{max(right):.3f}] | {means[0]:.3f} | "
            f"{means[1]:.4f} | {means[2]:.3f} | {took:.2f} |",
            flush=True,
        )
    if chosen:
        print("auto took: " + ", ".join(f"{kind} {count}x" for kind, count in chosen.most_common()))


def synthetic(photos: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Features like those of a net in size, sign and rank; times do not hang on how well the classes are told apart."""
    random = np.random.default_rng(0)
    mixing = random.gamma(0.5, 1.0, (200, LENGTH)).astype(np.float32) / 200
    labels = random.integers(0, classes, photos)
    middles = random.gamma(1.0, 1.0, (classes, 200)).astype(np.float32)
    features = (middles[labels] + random.gamma(1.0, 2.0, (photos, 200)).astype(np.float32)) @ mixing
    return features + 0.05 * random.random(features.shape, np.float32), labels


def take_times(runs: int) -> None:
    print("\nseconds to fit, strength chosen and held-out predictions included, on synthetic features")
    for photos, classes, goal in SIZES:
        features, labels = synthetic(photos, classes)
        folds = np.arange(photos) % 5
        for kind in ("ridge", "logistic", "auto") if photos <= 5000 else ("ridge", "auto"):
            times = []
            for _ in range(runs):
                begun = time.perf_counter()
                fitted = heads.fit_head(kind, features, labels, classes, folds=folds)
                times.append(time.perf_counter() - begun)
            accuracy = float(np.mean(fitted.held_out.argmax(axis=1) == labels))
            print(
                f"  {photos:,} x {classes}, {kind:9} {spread(times)} s (goal {goal:g}; {fitted.head.kind}, held-out "
                f"accuracy {accuracy:.2f})",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="*", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--per-class", default="10,50,all", help="training photos a class, comma-separated")
    parser.add_argument("--kinds", default=",".join(KINDS))
    parser.add_argument("--most", type=int, default=0, help="photos of each class and split at most; 0: all")
    parser.add_argument("--times", action="store_true")
    parser.add_argument("--runs", type=int, default=3, help="repetitions of --times")
    arguments = parser.parse_args()
    print(machine())
    for data in arguments.data:
        compare(data, arguments)
    if arguments.times:
        take_times(arguments.runs)


if __name__ == "__main__":
    main()
