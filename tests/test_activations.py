"""Activation maps: the values the net computes, pooled by hand, and which units are dead or saturated."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from headstart.backbones import open_backbone
from headstart.classifier import Classifier
from headstart.errors import DataError, UsageError
from headstart.explain.subject import subject_of
from headstart.heads import Head
from headstart.look.activations import look_at_activations
from headstart.look.filters import look_at_filters
from headstart.look.neuron import look_at_neuron
from small_subjects import SHAPES, everything, noise_photo, random_net, subject_for, subject_of_shape

LAYERS = {"alexnet": "4", "vgg": "8", "googlenet": "3", "nin": "block1", "lenet": "1", "resnet": "5", "lite": "stem"}


def by_steps(subject, photo, count):
    """The first layers of a chain, one after the other."""
    x = torch.from_numpy(subject.preprocessing.normalise(photo.pixels[None])).double()
    with torch.no_grad():
        for layer in list(subject.net)[:count]:
            x = layer(x)
    return x[0].numpy()


def test_the_maps_before_and_after_are_what_the_layers_compute():
    subject = subject_of_shape("vgg", clipped=True)
    photo = noise_photo(subject)
    found = look_at_activations(subject, photo, "5")
    np.testing.assert_allclose(found.before, by_steps(subject, photo, 5), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.after, by_steps(subject, photo, 6), rtol=1e-5, atol=1e-6)
    assert (found.activation, found.ceiling) == ("ReLU6", 6.0)
    assert found.before.min() < 0


def test_of_a_layer_without_activation_both_are_the_same():
    subject = subject_of_shape("lite")
    found = look_at_activations(subject, noise_photo(subject), "stage2")
    assert (found.activation, found.ceiling, found.dead) == (None, None, ())
    np.testing.assert_array_equal(found.before, found.after)


@pytest.mark.parametrize("keyword", [False, True])
def test_a_concatenation_of_rectified_branches_has_a_before_too(keyword):
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU())
            self.right = nn.Sequential(nn.Conv2d(3, 2, 1), nn.ReLU())
            self.pool = nn.MaxPool2d(3, 1, 1)

        def forward(self, x):
            parts = [self.left(x), self.right(x), self.pool(x)]
            return torch.cat(tensors=parts, dim=1) if keyword else torch.cat(parts, 1)

    torch.manual_seed(0)
    net = nn.Sequential(Branches(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(9, 5)).double().eval()
    subject = subject_for(net, 8)
    photo = noise_photo(subject)
    found = look_at_activations(subject, photo, "0")
    x = torch.from_numpy(subject.preprocessing.normalise(photo.pixels[None])).double()
    with torch.no_grad():
        by_hand = torch.cat([net[0].left[0](x), net[0].right[0](x), net[0].pool(x)], 1)[0].numpy()
    np.testing.assert_allclose(found.before, by_hand, rtol=1e-5, atol=1e-6)
    by_hand[:6] = np.maximum(by_hand[:6], 0)  # the pooled part has no activation
    np.testing.assert_allclose(found.after, by_hand, rtol=1e-5, atol=1e-6)
    assert found.activation == "ReLU" and found.before[:6].min() < 0


@pytest.mark.parametrize("window", [1, 2, 4, 5])
def test_pooled_is_the_largest_of_each_window_the_cut_ones_included(window):
    subject = subject_of_shape("alexnet")
    found = look_at_activations(subject, noise_photo(subject), "1", window=window)
    expected = functional.max_pool2d(torch.from_numpy(found.after), window, window, ceil_mode=True)
    np.testing.assert_array_equal(found.pooled, expected.numpy())


def test_saturated_and_dead_units_are_counted_one_by_one():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5)).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[3, 0] = 6.0
        net[0].bias[:] = torch.tensor([-1.0, 0.0, 7.0, 0.0])
    subject = subject_for(net, side=24)
    photo = noise_photo(subject)
    found = look_at_activations(subject, photo, "1")
    red = (photo.pixels[..., 0].astype(float) - 127) / 60 * 6
    np.testing.assert_allclose(found.saturated, [0, 0, 1, (red >= 6).mean()], atol=1e-9)
    assert found.dead == (0, 1)
    assert 0 < found.saturated[3] < 1
    assert "2 units are dead here" in found.to_text()
    assert "1 unit is so everywhere" in found.to_text()


def test_the_units_that_vary_most_are_shown():
    subject = subject_of_shape("vgg")
    found = look_at_activations(subject, noise_photo(subject), "5")
    by_hand = sorted(range(len(found.before)), key=lambda unit: -float(np.std(found.before[unit])))
    assert list(found.units) == by_hand[:8]


def test_a_scale_of_ones_own_makes_a_weak_unit_as_dark_as_a_strong_one():
    subject = subject_of_shape("vgg")
    photo = noise_photo(subject)
    darkest = {}
    for scale in ("layer", "unit"):
        found = look_at_activations(subject, photo, "5", scale=scale)
        weak = int(np.abs(found.before).max(axis=(1, 2)).argmin())
        tile = np.asarray(found._tile(found.before[weak], 40, found._limit(found.before[weak])), int)
        darkest[scale] = tile.sum(axis=2).min()
    assert darkest["unit"] < darkest["layer"]
    assert found._limit(np.full((2, 2), 3.0, np.float32)) == 3.0


def test_a_fixed_scale_is_said_on_the_picture():
    subject = subject_of_shape("vgg")
    found = look_at_activations(subject, noise_photo(subject), "5", scale=2.5)
    assert found._limit(found.before) == 2.5


def test_a_vector_is_looked_at_too():
    subject = subject_of_shape("alexnet")
    found = look_at_activations(subject, noise_photo(subject), "15")
    assert found.is_vector
    assert found.before.shape == (16, 1, 1)
    assert found.activation == "ReLU"
    found.sheet()


@pytest.mark.parametrize("shape", sorted(SHAPES))
def test_every_shape_of_net_gives_the_same_bytes_twice_and_is_left_as_it_was(shape):
    subject = subject_of_shape(shape)
    photo = noise_photo(subject)
    before = everything(subject.net)
    first, second = (look_at_activations(subject, photo, LAYERS[shape], window=2).files() for _ in range(2))
    assert everything(subject.net) == before
    for name in ("before.npy", "after.npy"):
        assert first[name].dtype == np.float32
        assert first[name].tobytes() == second[name].tobytes()
    assert first["activations.png"].tobytes() == second["activations.png"].tobytes()


@pytest.mark.parametrize(
    ("layer", "options", "words"),
    [
        ("no", {}, "has no layer 'no'"),
        ("1", {"units": [0, 9]}, "there is no unit 9"),
        ("1", {"window": 0}, "1 place or more a side, not 0"),
        ("1", {"scale": "huge"}, "'layer', 'unit' or a number above 0, not 'huge'"),
        ("1", {"scale": -1.0}, "a number above 0"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_leaves_no_trace(layer, options, words):
    subject = subject_of_shape("alexnet")
    photo, before = noise_photo(subject), everything(subject.net)
    with pytest.raises(UsageError, match=words):
        look_at_activations(subject, photo, layer, **options)
    assert everything(subject.net) == before


def test_values_that_are_not_finite_are_never_drawn():
    net = random_net("alexnet")
    with torch.no_grad():
        net[0].bias[2] = float("inf")
    subject = subject_for(net)
    with pytest.raises(DataError, match="not finite"):
        look_at_activations(subject, noise_photo(subject), "1")


def test_the_logits_of_a_run_are_its_own_and_not_those_of_its_backbone(ready_cache):
    backbone = open_backbone("efficientnet-lite0")
    weight = np.random.default_rng(0).normal(0, 0.1, (2, 1280)).astype(np.float32)
    head = Head("linear", {"weight": weight, "bias": np.array([0.5, -0.5], np.float32)})
    subject = subject_of(Classifier(backbone, "pooled", head, ("ants", "bees")), "run")
    photo = noise_photo(subject)
    found = look_at_activations(subject, photo, "logits")
    np.testing.assert_allclose(found.after[:, 0, 0], subject.logits([photo.pixels])[0], rtol=1e-4, atol=1e-4)
    assert "ants" in found.to_text()
    value = look_at_neuron(subject, photo, "logits", 1)
    assert value.check.holds
    assert value.check.sum == pytest.approx(float(found.after[1, 0, 0]), rel=1e-4)
    np.testing.assert_array_equal(look_at_filters(subject, "logits").weights[:, :, 0, 0], weight)
