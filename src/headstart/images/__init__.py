"""The one decoder: whatever turns a file into pixels, in training, prediction or a service, goes through here.

A file is read only if it is a regular one of a sane size, decoded only if its first bytes name a format of the list of
readable ones, only if the pixels and the memory it asks for are within the limits, and only once: after the first error
the half-decoded image is dropped (a second `load()` of Pillow returns silently with wrong pixels). Whatever goes wrong
becomes `ImageRejected` with a reason from `REASONS`; damaged metadata does not lose a picture.
"""

import os
import stat
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
import PIL
from jaxtyping import UInt8
from PIL import ImageFile, features

from headstart.errors import ConfigError, ImageRejected, ShapeError, UsageError
from headstart.images import formats, pillow
from headstart.images.pixels import DEEP_MODES, to_rgb, upright

REASONS: dict[str, str] = {
    "missing": "there is no such file",
    "not_a_file": "it is a folder, a pipe, a device or a socket, not a regular file",
    "empty": "the file has no bytes",
    "too_large_file": "the file has more bytes than the limit",
    "unreadable": "the file cannot be read (permission, or an error of the disk)",
    "not_an_image": "the content is something else than an image",
    "unsupported_format": "an image, but in a format or variant that is not read here",
    "unidentified": "the beginning of the file is that of no image, or too damaged to tell",
    "bomb": "decoding would need more pixels or memory than the limit",
    "truncated": "the end of the file is missing",
    "corrupt": "the content is damaged",
    "too_small": "the photo has fewer pixels a side than the limit",
}

_CODECS = ("jpg", "libjpeg_turbo", "webp", "avif", "libtiff", "littlecms2")

DECODER_VERSION: str = " ".join(
    # The number is raised by hand whenever a pixel can change; a codec's own version can change pixels, too.
    ["1", f"pillow-{PIL.__version__}", *(f"{name}-{features.version(name)}" for name in _CODECS)]
)


@dataclass(frozen=True, kw_only=True)
class DecodeLimits:
    """What a file may ask for. A photo above a limit is refused before its pixels are decoded.

    Args:
        max_bytes: size of the file, bytes.
        max_pixels: width times height; the default admits the 200-megapixel photos of phones.
        max_memory: estimated peak while decoding, bytes, besides the file itself. Asking `decode` for a `target`
            lowers what a photo needs: a JPEG is then decoded at a fraction of its size.
        min_side: shorter side of the photo, pixels.
    """

    max_bytes: int = 256_000_000
    max_pixels: int = 250_000_000
    max_memory: int = 256 * 2**20
    min_side: int = 1

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if type(value) is not int or value < 1:
                raise ConfigError(f"{field.name} must be a whole number of at least 1, not {value!r}")


DEFAULT_LIMITS = DecodeLimits()


