"""The report in a real browser: nothing runs, nothing is asked for, and people can use it by any means they have."""

import itertools
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart.report import SMALL_SIDE, Maps, make_thumbnail, render_report
from make_run import CONFIG, small_metrics, small_rows
from web_browser import chromium

INTERVAL = [0.8, 0.95]
PLAN = {
    "case": "small-similar",
    "strategy": "head",
    "cut": "pooled",
    "head": "ridge",
    "why": ["Few photos of things like those the backbone knows."],
    "evidence": {
        "candidates": [
            {"strategy": "head", "cut": "pooled", "accuracy": 0.9, "accuracy_ci95": INTERVAL, "note": "probe"},
            {"strategy": "full", "cut": "", "accuracy": None, "accuracy_ci95": None, "note": "not tried"},
        ],
        "probes": [{"cut": "stem", "length": 32, "accuracy": 0.85, "accuracy_ci95": INTERVAL}],
        "forecast": {
            "points": [{"photos": 20.0 * 2**n, "accuracy": 0.8 + n / 40, "accuracy_ci95": INTERVAL} for n in range(3)],
            "twice": {"photos": 160, "accuracy": 0.9, "accuracy_ci95": INTERVAL},
        },
        "remedies": [{"sentence": "More photos.", "command": "headstart train photos/ --budget 20m " + "x" * 90}],
        "heads": [{"head": "ridge", "strength": 0.1, "log_loss": 0.2}],
    },
}
PICTURE = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><desc>Small &amp; similar.</desc></svg>'
HISTORY = [{"epoch": n, "loss": 1 / n, "accuracy": 0.5, "val_loss": 1 / n, "val_accuracy": 0.5} for n in (1, 2, 3)]
LAYERS = {
    "net": "net",
    "input": [224, 224, 3],
    "rows": [{"name": "a" * 40, "type": "Conv2d", "output": [8, 8, 4], "parameters": 9, "macs": None, "field": [3, 5]}],
    "parameters": 9,
    "macs": 0,
    "head": "ridge",
    "features": 4,
    "head_parameters": 8,
}
# what can be read on what: the ratio of WCAG 2, of every text that is seen, against the first ground below it
CONTRAST = """() => {
  const parts = colour => {
    const context = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    context.fillStyle = colour; context.fillRect(0, 0, 1, 1);
    const [r, g, b, a] = context.getImageData(0, 0, 1, 1).data; return [r, g, b, a / 255];
  };
  const light = rgb => rgb.slice(0, 3).map(v => (v /= 255) <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = element => {
    const stack = [];
    for (let e = element; e; e = e.parentElement) {
      const c = getComputedStyle(e).backgroundColor;
      const last = c.includes('/') ? c.split('/')[1] : c.startsWith('rgba') ? c.split(',')[3] : '1';
      const alpha = parseFloat(last);
      const solid = parts(c.replace(/rgba\\((.*),[^,]*\\)/, 'rgb($1)').replace(/ \\/ [^)]*/, ''));
      if (alpha > 0) stack.push([solid, alpha]);
      if (alpha === 1) break;
    }
    return stack.reverse().reduce((under, [c, a]) => under.map((v, i) => v * (1 - a) + c[i] * a), [255, 255, 255]);
  };
  const found = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || e.closest('svg') || !e.checkVisibility()) continue;
    const a = light(parts(getComputedStyle(e).color)), b = light(ground(e));
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    if (ratio < 4.5) found.push(`${e.tagName}.${e.className} ${ratio.toFixed(2)} ${e.textContent.slice(0, 30)}`);
  }
  return found;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as opened:
        yield opened


def a_picture(side: int) -> bytes:
    made = make_thumbnail(np.random.default_rng(0).integers(0, 256, (80, 120, 3), np.uint8), side)
    if made is None:
        raise ValueError("noise is a picture")
    return made


def write_page(place: Path, classes: int = 3, count: int = 300) -> tuple[str, list[dict[str, Any]]]:
    """Everything that a report can hold; the address of its file, and the test photos."""
    names = tuple(f"class {number}" for number in range(classes))
    rows, small = small_rows(names, count=count), a_picture(SMALL_SIDE)
    metrics = small_metrics(rows, names)
    metrics["diagnosis"] = [{"finding": "f", "evidence": ["a" * 90], "remedy": "r", "expected_gain": None}] * 2
    page = render_report(
        metrics,
        PLAN,
        CONFIG,
        predictions=rows,
        thumbnail=lambda _: a_picture(208),
        small=lambda _: small,
        maps=lambda worst: Maps({row["path"]: small for row in worst[:6]}, "Where the evidence lies."),
        scan={"classes": dict.fromkeys(names, 9), "duplicates": [["a/" + "b" * 80, "c"]]},
        history=HISTORY,
        picture=PICTURE,
        layers=LAYERS,
    )
    (place / "report.html").write_text(page)
    return f"file://{place}/report.html", rows


def open_page(browser: Any, address: str, wide: int = 1280, scheme: str = "light") -> tuple[Any, list[str]]:
    """A page, and what it said or asked for that it should not."""
    page = browser.new_page(viewport={"width": wide, "height": 844}, color_scheme=scheme)
    told: list[str] = []
    page.on("console", lambda message: told.append(message.text))
    page.on("pageerror", lambda error: told.append(str(error)))
    page.on("request", lambda asked: told.append(asked.url) if asked.url.startswith(("http", "ws")) else None)
    page.goto(address)
    return page, told


def photos_shown(page: Any) -> list[list[str]]:
    """The photos of each cell that is visible."""
    cells = page.locator(".cell").filter(visible=True)
    return [
        cell.evaluate("e => [...e.querySelectorAll('img, .gone')].map(i => i.title)")
        + cell.evaluate("e => [...e.querySelectorAll('.names li')].map(i => i.firstChild.data.trim())")
        for cell in cells.all()
    ]


@pytest.mark.parametrize("classes", [3, 40])
def test_a_number_of_the_matrix_opens_exactly_its_photos_and_closes_again(
    browser: Any, tmp_path: Path, classes: int
) -> None:
    address, rows = write_page(tmp_path, classes)
    page, told = open_page(browser, address)
    expected = defaultdict(set)
    for row in rows:
        place = tuple(int(row[name].split()[1]) for name in ("label", "predicted"))
        expected[f"#cell-{place[0]}-{place[1]}"].add(row["path"])
    assert photos_shown(page) == []
    for link in list(expected)[:9]:
        opened: set[str] = set()
        page.locator(f'a[href="{link}"]').first.evaluate("e => e.closest('details')?.setAttribute('open', '')")
        page.locator(f'a[href="{link}"]').first.click(force=True)
        while True:
            (shown,) = photos_shown(page)
            assert not opened & set(shown)
            opened |= set(shown)
            more = page.locator(".cell").filter(visible=True).get_by_role("link", name="More", exact=True)
            if not more.count():
                break
            more.click()
        assert opened == expected[link]
        page.locator(".cell").filter(visible=True).get_by_role("link", name="Close").click()
        assert photos_shown(page) == []
    assert told == []
    page.close()


def test_the_keyboard_alone_opens_a_cell(browser: Any, tmp_path: Path) -> None:
    address, _ = write_page(tmp_path)
    page, _ = open_page(browser, address)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the verdict"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.closest('.confusion') !== null"):
            break
    ring = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    page.keyboard.press("Enter")
    assert ring == "solid" and len(photos_shown(page)) == 1
    page.close()


@pytest.mark.parametrize("wide", [320, 390, 768, 1280])
def test_no_screen_has_to_scroll_sideways(browser: Any, tmp_path: Path, wide: int) -> None:
    address, _ = write_page(tmp_path, classes=12)
    page, told = open_page(browser, address, wide)
    page.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    for place in ("", "#cell-0-0", "#cell-0-1"):
        page.evaluate(f"location.hash = '{place}'")
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert told == []
    page.close()


def test_the_verdict_is_on_the_first_screen_of_a_phone(browser: Any, tmp_path: Path) -> None:
    address, _ = write_page(tmp_path)
    page, _ = open_page(browser, address, 390)
    assert page.locator("#verdict").evaluate("e => e.getBoundingClientRect().bottom") <= 844
    page.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_text_stands_out_from_its_ground(browser: Any, tmp_path: Path, scheme: str) -> None:
    address, _ = write_page(tmp_path, classes=4)
    page, _ = open_page(browser, address + "#cell-0-1", scheme=scheme)
    shades = "".join(f'<td class="{kind}{step}"><a href="#">5</a></td>' for kind in "gb" for step in range(1, 9))
    page.locator(".confusion tbody").evaluate("(e, cells) => e.insertAdjacentHTML('beforeend', cells)", shades)
    assert page.evaluate(CONTRAST) == []
    page.evaluate("document.body.insertAdjacentHTML('beforeend', '<p id=faint>x</p>')")
    page.evaluate("document.getElementById('faint').style.color = '#888'")
    assert len(page.evaluate(CONTRAST)) == (1 if scheme == "light" else 0)  # the check itself can fail
    page.close()


def test_who_does_not_see_the_page_can_find_the_way_in_it(browser: Any, tmp_path: Path) -> None:
    address, _ = write_page(tmp_path)
    page, _ = open_page(browser, address + "#cell-0-1")
    levels = page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map(e => +e.tagName[1])")
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    assert page.evaluate("[...document.images].filter(e => !e.alt).length") == 0
    assert page.evaluate("[...document.querySelectorAll('svg')].filter(e => e.ariaHidden !== 'true' && "
                         "!e.ariaLabel).length") == 0  # fmt: skip
    assert page.evaluate("[...document.querySelectorAll('a')].filter(e => !e.textContent.trim()).length") == 0
    assert page.evaluate("[...document.querySelectorAll('section')].filter(e => !e.ariaLabel && "
                         "!document.getElementById(e.getAttribute('aria-labelledby'))).length") == 0  # fmt: skip
    assert page.evaluate("[...document.querySelectorAll('th')].filter(e => !e.scope).length") == 0
    assert page.evaluate("document.documentElement.lang") == "en"
    assert page.get_by_role("img", name="Small & similar.").count() == 1
    page.close()


def test_it_prints_to_a_pdf_without_what_only_a_screen_can_open(browser: Any, tmp_path: Path) -> None:
    address, _ = write_page(tmp_path)
    page, _ = open_page(browser, address + "#cell-0-1", scheme="dark")
    made = page.pdf()
    assert made.startswith(b"%PDF") and len(made) > 20_000
    page.set_viewport_size({"width": 680, "height": 960})  # A4 between its margins
    page.emulate_media(media="print")
    assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
    assert photos_shown(page) == [] and not page.locator("nav").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    page.close()


def test_a_page_of_10_000_test_photos_opens_and_answers_quickly(browser: Any, tmp_path: Path) -> None:
    address, rows = write_page(tmp_path, classes=10, count=10_000)
    page, told = open_page(browser, address)
    count = sum(row["label"] == row["predicted"] == "class 0" for row in rows)
    spent = page.evaluate(
        "() => { const begun = performance.now(); location.hash = '#cell-0-0';"
        " document.body.getBoundingClientRect(); return performance.now() - begun; }"
    )
    assert f"{count:,} photos" in page.locator("#cell-0-0 h3").inner_text()
    assert page.evaluate("performance.getEntriesByType('navigation')[0].domInteractive") < 5_000
    assert spent < 600 and told == []
    page.close()
