"""From a torch net to the graph the fast engine runs: once for each net; torch is needed here and not afterwards."""

import copy
import functools
import importlib
import importlib.metadata
import shutil
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import UInt8

from headstart.errors import BackboneError, OutputError, ShapeError
from headstart.files import shown
from headstart.preprocess import Preprocessing

if TYPE_CHECKING:
    import torch

#: part of every cache key: raise it when the graph made of the same net could give other values
CONVERSION_VERSION = "2"
GRAPH_FILES = ("model.xml", "model.bin")
PHOTO = "photo"  # name of the graph's one input
STATISTICS = "statistics"  # name of the output that `batch_norm_statistics` describes
_import_lock = threading.Lock()
TOLERANCE = 1e-3  # largest deviation from torch, as a share of the largest value of that output


@dataclass(frozen=True)
class NormLayer:
    """A batch normalisation whose output is measured, so that it can be compared with what the net was trained on.

    Args:
        name: of the layer in the net; its tensors are `<name>.running_mean`, `<name>.weight` and so on.
        stage: the cut that it belongs to by its name, or the first part of its name.
        channels: of the map that it normalises.
        epsilon: what it adds to the variance.
    """

    name: str
    stage: str
    channels: int
    epsilon: float


@contextmanager
def _absent(module: str) -> Iterator[None]:
    """Make `import module` fail inside the block."""
    missing = object()
    kept: Any = sys.modules.get(module, missing)
    sys.modules[module] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.modules.pop(module, None)
        if kept is not missing:
            sys.modules[module] = kept


def load_openvino() -> ModuleType:
    """Import OpenVINO with its usage reports off.

    Importing it plainly sends a message to its makers and writes an identity into the home folder, unless the user has
    opted out. Where the package `openvino_telemetry` is absent, it uses a stand-in of its own that does nothing; so it
    is hidden while OpenVINO is imported. Nothing changes on the disk, nor for other programs. Where somebody
    else has imported OpenVINO before, in the same process, that choice was theirs; `convert` still reports nothing.

    Raises:
        BackboneError: OpenVINO is not installed or does not start here.
    """
    try:
        with _import_lock, _absent("openvino_telemetry"):
            return importlib.import_module("openvino")
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise BackboneError(f"the engine OpenVINO cannot be loaded ({reason}); run: pip install openvino") from error


@functools.cache
def openvino_core() -> Any:
    """OpenVINO's one core of this process, made at the first call and kept until the end.

    Each core of its own would give the calling thread another stack for signal handlers and take it away when it goes;
    when two of them go in the order in which they came, the second puts the first one's stack back, which is no memory
    any more, and the next signal (an interrupt) ends the program with a segmentation fault.
    """
    return load_openvino().Core()


@contextmanager
def _one_thread() -> Iterator[None]:
    """Let torch use one thread: for one photo more gain little, and on a busy machine they wait for each other."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def _unreported() -> Iterator[None]:
    """Swap the reporter of an OpenVINO that somebody else imported for OpenVINO's own silent one."""
    stub = importlib.import_module("openvino.tools.ovc.telemetry_stub")
    loaded = [module for name, module in list(sys.modules.items()) if name.startswith("openvino.tools.ovc")]
    kept = [(module, vars(module)["tm"]) for module in loaded if "tm" in vars(module)]
    try:
        for module, _ in kept:
            vars(module)["tm"] = stub
        yield
    finally:
        for module, reporter in kept:
            vars(module)["tm"] = reporter


def openvino_version() -> str:
    """The installed version of OpenVINO, read without importing it; "none" where it is absent."""
    try:
        return importlib.metadata.version("openvino")
    except importlib.metadata.PackageNotFoundError:
        return "none"


def named_outputs(net: "torch.nn.Module", x: "torch.Tensor", cuts: Sequence[str]) -> "dict[str, torch.Tensor]":
    """What a net computes at the named places, in the form the engines hand out.

    Args:
        net: with a method `stages(x)` giving a dict, or any other: then a cut is the name of a sub-module.
        x: normalised pixels (batch, channels, height, width).
        cuts: the names.

    Returns:
        For a cut that is a map (batch, channels, height, width): its global average under the cut's name, and the map
        as `<cut>_map`. For a vector (batch, features): itself. Then "logits" where the net gives (batch, classes).

    Raises:
        ShapeError: a cut is neither, or the net has no such place.
    """
    found = _stages(net, x, cuts)
    outputs = {}
    for cut in cuts:
        if cut not in found:
            raise ShapeError(f"{type(net).__name__} has no cut {cut!r}; choose from: {', '.join(found)}")
        if found[cut].ndim == 4:
            outputs[cut] = found[cut].mean((2, 3))
            outputs[f"{cut}_map"] = found[cut]
        elif found[cut].ndim == 2:
            outputs[cut] = found[cut]
        else:
            expected = "expected (batch, channels, height, width) or (batch, features)"
            raise ShapeError(f"cut {cut!r} has {found[cut].ndim} axes; {expected}")
    if found["logits"].ndim == 2:
        outputs["logits"] = found["logits"]
    return outputs


