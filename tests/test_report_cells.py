"""The photos behind the cells, the maps of the mistakes, the layers: what the report shows besides figures."""

import io
import json
import re
from collections import defaultdict
from html.parser import HTMLParser
from typing import Any

import numpy as np
import pytest
from PIL import Image

from headstart import heads
from headstart.backbones import BACKBONES, open_backbone
from headstart.classifier import Classifier
from headstart.errors import ImageRejected
from headstart.explain import Subject, explain, subject_of
from headstart.heads import Head
from headstart.nets import build_net
from headstart.report import SMALL_SIDE, Maps, answer_maps, facts, make_thumbnail, render_report
from headstart.report.cells import LISTED, PICTURES, RIGHT, cells_of, even_limit
from headstart.report.curves import learning_chart, measured_rows
from headstart.report.layer_table import layer_table, table_of
from headstart.report.maps import MAPPED
from headstart.report.pictures import THUMBNAIL_SIDE, jpeg
from headstart.report.printing import asset
from make_run import CLASSES, CONFIG, PLAN, small_metrics, small_rows


class Cells(HTMLParser):
    """Every page of every cell: its id, the photos it shows or names, and the links of the page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.pictured: dict[str, list[str]] = defaultdict(list)
        self.named: dict[str, list[str]] = defaultdict(list)
        self.links: list[str] = []
        self.ids: list[str] = []
        self._cell, self._depth, self._names, self._item = "", 0, False, False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.ids += [given["id"] or ""] if "id" in given else []
        self.links += [given["href"] or ""] if tag == "a" else []
        if given.get("class") == "cell":
            self._cell, self._depth = given["id"] or "", 0
        if not self._cell:
            return
        self._depth += tag == "div"
        self._names = given.get("class") == "names" if tag in ("ol", "ul") else self._names
        self._item = tag == "li"
        if tag == "img" or given.get("class") == "gone":
            self.pictured[self._cell].append(given.get("title") or "")

    def handle_endtag(self, tag: str) -> None:
        self._depth -= tag == "div"
        if tag == "div" and not self._depth:
            self._cell = ""

    def handle_data(self, data: str) -> None:
        if self._cell and self._names and self._item and data.strip():
            self.named[self._cell].append(data.strip())
            self._item = False

    def photos(self, address: str) -> list[str]:
        """All photos of a cell, over its pages, in their order."""
        pages = [name for name in self.ids if re.fullmatch(rf"{address}(-\d+)?", name)]
        return [path for page in pages for path in (*self.pictured[page], *self.named[page])]


def render(rows: list[dict[str, Any]], classes: tuple[str, ...] = CLASSES, **given: Any) -> str:
    values: dict[str, Any] = {"thumbnail": lambda _: None, "small": None, **given}
    return render_report(small_metrics(rows, classes), PLAN, CONFIG, predictions=rows, **values)


def noise(side: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), np.uint8)


def photo_like(number: int) -> bytes | None:
    """As heavy as a usual photo: soft shapes with some grain."""
    draw = np.random.default_rng(number)
    soft = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8)).resize((320, 240), Image.Resampling.BICUBIC)
    grain = np.asarray(soft, np.float64) + draw.normal(0, 12, (240, 320, 3))
    return make_thumbnail(np.clip(grain, 0, 255).astype(np.uint8), SMALL_SIDE)


@pytest.mark.parametrize("pictured", [False, True])
@pytest.mark.parametrize(("classes", "count"), [(2, 40), (3, 24), (3, 700), (40, 400)])
def test_each_cell_lists_exactly_its_photos_once(classes: int, count: int, pictured: bool) -> None:
    names = tuple(f"class {number}" for number in range(classes))
    rows = small_rows(names, count=count)
    expected = defaultdict(set)
    for row in rows:
        expected[names.index(row["label"]), names.index(row["predicted"])].add(row["path"])
    cells = Cells(render(rows, names, small=(lambda _: b"x") if pictured else None))
    for (one, other), paths in expected.items():
        found = cells.photos(f"cell-{one}-{other}")
        assert len(found) == len(paths) and set(found) == paths
    told = {tuple(map(int, re.findall(r"\d+", name)[:2])) for name in cells.ids if name.startswith("cell-")}
    assert told == set(expected)


@pytest.mark.parametrize("classes", [3, 40])
def test_every_link_of_the_page_leads_to_a_place_in_it_and_every_cell_has_one(classes: int) -> None:
    names = tuple(f"class {number}" for number in range(classes))
    cells = Cells(render(small_rows(names, count=600), names, small=lambda _: b"x"))
    targets = {link.removeprefix("#") for link in cells.links}
    assert all(link.startswith("#") for link in cells.links) and targets <= set(cells.ids)
    assert {name for name in cells.ids if name.startswith("cell-")} <= targets
    assert len(cells.ids) == len(set(cells.ids))


def test_wrong_answers_come_the_surest_first_and_right_ones_the_least_sure_first() -> None:
    for cell in cells_of(small_rows(count=300), CLASSES):
        sure = [row["probability"] for row in cell.rows]
        assert sure == sorted(sure, reverse=not cell.right)


def test_pictures_go_to_the_wrong_answers_first_and_are_limited_for_the_whole_page() -> None:
    rows = small_rows(count=9_000)
    cells = cells_of(rows, CLASSES)
    wrong = [cell for cell in cells if not cell.right]
    assert sum(len(cell.rows) for cell in wrong) > PICTURES >= sum(cell.pictured for cell in cells)
    assert min(cell.pictured for cell in wrong) >= 90
    few = cells_of(small_rows(count=150), CLASSES)
    assert all(cell.pictured == len(cell.rows) for cell in few if not cell.right)
    assert [cell.pictured for cell in few if cell.right] == [RIGHT] * 3
    assert all(cell.pictured == 0 and cell.listed == len(cell.rows) for cell in cells_of(rows, CLASSES, 0))


def test_the_even_limit_is_the_largest_that_fits() -> None:
    draw = np.random.default_rng(0)
    for _ in range(200):
        sizes, total = draw.integers(0, 30, draw.integers(1, 6)).tolist(), int(draw.integers(0, 60))
        limit = even_limit(sizes, total)
        assert sum(min(size, limit) for size in sizes) <= total
        assert sum(min(size, limit + 1) for size in sizes) > total or limit >= max(sizes)


def test_beyond_what_can_be_listed_the_number_of_the_others_is_said() -> None:
    rows = small_rows(("a", "b"), count=LISTED + 1_000)
    html = render(rows, ("a", "b"))
    cells = cells_of(rows, ("a", "b"))
    left = [len(cell.rows) - cell.listed for cell in cells if cell.listed < len(cell.rows)]
    assert 1_000 <= sum(left) < 1_000 + len(cells)
    assert [int(told.replace(",", "")) for told in re.findall(r"And ([\d,]+) more: they are in pred", html)] == left


def test_the_report_of_500_test_photos_is_below_5_megabytes_whatever_they_show() -> None:
    rows = small_rows(count=500)
    heavy, small = make_thumbnail(noise(300)), make_thumbnail(noise(200), SMALL_SIDE)
    assert heavy is not None and small is not None
    maps = Maps({row["path"]: heavy for row in facts.worst_mistakes(rows)[:MAPPED]}, "w")
    html = render(rows, thumbnail=lambda _: heavy, small=lambda _: small, maps=lambda _: maps)
    assert 1_000_000 < len(html.encode()) < 5_000_000


def test_the_report_of_10_000_test_photos_is_below_5_megabytes_too_and_names_them_all() -> None:
    rows = small_rows(tuple(f"class {number}" for number in range(10)), count=10_000)
    kept = [photo_like(number) for number in range(6)]
    html = render(rows, tuple(f"class {number}" for number in range(10)), small=lambda path: kept[len(path) % 6])
    cells = Cells(html)
    assert len(html.encode()) < 5_000_000
    assert sum(len(cells.photos(name)) for name in cells.ids if re.fullmatch(r"cell-\d+-\d+", name)) == 10_000
    assert html.count("data:image/jpeg") <= PICTURES


def test_the_first_screen_says_the_weakest_class_the_first_thing_to_do_and_how_many_more_there_are() -> None:
    rows = small_rows()
    metrics = small_metrics(rows)
    metrics["diagnosis"] = [
        {"finding": f"finding {number}", "evidence": "", "remedy": f"do {number}", "expected_gain": None}
        for number in range(3)
    ]
    metrics["test"]["per_class"]["bees"]["recall"] = 0.25
    html = render_report(metrics, PLAN, CONFIG, predictions=rows, thumbnail=lambda _: None)
    first = html.split('id="verdict"')[1].split("</section>")[0]
    text = " ".join(re.sub(r"<[^>]+>", "", first).replace("&nbsp;", " ").split())
    assert "Weakest at bees: it finds 25.0 % of those 8 photos" in text
    assert "finding 0 do 0 And 2 more" in text and "finding 1" not in text
    for heading in ("How good", "How sure", "On what", "What to do next"):
        assert heading in text


def test_no_class_is_called_the_weakest_where_all_are_alike() -> None:
    metrics = small_metrics(small_rows())
    for number, row in enumerate(metrics["test"]["per_class"].values()):
        row["recall"] = 0.9 + 0.01 * number
    assert facts.verdict(metrics, facts.headline(metrics))["weakest"] is None


def made_up(kind: str = "linear") -> Classifier:
    draw = np.random.default_rng(3)
    tensors = {"weight": draw.normal(size=(3, 1280)).astype(np.float32), "bias": draw.normal(size=3).astype(np.float32)}
    return Classifier(open_backbone("efficientnet-lite0"), "pooled", Head(kind, tensors, {}), CLASSES)


def answers(count: int) -> list[dict[str, Any]]:
    return [{"path": str(number), "predicted": CLASSES[number % 3]} for number in range(count)]


@pytest.mark.usefixtures("ready_cache")
def test_the_maps_beside_the_mistakes_are_those_of_headstart_explain_for_the_class_that_was_said() -> None:
    classifier, rows = made_up("ridge"), answers(3)
    found = answer_maps(classifier, rows, lambda path: noise(260, int(path)))
    assert set(found.pictures) == {"0", "1", "2"} and "orange speaks for it" in found.words
    subject = subject_of(classifier, "")
    for row in rows:
        expected = explain(subject, noise(260, int(row["path"])), ("cam",), (row["predicted"],))[0]
        assert found.pictures[row["path"]] == jpeg(expected.overlay(THUMBNAIL_SIDE))
    subject.close()


@pytest.mark.usefixtures("ready_cache")
def test_a_photo_that_is_gone_has_no_map_and_only_the_first_mistakes_have_one() -> None:
    def fetch(path: str) -> np.ndarray:
        if path == "1":
            raise ImageRejected("missing", "no such file")
        return noise(230, int(path))

    found = answer_maps(made_up("ridge"), answers(MAPPED + 2), fetch)
    assert set(found.pictures) == {str(number) for number in range(MAPPED)} - {"1"}
    assert answer_maps(made_up("ridge"), [], fetch) == Maps()


@pytest.mark.usefixtures("ready_cache")
def test_maps_that_were_stored_need_no_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    def file(path: str) -> bytes:
        return jpeg(Image.fromarray(noise(260, int(path))))

    first = answer_maps(made_up("ridge"), answers(3), file)
    monkeypatch.setattr(Subject, "outputs", lambda *_: pytest.fail("computed again"))
    again = answer_maps(made_up("ridge"), answers(3), file)
    assert len(first.pictures) == 3
    assert again == first


@pytest.mark.usefixtures("ready_cache")
def test_a_head_without_maps_gets_a_sentence_instead() -> None:
    features = np.random.default_rng(0).normal(size=(30, 1280)).astype(np.float32)
    labels = np.arange(30) % 3
    head = heads.fit_head("knn", features, labels, 3, folds=labels).head
    knn = Classifier(open_backbone("efficientnet-lite0"), "pooled", head, CLASSES)
    found = answer_maps(knn, answers(2), lambda _: noise(230))
    assert not found.pictures and "'knn' head compares with known photos" in found.words
    html = render(small_rows(), maps=lambda _: found)
    assert "no place has a share" in html and "headstart explain shows other kinds" in html


@pytest.mark.parametrize("name", sorted(BACKBONES))
def test_the_stored_table_of_layers_is_that_of_headstart_summary(name: str) -> None:
    """To make the file anew: write what `table_of` gives for each backbone."""
    stored = json.loads(asset("layers.json"))[name]
    size = build_net(name).input_size
    made = table_of(lambda: build_net(name), size)
    assert stored == json.loads(json.dumps(made)) and stored["input"] == list(size)


@pytest.mark.usefixtures("ready_cache")
def test_the_table_of_layers_ends_at_the_cut_and_its_sums_are_those_of_its_rows() -> None:
    known = made_up("ridge")
    table = layer_table(known)
    assert table is not None and table["rows"][-1]["output"] == [1280] and table["head_parameters"] == 3 * 1280 + 3
    net = build_net("efficientnet-lite0", **dict(known.backbone.net_options))
    below = sum(value.numel() for name, value in net.named_parameters() if not name.startswith("classifier"))
    assert table["parameters"] == below
    html = render(small_rows(), layers=table)
    assert html.count("<tr", html.index('class="layers"'), html.index("</table>", html.index('class="layers"'))) == (
        len(table["rows"]) + 2
    )


def test_the_learning_curve_is_placed_by_the_logarithm_of_the_photos() -> None:
    points = [
        {"photos": photos, "accuracy": accuracy, "accuracy_ci95": [accuracy - 0.04, accuracy + 0.02]}
        for photos, accuracy in ((25, 0.84), (50, 0.88), (100, 0.9))
    ]
    chart = learning_chart({"points": points, "twice": {**points[-1], "photos": 200}})
    assert chart is not None
    across = [point["x"] for point in chart["points"]]
    assert np.allclose(np.diff(across), (across[-1] - across[0]) / 3, atol=0.11)
    heights = [(point["bottom"] - point["top"]) for point in chart["points"]]
    assert np.allclose(heights, heights[0], atol=0.11) and heights[0] > 0
    assert [point["ahead"] for point in chart["points"]] == [False, False, False, True]
    assert learning_chart(None) is None and learning_chart({"points": points[:1]}) is None


def test_measured_rows_share_one_scale_and_what_was_not_tried_has_no_bar() -> None:
    rows: list[dict[str, Any]] = [
        {"strategy": "head", "accuracy": 0.9, "accuracy_ci95": [0.85, 0.95], "note": ""},
        {"strategy": "full", "accuracy": None, "accuracy_ci95": None, "note": "not tried"},
    ]
    table = measured_rows(rows, ("strategy",))
    assert table is not None and table["low"] == 0.8
    assert (table["rows"][0]["from"], table["rows"][0]["at"], table["rows"][0]["to"]) == (25.0, 50.0, 75.0)
    assert table["rows"][1]["at"] is None and table["rows"][1]["note"] == "not tried"
    assert measured_rows(rows[1:], ("strategy",)) is None


def test_a_small_picture_is_small() -> None:
    data = make_thumbnail(noise(400), SMALL_SIDE)
    assert data is not None and max(Image.open(io.BytesIO(data)).size) <= SMALL_SIDE
