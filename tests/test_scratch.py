"""Training a network from random weights, end to end: what it writes, what it promises, and what it refuses."""

import csv
import dataclasses
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart import nets
from headstart.__main__ import main
from headstart.backbones.engines import open_engine
from headstart.classifier import Classifier
from headstart.cli import train as train_command
from headstart.config import AUGMENTS, LOSSES, OPTIMISERS, SCHEDULES, TrainConfig
from headstart.errors import ConfigError, OutputError, RunError
from headstart.images import decode
from headstart.job.unfinished import Unfinished, folder_of
from headstart.preprocess import Preprocessing
from headstart.runs import list_runs, load_run
from headstart.runs.modelfile import identity, pack, unpack
from headstart.runs.places import TRAINING, new_run_path

torch = pytest.importorskip("torch")

QUICK = {"net": "small-cnn", "threads": 1, "batch_size": 32, "learning_rate": 0.004, "epochs": 4}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[headstart.Run]:
    """The 1,797 digits of scikit-learn, 8 x 8 pixels, learned by a small net; its cache stays for the module."""
    pytest.importorskip("sklearn")
    folder = tmp_path_factory.mktemp("digits")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(folder / "cache"))
        yield headstart.train("digits", folder / "run", config=TrainConfig(**QUICK))


@pytest.fixture
def same_cache(trained: headstart.Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(trained.path.parent / "cache"))


@pytest.fixture
def digit_files(tmp_path: Path) -> list[Path]:
    """Digits as PNG files, as a user would have them."""
    from sklearn.datasets import load_digits

    files = []
    for number in range(12):
        pixels = np.rint(load_digits().images[number] * (255 / 16)).astype(np.uint8)
        files.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(files[-1])
    return files


def test_digits_are_learned_and_everything_a_run_has_is_there(trained: headstart.Run) -> None:
    metrics = trained.metrics
    assert metrics["test"]["accuracy"] > 0.8  # chance is 0.1
    names = {path.name for path in trained.path.iterdir()}
    assert names == {
        *("metrics.json", "plan.json", "config.json", "model.json", "model.safetensors", "manifest.json"),
        *("predictions.csv", "history.csv", "report.html"),
    }
    assert not folder_of(trained.path).exists()
    assert (metrics["plan"]["case"], metrics["plan"]["strategy"]) == ("scratch", "scratch")
    assert metrics["plan"]["net"] == "small-cnn" and all(sentence.endswith(".") for sentence in metrics["plan"]["why"])
    assert metrics["data"]["train"] + metrics["data"]["validation"] + metrics["data"]["test"] == metrics["data"]["used"]
    assert set(metrics["timings"]) >= {"total", "start", "scan", "fit", "evaluate", "write"}
    header, *rows = (trained.path / "history.csv").read_text().splitlines()
    assert header.startswith("epoch,loss,accuracy,val_loss,val_accuracy") and len(rows) == 4
    assert [row.split(",")[0] for row in rows] == ["1", "2", "3", "4"]


def test_the_validation_photos_are_a_fifth_of_what_is_left_of_the_test(trained: headstart.Run) -> None:
    data = trained.metrics["data"]
    assert abs(data["test"] - 0.2 * 1797) <= 10 and abs(data["validation"] - 0.2 * (1797 - data["test"])) <= 10
    assert sum(map(sum, trained.metrics["validation"]["confusion"])) == data["validation"]


@pytest.mark.usefixtures("same_cache")
def test_the_engine_and_torch_give_the_same_logits_for_a_gray_net(
    trained: headstart.Run, digit_files: list[Path]
) -> None:
    classifier = load_run(trained.path).classifier
    prepared = classifier.backbone.preprocessing
    assert prepared.channels == 1 and prepared.shape == (8, 8, 1)
    photos = [prepared.apply(decode(path.read_bytes())) for path in digit_files]
    with torch.inference_mode():
        expected = classifier.full_network(probabilities=False)(torch.from_numpy(np.stack(photos))).numpy()
    for kind in ("openvino", "torch"):
        engine = open_engine(classifier.backbone, cuts=("pooled",), kind=kind, threads=1)
        features = np.stack([found["pooled"] for _, found in engine.run(enumerate(photos))])
        np.testing.assert_allclose(classifier.logits_from_features(features), expected, atol=1e-4, rtol=1e-4)


