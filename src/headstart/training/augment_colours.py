"""Augmentation that changes colours. Photos are float32, grey levels 0..255, red, green, blue (or one channel of grey).

Every function takes parameters as tensors of one entry a photo, and clips what leaves 0..255, as a camera would.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from headstart.errors import ShapeError

Photos = Float[Tensor, "batch channels height width"]
PerPhoto = Float[Tensor, "batch"]
RED, GREEN, BLUE = 0.299, 0.587, 0.114  # of brightness: ITU-R BT.601, section 2.5.1, as Pillow and OpenCV have it


def brightness_of(batch: Photos) -> Float[Tensor, "batch 1 height width"]:
    """The grey picture that the eye sees: `0.299 red + 0.587 green + 0.114 blue`; grey photos as they are."""
    if batch.shape[1] == 1:
        return batch
    red, green, blue = _channels(batch)
    return (RED * red).add_(green, alpha=GREEN).add_(blue, alpha=BLUE)[:, None]


def grayscale(batch: Photos, which: Bool[Tensor, "batch"]) -> Photos:
    """Take the colours out of the photos that `which` names; the three channels stay."""
    return torch.where(_each(which), brightness_of(batch), batch)


def adjust_brightness(batch: Photos, factor: PerPhoto) -> Photos:
    """`factor * x`: 0 is black, 1 the photo.

    >>> adjust_brightness(torch.full((1, 1, 1, 1), 100.0), torch.tensor([1.5])).item()
    150.0
    """
    return (batch * _each(factor)).clamp_(0, 255)


def adjust_contrast(batch: Photos, factor: PerPhoto) -> Photos:
    """Away from the mean brightness of each photo by `factor`: 0 is flat grey, 1 the photo."""
    middle = brightness_of(batch.mean(dim=(2, 3), keepdim=True))
    return (batch * _each(factor)).add_(middle * _each(1 - factor)).clamp_(0, 255)


def adjust_saturation(batch: Photos, factor: PerPhoto) -> Photos:
    """Away from grey by `factor`: 0 is the grey photo, 1 the photo, above 1 more colourful."""
    return (batch * _each(factor)).add_(brightness_of(batch) * _each(1 - factor)).clamp_(0, 255)


def shift_hue(batch: Photos, degrees: PerPhoto) -> Photos:
    """Turn every colour around the colour circle (red 0, green 120, blue 240); grey, value and saturation stay.

    Smith 1978, "Color gamut transform pairs" (HSV), SIGGRAPH; grey photos come back as they are.

    >>> shift_hue(torch.tensor([200.0, 0.0, 0.0]).reshape(1, 3, 1, 1), torch.tensor([120.0])).flatten().tolist()
    [0.0, 200.0, 0.0]
    """
    if batch.shape[1] == 1:
        return batch
    red, green, blue = _channels(batch)
    value = batch.amax(dim=1)
    spread = value - batch.amin(dim=1)
    safe = spread.clamp(min=1e-6)  # grey has no hue; whatever is found for it is multiplied by its spread of 0
    sextant = torch.where(
        value == red,
        (green - blue) / safe,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    sextant = sextant + degrees[:, None, None] / 60
    turned = []
    for start in (5, 3, 1):  # each channel is full for two sextants, fades over one, and is off for two
        place = (start + sextant).remainder(6)
        turned.append(value - spread * torch.minimum(place, 4 - place).clamp_(0, 1))
    return torch.stack(turned, dim=1)


def _channels(batch: Photos) -> tuple[Tensor, Tensor, Tensor]:
    if batch.shape[1] != 3:
        raise ShapeError(f"colours need photos of 3 channels (or 1, grey); received {batch.shape[1]} channels")
    return batch[:, 0], batch[:, 1], batch[:, 2]


def _each(values: Tensor) -> Tensor:
    """One value a photo, in a shape that fits the photos."""
    return values[:, None, None, None]
