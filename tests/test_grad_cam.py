"""Grad-CAM against its definition, against class activation maps, and where it says "approximation"."""

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import UsageError
from headstart.explain.grad_cam import default_layer, grad_cam, guided_grad_cam, weighted
from headstart.explain.gradients import guided, taken
from headstart.explain.placing import spread
from headstart.nets import build_net
from headstart.nets.lenet import LeNet
from small_subjects import asked, noise_photo, random_net, subject_for, subject_of_shape


@pytest.fixture(autouse=True)
def same_random_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def linear_above(net: nn.Module) -> nn.Linear:
    return [module for module in net.modules() if isinstance(module, nn.Linear)][-1]


def everything_named(shape, seed=0):
    """A net whose last map can be asked for by name: its layers, the map's name."""
    subject = subject_of_shape(shape, seed)
    return subject, {"googlenet": "5", "resnet": "5", "lite": "head", "nin": "maps"}[shape]


# --- exactness --------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", ["googlenet", "resnet", "lite"])
def test_times_its_places_it_is_the_class_activation_map_of_every_class(shape, seed):
    subject, layer = everything_named(shape)
    x = taken(subject, noise_photo(subject, seed).pixels)
    last = linear_above(subject.net)
    for target in range(5):
        seen = weighted(subject, x, target, layer)
        cam = sum(last.weight[target, k].item() * seen.maps[k] for k in range(len(seen.maps)))
        assert float((seen.raw * cam.numel() - cam).abs().max() / cam.abs().max()) <= 1e-12
        assert seen.without == pytest.approx(float(last.bias[target]), abs=1e-12)
        assert float(cam.mean() + last.bias[target]) == pytest.approx(seen.logit, abs=1e-10)
        assert seen.exact


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_where_each_class_has_a_map_it_is_that_map(seed):
    subject, layer = everything_named("nin")
    x = taken(subject, noise_photo(subject, seed).pixels)
    for target in range(5):
        seen = weighted(subject, x, target, layer)
        assert float((seen.raw * seen.raw.numel() - seen.maps[target]).abs().max()) <= 1e-12
        assert float(seen.maps[target].mean()) == pytest.approx(seen.logit, abs=1e-12)


@pytest.mark.full
@pytest.mark.parametrize("name", ["efficientnet-lite0", "resnet18", "googlenet", "nin"])
def test_at_full_size_it_is_the_class_activation_map_of_twenty_classes_of_three_photos(name):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = build_net(name).double().eval()
    subject = subject_for(net, side=224, classes=1000)
    layer, random = default_layer(subject), np.random.default_rng(0)
    for seed in range(3):
        x = taken(subject, noise_photo(subject, seed).pixels)
        for target in random.integers(0, 1000, 20).tolist():
            seen = weighted(subject, x, target, layer)
            weight = torch.eye(1000)[target].double() if name == "nin" else linear_above(net).weight[target].detach()
            cam = torch.einsum("k,krc->rc", weight, seen.maps)
            assert float((seen.raw * cam.numel() - cam).abs().max() / cam.abs().max()) <= 1e-12
            assert seen.check.residual <= 1e-10


@pytest.mark.parametrize("shape", ["googlenet", "resnet", "lite", "nin"])
def test_single_precision_adds_up_too_and_has_no_stamp(shape):
    subject, _ = everything_named(shape)
    subject.net.float()
    found = grad_cam(asked(subject))
    assert found.check is not None
    assert found.check.residual <= 1e-5
    assert "approximation" not in found.stamps
    seen = weighted(subject, taken(subject, noise_photo(subject).pixels), 1, default_layer(subject))
    weight = torch.eye(5)[1] if shape == "nin" else linear_above(subject.net).weight[1].detach()
    cam = torch.einsum("k,krc->rc", weight, seen.maps)
    assert float((seen.raw * cam.numel() - cam).abs().max() / cam.abs().max()) <= 1e-5


