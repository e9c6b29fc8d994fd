"""Hand-made filters: the published examples, a slow loop from the definition, and what the picture shows."""

import itertools
import json
import math

import numpy as np
import pytest
from PIL import Image

from headstart.errors import DataError, OutputError, ShapeError, UsageError
from headstart.layers.colours import signed_colours
from headstart.layers.filter_lesson import apply_filter
from headstart.layers.filter_picture import draw_lesson, scale_limit
from headstart.layers.filters import apply_kernel, curve_demo, filter_image, pool_map, products_at
from headstart.layers.kernels import CURVE_PATCH, KERNELS, OTHER_PATCH, checked_kernel, read_kernel, rotations

EDGE = KERNELS["edge-4x4"]


def photo(height=24, width=31, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def slow_response(image, kernel):
    """Cross-correlation from its definition, number by number."""
    height, width = kernel.shape
    out = np.zeros((image.shape[0] - height + 1, image.shape[1] - width + 1))
    for row, column in itertools.product(range(out.shape[0]), range(out.shape[1])):
        for i, j in itertools.product(range(height), range(width)):
            out[row, column] += image[row + i, column + j] * kernel[i, j]
    return out


# --- the published examples ----------------------------------------------------------------


def test_the_curve_filter_gives_6600_on_its_curve_and_0_on_another_line():
    assert apply_kernel(CURVE_PATCH, KERNELS["curve"]).sum() == 6600
    assert apply_kernel(OTHER_PATCH, KERNELS["curve"]).sum() == 0


def test_the_five_products_of_the_curve_are_the_published_ones():
    products = products_at(CURVE_PATCH, KERNELS["curve"], 0, 0).products
    assert sorted(products[products != 0].tolist()) == sorted([50 * 30, 50 * 30, 50 * 30, 20 * 30, 50 * 30])
    text = curve_demo().to_text()
    assert "(50*30) + (50*30) + (50*30) + (20*30) + (50*30) = 6600" in text
    assert "another line: 0" in text
    assert curve_demo().to_json()["matching"]["sum"] == 6600


def test_a_flipped_kernel_would_give_3600_so_no_kernel_is_flipped():
    flipped = np.rot90(KERNELS["curve"], 2)
    assert slow_response(CURVE_PATCH, flipped) == 3600
    assert apply_kernel(CURVE_PATCH, KERNELS["curve"]).sum() != 3600


def test_the_top_edge_filter_is_the_published_matrix_and_answers_where_bright_lies_under_dark():
    assert KERNELS["top-edge"].tolist() == [[-1, -1, -1], [1, 1, 1], [0, 0, 0]]
    step = np.zeros((6, 5))
    step[3:] = 10.0
    response = apply_kernel(step, KERNELS["top-edge"])[0]
    assert response[2].tolist() == [30, 30, 30]  # the window's middle row lies on the first bright row
    assert np.delete(response, 2, axis=0).tolist() == [[0, 0, 0]] * 3


@pytest.mark.parametrize(("name", "turns"), [("top-edge", 0), ("left-edge", 1), ("bottom-edge", 2), ("right-edge", 3)])
def test_each_edge_filter_answers_only_to_its_own_edge(name, turns):
    square = np.zeros((12, 12))
    square[4:8, 4:8] = 1.0
    response = apply_kernel(square, KERNELS[name])[0]
    row, column = np.argwhere(response == response.max()).mean(axis=0) + 1  # the window's centre
    side = {"top-edge": (4, 5.5), "left-edge": (5.5, 4), "bottom-edge": (7, 5.5), "right-edge": (5.5, 7)}[name]
    assert (row, column) == side
    assert (KERNELS[name] == rotations(KERNELS["top-edge"])[turns]).all()


def test_the_4x4_edge_filter_its_negative_and_their_transposes_are_its_four_rotations():
    assert EDGE.tolist() == [[-1, -1, 1, 1]] * 4
    family = {matrix.tobytes() for matrix in (EDGE, -EDGE, EDGE.T.copy(), -EDGE.T.copy())}
    assert {np.ascontiguousarray(turned + 0.0).tobytes() for turned in rotations(EDGE)} == family


def test_for_the_curve_the_rotations_are_not_the_negatives_and_transposes():
    curve = KERNELS["curve"]
    family = {matrix.tobytes() for matrix in (curve, -curve, curve.T.copy(), -curve.T.copy())}
    assert {np.ascontiguousarray(turned).tobytes() for turned in rotations(curve)} != family


def test_a_step_gives_8_for_one_rotation_of_the_4x4_edge_filter_and_nothing_after_relu_for_the_other_three():
    step = np.zeros((12, 12))
    step[:, 6:] = 1.0
    answers = [filter_image(step, turned) for turned in rotations(EDGE)]
    assert [answer.relu.max() for answer in answers] == [8, 0, 0, 0]
    assert answers[0].response.shape == (9, 9)
    assert answers[0].relu.sum() == 144


def test_turning_photo_and_filter_together_turns_the_response():
    image = photo().mean(axis=-1)
    for turns, kernel in enumerate(rotations(KERNELS["curve"])):
        turned = apply_kernel(np.rot90(image, turns), kernel)[0]
        np.testing.assert_allclose(turned, np.rot90(apply_kernel(image, KERNELS["curve"])[0], turns))


def test_sobel_laplacian_blur_and_sharpen_do_what_their_names_say():
    ramp = np.add.outer(np.zeros(6), 3.0 * np.arange(7))
    assert (apply_kernel(ramp, KERNELS["sobel-x"]) == 8 * 3).all()  # 8 times the slope across
    assert (apply_kernel(ramp, KERNELS["sobel-y"]) == 0).all()
    assert (apply_kernel(ramp, KERNELS["laplacian"]) == 0).all()  # a slope has no curvature
    bowl = np.add.outer(np.arange(6.0) ** 2, np.arange(7.0) ** 2)
    assert (apply_kernel(bowl, KERNELS["laplacian"]) == 4).all()
    np.testing.assert_allclose(apply_kernel(ramp, KERNELS["blur"])[0], ramp[1:-1, 1:-1])
    assert (KERNELS["sharpen"] == KERNELS["identity"] - KERNELS["laplacian"]).all()


def test_the_curve_without_its_mean_does_not_answer_to_brightness():
    kernel = KERNELS["curve-zero-mean"]
    assert kernel.sum() == 0
    assert (apply_kernel(np.full((9, 9), 200.0), kernel) == 0).all()
    line, other = apply_kernel(CURVE_PATCH, kernel).item(), apply_kernel(OTHER_PATCH, kernel).item()
    assert line > 0 > other


# --- against the definition and another implementation --------------------------------------


@pytest.mark.parametrize("name", sorted(KERNELS))
def test_every_filter_equals_the_sum_written_out(name):
    image = photo().mean(axis=-1)
    np.testing.assert_allclose(apply_kernel(image, KERNELS[name])[0], slow_response(image, KERNELS[name]))


def test_a_colour_response_is_the_sum_of_one_small_filter_a_channel_as_in_pytorch():
    torch = pytest.importorskip("torch")
    planes = photo().astype(np.float64).transpose(2, 0, 1)
    kernel = np.random.default_rng(1).normal(size=(3, 3, 5))
    result = filter_image(planes, kernel)
    expected = torch.nn.functional.conv2d(torch.tensor(planes)[None], torch.tensor(kernel)[None])
    np.testing.assert_allclose(result.response, expected[0, 0].numpy())
    for channel in range(3):
        np.testing.assert_allclose(result.terms[channel], slow_response(planes[channel], kernel[channel]))
    np.testing.assert_allclose(result.terms.sum(axis=0), result.response)


def test_relu_cuts_off_the_negative_part_and_nothing_else():
    image = photo().mean(axis=-1)
    ours, opposite = filter_image(image, EDGE), filter_image(image, -EDGE)
    np.testing.assert_allclose(ours.relu - opposite.relu, ours.response)
    assert ours.relu.min() == 0


@pytest.mark.parametrize("kind", ["max", "average", "l2"])
def test_pooling_equals_pytorch(kind):
    torch = pytest.importorskip("torch")
    values = np.random.default_rng(2).normal(size=(11, 14))
    layer = {
        "max": torch.nn.MaxPool2d(3),
        "average": torch.nn.AvgPool2d(3),
        "l2": torch.nn.LPPool2d(2, 3),
    }[kind]
    expected = layer(torch.tensor(values)[None, None])[0, 0].numpy()
    np.testing.assert_allclose(pool_map(values, 3, kind), expected)


def test_pooling_a_checked_example_by_hand():
    values = np.array([[1.0, 2.0, 0.0, 9.0], [3.0, 4.0, 0.0, 9.0]])
    assert pool_map(values, 2, "max").tolist() == [[4, 9]]
    assert pool_map(values, 2, "average").tolist() == [[2.5, 4.5]]
    assert pool_map(values, 2, "l2").tolist() == [[math.sqrt(30), math.sqrt(162)]]


def test_the_sum_of_the_products_is_the_response_at_that_place():
    result = apply_filter(photo(), "sobel-x", at=(7, 12), all_rotations=True)
    for one, products in zip(result.filtered, result.products, strict=True):
        assert products.total == one.response[7, 12]
        assert (products.patch == result.image[7:10, 12:15]).all()


def test_brightness_is_the_standard_weighting_in_whole_numbers():
    result = apply_filter(photo(), "identity")
    expected = np.asarray(Image.fromarray(photo()).convert("L"), dtype=np.float64)
    assert (result.image == np.rint(result.image)).all()
    assert np.abs(result.image - expected).max() <= 1  # Pillow rounds the same sum in integers


# --- what the user typed ---------------------------------------------------------------------


def test_a_typed_matrix_is_used_as_typed():
    name, kernel = read_kernel("[[1, -2.5e0], [0, 3]]")
    assert (name, kernel.tolist()) == ("your own", [[1, -2.5], [0, 3]])
    _, colour = read_kernel("[[[1]], [[2]], [[3]]]")
    assert colour.shape == (3, 1, 1)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("tob-edge", "no filter is called 'tob-edge'; choose one of top-edge"),
        ("", "no filter is called ''"),
        ("[]", "expected a list of rows"),
        ("[1, 2]", "expected a list of rows"),
        ("[[]]", "expected a list of rows"),
        ("[[1, 2], [3]]", "its rows have different lengths: 2, 1"),
        ("[[1, null]]", "row 0, column 1 (from 0) is not a finite number"),
        ("[[1, true]]", "row 0, column 1 (from 0) is not a finite number"),
        ('[[1, "2"]]', "row 0, column 1 (from 0) is not a finite number"),
        ("[[NaN]]", "NaN is not a finite number"),
        ("[[1e999]]", "is not a finite number"),
        ("[[" + "9" * 400 + "]]", "is not a finite number"),
        ("[[" + "9" * 5000 + "]]", "is not a matrix"),
        ("[[1, 2], [3, 4]", "is not a matrix"),
        ("[[__import__('os').system('true')]]", "is not a matrix"),
        ("[" * 100_000, "nested too deeply"),
        ("[[[1]], [[2]]]", "2 matrices; for colour expected 3 of one size"),
        ("[[[1]], [[2]], [[3, 4]]]", "expected 3 of one size"),
        (str([[0] * 102]), "expected at most 101 x 101"),
        ("[[1]," + " " * 200_000 + "[2]]", "expected at most 200000"),
    ],
)
def test_a_matrix_that_is_not_one_is_refused_in_one_line(text, reason):
    with pytest.raises(UsageError) as error:
        read_kernel(text)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)
    assert len(str(error.value)) < 400


