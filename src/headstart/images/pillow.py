"""What the decoder has to know about Pillow: opening without side effects, its warnings, its memory, its errors.

The bytes a pixel in `working_memory` are upper bounds of measurements with Pillow 13; the tests measure them again.
"""

import ctypes
import io
import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, cast

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from headstart.errors import ImageRejected
from headstart.files import shown
from headstart.images import formats

# The plugins themselves, not Image.open: that one imports and asks every plugin there is, the one that starts
# Ghostscript included, and measures by a pixel limit that any library in the process may have changed.
_OPEN: dict[str, Callable[[io.BytesIO], ImageFile.ImageFile]] = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "TIFF": TiffImagePlugin.TiffImageFile,
    "AVIF": AvifImagePlugin.AvifImageFile,
    "PPM": PpmImagePlugin.PpmImageFile,
}

_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}  # a pixel in memory; 4 in other modes
_PYTHON_CODECS = ("ppm", "ppm_plain")  # decoded by Pillow in plain Python: 3 to 5 microseconds a pixel
_ROWS_PER_STRIP = 278  # TIFF tag
_ORIENTATION = 0x0112  # EXIF and TIFF tag

_thread = threading.local()
_filters_change = threading.Lock()

# Pillow logs some damage as errors, which Python prints on stderr where nobody has set up logging. Whoever has still
# gets them.
logging.getLogger("PIL").addHandler(logging.NullHandler())


class _OnThisThread:
    """Stands where a warnings filter has its pattern for the module: matches Pillow on a thread that is decoding."""

    def match(self, module: str) -> bool:
        return module.startswith("PIL") and getattr(_thread, "decoding", False)


_FILTER: Any = ("ignore", None, Warning, _OnThisThread(), 0)


@contextmanager
def quiet() -> Iterator[None]:
    """Run a block without Pillow's warnings about odd files, whatever filters the process has, on this thread only.

    `warnings.catch_warnings` swaps the filters of the whole process, so two decoding threads would undo each other's
    change. The filter that is put in front here has no effect outside these blocks and on other threads.
    """
    _put_filter_first(cast("list[Any]", warnings.filters))
    _thread.decoding = True
    try:
        yield
    finally:
        _thread.decoding = False


def _put_filter_first(filters: list[Any]) -> None:
    with _filters_change:
        if not filters or filters[0] is not _FILTER:
            filters.insert(0, _FILTER)
            for place in range(len(filters) - 1, 0, -1):  # where somebody's own filter had come before it
                if filters[place] is _FILTER:
                    del filters[place]


def opened(source: bytes, found: str) -> ImageFile.ImageFile:
    """Read the header of a file by the plugin of its format; no pixel is decoded.

    Raises:
        ImageRejected: unidentified, corrupt, truncated or bomb.
    """
    if found == "TIFF":
        _silence_libtiff()
    try:
        return _OPEN[found](io.BytesIO(source))
    except Exception as error:
        raise rejection(error, source, found, opening=True) from None


def rejection(error: Exception, source: bytes, found: str, *, opening: bool = False) -> ImageRejected:
    """Put a reason to whatever Pillow raised while opening or decoding."""
    text = shown(str(error).strip() or type(error).__name__)[:160]
    lower = text.lower()
    if isinstance(error, MemoryError):
        return ImageRejected("bomb", f"memory ran out while decoding this {found}; free some, or scale the photo down")
    if isinstance(error, Image.DecompressionBombError) or "too large" in lower:
        return ImageRejected("bomb", f"this {found} would unpack to far more than a photo ({text})")
    if opening and isinstance(error, SyntaxError | IndexError | TypeError | KeyError | struct.error):
        return ImageRejected(
            "unidentified",
            f"it begins as {found}, but its header is damaged or of a variant that is not supported ({text}); "
            "save it again as 8-bit JPEG, PNG or TIFF",
        )
    cut = isinstance(error, EOFError) or ("truncated" in lower and (not opening or isinstance(error, RuntimeError)))
    if cut or formats.is_cut_off(source, found):
        return ImageRejected("truncated", f"the end of this {found} is missing ({text}); copy it again from its source")
    return ImageRejected("corrupt", f"the content of this {found} is damaged ({text}); copy it again from its source")


