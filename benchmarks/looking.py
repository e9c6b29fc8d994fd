"""Seconds of looking inside, after the net is loaded: maps, units, pictures made for a class, scans.

    python benchmarks/looking.py PHOTOS [--rounds 5] [--threads 2] [--only cam,default,...]

PHOTOS is a folder of photos. The net is EfficientNet-Lite0 with its published weights. Each figure is the median over
the rounds with the smallest and the largest, each round with another photo; the first call of each kind is not counted.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from harness import machine

from headstart.explain import METHODS, explain
from headstart.explain.bundle import write_bundle
from headstart.look.maximise import maximise
from headstart.look.opening import open_subject
from headstart.look.units import look_at_units

GOALS = {
    "cam": 1.0,
    "default": 2.0,
    "occlusion": 4.0,
    "unit": 3.0,
    "click": 0.4,
    "all": 90.0,
    "class": 20.0,
    "scan": 90.0,
}
SCANNED = 1000  # photos of the scan: those given, again and again with one pixel changed if there are fewer


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--only", default=",".join(GOALS))
    arguments = parser.parse_args()
    print(machine())
    import torch

    torch.set_num_threads(arguments.threads)
    photos = sorted(path for path in arguments.photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    with tempfile.TemporaryDirectory() as folder:
        os.environ["HEADSTART_CACHE"] = f"{folder}/cache"
        subject = open_subject("efficientnet-lite0", threads=arguments.threads)
        photo = subject.photo(photos[0])
        explain(subject, photo, ("cam", "gradient"))
        room = Path(folder)

        def page(number: int, methods: tuple[str, ...], labels: tuple[str, ...] = ()) -> None:
            found = explain(subject, photos[number % len(photos)], methods, labels)
            write_bundle(found, room / "page", overwrite=True)

        def click(number: int) -> None:
            explain(subject, photos[number % len(photos)], ("guided",))

        def unit(number: int) -> None:
            look_at_units(subject, photos[:60], "stage5", [number])

        def everything(number: int) -> None:
            for which in range(4):
                page(number + which, tuple(name for name in METHODS if name != "deconv"))

        def made(number: int) -> None:
            maximise(subject, classes=(str(100 * number + 7),))

        def scan(_number: int) -> None:
            os.environ["HEADSTART_CACHE"] = tempfile.mkdtemp(dir=folder)
            look_at_units(subject, photos[:SCANNED], "stage5", [0])

        jobs: dict[str, tuple[str, Callable[[int], None]]] = {
            "cam": ("class activation map of a photo, with its folder", lambda n: page(n, ("cam",))),
            "default": ("cam, gradient and guided, with their folder", lambda n: page(n, ())),
            "occlusion": ("occlusion, 13 x 13 windows", lambda n: page(n, ("occlusion",))),
            "unit": ("a unit's sheet, its photos scanned before", unit),
            "click": ("guided backpropagation of a photo", click),
            "all": ("four photos, every method", everything),
            "class": ("a picture made for a class", made),
            "scan": (f"scan of {min(SCANNED, len(photos)):,} photos for stage5's units", scan),
        }
        print("\n| what | median, s | smallest to largest | rounds | goal |")
        print("|---|---|---|---|---|")
        for name in arguments.only.split(","):
            what, job = jobs[name]
            once = name in ("all", "scan", "class")
            if not once:
                job(0)
            rounds = min(2, arguments.rounds) if once else arguments.rounds
            seconds = []
            for number in range(1, rounds + 1):
                begun = time.perf_counter()
                job(number)
                seconds.append(time.perf_counter() - begun)
            spread = f"{min(seconds):.2f} to {max(seconds):.2f}"
            print(f"| {what} | {statistics.median(seconds):.2f} | {spread} | {rounds} | {GOALS[name]:g} |", flush=True)
        subject.close()


if __name__ == "__main__":
    main()
