"""The matrix of features: the same numbers in memory and in a file, and little memory while a file is filled."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.features import matrix
from headstart.features.matrix import Matrix

FILL = """
import re, sys
import numpy as np
from headstart.features.matrix import Matrix

def peak():  # not ru_maxrss: that begins with the peak of the process that started this one
    return int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1])

row = np.ones(1280, np.float32)
before = peak()
filled = Matrix(60_000, 1280, in_memory=int(sys.argv[1]))
for number in range(60_000):
    filled.write(number, row)
print(filled.is_file, (peak() - before) // 1024)
"""


@pytest.mark.parametrize("in_memory", [0, 1 << 30])
def test_what_is_written_in_any_order_is_read_back(in_memory: int) -> None:
    wanted = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
    wanted[13] = np.nan
    filled = Matrix(50, 7, in_memory=in_memory)
    for row in np.random.default_rng(1).permutation(50).tolist():
        filled.write(row, float("nan") if row == 13 else wanted[row])
    assert filled.is_file is (in_memory == 0)
    assert np.array_equal(filled.array(), wanted, equal_nan=True)


def test_rows_survive_the_return_of_their_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(matrix, "RELEASE", 1)  # after every row
    filled = Matrix(3000, 5, in_memory=0)
    for row in range(3000):
        filled.write(row, float(row))
    assert np.array_equal(filled.array()[:, 2], np.arange(3000))


def test_the_file_has_no_name_and_is_gone_with_the_matrix(own_cache: Path) -> None:
    filled = Matrix(100, 10, in_memory=0)
    assert filled.is_file
    assert list(own_cache.iterdir()) == []


def test_a_full_disk_means_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    filled = Matrix(10, 10, in_memory=0)
    filled.write(3, 1.0)
    assert not filled.is_file
    assert filled.array()[3].sum() == 10


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="the peak of the memory is read from /proc")
def test_filling_a_large_matrix_takes_a_fraction_of_its_size_as_memory() -> None:
    def grown(in_memory: int) -> tuple[str, int]:
        command = [sys.executable, "-c", FILL, str(in_memory)]
        words = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout.split()
        return words[0], int(words[1])

    whole = 60_000 * 1280 * 4 >> 20
    assert grown(1 << 30)[1] >= 0.9 * whole
    kind, megabytes = grown(0)
    assert kind == "True"
    assert megabytes <= 0.5 * whole
