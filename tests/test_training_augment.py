"""Every operation against an oracle of its own: NumPy, SciPy's resampling, Pillow, colorsys, or the definition."""

import colorsys
import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance
from scipy import ndimage

from headstart.config import AUGMENTS
from headstart.errors import ConfigError, ShapeError
from headstart.training import augment_colours as colours
from headstart.training import augment_moves as moves
from headstart.training.augment import Augmentation
from headstart.training.augment_mixing import draw_mixup, erase, mixed
from headstart.training.presets import PRESETS, find_preset

CHANGING = {name: preset for name, preset in PRESETS.items() if preset is not None}
MODES = {"reflection": "reflect", "border": "nearest"}  # SciPy's names for the same two ways past the edge
GREY = torch.full((3, 1, 1), 128.0)


def photos(count: int = 4, channels: int = 3, height: int = 9, width: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(
        np.random.default_rng(seed).integers(0, 256, (count, channels, height, width)).astype(np.float32)
    )


def each(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float32)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def resampled(photo: np.ndarray, matrix: np.ndarray, padding: str) -> np.ndarray:
    """SciPy's bilinear resampling of (channels, height, width) under a 3x3 move about the middle, x right, y down."""
    back = np.linalg.inv(matrix.astype(np.float64))
    middle = (np.array(photo.shape[1:]) - 1) / 2
    rows_first = back[:2, :2][::-1, ::-1]  # SciPy's coordinates are (row, column)
    offset = middle + back[:2, 2][::-1] - rows_first @ middle
    planes = [ndimage.affine_transform(plane, rows_first, offset, order=1, mode=MODES[padding]) for plane in photo]
    return np.stack(planes)


def goes_to(matrix: torch.Tensor, x: float, y: float) -> list[float]:
    return (matrix[0] @ each(x, y, 1.0))[:2].tolist()


# Flips and whole pixels: exact.


@pytest.mark.parametrize("kind", [torch.uint8, torch.float32])
def test_flips_are_numpys_reversed_axes_of_the_named_photos_only(kind: torch.dtype) -> None:
    batch, which = photos().to(kind), torch.tensor([True, False, True, False])
    source = batch.numpy()
    across, upside_down = moves.flip_horizontally(batch, which).numpy(), moves.flip_vertically(batch, which).numpy()
    for number, flipped in enumerate(which.tolist()):
        assert np.array_equal(across[number], source[number, :, :, ::-1] if flipped else source[number])
        assert np.array_equal(upside_down[number], source[number, :, ::-1] if flipped else source[number])


@pytest.mark.parametrize(("padding", "mode"), [("reflection", "symmetric"), ("border", "edge")])
def test_whole_pixel_shifts_are_windows_of_numpys_padded_photo(padding: moves.Padding, mode: str) -> None:
    batch = photos(5)
    right, down = torch.tensor([0, 3, -4, 12, -1]), torch.tensor([0, -2, 5, 9, -9])
    shifted = moves.shift_pixels(batch, right, down, padding).numpy()
    padded = np.pad(batch.numpy(), ((0, 0), (0, 0), (9, 9), (12, 12)), mode=mode)
    for number, (x, y) in enumerate(zip(right.tolist(), down.tolist(), strict=True)):
        assert np.array_equal(shifted[number], padded[number, :, 9 - y : 18 - y, 12 - x : 24 - x])


def test_a_shift_beyond_the_photo_reflects_it_again_and_again() -> None:
    index = moves.shifted_index(3, torch.tensor([-7]))
    assert index.tolist() == [np.pad(np.arange(3), (0, 20), mode="symmetric")[7:10].tolist()]


# Moves.


@pytest.mark.parametrize("turns", [1, 2, 3, -1])
def test_quarter_turns_of_a_square_are_numpys_rot90(turns: int) -> None:
    batch = photos(height=10, width=10)
    turned = moves.move(batch, moves.rotations(each(90.0 * turns).repeat(4)))
    assert np.allclose(turned, np.rot90(batch.numpy(), turns, axes=(2, 3)), atol=1e-2)


def test_a_half_turn_of_an_oblong_photo_reverses_both_axes() -> None:
    batch = photos()
    turned = moves.move(batch, moves.rotations(each(180.0).repeat(4)))
    assert np.allclose(turned, batch.numpy()[:, :, ::-1, ::-1], atol=1e-2)


def test_whole_shifts_as_moves_are_the_exact_ones() -> None:
    batch = photos(3)
    right, down = torch.tensor([2, -3, 0]), torch.tensor([1, 4, -8])
    moved = moves.move(batch, moves.shifts(right.float(), down.float()))
    assert torch.allclose(moved, moves.shift_pixels(batch, right, down), atol=1e-2)


def test_flips_as_moves_are_the_exact_ones() -> None:
    batch, across = photos(), torch.tensor([True, False, True, False])
    upside_down = torch.tensor([True, True, False, False])
    expected = moves.flip_vertically(moves.flip_horizontally(batch, across), upside_down)
    assert torch.allclose(moves.move(batch, moves.flips(across, upside_down)), expected, atol=1e-2)


BUILT = {
    "rotation": (moves.rotations, (-37.0, 15.0)),
    "zoom": (moves.zooms, (0.7, 1.6)),
    "stretch": (moves.stretches, (0.8, 1.5)),
    "shear": (moves.shears, (-20.0, 11.0)),
}


@pytest.mark.parametrize("padding", ["reflection", "border"])
@pytest.mark.parametrize("name", BUILT)
def test_a_move_samples_as_scipy_does(name: str, padding: moves.Padding) -> None:
    build, values = BUILT[name]
    batch, matrices = photos(2), build(each(*values))
    moved = moves.move(batch, matrices, padding).numpy()
    for photo, result, matrix in zip(batch.numpy(), moved, matrices.numpy(), strict=True):
        assert np.allclose(result, resampled(photo, matrix, padding), atol=0.02)


@pytest.mark.parametrize("padding", ["reflection", "border"])
def test_many_moves_are_sampled_once_as_scipy_samples_their_product(padding: moves.Padding) -> None:
    batch = photos(6, height=11, width=8)
    chain = Augmentation(
        crop=0.6, flip_horizontal=0.5, flip_vertical=0.5, zoom=0.3, stretch=0.3, shear=20.0, rotation=180.0, shift=0.2,
        padding=padding,
    )  # fmt: skip
    drawn = chain.draw(6, (3, 11, 8), generator())
    result = chain.apply(batch, drawn, GREY).numpy()
    for photo, moved, matrix in zip(batch.numpy(), result, chain.moves(drawn, 11, 8).numpy(), strict=True):
        assert np.allclose(moved, resampled(photo, matrix, padding), atol=0.1)


def test_moves_go_where_their_names_say() -> None:
    assert goes_to(moves.shifts(each(3.0), each(-2.0)), 1.0, 1.0) == pytest.approx([4.0, -1.0])
    assert goes_to(moves.rotations(each(90.0)), 1.0, 0.0) == pytest.approx([0.0, -1.0], abs=1e-6)  # right goes up
    assert goes_to(moves.zooms(each(2.0)), 1.0, -3.0) == pytest.approx([2.0, -6.0])
    assert goes_to(moves.shears(each(45.0)), 0.0, -1.0) == pytest.approx([1.0, -1.0])  # the top leans to the right
    wide = goes_to(moves.stretches(each(4.0)), 1.0, 1.0)
    assert wide == pytest.approx([2.0, 0.5]) and wide[0] / wide[1] == pytest.approx(4.0)
    assert goes_to(moves.flips(torch.tensor([True]), torch.tensor([False])), 1.0, 1.0) == [-1.0, 1.0]


def test_a_crop_takes_the_corners_of_its_window_to_the_corners_of_the_photo() -> None:
    corner = moves.crops(each(0.5), each(-1.0), each(1.0), 8, 12)  # the window at the left and at the bottom
    assert goes_to(corner, -6.0, 4.0) == pytest.approx([-6.0, 4.0])
    assert goes_to(corner, 0.0, 0.0) == pytest.approx([6.0, -4.0])


def test_a_crop_is_pillows_bilinear_cut_away_from_the_edges() -> None:
    batch = photos(1, 1, 16, 24)
    cut = moves.move(batch, moves.crops(each(0.5), each(0.5), each(-0.25), 16, 24))
    left, top = 12 * 0.75, 8 * 0.375  # a window of 12 x 8 px, 3/4 and 3/8 of the way through what is left
    extent = (left, top, left + 12, top + 8)
    image = Image.fromarray(batch[0, 0].numpy())
    expected = image.transform(image.size, Image.Transform.EXTENT, extent, Image.Resampling.BILINEAR)
    assert np.allclose(cut[0, 0, 1:-1, 1:-1], np.asarray(expected)[1:-1, 1:-1], atol=0.02)


@pytest.mark.parametrize("name", BUILT)
def test_determinants_are_the_change_of_area(name: str) -> None:
    build, values = BUILT[name]
    found = torch.linalg.det(build(each(*values)))
    expected = [value**2 for value in values] if name == "zoom" else [1.0, 1.0]
    assert found.tolist() == pytest.approx(expected, rel=1e-5)
    mirrored = moves.flips(torch.tensor([True, True]), torch.tensor([False, True]))
    assert torch.linalg.det(mirrored).tolist() == [-1.0, 1.0]
    assert torch.linalg.det(moves.crops(each(0.5), each(0.3), each(-1.0), 7, 9)).item() == pytest.approx(4.0)


def test_moves_that_move_nothing_leave_the_photo() -> None:
    batch = photos()
    still, one = torch.zeros(4), torch.ones(4)
    for matrices in (
        moves.shifts(still, still),
        moves.rotations(still),
        moves.zooms(one),
        moves.stretches(one),
        moves.shears(still),
        moves.crops(one, one, one, 9, 12),
    ):
        assert torch.equal(matrices, torch.eye(3).expand(4, 3, 3))
        assert torch.allclose(moves.move(batch, matrices), batch, atol=1e-3)


def test_an_unknown_padding_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="padding must be one of reflection, border; received 'wrap'"):
        moves.move.__wrapped__(photos(), moves.zooms(torch.ones(4)), "wrap")


