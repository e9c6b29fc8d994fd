"""The local pages in a real browser: every page opens cleanly, and what is clicked does what it says."""

import base64
import csv
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from conftest import make_photo_folder
from headstart.predict import predict_paths
from headstart.runs import load_run
from make_run import small_classifier, small_metrics, small_rows, write_small_run
from web_browser import chromium
from web_server import Server, serving, until

PAGES = ("/", "/train", "/data", "/learn", "/learn/convolution", "/learn/windows", "/learn/pooling", "/learn/filters")
PAGES += ("/learn/rate", "/learn/dropout", "/learn/cases?run=shapes", "/runs/shapes", "/runs/shapes/report")
PAGES += ("/runs/shapes/try", "/runs/shapes/look", "/jobs/1", "/data/KEY", "/compare?first=shapes&second=again")
PHONE = {"width": 390, "height": 800}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_photo_folder(tmp_path_factory.mktemp("data") / "shapes", per_class=24)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, converted_backbones: Path) -> Iterator[Server]:
    with serving(tmp_path_factory.mktemp("ui") / "runs", converted_backbones) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any, server: Server) -> Iterator[Any]:
    """A page that fails the test on any word in its console and any request to another place than the server."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text} {message.location}"))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: _inside(request.url, server, said))
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert said == []


def holds(tab: Any, expression: str) -> None:
    """Wait until an expression is true; by the debugger, as the page's own policy forbids what is evaluated in it."""
    until(lambda: tab.evaluate(expression))


def _inside(url: str, server: Server, said: list[str]) -> None:
    if not url.startswith((server.address, "data:", "blob:")):
        said.append(f"outside: {url}")


@pytest.fixture(scope="module")
def trained(server: Server, browser: Any, photos: Path) -> str:
    """Train from the page to the end, with a reload on the way; the name of the run."""
    page = browser.new_page()
    page.set_default_timeout(60_000)
    page.goto(f"{server.address}/train")
    page.fill("#data", str(photos))
    page.fill("#name", "shapes")
    page.select_option("#strategy", "head")
    page.click("text=Start training")
    page.wait_for_url("**/jobs/1")
    page.reload()
    page.wait_for_selector("#state.done")
    assert "48 photos in 2 classes" in page.inner_text("#lines")
    page.click("#open")
    page.wait_for_url("**/runs/shapes")
    page.close()
    return "shapes"


def test_every_page_opens_without_a_word_in_the_console_or_a_request_to_elsewhere(
    server: Server, tab: Any, trained: str, photos: Path
):
    status, headers, _ = server.post_form("/data", data=str(photos))
    assert status == 303
    server.post_form("/train", data=str(photos), name="again", strategy="head")
    server.wait(3)
    for path in PAGES:
        tab.goto(server.address + path.replace("/data/KEY", headers["location"]))
        tab.wait_for_load_state("networkidle") if "jobs" not in path else tab.wait_for_selector("#state.done")
        assert tab.locator("h1").count() == 1 and tab.title()
        levels = tab.eval_on_selector_all("h1,h2,h3", "all => all.map(one => Number(one.tagName[1]))")
        assert levels[0] == 1 and all(after - before <= 1 for before, after in itertools.pairwise(levels))
        unnamed = tab.eval_on_selector_all(
            "input:not([type=hidden]), select, button",
            "all => all.filter(one => !one.labels?.length && !one.ariaLabel && !one.textContent.trim()).length",
        )
        assert unnamed == 0, path
        assert tab.eval_on_selector_all("img:not([alt])", "all => all.length") == 0


@pytest.mark.parametrize("path", ["/", "/runs/shapes", "/runs/shapes/try", "/runs/shapes/look", "/learn/windows"])
def test_a_page_fits_a_phone(server: Server, tab: Any, trained: str, path: str):
    tab.set_viewport_size(PHONE)
    tab.goto(server.address + path)
    tab.wait_for_load_state("networkidle")
    assert tab.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]


def _drop(tab: Any, selector: str, path: Path) -> None:
    """Drop a file as a person would: the page gets a drop with a file in it."""
    content = base64.b64encode(path.read_bytes()).decode()
    tab.evaluate(
        """([selector, content, name]) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], name, { type: "image/png" }));
            document.querySelector(selector).dispatchEvent(
                new DragEvent("drop", { dataTransfer: data, bubbles: true, cancelable: true }));
        }""",
        [selector, content, path.name],
    )


