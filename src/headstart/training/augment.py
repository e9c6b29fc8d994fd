"""A whole augmentation: what may happen to a photo and how far, one draw for a batch, one pass over its pixels."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce

import torch
from jaxtyping import Bool, Float, Float32, Int64, UInt8
from torch import Tensor

from headstart.errors import ConfigError
from headstart.training import augment_colours as colours
from headstart.training import augment_moves as moves
from headstart.training.augment_mixing import erase
from headstart.training.augment_moves import PADDINGS, Padding

Drawn = Mapping[str, Tensor]
Batch = UInt8[Tensor, "batch channels height width"] | Float[Tensor, "batch channels height width"]
SHARES = ("flip_horizontal", "flip_vertical", "grayscale", "erase")  # settings that are probabilities
COLOURFUL = ("grayscale", "hue", "saturation")  # settings that mean nothing for photos of one channel
SMALLEST_ERASED = 0.02  # of the photo's area, and
NARROWEST_ERASED = 0.3  # height over width of what is erased, or the inverse (Zhong et al. 2020, section 4.1)


@dataclass(frozen=True, kw_only=True)
class Augmentation:
    """What may happen to a photo, and how far. Each photo of a batch gets its own draw; 0 (of `crop`, 1) means never.

    Applied in this order: crop, flips, zoom, stretch, shear, rotation, shift (one sampling for all of them, or none:
    flips and whole-pixel shifts alone are done by index), brightness, contrast, saturation, hue, grayscale, erase.

    Args:
        flip_horizontal: probability that left and right are swapped.
        flip_vertical: probability that the photo is turned upside down.
        shift_pixels: whole pixels, farthest, either way, along each side.
        shift: farthest, as a share of the side, either way.
        rotation: degrees, farthest, either way.
        zoom: 0.1: between 1.1 times smaller and 1.1 times larger.
        stretch: 0.1: between 1.1 times narrower and 1.1 times wider, at the same area.
        shear: degrees that upright lines lean, farthest, either way.
        crop: side of the smallest window that is cut out, as a share of the photo's, in (0, 1].
        brightness: 0.2: between 1.2 times darker and 1.2 times brighter.
        contrast: likewise.
        saturation: likewise.
        hue: degrees on the colour circle, farthest, either way.
        grayscale: probability that the colours are taken out.
        erase: probability that a rectangle is covered by the mean colour.
        erase_area: of the largest such rectangle, as a share of the photo's area.
        padding: what lies beyond the edge: "reflection" or "border".

    Raises:
        ConfigError: a value is out of range.
    """

    flip_horizontal: float = 0.0
    flip_vertical: float = 0.0
    shift_pixels: int = 0
    shift: float = 0.0
    rotation: float = 0.0
    zoom: float = 0.0
    stretch: float = 0.0
    shear: float = 0.0
    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    grayscale: float = 0.0
    erase: float = 0.0
    erase_area: float = 0.2
    padding: Padding = "reflection"

    def __post_init__(self) -> None:
        highest = {
            **dict.fromkeys(SHARES, 1.0),
            "shift": 1.0,
            "rotation": 180.0,
            "shear": 60.0,
            "hue": 180.0,
            "shift_pixels": math.inf,
        }
        for field in dataclasses.fields(self):
            if field.name in ("padding", "crop", "erase_area"):
                continue
            value, limit = getattr(self, field.name), highest.get(field.name, 10.0)
            if not 0 <= value <= limit:
                raise ConfigError(f"augmentation {field.name} must lie between 0 and {limit:g}; received {value!r}")
        if not 0 < self.crop <= 1:
            raise ConfigError(f"augmentation crop must be above 0 and at most 1 (all of it); received {self.crop!r}")
        if not SMALLEST_ERASED <= self.erase_area <= 1:
            raise ConfigError(
                f"augmentation erase_area must lie between {SMALLEST_ERASED} and 1; received {self.erase_area!r}"
            )
        if self.padding not in PADDINGS:
            raise ConfigError(f"augmentation padding must be {' or '.join(PADDINGS)}; received {self.padding!r}")

    @property
    def samples(self) -> bool:
        """Whether photos are sampled, which blurs a little; else every pixel is one of the photo's."""
        return any((self.shift, self.rotation, self.zoom, self.stretch, self.shear, self.crop < 1))

    def draw(self, images: int, shape: tuple[int, int, int], generator: torch.Generator) -> dict[str, Tensor]:
        """Draw the parameters of `images` photos.

        Args:
            images: how many photos.
            shape: channels, height, width; of one channel, nothing is drawn for colours.
            generator: where every number comes from.

        Returns:
            By name, a tensor of one entry a photo: whether it is flipped (bool), pixels (int64), shares of the side,
            degrees, factors. Only what this augmentation may do is in it.
        """
        dice = _Dice(images, generator)
        drawn: dict[str, Tensor] = {}
        if self.crop < 1:
            drawn["crop_side"] = dice.between(self.crop, 1.0)
            drawn["crop_right"], drawn["crop_down"] = dice.between(-1.0, 1.0), dice.between(-1.0, 1.0)
        for name in ("flip_horizontal", "flip_vertical"):
            if getattr(self, name):
                drawn[name] = dice.chance(getattr(self, name))
        for name in ("zoom", "stretch"):
            if getattr(self, name):
                drawn[name] = dice.factor(getattr(self, name))
        for name in ("shear", "rotation"):
            if reach := getattr(self, name):
                drawn[name] = dice.between(-reach, reach)
        if self.shift:
            drawn["shift_right"] = dice.between(-self.shift, self.shift)
            drawn["shift_down"] = dice.between(-self.shift, self.shift)
        if self.shift_pixels:
            drawn["pixels_right"], drawn["pixels_down"] = dice.whole(self.shift_pixels), dice.whole(self.shift_pixels)
        drawn |= self._draw_colours(dice, colourful=shape[0] > 1)
        return drawn | self._draw_erased(dice)

    def _draw_colours(self, dice: "_Dice", *, colourful: bool) -> dict[str, Tensor]:
        """Brightness and contrast, and with three channels the rest."""
        drawn: dict[str, Tensor] = {}
        for name in ("brightness", "contrast", "saturation"):
            if getattr(self, name) and (colourful or name not in COLOURFUL):
                drawn[name] = dice.factor(getattr(self, name))
        if self.hue and colourful:
            drawn["hue"] = dice.between(-self.hue, self.hue)
        if self.grayscale and colourful:
            drawn["grayscale"] = dice.chance(self.grayscale)
        return drawn

    def _draw_erased(self, dice: "_Dice") -> dict[str, Tensor]:
        """Area and proportions first, then a place where the rectangle fits."""
        if not self.erase:
            return {}
        which, area = dice.chance(self.erase), dice.between(SMALLEST_ERASED, self.erase_area)
        proportion = dice.factor(1 / NARROWEST_ERASED - 1)
        height = (area * proportion).sqrt().clamp(max=1.0)
        width = (area / proportion).sqrt().clamp(max=1.0)
        top, left = dice.between(0.0, 1.0) * (1 - height), dice.between(0.0, 1.0) * (1 - width)
        return {"erase": which, "erase_top": top, "erase_left": left, "erase_height": height, "erase_width": width}

    def apply(self, batch: Batch, drawn: Drawn, fill: Float32[Tensor, "channels 1 1"]) -> Float32[Tensor, "..."]:
        """Change photos as drawn.

        Args:
            batch: (batch, channels, height, width), grey levels 0..255.
            drawn: what `draw` gave, or a part of its rows.
            fill: the colour of erased rectangles, grey levels.

        Returns:
            Photos of the same shape, float32, 0..255; never the same memory.
        """
        if not self.samples:
            photos = _by_index(batch, drawn, self.padding).to(torch.float32)
        else:
            photos = moves.move(
                batch.to(torch.float32), self.moves(drawn, batch.shape[2], batch.shape[3]), self.padding
            )
        for name, change in _COLOUR_CHANGES.items():
            if name in drawn:
                photos = change(photos, drawn[name])
        if "erase" in drawn:
            box = {name: drawn[f"erase_{name}"] for name in ("top", "left", "height", "width")}
            photos = erase(photos, drawn["erase"], **box, fill=fill)
        return photos.clone() if photos is batch else photos

    def moves(self, drawn: Drawn, height: int, width: int) -> Float32[Tensor, "batch 3 3"]:
        """All moves of each photo as one."""
        steps = []
        if "crop_side" in drawn:
            steps.append(
                moves.crops(drawn["crop_side"], drawn["crop_right"], drawn["crop_down"], height, width),
            )
        if flips := _flips(drawn):
            steps.append(moves.flips(*flips))
        for name, build in _MOVES.items():
            if name in drawn:
                steps.append(build(drawn[name]))
        if "shift_right" in drawn:
            steps.append(moves.shifts(drawn["shift_right"] * width, drawn["shift_down"] * height))
        if "pixels_right" in drawn:
            steps.append(moves.shifts(drawn["pixels_right"].float(), drawn["pixels_down"].float()))
        return reduce(lambda before, after: after @ before, steps)


