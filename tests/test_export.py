"""What leaves says what the run says: every head, every operation, the lines of the card in a process of their own."""

import dataclasses
import hashlib
import importlib.util
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart import nets
from headstart.backbones import Backbone, backbone_from_tensors
from headstart.backbones.conversion import convert, load_openvino, openvino_core
from headstart.classifier import Classifier
from headstart.cli import run as main
from headstart.errors import DataError, ExportError, OutputError, UsageError
from headstart.export import FORMATS, export_run, formats
from headstart.export.about import About, describe
from headstart.export.card import plain
from headstart.export.graph import whole_graph
from headstart.export.parity import Parity, measure, synthetic
from headstart.export.transcription import OPERATIONS, averaging, transcribe
from headstart.heads import Head
from headstart.preprocess import Preprocessing
from headstart.runs import Run
from headstart.weights import tensors_of
from make_run import CLASSES, small_metrics, small_rows, write_small_run

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

COLOUR = Preprocessing(32, 0.875, (120.0, 110.0, 100.0), (60.0, 61.0, 62.0), "bicubic")
GRAY = Preprocessing(28, 1.0, (33.0,), (78.0,))
HOSTILE = ("=wasps\n", "<b>|`x`\u202e", 'ants "and" bees')
TEMPERATURE = 1.7


# --- material --------------------------------------------------------------------------------------------------------


def backbone(name: str = "cifar-cnn", prepared: Preprocessing = COLOUR, **options: Any) -> Backbone:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        net = nets.build_net(name, classes=3, **options)
    return backbone_from_tensors(
        name, tensors_of(net), prepared, net_options={"classes": 3, **options}, source="made up"
    )


def gray_backbone() -> Backbone:
    return backbone("lenet", GRAY, in_channels=1, padding=2)


def head(kind: str, length: int, classes: int = 3) -> Head:
    draw = np.random.default_rng(3)
    names: dict[str, tuple[int, ...]] = {"weight": (classes, length), "bias": (classes,)}
    settings: dict[str, Any] = {"root_offset": 0.1} if kind.startswith("root-") else {}
    if kind == "mlp":
        names = {"hidden_weight": (8, length), "hidden_bias": (8,), "weight": (classes, 8), "bias": (classes,)}
    if kind == "identity":
        names, settings = {}, {"length": length}
    tensors = {name: (draw.normal(size=shape) * (3 / np.sqrt(shape[-1]))).astype("f4") for name, shape in names.items()}
    return Head(kind, tensors, settings)


def classifier(kind: str = "logistic", cut: str = "pooled", net: Backbone | None = None, **changes: Any) -> Classifier:
    net = net or backbone()
    given = {"temperature": TEMPERATURE, "thresholds": (0.5, 0.6, 0.7), "classes": CLASSES, **changes}
    return Classifier(net, cut, head(kind, net.classifier_cuts[cut]), **given)


