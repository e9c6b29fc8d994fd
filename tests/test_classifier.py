"""The classifier: one decoder and one preprocessing everywhere, and the same outputs from every form of it."""

import dataclasses
import io
import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.backbones import Backbone, open_backbone
from headstart.classifier import Classifier, Prediction
from headstart.errors import UsageError
from headstart.heads import Head
from headstart.store import Store
from make_run import CLASSES, FEATURES, SmallBackbone, small_classifier

TEMPERATURE = 1.7


def real_classifier(cut: str = "pooled", kind: str = "logistic", classes: int = 3, seed: int = 0) -> Classifier:
    """The real backbone with a head of random weights, scaled so that no class is certain."""
    backbone = open_backbone("efficientnet-lite0")
    draw, features = np.random.default_rng(seed), backbone.classifier_cuts[cut]
    names = {"weight": (classes, features), "bias": (classes,)}
    settings = {"root_offset": 0.1} if kind.startswith("root-") else {}
    if kind == "mlp":
        names = {"hidden_weight": (8, features), "hidden_bias": (8,), "weight": (classes, 8), "bias": (classes,)}
    tensors = {
        name: (draw.normal(size=shape) * (3 / np.sqrt(shape[-1]))).astype(np.float32) for name, shape in names.items()
    }
    return Classifier(backbone, cut, Head(kind, tensors, settings), CLASSES[:classes], temperature=TEMPERATURE)


def noise(side: int = 300, seed: int = 0) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((side, side + 60), Image.Resampling.BICUBIC))


