"""A real Chromium without a window, for the tests of the pages; modules that import this are skipped where none is."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
if CHROMIUM is None:
    pytest.skip("there is no Chromium here: install chromium (apt-get install chromium)", allow_module_level=True)
sync_api = pytest.importorskip("playwright.sync_api", reason="install headstart[test]: playwright is missing")

CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")  # made-up pictures, nobody is asked


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, with a made-up camera."""
    with sync_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()
