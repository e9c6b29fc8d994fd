"""Every mode and bit depth becomes the RGB that it means, in one piece or in strips, at full size or reduced."""

import io

import numpy as np
import pytest
from PIL import Image, ImageCms

import photos_make
from headstart.images import decode
from headstart.images import pixels as pixels_room

RAMP = np.arange(65536, dtype=np.uint16).reshape(256, 256)


def grey_of(data: bytes, **options: int) -> np.ndarray:
    """The decoded pixels of a grey photo, which must have three equal channels."""
    pixels = decode(data, **options).pixels
    assert (pixels == pixels[:, :, :1]).all()
    return pixels[:, :, 0]


def test_a_16_bit_ramp_keeps_its_256_levels():
    data = photos_make.encoded(RAMP, "PNG")
    grey = grey_of(data)
    assert len(np.unique(grey)) == 256
    assert np.array_equal(grey, np.round(RAMP.astype(float) * 255 / 65535))
    with Image.open(io.BytesIO(data)) as image:  # the reason for all this: Pillow's own conversion is white
        assert (np.asarray(image.convert("RGB")) == 255).mean() > 0.99


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_a_sensor_of_any_common_depth_fills_the_range(bits: int):
    white = 2**bits - 1
    grey = grey_of(photos_make.encoded(RAMP >> (16 - bits), "PNG"))
    assert np.array_equal(grey, np.round((RAMP >> (16 - bits)).astype(float) * 255 / white))


def test_an_8_bit_photo_stored_in_16_bits_comes_back_as_it_was():
    photo = photos_make.scene()[:, :, 2]
    assert photo.max() > 64
    assert np.array_equal(grey_of(photos_make.encoded(photo.astype(np.uint16) * 257, "PNG")), photo)
    assert np.array_equal(grey_of(photos_make.encoded(photo.astype(np.uint16), "PNG")), photo)


def test_two_photos_of_one_sensor_keep_their_difference_in_brightness():
    bright = photos_make.scene()[:, :, 0].astype(np.uint16) * 16  # 12 bits
    dim = (bright * 0.6).astype(np.uint16)
    means = [grey_of(photos_make.encoded(photo, "PNG")).mean() for photo in (bright, dim)]
    assert means[1] / means[0] == pytest.approx(0.6, abs=0.01)


