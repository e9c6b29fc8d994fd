"""`headstart explain`: what it writes, prints and refuses; and the contract that every method keeps."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import headstart
from headstart.cli import run as command
from headstart.errors import OutputError, UsageError
from headstart.explain import METHODS, Subject, default_methods, explain, subject_of
from headstart.explain.bundle import folder_names, sheet, write_bundle
from headstart.look.opening import open_subject


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
    assert method.sentence in str(sheet([first]).info) or sheet([first]).width > 0
    assert str(first).startswith(method.title)
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
    assert command([*common, photo, "--class", "cats", "--quiet"]) == 1 or capsys.readouterr()


def test_gray_nets_without_pooled_maps_are_explained_by_grad_cam() -> None:
    subject = open_subject("lenet")
    assert default_methods(subject) == ("gradcam", "gradient")  # its activation is tanh: guided has no meaning
    photo = np.random.default_rng(0).integers(0, 256, (40, 60), np.uint8)
    (one,) = explain(subject, photo, ("gradcam",))
    assert one.raw.shape == (10, 10)
    assert "approximation" in " ".join(one.stamps)
    assert sheet([one]).width > 0
