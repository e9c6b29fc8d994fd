"""The picture of the four cases: what is drawn is where its own axes say it is, and it can be read by everybody."""

import itertools
import math
import re
from xml.etree import ElementTree

import numpy as np
import pytest

from headstart.transfer.cases import find_case, judge_size
from headstart.transfer.four_cases import KNOWN, QUADRANTS, draw_four_cases
from headstart.transfer.similarity import DIFFERENT, SIMILAR, Similarity

OKABE_ITO = {"#000000", "#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7"}
LITE0 = 3_374_000
NAMES = [
    "ants_bees",
    "",
    "a <b> & \"c\" 'd'",
    "photos of everything that was ever seen in the garden/2024",
    "\x1b[31mred\u202e\x00",
    "caf\udce9",
    "写真" * 20,
]


def likeness(value: float, measure: str = "batch norm") -> Similarity:
    verdict = "similar" if value <= SIMILAR else "different" if value >= DIFFERENT else "in between"
    return Similarity(value, value / 1.3, value * 1.2, (), 64, measure, verdict)


def drawn(
    photos: int, value: float, name: str = "mine", *, classes: int = 10, large: bool | None = None
) -> ElementTree.Element:
    size = judge_size([photos // classes] * classes, LITE0, large=large)
    return ElementTree.fromstring(draw_four_cases(name, size, likeness(value)))


def all_of(picture: ElementTree.Element, tag: str) -> list[ElementTree.Element]:
    return picture.findall(f".//{{http://www.w3.org/2000/svg}}{tag}")


def words(picture: ElementTree.Element) -> list[tuple[str, float, float, float, str]]:
    """Text, place, type size and alignment of all that is written level."""
    return [
        (
            text.text or "",
            float(text.get("x", "nan")),
            float(text.get("y", "nan")),
            float(text.get("font-size", "nan")),
            text.get("text-anchor", "start"),
        )
        for text in all_of(picture, "text")
        if text.get("transform") is None
    ]


def own(picture: ElementTree.Element) -> tuple[float, float]:
    """The point of the data."""
    circle = next(circle for circle in all_of(picture, "circle") if circle.get("r") == "7")
    return float(circle.get("cx", "nan")), float(circle.get("cy", "nan"))


def axis(picture: ElementTree.Element, *, across: bool) -> tuple[float, float]:
    """Slope and start of the place over the decimal logarithm, read from the numbers at the ticks."""
    ticks = [
        (float(text.replace(",", "")), x if across else y - 4)
        for text, x, y, _, anchor in words(picture)
        if re.fullmatch(r"[\d.,]+", text) and anchor == ("middle" if across else "end")
    ]
    assert len(ticks) >= 3
    slope, start = np.polyfit([math.log10(value) for value, _ in ticks], [place for _, place in ticks], 1)
    return float(slope), float(start)


GRID = list(itertools.product((20, 300, 3_000, 4_000, 60_000, 2_000_000), (0.004, 0.03, 0.11, 0.17, 0.4, 5.0)))


@pytest.mark.parametrize(("photos", "value"), GRID)
def test_the_point_stands_where_the_numbers_at_the_axes_say(photos: int, value: float) -> None:
    picture = drawn(photos, value)
    x, y = own(picture)
    slope, start = axis(picture, across=True)
    assert x == pytest.approx(start + slope * math.log10(photos), abs=0.3)
    slope, start = axis(picture, across=False)
    assert y == pytest.approx(start + slope * math.log10(value), abs=0.3)
    bar = next(path.get("d", "") for path in all_of(picture, "path") if path.get("stroke-width") == "2")
    low, high = (float(number) for number in re.findall(r"M[\d.]+ ([\d.]+)V([\d.]+)", bar)[0])
    assert low == pytest.approx(min(start + slope * math.log10(value / 1.3), 476), abs=0.3)
    assert high == pytest.approx(max(start + slope * math.log10(value * 1.2), 66), abs=0.3)


@pytest.mark.parametrize(("photos", "value"), GRID)
def test_the_quadrant_that_stands_out_is_the_case_and_holds_the_point(photos: int, value: float) -> None:
    picture = drawn(photos, value)
    fills = {
        float(rect.get("fill-opacity", "nan")): rect for rect in all_of(picture, "rect") if rect.get("fill-opacity")
    }
    case = find_case(judge_size([photos // 10] * 10, LITE0), likeness(value))[0].name
    strong = fills[0.5]
    assert strong.get("fill") == QUADRANTS[case][0]
    x, y = own(picture)
    left, top, width, height = (float(strong.get(key, "nan")) for key in ("x", "y", "width", "height"))
    assert left <= x <= left + width
    assert top - 0.1 <= y <= top + height + 0.1


def test_known_sets_stand_at_their_distance_in_their_order() -> None:
    picture = drawn(3_000, 0.05)
    slope, start = axis(picture, across=False)
    places = sorted(float(dot.get("cy", "nan")) for dot in all_of(picture, "circle") if dot.get("r") == "4")
    expected = sorted(start + slope * math.log10(value) for value in KNOWN.values())
    np.testing.assert_allclose(places, expected, atol=0.3)
    order = sorted((y, text) for text, _, y, _, _ in words(picture) if text in KNOWN)
    assert [text for _, text in order] == sorted(KNOWN, key=lambda name: -KNOWN[name])


def test_both_thresholds_are_drawn_and_named() -> None:
    picture = drawn(3_000, 0.05)
    slope, start = axis(picture, across=False)
    lines = {
        float(found[1])
        for path in all_of(picture, "path")
        if path.get("stroke-dasharray") and (found := re.fullmatch(r"M[\d.]+ ([\d.]+)H[\d.]+", path.get("d", "")))
    }
    expected = [start + slope * math.log10(value) for value in (DIFFERENT, SIMILAR)]
    np.testing.assert_allclose(sorted(lines), expected, atol=0.3)
    said = {text for text, *_ in words(picture)}
    assert {f"different above {DIFFERENT:g}", f"similar below {SIMILAR:g}"} <= said
    assert "training photos; large from 3,374" in said
    assert "training photos; large from 26,600" in {text for text, *_ in words(drawn(3_000, 0.05, classes=133))}


@pytest.mark.parametrize(("photos", "value"), [(300, 0.02), (60_000, 0.9)])
def test_the_quadrants_meet_where_large_begins_and_halfway_between_the_thresholds(photos: int, value: float) -> None:
    picture = drawn(photos, value)
    across, up = axis(picture, across=True), axis(picture, across=False)
    x = across[1] + across[0] * math.log10(3_374)
    y = up[1] + up[0] * (math.log10(SIMILAR) + math.log10(DIFFERENT)) / 2
    colours = {colour for colour, *_ in QUADRANTS.values()}
    rects = [rect for rect in all_of(picture, "rect") if rect.get("fill") in colours]
    lefts = sorted(float(rect.get("x", "nan")) for rect in rects)
    tops = sorted(float(rect.get("y", "nan")) for rect in rects)
    assert lefts[2] == lefts[3] == pytest.approx(x, abs=0.3)
    assert tops[2] == tops[3] == pytest.approx(y, abs=0.3)


def box(text: str, x: float, y: float, size: float, anchor: str) -> tuple[float, float, float, float]:
    width = 0.52 * size * len(text)
    left = x - {"start": 0.0, "middle": width / 2, "end": width}[anchor]
    return left, y - 0.75 * size, left + width, y + 0.15 * size


@pytest.mark.parametrize(("photos", "value"), GRID)
def test_no_words_cover_others_or_leave_the_picture(photos: int, value: float) -> None:
    written = [(text, box(text, *rest)) for text, *rest in words(drawn(photos, value, "a name of usual size"))]
    for text, (left, top, right, bottom) in written:
        assert left >= 0, text
        assert top >= 0, text
        assert right <= 640, text
        assert bottom <= 540, text
    for (first, one), (second, other) in itertools.combinations(written, 2):
        apart = one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]
        assert apart, (first, second)
    assert all(float(size) >= 12 for _, _, _, size, _ in words(drawn(photos, value)))


@pytest.mark.parametrize("name", NAMES)
def test_any_name_gives_a_whole_document_that_draws_and_runs_nothing_else(name: str) -> None:
    text = draw_four_cases(name, judge_size([50, 60], LITE0), likeness(0.05))
    text.encode("utf-8")
    picture = ElementTree.fromstring(text)
    tags = {element.tag.split("}")[1] for element in picture.iter()}
    assert tags == {"svg", "title", "desc", "rect", "path", "circle", "text"}
    attributes = {key for element in picture.iter() for key in element.attrib}
    assert not {key for key in attributes if key.startswith("on") or "href" in key or key in ("style", "src")}
    assert picture[0].tag.endswith("title")
    for written, x, *_ in words(picture):
        assert written.isprintable()
        assert x + 0.45 * 13 * len(written) < 700


def test_a_name_that_fits_is_whole_and_a_longer_one_keeps_both_ends() -> None:
    assert "ants_bees" in [text for text, *_ in words(drawn(300, 0.05, "ants_bees"))]
    shown = [text for text, *_ in words(drawn(300, 0.05, "photos of everything in the garden")) if "…" in text]
    assert shown
    assert all(re.match(r"photos of.*…\S* *\S* *garden", text) for text in shown)


def test_who_does_not_see_it_is_told_the_same() -> None:
    told = all_of(drawn(300, 0.05, "mine"), "desc")[0].text or ""
    for part in ("mine has 300 photos", "large is from 3,374", "0.050 (0.038 to 0.060)", "small-similar", "MNIST"):
        assert part in told, part
    assert all_of(drawn(300, 0.05, "mine"), "title")[0].text == "mine: small and similar"


def test_what_is_not_by_the_rule_is_said() -> None:
    asked = drawn(300, 0.05, large=True)
    assert any(text.startswith("counted as large, as asked for; distance 0.050") for text, *_ in words(asked))
    size = judge_size([50, 60], LITE0)
    probed = ElementTree.fromstring(draw_four_cases("mine", size, likeness(0.05, "probes")))
    assert any(text.endswith("similar (by probes)") for text, *_ in words(probed))
    assert not any("probes" in text or "asked" in text for text, *_ in words(drawn(300, 0.05)))


def luminance(colour: tuple[float, ...]) -> float:
    """Of WCAG 2.1, from red, green and blue 0..1."""
    linear = [value / 12.92 if value <= 0.03928 else ((value + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_the_colours_can_be_told_apart_by_everybody_and_the_words_read_on_them() -> None:
    colours = {colour for colour, *_ in QUADRANTS.values()}
    assert len(colours) == 4
    assert colours <= OKABE_ITO
    picture = drawn(300, 0.05)
    for colour in colours:
        rgb = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        ground = luminance(tuple(0.5 * value + 0.5 for value in rgb))  # half covering white
        for ink in {text.get("fill", "") for text in all_of(picture, "text")} - {""}:
            dark = luminance(tuple(int(ink[place : place + 2], 16) / 255 for place in (1, 3, 5)))
            assert (ground + 0.05) / (dark + 0.05) > 4.5, (colour, ink)