# Colours.


@pytest.mark.parametrize("degrees", [-170.0, -60.0, -7.5, 0.0, 33.0, 120.0, 180.0])
def test_hue_turns_as_colorsys_does_pixel_by_pixel(degrees: float) -> None:
    batch = photos(1, height=6, width=7)
    batch[0, :, 0, 0], batch[0, :, 0, 1], batch[0, :, 0, 2] = 77.0, 0.0, 255.0  # grey, black, white
    batch[0, :, 1, 0] = each(200.0, 200.0, 10.0)  # two channels equal
    turned = colours.shift_hue(batch, each(degrees))[0].permute(1, 2, 0).reshape(-1, 3)
    for before, after in zip(batch[0].permute(1, 2, 0).reshape(-1, 3).tolist(), turned.tolist(), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(level / 255 for level in before))
        expected = colorsys.hsv_to_rgb((hue + degrees / 360) % 1, saturation, value)
        assert after == pytest.approx([level * 255 for level in expected], abs=0.01)


ENHANCERS = {
    "brightness": (colours.adjust_brightness, ImageEnhance.Brightness),
    "contrast": (colours.adjust_contrast, ImageEnhance.Contrast),
    "saturation": (colours.adjust_saturation, ImageEnhance.Color),
}


@pytest.mark.parametrize("factor", [0.0, 0.5, 1.0, 1.8])
@pytest.mark.parametrize("name", ENHANCERS)
def test_brightness_contrast_and_saturation_are_pillows_to_a_grey_level(name: str, factor: float) -> None:
    change, enhancer = ENHANCERS[name]
    batch = photos(2, height=16, width=16)
    changed = change(batch, each(factor, factor))
    for photo, result in zip(batch, changed, strict=True):
        image = Image.fromarray(photo.permute(1, 2, 0).numpy().astype(np.uint8))
        expected = np.asarray(enhancer(image).enhance(factor), dtype=np.float32)
        assert np.abs(result.permute(1, 2, 0).numpy() - expected).max() <= 1.5  # Pillow rounds the grey and the result
    assert changed.min() >= 0 and changed.max() <= 255


