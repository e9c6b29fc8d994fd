"""Predicting files and folders: order, formats, hostile names, unreadable photos, readers that leave early."""

import csv
import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headstart.classifier import Prediction
from headstart.errors import DataError, UsageError
from headstart.predict import predict_paths, write_predictions
from headstart.runs import load_run
from headstart.runs.cells import cell_value
from make_run import CLASSES, write_small_run
from test_classifier import noise, png, real_classifier

HOSTILE_NAMES = [
    "=cmd|' /C calc'!A0.png",
    "+1.png",
    "-2.png",
    "@SUM(A1).png",
    "\tx.png",
    "\rx.png",
    "a\nb.png",
    "\x1b[31mred.png",
    "\u202egpj.exe.png",
    "<script>alert(1)</script>.png",
    "a,b;\"c'.png",
    "'quoted.png",
    "\\backslash\\n.png",
    "é中文🐜.png",
    " leading.png",
    "\x7fdel.png",
    "\x9bcsi.png",
    "%s%n{0}$(id).png",
    "a\u2028b.png",
    "con.png",
]


def told(path: str, label: str = "bees", probability: float = 0.7) -> Prediction:
    rest = (1 - probability) / 2
    values = {name: probability if name == label else rest for name in CLASSES}
    return Prediction(path, label, probability, values, classes=CLASSES)


def failed(path: str) -> Prediction:
    return Prediction(path, error="truncated: the end of the file is missing", classes=CLASSES)


def printed(rows: list[Prediction], layout: str, topk: int = 1) -> tuple[str, int]:
    out = io.StringIO()
    count = write_predictions(rows, layout, out, topk=topk)
    return out.getvalue(), count


def test_json_lines_hold_one_object_a_line_in_order_with_the_promised_keys() -> None:
    text, count = printed([failed("x.jpg"), told("a.jpg")], "jsonl")
    first, second = (json.loads(line) for line in text.splitlines())
    assert first == {"path": "x.jpg", "error": "truncated: the end of the file is missing"}
    assert set(second) == {"path", "label", "probability", "probabilities"} and set(second["probabilities"]) == set(
        CLASSES
    )
    assert count == 1
    (row,) = (json.loads(line) for line in printed([told("a.jpg")], "jsonl", topk=2)[0].splitlines())
    assert [item["label"] for item in row["top"]] == ["bees", "ants"]


def test_csv_has_its_header_even_when_the_first_photo_is_unreadable() -> None:
    text, count = printed([failed("x.jpg"), told("a.jpg")], "csv", topk=2)
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == ["path", "label", "probability", "label_2", "probability_2", "error", *CLASSES]
    assert rows[0]["error"].startswith("truncated") and rows[0]["label"] == "" and rows[0]["bees"] == ""
    assert (rows[1]["label"], rows[1]["label_2"], rows[1]["error"]) == ("bees", "ants", "")
    assert float(rows[1]["probability"]) == float(rows[1]["bees"]) == pytest.approx(0.7)
    assert count == 1


def test_the_table_lines_up_and_names_as_many_classes_as_asked() -> None:
    text, _ = printed([told("a.jpg", "bees"), told("b.jpg", "wasps"), failed("x.jpg")], "table", topk=2)
    lines = text.splitlines()
    assert lines[0].index("a.jpg") == lines[1].index("b.jpg")
    assert lines[0].startswith("bees") and " 70.0 %" in lines[0] and " 15.0 %" in lines[0]
    assert lines[2] == "error: truncated: the end of the file is missing  x.jpg"


@pytest.mark.parametrize("layout", ["table", "csv", "jsonl"])
def test_hostile_names_are_one_line_send_nothing_to_the_terminal_and_survive(layout: str) -> None:
    rows = [told(name) for name in HOSTILE_NAMES] + [failed(name) for name in HOSTILE_NAMES]
    text, _ = printed(rows, layout)
    lines = text.split("\n")
    header = layout == "csv"
    assert len(lines) == len(rows) + header + 1
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    if layout == "jsonl":
        assert [json.loads(line)["path"] for line in lines[:-1]] == [row.path for row in rows]
    if layout == "csv":
        cells = [row[0] for row in csv.reader(io.StringIO(text))][1:]
        assert [cell_value(cell) for cell in cells] == [row.path for row in rows]
        assert not [cell for row in csv.reader(io.StringIO(text)) for cell in row if cell.startswith(tuple("=+-@\t\r"))]