def test_a_dropped_photo_gets_the_probabilities_of_the_command_line_its_map_and_its_like(
    server: Server, tab: Any, trained: str, photos: Path, ready_cache: Path
):
    run = load_run(_runs(server) / trained)
    for name in ("bars/03.png", "disks/07.png"):
        tab.goto(f"{server.address}/runs/{trained}/try")
        _drop(tab, "#drop", photos / name)
        tab.wait_for_selector("#result:not([hidden])")
        told = json.loads(tab.get_attribute("#result", "data-probabilities"))
        expected = next(iter(predict_paths(run, [photos / name])))
        assert expected.probabilities == pytest.approx(told, abs=1e-6)
        assert tab.inner_text("#label") == expected.label
        holds(tab, "document.querySelector('#map').naturalWidth > 100")
        tab.wait_for_selector("#nearest img")
        near = tab.eval_on_selector_all("#nearest img", "all => all.map(one => one.alt)")
        with (run.path / "predictions.csv").open(newline="") as file:
            tested = {row["path"] for row in csv.DictReader(file)}
        assert len(near) == 6 and not tested & set(near)
        assert name in tested or near[0] == name, "a training photo is nearest to itself"


def test_the_camera_is_answered_live_and_one_photo_of_it_is_explained(server: Server, tab: Any, trained: str):
    tab.goto(f"{server.address}/runs/{trained}/try")
    tab.click("#camera")
    until(lambda: int(tab.get_attribute("#live-label", "data-frames")) >= 3)
    label, share = tab.inner_text("#live-label").split(" ", 1)
    assert label in ("bars", "disks") and share.endswith("%")
    assert tab.locator("#live-bars tr").count() == 2
    tab.click("#take")
    tab.wait_for_selector("#result:not([hidden])")
    holds(tab, "document.querySelector('#map').naturalWidth > 100")
    assert not tab.is_visible("#live") and tab.inner_text("#camera") == "Use the camera"
    frames = tab.get_attribute("#live-label", "data-frames")
    tab.wait_for_timeout(500)
    assert tab.get_attribute("#live-label", "data-frames") == frames, "nothing is sent once the camera is off"


def test_a_pasted_photo_is_judged_like_the_command_line_turned_as_its_camera_says(
    server: Server, tab: Any, trained: str, photos: Path, tmp_path: Path, ready_cache: Path
):
    turned = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[274] = 6  # the camera lay on its side
    with Image.open(photos / "bars" / "05.png") as image:
        image.convert("RGB").save(turned, exif=exif, quality=92)
    tab.goto(f"{server.address}/runs/{trained}/try")
    tab.evaluate(
        """(content) => {
            const bytes = Uint8Array.from(atob(content), (letter) => letter.charCodeAt(0));
            const data = new DataTransfer();
            data.items.add(new File([bytes], "turned.jpg", { type: "image/jpeg" }));
            document.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
        }""",
        base64.b64encode(turned.read_bytes()).decode(),
    )
    tab.wait_for_selector("#result:not([hidden])")
    told = json.loads(tab.get_attribute("#result", "data-probabilities"))
    command = [sys.executable, "-m", "headstart", "predict", str(_runs(server) / trained), str(turned)]
    environment = {**os.environ, "HEADSTART_CACHE": str(ready_cache)}
    done = subprocess.run([*command, "--json", "--quiet"], capture_output=True, check=True, env=environment)
    said = json.loads(done.stdout)
    assert said["probabilities"] == pytest.approx(told, abs=1e-6)


def test_ten_thousand_test_photos_are_turned_over_page_by_page(server: Server, tab: Any, trained: str):
    rows = small_rows(count=10_000)
    write_small_run(_runs(server) / "many", predictions=rows, metrics=small_metrics(rows))
    first = rows[0]["label"]
    cell = sorted(
        (row for row in rows if row["label"] == row["predicted"] == first), key=lambda row: -row["probability"]
    )
    tab.goto(f"{server.address}/runs/many")
    tab.locator("#matrix button[data-label='0'][data-predicted='0']").click()
    seen: list[str] = []
    while True:
        place = f"{len(seen) + 1} to "
        holds(tab, f"document.querySelector('#cell-place').textContent.startsWith('{place}')")
        seen += [text.splitlines()[-1] for text in tab.locator("#cell-photos li p").all_inner_texts()]
        if tab.is_disabled("#after") or len(seen) > 300:
            break
        tab.click("#after")
    assert seen == [row["path"] for row in cell[: len(seen)]] and len(seen) > 300
    tab.click("#before")
    holds(tab, f"!document.querySelector('#cell-place').textContent.startsWith('{place}')")
    assert tab.locator("#cell-photos li").count() < 200
    assert tab.evaluate("document.getElementsByTagName('*').length") < 3_000


