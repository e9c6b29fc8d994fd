"""From an OpenVINO model to an ONNX model, operation by operation.

The nets of headstart need only some thirty operations, most of which mean the same in both. So the file that is shipped
computes what the engine computes here, with nothing in between that could warn, fold or round differently; `parity`
shows it on photos. All shapes of the model are known, so what depends on them is written down as a number; the batch
axis, the first one everywhere, stays open.

Sources: the operation sets of OpenVINO (opset 13) and of ONNX (opset 17), as published with both.
"""

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Shaped

from headstart import __version__
from headstart.errors import ExportError

OPSET = 17  # of ONNX; read by runtimes from 2022 on
IR_VERSION = 8  # of the file, the one of that opset
BATCH = "batch"


def transcribe(graph: Any) -> Any:
    """Write a model down in ONNX.

    Args:
        graph: an `openvino.Model` for one photo, every shape known.

    Returns:
        An `onnx.ModelProto` with the same input and outputs by name, for any number of photos.

    Raises:
        ExportError: the model holds an operation without a form here.
    """
    from onnx import TensorProto, helper
    from openvino.passes import ConstantFolding, Manager

    graph = graph.clone()
    folding = Manager()
    folding.register_pass(ConstantFolding())
    folding.run_passes(graph)
    written = Writer(graph)
    for node in graph.get_ordered_ops():
        kind = node.get_type_name()
        if kind in ("Constant", "Parameter", "Result"):
            continue
        if kind not in OPERATIONS:
            raise ExportError(
                f"this net uses the operation {kind!r} ({node.get_friendly_name()}), which has no form in ONNX here; "
                "export it with --to openvino"
            )
        OPERATIONS[kind](written, node)
    (photo,) = graph.inputs
    _, *rest = photo.get_shape()
    image = helper.make_tensor_value_info(photo.get_any_name(), TensorProto.UINT8, [BATCH, *rest])
    outputs = [
        helper.make_tensor_value_info(output.get_any_name(), TensorProto.FLOAT, [BATCH, *list(output.get_shape())[1:]])
        for output in graph.outputs
    ]
    body = helper.make_graph(written.nodes, "headstart", [image], outputs, list(written.constants.values()))
    return helper.make_model(
        body,
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
        producer_name="headstart",
        producer_version=__version__,
    )


class Writer:
    """The ONNX nodes so far, and the names of all values.

    Args:
        graph: an `openvino.Model`; its input and outputs keep their names.
    """

    def __init__(self, graph: Any) -> None:
        self.nodes: list[Any] = []
        self.constants: dict[str, Any] = {}
        self._counts: Counter[str] = Counter()
        ends = [(result.input_value(0), result.output(0)) for result in graph.get_results()]
        self._names: dict[tuple[str, int], str] = {_key(source): end.get_any_name() for source, end in ends}
        self._names |= {_key(entry.output(0)): entry.output(0).get_any_name() for entry in graph.get_parameters()}

    def value(self, node: Any, place: int) -> str:
        """The name of what a node takes at a place; a constant is stored when it is first asked for."""
        source = node.input_value(place)
        if source.get_node().get_type_name() == "Constant":
            return self.constant(self.name(source), source.get_node().get_data())
        return self.name(source)

    def name(self, source: Any) -> str:
        """The name of an output of a node: its kind, counted, because the engine's own names differ each time."""
        key = _key(source)
        if key not in self._names:
            kind = source.get_node().get_type_name()
            self._counts[kind] += 1
            self._names[key] = f"{kind} {self._counts[kind]}"
        return self._names[key]

    def constant(self, name: str, values: Shaped[np.ndarray, "..."]) -> str:
        """Store numbers under a name, once."""
        from onnx import numpy_helper

        if name not in self.constants:
            self.constants[name] = numpy_helper.from_array(np.array(values, order="C"), name)
        return name

    def add(self, kind: str, node: Any, inputs: list[str], **attributes: Any) -> None:
        """Write one node that gives what `node` gives."""
        from onnx import helper

        out = self.name(node.output(0))
        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **attributes))


def _key(source: Any) -> tuple[str, int]:
    return source.get_node().get_friendly_name(), source.get_index()


def _numbers(node: Any, place: int) -> list[int]:
    """Whole numbers that a node takes as a constant: axes, pads, an order."""
    source = node.input_value(place).get_node()
    if source.get_type_name() != "Constant":
        raise ExportError(f"{node.get_friendly_name()} depends on the photo in a way that has no form in ONNX here")
    return [int(number) for number in np.ravel(source.get_data())]


def _shape(port: Any) -> list[int]:
    return [int(side) for side in port.get_shape()]


def _same(kind: str, *names: str) -> Callable[[Writer, Any], None]:
    """An operation that takes the same inputs in both; the named attributes are kept."""

    def write(out: Writer, node: Any) -> None:
        given = node.get_attributes()
        inputs = [out.value(node, place) for place in range(node.get_input_size())]
        out.add(kind, node, inputs, **{name: given[name] for name in names})

    return write