@pytest.fixture(scope="module")
def small_nets(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache in which the two small nets are converted, once for all tests here."""
    cache = tmp_path_factory.mktemp("nets")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HEADSTART_CACHE", str(cache))
        backbone()
        gray_backbone()
    return cache


@pytest.fixture
def cache(small_nets: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HEADSTART_CACHE", str(small_nets))
    return small_nets


@pytest.fixture
def run(cache: Path, tmp_path: Path) -> Run:
    return write_small_run(tmp_path / "runs" / "insects", classifier=classifier())


def squares(shape: tuple[int, int, int], count: int = 5) -> np.ndarray:
    return np.stack([make() for _, make in synthetic(shape, seed=11, count=count)])


def relative(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.abs(found - expected).max() / np.abs(expected).max())


def files_under(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- the same answers, by torch --------------------------------------------------------------------------------------

KINDS = [
    ("logistic", "pooled"), ("ridge", "block2"), ("root-logistic", "block2"), ("root-ridge", "block3_map"),
    ("mlp", "block1"), ("centroid", "block3_map"), ("linear", "pooled"), ("identity", "logits"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "cut"), KINDS)
@pytest.mark.parametrize("to", FORMATS)
def test_every_kind_of_head_and_cut_gives_what_torch_gives(
    to: str, kind: str, cut: str, cache: Path, tmp_path: Path
) -> None:
    known = classifier(kind, cut)
    about = describe(write_small_run(tmp_path / "run", classifier=known))
    FORMATS[to].write(whole_graph(known), about, tmp_path)
    opened = FORMATS[to].open(tmp_path, 1)
    photos = squares((32, 32, 3))
    with torch.inference_mode():
        expected = known.full_network(probabilities=False)(torch.from_numpy(photos)).numpy()
        likely = known.full_network()(torch.from_numpy(photos)).numpy()
    for count in (1, 2, 5):  # any number of photos at a time
        logits, probabilities = opened.run(photos[:count])
        assert (logits.dtype, logits.shape, probabilities.shape) == (np.float32, (count, 3), (count, 3))
        assert relative(logits, expected[:count]) <= 1e-5
        np.testing.assert_allclose(probabilities, likely[:count], atol=1e-5)
    assert opened.about == about


@pytest.mark.parametrize("to", FORMATS)
def test_a_net_of_luminance_takes_one_channel(to: str, cache: Path, tmp_path: Path) -> None:
    known = classifier("linear", "pooled", gray_backbone())
    done = export_run(write_small_run(tmp_path / "run", classifier=known), to, tmp_path / "out", threads=1)
    assert done.parity.holds and done.about["input"]["shape"] == ["batch", 28, 28, 1]
    photos = squares((28, 28, 1), 3)
    logits, _ = FORMATS[to].open(tmp_path / "out", 1).run(photos)
    with torch.inference_mode():
        expected = known.full_network(probabilities=False)(torch.from_numpy(photos)).numpy()
    assert relative(logits, expected) <= 1e-5


@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize(("kind", "cut"), [("root-logistic", "pooled"), ("ridge", "stage7_map")])
def test_the_pretrained_net_leaves_in_both_forms(kind: str, cut: str, tmp_path: Path) -> None:
    from headstart.backbones import open_backbone

    known = classifier(kind, cut, open_backbone("efficientnet-lite0"))
    photos = squares((224, 224, 3), 2)
    with torch.inference_mode():
        expected = known.full_network(probabilities=False)(torch.from_numpy(photos)).numpy()
    about = describe(write_small_run(tmp_path / "run", classifier=known, embed_backbone=False))
    for form in FORMATS.values():
        form.write(whole_graph(known), about, tmp_path)
        logits, _ = form.open(tmp_path, 1).run(photos)
        assert relative(logits, expected) <= 1e-5


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(nets.NETS))
def test_every_net_leaves_in_both_forms(name: str, tmp_path: Path) -> None:
    side, _, channels = nets.build_net(name, classes=3).input_size
    net = backbone(name, Preprocessing(side, 1.0, (120.0,) * channels, (70.0,) * channels))
    known = classifier("identity", "logits", net)
    photos = squares((side, side, channels), 2)
    with torch.inference_mode():
        expected = known.full_network(probabilities=False)(torch.from_numpy(photos)).numpy()
    about = describe(write_small_run(tmp_path / "run", classifier=known))
    for form in FORMATS.values():
        form.write(whole_graph(known), about, tmp_path)
        logits, _ = form.open(tmp_path, 1).run(photos)
        assert relative(logits, expected) <= 1e-4


# --- each operation, by torch ----------------------------------------------------------------------------------------


class Function(nn.Module):
    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.function(x)


class OneCut(nn.Module):
    """A net of one stage, so that `convert` takes it; the stage is `body`, after a first convolution."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.body = body

    def stages(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        maps = self.body(self.first(x))
        return {"maps": maps, "logits": torch.flatten(maps, 1)}


BODIES: dict[str, nn.Module] = {
    "max pool that hangs over": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max pool with padding that hangs over": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max pool that leaves a rest": nn.MaxPool2d(3, 2),
    "max pool with gaps": nn.MaxPool2d(3, 1, dilation=2),
    "average pool that counts its padding": nn.AvgPool2d(3, 1, padding=1),
    "average pool that hangs over": nn.AvgPool2d(3, 2, ceil_mode=True),
    "average pool that does not": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True, count_include_pad=False),
    "adaptive pool that does not divide": nn.AdaptiveAvgPool2d((3, 5)),
    "adaptive pool that enlarges": nn.AdaptiveAvgPool2d(14),
    "adaptive pool that changes nothing": nn.AdaptiveAvgPool2d(10),
    "adaptive pool to one place": nn.AdaptiveAvgPool2d(1),
    "response norm": nn.LocalResponseNorm(3, alpha=0.5),
    "groups": nn.Conv2d(4, 6, 3, groups=2, padding=1),
    "depthwise, with gaps": nn.Conv2d(4, 8, 3, groups=4, dilation=2),
    "uneven kernel": nn.Conv2d(4, 3, (1, 5), stride=(2, 1), padding=(0, 2)),
    "padding of one side": nn.ZeroPad2d((0, 1, 2, 0)),
    "padding with a number": nn.ConstantPad2d(1, 2.5),
    "activations": nn.Sequential(nn.ReLU6(), nn.Tanh(), nn.Sigmoid(), nn.ReLU()),
    "root": Function(lambda x: torch.sign(x) * (torch.sqrt(x.abs() + 0.5) - x)),
    "softmax of channels": nn.Softmax(1),
    "branches": Function(lambda x: torch.cat([x, x - x.mean((2, 3), keepdim=True), x**2 / 3], 1)),
    "chosen channels": Function(lambda x: x.index_select(1, torch.tensor([3, 0, 3]))),
    "distances": Function(lambda x: (x.mean((2, 3)).unsqueeze(1) - torch.arange(12.0).reshape(3, 4)).square().sum(2)),
    "turned": Function(lambda x: x.transpose(2, 3).unsqueeze(2).squeeze(2)),
    "dense": nn.Sequential(nn.Flatten(), nn.Linear(400, 7)),
}


def graph_of(body: nn.Module, folder: Path) -> tuple[Any, nn.Module]:
    folder.mkdir(exist_ok=True)
    torch.manual_seed(2)
    net = OneCut(body).eval()
    convert(net, Preprocessing(12, 1.0, (120.0,) * 3, (60.0,) * 3), ("maps",), folder)
    graph = openvino_core().read_model(folder / "model.xml")
    source = graph.output("logits").get_node().input_value(0)
    whole = load_openvino().Model([source], graph.get_parameters(), "one")
    whole.outputs[0].get_tensor().set_names({"out"})
    return whole, net


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_an_operation_means_in_onnx_what_it_means_in_torch(body: nn.Module, tmp_path: Path) -> None:
    graph, net = graph_of(body, tmp_path)
    model = transcribe(graph)
    onnx.checker.check_model(model, full_check=True)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    photos = squares((12, 12, 3), 3)
    (found,) = session.run(None, {"photo": photos})
    with torch.inference_mode():
        expected = net.stages((torch.from_numpy(photos).permute(0, 3, 1, 2).float() - 120) / 60)["logits"].numpy()
    assert found.shape == expected.shape
    assert relative(found, expected) <= 2e-6


def test_every_operation_of_the_table_is_in_one_of_these_cases(tmp_path: Path) -> None:
    seen: set[str] = set()
    for number, body in enumerate(BODIES.values()):
        graph, _ = graph_of(body, tmp_path / str(number))
        seen |= {node.get_type_name() for node in graph.get_ordered_ops()}
    assert set(OPERATIONS) - seen == set()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (nn.GELU(), "uses the operation 'Gelu'.*--to openvino"),
        (Function(lambda x: x - x.mean(0, keepdim=True)), "mixes the photos of a batch"),
    ],
)
def test_an_operation_without_a_form_is_named(body: nn.Module, message: str, tmp_path: Path) -> None:
    graph, _ = graph_of(body, tmp_path)
    with pytest.raises(ExportError, match=message):
        transcribe(graph)


