"""From any decoded Pillow image to upright 8-bit RGB pixels: the table of modes, bit depths, transparency, orientation.

A large picture is converted in strips, so that the memory needed besides the decoded image stays at a few megabytes.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageCms

Pixels = UInt8[np.ndarray, "height width 3"]
Strip = Callable[[Image.Image], Image.Image]  # one strip of any mode to the same strip in mode L or RGB

_STRIP_PIXELS = 1 << 19  # of the decoded image, converted at a time: 2 MB as RGB
_ALPHA_MODES = frozenset({"LA", "La", "PA", "RGBA", "RGBa"})
DEEP_MODES = frozenset({"I", "F", "I;16", "I;16L", "I;16B", "I;16N"})
_LEVELS = 32  # grey levels of 256 that must remain between darkest and brightest, else they are stretched


def to_rgb(image: Image.Image, reduction: int = 1) -> tuple[Pixels, tuple[str, ...]]:
    """Convert a loaded image to 8-bit RGB, averaging blocks of `reduction` x `reduction` pixels.

    - Transparency lies over white; over black where white would leave nothing to see.
    - 16-bit, 32-bit and float grey is scaled by the rule of `grey_scale`.
    - CMYK is converted with its ICC profile if it has a usable one; other profiles are ignored.
    - CIELAB is converted by LittleCMS, everything else by Pillow's `convert("RGB")`.

    Args:
        image: loaded; any mode of Pillow; sides >= 1 px.
        reduction: power of two; the result has `ceil(side / reduction)` pixels a side.

    Returns:
        The pixels, read-only, and what happened that a report should mention.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return _assemble(image, reduction, lambda strip: strip), ()
    if image.mode in DEEP_MODES:
        scale = grey_scale(image)
        pixels = _assemble(image, reduction, scale.apply)
        return pixels, (scale.note,)
    if image.mode in _ALPHA_MODES or "transparency" in image.info:
        return _without_alpha(image, reduction)
    if image.mode == "CMYK":
        convert, note = _from_cmyk(image)
        return _assemble(image, reduction, convert), (note,)
    if image.mode == "LAB":
        lab = ImageCms.buildTransform(ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB")
        return _assemble(image, reduction, lab.apply), ()
    grey = image.mode in ("L", "1")
    return _assemble(image, reduction, lambda strip: strip.convert("L" if grey else "RGB")), ()


def upright(pixels: Pixels, orientation: int) -> UInt8[np.ndarray, "upright_height upright_width 3"]:
    """Turn and mirror pixels as the EXIF tag Orientation says (Exif 2.32, section 4.6.4, tag 0x0112).

    >>> upright(np.arange(6, dtype=np.uint8).reshape(1, 2, 3), 8)[:, 0, 0].tolist()
    [3, 0]
    """
    turned = {
        2: lambda: pixels[:, ::-1],
        3: lambda: pixels[::-1, ::-1],
        4: lambda: pixels[::-1],
        5: lambda: pixels.transpose(1, 0, 2),
        6: lambda: np.rot90(pixels, -1),
        7: lambda: pixels[::-1, ::-1].transpose(1, 0, 2),
        8: lambda: np.rot90(pixels),
    }.get(orientation)
    if turned is None:
        return pixels
    result = np.ascontiguousarray(turned())
    result.flags.writeable = False
    return result


@dataclass(frozen=True)
class GreyScale:
    """How deep grey values become 8 bits: `low` is black, `high` is white, linear between.

    Args:
        key: the value that means "transparent" (shown white), or None.
        note: the same in words.
    """

    low: float
    high: float
    key: float | None
    note: str

    def apply(self, strip: Image.Image) -> Image.Image:
        """One strip of a deep mode as mode L."""
        values = np.asarray(strip).astype(np.float64)
        clear = values == self.key if self.key is not None else None
        np.nan_to_num(values, copy=False, nan=self.low, posinf=self.high, neginf=self.low)
        values -= self.low  # in place: a strip of float64 is already the largest thing around
        values *= 255 / (self.high - self.low)
        grey = np.rint(np.clip(values, 0, 255, out=values), out=values).astype(np.uint8)
        if clear is not None:
            grey[clear] = 255
        return Image.fromarray(grey)


def grey_scale(image: Image.Image) -> GreyScale:
    """Choose black and white for an image of 16-bit, 32-bit or float grey values.

    Pillow's own conversion clips at 255. Here zero is black and white is the full scale of the smallest common depth
    that holds the brightest value: 8, 10, 12, 14 or 16 bits (1.0 for floats up to 1). So a bright 8-bit photo stored
    in 16 bits comes back as it was, and most photos of one 12-bit sensor keep their differences in brightness. Values
    that are negative, need more than 16 bits, or would keep fewer than 32 of the 256 levels are stretched from their
    own smallest to their own largest value instead: nothing that differs in the file may become one flat grey.

    The choice depends on the file alone.
    """
    low, high = _extrema(image)
    key = image.info.get("transparency")
    key = float(key) if isinstance(key, int) else None
    depth = "float" if image.mode == "F" else "32-bit" if image.mode == "I" else "16-bit"
    whites = [1.0] if image.mode == "F" else []
    whites += [float(2**bits - 1) for bits in (8, 10, 12, 14, 16)]
    white = next((white for white in whites if low >= 0 and high <= white), None)
    if white is not None and (low == high or (high - low) * 255 / white >= _LEVELS):
        return GreyScale(0.0, white, key, f"{depth} grey scaled to 8 bits (white is {white:g})")
    if low == high:
        return GreyScale(low, low + 1, key, f"{depth} grey of one single value")
    return GreyScale(low, high, key, f"{depth} grey stretched to 8 bits (black is {low:g}, white is {high:g})")


def _extrema(image: Image.Image) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for strip in _strips(image, 1):
        values = np.asarray(strip)
        values = values[np.isfinite(values)]
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    return (low, high) if low <= high else (0.0, 0.0)


def _strips(image: Image.Image, reduction: int) -> Iterator[Image.Image]:
    rows = max(1, _STRIP_PIXELS // (image.width * reduction)) * reduction
    if rows >= image.height:
        yield image
        return
    for top in range(0, image.height, rows):
        yield image.crop((0, top, image.width, min(top + rows, image.height)))


def _assemble(image: Image.Image, reduction: int, convert: Strip) -> Pixels:
    if reduction == 1 and image.width * image.height <= _STRIP_PIXELS:
        pixels = np.asarray(convert(image))
        if pixels.ndim == 2:
            pixels = np.repeat(pixels[:, :, None], 3, axis=2)
        pixels.flags.writeable = False
        return pixels
    out = np.empty((-(-image.height // reduction), -(-image.width // reduction), 3), np.uint8)
    row = 0
    for strip in _strips(image, reduction):
        converted = convert(strip)
        part = np.asarray(converted.reduce(reduction) if reduction > 1 else converted)
        out[row : row + len(part)] = part if part.ndim == 3 else part[:, :, None]
        row += len(part)
    out.flags.writeable = False
    return out


def _without_alpha(image: Image.Image, reduction: int) -> tuple[Pixels, tuple[str, ...]]:
    opacity = [255, 0]  # the smallest and the largest seen

    def over(backdrop: str) -> Strip:
        def convert(strip: Image.Image) -> Image.Image:
            strip = strip.convert("RGBA")
            alpha = np.asarray(strip.getchannel("A"))
            opacity[:] = min(opacity[0], int(alpha.min())), max(opacity[1], int(alpha.max()))
            result = Image.new("RGB", strip.size, backdrop)
            result.paste(strip, mask=strip)
            return result

        return convert

    pixels = _assemble(image, reduction, over("white"))
    if opacity[0] == 255:
        return pixels, ()
    if opacity[0] < opacity[1] and pixels.min() == pixels.max():
        return _assemble(image, reduction, over("black")), ("transparent parts laid over black: white would hide all",)
    return pixels, ("transparent parts laid over white",)


def _from_cmyk(image: Image.Image) -> tuple[Strip, str]:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            if source.profile.xcolor_space.strip() == "CMYK":
                transform = ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), "CMYK", "RGB")
                return transform.apply, "CMYK converted with its colour profile"
        except (ImageCms.PyCMSError, OSError, ValueError, TypeError, AttributeError):
            pass  # a damaged profile must not lose the picture
    return lambda strip: strip.convert("RGB"), "CMYK converted without a colour profile"
