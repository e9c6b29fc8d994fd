"""The tensors of each classic net are those of the public weight files, by name and shape, and such a file loads."""

import json
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import WeightsError
from headstart.layers.trace import ShapesOnly
from headstart.nets import build_net
from headstart.weights import load_checked

LAYOUTS = sorted((Path(__file__).parent / "layouts").glob("*.json"))


def public_form(name):
    """The net whose tensors a public file has: with its auxiliary heads."""
    return {"auxiliary": True} if name in ("googlenet", "inception-v3") else {}


@pytest.mark.parametrize("path", LAYOUTS, ids=lambda path: path.stem)
def test_the_tensors_have_the_names_and_shapes_of_the_public_file(path):
    layout = json.loads(path.read_text(encoding="utf-8"))["tensors"]
    with ShapesOnly.building():
        state = build_net(path.stem, **public_form(path.stem)).state_dict()
    assert {name: list(value.shape) for name, value in state.items()} == layout


def test_there_is_a_list_of_tensors_for_every_net_with_public_weights():
    names = {"alexnet", "vgg11", "vgg13", "vgg16", "vgg19", "googlenet", "inception-v3"}
    assert {path.stem for path in LAYOUTS} == names | {f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}


def random_file(layout, seed=0):
    random = np.random.default_rng(seed)
    return {
        name: random.integers(1, 9, shape) if name.endswith("tracked") else random.random(shape, dtype=np.float32)
        for name, shape in layout.items()
    }


def check_loading(name):
    path = next(path for path in LAYOUTS if path.stem == name)
    tensors = random_file(json.loads(path.read_text(encoding="utf-8"))["tensors"])
    net = build_net(name, **public_form(name))
    load_checked(net, tensors, net.names_in(tensors))
    assert all(np.array_equal(value.numpy(), tensors[key]) for key, value in net.state_dict().items())
    missing = dict(list(tensors.items())[1:])
    with pytest.raises(WeightsError, match=f"missing {next(iter(tensors))}"):
        load_checked(net, missing)


@pytest.mark.parametrize("name", ["googlenet", "resnet18"])
def test_a_file_of_random_weights_in_the_public_layout_loads_and_one_with_a_gap_does_not(name):
    check_loading(name)


@pytest.mark.full
@pytest.mark.parametrize("name", sorted({path.stem for path in LAYOUTS} - {"googlenet", "resnet18"}))
def test_a_file_of_random_weights_in_the_public_layout_loads_for_the_large_nets_too(name):
    check_loading(name)
