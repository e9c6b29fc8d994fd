"""Receptive fields in closed form, against published tables and against gradients."""

import itertools
import random

import pytest
import torch
from torch import nn

from field_oracle import gradient_boxes, linear_copy
from headstart.errors import ShapeError
from headstart.layers.receptive import Field, ReceptiveField, field_of_chain
from headstart.layers.shapes import Axis
from headstart.layers.summary import receptive_fields, summarise
from headstart.layers.trace import trace
from headstart.nets import build_net

# (size, stride, start) of EfficientNet-Lite0's blocks on photos of 224 x 224
LITE0 = {
    "stem": (3, 2, 0), "stage1.0": (7, 2, -2), "stage2.0": (11, 4, -2), "stage2.1": (19, 4, -6),
    "stage3.0": (35, 8, -10), "stage3.1": (67, 8, -26), "stage4.0": (83, 16, -26), "stage4.1": (115, 16, -42),
    "stage4.2": (147, 16, -58), "stage5.0": (211, 16, -90), "stage5.1": (275, 16, -122), "stage5.2": (339, 16, -154),
    "stage6.0": (403, 32, -170), "stage6.1": (531, 32, -234), "stage6.2": (659, 32, -298), "stage6.3": (787, 32, -362),
    "stage7.0": (851, 32, -394), "head": (851, 32, -394),
}  # fmt: skip


def chain(*windows):
    field = field_of_chain(windows)
    return field.size, field.stride, field.start


def last_row_of(table, part):
    """The last layer of a part of a net."""
    return [row for row in table.layers if row.name.startswith(f"{part}.")][-1]


# --- published numbers -------------------------------------------------------------------------


def test_vgg16s_fields_are_the_published_ones():
    # https://github.com/google-research/receptive_field and Simonyan & Zisserman 2014: convolutions 3/1/1, pools 2/2/0
    conv, pool = (3, 1, 1), (2, 2, 0)
    upto_conv5_3 = [conv, conv, pool, conv, conv, pool, *[conv] * 3, pool, *[conv] * 3, pool, *[conv] * 3]
    assert chain(*upto_conv5_3) == (196, 16, -90)
    assert chain(*upto_conv5_3, pool) == (212, 32, -90)


def test_vgg_as_fields_are_the_published_ones():
    conv, pool = (3, 1, 1), (2, 2, 0)
    assert chain(conv, pool, conv, pool, conv, conv, pool, conv, conv, pool, conv, conv, pool) == (150, 32, -59)


def test_alexnets_fields_are_the_published_ones():
    layers = [(11, 4, 0), (3, 2, 0), (5, 1, 2), (3, 2, 0), (3, 1, 1), (3, 1, 1), (3, 1, 1), (3, 2, 0)]
    sizes = [field_of_chain(layers[: n + 1]).size for n in range(len(layers))]
    assert [sizes[n] for n in (0, 2, 4, 5, 6)] == [11, 51, 99, 131, 163]
    assert chain(*layers) == (195, 32, -64)


def test_lenets_fields_are_the_published_ones():
    assert chain((5, 1, 0), (2, 2, 0), (5, 1, 0), (2, 2, 0)) == (16, 4, 0)
    assert chain((5, 1, 0), (2, 2, 0), (5, 1, 0), (2, 2, 0), (5, 1, 0)) == (32, 4, 0)


def test_every_block_of_efficientnet_lite0_has_its_published_field():
    table = summarise(lambda: build_net("efficientnet-lite0"), (224, 224, 3))
    for part, (size, stride, start) in LITE0.items():
        field = last_row_of(table, part).receptive_field
        assert field == ReceptiveField(Field(size, stride, start), Field(size, stride, start)), part


# --- against gradients -------------------------------------------------------------------------


