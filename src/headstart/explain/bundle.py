"""What `headstart explain` leaves: a folder a photo, with the raw numbers, the pictures, the boxes, and the manifest.

DIR/<photo>/<class>-<method>.npy           raw float32, unscaled: (rows, columns) or (channels, size, size)
<class>-<method>-heat.png              the same, coloured; the value of the darkest colour is in the manifest
<class>-<method>-overlay.png           over the whole photo
explanation.png                        all of it on one sheet
boxes.json                             (x0, y0, x1, y1), half open, pixels of the upright original
manifest.json                          what was done, on what, and what the numbers add up to; written last
"""

import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64
from PIL import Image

from headstart import __version__
from headstart.errors import OutputError
from headstart.explain.drawing import (
    PANEL,
    Panel,
    draw_sheet,
    fitted,
    heat,
    input_image,
    overlay,
    photo_image,
    squares,
)
from headstart.explain.explanation import Explanation
from headstart.explain.placing import THRESHOLD
from headstart.files import new_directory, shown

SCHEMA = 1
BOXED = ("cam", "gradcam", "occlusion")  # maps of places: a box around the strongest ones has a meaning
COARSE = 32  # places a side: up to so many a map is also shown as it is, a square a value
BRIGHTEST = 99.5  # per cent of the pixels of a fine map that its colours tell apart; a few bright ones would hide them


def limit_of(explanation: Explanation) -> float:
    """The value of the darkest colour of a picture: the largest size of a coarse map, nearly that of a fine one."""
    sizes = np.abs(explanation.strength)
    fine = explanation.method.pixels
    return float(np.percentile(sizes, BRIGHTEST)) if fine and sizes.any() else float(sizes.max(initial=0.0))


def difference(first: Explanation, second: Explanation) -> Float64[np.ndarray, "rows columns"]:
    """What speaks for one class rather than another: the raw map of the first minus that of the second, same method."""
    return np.asarray(first.raw.astype(np.float64) - second.raw.astype(np.float64))


def sheet(explanations: Sequence[Explanation], threshold: float = THRESHOLD) -> Image.Image:
    """All explanations of one photo as one picture.

    Args:
        explanations: of one photo, at least one.
        threshold: of the boxes, a share of the largest value.
    """
    first = explanations[0]
    boxed = next((one for one in explanations if one.method.name in BOXED), None)
    box = boxed.box(threshold) if boxed else None
    photo = photo_image(first.photo) if box is None or boxed is None else overlay_of_nothing(boxed, box)
    size = f"{first.photo.picture.width} x {first.photo.picture.height} px"
    said = [size, "paler: never seen by the net"] if _crops(first) else [size]
    if box is not None:
        said.append(f"box: where the map is above {100 * threshold:.0f} % of its largest value")
    panels = [Panel("Photo", photo, tuple(said))]
    told: set[str] = set()
    for one in explanations:
        panels += panels_of(one, sentence=one.method.name not in told)
        told.add(one.method.name)
    panels += [panel for pair in _pairs(explanations) for panel in _difference_panel(*pair)]
    return draw_sheet(_title(first), _words(explanations), panels, columns=4 if len(panels) > 3 else len(panels))


def panels_of(one: Explanation, *, sentence: bool = True) -> list[Panel]:
    """The pictures of one explanation: over the photo, and of a coarse map its own places.

    Args:
        one: the explanation.
        sentence: say below it what such a map shows.
    """
    limit = limit_of(one)
    title = f"{one.method.title}: {one.label}"
    said = [one.method.sentence] if sentence else []
    if one.found.layer:
        said.append(f"at {one.found.layer}, {' x '.join(map(str, one.raw.shape[-2:]))}")
    if one.check is not None:
        said.append(f"{one.check.law}: {one.check.sum:.4g} of {one.check.target:.4g}")
    said += [f"! {stamp}" for stamp in one.stamps]
    scale = f"scale: {_ends(one, limit)}"
    if one.method.pixels:
        return [Panel(title, fitted(Image.fromarray(heat(one.strength, limit)), PANEL), (*said, scale))]
    image = overlay(one.photo, one.strength, limit=limit)
    panels = [Panel(title, image, (*said, scale))]
    if max(one.raw.shape[-2:]) <= COARSE:
        raw = squares(one.strength, min(image.size), limit)
        panels.append(Panel("The same, a square a value", raw, (f"largest {one.strength.max():.4g}",)))
    return panels


