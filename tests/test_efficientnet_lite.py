"""EfficientNet-Lite against its published sizes, and against the definition of its layers written as loops."""

import math
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import ShapeError, UsageError
from headstart.nets import NETS, build_net
from headstart.nets.efficientnet_lite import MBConv, SamePadding, name_in_package, name_in_timm, same_padding

LITE = {
    # parameters as published with the weights; spatial size of each stage at the net's own resolution
    "efficientnet-lite0": (224, 4_652_008, (112, 112, 56, 28, 14, 14, 7, 7, 7)),
    "efficientnet-lite1": (240, 5_416_680, (120, 120, 60, 30, 15, 15, 8, 8, 8)),
    "efficientnet-lite2": (260, 6_092_072, (130, 130, 65, 33, 17, 17, 9, 9, 9)),
}


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other far longer than these small inputs take one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lite0() -> nn.Module:
    torch.manual_seed(0)
    return with_random_statistics(build_net("efficientnet-lite0", classes=7)).eval()


def with_random_statistics(net: nn.Module) -> nn.Module:
    """Batch norms that do something, so that leaving one out would be seen."""
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, 0.0, 0.3)
            nn.init.normal_(module.running_mean, 0.0, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return net


@pytest.mark.parametrize("name", LITE)
def test_the_parameters_are_as_many_as_published(name: str) -> None:
    net = build_net(name)
    assert sum(parameter.numel() for parameter in net.parameters()) == LITE[name][1]


@pytest.mark.parametrize("name", LITE)
def test_every_stage_has_the_size_that_rounding_up_at_each_stride_gives(name: str) -> None:
    size, _, sizes = LITE[name]
    net = build_net(name, classes=5).eval()
    assert net.input_size == (size, size, 3)
    with torch.no_grad():
        found = net.stages(torch.zeros(1, 3, size, size))
    assert tuple(found) == (*net.cuts, "logits")
    assert tuple(found[cut].shape[-1] for cut in net.cuts[:-1]) == sizes
    assert {cut: found[cut].shape[1] for cut in net.cuts} == net.feature_dim
    assert found["pooled"].shape == (1, 1280)
    assert found["logits"].shape == (1, 5)


def test_the_channels_of_lite0_are_those_of_the_paper_table() -> None:
    channels = list(build_net("efficientnet-lite0").feature_dim.values())
    assert channels == [32, 16, 24, 40, 80, 112, 192, 320, 1280, 1280]


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("kernel", [1, 3, 5])
@pytest.mark.parametrize("size", range(1, 20))
def test_same_padding_is_the_least_that_makes_room_for_every_window(size: int, kernel: int, stride: int) -> None:
    before, after = same_padding(size, kernel, stride)
    windows = math.ceil(size / stride)

    def fits(total: int) -> bool:
        return (windows - 1) * stride + kernel <= size + total

    assert fits(before + after)
    assert before + after == 0 or not fits(before + after - 1)
    assert after - before in (0, 1)


def test_the_odd_pixel_of_the_padding_goes_below_and_right() -> None:
    padded = SamePadding(kernel=3, stride=2)(torch.ones(1, 1, 4, 5))
    assert padded.shape == (1, 1, 5, 7)
    assert padded[0, 0].tolist() == [[0, 1, 1, 1, 1, 1, 0]] * 4 + [[0] * 7]


def convolution(x: np.ndarray, weight: np.ndarray, stride: int, groups: int = 1) -> np.ndarray:
    """Cross-correlation with TensorFlow's "same" padding, number by number. x: (channels, height, width)."""
    out_channels, per_group, kernel, _ = weight.shape
    height, width = (math.ceil(side / stride) for side in x.shape[1:])
    before = [
        max((count - 1) * stride + kernel - side, 0) // 2
        for count, side in zip((height, width), x.shape[1:], strict=True)
    ]
    out = np.zeros((out_channels, height, width))
    for o, row, column, i, a, b in np.ndindex(out_channels, height, width, per_group, kernel, kernel):
        y, z = row * stride + a - before[0], column * stride + b - before[1]
        if 0 <= y < x.shape[1] and 0 <= z < x.shape[2]:
            out[o, row, column] += weight[o, i, a, b] * x[o // (out_channels // groups) * per_group + i, y, z]
    return out


def normalised(x: np.ndarray, norm: nn.BatchNorm2d) -> np.ndarray:
    """Batch norm with stored statistics, epsilon .001 (the constant of the published training code)."""
    mean, variance, gamma, beta = (
        value.detach().double().numpy()[:, None, None]
        for value in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return gamma * (x - mean) / np.sqrt(variance + 1e-3) + beta


@pytest.mark.parametrize(
    ("channels", "out", "expansion", "kernel", "stride", "height", "width"),
    [(3, 5, 6, 5, 2, 8, 7), (4, 4, 6, 3, 1, 5, 6), (4, 4, 1, 3, 2, 7, 6), (2, 3, 1, 3, 1, 4, 4)],
)
def test_a_block_equals_its_definition_written_as_loops(
    channels: int, out: int, expansion: int, kernel: int, stride: int, height: int, width: int
) -> None:
    torch.manual_seed(1)
    block = with_random_statistics(MBConv(channels, out, expansion, kernel, stride)).double().eval()
    x = torch.randn(channels, height, width, dtype=torch.float64)

    value = x.numpy()
    if expansion > 1:
        value = convolution(value, block.expand.conv.weight.detach().numpy(), 1)
        value = np.clip(normalised(value, block.expand.norm), 0, 6)
    value = convolution(value, block.depthwise.conv.weight.detach().numpy(), stride, groups=value.shape[0])
    value = np.clip(normalised(value, block.depthwise.norm), 0, 6)
    value = normalised(convolution(value, block.project.conv.weight.detach().numpy(), 1), block.project.norm)
    if stride == 1 and channels == out:
        value = value + x.numpy()

    with torch.no_grad():
        np.testing.assert_allclose(block(x[None])[0].numpy(), value, rtol=1e-9, atol=1e-9)


def test_batch_norms_carry_the_published_epsilon() -> None:
    norms = [module for module in build_net("efficientnet-lite1").modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.eps for norm in norms} == {1e-3}


def test_twenty_steps_are_enough_for_the_statistics_of_the_data() -> None:
    torch.manual_seed(0)
    norm = next(module for module in build_net("efficientnet-lite0").modules() if isinstance(module, nn.BatchNorm2d))
    values = 3 + 2 * torch.randn(8, norm.num_features, 20, 20)
    for _ in range(20):
        norm.train()(values)
    expected = values.mean(dim=(0, 2, 3))
    assert norm.running_mean is not None and (norm.running_mean / expected).min() > 0.85


def test_resuming_from_any_stage_gives_the_same_logits(lite0: nn.Module) -> None:
    with torch.no_grad():
        found = lite0.stages(torch.randn(2, 3, 32, 32))
        for cut in lite0.cuts:
            assert torch.equal(lite0.resume(cut, found[cut]), found["logits"])


def test_resuming_from_an_unknown_stage_names_the_known_ones(lite0: nn.Module) -> None:
    with pytest.raises(ShapeError, match=r"no cut 'stage9'; choose one of: stem, stage1, .*, pooled$"):
        lite0.resume("stage9", torch.zeros(1, 3, 8, 8))


def test_each_activation_is_a_module_of_its_own_that_changes_nothing_in_place(lite0: nn.Module) -> None:
    activations = {module: 0 for module in lite0.modules() if isinstance(module, nn.ReLU6)}

    def count(module: nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        activations[module] += 1
        assert output.data_ptr() != inputs[0].data_ptr()

    hooks = [module.register_forward_hook(count) for module in activations]
    with torch.no_grad():
        lite0(torch.randn(1, 3, 32, 32))
    for hook in hooks:
        hook.remove()
    # two in each of 16 blocks but the first, which does not widen; stem and head
    assert len(activations) == 2 * 16 - 1 + 2
    assert set(activations.values()) == {1}


def test_a_net_takes_other_numbers_of_classes_and_channels() -> None:
    net = build_net("efficientnet-lite0", classes=3, in_channels=1).eval()
    assert net(torch.zeros(2, 1, 40, 56)).shape == (2, 3)


@pytest.mark.parametrize("options", [{"classes": 0}, {"in_channels": 0}])
def test_a_net_without_classes_or_channels_is_refused(options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="at least 1 class and 1 input channel"):
        build_net("efficientnet-lite0", **options)


@pytest.mark.parametrize("name", LITE)
def test_foreign_names_are_one_for_each_tensor(name: str) -> None:
    net = build_net(name)
    own = list(net.state_dict())
    for foreign in ([name_in_package(key, net) for key in own], [name_in_timm(key) for key in own]):
        assert len(set(foreign)) == len(own)
        assert net.names_in(foreign) is not None
    assert net.names_in(own) is None


def test_a_new_net_neither_explodes_nor_dies() -> None:
    torch.manual_seed(0)
    net = build_net("efficientnet-lite0").train()
    logits = net(torch.randn(8, 3, 64, 64))
    assert 0.01 < logits.std().item() < 10


def test_the_first_loss_is_that_of_equal_chances_with_few_classes_too() -> None:
    torch.manual_seed(0)
    net = build_net("efficientnet-lite0", classes=10).train()
    loss = nn.functional.cross_entropy(net(torch.randn(16, 3, 64, 64)), torch.arange(16) % 10)
    assert abs(loss.item() - math.log(10)) < 0.5


def test_looking_a_net_up_does_not_import_torch() -> None:
    code = "import sys, headstart.nets; print(sorted(headstart.nets.NETS)[0], 'torch' in sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split()[-1] == "False"


def test_an_unknown_net_is_refused_with_the_known_names() -> None:
    with pytest.raises(UsageError, match=r"unknown net 'lite9'; choose one of: .*efficientnet-lite0"):
        build_net("lite9")
    assert set(LITE) <= set(NETS)
