"""What is trained, and on what, for each strategy that trains a network: plain functions in a table."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch

from headstart import heads
from headstart.backbones import Backbone
from headstart.config import TrainConfig
from headstart.errors import ConfigError
from headstart.heads import Head
from headstart.job.joining import classifier_of
from headstart.job.levels import measured
from headstart.job.material import Material, Say
from headstart.job.net_input import choose_input
from headstart.nets import build_net
from headstart.preprocess import Preprocessing
from headstart.progress import Progress
from headstart.training.batches import Batches
from headstart.training.distributed import Place
from headstart.training.optimisers import usual_rate
from headstart.training.presets import find_preset
from headstart.training.streamed import load_batches
from headstart.transfer.activations import CachedBatches, KeptViews
from headstart.transfer.tail import Tail, load_beginning

PEAK = 3.0  # times the usual rate, where a schedule climbs to it slowly and spends few steps there
FIRST_CUT = "stage5"  # of the EfficientNet-Lites: behind it lie most of the weights and a third of the multiply-adds
LOWEST_SHARE = 0.1  # of the learning rate, for the first layers of a pretrained net

Parts = tuple[Backbone, str, Head]  # a classifier's backbone, its cut, and the head there


@dataclass(frozen=True, eq=False)
class Preparation:
    """A training that is ready to run.

    Args:
        net: what is trained.
        training, validation: its photos, or what the frozen part makes of them.
        config: with every setting filled in.
        finish: from the trained net to a classifier's parts.
        why: sentences for the plan.
        told: more of the plan: what it was made of.
        rate_of: from a parameter's name to its share of the learning rate; None: all the same.
        again: prepares the same training of other photos, which may have no validation; None: it is not made for that.
    """

    net: Any
    training: Batches
    validation: Batches | None
    config: TrainConfig
    finish: Callable[[Any], Parts]
    why: tuple[str, ...]
    told: dict[str, Any]
    rate_of: Callable[[str], float] | None = None
    again: "Callable[[Material], Preparation] | None" = None


def prepare_scratch(
    material: Material,
    config: TrainConfig,
    backbone: Backbone | None,  # noqa: ARG001 - every function of the table takes the same
    *,
    among: Place,
    quiet: bool,  # noqa: ARG001
    say: Say,
) -> Preparation:
    """A net from random weights; each of several processes gets its slice of every batch."""
    facts, split = material.survey.facts, material.split
    config = with_rate(config, len(split.train))
    chosen = choose_input(config, material.dataset, [facts[index] for index in split.train])
    preprocessing = measured(material.dataset, split.train, chosen, threads=config.threads)
    net, name = build(config, chosen.options), str(config.net)
    levels = " and ".join(
        f"{label} {', '.join(f'{value:.1f}' for value in values)}"
        for label, values in (("mean", preprocessing.mean), ("deviation", preprocessing.std))
    )
    return Preparation(
        net,
        *_pixel_batches(material, preprocessing, config, among, say),
        config=config,
        finish=lambda trained: classifier_of(trained, name, chosen.options, preprocessing, say),
        why=(*chosen.why, f"Its input is normalised by {levels} (grey levels, measured on training photos)."),
        told={
            "backbone": name,
            "input": {"size": chosen.size, "channels": chosen.channels, "options": chosen.options},
        },
    )


def prepare_full(
    material: Material,
    config: TrainConfig,
    backbone: Backbone | None,
    *,
    among: Place,
    quiet: bool,
    say: Say,
) -> Preparation:
    """The whole pretrained net, its first layers at a lower learning rate, with a new last layer that is fitted."""
    backbone = _needed(backbone)
    config = config.filled(len(material.split.train))
    classes = len(material.dataset.classes)
    options = {**backbone.net_options, "classes": classes}
    net: Any = backbone.net()
    places = {name: place for place, name in enumerate(net.cuts)}
    last = len(places) - 1

    def rate_of(name: str) -> float:
        place = places.get(name.removeprefix("net.").split(".")[0], last)
        return float(LOWEST_SHARE ** (1 - place / last))

    return Preparation(
        Tail(net, None, starting_head(material, config), classes),
        *_pixel_batches(material, backbone.preprocessing, config, among, say),
        config=config,
        finish=lambda trained: _joined(trained, backbone, options, say),
        why=(
            f"All of {backbone.name} is trained, from its pretrained weights and a last layer fitted to its features; "
            f"the first layers at {LOWEST_SHARE:g} of the learning rate, the last at all of it.",
        ),
        told={"backbone": backbone.name},
        rate_of=rate_of,
        again=lambda others: prepare_full(others, config, backbone, among=among, quiet=quiet, say=say),
    )


def prepare_deeper(
    material: Material,
    config: TrainConfig,
    backbone: Backbone | None,
    *,
    among: Place,
    quiet: bool,
    say: Say,
    kept: KeptViews | None = None,
) -> Preparation:
    """The end of the pretrained net, from what its frozen beginning makes of the photos; some of that may be `kept`."""
    backbone = _needed(backbone)
    config = config.filled(len(material.split.train))
    split, labels = material.split, material.dataset.labels()
    classes, cut = len(material.dataset.classes), config.cut if config.cut != "pooled" else FIRST_CUT
    if f"{cut}_map" not in backbone.outputs:
        maps = ", ".join(name for name in backbone.cuts if f"{name}_map" in backbone.outputs)
        raise ConfigError(f"strategy deeper trains what comes behind a map; --cut must be one of {maps}; got {cut!r}")
    augment = find_preset(config.augment)
    views = config.views if augment is not None else 1
    channels, height, width = backbone.outputs[f"{cut}_map"]
    shape = channels, height, width
    options = {**backbone.net_options, "classes": classes}
    tail = Tail(backbone.net(), cut, starting_head(material, config), classes)
    if kept is None:
        known: dict[str, Any] = {"engine": config.engine, "threads": config.threads, "seed": config.seed}
        kept = KeptViews(material.dataset, backbone, cut, views=views, augment=augment, **known)
    missing = len(kept.missing(split.train))
    if missing:
        say(f"computing what the frozen part makes of {missing:,} training photos, {views} views of each")
    with Progress(missing + len(kept.missing(split.validation, plain=True)), "photos", quiet=quiet) as progress:
        own = kept.of(split.train, progress=progress)
        held = kept.of(split.validation, plain=True, progress=progress)
    trained_numbers = sum(parameter.numel() for parameter in tail.parameters())
    counted: dict[str, Any] = {"classes": classes, "seed": config.seed}
    checked = None
    if len(split.validation):
        size = min(config.batch_size, len(split.validation))
        checked = CachedBatches(held, shape, labels[split.validation], batch_size=size, shuffle=False, **counted)
    return Preparation(
        tail,
        CachedBatches(own, shape, labels[split.train], batch_size=config.batch_size, **counted),
        checked,
        config=config,
        finish=lambda trained: _joined(trained, backbone, options, say),
        why=(
            f"{backbone.name} is frozen up to {cut}; what comes behind it is trained, {trained_numbers:,} parameters, "
            f"from the frozen part's output, which was computed once for {views} view{'s' if views > 1 else ''} of "
            "each photo.",
        ),
        told={"backbone": backbone.name, "trained_behind": cut, "views": views, "augment": config.augment},
        again=lambda others: prepare_deeper(others, config, backbone, among=among, quiet=quiet, say=say, kept=kept),
    )


#: strategy -> how it is prepared
PREPARATIONS: dict[str, Callable[..., Preparation]] = {
    "deeper": prepare_deeper,
    "full": prepare_full,
    "scratch": prepare_scratch,
}


def starting_head(material: Material, config: TrainConfig) -> Head:
    """A last layer fitted to the features of the training photos; its logits are scaled to calibrated ones.

    The validation photos have no part in it: they shall tell when the training has to stop.
    """
    split, labels = material.split, material.dataset.labels()
    features = material.survey.features["pooled"][split.train]
    own, classes = labels[split.train], len(material.dataset.classes)
    kind = "logistic" if features.size * classes < heads.auto.WORK else "ridge"
    weights = heads.balanced_weights(own, classes) if config.class_weights == "balanced" else None
    fitted = heads.fit_head(kind, features, own, classes, folds=_folds(split.folds), sample_weights=weights)
    temperature = np.float32(heads.fit_temperature(fitted.held_out, own))
    tensors = {name: (values / temperature).astype(np.float32) for name, values in fitted.head.tensors.items()}
    return Head(fitted.head.kind, tensors)


def _folds(folds: np.ndarray) -> np.ndarray:
    """Folds of which there are at least two, after one was set apart."""
    return folds if len(set(folds.tolist())) > 1 else np.arange(len(folds), dtype=np.int64) % 2


def with_rate(config: TrainConfig, photos: int) -> TrainConfig:
    """The settings for random weights: the rate is three times the optimiser's usual one at the top of "one-cycle"."""
    config = config.filled(photos)
    if config.learning_rate:
        return config
    return dataclasses.replace(
        config, learning_rate=usual_rate(config) * (PEAK if config.schedule == "one-cycle" else 1.0)
    )