def png(pixels: np.ndarray) -> bytes:
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def test_probabilities_are_the_softmax_of_the_logits_over_the_temperature() -> None:
    classifier = small_classifier(temperature=TEMPERATURE)
    features = np.random.default_rng(3).normal(size=(5, FEATURES)).astype(np.float32)
    logits = features.astype(np.float64) @ classifier.head.tensors["weight"].T + classifier.head.tensors["bias"]
    np.testing.assert_allclose(classifier.logits_from_features(features), logits, rtol=1e-5, atol=1e-5)
    expected = [[np.exp(v / TEMPERATURE) / sum(np.exp(row / TEMPERATURE)) for v in row] for row in logits]
    np.testing.assert_allclose(classifier.probabilities_from_features(features), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cut": "stage9"}, r"no cut 'stage9'; its cuts are pooled"),
        ({"cut": "statistics"}, r"no cut 'statistics'; its cuts are pooled"),
        ({"classes": ("ants", "ants", "bees")}, "different names"),
        ({"classes": ("ants",)}, "two or more classes"),
        ({"temperature": 0.0}, r"temperature must be a number above 0; received 0\.0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"thresholds": (0.5,)}, "1 thresholds for 3 classes"),
        (
            {"head": Head("ridge", {"weight": np.zeros((2, 12), np.float32), "bias": np.zeros(2, np.float32)})},
            "2 values",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        small_classifier(**{"classes": CLASSES, **changes})  # type: ignore[arg-type]


def test_a_prediction_names_its_most_probable_classes_in_order_and_writes_the_json_that_is_promised() -> None:
    told = Prediction("a.jpg", "cat", 0.5, {"ant": 0.2, "bee": 0.3, "cat": 0.5})
    assert list(told.top(2).items()) == [("cat", 0.5), ("bee", 0.3)]
    assert told.to_json() == {
        "path": "a.jpg",
        "label": "cat",
        "probability": 0.5,
        "probabilities": {"ant": 0.2, "bee": 0.3, "cat": 0.5},
    }
    assert list(told.to_json(topk=1)["probabilities"]) == ["cat"]
    assert Prediction("b.jpg", error="empty: no bytes").to_json() == {"path": "b.jpg", "error": "empty: no bytes"}


def test_an_answer_below_the_threshold_of_its_class_is_marked_unsure() -> None:
    classifier = small_classifier(thresholds=(0.9, 0.2, 0.2))
    assert classifier.judge("x", np.array([0.8, 0.1, 0.1])).unsure
    assert not classifier.judge("x", np.array([0.95, 0.05, 0.0])).unsure
    assert not classifier.judge("x", np.array([0.3, 0.6, 0.1])).unsure
    assert classifier.judge("x", np.array([0.8, 0.1, 0.1])).to_json()["unsure"] is True


@pytest.mark.usefixtures("ready_cache")
def test_a_path_its_bytes_and_its_pixels_give_the_same_answer_and_a_bad_one_stops_nothing(tmp_path: Path) -> None:
    classifier, pixels = real_classifier(), noise()
    (tmp_path / "a.png").write_bytes(png(pixels))
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    told = list(
        classifier.predict([tmp_path / "bad.jpg", str(tmp_path / "a.png"), png(pixels), pixels, tmp_path / "gone"])
    )
    assert [row.path for row in told[1:4]] == [str(tmp_path / "a.png"), "<bytes>", "<pixels>"]
    assert told[1].probabilities == told[2].probabilities == told[3].probabilities
    assert sum(told[1].probabilities.values()) == pytest.approx(1)
    assert told[1].label == max(told[1].probabilities, key=lambda name: told[1].probabilities[name])
    assert told[0].label is None and (told[0].error or "").split(":")[0] in ("truncated", "corrupt", "unidentified")
    assert (told[4].error or "").startswith("missing:")
    assert all(row.classes == CLASSES for row in told)


@pytest.mark.usefixtures("ready_cache")
def test_the_answer_is_that_of_the_definition_computed_step_by_step() -> None:
    import torch

    classifier, pixels = real_classifier(), noise(side=280)
    backbone, head = classifier.backbone, classifier.head.tensors
    side = backbone.preprocessing.crop_fraction * min(pixels.shape[:2])
    left, top = (pixels.shape[1] - side) / 2, (pixels.shape[0] - side) / 2
    size = backbone.preprocessing.size
    box = (left, top, left + side, top + side)
    cropped = np.asarray(
        Image.fromarray(pixels).resize((size, size), Image.Resampling[backbone.preprocessing.filter.upper()], box=box)
    )
    x = torch.from_numpy(((cropped.astype(np.float32) - 127) / 128).transpose(2, 0, 1)[None].copy())
    with torch.no_grad():
        features = backbone.net().stages(x)["pooled"].numpy()[0].astype(np.float64)  # type: ignore[operator]
    logits = head["weight"].astype(np.float64) @ features + head["bias"]
    expected = np.exp(logits / TEMPERATURE) / np.exp(logits / TEMPERATURE).sum()
    (told,) = classifier.predict([pixels])
    np.testing.assert_allclose(list(told.probabilities.values()), expected, atol=1e-3)


@pytest.mark.usefixtures("ready_cache")
def test_the_full_network_gives_what_the_head_gives_on_stored_features(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    from headstart.backbones.engines import open_engine
    from headstart.errors import ShapeError

    first = real_classifier()
    size, cuts = first.backbone.preprocessing.size, ("stage3", "pooled", "stage7_map")
    photos = np.random.default_rng(5).integers(0, 255, (2, size, size, 3), dtype=np.uint8)
    normalised = torch.from_numpy(first.backbone.preprocessing.normalise(photos))
    found = [features for _, features in open_engine(first.backbone, cuts=cuts, kind="torch").run(enumerate(photos))]
    net = first.backbone.net()
    monkeypatch.setattr(Backbone, "net", lambda _: net)
    for cut, kind in (("pooled", "logistic"), ("stage3", "ridge"), ("pooled", "root-ridge"), ("pooled", "mlp"),
                      ("stage7_map", "ridge"), ("stage7_map", "mlp")):  # fmt: skip
        classifier = real_classifier(cut, kind)
        features = np.stack([features[cut].reshape(-1) for features in found])
        whole, bare = classifier.full_network(), classifier.full_network(probabilities=False)
        with torch.no_grad():
            from_bytes, logits = whole(torch.from_numpy(photos)).numpy(), bare(normalised).numpy()
        np.testing.assert_allclose(from_bytes, classifier.probabilities_from_features(features), atol=1e-5)
        rounding = 1e-4 if cut == "stage7_map" else 1e-5  # of a sum of 15,680 numbers of 32 bits
        np.testing.assert_allclose(logits, classifier.logits_from_features(features), atol=rounding, rtol=1e-5)
        assert not whole.training
    with pytest.raises(ShapeError, match=r"uint8 \(batch, 224, 224, 3\).*received torch\.uint8 \(1, 3, 224, 224\)"):
        whole(torch.zeros((1, 3, 224, 224), dtype=torch.uint8))


def test_a_head_on_the_flattened_map_of_vgg_has_the_parameters_of_the_lesson_and_one_on_its_means_has_fewer() -> None:
    import torch
    from torch import nn

    class Maps(nn.Module):
        """What VGG-16 hands to its dense layers: 512 maps of 7 x 7."""

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Sequential(nn.AdaptiveAvgPool2d(7), nn.Conv2d(3, 512, 1))

        def stages(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
            return {"last": self.last(x), "logits": x.mean((2, 3))}

    class VggMaps(SmallBackbone):
        def net(self) -> nn.Module:
            return Maps()

    draw, plain = np.random.default_rng(0), small_classifier().backbone
    outputs: dict[str, tuple[int, ...]] = {"last": (512,), "last_map": (512, 7, 7), "logits": (3,)}
    parts = {field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)}
    backbone = VggMaps(**parts | {"outputs": outputs, "cuts": {"last": 512}})
    breeds = tuple(f"breed {number}" for number in range(133))
    photos = torch.rand(2, 3, backbone.preprocessing.size, backbone.preprocessing.size)
    for cut, parameters in (("last_map", 3_336_837), ("last", 68_229)):
        weight = draw.normal(size=(133, backbone.classifier_cuts[cut])).astype(np.float32)
        head = Head("logistic", {"weight": weight, "bias": np.zeros(133, np.float32)}, {})
        whole = Classifier(backbone, cut, head, breeds).full_network(probabilities=False)
        trained = [tensor.numel() for name, tensor in whole.named_parameters() if name.startswith("head.")]
        assert sum(trained) == parameters
        with torch.no_grad():
            maps = whole.backbone.last(photos)
            taken = maps.flatten(1) if cut == "last_map" else maps.mean((2, 3))
            torch.testing.assert_close(whole(photos), taken @ torch.from_numpy(weight).T, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("ready_cache")
def test_a_photo_is_answered_from_a_flattened_map_and_its_features_are_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = real_classifier("stage7_map")
    (tmp_path / "a.png").write_bytes(png(noise()))
    with Store() as store:
        (told,) = classifier.predict([tmp_path / "a.png"], store=store)
        monkeypatch.setattr("headstart.classifier.open_engine", lambda *_, **__: pytest.fail("it is stored"))
        (again,) = real_classifier("stage7_map").predict([tmp_path / "a.png"], store=store)
    assert again.probabilities == told.probabilities
    assert sum(told.probabilities.values()) == pytest.approx(1)


@pytest.mark.usefixtures("ready_cache")
def test_stored_features_are_used_again_and_give_the_same_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    classifier = real_classifier()
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        path.write_bytes(png(noise(seed=seed)))
    with Store() as store:
        first = [dict(row.probabilities) for row in classifier.predict(paths, store=store)]
        monkeypatch.setattr(
            "headstart.classifier.open_engine", lambda *_, **__: pytest.fail("nothing is to be computed")
        )
        assert [dict(row.probabilities) for row in real_classifier().predict(paths, store=store)] == first


@pytest.mark.usefixtures("ready_cache")
def test_the_engine_is_opened_once_for_any_number_of_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    import headstart.classifier as module

    opened, real = [], module.open_engine
    monkeypatch.setattr(module, "open_engine", lambda *args, **named: opened.append(1) or real(*args, **named))
    classifier, pixels = real_classifier(), noise(side=40)
    answers = [next(classifier.predict([pixels])).probability for _ in range(3)]
    assert len(opened) == 1 and len(set(answers)) == 1
    classifier.close()
    assert next(classifier.predict([pixels])).probability == answers[0] and len(opened) == 2


@pytest.mark.usefixtures("ready_cache")
def test_answers_come_in_the_order_of_the_sources_across_chunks_and_sources_are_read_as_needed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("headstart.classifier.CHUNK", 8)
    classifier, small = real_classifier(), [noise(side=40, seed=seed) for seed in range(2)]
    kinds = ["broken" if number % 3 == 2 or 8 <= number < 16 else str(number % 2) for number in range(21)]
    read = []

    def sources() -> Iterator[np.ndarray | bytes]:
        for number, kind in enumerate(kinds):
            read.append(number)
            yield b"broken" if kind == "broken" else small[int(kind)]

    stream = classifier.predict(sources())
    rows = [next(stream)]
    assert len(read) == 8
    rows += stream
    assert ["broken" if row.error else "" for row in rows] == [kind if kind == "broken" else "" for kind in kinds]
    probabilities = {
        kind: {row.probability for row, of in zip(rows, kinds, strict=True) if of == kind} for kind in "01"
    }
    assert len(probabilities["0"]) == len(probabilities["1"]) == 1 and probabilities["0"] != probabilities["1"]


@pytest.mark.usefixtures("ready_cache")
def test_memory_does_not_grow_with_the_number_of_photos(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headstart.classifier.CHUNK", 8)
    classifier, photo = real_classifier(), noise(side=40)
    peaks = []
    for count in (16, 48):
        tracemalloc.start()
        for _ in classifier.predict(photo for _ in range(count)):
            pass
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.2 * peaks[0]


@pytest.mark.usefixtures("ready_cache")
def test_leaving_early_stops_the_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    import threading

    monkeypatch.setattr("headstart.classifier.CHUNK", 16)
    stream = real_classifier().predict(noise(side=40) for _ in range(40))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("decode")]


@pytest.mark.usefixtures("ready_cache")
def test_predicting_imports_neither_torch_nor_scikit_learn_nor_scipy(tmp_path: Path) -> None:
    from make_run import write_small_run

    (tmp_path / "a.png").write_bytes(png(noise()))
    write_small_run(tmp_path / "run", classifier=real_classifier())
    code = (
        "import sys, headstart\n"
        f"print(headstart.load({str(tmp_path / 'run')!r}).predict({str(tmp_path / 'a.png')!r}).label)\n"
        "print([name for name in ('torch', 'sklearn', 'scipy', 'jinja2') if name in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[1] == "[]"
    assert done.stdout.splitlines()[0] in CLASSES
