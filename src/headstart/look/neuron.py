"""One unit at one place: the sum that makes its value, term by term.

A convolution adds up weight times input over the channels and the window; a batch norm behind it only scales and
shifts: gamma/sigma goes to the weights and beta - gamma*mean/sigma (with the bias, likewise scaled) is what is left
over. The sum of the terms must be the value that the net computed; the difference is printed.
"""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

from headstart.errors import UsageError
from headstart.explain.explanation import Check
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.wiring import ACTIVATIONS, refuse_not_finite, row_at, row_of, weighted_module

if TYPE_CHECKING:
    import torch

    from headstart.layers.summary import LayerRow

TOLERANCE = 1e-5  # of the sum and the net's value, as a share of the size of the terms
COLOURS = ("red", "green", "blue")
PASSED_ON = ("Dropout", "Identity", "Flatten")


@dataclass(frozen=True, eq=False)
class Neuron:
    """The sum that makes one value.

    Args:
        subject: the net.
        photo: what it saw.
        layer: as it was named.
        unit: channel of the map, or place in the vector.
        place: row and column; (0, 0) of a vector.
        how: the layers that make the value, in words.
        names: of the terms: the input channels ("channel 12"), places of the window, or the branches that are added.
        terms: what each adds.
        rest: what is added besides: the bias, and what a batch norm subtracts.
        value: what the net computed, before the activation.
        after: what it passed on.
        activation: its class; None: there is none.
        patch, kernel: the window of the input and the weights on it, with the batch norm's factor, (channels, rows,
            columns), where the terms are channels of a convolution; else empty.
        box: the input pixels that the unit sees, (x0, y0, x1, y1) half open, of the net's input; None: unknown.
    """

    subject: Subject = field(repr=False)
    photo: Photo = field(repr=False)
    layer: str
    unit: int
    place: tuple[int, int]
    how: str
    names: tuple[str, ...] = field(repr=False)
    terms: Float64[np.ndarray, "terms"] = field(repr=False)
    rest: float
    value: float
    after: float
    activation: str | None
    patch: Float64[np.ndarray, "channels rows columns"] = field(repr=False)
    kernel: Float64[np.ndarray, "channels rows columns"] = field(repr=False)
    box: tuple[int, int, int, int] | None

    @property
    def check(self) -> Check:
        """Whether the terms add up to what the net computed."""
        total = float(self.terms.sum() + self.rest)
        size = float(np.abs(self.terms).sum()) + abs(self.rest)
        tolerance = TOLERANCE * size / max(abs(self.value), 1e-12)
        return Check(total, self.value, "the terms and the rest add up to the value before the activation", tolerance)

    @property
    def order(self) -> list[int]:
        """The terms from the largest size to the smallest; equal ones in their order."""
        return [int(place) for place in np.argsort(-np.abs(self.terms), kind="stable")]

    def to_json(self) -> dict[str, Any]:
        """All terms, the rest, the value and the check."""
        return {
            "net": self.subject.name,
            "photo": self.photo.name,
            "layer": self.layer,
            "unit": self.unit,
            "place": list(self.place),
            "terms": {name: float(value) for name, value in zip(self.names, self.terms, strict=True)},
            "rest": self.rest,
            "value": self.value,
            "activation": self.activation,
            "after": self.after,
            "check": self.check.to_json(),
        }

    @property
    def title(self) -> str:
        """What stands above the picture."""
        is_class = self.layer == "logits" and self.unit < len(self.subject.classes)
        name = f" ({shown(self.subject.classes[self.unit])})" if is_class else ""
        is_map = self.box is not None or self.place != (0, 0)
        where = f", row {self.place[0]}, column {self.place[1]}," if is_map else ""
        net, photo = shown(self.subject.name), shown(Path(self.photo.name).name)
        return f"{self.layer} unit {self.unit}{name}{where} of {net} on {photo}"

    def sums(self) -> str:
        """The sum in words, and what the net computed."""
        up, down = self.terms[self.terms > 0].sum(), self.terms[self.terms < 0].sum()
        said = (
            f"{up:.4g} of raising terms, {down:.4g} of lowering ones, {self.rest:+.4g} besides = {self.check.sum:.6g}"
        )
        return f"{said}; the net computed {self.value:.6g}{'' if self.check.holds else ': THEY DIFFER'}"

    def passed(self) -> str:
        """What goes on to the next layer, in words."""
        return f"{self.activation} passes on {self.after:.6g}" if self.activation else "no activation follows"

    def to_text(self) -> str:
        """A few lines for the terminal."""
        best = ", ".join(f"{shown(self.names[place])} {self.terms[place]:+.4g}" for place in self.order[:6])
        return "\n".join([f"{self.title}: {self.how}", f"largest terms: {best}", self.sums(), self.passed()])

    def sheet(self) -> Image.Image:
        """The picture: what the unit sees, the terms as bars, and the strongest channels window by window."""
        from headstart.look.neuron_picture import draw_neuron

        return draw_neuron(self)

    def files(self) -> dict[str, Any]:
        """What is worth keeping: the terms, and the picture."""
        return {"terms.npy": self.terms, "neuron.png": self.sheet()}


