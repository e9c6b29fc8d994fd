"""The dear candidates of "auto": networks are trained, within the budget, and each is judged beside what stands."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headstart.backbones import Backbone
from headstart.config import TrainConfig
from headstart.errors import ConfigError
from headstart.job.advice import FEWEST_EPOCHS, SECONDS_A_VIEW, Standing, Tried, candidate_of, not_tried
from headstart.job.choices import named_net
from headstart.job.material import Material, Say, with_validation
from headstart.job.network import run_training
from headstart.job.preparations import FIRST_CUT, PREPARATIONS, Preparation
from headstart.job.trained import Trained
from headstart.training.distributed import ALONE
from headstart.training.evaluation import predict_logits
from headstart.transfer.probes import mean_and_error
from headstart.transfer.remedies import HeldOut
from headstart.transfer.tail import Tail

TIMED = 2  # batches by which the time of an epoch is estimated
BATCH = 16  # photos in each
MORE = 1.3  # times that: the optimiser's steps and the validation come on top


@dataclass(frozen=True, eq=False)
class Won:
    """What a run is written from: the photos with their validation part, the training, and what it left."""

    material: Material
    ready: Preparation
    trained: Trained


def try_networks(
    material: Material,
    backbone: Backbone,
    standing: Standing,
    head: HeldOut,
    config: TrainConfig,
    *,
    quiet: bool,
    say: Say,
) -> tuple[Tried, ...]:
    """Train each candidate of the case that the budget allows, from cheap to dear, and compare it with what stands.

    Args:
        material: the photos, in folds; none of the test is looked at.
        backbone: the net.
        standing: the case.
        head: what a head that has not seen them says of the validation photos; those of the first fold where the data
            bring none.
        config: the settings; `budget` in seconds, for all of it.
        quiet: show no progress line.
        say: told what happens.

    Returns:
        What came of each; of those that won, the last is the best.
    """
    begun = time.perf_counter()
    material = dataclasses.replace(material, split=with_validation(material.split, config.seed))
    best, name, tried = head, "the head", []
    for strategy in standing.candidates:
        if strategy in PREPARATIONS:
            left = config.budget - (time.perf_counter() - begun)
            one, found = _try(strategy, material, backbone, standing, best, name, config, left, quiet=quiet, say=say)
            tried.append(one)
            if one.won is not None:
                best, name = found, f"strategy {strategy}"
    return tuple(tried)


def _try(
    strategy: str,
    material: Material,
    backbone: Backbone,
    standing: Standing,
    best: HeldOut,
    name: str,
    config: TrainConfig,
    left: float,
    *,
    quiet: bool,
    say: Say,
) -> tuple[Tried, HeldOut]:
    """Train one candidate, if there is time for it."""
    begun, split = time.perf_counter(), material.split
    asked = dataclasses.replace(config, strategy=strategy, cut="pooled")
    asked = named_net(asked) if strategy == "scratch" else standing.with_choices(asked)
    epoch = _seconds_a_photo(strategy, backbone, len(material.dataset.classes)) * len(split.train)
    views = asked.views if strategy == "deeper" else 1
    first = SECONDS_A_VIEW * (views * len(split.train) + len(split.validation))
    epochs = min(asked.epochs, int((left - first - (time.perf_counter() - begun)) / epoch))
    if epochs < FEWEST_EPOCHS:
        return Tried(*not_tried(strategy, left, first + FEWEST_EPOCHS * epoch)), best
    shortened = dataclasses.replace(asked, epochs=epochs)
    ready = PREPARATIONS[strategy](material, shortened, backbone, among=ALONE, quiet=quiet, say=say)
    checked = ready.validation
    if checked is None:
        raise ConfigError("a network is tried on photos set apart for that; there are none")
    say(f"trying strategy {strategy}: {epochs} epochs of about {epoch:,.1f} s")
    trained = run_training(ready, material, quiet=quiet, say=say)
    labels = material.labels(split.validation)
    logits = predict_logits(ready.net, checked).numpy()
    note = "trained without these photos, which also told when to stop"
    cut = FIRST_CUT if strategy == "deeper" else ""
    candidate = candidate_of(strategy, cut, logits, labels, begun, note)[0]
    found = HeldOut.of(logits, labels)
    lower, error = mean_and_error(best.losses - found.losses)
    won = is_better(found, best)
    why = (
        f"Strategy {strategy} {'is taken' if won else 'was tried and is not taken'}: on {len(labels):,} photos that "
        f"neither had seen its log loss is {found.losses.mean():.3f} against {best.losses.mean():.3f} of {name}, "
        f"{'lower' if lower > 0 else 'higher'} by {abs(lower):.3f}, standard error {error:.3f}; its accuracy "
        f"{100 * found.correct.mean():.1f} % against {100 * best.correct.mean():.1f} %."
    )
    return Tried(candidate, why, Won(material, ready, trained) if won else None), found


def is_better(new: HeldOut, old: HeldOut) -> bool:
    """Whether a network takes the place of what stands.

    Its log loss on the same photos must be clearly lower, or lower with an accuracy that is clearly higher; clearly is
    by more than one standard error, photo by photo.

    >>> old, losses = HeldOut(np.arange(40) < 26, np.full(40, 1.0)), 0.4 + np.arange(40) % 2 * 1.1  # 0.95 on average
    >>> [is_better(HeldOut(np.arange(40) < right, losses), old) for right in (26, 33)]
    [False, True]
    >>> [is_better(HeldOut(np.arange(40) < 33, losses + more), old) for more in (0.1, -0.2)]
    [False, True]
    """
    lower, error = mean_and_error(old.losses - new.losses)
    more, spread = mean_and_error(new.correct.astype(np.float64) - old.correct)
    return lower > error or (lower > 0 and more > spread)


def _seconds_a_photo(strategy: str, backbone: Backbone, classes: int) -> float:
    """Seconds a photo of an epoch, from forward and backward passes of noise."""
    net: Any = backbone.net()
    shape = (backbone.preprocessing.channels, backbone.preprocessing.size, backbone.preprocessing.size)
    if strategy == "deeper":
        net, shape = Tail(net, FIRST_CUT, None, classes), backbone.outputs[f"{FIRST_CUT}_map"]  # type: ignore[assignment]
    elif strategy == "full":
        net = Tail(net, None, None, classes)
    net = net.train().to(memory_format=torch.channels_last)
    noise = torch.randn(BATCH, *shape).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(TIMED):
        begun = time.perf_counter()
        net(noise).logsumexp(dim=1).sum().backward()
        times.append(time.perf_counter() - begun)
    return min(times) / BATCH * MORE