def draft(image: ImageFile.ImageFile, reduction: int) -> int:
    """Let libjpeg decode at 1/2, 1/4 or 1/8 of the size, up to `reduction`; the factor that it will use, else 1."""
    factor = min(reduction, 8)
    if factor == 1 or not isinstance(image, JpegImagePlugin.JpegImageFile):
        return 1
    width, height = image.size
    image.draft(image.mode, (width // factor, height // factor))
    return factor


def working_memory(image: ImageFile.ImageFile, source: bytes, found: str, pixels: int) -> int:
    """Upper bound of the memory that `load` needs at its peak, bytes, besides the file.

    Args:
        image: opened, and drafted if it will be.
        source: the file.
        found: its format.
        pixels: of the image before `draft`.
    """
    area = image.width * image.height
    stored = area * _BYTES.get(image.mode, 4)
    if found in ("WebP", "AVIF"):  # canvas or planes, a copy of them as bytes, and Pillow's own
        return 16 * area
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        return stored + _coefficients(image, source, pixels)
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        turned = image.tag_v2.get(_ORIENTATION, 1) != 1 or "xmp" in image.info  # Pillow turns a TIFF while loading
        rows = image.tag_v2.get(_ROWS_PER_STRIP, image.height)
        strip = min(1.0, rows / image.height) if codec(image) == "libtiff" else 0.0
        return int(stored * (2 if turned else 1 + strip))
    if codec(image) not in ("raw", "zip", "gif"):  # run-length BMP and the PPM forms that are decoded in Python
        return 4 * stored
    return stored


def is_slow(image: ImageFile.ImageFile, source: bytes, pixels: int) -> bool:
    """Whether a small file was made to keep the decoder busy for many seconds.

    A JPEG of many scans makes libjpeg pass over the whole picture for each; the rare forms of PPM are decoded in
    plain Python.
    """
    if isinstance(image, JpegImagePlugin.JpegImageFile) and _coefficients(image, source, pixels):
        return pixels * source.count(b"\xff\xda") > 1_000_000_000  # a pass takes 1 to 6 ms a megapixel
    return codec(image) in _PYTHON_CODECS and pixels > 500_000


def codec(image: ImageFile.ImageFile) -> str:
    """The name of the decoder that Pillow will use."""
    return image.tile[0].codec_name if image.tile else ""


def orientation_of(image: Image.Image) -> int | None:
    """The EXIF or XMP orientation, 1 to 8, of a loaded image; None if the metadata is damaged."""
    try:
        value = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # any: the plugins' metadata readers raise SyntaxError, struct.error, ValueError and more
        return None
    return value if value in range(1, 9) else 1


@cache
def _silence_libtiff() -> None:
    """Stop libtiff from printing on stderr, hundreds of lines for one damaged file; errors still reach Pillow.

    Pillow has no switch for it. Where the library cannot be reached (it is linked in statically), nothing changes.
    """
    with suppress(OSError, AttributeError):
        library = ctypes.CDLL(_imaging.__file__)  # its symbols include those of the libraries it links
        for setter in (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler):
            setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
            setter(None)


def _coefficients(image: JpegImagePlugin.JpegImageFile, source: bytes, pixels: int) -> int:
    """Bytes of the DCT coefficients that libjpeg keeps if colours or precision are spread over several scans."""
    scan = image.fp.tell() if image.fp else 0
    if not image.info.get("progressive") and not formats.jpeg_is_buffered(source, scan, len(image.layer)):
        return 0
    blocks = [across * down for _, across, down, _ in image.layer]
    most = max(c[1] for c in image.layer) * max(c[2] for c in image.layer)
    return int(2 * pixels * sum(blocks) / max(most, 1))
