"""Killing the real command at any moment: no unreadable run, and after --resume the same weights, bit for bit."""

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headstart.runs import list_runs, load_run

PROGRAM = [sys.executable, "-m", "headstart"]
SETTINGS = ["--net", "small-cnn", "--image-size", "16", "--epochs", "40", "--batch-size", "8", "--threads", "1"]


def command(data: Path, run: Path, *more: str) -> list[str]:
    often = ["--checkpoint-seconds", "0.05", "--quiet", "--augment", "photos"]
    return [*PROGRAM, "train", str(data), "--out", str(run), *SETTINGS, *often, *more]


def finish(data: Path, run: Path, *more: str) -> None:
    done = subprocess.run(command(data, run, *more), capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr


def history(run: Path) -> list[list[str]]:
    """The rows of history.csv without what depends on the clock."""
    header, *rows = (run / "history.csv").read_text().splitlines()
    clock = header.split(",").index("seconds")
    return [[value for place, value in enumerate(row.split(",")) if place != clock] for row in rows]


def kill_until_done(data: Path, run: Path, kills: int, draw: random.Random, seconds: float) -> int:
    """Kill the training `kills` times in its middle, going on after each; return how often it was still running."""
    killed = 0
    for number in range(kills):
        process = subprocess.Popen(command(data, run, *(["--resume"] if number else [])), stderr=subprocess.PIPE)
        checkpoint = run.with_name(run.name + ".training") / "checkpoint"
        before = checkpoint.stat().st_mtime_ns if checkpoint.exists() else 0
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:  # until the training itself goes on
            if checkpoint.exists() and checkpoint.stat().st_mtime_ns != before:
                break
            time.sleep(0.005)
        time.sleep(draw.uniform(0, seconds))
        process.kill()
        _, messages = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), messages.decode()
        killed += process.returncode != 0
        check_readable(run)
        if process.returncode == 0:
            break
    return killed


def check_readable(run: Path) -> None:
    """Whatever lies there is a complete run or says that it is none."""
    for summary in list_runs(run.parent):
        assert summary.status in ("complete", "unfinished"), summary
    if run.exists():
        assert load_run(run).classifier.classes == ("bars", "disks")


def resumed_equals_straight(data: Path, folder: Path, kills: int, seconds: float) -> None:
    finish(data, folder / "straight")
    killed = kill_until_done(data, folder / "killed", kills, random.Random(5), seconds)
    if not (folder / "killed").exists():
        finish(data, folder / "killed", "--resume")
    assert killed >= 1
    for name in ("model.safetensors", "model.json", "predictions.csv", "plan.json"):
        assert (folder / "killed" / name).read_bytes() == (folder / "straight" / name).read_bytes(), name
    assert history(folder / "killed") == history(folder / "straight")
    assert not (folder / "killed.training").exists()


def test_a_training_killed_and_resumed_gives_the_same_weights_bit_for_bit(photo_folder: Path, tmp_path: Path) -> None:
    resumed_equals_straight(photo_folder, tmp_path, kills=2, seconds=0.3)


@pytest.mark.full
def test_twenty_kills_and_resumes_give_the_same_weights_bit_for_bit(photo_folder: Path, tmp_path: Path) -> None:
    resumed_equals_straight(photo_folder, tmp_path, kills=20, seconds=0.1)


def kill_anywhere(data: Path, folder: Path, count: int) -> None:
    draw = random.Random(11)
    begun = time.monotonic()
    finish(data, folder / "first")
    whole = time.monotonic() - begun
    for number in range(count):
        run = folder / f"run{number % 4}"
        process = subprocess.Popen(command(data, run, "--overwrite"), stderr=subprocess.DEVNULL)
        time.sleep(draw.uniform(0, whole))
        process.kill()
        process.wait()
        check_readable(run)


@pytest.mark.full
def test_a_hundred_kills_at_any_moment_leave_no_unreadable_run(photo_folder: Path, tmp_path: Path) -> None:
    kill_anywhere(photo_folder, tmp_path, count=100)


def test_an_interrupt_keeps_the_state_and_says_how_to_go_on(photo_folder: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    process = subprocess.Popen(command(photo_folder, run, "--epochs", "100000"), stderr=subprocess.PIPE, text=True)
    checkpoint = tmp_path / "run.training" / "checkpoint"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=60)
    assert process.returncode == 130, messages
    assert "--resume" in messages and "Traceback" not in messages and len(messages.strip().splitlines()) <= 3
    assert checkpoint.exists() and not run.exists()
