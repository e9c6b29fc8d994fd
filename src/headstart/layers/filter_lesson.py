"""The filter lesson on a photo: from a file and a filter's name to numbers, pictures and data."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import UInt8

from headstart.errors import DataError, ImageRejected, UsageError
from headstart.files import new_directory, shown
from headstart.layers.filters import Filtered, Image, Products, filter_image, number, products_at
from headstart.layers.kernels import Kernel, checked_kernel, read_kernel, rotations
from headstart.layers.shape_reports import POOL_KINDS, PoolKind

if TYPE_CHECKING:
    from PIL import Image as PillowImage

PHOTO_SIDE = 360  # px; a larger photo is reduced to this, so that a 3x3 window still spans something visible
GREY = np.array([0.299, 0.587, 0.114])  # share of red, green, blue in brightness (ITU-R BT.601)
DEGREES = ("", "turned by 90 degrees", "turned by 180 degrees", "turned by 270 degrees")


@dataclass(frozen=True, eq=False)
class FilterResult:
    """A photo, a filter, and what comes of it.

    Args:
        name: the filter's name, or "your own".
        image: `(height, width)` or `(3, height, width)`, 0..255.
        note: what was done to the photo first.
        filtered: one a filter; four for the rotations, by 0, 90, 180, 270 degrees counter-clockwise.
        pool: the pooling window, pixels; None if there is none.
        pool_kind: what is made of a window.
        products: the products under the window asked for, one a filter; empty if none was.
    """

    name: str
    image: Image
    note: str
    filtered: tuple[Filtered, ...]
    pool: int | None
    pool_kind: PoolKind
    products: tuple[Products, ...] = ()

    def titles(self) -> list[str]:
        """The name of each filter."""
        return [self.name, *DEGREES[1:]][: len(self.filtered)]

    def to_text(self) -> str:
        """The filter's numbers, the size and range of each map, and the products asked for."""
        lines = [f"photo     {self.note}"]
        for index, (title, one) in enumerate(zip(self.titles(), self.filtered, strict=True)):
            lines += ["", f"filter    {title}", *_matrix_lines(one.kernel)]
            lines += [f"{name:<9} {_range(values)}" for name, values in self._maps(one)]
            if self.products:
                lines.append(self.products[index].to_text())
        return "\n".join(lines)

    def to_json(self) -> dict[str, object]:
        """The same for a program; the maps themselves are in the files that `save` writes."""
        return {
            "filter": self.name,
            "image": list(self.image.shape),
            "note": self.note,
            "pool": None if self.pool is None else {"size": self.pool, "kind": self.pool_kind},
            "results": [
                {
                    "degrees": 90 * turns,
                    "kernel": one.kernel.tolist(),
                    "maps": {
                        name: {"shape": list(values.shape), "min": float(values.min()), "max": float(values.max())}
                        for name, values in self._maps(one)
                    },
                    "at": _products_json(self.products[turns]) if self.products else None,
                }
                for turns, one in enumerate(self.filtered)
            ],
        }

    def picture(self) -> "PillowImage.Image":
        """Everything on one sheet."""
        from headstart.layers.filter_picture import draw_lesson

        pooling = None if self.pool is None else (self.pool, self.pool_kind)
        spot = self.products[0] if self.products else None
        return draw_lesson(self.image, self.note, self.filtered, self.titles(), pooling, spot)

    def save(self, folder: Path, overwrite: bool = False) -> Path:
        """Write `filter.png`, every array as `.npy`, and `filter.json`, into a new folder.

        Raises:
            OutputError: the folder exists and `overwrite` is false, or it cannot be written.
        """
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        with new_directory(folder, overwrite) as aside:
            (aside / "filter.png").write_bytes(buffer.getvalue())
            np.save(aside / "image.npy", self.image)
            for turns, one in enumerate(self.filtered):
                np.save(aside / f"kernel-{90 * turns}.npy", one.kernel)
                for name, values in self._maps(one):
                    np.save(aside / f"{name.replace(' ', '-')}-{90 * turns}.npy", values)
            (aside / "filter.json").write_text(json.dumps(self.to_json(), indent=1) + "\n", encoding="utf-8")
        return folder

    def _repr_png_(self) -> bytes:
        buffer = io.BytesIO()
        self.picture().save(buffer, "PNG")
        return buffer.getvalue()

    @staticmethod
    def _maps(one: Filtered) -> list[tuple[str, Image]]:
        """Every map of one filter by its name, in the order of computation."""
        maps: list[tuple[str, Image]] = [] if one.terms is None else [("channels", one.terms)]
        maps += [("response", one.response), ("relu", one.relu)]
        return maps if one.pooled is None else [*maps, ("pooled", one.pooled)]


