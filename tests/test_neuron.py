"""The sum behind one value: its terms add up to what the net computed, at every place and in every kind of layer."""

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import UsageError
from headstart.explain.recording import record
from headstart.look.neuron import look_at_neuron
from small_subjects import everything, noise_photo, subject_for, subject_of_shape

WEIGHTED = [
    ("alexnet", "0"), ("alexnet", "1"), ("alexnet", "4"), ("alexnet", "7"), ("alexnet", "15"), ("alexnet", "16"),
    ("vgg", "2"), ("vgg", "10"), ("vgg", "4"), ("vgg", "23"), ("nin", "block1"), ("nin", "maps"),
    ("googlenet", "3.branch3.0"), ("lenet", "0"), ("lenet", "4"), ("resnet", "2"), ("resnet", "5"), ("resnet", "4"),
    ("lite", "stem"), ("lite", "stage2.0.depthwise"), ("lite", "stage3.0.expand"), ("lite", "head"),
    ("lite", "stage4.0.project"), ("lite", "stage6.1"), ("lite", "classifier"),
]  # fmt: skip


def value_of(subject, photo, layer):
    """Before the activation, as recorded from the whole net."""
    x = torch.from_numpy(subject.preprocessing.normalise(photo.pixels[None])).double()
    with torch.no_grad():
        return record(subject, x, [layer])[1][layer]


@pytest.mark.parametrize(("shape", "layer"), WEIGHTED)
def test_the_terms_add_up_to_the_recorded_value(shape, layer):
    subject = subject_of_shape(shape)
    photo = noise_photo(subject)
    recorded = value_of(subject, photo, layer)
    before, after = recorded.before[0].numpy(), recorded.after[0].numpy()
    places = [None] if before.ndim == 1 else [(0, 0), (before.shape[1] - 1, before.shape[2] - 1), (1, 2)]
    for unit in (0, len(before) - 1):
        for place in places:
            found = look_at_neuron(subject, photo, layer, unit, place)
            expected = float(before[unit] if place is None else before[unit][place])
            size = float(np.abs(found.terms).sum()) + abs(found.rest)
            assert abs(found.terms.sum() + found.rest - expected) <= 1e-9 * max(size, 1e-9)
            assert found.value == pytest.approx(expected, rel=1e-9, abs=1e-12)
            assert found.after == pytest.approx(float(after[unit] if place is None else after[unit][place]), rel=1e-9)
            assert found.check.holds


def test_the_terms_of_a_convolution_are_those_of_a_slow_loop():
    subject = subject_of_shape("alexnet")
    photo = noise_photo(subject)
    x = torch.from_numpy(subject.preprocessing.normalise(photo.pixels[None])).double()
    with torch.no_grad():
        given = subject.net[2](subject.net[1](subject.net[0](x)))[0].numpy()
    conv, unit, (row, column) = subject.net[3], 5, (0, 3)
    terms = []
    for channel in range(8):
        total = 0.0
        for i in range(5):
            for j in range(5):
                y, x_ = row + i - 2, column + j - 2
                if 0 <= y < given.shape[1] and 0 <= x_ < given.shape[2]:
                    total += float(conv.weight[unit, channel, i, j]) * given[channel, y, x_]
        terms.append(total)
    found = look_at_neuron(subject, photo, "4", unit, (row, column))
    np.testing.assert_allclose(found.terms, terms, rtol=1e-10, atol=1e-12)
    assert found.rest == pytest.approx(float(conv.bias[unit]))
    assert found.order[0] == int(np.abs(terms).argmax())


def test_a_group_sees_its_own_channels_only():
    subject = subject_of_shape("alexnet")
    found = look_at_neuron(subject, noise_photo(subject), "7", 11)  # the second of two groups of 12 channels
    assert found.names == tuple(f"channel {number}" for number in range(6, 12))


def test_a_batch_norm_is_folded_into_the_terms():
    conv, norm = nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1, eps=0.0)
    with torch.no_grad():
        conv.weight.fill_(3.0)
        conv.bias.fill_(1.0)
        norm.running_mean.fill_(2.0)
        norm.running_var.fill_(4.0)
        norm.weight.fill_(5.0)
        norm.bias.fill_(0.5)
    net = nn.Sequential(conv, norm, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 5)).eval()
    subject = subject_for(net, side=4, channels=1)
    photo = subject.photo(np.full((4, 4, 3), 187, np.uint8))  # (187 - 127) / 60 = 1
    found = look_at_neuron(subject, photo, "1", 0, (2, 2))
    assert found.terms.tolist() == pytest.approx([5 / 2 * 3])
    assert found.rest == pytest.approx(5 / 2 * (1 - 2) + 0.5)
    assert found.value == pytest.approx(5.5)


def test_the_place_is_where_the_value_is_largest_unless_it_is_named():
    subject = subject_of_shape("lite")
    photo = noise_photo(subject)
    values = value_of(subject, photo, "stem").before[0, 2].numpy()
    found = look_at_neuron(subject, photo, "stem", 2)
    assert found.value == pytest.approx(float(values.max()), rel=1e-6)
    assert values[found.place] == values.max()
    assert found.names == ("red", "green", "blue")


def test_of_a_sum_of_branches_each_branch_is_a_term():
    subject = subject_of_shape("resnet")
    photo = noise_photo(subject)
    found = look_at_neuron(subject, photo, "5", 3, (2, 2))
    parts = [float(value_of(subject, photo, name).after[0, 3, 2, 2]) for name in ("5.bn2", "5.downsample")]
    assert sorted(found.terms.tolist()) == pytest.approx(sorted(parts), rel=1e-6)
    assert found.activation == "ReLU"


def test_the_box_is_the_units_receptive_field():
    subject = subject_of_shape("alexnet")
    found = look_at_neuron(subject, noise_photo(subject), "4", 0, (3, 1))
    assert found.box == subject.field("4").box((3, 1), (72, 72))


@pytest.mark.parametrize("shape", ["alexnet", "lite", "lenet"])
def test_the_picture_is_the_same_twice_and_the_net_is_left_as_it_was(shape):
    subject = subject_of_shape(shape)
    photo, before = noise_photo(subject), everything(subject.net)
    layer = "stage2.0.depthwise" if shape == "lite" else "1"
    first, second = (look_at_neuron(subject, photo, layer, 1) for _ in range(2))
    assert first.sheet().tobytes() == second.sheet().tobytes()
    assert everything(subject.net) == before
    told = first.to_json()
    assert sum(told["terms"].values()) + told["rest"] == pytest.approx(told["value"], rel=1e-5)
    assert "the net computed" in first.to_text()


@pytest.mark.parametrize(
    ("layer", "unit", "place", "words"),
    [
        ("2", 0, None, "no sum of weighted inputs"),
        ("0", 8, None, "there is no unit 8"),
        ("0", 0, (99, 0), r"there is no place \(99, 0\)"),
        ("no", 0, None, "has no layer 'no'"),
    ],
)
def test_what_is_no_sum_or_not_there_is_refused_without_a_trace(layer, unit, place, words):
    subject = subject_of_shape("alexnet")
    photo, before = noise_photo(subject), everything(subject.net)
    with pytest.raises(UsageError, match=words):
        look_at_neuron(subject, photo, layer, unit, place)
    assert everything(subject.net) == before
