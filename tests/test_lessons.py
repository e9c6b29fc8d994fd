"""The commands of what a layer does: the textbook numbers as a user gets them, and bad input as one clear line."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.__main__ import main


def told(capsys: pytest.CaptureFixture[str], *arguments: object) -> dict:
    assert main([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = main([*map(str, arguments)])
    captured = capsys.readouterr()
    assert captured.out == "" and "Traceback" not in captured.err
    return code, captured.err


def test_sixteen_filters_of_2x2_on_200x200_have_80_parameters(capsys: pytest.CaptureFixture[str]) -> None:
    layer = told(capsys, "shape", "conv", "--input", "200x200x1", "--filters", 16, "--kernel", 2, "--stride", 2)
    assert (layer["output"], layer["parameters"]) == ([100, 100, 16], 80)


def test_pooling_100x100x15_gives_50_or_with_stride_1_99(capsys: pytest.CaptureFixture[str]) -> None:
    assert told(capsys, "shape", "pool", "--input", "100x100x15")["output"] == [50, 50, 15]
    assert told(capsys, "shape", "pool", "--input", "100x100x15", "--stride", 1)["output"] == [99, 99, 15]


def test_windows_that_do_not_fit_say_what_is_cut_off(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shape", "conv", "--input", "7x7x1", "--filters", "1", "--kernel", "3", "--stride", "3"]) == 0
    text = capsys.readouterr().out
    assert "2 x 2 x 1" in text and "the windows do not fit" in text and "never read       1 of" in text


def test_the_curve_detector_gives_6600_and_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["filter", "--demo", "curve"]) == 0
    text = capsys.readouterr().out
    assert "(50*30) + (50*30) + (50*30) + (20*30) + (50*30) = 6600" in text and "another line: 0" in text


def test_a_filter_writes_its_picture_its_numbers_and_its_arrays(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = np.zeros((12, 12), np.uint8)
    step[6:] = 200
    Image.fromarray(step).save(tmp_path / "step.png")
    result = told(
        capsys, "filter", tmp_path / "step.png", "--kernel", "[[-1],[1]]", "--at", "5,0", "--out", tmp_path / "o"
    )
    assert result["results"][0]["at"]["sum"] == 200.0
    response = np.load(tmp_path / "o" / "response-0.npy")
    assert response.shape == (11, 12) and response[5].tolist() == [200.0] * 12 and response[4].max() == 0
    with Image.open(tmp_path / "o" / "filter.png") as picture:
        assert picture.size[0] > 100


@pytest.mark.parametrize(
    ("net", "parameters"), [("vgg16", 138_357_544), ("lenet", 61_706), ("efficientnet-lite0", 4_652_008)]
)
def test_the_table_of_a_net_adds_up_to_the_published_count(
    net: str, parameters: int, capsys: pytest.CaptureFixture[str]
) -> None:
    table = told(capsys, "summary", net)
    assert table["total_parameters"] == parameters == sum(row["parameters"] for row in table["layers"])


def test_gains_are_told_layer_by_layer(capsys: pytest.CaptureFixture[str]) -> None:
    document = told(capsys, "layers", "gains", "lenet", "--init", "he")
    assert len(document["layers"]) == 5


def test_gains_can_be_measured_on_the_users_own_photos(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos = []
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 255, (40, 50, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        photos += ["--image", tmp_path / f"{number}.png"]
    on_photos = told(capsys, "layers", "gains", "LeNet", "--init", "he", *photos)
    on_noise = told(capsys, "layers", "gains", "lenet", "--init", "he")
    assert len(on_photos["layers"]) == 5 and on_photos["layers"] != on_noise["layers"]
    code, line = refused(capsys, "layers", "gains", "lenet", "--image", tmp_path / "none.png")
    assert code == 1 and "no such file" in line


def test_bad_input_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conv = ["shape", "conv", "--input", "7x7x1", "--filters", 1]
    assert refused(capsys, *conv, "--kernel", 9) == (
        1,
        "Error: window spans 9 px but the padded input is 7 px (size=7, padding=0+0, kernel=9, dilation=1); "
        "use a larger image, a smaller kernel or more padding\n",
    )
    code, line = refused(capsys, *conv, "--kernel", 3, "--stride", 0)
    assert code == 1 and "stride is 0" in line
    code, line = refused(capsys, *conv, "--kernel", "3by3")
    assert code == 2 and "--kernel must be N or NxN" in line
    (tmp_path / "note.jpg").write_text("no picture")
    code, line = refused(capsys, "filter", tmp_path / "note.jpg")
    assert code == 1 and "note.jpg" in line
    Image.new("L", (8, 8)).save(tmp_path / "small.png")
    code, line = refused(capsys, "filter", tmp_path / "small.png", "--kernel", "[[1,2],[3]]")
    assert code == 2 and "rows have different lengths" in line
    code, line = refused(capsys, "summary", "nonet")
    assert code == 2 and "vgg16" in line