def _stages(net: Any, x: "torch.Tensor", cuts: Sequence[str]) -> "dict[str, torch.Tensor]":
    if hasattr(net, "stages"):
        return dict(net.stages(x))
    found: dict[str, torch.Tensor] = {}
    modules = dict(net.named_modules())
    hooks = [
        modules[cut].register_forward_hook(lambda _module, _inputs, output, cut=cut: found.__setitem__(cut, output))
        for cut in cuts
        if cut in modules
    ]
    try:
        found["logits"] = net(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def batch_norm_statistics(
    net: "torch.nn.Module", x: "torch.Tensor", cuts: Sequence[str]
) -> "tuple[dict[str, torch.Tensor], tuple[NormLayer, ...]]":
    """The `named_outputs`, and with them the statistics of every batch-normalised map.

    The output `STATISTICS` holds, for one batch norm of maps after the other in the order of the net's modules, the
    mean over height and width of each channel of its output, and then the mean of the squares of each channel. A net
    without such layers has no such output. Layers that keep no running statistics, and those the net does not use here,
    are left out; of one that is used several times, the last use counts.

    Args:
        net, x, cuts: as for `named_outputs`.

    Returns:
        The outputs, and the layers in the order of the numbers: (batch, twice the channels of all of them).
    """
    import torch

    measured: dict[str, torch.Tensor] = {}

    def measure(name: str, output: torch.Tensor) -> None:
        # at once, because the activation that follows may write over it
        measured[name] = torch.cat([output.mean((2, 3)), (output * output).mean((2, 3))], dim=1)

    norms = {
        name: module
        for name, module in net.named_modules()
        if isinstance(module, torch.nn.BatchNorm2d) and module.running_mean is not None
    }
    hooks = [
        module.register_forward_hook(lambda _module, _inputs, output, name=name: measure(name, output))
        for name, module in norms.items()
    ]
    try:
        outputs = named_outputs(net, x, cuts)
    finally:
        for hook in hooks:
            hook.remove()
    used = [name for name in norms if name in measured]
    if used:
        outputs[STATISTICS] = torch.cat([measured[name] for name in used], dim=1)
    return outputs, tuple(
        NormLayer(name, _stage_of(name, cuts), norms[name].num_features, norms[name].eps) for name in used
    )


def _stage_of(layer: str, cuts: Sequence[str]) -> str:
    """The longest cut that is the layer's name or the beginning of it; else the first part of the name."""
    above = [cut for cut in cuts if f"{layer}.".startswith(f"{cut}.")]
    return max(above, key=len, default=layer.split(".")[0])


def _with_normalisation(net: Any, preprocessing: Preprocessing, cuts: Sequence[str]) -> Any:
    """A module: a uint8 photo (1, size, size, channels) in, all outputs out; the first call fills `names`, `norms`."""
    import torch

    mean, std = (torch.tensor(values).reshape(1, -1, 1, 1) for values in (preprocessing.mean, preprocessing.std))

    class Exported(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net
            self.names: list[str] = []
            self.norms: tuple[NormLayer, ...] = ()

        def forward(self, photo: torch.Tensor) -> tuple[torch.Tensor, ...]:
            x = (photo.permute(0, 3, 1, 2).float() - mean) / std
            outputs, self.norms = batch_norm_statistics(self.net, x, cuts)
            self.names = list(outputs)
            return tuple(outputs.values())

    return Exported()


def convert(
    net: "torch.nn.Module", preprocessing: Preprocessing, cuts: Sequence[str], into: Path
) -> tuple[dict[str, tuple[int, ...]], tuple[NormLayer, ...]]:
    """Write the graph of a net for the fast engine: `model.xml` and `model.bin`, float32.

    The graph takes one photo as it is decoded, uint8 (1, size, size, channels), normalises it, and has every output of
    `batch_norm_statistics` under its name. It is compared with torch on one picture before it is accepted.

    Args:
        net: any net of photos; it is left as it was (modes, hooks, devices).
        preprocessing: its size and constants go into the graph.
        cuts: where features can be taken.
        into: an existing folder.

    Returns:
        Output name -> its shape for one photo, without the batch axis; and the layers that `STATISTICS` is made of.

    Raises:
        BackboneError: the graph cannot be made, or its values differ from torch's.
        OutputError: the disk is full or cannot be written.
        ShapeError: a cut does not exist or is neither a map nor a vector.
    """
    exported = _with_normalisation(copy.deepcopy(net).cpu().float(), preprocessing, cuts).eval()
    picture = _test_picture(preprocessing.shape)[None]
    try:
        graph, expected = _trace(exported, picture)
    except ShapeError:
        raise
    except Exception as error:  # a foreign library refuses with any kind
        reason = " ".join(str(error).split())[:300]
        raise BackboneError(f"{type(net).__name__} cannot be converted for the fast engine: {reason}") from error
    graph.inputs[0].get_tensor().set_names({PHOTO})
    _name_outputs(graph, list(expected))
    _compare_with_torch(graph, picture, expected)
    _save(graph, into)
    return {name: value.shape[1:] for name, value in expected.items()}, exported.norms


def _trace(exported: Any, picture: UInt8[np.ndarray, "1 size size channels"]) -> tuple[Any, dict[str, np.ndarray]]:
    """The graph, and what torch makes of the picture."""
    ov = load_openvino()
    import torch

    example = torch.from_numpy(picture)
    with torch.inference_mode(False), torch.no_grad(), warnings.catch_warnings(), _unreported(), _one_thread():
        # the padding depends on the size of the input, which the trace fixes: here that is what is wanted
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        warnings.simplefilter("ignore", DeprecationWarning)
        expected = [value.numpy() for value in exported(example)]
        traced = torch.jit.trace(exported, example, check_trace=False)  # type: ignore[no-untyped-call]
        graph = ov.convert_model(traced)
        graph.reshape(list(picture.shape))
    return graph, dict(zip(exported.names, expected, strict=True))


def _name_outputs(graph: Any, names: Sequence[str]) -> None:
    """Name the outputs. Two may be the same tensor (where the means are the logits): it gets both names."""
    made: dict[tuple[str, int], set[str]] = {}
    sources = [output.get_node().input(0).get_source_output() for output in graph.outputs]
    places = [(source.get_node().get_name(), source.get_index()) for source in sources]
    for place, name in zip(places, names, strict=True):
        made.setdefault(place, set()).add(name)
    for output, place in zip(graph.outputs, places, strict=True):
        output.get_tensor().set_names(made[place])


def _save(graph: Any, into: Path) -> None:
    try:
        load_openvino().save_model(graph, into / GRAPH_FILES[0], compress_to_fp16=False)
    except RuntimeError as error:  # whatever the disk says, OpenVINO reports it so
        free = f"{shutil.disk_usage(into).free / 1e6:,.0f} MB free there"
        raise OutputError(
            f"cannot write the converted net to {shown(into.parent)} ({' '.join(str(error).split())[:200]}; {free}); "
            "free some space, or set HEADSTART_CACHE to a folder elsewhere"
        ) from error


def _test_picture(shape: tuple[int, int, int]) -> UInt8[np.ndarray, "size size channels"]:
    """A picture with edges, gradients and noise in every channel: blurred noise of three scales."""
    draw = np.random.default_rng(0)
    size, _, channels = shape
    total = np.zeros(shape)
    for cells in (3, 15, size):
        coarse = draw.uniform(0, 85, (cells, cells, channels))
        index = np.arange(size) * cells // size
        total += coarse[index][:, index]
    return total.astype(np.uint8)


def _compare_with_torch(graph: Any, picture: np.ndarray, expected: dict[str, np.ndarray]) -> None:
    compiled = openvino_core().compile_model(graph, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    results = compiled({PHOTO: picture})
    for name, wanted in expected.items():
        worst = float(np.abs(results[name] - wanted).max())
        if not worst <= TOLERANCE * max(float(np.abs(wanted).max()), 1e-6):
            raise BackboneError(
                f"the converted net differs from torch by {worst:.3g} at {name!r}, where values reach "
                f"{float(np.abs(wanted).max()):.3g}; use the engine 'torch' for this net"
            )
