"""`headstart explain`: what it writes, prints and refuses; and the contract that every method keeps."""

import hashlib
import json
import subprocess
import sys
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.cli import run as command
from headstart.errors import OutputError, UsageError
from headstart.explain import METHODS, Explanation, Subject, default_methods, explain, subject_of
from headstart.explain.bundle import COARSE, folder_names, panels_of, sheet, write_bundle
from headstart.heads import Head
from headstart.look.opening import open_subject
from headstart.nets.efficientnet_lite import EfficientNetLite
from small_subjects import everything, subject_for, subject_of_shape


@pytest.fixture
def trained(ready_cache: Path, photo_folder: Path, tmp_path: Path) -> headstart.Run:
    config = headstart.TrainConfig(strategy="head", threads=1)
    return headstart.train(photo_folder, tmp_path / "run", config=config, quiet=True)


@pytest.fixture
def subject(trained: headstart.Run) -> Subject:
    return subject_of(trained.classifier, "run", 1)


def state_of(subject: Subject) -> str:
    """A hash of everything that looking must leave as it was."""
    net = subject.net
    total = hashlib.sha256(torch.get_rng_state().numpy().tobytes() + str(np.random.get_state()).encode())
    for name, tensor in sorted(net.state_dict().items()):
        total.update(name.encode() + tensor.numpy().tobytes())
    for name, parameter in net.named_parameters():
        total.update(f"{name} {parameter.requires_grad} {parameter.grad is None}".encode())
    for name, module in net.named_modules():
        hooks = (module._forward_hooks, module._backward_hooks, module._forward_pre_hooks)
        total.update(f"{name} {module.training} {[len(kind) for kind in hooks]} {'forward' in vars(module)}".encode())
    return total.hexdigest()


QUICK = {"occlusion": {"window": 112, "stride": 112}, "ig": {"gradients": 24}, "deconv": {"anyway": True}}


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_keeps_its_contract(name: str, subject: Subject, photo_folder: Path) -> None:
    path = photo_folder / "disks" / "03.png"
    drawn = torch.get_rng_state()
    before = state_of(subject)
    assert torch.equal(torch.get_rng_state(), drawn)  # making the net has drawn nothing either
    first, other = explain(subject, path, (name,), ("bars", "disks"), settings=QUICK.get(name, {}))
    (again,) = explain(subject, path, (name,), ("bars",), settings=QUICK.get(name, {}))
    assert state_of(subject) == before
    method, size = METHODS[name], subject.preprocessing.size
    assert first.raw.dtype == np.float32
    assert np.isfinite(first.raw).all()
    assert first.raw.tobytes() == again.raw.tobytes()  # the same question, the same bytes
    assert first.raw.shape == (3, size, size) if method.pixels else first.raw.ndim == 2
    assert method.signed or (first.strength >= 0).all()
    assert first.method.class_specific == ("not class-specific" not in first.stamps)
    if method.class_specific:
        assert not np.array_equal(first.raw, other.raw)
    if method.exact_identity:
        assert first.check is not None
        assert first.check.holds or any("not converged" in stamp for stamp in first.stamps)
    _is_told_on_its_picture(first)
    subject.close()


def _is_told_on_its_picture(one: Explanation) -> None:
    """What a map is, where it was taken, what it adds up to, its stamps and its scale stand beside it."""
    panels = panels_of(one)
    assert panels[0].title == f"{one.method.title}: {one.label}"
    lines = panels[0].lines
    assert one.method.sentence in lines and lines[-1].startswith("scale: ")
    assert [line for line in lines if line.startswith("! ")] == [f"! {stamp}" for stamp in one.stamps]
    assert one.method.class_specific == ("! not class-specific" not in lines)
    if one.check is not None:
        assert f"{one.check.law}: {one.check.sum:.4g} of {one.check.target:.4g}" in lines
    if one.found.layer:
        assert f"at {one.found.layer}, {one.raw.shape[-2]} x {one.raw.shape[-1]}" in lines
    assert len(panels) == (2 if max(one.raw.shape) <= COARSE else 1)
    if len(panels) == 2:  # a coarse grid is shown as it is, too
        assert panels[1].title == "The same, a square a value"
    assert str(one).startswith(one.method.title)


