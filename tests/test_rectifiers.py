"""Gradient, guided backpropagation and deconvnet against lists of layers without autograd; the laws of unpooling."""

import pytest
import torch
from torch import nn
from torch.nn import functional

import signal_oracle
from headstart.errors import UsageError
from headstart.explain.gradients import back_to_pixels, taken
from headstart.explain.projection import project_units
from headstart.explain.rectifiers import RULES, Rectifier, rule
from headstart.nets import build_net
from small_subjects import POOLED, SHAPES, everything, noise_photo, random_net, saturated, subject_for, subject_of_shape


@pytest.fixture(autouse=True)
def same_random_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def far(found, wanted) -> float:
    """The largest difference, as a share of the largest value wanted."""
    assert wanted.abs().max() > 0, "an empty picture proves nothing"
    return float((found - wanted).abs().max() / wanted.abs().max())


# --- the whole net, by hand -------------------------------------------------------------------


@pytest.mark.parametrize("clipped", [False, True], ids=["relu", "relu6"])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_rule_gives_what_the_layers_give_one_by_one_without_autograd(shape, clipped):
    subject = subject_of_shape(shape, seed=3, clipped=clipped)
    x = taken(subject, noise_photo(subject).pixels) * (4 if clipped else 1)
    if clipped:
        assert saturated(subject.net, x) > 100, "no unit at its ceiling: the case is not there"
    seen = []
    for name in RULES:
        found, count = back_to_pixels(subject, x, 2, name)
        tape = signal_oracle.run(subject.net, x, name)
        start = torch.zeros_like(tape.values[-1])
        start[0, 2] = 1
        assert count == sum(isinstance(module, nn.ReLU | nn.ReLU6) for module in subject.net.modules())
        assert far(found, tape.back(len(tape.values) - 1, start)) <= 1e-12
        seen.append(found)
    assert far(seen[1], seen[0]) > 0.01
    assert far(seen[2], seen[1]) > 0.01