def look_at_neuron(
    subject: Subject, photo: Photo, layer: str, unit: int, place: tuple[int, int] | None = None
) -> Neuron:
    """The terms that make one value of a layer.

    Args:
        subject: the net.
        photo: prepared.
        layer: a convolution or dense layer, the batch norm or the activation behind one, or a block that ends with one
            of these or with a sum of branches.
        unit: channel of the map, or place in the vector.
        place: row and column; None: where the value is largest.

    Raises:
        UsageError: no such layer, unit or place; or the layer adds nothing up.
    """
    if layer == "logits" and subject.classifier is not None:
        _, module = weighted_module(subject, "logits")
        given, made = _watched(subject, photo, {"in": module})
        value = _value(made["in"], layer, unit, None)
        return _dense(
            subject, photo, layer, unit, module, None, given["in"], value, value, None, "dense layer of the run"
        )
    chain = _chain(subject, layer)
    source = chain[-1]
    sources = [_module_at(subject, name) for name in source.inputs] if source.type == "add" else []
    wanted = {row.name: subject.trunk.get_submodule(row.name) for row in chain if row.type != "add"}
    wanted |= {name: subject.trunk.get_submodule(name) for name in sources}
    if chain[0].type == "add":
        wanted[chain[0].name] = subject.trunk.get_submodule(_module_at(subject, chain[0].name))
    given, made = _watched(subject, photo, wanted)
    top = chain[0]
    activation = top.type if top.type in ACTIVATIONS else None
    before, after = (given if activation else made)[top.name], made[top.name]
    at = _place(before, layer, unit, place)
    value, passed = _value(before, layer, unit, at), _value(after, layer, unit, at)
    if source.type == "add":
        terms = np.array([_value(made[name], layer, unit, at) for name in sources])
        none = np.zeros((0, 0, 0))
        how, names = f"sum of {' and '.join(sources)}", tuple(source.inputs)
        box = _box(subject, top, at)
        return Neuron(
            subject,
            photo,
            layer,
            unit,
            at or (0, 0),
            how,
            names,
            terms,
            0.0,
            value,
            passed,
            activation,
            none,
            none,
            box,
        )
    norm = next((wanted[row.name] for row in chain if row.type.startswith("BatchNorm")), None)
    how = " > ".join(f"{row.name} ({row.type})" for row in reversed(chain))
    common = (
        subject,
        photo,
        layer,
        unit,
        wanted[source.name],
        norm,
        given[source.name],
        value,
        passed,
        activation,
        how,
    )
    if source.type == "Linear":
        return _dense(*common)
    takes_photo = weighted_module(subject, None)[0] == source.name
    return _convolved(*common, at or (0, 0), _box(subject, top, at), takes_photo)


def _chain(subject: Subject, layer: str) -> "list[LayerRow]":
    """From the row of a layer down to the one that adds something up. Raises UsageError: there is none."""
    row = row_of(subject, layer)
    chain = [row]
    while row.type in (*ACTIVATIONS, *PASSED_ON) or row.type.startswith("BatchNorm"):
        row = row_at(subject, row.inputs[0]) if row.inputs[0] != "input" else row
        if row is chain[-1]:
            break
        chain.append(row)
    kinds = [one.type for one in chain]
    if kinds[-1] not in ("Conv2d", "Linear", "add") or any(kind in ACTIVATIONS for kind in kinds[1:]):
        raise UsageError(
            f"a value of {shown(layer)} is no sum of weighted inputs ({chain[-1].name} is a {chain[-1].type}); name a "
            "convolution, a dense layer, or what follows one directly"
        )
    return chain


def _module_at(subject: Subject, name: str) -> str:
    """The module whose output a row is: its own name, or the block that ends with a sum. Raises UsageError."""
    modules = dict(subject.trunk.named_modules())
    if name in modules:
        return name
    block = name.rpartition(".")[0]
    if block in modules and row_at(subject, block).name == name:
        return block
    raise UsageError(f"the branch {shown(name)} is no module's output, so its value cannot be read")


