"""The 50-photo check: a sound net, loss and optimiser learn 50 photos by heart. One that cannot is broken, and so may
be one that can: the check says what is wrong, the most certain first.

Certain is what follows from one forward and one backward pass (a frozen layer, a gradient that does not arrive). Next
comes what an experiment shows (the same training succeeds with another learning rate). Last comes what only statistics
can tell (labels that nothing in the photos predicts).
"""

import copy
import dataclasses
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from headstart.allocator import memory_kept
from headstart.config import LoopConfig
from headstart.diagnose import Finding, Share
from headstart.errors import ConfigError, DataError
from headstart.training import causes
from headstart.training.batches import MemoryBatches, check_labels
from headstart.training.losses import make_loss
from headstart.training.optimisers import make_optimiser, usual_rate
from headstart.training.probes import Probe, neighbour_agreement, probe, still
from headstart.training.range_finder import build_seeded, chance_loss, find_range

PHOTOS, STEPS = 50, 300
FEW = 10  # photos that even a net too small for 50 can learn
STUCK = 50  # steps that must lower the loss by a hundredth, or no more are made
KNOWN = 0.1  # of the loss of guessing: below, and all photos right, they are known by heart
ENOUGH = 100  # photos that a word about the labels needs
HELD_OUT = 500  # photos, at most, that the net is trained on to see whether anything holds for others
BATCH = 50  # photos a step there
SURELY = 3.5  # standard deviations above chance: the labels follow the photos
STRICT = 20  # the same for a share of photos: 20 comparisons at once, 3 standard deviations

Loss = Callable[[Tensor, Tensor], Tensor]
Make = Callable[[nn.Module, LoopConfig], torch.optim.Optimizer]


@dataclass(frozen=True)
class Attempt:
    """A few photos, learned over and over.

    Args:
        rate: learning rate.
        losses: before each step; the last one may be no number.
        right: photos recognised at the end.
        photos: of so many.
        passed: all of them, with a loss near 0.
    """

    rate: float
    losses: tuple[float, ...]
    right: int
    photos: int
    passed: bool

    def __str__(self) -> str:
        if self.losses and not math.isfinite(self.losses[-1]):
            return f"the loss is no number after {len(self.losses) - 1} steps"
        loss = f", the loss {self.losses[-1]:.2g}" if self.losses else ""
        return f"{self.right} of {self.photos} photos are right after {len(self.losses)} steps{loss}"


@dataclass(frozen=True)
class CheckResult:
    """What the check found.

    Args:
        passed: the net learned the photos by heart. There may be findings nevertheless.
        attempt: the training with the settings as they are.
        findings: "finding", "evidence", "remedy", "expected_gain" (None) and "cause", one of
            `headstart.training.causes.CAUSES`; the most certain first.
    """

    passed: bool
    attempt: Attempt
    findings: tuple[Finding, ...] = field(default=())

    def to_json(self) -> dict[str, Any]:
        """Plain values; a loss that is no number is null."""
        document = dataclasses.asdict(self)
        losses = [value if math.isfinite(value) else None for value in self.attempt.losses]
        document["attempt"]["losses"] = losses
        return document | {"findings": list(self.findings)}

    def to_text(self) -> str:
        """Lines for a person."""
        lines = [f"{'passed' if self.passed else 'failed'}: {self.attempt}, learning rate {self.attempt.rate:g}."]
        for item in self.findings:
            lines += ["", item["finding"], f"  {item['evidence']}", f"  {item['remedy']}"]
        if self.passed and not self.findings:
            lines.append("Net, loss, optimiser and labels work together: train with all photos.")
        return "\n".join(lines)


@memory_kept()
def check_net(
    net: nn.Module | Callable[[], nn.Module],
    images: Float[Tensor, "images channels height width"],
    labels: Int64[Tensor, "images"],
    config: LoopConfig,
    *,
    classes: int | None = None,
    photos: int = PHOTOS,
    steps: int = STEPS,
    loss: Loss | None = None,
    make: Make = make_optimiser,
) -> CheckResult:
    """Let a net learn a few photos by heart; where it cannot, or can for the wrong reasons, say why.

    Regularisation, augmentation and dropout are off: they keep a net from learning by heart, which is their purpose.

    Args:
        net: left as it was found; or a function that builds it.
        images: normalised, as the net will see them; some hundreds or more, so that the labels can be judged too.
        labels: of each, 0 to classes - 1.
        config: the loss, the optimiser, the learning rate and the seed.
        classes: number of outputs; the highest label and 1, if not given.
        photos: how many to learn, of every class equally many.
        steps: at most, each with all these photos.
        loss: of (logits, targets); the one of the config if not given.
        make: gives the optimiser.

    Raises:
        DataError: the labels do not fit the photos, or there is only one class.
    """
    classes = int(labels.max()) + 1 if classes is None else classes
    check_labels(labels, len(images), classes)
    if len(torch.unique(labels)) < 2:
        raise DataError("the check needs photos of at least 2 classes; received 1")
    config = _plain(config)
    start = copy.deepcopy(net) if isinstance(net, nn.Module) else build_seeded(net, config.seed)
    chosen = choose_photos(labels, photos, config.seed)
    case = _Case(
        start, images[chosen], labels[chosen], config, loss or make_loss(config, classes, None), make, steps, classes
    )
    unusable = causes.unusable_input(images)
    if unusable is not None:
        attempt = Attempt(usual_rate(config), (), 0, len(chosen), False)
        return CheckResult(False, attempt, (unusable,))
    attempt, before, after, forgotten = _first_attempt(case)
    found = _certain(case, attempt.passed, before, after, forgotten)
    found = _with_scale(case, attempt.passed, found)
    if not attempt.passed and not found:
        found += _by_experiment(case, attempt, before)
    if len(images) >= ENOUGH and all(item["cause"] == "unknown" for item in found):
        found = _labels(case, images, labels, attempt) + found
    return CheckResult(attempt.passed, attempt, tuple(found))


