"""Where each unit of a layer is excited most, in every photo of a set: computed once, kept, continued when interrupted.

Of each photo and unit the largest value before the activation and its place are kept (behind a ReLU6 every saturated
unit would be a tie at 6), with and without the units at the border of the map, which see padding. Nothing else of the
maps stays. The results lie in the cache folder `scans/`, a file for each 100 photos, under a key of everything they
depend on.
"""

import hashlib
import io
import json
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32

from headstart.backbones.engines import available_threads
from headstart.dataset import Dataset
from headstart.dataset import Photo as Listed
from headstart.errors import DataError, ImageRejected, UsageError
from headstart.explain.explanation import Step, silent
from headstart.explain.subject import Subject
from headstart.features.decoding import content_digest
from headstart.files import cache_dir, shown, write_atomic, write_failure
from headstart.images import DECODER_VERSION, decode
from headstart.look.maps import Route, layer_maps, route_to
from headstart.look.wiring import ceiling_of, refuse_not_finite, row_of
from headstart.nets import NETS_VERSION
from headstart.readers import open_dataset
from headstart.readers.walk import walk

PIECE = 100  # photos a file of the cache: what an interruption costs at most
SCAN_VERSION = "2"  # part of every key: raise it when the same photos could give other numbers
DECODERS = 4
KEPT = ("values", "places", "inner_values", "inner_places", "saturated")


@dataclass(frozen=True, eq=False)
class Scan:
    """The maxima of every unit of a layer in every photo.

    Args:
        layer: as it was named.
        dataset: the photos; without labels where nobody gave any.
        grid: rows and columns of the layer's maps.
        ceiling: where its activation stops rising; None: nowhere, or none.
        rectified: a rectifier follows, so that a unit whose values are all below 0 passes nothing on.
        hashes: of each photo's content; "" where it could not be read.
        values: the largest value before the activation, (photos, units); NaN of photos that could not be read.
        places: where, as row * columns + column; of equal ones the first; -1 of photos that could not be read.
        inner_values, inner_places: the same without the outermost rows and columns; NaN and -1 in maps without others.
        saturated: share of the places, 0..1, that reach the ceiling.
        rejected: why photos could not be read, by their number.
    """

    layer: str
    dataset: Dataset = field(repr=False)
    grid: tuple[int, int]
    ceiling: float | None
    rectified: bool
    hashes: tuple[str, ...] = field(repr=False)
    values: Float32[np.ndarray, "photos units"] = field(repr=False)
    places: Int32[np.ndarray, "photos units"] = field(repr=False)
    inner_values: Float32[np.ndarray, "photos units"] = field(repr=False)
    inner_places: Int32[np.ndarray, "photos units"] = field(repr=False)
    saturated: Float32[np.ndarray, "photos units"] = field(repr=False)
    rejected: dict[int, str] = field(repr=False)

    @property
    def units(self) -> int:
        """How many the layer has."""
        return int(self.values.shape[1])

    @property
    def read(self) -> int:
        """How many photos could be read."""
        return len(self.hashes) - len(self.rejected)

    def best(self, unit: int, count: int, no_border: bool = False) -> list[int]:
        """The photos that excite a unit most: by value, equal ones by name; each content once.

        Args:
            unit: of the layer.
            count: at most so many.
            no_border: by the largest value that is not at the border of the map.

        Returns:
            Places in `dataset.photos`.

        Raises:
            UsageError: there is no such unit, or all of the map is border.
        """
        if not 0 <= unit < self.units:
            raise UsageError(f"{shown(self.layer)} has the units 0 to {self.units - 1}; there is no unit {unit}")
        if no_border and min(self.grid) < 3:
            raise UsageError(f"all of a map of {self.grid[0]} x {self.grid[1]} is border; leave the border in")
        values = (self.inner_values if no_border else self.values)[:, unit]
        names = [photo.path for photo in self.dataset.photos]
        order = sorted(np.flatnonzero(np.isfinite(values)).tolist(), key=lambda photo: (-values[photo], names[photo]))
        chosen: dict[str, int] = {}
        for photo in order:
            if len(chosen) == count:
                break
            chosen.setdefault(self.hashes[photo], photo)
        return list(chosen.values())

    def place(self, photo: int, unit: int, no_border: bool = False) -> tuple[int, int]:
        """Row and column of a unit's largest value in a photo."""
        at = int((self.inner_places if no_border else self.places)[photo, unit])
        return at // self.grid[1], at % self.grid[1]

    def value(self, photo: int, unit: int, no_border: bool = False) -> float:
        """A unit's largest value in a photo, before the activation."""
        return float((self.inner_values if no_border else self.values)[photo, unit])

    def facts(self, unit: int) -> dict[str, float | None]:
        """Shares, 0..1, over the photos that could be read.

        Returns:
            "saturated": places at the ceiling; "dead": photos in which the unit passes nothing on (None: no rectifier
            follows); "border": photos whose maximum lies on the border of the map; "border_places": what that would be
            if every place were equally likely.
        """
        seen = np.isfinite(self.values[:, unit])
        rows, columns = self.grid
        row, column = self.places[seen, unit] // columns, self.places[seen, unit] % columns
        border = (row == 0) | (row == rows - 1) | (column == 0) | (column == columns - 1)
        inside = max(0, rows - 2) * max(0, columns - 2)
        return {
            "saturated": float(self.saturated[seen, unit].mean()) if self.ceiling is not None else None,
            "dead": float((self.values[seen, unit] <= 0).mean()) if self.rectified else None,
            "border": float(border.mean()),
            "border_places": 1 - inside / (rows * columns),
        }