def test_an_explanation_never_changes(subject: Subject, photo_folder: Path) -> None:
    (one,) = explain(subject, photo_folder / "bars" / "00.png", ("cam",))
    with pytest.raises(ValueError, match="read-only"):
        one.raw[0, 0] = 99.0
    with pytest.raises(FrozenInstanceError):
        one.target = 1  # type: ignore[misc]
    subject.close()


@pytest.mark.parametrize("method", ["cam", "gradcam", "occlusion"])
def test_a_map_on_which_nothing_speaks_for_the_class_says_so(subject: Subject, photo_folder: Path, method: str) -> None:
    classifier = subject.classifier
    assert classifier is not None
    tensors = {"weight": -np.ones((2, 1280), np.float32), "bias": np.zeros(2, np.float32)}
    doubter = subject_of(replace(classifier, head=Head("logistic", tensors)), "doubter", 1)
    (one,) = explain(doubter, photo_folder / "bars" / "00.png", (method,), settings=QUICK.get(method, {}))
    told = not (one.raw > 0).any()
    assert told or method == "occlusion"  # what is covered may be worse than the grey that covers it
    assert ("no evidence for this class" in one.stamps) == told
    assert ("! no evidence for this class" in panels_of(one)[0].lines) == told
    doubter.close()
    subject.close()