def choose_photos(labels: Int64[Tensor, "images"], count: int, seed: int) -> Int64[Tensor, "chosen"]:
    """Draw photos, as equally many of every class as there are.

    >>> choose_photos(torch.tensor([0, 0, 0, 0, 1, 1]), 4, seed=0).sort().values.tolist()[2:]
    [4, 5]
    """
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(seed))
    place = torch.empty(len(labels), dtype=torch.int64)  # of each photo within its class
    for label in torch.unique(labels).tolist():
        own = order[labels[order] == label]
        place[own] = torch.arange(len(own))
    return order[torch.argsort(place[order], stable=True)][:count]


def learn_by_heart(
    net: nn.Module,
    images: Float[Tensor, "photos channels height width"],
    labels: Int64[Tensor, "photos"],
    loss: Loss,
    optimiser: torch.optim.Optimizer,
    *,
    steps: int,
    known: float,
) -> Attempt:
    """Train the net, in place, with the same photos at every step, until it knows them or is stuck.

    Args:
        net: in the mode it is in.
        images: normalised.
        labels: of each.
        loss: of (logits, targets).
        optimiser: of the net's parameters.
        steps: at most.
        known: a loss below which, with all photos right, they are known.
    """
    losses: list[float] = []
    right = 0
    passed = False
    while len(losses) < steps and not passed:
        optimiser.zero_grad()
        logits = net(images)
        value = loss(logits, labels)
        losses.append(float(value.detach()))
        right = int((logits.argmax(dim=1) == labels).sum())
        passed = right == len(labels) and losses[-1] < known
        if passed or not math.isfinite(losses[-1]) or not value.requires_grad or is_stuck(losses):
            break
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    return Attempt(float(optimiser.param_groups[0]["lr"]), tuple(losses), right, len(labels), passed)


def is_stuck(losses: list[float]) -> bool:
    """Have the last 50 steps brought nothing, after the 50 before them?

    >>> is_stuck([2.3] * 100), is_stuck([2.3] * 99), is_stuck([2.3 - step / 100 for step in range(100)])
    (True, False, False)
    """
    return len(losses) >= 2 * STUCK and min(losses[-STUCK:]) > 0.99 * min(losses[:-STUCK])


@dataclass(frozen=True)
class _Case:
    """The net before its first step, the photos to learn, and what is needed to train."""

    net: nn.Module
    images: Tensor
    labels: Tensor
    config: LoopConfig
    loss: Loss
    make: Make
    steps: int
    classes: int

    @property
    def chance(self) -> float:
        return chance_loss(self.config, self.classes)

    def attempt(self, rate: float, photos: int | None = None, images: Tensor | None = None) -> Attempt:
        """Learn with another rate, fewer photos or other pixels."""
        net = copy.deepcopy(self.net).train()
        optimiser = self.make(net, dataclasses.replace(self.config, learning_rate=rate))
        with still(net):
            return learn_by_heart(
                net,
                (self.images if images is None else images)[:photos],
                self.labels[:photos],
                self.loss,
                optimiser,
                steps=self.steps,
                known=KNOWN * self.chance,
            )


def _plain(config: LoopConfig) -> LoopConfig:
    """The same settings without what keeps a net from learning by heart."""
    return dataclasses.replace(
        config, label_smoothing=0.0, weight_decay=0.0, l1=0.0, l2=0.0, mixup=0.0, augment="none", schedule="constant"
    )


def _first_attempt(case: _Case) -> tuple[Attempt, Probe, Probe, list[str]]:
    """Train with the settings as they are; look at the net before and after, and at what the optimiser holds."""
    net = copy.deepcopy(case.net).train()
    with still(net):
        before = probe(net, case.images, case.labels, case.loss)
        try:
            optimiser = case.make(net, case.config)
        except ConfigError:
            if any(parameter.requires_grad for parameter in net.parameters()):
                raise
            right = int((before.logits.argmax(dim=1) == case.labels).sum())
            stuck = Attempt(usual_rate(case.config), (before.loss,), right, len(case.labels), False)
            return stuck, before, before, []
        held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        forgotten = [
            layer.name
            for layer in before.layers
            if any(
                parameter.requires_grad and id(parameter) not in held
                for parameter in net.get_submodule(layer.name).parameters(recurse=False)
            )
        ]
        attempt = learn_by_heart(
            net, case.images, case.labels, case.loss, optimiser, steps=case.steps, known=KNOWN * case.chance
        )
        after = probe(net, case.images, case.labels, case.loss)
    return attempt, before, after, forgotten


