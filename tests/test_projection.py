"""Projections of single units: their receptive field, their value, batches, and which rule fits which layer."""

import pytest
import torch
from torch import nn

from headstart.errors import UsageError
from headstart.explain.gradients import taken
from headstart.explain.projection import max_pools_below, project_units, rule_for
from headstart.explain.recording import reach
from headstart.explain.rectifiers import RULES
from headstart.nets import build_net
from small_subjects import noise_photo, random_net, saturated, subject_for, subject_of_shape


@pytest.fixture(autouse=True)
def same_random_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def photos_of(subject, count):
    return torch.cat([taken(subject, noise_photo(subject, seed).pixels) for seed in range(count)])


@pytest.mark.parametrize("rule", RULES)
def test_nine_units_at_once_are_nine_units_one_by_one(rule):
    subject = subject_of_shape("vgg", clipped=True)
    x = photos_of(subject, 9)
    units, places = [0, 1, 2, 3, 4, 5, 6, 7, 0], [(row, 17 - row) for row in range(9)]
    together = project_units(subject, x, "12", units, places, rule)
    assert together.shape == x.shape
    for at in range(9):
        alone = project_units(subject, x[at : at + 1], "12", units[at : at + 1], places[at : at + 1], rule)
        assert float((together[at] - alone[0]).abs().max()) <= 1e-12 * float(alone.abs().max())


@pytest.mark.parametrize("layer", ["1", "4", "7", "9"])
def test_outside_the_receptive_field_the_signal_is_exactly_0(layer):
    subject = subject_of_shape("alexnet")
    x = taken(subject, noise_photo(subject).pixels)
    field = subject.field(layer)
    rows, columns = reach(subject, x, layer).before.shape[2:]
    some = [sorted({0, side // 3, side // 2, side - 1}) for side in (rows, columns)]
    units = [(row, column) for row in some[0] for column in some[1]]
    inside = 0
    for place in units:
        for rule in RULES:
            signal = project_units(subject, x, layer, [3], [place], rule)
            left, top, right, bottom = field.box(place, (72, 72))
            inside += bool(signal[:, :, top:bottom, left:right].any())
            signal[:, :, top:bottom, left:right] = 0
            assert not signal.any()
    assert inside > len(units)  # most of the signals are there at all


def test_the_signal_starts_with_the_value_before_the_activation():
    """With the gradient rule and no other rectifier, it is the unit's value times its weights."""
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU6(), nn.Flatten(), nn.Linear(4 * 36, 4)).double()
    subject = subject_for(net, side=8, classes=4)
    x = taken(subject, noise_photo(subject).pixels) * 20
    value = float(net[0](x)[0, 2, 1, 4])
    signal = project_units(subject, x, "1", [2], [(1, 4)], "guided")
    assert torch.allclose(signal[0, :, 1:4, 4:7], value * net[0].weight[2])


def test_a_unit_at_the_ceiling_of_its_relu6_still_shows_what_it_sees():
    subject = subject_of_shape("vgg", clipped=True)
    x = taken(subject, noise_photo(subject).pixels) * 6
    assert saturated(subject.net, x) > 0
    before = reach(subject, x, "5").before
    unit, row, column = (int(at) for at in (before[0] >= 6).nonzero()[0])
    found = reach(subject, x, "5")
    assert float(found.after[0, unit, row, column]) == 6.0
    assert found.activation == "ReLU6"
    assert project_units(subject, x, "5", [unit], [(row, column)], "guided").any()


def test_a_unit_of_a_vector_has_no_place():
    subject = subject_of_shape("alexnet")
    x = photos_of(subject, 2)
    signal = project_units(subject, x, "14", [3, 4], None, "deconv")
    assert signal.shape == x.shape
    assert signal.any()


def test_the_layers_above_do_not_run():
    class Bomb(nn.Module):
        def forward(self, _):
            raise ZeroDivisionError

    net = random_net("alexnet")
    net.insert(6, Bomb())
    subject = subject_for(net)
    x = taken(subject, noise_photo(subject).pixels)
    assert reach(subject, x, "4").after.shape[1] == 12
    with pytest.raises(ZeroDivisionError):
        reach(subject, x, "7")


@pytest.mark.parametrize(
    ("layer", "units", "places", "words"),
    [
        ("4", [12], [(0, 0)], r"units up to \(11, 7, 7\), not \(12, 0, 0\)"),
        ("4", [0], [(0, -1)], r"not \(0, 0, -1\)"),
        ("4", [0], None, r"gives maps of .* give a unit and a place for each; received 1 units and no places"),
        ("4", [0, 1], [(0, 0), (0, 0)], "received 2 units and 2 places"),
        ("4", [0], [], "received 1 units and 0 places"),
        ("14", [0], [(0, 0)], "gives a vector of"),
        ("14", [16], None, r"units up to \(15,\), not \(16,\)"),
        ("there", [0], None, "has no layer 'there'"),
    ],
)
def test_a_unit_that_is_not_there_is_refused(layer, units, places, words):
    subject = subject_of_shape("alexnet")
    x = taken(subject, noise_photo(subject).pixels)
    with pytest.raises(UsageError, match=words):
        project_units(subject, x, layer, units, places, "guided")


# --- which rule -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "layer", "pools"),
    [
        ("small-cnn", "conv2", ()),
        ("small-cnn", "conv3", ("pool1",)),
        ("small-cnn", "pool2", ("pool1", "pool2")),
        ("resnet18", "conv1", ()),
        ("resnet18", "layer2", ("maxpool",)),
        ("efficientnet-lite0", "head", ()),
        ("nin:cifar", "block2", ("pool1.0",)),
        ("googlenet", "inception3a", ("maxpool1", "maxpool2", "inception3a.branch4.0")),
        ("googlenet", "inception3a.branch3.1.relu", ("maxpool1", "maxpool2")),
    ],
)
def test_only_max_pools_below_the_layer_count(net, layer, pools):
    from headstart.layers.trace import ShapesOnly

    with ShapesOnly.building():
        built = build_net(net)
    side, _, channels = built.input_size
    subject = subject_for(built, side=side, channels=channels)
    assert max_pools_below(subject, layer) == pools
    rule, why = rule_for(subject, layer)
    assert rule == ("deconv" if pools else "guided")
    assert "max pooling" in why


def test_a_layer_that_is_not_there_has_no_rule():
    with pytest.raises(UsageError, match="has no layer 'conv99'"):
        rule_for(subject_of_shape("vgg"), "conv99")
