"""The pictures of the report, each made anew from pixels, so that no metadata of a photo is in it."""

import base64
import io
from collections.abc import Sequence

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from headstart.errors import ImageRejected
from headstart.images import decode

THUMBNAIL_SIDE = 208  # pixels of the longer side; the page shows them about 168 wide
SMALL_SIDE = 104  # of the photos of a cell: hundreds of them are in a page
QUALITY = 72
GOOD, BAD = np.array([0, 114, 178]), np.array([213, 94, 0])  # blue and vermilion of Okabe & Ito's colour-blind-safe set


def make_thumbnail(source: bytes | np.ndarray, side: int = THUMBNAIL_SIDE) -> bytes | None:
    """A small JPEG of a photo, made anew from its pixels, so that no metadata of the original is left in it.

    Args:
        source: the bytes of an image file, or uint8 pixels (height, width) or (height, width, 3).
        side: pixels of the longer side, at most.

    Returns:
        The bytes of a JPEG, or None if the photo cannot be decoded.
    """
    try:
        picture = decode(source, target=side * 3 // 4)  # the short side of a usual photo
    except ImageRejected:
        return None
    image = Image.fromarray(picture.pixels)
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return jpeg(image)


def jpeg(image: Image.Image) -> bytes:
    """The bytes of a JPEG of the quality that the report uses."""
    out = io.BytesIO()
    image.save(out, "JPEG", quality=QUALITY, optimize=True)
    return out.getvalue()


def as_text(data: bytes | None) -> str | None:
    """Base64, as a page holds a picture; None stays None."""
    return None if data is None else base64.b64encode(data).decode()


def matrix_picture(confusion: Sequence[Sequence[int]] | None) -> str | None:
    """Draw a large confusion matrix, one pixel a cell: base64 of a PNG."""
    if confusion is None:
        return None
    image = Image.fromarray(shade_matrix(np.asarray(confusion, dtype=np.float64)))
    out = io.BytesIO()
    image.save(out, "PNG", optimize=True)
    return as_text(out.getvalue())


def shade_matrix(counts: np.ndarray) -> UInt8[np.ndarray, "classes classes 3"]:
    """Colour a confusion matrix: white for none; blue on the diagonal, vermilion off it, deeper with the row's share.

    Off the diagonal, where shares are small, the square root of the share decides.

    Args:
        counts: (classes, classes), rows are labels.
    """
    share = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    diagonal = np.eye(len(counts), dtype=bool)
    depth = np.where(counts > 0, 0.2 + 0.8 * np.where(diagonal, share, np.sqrt(share)), 0.0)[..., None]
    colour = np.where(diagonal[..., None], GOOD, BAD)
    return np.rint(255 + depth * (colour - 255.0)).astype(np.uint8)
