"""The teaching picture of the four cases, as SVG: photos against distance, and where the user's own data stand."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape
from unicodedata import east_asian_width

from headstart.files import shown
from headstart.transfer.cases import PARAMETERS_A_PHOTO, PHOTOS_A_CLASS, Size, find_case
from headstart.transfer.similarity import BATCH_NORM, DIFFERENT, SIMILAR, Similarity

# Distance of 256 photos of sets that many people know, by EfficientNet-Lite0, nats: `benchmarks/similarity.py`.
KNOWN: dict[str, float] = {
    "ants and bees": 0.03,
    "cats and dogs": 0.04,
    "CIFAR-10": 0.25,
    "Fashion-MNIST": 0.29,
    "hand signs": 0.30,
    "MNIST": 0.57,
    "Omniglot": 0.58,
    "solar cells": 0.76,
    "blood cells": 1.21,
}

WIDTH, HEIGHT = 640, 540  # of the picture, units of about a pixel
LEFT, RIGHT, TOP, BOTTOM = 62.0, 512.0, 66.0, 476.0  # of the plot
WORDS = 66.0  # units at the top and the bottom of the plot that are kept for words
DECADES = 1.7  # from the middle of the photos' axis to its ends, at least
MARGIN = 0.12  # decades beyond the outermost set
TITLE, TEXT, SMALL = 16, 13, 12  # type sizes
INK, SOFT, LINE, PAPER = "#16191d", "#3f464f", "#8a939d", "#ffffff"
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Noto Sans', 'Liberation Sans', Arial, sans-serif"
FAINT, STRONG = 0.18, 0.5  # opacity of a quadrant, and of the one the data stand in
NAME = 24  # widths of a narrow letter that a name may take

#: of Okabe & Ito (2008), told apart with any colour vision; and what is done, in lines that fit
QUADRANTS: dict[str, tuple[str, str, str]] = {
    "small-different": ("#E69F00", "early: cut near the beginning,", "train a new layer there"),
    "large-different": ("#CC79A7", "scratch: train from random", "weights, or as below if better"),
    "small-similar": ("#56B4E9", "head: freeze everything,", "train a new last layer"),
    "large-similar": ("#009E73", "full: new last layer, retrain all", "from the pretrained weights"),
}


@dataclass(frozen=True)
class Box:
    """A rectangle that other text keeps clear of; all in units of the picture."""

    left: float
    top: float
    right: float
    bottom: float

    def common(self, other: "Box") -> float:
        """The area that two rectangles share."""
        across = min(self.right, other.right) - max(self.left, other.left)
        up = min(self.bottom, other.bottom) - max(self.top, other.top)
        return max(across, 0.0) * max(up, 0.0)


@dataclass(frozen=True)
class Scale:
    """A logarithmic axis: `low` of the values at the place `start`, `high` at `end`; beyond, at the edge."""

    low: float
    high: float
    start: float
    end: float

    def at(self, value: float | int) -> float:
        """The place of a value."""
        share = math.log(max(value, 1e-12) / self.low) / math.log(self.high / self.low)
        return round(self.start + (self.end - self.start) * min(max(share, 0.0), 1.0), 1)

    def ticks(self, steps: Sequence[int]) -> list[float]:
        """The values `steps` times a power of ten within the axis."""
        powers = range(math.floor(math.log10(self.low)), math.ceil(math.log10(self.high)) + 1)
        values = [step * 10.0**power for power in powers for step in steps]
        return [value for value in values if self.low <= value <= self.high]


def draw_four_cases(name: str, size: Size, similarity: Similarity) -> str:
    """Draw the four cases and where a data set stands among them.

    Across: training photos; the middle is where a data set with as many classes counts as large for this net. Up: the
    distance of the photos to those the backbone was trained on, with both thresholds; the middle between them is where
    the nearer side changes. Beside the plot: the distances of sets that many people know.

    Args:
        name: of the data set, any text.
        size: from `headstart.transfer.cases.judge_size`.
        similarity: from `headstart.transfer.similarity`. Where it is not by batch-norm statistics, the picture says so.

    Returns:
        An SVG document on white paper, 640 x 540, without scripts and styles; it also has a title and a description for
        those who do not see it. On a page with rules for `svg text` embed it as an image.
    """
    across, up = _scales(size, similarity)
    case = find_case(size, similarity)[0].name
    name = _shortened(shown(name))
    point = across.at(size.photos), up.at(similarity.value)
    parts = [
        *_quadrants(case),
        *_band(up, at_left=_words_at_left(point)),
        *_axes(across, up, size),
        *_known_sets(up),
        *_own_point(name, size, similarity, point, up),
    ]
    told = _description(name, size, similarity, case)
    heading = f"{name}: {case.replace('-', ' and ')}"
    head = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="four-cases" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        f'width="{WIDTH}" height="{HEIGHT}" font-family="{FONT}" font-size="{TEXT}" fill="{INK}">',
        f"<title>{escape(heading)}</title>",
        f"<desc>{escape(told)}</desc>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="{PAPER}"/>',
        _text(LEFT, 26.0, heading, size=TITLE, bold=True),
        _text(LEFT, 46.0, _subtitle(size, similarity), size=SMALL, fill=SOFT),
    ]
    return "\n".join([*head, *parts, "</svg>"]) + "\n"


def _scales(size: Size, similarity: Similarity) -> tuple[Scale, Scale]:
    """Both axes, with the borders of the cases in the middle and everything that is drawn inside."""
    reach = 10 ** max(DECADES, abs(math.log10(max(size.photos, 1) / size.enough)) + MARGIN)
    middle = math.sqrt(SIMILAR * DIFFERENT)
    drawn = [*KNOWN.values(), similarity.value, SIMILAR / 3, DIFFERENT * 3]
    decades = max(abs(math.log10(max(value, 1e-3) / middle)) for value in drawn) + MARGIN
    away = 10 ** (decades / (1 - 2 * WORDS / (BOTTOM - TOP)))
    return (
        Scale(size.enough / reach, size.enough * reach, LEFT, RIGHT),
        Scale(middle / away, middle * away, BOTTOM, TOP),
    )


def _quadrants(case: str) -> Iterable[str]:
    half, centre = (RIGHT - LEFT) / 2, (BOTTOM - TOP) / 2
    for name, (colour, *lines) in QUADRANTS.items():
        left = LEFT + (half if name.startswith("large") else 0.0)
        high = name.endswith("different")
        top = TOP if high else TOP + centre
        own = name == case
        yield (
            f'<rect x="{left}" y="{top}" width="{half}" height="{centre}" fill="{colour}" '
            f'fill-opacity="{STRONG if own else FAINT}"/>'
        )
        line = top + 20 if high else top + centre - 44
        few = "few" if name.startswith("small") else "many"
        yield _text(left + 10, line, f"{few} photos, {'different' if high else 'similar'}", bold=True)
        for number, words in enumerate(lines, start=1):
            yield _text(left + 10, line + 17 * number, words, size=SMALL)


def _band(up: Scale, *, at_left: bool) -> Iterable[str]:
    """The stripe between both thresholds, and its words."""
    top, bottom = up.at(DIFFERENT), up.at(SIMILAR)
    yield (
        f'<rect x="{LEFT}" y="{top}" width="{RIGHT - LEFT}" height="{round(bottom - top, 1)}" fill="{PAPER}" '
        'fill-opacity="0.55"/>'
    )
    for place in (top, bottom):
        yield f'<path d="M{LEFT} {place}H{RIGHT}" stroke="{SOFT}" stroke-dasharray="5 4" fill="none"/>'
    x, anchor = (LEFT + 6, "start") if at_left else (RIGHT - 6, "end")
    for y, words in (
        (top - 5, f"different above {DIFFERENT:g}"),
        (top + 15, "in between: both are tried"),
        (bottom + 14, f"similar below {SIMILAR:g}"),
    ):
        yield _text(x, y, words, size=SMALL, fill=SOFT, anchor=anchor)


def _words_at_left(point: tuple[float, float]) -> bool:
    """Whether the words of the thresholds stand at the left: where the data do not."""
    return point[0] > (LEFT + RIGHT) / 2


def _axes(across: Scale, up: Scale, size: Size) -> Iterable[str]:
    middle = across.at(size.enough)
    yield f'<path d="M{middle} {TOP}V{BOTTOM}" stroke="{SOFT}" stroke-dasharray="5 4" fill="none"/>'
    yield f'<path d="M{LEFT} {TOP}V{BOTTOM}H{RIGHT}" stroke="{LINE}" fill="none"/>'
    for value in across.ticks((1,)):
        place = across.at(value)
        yield f'<path d="M{place} {BOTTOM}v5" stroke="{LINE}" fill="none"/>'
        yield _text(place, BOTTOM + 18, f"{value:,.0f}" if value >= 1 else f"{value:g}", size=SMALL, anchor="middle")
    for value in up.ticks((1, 3)):
        place = up.at(value)
        yield f'<path d="M{LEFT} {place}h-5" stroke="{LINE}" fill="none"/>'
        yield _text(LEFT - 8, place + 4, f"{value:g}", size=SMALL, anchor="end")
    yield _text(middle, BOTTOM + 36, f"training photos; large from {size.enough:,}", anchor="middle")
    yield _text(
        middle,
        BOTTOM + 53,
        f"({PHOTOS_A_CLASS} a class and one for every {PARAMETERS_A_PHOTO:,} parameters)",
        size=SMALL,
        fill=SOFT,
        anchor="middle",
    )
    centre = (TOP + BOTTOM) / 2
    yield (
        f'<text x="16" y="{centre}" text-anchor="middle" transform="rotate(-90 16 {centre})">'
        "distance to the photos of the training, nats</text>"
    )


def _known_sets(up: Scale) -> Iterable[str]:
    """Known sets on the right edge, their names pushed apart where they would cover each other."""
    yield _text(RIGHT + 15, TOP + 10, "known sets", size=SMALL, bold=True)
    places = sorted((up.at(value), name) for name, value in KNOWN.items())
    for (place, name), line in zip(places, _spread([place for place, _ in places], 15.0), strict=True):
        yield f'<path d="M{RIGHT + 4} {place}L{RIGHT + 12} {line}" stroke="{LINE}" fill="none"/>'
        yield f'<circle cx="{RIGHT}" cy="{place}" r="4" fill="{LINE}" stroke="{PAPER}"/>'
        yield _text(RIGHT + 15, line + 4, name, size=SMALL, fill=SOFT)


def _spread(places: Sequence[float], apart: float) -> list[float]:
    """Places in ascending order, moved as little as needed to lie `apart` units from each other and in the plot.

    >>> _spread([100.0, 102.0, 200.0], 10.0)
    [96.0, 106.0, 200.0]
    """
    groups: list[list[float]] = []  # of wanted first places, each less the room of those before it in its group
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _first(groups[-2]) + apart * len(groups[-2]) > _first(groups[-1]):
            last = groups.pop()
            groups[-1] += [value - apart * len(groups[-1]) for value in last]
    spread = [_first(group) + apart * number for group in groups for number in range(len(group))]
    beyond = max(0.0, max(spread, default=0.0) - BOTTOM)
    return [round(max(place - beyond, TOP), 1) for place in spread]


def _first(group: Sequence[float]) -> float:
    return sum(group) / len(group)


def _own_point(name: str, size: Size, similarity: Similarity, point: tuple[float, float], up: Scale) -> Iterable[str]:
    x, y = point
    low, high = up.at(similarity.low), up.at(similarity.high)
    ends = f"M{x - 5} {low}h10M{x - 5} {high}h10"
    yield f'<path d="M{x} {low}V{high}{ends}" stroke="{INK}" stroke-width="2" fill="none"/>'
    yield f'<circle cx="{x}" cy="{y}" r="7" fill="{INK}" stroke="{PAPER}" stroke-width="2"/>'
    lines = (name, f"{size.photos:,} photos, {similarity.value:.3f}")
    left, top = _label_place(point, max(1.1 * _width(name, TEXT), _width(lines[1], SMALL)), up)
    yield _text(left, top + 13, lines[0], bold=True, halo=True)
    yield _text(left, top + 29, lines[1], size=SMALL, halo=True)


def _label_place(point: tuple[float, float], width: float, up: Scale) -> tuple[float, float]:
    """Upper left corner of the two lines beside the point, where they cover least of the point and the other words."""
    x, y = point
    taken = [*_words(up, at_left=_words_at_left(point)), Box(x - 10, y - 10, x + 10, y + 10)]
    corners = [(x + dx, y + dy) for dy in (-17, 12, -45) for dx in (13, -13 - width)]
    boxes = [
        Box(left, top, left + width, top + 33)
        for left, top in (
            (min(max(left, LEFT + 4), RIGHT - 8 - width), min(max(top, TOP), BOTTOM - 34)) for left, top in corners
        )
    ]
    best = min(boxes, key=lambda box: sum(box.common(other) for other in taken))
    return round(best.left, 1), round(best.top, 1)


def _words(up: Scale, *, at_left: bool) -> Iterable[Box]:
    """Where the words of the quadrants and thresholds stand."""
    half = (RIGHT - LEFT) / 2
    for left in (LEFT, LEFT + half):
        yield Box(left, TOP, left + half, TOP + WORDS)
        yield Box(left, BOTTOM - WORDS, left + half, BOTTOM)
    left = LEFT if at_left else RIGHT - 165
    yield Box(left, up.at(DIFFERENT) - 18, left + 165, up.at(DIFFERENT) + 20)
    yield Box(left, up.at(SIMILAR), left + 165, up.at(SIMILAR) + 20)


def _subtitle(size: Size, similarity: Similarity) -> str:
    by_rule = size.photos >= size.enough
    asked = "" if size.large == by_rule else f"counted as {'large' if size.large else 'small'}, as asked for; "
    number = f"{similarity.value:.3f} ({similarity.low:.3f} to {similarity.high:.3f})"
    how = "" if similarity.measure == BATCH_NORM else " (by probes)"
    return f"{asked}distance {number}: {similarity.verdict}{how}"


def _description(name: str, size: Size, similarity: Similarity, case: str) -> str:
    """What the picture shows, in sentences."""
    strategy = " ".join(QUADRANTS[case][1:])
    others = ", ".join(f"{other} {value:g}" for other, value in KNOWN.items())
    return (
        "Four cases of transfer learning, by photos (across) and distance to the photos the backbone was trained on "
        f"(up). {name} has {size.photos:,} photos; large is from {size.enough:,}. "
        f"{_subtitle(size, similarity).capitalize()}. "
        f"Similar is below {SIMILAR:g}, different above {DIFFERENT:g}. Its case is {case}: {strategy}. "
        f"Distances of known sets: {others}."
    )


def _text(
    x: float,
    y: float,
    words: str,
    *,
    size: int = TEXT,
    fill: str = INK,
    anchor: str = "start",
    bold: bool = False,
    halo: bool = False,
) -> str:
    weight = ' font-weight="600"' if bold else ""
    ring = f' stroke="{PAPER}" stroke-width="3.5" stroke-linejoin="round" paint-order="stroke"' if halo else ""
    aligned = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:g}" y="{y:g}" font-size="{size}" fill="{fill}"{aligned}{weight}{ring}>{escape(words)}</text>'


def _letter(letter: str) -> float:
    return 1.7 if east_asian_width(letter) in "WF" else 1.0


def _width(words: str, size: int) -> float:
    """About how wide some words are."""
    return 0.58 * size * sum(map(_letter, words))


def _shortened(name: str) -> str:
    """A name of at most `NAME` narrow letters' width; a longer one loses its middle."""
    if sum(map(_letter, name)) <= NAME:
        return name
    start, end = "", ""
    for first, last in zip(name, reversed(name), strict=True):
        if sum(map(_letter, start + first + end + last)) > NAME - 1:
            break
        start, end = start + first, last + end
    return f"{start}…{end}"
