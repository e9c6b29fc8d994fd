"""Does the learning curve tell the truth? Forecasts from half of the photos against what all of them give.

    python benchmarks/forecast.py RESULTS.jsonl NAME=DATA [NAME=DATA ...] [--seeds 5] [--photos 0,400] [--most 4000]

DATA is anything `headstart train` takes, or a folder of Pascal VOC boxes (`Annotations`, `JPEGImages`). Its photos are
put together, whatever their split, and dealt anew for each seed, classes evenly and near duplicates on one side: to
train, of these one half for the forecast, and to test. From the half alone the learning curve forecasts the accuracy
with all training photos. The truth is then measured: ridge fitted to all training photos, on the test photos and
(without the twentieth that is judged) on the training photos outside the half, none of which the forecast has seen.
`--photos 400` trains on 400 in all and tests on the rest; 0: on 70 %. `--most` thins out a data set, classes evenly.

A forecast from m photos checked with T photos cannot come nearer than chance lets two shares come: their standard error
is sqrt(p (1 - p) (1/m + 1/T)) even when the forecast is perfect. The data allow the check of 2 points where a perfect
forecast would pass in 90 % of cases, a standard error of 1.2 points at most; the others are told as well. An interval
of the forecast is of the true accuracy; the measured truth, which is a share of T photos, covers it when the distance
is within both widths together (root of the sum of squares). Results are appended as they come; a run that was
interrupted goes on where it was.
"""

import argparse
import json
import math
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import machine
from heads import cut_boxes

from headstart import quality
from headstart.backbones import open_backbone
from headstart.features import survey_photos
from headstart.heads import fit_head
from headstart.heads.checks import check
from headstart.heads.ridge import choose, ridge_head, ridge_path
from headstart.metrics import Z95
from headstart.readers import open_dataset
from headstart.store import Store
from headstart.transfer.forecast import LearningCurve, learning_curve

WITHIN = 2.0  # points
PARTS = 20  # of the training photos, for the truth
CHECKABLE = 1.2  # points of standard error of a perfect forecast


@dataclass(frozen=True, eq=False)
class Photos:
    """A data set as features."""

    features: np.ndarray
    labels: np.ndarray
    clusters: np.ndarray
    classes: int

    def take(self, rows: np.ndarray) -> "Photos":
        """Some of them."""
        return Photos(self.features[rows], self.labels[rows], self.clusters[rows], self.classes)

    def deal(self, parts: int) -> np.ndarray:
        """A part for each photo: each class evenly, clusters whole."""
        numbers, first, inside = np.unique(self.clusters, return_index=True, return_inverse=True)
        place = np.empty(len(numbers), np.int64)
        place[np.argsort(self.labels[first], kind="stable")] = np.arange(len(numbers))
        return place[inside] % parts

    def curve(self, seed: int) -> LearningCurve:
        """The learning curve of all of them."""
        return learning_curve(
            self.features, self.labels, self.classes, folds=self.deal(5), clusters=self.clusters, seed=seed
        )


