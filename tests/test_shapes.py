"""The arithmetic of one layer, against published numbers, PyTorch over a grid, and a count pixel by pixel."""

import json
import math

import pytest

from headstart.errors import ShapeError
from headstart.layers.shape_reports import dense_parameters, shape_conv, shape_pool
from headstart.layers.shapes import Axis, conv_output_size, pool_output_size, same_padding, size_keeping_padding
from headstart.layers.typed import parse_padding, parse_size
from keras_oracle import keras

SIZES, KERNELS, STRIDES, PADS, DILATIONS = range(1, 13), (1, 2, 3, 5), (1, 2, 3, 4), (0, 1, 2), (1, 2, 3)


def read_positions(axis: Axis) -> set[int]:
    """Every padded position under some cell of some window, straight from the definition."""
    return {o * axis.stride + t * axis.dilation for o in range(axis.output) for t in range(axis.kernel)}


# --- the published numbers ------------------------------------------------------------------------


def test_a_5x5_filter_on_32x32x3_stands_at_784_positions_and_multiplies_75_times_at_each():
    layer = shape_conv((32, 32, 3), filters=1, kernel=5)
    assert layer.output == (28, 28, 1)
    assert (layer.positions, layer.multiplications_per_position) == (784, 75)


def test_padding_2_makes_32x32x3_36x36_inside_and_32x32_out():
    layer = shape_conv((32, 32, 3), filters=1, kernel=5, padding=2)
    assert (layer.rows.padded, layer.columns.padded) == (36, 36)
    assert layer.output[:2] == (32, 32)
    assert "36 x 36 x 3" in layer.to_text()


@pytest.mark.parametrize(("stride", "side"), [(1, 5), (2, 3)])
def test_a_3x3_window_on_7x7_fits_at_stride_1_and_2(stride, side):
    layer = shape_conv((7, 7, 1), filters=1, kernel=3, stride=stride)
    assert layer.output == (side, side, 1)
    assert layer.rows.exact_output == side
    assert layer.rows.unread == ()
    assert "do not fit" not in layer.to_text()


def test_a_3x3_window_on_7x7_does_not_fit_at_stride_3_and_the_text_says_what_is_cut_off():
    layer = shape_conv((7, 7, 1), filters=1, kernel=3, stride=3)
    assert layer.rows.exact_output.denominator != 1
    assert layer.output == (2, 2, 1)
    assert layer.rows.unread_pixels == layer.columns.unread_pixels == (6,)
    text = layer.to_text()
    assert "(7 - 3 + 0)/3 + 1 = 2.33, rounded down to 2: the windows do not fit" in text
    assert "1 of the image's rows and columns (number 6, counted from 0)" in text
    assert layer.to_json()["fits"] is False


def test_input_4_padding_1_kernel_3_stride_2_gives_2_and_leaves_1_unread():
    axis = Axis.of(4, kernel=3, stride=2, padding=1)
    assert axis.output == 2
    assert axis.unread == (5,)
    assert axis.unread_pixels == ()  # it is the padding behind the image


def test_16_filters_of_2x2_at_stride_2_on_200x200x1_give_100x100x16_with_80_parameters():
    layer = shape_conv((200, 200, 1), filters=16, kernel=2, stride=2)
    assert layer.output == (100, 100, 16)
    assert layer.parameters == 80


def test_12_filters_of_3x3_on_28x28_padded_to_30x30_give_28x28x12():
    layer = shape_conv((28, 28, 1), filters=12, kernel=3, padding=1)
    assert layer.rows.padded == 30
    assert layer.output == (28, 28, 12)


def test_20_feature_maps_of_5x5_on_28x28_have_520_parameters_and_pool_to_12x12():
    layer = shape_conv((28, 28, 1), filters=20, kernel=5)
    assert (layer.output, layer.parameters) == ((24, 24, 20), 520)
    assert shape_pool(layer.output, 2).output == (12, 12, 20)


def test_a_dense_layer_of_30_units_on_28x28_has_23550_parameters():
    assert dense_parameters(28 * 28, 30) == 23_550


def test_flatten_and_dense_133_on_7x7x512_has_3336837_parameters_and_pooled_first_68229():
    assert dense_parameters(7 * 7 * 512, 133) == 3_336_837
    assert dense_parameters(512, 133) == 68_229


def test_pooling_100x100x15_by_2_gives_50x50x15_and_99x99x15_at_stride_1():
    assert shape_pool((100, 100, 15), 2).output == (50, 50, 15)
    assert shape_pool((100, 100, 15), 2, stride=1).output == (99, 99, 15)
    assert shape_pool((100, 100, 15), 2).to_json()["parameters"] == 0


def test_the_stride_of_a_pool_is_its_size_unless_given():
    assert pool_output_size(9, 3) == 3
    assert shape_pool((9, 12, 1), (3, 4)).output == (3, 3, 1)


@pytest.mark.parametrize("kernel", [1, 3, 5, 7, 9])
def test_zero_padding_of_half_the_kernel_keeps_the_size(kernel):
    before, after = size_keeping_padding(kernel)
    assert before == after == (kernel - 1) // 2
    assert conv_output_size(31, kernel, padding=before) == 31


