"""A classifier as two files: model.json says what it is, model.safetensors holds its numbers. Nothing else is needed.

The net is named, and looked up in the table of this program. Tensors called `backbone.*` are its weights, those called
`head.*` the head's. `identity` is the SHA-256 of everything else in model.json: classes and their order, preprocessing,
cut, temperature, and the hashes of the weights, so none of them can be exchanged alone.
"""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from headstart.backbones import Backbone, backbone_from_tensors, open_backbone
from headstart.classifier import Classifier
from headstart.errors import BackboneError, HeadstartError, RunError, UsageError
from headstart.files import shown
from headstart.heads import HEADS, TRAINED, Head
from headstart.nets import NETS
from headstart.preprocess import Preprocessing
from headstart.runs.documents import finite
from headstart.runs.guarded import DTYPES, parse_declared, read_tensors
from headstart.weights import digest

NAME = "model.safetensors"
MOST_PADDING = 4  # pixels: the one option of a net that is small and shapes no tensor
_KEYS = {"backbone", "classes", "cut", "engine", "head", "identity", "preprocessing", "temperature", "tensors",
         "thresholds"}  # fmt: skip
_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def pack(classifier: Classifier, *, embed_backbone: bool = True) -> tuple[dict[str, Any], bytes]:
    """Return model.json (a JSON object) and the bytes of model.safetensors.

    Args:
        classifier: what to store.
        embed_backbone: include the weights of the backbone; without them the classifier can be used only where the same
            published weights are installed.

    Raises:
        UsageError: the weights shall be left out, but they are not the published ones of that name.
    """
    import safetensors.numpy

    backbone = classifier.backbone
    tensors = {f"head.{name}": _plain(value) for name, value in classifier.head.tensors.items()}
    if embed_backbone:
        tensors |= {f"backbone.{name}": _plain(value) for name, value in backbone.tensors().items()}
    elif backbone.weights_sha256 != open_backbone(backbone.name).weights_sha256:
        raise UsageError(
            f"the weights of this {backbone.name} ({backbone.source}) are not the published ones, so they cannot be "
            "left out of the run; embed them"
        )
    model = {
        "backbone": {
            "name": backbone.name,
            "options": dict(backbone.net_options),
            "weights_sha256": backbone.weights_sha256,
            "source": backbone.source,
            "embedded": embed_backbone,
        },
        "preprocessing": backbone.preprocessing.to_dict(),
        "cut": classifier.cut,
        "head": {
            "kind": classifier.head.kind,
            "settings": dict(classifier.head.settings),
            "weights_sha256": digest(_part(tensors, "head.")),
        },
        "classes": list(classifier.classes),
        "temperature": float(classifier.temperature),
        "thresholds": None if classifier.thresholds is None else list(classifier.thresholds),
        "engine": classifier.engine,
        "tensors": {
            name: {"dtype": _DTYPE_NAMES[value.dtype], "shape": list(value.shape)}
            for name, value in sorted(tensors.items())
        },
    }
    model = finite(model)
    return {**model, "identity": identity(model)}, safetensors.numpy.save(tensors)


def _plain(value: np.ndarray) -> np.ndarray:
    """Copy in the number types that a run holds: float32, float64 or int64, little-endian, in C order."""
    kind = value.dtype
    if kind.kind in "iub" and kind != np.int64:
        value = value.astype("<i8")
    elif kind.kind == "f" and kind.itemsize < 4:
        value = value.astype("<f4")
    return np.ascontiguousarray(value, value.dtype.newbyteorder("<")).reshape(value.shape)


