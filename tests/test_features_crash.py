"""A survey that is killed, interrupted or run four times at once leaves a sound store and does no work twice."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from crash_features import (
    PaperEngine,
    exit_code,
    lines_of,
    make_photos,
    paper_backbone,
    survey_in_child,
)
from headstart.dataset import Dataset
from headstart.features import survey_photos
from headstart.features.decoding import BATCH
from headstart.store import NAME, Store

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork there")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Dataset:
    return make_photos(tmp_path_factory.mktemp("photos"), 300)


@pytest.fixture(scope="module")
def expected(photos: Dataset) -> np.ndarray:
    return survey_photos(photos, backbone=paper_backbone(), engine=PaperEngine(), store=None).features["pooled"]


def stored_rows(photos: Dataset, store: Store) -> np.ndarray:
    """What the store holds, read through a survey whose engine and decoder must not be needed for it."""
    from headstart.features.decoding import Recipe, content_digest

    fingerprint = paper_backbone().fingerprint("pooled", PaperEngine.name)
    recipe = Recipe(target=0, fingerprints={"pooled": fingerprint})
    keys = [recipe.feature_key(content_digest(photos.fetch(photo)), "pooled") for photo in photos.photos]
    found = store.get_many(keys)
    return np.stack([found.get(key, np.full(48, np.nan, np.float32)) for key in keys])


def kill_at_random_moments(folder: Path, photos: Dataset, expected: np.ndarray, kills: int, seed: int) -> None:
    rng = random.Random(seed)
    stores = lost_most = lost_all = done = 0
    path, log = folder / NAME, folder / "log"
    known = ~np.ones(len(expected), bool)
    while done < kills:
        computed_before = lines_of(log)
        child = survey_in_child(photos, path, log, seconds=0.001)
        while done % 5 and lines_of(log) == computed_before:  # four of five in the middle of the work, one anywhere
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.5))
        os.kill(child, signal.SIGKILL)
        killed = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
        done += killed
        with Store(path) as store:
            rows = stored_rows(photos, store)
            there = ~np.isnan(rows[:, 0])
            message = f"seed {seed}, kill {done}"
            assert np.array_equal(rows[there], expected[there]), message  # no wrong vector
            assert not (known & ~there).any(), message  # nothing that was stored is lost
            assert store.notices == (), message
            assert done % 5 or store.verify().sound, message
        lost = lines_of(log) - computed_before - int(there.sum() - known.sum())
        assert 0 <= lost <= BATCH, message
        lost_most, lost_all = max(lost_most, lost), lost_all + lost
        known = there
        if there.all():
            stores += 1
            for file in folder.glob(f"{NAME}*"):
                file.unlink()
            known = ~there
    assert lost_all > 0  # some hit between a computation and its transaction
    print(f"{kills} kills: at most {lost_most} photos computed again, {lost_all / kills:.1f} a kill, {stores} stores")
    with Store(path) as store:
        survey = survey_photos(photos, backbone=paper_backbone(), engine=PaperEngine(), store=store, threads=2)
        assert np.array_equal(survey.features["pooled"], expected)
        assert survey.reused == known.sum()
    left = {file.name for file in folder.iterdir()}
    assert left <= {NAME, "locks", "log"}, f"leftovers: {left}"


def test_a_survey_killed_at_random_moments_leaves_a_sound_store_and_repeats_at_most_one_batch(
    tmp_path: Path, photos: Dataset, expected: np.ndarray
) -> None:
    kill_at_random_moments(tmp_path, photos, expected, kills=30, seed=1)


@pytest.mark.full
def test_two_hundred_kills_leave_a_sound_store(tmp_path: Path, photos: Dataset, expected: np.ndarray) -> None:
    kill_at_random_moments(tmp_path, photos, expected, kills=200, seed=2)


def interrupt_at_random_moments(folder: Path, photos: Dataset, times: int, seed: int) -> None:
    rng = random.Random(seed)
    path, log = folder / NAME, folder / "log"
    slowest = interrupted = 0
    os.sync()  # the store is synced before a process ends: a disk busy with other programs' files would be timed too
    while interrupted < times:
        child = survey_in_child(photos, path, log, seconds=0.002)
        while not lines_of(log):  # until the first photo, then at any moment
            time.sleep(0.002)
        time.sleep(rng.uniform(0.0, 0.4))
        begun = time.monotonic()
        os.kill(child, signal.SIGINT)
        code = exit_code(child, seconds=10.0)
        seconds = time.monotonic() - begun
        assert code in (0, 130), f"seed {seed}: exit code {code} after {seconds:.1f} s"  # 99: a thread was left
        assert seconds <= 2.0, f"seed {seed}: {seconds:.1f} s"
        interrupted += code == 130
        slowest = max(slowest, seconds)
        log.unlink()
        with Store(path) as store:
            if store.info().features == len(photos.photos):
                store.prune(older_than_days=0)
    print(f"{times} interrupts: the slowest took {slowest:.2f} s")


def test_an_interrupted_survey_ends_within_two_seconds_and_leaves_no_thread(tmp_path: Path, photos: Dataset) -> None:
    interrupt_at_random_moments(tmp_path, photos, times=10, seed=1)


@pytest.mark.full
def test_fifty_interrupts_end_within_two_seconds(tmp_path: Path, photos: Dataset) -> None:
    interrupt_at_random_moments(tmp_path, photos, times=50, seed=2)


WHOLE_PROCESS = """
import signal, sys
from pathlib import Path
from crash_features import *
signal.signal(signal.SIGINT, signal.default_int_handler)  # shells start background jobs with the signal ignored
photos = make_photos(Path(sys.argv[1]) / "photos", 300)
with Store(Path(sys.argv[1]) / "features.sqlite3") as store:
    survey_photos(photos, backbone=paper_backbone(), engine=PaperEngine(Path(sys.argv[1]) / "log", 0.02), store=store)
