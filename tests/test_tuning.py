"""Fine-tuning from cached activations: the end equals the net it was cut from, and goes back into it without loss."""

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import Backbone, open_backbone
from headstart.config import LoopConfig
from headstart.dataset import Dataset
from headstart.errors import ConfigError, UsageError
from headstart.heads import Head
from headstart.nets import build_net
from headstart.readers import open_dataset
from headstart.training.batches import seeded
from headstart.training.loop import fit
from headstart.training.optimisers import make_optimiser, set_rate
from headstart.training.presets import find_preset
from headstart.training.streamed import read_pixels
from headstart.transfer import activations
from headstart.transfer.activations import CachedBatches, KeptViews, cache_activations
from headstart.transfer.tail import Tail, last_layer, load_beginning
from headstart.weights import tensors_of

CLASSES = 3


@pytest.fixture
def backbone(ready_cache) -> Backbone:
    return open_backbone("efficientnet-lite0")


def head_of(features: int = 1280) -> Head:
    draw = np.random.default_rng(0)
    tensors = {"weight": draw.normal(0, 0.05, (CLASSES, features)), "bias": draw.normal(0, 0.1, CLASSES)}
    return Head("linear", {name: values.astype(np.float32) for name, values in tensors.items()})


def whole_net(backbone: Backbone, head: Head) -> nn.Module:
    """The oracle: the pretrained net, with its own batch norms, and this head."""
    net = backbone.net()
    net.classifier = nn.Linear(1280, CLASSES)
    with torch.no_grad():
        net.classifier.weight.copy_(torch.from_numpy(head.tensors["weight"]))
        net.classifier.bias.copy_(torch.from_numpy(head.tensors["bias"]))
    return net.eval()


def photos(count: int = 3, size: int = 96) -> torch.Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("cut", [None, "stem", "stage3", "stage5", "stage7", "head"])
def test_an_end_without_batch_norms_computes_what_the_net_computes(backbone: Backbone, cut: str | None) -> None:
    net = whole_net(backbone, head_of())
    tail = Tail(backbone.net(), cut, head_of(), CLASSES).eval()
    with torch.no_grad():
        stages = net.stages(photos())
        expected, found = stages["logits"], tail(photos() if cut is None else stages[cut])
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for name, module in tail.net.named_modules())


@pytest.mark.parametrize("cut", ["stage5", None])
def test_a_trained_end_merged_into_the_net_gives_the_same_outputs(backbone: Backbone, cut: str | None) -> None:
    tail = Tail(backbone.net(), cut, head_of(), CLASSES).eval()
    draw = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in tail.parameters():  # as if it had been trained
            parameter.add_(0.02 * parameter.abs().mean() * torch.randn(parameter.shape, generator=draw))
    options = {**backbone.net_options, "classes": CLASSES}
    beginning = load_beginning(build_net(backbone.name, **options), backbone.tensors())
    own = ("stem", "stage5") if cut else ()
    frozen = {name: value for name, value in tensors_of(beginning).items() if name.startswith(own)}
    merged = tail.merge(beginning)
    with torch.no_grad():
        given = merged.stages(photos())[cut] if cut else photos()
        expected, found = tail(given), merged(photos())
    assert float((found - expected).abs().max()) <= 1e-5 * float(expected.abs().max())
    assert all(np.array_equal(tensors_of(merged)[name], value) for name, value in frozen.items())


def test_the_last_layer_starts_from_the_head_and_from_no_other_kind(backbone: Backbone) -> None:
    assert np.array_equal(last_layer(1280, CLASSES, head_of()).weight.detach().numpy(), head_of().tensors["weight"])
    assert last_layer(1280, CLASSES, None).bias.abs().sum() == 0
    with pytest.raises(UsageError, match="linear head of 1280 features; received a linear one of 320"):
        last_layer(1280, CLASSES, head_of(320))
    with pytest.raises(UsageError, match="cannot be trained behind 'pooled': choose stem, stage1"):
        Tail(backbone.net(), "pooled", None, CLASSES)
    with pytest.raises(UsageError, match="does not end in one dense layer called classifier"):
        Tail(build_net("lenet", 10), "c1", None, CLASSES)