def _watched(
    subject: Subject, photo: Photo, modules: "dict[str, torch.nn.Module]"
) -> "tuple[dict[str, Any], dict[str, Any]]":
    """What each module took and gave, float64, without the batch axis."""
    import torch

    from headstart.explain.gradients import taken

    given: dict[str, Any] = {}
    made: dict[str, Any] = {}

    def keep(name: str) -> Any:
        def hook(_module: Any, inputs: Any, output: Any) -> None:
            given[name] = inputs[0].detach().double().numpy()[0].copy()
            made[name] = output.detach().double().numpy()[0].copy()

        return hook

    handles = [module.register_forward_hook(keep(name)) for name, module in modules.items()]
    try:
        with torch.no_grad():
            subject.net(taken(subject, photo.pixels))
    finally:
        for handle in handles:
            handle.remove()
    refuse_not_finite(subject, ", ".join(modules), *given.values(), *made.values())
    return given, made


def _place(values: np.ndarray, layer: str, unit: int, place: tuple[int, int] | None) -> tuple[int, int] | None:
    """The place asked for, or the one of the largest value. Raises UsageError: there is none."""
    if not 0 <= unit < len(values):
        raise UsageError(f"{shown(layer)} has the units 0 to {len(values) - 1}; there is no unit {unit}")
    if values.ndim == 1:
        return None
    if place is None:
        row, column = np.unravel_index(int(values[unit].argmax()), values[unit].shape)
        return int(row), int(column)
    rows, columns = values[unit].shape
    if not (0 <= place[0] < rows and 0 <= place[1] < columns):
        raise UsageError(f"{shown(layer)} has {rows} rows and {columns} columns; there is no place {place}")
    return place


def _value(values: np.ndarray, layer: str, unit: int, place: tuple[int, int] | None) -> float:
    if place is None:
        _place(values, layer, unit, None)
        return float(values.reshape(-1)[unit])
    return float(values[unit][place])


def _norm_of(norm: Any, unit: int) -> tuple[float, float]:
    """What a batch norm makes of x is factor*x + rest."""
    if norm is None:
        return 1.0, 0.0
    sigma = float(np.sqrt(float(norm.running_var[unit]) + norm.eps))
    gamma = 1.0 if norm.weight is None else float(norm.weight[unit])
    beta = 0.0 if norm.bias is None else float(norm.bias[unit])
    return gamma / sigma, beta - gamma * float(norm.running_mean[unit]) / sigma


def _box(subject: Subject, row: "LayerRow", place: tuple[int, int] | None) -> tuple[int, int, int, int] | None:
    size = subject.preprocessing.size
    return None if row.receptive_field is None or place is None else row.receptive_field.box(place, (size, size))


def _dense(
    subject: Subject, photo: Photo, layer: str, unit: int, module: Any, norm: Any, given: np.ndarray, value: float,
    passed: float, activation: str | None, how: str,
) -> Neuron:  # fmt: skip
    """The terms of a dense layer: one an input."""
    factor, rest = _norm_of(norm, unit)
    terms = module.weight.detach().double().numpy()[unit] * given.reshape(-1) * factor
    rest += 0.0 if module.bias is None else factor * float(module.bias.double()[unit])
    none = np.zeros((0, 0, 0))
    names = tuple(f"input {number}" for number in range(len(terms)))
    return Neuron(
        subject, photo, layer, unit, (0, 0), how, names, terms, rest, value, passed, activation, none, none, None
    )


def _convolved(
    subject: Subject, photo: Photo, layer: str, unit: int, module: Any, norm: Any, given: np.ndarray, value: float,
    passed: float, activation: str | None, how: str, place: tuple[int, int], box: tuple[int, int, int, int] | None,
    takes_photo: bool,
) -> Neuron:  # fmt: skip
    """The terms of a convolution: one an input channel, or one a place of the window where it sees one channel only."""
    factor, rest = _norm_of(norm, unit)
    kernel = module.weight.detach().double().numpy()[unit] * factor
    rest += 0.0 if module.bias is None else factor * float(module.bias.double()[unit])
    channels = len(kernel)
    first = unit // (module.out_channels // module.groups) * channels
    down, across = module.padding
    padded = np.pad(given[first : first + channels], ((0, 0), (down, down), (across, across)))
    index = [
        start * stride + np.arange(side) * dilation
        for start, stride, side, dilation in zip(place, module.stride, kernel.shape[1:], module.dilation, strict=True)
    ]
    patch = padded[:, index[0][:, None], index[1][None]]
    products = patch * kernel
    if channels == 1:
        names = tuple(f"row {row}, column {column}" for row, column in np.ndindex(kernel.shape[1:]))
        terms = products.reshape(-1)
    else:
        numbers = tuple(f"channel {first + channel}" for channel in range(channels))
        names = COLOURS if takes_photo and channels == len(COLOURS) else numbers
        terms = products.sum(axis=(1, 2))
    return Neuron(
        subject, photo, layer, unit, place, how, names, terms, rest, value, passed, activation, patch, kernel, box
    )