@pytest.mark.parametrize(("side", "count"), [(6, 6), (7, 3), (3, 7), (13, 6), (1, 4)])
def test_the_averaging_matrix_is_what_torch_does_to_a_unit_pixel(side: int, count: int) -> None:
    expected = torch.nn.functional.adaptive_avg_pool1d(torch.eye(side)[None], count)[0].T.numpy()
    np.testing.assert_allclose(averaging(side, count), expected, rtol=1e-6)


# --- what stands in the files ----------------------------------------------------------------------------------------


@pytest.fixture
def hostile_run(cache: Path, tmp_path: Path) -> Run:
    rows = small_rows(HOSTILE)
    return write_small_run(
        tmp_path / "runs" / "hostile",
        classifier=classifier(classes=HOSTILE),
        metrics=small_metrics(rows, HOSTILE),
        predictions=rows,
    )


def test_an_onnx_file_is_one_file_that_its_checker_passes_with_all_weights_inside(run: Run, tmp_path: Path) -> None:
    done = export_run(run, "onnx", tmp_path / "out", threads=1)
    assert sorted(files_under(tmp_path / "out")) == ["README.md", "manifest.json", "model.onnx", "parity.json"]
    model = onnx.load(tmp_path / "out" / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert not [entry.name for entry in model.graph.initializer if entry.external_data or not entry.raw_data]
    assert {entry.domain for entry in model.opset_import} == {""}  # nothing but standard operations
    (image,) = model.graph.input
    sides = [side.dim_param or side.dim_value for side in image.type.tensor_type.shape.dim]
    assert (image.name, sides) == ("image", ["batch", 32, 32, 3])
    assert image.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert [output.name for output in model.graph.output] == ["probabilities", "logits"]
    assert done.files["model.onnx"]["size"] < 1.05 * sum(len(entry.raw_data) for entry in model.graph.initializer) + 9e4


@pytest.mark.parametrize("to", FORMATS)
def test_the_description_in_the_file_is_that_of_the_run_and_fits_its_hash(
    to: str, hostile_run: Run, tmp_path: Path
) -> None:
    export_run(hostile_run, to, tmp_path / "out", threads=1)
    if to == "onnx":
        props = {entry.key: entry.value for entry in onnx.load(tmp_path / "out" / "model.onnx").metadata_props}
        text, digest = props["headstart"], props["headstart_sha256"]
    else:
        model = load_openvino().Core().read_model(tmp_path / "out" / "model.xml")
        text, digest = (model.get_rt_info(["headstart", name]).astype(str) for name in ("about", "sha256"))
    assert hashlib.sha256(text.encode()).hexdigest() == digest
    said = json.loads(text)
    assert said["classes"] == list(HOSTILE)
    assert (said["temperature"], said["thresholds"]) == (TEMPERATURE, [0.5, 0.6, 0.7])
    assert {**COLOUR.to_dict(), "channels": 3, "shortest_side": 37} == said["preprocessing"]
    assert said["net"]["weights_sha256"] == hostile_run.model["backbone"]["weights_sha256"]
    assert said["net"]["head_sha256"] == hostile_run.model["head"]["weights_sha256"]
    assert said["run"]["identity"] == hostile_run.model["identity"] and said["headstart"] == "0.1.0"


def test_a_description_that_was_changed_is_refused(run: Run, tmp_path: Path) -> None:
    export_run(run, "onnx", tmp_path / "out", threads=1)
    path = tmp_path / "out" / "model.onnx"
    path.write_bytes(path.read_bytes().replace(b'"ants", "bees"', b'"bees", "ants"'))
    with pytest.raises(ExportError, match="description"):
        FORMATS["onnx"].open(tmp_path / "out", 1)


@pytest.mark.parametrize("to", FORMATS)
def test_the_manifest_has_the_hash_of_every_other_file(to: str, run: Run, tmp_path: Path) -> None:
    done = export_run(run, to, tmp_path / "out", threads=1)
    found = files_under(tmp_path / "out")
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest["status"] == "complete" and manifest["format"] == to
    assert set(FORMATS[to].files) <= set(found)
    assert manifest["files"] == done.files == {
        name: {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()} for name, data in found.items()
    }  # fmt: skip
    parity = json.loads(found["parity.json"])
    assert parity["holds"] and parity["synthetic"] and parity["photos"] == 64 and parity["same_top1"] == 1
    assert parity["relative_difference"] == pytest.approx(parity["largest_difference"] / parity["largest_logit"])
    assert str(tmp_path) not in b"".join(found.values()).decode("latin-1")  # nothing about this machine


def test_the_same_run_gives_the_same_bytes(run: Run, tmp_path: Path) -> None:
    for to in FORMATS:
        first, second = (files_under(export_run(run, to, tmp_path / name, threads=1).path) for name in (to, f"{to}2"))
        assert {name: first[name] for name in FORMATS[to].files} == {name: second[name] for name in FORMATS[to].files}


def test_the_card_says_how_good_the_model_is_and_shows_names_letter_by_letter(hostile_run: Run, tmp_path: Path) -> None:
    export_run(hostile_run, "onnx", tmp_path / "out", threads=1)
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    test = hostile_run.metrics["test"]
    low, high = test["accuracy_ci95"]
    assert f"**Test accuracy {100 * test['accuracy']:.1f} %** on 24 photos" in card
    assert f"95 % interval {100 * low:.1f} % to {100 * high:.1f} %" in card
    assert "<b>" not in card and "\u202e" not in card and "=wasps\\\\x0a" in card
    for name, row in test["per_class"].items():
        (line,) = [line for line in card.splitlines() if line.startswith(f"| {plain(name)} | ")]
        assert line.endswith(f" {100 * row['recall']:.1f} % | {100 * row['f1']:.1f} % | {row['support']} |")
    for part in ("Intended use and limits", "Calibration", "64 synthetic pictures", "counts as unsure", "`bicubic`"):
        assert part in card


# --- the lines of the card, in a process of their own -----------------------------------------------------------------


def photo_files(folder: Path) -> list[Path]:
    """Photos whose treatment differs: large ones that are reduced while decoding, turned, transparent, grey, tiny."""
    folder.mkdir()
    draw = np.random.default_rng(8)
    coarse = draw.integers(0, 255, (7, 9, 3), dtype=np.uint8)
    large = Image.fromarray(coarse).resize((1203, 1001), Image.Resampling.BICUBIC)
    turned = Image.Exif()
    turned[0x0112] = 6
    clear = large.resize((333, 301)).convert("RGBA")
    clear.putalpha(Image.fromarray(draw.integers(0, 255, (301, 333), dtype=np.uint8)))
    large.save(folder / "large.jpg", quality=90)
    large.save(folder / "turned.jpg", quality=90, exif=turned)
    large.resize((151, 90)).save(folder / "small.jpg")
    large.convert("L").save(folder / "grey.png")
    large.convert("CMYK").save(folder / "print.jpg")
    clear.save(folder / "clear.png")
    large.resize((400, 300)).quantize(17).save(folder / "palette.gif")
    large.resize((20, 31)).save(folder / "tiny.webp", lossless=True)
    return sorted(folder.iterdir())


def by_the_card(folder: Path, photos: list[Path], home: Path) -> list[dict[str, Any]]:
    found = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(encoding="utf-8"), re.S)
    assert found and "headstart." not in found[1]
    guard = "import sys; sys.modules['headstart'] = sys.modules['torch'] = None\n"
    done = subprocess.run(
        [sys.executable, "-c", guard + found[1], *map(str, photos)],
        cwd=folder, env={"PATH": "/usr/bin:/bin", "HOME": str(home)}, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("gray", [False, True], ids=["colour", "luminance"])
def test_the_lines_of_the_card_give_the_probabilities_of_the_command(
    to: str, gray: bool, cache: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    known = classifier("root-ridge", "block3") if not gray else classifier("linear", "pooled", gray_backbone())
    write_small_run(tmp_path / "run", classifier=known)
    photos = photo_files(tmp_path / "photos")
    assert main(["predict", str(tmp_path / "run"), *map(str, photos), "--json", "--threads", "1"]) == 0
    expected = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    export_run(tmp_path / "run", to, tmp_path / "out", threads=1)
    found = by_the_card(tmp_path / "out", photos, tmp_path)
    assert [row["path"] for row in found] == [row["path"] for row in expected]
    for one, other in zip(found, expected, strict=True):
        assert list(one["probabilities"]) == list(CLASSES)
        differences = {name: abs(one["probabilities"][name] - other["probabilities"][name]) for name in CLASSES}
        assert max(differences.values()) <= 2e-6, one["path"]


# --- when it does not hold --------------------------------------------------------------------------------------------


def tampered(monkeypatch: pytest.MonkeyPatch, change: Callable[[np.ndarray], np.ndarray]) -> None:
    """Let the ONNX file be written with one weight of its largest layer changed."""
    whole = formats.transcribe

    def transcribe(graph: Any) -> Any:
        model = whole(graph)
        largest = max(model.graph.initializer, key=lambda entry: len(entry.raw_data))
        values = np.frombuffer(largest.raw_data, np.float32).copy()
        largest.raw_data = change(values).tobytes()
        return model

    monkeypatch.setattr(formats, "transcribe", transcribe)


def one_weight(value: float) -> Callable[[np.ndarray], np.ndarray]:
    def change(values: np.ndarray) -> np.ndarray:
        values[len(values) // 2] += value
        return values

    return change


@pytest.mark.parametrize("value", [0.5, float("nan")])
def test_a_file_with_a_tampered_weight_is_not_left_behind(
    value: float, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = files_under(tmp_path)
    tampered(monkeypatch, one_weight(value))
    with pytest.raises(ExportError, match=r"ONNX file does not say what the run says: On 64 synthetic.*Nothing was"):
        export_run(run, "onnx", tmp_path / "new" / "out", threads=1)
    assert files_under(tmp_path) == before and not (tmp_path / "new").exists()


def spoilt(monkeypatch: pytest.MonkeyPatch, to: str) -> None:
    """Let the files of a form be changed after they are written: a few hundred weights in the middle of the largest."""
    form = formats.FORMATS[to]

    def write(graph: Any, about: Any, folder: Path) -> None:
        form.write(graph, about, folder)
        file = max(folder.iterdir(), key=lambda path: path.stat().st_size)
        content = bytearray(file.read_bytes())
        start = len(content) // 8 * 4
        values = np.frombuffer(content[start : start + 1600], np.float32) * 3 + 0.5
        content[start : start + 1600] = values.astype(np.float32).tobytes()
        file.write_bytes(content)

    monkeypatch.setitem(formats.FORMATS, to, dataclasses.replace(form, write=write))


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("given", [True, False], ids=["own photos", "made-up photos"])
def test_files_that_were_changed_on_the_way_are_not_left_behind_and_the_command_says_so(
    to: str, given: bool, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo_files(tmp_path / "photos")
    before = files_under(tmp_path)
    spoilt(monkeypatch, to)
    words = ["export", str(run.path), "--to", to, "--out", str(tmp_path / "out"), "--quiet", "--threads", "1"]
    assert main([*words, "--data", str(tmp_path / "photos")] if given else words) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1
    assert "does not say what the run says" in said.err and "Nothing was written" in said.err
    assert ("synthetic" in said.err) != given
    assert files_under(tmp_path) == before


def test_an_older_export_survives_one_that_fails(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(run, "onnx", tmp_path / "out", threads=1)
    before = files_under(tmp_path)
    tampered(monkeypatch, one_weight(1.0))
    with pytest.raises(ExportError):
        export_run(run, "onnx", tmp_path / "out", overwrite=True, threads=1)
    assert files_under(tmp_path) == before


def test_parity_holds_up_to_its_limit_and_only_with_the_same_classes() -> None:
    exact = Parity(10, False, (), 1e-4, 2.0, 1e-6, 10, (), "engine", "runtime")
    assert exact.holds and exact.relative == pytest.approx(5e-5)
    assert not dataclasses.replace(exact, largest_difference=2.1e-4).holds
    assert not dataclasses.replace(exact, same_top1=9).holds
    assert not dataclasses.replace(exact, largest_difference=float("nan")).holds
    assert dataclasses.replace(exact, largest_difference=0.0, largest_logit=0.0).holds
    assert json.dumps(dataclasses.replace(exact, largest_logit=float("nan")).to_json(), allow_nan=False)


def test_parity_counts_each_photo_whose_class_changes_and_takes_the_largest_difference(cache: Path) -> None:
    known = classifier()

    def run(photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        engine = known.engine_for(1)
        features = np.stack([found["pooled"] for _, found in engine.run(enumerate(photos), ("pooled",))])
        logits = known.logits_from_features(features)
        logits[:, 1] += np.float32(0.25)
        return logits, known.probabilities_from_features(features)[:, [1, 0, 2]].astype(np.float32)

    opened = formats.Opened(run, describe_nothing(), "made up")
    found = measure(known, opened, threads=1)
    assert found.photos == 64
    assert found.largest_difference == pytest.approx(0.25, rel=1e-5)
    photos = squares_of(64)
    engine = known.engine_for(1)
    own = known.logits_from_features(
        np.stack([row["pooled"] for _, row in engine.run(enumerate(photos), ("pooled",))])
    ).argmax(axis=1)
    assert found.same_top1 == int((own == 2).sum())  # two classes have changed places
    assert len(found.others) == min(5, 64 - found.same_top1)


def describe_nothing() -> About:
    return About("{}", hashlib.sha256(b"{}").hexdigest())


def squares_of(count: int) -> np.ndarray:
    return np.stack([make() for _, make in synthetic((32, 32, 3), 0, count)])


def test_made_up_pictures_differ_from_each_other_and_come_back_by_their_seed() -> None:
    first, again, other = (
        [make().tobytes() for _, make in synthetic((16, 16, 1), seed, 64)] for seed in (0, 0, 1)
    )  # fmt: skip
    assert first == again and len(set(first) | set(other)) == 128


# --- what is refused --------------------------------------------------------------------------------------------------


def test_a_head_of_neighbours_is_refused_with_the_reason(cache: Path, tmp_path: Path) -> None:
    net = backbone()
    draw = np.random.default_rng(0)
    known = draw.normal(size=(6, 500)).astype(np.float32)
    tensors = {"references": known, "votes": np.eye(3, dtype=np.float32)[[0, 1, 2, 0, 1, 2]]}
    neighbours = Head("knn", tensors, {"neighbours": 3, "prior": [0.4, 0.3, 0.3]})
    run = write_small_run(tmp_path / "run", classifier=Classifier(net, "pooled", neighbours, CLASSES))
    with pytest.raises(UsageError, match=r"compares each photo with all training photos.*--head logistic"):
        export_run(run, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unknown_form_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown form 'coreml' to export to; choose one of: onnx, openvino"):
        export_run(tmp_path, "coreml", tmp_path / "out")


def test_a_missing_package_is_named_with_the_line_to_type(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "onnx" else find(name, *more))
    with pytest.raises(ExportError, match=r"needs onnx; run: pip install 'headstart\[export\]'"):
        export_run(run, "onnx", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    export_run(run, "openvino", tmp_path / "out", threads=1)  # needs nothing more


def test_only_an_export_is_replaced_and_only_when_asked(run: Run, tmp_path: Path) -> None:
    export_run(run, "openvino", tmp_path / "out", threads=1)
    with pytest.raises(OutputError, match="exists already"):
        export_run(run, "openvino", tmp_path / "out")
    export_run(run, "onnx", tmp_path / "out", overwrite=True, threads=1)
    assert sorted(files_under(tmp_path / "out")) == ["README.md", "manifest.json", "model.onnx", "parity.json"]
    (tmp_path / "out" / "thesis.txt").write_text("mine", encoding="utf-8")
    with pytest.raises(OutputError, match="no export of headstart"):
        export_run(run, "onnx", tmp_path / "out", overwrite=True)


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_compares_on_the_photos_given_and_names_those_it_skipped(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos = photo_files(tmp_path / "photos")
    (tmp_path / "photos" / "broken.jpg").write_bytes(photos[0].read_bytes()[:60])
    out = tmp_path / "out"
    command = ["export", str(run.path), "--to", "onnx", "--data", str(tmp_path / "photos"), "--out", str(out)]
    assert main([*command, "--json", "--quiet", "--threads", "1"]) == 3
    said = capsys.readouterr()
    document = json.loads(said.out)
    assert said.err == ""
    parity = document["parity"]
    assert (parity["photos"], parity["synthetic"], parity["holds"]) == (len(photos), False, True)
    assert [row["path"] for row in parity["skipped"]] == ["broken.jpg"]
    assert main([*command, "--overwrite", "--quiet", "--threads", "1"]) == 3
    text = capsys.readouterr().out
    assert "skipped" in text and "broken.jpg" in text and "8 have the same most probable class" in text
    assert main([*command, "--overwrite", "--data", str(tmp_path / "absent")]) == 1
    assert "is neither a file or folder here" in capsys.readouterr().err


def test_a_table_of_photos_and_single_files_serve_as_well(run: Run, tmp_path: Path) -> None:
    photos = photo_files(tmp_path / "photos")
    rows = [f"photos/{path.name},ants" if number else f"photos/{path.name},bees" for number, path in enumerate(photos)]
    table = tmp_path / "list.csv"
    table.write_text("\n".join(["file,label", *rows]), encoding="utf-8")
    done = export_run(run, "openvino", tmp_path / "out", [table, *photos[:2]], threads=1)
    assert done.parity.photos == len(photos) + 2 and not done.parity.synthetic


def test_photos_none_of_which_can_be_read_end_the_export(run: Run, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"not a photo")
    with pytest.raises(DataError, match=r"none of the 1 photos can be read; the first, a\.jpg: "):
        export_run(run, "openvino", tmp_path / "out", [tmp_path / "photos"], threads=1)
    assert not (tmp_path / "out").exists()


def test_the_command_needs_no_torch_and_lets_no_warning_through(run: Run, tmp_path: Path) -> None:
    code = (
        "import sys\nfrom headstart.cli import run\n"
        f"code = run(['export', {str(run.path)!r}, '--to', 'onnx', '--out', {str(tmp_path / 'out')!r}, '--quiet'])\n"
        "print(code, [name for name in ('torch', 'torchvision', 'onnxscript') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert (done.stderr, done.stdout.splitlines()[-1]) == ("", "0 []")
    assert "64 synthetic pictures (no photos were given)" in done.stdout
    assert "Give your own photos with --data" in done.stdout


# --- at full size -----------------------------------------------------------------------------------------------------


@pytest.mark.full
@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize("to", FORMATS)
def test_a_thousand_photos_and_all_odd_ones_get_the_same_answer(to: str, shared_data: Path, tmp_path: Path) -> None:
    from headstart.backbones import open_backbone

    known = classifier("root-logistic", "pooled", open_backbone("efficientnet-lite0"))
    run = write_small_run(tmp_path / "run", classifier=known, embed_backbone=False)
    data = [shared_data / "cats_dogs", shared_data / "odd_images"]
    parity = export_run(run, to, tmp_path / "out", data).parity
    assert parity.photos >= 1_090 and parity.holds
