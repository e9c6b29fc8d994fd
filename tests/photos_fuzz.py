"""Decodes mutated photos in a process of its own, which a native crash may end: `python photos_fuzz.py COUNT SEED`.

One JSON line at the end: how many were used, how many rejected for which reason, every other exception with the number
that replays it, and the longest decode. `python photos_fuzz.py 1 SEED NUMBER` replays one.
"""

import faulthandler
import json
import sys
import time
from collections import Counter

import numpy as np

import photos_make
from headstart.errors import ImageRejected
from headstart.images import REASONS, decode

TELLING = (0, 1, 0x7F, 0x80, 0xFE, 0xFF)


def mutated(seeds: list[bytes], rng: np.random.Generator) -> bytes:
    """One seed after one to three random changes: flipped bits, telling bytes, a cut, a loss, a splice, a repeat."""
    data = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(rng.integers(1, 4)):
        if len(data) < 16:
            break
        start = int(rng.integers(min(len(data), 200 if rng.random() < 0.4 else len(data))))
        length = int(rng.integers(1, 1 + min(64, len(data) - start)))
        other = seeds[rng.integers(len(seeds))]
        place = int(rng.integers(len(other)))
        kind = rng.integers(6)
        if kind == 0:
            for _ in range(int(rng.integers(1, 17))):
                data[rng.integers(len(data))] ^= 1 << int(rng.integers(8))
        elif kind == 1:
            data[start : start + length % 5 + 1] = bytes([TELLING[rng.integers(len(TELLING))]]) * (length % 5 + 1)
        elif kind == 2:
            del data[max(start, 8) :]
        elif kind == 3:
            del data[start : start + length]
        elif kind == 4:
            data[start : start + length] = other[place : place + length]
        else:
            data[start:start] = data[start : start + length] * int(rng.integers(1, 8))
    return bytes(data)


def main() -> None:
    """Decode COUNT mutations made from SEED."""
    faulthandler.enable()
    count, seed = int(sys.argv[1]), int(sys.argv[2])
    first = int(sys.argv[3]) if len(sys.argv) > 3 else 0
    seeds = list(photos_make.seeds().values())
    outcomes: Counter[str] = Counter()
    failures, slowest = [], 0.0
    for number in range(first, first + count):
        rng = np.random.default_rng([seed, number])
        data = mutated(seeds, rng)
        target = int(rng.choice([0, 8, 30]))
        start = time.perf_counter()
        try:
            picture = decode(data, target=target or None, name="photo.jpg")
            shape = (-(-picture.height // picture.reduction), -(-picture.width // picture.reduction), 3)
            sound = picture.pixels.shape == shape and picture.pixels.dtype == np.uint8
            outcomes["used" if sound else "wrong shape"] += 1
        except ImageRejected as error:
            one_line = error.detail.isprintable() and len(error.detail) < 400
            outcomes[error.reason if error.reason in REASONS and one_line else f"badly told: {error!r}"] += 1
        except Exception as error:
            failures.append(f"number {number}: {type(error).__name__}: {error}")
        slowest = max(slowest, time.perf_counter() - start)
    print(json.dumps({"outcomes": outcomes, "failures": failures, "slowest": slowest}))


if __name__ == "__main__":
    main()