_MOVES = {"zoom": moves.zooms, "stretch": moves.stretches, "shear": moves.shears, "rotation": moves.rotations}
_COLOUR_CHANGES = {
    "brightness": colours.adjust_brightness,
    "contrast": colours.adjust_contrast,
    "saturation": colours.adjust_saturation,
    "hue": colours.shift_hue,
    "grayscale": colours.grayscale,
}


class _Dice:
    """Draws for every photo of a batch."""

    def __init__(self, images: int, generator: torch.Generator) -> None:
        self._images = images
        self._generator = generator

    def chance(self, probability: float) -> Bool[Tensor, "batch"]:
        return torch.rand(self._images, generator=self._generator) < probability

    def between(self, low: float, high: float) -> Float32[Tensor, "batch"]:
        return torch.rand(self._images, generator=self._generator) * (high - low) + low

    def factor(self, strength: float) -> Float32[Tensor, "batch"]:
        """1 / (1 + strength) to 1 + strength; twice as large is as likely as half as large."""
        reach = math.log1p(strength)
        return self.between(-reach, reach).exp()

    def whole(self, reach: int) -> Int64[Tensor, "batch"]:
        return torch.randint(-reach, reach + 1, (self._images,), generator=self._generator)


def _flips(drawn: Drawn) -> tuple[Tensor, Tensor] | None:
    """Who is flipped left to right, and who upside down."""
    across, upside_down = drawn.get("flip_horizontal"), drawn.get("flip_vertical")
    if across is None and upside_down is None:
        return None
    none = torch.zeros_like(across if across is not None else upside_down)  # type: ignore[arg-type]
    return (none if across is None else across), (none if upside_down is None else upside_down)


def _by_index(batch: Tensor, drawn: Drawn, padding: Padding) -> Tensor:
    """Flips and whole-pixel shifts as one gathering of the photos' own pixels: bytes stay bytes."""
    flips, pixels = _flips(drawn), drawn.get("pixels_right")
    if flips is None and pixels is None:
        return batch
    height, width = batch.shape[2:]
    still = torch.zeros(len(batch), dtype=torch.int64)
    rows = moves.shifted_index(height, drawn.get("pixels_down", still), padding)
    columns = moves.shifted_index(width, drawn.get("pixels_right", still), padding)
    if flips is not None:
        columns = torch.where(flips[0][:, None], width - 1 - columns, columns)
        rows = torch.where(flips[1][:, None], height - 1 - rows, rows)
    return moves.gather_pixels(batch, rows, columns)
