"""Public weight files: found, fetched once, checked, and loaded completely or not at all."""

import contextlib
import dataclasses
import hashlib
import io
import json
import urllib.error
from pathlib import Path

import pytest
import torch

from headstart import public_weights
from headstart.errors import WeightsError
from headstart.files import cache_dir
from headstart.nets import build_net
from headstart.public_weights import ADDRESS, PUBLIC, load_public, public_file, with_counters

LAYOUTS = Path(__file__).parent / "layouts"


def saved_net(path, drop=()):
    """A file as the public ones are, with random weights; returns the net."""
    net = build_net("resnet18")
    torch.save({name: value for name, value in net.state_dict().items() if not name.endswith(tuple(drop))}, path)
    return net


def as_public(monkeypatch, content):
    """Make resnet18's public file the one with this content."""
    start = hashlib.sha256(content).hexdigest()[:8]
    changed = dataclasses.replace(PUBLIC["resnet18"], file=f"resnet18-{start}.pth")
    monkeypatch.setitem(PUBLIC, "resnet18", changed)
    return changed


class Network:
    """Answers with some content, and counts."""

    def __init__(self, content):
        self.content, self.asked = content, []

    def __call__(self, address, timeout):
        self.asked.append(address)
        if isinstance(self.content, Exception):
            raise self.content
        return contextlib.closing(io.BytesIO(self.content))


def same_weights(one, two):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


def test_every_public_file_is_in_the_list_of_its_tensors():
    for name, public in PUBLIC.items():
        layout = json.loads((LAYOUTS / f"{name}.json").read_text(encoding="utf-8"))
        assert public.file in layout["files"]
        assert len(public.sha256_start) == 8
        int(public.sha256_start, 16)


def test_photos_are_prepared_as_the_nets_were_trained():
    for name, public in PUBLIC.items():
        size = 299 if name == "inception-v3" else 224
        assert public.preprocessing.size == size
        assert public.preprocessing.decode_target() == (342 if name == "inception-v3" else 256)
        plain = name in ("inception-v3", "googlenet")
        assert (public.preprocessing.mean[0] == 127.5) == plain


def test_a_file_at_hand_is_loaded_in_every_tensor(tmp_path):
    net = saved_net(tmp_path / "mine.pth")
    loaded = load_public("resnet18", tmp_path / "mine.pth")
    assert same_weights(net, loaded)
    assert not loaded.training


def test_a_file_of_before_2018_without_counters_is_loaded_too(tmp_path):
    net = saved_net(tmp_path / "old.pth", drop=("num_batches_tracked",))
    assert same_weights(net, load_public("resnet18", tmp_path / "old.pth"))


def test_a_file_that_lacks_some_counters_is_refused(tmp_path):
    saved_net(tmp_path / "torn.pth", drop=("bn1.num_batches_tracked",))
    with pytest.raises(WeightsError, match=r"missing bn1\.num_batches_tracked"):
        load_public("resnet18", tmp_path / "torn.pth")


def test_a_file_of_another_net_is_refused_with_every_fault(tmp_path):
    torch.save(build_net("lenet").state_dict(), tmp_path / "other.pth")
    with pytest.raises(WeightsError, match="nothing was loaded") as error:
        load_public("resnet18", tmp_path / "other.pth")
    assert "missing conv1.weight" in str(error.value)
    assert "unexpected c1.weight" in str(error.value)


def test_a_file_is_fetched_once_and_then_taken_from_the_cache(tmp_path, monkeypatch):
    net = saved_net(tmp_path / "there.pth")
    public = as_public(monkeypatch, (tmp_path / "there.pth").read_bytes())
    network = Network((tmp_path / "there.pth").read_bytes())
    path = public_file("resnet18", network)
    assert network.asked == [ADDRESS + public.file]
    assert path == cache_dir() / "weights" / public.file / public.file
    assert public_file("resnet18", network) == path
    assert len(network.asked) == 1
    assert same_weights(net, load_public("resnet18"))


def test_a_damaged_file_in_the_cache_is_fetched_again(tmp_path, monkeypatch):
    saved_net(tmp_path / "there.pth")
    content = (tmp_path / "there.pth").read_bytes()
    as_public(monkeypatch, content)
    network = Network(content)
    path = public_file("resnet18", network)
    path.write_bytes(content[:-1])
    assert public_file("resnet18", network).read_bytes() == content
    assert len(network.asked) == 2


def test_without_a_network_the_error_says_which_file_to_put_where(monkeypatch):
    def no_network(address, timeout):
        raise urllib.error.URLError("no route to host")

    monkeypatch.setattr(public_weights, "ADDRESS", "https://example.invalid/")
    with pytest.raises(WeightsError) as error:
        public_file("vgg16", no_network)
    message = str(error.value)
    assert "vgg16-397923af.pth" in message
    assert "no route to host" in message
    assert "397923af" in message
    assert str(cache_dir() / "weights" / "vgg16-397923af.pth") in message
    assert "\n" not in message
    assert not list((cache_dir() / "weights").glob("*"))  # nothing half-made stays


def test_a_file_put_where_the_error_said_is_found(tmp_path, monkeypatch):
    saved_net(tmp_path / "there.pth")
    content = (tmp_path / "there.pth").read_bytes()
    public = as_public(monkeypatch, content)
    place = cache_dir() / "weights" / public.file / public.file
    place.parent.mkdir(parents=True)
    place.write_bytes(content)
    network = Network(OSError("never asked"))
    assert public_file("resnet18", network) == place
    assert network.asked == []


@pytest.mark.parametrize("failure", [TimeoutError("timed out"), ConnectionResetError("reset by peer")])
def test_a_broken_connection_is_one_clear_error(failure):
    with pytest.raises(WeightsError, match="cannot fetch"):
        public_file("resnet18", Network(failure))


def test_something_else_under_the_address_is_not_kept():
    with pytest.raises(WeightsError, match="is not the file"):
        public_file("resnet18", Network(b"<html>log in first</html>"))
    assert not list((cache_dir() / "weights").glob("*"))


def test_a_net_without_public_weights_and_a_file_that_is_not_there_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="there are no public weights of 'lenet'; there are some of: alexnet"):
        load_public("lenet")
    with pytest.raises(WeightsError, match="cannot read the weights file"):
        load_public("resnet18", tmp_path / "absent.pth")


def test_counters_are_added_only_to_files_that_have_none():
    names = ["bn.weight", "bn.num_batches_tracked"]
    assert with_counters({}, names)["bn.num_batches_tracked"] == 0
    with_some = {"bn.num_batches_tracked": torch.tensor(5).numpy()}
    assert with_counters(with_some, names) is with_some