@pytest.mark.parametrize(
    ("shape", "clipped", "classes"),
    [("lenet", None, 10), ("alexnet", True, 5), ("resnet", False, 5), ("nin", None, 5), ("lite", None, 133)],
)
def test_every_method_keeps_its_contract_on_nets_of_every_shape(shape: str, clipped: bool | None, classes: int) -> None:
    """Gray and colour, ReLU and ReLU6, with and without means of maps, with and without max pooling, many classes."""
    if classes == 133:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            net: torch.nn.Module = EfficientNetLite(0.2, 0.5, 72, classes=classes).eval()
        subject = subject_for(net, classes=classes)
    else:
        subject = subject_of_shape(shape, clipped=clipped)
        subject.net.float()
    grey, side = subject.preprocessing.channels == 1, subject.preprocessing.size
    pixels = np.random.default_rng(0).integers(0, 256, (90, 120) if grey else (90, 120, 3), np.uint8)
    photo, before = subject.photo(pixels), everything(subject.net)
    quick = {"occlusion": {"window": side // 2, "stride": side // 2}, "ig": {"gradients": 24}}
    done = set()
    for name, method in METHODS.items():
        if name == "cam" or (method.needs_maxpool and shape == "lite"):
            with pytest.raises(UsageError, match=r"gradcam|guided"):
                explain(subject, photo, (name,))
            continue
        first, other = explain(subject, photo, (name,), ("class 1", f"class {classes - 1}"), settings=quick.get(name))
        assert np.isfinite(first.raw).all() and first.raw.dtype == np.float32
        assert first.raw.shape == (subject.preprocessing.channels, side, side) if method.pixels else first.raw.ndim == 2
        assert not method.class_specific or not np.array_equal(first.raw, other.raw)
        assert first.overlay(240).size == (240, 180)  # the photo's own shape
        _is_told_on_its_picture(first)
        done.add(name)
    assert len(done) >= len(METHODS) - 2
    assert everything(subject.net) == before


def test_a_net_that_was_tuned_behind_a_frozen_part_is_explained(
    ready_cache: Path, photo_folder: Path, tmp_path: Path
) -> None:
    config = headstart.TrainConfig(strategy="deeper", cut="stage7", epochs=1, views=1, again=False, threads=1)
    tuned = headstart.train(photo_folder, tmp_path / "tuned", config=config, quiet=True)
    subject = subject_of(tuned.classifier, "tuned", 1)
    path = photo_folder / "bars" / "00.png"
    cam, grad_cam, guided = explain(subject, path, ("cam", "gradcam", "guided"), ("bars",))
    assert cam.check is not None and cam.check.holds
    scaled = grad_cam.raw * grad_cam.raw.size  # CAM is Grad-CAM times the number of places
    np.testing.assert_allclose(cam.raw, scaled, rtol=1e-3, atol=1e-4 * float(np.abs(cam.raw).max()))
    assert guided.raw.any()
    assert cam.probability == pytest.approx(tuned.predict(path, threads=1).probabilities["bars"], abs=1e-6)
    subject.close()


def test_a_gray_net_from_random_weights_is_explained(photo_folder: Path, tmp_path: Path) -> None:
    config = headstart.TrainConfig(net="lenet", colour="gray", image_size=28, epochs=1, threads=1)
    own = headstart.train(photo_folder, tmp_path / "own", config=config, quiet=True)
    subject = subject_of(own.classifier, "own", 1)
    grad_cam, ig = explain(subject, photo_folder / "disks" / "00.png", ("gradcam", "ig"), ("disks",))
    assert grad_cam.raw.ndim == 2 and ig.raw.shape == (1, 28, 28)
    assert ig.check is not None and ig.check.holds
    subject.close()


def test_the_folder_of_a_photo_holds_numbers_pictures_boxes_and_a_manifest(
    subject: Subject, photo_folder: Path, tmp_path: Path
) -> None:
    found = explain(subject, photo_folder / "bars" / "01.png", ("cam", "occlusion"), ("bars", "disks"), settings={})
    manifest = write_bundle(found, tmp_path / "out")
    written = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert written == json.loads(json.dumps(manifest))
    assert {entry["method"] for entry in written["maps"]} == {"cam", "occlusion"}
    for entry, one in zip(written["maps"], found, strict=True):
        raw = np.load(tmp_path / "out" / entry["files"]["raw"])
        assert np.array_equal(raw, one.raw)
        assert entry["class"] == one.label
        for picture in ("heat", "overlay"):
            with Image.open(tmp_path / "out" / entry["files"][picture]) as image:
                image.verify()
    cams = [entry for entry in written["maps"] if entry["method"] == "cam"]
    assert all(set(entry["check"]) >= {"sum", "target", "residual"} for entry in cams)
    assert all(entry["check"]["residual"] <= 1e-3 for entry in cams)
    difference = np.load(tmp_path / "out" / "bars-minus-disks-cam.npy")
    assert np.allclose(difference, found[0].raw - found[2].raw)
    boxes = json.loads((tmp_path / "out" / "boxes.json").read_text())["boxes"]
    for x0, y0, x1, y1 in (box for box in boxes.values() if box):
        assert 0 <= x0 < x1 <= 96
        assert 0 <= y0 < y1 <= 96
    subject.close()


def test_the_same_question_writes_the_same_bytes(subject: Subject, photo_folder: Path, tmp_path: Path) -> None:
    for place in ("first", "second"):
        write_bundle(explain(subject, photo_folder / "bars" / "01.png", ("cam", "gradient")), tmp_path / place)
    names = sorted(path.name for path in (tmp_path / "first").iterdir() if path.suffix in (".npy", ".png"))
    assert len(names) == 7
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes(), name
    subject.close()


def test_a_folder_of_something_else_is_never_replaced(subject: Subject, photo_folder: Path, tmp_path: Path) -> None:
    found = explain(subject, photo_folder / "bars" / "01.png", ("cam",))
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(OutputError, match="is no explanation"):
        write_bundle(found, tmp_path / "mine", overwrite=True)
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
    write_bundle(found, tmp_path / "own")
    with pytest.raises(OutputError, match="exists already"):
        write_bundle(found, tmp_path / "own")
    write_bundle(found, tmp_path / "own", overwrite=True)
    subject.close()


def test_photos_of_one_name_get_folders_of_their_own() -> None:
    assert folder_names(["a/x.jpg", "b/x.jpg", "b/X.png", "c/x-2.jpg", "../..", "é ü.jpg"]) == [
        "x",
        "x-2",
        "X-3",
        "x-2-2",
        "class",
        "é_ü",
    ]


def test_what_is_asked_wrongly_is_said_in_one_line(subject: Subject, photo_folder: Path) -> None:
    path = photo_folder / "bars" / "01.png"
    with pytest.raises(UsageError, match="unknown method 'camm'; choose from: cam, gradcam"):
        explain(subject, path, ("camm",))
    with pytest.raises(UsageError, match="no class 'cat'; its 2 are: bars, disks"):
        explain(subject, path, ("cam",), ("cat",))
    with pytest.raises(UsageError, match="taken where the head reads, at head"):
        explain(subject, path, ("cam",), layer="stage5")
    with pytest.raises(UsageError, match="no layer 'nowhere'; its stages are: stem, stage1"):
        explain(subject, path, ("gradcam",), layer="nowhere")
    with pytest.raises(UsageError, match="setting 'window'; they have: none"):
        explain(subject, path, ("cam",), settings={"window": 3})
    with pytest.raises(UsageError, match="max pooling"):
        explain(subject, path, ("deconv",))
    subject.close()


def test_a_run_explains_in_python(trained: headstart.Run, photo_folder: Path, tmp_path: Path) -> None:
    told = trained.explain(photo_folder / "disks" / "02.png", label="bars", threads=1)
    assert told.method.name == "cam"
    assert told.label == "bars"
    assert told.check is not None
    assert told.check.holds or abs(told.check.sum - told.check.target) < 1e-4
    assert told.overlay(200).size == (200, 200)
    assert (told.save(tmp_path / "kept") / "manifest.json").is_file()
    said = trained.predict(photo_folder / "disks" / "02.png", threads=1)
    assert told.probability == pytest.approx(said.probabilities["bars"], abs=1e-6)


def test_maps_of_the_fast_engine_need_no_torch(trained: headstart.Run, photo_folder: Path) -> None:
    code = (
        "import sys, headstart\n"
        f"told = headstart.load({str(trained.path)!r}).explain({str(photo_folder / 'bars' / '00.png')!r}, threads=1)\n"
        "print(told.method.name, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cam", "False"]


def test_the_command_explains_what_it_can_and_names_the_rest(
    trained: headstart.Run, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no photo")
    photo = str(photo_folder / "bars" / "05.png")
    common = ["explain", str(trained.path), "--method", "cam", "--out", str(tmp_path / "told"), "--threads", "1"]
    assert command([*common, photo, str(broken), "--expected", "disks", "--quiet", "--json"]) == 3
    document = json.loads(capsys.readouterr().out)
    good, bad = document["photos"]
    assert [entry["class"] for entry in good["maps"]] == list(dict.fromkeys([good["predicted"]["class"], "disks"]))
    assert bad["path"] == str(broken)
    assert "error" in bad
    assert (Path(good["folder"]) / "explanation.png").is_file()
    assert command([*common, photo, "--quiet"]) == 0
    assert "mean of the map + constant = logit" in capsys.readouterr().out
    assert command([*common, str(broken), "--quiet"]) == 1
    assert command([*common, photo, "--class", "cats", "--quiet"]) == 2
    assert "no class 'cats'; its 2 are: bars, disks" in capsys.readouterr().err


def test_each_option_of_the_command_does_what_it_says(
    trained: headstart.Run, photo_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = str(photo_folder / "bars" / "05.png"), str(tmp_path / "told")
    common = ["explain", str(trained.path), photo, "--out", out, "--threads", "1", "--quiet", "--json"]

    def told(*options: str) -> dict[str, Any]:
        assert command([*common, *options]) == 0
        [one] = json.loads(capsys.readouterr().out)["photos"]
        return {entry["method"]: entry for entry in one["maps"]} | {"folder": Path(one["folder"])}

    found = told("--method", "gradcam,occlusion", "--class", "disks", "--layer", "stage5", "--threshold", "0.9")
    assert set(found) == {"gradcam", "occlusion", "folder"}
    assert {found[name]["class"] for name in ("gradcam", "occlusion")} == {"disks"}
    assert found["gradcam"]["layer"] == "stage5"
    assert np.load(found["folder"] / "disks-gradcam.npy").shape == (14, 14)
    narrow, wide = found["gradcam"]["box"], told("--method", "gradcam", "--class", "disks", "--layer", "stage5")
    assert _area(narrow) < _area(wide["gradcam"]["box"])
    windows = told("--method", "occlusion", "--window", "112", "--stride", "56")["occlusion"]["parameters"]
    assert (windows["window"], windows["stride"]) == (112, 56)
    black, grey = (told("--method", "ig", "--baseline", name)["ig"] for name in ("black", "grey"))
    assert black["parameters"]["baseline"] == "black" and black["check"]["target"] != grey["check"]["target"]
    assert command([*common, "--method", "deconv"]) == 2
    assert "--anyway" in capsys.readouterr().err
    assert told("--method", "deconv", "--anyway")["deconv"]["stamps"]


def _area(box: list[int]) -> int:
    return (box[2] - box[0]) * (box[3] - box[1])


def test_gray_nets_without_pooled_maps_are_explained_by_grad_cam() -> None:
    subject = open_subject("lenet")
    assert default_methods(subject) == ("gradcam", "gradient")  # its activation is tanh: guided has no meaning
    photo = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    (one,) = explain(subject, photo, ("gradcam",))
    assert one.raw.shape == (10, 10)
    assert "approximation" in " ".join(one.stamps)
    assert sheet([one]).width > 0
