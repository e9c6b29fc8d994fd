"""Does a map depend on what the net has learned? The weights are shuffled from the last layer down, and maps compared.

Adebayo et al. 2018, "Sanity checks for saliency maps" (arXiv:1810.03292), section 3.1, cascading randomisation: the
entries of every parameter of a layer are put in another order, which keeps their distribution and forgets what they
knew. A map that stays the same after the last layer is shuffled cannot be about the class.
"""

import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Float32, Float64, UInt8

from headstart.classifier import Classifier
from headstart.errors import ShapeError, UsageError
from headstart.explain.explanation import Asked, Found, Method, Step, silent
from headstart.explain.subject import Photo, Subject

if TYPE_CHECKING:
    import torch

UNCHANGED, CHANGED = 0.9, 0.35  # rank correlations: above, the map is not about the class; below, it is


@dataclass(frozen=True, eq=False)
class Shuffled(Subject):
    """A subject whose weights were shuffled: nothing is converted for it, so torch answers everything."""

    def logits(
        self, photos: Iterable[UInt8[np.ndarray, "size size channels"]]
    ) -> Float32[np.ndarray, "photos classes"]:
        """Logits of prepared photos."""
        return self._torch_logits(list(photos))

    def outputs(
        self, photos: Iterable[UInt8[np.ndarray, "size size channels"]], names: tuple[str, ...]
    ) -> dict[str, Float32[np.ndarray, "photos *shape"]]:
        """What the backbone computes at some of its outputs."""
        import torch

        from headstart.backbones.conversion import named_outputs

        x = torch.from_numpy(self.preprocessing.normalise(np.stack(list(photos))))
        with torch.no_grad():
            found = named_outputs(self.trunk, x, tuple(name.removesuffix("_map") for name in names))
        return {name: found[name].numpy() for name in names}


@dataclass(frozen=True, eq=False)
class Level:
    """How much of the maps is left after some layers were shuffled.

    Args:
        name: the last part that was shuffled, all above it with it.
        correlations: by method: of each photo, the rank correlation of the map before and after (of a map of pixels: of
            the sizes); NaN where one of the two is constant.
    """

    name: str
    correlations: dict[str, Float64[np.ndarray, "photos"]]

    def mean(self, method: str) -> float:
        """Over the photos that have a correlation; NaN where none has."""
        values = self.correlations[method]
        known = values[np.isfinite(values)]
        return float(known.mean()) if len(known) else float("nan")


def verdict(correlation: float) -> str:
    """What a rank correlation after shuffling the last layer means, in words.

    >>> verdict(0.99), verdict(-0.05)
    ('not class-specific', 'depends on the last layer')
    """
    if not np.isfinite(correlation):
        return "constant"
    if abs(correlation) >= UNCHANGED:
        return "not class-specific"
    return "depends on the last layer" if abs(correlation) <= CHANGED else "depends on the last layer in part"


def cascade(subject: Subject, seed: int = 0) -> Iterator[tuple[str, Subject]]:
    """The subject with its last part shuffled, then the last two, and so on down to all; the subject stays as it is.

    Args:
        subject: a net with weights.
        seed: of the orders that the entries are put in; a parameter has the same order at every depth.

    Yields:
        The name of the part that was shuffled last ("last layer" of a classifier, then stages from the top), and a
        subject. It shares its net with those before and after it: look at it before the next is asked for.
    """
    random = np.random.default_rng(seed)
    name, known, classifier = f"{subject.name}, shuffled", f"{subject.weights} shuffled {seed}", subject.classifier
    if classifier is None:
        net = copy.deepcopy(subject.net)
    else:
        classifier = _with_shuffled_head(classifier, random)
        top = Subject(
            name, subject.preprocessing, subject.classes, _builder(classifier), known, classifier, subject.threads
        )
        if classifier.head.tensors:
            try:
                yield "last layer", top  # the layers below are as they were, so the fast engine still serves them
            finally:
                top.close()
        net = top.net
    shuffled = Shuffled(name, subject.preprocessing, subject.classes, lambda: net, known, classifier)
    for part, modules in _parts(shuffled):
        for module in modules:
            _shuffle(module, random)
        yield part, shuffled


def sanity(
    subject: Subject,
    photos: Sequence[tuple[Photo, int]],
    methods: Sequence[Method],
    *,
    seed: int = 0,
    depths: int | None = 1,
    before: Mapping[str, Sequence[Found]] | None = None,
    step: Step = silent,
) -> tuple[Level, ...]:
    """Compare the maps of photos before and after the layers were shuffled.

    Args:
        subject: the net.
        photos: each with its class.
        methods: none of them may refuse this net.
        seed: of the shuffling, and of methods that draw.
        depths: how many parts from the top; None: all.
        before: by method: what it finds for each photo, where that is known already.
        step: told after each photo and depth.

    Returns:
        One level a part, from the top.

    Raises:
        UsageError: a method refuses, or there is no photo.
    """
    if not photos:
        raise UsageError("comparing maps needs at least one photo")
    if before is None:
        before = {entry.name: [_find(subject, *photo, entry, seed) for photo in photos] for entry in methods}
    levels = []
    for name, shuffled in islice(cascade(subject, seed), depths):
        found: dict[str, list[float]] = {method.name: [] for method in methods}
        for place, photo in enumerate(photos):
            for method in methods:
                was, now = before[method.name][place], _find(shuffled, *photo, method, seed)
                found[method.name].append(spearman(_values(was), _values(now)))
            step(place + 1, len(photos), f"{name} shuffled")
        levels.append(Level(name, {method: np.array(values) for method, values in found.items()}))
    return tuple(levels)


