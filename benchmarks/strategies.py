"""What strategy "auto" gives and costs, against each strategy by itself.

    python benchmarks/strategies.py ROOM NAME=DATA [NAME=DATA ...] [--photos 200] [--tests 600] [--seeds 0,1,2,3,4]
        [--only head,early,deeper,full,scratch,auto]

DATA is anything `headstart train` takes, or a folder of Pascal VOC boxes. For each seed so many photos are drawn to
train on, class by class, and others to test on; the same for every strategy. Each run is a process of its own with an
empty store and converted backbones. ROOM keeps the drawn photos and a line of JSON for each finished run, so the same
command goes on where it was stopped and prints the tables of all that is there.
"""

import argparse
import io
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from harness import machine
from heads import cut_boxes
from PIL import Image

from headstart.errors import ImageRejected
from headstart.images import decode
from headstart.readers import open_dataset
from headstart.transfer.similarity import choose_photos

LEAST = 10  # photos a class to train on: of more classes than that allows, the first ones are taken
STRATEGIES = ("head", "early", "deeper", "full", "scratch", "auto")


def draw_photos(name: str, data: str, room: Path, photos: int, tests: int, seed: int) -> Path:
    """A folder with `train` and `test`, made once."""
    place = room / "photos" / f"{name}-{photos}-{tests}-{seed}"
    if place.exists():
        return place
    aside = place.with_suffix(".part")
    shutil.rmtree(aside, ignore_errors=True)
    with tempfile.TemporaryDirectory() as boxes:
        given = str(cut_boxes(Path(data), Path(boxes))) if (Path(data) / "Annotations").is_dir() else data
        dataset = open_dataset(given)
        labels = dataset.labels()
        taken = np.flatnonzero(labels < max(2, photos // LEAST))
        train = taken[choose_photos(labels[taken], photos, seed)]
        rest = np.setdiff1d(taken, train)
        test = rest[choose_photos(labels[rest], tests, seed)]
        for part, rows in (("train", train), ("test", test)):
            for row in rows.tolist():
                photo = dataset.photos[row]
                folder = aside / part / dataset.classes[photo.label]
                folder.mkdir(parents=True, exist_ok=True)
                content = dataset.fetch(photo)
                try:
                    decode(content, target=64)
                except ImageRejected:
                    continue
                if isinstance(content, bytes):
                    (folder / f"{row}{Path(photo.path).suffix or '.jpg'}").write_bytes(content)
                else:
                    out = io.BytesIO()
                    Image.fromarray(content).save(out, "PNG")
                    (folder / f"{row}.png").write_bytes(out.getvalue())
    aside.rename(place)
    return place


def processor_seconds() -> float:
    """Of all finished child processes: what a run cost, also on a machine that is busy with something else."""
    spent = resource.getrusage(resource.RUSAGE_CHILDREN)
    return spent.ru_utime + spent.ru_stime


def run_once(data: Path, strategy: str, seed: int, room: Path) -> dict[str, object]:
    """One training in a process of its own."""
    with tempfile.TemporaryDirectory(dir=room) as work:
        cache = Path(work) / "cache"
        kept = room / "converted"
        if kept.exists():
            shutil.copytree(kept, cache / "backbones", copy_function=os.link)
        words = [sys.executable, "-m", "headstart", "train", str(data), "--out", f"{work}/run", "--json", "--quiet"]
        begun, worked = time.perf_counter(), processor_seconds()
        done = subprocess.run(
            [*words, "--strategy", strategy, "--seed", str(seed)],
            env={**os.environ, "HEADSTART_CACHE": str(cache)},
            capture_output=True,
            text=True,
            check=False,
        )
        seconds, worked = time.perf_counter() - begun, processor_seconds() - worked
        if done.returncode not in (0, 3):
            raise SystemExit(f"{strategy} on {data}: {done.stderr.strip()[-500:]}")
        if not kept.exists():
            shutil.copytree(cache / "backbones", kept)
    document = json.loads(done.stdout)
    plan = document["plan"]
    rows = {row["strategy"]: row for row in plan["evidence"].get("candidates", [])}
    return {
        "accuracy": document["test"]["accuracy"],
        "log_loss": document["test"]["log_loss"],
        "tests": document["data"]["test"],
        "photos": document["data"]["train"],
        "seconds": seconds,
        "processor_seconds": worked,
        "chosen": plan["strategy"],
        "cut": plan["evidence"].get("trained_behind", plan["cut"]),
        "case": plan["case"],
        "estimates": {name: row["accuracy"] for name, row in rows.items()},
        "why": plan["why"],
    }


def show(rows: list[dict[str, object]]) -> None:
    """Accuracy and processor seconds of each strategy, mean over seeds; then auto against the best and against head."""
    found: dict[str, dict[str, dict[int, dict[str, object]]]] = defaultdict(lambda: defaultdict(dict))
    for row in rows:
        found[str(row["set"])][str(row["strategy"])][int(str(row["seed"]))] = row
    print("\n| set | case | " + " | ".join(STRATEGIES) + " | auto took | auto - best | auto - head | auto's time |")
    print("|---" * (len(STRATEGIES) + 6) + "|")
    for name, strategies in found.items():
        cells, means, spent = [], {}, {}
        shared = set(strategies["auto"]) or {seed for runs in strategies.values() for seed in runs}
        for strategy in STRATEGIES:
            runs = [run for seed, run in strategies[strategy].items() if seed in shared]  # the same photos for all
            if runs:
                means[strategy] = 100 * statistics.fmean(float(str(run["accuracy"])) for run in runs)
                spent[strategy] = statistics.fmean(float(str(run["processor_seconds"])) for run in runs)
                cells.append(f"{means[strategy]:.1f} ({spent[strategy]:.0f} s, n = {len(runs)})")
            else:
                cells.append("")
        autos = list(strategies["auto"].values())
        took = ", ".join(sorted({f"{run['chosen']} {run['cut']}" for run in autos}))
        case = ", ".join(sorted({str(run["case"]) for run in autos}))
        singles = {key: value for key, value in means.items() if key != "auto"}
        versus = ["", "", ""]
        if autos and singles:
            best = max(singles, key=lambda key: singles[key])
            share = spent["auto"] / sum(value for key, value in spent.items() if key != "auto")
            versus = [f"{means['auto'] - singles[best]:+.1f} ({best})", "", f"{100 * share:.0f} %"]
            if "head" in singles:
                versus[1] = f"{means['auto'] - singles['head']:+.1f}"
        print(f"| {name} | {case} | {' | '.join(cells)} | {took} | {' | '.join(versus)} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("room", type=Path)
    parser.add_argument("sets", nargs="*", metavar="NAME=DATA")
    parser.add_argument("--photos", type=int, default=200, help="to train on")
    parser.add_argument("--tests", type=int, default=600, help="to test on, at most")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--only", default=",".join(STRATEGIES))
    arguments = parser.parse_args()
    (arguments.room / "photos").mkdir(parents=True, exist_ok=True)
    file = arguments.room / "results.jsonl"
    print(machine())
    rows = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    for seed in map(int, arguments.seeds.split(",")):
        for given in arguments.sets:
            name, data = given.split("=", 1)
            for strategy in arguments.only.split(","):
                identity = {"set": name, "seed": seed, "strategy": strategy, "asked": arguments.photos}
                if any(all(row[key] == value for key, value in identity.items()) for row in rows):
                    continue
                drawn = draw_photos(name, data, arguments.room, arguments.photos, arguments.tests, seed)
                rows.append(identity | run_once(drawn, strategy, seed, arguments.room))
                with file.open("a") as out:
                    print(json.dumps(rows[-1]), file=out, flush=True)
                told = rows[-1]
                print(f"{name}, seed {seed}, {strategy}: {told['accuracy']:.3f} in {told['seconds']:.0f} s", flush=True)
    show([row for row in rows if row["asked"] == arguments.photos])


if __name__ == "__main__":
    main()
