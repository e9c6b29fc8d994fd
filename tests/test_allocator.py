"""Freed memory stays with the process inside the block, and goes back to the system after it."""

import ctypes
import subprocess
import sys
import threading

import pytest

from headstart import allocator
from headstart.allocator import AFTERWARDS, MMAP_MAX, NEVER, TRIM_THRESHOLD, memory_kept

GLIBC = sys.platform == "linux" and hasattr(ctypes.CDLL(None), "mallopt")

PROGRAM = """
import resource
from contextlib import nullcontext
from headstart.allocator import memory_kept

def faults(block):
    with block:
        for _ in range(2):
            b"x" * 40_000_000
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(20):
            b"x" * 40_000_000
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def resident():
    return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

print(faults(nullcontext()), faults(memory_kept()), faults(nullcontext()))
before = resident()
with memory_kept():
    b"x" * 200_000_000
    inside = resident() - before
print(inside, resident() - before)
"""


@pytest.mark.skipif(not GLIBC, reason="the C library is not glibc: nothing is set")
def test_pages_are_fetched_once_inside_and_each_time_outside() -> None:
    """Counted by the system: 40 MB have 9,766 pages of 4 KB; 200 MB stay inside and are gone after."""
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    counts, held = (list(map(int, line.split())) for line in done.stdout.splitlines())
    pages = 40_000_000 // 4096
    assert counts[1] < pages
    assert counts[0] > 10 * pages or counts[0] < pages  # where the system gives huge pages there are few in any case
    assert counts[2] == pytest.approx(counts[0], rel=0.2, abs=1000)
    assert held[0] > 150_000_000
    assert held[1] < 20_000_000


class Library:
    """Writes down what is asked of it."""

    def __init__(self) -> None:
        self.calls: list[tuple[int, int]] = []

    def mallopt(self, name: int, value: int) -> None:
        self.calls.append((name, value))

    def malloc_trim(self, _: object) -> None:
        self.calls.append((0, 0))


def test_blocks_within_and_beside_each_other_set_once_and_put_back_once(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocator, "_library", lambda: library)
    inside, leave = threading.Barrier(3), threading.Barrier(3)

    def run() -> None:
        with memory_kept(), memory_kept():
            inside.wait(10)
            leave.wait(10)

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    inside.wait(10)
    begun = [(MMAP_MAX, 0), (TRIM_THRESHOLD, NEVER)]
    assert library.calls == begun
    leave.wait(10)
    for thread in threads:
        thread.join()
    assert library.calls == [*begun, *AFTERWARDS, (0, 0)]


def test_after_an_error_it_is_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(allocator, "_library", lambda: library)
    with pytest.raises(ZeroDivisionError), memory_kept():
        raise ZeroDivisionError
    assert library.calls[2:] == [*AFTERWARDS, (0, 0)]


@pytest.mark.parametrize(
    ("name", "value"), [("MALLOC_ARENA_MAX", "2"), ("GLIBC_TUNABLES", "glibc.malloc.trim_threshold=1")]
)
def test_what_the_user_chose_stays(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    assert allocator._library() is None
    with memory_kept():
        pass


def test_elsewhere_nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert allocator._library() is None