@dataclass(frozen=True, eq=False)
class Picture:
    """A decoded photo.

    Args:
        pixels: upright RGB, read-only; `ceil(height / reduction)` x `ceil(width / reduction)`.
        width: of the upright original, pixels.
        height: of the upright original, pixels.
        format: "JPEG", "PNG", ...; "array" for pixels that came as an array.
        mode: Pillow's name for the pixels as stored ("RGB", "L", "I;16", "CMYK", ...).
        frames: pictures in the file; only the first is decoded.
        notes: what a report should mention, in words.
        reduction: power of two; pixels of the original a pixel stands for, along each side.
    """

    pixels: UInt8[np.ndarray, "height width 3"]
    width: int
    height: int
    format: str
    mode: str
    frames: int = 1
    notes: tuple[str, ...] = ()
    reduction: int = 1

    def __post_init__(self) -> None:
        expected = (-(-self.height // self.reduction), -(-self.width // self.reduction), 3)
        if self.pixels.shape != expected:
            raise ShapeError(
                f"a picture of {self.width} x {self.height} px reduced by {self.reduction} has pixels of shape "
                f"{expected}, not {self.pixels.shape}"
            )


def read_photo_bytes(path: Path, limits: DecodeLimits = DEFAULT_LIMITS) -> bytes:
    """Read a photo's file, and only a regular file of a sane size: a pipe or a device never blocks or fills memory.

    Args:
        path: any path, hostile names included.
        limits: `max_bytes` applies.

    Returns:
        The content, at least one byte.

    Raises:
        ImageRejected: missing, not_a_file, empty, too_large_file or unreadable; the detail does not repeat the path.
    """
    try:
        _check_regular(Path(path).stat(), limits)  # before opening: that alone can disturb a device
        flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_NOCTTY", 0)
        with open(os.open(path, flags), "rb") as file:  # noqa: PTH123 (flags that Path.open does not offer)
            _check_regular(os.fstat(file.fileno()), limits)  # it may have been replaced since
            data = file.read(limits.max_bytes + 1)
    except (FileNotFoundError, NotADirectoryError):
        raise ImageRejected("missing", "no such file; it may have been moved or renamed") from None
    except OSError as error:
        raise ImageRejected(
            "unreadable", f"the file cannot be read ({error.strerror or type(error).__name__})"
        ) from None
    except ValueError:  # a NUL or a lone surrogate, which no file name can contain
        raise ImageRejected(
            "missing", "no such file: the name contains a character that no file name can have"
        ) from None
    if not data:
        raise ImageRejected("empty", "the file has no bytes; copy it again from its source")
    if len(data) > limits.max_bytes:
        raise _too_large(len(data), limits)
    return data


def decode(
    source: bytes | UInt8[np.ndarray, "..."],
    *,
    target: int | None = None,
    name: str = "",
    limits: DecodeLimits = DEFAULT_LIMITS,
) -> Picture:
    """Decode the first frame of a photo to upright RGB. The same bytes and target give the same pixels everywhere.

    A photo whose shorter side is at least twice `target` is reduced by a power of two such that the side stays at
    least `target`: a JPEG up to 8 times while it is decoded (libjpeg's scaled inverse DCT, which also saves the time),
    the rest, and every other format, by averaging blocks of pixels.

    Args:
        source: the bytes of a file, or pixels: uint8 of shape (height, width) or (height, width, 3).
        target: short side that must at least remain, pixels; None keeps every pixel.
        name: name of the file; only its suffix is looked at.
        limits: what the photo may ask for.

    Returns:
        The picture, its pixels read-only.

    Raises:
        ImageRejected: with a reason from `REASONS`.
        UsageError: another library in this process made Pillow invent the missing parts of truncated files.

    >>> decode(np.zeros((4, 6), np.uint8)).pixels.shape
    (4, 6, 3)
    """
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    found = _admit(source, name, limits)
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "PIL.ImageFile.LOAD_TRUNCATED_IMAGES is set in this process: Pillow would invent the missing parts of "
            "truncated photos; set it to False"
        )
    with pillow.quiet():
        return _decode_bytes(source, found, target, name, limits)


def _check_regular(status: os.stat_result, limits: DecodeLimits) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = {stat.S_IFDIR: "folder", stat.S_IFIFO: "pipe", stat.S_IFSOCK: "socket"}
        what = kind.get(stat.S_IFMT(status.st_mode), "device")
        raise ImageRejected("not_a_file", f"it is a {what}; give the path of a photo")
    if status.st_size > limits.max_bytes:
        raise _too_large(status.st_size, limits)


def _too_large(size: int, limits: DecodeLimits) -> ImageRejected:
    return ImageRejected(
        "too_large_file",
        f"the file has {size / 1e6:.0f} MB, the limit is {limits.max_bytes / 1e6:.0f} MB; "
        "save the photo smaller, or raise DecodeLimits(max_bytes=...)",
    )


def _admit(source: bytes, name: str, limits: DecodeLimits) -> str:
    """The format of a file that may be handed to its decoder."""
    if not source:
        raise ImageRejected("empty", "the file has no bytes; copy it again from its source")
    if len(source) > limits.max_bytes:
        raise _too_large(len(source), limits)
    found = formats.identify(source, name)
    if found is None:
        raise ImageRejected(
            "unidentified",
            "its first bytes are those of no known image format; it may be damaged: copy it again from its source",
        )
    if found in formats.UNSUPPORTED:
        raise ImageRejected("unsupported_format", f"{found} is not read here; convert the photo to JPEG or PNG")
    if found not in formats.READABLE:
        raise ImageRejected("not_an_image", f"the content is: {found}; put images only among the photos")
    return found


def _decode_bytes(source: bytes, found: str, target: int | None, name: str, limits: DecodeLimits) -> Picture:
    image = pillow.opened(source, found)
    mode, size, deep = image.mode, image.size, any(";16" in str(tile.args) for tile in image.tile)
    _check_size(size, limits)
    reduction = 1 if target is None else 1 << (max(1, min(size) // target).bit_length() - 1)
    try:
        drafted = pillow.draft(image, reduction)
        _check_work(image, source, found, size, reduction, limits)
        image.load()
        pixels, converted = to_rgb(image, reduction // drafted)
    except ImageRejected:
        raise
    except Exception as error:
        raise pillow.rejection(error, source, found) from None
    if found != "JPEG":
        size = image.size  # Pillow turns a TIFF upright while loading it
    orientation = 1 if found == "TIFF" else pillow.orientation_of(image)
    frames = _frames(image, source, found)
    notes = _notes(name, found, frames, orientation, deep and mode not in DEEP_MODES) + converted
    del image  # before the copy that turning makes
    if orientation in (5, 6, 7, 8):
        size = size[::-1]
    return Picture(upright(pixels, orientation or 1), *size, found, mode, frames, notes, reduction)


def _check_size(size: tuple[int, int], limits: DecodeLimits) -> None:
    width, height = size
    if width * height > limits.max_pixels:
        raise ImageRejected(
            "bomb",
            f"it has {width} x {height} = {width * height / 1e6:.0f} million pixels, the limit is "
            f"{limits.max_pixels / 1e6:.0f}; scale the photo down, or raise DecodeLimits(max_pixels=...)",
        )
    if min(size) < limits.min_side:
        raise ImageRejected(
            "too_small", f"it has {width} x {height} pixels, the limit is {limits.min_side} a side; leave it out"
        )


def _check_work(
    image: ImageFile.ImageFile, source: bytes, found: str, size: tuple[int, int], reduction: int, limits: DecodeLimits
) -> None:
    width, height = size
    pixels = width * height
    result = 3 * -(-width // reduction) * -(-height // reduction)
    needed = pillow.working_memory(image, source, found, pixels) + result
    if needed > limits.max_memory:
        raise ImageRejected(
            "bomb",
            f"decoding this {found} of {width} x {height} pixels needs about {needed / 2**20:.0f} MiB, the limit is "
            f"{limits.max_memory / 2**20:.0f}; scale the photo down, or raise DecodeLimits(max_memory=...)",
        )
    if pillow.is_slow(image, source, pixels):
        raise ImageRejected("bomb", f"decoding this variant of {found} would take too long; save it as JPEG or PNG")


def _frames(image: ImageFile.ImageFile, source: bytes, found: str) -> int:
    if found == "JPEG":
        return formats.count_multi_picture(image.info.get("mp", b""))
    if found in ("GIF", "TIFF"):
        return formats.count_frames(source, found)
    return int(getattr(image, "n_frames", 1))


def _notes(name: str, found: str, frames: int, orientation: int | None, deep: bool) -> tuple[str, ...]:
    notes = [
        formats.suffix_note(name, found),
        f"only the first of {frames} frames is used" if frames > 1 else None,
        "the EXIF data is damaged: taken as upright" if orientation is None else None,
        "16 bits a channel: the upper 8 are used" if deep else None,
    ]
    return tuple(note for note in notes if note)


def _from_array(array: UInt8[np.ndarray, "..."], limits: DecodeLimits) -> Picture:
    grey = array.ndim == 2
    if array.dtype != np.uint8 or not (grey or (array.ndim == 3 and array.shape[2] == 3)):
        raise ImageRejected(
            "unsupported_format",
            f"pixels must be uint8 of shape (height, width) or (height, width, 3), not {array.dtype} of {array.shape}",
        )
    if array.size == 0:
        raise ImageRejected("empty", f"there are no pixels in an array of shape {array.shape}")
    height, width = array.shape[:2]
    _check_size((width, height), limits)
    pixels = np.repeat(array[:, :, None], 3, axis=2) if grey else array.view()
    pixels.flags.writeable = False
    return Picture(pixels, width, height, "array", "L" if grey else "RGB")
