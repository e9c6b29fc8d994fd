"""Names, comments and files that try to run a script, in every page and the report, in a real browser: none runs."""

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.config import TrainConfig
from web_browser import chromium
from web_server import Server, serving

playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'headstart[test]'")

RUN = "window.ran=(window.ran||0)+1"
#: each would run `RUN` where a page forgot to escape in one of the places that a name gets to
STRINGS = (
    f"<script>{RUN}</script>",
    f"<SCRIPT>{RUN}</SCRIPT>",
    f"</script><script>{RUN}</script>",
    f"</title><script>{RUN}</script>",
    f"</style><script>{RUN}</script>",
    f"</textarea><script>{RUN}</script>",
    f"--><script>{RUN}</script>",
    f"]]><script>{RUN}</script>",
    f"<scr<script>ipt>{RUN}</scr</script>ipt>",
    f"<script src=data:text/javascript,{RUN}></script>",
    f"<img src=x onerror={RUN}>",
    f"<img src=x onerror='{RUN}'>",
    f'"><img src=x onerror="{RUN}">',
    f"'><img src=x onerror='{RUN}'>",
    f"`><img src=x onerror=`{RUN}`>",
    f"<img/src/onerror={RUN}>",
    f'" onmouseover="{RUN}" x="',
    f"' onfocus='{RUN}' autofocus x='",
    f'" autofocus onfocus="{RUN}',
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f"<svg><animate onbegin={RUN} attributeName=x dur=1s>",
    f"<svg><a xlink:href='javascript:{RUN}'><text>x</text></a></svg>",
    f"<math><mtext></mtext><script>{RUN}</script></math>",
    f"<body onload={RUN}>",
    f"<iframe srcdoc='<script>parent.{RUN}</script>'></iframe>",
    f"<iframe src=javascript:parent.{RUN}></iframe>",
    f"<object data=javascript:{RUN}></object>",
    f"<details open ontoggle={RUN}>",
    f"<video><source onerror={RUN}></video>",
    f"<input autofocus onfocus={RUN}>",
    f"<a href=javascript:{RUN} id=x>x</a>",
    f"<form action=javascript:{RUN}><button>x</button></form>",
    f"<meta http-equiv=refresh content='0;url=javascript:{RUN}'>",
    "<base href=//evil.example/>",
    "<link rel=stylesheet href=//evil.example/x.css>",
    f"{{{{constructor.constructor('{RUN}')()}}}}",
    f"${{{RUN}}}",
    f"\\u003cscript\\u003e{RUN}\\u003c/script\\u003e",
    f"&lt;script&gt;{RUN}&lt;/script&gt;",
)
WATCH = """
window.violations = [];
document.addEventListener("securitypolicyviolation", event => window.violations.push(
    event.violatedDirective + " " + event.blockedURI + " " + event.sample));
"""
SVG = f"<svg xmlns='http://www.w3.org/2000/svg' onload='{RUN}'><script>{RUN}</script></svg>".encode()
PAGES = ("/", "/runs/odd", "/runs/odd/report", "/runs/odd/try", "/runs/odd/look", "/learn/cases?run=odd")
PAGES += ("/compare?first=odd&second=odd", "/train", "/data")


def commented(draw: np.random.Generator, level: int, comment: str) -> bytes:
    """A JPEG whose EXIF says something in four places."""
    image = Image.fromarray(draw.integers(max(level - 40, 0), min(level + 40, 256), (64, 64, 3), np.uint8))
    exif = Image.Exif()
    for tag in (0x010E, 0x013B, 0x8298, 0x9C9B):  # description, artist, copyright, title
        exif[tag] = comment
    out = io.BytesIO()
    image.save(out, "JPEG", exif=exif, comment=comment.encode())
    return out.getvalue()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, converted_backbones: Path) -> Path:
    """A run that was trained on photos with these labels, file names and comments."""
    place, draw = tmp_path_factory.mktemp("hostile"), np.random.default_rng(0)
    rows = []
    for number, label in enumerate(STRINGS):
        for copy in range(6):
            name = f"{number:02d}{label.replace('/', '_')[:100]}{copy}.jpg"
            (place / name).write_bytes(commented(draw, 6 * number, label))
            rows.append((name, label))
    with (place / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(converted_backbones))
        headstart.train(place / "photos.csv", place / "runs" / "odd", config=TrainConfig(strategy="head"))
    return place


