"""Looking inside one photo's answer: what in it speaks for a class, by every method of one table.

    explanations = explain(subject_of(run.classifier, "run"), "photo.jpg", methods=("cam", "guided"))
    write_bundle(explanations, Path("explained/photo"))

To add a method: a function `(Asked) -> Found` in a file here, and one line in `METHODS`. Its flags decide what the
pictures and pages say about it; one test holds every method to the same contract.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from typing import Any

from headstart.allocator import memory_kept
from headstart.classifier import Source
from headstart.errors import UsageError
from headstart.explain.cam import cam, reads_a_map
from headstart.explain.explanation import Asked, Check, Explanation, Found, Method, Step, silent
from headstart.explain.stored import logits_of
from headstart.explain.subject import Photo, Subject, subject_of

__all__ = [
    "METHODS",
    "Asked",
    "Check",
    "Explanation",
    "Found",
    "Method",
    "Photo",
    "Subject",
    "default_methods",
    "explain",
    "first_method",
    "subject_of",
]


def _later(module: str, function: str) -> Callable[[Asked], Found]:
    """A method whose module, and torch with it, is imported when it is first used."""

    def find(asked: Asked) -> Found:
        found: Found = getattr(import_module(f"headstart.explain.{module}"), function)(asked)
        return found

    return find


_TABLE = (
    Method(
        "cam",
        "Class activation map",
        cam,
        "what each place adds to the logit; the mean of the map and the constant are the logit",
        signed=True,
        exact_identity=True,
    ),
    Method(
        "gradcam",
        "Grad-CAM",
        _later("grad_cam", "grad_cam"),
        "the maps of a layer, each weighted by the mean of its gradient; only what speaks for the class",
        needs_gradient=True,
    ),
    Method(
        "gradient",
        "Gradient",
        _later("gradients", "gradient"),
        "how much a small change of a pixel changes the logit",
        signed=True,
        pixels=True,
        needs_gradient=True,
    ),
    Method(
        "inputxgradient",
        "Input times gradient",
        _later("gradients", "input_x_gradient"),
        "the gradient times the pixel, from mean grey",
        signed=True,
        pixels=True,
        needs_gradient=True,
    ),
    Method(
        "guided",
        "Guided backpropagation",
        _later("gradients", "guided"),
        "what the lower layers react to; hardly depends on the class",
        signed=True,
        pixels=True,
        needs_gradient=True,
        class_specific=False,
    ),
    Method(
        "guidedgradcam",
        "Guided Grad-CAM",
        _later("grad_cam", "guided_grad_cam"),
        "guided backpropagation where Grad-CAM finds the class",
        signed=True,
        pixels=True,
        needs_gradient=True,
    ),
    Method(
        "deconv",
        "Deconvolutional network",
        _later("gradients", "deconv"),
        "what the maxima that were passed on came from; says nothing about a photo in a net without max pooling",
        signed=True,
        pixels=True,
        needs_gradient=True,
        class_specific=False,
        needs_maxpool=True,
        settings={"anyway": False},
    ),
    Method(
        "occlusion",
        "Occlusion",
        _later("occlusion", "occlusion"),
        "how much the logit falls when a window is covered",
        signed=True,
        settings={"window": None, "stride": None, "fill": None},
    ),
    Method(
        "ig",
        "Integrated gradients",
        _later("integrated", "integrated_gradients"),
        "the gradient added up on the way from a baseline to the photo; the sum is the rise of the logit",
        signed=True,
        pixels=True,
        needs_gradient=True,
        exact_identity=True,
        settings={"baseline": "grey", "gradients": 128},
    ),
)
METHODS: dict[str, Method] = {method.name: method for method in _TABLE}


def first_method(subject: Subject, photo: Photo | None = None) -> str:
    """The one map that says most: the exact one where there is one, else Grad-CAM; occlusion of a "knn" head."""
    if subject.classifier is not None and subject.classifier.head.kind == "knn":
        return "occlusion"
    return "cam" if reads_a_map(subject, photo) else "gradcam"


def default_methods(subject: Subject, photo: Photo | None = None) -> tuple[str, ...]:
    """What is shown where nobody says: `first_method`, and one or two pictures of the pixels."""
    first = first_method(subject, photo)
    if first == "occlusion":
        return (first,)
    rectifiers = import_module("headstart.explain.rectifiers")  # imports torch
    return (first, "gradient", "guided") if rectifiers.follows_rules(subject.net) else (first, "gradient")


@memory_kept()
def explain(
    subject: Subject,
    source: Source | Photo,
    methods: Sequence[str] = (),
    labels: Sequence[str] = (),
    *,
    layer: str | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
    step: Step = silent,
) -> tuple[Explanation, ...]:
    """Explain a net's answer for one photo.

    Args:
        subject: the net.
        source: a path, the bytes of an image file, uint8 pixels, or a photo of `Subject.photo`.
        methods: keys of `METHODS`; none: `default_methods`.
        labels: the classes to explain, names or numbers; none: the predicted one.
        layer: for the methods that take one.
        seed: of everything that draws.
        settings: of the methods, by name (`Method.settings`).
        step: told how far the work is.

    Returns:
        An explanation for each class and method, class by class, in the order asked for.

    Raises:
        UsageError: unknown method, class, layer or setting, or a method that does not fit the net.
        ImageRejected: the photo cannot be read.
    """
    photo = source if isinstance(source, Photo) else subject.photo(source)
    chosen = [method_named(name) for name in methods or default_methods(subject, photo)]
    given = dict(settings or {})
    known = {name for method in chosen for name in method.settings}
    if unknown := sorted(set(given) - known):
        raise UsageError(
            f"no chosen method has the setting {unknown[0]!r}; they have: {', '.join(sorted(known)) or 'none'}"
        )
    logits = logits_of(subject, [photo])[0]
    targets = [subject.class_index(label) for label in labels] or [int(logits.argmax())]
    explanations = []
    for target in targets:
        for method in chosen:
            own = {name: given.get(name, default) for name, default in method.settings.items()}
            begun = time.perf_counter()
            found = method.find(Asked(subject, photo, target, layer, seed, own, step))
            seconds = time.perf_counter() - begun
            explanations.append(Explanation(subject, photo, method, target, logits, found, seconds, seed))
    return tuple(explanations)


def method_named(name: str) -> Method:
    """The method of a name. Raises UsageError."""
    if name not in METHODS:
        raise UsageError(f"unknown method {name!r}; choose from: {', '.join(METHODS)}")
    return METHODS[name]
