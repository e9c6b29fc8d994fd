"""Cost against the number of photos, and what adding ten photos costs.

    python benchmarks/scale.py [--sizes 400 2000 10000]

The photos are drawn, 256 x 256 JPEGs with noise, so that any number of them can be made: the work a photo is the same
as for real ones but for the decode. Prints seconds and peak memory of `train` in a fresh process for each size, then
adds 10 photos to the largest and prints how many were computed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from harness import machine
from PIL import Image

MEASURE = """
import sys
from harness import peak_memory
from headstart.__main__ import main
code = main(sys.argv[1:])
print(peak_memory(), file=sys.stderr)
sys.exit(code)
"""


def draw(folder: Path, begin: int, end: int) -> None:
    for number in range(begin, end):
        random = np.random.default_rng(number)
        small = random.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        picture = Image.fromarray(small).resize((256, 256), Image.Resampling.BICUBIC)
        noise = random.normal(0, 12, (256, 256, 1))
        pixels = np.clip(np.asarray(picture) + noise + 30 * (number % 2), 0, 255).astype(np.uint8)
        place = folder / ("dark", "light")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(place / f"{number:06d}.jpg", quality=88)


def train(data: Path, out: Path, cache: Path) -> tuple[float, float, dict]:
    command = [sys.executable, "-c", MEASURE, "train", str(data), "--out", str(out), "--overwrite", "--json", "--quiet"]
    begun = time.perf_counter()
    environment = {**os.environ, "HEADSTART_CACHE": str(cache), "PYTHONPATH": str(Path(__file__).resolve().parent)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    seconds = time.perf_counter() - begun
    if done.returncode not in (0, 3):
        sys.exit(done.stderr)
    return seconds, float(done.stderr.split()[-1]), json.loads(done.stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[400, 2000, 10000])
    given = parser.parse_args()
    print(machine())
    room = Path(tempfile.mkdtemp(prefix="headstart-scale-"))
    try:
        draw(room / "warm", 0, 20)
        train(room / "warm", room / "run", room / "cache")
        print("photos   seconds   ms a photo   peak MB   features s   fit s   scan s")
        made = 0
        for size in given.sizes:
            draw(room / "photos", made, size)
            made = size
            for path in (room / "cache").glob("features.sqlite3*"):
                path.unlink()
            seconds, memory, document = train(room / "photos", room / "run", room / "cache")
            steps = document["timings"]
            cost = 1000 * seconds / size
            print(f"{size:6,}   {seconds:7.1f}   {cost:10.2f}   {memory:7.0f}   {steps['features']:10.1f}", end="")
            print(f"   {steps['fit']:5.2f}   {steps['scan']:6.2f}")
        draw(room / "photos", made, made + 10)
        seconds, _, document = train(room / "photos", room / "run", room / "cache")
        print(f"10 photos more: {seconds:.1f} s, {document['features']['computed']} computed")
    finally:
        shutil.rmtree(room)


if __name__ == "__main__":
    main()