def write_bundle(
    explanations: Sequence[Explanation], place: Path, *, threshold: float = THRESHOLD, overwrite: bool = False
) -> dict[str, Any]:
    """Write the folder of one photo: complete or not at all, the manifest last.

    Args:
        explanations: of one photo, at least one.
        place: the folder to make.
        threshold: of the boxes, a share of the largest value.
        overwrite: replace a folder that this function wrote; nothing else is ever replaced.

    Returns:
        The manifest.

    Raises:
        OutputError: there is something else at `place`, or it cannot be written.
    """
    if overwrite and place.exists() and not is_bundle(place):
        raise OutputError(f"{shown(place)} is no explanation of headstart, so it is not replaced; give another --out")
    names = _names(explanations)
    maps = []
    with new_directory(place, overwrite=overwrite) as folder:
        for one, name in zip(explanations, names, strict=True):
            limit = limit_of(one)
            box = one.box(threshold) if one.method.name in BOXED else None
            (folder / f"{name}.npy").write_bytes(npy(one.raw))
            (folder / f"{name}-heat.png").write_bytes(png(Image.fromarray(heat(one.strength, limit))))
            (folder / f"{name}-overlay.png").write_bytes(png(overlay(one.photo, one.strength, 640, limit, box)))
            maps.append(_entry(one, name, limit, box))
        for first, second in _pairs(explanations):
            name = f"{_safe(first.label)}-minus-{_safe(second.label)}-{first.method.name}"
            (folder / f"{name}.npy").write_bytes(npy(difference(first, second).astype(np.float32)))
        (folder / "explanation.png").write_bytes(png(sheet(explanations, threshold)))
        boxes = {name: entry["box"] for name, entry in zip(names, maps, strict=True) if entry["method"] in BOXED}
        (folder / "boxes.json").write_text(json.dumps({"threshold": threshold, "boxes": boxes}, indent=1) + "\n")
        manifest = {"schema": SCHEMA, "headstart": __version__, **_facts(explanations[0]), "maps": maps}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1, allow_nan=False) + "\n")
    return manifest


def is_bundle(place: Path) -> bool:
    """Whether a folder holds nothing but what `write_bundle` writes, with its manifest."""
    if place.is_symlink() or not (place / "manifest.json").is_file():
        return False
    return all(entry.suffix in (".npy", ".png", ".json") and entry.is_file() for entry in place.iterdir())


def npy(values: np.ndarray) -> bytes:
    """The bytes of a .npy file; the same numbers give the same bytes."""
    out = io.BytesIO()
    np.save(out, np.ascontiguousarray(values), allow_pickle=False)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG file; the same pixels give the same bytes."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def overlay_of_nothing(one: Explanation, box: tuple[int, int, int, int]) -> Image.Image:
    """The photo with a box on it."""
    from headstart.explain.drawing import draw_box

    image = photo_image(one.photo)
    draw_box(image, box, one.photo)
    return image


def _crops(one: Explanation) -> bool:
    left, top, right, bottom = one.photo.crop
    return (right - left) * (bottom - top) < 0.999 * one.photo.picture.width * one.photo.picture.height


def _ends(one: Explanation, limit: float) -> str:
    return f"{-limit:.3g} blue, 0 white, {limit:.3g} orange" if one.strength.min() < 0 else f"0 to {limit:.3g}"


def _title(one: Explanation) -> str:
    name = Path(one.photo.name).name
    best = int(one.logits.argmax())
    share = float(one.subject.probabilities(one.logits[None])[0, best])
    return f"{shown(name)}: {shown(one.subject.classes[best])} {100 * share:.1f} % (logit {one.logits[best]:.3f})"


