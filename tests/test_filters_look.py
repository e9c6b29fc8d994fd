"""Filters as pictures: the right weights, one scale, the strongest first, and what a dense layer sees."""

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import DataError, UsageError
from headstart.look.filters import look_at_filters
from headstart.look.tiles import enlarged, folded, grid, limit_of, signed_picture
from small_subjects import SHAPES, everything, random_net, subject_for, subject_of_shape


def weight_of(subject, name):
    return subject.net.get_submodule(name).weight.detach().float().numpy()


def test_the_weights_are_those_of_the_net_and_the_strongest_filters_come_first():
    subject = subject_of_shape("alexnet")
    found = look_at_filters(subject)
    weights = weight_of(subject, "0")
    assert (found.layer, found.kind, found.colour) == ("0", "convolution", True)
    np.testing.assert_array_equal(found.weights, weights)
    by_hand = [float(np.sqrt(sum(value**2 for value in one.reshape(-1).tolist()))) for one in weights]
    np.testing.assert_allclose(found.norms, by_hand, rtol=1e-6)
    assert list(found.chosen) == sorted(range(8), key=lambda filter_: -by_hand[filter_])


def test_all_filters_share_the_scale_of_the_largest_weight():
    found = look_at_filters(subject_of_shape("vgg"))
    assert found.limit == pytest.approx(float(np.abs(found.weights).max()))
    assert look_at_filters(subject_of_shape("vgg"), None, [2]).limit < found.limit + 1e-9


def test_a_colour_filter_is_drawn_around_mid_grey():
    values = np.zeros((3, 1, 2), np.float32)
    values[0, 0, 0], values[2, 0, 1] = 2.0, -2.0
    pixels = signed_picture(values, 2.0)
    assert pixels.shape == (1, 2, 3)
    assert pixels[0, 0].tolist() == [255, 128, 128]
    assert pixels[0, 1].tolist() == [128, 128, 0]


def test_the_signed_picture_of_one_channel_is_symmetric_about_white():
    pixels = signed_picture(np.array([[[-1.0, 0.0, 1.0]]], np.float32), 1.0)[0].astype(int)
    assert pixels[1].min() > 240
    assert pixels[0, 2] > pixels[0, 0] + 50  # blue below
    assert pixels[2, 0] > pixels[2, 2] + 50  # orange above


@pytest.mark.parametrize("layer", ["3", "6", "10"])
def test_a_later_filter_is_drawn_channel_by_channel(layer):
    subject = subject_of_shape("vgg") if layer != "6" else subject_of_shape("alexnet")
    found = look_at_filters(subject, layer)
    assert not found.colour
    np.testing.assert_array_equal(found.weights, weight_of(subject, layer))
    assert found.sheet().width > 300


def test_a_dense_layer_on_a_flattened_map_is_seen_as_that_map():
    subject = subject_of_shape("vgg")
    found = look_at_filters(subject, "22")
    assert (found.kind, found.weights.shape) == ("dense", (20, 8, 9, 9))
    np.testing.assert_array_equal(found.weights.reshape(20, -1), weight_of(subject, "22"))


def test_a_dense_layer_on_pooled_maps_has_one_weight_a_channel():
    found = look_at_filters(subject_of_shape("googlenet"), "8")
    assert found.weights.shape == (5, 18, 1, 1)
    assert found.names[0] == "class 0"


def test_a_dense_first_layer_on_grey_pixels_is_a_picture_a_unit():
    net = nn.Sequential(nn.Flatten(), nn.Linear(144, 6), nn.ReLU(), nn.Linear(6, 5)).eval()
    found = look_at_filters(subject_for(net, side=12, channels=1))
    assert found.weights.shape == (6, 1, 12, 12)
    assert len(found.chosen) == 6


def test_a_depthwise_layer_is_called_so_and_a_block_stands_for_its_last_one():
    subject = subject_of_shape("lite")
    found = look_at_filters(subject, "stage2.0.depthwise")
    assert (found.layer, found.kind) == ("stage2.0.depthwise.conv", "depthwise convolution")
    assert look_at_filters(subject, "stage2").layer.endswith("project.conv")


def test_filters_that_do_nothing_are_counted():
    net = random_net("alexnet")
    with torch.no_grad():
        net[0].weight[3] = 0
    found = look_at_filters(subject_for(net))
    assert found.idle == (3,)
    assert "1 of them next to 0" in found.to_text()


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_of_net_gives_a_picture_and_is_left_as_it_was(shape):
    subject = subject_of_shape(shape)
    before = everything(subject.net)
    found = look_at_filters(subject)
    files = found.files()
    assert everything(subject.net) == before
    np.testing.assert_array_equal(files["filters.npy"], found.weights)
    assert files["filters.png"].tobytes() == look_at_filters(subject).sheet().tobytes()
    assert found.to_json()["shape"] == list(found.weights.shape)


@pytest.mark.parametrize(
    ("layer", "units", "words"),
    [
        ("2", None, "'?2'? has no weights of its own; the layer before it that has some is 0"),
        ("nothing", None, "has no layer 'nothing'"),
        ("0", [8], "has the units 0 to 7; there is no unit 8"),
    ],
)
def test_what_has_no_filters_is_refused(layer, units, words):
    with pytest.raises(UsageError, match=words):
        look_at_filters(subject_of_shape("alexnet"), layer, units)


def test_weights_that_are_not_finite_are_refused():
    net = random_net("alexnet")
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        look_at_filters(subject_for(net))


# --- tiles -------------------------------------------------------------------------------------


def test_a_grid_puts_tiles_row_by_row():
    tiles = [enlarged(np.full((1, 1, 3), value, np.uint8), 4) for value in (10, 20, 30)]
    sheet = np.asarray(grid(tiles, 2, gap=1))
    assert sheet.shape == (9, 9, 3)
    assert [sheet[0, 0, 0], sheet[0, 5, 0], sheet[5, 0, 0], sheet[5, 5, 0]] == [10, 20, 30, 255]


def test_pixels_are_enlarged_by_whole_numbers_and_reduced_by_their_mean():
    pixels = np.array([[[0] * 3, [200] * 3]], np.uint8)
    assert np.asarray(enlarged(pixels, 7))[0, :, 0].tolist() == [0, 0, 0, 200, 200, 200]
    assert np.asarray(enlarged(pixels, 1))[0, 0, 0] == 100


def test_a_vector_is_folded_row_by_row():
    cells = folded(np.arange(7, dtype=np.float32), 3)
    assert cells.shape == (3, 3)
    np.testing.assert_array_equal(cells.reshape(-1)[:7], np.arange(7))
    assert np.isnan(cells.reshape(-1)[7:]).all()


def test_the_scale_passes_over_a_share_of_specks_and_is_never_0():
    values = np.r_[np.ones(99), 50.0]
    assert limit_of(values) == 50
    assert limit_of(values, beyond=0.02) == 1
    assert limit_of(np.zeros(5)) == 1
    assert limit_of(np.r_[np.zeros(99), 3.0], beyond=0.5) == 3
