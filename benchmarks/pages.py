"""The local pages in a real browser: the first paint of each, and how long a click on a unit takes.

    python benchmarks/pages.py DATA [--run RUN] [--rounds 5] [--clicks 20]

DATA holds ants_bees; see CONTRIBUTING.md. Without RUN, one is trained on it. Needs chromium and playwright. Every round
opens every page in a window of its own, with nothing cached. First paint is what the browser reports as
first-contentful-paint, counted from the click that asks for the page; the first round comes right after the server's
start. A click on a unit ends when its map, its projection and its numbers are there; the search for the photos that
excite it most goes on behind it.
"""

import argparse
import contextlib
import http.client
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

from harness import given_or_trained, machine, spread
from playwright.sync_api import sync_playwright

PAGES = ("/", "/train", "/data", "/learn", "/learn/convolution", "/learn/windows", "/learn/pooling", "/learn/filters")
PAGES += ("/learn/rate", "/learn/dropout", "/learn/cases?run=RUN", "/runs/RUN", "/runs/RUN/report", "/runs/RUN/try")
PAGES += ("/runs/RUN/look", "/compare?first=RUN&second=RUN", "/data/KEY", "/jobs/1")
PAINT = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? -1"
LAYERS = ("stem", "stage3", "stage5", "stage7")
WINDOW = {"width": 1200, "height": 900}


@contextlib.contextmanager
def serving(runs: Path) -> Iterator[str]:
    """The address of `headstart ui`."""
    command = [sys.executable, "-m", "headstart", "ui", "--runs", str(runs), "--port", "0", "--no-browser", "--json"]
    process = subprocess.Popen([*command, "--quiet"], stdout=subprocess.PIPE, text=True)
    try:
        yield json.loads(process.stdout.readline())["url"].rstrip("/") if process.stdout else ""
    finally:
        process.terminate()
        process.wait()


def send_form(address: str, path: str, **values: str) -> str:
    """Where the answer leads."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port)
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Accept": "text/html"}
    connection.request("POST", path, urlencode(values), kind)
    answer = connection.getresponse()
    answer.read()
    if answer.status != 303:
        raise SystemExit(f"{path}: {answer.status}")
    return str(answer.headers["location"])


def first_paint(browser: Any, address: str) -> float:
    """Seconds until something of the page is seen."""
    context = browser.new_context(viewport=WINDOW)
    page = context.new_page()
    page.goto(address)
    while (painted := page.evaluate(PAINT)) < 0:  # the pages' policy forbids wait_for_function
        time.sleep(0.02)
    page.wait_for_load_state("load")
    context.close()
    return float(painted) / 1000


SHOWN = "['unit', 'projection'].every((id) => document.getElementById(id).complete) && "
SHOWN += "document.getElementById('unit-title').textContent"


def clicks(browser: Any, address: str, count: int) -> list[float]:
    """Seconds of clicks on units of several layers, drawn at random."""
    drawn, found = random.Random(0), []
    page = browser.new_page(viewport=WINDOW)
    for layer in LAYERS:
        page.goto(f"{address}?photo=test-0&layer={layer}&unit=0")
        until(page, lambda title, layer=layer: title == f"Unit 0 of {layer}")
        page.locator("#units").scroll_into_view_if_needed()
        for _ in range(count // len(LAYERS)):
            before = page.evaluate(SHOWN)
            box = page.locator("#units").bounding_box()
            high = min(box["height"], WINDOW["height"] - box["y"])  # what can be seen of it
            place = box["x"] + drawn.random() * 0.98 * box["width"], box["y"] + drawn.random() * 0.95 * high
            began = time.perf_counter()
            page.mouse.click(*place)
            if until(page, lambda title, before=before: title and title != before, 10.0):  # else the same unit again
                found.append(time.perf_counter() - began)
    page.close()
    return found


def until(page: Any, good: Callable[[Any], Any], seconds: float = 120.0) -> bool:
    """Wait until what the page shows is good."""
    end = time.perf_counter() + seconds
    while not good(page.evaluate(SHOWN)):
        if time.perf_counter() > end:
            return False
        time.sleep(0.01)
    return True


def until_done(address: str) -> None:
    """Wait for the first job, the look at the data."""
    connection = http.client.HTTPConnection(urlsplit(address).netloc)
    connection.request("GET", "/jobs/1/events")
    connection.getresponse().read()  # they end with the job


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clicks", type=int, default=20)
    given = parser.parse_args()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        raise SystemExit("there is no Chromium here; install chromium")
    print(machine())
    with tempfile.TemporaryDirectory() as folder:
        runs = Path(folder) / "runs"
        runs.mkdir()
        if (path := given_or_trained(given.run, given.data, runs / "run")) != runs / "run":
            shutil.copytree(path, runs / "run")
        with serving(runs) as address, sync_playwright() as play:
            browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
            print(f"Chromium {browser.version}; first paint, seconds", flush=True)
            photos = str(given.data / "ants_bees")
            send_form(address, "/runs/run/data", data=photos)
            key = send_form(address, "/data", data=photos).rsplit("/", 1)[1]
            until_done(address)
            for path in PAGES:
                name = path.replace("RUN", "run").replace("KEY", key)
                values = [first_paint(browser, address + name) for _ in range(given.rounds)]
                print(f"{name:24} {spread(values)}; the first {values[0]:.2f}", flush=True)
            found = clicks(browser, f"{address}/runs/run/look", given.clicks)
            print(f"a click on a unit, seconds: {spread(found)}; {sum(one > 0.6 for one in found)} above 0.6")
            browser.close()


if __name__ == "__main__":
    main()
