"""What would make the classifier better, and by how much: each of the five remedies, measured on held-out photos."""

import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart import heads
from headstart.backbones import BACKBONES, Backbone, backbone_status, open_backbone
from headstart.config import TrainConfig
from headstart.diagnose import FITTED, GAP
from headstart.features import survey_photos
from headstart.job.advice import SECONDS_A_VIEW, Advice
from headstart.job.material import Material, Say
from headstart.metrics import accuracy_interval
from headstart.progress import Progress
from headstart.store import Store
from headstart.transfer.forecast import LearningCurve, learning_curve
from headstart.transfer.held_out import HeldOut
from headstart.transfer.probes import LAST
from headstart.transfer.remedies import (
    Remedy,
    of_augmentation,
    of_backbone,
    of_less_complexity,
    of_more_photos,
    of_regularisation,
    rank,
    try_components,
    try_strengths,
)

VIEWS = 3  # changed views of a photo beside the photo
SECONDS_A_NUMBER = 1e-5  # of the features: to fit a hidden layer to them, fold by fold; on one core
LONGEST_HIDDEN = 20.0  # seconds that are worth spending on it, whatever the budget
HIDDEN = "a hidden layer with dropout and batch normalisation"


@dataclass(frozen=True, eq=False)
class Outlook:
    """What lies ahead.

    Args:
        curve: accuracy over the number of training photos.
        state: "overfits", "underfits" or "neither", by the last layer on training and on held-out photos.
        remedies: measured, the best first.
    """

    curve: LearningCurve
    state: str
    remedies: tuple[Remedy, ...]

    def to_json(self) -> dict[str, Any]:
        """The part of `evidence` in plan.json."""
        return {
            "forecast": self.curve.to_json(),
            "state": self.state,
            "remedies": [remedy.to_json() for remedy in self.remedies],
        }


def look_ahead(
    data: str,
    material: Material,
    backbone: Backbone,
    advice: Advice,
    config: TrainConfig,
    *,
    budget: float,
    quiet: bool,
    say: Say,
) -> Outlook:
    """Measure the remedies for what the last layer suffers from; those that take long only within the budget.

    Args:
        data: as the user gave it, for the commands.
        material: the photos; none of the test is looked at.
        backbone: the net.
        advice: with the probes of its cuts.
        config: the settings.
        budget: seconds that augmentation and other backbones may take together; 0: they are not tried.
        quiet: show no progress line.
        say: told what happens.
    """
    trying = _Trying(data, material, backbone, advice, config, quiet, say)
    curve = trying.curve()
    state = trying.state()
    if state == "neither":
        return Outlook(curve, state, rank([trying.more_photos(curve)]))
    begun = time.perf_counter()
    less = state == "underfits"
    found = [trying.more_photos(curve), trying.strength(budget, less=less), trying.complexity(more=less)]
    found.append(trying.other_backbones(budget - (time.perf_counter() - begun)))
    if not less:
        found.append(trying.augmentation(budget - (time.perf_counter() - begun)))
    return Outlook(curve, state, rank(found))


