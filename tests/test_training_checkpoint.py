"""A training that is killed or interrupted goes on as if nothing had happened; a damaged checkpoint is refused."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import nn

from crash_training import digest, train
from headstart.config import LoopConfig
from headstart.errors import RunError
from headstart.training.callbacks import LambdaCallback
from headstart.training.checkpoint import (
    Checkpoint,
    optimiser_tensors,
    read_checkpoint,
    restore_optimiser,
    write_checkpoint,
)
from headstart.training.optimisers import OPTIMISERS, make_optimiser

TESTS = Path(__file__).parent


class Nursery:
    """The process of `crash_training.py`, which has children that train."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, str(TESTS / "crash_training.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def start(self, verb: str, folder: Path) -> int:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{verb} {folder}\n")
        self.process.stdin.flush()
        return int(self._answer("child"))

    def wait(self) -> int:
        return int(self._answer("exit"))

    def run(self, verb: str, folder: Path) -> int:
        folder.mkdir(exist_ok=True)
        self.start(verb, folder)
        return self.wait()

    def _answer(self, what: str) -> str:
        assert self.process.stdout is not None
        word, value = self.process.stdout.readline().split()
        assert word == what
        return value

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        self.process.wait(30)
        self.process.stdout.close()


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    nursery = Nursery()
    yield nursery
    nursery.close()


