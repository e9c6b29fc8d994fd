"""Conversion: any torch net, compared with torch, left as it was; and OpenVINO kept from reporting its use."""

import os
import subprocess
import sys
import textwrap
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import conversion
from headstart.backbones.conversion import NormLayer, batch_norm_statistics, convert, openvino_core
from headstart.errors import BackboneError, ShapeError
from headstart.nets import build_net
from headstart.preprocess import Preprocessing
from headstart.weights import digest, tensors_of

TINY = Preprocessing(size=16, crop_fraction=0.875, mean=(10.0, 20.0, 30.0), std=(50.0, 60.0, 70.0), filter="bilinear")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other far longer than these inputs take one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def run_python(code: str, **environment: str) -> str:
    """Run code in a fresh interpreter and return what it printed."""
    environment = {**os.environ, **environment}
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)], capture_output=True, text=True, env=environment, timeout=300
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def plain_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        OrderedDict(
            first=nn.Conv2d(3, 4, 3, padding=1),
            norm=nn.BatchNorm2d(4),
            act=nn.ReLU(),
            pool=nn.AdaptiveAvgPool2d(1),
            flat=nn.Flatten(),
            last=nn.Linear(4, 2),
        )
    )


def test_a_net_without_stages_is_cut_at_its_modules(tmp_path: Path) -> None:
    net = plain_net().eval()
    outputs, norms = convert(net, TINY, ("act", "flat"), tmp_path)
    assert outputs == {"act": (4,), "act_map": (4, 16, 16), "flat": (4,), "logits": (2,), "statistics": (8,)}
    assert norms == (NormLayer("norm", "norm", 4, 1e-5),)
    photo = np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)
    results = openvino_core().compile_model(tmp_path / "model.xml", "CPU")({"photo": photo[None]})
    x = torch.from_numpy((photo.astype(np.float32) - [10, 20, 30]) / [50, 60, 70]).permute(2, 0, 1)[None].float()
    with torch.no_grad():
        maps = net.act(net.norm(net.first(x)))
        expected = {"act": maps.mean((2, 3)), "act_map": maps, "flat": maps.mean((2, 3)), "logits": net(x)}
        normalised = net.norm(net.first(x))[0].double()
        expected["statistics"] = torch.tensor(
            [[float(channel.mean()) for channel in normalised] + [float((channel**2).mean()) for channel in normalised]]
        )
    for name, value in expected.items():
        np.testing.assert_allclose(results[name], value.numpy(), rtol=1e-4, atol=1e-5)


class ManyNorms(nn.Module):
    """Batch norms in odd places: in a branch, written over by what follows, without memory, of vectors, never used."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.unused = nn.BatchNorm2d(9)
        self.late = nn.Sequential(nn.Conv2d(4, 5, 3), nn.BatchNorm2d(5, affine=False))
        self.early = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, eps=0.1), nn.ReLU(inplace=True))
        self.forgetful = nn.BatchNorm2d(5, track_running_stats=False)
        self.vector = nn.BatchNorm1d(5)
        for norm in (self.early[1], self.late[1]):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.vector(self.forgetful(self.late(self.early(x))).mean((2, 3)))


def test_statistics_are_those_of_every_batch_norm_of_maps_that_the_net_uses_in_the_order_of_its_modules() -> None:
    net = ManyNorms().eval()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        outputs, norms = batch_norm_statistics(net, x, ("late",))
        early = net.early[1](net.early[0](x)).double()
        late = net.late(net.early(x)).double()
    assert norms == (NormLayer("late.1", "late", 5, 1e-5), NormLayer("early.1", "early", 4, 0.1))
    assert list(outputs) == ["late", "late_map", "logits", "statistics"]
    assert float(early.min()) < -1  # below zero, so that a ReLU that wrote over it would show
    for photo in range(2):
        expected = [
            float(value)
            for maps in (late, early)
            for moments in (
                [channel.mean() for channel in maps[photo]],
                [(channel**2).mean() for channel in maps[photo]],
            )
            for value in moments
        ]
        np.testing.assert_allclose(outputs["statistics"][photo].numpy(), expected, rtol=1e-4, atol=1e-6)


def test_a_net_without_batch_norm_has_no_statistics(tmp_path: Path) -> None:
    net = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 4, 3), pool=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten()))
    outputs, norms = convert(net, TINY, ("first",), tmp_path)
    assert outputs == {"first": (4,), "first_map": (4, 14, 14), "logits": (4,)}
    assert norms == ()


@pytest.mark.parametrize("cuts", [("act",), ("nowhere",)])
def test_converting_leaves_a_net_as_it_was_even_when_it_fails(tmp_path: Path, cuts: tuple[str, ...]) -> None:
    net = plain_net().train()
    net.norm.eval()
    net.last.weight.requires_grad_(False)
    before, threads = tensors_of(net), torch.get_num_threads()
    with pytest.raises(ShapeError, match="has no cut 'nowhere'") if cuts == ("nowhere",) else nullcontext():
        convert(net, TINY, cuts, tmp_path)
    assert [module.training for module in net] == [True, False, True, True, True, True]
    assert not any(module._forward_hooks for module in net.modules())
    assert [parameter.requires_grad for parameter in net.parameters()] == [True] * 4 + [False, True]
    assert all(parameter.grad is None for parameter in net.parameters())
    assert digest(tensors_of(net)) == digest(before)
    assert torch.get_num_threads() == threads


def test_a_cut_that_is_neither_a_map_nor_a_vector_is_refused(tmp_path: Path) -> None:
    net = nn.Sequential(OrderedDict(first=nn.Conv2d(3, 4, 3), flat=nn.Flatten(2), last=nn.Flatten()))
    with pytest.raises(ShapeError, match="cut 'flat' has 3 axes; expected"):
        convert(net, TINY, ("flat",), tmp_path)


class Unusual(nn.Module):
    """A net with an operation that the fast engine does not know."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.bessel_j0(x).mean((2, 3))


