"""The classifier as one graph: prepared photos go in as bytes, logits and calibrated probabilities come out.

It is the very graph that predicts here (`Backbone.graph`), with the head and the softmax put on; torch is not needed.
"""

import re
from typing import Any

import numpy as np
from jaxtyping import Float32

from headstart.backbones.conversion import load_openvino, openvino_core
from headstart.classifier import Classifier
from headstart.errors import UsageError
from headstart.heads import Head
from headstart.heads.model import ROOT

_COUNTED = re.compile(r"[A-Za-z]+_\d+")  # OpenVINO's own names count through the whole process
IMAGE, PROBABILITIES, LOGITS = "image", "probabilities", "logits"  # names of the input and of the outputs


def whole_graph(classifier: Classifier) -> Any:
    """Put the head on the backbone, as an OpenVINO model for one photo at a time.

    Args:
        classifier: of any head that has a form as layers.

    Returns:
        An `openvino.Model`: `image` uint8 (1, size, size, channels) in; `probabilities` and `logits`, float32
        (1, classes), out.

    Raises:
        UsageError: the head is "knn".
        BackboneError: OpenVINO is not installed, or the backbone cannot be converted.
    """
    refuse_neighbours(classifier.head)
    ov = load_openvino()
    from openvino import opset13 as ops

    graph = openvino_core().read_model(classifier.backbone.graph())
    cut = graph.output(classifier.cut).get_node().input_value(0)
    if len(classifier.backbone.outputs[classifier.cut]) == 3:  # a head takes a map flattened
        cut = ops.reshape(cut, np.array([0, -1], np.int64), special_zero=True).output(0)
    logits = _head(ops, classifier.head, cut)
    probabilities = ops.softmax(ops.divide(logits, np.float32(classifier.temperature)), 1)
    whole = ov.Model([probabilities.output(0), logits], graph.get_parameters(), "headstart")
    whole.inputs[0].get_tensor().set_names({IMAGE})
    whole.inputs[0].get_node().set_friendly_name(IMAGE)
    for output, name in zip(whole.outputs, (PROBABILITIES, LOGITS), strict=True):
        output.get_tensor().set_names({name})
    return whole


def name_by_place(graph: Any) -> None:
    """Give the nodes that nobody has named a name that is the same in every process: kind and place in the order."""
    for number, node in enumerate(graph.get_ordered_ops()):
        if _COUNTED.fullmatch(node.get_friendly_name()):
            node.set_friendly_name(f"{node.get_type_name()}_{number}")


def refuse_neighbours(head: Head) -> None:
    """Raise UsageError for the one kind of head that is no graph."""
    if head.kind == "knn":
        raise UsageError(
            "a 'knn' head compares each photo with all training photos, so it has no form as one graph; "
            "train with --head logistic and export that run"
        )


def _head(ops: Any, head: Head, features: Any) -> Any:
    """The same as `Head.logits`, in 32-bit floats."""
    if head.kind == "identity":
        return features
    if head.kind.startswith(ROOT):
        offset = np.float32(head.settings["root_offset"])
        size = ops.subtract(ops.sqrt(ops.add(ops.abs(features), offset)), np.sqrt(offset))
        features = ops.multiply(ops.sign(features), size).output(0)
    elif head.kind == "mlp":
        hidden = _dense(ops, features, head.tensors["hidden_weight"], head.tensors["hidden_bias"])
        features = ops.relu(hidden).output(0)
    return _dense(ops, features, head.tensors["weight"], head.tensors["bias"])


def _dense(ops: Any, features: Any, weight: np.ndarray, bias: np.ndarray) -> Any:
    product = ops.matmul(features, _plain(weight), transpose_a=False, transpose_b=True)
    return ops.add(product, _plain(bias)[None]).output(0)


def _plain(values: np.ndarray) -> Float32[np.ndarray, "..."]:
    return np.ascontiguousarray(values, np.float32)
