"""Class activation maps: where the evidence for a class lies, as a sum that gives the logit. No gradient is needed.

Zhou et al. 2016, "Learning deep features for discriminative localization" (arXiv:1512.04150), section 2: where the
last layer is linear in the means of maps A_k, logit_c = b_c + sum_k w_ck mean(A_k), so that

    M_c = sum_k w_ck A_k    has    mean(M_c) + b_c = logit_c

and M_c at a place is what that place adds. The same holds, with weights that depend on the photo, for the other heads
of this program: of a root head w_ck is multiplied by root(f_k) / f_k, with f_k = mean(A_k); of an MLP the hidden units
that are off drop out, and the rest is linear; of a head on a flattened map each place has weights of its own. Where a
net ends in the means of one map a class (network in network), that map is the answer itself.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64

from headstart.errors import UsageError
from headstart.explain.explanation import Asked, Check, Found
from headstart.explain.stored import logits_of, outputs_of
from headstart.explain.subject import Photo, Subject
from headstart.heads import Head
from headstart.heads.model import ROOT, root

LAW = "mean of the map + constant = logit"
AGREE = 1e-3  # share of its largest value by which a pooled vector may differ from the means of a map, float32


@dataclass(frozen=True, eq=False)
class Evidence:
    """What each place of a map adds to a logit.

    Args:
        places: mean(places) + constant is the logit.
        constant: what no place adds.
        depends: the weights depend on the photo.
    """

    places: Float64[np.ndarray, "rows columns"]
    constant: float
    depends: bool = False


def cam(asked: Asked) -> Found:
    """The class activation map, at the map that the head reads.

    Raises:
        UsageError: the head reads no map, or compares with known photos; the message says what to use instead.
    """
    subject = asked.subject
    name = map_of(subject, asked.photo)
    if asked.layer is not None and asked.layer not in (name, name.removesuffix("_map")):
        raise UsageError(
            f"a class activation map is taken where the head reads, at {name.removesuffix('_map')}; "
            f"for {asked.layer} use --method gradcam"
        )
    maps = outputs_of(subject, [asked.photo], (name,))[0][name]
    logit = float(logits_of(subject, [asked.photo])[0, asked.target])
    evidence = evidence_of(_head(subject), maps, asked.target)
    check = Check(float(evidence.places.mean() + evidence.constant), logit, LAW)
    stamps = () if check.residual <= AGREE else (f"does not add up: {100 * check.residual:.1f} %",)
    parameters = {"constant": evidence.constant, "weights_depend_on_the_photo": evidence.depends}
    layer = name.removesuffix("_map")
    return Found(evidence.places.astype(np.float32), layer, check, stamps, parameters)


def map_of(subject: Subject, photo: Photo | None = None, *, proven: bool = True) -> str:
    """The output of the backbone whose places a class activation map shows.

    Args:
        subject: a run, or a pretrained backbone.
        photo: on which it is shown that the head's vector is the mean of the map; None: a noisy picture.
        proven: False: go by the shapes, where the caller looks at what the map adds up to anyway.

    Raises:
        UsageError: there is none, with the reason and what to use instead.
    """
    classifier = subject.classifier
    if classifier is None:
        raise UsageError(f"{subject.name} is no run and no pretrained backbone; use --method gradcam")
    if classifier.head.kind == "knn":
        raise UsageError("a 'knn' head compares with known photos, so no place has a share; use --method occlusion")
    outputs, cut = classifier.backbone.outputs, classifier.cut
    if len(outputs[cut]) == 3:
        return cut
    if f"{cut}_map" in outputs:
        return f"{cut}_map"
    fitting = [name for name, shape in outputs.items() if len(shape) == 3 and shape[0] == outputs[cut][0]]
    for name in reversed(fitting):
        if not proven or _is_mean_of(subject, cut, name, photo):
            return name
    raise UsageError(
        f"the last layer of {classifier.backbone.name} reads dense layers, not the means of maps, so places have "
        "no shares in the logit; use --method gradcam, an approximation, or occlusion"
    )


def evidence_of(head: Head, maps: Float[np.ndarray, "channels rows columns"], target: int) -> Evidence:
    """What each place adds to the logit of a class.

    Args:
        head: reads the means of the maps, or the maps flattened (its length says which).
        maps: what the head reads, finite.
        target: the class.

    Raises:
        UsageError: the head has no such form ("knn"), or another length.
    """
    values = maps.astype(np.float64)
    channels, rows, columns = values.shape
    if head.kind == "identity" and head.length == channels:
        return Evidence(values[target], 0.0)
    flat = head.length == channels * rows * columns and rows * columns > 1
    if head.kind in ("knn", "identity") or not (flat or head.length == channels):
        raise UsageError(f"a {head.kind!r} head of {head.length} features does not read maps of {values.shape}")
    features = values.reshape(-1) if flat else values.mean(axis=(1, 2))
    weights, constant = _line_through(head, features, target)
    if flat:
        return Evidence((weights * features).reshape(values.shape).sum(axis=0) * rows * columns, constant, _bends(head))
    return Evidence(np.tensordot(weights, values, axes=1), constant, _bends(head))


def _bends(head: Head) -> bool:
    return head.kind.startswith(ROOT) or head.kind == "mlp"


def _line_through(
    head: Head, features: Float64[np.ndarray, "features"], target: int
) -> tuple[Float64[np.ndarray, "features"], float]:
    """Weights and a constant with `weights @ features + constant = logit`, that of the head at these features."""
    weight = head.tensors["weight"][target].astype(np.float64)
    bias = float(head.tensors["bias"][target])
    if head.kind == "mlp":
        first = head.tensors["hidden_weight"].astype(np.float64)
        shift = head.tensors["hidden_bias"].astype(np.float64)
        active = np.where(first @ features + shift > 0, weight, 0.0)
        return active @ first, bias + float(active @ shift)
    if head.kind.startswith(ROOT):
        taken = root(features[None], float(head.settings["root_offset"]))[0]
        zero = features == 0
        return weight * np.where(zero, 0.0, taken / np.where(zero, 1.0, features)), bias
    return weight, bias


def _is_mean_of(subject: Subject, cut: str, name: str, photo: Photo | None) -> bool:
    """Whether a vector of the backbone is the means of a map, shown on one photo."""
    if photo is None:
        photo = subject.photo(np.random.default_rng(0).integers(0, 256, subject.preprocessing.shape, np.uint8))
    found = outputs_of(subject, [photo], (cut, name))[0]
    vector, means = found[cut].reshape(-1), found[name].mean(axis=(1, 2))
    return bool(np.abs(vector - means).max() <= AGREE * max(float(np.abs(vector).max()), 1e-6))


def _head(subject: Subject) -> Any:
    if subject.classifier is None:  # `map_of` has refused it already
        raise UsageError(f"{subject.name} has no head")
    return subject.classifier.head


def reads_a_map(subject: Subject, photo: Photo | None = None) -> bool:
    """Whether there is an exact class activation map: else Grad-CAM takes its place. Arguments as of `map_of`."""
    try:
        map_of(subject, photo)
    except UsageError:
        return False
    return True