@pytest.mark.parametrize("kernel", [2, 4, 6])
def test_an_even_kernel_keeps_the_size_with_one_more_pixel_behind(kernel):
    before, after = size_keeping_padding(kernel)
    assert after == before + 1
    assert conv_output_size(31, kernel, padding=(before, after)) == 31


def test_valid_and_same_follow_the_keras_formulas():
    for size in range(1, 40):
        for kernel in range(1, size + 1):
            for stride in range(1, 6):
                assert conv_output_size(size, kernel, stride, "valid") == math.ceil((size - kernel + 1) / stride)
                assert conv_output_size(size, kernel, stride, "same") == math.ceil(size / stride)


# --- against another implementation ---------------------------------------------------------------


def test_convolution_sizes_equal_pytorch_over_a_grid_and_both_refuse_the_same_inputs():
    torch = pytest.importorskip("torch")
    agreed = refused = 0
    for size in SIZES:
        signal = torch.zeros(1, 1, size)
        for kernel in KERNELS:
            for stride in STRIDES:
                for padding in PADS:
                    for dilation in DILATIONS:
                        layer = torch.nn.Conv1d(1, 1, kernel, stride, padding, dilation)
                        try:
                            wanted = layer(signal).shape[-1]
                        except RuntimeError:
                            with pytest.raises(ShapeError):
                                conv_output_size(size, kernel, stride, padding, dilation)
                            refused += 1
                            continue
                        assert conv_output_size(size, kernel, stride, padding, dilation) == wanted
                        agreed += 1
    assert agreed > 1000
    assert refused > 200  # the grid holds both kinds


def test_pooling_sizes_equal_pytorch_over_a_grid_and_both_refuse_the_same_inputs():
    torch = pytest.importorskip("torch")
    agreed = refused = 0
    for size in SIZES:
        signal = torch.zeros(1, 1, size)
        for pool in KERNELS:
            for stride in STRIDES:
                for padding in PADS:
                    for dilation in DILATIONS:
                        for ceil in (False, True):
                            layer = torch.nn.MaxPool1d(pool, stride, padding, dilation, ceil_mode=ceil)
                            try:
                                wanted = layer(signal).shape[-1]
                            except RuntimeError:
                                with pytest.raises(ShapeError):
                                    pool_output_size(size, pool, stride, padding, dilation, ceil)
                                refused += 1
                                continue
                            assert pool_output_size(size, pool, stride, padding, dilation, ceil) == wanted
                            agreed += 1
    assert agreed > 1500
    assert refused > 400


def test_same_padding_equals_keras_over_a_grid():
    layers = keras().layers
    for size in (4, 7, 8, 15):
        for kernel in (1, 2, 3, 5):
            for stride in (1, 2, 3):
                conv = layers.Conv2D(2, kernel, strides=stride, padding="same")
                pool = layers.AveragePooling2D(kernel, strides=stride, padding="same")
                wanted = conv.compute_output_shape((1, size, size, 3))[1]
                assert conv_output_size(size, kernel, stride, "same") == wanted
                assert (
                    pool_output_size(size, kernel, stride, "same") == pool.compute_output_shape((1, size, size, 3))[1]
                )


def test_parameters_and_cost_equal_those_of_a_real_layer():
    torch = pytest.importorskip("torch")
    for channels, filters, groups, bias in [(3, 6, 1, True), (6, 6, 6, False), (8, 4, 2, True)]:
        layer = torch.nn.Conv2d(channels, filters, (3, 5), (2, 1), (1, 0), groups=groups, bias=bias)
        ours = shape_conv((20, 17, channels), filters, (3, 5), stride=(2, 1), padding=(1, 0), groups=groups, bias=bias)
        assert ours.parameters == sum(weight.numel() for weight in layer.parameters())
        out = layer(torch.zeros(1, channels, 20, 17))
        assert ours.output == (*out.shape[2:], filters)
        # Each multiplication is one weight at one place: the sum of the outputs where input and weights are 1.
        ones = torch.nn.Conv2d(channels, filters, (3, 5), (2, 1), groups=groups, bias=False)
        torch.nn.init.ones_(ones.weight)
        counted = int(ones(torch.ones(1, channels, 20, 17)).sum())
        unpadded = shape_conv((20, 17, channels), filters, (3, 5), stride=(2, 1), groups=groups)
        assert unpadded.multiply_adds == counted


# --- what is never read ---------------------------------------------------------------------------


def test_unread_positions_equal_a_count_window_by_window():
    for size in SIZES:
        for kernel in KERNELS:
            for stride in STRIDES:
                for dilation in DILATIONS:
                    if dilation * (kernel - 1) + 1 > size + 3:
                        continue
                    axis = Axis.of(size, kernel, stride, (1, 2), dilation)
                    missing = set(range(axis.padded)) - read_positions(axis)
                    assert set(axis.unread) == missing
                    assert set(axis.unread_pixels) == {at - 1 for at in missing if 1 <= at <= size}