@pytest.mark.parametrize("values", [(40000, 40003), (0, 5), (65000, 65535), (65534, 65535)])
def test_values_that_differ_little_are_stretched_not_flattened(values: tuple[int, int]):
    low, high = values
    photo = np.linspace(low, high, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    picture = decode(photos_make.encoded(photo, "PNG"))
    assert picture.notes == (f"16-bit grey stretched to 8 bits (black is {low}, white is {high})",)
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    assert len(np.unique(picture.pixels)) == min(256, high - low + 1)


def test_a_deep_photo_of_one_value_stays_one_grey():
    for value in (0, 7, 5000, 65535):
        assert len(np.unique(decode(photos_make.encoded(np.full((5, 6), value, np.uint16), "PNG")).pixels)) == 1


def test_32_bit_and_float_grey_is_scaled_too():
    signed = photos_make.encoded(Image.fromarray(RAMP.astype(np.int32) - 1000), "TIFF")
    assert np.array_equal(grey_of(signed), np.round(RAMP.astype(float) * 255 / 65535))
    unit = (RAMP / 65535).astype(np.float32)
    assert np.array_equal(grey_of(photos_make.encoded(Image.fromarray(unit), "TIFF")), np.round(unit * 255.0))
    huge = Image.fromarray((RAMP.astype(np.float32) - 32768) * np.float32(1e34))
    assert np.array_equal(grey_of(photos_make.encoded(huge, "TIFF")), np.round(RAMP * (255 / 65535)))


def test_missing_float_values_are_black_and_infinite_ones_are_the_ends():
    values = np.linspace(0, 1, 100, dtype=np.float32).reshape(10, 10)
    values[0, 0], values[0, 1], values[0, 2] = np.nan, np.inf, -np.inf
    grey = grey_of(photos_make.encoded(Image.fromarray(values), "TIFF"))
    assert grey[0, :3].tolist() == [0, 255, 0] and grey[9, 9] == 255
    empty = Image.fromarray(np.full((3, 3), np.nan, np.float32))
    assert (grey_of(photos_make.encoded(empty, "TIFF")) == 0).all()


def test_the_byte_order_of_the_file_does_not_matter():
    little = photos_make.encoded(RAMP, "TIFF")
    big = b"P5 256 256 65535\n" + RAMP.astype(">u2").tobytes()
    assert np.array_equal(grey_of(little), grey_of(big))


def test_a_16_bit_key_colour_is_laid_over_white():
    data = photos_make.encoded(RAMP, "PNG", transparency=0)
    grey = grey_of(data)
    assert grey[0, 0] == 255 and grey[0, 1] == 0 and grey[255, 255] == 255


def test_16_bit_colour_keeps_its_upper_byte_and_says_so():
    rows = b"".join(b"\0" + bytes([row, 7, 255 - row, 9, 128, 200]) * 4 for row in range(8))
    picture = decode(photos_make.png(4, 8, depth=16, colour=2, rows=rows))
    assert picture.notes == ("16 bits a channel: the upper 8 are used",)
    assert picture.pixels[:, 0].tolist() == [[row, 255 - row, 128] for row in range(8)]


def over_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[:, :, None] / 255
    return colour * share + 255 * (1 - share)


def test_transparency_lies_over_white():
    colour = photos_make.scene()
    alpha = np.linspace(0, 255, colour[:, :, 0].size).astype(np.uint8).reshape(colour.shape[:2])
    picture = decode(photos_make.encoded(np.dstack([colour, alpha]), "PNG"))
    assert np.abs(picture.pixels - over_white(colour, alpha)).max() <= 1
    assert picture.notes == ("transparent parts laid over white",)
    grey = colour[:, :, 0]
    picture = decode(photos_make.encoded(Image.merge("LA", [Image.fromarray(grey), Image.fromarray(alpha)]), "PNG"))
    assert np.abs(picture.pixels - over_white(np.dstack([grey] * 3), alpha)).max() <= 1


def test_an_opaque_alpha_channel_changes_nothing_and_is_not_mentioned():
    colour = photos_make.scene()
    picture = decode(photos_make.encoded(np.dstack([colour, np.full(colour.shape[:2], 255, np.uint8)]), "PNG"))
    assert np.array_equal(picture.pixels, colour) and picture.notes == ()


def test_key_colours_and_palette_transparency_lie_over_white():
    indices = np.arange(64, dtype=np.uint8).reshape(8, 8)
    image = Image.fromarray(indices).convert("P")
    image.putpalette([channel for i in range(64) for channel in (i * 4, 255 - i * 4, 7)])
    expected = np.stack([indices * 4, 255 - indices * 4, np.full_like(indices, 7)], 2)
    keyed = expected.copy()
    keyed[0, 5] = 255
    assert np.array_equal(decode(photos_make.encoded(image, "PNG", transparency=5)).pixels, keyed)
    assert np.array_equal(decode(photos_make.encoded(image, "GIF", transparency=5)).pixels, keyed)
    half = decode(photos_make.encoded(image, "PNG", transparency=bytes([255] * 9 + [128]))).pixels
    assert np.abs(half[1, 1] - over_white(expected, np.full((8, 8), 128))[1, 1]).max() <= 1
    assert np.array_equal(np.delete(half.reshape(64, 3), 9, 0), np.delete(expected.reshape(64, 3), 9, 0))
    colour = photos_make.scene(8, 8)
    key = tuple(int(value) for value in colour[3, 3])
    assert decode(photos_make.encoded(colour, "PNG", transparency=key)).pixels[3, 3].tolist() == [255] * 3
    grey = photos_make.encoded(colour[:, :, 0], "PNG", transparency=int(colour[0, 0, 0]))
    assert (decode(grey).pixels[:, 0] == 255).all()


def test_a_white_shape_on_nothing_stays_visible():
    alpha = np.zeros((10, 10), np.uint8)
    alpha[3:7, 3:7] = 255
    picture = decode(photos_make.encoded(np.dstack([np.full((10, 10, 3), 255, np.uint8), alpha]), "PNG"))
    assert np.array_equal(picture.pixels[:, :, 0], alpha)
    assert picture.notes == ("transparent parts laid over black: white would hide all",)


def test_one_bit_and_grey_photos_become_three_equal_channels():
    grey = photos_make.scene()[:, :, 0]
    assert np.array_equal(grey_of(photos_make.encoded(grey, "PNG")), grey)
    bits = grey > 100
    assert np.array_equal(grey_of(photos_make.encoded(Image.fromarray(bits), "PNG")), bits * np.uint8(255))
    assert np.array_equal(grey_of(photos_make.encoded(Image.fromarray(bits), "TIFF", compression="group4")), bits * 255)


def test_cmyk_is_converted_with_its_profile_if_it_has_a_usable_one():
    photo = Image.fromarray(photos_make.scene()).convert("CMYK")
    plain = decode(photos_make.encoded(photo, "JPEG"))
    assert plain.notes == ("CMYK converted without a colour profile",)
    assert np.abs(plain.pixels.astype(int) - photos_make.scene()).mean() < 12

    colour = (200, 150, 100)  # L* 78, a* 22, b* -28: this printer's cyan is pink
    profile = photos_make.cmyk_profile(colour)
    inked = photos_make.encoded(Image.new("CMYK", (8, 8), (255, 0, 0, 0)), "JPEG", icc_profile=profile)
    managed = decode(inked)
    assert managed.notes == ("CMYK converted with its colour profile",)
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    pink = ImageCms.profileToProfile(Image.new("LAB", (1, 1), colour), lab, srgb, outputMode="RGB")
    assert pink is not None and np.abs(managed.pixels.astype(int) - np.asarray(pink)).max() <= 4

    for unusable in (b"no profile", profile[:200], ImageCms.ImageCmsProfile(srgb).tobytes()):
        damaged = decode(photos_make.encoded(photo, "JPEG", icc_profile=unusable))
        assert damaged.notes == plain.notes and np.array_equal(damaged.pixels, plain.pixels)


def test_cielab_is_converted_to_srgb():
    # Pillow keeps a* and b* with 128 as zero; the values are those of sRGB white, middle grey and red
    white, grey, red = (255, 128, 128), (round(53.585 * 2.55), 128, 128), (round(54.29 * 2.55), 128 + 81, 128 + 70)
    image = Image.new("LAB", (3, 1))
    for x, value in enumerate((white, grey, red)):
        image.putpixel((x, 0), value)
    seen = decode(photos_make.encoded(image, "TIFF")).pixels[0].astype(int)
    assert np.abs(seen - [[255, 255, 255], [128, 128, 128], [255, 0, 0]]).max() <= 6


MODES = {
    "RGB": lambda image: photos_make.encoded(image, "PNG"),
    "L": lambda image: photos_make.encoded(image.convert("L"), "PNG"),
    "1": lambda image: photos_make.encoded(image.convert("1"), "PNG"),
    "P": lambda image: photos_make.encoded(image.quantize(32), "PNG"),
    "P with transparency": lambda image: photos_make.encoded(image.quantize(32), "PNG", transparency=3),
    "RGBA": lambda image: photos_make.encoded(Image.merge("RGBA", [*image.split(), image.convert("L")]), "PNG"),
    "LA": lambda image: photos_make.encoded(Image.merge("LA", [image.getchannel(0), image.getchannel(1)]), "PNG"),
    "I;16": lambda image: photos_make.encoded(np.asarray(image)[:, :, 2].astype(np.uint16) * 200, "PNG"),
    "F": lambda image: photos_make.encoded(image.convert("F"), "TIFF"),
    "CMYK": lambda image: photos_make.encoded(image.convert("CMYK"), "TIFF"),
    "YCbCr": lambda image: photos_make.encoded(image.convert("YCbCr"), "TIFF"),
    "LAB": lambda image: photos_make.encoded(image.convert("LAB"), "TIFF"),
}


@pytest.mark.parametrize("mode", MODES)
def test_strips_have_no_seams_and_reduction_averages_blocks(mode: str, monkeypatch: pytest.MonkeyPatch):
    data = MODES[mode](Image.fromarray(photos_make.scene(67, 90)))
    whole = decode(data)
    assert whole.mode == mode.split()[0]
    monkeypatch.setattr(pixels_room, "_STRIP_PIXELS", 90 * 7)
    assert np.array_equal(decode(data).pixels, whole.pixels)
    reduced = decode(data, target=16)
    assert (reduced.reduction, reduced.pixels.shape, reduced.notes) == (4, (17, 23, 3), whole.notes)
    blocks = np.array(
        [[whole.pixels[y : y + 4, x : x + 4].mean((0, 1)) for x in range(0, 90, 4)] for y in range(0, 67, 4)]
    )
    assert np.abs(reduced.pixels - blocks).max() <= 1


@pytest.mark.parametrize("kind", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("size", [(127, 500), (128, 128), (300, 200), (1100, 1300), (80, 3000)])
def test_a_jpeg_is_reduced_while_it_is_decoded_and_stays_above_the_target(kind: str, size: tuple[int, int]):
    data = photos_make.encoded(Image.fromarray(photos_make.scene(*size)).convert(kind), "JPEG", quality=95)
    whole, reduced = decode(data).pixels.astype(int), decode(data, target=64)
    factor = reduced.reduction
    assert factor == max(2**k for k in range(12) if min(size) // 2**k >= 64)
    assert 64 <= min(reduced.pixels.shape[:2]) < 130 and (reduced.height, reduced.width) == size
    rows, columns = (side // factor for side in size)
    blocks = whole[: rows * factor, : columns * factor].reshape(rows, factor, columns, factor, 3).mean((1, 3))
    assert np.abs(reduced.pixels[:rows, :columns] - blocks).mean() < 1.5


def test_a_photo_smaller_than_twice_the_target_keeps_every_pixel():
    for kind in ("JPEG", "PNG"):
        data = photos_make.encoded(photos_make.scene(511, 700), kind)
        assert np.array_equal(decode(data, target=256).pixels, decode(data).pixels)
        assert decode(data, target=256).reduction == 1
        assert decode(photos_make.encoded(photos_make.scene(1, 1), kind), target=256).pixels.shape == (1, 1, 3)
