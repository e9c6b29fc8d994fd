"""The classic nets against their papers, against published counts, and against lists of the tensors in public files."""

import functools
import itertools
import re

import pytest
import torch
from torch import nn

from field_oracle import gradient_boxes, linear_copy
from headstart.errors import ShapeError, UsageError
from headstart.layers.receptive import Field, ReceptiveField
from headstart.layers.shapes import Axis
from headstart.layers.summary import Summary, summarise
from headstart.layers.trace import ShapesOnly, trace
from headstart.nets import NETS, build_net
from headstart.nets.lenet import SEEN_BY_C3

CLASSIC = [name for name in NETS if not name.startswith("efficientnet")]

# Published: papers, Keras's and torchvision's tables, the authors' published models.
PARAMETERS = {
    "mlp": 669_706, "mlp:cifar": 3_590_642, "small-cnn": 69_610, "cifar-cnn": 528_054,
    "lenet": 61_706, "lenet:paper": 60_000, "alexnet": 61_100_840, "alexnet:paper": 60_965_224,
    "vgg11": 132_863_336, "vgg13": 133_047_848, "vgg16": 138_357_544, "vgg19": 143_667_240,
    "nin": 7_595_176, "nin:cifar": 966_986, "googlenet": 6_624_904, "googlenet:paper": 13_378_280,
    "inception-v3": 23_834_568, "inception-v3:keras": 23_817_352,
    "resnet18": 11_689_512, "resnet34": 21_797_672, "resnet50": 25_557_032, "resnet101": 44_549_160,
    "resnet152": 60_192_808, "resnet50:paper": 25_557_032, "resnet101:paper": 44_549_160,
    "resnet152:paper": 60_192_808, "resnet50:keras": 25_583_592,
}  # fmt: skip
# Billions of multiply-adds a photo as torchvision publishes them (`_ops` of its weights).
BILLIONS = {
    "alexnet": 0.714, "vgg11": 7.609, "vgg13": 11.308, "vgg16": 15.47, "vgg19": 19.632, "googlenet": 1.498,
    "inception-v3": 5.713, "resnet18": 1.814, "resnet34": 3.664, "resnet50": 4.089, "resnet101": 7.801,
    "resnet152": 11.514,
}  # fmt: skip
# (size, stride, start) of a stage: the tables of google-research/receptive_field and of Araujo et al. 2019.
FIELDS = {
    ("vgg16", "conv5_3"): (196, 16, -90), ("vgg16", "pool5"): (212, 32, -90), ("vgg11", "pool5"): (150, 32, -59),
    ("alexnet:paper", "pool5"): (195, 32, -64), ("alexnet:paper", "conv2"): (51, 8, -16),
    ("lenet", "s4"): (16, 4, 0), ("lenet", "c5"): (32, 4, 0), ("nin", "maps"): (195, 32, -64),
    ("googlenet:paper", "inception5b"): (715, 32, -357),
    ("resnet50:paper", "layer4"): (483, 32, -241), ("resnet50", "layer4"): (427, 32, -213),
}  # fmt: skip
# Photos small enough to run in a test; a net that is not here runs at full size in the release test.
RUNS_AT = {
    "mlp": 28, "mlp:cifar": 32, "small-cnn": 32, "cifar-cnn": 32, "lenet": 32, "lenet:paper": 32, "nin:cifar": 32,
    "googlenet": 64, "resnet18": 48,
}  # fmt: skip


@functools.cache
def table_of(name) -> Summary:
    return summarise(lambda: build_net(name))


def shapes_only(name, **options):
    with ShapesOnly.building():
        return build_net(name, **options)


def rows_with_weights(table):
    return [(row.output_shape, row.parameters) for row in table.layers if row.parameters]


