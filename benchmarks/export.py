"""Exported files against the run they come from: how far apart, how large, how fast.

    python benchmarks/export.py DATA [--run RUN] [--photos 1000] [--rounds 5]

DATA holds ants_bees, cats_dogs, sign_digits, odd_images; see CONTRIBUTING.md. Without RUN, one is trained on
ants_bees. For each form the parity on photos that the run never saw, and on the odd images alone; the same answers by
the lines of the model card, in a process of its own without headstart; then milliseconds a photo from prepared
pixels to probabilities, by the engine and by the file, in alternating rounds of one process.
"""

import argparse
import csv
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import machine, spread

import headstart
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.export import FORMATS, export_run
from headstart.export.formats import Opened
from headstart.export.parity import measure
from headstart.images import decode, read_photo_bytes
from headstart.readers.walk import walk
from headstart.runs import Run

TIMED = 64  # photos a round
NEAR = 1e-4  # difference of a probability from which on the card's lines count as another answer


def photos_of(data: Path, count: int) -> list[Path]:
    """Photos of several sets in turn."""
    folders = [data / name for name in ("cats_dogs", "sign_digits")]
    listed = [[folder / name for name in walk(folder).files] for folder in folders]
    mixed = [path for group in itertools.zip_longest(*listed) for path in group if path is not None]
    return mixed[:count]


def odd_images(data: Path) -> list[Path]:
    """Odd files that are images and can be used, by the list that comes with them."""
    with (data / "odd_images" / "manifest.csv").open(newline="", encoding="utf-8") as file:
        return [data / "odd_images" / row["file"] for row in csv.DictReader(file) if row["expect"] == "used"]


def by_the_card(folder: Path, photos: list[Path]) -> dict[str, dict[str, float]]:
    """What the lines of the model card say of photos, one after the other until all had their turn."""
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    if found is None:
        raise SystemExit("the card holds no program")
    said: dict[str, dict[str, float]] = {}
    left = [str(path) for path in photos]
    while left:  # the lines stop at a file that Pillow refuses; go on behind it
        command = [sys.executable, "-I", "-c", found[1], *left]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        said |= {row["path"]: row["probabilities"] for row in rows}
        left = left[len(rows) + 1 :]
    return said


def alike(run: Run, said: dict[str, dict[str, float]], photos: list[Path]) -> str:
    """How the lines of the card and `headstart predict` agree."""
    ours = {row.path: row for row in run.predict([str(path) for path in photos]) if row.error is None}
    differences = {
        path: max(abs(row.probabilities[name] - said[path][name]) for name in row.probabilities)
        for path, row in ours.items()
        if path in said
    }
    other = sorted(path for path, value in differences.items() if value > NEAR)
    same = len(differences) - len(other)
    named = f": {', '.join(Path(path).name for path in other[:40])}" if other else ""
    unread = sorted(Path(path).name for path in ours.keys() - said.keys())
    return (
        f"{same} of {len(ours)} within {NEAR:g}{named}; largest difference of those "
        f"{max((value for value in differences.values() if value <= NEAR), default=0):.1e}"
        + (f"; not read: {', '.join(unread)}" if unread else "")
    )


def times(classifier: Classifier, opened: Opened, photos: list[Path], rounds: int) -> list[str]:
    """Milliseconds a photo of the engine and of the file, and their ratio."""
    prepared = classifier.backbone.preprocessing
    squares = [
        prepared.apply(decode(read_photo_bytes(path), target=prepared.decode_target())) for path in photos[:TIMED]
    ]
    engine, cut = classifier.engine_for(0), classifier.cut
    stack = np.stack(squares)
    ours: list[float] = []
    theirs: dict[int, list[float]] = {1: [], 16: []}
    for _ in range(rounds + 1):  # the first round warms up
        start = time.perf_counter()
        rows = [found[cut].reshape(-1) for _, found in engine.run(enumerate(squares), (cut,))]
        classifier.probabilities_from_features(np.stack(rows))
        ours.append(time.perf_counter() - start)
        for batch, seconds in theirs.items():
            start = time.perf_counter()
            for at in range(0, len(stack), batch):
                opened.run(stack[at : at + batch])
            seconds.append(time.perf_counter() - start)
    each = 1000 / len(squares)
    own = [value * each for value in ours[1:]]
    cells = [spread(own, 1)]
    for seconds in theirs.values():
        values = [value * each for value in seconds[1:]]
        cells += [spread(values, 1), f"{np.median(np.array(values) / np.array(own)):.2f}"]
    return cells


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    given = parser.parse_args()
    print(machine(), "\n")
    with tempfile.TemporaryDirectory() as place:
        aside = Path(place)
        run = (
            headstart.load(given.run)
            if given.run
            else headstart.train(given.data / "ants_bees", aside / "run", config=TrainConfig(), quiet=True)
        )
        photos, odd = photos_of(given.data, given.photos), odd_images(given.data)
        print(f"{run!r}\n{len(photos)} photos, {len(odd)} odd images\n")
        for to, form in FORMATS.items():
            start = time.perf_counter()
            done = export_run(run, to, aside / to)
            seconds = time.perf_counter() - start
            opened = form.open(aside / to, 0)
            sizes = ", ".join(f"{name} {done.files[name]['size'] / 1e6:.2f} MB" for name in form.files)
            print(f"## {form.title}\n\n{sizes}; {seconds:.1f} s to write and compare on {done.parity.photos} pictures")
            for what, sources in (("photos", photos), ("odd images", odd)):
                parity = measure(run.classifier, opened, sources)
                print(f"- {what}: {parity.to_text()} Skipped {len(parity.skipped)}.")
                print(f"  card: {alike(run, by_the_card(aside / to, sources), sources)}")
            cells = times(run.classifier, opened, photos, given.rounds)
            print(
                "\n| engine, ms a photo | file, one a time | ratio | file, 16 a time | ratio |\n|---|---|---|---|---|"
            )
            print(f"| {' | '.join(cells)} |\n")


if __name__ == "__main__":
    main()
