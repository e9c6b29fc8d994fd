"""Class activation maps: against Grad-CAM from its definition, against the logit, and head by head against `Head`."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import UsageError
from headstart.explain import explain, subject_of
from headstart.explain.cam import evidence_of
from headstart.explain.placing import spread
from headstart.explain.stored import logits_of, outputs_of
from headstart.heads import Head
from headstart.look.opening import open_subject
from headstart.nets import build_net

CLASSES, PHOTOS = 20, 3


def awake(name: str, side: int, **options: object) -> tuple[nn.Module, torch.Tensor]:
    """A net in float64 whose batch norms keep what passes through them lively, and noise to look at."""
    torch.manual_seed(0)
    net = build_net(name, CLASSES, **options).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.data.uniform_(0.5, 1.5)
            module.bias.data.uniform_(-0.2, 0.5)
    return net, torch.randn(PHOTOS, 3, side, side, dtype=torch.float64)


def head_of(net: nn.Module) -> Head:
    last = [module for module in net.modules() if isinstance(module, nn.Linear)]
    if not last:
        return Head("identity", {}, {"length": CLASSES})
    return Head("linear", {"weight": last[-1].weight.detach().numpy(), "bias": last[-1].bias.detach().numpy()})


GAP_NETS = [("efficientnet-lite0", "head", 64), ("resnet18", "layer4", 64), ("googlenet", "inception5b", 96)]
GAP_NETS += [("nin:cifar", "", 32)]


@pytest.mark.parametrize(("name", "stage", "side"), GAP_NETS)
def test_the_map_is_grad_cam_times_the_places_for_every_class(name: str, stage: str, side: int) -> None:
    net, photos = awake(name, side)
    stages = net.stages(photos.requires_grad_())
    stage = stage or [key for key, value in stages.items() if value.ndim == 4][-1]
    maps, logits = stages[stage], stages["logits"]
    head = head_of(net)
    for photo in range(PHOTOS):
        for target in range(CLASSES):
            # Selvaraju et al. 2017, equations 1 and 2 without the ReLU, from torch's own gradient
            (gradient,) = torch.autograd.grad(logits[photo, target], maps, retain_graph=True)
            alpha = gradient[photo].mean(dim=(1, 2))
            grad_cam = (alpha[:, None, None] * maps[photo]).sum(dim=0).detach().numpy()
            found = evidence_of(head, maps[photo].detach().numpy(), target)
            expected = grad_cam * maps.shape[2] * maps.shape[3]
            assert np.abs(found.places - expected).max() <= 1e-12 * np.abs(expected).max()


@pytest.mark.parametrize(("name", "stage", "side"), GAP_NETS)
def test_the_mean_of_the_map_and_the_constant_are_the_logit_of_every_class(name: str, stage: str, side: int) -> None:
    net, photos = awake(name, side)
    with torch.no_grad():
        stages = net.stages(photos)
    maps, logits = stages[stage or [key for key, value in stages.items() if value.ndim == 4][-1]], stages["logits"]
    head, scale = head_of(net), float(logits.abs().max())
    for photo in range(PHOTOS):
        for target in range(CLASSES):
            found = evidence_of(head, maps[photo].numpy(), target)
            assert abs(found.places.mean() + found.constant - float(logits[photo, target])) <= 1e-10 * scale
            rows, columns = found.places.shape
            large = spread(found.places, columns * 32, rows * 32)  # the picture that is shown adds up as well
            assert abs(large.mean() + found.constant - float(logits[photo, target])) <= 1e-5 * scale


def draw(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def linear(length: int) -> Head:
    return Head("logistic", {"weight": draw(4, length), "bias": draw(4, seed=1)})


def rooted(length: int) -> Head:
    return Head("root-logistic", {"weight": draw(4, length), "bias": draw(4, seed=1)}, {"root_offset": 0.01})


def hidden(length: int) -> Head:
    return Head(
        "mlp",
        {
            "hidden_weight": draw(9, length),
            "hidden_bias": draw(9, seed=2),
            "weight": draw(4, 9, seed=3),
            "bias": draw(4, seed=1),
        },
    )


@pytest.mark.parametrize("kind", [linear, rooted, hidden])
@pytest.mark.parametrize("flat", [False, True], ids=["means", "flattened"])
def test_places_add_up_to_the_logit_of_every_kind_of_head(kind: Callable[[int], Head], flat: bool) -> None:
    maps = draw(6, 5, 7, seed=4)
    maps[2] = 0  # a dead map: its root has no slope to divide by
    head = kind(6 * 5 * 7 if flat else 6)
    features = maps.reshape(1, -1) if flat else maps.mean(axis=(1, 2))[None]
    logits = head.logits(features)[0]
    for target in range(4):
        found = evidence_of(head, maps, target)
        assert found.places.mean() + found.constant == pytest.approx(logits[target], rel=1e-4, abs=1e-4)


def test_a_place_without_any_activation_adds_nothing() -> None:
    maps = draw(6, 5, 7, seed=4)
    maps[:, 3, 2] = 0
    for head in (linear(6), rooted(6), hidden(6), linear(6 * 5 * 7)):
        assert evidence_of(head, maps, 1).places[3, 2] == 0


def test_a_head_that_reads_no_map_is_refused() -> None:
    knn = Head(
        "knn",
        {"references": draw(5, 6), "votes": np.eye(5, 4, dtype=np.float32)},
        {"prior": [0.25] * 4, "neighbours": 3},
    )
    with pytest.raises(UsageError, match="'knn' head of 6 features"):
        evidence_of(knn, draw(6, 2, 2), 0)
    with pytest.raises(UsageError, match="of 7 features"):
        evidence_of(linear(7), draw(6, 2, 2), 0)


def test_a_backbone_as_published_adds_up_for_every_class(ready_cache: object) -> None:
    subject = open_subject("efficientnet-lite0", threads=1)
    photo = np.random.default_rng(0).integers(0, 256, (240, 320, 3), np.uint8)
    labels = [f"class {number}" for number in range(0, 1000, 50)]
    for one in explain(subject, photo, ("cam",), labels):
        assert one.check is not None
        assert one.raw.shape == (7, 7)
        assert one.check.residual * abs(one.check.target) <= 1e-4
        assert one.check.target == one.score
        assert one.stamps == (() if (one.raw > 0).any() else ("no evidence for this class",))
    maps = outputs_of(subject, [subject.photo(photo)], ("head_map",))[0]["head_map"]
    logits = logits_of(subject, [subject.photo(photo)])[0]
    head = subject.classifier.head if subject.classifier is not None else linear(7)
    for target, logit in enumerate(logits):  # all 1,000
        evidence = evidence_of(head, maps, target)
        assert abs(evidence.places.mean() + evidence.constant - logit) <= 1e-4
    subject.close()


def test_nets_without_means_of_maps_say_what_to_use_instead() -> None:
    with pytest.raises(UsageError, match="use --method gradcam"):
        explain(open_subject("lenet"), np.zeros((28, 28), np.uint8), ("cam",))


def test_a_photo_is_explained_in_its_own_pixels(ready_cache: object) -> None:
    subject = open_subject("efficientnet-lite0", threads=1)
    photo = subject.photo(np.random.default_rng(0).integers(0, 256, (200, 400, 3), np.uint8))
    (one,) = explain(subject, photo, ("cam",))
    left, top, right, bottom = photo.crop
    assert (right - left, bottom - top) == (175.0, 175.0)
    box = one.box(0.2)
    assert box is not None
    assert left - 1 <= box[0] < box[2] <= right + 1
    assert top - 1 <= box[1] < box[3] <= bottom + 1
    subject.close()


def test_a_run_of_any_head_is_its_own_subject(ready_cache: object) -> None:
    from headstart.backbones import open_backbone
    from headstart.classifier import Classifier

    backbone = open_backbone("efficientnet-lite0")
    photo = np.random.default_rng(0).integers(0, 256, (240, 240, 3), np.uint8)
    kinds = [("pooled", rooted(1280)), ("stage5", hidden(112)), ("stage7_map", linear(320 * 49))]
    for cut, head in kinds:
        subject = subject_of(Classifier(backbone, cut, head, ("a", "b", "c", "d")), "test", 1)
        for one in explain(subject, photo, ("cam",), ("a", "3")):
            assert one.check is not None
            assert one.check.holds or abs(one.check.sum - one.check.target) < 1e-3
        subject.close()