def _convert(out: Writer, node: Any) -> None:
    from onnx import TensorProto

    if node.get_attributes()["destination_type"] != "f32":
        raise ExportError(f"{node.get_friendly_name()} does not convert to 32-bit floats")
    out.add("Cast", node, [out.value(node, 0)], to=TensorProto.FLOAT)


def _transpose(out: Writer, node: Any) -> None:
    out.add("Transpose", node, [out.value(node, 0)], perm=_numbers(node, 1))


def _reshape(out: Writer, node: Any) -> None:
    """Reshape, Squeeze and Unsqueeze: the new sides are known, and 0 stands for the batch axis as it comes."""
    before, after = _shape(node.input(0)), _shape(node.output(0))
    if before[:1] != [1] or after[:1] != [1]:
        raise ExportError(f"{node.get_friendly_name()} takes the batch apart ({before} to {after})")
    sides = out.constant("sides " + "x".join(map(str, after[1:])), np.array([0, *after[1:]], np.int64))
    out.add("Reshape", node, [out.value(node, 0), sides])


def _convolution(out: Writer, node: Any) -> None:
    given = _explicit(node)
    weight = node.input_value(1).get_node()
    if weight.get_type_name() != "Constant":
        raise ExportError(f"the filters of {node.get_friendly_name()} are no constants")
    filters, groups = weight.get_data(), 1
    if node.get_type_name() == "GroupConvolution":  # (groups, filters, channels, rows, columns)
        groups, filters = len(filters), filters.reshape(-1, *filters.shape[2:])
    name = out.constant(out.name(node.input_value(1)), filters)
    pads = [*given["pads_begin"], *given["pads_end"]]
    sides = {"kernel_shape": list(filters.shape[2:]), "strides": given["strides"], "dilations": given["dilations"]}
    out.add("Conv", node, [out.value(node, 0), name], group=groups, pads=pads, **sides)


def _pool(out: Writer, node: Any) -> None:
    """Windows that hang over the edge are written as padding at the end, so that nothing is left to rounding."""
    given, dilated = _explicit(node), node.get_type_name() == "MaxPool"
    kernel, strides, begin = given["kernel"], given["strides"], given["pads_begin"]
    dilations = given["dilations"] if dilated else [1] * len(kernel)
    sides, counts = _shape(node.input(0))[2:], _shape(node.output(0))[2:]
    axes = zip(sides, counts, kernel, strides, dilations, begin, given["pads_end"], strict=True)
    ends = [
        max((count - 1) * stride + (window - 1) * dilation + 1 - side - before, after)
        for side, count, window, stride, dilation, before, after in axes
    ]
    attributes = {"kernel_shape": kernel, "strides": strides}
    if dilated:
        out.add("MaxPool", node, [out.value(node, 0)], dilations=dilations, pads=[*begin, *ends], **attributes)
        return
    counted = not given["exclude-pad"]
    if counted and ends != given["pads_end"]:  # what hangs over is not counted, so there must be no padding that is
        if any([*begin, *given["pads_end"]]) or given["rounding_type"] != "ceil_torch":
            raise ExportError(f"{node.get_friendly_name()} counts its padding, and its windows hang over the edge")
        counted = False
    pads = [*begin, *ends]
    out.add("AveragePool", node, [out.value(node, 0)], count_include_pad=int(counted), pads=pads, **attributes)


def _explicit(node: Any) -> dict[str, Any]:
    given: dict[str, Any] = {
        name: list(value) if isinstance(value, list | tuple | np.ndarray) else value
        for name, value in node.get_attributes().items()
    }
    if given["auto_pad"] != "explicit":
        raise ExportError(f"the padding of {node.get_friendly_name()} is not written as numbers")
    return {name: _whole(value) for name, value in given.items()}


def _whole(value: Any) -> Any:
    return [int(number) for number in value] if isinstance(value, list) else value


def _adaptive_average(out: Writer, node: Any) -> None:
    """Two products with matrices of shares: place i of n averages the pixels from floor(i L/n) to ceil((i+1) L/n)."""
    (_, _, *sides), (_, _, *counts) = _shape(node.input(0)), _shape(node.output(0))
    if len(sides) != 2:
        raise ExportError(f"{node.get_friendly_name()} averages over {len(sides)} axes; 2 have a form in ONNX here")
    if sides == counts:
        out.add("Identity", node, [out.value(node, 0)])
        return
    from onnx import helper

    rows, columns = (averaging(side, count) for side, count in zip(sides, counts, strict=True))
    name = out.name(node.output(0))
    inputs = [out.constant(f"{name}:rows", rows), out.value(node, 0)]
    out.nodes.append(helper.make_node("MatMul", inputs, [f"{name}:by rows"], name=f"{name}:by rows"))
    out.add("MatMul", node, [f"{name}:by rows", out.constant(f"{name}:columns", columns.T)])


