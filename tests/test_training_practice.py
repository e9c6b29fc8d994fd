"""`headstart lr` and `headstart check`: a folder of photos in, a rate with its drawing and a diagnosis out."""

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner, Result

from headstart.cli import cli
from headstart.errors import HeadstartError

torch.set_num_threads(1)  # as the fixture does for tests that have torch from the start
SMALL = ("--net", "mlp", "--image-size", "16", "--colour", "gray", "--batch-size", "16", "--quiet")


def call(*words: object) -> Result:
    return CliRunner().invoke(cli, [*map(str, words)], standalone_mode=False)


def test_lr_names_a_rate_and_draws_it(photo_folder: Path, tmp_path: Path) -> None:
    result = call("lr", photo_folder, *SMALL, "--steps", 20, "--out", tmp_path / "rates.svg", "--json")
    assert result.return_value == 0, result.exception
    document = json.loads(result.stdout)
    rates = [trial["rate"] for trial in document["sweep"]]
    assert rates == sorted(rates) and document["suggestion"] in rates and len(rates) == 7
    assert {trial["verdict"] for trial in document["sweep"]} <= {"too low", "good", "bouncing", "diverged"}
    assert (tmp_path / "rates.svg").read_text().startswith("<svg")


def test_check_passes_where_photos_can_be_told_apart(photo_folder: Path) -> None:
    result = call("check", photo_folder, *SMALL, "--json")
    document = json.loads(result.stdout)
    assert document["passed"] and document["attempt"]["photos"] == 48 and result.return_value == 0


def test_check_says_what_is_wrong_and_exits_1(photo_folder: Path) -> None:
    result = call("check", photo_folder, *SMALL, "--learning-rate", "1e-9")
    assert result.return_value == 1
    assert result.stdout.startswith("failed: ") and "The learning rate is too low: 1e-09." in result.stdout


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--net", "lenot"), "unknown net 'lenot'"),
        (("--net", "mlp", "--optimiser", "admm"), "admm"),
        (("--net", "small-cnn", "--image-size", "2"), "small-cnn"),
        (("--net", "mlp", "--batch-size", "-3"), "batch_size"),
    ],
)
def test_wrong_settings_are_refused_in_one_line(photo_folder: Path, arguments: tuple[str, ...], said: str) -> None:
    result = call("check", photo_folder, *arguments, "--quiet")
    assert isinstance(result.exception, HeadstartError)
    assert said in str(result.exception) and "\n" not in str(result.exception)


def test_a_drawing_that_cannot_be_written_is_refused_before_any_training(tmp_path: Path) -> None:
    result = call("lr", tmp_path / "nothing", "--net", "mlp", "--out", "rates.bmp")
    assert "an .svg or a .png file" in str(result.exception)