def _certain(case: _Case, passed: bool, before: Probe, after: Probe, forgotten: list[str]) -> list[Finding]:
    """What one look at the net shows, whether or not it could learn the photos."""
    silenced = any(share == 1.0 for share in before.dead.values())
    faint = causes.vanishing_gradient(before) is not None
    found = [
        causes.frozen_weights(before.layers, forgotten),
        causes.ignored_input(before, after, case.loss, silenced or faint),
        causes.dead_units(before, passed),
        causes.exploding_signal(before, case.chance) if passed else None,
    ]
    if found[1] is None:  # a loss that depends on nothing has no gradient anywhere
        found.append(causes.missing_gradient(before, after, silenced))
    return [item for item in found if item is not None]


def _with_scale(case: _Case, passed: bool, found: list[Finding]) -> list[Finding]:
    """Add pixels of a wrong scale to what was found: in front, where they are shown to be the cause of the rest."""
    if causes.wrong_scale(case.images, None) is None:
        return found
    found = [item for item in found if item["cause"] != "gradient-explodes"]  # loud photos make loud outputs
    cured = None
    if not passed and not any(item["cause"] == "frozen" for item in found):
        normal = (case.images - case.images.mean()) / case.images.std().clamp_min(1e-12)
        cured = case.attempt(usual_rate(case.config), images=normal).passed
    scale = causes.wrong_scale(case.images, cured)
    scales: list[Finding] = [] if scale is None else [scale]
    return scales + found if cured else found + scales


def _by_experiment(case: _Case, failed: Attempt, before: Probe) -> list[Finding]:
    """Vary the learning rate, then the number of photos, and see what helps."""
    uneven = causes.exploding_signal(before, case.chance) or causes.vanishing_gradient(before)
    if uneven is not None and not math.isfinite(before.loss):
        return [uneven]
    tried = [failed.rate]
    for rate in _other_rates(case, failed.rate):
        other = case.attempt(rate)
        tried.append(rate)
        if other.passed:
            told = causes.wrong_rate(failed.rate, rate, str(failed), str(other))
            return [told] if uneven is None else [uneven, told]
    if uneven is not None:
        return [uneven]
    best = tried[1]
    if case.attempt(best, photos=FEW).passed:
        return [causes.too_small(case.net, failed.photos, failed.right, FEW)]
    return [causes.unexplained(failed.photos, failed.right, tried)]


def _other_rates(case: _Case, rate: float) -> list[float]:
    """The range test's suggestion and a tenth of it, without what is nearly the rate that failed."""
    channels = case.images.shape[1]
    batches = MemoryBatches(
        case.images,
        case.labels,
        classes=case.classes,
        batch_size=len(case.labels),
        mean=[0.0] * channels,
        std=[1.0] * channels,
    )
    with still(case.net):
        found = find_range(case.net, batches, case.config, loss=case.loss, make=case.make).suggestion
    return [other for other in (found, found / 10) if not rate / 1.5 < other < rate * 1.5] or [found / 3]


def _labels(case: _Case, images: Tensor, labels: Tensor, attempt: Attempt) -> list[Finding]:
    """Two witnesses: photos that look alike, and the net itself on photos it has not seen. Either clears the labels."""
    neighbours, chance, deviation = neighbour_agreement(images, labels)
    if neighbours.value > chance + SURELY * deviation:
        return []
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(case.config.seed))
    own, others = order[: len(order) // 2][:HELD_OUT], order[len(order) // 2 :][:HELD_OUT]
    held_out = _recognised(case, images, labels, own, others)
    guess = float(torch.bincount(labels[others]).max()) / len(others)
    if Share.of(held_out.right, held_out.count, STRICT).low > guess:
        return []
    return [causes.shuffled_labels(neighbours, chance, held_out, guess, attempt.passed)]


def _recognised(case: _Case, images: Tensor, labels: Tensor, own: Tensor, others: Tensor) -> Share:
    """Train with the one half of the photos and count what is recognised of the other."""
    net = copy.deepcopy(case.net).train()
    optimiser = case.make(net, case.config)
    for number in range(case.steps):
        rows = own[torch.arange(number * BATCH, (number + 1) * BATCH) % len(own)]
        optimiser.zero_grad()
        value = case.loss(net(images[rows]), labels[rows])
        value.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    net.eval()
    with torch.no_grad():
        right = int((net(images[others]).argmax(dim=1) == labels[others]).sum())
    return Share.of(right, len(others))
