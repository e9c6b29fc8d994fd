"""The engines against each other, on the same photos, in alternating rounds of one process.

    python benchmarks/engines.py [--backbone NAME] [--photos FOLDER] [--images 32] [--rounds 7] [--starts 3]

Prints wall and CPU milliseconds a photo of the whole step from prepared pixels (uint8) to pooled features, then the
seconds a fresh process takes from its first import to its first feature. onnxruntime is measured where it and `onnx`
are installed. "Cold" and "warm" are OpenVINO's own cache of compiled graphs, which headstart does not use.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from harness import machine, spread

from headstart.backbones import Backbone, open_backbone
from headstart.backbones.conversion import PHOTO, named_outputs, openvino_core
from headstart.backbones.engines import OpenVinoEngine, TorchEngine, _keep_outputs, available_threads
from headstart.images import decode, read_photo_bytes

Run = Callable[[list[np.ndarray]], np.ndarray]  # photos -> features (photos, features)

START = """
import sys, time
begin = time.perf_counter()
kind, name, cache = sys.argv[1:4]
import numpy as np
from headstart.backbones import engines
from headstart.backbones import open_backbone
if cache:
    plain = engines._settings
    engines._settings = lambda streams: plain(streams) | {"CACHE_DIR": cache}
backbone = open_backbone(name)
engine = engines.open_engine(backbone, kind=kind)
size = backbone.preprocessing.size
dict(engine.run([(0, np.zeros((size, size, 3), np.uint8))]))
print(time.perf_counter() - begin)
"""


def in_engine(engine: OpenVinoEngine | TorchEngine) -> Run:
    return lambda photos: np.stack([result["pooled"] for _, result in engine.run(enumerate(photos))])


def openvino_latency(backbone: Backbone) -> Run:
    """One photo after the other, all threads working on it together."""
    core = openvino_core()
    graph = core.read_model(backbone.graph())
    _keep_outputs(graph, ("pooled",))
    settings = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_NUM_THREADS": available_threads()}
    settings["INFERENCE_PRECISION_HINT"] = "f32"
    request = core.compile_model(graph, "CPU", settings).create_infer_request()
    return lambda photos: np.stack([request.infer({PHOTO: photo[None]})["pooled"][0].copy() for photo in photos])


def torch_eager(backbone: Backbone, channels_last: bool, batch: int = 8) -> Run:
    import torch

    layout = torch.channels_last if channels_last else torch.contiguous_format
    net = backbone.net().to(memory_format=layout)

    def run(photos: list[np.ndarray]) -> np.ndarray:
        torch.set_num_threads(available_threads())
        found = []
        with torch.inference_mode():
            for start in range(0, len(photos), batch):
                x = torch.from_numpy(backbone.preprocessing.normalise(np.stack(photos[start : start + batch])))
                found.append(net.stages(x.contiguous(memory_format=layout))["pooled"].numpy())
        return np.concatenate(found)

    return run


def onnxruntime(backbone: Backbone, folder: Path) -> Run:
    import onnxruntime as ort
    import torch

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = backbone.net()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return named_outputs(self.net, x, ("pooled",))["pooled"]

    size = backbone.preprocessing.size
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        example = (torch.zeros(1, 3, size, size),)
        torch.onnx.export(Pooled().eval(), example, folder / "net.onnx", input_names=["x"], dynamo=False)
    options = ort.SessionOptions()
    options.intra_op_num_threads = available_threads()
    session = ort.InferenceSession(str(folder / "net.onnx"), options, providers=["CPUExecutionProvider"])

    def run(photos: list[np.ndarray]) -> np.ndarray:
        normalised = (backbone.preprocessing.normalise(photo[None]) for photo in photos)
        return np.concatenate([session.run(None, {"x": x})[0] for x in normalised])

    return run


def candidates(backbone: Backbone, folder: Path) -> dict[str, Run]:
    threads = available_threads()
    found: dict[str, Run] = {
        f"openvino throughput, {threads} streams (ours)": in_engine(OpenVinoEngine(backbone)),
        "openvino throughput, 1 stream": in_engine(OpenVinoEngine(backbone, threads=1)),
        f"openvino latency, {threads} threads": openvino_latency(backbone),
        "torch eager, batch 8": torch_eager(backbone, channels_last=False),
        "torch eager channels_last, batch 8": torch_eager(backbone, channels_last=True),
        "torch eager channels_last, batch 32": torch_eager(backbone, channels_last=True, batch=32),
        "TorchEngine (ours, the oracle)": in_engine(TorchEngine(backbone, device="cpu")),
    }
    if find_spec("onnxruntime") and find_spec("onnx"):
        found["onnxruntime, batch 1"] = onnxruntime(backbone, folder)
    else:
        print("onnxruntime: not installed, not measured")
    return found


def measure(runs: dict[str, Run], photos: list[np.ndarray], rounds: int) -> None:
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    features = {}
    for number in range(rounds + 1):  # the first is a warm-up
        for name, run in runs.items():
            begin, begin_cpu = time.perf_counter(), time.process_time()
            features[name] = run(photos)
            if number:
                wall[name].append((time.perf_counter() - begin) * 1e3 / len(photos))
                cpu[name].append((time.process_time() - begin_cpu) * 1e3 / len(photos))
    first = next(iter(runs))
    oracle = features["TorchEngine (ours, the oracle)"].astype(np.float64)
    print(f"{'engine':<42} {'ms a photo':<32} {'CPU ms a photo':<32} {'times ours':<10} least cosine to the oracle")
    for name in runs:
        ratio = np.median(np.array(wall[name]) / np.array(wall[first]))  # within each round, so that load cancels
        values = features[name].astype(np.float64)
        cosine = (values * oracle).sum(1) / np.linalg.norm(values, axis=1) / np.linalg.norm(oracle, axis=1)
        print(f"{name:<42} {spread(wall[name], 1):<32} {spread(cpu[name], 1):<32} {ratio:<10.2f} {cosine.min():.6f}")


def measure_starts(name: str, starts: int, folder: Path) -> None:
    seconds: dict[str, list[float]] = {"openvino": [], "openvino, cold": [], "openvino, warm": [], "torch": []}
    for number in range(starts):
        for label in seconds:
            cache = str(folder / f"compiled{number}") if "," in label else ""
            command = [sys.executable, "-c", START, label.partition(",")[0], name, cache]
            done = subprocess.run(command, capture_output=True, text=True, check=True)
            seconds[label].append(float(done.stdout))
    print("\nseconds from the first import to the first feature, fresh process, net converted before")
    for label, values in seconds.items():
        print(f"{label:<42} {spread(values)}")


def prepared_photos(backbone: Backbone, folder: Path | None, count: int) -> list[np.ndarray]:
    size = backbone.preprocessing.size
    if folder is None:
        return list(np.random.default_rng(0).integers(0, 256, (count, size, size, 3), np.uint8))
    paths = sorted(folder.rglob("*.jpg"))[:count]
    target = backbone.preprocessing.decode_target()
    return [backbone.preprocessing.apply(decode(read_photo_bytes(path), target=target)) for path in paths]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="efficientnet-lite0")
    parser.add_argument("--photos", type=Path, help="a folder of JPEG photos; noise when absent")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--starts", type=int, default=3)
    arguments = parser.parse_args()
    print(machine())
    print(f"{arguments.backbone}, {arguments.images} photos, {arguments.rounds} rounds")
    print(f"load before {os.getloadavg()[0]:.1f}")
    begin = time.perf_counter()
    backbone = open_backbone(arguments.backbone, say=print)
    print(f"opened in {time.perf_counter() - begin:.2f} s")
    with tempfile.TemporaryDirectory() as folder:
        photos = prepared_photos(backbone, arguments.photos, arguments.images)
        measure(candidates(backbone, Path(folder)), photos, arguments.rounds)
        measure_starts(arguments.backbone, arguments.starts, Path(folder))
    print(f"load after {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
