"""The forms in which a model can leave: for each what is written, how it is read back, and what it needs.

To add one: write a function that fills a folder and one that opens it, and add a line to `FORMATS`.
"""

import importlib.metadata
import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8

from headstart.backbones.conversion import load_openvino, openvino_core
from headstart.backbones.engines import available_threads
from headstart.errors import ExportError
from headstart.export.about import HASH_KEY, KEY, About, checked
from headstart.export.graph import IMAGE, LOGITS, PROBABILITIES, name_by_place
from headstart.export.transcription import transcribe

#: prepared photos in; logits and probabilities out
Runner = Callable[
    [UInt8[np.ndarray, "photos size size channels"]],
    tuple[Float32[np.ndarray, "photos classes"], Float32[np.ndarray, "photos classes"]],
]


@dataclass(frozen=True)
class Opened:
    """A written model, read back.

    Args:
        run: computes photos with it.
        about: its description, out of its metadata, compared with its hash.
        runtime: what computes: name and version.
    """

    run: Runner
    about: About
    runtime: str


@dataclass(frozen=True)
class Format:
    """One form.

    Args:
        title: its name for people.
        files: the names it writes.
        needs: packages that must be there to write and check it.
        runs_with: what a program that only uses the model has to install.
        write: puts the files into a folder: (whole graph of one photo, description, folder).
        open: reads them back: (folder, threads).
    """

    title: str
    files: tuple[str, ...]
    needs: tuple[str, ...]
    runs_with: str
    write: Callable[[Any, About, Path], None]
    open: Callable[[Path, int], Opened]

    def check_installed(self) -> None:
        """Raise ExportError, with the line to type, if a package is missing."""
        if missing := [name for name in self.needs if importlib.util.find_spec(name) is None]:
            raise ExportError(
                f"to export as {self.title} needs {' and '.join(missing)}; run: pip install 'headstart[export]'"
            )


ONNX_FILE = "model.onnx"
IR_FILES = ("model.xml", "model.bin")


def write_onnx(graph: Any, about: About, folder: Path) -> None:
    """Write one ONNX file, all weights inside, after ONNX's own checker has passed it."""
    import onnx

    model = transcribe(graph)
    onnx.helper.set_model_props(model, {KEY: about.text, HASH_KEY: about.sha256})
    data = model.SerializeToString()
    try:
        onnx.checker.check_model(data, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"ONNX's checker refuses the file: {' '.join(str(error).split())[:300]}") from error
    (folder / ONNX_FILE).write_bytes(data)


def open_onnx(folder: Path, threads: int = 0) -> Opened:
    """Read the file with onnxruntime, on the processor, in 32-bit floats."""
    import onnxruntime

    onnxruntime.disable_telemetry_events()
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors: warnings of optimisers are nothing for the user
    options.intra_op_num_threads = threads or available_threads()
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it would take the engine's processors
    session = onnxruntime.InferenceSession(folder / ONNX_FILE, sess_options=options, providers=["CPUExecutionProvider"])
    props = session.get_modelmeta().custom_metadata_map

    def run(photos: Any) -> Any:
        return tuple(session.run([LOGITS, PROBABILITIES], {IMAGE: photos}))

    about = checked(props.get(KEY), props.get(HASH_KEY), ONNX_FILE)
    return Opened(run, about, f"onnxruntime {onnxruntime.__version__}")


def write_openvino(graph: Any, about: About, folder: Path) -> None:
    """Write the model for any number of photos, in 32-bit floats."""
    model = graph.clone()
    _, *sides = model.inputs[0].get_shape()
    model.reshape([-1, *sides])
    name_by_place(model)
    model.set_rt_info(about.text, [KEY, "about"])
    model.set_rt_info(about.sha256, [KEY, "sha256"])
    load_openvino().save_model(model, folder / IR_FILES[0], compress_to_fp16=False)


def open_openvino(folder: Path, threads: int = 0) -> Opened:
    """Read the two files with OpenVINO, on the processor, in 32-bit floats."""
    model = openvino_core().read_model(folder / IR_FILES[0])
    said = {name: model.get_rt_info([KEY, name]).astype(str) for name in ("about", "sha256")}
    settings = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads or available_threads()}
    compiled = openvino_core().compile_model(model, "CPU", settings)

    def run(photos: Any) -> Any:
        found = compiled({IMAGE: photos})
        return np.array(found[LOGITS]), np.array(found[PROBABILITIES])

    about = checked(said["about"], said["sha256"], IR_FILES[0])
    return Opened(run, about, f"OpenVINO {importlib.metadata.version('openvino')}")


FORMATS: dict[str, Format] = {
    "onnx": Format("ONNX", (ONNX_FILE,), ("onnx", "onnxruntime"), "onnxruntime", write_onnx, open_onnx),
    "openvino": Format("OpenVINO IR", IR_FILES, ("openvino",), "openvino", write_openvino, open_openvino),
}