def test_a_typed_matrix_of_odd_objects_is_refused():
    for rows in (None, 3, "[[1]]", [[1], 2], [[10**5000]], np.zeros((2, 2, 2, 2))):
        with pytest.raises(UsageError):
            checked_kernel(rows)


def test_a_filter_larger_than_the_photo_is_refused_with_both_sizes():
    with pytest.raises(ShapeError, match="window spans 7 px but the padded input is 5 px"):
        apply_filter(photo(5, 9), "curve")


def test_a_pool_larger_than_the_response_is_refused():
    with pytest.raises(ShapeError, match="window spans 30 px"):
        apply_filter(photo(), "blur", pool=30)


def test_a_filter_of_three_matrices_on_two_channels_is_refused():
    with pytest.raises(ShapeError, match="the filter has 3 channels but the image has 2"):
        apply_kernel(np.zeros((2, 5, 5)), np.zeros((3, 2, 2)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pool": 0}, "pool is 0; expected a window of at least 1 pixel"),
        ({"side": 0}, "the longest side is 0; expected at least 1 pixel"),
        ({"at": (22, 0)}, "rows go from 0 to 21, columns from 0 to 28"),
        ({"at": (0, -1)}, "no window of 3 x 3 starts at row 0, column -1"),
    ],
)
def test_each_option_out_of_range_is_refused(options, message):
    with pytest.raises(UsageError) as error:
        apply_filter(photo(), "blur", **options)
    assert message in str(error.value)