def test_a_net_whose_means_are_its_logits_has_both_under_their_names(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = build_net("nin:cifar", 3).eval()
    preprocessing = Preprocessing(32, 1.0, (127.0,) * 3, (127.0,) * 3)
    convert(net, preprocessing, net.cuts, tmp_path)
    compiled = openvino_core().compile_model(tmp_path / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    picture = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3), np.uint8)
    found = compiled({"photo": picture})
    with torch.no_grad():
        wanted = net(torch.from_numpy(preprocessing.normalise(picture))).numpy()
    np.testing.assert_allclose(found["pooled"], wanted, atol=1e-5)
    np.testing.assert_allclose(found["logits"], wanted, atol=1e-5)


def test_a_net_that_cannot_be_converted_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="Unusual cannot be converted for the fast engine: ") as caught:
        convert(Unusual(), TINY, (), tmp_path)
    assert "\n" not in str(caught.value)


def test_a_graph_that_differs_from_torch_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversion, "TOLERANCE", 0.0)
    with pytest.raises(BackboneError, match=r"the converted net differs from torch by .* use the engine 'torch'"):
        convert(plain_net(), TINY, ("act",), tmp_path)
    assert not list(tmp_path.iterdir())


# nothing is sent anywhere

WATCH = """
import os, sys

events = []
def watch(event, arguments):
    processes = ("os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen")
    # asking for this machine's own name reaches nothing outside it
    if event.startswith(("socket.", "urllib.", "http.")) and event != "socket.gethostname" or event in processes:
        events.append(event)
        raise SystemExit(f"{event} {arguments}")
sys.addaudithook(watch)
"""


def test_importing_converting_and_running_sends_nothing_and_leaves_the_home_folder_empty(tmp_path: Path) -> None:
    (home := tmp_path / "home").mkdir()
    code = """
        import threading
        import numpy as np
        from headstart import backbones
        from headstart.backbones import engines
        backbone = backbones.open_backbone("efficientnet-lite0")
        for kind in ("openvino", "torch"):
            engine = engines.open_engine(backbone, kind=kind, threads=1)
            print(len(dict(engine.run([(0, np.zeros((224, 224, 3), np.uint8))]))))
        print(events, threading.active_count(), "openvino_telemetry" in sys.modules)
    """
    found = run_python(WATCH + textwrap.dedent(code), HOME=str(home), HEADSTART_CACHE=str(tmp_path / "cache"))
    assert found.split("\n")[:3] == ["1", "1", "[] 1 False"]
    assert not list(home.rglob("*"))


def test_an_openvino_that_was_imported_before_is_not_made_to_report_either(tmp_path: Path) -> None:
    code = """
        import types
        reports = []
        class Telemetry:
            def __init__(self, *arguments, **options): self.backend = types.SimpleNamespace(app_name="")
            def init(self, *arguments, **options): reports.append("init")
            def send_event(self, *arguments, **options): reports.append("event")
            start_session = end_session = send_error = force_shutdown = send_stack_trace = send_event
        loud = types.ModuleType("openvino_telemetry")
        loud.Telemetry = Telemetry
        sys.modules["openvino_telemetry"] = loud
        sys.modules["openvino_telemetry.backend"] = types.ModuleType("openvino_telemetry.backend")
        sys.modules["openvino_telemetry.backend"].backend_ga4 = None
        import openvino
        print(len(reports) > 0)
        reports.clear()

        import torch
        from pathlib import Path
        from headstart.backbones.conversion import convert
        from headstart.preprocess import Preprocessing
        size_and_constants = Preprocessing(
            size=8, crop_fraction=1.0, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), filter="bilinear"
        )
        net = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3))
        convert(net, size_and_constants, ("0",), Path(folder))
        print(reports, openvino.tools.ovc.telemetry_utils.tm is loud)
    """
    found = run_python(f"{WATCH}\nfolder = {str(tmp_path)!r}\n{textwrap.dedent(code)}")
    assert found == "True\n[] True\n"