def photos_of(sources: Dataset | str | Path | Sequence[str | Path]) -> Dataset:
    """The photos to scan: a data set with its labels, or files and folders without.

    Args:
        sources: a data set or what `headstart.readers.open_dataset` takes; else a folder of photos, or several files
            and folders.

    Raises:
        DataError: there is no photo.
    """
    if isinstance(sources, Dataset):
        return sources
    given = [sources] if isinstance(sources, str | Path) else list(sources)
    if len(given) == 1 and not Path(given[0]).is_file():
        try:
            return open_dataset(given[0])
        except DataError:
            if not Path(given[0]).is_dir():
                raise
    paths: list[str] = []
    for source in given:
        path = Path(source)
        paths += [str(path / name) for name in walk(path).files] if path.is_dir() else [str(path)]
    if not paths:
        raise DataError(f"no photos in {', '.join(shown(str(source)) for source in given) or 'nothing'}")
    name = shown(str(given[0])) if len(given) == 1 else "the files given"
    return Dataset(name, Path(), (), tuple(Listed(path, -1) for path in dict.fromkeys(paths)))


def scan(
    subject: Subject, sources: Dataset | str | Path | Sequence[str | Path], layer: str, step: Step = silent
) -> Scan:
    """Find where each unit of a layer is excited most, in every photo.

    What was computed before is taken from the cache, a hundred photos at a time; after an interruption the next call
    goes on where this one stopped.

    Args:
        subject: the net.
        sources: as of `photos_of`.
        layer: a stage, a block or a layer.
        step: told how many photos are done.

    Raises:
        UsageError: there is no such layer.
        DataError: no photo can be read, or the layer's values are not finite.
    """
    route, row, dataset = route_to(subject, layer), row_of(subject, layer), photos_of(sources)
    shape = row.output_shape
    rows, columns, units = shape if len(shape) == 3 else (1, 1, shape[0])
    ceiling = ceiling_of(subject, row)
    folder = _folder(subject, route, row.name)
    pieces: list[dict[str, Any]] = []
    hashes: list[str] = []
    rejected: dict[int, str] = {}
    for start in range(0, len(dataset.photos), PIECE):
        listed = dataset.photos[start : start + PIECE]
        step(start, len(dataset.photos), "photos scanned")
        found = [_digest(dataset, photo) for photo in listed]

        def tell(done: int, start: int = start) -> None:
            step(start + done, len(dataset.photos), "photos scanned")

        known = _piece(subject, route, dataset, listed, found, folder, (units, rows, columns), ceiling, tell)
        pieces.append(known)
        hashes += found
        reasons = json.loads(bytes(known["rejected"]).decode())
        rejected |= {start + int(number): reason for number, reason in reasons.items()}
    step(len(dataset.photos), len(dataset.photos), "photos scanned")
    if len(rejected) == len(dataset.photos):
        raise DataError(f"none of the {len(rejected)} photos can be read; the first: {next(iter(rejected.values()))}")
    joined = {name: np.concatenate([piece[name] for piece in pieces]) for name in KEPT}
    rectified = row.type in ("ReLU", "ReLU6", "Hardtanh")
    return Scan(layer, dataset, (rows, columns), ceiling, rectified, tuple(hashes), **joined, rejected=rejected)