def test_each_photo_gets_its_own_factor() -> None:
    batch = photos(2)
    for change, _ in ENHANCERS.values():
        both = change(batch, each(0.4, 1.7))
        assert torch.equal(both[:1], change(batch[:1], each(0.4))) and torch.equal(
            both[1:], change(batch[1:], each(1.7))
        )
    for change in (*(change for change, _ in ENHANCERS.values()), colours.shift_hue):
        neutral = each(0.0, 0.0) if change is colours.shift_hue else each(1.0, 1.0)
        assert torch.allclose(change(batch, neutral), batch, atol=1e-3)


def test_grayscale_is_pillows_luminance_of_the_named_photos() -> None:
    batch = photos(2)
    gray = colours.grayscale(batch, torch.tensor([True, False]))
    expected = np.asarray(Image.fromarray(batch[0].permute(1, 2, 0).numpy().astype(np.uint8)).convert("L"))
    assert all(np.abs(plane.numpy() - expected).max() <= 1 for plane in gray[0])
    assert torch.equal(gray[1], batch[1])


def test_grey_photos_have_no_hue_and_no_saturation_to_change() -> None:
    batch = photos(2, channels=1)
    for change in (colours.shift_hue, colours.adjust_saturation):
        assert torch.allclose(change(batch, each(90.0, 0.5)), batch, atol=1e-3)
    assert torch.equal(colours.grayscale(batch, torch.tensor([True, True])), batch)


