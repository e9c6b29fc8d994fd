"""Every measurement behind the numbers in docs/measurements.md, one after the other.

    python benchmarks/all.py DATA

DATA is a folder that holds ants_bees, cats_dogs, sign_digits, ...; see CONTRIBUTING.md. Takes about an hour.
"""

import argparse
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent


def commands(data: Path) -> list[list[str]]:
    """Return the command lines, quick ones first."""
    ants_bees = str(data / "ants_bees")
    return [
        ["decode.py", str(data / "ants_bees" / "val")],
        ["engines.py", "--photos", ants_bees],
        ["features.py", ants_bees],
        ["train.py", ants_bees],
        ["store.py"],
        ["duplicates.py", str(data)],
        ["imagenet_check.py", str(data / "ants_bees" / "val"), str(data / "cats_dogs")],
        ["heads.py", ants_bees, str(data / "cats_dogs"), str(data / "sign_digits")],
        ["heads.py", "--times"],
        ["scale.py"],
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
