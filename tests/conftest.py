"""Fixtures shared by every test: where the real data is, a cache of its own for each test, and the `--full` switch."""

import os
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import web_browser

REPOSITORY = Path(__file__).resolve().parent.parent


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--full", action="store_true", help="run the release-size version of the long tests as well")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    # The tests that fork come first, while no native library has started threads in this process: a fork of a process
    # with threads may crash whatever the code under test does.
    items.sort(key=lambda item: "_crash" not in item.nodeid)
    if config.getoption("--full"):
        return
    skip = pytest.mark.skip(reason="release-size test: run with --full")
    for item in items:
        if item.get_closest_marker("full"):
            item.add_marker(skip)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say loudly that tests were left out for want of a browser, and what to install."""
    if web_browser.missing():
        terminalreporter.write_sep("=", "the pages were not tested in a browser", yellow=True, bold=True)
        terminalreporter.write_line(web_browser.missing())


@pytest.fixture(autouse=True, scope="session")
def interrupts_arrive() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C; the tests that interrupt need it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets; the tests that need it are skipped, with the reason, where it is absent."""
    folder = Path(os.environ.get("HEADSTART_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(
            f"real data not found at {folder}; set HEADSTART_DATA to the folder that holds ants_bees, odd_images, ..."
        )
    return folder


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Every test gets an empty cache folder, so that none sees what another computed."""
    cache = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("HEADSTART_CACHE", str(cache))
    return cache


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    """Small tensors on two threads of a busy machine take a hundred times longer than on one."""
    if torch := sys.modules.get("torch"):
        torch.set_num_threads(1)


@pytest.fixture(scope="session")
def converted_backbones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache folder in which efficientnet-lite0 is converted, made once a test session."""
    from headstart.backbones import open_backbone
    from headstart.backbones.engines import open_engine

    cache = tmp_path_factory.mktemp("converted")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(cache))
        open_engine(open_backbone("efficientnet-lite0")).close()
    return cache


@pytest.fixture
def ready_cache(own_cache: Path, converted_backbones: Path) -> Path:
    """A cache of the test's own, with the converted backbone in it and no features."""
    shutil.copytree(converted_backbones, own_cache, dirs_exist_ok=True, copy_function=os.link)
    for path in own_cache.glob("features.sqlite3*"):
        path.unlink()
    return own_cache


@pytest.fixture
def photo_folder(tmp_path: Path) -> Path:
    """A folder of 2 x 24 easy photos: bright disks against bright bars, each with its own noise and place."""
    return make_photo_folder(tmp_path / "shapes", per_class=24)


def make_photo_folder(root: Path, per_class: int, seed: int = 0) -> Path:
    """Write class folders `bars` and `disks` of PNG drawings, 96 x 96, no two alike."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:96, :96]
    for label in ("bars", "disks"):
        (root / label).mkdir(parents=True)
        for number in range(per_class):
            x, y, size = random.integers(30, 66), random.integers(30, 66), random.integers(8, 24)
            disk = (rows - y) ** 2 + (columns - x) ** 2 < size**2
            bars = ((rows + x) // 6 % 2 == 0) & (abs(columns - y) < 2 * size)
            picture = random.integers(0, 90, (96, 96, 3))
            picture[disk if label == "disks" else bars] += random.integers(90, 160, 3)
            Image.fromarray(picture.astype(np.uint8)).save(root / label / f"{number:02d}.png")
    return root