def _words(explanations: Sequence[Explanation]) -> list[str]:
    first = explanations[0]
    labels = list(dict.fromkeys(one.target for one in explanations))
    told = [
        f"{shown(first.subject.classes[target])}: {100 * share:.1f} %, logit {first.logits[target]:.3f}"
        for target in labels
        for share in [float(first.subject.probabilities(first.logits[None])[0, target])]
    ]
    return [f"Explained: {'; '.join(told)}", f"Net {shown(first.subject.name)}, weights {first.subject.weights[:8]}"]


def _pairs(explanations: Sequence[Explanation]) -> list[tuple[Explanation, Explanation]]:
    """Explanations of the first class and of another one, by the same method on the same grid."""
    signed = [one for one in explanations if one.method.name == "cam"]
    return [(signed[0], other) for other in signed[1:] if other.target != signed[0].target]


def _difference_panel(first: Explanation, second: Explanation) -> list[Panel]:
    values = difference(first, second)
    limit = float(np.abs(values).max(initial=0.0))
    said = (
        f"orange speaks for {shown(first.label)}, blue for {shown(second.label)}",
        f"scale: {-limit:.3g} blue, 0 white, {limit:.3g} orange",
    )
    return [Panel(f"{shown(first.label)} against {shown(second.label)}", overlay(first.photo, values), said)]


def _names(explanations: Sequence[Explanation]) -> list[str]:
    taken: dict[str, int] = {}
    names = []
    for one in explanations:
        stem = f"{_safe(one.label)}-{one.method.name}"
        taken[stem] = taken.get(stem, 0) + 1
        names.append(stem if taken[stem] == 1 else f"{stem}-{taken[stem]}")
    return names


def _safe(text: str) -> str:
    """A class name as a part of a file name."""
    kept = "".join(letter if letter.isalnum() or letter in "._-" else "_" for letter in text).strip(".")
    return kept[:60] or "class"


def folder_names(paths: Sequence[str]) -> list[str]:
    """A folder for each photo: its name without suffix, numbered where two photos have the same.

    >>> folder_names(["a/x.jpg", "b/x.png", "y.jpg"])
    ['x', 'x-2', 'y']
    """
    taken: set[str] = set()
    names = []
    for path in paths:
        stem = _safe(Path(path).stem)
        name = next(
            name
            for name in itertools.chain([stem], (f"{stem}-{n}" for n in itertools.count(2)))
            if name.lower() not in taken  # some file systems hold "a" and "A" for the same
        )
        taken.add(name.lower())
        names.append(name)
    return names


def _entry(one: Explanation, name: str, limit: float, box: tuple[int, int, int, int] | None) -> dict[str, Any]:
    return {
        "class": one.label,
        "class_index": one.target,
        "logit": one.score,
        "probability": one.probability,
        "method": one.method.name,
        "shows": one.method.sentence,
        "layer": one.found.layer,
        "shape": list(one.raw.shape),
        "files": {"raw": f"{name}.npy", "heat": f"{name}-heat.png", "overlay": f"{name}-overlay.png"},
        "darkest": limit,
        "box": None if box is None else list(box),
        "check": None if one.check is None else one.check.to_json(),
        "stamps": list(one.stamps),
        "parameters": dict(one.found.parameters),
        "seed": one.seed,
        "seconds": round(one.seconds, 4),
    }


def _facts(one: Explanation) -> dict[str, Any]:
    subject, photo = one.subject, one.photo
    best = int(one.logits.argmax())
    classifier = subject.classifier
    return {
        "model": {
            "name": subject.name,
            "weights_sha256": subject.weights,
            "backbone": None if classifier is None else classifier.backbone.name,
            "cut": None if classifier is None else classifier.cut,
            "head": None if classifier is None else classifier.head.kind,
        },
        "photo": {
            "name": photo.name,
            "width": photo.picture.width,
            "height": photo.picture.height,
            "crop": list(photo.crop),
            "pixels_sha256": photo.sha256,
            "preprocessing": subject.preprocessing.to_dict(),
        },
        "predicted": {
            "class": subject.classes[best],
            "logit": float(one.logits[best]),
            "probability": float(subject.probabilities(one.logits[None])[0, best]),
        },
    }


__all__ = ["BOXED", "folder_names", "input_image", "sheet", "write_bundle"]
