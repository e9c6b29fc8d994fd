"""The CSV files of a run: any name comes back exactly, nothing runs in a spreadsheet, every row is one line."""

import csv
import io
import random
import sys

import pytest

from headstart.errors import RunError
from headstart.runs import cells
from headstart.runs.cells import cell_text, cell_value, number_text, read_predictions_csv, write_predictions_csv
from headstart.runs.documents import history_text, json_bytes, portable, predictions_text

NAMES = [
    "",
    " ",
    "plain",
    "=1+1",
    "+1",
    "-1",
    "@x",
    "\t=1",
    "\r=1",
    "\n",
    "'",
    "''",
    "'=1",
    "'plain",
    "\\",
    "\\n",
    "\\x41",
    "\\\\x41",
    "a\nb",
    'a"b',
    "a,b",
    "a;b",
    "\x00",
    "\x1b[2J",
    "\x7f",
    "\x85",
    "\xa0",
    "\u202e",
    "\u2028",
    "\udcff",
    "\ud800",
    "\U000e0041",
    "é",
    "中",
    "🐜",
    "＝1",
    "＋1",
    "－1",
    "＠x",
    "CON",
    "x" * 5000,
    "\ufeffbom",
]


def random_name(draw: random.Random) -> str:
    alphabet = [*"=+-@'\\\"`,;ntrxuU0123456789abcdef \t\r\n", "\x00", "\x1b", "\u202e", "\udc80", "é", "\U0001f41c"]
    return "".join(draw.choices(alphabet, k=draw.randrange(12)))


@pytest.mark.parametrize("count", [3_000])
def test_any_text_comes_back_from_its_cell_through_a_csv_file(count: int) -> None:
    draw = random.Random(5)
    names = NAMES + [random_name(draw) for _ in range(count)]
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n").writerows([[cell_text(name)] for name in names])
    text = out.getvalue().encode("utf-8").decode("utf-8")
    assert text.count("\n") == len(names)
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    read = [row[0] if row else "" for row in csv.reader(io.StringIO(text, newline=""))]
    assert [cell_value(cell) for cell in read] == names
    assert not [cell for cell in read if cell.startswith(tuple("=+-@\t\r＝＋－＠"))]


def test_every_character_alone_comes_back() -> None:
    for code in [*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), 0x1F600, 0xE0001, sys.maxunicode]:
        assert cell_value(cell_text(chr(code))) == chr(code), hex(code)


def rows_of(classes: list[str]) -> list[dict[str, object]]:
    share = 1 / len(classes)
    return [
        {
            "path": name,
            "label": classes[0],
            "predicted": classes[-1],
            "probability": share,
            "probabilities": dict.fromkeys(classes, share),
        }
        for name in NAMES
    ]


def test_predictions_come_back_whatever_classes_and_photos_are_called() -> None:
    classes = ["path", "=label", "a,b\n", "\u202e", "'"]
    rows = rows_of(classes)
    text = predictions_text(rows, classes)
    again = list(read_predictions_csv(text.encode(), "predictions.csv"))
    assert [row["path"] for row in again] == NAMES
    assert [list(row["probabilities"]) for row in again] == [classes] * len(NAMES)
    assert again[0]["label"] == "path" and again[0]["predicted"] == "'"
    assert text.splitlines()[0] == "path,label,predicted,probability,path,'=label,\"a,b\\n\",\\u202e,''"


def test_numbers_have_no_sign_and_seven_digits() -> None:
    assert number_text(1 / 3) == "0.3333333" and number_text(-1e-20) == "0" and number_text(1.0) == "1"
    assert float(number_text(1.23456789e-12)) == pytest.approx(1.23456789e-12, rel=1e-6)


def test_a_table_of_too_many_numbers_keeps_its_rows_and_leaves_the_classes_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cells, "CELLS_LIMIT", 50)
    out = io.StringIO(newline="")
    assert write_predictions_csv(rows_of(["a", "b"]), ["a", "b"], out) == len(NAMES)
    again = list(read_predictions_csv(out.getvalue().encode(), "predictions.csv"))
    assert [row["path"] for row in again] == NAMES and again[0]["probabilities"] == {}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "first columns are not path, label, predicted, probability"),
        (b"path,label,predicted,probability,a\nx,a,a,0.5\n", "line 2: 4 cells where the header has 5"),
        (b"path,label,predicted,probability\nx,a,a,much\n", "line 2: could not convert"),
        (b"path,label,predicted,probability\n\xff\xfe,a,a,1\n", "predictions.csv is damaged"),
        (b"path,label,predicted,probability\n" + b"x" * 200_000 + b",a,a,1\n", "field larger than field limit"),
    ],
)
def test_a_table_that_is_none_is_refused_with_its_line(data: bytes, message: str) -> None:
    with pytest.raises(RunError, match=message):
        list(read_predictions_csv(data, "predictions.csv"))


def test_history_is_a_row_an_epoch() -> None:
    text = history_text([{"epoch": 1, "=loss": 0.5}, {"epoch": 2, "=loss": 0.25}])
    assert text == "epoch,'=loss\n1,0.5\n2,0.25\n"


def test_json_is_ascii_and_any_file_name_survives_it() -> None:
    import json

    data = json_bytes({"names": NAMES})
    assert data.isascii() and json.loads(data)["names"] == NAMES


def test_names_of_classes_are_never_taken_for_paths(monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    document = {"classes": ["/home/ann/cats", "C:\\dogs"], "run": "/home/ann/runs/x", "why": ["kept in /home/ann/runs"]}
    assert portable(document) == {"classes": document["classes"], "run": "x", "why": ["kept in ~/runs"]}
