"""Recognising the form of the data, and saying what was expected when there is none."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.readers import BUILTIN, open_dataset


def plant(root: Path, *paths: str) -> Path:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(path.encode())
    return root


def refused(data: str | Path) -> str:
    with pytest.raises(DataError) as caught:
        open_dataset(data)
    text = str(caught.value)
    assert "\n" not in text
    assert text.isprintable()
    return text


@pytest.mark.parametrize(
    "name", ["", "no such thing", "digit", "nul\0", "x" * 5000, "a\x1b[31mb\n", "\ud800", "photos/"]
)
def test_what_is_neither_a_path_nor_a_name_is_refused_with_the_names(name: str) -> None:
    text = refused(name)
    assert "is neither a file or folder here nor a built-in data set" in text
    assert "built-in: cifar10, digits, elpv, fashion-mnist, mnist" in text


def test_the_built_in_names_are_those_promised() -> None:
    assert sorted(BUILTIN) == ["cifar10", "digits", "elpv", "fashion-mnist", "mnist"]


def test_a_folder_here_goes_before_a_built_in_name_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "digits", "a/1.jpg", "b/1.jpg")
    monkeypatch.chdir(tmp_path)
    data = open_dataset("digits")
    assert data.classes == ("a", "b")
    assert data.warnings == (
        "'digits' is a file or folder here, so that was read, not the built-in data set of this name",
    )


@pytest.mark.parametrize("form", [str, Path])
def test_text_and_path_are_the_same(tmp_path: Path, form: type) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg")
    assert len(open_dataset(form(tmp_path)).photos) == 2


@pytest.mark.parametrize("name", ["photos.zip", "photos.tar.gz", "photos.TGZ", "photos.7z", "photos.tar"])
def test_an_archive_is_to_be_unpacked_first(tmp_path: Path, name: str) -> None:
    assert "is an archive; unpack it and give the folder" in refused(plant(tmp_path, name) / name)


@pytest.mark.parametrize("name", ["photo.jpg", "labels.xlsx", "labels.json", "noname"])
def test_another_single_file_is_refused_with_the_forms_that_are_read(tmp_path: Path, name: str) -> None:
    text = refused(plant(tmp_path, name) / name)
    assert "is a single file; expected a folder of class folders" in text
    assert ".csv .tsv .jsonl .ndjson .parquet" in text


@pytest.mark.skipif(os.name == "nt", reason="needs pipes")
def test_a_pipe_a_device_and_a_link_to_nothing_are_refused_and_not_opened(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "labels.csv")
    (tmp_path / "gone").symlink_to("nowhere")
    for data in (tmp_path / "labels.csv", Path("/dev/zero"), tmp_path / "gone"):
        assert "is neither a folder nor a regular file" in refused(data)


def test_the_current_folder_has_its_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(tmp_path / "pets", "a/1.jpg", "b/1.jpg")
    monkeypatch.chdir(tmp_path / "pets")
    assert open_dataset(".").name == "pets"


def forms(root: Path) -> dict[str, Path | str]:
    """The same two classes with two photos each, in every form that fits into a temporary folder."""
    plant(root / "folders", "cat/1.jpg", "cat/2.jpg", "dog/1.jpg", "dog/2.jpg")
    plant(root / "splits", "train/cat/1.jpg", "train/dog/1.jpg", "test/cat/2.jpg", "test/dog/2.jpg")
    plant(root / "table", "1.jpg", "2.jpg", "3.jpg", "4.jpg")
    (root / "table" / "t.csv").write_text("image,class\n1.jpg,cat\n2.jpg,cat\n3.jpg,dog\n4.jpg,dog\n")
    (root / "idx").mkdir()
    head = bytes([0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 2, 0, 0, 0, 2])
    (root / "idx" / "train-images-idx3-ubyte").write_bytes(head + bytes(range(16)))
    (root / "idx" / "train-labels-idx1-ubyte").write_bytes(bytes([0, 0, 8, 1, 0, 0, 0, 4, 0, 0, 1, 1]))
    (root / "cifar").mkdir()
    (root / "cifar" / "data_batch_1.bin").write_bytes((bytes(3073) + b"\1" + bytes(3072)) * 2)
    return {
        "folders": root / "folders",
        "splits": root / "splits",
        "table": root / "table" / "t.csv",
        "idx": root / "idx",
        "cifar": root / "cifar",
        "built-in": "digits",
    }


@pytest.mark.parametrize("form", ["folders", "splits", "table", "idx", "cifar", "built-in"])
def test_every_form_keeps_the_promises_of_a_data_set(tmp_path: Path, form: str) -> None:
    if form == "built-in":
        pytest.importorskip("sklearn")
    data = open_dataset(forms(tmp_path)[form])
    again = open_dataset(forms(tmp_path / "again")[form])
    assert data.photos == again.photos
    assert len(data.photos) >= 4
    assert len({photo.path for photo in data.photos}) == len(data.photos)
    assert len(set(data.classes)) == len(data.classes)
    assert all(0 <= photo.label < len(data.classes) for photo in data.photos)
    assert {photo.split for photo in data.photos} <= {"train", "val", "test", None}
    assert not any(Path(photo.path).is_absolute() for photo in data.photos)
    content = data.fetch(data.photos[-1])
    assert isinstance(content, bytes) or (content.dtype == np.uint8 and content.ndim in (2, 3))
    assert np.array_equal(data.labels(), [photo.label for photo in data.photos])


def test_opening_a_folder_imports_no_heavy_library(tmp_path: Path) -> None:
    plant(tmp_path, "a/1.jpg", "b/1.jpg")
    program = "import sys; from headstart.readers import open_dataset; open_dataset(sys.argv[1]); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, check=True)
    assert not set(done.stdout.decode().split()) & {"torch", "sklearn", "scipy", "openvino", "pyarrow", "pandas"}
