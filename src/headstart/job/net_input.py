"""What a network that is trained from scratch sees: its options, and the size and the colour of its photos."""

import functools
import importlib
import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.errors import ConfigError, HeadstartError
from headstart.nets import NETS, build_net
from headstart.quality import PhotoFacts

DENSE_SIDE = 64  # pixels: largest side chosen for a net whose dense layers see every place of a map
PADDED_SIDE = 28  # of MNIST's digits, which LeNet-5 sees with two zeros around them (LeCun et al. 1998, section II.B)
STEP_SIZES = 16  # sizes above the photos' own that are tried for a net that takes multiples of something
GRAY_MODES = ("L", "LA", "La", "1", "I", "F")  # of Pillow; "I;16" and its kin begin with one of them


@dataclass(frozen=True)
class NetInput:
    """How a net is built and what it is fed.

    Args:
        size: side of its photos, pixels.
        channels: 1 luminance, 3 RGB.
        options: what `headstart.nets.build_net` takes besides the name.
        why: sentences, with numbers.
    """

    size: int
    channels: int
    options: dict[str, Any]
    why: tuple[str, ...]


def choose_input(config: TrainConfig, dataset: Dataset, facts: Sequence[PhotoFacts]) -> NetInput:
    """Choose size and colour for a net by its own needs and by the photos it will be trained on.

    Args:
        config: `net`, `image_size` and `colour` count here.
        dataset: for the number of classes.
        facts: of the training photos.

    Raises:
        ConfigError: the net cannot take photos of the size that is set.
    """
    name, classes = str(config.net), len(dataset.classes)
    gray_photos = sum(fact.mode.split(";")[0] in GRAY_MODES for fact in facts)
    channels = {"gray": 1, "colour": 3}.get(config.colour, 1 if gray_photos == len(facts) else 3)
    side = round(float(np.median([min(fact.width, fact.height) for fact in facts])))
    sizes = _Sizes(name, classes, channels)
    size = config.image_size or sizes.choose(side)
    if config.image_size:
        sizes.check(size)
    what = "luminance" if channels == 1 else "colour"
    said = f"It sees {what} of {size} x {size} pixels: {gray_photos:,} of {len(facts):,} training photos are gray, "
    why = [said + f"and half of them have a shorter side of {side:,} pixels or more."]
    if side < size:
        why.append(f"Most photos are enlarged, from {side:,} to {size:,} pixels: {name} was not given smaller ones.")
    return NetInput(size, channels, sizes.options(size), tuple(why))


class _Sizes:
    """Which sizes of photos a net can take, found by running shapes through it: no number is computed.

    Args:
        name: of the net.
        classes, channels: what it is built for.
    """

    def __init__(self, name: str, classes: int, channels: int) -> None:
        self._name = name
        module, function = NETS[name]
        self._takes = inspect.signature(getattr(importlib.import_module(module), function)).parameters
        self._plain = {"classes": classes, "in_channels": channels}
        if "auxiliary" in self._takes:
            self._plain["auxiliary"] = False  # the loop trains the last layer's output alone
        self._dense = "input_size" in self._takes
        self._padded = "padding" in self._takes
        self._own = int(self._built(None).input_size[0])

    def options(self, size: int) -> dict[str, Any]:
        """How the net is built for photos of this size."""
        if self._dense:
            return {**self._plain, "input_size": (size, size)}
        if self._padded and size == PADDED_SIDE:
            return {**self._plain, "padding": (self._own - size) // 2}
        return dict(self._plain)

    def choose(self, side: int) -> int:
        """The size for photos whose shorter side is usually `side`: as they are, within what the net is made for."""
        wanted = min(side, DENSE_SIDE if self._dense else self._own)
        if self.fits(wanted):
            return wanted
        if self._dense or self._padded:
            last = wanted + STEP_SIZES if self._dense else self._own
            return next((size for size in range(wanted + 1, last) if self.fits(size)), self._own)
        low, high = wanted + 1, self._own  # convolutions: what is large enough stays so when it grows
        while low < high:
            middle = (low + high) // 2
            low, high = (low, middle) if self.fits(middle) else (middle + 1, high)
        return high

    def check(self, size: int) -> None:
        """Refuse a size that the net cannot take."""
        if self.fits(size):
            return
        other = self.choose(size)
        fault = f"are smaller than {self._name} needs" if other > size else f"do not fit {self._name}"
        raise ConfigError(
            f"photos of {size} x {size} pixels {fault}; expected {other} x {other}: give --image-size {other}, "
            "or leave it out"
        )

    @functools.cache  # noqa: B019 - the object lives as long as one choice
    def fits(self, size: int) -> bool:
        """Can the net take photos of this size?"""
        try:
            net = self._net if not (self._dense or self._padded) else self._built(size)
            with torch.no_grad():
                net(torch.zeros(2, self._plain["in_channels"], size, size, device="meta"))
        except (HeadstartError, RuntimeError):  # torch's word for shapes that do not fit
            return False
        return True

    @functools.cached_property
    def _net(self) -> Any:
        return self._built(None)

    def _built(self, size: int | None) -> Any:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            net = build_net(self._name, **(dict(self._plain) if size is None else self.options(size)))
        return net.to("meta").eval()
