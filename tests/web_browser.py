"""A real Chromium without a window, for the tests of the pages and the report.

Where it or playwright is missing, these tests are skipped, which the last lines of the test run say. With
HEADSTART_REQUIRE_BROWSER set they fail instead.
"""

import importlib.util
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
CAMERA = ("--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream")  # made-up pictures, nobody is asked


def missing() -> str:
    """What has to be installed for these tests; "": nothing."""
    if CHROMIUM is None:
        return "there is no Chromium here: install chromium (apt-get install chromium)"
    if importlib.util.find_spec("playwright") is None:
        return "there is no playwright here: pip install 'headstart[test]'"
    return ""


@contextmanager
def chromium() -> Iterator[Any]:
    """The browser, with a made-up camera; skips or fails where there is none."""
    if missing():
        (pytest.fail if os.environ.get("HEADSTART_REQUIRE_BROWSER") else pytest.skip)(missing())
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *CAMERA])
        yield browser
        browser.close()