def test_a_stride_longer_than_the_window_leaves_gaps_unread():
    assert Axis.of(8, kernel=1, stride=2).unread_pixels == (1, 3, 5, 7)


def test_a_pool_that_hangs_over_the_end_reads_everything():
    assert Axis.of_pool(112, 3, 2).unread_pixels == (111,)
    assert Axis.of_pool(112, 3, 2, ceil=True).unread_pixels == ()


def test_an_unread_pixel_has_no_influence_in_pytorch():
    torch = pytest.importorskip("torch")
    for size, kernel, stride, padding, dilation in [
        (7, 3, 3, 0, 1),
        (8, 1, 2, 0, 1),
        (11, 3, 4, 1, 2),
        (9, 2, 4, 0, 2),
    ]:
        signal = torch.ones(1, 1, size, requires_grad=True)
        torch.nn.functional.conv1d(signal, torch.ones(1, 1, kernel), None, stride, padding, dilation).sum().backward()
        silent = tuple(at for at in range(size) if signal.grad[0, 0, at] == 0)
        assert Axis.of(size, kernel, stride, padding, dilation).unread_pixels == silent


# --- reading what the user typed ------------------------------------------------------------------


def test_sizes_and_paddings_are_read_as_typed():
    assert parse_size("224x224x3") == (224, 224, 3)
    assert parse_size(" 28 X 30 ") == (28, 30, 1)
    assert [parse_padding(text) for text in ("valid", "same", "2", "1,0", "0,1,0,1")] == [
        "valid",
        "same",
        2,
        (1, 0),
        (0, 1, 0, 1),
    ]


@pytest.mark.parametrize("text", ["", "224", "224x", "0x5x3", "2x2x2x2", "-3x3", "٣x٣", "1e3x4", "99999999x1"])
def test_a_size_that_is_not_one_is_refused_in_one_line(text):
    with pytest.raises(ShapeError, match="expected") as error:
        parse_size(text)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["", "Valid", "-1", "1,", "1,2,3", "1.5", "full"])
def test_a_padding_that_is_not_one_is_refused(text):
    with pytest.raises(ShapeError, match="expected valid, same, or pixels"):
        parse_padding(text)


def test_a_kernel_larger_than_the_padded_input_is_refused_with_all_values():
    with pytest.raises(ShapeError) as error:
        shape_conv((4, 4, 1), filters=1, kernel=7, padding=1)
    assert str(error.value) == (
        "window spans 7 px but the padded input is 6 px (size=4, padding=1+1, kernel=7, dilation=1); "
        "use a larger image, a smaller kernel or more padding"
    )


def test_stride_0_is_refused_with_all_values():
    with pytest.raises(ShapeError) as error:
        shape_conv((4, 4, 1), filters=1, kernel=2, stride=0)
    assert str(error.value) == (
        "stride is 0; expected a whole number from 1 to 1000000 (received size=4, kernel=2, stride=0, dilation=1)"
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"filters": 0}, "filters is 0; expected a whole number >= 1"),
        ({"groups": 2}, "groups is 2, which does not divide both channels=3 and filters=4"),
        ({"padding": -1}, "padding is -1; expected 'valid', 'same', pixels >= 0"),
        ({"dilation": -2}, "dilation is -2; expected a whole number from 1"),
        ({"input_size": (0, 4, 3)}, "the input is 0 x 4 x 3; expected height x width x channels"),
    ],
)
def test_each_value_out_of_range_is_refused_by_name(change, message):
    values = {"input_size": (8, 8, 3), "filters": 4, "kernel": 3} | change
    with pytest.raises(ShapeError) as error:
        shape_conv(**values)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_a_pool_refuses_more_padding_than_half_its_window_as_pytorch_does():
    with pytest.raises(ShapeError, match="at most half of it, 1 px"):
        shape_pool((8, 8, 1), 2, padding=2)


# --- what is printed ------------------------------------------------------------------------------


def test_the_text_and_the_json_of_a_convolution_tell_the_same_numbers():
    layer = shape_conv((200, 200, 1), filters=16, kernel=2, stride=2)
    document = json.loads(json.dumps(layer.to_json()))
    assert document["output"] == [100, 100, 16]
    assert document["parameters"] == 80
    assert document["multiply_adds"] == 100 * 100 * 16 * 4
    lines = dict(line.split("  ", 1) for line in layer.to_text().splitlines())
    assert lines["output"].strip() == "100 x 100 x 16"
    assert lines["parameters"].strip() == "80 = 16 x 2 x 2 x 1 + 16"


def test_an_axis_of_each_kind_is_told_apart_in_the_text():
    text = shape_conv((10, 12, 3), filters=1, kernel=(3, 2), padding=(1, 0), dilation=2).to_text()
    assert "rows" in text.splitlines()[4]
    assert "columns" in text.splitlines()[5]
    assert "1 filter of 3 x 2 x 3, stride 1, padding (1, 0), dilation 2" in text


def test_same_padding_puts_the_odd_pixel_behind():
    assert same_padding(224, 3, 2) == (0, 1)
    assert same_padding(225, 3, 2) == (1, 1)
    assert same_padding(5, 1, 4) == (0, 0)