@pytest.fixture(scope="module")
def server(place: Path, converted_backbones: Path) -> Iterator[Server]:
    with serving(place / "runs", converted_backbones) as server:
        yield server


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def tab(browser: Any) -> Iterator[Any]:
    """A page that fails the test where a script of a name ran, the policy had to stop something, or evil was asked."""
    context = browser.new_context()
    context.add_init_script(WATCH)
    page, odd = context.new_page(), []
    page.on("dialog", lambda dialog: (odd.append(dialog.message), dialog.dismiss()))
    page.on("pageerror", lambda error: odd.append(str(error)))
    page.on("request", lambda request: odd.append(request.url) if "evil" in request.url else None)
    page.set_default_timeout(60_000)
    yield page
    context.close()
    assert odd == []


STATE = """[window.ran || 0, window.violations, document.querySelectorAll('base, iframe, object, img[src=x]').length]"""


def is_clean(tab: Any) -> None:
    for attempt in range(5):
        try:
            state = tab.evaluate(STATE)
            break
        except playwright.Error as error:  # the page of a job goes on to its result by itself
            if attempt == 4 or "context was destroyed" not in str(error):
                raise
            tab.wait_for_load_state("networkidle")
    assert state == [0, [], 0], tab.url


def test_forty_different_strings() -> None:
    assert len(set(STRINGS)) == 40


def test_the_strings_are_dangerous_where_nothing_is_escaped(tab: Any) -> None:
    """Put into a page as they are, most of them run at once: else this file would test nothing."""
    ran = 0
    for text in STRINGS:
        tab.set_content(f"<!doctype html><title>x</title><p>{text}</p>")
        tab.wait_for_timeout(30)
        ran += bool(tab.evaluate("window.ran || 0"))
        tab.goto("about:blank")
    assert ran >= 15


@pytest.mark.parametrize("path", PAGES)
def test_no_name_runs_in_a_page(server: Server, tab: Any, path: str) -> None:
    tab.goto(server.address + path)
    tab.wait_for_load_state("networkidle")
    is_clean(tab)
    if path in ("/runs/odd", "/runs/odd/report"):
        shown = tab.evaluate("document.documentElement.textContent")
        assert [text for text in STRINGS if text not in shown] == []  # each is told, letter by letter


def test_no_name_runs_in_the_report_as_a_file_nor_when_its_cells_are_opened(tab: Any, place: Path) -> None:
    tab.goto((place / "runs" / "odd" / "report.html").as_uri())
    tab.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    addresses = tab.eval_on_selector_all("a[href^='#']", "all => all.map(one => one.getAttribute('href'))")
    assert len(addresses) > 10
    for address in addresses[:60]:
        tab.evaluate("address => { location.hash = address; }", address)
    is_clean(tab)


def test_no_name_runs_where_cells_and_answers_are_drawn_by_the_page(server: Server, tab: Any, place: Path) -> None:
    tab.goto(server.address + "/runs/odd")
    cells = tab.locator("#matrix button:enabled").all()
    assert len(cells) >= 10
    for cell in cells[:12]:
        cell.click()
        tab.wait_for_selector("#cell-photos li")
    tab.wait_for_load_state("networkidle")
    is_clean(tab)
    tab.goto(server.address + "/runs/odd/try")
    photo = next(place.glob("12*.jpg"))
    tab.set_input_files("input[type=file]", str(photo))
    tab.wait_for_load_state("networkidle")
    tab.wait_for_timeout(300)
    is_clean(tab)