def read_photos(data: str, most: int) -> Photos:
    with tempfile.TemporaryDirectory() as room:
        boxes = (Path(data) / "Annotations").is_dir()
        dataset = open_dataset(str(cut_boxes(Path(data), Path(room)) if boxes else data))
        labels = dataset.labels()
        random = np.random.default_rng(0)
        each = -(-most // len(dataset.classes))
        members = [np.flatnonzero(labels == label) for label in range(len(dataset.classes))]
        kept = np.sort(np.concatenate([random.permutation(some)[:each] for some in members]))
        dataset = dataset.subset([dataset.photos[row] for row in kept])
        with Store() as store:
            survey = survey_photos(dataset, backbone=open_backbone("efficientnet-lite0"), store=store)
    usable = np.array([fact.rejected is None for fact in survey.facts])
    clusters = quality.clusters(dataset, survey.facts)
    return Photos(
        np.asarray(survey.features["pooled"])[usable], dataset.labels()[usable], clusters[usable], len(dataset.classes)
    )


def divide(photos: Photos, train: float, seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of the half, of the rest of the training photos, and of the test; each class evenly, clusters whole."""
    numbers, first, inside = np.unique(photos.clusters, return_index=True, return_inverse=True)
    random = np.random.default_rng(seed)
    order = random.permutation(len(numbers))
    order = order[np.argsort(photos.labels[first[order]], kind="stable")]
    place = np.empty(len(numbers))
    place[order] = (np.arange(len(numbers)) * (math.sqrt(5) - 1) / 2 + random.random()) % 1  # evenly spread everywhere
    share = place[inside]
    return (
        np.flatnonzero(share < train / 2),
        np.flatnonzero((share >= train / 2) & (share < train)),
        np.flatnonzero(share >= train),
    )


def check_once(photos: Photos, size: int, seed: int) -> dict[str, Any]:
    half, rest, test = divide(photos, size / len(photos.labels) if size else 0.7, seed)
    begun = time.perf_counter()
    curve = photos.take(half).curve(seed)
    seconds = time.perf_counter() - begun
    told = curve.forecast(len(half) + len(rest))
    train = np.concatenate([half, rest])
    right = measure_truth(photos, half, rest, test)
    others = np.concatenate([rest, test])
    added = right.astype(float) - measure_half(photos, half, others)
    where = photos.labels[others]
    return {
        "seed": seed,
        "size": size,
        "half": len(half),
        "train": len(train),
        "judged": len(right),
        "points": [[point.photos, point.accuracy] for point in curve.points],
        "forecast": [told.accuracy, told.low, told.high],
        "truth": float(right.mean()),
        "gain": list(curve.gain(len(train))),
        "true_gain": [float(added.mean()), float(added.std() / math.sqrt(len(added)))],
        "seconds": seconds,
        "classes": list(check_classes(curve, photos.labels[train], where, right)),
    }


def measure_truth(photos: Photos, half: np.ndarray, rest: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Whether each photo of the rest and of the test is right by ridge on all training photos (but its own part)."""
    train = np.concatenate([half, rest])
    own = photos.take(train)
    folds = own.deal(PARTS)
    material = check(own.features, own.labels, own.classes, folds, None, own.clusters, 0)
    path = ridge_path(material, own.features)
    strength = choose(path, material, "ridge").strength
    left_out = path.held_out(strength, folds)[len(half) :]
    head = ridge_head(path, strength, "ridge", {})
    return np.concatenate(
        [
            left_out.argmax(axis=1) == photos.labels[rest],
            head.logits(photos.features[test]).argmax(axis=1) == photos.labels[test],
        ]
    )


def measure_half(photos: Photos, half: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Whether each photo of the rest and of the test is right by ridge on the half."""
    own = photos.take(half)
    head = fit_head("ridge", own.features, own.labels, own.classes, folds=own.deal(5), clusters=own.clusters).head
    return np.asarray(head.logits(photos.features[others]).argmax(axis=1) == photos.labels[others])


def check_classes(
    curve: LearningCurve, train: np.ndarray, where: np.ndarray, right: np.ndarray
) -> Iterator[tuple[float, float, float, float, int]]:
    """Of each class: forecast, its ends, the truth and how many photos it was measured with."""
    for label, law in curve.class_laws.items():
        judged = right[where == label]
        if len(judged):
            error, low, high = law.error(int((train == label).sum()))
            yield 1 - error, 1 - high, 1 - low, float(judged.mean()), len(judged)


def covers(told: Sequence[float], truth: float, judged: int) -> bool:
    """Whether a forecast with its ends and a share measured with so many photos agree."""
    return near(told, truth, Z95 * deviation(truth, judged))


def near(told: Sequence[float], truth: float, noise: float) -> bool:
    """Whether the truth, known to within `noise`, is as near to what was told as both widths together allow."""
    middle, low, high = told
    return -math.hypot(middle - low, noise) <= truth - middle <= math.hypot(high - middle, noise)


def deviation(share: float, photos: int) -> float:
    """Standard error of a share of so many photos (Agresti and Coull 1998)."""
    share = (share * photos + 2) / (photos + 4)
    return math.sqrt(share * (1 - share) / photos)


def chance(row: dict[str, Any]) -> float:
    """Standard error, in points, of the difference between a perfect forecast and the truth as measured."""
    return 100 * math.hypot(deviation(row["truth"], row["half"]), deviation(row["truth"], row["judged"]))


def show(results: list[dict[str, Any]]) -> None:
    columns = (
        "set | half -> all | classes | with half | forecast | truth | error (rms), points | chance alone | within 2 | "
        "interval, points | covered | truth itself inside | classes covered | gain | true gain | gain covered | seconds"
    )
    print(f"\n| {columns} |\n{'|---' * (columns.count('|') + 1)}|")
    groups: dict[tuple[str, int], list[dict[str, Any]]] = {}
    for row in results:
        groups.setdefault((row["name"], row["size"]), []).append(row)
    for (name, _), rows in groups.items():
        print(f"| {name} {describe(rows)}", flush=True)
    print(f"| all {describe(results)}")
    rms = {key: math.sqrt(statistics.fmean(chance(row) ** 2 for row in rows)) for key, rows in groups.items()}
    allowed = [row for key, rows in groups.items() if rms[key] <= CHECKABLE for row in rows]
    if allowed:
        print(f"| chance alone <= {CHECKABLE} {describe(allowed)}")


def describe(rows: list[dict[str, Any]]) -> str:
    """The columns of the table for some rows: means, medians of counts and seconds."""
    told = [row["forecast"] for row in rows]
    errors = [100 * (row["forecast"][0] - row["truth"]) for row in rows]
    single = [covers(entry[:3], *entry[3:]) for row in rows for entry in row["classes"]]
    cells = [
        " -> ".join(f"{statistics.median(row[name] for row in rows):.0f}" for name in ("half", "train")),
        f"{max(len(row['classes']) for row in rows)}",
        f"{100 * statistics.fmean(row['points'][-1][1] for row in rows):.1f} %",
        f"{100 * statistics.fmean(accuracy for accuracy, _, _ in told):.1f} %",
        f"{100 * statistics.fmean(row['truth'] for row in rows):.1f} %",
        f"{statistics.fmean(errors):+.2f} ({math.sqrt(statistics.fmean(error**2 for error in errors)):.2f})",
        f"{math.sqrt(statistics.fmean(chance(row) ** 2 for row in rows)):.2f}",
        f"{sum(abs(error) <= WITHIN for error in errors)} of {len(rows)}",
        f"{statistics.fmean(100 * (high - low) for _, low, high in told):.1f}",
        f"{sum(covers(row['forecast'], row['truth'], row['judged']) for row in rows)} of {len(rows)}",
        f"{sum(row['forecast'][1] <= row['truth'] <= row['forecast'][2] for row in rows)} of {len(rows)}",
        f"{100 * statistics.fmean(single):.0f} % of {len(single)}",
        f"{100 * statistics.fmean(row['gain'][0] for row in rows):+.1f}",
        f"{100 * statistics.fmean(row['true_gain'][0] for row in rows):+.1f}",
        f"{sum(near(row['gain'], row['true_gain'][0], Z95 * row['true_gain'][1]) for row in rows)} of {len(rows)}",
        f"{statistics.median(row['seconds'] for row in rows):.1f}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("data", nargs="*", metavar="NAME=DATA")
    parser.add_argument("--seeds", type=int, default=5, help="how many")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--photos", default="0", help="training photos, comma-separated; 0: 70 %% of all")
    parser.add_argument("--most", type=int, default=4000, help="photos of a data set at most")
    arguments = parser.parse_args()
    print(machine())
    results = (
        [json.loads(line) for line in arguments.results.read_text().splitlines()] if arguments.results.exists() else []
    )
    done = {(row["name"], row["size"], row["seed"]) for row in results}
    for name, data in (entry.split("=", 1) for entry in arguments.data):
        seeds = range(arguments.first_seed, arguments.first_seed + arguments.seeds)
        wanted = [(size, seed) for size in map(int, arguments.photos.split(",")) for seed in seeds]
        wanted = [key for key in wanted if (name, *key) not in done]
        photos = read_photos(data, arguments.most) if wanted else None
        for size, seed in wanted:
            if photos is None or size > 0.7 * len(photos.labels):
                continue
            row = {"name": name} | check_once(photos, size, seed)
            with arguments.results.open("a") as file:
                print(json.dumps(row), file=file, flush=True)
            results.append(row)
            print(
                f"{name}, {size or 'most'}, seed {seed}: {row['forecast'][0]:.3f} told, {row['truth']:.3f} true",
                flush=True,
            )
    show(results)


if __name__ == "__main__":
    main()
