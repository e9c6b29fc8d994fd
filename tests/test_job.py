"""The main job from end to end: what it writes, what it promises, and that the photos are only read."""

import hashlib
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.errors import ConfigError, DataError, OutputError


def tree_hash(folder: Path) -> str:
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        digest.update(f"{path}\0{status.st_mode}\0{status.st_mtime_ns}\0".encode())
        if path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()


@pytest.mark.usefixtures("ready_cache")
def test_training_writes_a_complete_run_and_leaves_the_photos_untouched(photo_folder: Path, tmp_path: Path) -> None:
    before = tree_hash(photo_folder)
    run = headstart.train(photo_folder, tmp_path / "run")
    headstart.scan(photo_folder)
    run.evaluate(photo_folder)
    assert tree_hash(photo_folder) == before
    names = {path.name for path in run.path.iterdir()}
    assert names >= {"metrics.json", "plan.json", "config.json", "model.safetensors", "model.json", "predictions.csv"}
    assert names >= {"report.html", "manifest.json"}
    metrics = json.loads((run.path / "metrics.json").read_text())
    assert metrics["classes"] == ["bars", "disks"]
    assert metrics["data"]["train"] + metrics["data"]["test"] == metrics["data"]["used"] == 48
    assert metrics["test"]["accuracy"] >= 0.9
    assert np.sum(metrics["test"]["confusion"]) == metrics["data"]["test"]
    assert metrics["features"] == {"computed": 48, "reused": 0}
    assert set(metrics["timings"]) >= {"total", "start", "scan", "features", "fit", "evaluate", "write"}


@pytest.mark.usefixtures("ready_cache")
def test_a_second_training_computes_nothing_and_gives_the_same_model(photo_folder: Path, tmp_path: Path) -> None:
    first = headstart.train(photo_folder, tmp_path / "a")
    second = headstart.train(photo_folder, tmp_path / "b")
    assert second.metrics["features"] == {"computed": 0, "reused": 48}
    assert (first.path / "model.safetensors").read_bytes() == (second.path / "model.safetensors").read_bytes()
    assert (first.path / "predictions.csv").read_bytes() == (second.path / "predictions.csv").read_bytes()


@pytest.mark.usefixtures("ready_cache")
def test_a_photo_replaced_by_other_bytes_of_the_same_size_and_time_is_noticed(
    photo_folder: Path, tmp_path: Path
) -> None:
    import os

    headstart.train(photo_folder, tmp_path / "a")
    victim = photo_folder / "bars" / "00.png"
    status = victim.stat()
    picture = np.asarray(Image.open(victim)).copy()
    picture[0, 0] ^= 255
    Image.fromarray(picture).save(victim)
    data = victim.read_bytes()[: status.st_size]
    victim.write_bytes(data + b"\0" * (status.st_size - len(data)))
    os.utime(victim, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert victim.stat().st_size == status.st_size
    second = headstart.train(photo_folder, tmp_path / "b")
    assert second.metrics["features"]["computed"] == 1


@pytest.mark.usefixtures("ready_cache")
def test_adding_photos_computes_only_the_new_ones(photo_folder: Path, tmp_path: Path) -> None:
    headstart.train(photo_folder, tmp_path / "a")
    for number in range(3):
        picture = np.random.default_rng(100 + number).integers(0, 255, (60, 60, 3), dtype=np.uint8)
        Image.fromarray(picture).save(photo_folder / "disks" / f"new{number}.png")
    second = headstart.train(photo_folder, tmp_path / "b")
    assert second.metrics["features"] == {"computed": 3, "reused": 48}


@pytest.mark.usefixtures("ready_cache")
def test_the_same_prediction_comes_from_the_stored_test_the_api_and_the_full_network(
    photo_folder: Path, tmp_path: Path
) -> None:
    import torch

    run = headstart.train(photo_folder, tmp_path / "run")
    loaded = headstart.load(tmp_path / "run")
    header, *lines = (run.path / "predictions.csv").read_text().splitlines()
    columns = header.split(",")
    for line in lines[:4]:
        row = dict(zip(columns, line.split(","), strict=True))
        told = loaded.predict(photo_folder / row["path"])
        assert told.label == row["predicted"]
        assert told.probability == pytest.approx(float(row["probability"]), abs=1e-6)
    assert torch.is_grad_enabled()


@pytest.mark.usefixtures("ready_cache")
def test_an_existing_run_is_never_overwritten_unless_asked(photo_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    (out / "mine.txt").write_text("keep")
    begun = time.monotonic()
    with pytest.raises(OutputError, match="exists"):
        headstart.train(photo_folder, out)
    assert time.monotonic() - begun < 2  # it says so before any work
    assert (out / "mine.txt").read_text() == "keep"


def test_a_wrong_setting_stops_before_any_photo_is_read(photo_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown setting 'epocs'"):
        headstart.TrainConfig.from_dict({"epocs": 3})
    with pytest.raises(ConfigError, match=r"test_fraction must lie between 0\.05 and 0\.5; received 0\.9"):
        headstart.TrainConfig(test_fraction=0.9)


def test_a_setting_of_the_wrong_type_is_one_clear_error() -> None:
    # In a process of its own: here the test's type checker would object first.
    code = (
        "import headstart\n"
        "try:\n    headstart.TrainConfig(seed='3')\n"
        "except headstart.HeadstartError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "setting seed must be int; received '3'"


@pytest.mark.usefixtures("ready_cache")
def test_other_data_with_an_unknown_class_is_refused_by_name(photo_folder: Path, tmp_path: Path) -> None:
    run = headstart.train(photo_folder, tmp_path / "run")
    (photo_folder / "disks").rename(photo_folder / "rings")
    with pytest.raises(DataError, match="rings"):
        run.evaluate(photo_folder)


@pytest.mark.usefixtures("ready_cache")
def test_the_fast_path_imports_neither_torch_nor_scikit_learn(photo_folder: Path, tmp_path: Path) -> None:
    code = f"""
import sys, headstart
run = headstart.train({str(photo_folder)!r}, {str(tmp_path / "run")!r})
headstart.scan({str(photo_folder)!r})
again = headstart.load({str(tmp_path / "run")!r})
again.predict({str(photo_folder / "bars" / "00.png")!r})
again.evaluate({str(photo_folder)!r})
heavy = [name for name in ("torch", "sklearn", "scipy", "torchvision", "pandas", "matplotlib") if name in sys.modules]
print(heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "[]"


@pytest.mark.full
@pytest.mark.parametrize(("backbone", "least"), [("efficientnet-lite0", 0.94), ("efficientnet-lite1", 0.955)])
def test_ants_and_bees_reach_the_accuracy_that_a_linear_probe_is_known_for(
    shared_data: Path, tmp_path: Path, backbone: str, least: float
) -> None:
    config = headstart.TrainConfig(backbone=backbone)
    run = headstart.train(shared_data / "ants_bees", tmp_path / "run", config=config)
    assert run.metrics["test"]["accuracy"] >= least