def build(config: TrainConfig, options: dict[str, Any]) -> Any:
    """The net with the random weights of the seed; the caller's random numbers are left as they were."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return build_net(str(config.net), **options)


def _needed(backbone: Backbone | None) -> Backbone:
    if backbone is None:
        raise ConfigError("this strategy starts from a pretrained backbone; give --backbone")
    return backbone


def _joined(tail: Tail, backbone: Backbone, options: dict[str, Any], say: Say) -> Parts:
    whole = load_beginning(build_net(backbone.name, **options), backbone.tensors())
    return classifier_of(tail.merge(whole), backbone.name, options, backbone.preprocessing, say)


def _pixel_batches(
    material: Material, preprocessing: Preprocessing, config: TrainConfig, among: Place, say: Say
) -> tuple[Batches, Batches | None]:
    """The training photos, shuffled and augmented, and the validation photos, as they are."""
    dataset, split = material.dataset, material.split
    load = partial(load_batches, dataset, rank=among.rank, world=among.world)
    own = load(split.train, preprocessing, config, say=say)
    if not len(split.validation):
        return own, None
    plain = dataclasses.replace(
        config, augment="none", mixup=0.0, batch_size=min(config.batch_size, len(split.validation))
    )
    return own, load(split.validation, preprocessing, plain, shuffle=False, say=lambda _: None)
