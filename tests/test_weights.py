"""Weights files: what is read, what is refused and how, and that a net is loaded wholly or not at all."""

import os
import pickle
import zipfile
from collections import OrderedDict
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from headstart.errors import WeightsError
from headstart.weights import digest, load_checked, read_weights, tensors_of


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(OrderedDict(conv=nn.Conv2d(1, 2, 3), norm=nn.BatchNorm2d(2), last=nn.Linear(2, 2)))


@pytest.fixture
def tensors() -> dict[str, np.ndarray]:
    return tensors_of(small_net())


def equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(a[name], b[name]) and a[name].dtype == b[name].dtype for name in a
    )


# reading


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".bin"])
@pytest.mark.parametrize("form", ["safetensors", "torch"])
def test_both_formats_are_read_whatever_the_suffix(tmp_path: Path, form: str, suffix: str) -> None:
    net, path = small_net(), tmp_path / f"weights{suffix}"
    safetensors.torch.save_file(net.state_dict(), path) if form == "safetensors" else torch.save(net.state_dict(), path)
    assert equal(read_weights(path), tensors_of(net))


@pytest.mark.parametrize("form", ["safetensors", "torch"])
@pytest.mark.parametrize("kind", [torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.uint8, torch.bool])
def test_every_number_type_keeps_its_values(tmp_path: Path, form: str, kind: torch.dtype) -> None:
    value, path = torch.tensor([[0, 1, 3], [100, 7, 2]]).to(kind), tmp_path / "weights"
    safetensors.torch.save_file({"a": value}, path) if form == "safetensors" else torch.save({"a": value}, path)
    read = read_weights(path)["a"]
    assert read.tolist() == value.tolist()
    assert read.dtype == (np.float32 if kind == torch.bfloat16 else value.numpy().dtype)


