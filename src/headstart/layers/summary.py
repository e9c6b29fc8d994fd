"""The table of a net: each layer's output, parameters, receptive field, cost and memory, in the order they run."""

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from headstart.layers.receptive import ReceptiveField
from headstart.layers.rules import Shape
from headstart.layers.trace import IMAGE, ShapesOnly, Step, Trace, trace
from headstart.layers.typed import checked_size

BYTES = 4  # of a float32
PHOTO = (224, 224, 3)  # the input of a net that does not name its own


@dataclass(frozen=True)
class LayerRow:
    """One layer.

    Args:
        name: its name in the net.
        type: its class, or the function's name.
        output_shape: (height, width, channels) of maps, (features,) of vectors.
        parameters: its own; 0 where a layer runs a second time.
        trainable: those of them that training changes.
        statistics: numbers it keeps besides (running mean and variance of a batch-norm).
        macs: multiply-adds on one photo; None if unknown.
        receptive_field: None if unknown, or not on a regular grid.
        inputs: names of the layers it takes; "input" is the photo.
        known: false for a type that has no rule.
        stages: the net's names for this output.
    """

    name: str
    type: str
    output_shape: tuple[int, ...]
    parameters: int
    trainable: int
    statistics: int
    macs: int | None
    receptive_field: ReceptiveField | None
    inputs: tuple[str, ...]
    known: bool
    stages: tuple[str, ...]

    @property
    def memory(self) -> int:
        """Bytes of its output for one photo, float32."""
        return BYTES * math.prod(self.output_shape)

    def to_json(self) -> dict[str, object]:
        """The row for a program."""
        return {
            "name": self.name,
            "type": self.type,
            "output_shape": list(self.output_shape),
            "parameters": self.parameters,
            "trainable_parameters": self.trainable,
            "statistics": self.statistics,
            "macs": self.macs,
            "receptive_field": None if self.receptive_field is None else self.receptive_field.to_json(),
            "activation_bytes": self.memory,
            "inputs": list(self.inputs),
            "known": self.known,
            "stages": list(self.stages),
        }


