"""Damaged photos of every kind end as pixels or as a named reason, never as another exception or a crash."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

import photos_make
from headstart.errors import ImageRejected
from headstart.images import REASONS, Picture, decode

SCRIPT = Path(__file__).parent / "photos_fuzz.py"


def fuzzed(count: int, seed: int, timeout: float) -> dict:
    done = subprocess.run(
        [sys.executable, SCRIPT, str(count), str(seed)], capture_output=True, text=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"seed {seed}: the process ended with {done.returncode}\n{done.stderr[-2000:]}"
    assert done.stderr == ""
    return json.loads(done.stdout)


def check(result: dict, count: int) -> None:
    assert result["failures"] == []
    assert set(result["outcomes"]) <= {"used", *REASONS}
    assert sum(result["outcomes"].values()) == count
    assert result["slowest"] < 5
    for outcome in ("used", "corrupt", "truncated", "unidentified"):  # the mutations reach every part of the decoder
        assert result["outcomes"][outcome] > count / 50, result["outcomes"]


def test_a_thousand_mutations_are_used_or_rejected_by_name():
    check(fuzzed(1_000, seed=1, timeout=120), 1_000)


@pytest.mark.full
def test_twenty_thousand_mutations_are_used_or_rejected_by_name():
    check(fuzzed(20_000, seed=2, timeout=1200), 20_000)


def test_there_are_at_least_twenty_seeds_in_eight_formats():
    seeds = photos_make.seeds()
    assert len(seeds) >= 20 and len({decode(data).format for data in seeds.values()}) == 8


@pytest.mark.parametrize("label", ["jpeg progressive", "png alpha", "gif animated", "tiff lzw", "webp", "avif", "ppm"])
def test_a_photo_cut_anywhere_is_used_or_rejected_by_name(label: str):
    data = photos_make.seeds()[label]
    whole = decode(data).pixels
    for length in range(0, len(data), max(1, len(data) // 60)):
        try:
            picture = decode(data[:length], name="a.jpg")
        except ImageRejected as error:
            assert error.reason in REASONS
        else:
            assert isinstance(picture, Picture) and picture.pixels.shape == whole.shape