def _digest(dataset: Dataset, photo: Listed) -> str:
    try:
        return content_digest(dataset.fetch(photo))
    except ImageRejected as error:
        return f"rejected {error}"


def _folder(subject: Subject, route: Route, module: str) -> Path:
    """Where the pieces of this net and layer lie."""
    told = (SCAN_VERSION, NETS_VERSION, DECODER_VERSION, subject.weights, module, route.output, route.engine)
    key = hashlib.sha256(json.dumps([*told, subject.preprocessing.to_dict()]).encode()).hexdigest()
    folder = cache_dir() / "scans" / key[:32]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_failure(folder, error) from error
    return folder


def _piece(
    subject: Subject,
    route: Route,
    dataset: Dataset,
    listed: Sequence[Listed],
    hashes: Sequence[str],
    folder: Path,
    shape: tuple[int, int, int],
    ceiling: float | None,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    """The numbers of up to 100 photos, from the cache or computed and kept."""
    path = folder / f"{hashlib.sha256(' '.join(hashes).encode()).hexdigest()[:32]}.npz"
    if (known := _kept(path, len(listed), shape[0])) is not None:
        return known
    made = _computed(subject, route, dataset, listed, shape, ceiling, tell)
    content = io.BytesIO()
    np.savez_compressed(content, **made)
    write_atomic(path, content.getvalue())
    return made


def _kept(path: Path, photos: int, units: int) -> dict[str, Any] | None:
    """A piece from the cache; None where there is none, or a damaged one."""
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            known = {name: file[name] for name in (*KEPT, "rejected")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error):
        return None
    return known if all(known[name].shape == (photos, units) for name in KEPT) else None


def _computed(
    subject: Subject,
    route: Route,
    dataset: Dataset,
    listed: Sequence[Listed],
    shape: tuple[int, int, int],
    ceiling: float | None,
    tell: Callable[[int], None],
) -> dict[str, Any]:
    units, rows, columns = shape
    made: dict[str, Any] = {name: np.full((len(listed), units), np.nan, np.float32) for name in KEPT}
    for name in ("places", "inner_places"):
        made[name] = np.full((len(listed), units), -1, np.int32)
    rejected: dict[int, str] = {}
    under_way: list[int] = []

    def pictures() -> Iterator[Any]:
        for number, pixels in enumerate(pool.map(lambda photo: _prepared(subject, dataset, photo), listed)):
            if isinstance(pixels, ImageRejected):
                rejected[number] = f"{shown(listed[number].path)}: {pixels}"
            else:
                under_way.append(number)
                yield pixels

    pool = ThreadPoolExecutor(min(subject.threads or available_threads(), DECODERS), thread_name_prefix="decode")
    try:
        for done, maps in enumerate(layer_maps(subject, route, pictures())):
            refuse_not_finite(subject, route.layer, maps)
            tell(under_way[done])
            _keep_maxima(made, under_way[done], maps, (rows, columns), ceiling)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return made | {"rejected": np.frombuffer(json.dumps(rejected).encode(), np.uint8)}


def _prepared(subject: Subject, dataset: Dataset, photo: Listed) -> Any:
    try:
        content = dataset.fetch(photo)
        picture = decode(content, target=subject.preprocessing.decode_target(), name=photo.path)
        return subject.preprocessing.apply(picture)
    except ImageRejected as error:
        return error


def _keep_maxima(
    made: dict[str, Any], number: int, maps: Float32[np.ndarray, "units rows columns"], grid: tuple[int, int],
    ceiling: float | None,
) -> None:  # fmt: skip
    """Write one photo's row: its maxima with and without the border, and how much is saturated."""
    flat = maps.reshape(len(maps), -1)
    best = flat.argmax(axis=1)
    made["places"][number] = best
    made["values"][number] = np.take_along_axis(flat, best[:, None], axis=1)[:, 0]
    made["saturated"][number] = 0.0 if ceiling is None else (flat >= ceiling).mean(axis=1)
    columns = grid[1]
    if min(grid) >= 3:
        inner = maps[:, 1:-1, 1:-1].reshape(len(maps), -1)
        at = inner.argmax(axis=1)
        made["inner_values"][number] = np.take_along_axis(inner, at[:, None], axis=1)[:, 0]
        made["inner_places"][number] = (at // (columns - 2) + 1) * columns + at % (columns - 2) + 1
