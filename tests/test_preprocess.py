"""From photo to network input: the right square, the right pixels, and settings that travel without a change."""

import json
import math

import numpy as np
import pytest
from PIL import Image

import photos_make
from headstart.errors import ConfigError
from headstart.images import Picture, decode
from headstart.preprocess import FILTERS, Preprocessing

LITE = Preprocessing(224, 0.875, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0))


def picture_of(pixels: np.ndarray) -> Picture:
    return decode(np.ascontiguousarray(pixels))


KERNELS = {  # half width, and the filter's value at distance x from its centre
    "bilinear": (1.0, lambda x: np.maximum(0.0, 1 - np.abs(x))),
    "bicubic": (
        2.0,
        lambda x: np.where(
            np.abs(x) < 1,
            1.5 * np.abs(x) ** 3 - 2.5 * x**2 + 1,
            np.where(np.abs(x) < 2, -0.5 * np.abs(x) ** 3 + 2.5 * x**2 - 4 * np.abs(x) + 2, 0.0),
        ),
    ),
    "hamming": (1.0, lambda x: np.where(np.abs(x) < 1, np.sinc(x) * (0.54 + 0.46 * np.cos(np.pi * x)), 0.0)),
}


def weights(pixels: int, start: float, length: float, size: int, kernel: str) -> np.ndarray:
    """Which share each source pixel has in each output pixel of a window that starts at `start`, (size, pixels)."""
    scale = length / size
    _, shape = KERNELS[kernel]
    centres = start + (np.arange(size) + 0.5) * scale
    shares = shape((np.arange(pixels) + 0.5 - centres[:, None]) / max(scale, 1.0))
    return shares / shares.sum(1, keepdims=True)


def by_definition(pixels: np.ndarray, settings: Preprocessing) -> np.ndarray:
    """Resampling written out: two matrices of filter weights, rows first, 8 bits in between as Pillow keeps them."""
    height, width, _ = pixels.shape
    side = min(height, width) * settings.crop_fraction
    rows = weights(height, (height - side) / 2, side, settings.size, settings.filter)
    columns = weights(width, (width - side) / 2, side, settings.size, settings.filter)
    narrow = np.clip(np.rint(columns @ pixels.astype(float)), 0, 255)
    return np.clip(np.tensordot(rows, narrow, axes=1), 0, 255)


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize("shape", [(100, 150), (333, 250), (20, 31), (64, 64)])
def test_the_input_is_the_centre_square_resampled_by_definition(kernel: str, shape: tuple[int, int]):
    settings = Preprocessing(32, 0.875, (0.0,) * 3, (1.0,) * 3, kernel)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert (
        np.abs(settings.apply(picture_of(pixels)) - by_definition(pixels, settings)).max() <= 1.6
    )  # 0.5 for each rounding, and ties


def test_every_filter_has_an_oracle():
    assert set(KERNELS) == set(FILTERS)


def test_a_reduced_jpeg_gives_nearly_what_the_whole_one_gives():
    smooth = Image.fromarray(photos_make.scene(60, 80)).resize((1503, 1111), Image.Resampling.BICUBIC)
    data = photos_make.encoded(smooth, "JPEG", quality=92)
    settings = Preprocessing(112, 0.875, (0.0,) * 3, (1.0,) * 3)
    reduced, whole = decode(data, target=settings.decode_target()), decode(data)
    assert (reduced.reduction, whole.reduction) == (8, 1)
    assert np.abs(settings.apply(reduced).astype(int) - settings.apply(whole)).mean() < 1


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_the_crop_stays_in_place_whatever_the_reduction(kind: str):
    # 777 x 1001 divides by no power of two; a step at the middle of the photo must stay in the middle of the input
    pixels = np.zeros((777, 1001, 3), np.uint8)
    pixels[:, 500:] = 255
    settings = Preprocessing(64, 0.875, (0.0,) * 3, (1.0,) * 3)
    for target in (None, 300, 150, 73, 20):
        seen = settings.apply(decode(photos_make.encoded(pixels, kind), target=target))
        assert seen.mean() == pytest.approx(255 * 0.5, abs=255 * 0.01), target


def test_the_crop_box_is_in_pixels_of_the_upright_original():
    box = LITE.crop_box(400, 300)
    assert box == (68.75, 18.75, 331.25, 281.25)
    assert LITE.crop_box(300, 400) == (18.75, 68.75, 281.25, 331.25)
    # a photo that is white only inside the box fills the input with white, also when it is stored lying down
    pixels = np.zeros((300, 400, 3), np.uint8)
    pixels[18:282, 68:332] = 255
    lying = photos_make.with_orientation(np.rot90(pixels), 6, "PNG")
    for data in (photos_make.encoded(pixels, "PNG"), lying):
        picture = decode(data)
        assert (picture.width, picture.height) == (400, 300)
        assert LITE.apply(picture).min() > 230
    assert LITE.apply(picture_of(255 - pixels)).max() < 25


