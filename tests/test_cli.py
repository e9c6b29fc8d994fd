"""The command line: exit codes, one clear line for each fault, JSON alone on stdout, and a quick start."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from headstart.__main__ import main

PROGRAM = [sys.executable, "-m", "headstart"]


def headstart(*arguments: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [*PROGRAM, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, **options)  # type: ignore[call-overload]


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    """Run in this process; return the exit code and stderr after checking that it is one clean line."""
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1, captured.err
    assert "Traceback" not in captured.err and "internal error" not in captured.err
    assert captured.out == ""
    return code, lines[0]


def write_photo(path: Path, shade: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.effect_noise((64, 64), 40 + shade).convert("RGB").save(path)


def test_a_missing_folder_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("scan", "train"):
        code, line = fails(capsys, command, tmp_path / "nowhere")
        assert code == 1 and "nowhere" in line


def test_an_empty_folder_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, "train", tmp_path)
    assert code == 1 and "sub-folder" in line


def test_a_single_class_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number in range(4):
        write_photo(tmp_path / "photos" / "only" / f"{number}.png", number)
    code, line = fails(capsys, "train", tmp_path / "photos", "--out", tmp_path / "run")
    assert code == 1 and "only" in line and "class" in line


@pytest.mark.usefixtures("ready_cache")
def test_a_class_with_one_photo_is_one_clear_line_with_its_name(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_photo(photo_folder / "lonely" / "one.png")
    code, line = fails(capsys, "train", photo_folder, "--out", tmp_path / "run", "--quiet")
    assert code == 1 and "lonely" in line and "1" in line


@pytest.mark.usefixtures("ready_cache")
def test_unreadable_everything_is_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for label in ("a", "b"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(5):
            (tmp_path / "photos" / label / f"{number}.jpg").write_bytes(b"no picture")
    code, line = fails(capsys, "train", tmp_path / "photos", "--out", tmp_path / "run", "--quiet")
    assert code == 1 and "photos" in line


def test_a_manifest_without_a_label_column_names_the_columns_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.csv").write_text("file,kind\na.jpg,cat\n")
    code, line = fails(capsys, "scan", tmp_path / "list.csv")
    assert code == 1 and "kind" in line and "label" in line


@pytest.mark.usefixtures("ready_cache")
def test_a_test_label_that_training_lacks_is_one_clear_line(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    (data / "train").mkdir(parents=True)
    photo_folder.joinpath("bars").rename(data / "train" / "bars")
    photo_folder.joinpath("disks").rename(data / "train" / "disks")
    for label in ("bars", "disks", "stranger"):
        for number in range(3):
            write_photo(data / "test" / label / f"{number}.png", number)
    code, line = fails(capsys, "train", data, "--out", tmp_path / "run", "--quiet")
    assert code == 1 and "stranger" in line


def test_an_unknown_backbone_names_the_known_ones(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, line = fails(capsys, "train", photo_folder, "--backbone", "resnet9000", "--out", tmp_path / "r", "--quiet")
    assert code == 1 and "efficientnet-lite0" in line


def test_a_corrupt_run_and_a_missing_run_are_one_clear_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, line = fails(capsys, "report", tmp_path / "gone")
    assert code == 1 and "gone" in line
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{")
    code, line = fails(capsys, "report", tmp_path / "run")
    assert code == 1 and "manifest.json" in line


def test_wrong_usage_is_exit_code_2(tmp_path: Path) -> None:
    for arguments in (["fly"], ["train"], ["scan", tmp_path, "--threads", "many"], ["cache", "prune"]):
        done = headstart(*arguments)
        assert done.returncode == 2, arguments
        assert done.stdout == "" and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("stop", "words"),
    [
        (KeyboardInterrupt(), "Nothing half-written is left; run the same command again"),
        (KeyboardInterrupt("the state is in a.training"), "What was finished is kept: the state is in a.training."),
    ],
)
def test_what_an_interrupted_command_says_is_true_of_it(
    stop: KeyboardInterrupt, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(_: list[str]) -> int:
        raise stop

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr("headstart.cli.run", interrupted)
    try:
        assert main(["scan", "photos"]) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert words in capsys.readouterr().err


def test_an_interrupted_command_leaves_with_130_and_few_words(photo_folder: Path) -> None:
    process = subprocess.Popen(
        [*PROGRAM, "scan", str(photo_folder)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.35)
    process.send_signal(signal.SIGINT)
    _, messages = process.communicate(timeout=10)
    assert process.returncode in (130, 0)
    assert "Traceback" not in messages and len(messages.splitlines()) <= 3


@pytest.mark.usefixtures("ready_cache")
def test_scan_prints_one_json_document_and_exit_code_3_when_a_file_is_skipped(photo_folder: Path) -> None:
    done = headstart("scan", photo_folder, "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["classes"] == {"bars": 24, "disks": 24}
    (photo_folder / "bars" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = headstart("--json", "scan", photo_folder)
    assert done.returncode == 3
    assert [item["path"] for item in json.loads(done.stdout)["skipped"]] == ["bars/broken.jpg"]


@pytest.mark.usefixtures("ready_cache")
def test_train_predict_evaluate_compare_report_work_as_programs(photo_folder: Path, tmp_path: Path) -> None:
    done = headstart("train", photo_folder, "--out", tmp_path / "one", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["run"].endswith("one")
    done = headstart("train", photo_folder, "--out", tmp_path / "two", "--head", "centroid", "--quiet")
    assert done.returncode == 0 and done.stderr == ""
    assert re.search(r"Test accuracy \d+\.\d % on \d+ photos", done.stdout)
    (photo_folder / "bars" / "broken.jpg").write_bytes(b"\xff\xd8\xff")
    done = headstart("predict", tmp_path / "one", photo_folder / "bars", "--format", "jsonl")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 3 and len(rows) == 25
    assert sum("error" in row for row in rows) == 1
    assert all(abs(sum(row["probabilities"].values()) - 1) < 1e-5 for row in rows if "error" not in row)
    done = headstart("evaluate", tmp_path / "one", photo_folder, "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["n"] == 48
    done = headstart("compare", tmp_path / "one", tmp_path / "two", "--json")
    assert done.returncode == 0 and isinstance(json.loads(done.stdout), dict)
    assert headstart("report", tmp_path / "one").stdout.rstrip().endswith("report.html")


@pytest.mark.usefixtures("ready_cache")
def test_cache_and_doctor_answer_in_words_and_in_json() -> None:
    for arguments in (["cache", "info"], ["cache", "verify"], ["cache", "prune", "--older-than", "30"], ["doctor"]):
        plain, structured = headstart(*arguments), headstart(*arguments, "--json")
        assert plain.returncode == structured.returncode == 0, plain.stderr + structured.stderr
        assert plain.stdout.strip() and isinstance(json.loads(structured.stdout), dict)


def test_a_reader_that_leaves_early_is_no_error(photo_folder: Path) -> None:
    shell = f"{' '.join(PROGRAM)} scan '{photo_folder}' | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", shell], capture_output=True, text=True, check=False, timeout=60)
    assert "Traceback" not in done.stderr


def fastest(command: list[str], tries: int = 5) -> float:
    times = []
    for _ in range(tries):
        begun = time.perf_counter()
        subprocess.run(command, capture_output=True, check=True, env={**os.environ, "PYTHONDONTWRITEBYTECODE": ""})
        times.append(time.perf_counter() - begun)
    return min(times)


def test_help_and_import_load_nothing_heavy() -> None:
    code = (
        "import sys, headstart; print([n for n in ('numpy', 'torch', 'PIL', 'openvino', 'click') if n in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    code = (
        "import sys\nfrom headstart.cli import run\nrun(['--help'])\n"
        "print([n for n in ('numpy', 'torch', 'PIL', 'openvino') if n in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.strip() == "[]" and "train" in done.stdout