def test_colours_of_two_channels_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"need photos of 3 channels .or 1, grey.; received 2 channels"):
        colours.shift_hue(photos(channels=2), torch.zeros(4))


# Erasing and mixing.


def test_erasing_covers_the_rectangle_and_nothing_else() -> None:
    batch, fill = photos(3, height=10, width=20), each(1.0, 2.0, 3.0).reshape(3, 1, 1)
    box = {"top": each(0.2, 0.0, 0.0), "left": each(0.5, 0.0, 0.0)}
    size = {"height": each(0.3, 1.0, 1.0), "width": each(0.25, 1.0, 1.0)}
    erased = erase(batch, torch.tensor([True, False, True]), **box, **size, fill=fill).numpy()
    expected = batch.numpy().copy()
    expected[0, :, 2:5, 10:15] = fill.numpy()
    expected[2] = fill.numpy()
    assert np.array_equal(erased, expected)


def test_mixing_is_the_weighted_sum_of_each_pair() -> None:
    batch, share, partner = photos(3), each(0.5, 0.9, 1.0), torch.tensor([2, 0, 1])
    mix = mixed(batch, share, partner)
    for number in range(3):
        weight = float(share[number])
        expected = weight * batch[number] + (1 - weight) * batch[int(partner[number])]
        assert torch.allclose(mix[number], expected, atol=1e-3)


@pytest.mark.parametrize("alpha", [0.2, 1.0])
def test_shares_of_mixup_are_the_larger_part_of_a_beta_draw(alpha: float) -> None:
    share, partner = draw_mixup(20_000, alpha, generator())
    assert sorted(partner.tolist()) == list(range(20_000)) and share.min() >= 0.5 and share.max() <= 1.0
    # The variance of Beta(a, a) about 1/2 is 1 / (4 (2a + 1)); folding at 1/2 leaves distances from 1/2 as they are.
    assert float(((share - 0.5) ** 2).mean()) == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.03)


# Whole augmentations.


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANGING)
def test_a_preset_draws_one_entry_a_photo_from_its_generator_only(name: str, channels: int) -> None:
    preset = CHANGING[name]
    torch.manual_seed(1)
    drawn = preset.draw(64, (channels, 20, 20), generator(7))
    torch.manual_seed(2)
    again, other = preset.draw(64, (channels, 20, 20), generator(7)), preset.draw(64, (channels, 20, 20), generator(8))
    assert drawn.keys() == again.keys() and all(torch.equal(drawn[key], again[key]) for key in drawn)
    assert all(values.shape == (64,) and len(values.unique()) > 1 for values in drawn.values())
    assert any(not torch.equal(drawn[key], other[key]) for key in drawn)
    assert channels == 3 or not drawn.keys() & {"saturation", "hue", "grayscale"}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", CHANGING)
