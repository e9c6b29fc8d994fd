"""How far the maps of a net can be trusted, measured on that net: one table, with what must be beaten beside it.

Five questions: does a map add up to what it explains (identity); does it change when the last layer forgets what it
learned (sanity); does it point at the right photo of a mosaic, and at a photo pasted on grey (pointing); and does the
net need the pixels that it marks (curves)? A map that passes one of them may fail another, so all stand together.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from PIL import Image

from headstart.allocator import memory_kept
from headstart.errors import DataError, UsageError
from headstart.explain import METHODS, default_methods
from headstart.explain.explanation import Asked, Found, Method, Step, silent
from headstart.explain.subject import Photo, Subject
from headstart.files import shown
from headstart.look.curves import BASELINES, curves, edges, map_order, order_of
from headstart.look.material import Data, Material, gather
from headstart.look.mosaic import Made, Sure, draw_mosaics, evidence, known_small, paste, pointed, pointing
from headstart.look.randomise import sanity, verdict

PHOTOS = 12


@dataclass(frozen=True)
class Mean:
    """A mean and how sure it is.

    Args:
        value: the mean; NaN where there is nothing.
        spread: half of its 95 % interval, `1.96 s / sqrt(n)`; NaN where n < 2.
        n: of how many.
    """

    value: float
    spread: float
    n: int

    def __str__(self) -> str:
        if not math.isfinite(self.value):
            return "–"
        return f"{self.value:.2f}" + (f" ±{self.spread:.2f}" if math.isfinite(self.spread) else "")

    def to_json(self) -> dict[str, float | int | None]:
        """`{"mean", "spread", "n"}`, None for what is not known."""
        known = [number if math.isfinite(number) else None for number in (self.value, self.spread)]
        return {"mean": known[0], "spread": known[1], "n": self.n}


def mean_of(values: Float[np.ndarray, "values"]) -> Mean:
    """The mean of the finite values."""
    known = values[np.isfinite(values)]
    spread = 1.96 * float(known.std(ddof=1)) / math.sqrt(len(known)) if len(known) > 1 else math.nan
    return Mean(float(known.mean()) if len(known) else math.nan, spread, len(known))


#: the numbers of a method, in the order of the table, and what each is
TESTS: dict[str, str] = {
    "sanity": "last layer shuffled: like before",
    "mosaic_peak": "mosaic: peak on its photo",
    "mosaic_mass": "mosaic: share on its photo",
    "pasted_peak": "pasted photo: peak on it",
    "pasted_mass": "pasted photo: share on it",
    "gain": "insertion - deletion",
    "margin": "... above that of the centre",
}


@dataclass(frozen=True, eq=False)
class Judged:
    """What was measured of one method.

    Args:
        method: the method.
        residual: the largest by which its map misses what it must add up to, as a share; None: it has no identity.
        holds: whether it always stays within the tolerance.
        numbers: by key of `TESTS`; those that could not be measured are missing.
        missing: why nothing could be measured; "" if something was.
        stamps: words that the pictures of this method carry, for one of these photos or more.
    """

    method: Method
    residual: float | None = None
    holds: bool = True
    numbers: Mapping[str, Mean] = field(default_factory=dict)
    missing: str = ""
    stamps: tuple[str, ...] = ()

    @property
    def says(self) -> str:
        """What the sanity check implies, then the stamps."""
        words = [] if "sanity" not in self.numbers else [verdict(self.numbers["sanity"].value)]
        if self.numbers and not self.method.class_specific:
            words.append("not class-specific")
        return "; ".join(dict.fromkeys([*words, *self.stamps]))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "method": self.method.name,
            "identity": None if self.residual is None else {"residual": self.residual, "holds": self.holds},
            **{key: number.to_json() for key, number in self.numbers.items()},
            "says": self.says,
            "missing": self.missing,
        }


@dataclass(frozen=True, eq=False)
class Trust:
    """How far the maps of a net can be trusted. It never changes; `print(trust.to_text())` shows the table.

    Args:
        subject: name of the net.
        data: name of the data.
        photos: how many photos of which the net is sure were used.
        seed: of photos, mosaics, places and shuffling.
        judged: one a method, in the order asked for.
        to_beat: by key of `TESTS`: what a map that knows nothing of the net reaches, by name.
        notes: what could not be measured, and what stands behind the numbers.
        example: a mosaic; None where there is none.
        maps: by method: what the map for the mosaic's first class marks, over the input.
        skipped: photos that were tried and cannot be read: path and reason.
    """

    subject: str
    data: str
    photos: int
    seed: int
    judged: tuple[Judged, ...]
    to_beat: Mapping[str, Mapping[str, Mean]]
    notes: tuple[str, ...] = ()
    example: Made | None = None
    maps: Mapping[str, Float64[np.ndarray, "size size"]] = field(default_factory=dict)
    skipped: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """The table as plain values."""
        return {
            "subject": self.subject,
            "data": self.data,
            "photos": self.photos,
            "seed": self.seed,
            "methods": [one.to_json() for one in self.judged],
            "to_beat": {key: {name: mean.to_json() for name, mean in row.items()} for key, row in self.to_beat.items()},
            "notes": list(self.notes),
        }

    def to_text(self) -> str:
        """The table: a test a line, a method a column, and what must be beaten."""
        rows = [["", *(one.method.name for one in self.judged), "to beat"]]
        identity = ["-" if one.residual is None else _residual(one) for one in self.judged]
        rows.append(["adds up to the logit: off by", *identity, ""])
        for key, title in TESTS.items():
            beaten = ", ".join(f"{name} {mean.value:.2f}".strip() for name, mean in self.to_beat.get(key, {}).items())
            rows.append([title, *(str(one.numbers.get(key, "–")) for one in self.judged), beaten])
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        table = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        said = [f"{one.method.name}: {one.says}" for one in self.judged if one.says]
        head = f"{shown(self.subject)} on {self.photos} photos of {shown(self.data)} (seed {self.seed}); ± 95 %"
        return "\n".join([head, "", *table, "", *said, *self.notes])

    def sheet(self) -> Image.Image:
        """The table as a picture, with one mosaic."""
        from headstart.look.trust_sheet import draw

        return draw(self)

    def files(self) -> dict[str, Any]:
        """What is worth keeping, by file name."""
        kept: dict[str, Any] = {"trust.png": self.sheet()}
        return kept | {f"mosaic-{name}.npy": values.astype(np.float32) for name, values in self.maps.items()}


def _residual(one: Judged) -> str:
    residual = one.residual or 0.0
    return f"{100 * residual:.1f} %" if residual > 1e-3 else f"{residual:.0e}"


@memory_kept()
def trust(
    subject: Subject,
    data: Data,
    methods: Sequence[str | Method] = (),
    *,
    photos: int = PHOTOS,
    seed: int = 0,
    step: Step = silent,
) -> Trust:
    """Measure how far the maps of a net can be trusted.

    Args:
        subject: the net.
        data: anything `headstart train` takes, or a folder of photos, or a list of photos and folders; labels are used
            where they are classes of the net.
        methods: names of `headstart.explain.METHODS`; none: the usual ones.
        photos: to use, >= 1; half as many mosaics are made, and twice as many pasted photos.
        seed: the same gives the same table.
        step: told how far the work is.

    Returns:
        The table. What cannot be measured here is missing in it, and `notes` say why.

    Raises:
        UsageError: an unknown method, or photos < 1.
        DataError: no photo can be read, or the net is right about none.
    """
    if photos < 1:
        raise UsageError(f"photos must be at least 1, not {photos}")
    asked = [_method(entry) for entry in methods or default_methods(subject)]
    material = gather(subject, data, photos, seed, step)
    if not material.sure:
        raise DataError(
            f"{shown(subject.name)} is right about no photo of {shown(material.name)}; give photos it knows"
        )
    work = _Work(subject, material, seed, step)
    work.prepare(asked)
    for test in (work.sanity, work.mosaics, work.pasted, work.curves):
        test()
    return work.result(asked)


def _method(entry: str | Method) -> Method:
    if isinstance(entry, Method):
        return entry
    if entry not in METHODS:
        raise UsageError(f"there is no method {shown(entry)!r}; choose from: {', '.join(METHODS)}")
    return METHODS[entry]


class _Work:
    """One call of `trust` under way: what is known so far of each method, by name."""

    def __init__(self, subject: Subject, material: Material, seed: int, step: Step) -> None:
        self._subject, self._material, self._seed, self._step = subject, material, seed, step
        self._methods: list[Method] = []  # those that do not refuse this net
        self._found: dict[str, list[Found]] = {}
        self._numbers: dict[str, dict[str, Mean]] = {}
        self._missing: dict[str, str] = {}
        self._to_beat: dict[str, dict[str, Mean]] = {}
        self._notes = list(material.notes)
        self._example: Made | None = None

    @property
    def _sure(self) -> tuple[Sure, ...]:
        return self._material.sure

    def prepare(self, methods: Sequence[Method]) -> None:
        """Explain every photo by every method; one that refuses the first photo is left out, and the notes say why."""
        first, *rest = self._sure
        for method in methods:
            try:
                self._found[method.name] = [self._explained(method, first.photo, first.target)]
                self._methods.append(method)
            except UsageError as error:
                self._missing[method.name] = str(error)
                self._notes.append(f"{method.name} cannot be measured: {error}")
        for number, one in enumerate(rest, start=2):
            for method in self._methods:
                self._found[method.name].append(self._explained(method, one.photo, one.target))
            self._step(number, len(self._sure), "photos explained")

    def _explained(self, method: Method, photo: Photo, target: int) -> Found:
        return method.find(Asked(self._subject, photo, target, seed=self._seed, settings=method.settings))

    def sanity(self) -> None:
        """After the last layer is shuffled."""
        if not self._methods:
            return
        pairs = [(one.photo, one.target) for one in self._sure]
        try:
            level = sanity(self._subject, pairs, self._methods, seed=self._seed, before=self._found, step=self._step)[0]
        except UsageError as error:  # the head has no form as layers
            self._notes.append(f"shuffling the last layer cannot be measured: {error}")
            return
        for method in self._methods:
            self._put(method, "sanity", level.correlations[method.name])

    def mosaics(self) -> None:
        """2 x 2 photos of known classes."""
        spare, count = self._material.spare, max(1, len(self._sure) // 2)
        small = known_small(self._subject, spare)
        try:
            made = draw_mosaics(self._subject, small, count, self._seed)
        except UsageError:
            try:
                made = draw_mosaics(self._subject, spare, count, self._seed)
            except UsageError as error:
                self._notes.append(f"mosaics cannot be measured: {error}")
                return
            self._notes.append(f"the net knows only {len(small)} photos at half the size: mosaics show others, too")
        else:
            self._notes.append(f"mosaics are of the {len(small)} of {len(spare)} photos that it knows at half the size")
        self._example = made[0]
        self._point(made, "mosaic")

    def pasted(self) -> None:
        """Each photo, small, at two random places."""
        random = np.random.default_rng(self._seed)
        self._point([paste(self._subject, one, random) for one in self._sure for _ in range(2)], "pasted")

    def _point(self, made: Sequence[Made], test: str) -> None:
        """Every method, and as a baseline what knows nothing of the net: chance, and the edges of the picture."""
        areas = [(one.photo.pixels, area) for one in made for area in one.areas.values()]
        chance = Mean(float(np.mean([area.mean() for _, area in areas])), math.nan, len(areas))
        blind = np.array([pointed(edges(pixels, 0), area) for pixels, area in areas], np.float64)
        for place, key in enumerate(("peak", "mass")):
            self._to_beat[f"{test}_{key}"] = {"chance": chance, "edges": mean_of(blind[:, place])}
        for method in self._methods:
            where = pointing(self._subject, made, method, seed=self._seed, step=self._step)
            self._put(method, f"{test}_peak", where.right.astype(np.float64))
            self._put(method, f"{test}_mass", where.mass)

    def curves(self) -> None:
        """Deletion and insertion, with the baselines."""
        side = self._subject.preprocessing.size
        gains: dict[str, list[float]] = {}
        for number, one in enumerate(self._sure):
            orders = {
                name: order_of(draw(one.photo.pixels, self._seed + number), side) for name, draw in BASELINES.items()
            }
            orders |= {f"method {name}": map_order(found[number].raw, side) for name, found in self._found.items()}
            for name, curve in curves(self._subject, one.photo, one.target, orders).items():
                gains.setdefault(name, []).append(curve.gain)
            self._step(number + 1, len(self._sure), "deletion and insertion")
        self._to_beat["gain"] = {name: mean_of(np.array(gains[name])) for name in BASELINES}
        self._to_beat["margin"] = {"": Mean(0.0, math.nan, len(self._sure))}
        for method in self._methods:
            own = np.array(gains[f"method {method.name}"])
            self._put(method, "gain", own)
            self._put(method, "margin", own - np.array(gains["centre"]))

    def _put(self, method: Method, key: str, values: Float[np.ndarray, "values"]) -> None:
        self._numbers.setdefault(method.name, {})[key] = mean_of(values)

    def result(self, asked: Sequence[Method]) -> Trust:
        """All of it as one value."""
        return Trust(
            self._subject.name,
            self._material.name,
            len(self._sure),
            self._seed,
            tuple(self._judged(method) for method in asked),
            self._to_beat,
            tuple(self._notes),
            self._example,
            self._maps(),
            self._material.skipped,
        )

    def _judged(self, method: Method) -> Judged:
        found = self._found.get(method.name, [])
        checks = [one.check for one in found if one.check is not None]
        stamps = tuple(dict.fromkeys(stamp.partition(":")[0] for one in found for stamp in one.stamps))
        return Judged(
            method,
            max((check.residual for check in checks), default=None),
            all(check.holds for check in checks),
            self._numbers.get(method.name, {}),
            self._missing.get(method.name, ""),
            stamps,
        )

    def _maps(self) -> dict[str, Float64[np.ndarray, "size size"]]:
        if self._example is None:
            return {}
        photo, target = self._example.photo, next(iter(self._example.areas))
        side = self._subject.preprocessing.size
        return {method.name: evidence(self._explained(method, photo, target).raw, side) for method in self._methods}