def random_net(seed):
    """A chain with kernels, strides, paddings, dilations and pools of every kind, rows and columns unlike."""
    draw = random.Random(seed)
    layers = []
    for _ in range(draw.randint(2, 4)):
        kernel = draw.choice([1, 2, 3, 5]), draw.choice([1, 2, 3])
        if draw.random() < 0.6:
            stride = min(draw.choice([1, 1, 2]), kernel[0]), min(draw.choice([1, 2]), kernel[1])
            padding = draw.choice([0, kernel[0] // 2]), draw.choice([0, kernel[1] // 2])
            layers.append(nn.LazyConv2d(3, kernel, stride, padding, dilation=draw.choice([1, 1, 2])))
        elif draw.random() < 0.5:
            size, padding = draw.choice([2, 3]), draw.choice([0, 1])
            layers.append(nn.MaxPool2d(size, 2, padding, ceil_mode=draw.random() < 0.5))
        else:
            layers += [nn.ZeroPad2d((0, 1, draw.choice([0, 2]), 1)), nn.ReLU()]
    net = nn.Sequential(*layers)
    net(torch.zeros(1, 2, 40, 36))  # fills in the lazy channels
    return net


def test_the_fields_of_random_chains_are_exactly_what_gradients_reach():
    exact = clipped = 0
    for seed in range(60):
        net = random_net(seed)
        (*_, field) = receptive_fields(trace(net, (2, 40, 36)))
        units = {"": [(0, 0), (1, 2), (4, 4), (6, 5), (-2, -3), (-1, -1)]}
        for (_, unit), seen in gradient_boxes(linear_copy(net), (2, 40, 36), units).items():
            box = field.box(unit, (40, 36))
            inside = field.box(unit, (10**6, 10**6)) == box and min(box[:2]) > 0
            if inside:
                assert seen == box, (seed, unit)
                exact += 1
            elif seen is not None:  # at the border the padding may hide some of what would be seen
                assert seen[0] >= box[0] and seen[1] >= box[1] and seen[2] <= box[2] and seen[3] <= box[3], (seed, unit)
                clipped += 1
    assert exact > 100
    assert clipped > 50


class Branches(nn.Module):
    """Two branches added and a third one concatenated."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.narrow = nn.Conv2d(4, 4, (1, 3), padding=(0, 1))
        self.wide = nn.Sequential(
            nn.Conv2d(4, 4, 5, padding=2), nn.ReLU(), nn.ZeroPad2d((0, 1, 0, 1)), nn.Conv2d(4, 4, 2)
        )
        self.pool = nn.MaxPool2d(3, 1, 1)

    def forward(self, x):
        x = self.stem(x)
        added = self.narrow(x) + self.wide(x)
        return torch.cat([added, self.pool(x)], dim=1)


def test_where_branches_meet_the_field_is_the_smallest_that_holds_them():
    net = Branches()
    (*_, field) = receptive_fields(trace(net, (1, 24, 24)))
    # wide: 3 + 4*2 + 1*2 = 13, from -1 - 2*2 = -5; all others lie within
    assert field == ReceptiveField(Field(13, 2, -5), Field(13, 2, -5))
    found = gradient_boxes(linear_copy(net), (1, 24, 24), {"": [(0, 0), (5, 6), (11, 11)]})
    assert found == {("", unit): field.box(unit, (24, 24)) for _, unit in found}


def test_branches_that_stick_out_on_different_sides_are_both_held():
    assert Field(3, 2, -4).joined(Field(3, 2, 1)) == Field(8, 2, -4)
    assert Field(3, 2, 0).joined(Field(3, 4, 0)) is None


def test_efficientnet_lite0s_fields_are_what_gradients_reach_also_at_the_borders():
    net = build_net("efficientnet-lite0", classes=2)
    table = summarise(net, (224, 224, 3))
    ends = [0, 2, -1]
    units = {stage: list(itertools.product(ends, ends)) for stage in net.cuts if stage != "pooled"}
    found = gradient_boxes(linear_copy(net), (3, 224, 224), units)
    for (stage, unit), seen in found.items():
        assert seen == table.row(stage).receptive_field.box(unit, (224, 224)), (stage, unit)
    assert len(found) == 81


def test_pixels_outside_the_field_change_nothing():
    torch.manual_seed(0)
    net = build_net("efficientnet-lite0", classes=2).eval()
    photo = torch.randn(1, 3, 96, 96)
    box = summarise(net, (96, 96, 3)).row("stage3").receptive_field.box((6, 5), (96, 96))
    noise = photo + 5 * torch.randn_like(photo)
    noise[:, :, box[1] : box[3], box[0] : box[2]] = photo[:, :, box[1] : box[3], box[0] : box[2]]
    with torch.no_grad():
        before, after = (net.stages(x)["stage3"][0, :, 6, 5] for x in (photo, noise))
    assert torch.equal(before, after)
    assert (box[2] - box[0]) < 96  # there was something outside


# --- special layers ----------------------------------------------------------------------------


def test_after_global_pooling_a_unit_sees_what_all_units_saw():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    table = summarise(net, (9, 11, 1))
    assert table.layers[1].receptive_field == ReceptiveField(Field(9, 2, 0), Field(11, 2, 0))
    assert table.layers[-1].receptive_field == table.layers[1].receptive_field


def test_adaptive_pooling_is_known_only_where_its_windows_are_alike():
    even = summarise(nn.AdaptiveAvgPool2d(7), (14, 8, 1)).layers[0]
    assert even.receptive_field == ReceptiveField(Field(2, 2, 0), Field(2, 1, 0))
    assert summarise(nn.AdaptiveAvgPool2d(7), (10, 10, 1)).layers[0].receptive_field is None
    assert summarise(nn.AdaptiveAvgPool2d(7), (1, 1, 1)).layers[0].receptive_field is None


def test_behind_an_upsampling_the_field_is_said_to_be_unknown():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ConvTranspose2d(2, 2, 2, stride=2), nn.Conv2d(2, 2, 3))
    assert [row.receptive_field is None for row in summarise(net, (9, 9, 1)).layers] == [False, True, True]


def test_a_window_below_1_is_refused():
    with pytest.raises(ShapeError, match="expected kernel and stride >= 1"):
        field_of_chain([(3, 0, 1)])


def test_the_json_gives_one_number_or_rows_and_columns():
    square = ReceptiveField(Field(7, 2, -3), Field(7, 2, -3))
    assert square.to_json() == {"size": 7, "stride": 2, "start": -3}
    assert square.through(Axis.of(9, 1), Axis.of(9, 7, padding=3)).to_json() == {
        "size": [7, 19],
        "stride": 2,
        "start": [-3, -9],
    }
