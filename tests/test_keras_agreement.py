"""Keras as a second opinion on the classic nets: the same tables, and the same outputs from the same weights."""

import numpy as np
import pytest
import torch

from headstart.layers.summary import summarise
from headstart.nets import build_net
from keras_oracle import keras

# net here, net there, Keras's total, of it not trained
NETS = [
    ("vgg16", "VGG16", 138_357_544, 0),
    ("resnet50:keras", "ResNet50", 25_636_712, 53_120),
    ("inception-v3:keras", "InceptionV3", 23_851_784, 34_432),
]


def built_by_keras(name, **options):
    return getattr(keras().applications, name)(weights=None, classifier_activation=None, **options)


def numbers_of(layer):
    return [weight.value.detach().numpy() for weight in layer.weights]


def shuffle_statistics(model, seed=0):
    """Batch-norms as after training."""
    random = np.random.default_rng(seed)
    for layer in model.layers:
        if type(layer).__name__ == "BatchNormalization":
            *affine, mean, variance = numbers_of(layer)
            new = [random.uniform(0.5, 1.5, value.shape) for value in affine]
            layer.set_weights([*new, random.normal(0, 0.1, mean.shape), random.uniform(0.5, 1.5, variance.shape)])


def tensors_of_layer(layer, flattened=None):
    """A Keras layer's weights in PyTorch's order of axes, by PyTorch's names."""
    values = numbers_of(layer)
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return dict(zip(("weight", "bias", "running_mean", "running_var"), values, strict=True))
    kernel = values[0]
    if kind == "Conv2D":
        kernel = kernel.transpose(3, 2, 0, 1)
    elif flattened is not None:  # Keras flattens (height, width, channels), PyTorch (channels, height, width)
        kernel = kernel.reshape(*flattened, -1).transpose(3, 2, 0, 1).reshape(kernel.shape[1], -1)
    else:
        kernel = kernel.T
    return dict(zip(("weight", "bias"), (kernel, *values[1:]), strict=False))


def carry(net, pairs):
    """Copy the weights of Keras layers into the layers of a net; every weight of the net must get one."""
    state = net.state_dict()
    given = {f"{name}.{part}": value for name, parts in pairs for part, value in parts.items()}
    counters = {name for name in state if name.endswith("num_batches_tracked")}
    assert given.keys() == state.keys() - counters
    with torch.no_grad():
        for name, value in given.items():
            assert tuple(state[name].shape) == value.shape, name
            state[name].copy_(torch.tensor(np.ascontiguousarray(value)))
    return net.eval()


def vgg16_pairs(model, net):
    convolutions = [layer for layer in model.layers if type(layer).__name__ == "Conv2D"]
    ours = [name for name, module in net.features.named_children() if isinstance(module, torch.nn.Conv2d)]
    pairs = [(f"features.{name}", tensors_of_layer(layer)) for name, layer in zip(ours, convolutions, strict=True)]
    dense = [layer for layer in model.layers if type(layer).__name__ == "Dense"]
    numbered = zip((0, 3, 6), dense, ((7, 7, 512), None, None), strict=False)  # none without its top
    return pairs + [(f"classifier.{number}", tensors_of_layer(layer, shape)) for number, layer, shape in numbered]


def resnet50_pairs(model):
    pairs = [("conv1", "conv1_conv"), ("bn1", "conv1_bn"), ("fc", "predictions")]
    for stage, depth in enumerate((3, 4, 6, 3), start=1):
        for block in range(depth):
            there, here = f"conv{stage + 1}_block{block + 1}", f"layer{stage}.{block}"
            for number in (1, 2, 3):
                pairs += [
                    (f"{here}.conv{number}", f"{there}_{number}_conv"),
                    (f"{here}.bn{number}", f"{there}_{number}_bn"),
                ]
            if block == 0:
                pairs += [(f"{here}.downsample.0", f"{there}_0_conv"), (f"{here}.downsample.1", f"{there}_0_bn")]
    return [(here, tensors_of_layer(model.get_layer(there))) for here, there in pairs]


def same_outputs(net, model, side, seed=0):
    photos = np.random.default_rng(seed).random((2, side, side, 3), dtype=np.float32)
    with torch.no_grad():
        ours = net(torch.tensor(photos.transpose(0, 3, 1, 2).copy())).numpy()
        theirs = model(torch.tensor(photos), training=False).numpy()
    scale = np.abs(theirs).max()
    assert scale > 1e-4
    np.testing.assert_allclose(ours / scale, theirs / scale, atol=1e-4)


@pytest.mark.parametrize(("here", "there", "total", "not_trained"), NETS)
def test_the_totals_are_keras_published_ones(here, there, total, not_trained):
    table = summarise(lambda: build_net(here))
    assert table.total_parameters + table.statistics == total
    assert table.statistics == not_trained
    assert table.trainable_parameters == total - not_trained


@pytest.mark.parametrize(("here", "there", "total", "not_trained"), NETS[1:])
def test_the_totals_are_those_of_the_net_that_keras_builds(here, there, total, not_trained):
    model = built_by_keras(there)
    assert model.count_params() == total
    assert sum(int(np.prod(weight.shape)) for weight in model.non_trainable_weights) == not_trained
    rows = [row for row in summarise(lambda: build_net(here)).layers if row.parameters]
    ours = sorted(row.parameters + row.statistics for row in rows)
    assert ours == sorted(layer.count_params() for layer in model.layers if layer.count_params())


def test_vgg16s_convolutions_give_what_keras_gives_from_the_same_weights():
    model = built_by_keras("VGG16", include_top=False, input_shape=(64, 64, 3))
    net = build_net("vgg16", classes=2)
    carry(net.features, [(name.removeprefix("features."), parts) for name, parts in vgg16_pairs(model, net)])
    photos = np.random.default_rng(0).random((2, 64, 64, 3), dtype=np.float32)
    with torch.no_grad():
        ours = net.features(torch.tensor(photos.transpose(0, 3, 1, 2).copy())).numpy().transpose(0, 2, 3, 1)
        theirs = model(torch.tensor(photos), training=False).numpy()
    assert ours.shape == theirs.shape == (2, 2, 2, 512)
    np.testing.assert_allclose(ours / theirs.max(), theirs / theirs.max(), atol=1e-4)


def test_resnet50_gives_what_keras_gives_from_the_same_weights():
    model = built_by_keras("ResNet50", input_shape=(64, 64, 3), classes=10)
    shuffle_statistics(model)
    net = carry(build_net("resnet50:keras", classes=10), resnet50_pairs(model))
    same_outputs(net, model, 64)


@pytest.mark.full
def test_vgg16_gives_what_keras_gives_from_the_same_weights_at_full_size():
    model = built_by_keras("VGG16")
    assert model.count_params() == 138_357_544
    table = summarise(lambda: build_net("vgg16"))
    rows = [(row.output_shape, row.parameters) for row in table.layers if row.parameters]
    theirs = [(tuple(layer.output.shape[1:]), layer.count_params()) for layer in model.layers if layer.count_params()]
    assert rows == theirs
    net = build_net("vgg16")
    same_outputs(carry(net, vgg16_pairs(model, net)), model, 224)


@pytest.mark.full
def test_resnet50_gives_what_keras_gives_from_the_same_weights_at_full_size():
    model = built_by_keras("ResNet50")
    shuffle_statistics(model)
    same_outputs(carry(build_net("resnet50:keras"), resnet50_pairs(model)), model, 224)
