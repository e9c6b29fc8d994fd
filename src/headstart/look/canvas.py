"""A picture that is drawn by gradients: its waves are the parameters, and the net sees it a little moved each time.

Steps on pixels make noise that only the pixel grid of the net answers to. Steps on the waves of a picture, each with
an amplitude that falls with its frequency as in photos, in colours that vary independently, make shapes; and what is
still there when the picture is turned, scaled and shifted is nothing that only one alignment of the grid answers to.
Olah, Mordvintsev & Schubert 2017, "Feature visualization" (https://distill.pub/2017/feature-visualization).
"""

import math

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional

from headstart.explain.drawing import PANEL, fitted
from headstart.explain.subject import Subject

START = 0.01  # standard deviation of the waves at first: almost grey
# A wave that fits f times into the picture has the amplitude GAIN * f**-DECAY. In photos it falls as 1 / f; a little
# steeper and small, large shapes come before grain, and the colours stay within what a screen shows.
GAIN, DECAY = 0.26, 1.4
# The axes along which the colours of photos vary independently (Ohta, Kanade & Sakai 1980, "Color information for
# region segmentation": I1, I2, I3, here of length 1), and how much along each, as a share of the first:
# `benchmarks/dreams.py --colours DATA` measures it.
AXES = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 2.0, -1.0]])
SHARES = (1.0, 0.38, 0.26)
# What the net sees is moved by at most so much, each drawn evenly.
TURN = math.radians(10)
SCALE = 0.1
SHIFT = 8 / 224  # of the side
# Adam: Kingma & Ba 2015 (arXiv:1412.6980), algorithm 1, with its own constants.
MEANS, SQUARES, TINY = 0.9, 0.999, 1e-8

Planes = Float[Tensor, "channels size size"]


class Canvas:
    """A picture made of waves.

    Args:
        size: its side, pixels.
        channels: 3: colours; 1: grey.
        seed: of the first, almost grey, picture.

    Attributes:
        waves: the parameters, (channels, size, size // 2 + 1, 2): real and imaginary parts.
    """

    def __init__(self, size: int, channels: int, seed: int) -> None:
        random = torch.Generator().manual_seed(seed)
        self.size = size
        self.waves = (START * torch.randn(channels, size, size // 2 + 1, 2, generator=random)).requires_grad_()
        fits = size * torch.hypot(torch.fft.fftfreq(size)[:, None], torch.fft.rfftfreq(size)[None])
        self._amplitude = size * GAIN * fits.clamp(min=1.0) ** -DECAY  # the mean as the longest wave
        self._colours = _colours(channels)
        self._steps, self._mean, self._square = 0, torch.zeros_like(self.waves), torch.zeros_like(self.waves)

    def pixels(self) -> Planes:
        """The picture, 0..1; gradients flow to the waves."""
        spectrum = torch.view_as_complex(self.waves) * self._amplitude
        planes = torch.fft.irfft2(spectrum, s=(self.size, self.size), norm="ortho")  # divides by `size`
        return torch.sigmoid(torch.einsum("oc,chw->ohw", self._colours, planes))

    def climb(self, gradient: Float[Tensor, "channels size half 2"], rate: float) -> None:
        """One step of Adam uphill. (torch's own takes seconds to load parts of torch that nothing here needs.)

        Args:
            gradient: of what is to rise, by the waves.
            rate: about how much each wave changes.
        """
        self._steps += 1
        self._mean.lerp_(gradient, 1 - MEANS)
        self._square.lerp_(gradient.square(), 1 - SQUARES)
        size = (self._square / (1 - SQUARES**self._steps)).sqrt() + TINY
        with torch.no_grad():
            self.waves += rate * self._mean / (1 - MEANS**self._steps) / size

    def levels(self) -> UInt8[np.ndarray, "size size channels"]:
        """The picture as it would be stored: 0..255, whole numbers."""
        with torch.no_grad():
            return np.asarray(np.rint(self.pixels().permute(1, 2, 0).numpy() * 255), np.uint8)


def _colours(channels: int) -> Tensor:
    """From independent colours to red, green and blue; the brightest axis has length 1 in each."""
    if channels != 3:
        return torch.eye(channels)
    axes = AXES / AXES.norm(dim=1, keepdim=True) * torch.tensor(SHARES)[:, None]
    colours: Tensor = math.sqrt(3) * axes.T
    return colours


def as_seen(subject: Subject, pixels: Planes) -> Float[Tensor, "1 channels size size"]:
    """A picture, 0..1, normalised as the net takes it."""
    how = subject.preprocessing
    mean, std = (torch.tensor(values)[:, None, None] for values in (how.mean, how.std))
    return ((pixels * 255 - mean) / std)[None]


def moved(
    x: Float[Tensor, "batch channels size size"], random: torch.Generator
) -> Float[Tensor, "batch channels size size"]:
    """The picture turned, scaled and shifted by a draw; what comes into view is the mean grey of the preprocessing.

    Args:
        x: normalised pixels: 0 is that grey.
        random: drawn from four times for each picture.
    """
    draws = 2 * torch.rand(len(x), 4, generator=random) - 1
    angle, zoom, shift = TURN * draws[:, 0], 1 + SCALE * draws[:, 1], 2 * SHIFT * draws[:, 2:]
    turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()], dim=1).reshape(-1, 2, 2)
    places = torch.cat([turn / zoom[:, None, None], shift[:, :, None]], dim=2)
    grid = functional.affine_grid(places, list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def enlarged(pixels: UInt8[np.ndarray, "height width channels"], side: int = PANEL) -> Image.Image:
    """A picture for a sheet, its longer side `side` pixels; a small one keeps its pixels as squares."""
    colours = pixels if pixels.shape[2] == 3 else pixels.repeat(3, axis=2)
    return fitted(Image.fromarray(np.ascontiguousarray(colours)), side, smooth=max(pixels.shape[:2]) >= side // 2)