@dataclass(frozen=True)
class Summary:
    """A net's table.

    Args:
        net: its name.
        input: (height, width, channels).
        layers: the rows, in the order they run.
        total_parameters, trainable_parameters: of the whole net, also of layers that this input does not reach.
        statistics: numbers kept besides the parameters; Keras counts them as parameters that are not trained.
        unreached: names of layers with parameters that do not run.
    """

    net: str
    input: tuple[int, int, int]
    layers: tuple[LayerRow, ...]
    total_parameters: int
    trainable_parameters: int
    statistics: int
    unreached: tuple[str, ...]

    @property
    def macs(self) -> int:
        """Multiply-adds on one photo, of the layers whose cost is known."""
        return sum(row.macs or 0 for row in self.layers)

    @property
    def activation_bytes(self) -> int:
        """Bytes of all outputs for one photo, as training keeps them, float32."""
        return sum(row.memory for row in self.layers)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Names of the layers whose type has no rule."""
        return tuple(row.name for row in self.layers if not row.known)

    def row(self, name: str) -> LayerRow:
        """The layer of this name, or the one that gives the stage of this name. Raises KeyError."""
        for row in self.layers:
            if name == row.name or name in row.stages:
                return row
        raise KeyError(name)

    def to_text(self) -> str:
        """The table, and the totals below it."""
        from headstart.layers.summary_text import summary_text

        return summary_text(self)

    def to_json(self) -> dict[str, object]:
        """The table for a program."""
        return {
            "net": self.net,
            "input": list(self.input),
            "total_parameters": self.total_parameters,
            "trainable_parameters": self.trainable_parameters,
            "statistics": self.statistics,
            "parameter_bytes": BYTES * self.total_parameters,
            "macs": self.macs,
            "activation_bytes": self.activation_bytes,
            "unknown_layers": list(self.unknown),
            "unreached": list(self.unreached),
            "layers": [row.to_json() for row in self.layers],
        }


def summarise(
    net: nn.Module | Callable[[], nn.Module], input_size: tuple[int, int, int] | None = None, name: str = ""
) -> Summary:
    """Work out a net's table without running it: no weight and no activation takes memory.

    Args:
        net: a net, which is left as it is; or a function that builds one (then its weights are never made).
        input_size: (height, width, channels) of a photo; else the net's own `input_size`, else 224 x 224 x 3.
        name: what the table is called; the net's class by default.

    Raises:
        ShapeError: a layer does not fit; the message names it.

    >>> table = summarise(lambda: nn.Sequential(nn.Conv2d(1, 16, 2, stride=2)), (200, 200, 1))
    >>> table.layers[0].output_shape, table.total_parameters
    ((100, 100, 16), 80)
    """
    if not isinstance(net, nn.Module):
        with ShapesOnly.building():
            net = net()
    own_size: tuple[int, int, int] = getattr(net, "input_size", PHOTO)
    height, width, channels = checked_size(own_size if input_size is None else input_size)
    run = trace(net, (channels, height, width))
    counted: set[int] = set()  # ids of parameters already in a row
    fields = receptive_fields(run)
    rows = tuple(
        _row(step, run, field, tuple(name for name, at in run.stages.items() if at == number), counted)
        for number, (step, field) in enumerate(zip(run.steps, fields, strict=True))
    )
    parameters = list(net.parameters())
    missing = [key.rpartition(".")[0] for key, value in net.named_parameters() if id(value) not in counted]
    return Summary(
        name or type(net).__name__,
        (height, width, channels),
        rows,
        sum(value.numel() for value in parameters),
        sum(value.numel() for value in parameters if value.requires_grad),
        _statistics(net),
        tuple(dict.fromkeys(missing)),
    )


def receptive_fields(run: Trace) -> list[ReceptiveField | None]:
    """The receptive field of each step's output; None where it is unknown."""
    fields: list[ReceptiveField | None] = []
    for step in run.steps:
        joined = _joined([ReceptiveField() if number == IMAGE else fields[number] for number in step.inputs])
        fields.append(None if joined is None else _after(step, joined))
    return fields


def _joined(fields: list[ReceptiveField | None]) -> ReceptiveField | None:
    """The smallest field that holds all of them."""
    joined = fields[0] if fields else None
    for field in fields[1:]:
        joined = None if joined is None or field is None else joined.joined(field)
    return joined


def _after(step: Step, field: ReceptiveField) -> ReceptiveField | None:
    """The field behind a step whose inputs have `field`."""
    effect = step.effect
    if effect.reach == "window" and effect.windows is not None:
        return field.through(*effect.windows)
    if effect.reach == "whole":
        shape = step.input_shapes[0]
        return field.whole(shape[1], shape[2]) if len(shape) == 3 else field
    return field if effect.reach == "place" else None


def _row(step: Step, run: Trace, field: ReceptiveField | None, stages: tuple[str, ...], counted: set[int]) -> LayerRow:
    """A step as a row; a parameter is counted where it is met first."""
    own = [] if step.layer is None else list(step.layer.parameters(recurse=not any(step.layer.children())))
    fresh = [value for value in own if id(value) not in counted]
    counted.update(id(value) for value in fresh)
    return LayerRow(
        step.name,
        step.kind,
        _image_order(step.effect.output),
        sum(value.numel() for value in fresh),
        sum(value.numel() for value in fresh if value.requires_grad),
        0 if step.layer is None or (own and not fresh) else _statistics(step.layer),
        step.effect.macs,
        field,
        tuple("input" if number == IMAGE else run.steps[number].name for number in step.inputs),
        step.known,
        stages,
    )


def _statistics(net: nn.Module) -> int:
    """Floating-point buffers that are saved with the net: the running means and variances."""
    saved = net.state_dict(keep_vars=True)
    parameters = {id(value) for value in net.parameters()}
    return sum(value.numel() for value in saved.values() if id(value) not in parameters and value.is_floating_point())


def _image_order(shape: Shape) -> tuple[int, ...]:
    """(height, width, channels), as a photo's size is written."""
    return (shape[1], shape[2], shape[0]) if len(shape) == 3 else shape
