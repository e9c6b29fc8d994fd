"""An explanation: the raw numbers of one method for one photo and class, what they add up to, and where they lie."""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64

from headstart.explain.subject import Photo, Subject

if TYPE_CHECKING:
    from PIL import Image

Step = Callable[[int, int, str], None]  # done, of how many, what: for a progress line
NO_EVIDENCE = "no evidence for this class"


def silent(_done: int, _of: int, _what: str) -> None:
    """Tell nobody how far the work is."""


@dataclass(frozen=True, eq=False)
class Asked:
    """What a method is asked.

    Args:
        subject: the net.
        photo: prepared.
        target: the class, as a place among the logits.
        layer: where to look, for methods that have a layer; None: where the method is at its best.
        seed: of everything that draws.
        settings: the method's own, such as `window` and `stride` of occlusion; those it does not know are refused
            before it is called.
        step: told how far the work is.
    """

    subject: Subject
    photo: Photo
    target: int
    layer: str | None = None
    seed: int = 0
    settings: Mapping[str, Any] = field(default_factory=dict)
    step: Step = silent


@dataclass(frozen=True)
class Check:
    """Whether a map adds up to what it says it explains.

    Args:
        sum: what the map's values add up to, in the way of the method (`law` says how).
        target: what that must be, in the same unit.
        law: the identity, in words.
        tolerance: share of the target by which they may differ.
    """

    sum: float
    target: float
    law: str
    tolerance: float = 1e-4

    @property
    def residual(self) -> float:
        """`|sum - target|` as a share of the target's size (at least 1e-12)."""
        return abs(self.sum - self.target) / max(abs(self.target), 1e-12)

    @property
    def holds(self) -> bool:
        """Whether the residual is within the tolerance."""
        return self.residual <= self.tolerance

    def to_json(self) -> dict[str, Any]:
        """`{"sum", "target", "residual", "law", "holds"}`."""
        return {
            "sum": self.sum,
            "target": self.target,
            "residual": self.residual,
            "law": self.law,
            "holds": self.holds,
        }


@dataclass(frozen=True, eq=False)
class Found:
    """What a method gives back.

    Args:
        raw: (rows, columns) of a grid over the net's input, or (channels, size, size) of its pixels; unscaled. NaN
            nowhere. It cannot be written to from then on.
        layer: where it was taken; "" of methods that look at pixels.
        check: the identity that the method has; None where there is none.
        stamps: short remarks that belong on the picture ("not class-specific", "not converged: 7 %").
        parameters: what was done, for the manifest.
    """

    raw: Float32[np.ndarray, "..."]
    layer: str = ""
    check: Check | None = None
    stamps: tuple[str, ...] = ()
    parameters: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Freeze the numbers, and say so where none of a grid's speaks for the class."""
        self.raw.setflags(write=False)
        if self.raw.ndim == 2 and not (self.raw > 0).any():
            object.__setattr__(self, "stamps", (*self.stamps, NO_EVIDENCE))


@dataclass(frozen=True)
class Method:
    """A way to explain, and what it can and cannot say: pages and pictures are labelled from here.

    Args:
        name: what `--method` takes.
        title: what stands over its picture.
        find: does it.
        sentence: what the map shows, for people.
        signed: values below 0 speak against the class; False: only sizes have a meaning.
        pixels: the map has the net's pixels; False: a coarse grid, or windows.
        needs_gradient: torch is needed.
        class_specific: another class gives another map.
        needs_maxpool: without max pooling it says nothing about the photo.
        exact_identity: its values add up to the logit, in the way `Check.law` says.
        settings: names of its settings, each with its default.
    """

    name: str
    title: str
    find: Callable[[Asked], Found]
    sentence: str
    signed: bool = False
    pixels: bool = False
    needs_gradient: bool = False
    class_specific: bool = True
    needs_maxpool: bool = False
    exact_identity: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Explanation:
    """One method's answer for one photo and one class. It never changes; `print` tells it, `save` writes it.

    Args:
        subject: the net.
        photo: what was looked at.
        method: how.
        target: the class, as a place among the logits.
        logits: of the photo, all classes.
        found: the raw numbers.
        seconds: wall time of the method.
        seed: of everything that was drawn.
    """

    subject: Subject = field(repr=False)
    photo: Photo = field(repr=False)
    method: Method = field(repr=False)
    target: int
    logits: Float32[np.ndarray, "classes"] = field(repr=False)
    found: Found = field(repr=False)
    seconds: float
    seed: int = 0

    @property
    def label(self) -> str:
        """The class that is explained."""
        return self.subject.classes[self.target]

    @property
    def raw(self) -> Float32[np.ndarray, "..."]:
        """The unscaled numbers: see `Found.raw`."""
        return self.found.raw

    @property
    def check(self) -> Check | None:
        """What the numbers add up to; None where the method has no identity."""
        return self.found.check

    @property
    def stamps(self) -> tuple[str, ...]:
        """Short remarks that belong on the picture."""
        own = ("not class-specific",) if not self.method.class_specific else ()
        return (*own, *self.found.stamps)

    @property
    def score(self) -> float:
        """The logit of the class."""
        return float(self.logits[self.target])

    @property
    def probability(self) -> float:
        """The calibrated probability of the class, 0..1."""
        return float(self.subject.probabilities(self.logits[None])[0, self.target])

    @functools.cached_property
    def strength(self) -> Float64[np.ndarray, "rows columns"]:
        """One number a place, as it is drawn.

        Of a map of pixels the largest size over the channels; of a signed grid its values as they are; of another
        grid its values above 0.
        """
        values = self.raw.astype(np.float64)
        if values.ndim == 3:
            return np.asarray(np.abs(values).max(axis=0))
        return values if self.method.signed else np.maximum(values, 0.0)

    def box(self, threshold: float = 0.2) -> tuple[int, int, int, int] | None:
        """Where the evidence for the class lies: the rule of `headstart.explain.placing.box_of`, in original pixels."""
        from headstart.explain.placing import box_of

        return box_of(self.strength, self.photo.crop, threshold)

    def overlay(self, side: int = 640) -> "Image.Image":
        """The map over the whole photo, its longer side `side` pixels; what the net never saw is paler."""
        from headstart.explain.bundle import limit_of
        from headstart.explain.drawing import overlay

        return overlay(self.photo, self.strength, side, limit_of(self))

    def save(self, folder: str | Path, *, overwrite: bool = False) -> Path:
        """Write the folder of `headstart.explain.bundle` for this one explanation. Raises OutputError."""
        from headstart.explain.bundle import write_bundle

        write_bundle((self,), Path(folder), overwrite=overwrite)
        return Path(folder)

    def __str__(self) -> str:
        said = [f"{self.method.title} of {self.photo.name} for {self.label} (logit {self.score:.3f})"]
        if self.check is not None:
            said.append(f"{self.check.law}: {self.check.sum:.6g} of {self.check.target:.6g}")
        return "; ".join([*said, *self.stamps])