def _runs(server: Server) -> Path:
    """The folder of the runs, from the command line of the server."""
    arguments: Any = server.process.args
    return Path(arguments[-1])


def test_a_cell_of_the_confusion_matrix_opens_exactly_its_photos(server: Server, tab: Any, trained: str):
    with (_runs(server) / trained / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    classes = ["bars", "disks"]
    tab.goto(f"{server.address}/runs/{trained}")
    opened = 0
    for label, predicted in np.ndindex(2, 2):
        button = tab.locator(f"#matrix button[data-label='{label}'][data-predicted='{predicted}']")
        expected = {
            row["path"] for row in rows if (row["label"], row["predicted"]) == (classes[label], classes[predicted])
        }
        assert button.inner_text() == str(len(expected)) and button.is_enabled() == bool(expected)
        if not expected:
            continue
        button.press("Enter")
        holds(tab, f"document.querySelector('#cell-title').textContent.startsWith('{classes[label]} named')")
        holds(tab, "[...document.querySelectorAll('#cell-photos img')].every(one => one.naturalWidth > 0)")
        found = tab.eval_on_selector_all("#cell-photos img", "all => all.map(one => one.alt)")
        assert set(found) == expected and len(found) == len(expected)
        opened += 1
    assert opened >= 2


@pytest.mark.parametrize(("picture", "kernel"), [("curve", "curve"), ("seven", "top-edge"), ("steps", "blur")])
def test_the_sum_that_hovering_shows_is_the_number_of_the_tensor(server: Server, tab: Any, picture: str, kernel: str):
    told = server.json(f"/learn/convolution/numbers?picture={picture}&kernel={kernel}")
    x, w = np.array(told["picture"]), np.array(told["kernel"])
    tab.goto(f"{server.address}/learn/convolution")
    tab.wait_for_selector("body[data-ready]")
    tab.select_option("#picture", picture)
    tab.select_option("#kernel", kernel)
    rows, columns = np.shape(told["response"])
    holds(tab, f"document.querySelectorAll('#response button').length === {rows * columns}")
    for at in {0, rows * columns // 2, rows * columns - 1}:
        r, c = divmod(at, columns)
        tab.locator("#response button").nth(at).hover()
        by_hand = sum(x[r + i, c + j] * w[i, j] for i, j in np.ndindex(*w.shape))
        assert float(tab.get_attribute("#sum", "data-sum")) == pytest.approx(by_hand, abs=1e-9)
        assert float(tab.get_attribute("#sum", "data-response")) == pytest.approx(by_hand, abs=1e-9)
        assert tab.locator("#image button.in").count() == w.size
    if picture == kernel == "curve":
        assert tab.inner_text("#products") == "50×30 + 20×30 + 50×30 + 50×30 + 50×30 ="
        assert tab.inner_text("#sum") == "6600"


def test_the_arrow_keys_go_through_the_numbers(server: Server, tab: Any):
    tab.goto(f"{server.address}/learn/convolution")
    tab.wait_for_selector("body[data-ready]")
    tab.select_option("#picture", "seven")
    tab.select_option("#kernel", "top-edge")
    holds(tab, "document.querySelectorAll('#response button').length === 100")
    tab.locator("#response button").first.focus()
    for key in ("ArrowRight", "ArrowDown", "ArrowDown"):
        tab.keyboard.press(key)
    assert tab.inner_text("#words").startswith("Row 2, column 1:")


@pytest.mark.usefixtures("trained")  # it is the first job
def test_learning_rates_of_a_net_are_tried_from_the_page_and_each_has_its_curve(
    server: Server, tab: Any, photos: Path
) -> None:
    tab.goto(f"{server.address}/learn/rate")
    assert (tab.input_value("#data"), tab.input_value("#net")) == ("digits", "small-cnn")
    tab.fill("#data", str(photos))
    tab.select_option("#net", "mlp")
    tab.click("text=Try seven rates")
    tab.wait_for_selector("#verdicts table", timeout=240_000)
    assert tab.input_value("#data") == str(photos) and tab.input_value("#net") == "mlp"
    told = server.json(f"/jobs/{tab.get_attribute('#job', 'data-number')}/result")
    assert told["chance"] == pytest.approx(np.log(2)) and len(told["sweep"]) == 7
    rows = [row.split("\t") for row in tab.inner_text("#verdicts tbody").splitlines() if "\t" in row]
    assert [row[1:] for row in rows] == [[trial["verdict"], trial["why"]] for trial in told["sweep"]]
    assert [float(row[0]) for row in rows] == pytest.approx([trial["rate"] for trial in told["sweep"]], rel=1e-3)
    shown = tab.locator("#trials path.one").get_attribute("d")
    tab.locator("#verdicts button").last.click()
    assert tab.locator("#verdicts button[aria-pressed=true]").inner_text() == rows[-1][0]
    assert tab.locator("#trials path.one").get_attribute("d") != shown
    assert tab.locator("#trials path.other").count() == 6


@pytest.mark.usefixtures("trained")  # it is the first job
def test_an_unknown_net_and_a_job_of_another_kind_have_no_learning_rates(server: Server) -> None:
    status, _, body = server.ask("/learn/rate?job=1", Accept="text/html")
    assert status == 400 and b"tries no learning rates" in body
    status, _, body = server.post_form("/learn/rate", data="digits", net="lenett")
    assert status == 400 and b"choose one of: alexnet" in body


def test_looking_inside_shows_units_one_large_and_what_excites_it(server: Server, tab: Any, trained: str):
    tab.goto(f"{server.address}/runs/{trained}/look?photo=test-1&layer=stage4&unit=3")
    holds(tab, "document.querySelector('#unit-title').textContent === 'Unit 3 of stage4'")
    assert tab.locator("#stages button[aria-pressed=true]").inner_text() == "stage4"
    tab.focus("#sprite")
    tab.keyboard.press("ArrowRight")
    holds(tab, "document.querySelector('#unit-title').textContent === 'Unit 4 of stage4'")
    assert "unit=4" in tab.url
    tab.wait_for_selector("#patches img")
    patch = tab.locator("#patches button").first
    before = patch.locator("img").get_attribute("src")
    patch.click()
    assert patch.locator("img").get_attribute("src") != before
    assert tab.locator("#patches img").count() == 9


def test_the_values_of_a_unit_are_those_of_the_net(server: Server, trained: str, photos: Path, ready_cache: Path):
    from headstart.explain import subject_of
    from headstart.look.activations import look_at_activations

    run = load_run(_runs(server) / trained)
    subject = subject_of(run.classifier, "run")
    path = next(run.predictions())["path"]
    maps = look_at_activations(subject, subject.photo(photos / path), "stage5")
    told = server.json(f"/runs/{trained}/look/test-0/stage5/7")
    np.testing.assert_allclose(told["values"], maps.before[7], rtol=1e-5, atol=1e-5)
    assert told["value"] == pytest.approx(float(maps.before[7].max()), rel=1e-5)


def test_hostile_names_of_classes_files_and_runs_run_nothing(server: Server, tab: Any):
    events = ("onerror", "onload", "onclick", "onfocus", "onmouseover")
    names = [f"<img src=x {event}=alert({place})>" for place, event in enumerate(events)]
    names += [
        "<script>alert(9)</script>",
        "javascript:alert(10)",
        "'\"><svg onload=alert(11)>",
        "{{7*7}}",
        "</title><b>",
    ]
    rows = small_rows(tuple(names), count=40)
    for place, row in enumerate(rows):
        row["path"] = f"{names[place % len(names)]}.jpg"
    metrics, classifier = small_metrics(rows, tuple(names)), small_classifier(tuple(names))
    run = "a'><svg onload=alert(12)>"
    write_small_run(_runs(server) / run, predictions=rows, metrics=metrics, classifier=classifier)
    dialogs: list[str] = []
    tab.on("dialog", lambda dialog: (dialogs.append(dialog.message), dialog.dismiss()))
    for path in ("", f"runs/{quote(run)}", f"runs/{quote(run)}/try", f"learn/cases?run={quote(run)}"):
        tab.goto(f"{server.address}/{path}")
    tab.goto(f"{server.address}/runs/{quote(run)}")
    for place in range(len(names)):
        tab.locator(f"#matrix button[data-label='{place}'][data-predicted='{place}']").press("Enter")
        holds(tab, f"document.querySelector('#cell-title').textContent.startsWith({json.dumps(names[place])})")
    assert dialogs == [] and tab.locator("main svg, main b b, #cell img[src=x]").count() == 0


def test_stopping_a_training_from_the_page_ends_it_like_ctrl_c(server: Server, tab: Any, photos: Path):
    tab.goto(f"{server.address}/train")
    tab.fill("#data", str(photos))
    tab.fill("#name", "stopped")
    tab.click("summary")
    tab.select_option("#net", "lenet")
    tab.fill("#epochs", "20000")
    tab.click("text=Start training")
    tab.wait_for_selector("#progress")
    holds(tab, "Number(document.querySelector('#progress').value) > 0")
    tab.click("#stop")
    tab.wait_for_selector("#state.stopped")
    until(lambda: not (_runs(server) / "stopped").exists())
    assert "Interrupted" in tab.inner_text("#lines")