def test_activations_are_those_of_the_net_and_views_those_of_changed_photos(backbone: Backbone, photo_folder) -> None:
    dataset: Dataset = open_dataset(photo_folder)
    rows = np.array([0, 5, 30])
    augment = find_preset("digits")
    found = cache_activations(dataset, rows, backbone, "stage6", views=3, augment=augment, seed=7)
    assert found.shape == (3, 3, 192 * 7 * 7) and found.dtype == np.float16
    plain = torch.from_numpy(read_pixels(dataset, rows, backbone.preprocessing))
    fill = torch.tensor(backbone.preprocessing.mean).reshape(-1, 1, 1)
    for photo in range(3):
        batch = plain[photo : photo + 1].expand(2, -1, -1, -1).contiguous()
        drawn = augment.draw(2, (3, 224, 224), seeded(7, 1, int(rows[photo])))
        changed = augment.apply(batch, drawn, fill).round().clamp(0, 255)
        views = torch.cat([plain[photo : photo + 1].float(), changed])
        with torch.no_grad():
            maps = backbone.net().stages((views - fill) / 128.0)["stage6"].flatten(1).numpy()
        assert np.allclose(found[photo], maps, rtol=2e-3, atol=2e-2)
    assert not np.allclose(found[0, 0], found[0, 1], atol=0.1)
    again = cache_activations(dataset, rows, backbone, "stage6", views=3, augment=augment, seed=7, threads=1)
    assert np.array_equal(again, found)


