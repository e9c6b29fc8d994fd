"""The preview sheet: the photos, what was drawn for each, and a picture that shows just that."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image, ImageFont

from headstart.cli import cli
from headstart.errors import ConfigError, DataError, HeadstartError, OutputError, UsageError
from headstart.training.presets import PRESETS
from headstart.training.preview import default_path, describe, make_preview, words_of
from headstart.training.preview_sheet import TILE, Tile, broken, draw_sheet, shortened


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def test_every_changed_photo_is_what_its_numbers_say(photo_folder: Path) -> None:
    made = make_preview(photo_folder, "cifar", variants=30, photos=3, size=32)
    assert [len(photo.drawn) for photo in made.photos] == [10, 10, 10]
    for photo in made.photos:
        for pixels, drawn in zip(photo.changed, photo.drawn, strict=True):
            source = photo.original[:, :, ::-1] if drawn["flip_horizontal"] else photo.original
            padded = np.pad(source, ((0, 0), (4, 4), (4, 4)), mode="symmetric")
            top, left = 4 - drawn["pixels_down"], 4 - drawn["pixels_right"]
            assert np.array_equal(pixels, padded[:, top : top + 32, left : left + 32])


def test_the_photos_are_one_of_each_class_and_the_seed_chooses_them(photo_folder: Path) -> None:
    made = make_preview(photo_folder, photos=2, variants=5)
    assert [photo.label for photo in made.photos] == ["bars", "disks"]
    assert [len(photo.drawn) for photo in made.photos] == [3, 2]
    assert make_preview(photo_folder, photos=2, variants=5).to_json() == made.to_json()
    others = [make_preview(photo_folder, photos=2, variants=5, seed=seed) for seed in range(1, 4)]
    assert any(other.photos[0].path != made.photos[0].path for other in others)
    assert all(other.photos[0].drawn != made.photos[0].drawn for other in others)


def test_the_original_is_the_first_tile_of_each_row_of_the_sheet(photo_folder: Path) -> None:
    made = make_preview(photo_folder, "photos", photos=2, variants=2, size=80)
    sheet = np.asarray(made.sheet())
    for photo in made.photos:
        tile = np.repeat(np.repeat(photo.original.transpose(1, 2, 0), TILE // 80, axis=0), TILE // 80, axis=1)
        corners = np.argwhere((sheet[:, 24] == tile[0, 0]).all(axis=1)).ravel()
        assert any(np.array_equal(sheet[top : top + TILE, 24 : 24 + TILE], tile) for top in corners)


def test_photos_without_colours_are_previewed_in_one_channel() -> None:
    made = make_preview("digits", "photos", variants=4)
    assert made.size == 8 and made.photos[0].original.shape == (1, 8, 8)
    assert not {"saturation", "hue"} & made.photos[0].drawn[0].keys()


def test_a_photo_that_cannot_be_read_is_passed_over(photo_folder: Path, tmp_path: Path) -> None:
    for path in (photo_folder / "bars").iterdir():
        path.write_bytes(b"broken")
    made = make_preview(photo_folder, photos=3, variants=3)
    assert [photo.label for photo in made.photos] == ["disks", "disks", "disks"]
    for path in (photo_folder / "disks").iterdir():
        path.write_bytes(b"broken")
    with pytest.raises(DataError, match="none of the 48 photos of shapes can be read"):
        make_preview(photo_folder)


def test_the_command_writes_the_sheet_and_prints_its_numbers(photo_folder: Path, tmp_path: Path) -> None:
    before, out = contents(photo_folder), tmp_path / "sheet.png"
    arguments = [str(photo_folder), "--preset", "any-way-up", "--n", "6", "--photos", "2", "--out", str(out)]
    result = CliRunner().invoke(cli, ["augment", *arguments, "--json", "--quiet"], standalone_mode=False)
    assert result.exception is None
    document = json.loads(result.stdout)
    assert document["preset"] == "any-way-up" and document["augmentation"]["rotation"] == 180.0
    assert [len(photo["tiles"]) for photo in document["photos"]] == [3, 3]
    assert set(document["photos"][0]["tiles"][0]) >= {"flip_vertical", "rotation", "zoom", "shift_right"}
    with Image.open(out) as sheet:
        assert sheet.format == "PNG" and sheet.width >= 4 * TILE
    assert contents(photo_folder) == before
    again = CliRunner().invoke(cli, ["augment", *arguments], standalone_mode=False)
    assert isinstance(again.exception, OutputError)
    assert "exists already; give another name" in str(again.exception)
    replaced = CliRunner().invoke(cli, ["augment", *arguments, "--overwrite"], standalone_mode=False)
    assert replaced.exception is None and "written to" in replaced.stderr
    assert "turn" in replaced.stdout and replaced.stdout.startswith("Preset any-way-up: left and right swapped in 50 %")


def test_without_a_name_the_sheet_goes_to_the_current_folder(
    photo_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert CliRunner().invoke(cli, ["augment", str(photo_folder), "--n", "1"], standalone_mode=False).exception is None
    assert (tmp_path / "augment-shapes-photos.png").is_file()
    assert default_path("../odd name", "digits").name == "augment-odd-name-digits.png"


def test_nothing_is_written_into_the_folder_of_the_photos(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(photo_folder)
    monkeypatch.chdir(photo_folder)
    for arguments in ([str(photo_folder)], [".", "--out", "bars/new.png", "--overwrite"]):
        failed = CliRunner().invoke(cli, ["augment", *arguments], standalone_mode=False).exception
        assert isinstance(failed, OutputError) and "lies in the folder of the photos, which is only read" in str(failed)
    assert contents(photo_folder) == before


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"preset": "none"}, ConfigError, "preset 'none' changes nothing.*photos, digits, any-way-up, cifar"),
        ({"preset": "cats"}, ConfigError, "augment must be one of none, photos"),
        ({"variants": 0}, UsageError, "variants must be at least 1; received 0"),
        ({"photos": 0}, UsageError, "photos must be at least 1; received 0"),
    ],
)
def test_a_wrong_wish_is_one_clear_line(
    photo_folder: Path, options: dict[str, object], kind: type[HeadstartError], words: str
) -> None:
    with pytest.raises(kind, match=words):
        make_preview(photo_folder, **options)


def test_a_folder_is_not_replaced_by_the_sheet(photo_folder: Path, tmp_path: Path) -> None:
    made = make_preview(photo_folder, variants=1)
    with pytest.raises(OutputError, match="is a folder; expected the name of a PNG file"):
        made.save(tmp_path, overwrite=True)


@pytest.mark.parametrize("name", [name for name, preset in PRESETS.items() if preset is not None])
def test_every_number_that_a_preset_draws_has_words(name: str, photo_folder: Path) -> None:
    preset = PRESETS[name]
    made = make_preview(photo_folder, name, variants=40, photos=1)
    for drawn in made.photos[0].drawn:
        assert words_of(drawn) != ["unchanged"] or not any(drawn.values())
    if preset.rotation:
        assert f"turn up to {preset.rotation:g}°" in describe(preset)


def test_words_name_the_direction() -> None:
    assert words_of({"rotation": -12.4, "shift_right": -0.05, "shift_down": 0.1, "hue": -8.0}) == [
        "turn 12° right",
        "left 5 %",
        "down 10 %",
        "hue -8°",
    ]
    assert words_of({"flip_horizontal": False, "pixels_right": 0}) == ["unchanged"]


def test_lines_fit_their_width_and_lose_no_word() -> None:
    font = ImageFont.load_default(12)
    words = ["zoom 1.05", "turn 12° left", "right 6 %", "brightness 0.97", "a name without any space in it.jpeg"]
    for width in (90, 130, 400):
        lines = broken(words, font, width)
        assert all(font.getlength(line) <= width + font.getlength(",") for line in lines)
        assert " ".join(lines).startswith("zoom 1.05, turn 12° left, right 6 %, brightness 0.97,")
    assert shortened("822537660_caf4ba5514.jpg", font, 60).startswith("…")
    assert shortened("822537660_caf4ba5514.jpg", font, 60).endswith(".jpg")


def test_large_and_oblong_counts_of_tiles_are_drawn() -> None:
    tile = Tile(np.zeros((3, 300, 300), np.uint8), "t", [])
    sheet = draw_sheet("title", ["words"], [[tile] * 7, [tile]])
    black = (np.asarray(sheet) == 0).all(axis=2).sum()
    assert black == 8 * TILE * TILE
