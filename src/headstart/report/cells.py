"""The photos behind each cell of the confusion matrix, in pages that a link opens; no script is needed.

Every photo of a cell is listed. How many have a picture is limited for the page as a whole, the wrong answers first,
so that the report of 500 test photos stays below 5 MB and that of 10,000 stays usable.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.report.facts import Row

PICTURES = 600  # small pictures in a page
RIGHT = 24  # of them at most in a cell of right answers: those it was least sure of
LISTED = 20_000  # photos that are listed at all; the others are in predictions.csv
PAGE, NAMES = 48, 480  # photos on a page of pictures, and on one of names


@dataclass(frozen=True)
class Cell:
    """The test photos of one class that got one answer.

    Args:
        row, column: the class they show and the one that was said, by their places.
        label, predicted: the same by name.
        rows: all of them; wrong answers the surest first, right ones the least sure first.
        pictured: how many of them, from the first, have a picture.
        listed: how many of them, from the first, are listed.
    """

    row: int
    column: int
    label: str
    predicted: str
    rows: tuple[Row, ...]
    pictured: int
    listed: int

    @property
    def right(self) -> bool:
        """Whether the answer is the label."""
        return self.row == self.column

    @property
    def address(self) -> str:
        """The id of its first page."""
        return f"cell-{self.row}-{self.column}"


def cells_of(rows: Sequence[Row], classes: Sequence[str], pictures: int = PICTURES) -> list[Cell]:
    """Sort the test photos into the cells that hold any: row by row, by column in a row.

    Args:
        rows: of predictions.csv.
        classes: in the order of the model.
        pictures: how many photos have a picture, at most.
    """
    places = {name: place for place, name in enumerate(classes)}
    found: dict[tuple[int, int], list[Row]] = {}
    for row in rows:
        found.setdefault((places[row["label"]], places[row["predicted"]]), []).append(row)
    wrong = even_limit((len(part) for (one, other), part in found.items() if one != other), pictures)
    taken = sum(min(len(part), wrong) for (one, other), part in found.items() if one != other)
    right = even_limit(
        (min(len(part), RIGHT) for (one, other), part in found.items() if one == other), pictures - taken
    )
    most = even_limit(map(len, found.values()), LISTED)
    cells = []
    for (one, other), part in sorted(found.items()):
        sign = 1 if one == other else -1
        ordered = tuple(sorted(part, key=lambda row: (sign * row["probability"], row["path"])))
        listed = min(len(part), most)
        pictured = min(listed, min(right, RIGHT) if one == other else wrong)
        cells.append(Cell(one, other, classes[one], classes[other], ordered, pictured, listed))
    return cells


def even_limit(sizes: Iterable[int], total: int) -> int:
    """The largest limit a group so that all groups, each cut to it, hold at most `total`.

    >>> even_limit([3, 10, 20], 20), even_limit([3, 4], 20)
    (8, 20)
    """
    left, groups = total, sorted(sizes)
    for place, size in enumerate(groups):
        if size * (len(groups) - place) > left:
            return max(left, 0) // (len(groups) - place)
        left -= size
    return max(total, 0)


def pages_of(cell: Cell, pictures: Mapping[str, str | None]) -> list[dict[str, Any]]:
    """The pages of a cell: first those with pictures, then those with names.

    Args:
        cell: its photos.
        pictures: from a photo's path to the base64 of a JPEG, or None where it could not be made.

    Returns:
        For each page: `id`, `photos` (`path`, `name`, `probability`, `picture`), `names` (`path`, `probability`),
        `first` and `last` (places in the cell, from 1), `before` and `after` (ids, or None).
    """
    pictured, named = cell.rows[: cell.pictured], cell.rows[cell.pictured : cell.listed]
    parts: list[tuple[Sequence[Row], Sequence[Row]]] = [
        (pictured[start : start + PAGE], ()) for start in range(0, len(pictured), PAGE)
    ]
    more: list[tuple[Sequence[Row], Sequence[Row]]] = [
        ((), named[start : start + NAMES]) for start in range(0, len(named), NAMES)
    ]
    if len(parts) == len(more) == 1:  # both fit on one page
        parts, more = [(pictured, named)], []
    every = [*parts, *more]
    ids = [cell.address + (f"-{number}" if number else "") for number in range(len(every))]
    pages, done = [], 0
    for place, (photos, names) in enumerate(every):
        size = len(photos) + len(names)
        pages.append(
            {
                "id": ids[place],
                "photos": [_photo(row, pictures) for row in photos],
                "names": [{"path": row["path"], "probability": row["probability"]} for row in names],
                "first": done + 1,
                "last": done + size,
                "before": ids[place - 1] if place else None,
                "after": ids[place + 1] if place + 1 < len(every) else None,
            }
        )
        done += size
    return pages


def _photo(row: Row, pictures: Mapping[str, str | None]) -> dict[str, Any]:
    path = row["path"]
    return {
        "path": path,
        "name": path.rpartition("/")[2],
        "probability": row["probability"],
        "picture": pictures.get(path),
    }