def test_a_preset_gives_photos_of_the_same_size_and_scale_and_leaves_its_input(name: str, channels: int) -> None:
    preset, batch = CHANGING[name], photos(16, channels, 20, 20).to(torch.uint8)
    before, fill = batch.clone(), GREY[:channels]
    drawn = preset.draw(16, (channels, 20, 20), generator())
    changed = preset.apply(batch, drawn, fill)
    assert changed.shape == batch.shape and changed.dtype == torch.float32
    assert changed.min() >= 0 and changed.max() <= 255 and torch.equal(batch, before)
    assert not torch.equal(changed, batch.float())
    part = preset.apply(batch[5:9], {key: values[5:9] for key, values in drawn.items()}, fill)
    assert torch.equal(part, changed[5:9])  # a photo's neighbours do not matter


def test_moves_are_composed_in_the_documented_order_and_shifts_are_shares_of_their_own_side() -> None:
    one = Augmentation(
        crop=0.5, flip_horizontal=1.0, zoom=1.0, stretch=1.0, shear=45.0, rotation=90.0, shift=1.0, shift_pixels=9
    )
    drawn = {
        "crop_side": each(0.5),
        "crop_right": each(0.0),
        "crop_down": each(0.0),
        "flip_horizontal": torch.tensor([True]),
        "zoom": each(2.0),
        "stretch": each(4.0),
        "shear": each(45.0),
        "rotation": each(90.0),
        "shift_right": each(0.1),
        "shift_down": each(0.2),
        "pixels_right": torch.tensor([3]),
        "pixels_down": torch.tensor([-1]),
    }
    x, y = 1.0, 2.0
    x, y = 2 * x, 2 * y  # crop to the middle half
    x, y = -x, y  # flip
    x, y = 2 * x, 2 * y  # zoom
    x, y = 2 * x, y / 2  # stretch
    x, y = x - y, y  # shear: what lies below the middle goes left
    x, y = y, -x  # a quarter turn counter-clockwise, y down
    x, y = x + 0.1 * 50 + 3, y + 0.2 * 20 - 1  # shifts, in a photo 50 px wide and 20 px high
    assert goes_to(one.moves(drawn, 20, 50), 1.0, 2.0) == pytest.approx([x, y], abs=1e-4)


