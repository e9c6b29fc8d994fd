"""The report: one safe file that says what is true and loads nothing."""

import base64
import hashlib
import io
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import web_browser
from headstart.report import Maps, facts, make_thumbnail, render_report, shade_matrix
from make_run import CLASSES, CONFIG, PLAN, small_metrics, small_rows

XSS = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'-alert(1)-'",
    "</style><script>alert(1)</script>",
    "</title><svg/onload=alert(1)>",
    "{{7*7}}",
    "{% raw %}",
    "${7*7}",
    "javascript:alert(1)",
    "<iframe srcdoc='<script>'>",
    "\u202egpj.exe",
    "\x1b[31mred\x07",
    "a\x00b",
    "&lt;script&gt;",
    "]]><script>",
    "<!--",
    "--><b>",
    "\ud800",
    "<a href='javascript:alert(1)'>x</a>",
    "<meta http-equiv=refresh content=0;url=//evil>",
    "<base href=//evil>",
]


class Page(HTMLParser):
    """What a browser would see: the tags with their attributes, and the text."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self._hidden = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._hidden = tag in ("style", "title")

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        if not self._hidden:
            self.text += data

    def words(self) -> str:
        return " ".join(self.text.split())


def render(metrics: dict[str, Any] | None = None, **changes: Any) -> str:
    rows = changes.pop("predictions", small_rows())
    values: dict[str, Any] = {"predictions": rows, "thumbnail": lambda _: None, "scan": None, **changes}
    plan, config = values.pop("plan", PLAN), values.pop("config", CONFIG)
    return render_report(metrics or small_metrics(rows), plan, config, **values)


def jpeg_with_secrets() -> bytes:
    exif = Image.Exif()
    exif[0x010F] = "SECRET-CAMERA"
    exif.get_ifd(0x8825)[2] = (52.0, 30.0, 0.0)
    out = io.BytesIO()
    picture = Image.effect_noise((640, 480), 60).convert("RGB")
    picture.save(out, "JPEG", exif=exif, comment=b"SECRET-COMMENT", icc_profile=b"SECRET-ICC" * 20)
    return out.getvalue()


def test_the_page_says_the_accuracy_its_interval_the_counts_and_the_guess_in_words() -> None:
    metrics = small_metrics(small_rows())
    metrics["test"].update(accuracy=22 / 24, accuracy_ci95=[0.742, 0.977])
    text = Page(render(metrics)).words()
    assert "It names 22 of 24 test photos correctly" in text
    assert "expect between 74.2 % and 97.7 % right" in text.replace("\xa0", " ")
    assert "33.3 %" in text.replace("\xa0", " ")  # the most frequent of three equal classes
    assert "not clearly better than that guess" not in text


def test_a_model_no_better_than_a_guess_is_said_to_be_no_better() -> None:
    metrics = small_metrics(small_rows())
    metrics["test"].update(accuracy=0.4, accuracy_ci95=[0.2, 0.6])
    assert "not clearly better than that guess" in Page(render(metrics)).words()


def test_findings_come_with_evidence_remedy_and_gain_in_their_order() -> None:
    metrics = small_metrics(small_rows())
    metrics["diagnosis"] = [
        {"finding": "Too few wasps.", "evidence": {"photos": 8}, "remedy": "Add 30.", "expected_gain": "+2 points"},
        {
            "finding": "Labels look wrong.",
            "evidence": ["a.jpg", "b.jpg"],
            "remedy": "Check them.",
            "expected_gain": None,
        },
    ]
    text = Page(render(metrics)).words()
    places = [
        text.index(part)
        for part in ("Too few wasps.", "Add 30.", "+2 points", "photos 8", "Labels look wrong.", "a.jpg, b.jpg")
    ]
    assert places == sorted(places)


def test_nothing_in_the_page_asks_for_anything_from_elsewhere_and_nothing_runs() -> None:
    html = render(thumbnail=lambda _: make_thumbnail(jpeg_with_secrets()))
    page = Page(html)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "embed", "form", "base", "input"}
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on") or name == "style"], tag
        for name in ("src", "href", "action", "srcset", "data", "xlink:href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/")), attributes
    assert not re.search(r"@import|url\(|https?://", html)


def test_the_content_policy_allows_the_one_style_that_is_there_and_pictures_inside_the_page() -> None:
    html = render()
    policy = next(a["content"] or "" for tag, a in Page(html).tags if a.get("http-equiv") == "Content-Security-Policy")
    style = html.split("<style>", 1)[1].split("</style>", 1)[0]
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert (
        rules["default-src"] == "'none'" and rules["img-src"] == "data:" and rules["style-src"] == f"'sha256-{digest}'"
    )


def test_hostile_names_of_classes_and_files_are_text_everywhere() -> None:
    classes = tuple(XSS[:3])
    rows = small_rows(classes)
    for number, row in enumerate(rows):
        row["path"] = XSS[number % len(XSS)] + f"/{number}"
    metrics = small_metrics(rows, classes)
    metrics["run"] = f"runs/{XSS[0]}"
    metrics["data"].update(name=XSS[1], skipped=[{"path": name, "reason": name} for name in XSS], warnings=XSS)
    metrics["diagnosis"] = [{"finding": name, "evidence": name, "remedy": name, "expected_gain": name} for name in XSS]
    scan = {
        "classes": dict.fromkeys(classes, 3),
        "duplicates": [XSS],
        "near_duplicates": [XSS],
        "warnings": XSS,
        "leaks": [{"test": name, "train": name, "kind": name} for name in XSS],
        "label_conflicts": [{"paths": XSS, "labels": XSS}],
    }
    drawn: dict[str, Any] = {
        "small": lambda _: b"x",
        "maps": lambda worst: Maps({row["path"]: b"x" for row in worst}, XSS[0]),
        "layers": {"net": XSS[0], "input": [XSS[1]], "rows": [], "parameters": 0, "macs": 0, "head": XSS[2]}
        | {"features": 0, "head_parameters": 0},
    }
    html = render(
        metrics,
        predictions=rows,
        scan=scan,
        plan={"why": XSS, "evidence": {XSS[0]: [{XSS[1]: XSS[2]}], XSS[3]: XSS[4]}},
        config={name: name for name in XSS},
        **drawn,
    )
    clean = render(small_metrics(small_rows()), **drawn)
    assert {tag for tag, _ in Page(html).tags} <= {tag for tag, _ in Page(clean).tags} | {
        "ul",
        "li",
        "details",
        "summary",
        "h3",
    }
    assert "<script>alert(1)</script>" in Page(html).text and "{{7*7}}" in Page(html).text
    assert all(letter.isprintable() or letter in "\n\xa0" for letter in html.encode("utf-8", "strict").decode())


def test_thumbnails_are_small_jpegs_of_the_photo_without_any_metadata() -> None:
    data = make_thumbnail(jpeg_with_secrets())
    assert data is not None
    image = Image.open(io.BytesIO(data))
    assert (
        image.format == "JPEG"
        and max(image.size) <= 208
        and image.size[0] / image.size[1] == pytest.approx(4 / 3, abs=0.02)
    )
    assert (
        not image.getexif()
        and "icc_profile" not in image.info
        and "comment" not in image.info
        and b"SECRET" not in data
    )
    assert make_thumbnail(b"no picture") is None
    grey = make_thumbnail(np.full((30, 40), 77, np.uint8))
    assert grey is not None and abs(int(np.asarray(Image.open(io.BytesIO(grey)))[5, 5, 0]) - 77) <= 2


def test_at_most_24_mistakes_are_shown_the_surest_first_and_right_answers_never() -> None:
    rows = small_rows(count=300)
    asked: list[str] = []
    html = render(predictions=rows, thumbnail=lambda path: asked.append(path))  # type: ignore[func-returns-value]
    wrong = sorted((row for row in rows if row["label"] != row["predicted"]), key=lambda row: -row["probability"])
    assert asked == [row["path"] for row in wrong[:24]]
    assert f"24 of {len(wrong)} wrong answers" in Page(html).words()


def test_a_usual_report_is_below_a_megabyte_with_all_its_thumbnails() -> None:
    noisy = make_thumbnail(jpeg_with_secrets())
    html = render(predictions=small_rows(count=600), thumbnail=lambda _: noisy)
    assert html.count("data:image/jpeg") == 24 and len(html.encode()) < 1_000_000


@pytest.mark.parametrize("count", [2, 10, 30, 31, 200])
def test_any_number_of_classes_has_its_matrix(count: int) -> None:
    classes = tuple(f"class {number:03d}" for number in range(count))
    rows = small_rows(classes, count=3 * count)
    html = render(small_metrics(rows, classes), predictions=rows)
    page = Page(html)
    assert ("data:image/png" in html) == (count > 30)
    assert all(name in page.text for name in classes)
    assert len(html) < 400_000


def test_the_matrix_picture_is_blue_where_right_orange_where_wrong_and_white_where_empty() -> None:
    pixels = shade_matrix(np.array([[9, 1, 0], [0, 10, 0], [5, 5, 0]]))
    assert pixels[0, 2].tolist() == [255, 255, 255] and pixels[2, 2].tolist() == [255, 255, 255]
    assert pixels[1, 1].tolist() == [0, 114, 178]
    red, _, blue = pixels[0, 0].astype(int)
    assert blue > red
    red, _, blue = pixels[0, 1].astype(int)
    assert red > blue
    assert pixels[2, 0].astype(int).sum() < pixels[0, 1].astype(int).sum()  # a larger share is darker


def test_cells_of_the_matrix_hold_the_counts_and_shades_grow_with_the_share() -> None:
    test = small_metrics(small_rows(count=90))["test"]
    rows = facts.matrix(test, CLASSES)
    for row, counts in zip(rows, test["confusion"], strict=True):
        assert [cell["count"] for cell in row["cells"]] == counts and row["total"] == sum(counts)
        assert all(
            (cell["shade"] == 0) == (cell["count"] == 0) and cell["shade"] <= facts.SHADES for cell in row["cells"]
        )
    assert facts.matrix({"confusion": [[4, 0], [1, 3]]}, ["a", "b"])[0]["cells"][0]["shade"] == facts.SHADES


def row(said: float, right: bool) -> dict[str, Any]:
    return {"path": "x", "label": "a", "predicted": "a" if right else "b", "probability": said}


def test_calibration_points_are_the_means_of_groups_of_equal_size_in_the_order_of_how_sure_they_are() -> None:
    sure = [(0.5 + number / 200, number % 3 != 0) for number in range(100)]
    result = facts.calibration([row(said, right) for said, right in reversed(sure)])
    assert [point["count"] for point in result["points"]] == [25, 25, 25, 25]
    for place, point in enumerate(result["points"]):
        group = sure[25 * place : 25 * place + 25]
        assert point["said"] == pytest.approx(np.mean([said for said, _ in group]))
        assert point["right"] == pytest.approx(np.mean([right for _, right in group]))
        assert point["low"] < point["right"] < point["high"]
    assert result["said"] == pytest.approx(np.mean([said for said, _ in sure])) and result["right"] == pytest.approx(
        0.66
    )
    assert facts.calibration([])["points"] == [] and len(facts.calibration([row(0.9, True)])["points"]) == 1
    assert len(facts.calibration([row(0.9, True)] * 5_000)["points"]) == 10


def test_coverage_counts_only_the_answers_that_are_sure_enough() -> None:
    rows = [row(0.99, True), row(0.95, False), row(0.85, True), row(0.5, False)]
    table = {entry["threshold"]: entry for entry in facts.coverage(rows)}
    assert (table[0.0]["answered"], table[0.0]["right"], table[0.0]["wrong"]) == (4, 0.5, 2)
    assert (table[0.9]["answered"], table[0.9]["share"], table[0.9]["right"]) == (2, 0.5, 0.5)
    assert (table[0.99]["answered"], table[0.99]["right"]) == (1, 1.0)
    assert facts.coverage([row(0.5, True)])[-1]["right"] is None


def test_what_is_said_about_its_probabilities_follows_from_the_interval() -> None:
    assert "at their word" in facts.calibration_words(0.93, 0.9, 0.97)
    assert "surer than it should be" in facts.calibration_words(0.99, 0.9, 0.97)
    assert "less sure than it could be" in facts.calibration_words(0.8, 0.9, 0.97)


def test_the_worst_class_comes_first_and_the_worst_pair_too() -> None:
    test = {
        "confusion": [[8, 2, 0], [0, 5, 5], [1, 0, 9]],
        "per_class": {
            name: {"recall": recall, "precision": None, "f1": None, "support": 10}
            for name, recall in (("a", 0.8), ("b", 0.5), ("c", None))
        },
    }
    assert [entry["name"] for entry in facts.class_rows(test)] == ["b", "a", "c"]
    assert facts.confused_pairs(test, ["a", "b", "c"])[0] == {"label": "b", "predicted": "c", "count": 5, "total": 10}


def test_problems_of_the_data_are_counted_explained_and_cut_short() -> None:
    metrics = small_metrics(small_rows())
    metrics["data"]["skipped"] = [{"path": f"bees/{number}.jpg", "reason": "truncated"} for number in range(90)]
    scan = {"duplicates": [["a.jpg", "b.jpg"]], "label_conflicts": [{"paths": ["x/1", "y/1"], "labels": ["x", "y"]}]}
    text = Page(render(metrics, scan=scan)).words()
    assert "90 files could not be used" in text and "and 50 more" in text and "bees/39.jpg: truncated" in text
    assert "1 group of identical photos" in text and "a.jpg = b.jpg" in text
    assert text.index("x/1 (x) = y/1 (y)") < text.index("90 files")  # the gravest first
    clean = small_metrics(small_rows())
    clean["data"]["skipped"] = []
    assert "No unreadable file" in Page(render(clean)).words()


def test_absolute_paths_do_not_reach_the_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    metrics = small_metrics(small_rows()) | {"run": str(tmp_path / "runs" / "mine")}
    html = render(
        metrics, config={"weights": str(tmp_path / "w.pth")}, plan={"why": [f"read {tmp_path}/x"], "evidence": {}}
    )
    assert str(tmp_path) not in html and "headstart predict mine new.jpg" in Page(html).text


def test_the_command_can_be_pasted_into_a_shell_whatever_the_run_is_called() -> None:
    metrics = small_metrics(small_rows()) | {"run": "runs/it's $(mine)"}
    line = next(line for line in Page(render(metrics)).text.splitlines() if line.startswith("headstart predict"))
    shell = line.replace("headstart predict", "printf '%s|'")
    assert subprocess.run(["sh", "-c", shell], capture_output=True, text=True).stdout == "runs/it's $(mine)|new.jpg|"


@pytest.mark.full
def test_a_browser_runs_nothing_and_reports_no_violation(tmp_path: Path) -> None:
    browser = web_browser.CHROMIUM
    if browser is None:
        pytest.skip(web_browser.missing())
    metrics = small_metrics(small_rows())
    metrics["data"]["warnings"] = XSS
    (tmp_path / "page.html").write_text(render(metrics, thumbnail=lambda _: make_thumbnail(jpeg_with_secrets())))
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--no-first-run",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--dump-dom",
            f"file://{tmp_path / 'page.html'}",
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert "names" in done.stdout
    assert not re.findall(r".*(?:Content Security Policy|CONSOLE).*", done.stderr)