"""


def test_an_interrupted_process_ends_with_its_interpreter_and_keeps_what_was_finished(tmp_path: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", WHOLE_PROCESS, str(tmp_path)],
        cwd=Path(__file__).parent,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert child.stderr is not None
    os.sync()  # as above
    deadline = time.monotonic() + 60
    while lines_of(tmp_path / "log") < 40 and time.monotonic() < deadline:
        time.sleep(0.01)
    begun = time.monotonic()
    child.send_signal(signal.SIGINT)
    said = child.communicate()[1]
    assert time.monotonic() - begun <= 2.0
    assert child.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert "Exception ignored" not in said
    with Store(tmp_path / NAME) as store:
        kept = store.info().features
    assert lines_of(tmp_path / "log") - kept <= 1  # the photo that the interrupt caught inside the engine


def test_four_processes_on_one_store_divide_the_work(tmp_path: Path, photos: Dataset, expected: np.ndarray) -> None:
    log = tmp_path / "log"
    children = [
        survey_in_child(photos, tmp_path / NAME, log, seconds=0.003, result=tmp_path / f"{number}.npy")
        for number in range(4)
    ]
    assert [exit_code(child, seconds=60.0) for child in children] == [0, 0, 0, 0]
    for number in range(4):
        assert np.array_equal(np.load(tmp_path / f"{number}.npy"), expected)
    print(f"4 processes computed {lines_of(log)} of {len(expected)} photos")
    assert lines_of(log) <= 1.5 * len(expected)
    with Store(tmp_path / NAME) as store:
        assert store.verify().sound


def test_a_process_takes_over_from_one_that_was_killed(tmp_path: Path, photos: Dataset, expected: np.ndarray) -> None:
    log = tmp_path / "log"
    slow = survey_in_child(photos, tmp_path / NAME, log, seconds=0.05)
    while lines_of(log) < 5:
        time.sleep(0.01)
    heir = survey_in_child(photos, tmp_path / NAME, log, seconds=0.0, result=tmp_path / "heir.npy")
    time.sleep(0.5)
    os.kill(slow, signal.SIGKILL)
    os.waitpid(slow, 0)
    assert exit_code(heir, seconds=60.0) == 0
    assert np.array_equal(np.load(tmp_path / "heir.npy"), expected)