@pytest.fixture(scope="module")
def straight(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a training that nobody disturbed, and how many seconds it took."""
    folder = tmp_path_factory.mktemp("straight")
    assert nursery.run("start", folder) == 0  # the first child pays for what is loaded late
    begun = time.monotonic()
    assert nursery.run("start", folder) == 0
    return folder, time.monotonic() - begun


def assert_same_result(folder: Path, other: Path) -> None:
    assert json.loads((folder / "result.json").read_text()) == json.loads((other / "result.json").read_text())
    assert (folder / "log.csv").read_text() == (other / "log.csv").read_text()
    assert (folder / "best.safetensors").read_bytes() == (other / "best.safetensors").read_bytes()


def disturb(nursery: Nursery, straight: tuple[Path, float], folder: Path, number: int, by: signal.Signals) -> int:
    """Train, disturbed at a random moment, and go on; returns how the disturbed child ended."""
    reference, seconds = straight
    folder.mkdir()
    child = nursery.start("start", folder)
    time.sleep(random.Random(number).uniform(0, 0.8 * seconds))
    sent = time.monotonic()
    with suppress(ProcessLookupError):  # it was faster than the last time
        os.kill(child, by)
    code = nursery.wait()
    assert time.monotonic() - sent < 5
    assert nursery.run("resume", folder) == 0
    assert_same_result(folder, reference)
    assert not list(folder.glob(".headstart-*"))
    return code


@pytest.mark.parametrize("kills", [5, pytest.param(20, marks=pytest.mark.full)])
def test_a_killed_training_that_is_resumed_ends_with_the_same_bytes_and_history(
    nursery: Nursery, straight: tuple[Path, float], tmp_path: Path, kills: int
) -> None:
    codes = [disturb(nursery, straight, tmp_path / str(n), n, signal.SIGKILL) for n in range(kills)]
    assert codes.count(-signal.SIGKILL) >= kills - 2  # a fast one may have been over


@pytest.mark.parametrize("interrupts", [2, pytest.param(20, marks=pytest.mark.full)])
def test_an_interrupted_training_stops_at_once_and_goes_on_with_the_same_bytes(
    nursery: Nursery, straight: tuple[Path, float], tmp_path: Path, interrupts: int
) -> None:
    codes = [disturb(nursery, straight, tmp_path / str(n), n, signal.SIGINT) for n in range(interrupts)]
    assert set(codes) <= {130, 0}
    assert 130 in codes


def test_a_training_killed_again_and_again_ends_with_the_same_bytes(
    nursery: Nursery, straight: tuple[Path, float], tmp_path: Path
) -> None:
    reference, seconds = straight
    for number in range(3):
        child = nursery.start("resume", tmp_path)  # the first time there is nothing to resume: it starts
        time.sleep(random.Random(number).uniform(0.2, 0.4) * seconds)
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        nursery.wait()
    assert nursery.run("resume", tmp_path) == 0
    assert_same_result(tmp_path, reference)


def test_the_same_seed_gives_the_same_bytes_twice(tmp_path: Path) -> None:
    folders = [tmp_path / "one", tmp_path / "two"]
    for folder in folders:
        folder.mkdir()
    assert len({digest(train(folder, resume=False, epochs=2)[0]) for folder in folders}) == 1


@pytest.mark.parametrize("optimiser", sorted(OPTIMISERS))
def test_every_optimiser_goes_on_where_it_stopped(optimiser: str, tmp_path: Path) -> None:
    (tmp_path / "straight").mkdir()
    expected, _ = train(tmp_path / "straight", resume=False, epochs=2, optimiser=optimiser)
    (tmp_path / "parts").mkdir()

    def interrupt(epoch: int, logs: dict[str, float]) -> None:
        if epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(
            tmp_path / "parts",
            resume=False,
            epochs=2,
            optimiser=optimiser,
            extra=LambdaCallback(on_epoch_begin=interrupt),
        )
    found, history = train(tmp_path / "parts", resume=True, epochs=2, optimiser=optimiser, extra=LambdaCallback())
    assert digest(found) == digest(expected)
    assert [row["epoch"] for row in history.rows] == [1.0, 2.0]


def test_a_finished_training_that_is_resumed_is_not_trained_again(tmp_path: Path) -> None:
    net, history = train(tmp_path, resume=False, epochs=2)
    again, rows = train(tmp_path, resume=True, epochs=2)
    assert digest(again) == digest(net)
    assert rows == history


def test_more_epochs_continue_a_finished_training(tmp_path: Path) -> None:
    (tmp_path / "straight").mkdir()
    expected, _ = train(tmp_path / "straight", resume=False, epochs=3, restore=False)
    train(tmp_path, resume=False, epochs=2, restore=False)
    found, history = train(tmp_path, resume=True, epochs=3, restore=False)
    assert digest(found) == digest(expected)
    assert len(history.rows) == 3


def test_a_checkpoint_of_another_training_is_refused(tmp_path: Path) -> None:
    train(tmp_path, resume=False, epochs=1)
    with pytest.raises(RunError, match="of another training: optimiser was adam and is sgd; start again"):
        train(tmp_path, resume=True, epochs=1, optimiser="sgd")


@pytest.fixture(scope="module")
def good_file(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("good") / "checkpoint.safetensors"
    write_checkpoint(path, Checkpoint({"loop": {"epoch": 3}}, {"net/weight": torch.arange(40.0).reshape(5, 8).T}))
    return path.read_bytes()


def test_what_is_written_is_read_back_exactly(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(good_file)
    kept = read_checkpoint(path)
    assert kept.document["loop"] == {"epoch": 3}
    assert torch.equal(kept.tensors["net/weight"], torch.arange(40.0).reshape(5, 8).T)


def test_any_changed_byte_and_any_cut_is_refused_in_one_line(good_file: bytes, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.safetensors"
    rng = random.Random(0)
    for _ in range(300):
        data = bytearray(good_file)
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        if rng.random() < 0.3:
            data = data[: rng.randrange(len(data))]
        path.write_bytes(data)
        with pytest.raises(RunError) as caught:
            read_checkpoint(path)
        assert "\n" not in str(caught.value) and "start the training again without resuming" in str(caught.value)


def test_a_missing_checkpoint_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"cannot read the checkpoint .*nothing: No such file"):
        read_checkpoint(tmp_path / "nothing")


def test_the_memory_of_an_optimiser_is_laid_out_as_its_filters_are() -> None:
    net = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
    optimiser = make_optimiser(net, LoopConfig())
    net(torch.randn(1, 3, 5, 5, generator=torch.Generator().manual_seed(0))).sum().backward()
    optimiser.step()
    kept = {name: value.contiguous().clone() for name, value in optimiser_tensors(optimiser).items()}
    other = make_optimiser(net, LoopConfig())
    restore_optimiser(other, kept)
    memory = other.state[net.weight]["exp_avg"]
    assert memory.stride() == net.weight.stride()
    assert torch.equal(memory, optimiser.state[net.weight]["exp_avg"])