def test_a_file_that_is_not_a_photo_is_refused_by_name(tmp_path):
    pytest.importorskip("headstart.images")
    fake = tmp_path / "notes.jpg"
    fake.write_text("not a photo")
    for path in (fake, tmp_path / "absent.png", tmp_path):
        with pytest.raises(DataError, match="cannot be used as a photo") as error:
            apply_filter(path, "blur")
        assert path.name in str(error.value)
        assert "\n" not in str(error.value)


# --- what is shown and saved -------------------------------------------------------------------


def test_a_large_photo_is_reduced_and_the_text_says_so():
    result = apply_filter(photo(90, 60), "blur", side=45)
    assert result.image.shape == (45, 30)
    assert "45 x 30 pixels, reduced from 90 x 60" in result.to_text()
    assert apply_filter(photo(90, 60), "blur", side=None).image.shape == (90, 60)


def test_a_file_and_its_pixels_give_the_same_maps(tmp_path):
    pytest.importorskip("headstart.images")
    Image.fromarray(photo()).save(tmp_path / "photo.png")
    from_file, from_array = apply_filter(tmp_path / "photo.png", "blur"), apply_filter(photo(), "blur")
    assert (from_file.filtered[0].response == from_array.filtered[0].response).all()


def test_text_and_json_tell_the_numbers_of_the_maps():
    result = apply_filter(photo(), "sobel-x", pool=2, pool_kind="average", at=(0, 0))
    text, document = result.to_text(), json.loads(json.dumps(result.to_json()))
    assert "-2  0  2" in text
    assert "22 x 29" in text
    (one,) = document["results"]
    assert one["maps"]["pooled"]["shape"] == [11, 14]
    assert one["maps"]["response"]["max"] == result.filtered[0].response.max()
    assert one["at"]["sum"] == result.filtered[0].response[0, 0]
    assert f"= {one['at']['sum']:.0f}" in text


