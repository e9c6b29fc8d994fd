"""What choosing the cut by measurement brings over always taking the last one, and what it costs where it errs.

    python benchmarks/cuts.py NAME=DATA [NAME=DATA ...] [--photos 200 400] [--seeds 8] [--most 1000]

DATA is anything `headstart train` takes, or a folder of Pascal VOC boxes. Of at most `--most` photos so many are drawn
to learn from, class by class, the rest is the test; once for each seed. In points of test accuracy over the last cut,
mean and the worst seed: by the probes alone, by the probes and then the heads that would be used, and by whoever knew
the test and took the best of the four cuts with the most accurate probes. The head is the one of `--head` at every cut.
"""

import argparse
import statistics
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
from harness import machine
from heads import cut_boxes

from headstart.backbones import Backbone, open_backbone
from headstart.features import survey_photos
from headstart.heads import fit_head
from headstart.readers import open_dataset
from headstart.store import Store
from headstart.transfer.probes import LAST, best_cut, judge_head, probe_cuts
from headstart.transfer.similarity import choose_photos

FOLDS = 5
SAME = "head"  # the mean of its map is the last cut: not another one


def features_of(
    data: str, backbone: Backbone, most: int, also: list[str]
) -> tuple[dict[str, np.ndarray], np.ndarray, int]:
    with tempfile.TemporaryDirectory() as room, Store() as store:
        dataset = open_dataset(
            str(cut_boxes(Path(data), Path(room))) if (Path(data) / "Annotations").is_dir() else data
        )
        dataset = dataset.subset([dataset.photos[row] for row in choose_photos(dataset.labels(), most)])
        cuts = (*also, *(cut for cut in backbone.cuts if cut != SAME))
        survey = survey_photos(dataset, backbone=backbone, cuts=cuts, store=store)
        usable = [row for row, fact in enumerate(survey.facts) if fact.rejected is None]
        names, labels = np.unique(dataset.labels()[usable], return_inverse=True)
    return {cut: matrix[usable] for cut, matrix in survey.features.items()}, labels.astype(np.int64), len(names)


def one_seed(
    features: dict[str, np.ndarray], labels: np.ndarray, classes: int, photos: int, kind: str, seed: int
) -> tuple[dict[str, float], str, str]:
    """Test accuracy at each cut that any rule could take, what the probes say, and what is taken in the end."""
    train = choose_photos(labels, photos, seed)
    test = np.setdiff1d(np.arange(len(labels)), train)
    own, folds = labels[train], np.empty(len(train), np.int64)
    folds[np.argsort(own, kind="stable")] = np.arange(len(train)) % FOLDS
    probes = probe_cuts({cut: matrix[train] for cut, matrix in features.items()}, own, classes, folds=folds)
    first = best_cut(probes)[0].cut
    likely = sorted(probes, key=lambda probe: -probe.accuracy)[:4]
    fitted = {
        cut: fit_head(kind, features[cut][train], own, classes, folds=folds)
        for cut in sorted({LAST, first, *(probe.cut for probe in likely)})
    }
    right = {
        cut: float(np.mean(one.head.logits(features[cut][test]).argmax(axis=1) == labels[test]))
        for cut, one in fitted.items()
    }
    judged = [
        judge_head(cut, fitted[cut], own, features=features[cut][train], folds=folds) for cut in sorted({first, LAST})
    ]
    return right, first, best_cut(judged)[0].cut


def told(gains: list[float]) -> str:
    return f"{100 * statistics.mean(gains):+.2f} ({100 * min(gains):+.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="NAME=DATA")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--head", default="auto")
    parser.add_argument("--also", nargs="*", default=["stage7_map"], help="maps that are flattened, besides the cuts")
    parser.add_argument("--photos", type=int, nargs="+", default=[200, 400])
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--most", type=int, default=1000)
    options = parser.parse_args()
    backbone = open_backbone(options.backbone)
    print(f"{machine()}\n\n{backbone.name}, head {options.head}, {options.seeds} seeds\n")
    print("| set | photos | last cut, % | by probes | confirmed | by the test | cuts taken |\n" + "|---" * 7 + "|")
    for word in options.data:
        name, _, data = word.rpartition("=")
        features, labels, classes = features_of(data, backbone, options.most, options.also)
        for photos in options.photos:
            if not 2 * classes <= photos <= 0.75 * len(labels):
                continue
            rows = [one_seed(features, labels, classes, photos, options.head, seed) for seed in range(options.seeds)]
            last = statistics.mean(right[LAST] for right, _, _ in rows)
            columns = (
                [right[first] - right[LAST] for right, first, _ in rows],
                [right[final] - right[LAST] for right, _, final in rows],
                [max(right.values()) - right[LAST] for right, _, _ in rows],
            )
            taken = ", ".join(f"{cut} {count}" for cut, count in Counter(final for _, _, final in rows).most_common())
            print(f"| {name} | {photos} | {100 * last:.1f} | {' | '.join(map(told, columns))} | {taken} |", flush=True)


if __name__ == "__main__":
    main()