def averaging(side: int, count: int) -> Shaped[np.ndarray, "count side"]:
    """The matrix that averages `side` pixels to `count` places, as torch's adaptive average pooling divides them.

    >>> averaging(3, 2).round(2).tolist()
    [[0.5, 0.5, 0.0], [0.0, 0.5, 0.5]]
    """
    shares = np.zeros((count, side), np.float32)
    for place in range(count):
        first, last = place * side // count, -(-(place + 1) * side // count)
        shares[place, first:last] = 1 / (last - first)
    return shares


def _product(out: Writer, node: Any) -> None:
    given = node.get_attributes()
    if given["transpose_a"]:
        raise ExportError(f"{node.get_friendly_name()} turns the batch axis around")
    if not given["transpose_b"]:
        out.add("MatMul", node, [out.value(node, 0), out.value(node, 1)])
        return
    weight = node.input_value(1)
    if weight.get_node().get_type_name() != "Constant":
        raise ExportError(f"the weights of {node.get_friendly_name()} are no constants")
    turned = out.constant(f"{out.name(weight)} turned", np.swapaxes(weight.get_node().get_data(), -1, -2))
    out.add("MatMul", node, [out.value(node, 0), turned])


def _clamp(out: Writer, node: Any) -> None:
    given = node.get_attributes()
    edges = [np.float32(given[edge]) for edge in ("min", "max")]
    out.add("Clip", node, [out.value(node, 0), *(out.constant(f"level {edge:g}", np.array(edge)) for edge in edges)])


def _mean(out: Writer, node: Any) -> None:
    keep = int(node.get_attributes()["keep_dims"])
    out.add("ReduceMean", node, [out.value(node, 0)], axes=_inner(node, _numbers(node, 1)), keepdims=keep)


def _sum(out: Writer, node: Any) -> None:
    axes = out.constant(f"{out.name(node.output(0))}:axes", np.array(_inner(node, _numbers(node, 1)), np.int64))
    out.add("ReduceSum", node, [out.value(node, 0), axes], keepdims=int(node.get_attributes()["keep_dims"]))


def _inner(node: Any, axes: list[int]) -> list[int]:
    """Axes counted from the front, none of them the batch."""
    counted = [axis % len(_shape(node.input(0))) for axis in axes]
    if 0 in counted:
        raise ExportError(f"{node.get_friendly_name()} mixes the photos of a batch")
    return counted


def _concat(out: Writer, node: Any) -> None:
    parts = [out.value(node, place) for place in range(node.get_input_size())]
    out.add("Concat", node, parts, axis=_inner(node, [int(node.get_attributes()["axis"])])[0])


def _gather(out: Writer, node: Any) -> None:
    if node.get_attributes()["batch_dims"]:
        raise ExportError(f"{node.get_friendly_name()} chooses differently for each photo")
    out.add("Gather", node, [out.value(node, 0), out.value(node, 1)], axis=_inner(node, _numbers(node, 2))[0])


def _pad(out: Writer, node: Any) -> None:
    if node.get_attributes()["pad_mode"] != "constant":
        raise ExportError(f"{node.get_friendly_name()} pads with something else than a number")
    pads = out.constant(f"{out.name(node.output(0))}:pads", np.array([*_numbers(node, 1), *_numbers(node, 2)]))
    filling = [out.value(node, 3)] if node.get_input_size() > 3 else []
    out.add("Pad", node, [out.value(node, 0), pads, *filling], mode="constant")


def _softmax(out: Writer, node: Any) -> None:
    out.add("Softmax", node, [out.value(node, 0)], axis=int(node.get_attributes()["axis"]))


#: operation of OpenVINO -> what writes it down in ONNX
OPERATIONS: dict[str, Callable[[Writer, Any], None]] = {
    "Abs": _same("Abs"),
    "AdaptiveAvgPool": _adaptive_average,
    "Add": _same("Add"),
    "AvgPool": _pool,
    "Clamp": _clamp,
    "Concat": _concat,
    "Convert": _convert,
    "Convolution": _convolution,
    "Divide": _same("Div"),
    "Gather": _gather,
    "GroupConvolution": _convolution,
    "MatMul": _product,
    "MaxPool": _pool,
    "Multiply": _same("Mul"),
    "Pad": _pad,
    "Power": _same("Pow"),
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "Relu": _same("Relu"),
    "Reshape": _reshape,
    "Sigmoid": _same("Sigmoid"),
    "Sign": _same("Sign"),
    "Softmax": _softmax,
    "Sqrt": _same("Sqrt"),
    "Squeeze": _reshape,
    "Subtract": _same("Sub"),
    "Tanh": _same("Tanh"),
    "Transpose": _transpose,
    "Unsqueeze": _reshape,
}
