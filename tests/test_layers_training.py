"""What training starts from and goes through: initialisation, gains, batch-norm put in later, dropout rates changed."""

import json
import math

import pytest
import torch
from torch import nn

from headstart.errors import ShapeError, UsageError
from headstart.layers.dropout import ClassicalDropout, change_dropout, rising_rates, weight_factor
from headstart.layers.gains import layer_gains
from headstart.layers.initialise import fans, initialise
from headstart.layers.insertion import insert_batch_norm


def chain(depth, width=24):
    """A deep plain net: convolutions and ReLU, nothing that helps."""
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU()]
    for _ in range(depth):
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, 10))


def mixed_net():
    """Convolutions with and without bias and batch-norm, a residual sum, dense layers."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.one = nn.Conv2d(3, 6, 3, padding=1, bias=False)
            self.norm = nn.BatchNorm2d(6)
            self.two = nn.Conv2d(6, 6, 3, padding=1, groups=2)
            self.tail = nn.Sequential(nn.MaxPool2d(4), nn.Flatten(), nn.Linear(24, 8), nn.Tanh(), nn.Linear(8, 3))

        def forward(self, x):
            x = torch.relu(self.norm(self.one(x)))
            return self.tail(x + torch.relu(self.two(x)))

    return Net()


# --- initialisation ------------------------------------------------------------------------------


def test_fans_are_those_of_pytorch():
    for layer in (nn.Linear(7, 5), nn.Conv2d(6, 4, (3, 2)), nn.Conv2d(6, 4, 3, groups=2)):
        assert fans(layer.weight) == nn.init._calculate_fan_in_and_fan_out(layer.weight)


def test_glorot_fills_evenly_up_to_its_limit():
    net = nn.Linear(300, 200)
    initialise(net, "glorot")
    limit = math.sqrt(6 / 500)
    weight = net.weight.detach()
    assert weight.abs().max() <= limit
    assert weight.abs().max() > 0.999 * limit
    assert weight.std().item() == pytest.approx(limit / math.sqrt(3), rel=0.02)
    assert net.bias.abs().max() == 0


@pytest.mark.parametrize(("init", "gain"), [("he", 1.0), ("0.5", 0.5), ("2", 2.0)])
def test_he_has_its_standard_deviation_times_the_gain(init, gain):
    net = nn.Conv2d(30, 40, 5)
    initialise(net, init)
    weight = net.weight.detach()
    assert weight.std().item() == pytest.approx(gain * math.sqrt(2 / 750), rel=0.02)
    assert abs(weight.mean().item()) < 5 * weight.std().item() / math.sqrt(weight.numel())


def test_the_same_seed_starts_the_same_net_and_another_seed_another():
    nets = [nn.Linear(4, 4) for _ in range(3)]
    for net, seed in zip(nets, (1, 1, 2), strict=True):
        initialise(net, "he", seed)
    assert torch.equal(nets[0].weight, nets[1].weight)
    assert not torch.equal(nets[0].weight, nets[2].weight)


def test_a_batch_norm_starts_as_if_it_were_not_there():
    norm = nn.BatchNorm2d(3)
    norm(torch.randn(4, 3, 5, 5) * 7 + 2)
    with torch.no_grad():
        norm.weight.fill_(5)
    initialise(norm, "he")
    x = torch.randn(2, 3, 4, 4)
    assert torch.allclose(norm.eval()(x), x, atol=1e-4)


@pytest.mark.parametrize("init", ["xavier", "", "0", "-1", "nan", "inf"])
def test_an_unknown_initialisation_is_refused(init):
    with pytest.raises(UsageError, match="expected glorot, he, or a gain > 0"):
        initialise(nn.Linear(2, 2), init)


# --- gains -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("init", "verdict", "gain"), [("he", "steady", 1.0), ("0.5", "vanishes", 0.5), ("2", "explodes", 2.0)]
)
def test_the_gradient_grows_as_the_power_of_the_gain_by_the_depth(init, verdict, gain):
    result = layer_gains(chain(14), init=init, input_size=(16, 16, 3))
    assert result.steps == 15
    assert result.gradient_gain == pytest.approx(gain, rel=0.12)
    assert result.verdict() == verdict
    first, last = result.layers[0].gradient, result.layers[-2].gradient
    assert math.log(first / last) / 13 == pytest.approx(math.log(gain), abs=0.15)  # k^(L - l) from end to end
    assert f"^{result.steps} = " in result.to_text()


def test_batch_norm_steadies_a_net_whatever_its_weights():
    photos = torch.randn(8, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    for init in ("0.5", "2"):
        net = chain(14)
        initialise(net, init)
        normed = layer_gains(insert_batch_norm(net, photos), photos, init=init)
        assert normed.verdict() == "steady"
        assert normed.signal_gain == pytest.approx(1.0, abs=0.01)
        assert normed.gradient_gain == pytest.approx(math.sqrt(math.pi / (math.pi - 1)), rel=0.05)
        assert "Conv2d + BatchNorm" in normed.to_text()


def test_sigmoid_makes_the_gradient_vanish():
    net = chain(14)
    for index, layer in enumerate(net):
        if isinstance(layer, nn.ReLU):
            net[index] = nn.Sigmoid()
    assert layer_gains(net, init="glorot", input_size=(16, 16, 3)).verdict() == "vanishes"


def test_gains_of_linear_layers_are_exactly_their_weights():
    net = nn.Sequential(nn.Flatten(), *[nn.Linear(4, 4, bias=False) for _ in range(4)])
    for layer, gain in zip(list(net)[1:], (1.0, 3.0, 3.0, 3.0), strict=True):
        layer.weight.data = gain * torch.eye(4)
    result = layer_gains(net, torch.randn(5, 1, 2, 2))
    assert result.signal_gains == pytest.approx([3, 3, 3])
    assert result.gradient_gains == pytest.approx([3, 3, 3])
    assert result.init == "as they are"
    document = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert (document["gradient_gain"], document["verdict"]) == (pytest.approx(3), "explodes")


def test_measuring_gains_leaves_the_net_as_it_was():
    net = mixed_net().eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    layer_gains(net, torch.randn(4, 3, 8, 8), init="2")
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert not any(module.training for module in net.modules())
    assert all(parameter.grad is None for parameter in net.parameters())
    assert all(not module._forward_hooks for module in net.modules())


def test_a_dead_net_and_an_overflowing_one_are_reported_without_failing():
    dead = chain(4)
    for layer in dead:
        if isinstance(layer, nn.Conv2d):
            nn.init.constant_(layer.bias, -100.0)
    result = layer_gains(dead, input_size=(8, 8, 3))
    assert result.verdict() == "vanishes"
    overflow = layer_gains(chain(30), init="1e20", input_size=(8, 8, 3))
    json.dumps(overflow.to_json(), allow_nan=False)
    assert overflow.verdict() == "explodes"


def test_gains_need_a_layer_with_weights():
    with pytest.raises(ShapeError, match="no layer with weights"):
        layer_gains(nn.ReLU(), torch.randn(1, 1, 2, 2))


# --- batch-norm put in later -------------------------------------------------------------------------


@pytest.mark.parametrize("make", [mixed_net, lambda: chain(3)])
def test_an_inserted_batch_norm_keeps_every_output(make):
    torch.manual_seed(0)
    net = make().double().eval()
    photos = torch.randn(16, 3, 8, 8, dtype=torch.float64)
    changed = insert_batch_norm(net, photos)
    other = torch.randn(5, 3, 8, 8, dtype=torch.float64) * 3 + 1
    with torch.no_grad():
        torch.testing.assert_close(changed.eval()(other), net(other), rtol=1e-9, atol=1e-9)
        if not any(isinstance(module, nn.BatchNorm2d) for module in net.modules()):
            torch.testing.assert_close(changed.train()(photos), net(photos), rtol=1e-9, atol=1e-9)


def test_a_batch_norm_goes_behind_every_layer_that_has_none_but_the_last():
    net = mixed_net()
    changed = insert_batch_norm(net, torch.randn(4, 3, 8, 8))
    added = [name for name, module in changed.named_modules() if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert added == ["norm", "two.1", "tail.2.1"]
    parameters = sum(value.numel() for value in changed.parameters()) - sum(value.numel() for value in net.parameters())
    assert parameters == 2 * 6 + 2 * 8
    with pytest.raises(ShapeError, match="no batch-norm to insert"):
        insert_batch_norm(changed, torch.randn(4, 3, 8, 8))


def test_an_inserted_batch_norm_trains():
    net = insert_batch_norm(chain(2), torch.randn(8, 3, 8, 8)).train()
    norm = net.get_submodule("2.1")
    before = norm.weight.detach().clone(), norm.running_mean.clone()
    optimiser = torch.optim.SGD(net.parameters(), lr=0.1)
    nn.functional.cross_entropy(net(torch.randn(8, 3, 8, 8) + 1), torch.arange(8)).backward()
    optimiser.step()
    assert not torch.equal(norm.weight, before[0])
    assert not torch.equal(norm.running_mean, before[1])


def test_inserting_leaves_the_net_as_it_was():
    net = mixed_net()
    net.norm.eval()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    insert_batch_norm(net, torch.randn(4, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert modes == [module.training for module in net.modules()]


# --- dropout -----------------------------------------------------------------------------------------


def dropping(kind):
    make = {"inverted": nn.Dropout, "classical": ClassicalDropout}[kind]
    return nn.Sequential(
        nn.Conv2d(3, 6, 3), make(0.2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 2), nn.Flatten(), make(0.5), nn.Linear(16, 3),
    )  # fmt: skip


@pytest.mark.parametrize("kind", ["inverted", "classical"])
def test_after_a_change_of_rates_the_net_gives_the_same_outputs(kind):
    net = dropping(kind).double().eval()
    changed = change_dropout(net, (0.4, 0.75), (8, 8, 3)).eval()
    photos = torch.randn(6, 3, 8, 8, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(changed(photos), net(photos), rtol=1e-12, atol=1e-12)


def test_classical_dropout_rescales_the_weights_behind_it_and_inverted_dropout_none():
    classical, inverted = dropping("classical"), dropping("inverted")
    changed = change_dropout(classical, (0.2, 0.75), (8, 8, 3))
    torch.testing.assert_close(changed[7].weight, 2 * classical[7].weight)
    torch.testing.assert_close(changed[4].weight, classical[4].weight)
    torch.testing.assert_close(changed[7].bias, classical[7].bias)
    assert changed[6].rate == 0.75
    same = change_dropout(inverted, (0.2, 0.75), (8, 8, 3))
    assert all(torch.equal(a, b) for a, b in zip(same.parameters(), inverted.parameters(), strict=True))
    assert same[6].p == 0.75
    assert classical[6].rate == inverted[6].p == 0.5  # the nets themselves are left alone


def test_without_the_factor_the_outputs_would_change():
    net = dropping("classical").eval()
    net_with_other_rate = dropping("classical").eval()
    net_with_other_rate.load_state_dict(net.state_dict())
    net_with_other_rate[6].rate = 0.75
    photos = torch.randn(6, 3, 8, 8)
    assert not torch.allclose(net(photos), net_with_other_rate(photos), atol=1e-3)


def test_classical_dropout_is_half_of_inverted_dropout_at_rate_one_half():
    torch.manual_seed(0)
    x = torch.ones(100, 100)
    classical, inverted = ClassicalDropout(0.5), nn.Dropout(0.5)
    assert set(classical(x).unique().tolist()) == {0.0, 1.0}
    assert set(inverted(x).unique().tolist()) == {0.0, 2.0}
    assert (classical.eval()(x) == 0.5).all()
    assert (inverted.eval()(x) == 1.0).all()


def test_the_factor_is_the_quotient_of_what_survives():
    assert weight_factor(0.5, 0.6) == pytest.approx(0.5 / 0.4)
    assert weight_factor(0.5, 0.0) == 0.5
    assert weight_factor(0.5, 0.6, "inverted") == 1.0


def test_rates_rise_from_0_2_to_0_5_in_equal_steps():
    assert rising_rates(4) == (0.2, 0.3, 0.4, 0.5)
    assert rising_rates(1) == (0.2,)
    assert rising_rates(3, 0.1, 0.3) == (0.1, 0.2, 0.3)
    assert change_dropout(dropping("inverted"), rising_rates(2), (8, 8, 3))[6].p == 0.5


def test_a_change_that_cannot_be_exact_is_refused_with_the_reason():
    net = nn.Sequential(nn.Conv2d(3, 6, 3), ClassicalDropout(0.2), nn.Sigmoid(), nn.Conv2d(6, 4, 2))
    with pytest.raises(UsageError, match=r"1: its rate cannot be changed exactly, as 2 \(Sigmoid\) lies between"):
        change_dropout(net, (0.3,), (8, 8, 3))
    last = nn.Sequential(nn.Conv2d(3, 6, 3), ClassicalDropout(0.2))
    with pytest.raises(UsageError, match="no weights lie behind it"):
        change_dropout(last, (0.3,), (8, 8, 3))


def test_rates_out_of_range_or_of_another_number_are_refused():
    net = dropping("classical")
    with pytest.raises(UsageError, match="1 rates for 2 dropouts; expected one for each of: 1, 6"):
        change_dropout(net, (0.3,), (8, 8, 3))
    for rate in (1.0, -0.1, float("nan")):
        with pytest.raises(UsageError, match="the dropout rate is"):
            change_dropout(net, (0.3, rate), (8, 8, 3))
        with pytest.raises(UsageError, match="the dropout rate is"):
            ClassicalDropout(rate)
    with pytest.raises(UsageError, match="expected at least 1"):
        rising_rates(0)