def with_random_statistics(net):
    """Batch-norms as after training, so that a mix-up shows."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, 0, 0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
    return net


# --- counts -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CLASSIC)
def test_the_parameters_are_the_published_number(name):
    table = table_of(name)
    assert table.total_parameters == PARAMETERS[name]
    assert sum(row.parameters for row in table.layers) == PARAMETERS[name]


@pytest.mark.parametrize("name", sorted(BILLIONS))
def test_the_multiply_adds_are_the_published_number(name):
    assert round(table_of(name).macs / 1e9, 3) == BILLIONS[name]


def test_auxiliary_heads_add_what_is_published():
    assert summarise(lambda: build_net("googlenet", auxiliary=True)).total_parameters == 13_004_888
    assert summarise(lambda: build_net("googlenet:paper", auxiliary=False)).total_parameters == 6_998_552
    assert summarise(lambda: build_net("inception-v3", auxiliary=True)).total_parameters == 27_161_264


def test_lenet_row_by_row():
    table = table_of("lenet")
    assert rows_with_weights(table) == [
        ((28, 28, 6), 156),
        ((10, 10, 16), 2_416),
        ((1, 1, 120), 48_120),
        ((84,), 10_164),
        ((10,), 850),
    ]
    maps = [table.row(stage).output_shape[0] for stage in ("c1", "s2", "c3", "s4")]
    assert maps == [28, 14, 10, 5]


def test_the_papers_lenet_row_by_row():
    table = table_of("lenet:paper")
    parts = {part: sum(r.parameters for r in table.layers if re.match(rf"{part}\b", r.name)) for part in
             ("c1", "s2", "c3", "s4", "c5", "f6", "output")}  # fmt: skip
    assert parts == {"c1": 156, "s2": 12, "c3": 1_516, "s4": 32, "c5": 48_120, "f6": 10_164, "output": 0}
    assert sum(map(len, SEEN_BY_C3)) == 60  # the marks in the paper's table I


def test_vgg16_row_by_row():
    table = table_of("vgg16")
    assert rows_with_weights(table) == [
        ((224, 224, 64), 1_792),
        ((224, 224, 64), 36_928),
        ((112, 112, 128), 73_856),
        ((112, 112, 128), 147_584),
        ((56, 56, 256), 295_168),
        ((56, 56, 256), 590_080),
        ((56, 56, 256), 590_080),
        ((28, 28, 512), 1_180_160),
        ((28, 28, 512), 2_359_808),
        ((28, 28, 512), 2_359_808),
        ((14, 14, 512), 2_359_808),
        ((14, 14, 512), 2_359_808),
        ((14, 14, 512), 2_359_808),
        ((4096,), 102_764_544),
        ((4096,), 16_781_312),
        ((1000,), 4_097_000),
    ]
    assert table.row("pool5").output_shape == (7, 7, 512)
    assert sum(row.parameters for row in table.layers if row.name.startswith("features")) == 14_714_688


def test_both_alexnets_row_by_row_as_their_docstring_says():
    from headstart.nets import alexnet

    printed = [
        [int(n.replace(",", "")) for n in re.findall(r"\| (\d+,[\d,]+) (?=\|)", line)]
        for line in alexnet.__doc__.splitlines()
        if line.startswith(("| conv", "| dense"))
    ]
    for variant, column in (("alexnet:paper", 0), ("alexnet", -1)):
        rows = [parameters for _, parameters in rows_with_weights(table_of(variant))]
        assert rows == [numbers[column] for numbers in printed]
    paper = table_of("alexnet:paper")
    sides = [paper.row(stage).output_shape for stage in ("conv1", "pool1", "conv2", "pool2", "conv5", "pool5")]
    assert sides == [(55, 55, 96), (27, 27, 96), (27, 27, 256), (13, 13, 256), (13, 13, 256), (6, 6, 256)]


def test_the_cifar_net_and_the_small_net_row_by_row():
    assert rows_with_weights(table_of("cifar-cnn")) == [
        ((32, 32, 16), 208),
        ((16, 16, 32), 2_080),
        ((8, 8, 64), 8_256),
        ((500,), 512_500),
        ((10,), 5_010),
    ]
    small = table_of("small-cnn")
    kinds = "Conv2d ReLU Conv2d ReLU MaxPool2d ReLU Conv2d ReLU MaxPool2d Flatten Linear"
    assert [row.type for row in small.layers] == kinds.split()


def test_googlenets_modules_have_the_papers_sizes_and_channels():
    channels = {"3a": 256, "3b": 480, "4a": 512, "4b": 512, "4c": 512, "4d": 528, "4e": 832, "5a": 832, "5b": 1024}
    sides = {"3": 28, "4": 14, "5": 7}
    for name in ("googlenet", "googlenet:paper"):
        table = table_of(name)
        for module, depth in channels.items():
            assert table.row(f"inception{module}").output_shape == (sides[module[0]],) * 2 + (depth,)
    branch = shapes_only("googlenet:paper").inception3a.branch3[1].conv
    assert branch.kernel_size == (5, 5)


def test_inception_v3s_maps_have_the_papers_sizes():
    table = table_of("inception-v3")
    expected = {"conv2": (147, 147, 64), "conv4": (71, 71, 192), "pool2": (35, 35, 192), "mixed5b": (35, 35, 256),
                "mixed5d": (35, 35, 288), "mixed6a": (17, 17, 768), "mixed6e": (17, 17, 768),
                "mixed7a": (8, 8, 1280), "mixed7c": (8, 8, 2048)}  # fmt: skip
    assert {stage: table.row(stage).output_shape for stage in expected} == expected


def test_the_paper_puts_the_stride_of_a_bottleneck_on_its_first_convolution():
    strides = {name: [c.stride[0] for c in (shapes_only(name).layer2[0].conv1, shapes_only(name).layer2[0].conv2)]
               for name in ("resnet50", "resnet50:paper")}  # fmt: skip
    assert strides == {"resnet50": [1, 2], "resnet50:paper": [2, 1]}


def test_dense_layers_on_vgg16s_maps_have_the_published_counts():
    flattened = nn.Sequential(nn.Flatten(), nn.Linear(7 * 7 * 512, 133))
    pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 133))
    assert summarise(flattened, (7, 7, 512)).total_parameters == 3_336_837
    assert summarise(pooled, (7, 7, 512)).total_parameters == 68_229


# --- receptive fields ---------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "stage"), sorted(FIELDS))
def test_the_receptive_field_is_the_published_one(name, stage):
    one = Field(*FIELDS[name, stage])
    assert table_of(name).row(stage).receptive_field == ReceptiveField(one, one)


def test_alexnets_convolutions_see_what_is_published():
    table = table_of("alexnet:paper")
    assert [table.row(f"conv{n}").receptive_field.rows.size for n in range(1, 6)] == [11, 51, 99, 131, 163]


def test_a_strip_of_inception_v3_sees_unlike_rows_and_columns():
    row = table_of("inception-v3").row("Mixed_6b.branch7x7_2.conv")
    size = row.to_json()["receptive_field"]["size"]
    assert isinstance(size, list)
    assert size[1] - size[0] == 6 * 16  # a window of 1 x 7 where units are 16 px apart


@pytest.mark.parametrize(
    "name", ["lenet", "alexnet", "vgg16", "nin", "googlenet", "googlenet:paper", "inception-v3", "resnet50", "resnet18"]
)
def test_receptive_fields_are_what_gradients_reach_also_at_the_borders(name):
    net = shapes_only(name)
    height, width, channels = net.input_size
    table = summarise(net)
    maps = [cut for cut in net.cuts if len(table.row(cut).output_shape) == 3]
    units = {cut: list(itertools.product((0, 1, -1), (0, -1))) for cut in (maps[0], maps[len(maps) // 2], maps[-1])}
    found = gradient_boxes(linear_copy(net), (channels, height, width), units)
    assert len(found) >= (10 if name == "lenet" else 12)
    first = next(module for module in net.modules() if isinstance(module, nn.Conv2d))
    unread = Axis.of(height, first.kernel_size[0], first.stride[0], first.padding[0]).unread_pixels
    end = unread[0] if unread else height  # network in network never reads its last row and column
    assert end == (223 if name == "nin" else height)
    for (cut, unit), seen in found.items():
        left, top, right, bottom = table.row(cut).receptive_field.box(unit, (height, width))
        assert seen == (left, top, min(right, end), min(bottom, end)), (cut, unit)


# --- what every net promises ------------------------------------------------------------------------


# The same code at another depth: in the release test only.
ALIKE = {"resnet34", "resnet101", "resnet152", "resnet101:paper", "resnet152:paper", "resnet50:keras", "vgg11", "vgg13"}
ALIKE |= {"vgg19", "inception-v3:keras"}


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.full if n in ALIKE else ()) for n in CLASSIC])
def test_every_stage_has_its_channels_and_each_layer_runs_once(name):
    net = shapes_only(name, classes=5, in_channels=1)
    height, width, _ = net.input_size
    run = trace(net, (1, height, width))
    shapes = {stage: run.steps[number].effect.output for stage, number in run.stages.items()}
    assert list(shapes)[: len(net.cuts) + 1] == [*net.cuts, "logits"]
    assert net.cuts[-1] == "pooled"
    assert {cut: shapes[cut][0] for cut in net.cuts} == net.feature_dim
    assert len(shapes["pooled"]) == 1
    assert all(shape == (5,) for stage, shape in shapes.items() if stage in ("logits", "aux", "aux1", "aux2"))
    layers = [step.layer for step in run.steps if step.layer is not None]
    assert len(layers) == len({id(layer) for layer in layers})
    assert not any(getattr(module, "inplace", False) for module in net.modules())


@pytest.mark.parametrize("name", sorted(RUNS_AT))
def test_a_net_resumes_from_every_cut_to_the_same_logits(name):
    torch.manual_seed(0)
    check_resuming(build_net(name, classes=3), RUNS_AT[name])


@pytest.mark.full
@pytest.mark.parametrize("name", sorted(set(CLASSIC) - set(RUNS_AT)))
def test_a_large_net_resumes_from_every_cut_to_the_same_logits(name):
    net = build_net(name, classes=3)
    check_resuming(net, net.input_size[0])


def check_resuming(net, side):
    with_random_statistics(net).eval()
    photos = torch.randn(2, net.input_size[2], side, side)
    with torch.no_grad():
        logits, named = net(photos), net.stages(photos)
        assert torch.equal(named["logits"], logits)
        assert logits.shape == (2, 3)
        assert logits.std() > 0
        assert all(named[cut].shape[:2] == (2, net.feature_dim[cut]) for cut in net.cuts)
        for cut in {net.cuts[0], net.cuts[len(net.cuts) // 2], *net.cuts[-2:]}:
            assert torch.equal(net.resume(cut, named[cut]), logits)
    with pytest.raises(ShapeError, match="the net has no cut 'stage99'"):
        net.resume("stage99", logits)


@pytest.mark.parametrize("name", sorted(set(CLASSIC) - ALIKE))
@pytest.mark.parametrize("wrong", [{"classes": 0}, {"in_channels": 0}])
def test_a_net_without_classes_or_channels_is_refused(name, wrong):
    with pytest.raises(UsageError, match="a net needs at least 1 class and 1 input channel"):
        shapes_only(name, **wrong)


def test_the_seed_decides_the_weights():
    weights = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        weights.append(build_net("lenet").c1.weight)
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_net_starts_with_a_signal_that_neither_dies_nor_explodes():
    torch.manual_seed(0)
    for name in ("mlp", "small-cnn", "cifar-cnn", "lenet", "nin:cifar", "resnet18"):
        net = build_net(name).train()
        height, width, channels = net.input_size
        side = 64 if name == "resnet18" else height
        logits = net(torch.randn(4, channels, side, side if name == "resnet18" else width))
        assert 0.02 < logits.std().item() < 20, name


def test_nets_of_fixed_size_refuse_sides_that_do_not_divide():
    for name, by in (("small-cnn", 4), ("cifar-cnn", 8)):
        with pytest.raises(UsageError, match=f"multiples of {by}; got 30 x 33"):
            build_net(name, input_size=(30, 33))


def test_lenet_takes_28_px_digits_with_padding():
    net = build_net("lenet", padding=2)
    assert net.input_size == (28, 28, 1)
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)


def test_an_unknown_net_is_refused_with_the_names_there_are():
    with pytest.raises(UsageError, match=r"unknown net 'vgg61'; choose one of: .*vgg16") as error:
        build_net("vgg61")
    assert "\n" not in str(error.value)


# --- details of the papers ----------------------------------------------------------------------------


def test_the_mean_of_a_map_of_network_in_network_is_its_logit():
    net = build_net("nin:cifar").eval()
    named = net.stages(torch.randn(2, 3, 32, 32))
    torch.testing.assert_close(named["maps"].mean(dim=(2, 3)), named["logits"])


def test_the_papers_response_norm_is_its_formula():
    net = build_net("alexnet:paper", classes=2)
    x = torch.rand(1, 7, 2, 2) * 50
    expected = torch.empty_like(x)
    for i in range(7):
        neighbours = x[:, max(0, i - 2) : min(6, i + 2) + 1]
        expected[:, i] = x[:, i] / (2 + 1e-4 * neighbours.square().sum(dim=1)) ** 0.75
    torch.testing.assert_close(net.norm1(x), expected)


def test_the_papers_lenet_squashes_1_to_1_and_answers_with_distances_to_its_codes():
    net = build_net("lenet:paper").eval()
    one = torch.tensor([-1.0, 0.0, 1.0])
    torch.testing.assert_close(net.squash1(one), one, rtol=1e-3, atol=1e-3)
    codes = net.output.codes
    assert set(codes.unique().tolist()) == {-1.0, 1.0}
    torch.testing.assert_close(net.output(codes[4:5])[0], -0.5 * (codes[4] - codes).square().sum(dim=1))
    assert net.output(codes).argmax(dim=1).tolist() == list(range(10))
    assert torch.equal(build_net("lenet:paper").output.codes, codes)  # part of the net, not of its random start


def test_a_map_of_the_papers_c3_sees_only_its_inputs():
    net = build_net("lenet:paper")
    maps = torch.randn(1, 6, 14, 14)
    before = net.c3(maps)
    changed = maps.clone()
    changed[:, 5] += 1
    differs = (net.c3(changed) - before).abs().amax(dim=(0, 2, 3)) > 0
    assert [number for number, seen in enumerate(SEEN_BY_C3) if 5 in seen] == torch.where(differs)[0].tolist()
