"""Pictures of pixels: what they are in closed form, when they refuse, what they leave behind, and that they repeat."""

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import open_backbone
from headstart.errors import DataError, UsageError
from headstart.explain.explanation import Asked
from headstart.explain.grad_cam import grad_cam, guided_grad_cam
from headstart.explain.gradients import (
    back_to_pixels,
    deconv,
    gradient,
    guided,
    input_x_gradient,
    max_pools,
    taken,
)
from headstart.explain.integrated import integrated_gradients
from headstart.explain.projection import project_units
from headstart.explain.rectifiers import RULES
from headstart.nets import build_net
from small_subjects import (
    POOLED,
    SHAPES,
    asked,
    everything,
    noise_photo,
    random_net,
    subject_for,
    subject_of_shape,
)

METHODS = (gradient, input_x_gradient, guided, deconv, grad_cam, guided_grad_cam, integrated_gradients)


@pytest.fixture(autouse=True)
def same_random_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def cosine(one, other) -> float:
    one, other = (np.asarray(values, np.float64).reshape(-1) for values in (one, other))
    return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))


def linear_subject(channels=3, classes=4):
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * 64, classes))
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(classes, channels * 64, generator=torch.Generator().manual_seed(0)))
    return subject_for(net, side=8, channels=channels, classes=classes), net[1].weight.detach()


# --- what they are ----------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_of_a_linear_net_the_gradient_is_its_weights_and_times_the_photo_its_terms(channels):
    subject, weight = linear_subject(channels)
    question = asked(subject, target=2)
    x = subject.normalised(question.photo.pixels)[0].numpy()
    row = weight[2].reshape(channels, 8, 8).numpy()
    assert np.array_equal(gradient(question).raw, row)
    assert np.array_equal(input_x_gradient(question).raw, row * x)


def test_the_gradient_is_the_rise_of_the_logit_that_a_small_step_of_a_pixel_brings():
    subject = subject_of_shape("vgg")
    x = taken(subject, noise_photo(subject).pixels)
    found, _ = back_to_pixels(subject, x, 3)
    random = np.random.default_rng(0)
    for place in random.integers(0, [3, 72, 72], (20, 3)):
        step = torch.zeros_like(x)
        step[(0, *place)] = 1e-7
        with torch.no_grad():
            rise = (subject.net(x + step) - subject.net(x - step))[0, 3] / 2e-7
        assert float(found[(0, *place)]) == pytest.approx(float(rise), rel=1e-4, abs=1e-7)


def test_the_logit_is_explained_and_not_the_probability():
    """Where one class is certain the gradient of its probability is nearly 0 everywhere."""
    subject = subject_of_shape("vgg")
    question = asked(subject)
    x = taken(subject, question.photo.pixels).requires_grad_()
    logits = subject.net(x)
    (of_logit,) = torch.autograd.grad(logits[0, 1], x, retain_graph=True)
    (of_share,) = torch.autograd.grad(logits.softmax(1)[0, 1], x)
    raw = gradient(question).raw
    assert np.array_equal(raw, of_logit[0].float().numpy())
    assert abs(raw - of_share[0].numpy()).max() > 0.1 * abs(raw).max()


def test_pixels_outside_the_receptive_field_of_what_the_class_reads_have_exactly_no_gradient():
    class Corner(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 4, 5, padding=2), nn.ReLU()
            nn.init.constant_(self.conv.bias, 5)  # always on

        def forward(self, x):
            return self.act(self.conv(x))[:, :, 20, 30]

    subject = subject_for(Corner(), side=48, classes=4)
    for method in (gradient, guided):
        raw = method(asked(subject, target=0)).raw.copy()
        assert raw[:, 18:23, 28:33].any()
        raw[:, 18:23, 28:33] = 0
        assert not raw.any()


def test_the_largest_of_two_classes_and_of_133_are_explained_alike():
    for classes in (2, 133):
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, classes))
        subject = subject_for(net, side=16, classes=classes)
        for method in (gradient, guided, integrated_gradients):
            found = method(asked(subject, target=classes - 1))
            assert found.raw.shape == (3, 16, 16)
            assert found.raw.dtype == np.float32
            assert found.raw.any()


# --- the deconvnet needs max pooling ----------------------------------------------------------


def test_the_deconvnet_refuses_a_net_without_max_pooling_and_says_why():
    with pytest.raises(UsageError, match=r"has no max pooling.*same for every photo.*--method guided.*--anyway"):
        deconv(asked(subject_of_shape("lite")))


def test_asked_anyway_it_says_so_on_the_picture_and_the_picture_is_the_same_for_every_photo():
    subject = subject_of_shape("lite")
    one, other = (deconv(asked(subject, seed=seed, anyway=True)) for seed in (0, 1))
    assert one.stamps == ("no max pooling: much the same for every photo",)
    assert cosine(one.raw, other.raw) > 0.9999
    assert cosine(guided(asked(subject)).raw, guided(asked(subject, seed=1)).raw) < 0.9