def apply_filter(
    photo: Path | str | UInt8[np.ndarray, "height width"] | UInt8[np.ndarray, "height width 3"],
    kernel: str | Kernel = "top-edge",
    *,
    all_rotations: bool = False,
    colour: bool = False,
    pool: int | None = None,
    pool_kind: PoolKind = "max",
    at: tuple[int, int] | None = None,
    side: int | None = PHOTO_SIDE,
) -> FilterResult:
    """Filter a photo with a filter made by hand.

    Args:
        photo: a file, or pixels.
        kernel: a name of `headstart.layers.kernels.KERNELS`, a typed matrix as text, or an array.
        all_rotations: the filter and its rotations by 90, 180 and 270 degrees.
        colour: filter red, green and blue and add the three; else the brightness, in whole numbers. A filter of three
            matrices is always one for colour.
        pool: pool what is left after ReLU by windows of this many pixels, without overlap.
        pool_kind: 'max', 'average' or 'l2'.
        at: `(row, column)` of the response whose products to list.
        side: a photo with a longer side is reduced to this first, pixels; None never reduces.

    Raises:
        DataError: the file is not a photo that can be used.
        UsageError: the filter, the pool or the place does not exist.
        ShapeError: the filter or the pool is larger than the photo.

    >>> result = apply_filter(np.array([[0, 0, 9, 9]], dtype=np.uint8), "[[-1, 1]]", at=(0, 1))
    >>> result.filtered[0].response.tolist(), result.products[0].total
    ([[0.0, 9.0, 0.0]], 9.0)
    """
    name, matrix = read_kernel(kernel) if isinstance(kernel, str) else ("your own", checked_kernel(kernel))
    if pool_kind not in POOL_KINDS:
        raise UsageError(f"pool kind is {pool_kind!r}; expected one of {', '.join(POOL_KINDS)}")
    if pool is not None and pool < 1:
        raise UsageError(f"pool is {pool}; expected a window of at least 1 pixel")
    if side is not None and side < 1:
        raise UsageError(f"the longest side is {side}; expected at least 1 pixel")
    image, note = _read(photo, colour or matrix.ndim == 3, side)
    kernels = rotations(matrix) if all_rotations else (matrix,)
    filtered = tuple(filter_image(image, one, pool, pool_kind) for one in kernels)
    products = () if at is None else tuple(products_at(image, one, *at) for one in kernels)
    return FilterResult(name, image, note, filtered, pool, pool_kind, products)


def _read(photo: object, colour: bool, side: int | None) -> tuple[Image, str]:
    """The photo as numbers, reduced where it is large, and a sentence on that."""
    from PIL import Image as PillowImage

    pixels = photo if isinstance(photo, np.ndarray) else _pixels_of(Path(str(photo)))
    if pixels.ndim == 2:
        pixels = np.stack([pixels] * 3, axis=-1)
    height, width = pixels.shape[:2]
    note = f"{height} x {width} pixels"
    if side is not None and max(height, width) > side:
        scale = side / max(height, width)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = np.asarray(PillowImage.fromarray(pixels).resize(size, PillowImage.Resampling.LANCZOS))
        note = f"{size[1]} x {size[0]} pixels, reduced from {height} x {width}"
    numbers = pixels.astype(np.float64)
    return (np.ascontiguousarray(numbers.transpose(2, 0, 1)) if colour else np.rint(numbers @ GREY)), note


def _pixels_of(path: Path) -> UInt8[np.ndarray, "height width 3"]:
    """The upright colour pixels of a file. Raises DataError."""
    from headstart.images import decode, read_photo_bytes

    try:
        pixels: UInt8[np.ndarray, "height width 3"] = decode(read_photo_bytes(path), name=path.name).pixels
    except ImageRejected as error:
        raise DataError(f"{shown(path)} cannot be used as a photo: {error.detail}") from error
    return pixels


def _matrix_lines(kernel: Kernel) -> list[str]:
    """The numbers in columns; a blank line between the matrices of a colour filter."""
    planes = kernel if kernel.ndim == 3 else kernel[None]
    texts = [[[number(value) for value in row] for row in plane] for plane in planes]
    width = max(len(text) for plane in texts for row in plane for text in row)
    blocks = [[" " * 10 + " ".join(f"{text:>{width}}" for text in row) for row in plane] for plane in texts]
    return [line for index, block in enumerate(blocks) for line in ([""] if index else []) + block]


def _range(values: Image) -> str:
    return f"{' x '.join(map(str, values.shape))}, from {number(values.min())} to {number(values.max())}"


def _products_json(products: Products) -> dict[str, object]:
    return {
        "row": products.row,
        "column": products.column,
        "patch": products.patch.tolist(),
        "products": products.products.tolist(),
        "sum": products.total,
    }
