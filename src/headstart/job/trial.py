"""The dear candidates of "auto": networks are trained, within the budget, and each is judged beside what stands."""

import dataclasses
import time
from collections.abc import Callable
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
from headstart.transfer.held_out import Answers, Fold, is_better, is_beyond_doubt
from headstart.transfer.probes import mean_and_error
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
    head: Answers,
    config: TrainConfig,
    *,
    quiet: bool,
    say: Say,
) -> tuple[Tried, ...]:
    """Train each candidate of the case that the budget allows, from cheap to dear, and compare it with what stands.

    A network is dear, so one fold of the photos judges it. Where it wins by little, as chance may have it on so few, it
    is trained once more without the photos of another fold, and must win on both together.

    Args:
        material: the photos, in folds; none of the test is looked at.
        backbone: the net.
        standing: the case.
        head: what a head that has not seen them says of the photos of each fold; of the validation photos alone where
            the data bring them.
        config: the settings; `budget` in seconds, for all of it.
        quiet: show no progress line.
        say: told what happens.

    Returns:
        What came of each; of those that won, the last is the best.
    """
    begun = time.perf_counter()
    best, tried = head, []
    for strategy in standing.candidates:
        if strategy in PREPARATIONS:
            trial = _Trial(strategy, material, backbone, standing, config, quiet, say)
            one, found = trial.run(best, config.budget - (time.perf_counter() - begun))
            tried.append(one)
            if one.won is not None:
                best = found
    return tuple(tried)


@dataclass(eq=False)
class _Trial:
    """One candidate against what stands."""

    strategy: str
    material: Material
    backbone: Backbone
    standing: Standing
    config: TrainConfig
    quiet: bool
    say: Say
    again: Callable[[Material], Preparation] | None = None  # the same with other photos, where much can be kept

    def run(self, best: Answers, left: float) -> tuple[Tried, Answers]:
        """Train it, if `left` seconds are enough, and compare."""
        begun, strategy = time.perf_counter(), self.strategy
        asked, needed = self._shortened(left)
        if asked.epochs < FEWEST_EPOCHS:
            return Tried(*not_tried(strategy, left, needed)), best
        won, fold = self._train(asked, 0)
        found = Answers(f"strategy {strategy}", (fold,))
        first, looks, before = found.held_out(1), 1, ""
        took = time.perf_counter() - begun
        if is_better(first, best.held_out(1)) and not is_beyond_doubt(first, best.held_out(1)) and len(best.folds) > 1:
            lower, error = mean_and_error(best.held_out(1).losses - first.losses)
            few = f"lower by {lower:.3f}, standard error {error:.3f}, on {len(first.losses):,} photos is no clear gain"
            if left - took > took:
                self.say(f"{few}; strategy {strategy} is trained once more without other photos")
                found, looks = Answers(found.name, (fold, self._train(asked, 1)[1])), 2
                before = f"{few[0].upper()}{few[1:]}; so it was trained once more without other photos. "
            else:
                before = f"{few[0].upper()}{few[1:]}, and too little of the budget is left for a second look. "
        new, old = found.held_out(looks), best.held_out(looks)
        is_won = is_better(new, old)
        lower, error = mean_and_error(old.losses - new.losses)
        why = (
            f"{before}Strategy {strategy} {'is taken' if is_won else 'was tried and is not taken'}: on "
            f"{len(new.losses):,} photos that neither had seen its log loss is {new.losses.mean():.3f} against "
            f"{old.losses.mean():.3f} of {best.name}, {'lower' if lower > 0 else 'higher'} by {abs(lower):.3f}, "
            f"standard error {error:.3f}; its accuracy {100 * new.correct.mean():.1f} % against "
            f"{100 * old.correct.mean():.1f} %."
        )
        logits, labels = map(np.concatenate, zip(*found.folds, strict=True))
        note = "trained without these photos, which also told when to stop"
        candidate = candidate_of(strategy, FIRST_CUT if strategy == "deeper" else "", logits, labels, begun, note)[0]
        return Tried(candidate, why, won if is_won else None), found

    def _shortened(self, left: float) -> tuple[TrainConfig, float]:
        """The settings with as many epochs as fit into the time, and the seconds that the fewest would take."""
        split = with_validation(self.material.split, self.config.seed)
        asked = dataclasses.replace(self.config, strategy=self.strategy, cut="pooled")
        asked = named_net(asked) if self.strategy == "scratch" else self.standing.with_choices(asked)
        begun = time.perf_counter()
        epoch = _seconds_a_photo(self.strategy, self.backbone, len(self.material.dataset.classes)) * len(split.train)
        views = asked.filled(len(split.train)).views if self.strategy == "deeper" else 1
        first = SECONDS_A_VIEW * (views * len(split.train) + len(split.validation))
        epochs = min(asked.epochs, int((left - first - (time.perf_counter() - begun)) / epoch))
        if epochs >= FEWEST_EPOCHS:
            self.say(f"trying strategy {self.strategy}: {epochs} epochs of about {epoch:,.1f} s")
        return dataclasses.replace(asked, epochs=max(epochs, 0)), first + FEWEST_EPOCHS * epoch

    def _train(self, asked: TrainConfig, fold: int) -> tuple[Won, Fold]:
        """Train it without the photos of one fold, and ask it about them."""
        material = dataclasses.replace(
            self.material, split=with_validation(self.material.split, self.config.seed, fold=fold)
        )
        if self.again is not None:
            ready = self.again(material)
        else:
            prepare = PREPARATIONS[self.strategy]
            ready = prepare(material, asked, self.backbone, among=ALONE, quiet=self.quiet, say=self.say)
            self.again = ready.again
        checked = ready.validation
        if checked is None:
            raise ConfigError("a network is tried on photos set apart for that; there are none")
        trained = run_training(ready, material, quiet=self.quiet, say=self.say)
        logits = predict_logits(ready.net, checked).numpy()
        return Won(material, ready, trained), (logits, material.labels(material.split.validation))


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