def test_colour_products_are_listed_a_channel_a_line_and_added():
    result = apply_filter(photo(), "identity", colour=True, at=(3, 4))
    red, green, blue = (int(value) for value in photo()[4, 5])
    text = result.products[0].to_text()
    for name, value in (("red", red), ("green", green), ("blue", blue)):
        assert f"{name:<6} {value}*1 = {value}" in text
    assert f"in all {red} + {green} + {blue} = {red + green + blue}" in text


def test_saving_writes_the_picture_every_array_and_the_numbers(tmp_path):
    result = apply_filter(photo(), "edge-4x4", all_rotations=True, colour=True, pool=3, pool_kind="l2")
    folder = result.save(tmp_path / "lesson")
    names = {path.name for path in folder.iterdir()}
    maps = ("kernel", "channels", "response", "relu", "pooled")
    assert names == {"filter.png", "filter.json", "image.npy"} | {
        f"{m}-{d}.npy" for m in maps for d in (0, 90, 180, 270)
    }
    assert (np.load(folder / "response-90.npy") == result.filtered[1].response).all()
    assert json.loads((folder / "filter.json").read_text())["pool"] == {"size": 3, "kind": "l2"}
    with Image.open(folder / "filter.png") as picture:
        assert min(picture.size) > 300
    with pytest.raises(OutputError, match="exists already"):
        result.save(folder)


