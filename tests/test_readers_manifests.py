"""Tables of photos: every form gives the same data set, and every bad row is named."""

import builtins
import csv
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest

from headstart.dataset import SKIP_REASONS, Dataset
from headstart.errors import DataError
from headstart.readers import open_dataset
from headstart.readers.tables import COLUMNS, TABLES


def photos(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(os.fsencode(path))
    return root


def write(root: Path, name: str, content: str | bytes) -> Path:
    (root / name).write_bytes(content.encode("utf-8") if isinstance(content, str) else content)
    return root / name


def told(data: Dataset) -> dict[str, tuple]:
    return {photo.path: (data.classes[photo.label], photo.split, photo.group) for photo in data.photos}


def skipped(data: Dataset) -> dict[str, str]:
    assert {item.reason for item in data.skipped} <= SKIP_REASONS.keys()
    return {item.path: item.reason for item in data.skipped}


def write_rows(path: Path, rows: list[dict[str, Any]]) -> Path:
    """Write a table in the form of the path's suffix, with the writer of another library."""
    suffix = path.suffix
    if suffix in (".csv", ".tsv"):
        with path.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    elif suffix == ".parquet":
        pyarrow = pytest.importorskip("pyarrow")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


ROWS = [
    {"file_name": "a/1.jpg", "label": "cat", "split": "train", "group": "house 1"},
    {"file_name": "a/2.jpg", "label": "dog", "split": "Validation", "group": ""},
    {"file_name": "b/with, comma.jpg", "label": "cat", "split": "TEST", "group": "house 2"},
    {"file_name": 'b/with "quotes".jpg', "label": 'the "big" dog', "split": "", "group": "house 1"},
    {"file_name": "b/日本語 ü.jpg", "label": "cat", "split": "holdout", "group": ""},
    {"file_name": "b/with\nnewline.jpg", "label": "cat", "split": "train", "group": ""},
]
TOLD = {
    "a/1.jpg": ("cat", "train", "house 1"),
    "a/2.jpg": ("dog", "val", None),
    "b/with, comma.jpg": ("cat", "test", "house 2"),
    'b/with "quotes".jpg': ('the "big" dog', None, "house 1"),
    "b/日本語 ü.jpg": ("cat", "test", None),
    "b/with\nnewline.jpg": ("cat", "train", None),
}


@pytest.mark.parametrize("suffix", sorted(TABLES))
def test_every_form_of_table_gives_the_same_data_set(tmp_path: Path, suffix: str) -> None:
    photos(tmp_path, *TOLD)
    data = open_dataset(write_rows(tmp_path / f"labels{suffix}", ROWS))
    assert told(data) == TOLD
    assert data.classes == ("cat", "dog", 'the "big" dog')
    assert data.skipped == ()
    assert data.name == "labels"
    assert all(data.fetch(photo) == os.fsencode(photo.path) for photo in data.photos)


@pytest.mark.parametrize("path_column", COLUMNS["path"])
@pytest.mark.parametrize("label_column", COLUMNS["label"])
def test_columns_are_found_by_any_of_their_names(tmp_path: Path, path_column: str, label_column: str) -> None:
    photos(tmp_path, "1.jpg")
    table = write(tmp_path, "t.csv", f"id,{label_column.upper()}, {path_column.title()} \n7,cat,1.jpg\n")
    assert told(open_dataset(table)) == {"1.jpg": ("cat", None, None)}


def test_of_two_path_columns_the_one_named_first_in_the_list_counts(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    table = write(tmp_path, "t.csv", "path,file_name,label\n1.jpg,2.jpg,cat\n")
    assert list(told(open_dataset(table))) == ["2.jpg"]


@pytest.mark.parametrize(
    ("header", "lacking"),
    [
        ("name,klass", "lacks a path column (file_name | image"),
        ("file_name,klass", "lacks a label column (label | class"),
        ("label,x", "lacks a path column"),
    ],
)
@pytest.mark.parametrize("suffix", sorted(TABLES))
def test_missing_columns_are_an_error_that_names_the_found_and_the_accepted_ones(
    tmp_path: Path, header: str, lacking: str, suffix: str
) -> None:
    table = write_rows(tmp_path / f"t{suffix}", [dict.fromkeys(header.split(","), "x")])
    with pytest.raises(DataError) as caught:
        open_dataset(table)
    assert lacking in str(caught.value)
    assert f"found the columns {', '.join(repr(name) for name in header.split(','))}" in str(caught.value)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark_is_no_part_of_the_first_column(tmp_path: Path, encoding: str) -> None:
    photos(tmp_path, "ü.jpg")
    table = write(tmp_path, "t.csv", "file_name,label\nü.jpg,Käfer\n".encode(encoding))
    assert told(open_dataset(table)) == {"ü.jpg": ("Käfer", None, None)}


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_separator_and_line_ends_are_recognised(tmp_path: Path, mark: str, end: str) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    lines = [mark.join(cells) for cells in (("file_name", "label"), ("1.jpg", "cat"), ("2.jpg", "dog"))]
    table = write(tmp_path, "t.csv", end.join(lines))
    assert told(open_dataset(table)) == {"1.jpg": ("cat", None, None), "2.jpg": ("dog", None, None)}


def test_blank_lines_and_a_comma_at_the_end_of_a_line_do_no_harm(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    table = write(tmp_path, "t.csv", "\n\nfile_name,label\n\n1.jpg,cat,\n,\n2.jpg, dog \n\n")
    assert told(open_dataset(table)) == {"1.jpg": ("cat", None, None), "2.jpg": ("dog", None, None)}


def test_an_unclosed_quote_is_an_error_and_swallows_no_rows(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    table = write(tmp_path, "t.csv", 'file_name,label\n1.jpg,cat\n"2.jpg,cat\n3.jpg,dog\n')
    with pytest.raises(DataError, match=r"no table row after line 2: .*; check the quotation marks there"):
        open_dataset(table)


@pytest.mark.skipif(os.name == "nt", reason="needs a file system of bytes")
def test_a_name_that_is_no_utf8_finds_its_file(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.jpg")
    try:
        photos(tmp_path, name)
    except OSError:
        pytest.skip("this file system takes valid UTF-8 only")
    data = open_dataset(write(tmp_path, "t.csv", b"file_name,label\ncaf\xe9.jpg,cat\n"))
    assert list(told(data)) == [name]


@pytest.mark.parametrize(
    ("on_disk", "written"),
    [
        ("a/1.jpg", "a\\1.jpg"),
        ("1.jpg", " 1.jpg "),
        ("é.jpg", "e\u0301.jpg"),
        ("e\u0301.jpg", "é.jpg"),
        ("a/1.jpg", "./a//b/../1.jpg"),
    ],
)
def test_paths_changed_by_a_spreadsheet_or_another_system_are_found(tmp_path: Path, on_disk: str, written: str) -> None:
    photos(tmp_path, on_disk)
    if (tmp_path / written).exists():
        pytest.skip("this file system takes the two names for one")
    assert list(told(open_dataset(write(tmp_path, "t.csv", f"file_name,label\n{written},cat\n")))) == [on_disk]


def test_a_name_that_exists_as_written_goes_before_a_changed_one(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg ", "1.jpg")
    assert list(told(open_dataset(write(tmp_path, "t.csv", "file_name,label\n1.jpg ,cat\n")))) == ["1.jpg "]


# values


@pytest.mark.parametrize("suffix", sorted(TABLES))
def test_labels_that_are_numbers_are_ordered_by_value(tmp_path: Path, suffix: str) -> None:
    rows = [{"file_name": f"{number}.jpg", "label": number} for number in (10, 9, 2, 100)]
    photos(tmp_path, *(row["file_name"] for row in rows))
    data = open_dataset(write_rows(tmp_path / f"t{suffix}", rows))
    assert data.classes == ("2", "9", "10", "100")


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_numbers_with_a_point_and_truth_values_are_labels_as_people_write_them(tmp_path: Path, suffix: str) -> None:
    for values, classes in (([1.0, 2.0, None, 2.5], ("1", "2", "2.5")), ([True, False, None], ("false", "true"))):
        rows = [{"file_name": f"{number}.jpg", "label": value} for number, value in enumerate(values)]
        photos(tmp_path, *(row["file_name"] for row in rows))
        data = open_dataset(write_rows(tmp_path / f"t{suffix}", rows))
        assert data.classes == classes
        assert skipped(data) == {"2.jpg": "no_label"}


def test_parquet_categories_are_their_names(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    photos(tmp_path, "1.jpg", "2.jpg")
    labels = pyarrow.array(["dog", "cat"]).dictionary_encode()
    parquet.write_table(pyarrow.table({"image": ["1.jpg", "2.jpg"], "label": labels}), tmp_path / "t.parquet")
    assert told(open_dataset(tmp_path / "t.parquet")) == {"1.jpg": ("dog", None, None), "2.jpg": ("cat", None, None)}


def test_a_parquet_file_with_pictures_inside_is_refused_with_the_columns_found(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{"image": {"bytes": b"png", "path": "1.png"}, "label": 1}]
    parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "t.parquet")
    with pytest.raises(DataError, match=r"lacks a path column .* found the columns 'image \(nested\)', 'label'"):
        open_dataset(tmp_path / "t.parquet")


def test_a_broken_parquet_file_is_an_error_of_one_line(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    for content in (b"", b"PAR1", b"PAR1" + bytes(100) + b"PAR1"):
        with pytest.raises(DataError, match="no readable Parquet file") as caught:
            open_dataset(write(tmp_path, "t.parquet", content))
        assert "\n" not in str(caught.value)


def test_without_pyarrow_a_parquet_file_is_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *arguments: Any) -> Any:
        if name.partition(".")[0] == "pyarrow":
            raise ModuleNotFoundError("No module named 'pyarrow'")
        return real(name, *arguments)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(
        DataError, match=r"pyarrow, which reads those, is not installed; pip install 'headstart\[parquet\]'"
    ):
        open_dataset(write(tmp_path, "t.parquet", b"PAR1"))


# rows that give no photo


def test_every_bad_row_is_listed_with_its_reason_and_the_good_ones_are_read(tmp_path: Path) -> None:
    photos(tmp_path, *(f"{number}.jpg" for number in range(6)))
    (tmp_path / "folder.jpg").mkdir()
    lines = [
        "file_name,label,split",
        "0.jpg,cat,train",
        "gone.jpg,cat,train",
        "1.jpg,,train",
        "2.jpg,  ,train",
        "3.jpg,cat,fold 3",
        ",cat,train",
        "folder.jpg,cat,train",
        "a, b.jpg,cat,train",
        "nul\0.jpg,cat,",
        "5.jpg,dog,test",
        "4.jpg",
    ]
    data = open_dataset(write(tmp_path, "t.csv", "\n".join(lines)))
    assert told(data) == {"0.jpg": ("cat", "train", None), "5.jpg": ("dog", "test", None)}
    assert skipped(data) == {
        "gone.jpg": "missing",
        "1.jpg": "no_label",
        "2.jpg": "no_label",
        "3.jpg": "unknown_split",
        "line 7": "malformed_row",
        "folder.jpg": "not_a_file",
        "line 9": "malformed_row",
        "nul\0.jpg": "missing",
        "4.jpg": "no_label",
    }
    details = {item.path: item.detail for item in data.skipped}
    assert details["3.jpg"] == "line 6: 'fold 3'"
    assert details["line 9"] == "4 cells for 3 columns: a cell that holds the separator must be quoted"


def test_json_lines_that_are_no_objects_are_listed_by_number(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    good = ['{"image": "1.jpg", "target": "a"}', '{"image": "2.jpg", "target": "b", "group": 7}']
    bad = [
        "{",
        "[1]",
        "null",
        "[" * 100_000,
        '{"image": ["1.jpg"], "target": "a"}',
        '{"image": "\\ud800", "target": 1}',
    ]
    data = open_dataset(write(tmp_path, "t.jsonl", "\n".join([good[0], *bad, "", good[1]])))
    assert told(data) == {"1.jpg": ("a", None, None), "2.jpg": ("b", None, "7")}
    assert skipped(data) == {f"line {number}": "malformed_row" for number in (2, 3, 4, 5, 6)} | {"\ud800": "missing"}


def test_labels_of_missing_photos_only_are_no_classes_and_a_warning_names_them(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg")
    data = open_dataset(write(tmp_path, "t.csv", "file_name,label\n1.jpg,cat\n2.jpg,wasp\n"))
    assert data.classes == ("cat",)
    assert data.warnings == ("no photo was found for the labels 'wasp': they are no classes of this data set",)


def test_a_table_without_one_photo_says_why_and_gives_an_example(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        open_dataset(write(tmp_path, "t.csv", "file_name,label\nx\x1b/1.jpg,cat\ny.jpg,\n"))
    text = str(caught.value)
    assert "none of the 2 rows" in text
    assert "(missing 1, no_label 1); for example 'x\\x1b/1.jpg': no such file" in text
    assert f"paths are relative to {tmp_path}" in text


@pytest.mark.parametrize("content", ["file_name,label\n", "file_name,label"])
def test_a_header_alone_is_refused(tmp_path: Path, content: str) -> None:
    with pytest.raises(DataError, match="has a header but no rows"):
        open_dataset(write(tmp_path, "t.csv", content))


@pytest.mark.parametrize("name", ["t.csv", "t.tsv", "t.jsonl"])
def test_an_empty_file_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="found the columns none"):
        open_dataset(write(tmp_path, name, ""))


# photos listed twice


def test_a_photo_listed_again_counts_once(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg")
    data = open_dataset(write(tmp_path, "t.csv", "file_name,label\n1.jpg,cat\n./1.jpg,cat\n2.jpg,dog\n1.jpg,cat\n"))
    assert len(data.photos) == 2
    assert data.warnings == ("2 rows list a photo again; each photo counts once",)


def test_a_photo_under_two_labels_is_left_out_and_both_labels_are_named(tmp_path: Path) -> None:
    photos(tmp_path, "1.jpg", "2.jpg", "3.jpg")
    rows = "file_name,label\n1.jpg,cat\n2.jpg,dog\n1.jpg,dog\n1.jpg,cat\n3.jpg,cat\n"
    data = open_dataset(write(tmp_path, "t.csv", rows))
    assert sorted(told(data)) == ["2.jpg", "3.jpg"]
    assert [(item.path, item.reason, item.detail) for item in data.skipped] == [
        ("1.jpg", "label_conflict", "listed as 'cat' and as 'dog'")
    ]


@pytest.mark.parametrize(("splits", "expected"), [("train test", "test"), ("test train", "test"), ("train val", "val")])
def test_a_photo_in_two_splits_counts_for_the_one_that_is_held_out_more(
    tmp_path: Path, splits: str, expected: str
) -> None:
    photos(tmp_path, "1.jpg")
    rows = "".join(f"1.jpg,cat,{split}\n" for split in splits.split())
    data = open_dataset(write(tmp_path, "t.csv", "file_name,label,split\n" + rows))
    assert told(data)["1.jpg"][1] == expected
    assert "1 photos are listed in two splits" in data.warnings[1]


# what lies outside


@pytest.fixture
def apart(tmp_path: Path) -> Path:
    photos(tmp_path, "data/in.jpg", "outside/out.jpg", "data2/near.jpg")
    return tmp_path / "data"


def outside_ways(apart: Path) -> list[str]:
    ways = [
        "../outside/out.jpg",
        "in/../../outside/out.jpg",
        "../data2/near.jpg",
        str(apart.parent / "outside/out.jpg"),
    ]
    if os.name != "nt":
        (apart / "link.jpg").symlink_to("../outside/out.jpg")
        (apart / "folder").symlink_to("../outside")
        ways += ["link.jpg", "folder/out.jpg"]
    return ways


def test_paths_that_lead_out_of_the_folder_are_skipped_unless_asked_for(apart: Path) -> None:
    (apart / "in").mkdir()
    for way in outside_ways(apart):
        table = write(apart, "t.csv", f"file_name,label\nin.jpg,cat\n{way},dog\n")
        data = open_dataset(table)
        assert list(told(data)) == ["in.jpg"]
        assert skipped(data) == {way: "outside"}
        asked = open_dataset(table, follow_links=True)
        assert asked.skipped == ()
        contents = {asked.fetch(photo) for photo in asked.photos}
        assert contents in ({b"data/in.jpg", b"outside/out.jpg"}, {b"data/in.jpg", b"data2/near.jpg"})


def test_an_absolute_path_into_the_folder_is_read_and_named_relative_to_it(apart: Path) -> None:
    table = write(apart, "t.csv", f"file_name,label\n{apart / 'in.jpg'},cat\n")
    assert list(told(open_dataset(table))) == ["in.jpg"]


def test_a_table_given_by_a_relative_path_is_read(apart: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(apart, "t.csv", f"file_name,label\nin.jpg,cat\n{apart / 'in.jpg'},cat\n../outside/out.jpg,dog\n")
    monkeypatch.chdir(apart)
    data = open_dataset("t.csv")
    assert list(told(data)) == ["in.jpg"]
    assert skipped(data) == {"../outside/out.jpg": "outside"}


@pytest.mark.skipif(os.name == "nt", reason="needs pipes")
def test_pipes_and_devices_in_a_table_are_not_opened(apart: Path) -> None:
    os.mkfifo(apart / "pipe.jpg")
    table = write(apart, "t.csv", "file_name,label\nin.jpg,cat\npipe.jpg,cat\n/dev/zero,cat\n")
    assert skipped(open_dataset(table)) == {"pipe.jpg": "not_a_file", "/dev/zero": "outside"}
    assert skipped(open_dataset(table, follow_links=True)) == {"pipe.jpg": "not_a_file", "/dev/zero": "not_a_file"}


# a thousand random tables, against the csv module's own writer


def test_random_names_and_labels_come_back_exactly(tmp_path: Path) -> None:
    draw = random.Random(0)
    letters = "ab ,;\"'\t\n\r\\#%=+-@|é日\u202e😀"
    names = {"".join(draw.choices(letters, k=draw.randint(1, 12))).strip() + "x.jpg" for _ in range(300)}
    photos(tmp_path, *(f"p/{name}" for name in names))
    if len(list((tmp_path / "p").iterdir())) != len(names):
        pytest.skip("this file system takes some of the names for one")
    rows = [
        {"file_name": f"p/{name}", "label": "".join(draw.choices(letters, k=5)).strip() or "none"}
        for name in sorted(names)
    ]
    for suffix in sorted(TABLES):
        data = open_dataset(write_rows(tmp_path / f"t{suffix}", rows))
        assert {path: label for path, (label, _, _) in told(data).items()} == {
            row["file_name"]: row["label"] for row in rows
        }


def test_the_table_and_the_photos_stay_as_they_are(tmp_path: Path) -> None:
    photos(tmp_path, *TOLD)
    table = write_rows(tmp_path / "t.csv", ROWS)
    before = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")}
    open_dataset(table)
    after = {path: (path.stat().st_mtime_ns, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")}
    assert after == before


def test_the_odd_images_list_their_files_but_no_labels(shared_data: Path) -> None:
    with pytest.raises(DataError, match="lacks a label column"):
        open_dataset(shared_data / "odd_images" / "manifest.csv")