@pytest.mark.parametrize("shape", ["alexnet", "vgg", "lenet", "resnet"])
def test_any_layer_by_the_definition_with_a_loop_over_its_channels(shape):
    subject = subject_of_shape(shape)
    layer = "4"
    x = taken(subject, noise_photo(subject).pixels)
    below = subject.net[:5](x).detach().requires_grad_()
    (slopes,) = torch.autograd.grad(subject.net[5:](below)[0, 3], below)
    wanted = sum(slopes[0, k].mean() * below[0, k] for k in range(below.shape[1])).detach()
    raw = weighted(subject, x, 3, layer).raw
    assert float((raw - wanted).abs().max() / wanted.abs().max()) <= 1e-12
    found = grad_cam(asked(subject, target=3, layer=layer))
    assert np.array_equal(found.raw, raw.float().numpy())
    assert found.layer == layer
    assert found.check is None
    assert "approximation" in found.stamps


def test_values_below_0_are_kept_for_those_who_draw():
    raws = [grad_cam(asked(subject_of_shape("googlenet"), target=target)).raw for target in range(5)]
    assert min(raw.min() for raw in raws) < 0 < max(raw.max() for raw in raws)


def test_where_nothing_speaks_for_the_class_the_picture_says_so():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    with torch.no_grad():
        net[4].weight[1] = -1.0
    found = grad_cam(asked(subject_for(net, side=8, classes=2)))
    assert "no evidence for this class" in found.stamps
    assert (found.raw <= 0).all()


def test_guided_grad_cam_is_the_product_of_the_two():
    question = asked(subject_of_shape("resnet"))
    coarse = np.maximum(grad_cam(question).raw, 0).astype(np.float64)
    wanted = guided(question).raw * spread(coarse, 72, 72)
    assert np.allclose(guided_grad_cam(question).raw, wanted, rtol=1e-5, atol=0)


# --- which layer ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("net", "layer"),
    [
        ("efficientnet-lite0", "head"), ("resnet18", "layer4"), ("googlenet", "inception5b"), ("nin", "maps"),
        ("nin:cifar", "maps"), ("alexnet", "conv5"), ("vgg16", "conv5_3"), ("lenet", "c3"), ("small-cnn", "conv3"),
        ("cifar-cnn", "relu3"),
    ],
)  # fmt: skip
def test_the_default_is_the_last_map_before_the_pooling_after_its_activation(net, layer):
    from headstart.layers.trace import ShapesOnly

    with ShapesOnly.building():
        built = build_net(net)
    side, _, channels = built.input_size
    assert default_layer(subject_for(built, side=side, channels=channels)) == layer


def test_auxiliary_heads_beside_the_chain_are_not_taken_for_its_end():
    from headstart.layers.trace import ShapesOnly

    with ShapesOnly.building():
        built = build_net("googlenet", auxiliary=True)
    assert default_layer(subject_for(built, side=224)) == "inception5b"


def test_lenet_runs_at_its_default_layer_though_it_has_no_rectifier():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        subject = subject_for(LeNet(), side=32, channels=1, classes=10)
    found = grad_cam(asked(subject))
    assert found.layer == "c3"
    assert found.raw.shape == (10, 10)
    assert "approximation" in found.stamps


def test_a_vector_an_unknown_layer_and_a_net_without_maps_are_refused():
    subject = subject_of_shape("alexnet")
    with pytest.raises(UsageError, match=r"14 of net gives 16 numbers and no map.*such as 9"):
        grad_cam(asked(subject, layer="14"))
    with pytest.raises(UsageError, match="has no layer 'nowhere'"):
        grad_cam(asked(subject, layer="nowhere"))
    mlp = build_net("mlp")
    side, _, channels = mlp.input_size
    with pytest.raises(UsageError, match="no map with rows and columns"):
        grad_cam(asked(subject_for(mlp, side=side, channels=channels, classes=10)))


def test_a_layer_that_is_not_on_the_way_to_the_logits_is_refused():
    class Beside(nn.Module):
        def __init__(self):
            super().__init__()
            self.main, self.beside, self.last = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Flatten()

        def forward(self, x):
            self.beside(x)
            return self.last(self.main(x))[:, :4]

    with pytest.raises(UsageError, match="do not depend on beside"):
        grad_cam(asked(subject_for(Beside(), side=8, classes=4), layer="beside"))


def test_it_works_on_a_net_none_of_whose_parts_wants_a_gradient():
    net = random_net("resnet").requires_grad_(False)
    assert grad_cam(asked(subject_for(net))).check is not None
