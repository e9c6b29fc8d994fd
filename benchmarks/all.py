"""Every measurement behind the numbers in docs/measurements.md, one after the other.

    python benchmarks/all.py DATA

DATA is a folder that holds ants_bees, cats_dogs, sign_digits, ...; see CONTRIBUTING.md. Takes a few hours. Those that
take days (accuracy.py, strategies.py with every seed) or other interpreters (training.py) have their commands in
docs/training.md and docs/transfer.md.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commands(data: Path) -> list[list[str]]:
    """Return the command lines, quick ones first."""
    ants_bees, photos = str(data / "ants_bees"), str(data / "ants_bees" / "val")
    named = [f"{name}={data / name}" for name in ("ants_bees", "cats_dogs", "sign_digits")]
    return [
        ["decode.py", photos],
        ["engines.py", "--photos", ants_bees],
        ["features.py", ants_bees],
        ["train.py", ants_bees],
        ["store.py"],
        ["duplicates.py", str(data)],
        ["imagenet_check.py", photos, str(data / "cats_dogs")],
        ["heads.py", ants_bees, str(data / "cats_dogs"), str(data / "sign_digits")],
        ["heads.py", "--times"],
        ["scale.py"],
        ["similarity.py", *named],
        ["cuts.py", *named],
        ["tuning.py"],
        ["faults.py", "digits", str(data / "sign_digits")],
        ["looking.py", photos],
        ["units.py", ants_bees, "--photos", "1000"],
        ["trust.py", "efficientnet-lite0", str(data / "cats_dogs"), "--seeds", "2", "--methods", "cam"],
        ["gradients.py", photos, "--digits", str(data / "sign_digits")],
        ["dreams.py", "--classes", "10"],
        ["dreams.py", "--fooled", "6", ants_bees],
        ["dreams.py", "--map", "198", ants_bees, "--seeds", "2"],
        ["export.py", str(data)],
        ["service.py", str(data)],
        ["pages.py", str(data)],
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    for command in commands(parser.parse_args().data):
        print(f"\n$ python benchmarks/{' '.join(command)}", flush=True)
        code = subprocess.run([sys.executable, str(HERE / command[0]), *command[1:]], check=False).returncode
        if code:
            print(f"(exit code {code})")


if __name__ == "__main__":
    main()
