"""Two colour maps that keep their promise to every eye: equal steps of value are equal steps of lightness.

The signed map runs from blue over near-white (0) to orange; values >= 0 alone use the orange half, so the same value
has the same colour in both. Blue against orange is told apart with every common form of colour blindness, and the size
of a value shows in a grey print. Built in OKLab, a space where equal distances look equally large (Ottosson 2020,
https://bottosson.github.io/posts/oklab/).
"""

from functools import cache

import numpy as np
from jaxtyping import Float, Float64, UInt8

STEPS = 256  # colours on each side of 0
WHITE, DARK = 0.975, 0.44  # OKLab lightness at 0 and at +-1
BLUE, ORANGE = 4.5, 0.9  # hue angles in OKLab, radians
CHROMA = 0.13  # of the most saturated colour

# OKLab to linear sRGB, the two matrices of its definition.
_TO_CONES = np.array(
    [
        [1.0, 0.3963377774, 0.2158037573],
        [1.0, -0.1055613458, -0.0638541728],
        [1.0, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def signed_colours(values: Float[np.ndarray, "*shape"], limit: float) -> UInt8[np.ndarray, "*shape 3"]:
    """Blue below 0, near-white at 0, orange above; symmetric, so that opposite values are equally dark.

    Args:
        values: any unit.
        limit: the value, > 0, of the darkest orange; its negative is the darkest blue. Values beyond get these.

    Returns:
        sRGB, 0..255.
    """
    scaled = np.clip(values / limit if limit > 0 else np.zeros_like(values), -1.0, 1.0)
    return _table()[np.rint((scaled + 1.0) * (STEPS - 1)).astype(np.intp)]


@cache
def _table() -> UInt8[np.ndarray, "colours 3"]:
    """The colours from -1 to 1, `2*STEPS - 1` of them; the middle one is 0."""
    strength = np.linspace(0.0, 1.0, STEPS)
    blue, orange = _half(strength, BLUE), _half(strength, ORANGE)
    return np.concatenate([blue[:0:-1], orange])


def _half(strength: Float64[np.ndarray, "colours"], hue: float) -> UInt8[np.ndarray, "colours 3"]:
    """One side of the map: lightness falls in equal steps, the colour comes in first."""
    lightness = WHITE + (DARK - WHITE) * strength
    chroma = CHROMA * np.sin(strength * np.pi / 2)
    lab = np.stack([lightness, chroma * np.cos(hue), chroma * np.sin(hue)], axis=-1)
    linear = np.clip((lab @ _TO_CONES.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)  # the sRGB curve
    colours: UInt8[np.ndarray, "colours 3"] = np.rint(encoded * 255).astype(np.uint8)
    return colours