def test_views_that_were_kept_are_those_of_a_fresh_computation_and_are_computed_once(
    backbone: Backbone, photo_folder, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset: Dataset = open_dataset(photo_folder)
    augment, computed = find_preset("digits"), []
    fresh = cache_activations

    def counted(*given, **named):
        computed.append((named["views"], given[1].tolist()))
        return fresh(*given, **named)

    monkeypatch.setattr(activations, "cache_activations", counted)
    kept = KeptViews(dataset, backbone, "stage6", views=3, augment=augment, seed=7)
    first, held = kept.of(np.array([0, 5, 30])), kept.of(np.array([7, 2]), plain=True)
    # another training: two of the old ones, one that was held out; held out is one that was trained on
    second, other = kept.of(np.array([30, 7, 0])), kept.of(np.array([5]), plain=True)
    everything = kept.of(np.array([0, 2, 5, 7, 30]))
    assert computed == [(3, [0, 5, 30]), (1, [7, 2]), (3, [7]), (3, [2])]
    assert (held.shape, other.shape, everything.shape) == ((2, 1, 9408), (1, 1, 9408), (5, 3, 9408))
    for views, rows in ((first, [0, 5, 30]), (second, [30, 7, 0]), (everything, [0, 2, 5, 7, 30])):
        expected = fresh(dataset, np.array(rows), backbone, "stage6", views=3, augment=augment, seed=7)
        photos, taken = np.repeat(np.arange(len(rows)), 3), np.tile(np.arange(3), len(rows))
        assert np.array_equal(views[photos, taken], expected.reshape(len(photos), -1))
    assert np.array_equal(held[np.array([0]), np.array([0])][0], everything[np.array([3]), np.array([0])][0])
    assert np.array_equal(other[np.array([0]), np.array([0])], first[np.array([1]), np.array([0])])
    given = CachedBatches(second, (192, 7, 7), np.array([0, 1, 0]), classes=2, batch_size=2, seed=1)
    expected = CachedBatches(
        second[np.repeat(np.arange(3), 3), np.tile(np.arange(3), 3)].reshape(3, 3, -1),
        (192, 7, 7), np.array([0, 1, 0]), classes=2, batch_size=2, seed=1,
    )  # fmt: skip
    for (images, labels), (same, told) in zip(given.epoch(4), expected.epoch(4), strict=True):
        assert torch.equal(images, same) and torch.equal(labels, told)


def test_an_average_over_the_map_is_the_feature_of_the_cut(backbone: Backbone, photo_folder) -> None:
    rows = np.array([1, 2])
    dataset = open_dataset(photo_folder)
    maps = cache_activations(dataset, rows, backbone, "stage7").astype(np.float32).reshape(2, 320, -1)
    pooled = cache_activations(dataset, rows, backbone, "stage7", pooled=True)
    assert np.allclose(pooled[:, 0], maps.mean(axis=2), atol=0.01)


def test_what_cannot_be_cached_is_refused(backbone: Backbone, photo_folder) -> None:
    dataset = open_dataset(photo_folder)
    with pytest.raises(ConfigError, match="no cut 'stage9'"):
        cache_activations(dataset, np.array([0]), backbone, "stage9")
    with pytest.raises(ConfigError, match="2 views of a photo need an augmentation"):
        cache_activations(dataset, np.array([0]), backbone, "stage7", views=2)


def batches(shuffle: bool, views: int = 4) -> CachedBatches:
    maps = np.arange(6 * views, dtype=np.float16).reshape(6, views, 1)  # photo * views + view
    labels = np.array([0, 1, 0, 1, 0, 1])
    return CachedBatches(maps, (1, 1, 1), labels, classes=2, batch_size=4, shuffle=shuffle, seed=3)


def test_an_epoch_holds_every_photo_once_with_its_label_in_any_of_its_views() -> None:
    seen = set()
    for number in range(40):
        values = []
        for images, labels in batches(shuffle=True).epoch(number):
            places = images.flatten().long()
            assert torch.equal(labels, (places // 4) % 2)
            values += places.tolist()
        assert sorted(value // 4 for value in values) == list(range(6))
        seen |= {value % 4 for value in values}
    assert seen == {0, 1, 2, 3}


def test_epochs_differ_but_repeat_and_can_be_entered_in_the_middle() -> None:
    def flat(number: int, first: int = 0) -> list[float]:
        return [
            value for images, _ in batches(shuffle=True).epoch(number, first) for value in images.flatten().tolist()
        ]

    assert flat(0) == flat(0) != flat(1)
    assert flat(0, first=1) == flat(0)[4:]


def test_photos_that_are_only_measured_come_in_order_and_unchanged() -> None:
    values = [value for images, _ in batches(shuffle=False).epoch(5) for value in images.flatten().tolist()]
    assert values == [0, 4, 8, 12, 16, 20]


def test_an_end_learns_what_its_last_layer_alone_does_not(backbone: Backbone) -> None:
    draw = np.random.default_rng(0)
    maps = draw.normal(0, 1, (24, 1, 192 * 7 * 7)).astype(np.float16)
    labels = np.arange(24) % CLASSES  # of noise: only what is trained can know them
    tail = Tail(backbone.net(), "stage6", None, CLASSES)
    given = CachedBatches(maps, (192, 7, 7), labels, classes=CLASSES, batch_size=8)
    history = fit(tail, given, None, LoopConfig(epochs=25, batch_size=8, learning_rate=1e-3, threads=1))
    assert history.rows[-1]["accuracy"] >= 0.9


def test_a_share_of_the_rate_makes_a_step_so_much_smaller() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    config = LoopConfig(optimiser="sgd", momentum=0.0, learning_rate=0.5)
    optimiser = make_optimiser(net, config, rate_of=lambda name: 0.1 if name.startswith("0.") else 1.0)
    set_rate(optimiser, 0.2)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimiser.step()
    moved = [float((old - new.detach()).mean()) for old, new in zip(before, net.parameters(), strict=True)]
    assert moved == pytest.approx([0.02, 0.2])


def test_weights_decay_by_the_rate_of_their_own_group() -> None:
    net = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False))
    before = [parameter.detach().clone() for parameter in net.parameters()]
    config = LoopConfig(optimiser="sgd", momentum=0.0, learning_rate=0.5, weight_decay=0.1)
    optimiser = make_optimiser(net, config, rate_of=lambda name: 0.1 if name.startswith("0.") else 1.0)
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimiser.step()
    kept = [float((new.detach() / old).mean()) for old, new in zip(before, net.parameters(), strict=True)]
    assert kept == pytest.approx([1 - 0.5 * 0.1 * 0.1, 1 - 0.5 * 0.1])
