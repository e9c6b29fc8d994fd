"""What a network that is trained from scratch is given to see: size, colour and grey levels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from headstart.config import TrainConfig
from headstart.dataset import Dataset, number_photos
from headstart.errors import ConfigError
from headstart.images import decode
from headstart.job.levels import measured
from headstart.job.net_input import NetInput, choose_input
from headstart.preprocess import Preprocessing
from headstart.quality import PhotoFacts
from headstart.report.curves import training_curves

torch = pytest.importorskip("torch")


def dataset_of(pixels: np.ndarray, classes: int = 3) -> Dataset:
    labels = [number % classes for number in range(len(pixels))]
    names = tuple(f"c{number}" for number in range(classes))
    return Dataset("made", Path(), names, tuple(number_photos("a", labels)), arrays={"a": pixels})


def facts_of(side: int, mode: str = "RGB", count: int = 5) -> list[PhotoFacts]:
    return [PhotoFacts("d", width=side + 7, height=side, mode=mode)] * count


@pytest.mark.parametrize(
    ("net", "side", "size", "more"),
    [
        ("lenet", 28, 28, {"padding": 2}),  # MNIST as in the paper: two zeros around it
        ("lenet", 32, 32, {}),
        ("lenet", 500, 32, {}),
        ("lenet", 8, 28, {"padding": 2}),
        ("lenet:paper", 28, 32, {}),
        ("mlp", 8, 8, {"input_size": (8, 8)}),
        ("mlp", 500, 64, {"input_size": (64, 64)}),
        ("cifar-cnn", 32, 32, {"input_size": (32, 32)}),
        ("cifar-cnn", 28, 32, {"input_size": (32, 32)}),  # a multiple of 8
        ("small-cnn", 28, 28, {"input_size": (28, 28)}),  # a multiple of 4
        ("resnet18", 32, 32, {}),
        ("resnet18", 500, 224, {}),
        ("alexnet:paper", 500, 227, {}),
        ("nin:cifar", 32, 32, {}),
        ("googlenet:paper", 500, 224, {"auxiliary": False}),
    ],
)
def test_photos_keep_their_size_within_what_the_net_takes(net: str, side: int, size: int, more: dict) -> None:
    data = dataset_of(np.zeros((9, 4, 4), np.uint8))
    chosen = choose_input(TrainConfig(net=net), data, facts_of(side))
    assert (chosen.size, chosen.options) == (size, {"classes": 3, "in_channels": 3, **more})


@pytest.mark.parametrize("net", ["lenet", "lenet:paper", "mlp", "small-cnn", "cifar-cnn", "resnet18", "nin:cifar"])
@pytest.mark.parametrize("side", [5, 28, 45])
def test_what_is_chosen_is_what_the_net_really_takes(net: str, side: int) -> None:
    from headstart.nets import build_net

    data = dataset_of(np.zeros((9, 4, 4), np.uint8))
    chosen = choose_input(TrainConfig(net=net), data, facts_of(side, mode="L"))
    with torch.no_grad():
        logits = build_net(net, **chosen.options).eval()(torch.zeros(2, 1, chosen.size, chosen.size))
    assert logits.shape == (2, 3)
    assert any("enlarged" in sentence for sentence in chosen.why) == (side < chosen.size)


def test_alexnet_gets_the_smallest_photos_that_it_can_take() -> None:
    from headstart.nets import build_net

    chosen = choose_input(TrainConfig(net="alexnet"), dataset_of(np.zeros((9, 4, 4), np.uint8)), facts_of(32))
    net = build_net("alexnet", **chosen.options).eval()
    with torch.no_grad():
        net(torch.zeros(1, 3, chosen.size, chosen.size))
        with pytest.raises(RuntimeError):
            net(torch.zeros(1, 3, chosen.size - 1, chosen.size - 1))


@pytest.mark.parametrize(
    ("modes", "colour", "channels"),
    [
        (["L", "L"], "auto", 1),
        (["L", "1", "I;16B", "LA"], "auto", 1),
        (["L", "RGB"], "auto", 3),
        (["RGB"], "gray", 1),
        (["L"], "colour", 3),
    ],
)
def test_a_net_is_gray_where_every_training_photo_is(modes: list[str], colour: str, channels: int) -> None:
    facts = [PhotoFacts("d", width=32, height=32, mode=mode) for mode in modes]
    config = TrainConfig(net="lenet", colour=colour)
    assert choose_input(config, dataset_of(np.zeros((9, 4, 4), np.uint8)), facts).channels == channels


def test_a_size_that_is_too_small_names_the_next_that_fits() -> None:
    data = dataset_of(np.zeros((9, 4, 4), np.uint8))
    with pytest.raises(ConfigError, match=r"8 x 8 pixels are smaller than lenet needs; expected 28 x 28"):
        choose_input(TrainConfig(net="lenet", image_size=8), data, facts_of(100))
    with pytest.raises(ConfigError, match=r"100 x 100 pixels do not fit lenet"):
        choose_input(TrainConfig(net="lenet", image_size=100), data, facts_of(100))


def test_choosing_leaves_the_callers_random_numbers_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    choose_input(TrainConfig(net="lenet"), dataset_of(np.zeros((9, 4, 4), np.uint8)), facts_of(40))
    assert torch.equal(torch.rand(4), expected)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_levels_are_those_of_the_training_photos_alone(channels: int) -> None:
    shape = (40, 6, 6) if channels == 1 else (40, 6, 6, 3)
    pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    pixels[30:] = 255  # not for training
    found = measured(dataset_of(pixels), np.arange(30), NetInput(6, channels, {}, ()))
    own = pixels[:30].reshape(-1, channels).astype(np.float64)
    np.testing.assert_allclose(found.mean, own.mean(axis=0), atol=1e-3)
    np.testing.assert_allclose(found.std, own.std(axis=0), atol=1e-3)
    assert found.crop_fraction == 1.0 and found.shape == (6, 6, channels)


def test_photos_of_one_colour_are_not_blown_up() -> None:
    pixels = np.full((9, 6, 6), 7, np.uint8)
    assert measured(dataset_of(pixels), np.arange(9), NetInput(6, 1, {}, ())).std == (1.0,)


def test_a_gray_net_sees_luminance_as_pillow_converts_it(tmp_path: Path) -> None:
    colours = np.random.default_rng(1).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(colours).save(tmp_path / "photo.png")
    gray = Preprocessing(16, 1.0, (0.0,), (1.0,))
    whole = Image.fromarray(colours).convert("L")
    expected = np.asarray(whole.resize((16, 16), Image.Resampling.BILINEAR, box=(5, 0, 25, 20)))
    found = gray.apply(decode((tmp_path / "photo.png").read_bytes(), target=16))
    assert found.shape == (16, 16, 1)
    assert np.array_equal(found[:, :, 0], expected)


def test_gray_pixels_of_the_right_size_are_seen_as_they_are() -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (16, 16), dtype=np.uint8)
    gray = Preprocessing(16, 1.0, (0.0,), (1.0,))
    assert np.array_equal(gray.apply(decode(pixels))[:, :, 0], pixels)
    assert Preprocessing.from_dict(gray.to_dict()) == gray


def test_the_curves_stand_where_the_numbers_say() -> None:
    rows = [
        {"epoch": 1, "loss": 2.0, "accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.6},
        {"epoch": 2, "loss": 1.0, "accuracy": 0.8, "val_loss": 0.5, "val_accuracy": 0.9},
        {"epoch": 3, "loss": 0.0, "accuracy": 1.0, "val_loss": 0.8, "val_accuracy": 0.8},
    ]
    drawn = training_curves(rows)
    assert drawn is not None and drawn["best"]["epoch"] == 2
    loss, accuracy = drawn["charts"]
    train, valid = (line["points"] for line in loss["lines"])
    # the plot is 256 x 208 from (48, 12); the loss runs from 0 at the bottom to 2 at the top
    assert train == "48.0,12.0 176.0,116.0 304.0,220.0" and valid == "48.0,116.0 176.0,168.0 304.0,136.8"
    assert loss["best_x"] == accuracy["best_x"] == 176.0
    assert [tick["text"] for tick in loss["y_ticks"]] == ["0", "0.5", "1", "1.5", "2"]
    assert drawn["lowest"]
    kept = training_curves(rows, 3)  # another epoch was kept
    assert kept is not None and kept["best"]["epoch"] == 3 and not kept["lowest"]
    assert kept["charts"][0]["best_x"] == 304.0 and training_curves(rows, "3") == drawn
    assert training_curves(rows[:1]) is None and training_curves([]) is None


def test_a_loss_that_leaps_does_not_flatten_the_rest_of_its_curve() -> None:
    rows = [{"epoch": number, "loss": loss, "accuracy": 0.5} for number, loss in enumerate([2.0, 900.0, 1.0], 1)]
    drawn = training_curves(rows)
    assert drawn is not None and float(drawn["charts"][0]["y_ticks"][-1]["text"]) <= 8
    assert drawn["best"] is None and len(drawn["charts"][0]["lines"]) == 1
