"""Which layer feeds which: the row of a layer in the net's table, its weights, and what lies between it and them."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import DataError, UsageError
from headstart.explain.subject import Subject, unknown_layer
from headstart.files import shown

if TYPE_CHECKING:
    from headstart.layers.summary import LayerRow

RECTIFIERS = ("ReLU", "ReLU6", "Hardtanh")  # types of rows; their units can be dead
ACTIVATIONS = (*RECTIFIERS, "Tanh", "Sigmoid")
WEIGHTED = ("Conv2d", "Linear")


def row_of(subject: Subject, layer: str) -> "LayerRow":
    """The row whose output is the layer's: its own, or the last one inside a block. Raises UsageError.

    Args:
        subject: the net.
        layer: a stage ("stage5"), a block ("stage5.0") or a layer ("stage5.0.depthwise.act").
    """
    from headstart.explain.recording import module_of

    return row_at(subject, module_of(subject, layer))


def row_at(subject: Subject, module: str) -> "LayerRow":
    """The row of a module that `headstart.explain.recording.module_of` found. Raises UsageError."""
    rows = subject.summary.layers
    own = [row for row in rows if row.name == module]
    inside = [row for row in rows if row.name.startswith(f"{module}.")]
    if own or inside:
        return (own or inside)[-1]
    stages = [row for row in rows if module in row.stages]  # a stage that passes on what it gets
    if not stages:
        raise unknown_layer(subject, module)
    return stages[-1]


def above(subject: Subject, row: "LayerRow") -> Iterator["LayerRow"]:
    """The row itself and every row that its output depends on, the nearest first."""
    by_name = {known.name: known for known in subject.summary.layers}
    waiting, met = [row.name], set()
    while waiting:
        name = waiting.pop(0)
        if name in met or name not in by_name:
            continue
        met.add(name)
        yield by_name[name]
        waiting.extend(by_name[name].inputs)


def ceiling_of(subject: Subject, row: "LayerRow") -> float | None:
    """Where the activation of a row stops rising (6 of a ReLU6); None where it does not, or there is none."""
    if row.type not in ("ReLU6", "Hardtanh"):
        return None
    return float(subject.trunk.get_submodule(row.name).max_val)


def weighted_module(subject: Subject, layer: str | None) -> tuple[str, Any]:
    """The convolution or dense layer that a name stands for.

    Args:
        subject: the net.
        layer: one itself, or a stage or block: then the last one in it; None: the first of the net; "logits": the
            layer that gives the classes, also a run's own.

    Returns:
        Its name, and the module.

    Raises:
        UsageError: there is no such layer, or it has no weights of this kind.
    """
    from torch import nn

    if layer == "logits" and subject.classifier is not None:
        dense = [module for module in subject.net.get_submodule("head").modules() if isinstance(module, nn.Linear)]
        if dense:
            return "logits", dense[-1]
    rows = [row for row in subject.summary.layers if row.type in WEIGHTED]
    if not rows:
        raise UsageError(f"{shown(subject.name)} has no convolution and no dense layer")
    if layer is None:
        return rows[0].name, subject.trunk.get_submodule(rows[0].name)
    last = row_of(subject, layer)
    parts = _modules_of(subject, layer)
    inside = [row for row in rows if any(row.name == part or row.name.startswith(f"{part}.") for part in parts)]
    if not inside:
        near = next((row.name for row in above(subject, last) if row.type in WEIGHTED), rows[0].name)
        raise UsageError(f"{shown(layer)} has no weights of its own; the layer before it that has some is {near}")
    return inside[-1].name, subject.trunk.get_submodule(inside[-1].name)


def _modules_of(subject: Subject, layer: str) -> tuple[str, ...]:
    """The modules of the trunk that make a layer."""
    from headstart.explain.recording import module_of

    chain = getattr(subject.trunk, "chain", {})
    return tuple(chain[layer]) if layer in chain else (module_of(subject, layer),)


def refuse_not_finite(subject: Subject, layer: str, *values: Any) -> None:
    """Refuse what no picture can show. Raises DataError: there is NaN or infinity among the numbers of a layer."""
    if not all(np.isfinite(one).all() for one in values):
        raise DataError(
            f"{shown(layer)} of {shown(subject.name)} holds values that are not finite; its training has diverged, or "
            "its weights are damaged"
        )


def checked_units(units: "list[int] | tuple[int, ...]", count: int, layer: str) -> list[int]:
    """Units that a layer has, each once, in the order given. Raises UsageError."""
    for unit in units:
        if not 0 <= unit < count:
            raise UsageError(f"{shown(layer)} has the units 0 to {count - 1}; there is no unit {unit}")
    return list(dict.fromkeys(units))
