"""Whole commands in fresh processes: train without and with stored features, predict one photo, add photos, start-up.

    python benchmarks/train.py FOLDER/ants_bees [--runs 5]

The backbone is converted first (once a machine), then each counted run gets an empty feature store of its own.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from harness import machine, spread

PROGRAM = [sys.executable, "-m", "headstart"]


def timed(arguments: list[str], cache: Path) -> tuple[float, str]:
    begun = time.perf_counter()
    environment = {**os.environ, "HEADSTART_CACHE": str(cache)}
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode not in (0, 3):
        sys.exit(f"{arguments} failed: {done.stderr}")
    return seconds, done.stdout


def without_features(cache: Path) -> None:
    for path in cache.glob("features.sqlite3*"):
        path.unlink()


def measure_backbone(data: Path, backbone: str, runs: int, room: Path) -> None:
    cache = room / backbone
    first, _ = timed(["train", str(data), "--backbone", backbone, "--out", str(room / f"{backbone}-warm")], cache)
    print(f"\n{backbone}: first run on this machine, conversion included: {first:.1f} s")
    fresh, stored, single, steps = [], [], [], []
    photo = next(path for path in sorted(data.rglob("*.jpg")))
    for number in range(runs):
        without_features(cache)
        out = str(room / f"{backbone}-{number}")
        seconds, text = timed(["train", str(data), "--backbone", backbone, "--out", out, "--json"], cache)
        document = json.loads(text)
        fresh.append(seconds)
        steps.append(document["timings"])
        seconds, text = timed(["train", str(data), "--backbone", backbone, "--out", out + "-again", "--json"], cache)
        stored.append(seconds)
        again = json.loads(text)
        if again["features"]["computed"]:
            sys.exit("the second run computed features")
        seconds, _ = timed(["predict", out, str(photo)], cache)
        single.append(seconds)
    low, high = document["test"]["accuracy_ci95"]
    accuracy, head = document["test"]["accuracy"], document["plan"]["head"]
    print(f"  test accuracy {accuracy:.4f} (95 % interval {low:.3f} to {high:.3f}), head {head}")
    print(f"  train, features not stored: {spread(fresh)} s (goal 5.0)")
    print(f"  train, features stored:     {spread(stored)} s (goal 1.0)")
    print(f"  predict one photo:          {spread(single)} s (goal 1.2)")
    medians = {name: statistics.median(step[name] for step in steps) for name in steps[0]}
    print("  steps, median: " + ", ".join(f"{name} {value:.2f}" for name, value in medians.items()))


def measure_start(runs: int) -> None:
    for name, command in (
        ("python -c pass", [sys.executable, "-c", "pass"]),
        ("import headstart", [sys.executable, "-c", "import headstart"]),
        ("headstart --help", [*PROGRAM, "--help"]),
    ):
        times = []
        for _ in range(runs * 2):
            begun = time.perf_counter()
            subprocess.run(command, capture_output=True, check=True)
            times.append(time.perf_counter() - begun)
        print(f"  {name:18} {spread(times)} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--backbones", nargs="+", default=["efficientnet-lite0", "efficientnet-lite1"])
    given = parser.parse_args()
    print(machine())
    room = Path(tempfile.mkdtemp(prefix="headstart-bench-"))
    try:
        for backbone in given.backbones:
            measure_backbone(given.data, backbone, given.runs, room)
        print("\nstart-up, fresh process, whole command:")
        measure_start(given.runs)
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    main()
