"""What is remembered of each photo besides its features: its content's digest, its size, its look at a glance."""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

QUALITY_VERSION = "1"  # part of the cache key of the facts: raise it when a fingerprint or a field can change
THUMB_SIDE = 16  # cells


@dataclass(frozen=True, eq=False, slots=True)
class PhotoFacts:
    """The facts of one photo that need its bytes or its pixels.

    Args:
        digest: SHA-256 of the file's bytes (or of the array with its shape), hexadecimal.
        rejected: (reason code, sentence) of a photo that cannot be used, else None. The fields below are then empty.
        width, height: upright size of the original, pixels.
        format: as Pillow names it ("JPEG", "PNG", ...; "array" for pixels that never were a file).
        mode: Pillow's colour mode of the original ("RGB", "L", "I;16", ...).
        notes: what the decoder had to do ("16-bit scaled to 8", ...).
        dhash: 64-bit difference hash, 0 <= dhash < 2**64, for tools that search by it; near copies here are found by
            the thumbnail, which takes fewer different photos for copies.
        thumb: mean luminance of the upright whole photo in 16 x 16 cells, 0..255; None only if `rejected`.
    """

    digest: str
    rejected: tuple[str, str] | None = None
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    notes: tuple[str, ...] = ()
    dhash: int = 0
    thumb: UInt8[np.ndarray, "16 16"] | None = None

    def to_dict(self) -> dict[str, Any]:
        """A form that JSON can hold: the hash in hexadecimal, the thumbnail as base64 of its 256 bytes, row by row."""
        return {
            "digest": self.digest,
            "rejected": None if self.rejected is None else list(self.rejected),
            "width": self.width,
            "height": self.height,
            "format": self.format,
            "mode": self.mode,
            "notes": list(self.notes),
            "dhash": f"{self.dhash:016x}",
            "thumb": None if self.thumb is None else base64.b64encode(self.thumb.tobytes()).decode("ascii"),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "PhotoFacts":
        """The facts that `to_dict` wrote."""
        rejected, thumb = values["rejected"], values["thumb"]
        if thumb is not None:
            thumb = np.frombuffer(base64.b64decode(thumb), dtype=np.uint8).reshape(THUMB_SIDE, THUMB_SIDE)
        return cls(
            digest=values["digest"],
            rejected=None if rejected is None else (rejected[0], rejected[1]),
            width=values["width"],
            height=values["height"],
            format=values["format"],
            mode=values["mode"],
            notes=tuple(values["notes"]),
            dhash=int(values["dhash"], 16),
            thumb=thumb,
        )


def photo_fingerprint(pixels: UInt8[np.ndarray, "height width 3"]) -> tuple[int, UInt8[np.ndarray, "16 16"]]:
    """What a photo looks like at a glance: a 64-bit difference hash and a thumbnail of its luminance.

    The filter weighs neighbouring cells softly (Hamming window): a plain box gives every pixel to one cell, which
    moves whole columns of a small photo to another cell in its resized copy (`benchmarks/duplicates.py` measures both).

    Args:
        pixels: the upright whole photo, RGB, 0..255, at any scale.

    Returns:
        The difference hash: bit 63 - (8 * row + column) says that, of the photo in 8 rows of 9 cells, the cell right of
        this one is brighter (Krawetz, "Kind of like that", 2013). And the thumbnail: luminance (ITU-R 601), 16 x 16.

    >>> ramp = np.repeat(np.arange(0, 252, 4, dtype=np.uint8)[None, :, None], 3, axis=2).repeat(50, axis=0)
    >>> dhash, thumb = photo_fingerprint(ramp)
    >>> dhash == 2**64 - 1, thumb.shape, bool(np.all(thumb == thumb[0]))
    (True, (16, 16), True)
    """
    height, width, _ = pixels.shape
    # A whole-number box reduction first, to no less than 64 pixels a side, halves the time of a photo.
    step = (max(1, width // 64), max(1, height // 64))
    small, whole = Image.fromarray(pixels).reduce(step).convert("L"), (0.0, 0.0, width / step[0], height / step[1])
    cells = np.asarray(small.resize((9, 8), Image.Resampling.HAMMING, box=whole))
    thumb = np.asarray(small.resize((THUMB_SIDE, THUMB_SIDE), Image.Resampling.HAMMING, box=whole))
    return int.from_bytes(np.packbits(cells[:, 1:] > cells[:, :-1]).tobytes(), "big"), thumb