@pytest.mark.usefixtures("same_cache")
def test_the_command_predicts_what_the_trained_net_says_in_torch(
    trained: headstart.Run, digit_files: list[Path], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["predict", str(trained.path), *map(str, digit_files), "--format", "jsonl", "--topk", "10"]) == 0
    told = [json.loads(line)["probabilities"] for line in capsys.readouterr().out.splitlines()]
    classifier = trained.classifier
    net = classifier.backbone.net()
    for answer, path in zip(told, digit_files, strict=True):
        levels = torch.from_numpy(np.asarray(Image.open(path)).astype(np.float32))[None, None]
        mean, std = classifier.backbone.preprocessing.mean[0], classifier.backbone.preprocessing.std[0]
        with torch.inference_mode():
            expected = torch.softmax(net((levels - mean) / std) / classifier.temperature, dim=1)[0]
        assert [answer[str(digit)] for digit in range(10)] == pytest.approx(expected.tolist(), abs=1e-5)


@pytest.mark.usefixtures("same_cache")
def test_compare_evaluate_and_report_work_on_a_trained_net(
    trained: headstart.Run, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["compare", str(trained.path), str(trained.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["photos"]["common"] == trained.metrics["data"]["test"]
    assert main(["report", str(trained.path)]) == 0
    assert "small-cnn from random weights, 4 epochs" in capsys.readouterr().out
    judged = trained.evaluate("digits", threads=1)
    used = trained.metrics["data"]["used"]
    assert judged["n"] == used and judged["accuracy"] > 0.8


def test_predicting_with_a_trained_net_does_not_import_torch(trained: headstart.Run, digit_files: list[Path]) -> None:
    import os
    import subprocess
    import sys

    code = (
        f"import sys, headstart; headstart.load({str(trained.path)!r}).predict({str(digit_files[0])!r}); "
        "print('torch' in sys.modules)"
    )
    env = {**os.environ, "HEADSTART_CACHE": str(trained.path.parent / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.strip() == "False", done.stderr


def test_the_report_shows_both_curves_with_the_best_epoch(trained: headstart.Run) -> None:
    page = (trained.path / "report.html").read_text()
    part = page.split('id="training"')[1].split("</section>")[0]
    assert part.count('class="train"') == part.count('class="valid"') == 2 and part.count('class="ideal"') == 2
    rows = [line.split(",") for line in (trained.path / "history.csv").read_text().splitlines()[1:]]
    best = min(rows, key=lambda row: float(row[3]))[0]
    assert f"epoch {best}: the lowest validation loss" in part


@pytest.mark.usefixtures("same_cache")
def test_the_same_seed_gives_the_same_model_and_report(trained: headstart.Run, tmp_path: Path) -> None:
    again = headstart.train("digits", tmp_path / "run", config=TrainConfig(**QUICK))
    for name in ("model.safetensors", "model.json", "predictions.csv", "plan.json", "config.json"):
        assert (again.path / name).read_bytes() == (trained.path / name).read_bytes(), name
    assert timeless(again.path) == timeless(trained.path)


def timeless(run: Path) -> str:
    """The report without times, and without the name of the run."""
    page = (run / "report.html").read_text().replace(str(run), "RUN")
    page = re.sub(r"<h3>Where the time went</h3>.*?</table>", "", page, flags=re.DOTALL)
    return re.sub(r"[\d.]+&nbsp;(ms|s|min)\b", "TIME", page)


@pytest.mark.usefixtures("own_cache")
def test_the_labels_of_the_test_photos_change_nothing_of_the_net(photo_folder: Path, tmp_path: Path) -> None:
    models, accuracies = [], []
    for number, other in enumerate(({"bars": "bars", "disks": "disks"}, {"bars": "disks", "disks": "bars"})):
        data = tmp_path / str(number)
        for label in ("bars", "disks"):
            photos = sorted((photo_folder / label).iterdir())
            for folder, chosen in ((data / "train" / label, photos[:16]), (data / "test" / other[label], photos[16:])):
                folder.mkdir(parents=True)
                for photo in chosen:
                    shutil.copy(photo, folder)
        config = TrainConfig(net="small-cnn", image_size=16, threads=1, batch_size=8, epochs=2)
        run = headstart.train(data, tmp_path / f"run{number}", config=config)
        models.append([(run.path / name).read_bytes() for name in ("model.safetensors", "model.json")])
        accuracies.append(run.metrics["test"]["accuracy"])
    assert models[0] == models[1]
    assert accuracies[0] + accuracies[1] == pytest.approx(1)


@pytest.mark.usefixtures("own_cache")
def test_colour_photos_train_a_colour_net_and_leave_the_folder_untouched(photo_folder: Path, tmp_path: Path) -> None:
    before = sorted((path, path.lstat().st_mtime_ns) for path in photo_folder.rglob("*"))
    config = TrainConfig(net="CIFAR-CNN", image_size=16, threads=1, batch_size=8, epochs=2, augment="photos")
    run = headstart.train(photo_folder, tmp_path / "run", config=config)
    assert run.classifier.backbone.preprocessing.shape == (16, 16, 3)
    assert run.predict(photo_folder / "bars" / "00.png").error is None
    assert sorted((path, path.lstat().st_mtime_ns) for path in photo_folder.rglob("*")) == before
    assert run.config["net"] == "cifar-cnn"


@pytest.mark.usefixtures("own_cache")
def test_a_net_without_a_dense_last_layer_gets_a_head_that_changes_nothing(tmp_path: Path) -> None:
    from headstart.job.joining import classifier_of

    prepared = Preprocessing(32, 1.0, (30.0,), (70.0,))
    net = nets.build_net("lenet:paper", classes=3)
    backbone, cut, head = classifier_of(net, "lenet:paper", {"classes": 3, "in_channels": 1}, prepared)
    assert (cut, head.kind, head.length) == ("logits", "identity", 3)
    classifier = Classifier(backbone, cut, head, ("a", "b", "c"))
    again = unpack(*pack(classifier), "run")
    photos = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 1), dtype=np.uint8)
    with torch.inference_mode():
        expected = net.eval()((torch.from_numpy(photos).permute(0, 3, 1, 2).float() - 30) / 70).numpy()
        whole = again.full_network(probabilities=False)(torch.from_numpy(photos)).numpy()
    features = np.stack([found["logits"] for _, found in again.engine_for(1).run(enumerate(photos))])
    np.testing.assert_allclose(again.logits_from_features(features), expected, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(whole, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("own_cache")
def test_a_run_whose_photo_size_no_tensor_can_have_is_refused(trained: headstart.Run) -> None:
    model, weights = pack(trained.classifier)
    model["backbone"]["options"]["input_size"] = [40_000, 40_000]
    with pytest.raises(RunError, match="do not fit its weights"):
        unpack({**model, "identity": identity(model)}, weights, "run")


# --- what is refused ------------------------------------------------------------------------------------------------


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    lines = [line for line in captured.err.splitlines() if line.startswith("Error: ")]
    assert code == 1 and len(lines) == 1 and "Traceback" not in captured.err and "internal error" not in captured.err
    return lines[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--net", "lenett"], ["unknown net 'lenett'", "lenet", "resnet18"]),
        (["--net", "lenet", "--optimiser", "adamm"], ["unknown optimiser 'adamm'", "adam", "sgd"]),
        (["--net", "lenet", "--schedule", "triangle"], ["unknown schedule 'triangle'", "one-cycle"]),
        (["--net", "lenet", "--augment", "fotos"], ["unknown augment 'fotos'", "photos"]),
        (["--net", "lenet", "--learning-rate", "-1"], ["learning_rate", "-1"]),
        (["--net", "lenet", "--batch-size", "1000"], ["1,000", "30 training photos", "--batch-size 7"]),
        (["--net", "lenet", "--image-size", "8", "--batch-size", "4"], ["8 x 8", "smaller than lenet needs", "28"]),
        (["--net", "alexnet", "--image-size", "40", "--batch-size", "4"], ["40 x 40", "smaller than alexnet needs"]),
        (["--net", "small-cnn", "--image-size", "30", "--batch-size", "4"], ["30 x 30", "--image-size 32"]),
        (["--net", "lenet", "--strategy", "head"], ["--net", "strategy head"]),
        (["--strategy", "scratch", "--views", "2"], ["--views", "--strategy deeper"]),
        (["--strategy", "head", "--budget", "1m"], ["--budget", "strategy auto"]),
        (["--strategy", "deeper", "--cut", "pooled_map"], ["--cut", "stage5"]),
        (["--strategy", "early", "--net", "lenet"], ["--net", "strategy early"]),
        (["--net", "lenet", "--head", "ridge"], ["--head", "leave --net out"]),
        (["--epochs", "3"], ["--epochs", "add --net"]),
        (["--resume"], ["--net"]),
    ],
)
@pytest.mark.usefixtures("own_cache")
def test_what_cannot_be_trained_is_one_clear_line(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], words: list[str]
) -> None:
    line = fails(capsys, "train", photo_folder, "--out", tmp_path / "run", "--quiet", *options)
    assert all(word in line for word in words), line
    assert not (tmp_path / "run").exists() and not folder_of(tmp_path / "run").exists()


@pytest.mark.usefixtures("own_cache")
def test_a_training_that_diverges_says_so_and_leaves_nothing_behind(
    photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    size = ["--image-size", "16", "--batch-size", "8", "--threads", "1"]
    rate = ["--optimiser", "sgd", "--learning-rate", "100", "--schedule", "constant", "--loss", "cross-entropy"]
    line = fails(capsys, "train", photo_folder, "--net", "small-cnn", *size, *rate, "--out", tmp_path / "run")
    assert "diverged" in line and "learning rate 100" in line
    assert list(tmp_path.glob("run*")) == []


# --- settings -------------------------------------------------------------------------------------------------------


def test_the_command_offers_exactly_the_settings() -> None:
    beside = {"data", "out", "overwrite", "resume", "checkpoint_seconds", "follow_links", "as_json", "quiet"}
    offered = {option.name for option in train_command.params} - beside
    assert offered == {field.name for field in dataclasses.fields(TrainConfig)}


def test_the_names_in_the_settings_are_those_of_the_tables() -> None:
    from headstart.training import losses, optimisers, presets, schedules

    assert set(OPTIMISERS) == set(optimisers.OPTIMISERS)
    assert set(LOSSES) == set(losses.LOSSES)
    assert set(SCHEDULES) == set(schedules.SCHEDULES)
    assert set(AUGMENTS) == set(presets.PRESETS) | {"none"}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"epochs": 0}, "epochs must lie between 1 and"),
        ({"momentum": 1.0}, "momentum must lie between 0 and"),
        ({"image_size": 5000}, "image_size must lie between 0 and 1024"),
        ({"validation_fraction": 0.9}, r"validation_fraction must lie between 0\.05 and 0\.5"),
        ({"colour": "sepia"}, "unknown colour 'sepia'; choose one of: auto, gray, colour"),
    ],
)
def test_a_setting_out_of_range_is_named(change: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainConfig.from_dict(change)


def test_settings_survive_json() -> None:
    config = TrainConfig(net="lenet", nesterov=True, learning_rate=0.25)
    assert TrainConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


# --- the folder of a training in progress ---------------------------------------------------------------------------


def begun(place: Path, config: TrainConfig, data: str = "abc") -> None:
    """Leave behind what a killed training leaves behind."""
    unfinished = Unfinished(place, resume=False, overwrite=False)
    unfinished.open(config, data)
    unfinished.checkpoint.write_bytes(b"state")
    unfinished.release()


def test_an_interrupted_training_is_never_thrown_away_unasked(tmp_path: Path) -> None:
    begun(tmp_path / "run", TrainConfig(net="lenet"))
    with pytest.raises(
        OutputError, match=r"run\.training holds a training .* --resume, or start anew with --overwrite"
    ):
        Unfinished(tmp_path / "run", resume=False, overwrite=False)
    again = Unfinished(tmp_path / "run", resume=True, overwrite=False)
    assert again.open(TrainConfig(net="lenet", threads=3), "abc")
    again.release()
    assert not Unfinished(tmp_path / "run", resume=False, overwrite=True).open(TrainConfig(net="lenet"), "abc")


def test_other_settings_or_other_data_are_not_resumed(tmp_path: Path) -> None:
    begun(tmp_path / "run", TrainConfig(net="lenet", epochs=3))
    with pytest.raises(RunError, match="begun with epochs 3, now it is 4"):
        Unfinished(tmp_path / "run", resume=True, overwrite=False).open(TrainConfig(net="lenet", epochs=4), "abc")
    with pytest.raises(RunError, match="other photos"):
        Unfinished(tmp_path / "run", resume=True, overwrite=False).open(TrainConfig(net="lenet", epochs=3), "other")
    (folder_of(tmp_path / "run") / "settings.json").write_text("{")
    with pytest.raises(RunError, match=r"settings\.json is damaged"):
        Unfinished(tmp_path / "run", resume=True, overwrite=False).open(TrainConfig(net="lenet", epochs=3), "abc")


def test_two_processes_do_not_train_the_same_run(tmp_path: Path) -> None:
    first = Unfinished(tmp_path / "run", resume=False, overwrite=False)
    first.open(TrainConfig(net="lenet"), "abc")
    with pytest.raises(OutputError, match="another process is training"):
        Unfinished(tmp_path / "run", resume=True, overwrite=False).open(TrainConfig(net="lenet"), "abc")
    first.release()


def test_a_folder_of_something_else_is_neither_used_nor_removed(tmp_path: Path) -> None:
    folder = folder_of(tmp_path / "run")
    folder.mkdir()
    (folder / "thesis.tex").write_text("mine")
    for resume, overwrite in ((False, True), (True, False)):
        with pytest.raises(OutputError, match=r"no training of headstart \(it holds thesis\.tex\)"):
            Unfinished(tmp_path / "run", resume=resume, overwrite=overwrite)
    assert (folder / "thesis.tex").read_text() == "mine"


def test_without_a_name_the_next_run_steps_over_a_training_and_resume_finds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run_path(None, "d") == new_run_path(None, "d", resume=True) == Path("runs/d-1")
    (tmp_path / "runs" / "d-1").mkdir(parents=True)
    (tmp_path / "runs" / f"d-2{TRAINING}").mkdir()
    assert new_run_path(None, "d") == Path("runs/d-3")
    assert new_run_path(None, "d", resume=True) == Path("runs/d-2")
    listed = {summary.path.name: summary for summary in list_runs("runs")}
    assert listed[f"d-2{TRAINING}"].status == "unfinished" and "--resume" in listed[f"d-2{TRAINING}"].problem


def test_the_program_for_several_processes_trains_as_the_command_does_with_the_same_settings(tmp_path: Path) -> None:
    """Learning rate, class weights and the epoch that is kept come from the same settings in both."""
    from headstart.job.together import main as together

    words = ["--net", "lenet", "--epochs", "2", "--batch-size", "64", "--class-weights", "balanced"]
    assert together(["digits", "--out", str(tmp_path / "shared"), *words]) == 0
    config = TrainConfig(net="lenet", epochs=2, batch_size=64, class_weights="balanced")
    headstart.train("digits", tmp_path / "run", config=config)

    def losses(folder: str) -> list[tuple[float, float]]:
        lines = csv.DictReader((tmp_path / folder / "history.csv").read_text().splitlines())
        return [(float(line["loss"]), float(line["val_loss"])) for line in lines]

    assert len(losses("run")) == 2
    assert np.allclose(losses("shared"), losses("run"), rtol=1e-6)
