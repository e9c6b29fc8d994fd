"""How large the signal is after each layer on its way up, and the gradient on its way down.

The gradient at layer l of L is the one at the top times the gains of all layers between, `k**(L - l)` if each has gain
k: with k = 2 it explodes, with k = 0.5 it vanishes, and only near 1 can the first layers learn as fast as the last.
He's initialisation aims at 1. Batch normalisation brings k near 1 whatever the weights are: the signal exactly, the
gradient of a deep chain of ReLU layers to `sqrt(pi / (pi - 1))`, about 1.21 (Yang et al. 2019, arXiv:1902.08129).
"""

import copy
import math
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

import torch
from jaxtyping import Float
from torch import Tensor, nn

from headstart.errors import ShapeError
from headstart.layers.initialise import initialise
from headstart.layers.shape_text import table
from headstart.layers.trace import Trace, trace
from headstart.layers.typed import checked_size

BATCH = 4  # photos; enough for scales, and a large net's activations still fit into a laptop's memory
TOO_MUCH = 1.5  # a gradient that changes by more than this factor a layer explodes or vanishes ...
TOO_FAR = 100.0  # ... and so does one that changes by more than this over the whole net
NORMS = (nn.BatchNorm1d, nn.BatchNorm2d)


@dataclass(frozen=True)
class LayerGain:
    """One layer with weights, with the batch-norm behind it where there is one.

    Args:
        name: the layer's name.
        type: its class, "+ BatchNorm" where one follows.
        signal: root mean square of its output, before the activation.
        gradient: length of the loss's gradient with respect to that output, root mean square over the photos.
    """

    name: str
    type: str
    signal: float
    gradient: float


@dataclass(frozen=True)
class Gains:
    """The scales through a net.

    Args:
        net: its name.
        init: how its weights were started; "as they are" for the net's own.
        layers: from the first to the last.
    """

    net: str
    init: str
    layers: tuple[LayerGain, ...]

    @property
    def steps(self) -> int:
        """Layers behind the first."""
        return len(self.layers) - 1

    @property
    def signal_gains(self) -> list[float]:
        """What each layer behind the first does to the signal: its output's scale over that of the layer before."""
        return [_quotient(after.signal, before.signal) for before, after in pairwise(self.layers)]

    @property
    def gradient_gains(self) -> list[float]:
        """What happens to the gradient on its way down to each layer but the last, from the layer above."""
        return [_quotient(below.gradient, above.gradient) for below, above in pairwise(self.layers)]

    @property
    def signal_gain(self) -> float:
        """The k of the net's signal: the median, so that a pooling layer here and there does not blur it."""
        return median(self.signal_gains) if self.steps else 1.0

    @property
    def gradient_gain(self) -> float:
        """The k of the net's gradient, the median."""
        return median(self.gradient_gains) if self.steps else 1.0

    def verdict(self) -> str:
        """Steady, explodes or vanishes: by the gradient's k, and by what it makes over the whole net."""
        gain = self.gradient_gain
        if gain > TOO_MUCH or gain**self.steps > TOO_FAR:
            return "explodes"
        return "vanishes" if gain < 1 / TOO_MUCH or gain**self.steps < 1 / TOO_FAR else "steady"

    def to_text(self) -> str:
        """A line a layer, and what the gains make together."""
        top = self.layers[-1].gradient or 1.0
        lines = [("layer (type)", f"{'signal':>10}  {'gain':>8}  {'gradient':>10}  {'gain':>8}")]
        up = ["", *map("{:.3g}".format, self.signal_gains)]
        down = [*map("{:.3g}".format, self.gradient_gains), ""]
        for one, rise, fall in zip(self.layers, up, down, strict=True):
            numbers = f"{one.signal:10.3g}  {rise:>8}  {one.gradient / top:10.3g}  {fall:>8}"
            lines.append((f"{one.name} ({one.type})", numbers))
        head = f"{self.net}, weights: {self.init}; gradients relative to the last layer's"
        verdict = self.verdict()
        return "\n".join(
            [
                head,
                table(*lines),
                _power("signal", self.signal_gain, self.steps),
                _power("gradient", self.gradient_gain, self.steps) + f": it {'is ' * (verdict == 'steady')}{verdict}",
            ]
        )

    def to_json(self) -> dict[str, object]:
        """The same for a program; numbers that are not finite are null."""
        return {
            "net": self.net,
            "init": self.init,
            "verdict": self.verdict(),
            "signal_gain": _finite(self.signal_gain),
            "gradient_gain": _finite(self.gradient_gain),
            "layers": [
                {"name": one.name, "type": one.type, "signal": _finite(one.signal), "gradient": _finite(one.gradient)}
                for one in self.layers
            ],
        }


