"""`headstart look` and `headstart trust` from the command line: what they print, write and refuse."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.cli import run as command
from headstart.errors import OutputError
from headstart.look.writing import RESULT, is_look, save_look


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


LOOKS = [
    ("filters", [], []),
    ("filters", [], ["--layer", "c3", "--unit", "2"]),
    ("activations", ["photo"], ["--layer", "c3", "--pool", "2", "--scale", "unit"]),
    ("neuron", ["photo"], ["--layer", "c3", "--unit", "1", "--at", "2,3"]),
    ("units", ["photos"], ["--layer", "c3", "--unit", "0", "--top", "4"]),
    ("maximise", [], ["--class", "3", "--steps", "2"]),
    ("dream", ["photo"], ["--layer", "c3", "--steps", "1", "--octaves", "1"]),
    ("adversarial", ["photo"], []),
]


@pytest.mark.parametrize(("kind", "things", "options"), LOOKS, ids=[" ".join([k, *o]) for k, _, o in LOOKS])
def test_a_look_writes_its_numbers_and_pictures(
    kind: str,
    things: list[str],
    options: list[str],
    photo: Path,
    photo_folder: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"photo": str(photo), "photos": str(photo_folder)}
    words = [kind, "lenet", *(places[thing] for thing in things), *options, "--out", str(tmp_path / "out")]
    assert command(["look", *words, "--quiet", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    written = json.loads((tmp_path / "out" / RESULT).read_text())
    assert {name: written[name] for name in document if name != "folder"} == {
        name: value for name, value in document.items() if name != "folder"
    }
    pictures = list((tmp_path / "out").glob("*.png"))
    assert pictures
    for picture in pictures:
        with Image.open(picture) as image:
            image.verify()
    assert is_look(tmp_path / "out")
    assert command(["look", *words, "--quiet"]) == 0  # again, and as text
    assert ".png" in capsys.readouterr().out


def test_the_net_may_stand_before_the_kind_of_look(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["look", "lenet", "filters", "--out", str(tmp_path / "a"), "--quiet", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert command(["look", "filters", "lenet", "--out", str(tmp_path / "b"), "--quiet", "--json"]) == 0
    second = json.loads(capsys.readouterr().out)
    assert {**first, "folder": ""} == {**second, "folder": ""}


def test_random_weights_are_said_to_be_random(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["look", "filters", "lenet", "--out", str(tmp_path / "a")]) == 0
    assert "random weights" in capsys.readouterr().err


WRONG = [
    (["filters", "letnet"], 2, "neither a run nor a net"),
    (["filters", "runs/none"], 1, "no run at runs/none"),
    (["filters", "lenet", "--layer", "c9"], 2, "no layer c9"),
    (["activations", "lenet", "none.png", "--layer", "c3"], 1, "no such file"),
    (["maximise", "lenet"], 2, ""),
    (["maximise", "lenet", "--class", "cat"], 2, "no class"),
    (["adversarial", "lenet", "none.png"], 1, "no such file"),
]


@pytest.mark.parametrize(("words", "code", "said"), WRONG, ids=[" ".join(words) for words, _, _ in WRONG])
def test_what_cannot_be_looked_at_is_said_in_one_line(
    words: list[str],
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert command(["look", *words, "--quiet"]) == code
    error = capsys.readouterr().err
    assert said in error.replace("'", "")
    assert "Traceback" not in error
    assert len(error.strip().splitlines()) <= 4
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", [["look", "units", "lenet", "--layer", "c3"], ["look", "features", "lenet"]])
def test_photos_that_cannot_be_read_are_named_and_change_the_exit_code(
    kind: list[str], photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (photo_folder / "bars" / "broken.jpg").write_bytes(b"\xff\xd8 no photo")
    words = [*kind[:3], str(photo_folder), *kind[3:], "--out", str(tmp_path / "out"), "--quiet"]
    assert command(words) == 3
    assert "bars/broken.jpg: " in capsys.readouterr().out
    assert command([*words, "--json"]) == 3
    (named,) = json.loads(capsys.readouterr().out)["skipped"]
    assert named.startswith("bars/broken.jpg: ")
    (photo_folder / "bars" / "broken.jpg").unlink()
    assert command([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == []


def test_trust_names_what_it_could_not_read(
    ready_cache: Path, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(48):  # so many that one of them is tried
        (photo_folder / "bars" / f"broken-{number}.jpg").write_bytes(b"\xff\xd8 no photo")
    words = ["trust", "efficientnet-lite0", str(photo_folder), "--photos", "2", "--method", "cam", "--quiet"]
    assert command([*words, "--out", str(tmp_path / "out"), "--json"]) == 3
    skipped = json.loads(capsys.readouterr().out)["skipped"]
    assert skipped and all(line.startswith("bars/broken-") for line in skipped)


def test_a_look_of_no_known_kind_says_which_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["look", "lenet", "everything"]) == 2
    assert "choose from: filters, activations" in capsys.readouterr().err


class Small:
    def to_json(self) -> dict[str, object]:
        return {"a": 1}

    def to_text(self) -> str:
        return "a"

    def files(self) -> dict[str, object]:
        return {"numbers.npy": np.arange(3.0), "picture.png": Image.new("RGB", (2, 2)), "more.json": b"{}"}


def test_a_folder_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="no look of headstart"):
        save_look(Small(), tmp_path / "mine", overwrite=True)
    save_look(Small(), tmp_path / "own")
    assert np.load(tmp_path / "own" / "numbers.npy").tolist() == [0, 1, 2]
    with pytest.raises(OutputError, match="exists already"):
        save_look(Small(), tmp_path / "own")
    save_look(Small(), tmp_path / "own", overwrite=True)