@pytest.mark.parametrize("clipped", [False, True], ids=["relu", "relu6"])
@pytest.mark.parametrize("shape", SHAPES)
def test_single_units_of_every_layer_go_back_as_by_hand_from_before_their_activation(shape, clipped):
    subject = subject_of_shape(shape, seed=4, clipped=clipped)
    random = torch.Generator().manual_seed(5)
    x = taken(subject, noise_photo(subject).pixels) * (3 if clipped else 1)
    for name in ("guided", "deconv"):
        tape = signal_oracle.run(subject.net, x, name)
        layers = [name for name, module in subject.net.named_modules() if isinstance(module, LAYERS)]
        layers = layers[:: 1 + len(layers) // 14]  # the many layers of the deepest are alike
        for layer in layers:
            rectifier = isinstance(subject.net.get_submodule(layer), nn.ReLU | nn.ReLU6)
            start = tape.entered[layer] if rectifier else tape.left[layer]
            before = tape.values[start]
            # not one near 0, whose own rounding would be seen
            large = (before[0].abs() >= 0.1 * before.abs().max()).nonzero()
            at = tuple(large[int(torch.randint(len(large), (), generator=random))].tolist())
            seed = torch.zeros_like(before)
            seed[(0, *at)] = before[(0, *at)]
            places = [at[1:]] if len(at) == 3 else None
            found = project_units(subject, x, layer, [at[0]], places, name)
            wanted = tape.back(start, seed)
            assert float((found - wanted).abs().max()) <= 1e-12 * max(float(wanted.abs().max()), 1e-12), layer


LAYERS = (nn.Conv2d, nn.ReLU, nn.ReLU6, nn.BatchNorm2d, nn.Linear)


@pytest.mark.full
@pytest.mark.parametrize("name", ["alexnet", "vgg11", "googlenet", "nin", "resnet18", "efficientnet-lite0"])
def test_the_built_in_nets_at_full_size_go_back_as_by_hand(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(name).double().eval()
    subject = subject_for(net, side=224, classes=1000)
    x = taken(subject, noise_photo(subject).pixels)
    for way in RULES:
        found, _ = back_to_pixels(subject, x, 7, way)
        tape = signal_oracle.run(net, x, way)
        start = torch.zeros_like(tape.values[-1])
        start[0, 7] = 1
        assert far(found, tape.back(len(tape.values) - 1, start)) <= 1e-12


# --- one rectifier ----------------------------------------------------------------------------


@pytest.mark.parametrize("clip", [None, 6.0])
def test_the_gradient_rule_is_torchs_own_derivative_to_the_bit_also_at_the_corners(clip):
    x = torch.tensor([-2.0, -0.0, 0.0, 1e-30, 3.0, 6.0, 6.0000005, 9.0], requires_grad=True)
    above = torch.tensor([1.0, -2.0, 3.0, -4.0, 5.0, -6.0, 7.0, -8.0])
    ours, torchs = Rectifier.apply(x, "gradient", clip), functional.relu(x) if clip is None else functional.relu6(x)
    assert torch.equal(ours, torchs)
    assert torch.equal(*(torch.autograd.grad(y, x, above)[0] for y in (ours, torchs)))


def test_each_rule_by_its_table_of_signs():
    x = torch.tensor([-1.0, -1.0, 2.0, 2.0, 7.0, 7.0], requires_grad=True)
    above = torch.tensor([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    wanted = {
        "gradient": [0.0, 0.0, -1.0, 1.0, 0.0, 0.0],
        "guided": [0.0, 0.0, 0.0, 1.0, 0.0, 0.0],
        "deconv": [0.0, 1.0, 0.0, 1.0, 0.0, 1.0],
    }
    for name in RULES:
        assert torch.autograd.grad(Rectifier.apply(x, name, 6.0), x, above)[0].tolist() == wanted[name]
    assert torch.autograd.grad(Rectifier.apply(x, "guided", None), x, above)[0].tolist() == [0, 0, 0, 1, 0, 1]


def test_nothing_is_hidden_where_a_value_is_not_a_number():
    x = torch.tensor([float("nan"), 1.0])
    assert Rectifier.apply(x, "guided", 6.0).isnan().tolist() == [True, False]


@pytest.mark.parametrize("name", ["guided", "deconv"])
@pytest.mark.parametrize("clipped", [False, True])
def test_a_rule_changes_no_logit(name, clipped):
    net = random_net("vgg", clipped=clipped)
    x = torch.randn(2, 3, 72, 72, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) * 3
    plain = net(x)
    with rule(net, name) as count:
        assert torch.equal(net(x), plain)
    assert count == 7


@pytest.mark.parametrize("shape", ["lite", "vgg"])
def test_guided_backpropagation_of_a_clipped_net_is_not_its_gradient(shape):
    """Other programs know only ReLU: of a net of ReLU6 they give the plain gradient and say nothing."""
    subject = subject_of_shape(shape, clipped=True)
    x = taken(subject, noise_photo(subject).pixels)
    gradient, guided = (back_to_pixels(subject, x, 0, name)[0] for name in ("gradient", "guided"))
    assert (guided - gradient).abs().max() > 0.01 * gradient.abs().max()


# --- what no rule reaches ---------------------------------------------------------------------


class Calls(nn.Module):
    """A layer that calls its activation itself."""

    def __init__(self, function):
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3), function

    def forward(self, x):
        return self.function(self.conv(x)).mean((2, 3))


class Absolute(nn.Module):
    """An activation that nobody here knows."""

    def forward(self, x):
        return x.abs()


@pytest.mark.parametrize(
    "function",
    [
        torch.relu,
        functional.relu,
        functional.relu6,
        lambda x: x.relu(),
        lambda x: x.clamp(min=0),
        lambda x: torch.clamp(x, 0, 6),
        lambda x: x * torch.sigmoid(x),
        functional.gelu,
        functional.leaky_relu,
        functional.softsign,
        functional.rrelu,
        functional.logsigmoid,
        functional.hardshrink,
        functional.tanhshrink,
        lambda x: torch.softmax(x, 1),
        lambda x: torch.where(x > 0, x, 0.0),
        lambda x: torch.maximum(x, torch.zeros(())),
        lambda x: x * (x > 0),
        lambda x: x * x.gt(0),
    ],
)
def test_an_activation_that_is_called_as_a_function_is_refused_and_not_ignored(function):
    subject = subject_for(nn.Sequential(Calls(function), nn.ReLU()), side=8, classes=4)
    x = taken(subject, noise_photo(subject).pixels)
    with pytest.raises(UsageError, match=r"as a function, where no rule .* can reach it"):
        back_to_pixels(subject, x, 0, "guided")
    assert back_to_pixels(subject, x, 0)[0].shape == x.shape


@pytest.mark.parametrize(
    ("net", "words"),
    [
        (lambda: build_net("lenet"), "tanh1 is a Tanh"),
        (lambda: build_net("lenet:paper"), "squash1 is a Squash"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(), nn.Flatten()), "1 is a LeakyReLU"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Hardtanh(), nn.Flatten()), "1 is a Hardtanh from -1"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Threshold(0.1, 0), nn.Flatten()), "1 is a Threshold"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Softmax2d(), nn.Flatten()), "1 is a Softmax2d"),
        (lambda: nn.Sequential(nn.Conv2d(1, 2, 3), Absolute(), nn.Flatten()), "1 is a Absolute"),
    ],
)
def test_another_activation_is_refused_by_its_name(net, words):
    with pytest.raises(UsageError, match=words), rule(net(), "guided"):
        pass