def test_the_filters_are_the_same_for_everyone():
    with pytest.raises(ValueError, match="read-only"):
        KERNELS["blur"][0, 0] = 5


# --- colours -----------------------------------------------------------------------------------


def lightness(rgb):
    """CIE L* from sRGB, by its definition."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    luminance = linear @ [0.2126, 0.7152, 0.0722]
    return np.where(luminance > 0.008856, 116 * np.cbrt(luminance) - 16, 903.3 * luminance)


def test_a_larger_size_is_always_darker_and_opposite_values_are_equally_dark():
    values = np.linspace(0, 1, 101)
    above, below = (lightness(signed_colours(sign * values, 1.0).astype(float)) for sign in (1, -1))
    assert (np.diff(above) < 0).all()
    assert (np.diff(below) < 0).all()
    assert np.abs(above - below).max() < 6
    assert above[0] > 96
    steps = -np.diff(above[::10])
    assert steps.max() < 1.5 * steps.min()  # equal steps of value are about equal steps of lightness


def test_the_signs_stay_apart_for_the_colour_blind():
    # Viénot, Brettel & Mollon 1999: linear RGB as a dichromat without red (or green) cones sees it.
    protan = np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]])
    deutan = np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]])
    for value in (0.3, 0.6, 1.0):
        orange, blue = signed_colours(np.array([value, -value]), 1.0) / 255.0
        for seen_by in (protan, deutan):
            difference = seen_by @ (orange**2.2) - seen_by @ (blue**2.2)
            assert np.abs(difference).max() > 0.15


def test_zero_is_the_lightest_and_values_beyond_the_limit_get_the_darkest():
    assert signed_colours(np.zeros((2, 2)), 1.0).min() > 240
    assert signed_colours(np.zeros(1), 0.0).min() > 240
    assert (signed_colours(np.array([5.0]), 1.0) == signed_colours(np.array([1.0]), 1.0)).all()


def test_the_picture_colours_the_response_by_its_sign_about_zero():
    step = np.full((40, 40), 100.0)
    step[:, 20:] = 200.0
    filtered = [filter_image(step, turned) for turned in (EDGE, -EDGE)]
    sheet = np.asarray(draw_lesson(step, "", filtered, ["edge", "minus edge"])).astype(int)
    red_minus_blue = sheet[..., 0] - sheet[..., 2]
    half = sheet.shape[0] // 2
    response = slice(28 + 2 * 386, 28 + 2 * 386 + 360)
    assert red_minus_blue[:half, response].max() > 60  # orange: the edge filter answers with plus
    assert red_minus_blue[:half, response].min() > -20
    assert red_minus_blue[half : half + 300, response].min() < -60  # blue: its negative with minus


def test_the_place_asked_for_is_framed_on_the_photo_and_on_the_response():
    plain = photo()
    without = np.asarray(apply_filter(plain, "blur").picture()).astype(int)
    framed = np.asarray(apply_filter(plain, "blur", at=(10, 20)).picture()).astype(int)
    rows, columns = np.where(np.abs(framed - without).max(axis=-1) > 0)
    scale = 360 / 31  # the photo is 24 x 31 pixels
    assert abs(columns.min() - (28 + 20 * scale)) < 3
    on_response = columns[columns > 28 + 2 * 386]
    assert abs(on_response.mean() - (28 + 2 * 386 + 20.5 * 360 / 29)) < 2
    assert rows.min() > 28 + 40


def test_a_flat_photo_draws_without_a_scale_of_zero():
    flat = np.full((20, 20), 7.0)
    filtered = [filter_image(flat, EDGE, pool=2)]
    assert scale_limit(filtered) == 1.0
    draw_lesson(flat, "", filtered, ["edge"], (2, "max"))
