"""The weights of any layer as pictures: filters of the first layer in colour, of later ones channel by channel.

One colour scale for all filters of a picture, symmetric about 0 and written beside it, so that a weak filter looks
weak.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float32, Float64
from PIL import Image

from headstart.explain.drawing import Panel, draw_sheet
from headstart.explain.subject import Subject
from headstart.files import shown
from headstart.look.tiles import CELL, enlarged, folded, grid, limit_of, signed_picture
from headstart.look.wiring import above, checked_units, refuse_not_finite, row_at, weighted_module

MOST, MOST_DEEP = 64, 6  # filters of a picture when nobody chose: of the first layer, of a later one
TILE, DEEP = 56, 260  # px, the longer side of a filter in colour; of all channels of a later one
NEAR_ZERO = 0.01  # of the median norm: filters below do next to nothing


@dataclass(frozen=True, eq=False)
class Filters:
    """The weights of one layer.

    Args:
        subject: the net.
        layer: the convolution or dense layer.
        kind: "convolution", "depthwise convolution" or "dense".
        weights: (filters, channels, rows, columns), where a filter sees `channels` of its input; a dense layer on a
            flattened map has the map's shape, another one 1 x 1 windows.
        names: of the filters: numbers, or the classes.
        chosen: the filters of the picture, in its order.
        colour: the channels are those of the photo, so that a filter is a small picture of it.
    """

    subject: Subject = field(repr=False)
    layer: str
    kind: str
    weights: Float32[np.ndarray, "filters channels rows columns"] = field(repr=False)
    names: tuple[str, ...] = field(repr=False)
    chosen: tuple[int, ...]
    colour: bool

    @property
    def norms(self) -> Float64[np.ndarray, "filters"]:
        """The Euclidean length of each filter."""
        flat = self.weights.reshape(len(self.weights), -1).astype(np.float64)
        return np.asarray(np.sqrt((flat**2).sum(axis=1)))

    @property
    def limit(self) -> float:
        """The weight of the darkest colour: one for all filters of the picture."""
        return limit_of(self.weights[list(self.chosen)], beyond=0.0 if self.colour else 0.001)

    @property
    def idle(self) -> tuple[int, ...]:
        """Filters whose norm is below a hundredth of the median: they do next to nothing."""
        return tuple(np.flatnonzero(self.norms < NEAR_ZERO * np.median(self.norms)).tolist())

    def to_json(self) -> dict[str, Any]:
        """The shape, the norms, the filters shown and the scale."""
        return {
            "net": self.subject.name,
            "layer": self.layer,
            "kind": self.kind,
            "shape": list(self.weights.shape),
            "norms": [round(value, 6) for value in self.norms.tolist()],
            "chosen": list(self.chosen),
            "scale": self.limit,
            "idle": list(self.idle),
        }

    def to_text(self) -> str:
        """A few lines for the terminal."""
        norms, best = self.norms, np.argsort(-self.norms, kind="stable")[:5]
        strongest = ", ".join(f"{shown(self.names[place])} ({norms[place]:.3g})" for place in best)
        return "\n".join(
            [f"{self.title}: {self._what()}", f"strongest: {strongest}; norms {norms.min():.3g} to {norms.max():.3g}"]
        )

    def _what(self) -> str:
        count, channels, rows, columns = self.weights.shape
        said = f"{self.kind}, {count} filters of {channels} x {rows} x {columns}"
        return f"{said}; {len(self.idle)} of them next to 0" if self.idle else said

    @property
    def title(self) -> str:
        """What stands above the picture."""
        return f"{self.layer} of {shown(self.subject.name)}"

    def sheet(self) -> Image.Image:
        """The picture: filters in the order of their norms, or of the choice."""
        words = [
            self._what(),
            f"sorted by norm, the strongest first; {len(self.chosen)} of {len(self.weights)} shown"
            if list(self.chosen) == sorted(self.chosen, key=lambda place: (-self.norms[place], place))
            else f"{len(self.chosen)} of {len(self.weights)} shown",
        ]
        scale = f"one scale for all: {-self.limit:.3g} to {self.limit:.3g}"
        if self.weights.shape[1] == 1 or self.colour:
            about = (
                "mid-grey is 0"
                if self.colour and self.weights.shape[1] == 3
                else "white is 0, orange above, blue below"
            )
            tiles = [enlarged(signed_picture(self.weights[place], self.limit), TILE) for place in self.chosen]
            labels = [f"{shown(self.names[place])}: {self.norms[place]:.2g}" for place in self.chosen]
            columns = min(16, max(8, math.ceil(math.sqrt(2 * len(tiles)))))
            panel = Panel("number: norm", grid(tiles, columns, 10, labels))
            return draw_sheet(self.title, [*words, f"{scale}; {about}"], [panel], 1)
        many = self.weights.shape[1]
        words.append(
            f"{scale}; white is 0, orange above, blue below; a square an input channel, 0 to {many - 1} row by row"
        )
        return draw_sheet(self.title, words, [self._strip(place) for place in self.chosen], 3)

    def _strip(self, place: int) -> Panel:
        """One filter, channel by channel in reading order, and which channels count most."""
        kernel = self.weights[place].astype(np.float64)
        many, rows, columns = kernel.shape
        across = math.ceil(math.sqrt(many * rows / columns))
        sizes = np.sqrt((kernel**2).sum(axis=(1, 2)))
        if rows == columns == 1:
            cells = folded(kernel[:, 0, 0], across)
            image = enlarged(signed_picture(np.nan_to_num(cells)[None], self.limit), DEEP)
        else:
            cell = max(rows, columns, DEEP // across - 1)
            image = grid(
                [enlarged(signed_picture(one[None], self.limit), cell) for one in kernel], across, 1, line=CELL
            )
        share = np.sort(sizes**2)[::-1].cumsum() / max(float((sizes**2).sum()), 1e-30)
        half = int(np.searchsorted(share, 0.5)) + 1
        best = ", ".join(str(channel) for channel in np.argsort(-sizes, kind="stable")[:5])
        lines = (f"norm {self.norms[place]:.3g}; strongest channels: {best}", f"half of its energy in {half} of {many}")
        return Panel(shown(self.names[place]), image, lines)

    def files(self) -> dict[str, Any]:
        """What is worth keeping: the weights as they are, and the picture."""
        return {"filters.npy": self.weights, "filters.png": self.sheet()}


def look_at_filters(subject: Subject, layer: str | None = None, units: Sequence[int] | None = None) -> Filters:
    """The weights of a layer.

    Args:
        subject: the net.
        layer: a convolution or dense layer, or a stage or block, whose last one is taken; "logits": the layer of the
            classes; None: the first layer.
        units: the filters to show; None: those with the largest norms.

    Raises:
        UsageError: the layer has no weights, or no such filter.
    """
    name, module = weighted_module(subject, layer)
    weights = module.weight.detach().cpu().numpy().astype(np.float32).copy()
    refuse_not_finite(subject, name, weights)
    dense = weights.ndim == 2
    if dense:
        weights = weights.reshape(len(weights), *_seen_by(subject, name, weights.shape[1]))
    first = not dense and name == _first(subject) and module.groups == 1
    colour = first and weights.shape[1] in (1, 3)
    kind = "dense" if dense else "convolution"
    if not dense and module.groups == module.in_channels > 1:
        kind = "depthwise convolution"
    norms = (weights.reshape(len(weights), -1).astype(np.float64) ** 2).sum(axis=1)
    most = MOST if colour or weights.shape[1] == 1 else MOST_DEEP
    strongest = np.argsort(-norms, kind="stable")[:most].tolist()
    chosen = strongest if units is None else checked_units(tuple(units), len(weights), name)
    logits = dense and len(weights) == len(subject.classes) and _gives_classes(subject, name)
    names = subject.classes if logits else tuple(map(str, range(len(weights))))
    return Filters(subject, name, kind, weights, names, tuple(chosen), colour)


def _first(subject: Subject) -> str:
    return weighted_module(subject, None)[0]


def _gives_classes(subject: Subject, name: str) -> bool:
    if name == "logits" or subject.classifier is not None:
        return name == "logits"  # of a run's backbone the own last layer is not used
    row = row_at(subject, name)
    return "logits" in row.stages or row.name == subject.summary.layers[-1].name


def _seen_by(subject: Subject, name: str, features: int) -> tuple[int, int, int]:
    """The shape of the map that a dense layer sees flattened; (features, 1, 1) where it is no map."""
    if name == "logits":
        return features, 1, 1
    for row in above(subject, row_at(subject, name)):
        if len(row.output_shape) == 3:
            height, width, channels = row.output_shape
            return (channels, height, width) if channels * height * width == features else (features, 1, 1)
    height, width, channels = subject.preprocessing.shape
    return (channels, height, width) if channels * height * width == features else (features, 1, 1)