def test_photos_are_never_turned_upside_down_and_digits_never_mirrored() -> None:
    for name, mirrored in (("photos", True), ("digits", False)):
        drawn = CHANGING[name].draw(2_000, (3, 32, 32), generator())
        matrices = CHANGING[name].moves(drawn, 32, 32)
        up = matrices[:, :2, :2] @ each(0.0, -1.0)
        lean = torch.rad2deg(torch.atan2(up[:, 0].abs(), -up[:, 1]))
        assert float(lean.max()) < 25  # degrees from upright
        assert bool((torch.linalg.det(matrices) < 0).any()) == mirrored
    anyway = CHANGING["any-way-up"].draw(2_000, (3, 32, 32), generator())
    up = CHANGING["any-way-up"].moves(anyway, 32, 32)[:, :2, :2] @ each(0.0, -1.0)
    quarter = (torch.rad2deg(torch.atan2(up[:, 0], -up[:, 1])) // 90).long()
    assert torch.bincount(quarter + 2, minlength=4).min() > 400  # every direction of up, about equally often


def test_draws_reach_their_limits_and_not_beyond() -> None:
    settings = {
        "zoom": 0.5,
        "stretch": 0.5,
        "rotation": 30.0,
        "shear": 10.0,
        "shift": 0.1,
        "hue": 20.0,
        "contrast": 1.0,
    }
    drawn = Augmentation(**settings, crop=0.7, shift_pixels=3, flip_horizontal=0.25, erase=1.0).draw(
        5_000, (3, 32, 32), generator()
    )
    limits = {
        "zoom": (1 / 1.5, 1.5), "stretch": (1 / 1.5, 1.5), "rotation": (-30, 30), "shear": (-10, 10), "hue": (-20, 20),
        "shift_right": (-0.1, 0.1), "shift_down": (-0.1, 0.1), "contrast": (0.5, 2.0), "crop_side": (0.7, 1.0),
        "crop_right": (-1, 1), "pixels_right": (-3, 3), "pixels_down": (-3, 3),
    }  # fmt: skip
    for name, (low, high) in limits.items():
        values, reach = drawn[name].double(), high - low
        assert values.min() >= low - 1e-5 and values.max() <= high + 1e-5, name
        assert values.min() < low + 0.01 * reach and values.max() > high - 0.01 * reach, name
    assert float(drawn["flip_horizontal"].float().mean()) == pytest.approx(0.25, abs=0.03)
    assert float(drawn["zoom"].log().mean()) == pytest.approx(0.0, abs=0.02)  # smaller as often as larger
    area = drawn["erase_height"] * drawn["erase_width"]
    assert area.min() > 0.019 and area.max() < 0.201
    for start, length in (("erase_top", "erase_height"), ("erase_left", "erase_width")):
        assert drawn[start].min() >= 0 and (drawn[start] + drawn[length]).max() <= 1 + 1e-6


def test_flips_and_whole_shifts_use_only_pixels_of_the_photo_in_the_order_flip_then_shift() -> None:
    preset, batch = CHANGING["cifar"], photos(32, 3, 12, 12).to(torch.uint8)
    assert not preset.samples
    drawn = preset.draw(32, (3, 12, 12), generator())
    expected = moves.shift_pixels(
        moves.flip_horizontally(batch, drawn["flip_horizontal"]), drawn["pixels_right"], drawn["pixels_down"]
    )
    assert torch.equal(preset.apply(batch, drawn, GREY), expected.float())
    sampled = moves.move(batch.float(), preset.moves(drawn, 12, 12))
    assert torch.allclose(sampled, expected.float(), atol=0.01)  # the long way round gives the same


def test_colours_and_erasing_are_applied_after_the_moves() -> None:
    preset = Augmentation(brightness=0.5, contrast=0.5, saturation=0.5, hue=90.0, grayscale=0.5, erase=0.5)
    batch = photos(8)
    drawn = preset.draw(8, (3, 9, 12), generator())
    expected = colours.adjust_brightness(batch, drawn["brightness"])
    expected = colours.adjust_contrast(expected, drawn["contrast"])
    expected = colours.adjust_saturation(expected, drawn["saturation"])
    expected = colours.grayscale(colours.shift_hue(expected, drawn["hue"]), drawn["grayscale"])
    box = {name: drawn[f"erase_{name}"] for name in ("top", "left", "height", "width")}
    assert torch.equal(preset.apply(batch, drawn, GREY), erase(expected, drawn["erase"], **box, fill=GREY))


def test_an_augmentation_of_nothing_copies_the_photos() -> None:
    batch = photos()
    same = Augmentation().apply(batch, Augmentation().draw(4, (3, 9, 12), generator()), GREY)
    assert torch.equal(same, batch)
    same.zero_()
    assert batch.max() > 0


@pytest.mark.parametrize(
    ("setting", "value", "words"),
    [
        ("flip_horizontal", 1.5, "flip_horizontal must lie between 0 and 1; received 1.5"),
        ("rotation", -5.0, "rotation must lie between 0 and 180; received -5.0"),
        ("shift", math.nan, "shift must lie between 0 and 1; received nan"),
        ("crop", 0.0, r"crop must be above 0 and at most 1 \(all of it\); received 0.0"),
        ("erase_area", 0.0, "erase_area must lie between 0.02 and 1; received 0.0"),
    ],
)
def test_a_setting_out_of_range_is_named_with_its_range(setting: str, value: float, words: str) -> None:
    with pytest.raises(ConfigError, match=f"augmentation {words}"):
        Augmentation(**{setting: value})


def test_an_unknown_preset_is_answered_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"augment must be one of none, photos, digits, any-way-up, cifar; .* 'dogs'"):
        find_preset("dogs")
    assert tuple(PRESETS) == AUGMENTS  # what the settings accept
    assert find_preset("none") is None and find_preset("photos") is PRESETS["photos"]
