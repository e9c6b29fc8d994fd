"""What a command may look into: a run, a pretrained backbone, or any built-in net with its own or random weights."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.backbones import BACKBONES, Backbone, open_backbone
from headstart.classifier import Classifier
from headstart.errors import RunError, UsageError
from headstart.explain.subject import Subject, subject_of
from headstart.files import shown
from headstart.heads import Head
from headstart.nets import NETS, build_net
from headstart.preprocess import Preprocessing
from headstart.runs import load_run
from headstart.weights import digest, tensors_of

CLASS = "class {}"  # what an output is called whose meaning nobody has said
MIDDLE = 127.5  # mean and spread of grey levels, for nets that were trained on nothing yet


def open_subject(
    what: str | Path,
    weights: Path | None = None,
    *,
    seed: int = 0,
    threads: int = 0,
    say: Callable[[str], None] | None = None,
) -> Subject:
    """A net to look into, by what a person calls it.

    Args:
        what: a run's folder, or a name of `headstart.nets.NETS`.
        weights: a weights file for a net; without it a pretrained backbone has its published weights, and any other net
            random ones.
        seed: of random weights.
        threads: processor threads of the fast engine; 0: all this process may use.
        say: told what may surprise (random weights, a first conversion).

    Raises:
        RunError, BackboneError, WeightsError: it cannot be opened.
        UsageError: there is no such run or net.
    """
    name = str(what)
    if Path(what).is_dir():
        if weights is not None:
            raise UsageError("a run has weights of its own; leave --weights out")
        return subject_of(load_run(what).classifier, name, threads)
    if name.lower() in BACKBONES:
        return subject_of(_pretrained(name.lower(), weights, say), name.lower(), threads)
    if name.lower() not in NETS:
        if "/" in name or Path(name).suffix:
            raise RunError(f"there is no run at {shown(name)}; give the folder that headstart train has made")
        raise UsageError(f"{shown(name)} is neither a run nor a net; the nets are: {', '.join(sorted(NETS))}")
    return _built(name.lower(), weights, seed, say)


def _pretrained(name: str, weights: Path | None, say: Callable[[str], None] | None) -> Classifier:
    """A backbone with its own last layer as head: the classifier that it was published as."""
    backbone = open_backbone(name, weights, say=say)
    tensors = backbone.tensors()
    head = Head("linear", {"weight": tensors["classifier.weight"], "bias": tensors["classifier.bias"]})
    return Classifier(backbone, "pooled", head, _numbered(len(head.tensors["bias"]), backbone))


def _numbered(count: int, backbone: Backbone | None = None) -> tuple[str, ...]:
    if backbone is not None and backbone.classes is not None:
        return backbone.classes
    return tuple(CLASS.format(number) for number in range(count))


def _built(name: str, weights: Path | None, seed: int, say: Callable[[str], None] | None) -> Subject:
    """A net that is run by torch: with a weights file, or random."""
    from headstart.public_weights import PUBLIC, load_public

    if weights is not None:
        if name not in PUBLIC:
            raise UsageError(f"weights files are read for these nets: {', '.join((*BACKBONES, *PUBLIC))}; not {name}")
        net: Any = load_public(name, weights)
        preprocessing = PUBLIC[name].preprocessing
    else:
        if say is not None:
            say(f"{name} has random weights here (seed {seed}): what is seen is its architecture, nothing learned")
        net = _seeded(name, seed)
        size, _, channels = getattr(net, "input_size", (224, 224, 3))
        preprocessing = Preprocessing(size, 1.0, (MIDDLE,) * channels, (MIDDLE,) * channels)
    tensors = tensors_of(net)
    identity = hashlib.sha256(f"{name} {digest(tensors)}".encode()).hexdigest()
    return Subject(name, preprocessing, _numbered(_outputs(net, preprocessing)), lambda: net, identity)


def _seeded(name: str, seed: int) -> Any:
    """A net with random weights that leaves the global random numbers as they were."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build_net(name)


def _outputs(net: Any, preprocessing: Preprocessing) -> int:
    """How many logits a net gives."""
    from headstart.layers.summary import summarise

    return summarise(net, preprocessing.shape).row("logits").output_shape[-1]