@pytest.mark.parametrize("shape", [(1, 1), (1, 2), (2, 1), (1, 3000), (5000, 3), (7, 65500), (3, 3)])
def test_tiny_and_very_long_photos_are_used(shape: tuple[int, int]):
    pixels = np.full((*shape, 3), 90, np.uint8)
    for kind in ("PNG", "JPEG"):
        picture = decode(photos_make.encoded(pixels, kind), target=LITE.decode_target())
        seen = LITE.apply(picture)
        assert seen.shape == (224, 224, 3) and np.abs(seen.astype(int) - 90).max() <= 1
    left, top, right, bottom = LITE.crop_box(shape[1], shape[0])
    assert right - left == pytest.approx(0.875 * min(shape)) and bottom - top == pytest.approx(0.875 * min(shape))


def test_no_size_of_photo_has_a_crop_outside_it():
    settings = Preprocessing(8, 1.0, (0.0,) * 3, (1.0,) * 3)
    for width in [*range(1, 60), 101, 333, 1023]:
        for height in (1, 3, 7, 10, 49, 100):
            for fraction in (1.0, 0.999, 1 / 3):
                used = Preprocessing(8, fraction, settings.mean, settings.std)
                assert used.apply(picture_of(np.zeros((height, width, 3), np.uint8))).shape == (8, 8, 3)


def test_the_target_leaves_as_many_pixels_as_the_network_wants():
    for size in (1, 28, 224, 240, 260):
        for fraction in (0.875, 1.0, 0.5, 1 / 3):
            target = Preprocessing(size, fraction, (0.0,) * 3, (1.0,) * 3).decode_target()
            assert target * fraction >= size - 1e-9 and (target - 1) * fraction < size
    assert LITE.decode_target() == 256


def test_the_input_may_be_written_to_and_is_fresh():
    picture = picture_of(photos_make.scene())
    first = LITE.apply(picture)
    first[:] = 0
    assert LITE.apply(picture).any()


def test_normalising_is_mean_and_deviation_per_channel_with_channels_in_front():
    settings = Preprocessing(2, 1.0, (10.0, 20.0, 30.0), (2.0, 4.0, 8.0))
    batch = np.arange(24, dtype=np.uint8).reshape(2, 2, 2, 3)
    result = settings.normalise(batch)
    assert result.shape == (2, 3, 2, 2) and result.dtype == np.float32 and result.flags.c_contiguous
    for image in range(2):
        for channel in range(3):
            for row in range(2):
                for column in range(2):
                    value = float(batch[image, row, column, channel])
                    expected = (value - settings.mean[channel]) / settings.std[channel]
                    assert result[image, channel, row, column] == pytest.approx(expected)


def test_settings_survive_json():
    settings = Preprocessing(240, 0.9, (123.7, 116.3, 103.5), (58.4, 57.1, 57.4), "hamming")
    assert Preprocessing.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size must be a whole number of 1 to 4096 pixels, not 0"),
        ({"size": 224.0}, "size must be a whole number of 1 to 4096 pixels, not 224.0"),
        ({"size": True}, "size must be"),
        ({"size": 10**9}, "size must be"),
        ({"crop_fraction": 0}, "crop_fraction must be above 0 and at most 1, not 0"),
        ({"crop_fraction": 1.01}, "crop_fraction must be"),
        ({"crop_fraction": "0.875"}, "crop_fraction must be above 0 and at most 1, not '0.875'"),
        ({"crop_fraction": math.nan}, "crop_fraction must be"),
        (
            {"mean": [1.0, 2.0]},
            r"mean must be three numbers \(red, green, blue\) or one \(luminance\), not \(1.0, 2.0\)",
        ),
        ({"mean": [1.0, 2.0, math.inf]}, "mean must be three numbers"),
        ({"mean": 127}, "mean must be three numbers"),
        ({"std": [1.0, 0.0, 1.0]}, r"std must be above 0 in every channel, not \(1.0, 0.0, 1.0\)"),
        ({"std": ["1", "1", "1"]}, "std must be three numbers"),
        ({"filter": "nearest"}, "unknown filter 'nearest'; known: bilinear, bicubic, hamming"),
        ({"filter": ["bilinear"]}, "unknown filter"),
        ({"Size": 3}, "unknown preprocessing setting 'Size'; known: size, crop_fraction, mean, std, filter"),
        ({"filter": None, "std": ...}, "preprocessing setting 'std' is missing; needed: size, crop_fraction"),
    ],
)
def test_a_wrong_setting_is_named_with_its_value(change: dict, message: str):
    values = {**LITE.to_dict(), **change}
    values = {name: value for name, value in values.items() if value is not ...}
    with pytest.raises(ConfigError, match=message):
        Preprocessing.from_dict(values)


def test_a_wrong_setting_is_refused_by_the_constructor_too():
    with pytest.raises(ConfigError, match="size must be"):
        Preprocessing(-1, 0.875, LITE.mean, LITE.std)


def test_a_photo_from_a_file_and_its_pixels_as_an_array_give_the_same_input():
    pixels = photos_make.scene(300, 280)
    data = photos_make.encoded(Image.fromarray(pixels), "PNG")
    assert np.array_equal(LITE.apply(decode(data, target=LITE.decode_target())), LITE.apply(decode(pixels)))