@pytest.mark.parametrize("shape", [shape for shape in POOLED if shape not in ("nin", "resnet")])
def test_with_two_or_more_max_pools_it_differs_from_photo_to_photo(shape):
    subject = subject_of_shape(shape)
    assert len(max_pools(subject)) >= 2
    pictures = [deconv(asked(subject, seed=seed)) for seed in range(3)]
    assert all(not found.stamps for found in pictures)
    pairs = [cosine(pictures[a].raw, pictures[b].raw) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert max(pairs) < 0.9


def test_a_net_without_rectifiers_has_no_guided_backpropagation():
    subject, _ = linear_subject()
    with pytest.raises(UsageError, match=r"no rectifier.*--method gradient"):
        guided(asked(subject))


def test_guided_backpropagation_of_lenet_names_its_tanh_while_the_gradient_works():
    subject = subject_for(build_net("lenet"), side=32, channels=1, classes=10)
    with pytest.raises(UsageError, match="tanh1 is a Tanh"):
        guided(asked(subject))
    assert gradient(asked(subject)).raw.any()


# --- the default backbone ---------------------------------------------------------------------


def test_on_the_default_backbone_guided_backpropagation_is_not_silently_the_gradient():
    backbone = open_backbone("efficientnet-lite0")
    net = backbone.net().requires_grad_(False)
    subject = subject_for(net, side=backbone.preprocessing.size, classes=1000)
    question = asked(subject, target=207)
    plain, ours = gradient(question).raw, guided(question).raw
    assert abs(ours - plain).max() > 0.01 * abs(plain).max()


# --- what is not a number ---------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_weights_that_are_not_numbers_stop_every_method(method):
    net = random_net("vgg")
    with torch.no_grad():
        net[0].weight[0, 0, 0, 0] = float("nan")
    with pytest.raises(DataError, match=r"of <pixels> for class 1 is not finite.*diverged"):
        method(asked(subject_for(net)))


def test_an_empty_picture_is_a_result_with_a_stamp():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 4))
    nn.init.constant_(net[0].bias, -1e3)  # every unit is off
    subject = subject_for(net, side=8, classes=4)
    for method in (gradient, guided, guided_grad_cam):
        found = method(asked(subject))
        assert not found.raw.any()
        assert "empty: nothing comes back to the pixels" in found.stamps


# --- nothing is left behind, and everything repeats -------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("method", METHODS)
def test_a_method_leaves_no_trace_in_the_net(method, shape):
    subject = subject_of_shape(shape)
    subject.net.requires_grad_(True)  # as while it is trained
    frozen = next(subject.net.parameters())
    frozen.requires_grad_(False)
    subject.net[0].train() if isinstance(subject.net, nn.Sequential) else None
    before = everything(subject.net)
    try:
        method(asked(subject, anyway=True, gradients=12))
    finally:
        assert everything(subject.net) == before


class Broken(nn.Module):
    """Fails on the way back, when the second half of a method is under way."""

    rectifies = False

    class Fail(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, signal):
            raise ZeroDivisionError

    def forward(self, x):
        return self.Fail.apply(x)


@pytest.mark.parametrize("method", METHODS)
def test_a_method_that_fails_half_way_leaves_no_trace_either(method):
    net = random_net("vgg")
    net.insert(22, Broken())  # behind the flattening
    subject = subject_for(net)
    before = everything(subject.net)
    with pytest.raises(ZeroDivisionError):
        method(asked(subject))
    assert everything(net) == before


def test_projections_leave_no_trace_also_where_they_fail():
    subject = subject_of_shape("alexnet")
    x = taken(subject, noise_photo(subject).pixels)
    before = everything(subject.net)
    for rule in RULES:
        project_units(subject, x, "4", [1], [(2, 2)], rule)
    for layer, units, places in (("4", [99], [(0, 0)]), ("nowhere", [0], [(0, 0)]), ("4", [0], None)):
        with pytest.raises(UsageError):
            project_units(subject, x, layer, units, places, "guided")
    assert everything(subject.net) == before


@pytest.mark.parametrize("method", METHODS)
def test_the_same_question_twice_gives_the_same_bytes_whatever_the_global_numbers_are(method):
    subject = subject_of_shape("alexnet")
    one = method(asked(subject))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(99)
        with torch.no_grad():
            other = method(asked(subject))
    assert one.raw.tobytes() == other.raw.tobytes()
    assert one.stamps == other.stamps


@pytest.mark.parametrize("method", METHODS)
def test_a_method_says_when_it_is_done(method):
    subject = subject_of_shape("alexnet")
    told = []
    photo = noise_photo(subject)
    method(Asked(subject, photo, 1, step=lambda done, of, what: told.append((done, of, what))))
    assert told
    assert all(0 < done <= of and what for done, of, what in told)
