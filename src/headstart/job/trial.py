"""The dear candidate of "auto": the end of the net is trained, within the budget, and judged beside the head."""

import dataclasses
import time
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float

from headstart.backbones import Backbone
from headstart.config import TrainConfig
from headstart.job.advice import FEWEST_EPOCHS, SECONDS_A_VIEW, Standing, Tried, candidate_of, not_tried
from headstart.job.material import Material, Say, with_validation
from headstart.job.network import run_training
from headstart.job.preparations import FIRST_CUT, Preparation, prepare_deeper
from headstart.job.trained import Trained
from headstart.training.evaluation import predict_logits
from headstart.transfer.tail import Tail

TIMED = 2  # batches by which the time of an epoch is estimated
BATCH = 32  # photos in each
MORE = 1.3  # times that: the optimiser's steps and the validation come on top


@dataclass(frozen=True, eq=False)
class Won:
    """What a run is written from: the photos with their validation part, the training, and what it left."""

    material: Material
    ready: Preparation
    trained: Trained


def try_deeper(
    material: Material,
    backbone: Backbone,
    standing: Standing,
    head_logits: Float[np.ndarray, "train classes"],
    head_on_validation: Float[np.ndarray, "validation classes"],
    config: TrainConfig,
    *,
    quiet: bool,
    say: Say,
) -> Tried:
    """Train what lies behind the first cut, if the budget allows it, and compare it with the head.

    Args:
        material: the photos, in folds; none of the test is looked at.
        backbone: the net.
        standing: the case.
        head_logits: of each training photo, by a head that has not seen it.
        head_on_validation: of the data's own validation photos, where there are some.
        config: the settings; `budget` in seconds.
        quiet: show no progress line.
        say: told what happens.
    """
    begun = time.perf_counter()
    own_validation = len(material.split.validation) > 0
    held = np.zeros(len(head_logits), bool) if own_validation else material.split.folds == 0
    reference = head_on_validation if own_validation else head_logits[held]
    split = with_validation(material.split, config.seed)
    material = dataclasses.replace(material, split=split)
    asked = standing.with_augmentation(dataclasses.replace(config, strategy="deeper", cut=FIRST_CUT))
    epoch = _seconds_an_epoch(backbone, len(material.dataset.classes)) * len(split.train)
    first = SECONDS_A_VIEW * (asked.views * len(split.train) + len(split.validation))
    left = config.budget - (time.perf_counter() - begun) - first
    epochs = min(asked.epochs, int(left / epoch))
    if epochs < FEWEST_EPOCHS:
        return Tried(*not_tried(config, first + FEWEST_EPOCHS * epoch))
    ready = prepare_deeper(material, asked, backbone, quiet=quiet, say=say)
    ready = dataclasses.replace(ready, config=dataclasses.replace(ready.config, epochs=epochs))
    say(f"trying strategy deeper: {epochs} epochs of about {epoch:,.1f} s")
    trained = run_training(ready, material, quiet=quiet, say=say)
    labels = material.labels(split.validation)
    logits = predict_logits(ready.net, ready.validation).numpy()
    note = "trained without these photos, which also told when to stop"
    candidate, losses = candidate_of("deeper", FIRST_CUT, logits, labels, begun, note)
    head, head_losses = candidate_of("head", "", reference, labels, begun, "")
    better = head_losses - losses
    error = float(better.std() / np.sqrt(len(better)))
    won = float(better.mean()) > error
    why = (
        f"Strategy deeper {'is taken' if won else 'was tried and is not taken'}: on {len(labels):,} photos that "
        f"neither had seen its log loss is {candidate.log_loss:.3f} against {head.log_loss:.3f} of the head, "
        f"{'lower' if better.mean() > 0 else 'higher'} by {abs(better.mean()):.3f}, standard error {error:.3f}; "
        f"accuracy {100 * (candidate.accuracy or 0):.1f} % against {100 * (head.accuracy or 0):.1f} %."
    )
    return Tried(candidate, why, Won(material, ready, trained) if won else None)


def _seconds_an_epoch(backbone: Backbone, classes: int) -> float:
    """Seconds a photo of an epoch, from forward and backward passes of noise."""
    tail = Tail(backbone.net(), FIRST_CUT, None, classes)
    noise = torch.randn(BATCH, *backbone.outputs[f"{FIRST_CUT}_map"]).contiguous(memory_format=torch.channels_last)
    times = []
    for _ in range(TIMED):
        begun = time.perf_counter()
        tail(noise).logsumexp(dim=1).sum().backward()
        times.append(time.perf_counter() - begun)
    return min(times) / BATCH * MORE