class Trap:
    """What a malicious file holds: unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return (os.mkdir, (str(self.folder),))


def trapped_pickle(path: Path, trap: Trap) -> None:
    path.write_bytes(pickle.dumps({"a": trap}))


def trapped_zip(path: Path, trap: Trap) -> None:
    torch.save({"a": trap}, path)


def trapped_old_file(path: Path, trap: Trap) -> None:
    torch.save({"a": trap}, path, _use_new_zipfile_serialization=False)


@pytest.mark.parametrize("write", [trapped_pickle, trapped_zip, trapped_old_file])
@pytest.mark.parametrize("legacy", [False, True])
def test_code_in_a_file_is_refused_and_does_not_run(tmp_path: Path, write: Any, legacy: bool) -> None:
    write(tmp_path / "weights.pth", Trap(tmp_path / "sprung"))
    with pytest.raises(WeightsError, match=r"weights\.pth") as caught:
        read_weights(tmp_path / "weights.pth", legacy=legacy)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "sprung").exists()


def test_torchs_old_format_is_read_only_where_it_is_allowed(tmp_path: Path) -> None:
    net, path = small_net(), tmp_path / "old.pth"
    torch.save(net.state_dict(), path, _use_new_zipfile_serialization=False)
    with pytest.raises(WeightsError, match=r"before 2020.*save the tensors again"):
        read_weights(path)
    assert equal(read_weights(path, legacy=True), tensors_of(net))


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_torchscript_program_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.trace(small_net().conv, torch.zeros(1, 1, 4, 4)), tmp_path / "program.pt")
    with pytest.raises(WeightsError, match=r"program\.pt is a TorchScript program, not plain weights"):
        read_weights(tmp_path / "program.pt")


def test_a_whole_pickled_net_is_refused(tmp_path: Path) -> None:
    torch.save(small_net(), tmp_path / "net.pth")
    with pytest.raises(WeightsError, match="holds more than tensors"):
        read_weights(tmp_path / "net.pth")


def test_a_training_checkpoint_is_refused_with_the_way_out(tmp_path: Path) -> None:
    torch.save({"epoch": 3, "state_dict": small_net().state_dict()}, tmp_path / "checkpoint.pth")
    with pytest.raises(WeightsError, match=r"epoch, state_dict; .*torch\.save\(checkpoint\['state_dict'\]"):
        read_weights(tmp_path / "checkpoint.pth")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"hello, this is text", "is no weights file"),
        (b"\x89HDF\r\n\x1a\n" + bytes(40), "is no weights file"),
        (b"\x80\x04\x95", "plain pickle"),
    ],
)
def test_other_files_are_refused_by_what_they_are(tmp_path: Path, content: bytes, words: str) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(WeightsError, match=words):
        read_weights(tmp_path / "file")


def test_any_other_zip_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as archive:
        archive.writestr("a.txt", "a")
    with pytest.raises(WeightsError, match="zip file without torch's tensors"):
        read_weights(tmp_path / "photos.zip")


@pytest.mark.parametrize("name", ["absent.pth", "."])
def test_an_absent_file_and_a_folder_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(WeightsError, match=r"cannot read the weights file .*(No such file|directory)"):
        read_weights(tmp_path / name)


@pytest.mark.parametrize("form", ["safetensors", "torch", "old"])
def test_a_file_cut_short_anywhere_is_refused(tmp_path: Path, form: str) -> None:
    net, whole = small_net(), tmp_path / "whole"
    if form == "safetensors":
        safetensors.torch.save_file(net.state_dict(), whole)
    else:
        torch.save(net.state_dict(), whole, _use_new_zipfile_serialization=form == "torch")
    content = whole.read_bytes()
    cut = tmp_path / "cut"
    for length in range(1, len(content), max(1, len(content) // 60)):
        cut.write_bytes(content[:length])
        with pytest.raises(WeightsError) as caught:
            read_weights(cut, legacy=form == "old")
        assert "\n" not in str(caught.value)


def test_a_flipped_bit_in_a_torch_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"a": torch.arange(1000.0)}, path)
    content = bytearray(path.read_bytes())
    content[content.index(torch.arange(1000.0).numpy().tobytes()[2000:2100])] ^= 1
    path.write_bytes(content)
    assert torch.load(path, weights_only=True)["a"].tolist() != torch.arange(1000.0).tolist()  # torch does not notice
    with pytest.raises(WeightsError, match=r"damaged.*checksum"):
        read_weights(path)


def test_a_hostile_file_name_is_shown_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\n.pth"
    path.write_bytes(b"")
    with pytest.raises(WeightsError) as caught:
        read_weights(path)
    assert "\x1b" not in str(caught.value)
    assert "\n" not in str(caught.value)


# loading


def test_loading_gives_the_net_every_value(tensors: dict[str, np.ndarray]) -> None:
    changed = {name: value + 1 for name, value in tensors.items()}
    net = small_net()
    load_checked(net, changed)
    assert equal(tensors_of(net), changed)


def test_loading_renames_by_the_given_rule(tensors: dict[str, np.ndarray]) -> None:
    net = small_net()
    load_checked(net, {f"old.{name}": value * 0 for name, value in tensors.items()}, lambda name: f"old.{name}")
    assert not any(value.any() for value in tensors_of(net).values())


def spoilt(tensors: dict[str, np.ndarray], name: str, how: str) -> dict[str, np.ndarray]:
    tensors = {key: value + 1 for key, value in tensors.items()}
    if how == "missing":
        del tensors[name]
    elif how == "shape":
        tensors[name] = tensors[name][..., None]
    elif how == "type":
        tensors[name] = tensors[name].astype(np.int64 if tensors[name].dtype.kind == "f" else np.float32)
    elif how == "extra":
        tensors[f"{name}.more"] = tensors[name]
    else:
        tensors[name] = tensors[name].copy()
        tensors[name].flat[-1] = {"nan": np.nan, "inf": -np.inf}[how]
    return tensors


@pytest.mark.parametrize(
    ("name", "how"),
    [
        *product(["conv.weight", "norm.running_var", "last.bias"], ["missing", "shape", "type", "extra", "nan", "inf"]),
        *product(["norm.num_batches_tracked"], ["missing", "shape", "type", "extra"]),
    ],
)
def test_one_misfit_is_named_and_nothing_is_loaded(tensors: dict[str, np.ndarray], name: str, how: str) -> None:
    net = small_net()
    before = tensors_of(net)
    with pytest.raises(WeightsError, match=f"nothing was loaded; 1 faults: .*{name}"):
        load_checked(net, spoilt(tensors, name, how))
    assert equal(tensors_of(net), before)


def test_every_misfit_is_named_at_once(tensors: dict[str, np.ndarray]) -> None:
    del tensors["conv.weight"], tensors["norm.num_batches_tracked"]
    tensors |= {"fc.weight": np.zeros(2), "fc.bias": np.zeros(2), "last.bias": np.zeros(3, np.float32)}
    tensors["conv.bias"] = np.array([1, np.nan], np.float32)
    with pytest.raises(WeightsError) as caught:
        load_checked(small_net(), tensors)
    assert str(caught.value) == (
        "the weights do not fit Sequential, nothing was loaded; 6 faults: missing conv.weight; "
        "missing norm.num_batches_tracked; unexpected fc.bias; unexpected fc.weight; conv.bias holds NaN or infinity; "
        "last.bias has shape [3], expected [2]"
    )


# the hash


def test_the_hash_depends_on_every_name_shape_type_and_value(tensors: dict[str, np.ndarray]) -> None:
    weight = tensors["last.weight"]
    variants = [
        tensors,
        {**tensors, "last.weight": np.nextafter(weight, np.float32(9))},
        {**tensors, "last.weight": weight.reshape(4, 1)},
        {**tensors, "last.weight": weight.view(np.int32)},
        {**tensors, "last.weight": np.ascontiguousarray(weight.T)},
        {name.replace("last", "end"): value for name, value in tensors.items()},
        {name: value for name, value in tensors.items() if name != "last.bias"},
    ]
    assert len({digest(variant) for variant in variants}) == len(variants)


def test_the_hash_does_not_depend_on_order_or_memory_layout(tensors: dict[str, np.ndarray]) -> None:
    turned = {name: np.array(value, order="F") for name, value in reversed(tensors.items())}
    assert digest(turned) == digest(tensors)
