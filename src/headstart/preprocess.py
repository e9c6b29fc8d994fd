"""From a decoded photo to the square that a network sees: one crop-and-resize, the same in training and prediction."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float32, UInt8
from PIL import Image

from headstart.errors import ConfigError
from headstart.images import Picture

FILTERS = {
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "hamming": Image.Resampling.HAMMING,
}

Levels = tuple[float, ...]  # one number a channel: red, green and blue, or grey alone


@dataclass(frozen=True)
class Preprocessing:
    """How a network wants its photos. It travels with the weights, so that nobody can forget it.

    The centre square of the photo, `crop_fraction` of its shorter side, is resized to `size` x `size` in one call of
    Pillow; when shrinking, every source pixel counts (the filter is widened by the factor, so nothing aliases). Where
    there is one mean and one deviation, the photo becomes luminance first, as Pillow's mode "L" has it (ITU-R 601-2).

    Args:
        size: side of the network's input, pixels, 1 to 4096.
        crop_fraction: side of the square over the shorter side of the photo, in (0, 1].
        mean: of the red, green and blue channel, or of luminance alone, grey levels 0 to 255.
        std: likewise, > 0.
        filter: a key of `FILTERS`.

    Raises:
        ConfigError: a value of the wrong type or out of range.
    """

    size: int
    crop_fraction: float
    mean: Levels
    std: Levels
    filter: str = "bilinear"

    def __post_init__(self) -> None:
        _check(vars(self))

    @property
    def channels(self) -> int:
        """3: red, green, blue; 1: luminance."""
        return len(self.mean)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Of a prepared photo: (size, size, channels)."""
        return self.size, self.size, self.channels

    def decode_target(self) -> int:
        """The short side, in pixels, that `decode` must leave so that the crop is never enlarged needlessly.

        >>> Preprocessing(224, 0.875, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)).decode_target()
        256
        """
        return math.ceil(self.size / self.crop_fraction)

    def crop_box(self, width: int, height: int) -> tuple[float, float, float, float]:
        """The square that the network sees, for overlays: left, top, right, bottom in pixels of the upright original.

        >>> Preprocessing(224, 0.875, (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)).crop_box(640, 480)
        (110.0, 30.0, 530.0, 450.0)
        """
        side = min(width, height) * self.crop_fraction
        left, top = (width - side) / 2, (height - side) / 2
        return left, top, left + side, top + side

    def apply(self, picture: Picture) -> UInt8[np.ndarray, "size size channels"]:
        """The input of the network for a photo, before normalisation.

        Args:
            picture: decoded with `target=self.decode_target()`, or at full size (slower, and a little different).

        Returns:
            RGB or luminance, 0 to 255; a fresh array that may be written to.
        """
        left, top, right, bottom = (edge / picture.reduction for edge in self.crop_box(picture.width, picture.height))
        height, width, _ = picture.pixels.shape
        packed = np.ascontiguousarray(picture.pixels)
        image = Image.frombuffer("RGB", (width, height), packed, "raw", "RGB", 0, 1)  # one copy less than fromarray
        # Rounding may push an edge past the last pixel by 1e-16 of the side, which Pillow refuses.
        box = (max(0.0, left), max(0.0, top), min(right, width), min(bottom, height))
        if self.channels == 1:
            image = image.convert("L")
        return np.array(image.resize((self.size, self.size), FILTERS[self.filter], box=box)).reshape(self.shape)

    def normalise(
        self, batch: UInt8[np.ndarray, "images size size channels"]
    ) -> Float32[np.ndarray, "images channels size size"]:
        """`(x - mean) / std` per channel, with the channels in front, as torch wants it."""
        planes = batch.transpose(0, 3, 1, 2).astype(np.float32)
        planes -= np.array(self.mean, np.float32)[:, None, None]
        planes /= np.array(self.std, np.float32)[:, None, None]
        return np.ascontiguousarray(planes)

    def to_dict(self) -> dict[str, Any]:
        """Plain values for JSON; `from_dict` restores the equal object."""
        return {**dataclasses.asdict(self), "mean": list(self.mean), "std": list(self.std)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocessing":
        """Rebuild from `to_dict`'s values.

        Raises:
            ConfigError: a setting is unknown, missing, of the wrong type or out of range.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        if unknown := sorted(str(key) for key in values if key not in known):
            raise ConfigError(f"unknown preprocessing setting {unknown[0]!r}; known: {', '.join(known)}")
        if missing := [name for name in known if name not in values]:
            raise ConfigError(f"preprocessing setting {missing[0]!r} is missing; needed: {', '.join(known)}")
        settings: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in values.items()
        }
        _check(settings)
        return cls(**settings)


def _check(settings: Mapping[str, Any]) -> None:
    size, crop, kernel = settings["size"], settings["crop_fraction"], settings["filter"]
    if type(size) is not int or not 1 <= size <= 4096:
        raise ConfigError(f"size must be a whole number of 1 to 4096 pixels, not {size!r}")
    if not _is_number(crop) or not 0 < crop <= 1:
        raise ConfigError(f"crop_fraction must be above 0 and at most 1, not {crop!r}")
    for name in ("mean", "std"):
        value = settings[name]
        if not isinstance(value, tuple) or len(value) not in (1, 3) or not all(_is_number(x) for x in value):
            raise ConfigError(f"{name} must be three numbers (red, green, blue) or one (luminance), not {value!r}")
    if len(settings["mean"]) != len(settings["std"]):
        raise ConfigError(
            f"mean and std must have as many channels; received {settings['mean']!r} and {settings['std']!r}"
        )
    if min(settings["std"]) <= 0:
        raise ConfigError(f"std must be above 0 in every channel, not {settings['std']!r}")
    if not isinstance(kernel, str) or kernel not in FILTERS:
        raise ConfigError(f"unknown filter {kernel!r}; known: {', '.join(FILTERS)}")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