@pytest.mark.parametrize("name", RULES)
def test_a_block_that_fails_leaves_the_net_as_it_was(name):
    net = random_net("alexnet")
    before = everything(net)
    with pytest.raises(ZeroDivisionError), rule(net, name):
        net(torch.zeros(1, 3, 72, 72, dtype=torch.float64))
        1 / 0  # noqa: B018
    assert everything(net) == before


# --- the way back through max pooling ---------------------------------------------------------


def unpooled(x, signal, *window):
    """A signal back through max pooling, as the rules send it: autograd's way."""
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(functional.max_pool2d(leaf, *window), leaf, signal)[0]


@pytest.mark.parametrize(("kernel", "stride"), [(2, 2), (3, 3), (2, 3)])
def test_unpooling_without_overlap_is_undone_by_pooling_and_keeps_places_and_sum(kernel, stride):
    random = torch.Generator().manual_seed(kernel)
    for _ in range(20):
        x = torch.rand(1, 2, 12, 12, dtype=torch.float64, generator=random) + 0.1
        y, places = functional.max_pool2d(x, kernel, stride, return_indices=True)
        back = unpooled(x, y, kernel, stride)
        again, same = functional.max_pool2d(back, kernel, stride, return_indices=True)
        assert torch.equal(again, y)
        assert torch.equal(same, places)
        assert float(back.sum()) == pytest.approx(float(y.sum()), rel=1e-14)


def test_of_equal_values_the_first_has_the_maximum():
    back = unpooled(torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 2, 2), 2)
    assert back.flatten().nonzero().flatten().tolist() == [0, 2, 8, 10]


def test_a_single_unit_survives_overlapping_pooling_whole_where_overwriting_would_lose_it():
    random = torch.Generator().manual_seed(0)
    kept, overwritten = 0, 0
    for _ in range(400):
        x = torch.randn(1, 1, 13, 13, dtype=torch.float64, generator=random)
        pooled, places = functional.max_pool2d(x, 3, 2, return_indices=True)
        one = torch.zeros_like(pooled)
        one.view(-1)[int(torch.randint(one.numel(), (), generator=random))] = 1
        kept += float(unpooled(x, one, 3, 2).sum()) == 1.0
        overwritten += float(functional.max_unpool2d(one, places, 3, 2, output_size=x.shape).sum()) == 1.0
    assert kept == 400
    assert overwritten < 360  # else the case that matters is not among them


# --- another program, where it is right -------------------------------------------------------


@pytest.mark.parametrize("shape", POOLED)
def test_captum_agrees_on_nets_of_plain_relu(shape):
    attr = pytest.importorskip("captum.attr")
    subject = subject_of_shape(shape, clipped=False)
    x = taken(subject, noise_photo(subject).pixels)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)  # it announces its hooks
        for name, method in (("guided", attr.GuidedBackprop), ("deconv", attr.Deconvolution)):
            theirs = method(subject.net).attribute(x.clone().requires_grad_(), target=1).detach()
            assert far(back_to_pixels(subject, x, 1, name)[0], theirs) <= 1e-12
        theirs = attr.Saliency(subject.net).attribute(x.clone().requires_grad_(), target=1, abs=False)
        assert torch.equal(back_to_pixels(subject, x, 1)[0], theirs)