class _Trying:
    """Ridge on the last features of the training photos, and what is compared with it."""

    def __init__(
        self,
        data: str,
        material: Material,
        backbone: Backbone,
        advice: Advice,
        config: TrainConfig,
        quiet: bool,
        say: Say,
    ) -> None:
        self.material, self.backbone, self.advice, self.config = material, backbone, advice, config
        self.quiet, self.say, self.command = quiet, say, f"headstart train {data}"
        split = material.split
        self.train = split.train
        self.features = material.survey.features[advice.cut][self.train]
        self.labels, self.classes = material.labels(self.train), len(material.dataset.classes)
        self.common: dict[str, Any] = {"folds": split.folds, "clusters": material.clusters[self.train]}
        self.fitted = heads.fit_head("ridge", self.features, self.labels, self.classes, **self.common)
        self.now = HeldOut.of(self.fitted.held_out, self.labels)

    def curve(self) -> LearningCurve:
        return learning_curve(
            self.features,
            self.labels,
            self.classes,
            seed=self.config.seed,
            strength=float(self.fitted.strength or 0.0),
            **self.common,
        )

    def state(self) -> str:
        """By the same limits as `headstart.diagnose`."""
        own = float(np.mean(self.fitted.head.logits(self.features).argmax(axis=1) == self.labels))
        _, high = accuracy_interval(int(self.now.correct.sum()), len(self.labels))
        if own - high >= GAP:
            return "overfits"
        return "underfits" if own < FITTED and own <= high else "neither"

    def more_photos(self, curve: LearningCurve) -> Remedy:
        a_class = len(self.labels) / self.classes
        each = 100 if a_class >= 50 else max(5, round(a_class / 5) * 5)
        return of_more_photos(curve, each=each, command=f"{self.command}  # with {each} more photos of each class")

    def strength(self, left: float, *, less: bool) -> Remedy:
        """Other penalties; and, against overfitting, dropout and batch normalisation, which need a hidden layer."""
        begun, chosen = time.perf_counter(), float(self.fitted.strength or 0.0)
        every = try_strengths(self.features, self.labels, self.classes, **self.common)
        others = {
            f"strength {value:g}": held
            for value, held in every.items()
            if (value < chosen if less else value > chosen) and value != chosen
        }
        if not less and self.features.size * SECONDS_A_NUMBER <= min(left, LONGEST_HIDDEN):
            fitted = heads.fit_head(
                "mlp", self.features, self.labels, self.classes, seed=self.config.seed, **self.common
            )
            others[HIDDEN] = HeldOut.of(fitted.held_out, self.labels)
        commands = {HIDDEN: f"{self.command} --cut {self.advice.cut} --head mlp"}  # the strength training finds itself
        seconds = time.perf_counter() - begun
        return of_regularisation(self.now, others, commands=commands, seconds=seconds, less=less, **self.common)

    def complexity(self, *, more: bool) -> Remedy:
        begun = time.perf_counter()
        probes = self.advice.probes
        place = next((number for number, one in enumerate(probes) if one.cut == self.advice.cut), len(probes) - 1)
        chosen = probes[place + 1 :] if more else probes[:place]
        others = {f"cut {one.cut}": HeldOut(one.correct, one.losses) for one in chosen}
        commands = {f"cut {one.cut}": f"{self.command} --strategy head --cut {one.cut}" for one in chosen}
        if not more:
            parts = try_components(self.features, self.labels, self.classes, **self.common)
            others |= {f"{count} principal components": held for count, held in parts.items()}
        seconds = time.perf_counter() - begun
        return of_less_complexity(self.now, others, commands=commands, seconds=seconds, more=more, **self.common)

    def other_backbones(self, left: float) -> Remedy:
        """The other backbones that are installed, on the training photos alone."""
        begun = time.perf_counter()
        names = [name for name in BACKBONES if name != self.backbone.name and backbone_status(name)[0]]
        names = names if self.config.weights is None else []
        cost = len(self.train) * SECONDS_A_VIEW * len(names)
        if names and cost > left:
            return _too_dear("another backbone", cost, f"{self.command} --backbone {names[0]}")
        others, commands = {}, {}
        for name in names:
            other = open_backbone(name, say=self.say)
            part = self.material.dataset.subset(self.material.dataset.photos[index] for index in self.train)
            with Store() as store, Progress(len(part.photos), "photos", quiet=self.quiet) as progress:
                survey = survey_photos(
                    part,
                    backbone=other,
                    cuts=(LAST,),
                    engine=self.config.engine,
                    store=store,
                    threads=self.config.threads,
                    progress=progress,
                )
            fitted = heads.fit_head("ridge", survey.features[LAST], self.labels, self.classes, **self.common)
            others[name] = HeldOut.of(fitted.held_out, self.labels)
            commands[name] = f"{self.command} --backbone {name}"
        seconds = time.perf_counter() - begun
        return of_backbone(self.now, others, commands=commands, seconds=seconds, **self.common)

    def augmentation(self, left: float) -> Remedy:
        """Changed views of each training photo, beside the photo."""
        begun, cost = time.perf_counter(), len(self.train) * SECONDS_A_VIEW * (VIEWS + 1)
        asked = self.advice.standing.with_choices(self.config)
        command = f"{self.command} --strategy deeper --augment {asked.augment}"
        if cost > left:
            return _too_dear("augmentation", cost, command)
        from headstart.training.presets import find_preset
        from headstart.transfer.activations import cache_activations  # imports torch, which takes seconds

        with Progress(len(self.train), "photos", quiet=self.quiet) as progress:
            every = cache_activations(
                self.material.dataset,
                self.train,
                self.backbone,
                self.advice.cut,
                pooled=True,
                views=VIEWS + 1,
                augment=find_preset(asked.augment),
                engine=self.config.engine,
                threads=self.config.threads,
                seed=self.config.seed,
                progress=progress,
            )
        views = every.astype(np.float32).transpose(1, 0, 2)[1:]
        found = of_augmentation(
            self.features, views, self.labels, self.classes, fitted=self.fitted, command=command, **self.common
        )
        sentence = f"{found.sentence} Measured with a new last layer; the command trains more than that."
        return dataclasses.replace(found, sentence=sentence, seconds=time.perf_counter() - begun)


def _too_dear(name: str, cost: float, command: str) -> Remedy:
    title = f"{name[0].upper()}{name[1:]}"
    sentence = f"{title}: not measured, it would take about {cost:,.0f} s, more than is left of the budget."
    return Remedy(name, None, None, None, sentence, command, 0.0)