def test_names_that_are_no_text_survive_in_json_and_csv() -> None:
    path = os.fsdecode(b"caf\xe9.jpg")
    assert json.loads(printed([told(path)], "jsonl")[0])["path"] == path
    text = printed([told(path)], "csv")[0]
    text.encode("utf-8")
    assert cell_value(list(csv.reader(io.StringIO(text)))[1][0]) == path


def test_a_terminal_without_the_letters_of_a_name_gets_escapes() -> None:
    raw = io.BytesIO()
    terminal = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    write_predictions([told("中.jpg")], "table", terminal)
    assert raw.getvalue().decode("ascii").rstrip().endswith("\\u4e2d.jpg")


def test_an_unknown_format_names_the_known_ones() -> None:
    with pytest.raises(UsageError, match="unknown format 'xml'; choose one of: table, csv, jsonl"):
        printed([], "xml")


def test_a_reader_that_leaves_early_is_no_error_and_ends_the_work() -> None:
    class Leaving(io.StringIO):
        def write(self, text: str) -> int:
            if self.tell() > 200:
                raise BrokenPipeError
            return super().write(text)

    made = []

    def rows() -> Iterator[Prediction]:
        for number in range(10_000):
            made.append(number)
            yield told(f"{number}.jpg")

    assert write_predictions(rows(), "jsonl", Leaving()) == 0
    assert len(made) < 10


@pytest.mark.usefixtures("ready_cache")
def test_folders_are_read_deep_in_order_without_junk_and_files_as_they_are_named(tmp_path: Path) -> None:
    folder = tmp_path / "inbox"
    for name in (
        "b.png",
        "a/2.png",
        "a/1.png",
        ".hidden.png",
        "__MACOSX/x.png",
        "a/._1.png",
        "notes.txt",
        "broken.jpg",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(noise(side=40)) if name.endswith(".png") else b"x")
    os.mkfifo(folder / "pipe.jpg")
    (tmp_path / "odd.dat").write_bytes(png(noise(side=40)))
    run = write_small_run(tmp_path / "run", classifier=real_classifier())
    rows = list(predict_paths(load_run(run.path), [tmp_path / "odd.dat", folder, tmp_path / "gone.jpg"]))
    names = ["a/1.png", "a/2.png", "b.png", "broken.jpg", "pipe.jpg"]
    assert [row.path for row in rows] == [
        str(tmp_path / "odd.dat"),
        *(str(folder / name) for name in names),
        str(tmp_path / "gone.jpg"),
    ]
    assert [row.error is None for row in rows] == [True, True, True, True, False, False, False]
    assert (rows[5].error or "").startswith("not_a_file")


@pytest.mark.usefixtures("ready_cache")
def test_a_folder_without_photos_says_so(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("x")
    with pytest.raises(DataError, match=r"no photos under .*empty"):
        list(predict_paths(real_classifier(), [tmp_path / "empty"]))


@pytest.mark.usefixtures("ready_cache")
def test_a_shell_that_takes_one_line_gets_it_without_a_complaint(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run", classifier=real_classifier())
    (tmp_path / "photos").mkdir()
    small = png(noise(side=24))
    for number in range(200):
        (tmp_path / "photos" / f"{number:03d}.png").write_bytes(small)
    code = (
        "import sys; from headstart.predict import *; from headstart.runs import load_run\n"
        f"rows = predict_paths(load_run({str(run.path)!r}), [{str(tmp_path / 'photos')!r}])\n"
        "write_predictions(rows, 'jsonl', sys.stdout)\n"
        "import os; sys.stderr.flush(); os._exit(0)\n"
    )
    command = f"'{sys.executable}' -c \"$CODE\" | head -n 1"
    done = subprocess.run(
        ["bash", "-c", command], capture_output=True, text=True, env={**os.environ, "CODE": code}, timeout=120
    )
    assert done.stderr == "" and json.loads(done.stdout)["path"].endswith("000.png")