def test_no_name_runs_where_data_jobs_and_similar_photos_are_shown(server: Server, tab: Any, place: Path) -> None:
    """A folder with such a name, of copies, contradictions and files that are no photos, looked at and trained on."""
    folder = place / f"<img src=x onerror={RUN}>"
    folder.mkdir()
    draw = np.random.default_rng(1)
    rows = []
    for number, label in enumerate(STRINGS[:12]):
        name, content = label.replace("/", "_")[:100], commented(draw, 20 * number, label)
        for copy, data in enumerate((content, content, b"no photo", commented(draw, 20 * number, label))):
            (folder / f"{number}{name}{copy}.jpg").write_bytes(data)
            rows.append((f"{number}{name}{copy}.jpg", STRINGS[number + (copy == 1)]))
    with (folder / "photos.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("path", "label"), *rows])
    data = str(folder / "photos.csv")
    status, headers, _ = server.post_form("/data", data=data)
    assert status == 303
    scan = max(number for number in range(1, 30) if server.ask(f"/jobs/{number}")[0] == 200)
    tab.goto(server.address + f"/jobs/{scan}")
    assert server.wait(scan)["state"] == "done"
    for address in (headers["location"], f"/jobs/{scan}", "/data", "/train"):
        tab.goto(server.address + address)
        tab.wait_for_load_state("networkidle")
        for one in tab.locator("summary, main button[type=button]:enabled").all()[:8]:
            if one.is_visible() and "stop" not in (one.text_content() or "").lower():
                one.click()
                tab.wait_for_load_state("networkidle")
        is_clean(tab)
    tab.goto(server.address + headers["location"])
    tab.wait_for_load_state("networkidle")
    assert sum(text in tab.evaluate("document.documentElement.textContent") for text in STRINGS[:12]) >= 6
    status, headers, _ = server.post_form("/train", data=data, name="hostile", strategy="head")
    assert status == 303
    tab.goto(server.address + headers["location"])
    is_clean(tab)
    server.wait(int(headers["location"].rpartition("/")[2]))
    tab.reload()
    tab.wait_for_load_state("networkidle")
    is_clean(tab)
    assert server.post_form("/runs/odd/data", data=str(place / "photos.csv"))[0] == 303
    tab.goto(server.address + "/runs/odd/try")
    tab.set_input_files("input[type=file]", str(next(place.glob("12*.jpg"))))
    tab.wait_for_selector("img[src*='/training/']")  # the photos that are most like it, with their names
    tab.wait_for_load_state("networkidle")
    is_clean(tab)


@pytest.mark.parametrize("content", [SVG, b"<html><script>window.ran=1</script>", b"<?xml version='1.0'?>" + SVG])
def test_a_page_that_is_sent_as_a_photo_is_refused_and_never_sent_back(
    server: Server, tab: Any, content: bytes
) -> None:
    for path in ("predict", "explain", "nearest", "look/photos"):
        status, headers, body = server.ask(f"/runs/odd/{path}", "POST", content)
        assert status == 422 and headers["content-type"] == "application/json", path
        assert b"<s" not in body and json.loads(body)["error"]["message"]
    tab.goto(server.address + "/runs/odd/try")
    tab.set_input_files("input[type=file]", {"name": "x.svg", "mimeType": "image/svg+xml", "buffer": content})
    tab.wait_for_load_state("networkidle")
    is_clean(tab)


def test_no_comment_of_a_photo_reaches_a_page(server: Server, place: Path) -> None:
    """Thumbnails are made from pixels; nothing of the file is sent."""
    report = (place / "runs" / "odd" / "report.html").read_text()
    thumbnails = [base64.b64decode(found) for found in re.findall(r"data:image/jpeg;base64,([A-Za-z0-9+/=]+)", report)]
    assert len(thumbnails) > 20
    for text in STRINGS:
        assert not any(text.encode() in content for content in thumbnails)
    assert server.post_form("/runs/odd/data", data=str(place / "photos.csv"))[0] == 303
    for number in range(0, 120, 10):
        status, headers, content = server.ask(f"/runs/odd/training/{number}")
        assert status == 200 and headers["content-type"] == "image/jpeg"
        assert b"window" not in content and b"Exif" not in content
