"""How far sets of photos are from those of the training, and whether linear probes agree.

    python benchmarks/similarity.py NAME=DATA [NAME=DATA ...] [--backbone efficientnet-lite0] [--probes 600]

DATA is anything `headstart train` takes, or a folder of Pascal VOC boxes (`Annotations`, `JPEGImages`). The first table
is the similarity by 256 photos of each set, with its profile over depth. The second shows what fewer photos give: the
mean and standard deviation over draws from the 256, and how often the interval of a draw holds the value of all 256.
The third (`--probes`) is what the thresholds rest on: the held-out log loss of linear probes on so many photos, of the
last cut and of the best earlier one, and what `similarity_from_probes` makes of them; of a set with many classes only
the first are taken, so that each has 20 photos. Features are not stored.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import numpy as np
from harness import machine
from heads import cut_boxes

from headstart.backbones import Backbone, open_backbone
from headstart.dataset import Dataset
from headstart.features import survey_photos
from headstart.readers import open_dataset
from headstart.transfer.probes import LAST, Probe, probe_cuts
from headstart.transfer.similarity import STATISTICS, choose_photos, measure_similarity, similarity_from_probes

MOST = 256
SAMPLES = (16, 64)
EACH = 20  # photos of a class that a probe needs


def chosen(dataset: Dataset, count: int) -> Dataset:
    return dataset.subset([dataset.photos[row] for row in choose_photos(dataset.labels(), count)])


def measured(dataset: Dataset, backbone: Backbone) -> np.ndarray:
    found = survey_photos(dataset, backbone=backbone, cuts=(STATISTICS,), store=None).features[STATISTICS]
    return np.asarray(found[~np.isnan(found[:, 0])])


def probed(dataset: Dataset, backbone: Backbone, count: int) -> tuple[Probe, ...]:
    few = [photo for photo in dataset.photos if photo.label < count // EACH]
    dataset = chosen(dataset.subset(few), count)
    survey = survey_photos(dataset, backbone=backbone, cuts=tuple(backbone.cuts), store=None)
    usable = [row for row, fact in enumerate(survey.facts) if fact.rejected is None]
    known, labels = np.unique(dataset.labels()[usable], return_inverse=True)
    features = {cut: matrix[usable] for cut, matrix in survey.features.items()}
    return probe_cuts(features, labels.astype(np.int64), len(known), folds=np.arange(len(usable)) % 5)


def few(statistic: np.ndarray, backbone: Backbone, count: int, draws: int) -> str:
    """Mean, standard deviation and coverage over draws of `count` photos."""
    random, whole = np.random.default_rng(count), measure_similarity(backbone, statistic).value
    found = [
        measure_similarity(backbone, statistic[random.choice(len(statistic), count, replace=False)], seed=draw)
        for draw in range(draws)
    ]
    values = [one.value for one in found]
    covered = sum(one.low <= whole <= one.high for one in found)
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values):.3f}, {covered} of {draws}"


def probe_row(name: str, probes: tuple[Probe, ...]) -> str:
    last = next(probe for probe in probes if probe.cut == LAST)
    earlier = [probe for probe in probes if probe.cut not in (LAST, "head")]  # the mean of the map `head` is `pooled`
    best = min(earlier, key=lambda probe: probe.log_loss)
    judged = similarity_from_probes(probes)
    return (
        f"| {name} | {len(last.losses)} | {last.log_loss:.3f} | {best.cut} {best.log_loss:.3f} | "
        f"{last.log_loss / best.log_loss:.2f} | {judged.value:.3f} ({judged.low:.3f}-{judged.high:.3f}) | "
        f"{judged.verdict} |"
    )


def main() -> None:
    """Measure every set and print the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", metavar="NAME=DATA")
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--draws", type=int, default=20, help="of fewer photos; 0: no second table")
    parser.add_argument("--probes", type=int, default=0, help="photos for the third table; 0: no third table")
    options = parser.parse_args()
    backbone = open_backbone(options.backbone)
    profiles, draws, probes = [], [], []
    with tempfile.TemporaryDirectory() as room:
        for number, word in enumerate(options.data):
            name, _, data = word.rpartition("=")
            (own := Path(room) / str(number)).mkdir()
            boxes = (Path(data) / "Annotations").is_dir()
            dataset = open_dataset(str(cut_boxes(Path(data), own) if boxes else data))
            statistic = measured(chosen(dataset, MOST), backbone)
            found = measure_similarity(backbone, statistic)
            stages = " | ".join(f"{value:.2f}" for value in found.stages.values())
            span = f"{found.value:.3f} | {found.low:.3f}-{found.high:.3f}"
            profiles.append(f"| {name} | {span} | {found.verdict} | {stages} |")
            if options.draws:
                both = " | ".join(few(statistic, backbone, count, options.draws) for count in SAMPLES)
                draws.append(f"| {name} | {both} |")
            if options.probes:
                probes.append(probe_row(name, probed(dataset, backbone, options.probes)))
    names = list(found.stages)
    print(f"{machine()}\n\n{backbone.name}, {MOST} photos a set\n")
    print(f"| set | distance, nats | 95 % | verdict | {' | '.join(names)} |\n|{'---|' * (4 + len(names))}")
    print("\n".join(profiles))
    if draws:
        heads = " | ".join(f"{count} photos: mean ± s.d., intervals that hold the value of all" for count in SAMPLES)
        print(f"\n| set | {heads} |\n|{'---|' * (1 + len(SAMPLES))}\n" + "\n".join(draws))
    if probes:
        print("\n| set | photos | log loss of the last cut | of the best earlier | quotient | on the scale | verdict |")
        print("|---|---|---|---|---|---|---|\n" + "\n".join(probes))


if __name__ == "__main__":
    main()