def layer_gains(
    net: nn.Module,
    photos: Float[Tensor, "batch channels height width"] | None = None,
    *,
    init: str | None = None,
    input_size: tuple[int, int, int] | None = None,
    seed: int = 0,
    name: str = "",
) -> Gains:
    """Measure signal and gradient after each layer, with random weights or the net's own.

    The net is copied, and runs as in training (batch-norms use the batch) but without dropout. The gradient is that of
    a random weighted sum of the outputs.

    Args:
        net: left as it is.
        photos: normalised; random numbers of mean 0 and variance 1 if none are given.
        init: "glorot", "he", or a gain such as "0.5" (He times it); None keeps the net's weights.
        input_size: (height, width, channels) of the random photos; the net's own `input_size` if not given.
        seed: of weights, photos and gradient.
        name: what the net is called; its class by default.

    Raises:
        UsageError: no such initialisation.
        ShapeError: the photos do not fit the net, or it has no layer with weights.
    """
    random = torch.Generator().manual_seed(seed)
    if photos is None:
        own_size: tuple[int, int, int] = getattr(net, "input_size", (224, 224, 3))
        height, width, channels = checked_size(own_size if input_size is None else input_size)
        photos = torch.randn(BATCH, channels, height, width, generator=random)
    measured = copy.deepcopy(net).float()
    if init is not None:
        initialise(measured, init, seed)
    run = trace(measured, tuple(photos.shape[1:]))
    places = _places(run)
    if not places:
        raise ShapeError("the net has no layer with weights; gains are measured at convolutions and dense layers")
    scales = _measure(measured, photos, {kind_name[0]: layer for layer, kind_name in places.items()}, random)
    layers = tuple(LayerGain(label, kind, *scales[label]) for label, kind in places.values())
    return Gains(name or type(net).__name__, init or "as they are", layers)


def _places(run: Trace) -> dict[nn.Module, tuple[str, str]]:
    """The modules whose outputs to measure, with name and type: each weight layer, or the batch-norm behind it."""
    norms = {
        step.inputs[0]: step.layer for step in run.steps if isinstance(step.layer, NORMS) and len(step.inputs) == 1
    }
    places: dict[nn.Module, tuple[str, str]] = {}
    for number, step in enumerate(run.steps):
        if isinstance(step.layer, nn.Conv2d | nn.Linear):
            norm = norms.get(number)
            places[norm or step.layer] = step.name, step.kind + (" + BatchNorm" if norm is not None else "")
    return places


def _measure(
    net: nn.Module, photos: Tensor, modules: dict[str, nn.Module], random: torch.Generator
) -> dict[str, tuple[float, float]]:
    """Scale of output and gradient of each module, by name."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, value: Tensor) -> None:
        value.retain_grad()
        outputs[name] = value

    net.train()
    for module in net.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):
            module.eval()
    for name, module in modules.items():
        module.register_forward_hook(lambda _, __, value, name=name: keep(name, value))
    logits = net(photos)
    logits.backward(torch.randn(logits.shape, generator=random))
    return {name: (_root_mean_square(value), _length(value.grad)) for name, value in outputs.items()}


def _root_mean_square(values: Tensor) -> float:
    return float(values.detach().double().square().mean().sqrt())


def _length(gradient: Tensor | None) -> float:
    """Of a photo's gradient, root mean square over the photos."""
    return 0.0 if gradient is None else float(gradient.double().square().flatten(1).sum(dim=1).mean().sqrt())


def _quotient(value: float, reference: float) -> float:
    """How many times as large; infinite where numbers have overflowed, 0 where nothing was left already."""
    if not (math.isfinite(value) and math.isfinite(reference)):
        return math.inf
    return value / reference if reference else math.inf if value else 0.0


def _power(what: str, gain: float, steps: int) -> str:
    return f"{what:<9} {gain:.3g} a layer (median): {gain:.3g}^{steps} = {gain**steps:.3g} over {steps} layers"


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