def spearman(first: Float[np.ndarray, "values"], second: Float[np.ndarray, "values"]) -> float:
    """Rank correlation, equal values sharing the mean of their ranks (Spearman 1904); NaN where one is constant
    or not finite.

    >>> spearman(np.array([1.0, 2.0, 3.0]), np.array([10.0, 400.0, 500.0]))
    1.0
    """
    if first.shape != second.shape:
        raise ShapeError(
            f"ranks of {first.shape} and of {second.shape} values cannot be compared; give as many of each"
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return float("nan")
    one, other = (_ranks(values) - (len(values) - 1) / 2 for values in (first, second))
    size = float(np.sqrt((one @ one) * (other @ other)))
    return float(one @ other) / size if size > 0 else float("nan")


def _ranks(values: Float[np.ndarray, "values"]) -> Float64[np.ndarray, "values"]:
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray(((last - counts + last - 1) / 2)[place])


def _find(subject: Subject, photo: Photo, target: int, method: Method, seed: int) -> Found:
    return method.find(Asked(subject, photo, target, seed=seed, settings=method.settings))


def _values(found: Found) -> Float64[np.ndarray, "values"]:
    """One number a place: of a map of pixels the largest size over the channels, of a grid the value with its sign."""
    raw = found.raw.astype(np.float64)
    return np.asarray((np.abs(raw).max(axis=0) if raw.ndim == 3 else raw).reshape(-1))


def _builder(classifier: Classifier) -> "Callable[[], torch.nn.Module]":
    """Makes the net of a classifier; the first weights that it draws and forgets leave no trace."""

    def build() -> "torch.nn.Module":
        import torch

        with torch.random.fork_rng(devices=[]):
            return classifier.full_network(probabilities=False)

    return build


def _with_shuffled_head(classifier: Classifier, random: np.random.Generator) -> Classifier:
    head = classifier.head
    tensors = {key: _in_another_order(value, random) for key, value in sorted(head.tensors.items())}
    return dataclasses.replace(classifier, head=dataclasses.replace(head, tensors=tensors))


def _in_another_order(values: np.ndarray, random: np.random.Generator) -> np.ndarray:
    return random.permutation(values.reshape(-1)).reshape(values.shape)


def _shuffle(module: "torch.nn.Module", random: np.random.Generator) -> None:
    """Put the entries of a module's own parameters in another order, in place."""
    import torch

    with torch.no_grad():
        for parameter in module.parameters(recurse=False):
            order = torch.from_numpy(random.permutation(parameter.numel()))
            parameter.copy_(parameter.reshape(-1)[order].reshape(parameter.shape))


def _parts(subject: Subject) -> list[tuple[str, list[Any]]]:
    """The modules with parameters that the logits depend on, by stage, the last stage first."""
    trunk = subject.trunk
    stage_of = _stages(trunk)
    used = _used_stages(subject)
    parts: dict[str, list[Any]] = {}
    for name, module in trunk.named_modules():
        stage = stage_of(name)
        if (used is None or stage in used) and next(module.parameters(recurse=False), None) is not None:
            parts.setdefault(stage, []).append(module)
    names = list(used) if used is not None else list(parts)
    return [(name, parts[name]) for name in reversed(names) if name in parts]


def _stages(trunk: Any) -> Callable[[str], str]:
    """Which stage a module belongs to: by the net's own table, else by the first part of its name."""
    chain = getattr(trunk, "chain", None)
    owner = {layer: stage for stage, layers in (chain or {}).items() for layer in layers}

    def of(name: str) -> str:
        parts = name.split(".")
        prefixes = (".".join(parts[:length]) for length in range(len(parts), 0, -1))
        known = next((owner[prefix] for prefix in prefixes if prefix in owner), None)
        return known or ("beside" if chain else parts[0])

    return of


def _used_stages(subject: Subject) -> tuple[str, ...] | None:
    """Stages up to the cut of the classifier, in order; None: every module counts, in the order of the net."""
    trunk = subject.trunk
    order = tuple(getattr(trunk, "chain", ())) or (*getattr(trunk, "cuts", ()), "classifier")
    if len(order) < 2:
        return None
    cut = "logits" if subject.classifier is None else subject.classifier.cut.removesuffix("_map")
    return order[: order.index(cut) + 1] if cut in order else order