def identity(model: Mapping[str, Any]) -> str:
    """Return the SHA-256 of everything in model.json but the identity itself."""
    rest = {name: value for name, value in model.items() if name != "identity"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def check_model(model: Mapping[str, Any], name: str) -> None:
    """Check the form of model.json, before any weights are read.

    Args:
        model: the JSON object.
        name: what to call it in an error.

    Raises:
        RunError: a part is missing, of another form, or does not fit the identity.
    """
    if missing := sorted(_KEYS - model.keys()):
        raise RunError(f"{name} is damaged: it has no {', '.join(missing)}")
    if identity(model) != model["identity"]:
        raise RunError(f"{name} is damaged: classes, preprocessing or another part do not fit its identity")
    classes = model["classes"]
    if not isinstance(classes, list) or not all(isinstance(item, str) for item in classes) or len(classes) < 2:
        raise RunError(f"{name} names no classes")
    known = model["backbone"].get("name") if isinstance(model["backbone"], dict) else None
    if known not in NETS:
        raise RunError(f"{name}: unknown backbone {shown(repr(known))[:60]}; known: {', '.join(NETS)}")
    kind = model["head"].get("kind") if isinstance(model["head"], dict) else None
    if kind not in (*HEADS, *TRAINED):
        raise RunError(f"{name}: unknown head {shown(repr(kind))[:60]}; known: {', '.join(HEADS)}")
    odd = [part for part, sound in _FORMS.items() if not sound(model[part])]
    if not odd and len(model["thresholds"] or classes) != len(classes):
        odd = ["thresholds"]
    if odd:
        raise RunError(f"{name}: {odd[0]} is {shown(repr(model[odd[0]]))[:60]}, which cannot be")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


_FORMS: dict[str, Callable[[Any], bool]] = {
    "backbone": lambda value: isinstance(value.get("options"), dict) and isinstance(value.get("weights_sha256"), str),
    "head": lambda value: isinstance(value.get("settings"), dict) and isinstance(value.get("weights_sha256"), str),
    "cut": lambda value: isinstance(value, str),
    "engine": lambda value: value in ("auto", "openvino", "torch"),
    "preprocessing": lambda value: isinstance(value, dict),
    "temperature": lambda value: _is_number(value) and 0 < value < math.inf,
    "tensors": lambda value: isinstance(value, dict),
    "thresholds": lambda value: (
        value is None or (isinstance(value, list) and value != [] and all(map(_is_number, value)))
    ),
}


def unpack(model: Mapping[str, Any], data: bytes, name: str) -> Classifier:
    """Return the classifier that `pack` stored.

    Args:
        model: model.json.
        data: model.safetensors.
        name: the directory, for errors.

    Raises:
        RunError: the two do not fit together, or hold NaN.
        BackboneError: the weights of the backbone are not in `data` and not installed here.
    """
    check_model(model, f"{name}/model.json")
    declared = parse_declared(model["tensors"], f"{name}/model.json")
    tensors = read_tensors(data, f"{name}/{NAME}", declared)
    try:
        return Classifier(
            head=_head(model["head"], tensors, name),  # first: the backbone may have to be converted
            backbone=_backbone(model, tensors, name),
            cut=model["cut"],
            classes=tuple(model["classes"]),
            temperature=float(model["temperature"]),
            thresholds=None if model["thresholds"] is None else tuple(map(float, model["thresholds"])),
            engine=str(model["engine"]),
        )
    except (BackboneError, RunError):
        raise
    except (HeadstartError, ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
        reason = shown(" ".join(str(error).split()))[:300]
        raise RunError(f"{name}/model.json describes no classifier that can work: {reason}") from error


def _part(tensors: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _head(known: Mapping[str, Any], tensors: Mapping[str, np.ndarray], name: str) -> Head:
    """The head with arrays of its own: torch warns of arrays that cannot be written."""
    if digest(_part(tensors, "head.")) != known["weights_sha256"]:
        raise RunError(f"{name}/{NAME} holds the head of another classifier than {name}/model.json describes")
    own = {name: value.copy() for name, value in _part(tensors, "head.").items()}
    return Head(known["kind"], own, dict(known["settings"]))


def _check_options(options: object, tensors: Mapping[str, np.ndarray], name: str) -> None:
    """A size that no tensor has could make the net take any amount of memory before it is compared with the tensors."""
    sizes = {size for value in tensors.values() for size in value.shape} | set(range(MOST_PADDING + 1))
    longest = max(sizes)  # where the size of the photos is an option, a layer has an input for each place of some map

    def sound(value: object) -> bool:
        if isinstance(value, list):
            whole = len(value) == 2 and all(type(side) is int and side > 0 for side in value)
            return whole and math.prod(value) <= longest
        return isinstance(value, str | bool) or (type(value) is int and value in sizes)

    if not (isinstance(options, dict) and all(map(sound, options.values()))):
        raise RunError(
            f"{name}/model.json: the options of the backbone, {shown(repr(options))[:80]}, do not fit its weights"
        )


def _backbone(model: Mapping[str, Any], tensors: Mapping[str, np.ndarray], name: str) -> Backbone:
    known = model["backbone"]
    own = _part(tensors, "backbone.")
    if own:
        _check_options(known["options"], own, name)
        backbone = backbone_from_tensors(
            known["name"],
            own,
            Preprocessing.from_dict(model["preprocessing"]),
            net_options={
                option: tuple(value) if isinstance(value, list) else value for option, value in known["options"].items()
            },
            source=str(known["source"]),
        )
    else:
        backbone = open_backbone(known["name"])
    if backbone.weights_sha256 != known["weights_sha256"]:
        raise RunError(
            f"{name}: the weights of {known['name']} are not those the classifier was trained on "
            f"({backbone.weights_sha256[:12]} instead of {shown(str(known['weights_sha256']))[:12]})"
            + ("" if own else "; use a run that holds its backbone")
        )
    if backbone.preprocessing.to_dict() != model["preprocessing"]:
        raise RunError(f"{name}: the classifier prepares its photos in another way than {known['name']} here")
    return backbone
