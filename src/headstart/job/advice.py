"""What strategy "auto" goes by: where the photos stand among the four cases, and what each strategy would give."""

import dataclasses
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int64

from headstart import heads
from headstart.backbones import Backbone
from headstart.config import TUNING_RATE, UNLIKE_RATE, TrainConfig
from headstart.features import survey_photos
from headstart.features.decoding import Keeper
from headstart.heads import FittedHead
from headstart.heads.calibration import tempered_losses
from headstart.job.material import Material
from headstart.metrics import accuracy_interval
from headstart.progress import Progress
from headstart.store import Store, entry_key
from headstart.transfer.cases import Case, Size, find_case, judge_size
from headstart.transfer.four_cases import draw_four_cases
from headstart.transfer.probes import LAST, Probe, best_cut, judge_head, probe_cuts
from headstart.transfer.similarity import (
    SIMILARITY_VERSION,
    STATISTICS,
    Similarity,
    choose_photos,
    measure_similarity,
    similarity_from_probes,
)

FEWEST_EPOCHS = 3  # below, a training from pretrained weights says nothing about the strategy
SECONDS_A_VIEW = 0.015  # to read a photo, or change it, and run it through the frozen part
SECONDS_A_STEP = 0.01  # a photo of an epoch of what lies behind the first cut; both on two cores
PLACES = "stage7_map"  # of the EfficientNet-Lites: 320 channels at 7 x 7 places
MOST_PLACES = 4e7  # numbers: 2,500 photos, 160 MB
RUNNING = ("running_mean", "running_var", "num_batches_tracked")  # of batch norms: no parameters


@dataclass(frozen=True, eq=False)
class Standing:
    """Where the photos stand.

    Args:
        size: small or large.
        similarity: to the photos that the backbone was trained on.
        case: of the four.
        candidates: strategies worth trying, from cheap to dear.
        why: three sentences.
    """

    size: Size
    similarity: Similarity
    case: Case
    candidates: tuple[str, ...]
    why: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The part of `evidence` in plan.json."""
        return {"size": self.size.to_json(), "similarity": self.similarity.to_json()}

    def with_choices(self, config: TrainConfig) -> TrainConfig:
        """The settings with an augmentation and a learning rate, where the choice is left to us.

        Flips only where a mirrored photo is one: of photos like those of ImageNet that is so; of others, such as
        characters, nobody knows. A higher rate where the photos are not similar: the weights have further to go.
        """
        similar = self.similarity.verdict == "similar"
        usual = TUNING_RATE if similar else UNLIKE_RATE
        return dataclasses.replace(
            config,
            augment=("photos" if similar else "digits") if config.augment == "auto" else config.augment,
            learning_rate=config.learning_rate or usual,
        )


@dataclass(frozen=True, eq=False)
class Candidate:
    """What a strategy gives, or would cost.

    Args:
        strategy: its name.
        cut: where the head sits, or where training begins; "" where neither is.
        accuracy, low, high: on held-out training photos, with the 95 % interval; None where it was not tried.
        log_loss: on the same, nats.
        photos: how many they are.
        seconds: what trying it took, or is expected to take where it was not tried; None: unknown.
        note: why it was not tried, or how it was held out.
    """

    strategy: str
    cut: str
    accuracy: float | None = None
    low: float | None = None
    high: float | None = None
    log_loss: float | None = None
    photos: int = 0
    seconds: float | None = None
    note: str = ""

    def to_json(self) -> dict[str, Any]:
        """A row of `candidates` in plan.json."""
        return {
            "strategy": self.strategy,
            "cut": self.cut,
            "accuracy": self.accuracy,
            "accuracy_ci95": None if self.low is None else [self.low, self.high],
            "log_loss": self.log_loss,
            "photos": self.photos,
            "seconds": None if self.seconds is None else round(self.seconds, 3),
            "note": self.note,
        }


@dataclass(frozen=True, eq=False)
class Advice:
    """What was measured before anything was chosen, and the choice among what needs no training of a network.

    Args:
        standing: the case; None where the strategy was asked for and nothing was measured.
        probes: one a cut.
        strategy: "head" or "early".
        cut: for the head.
        fitted: the head there.
        candidates: what was tried, and what is still worth trying.
        why: sentences.
    """

    standing: Standing
    probes: tuple[Probe, ...]
    strategy: str
    cut: str
    fitted: FittedHead
    candidates: tuple[Candidate, ...]
    why: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """The part of `evidence` in plan.json."""
        return self.standing.to_json() | {"probes": [probe.to_json() for probe in self.probes]}


@dataclass(frozen=True, eq=False)
class Tried:
    """What came of a dear candidate.

    Args:
        candidate: its figures, or why it was not tried.
        why: a sentence.
        won: where it has the lower log loss, by more than one standard error, on photos that it and the head had not
            seen: what a run is written from, a `headstart.job.trial.Won`.
    """

    candidate: Candidate
    why: str
    won: Any = None


def cuts_to_probe(backbone: Backbone) -> tuple[str, ...]:
    """Every cut with features of its own: "head" has those of "pooled"."""
    return tuple(cut for cut in backbone.cuts if cut != "head")


def stand(material: Material, backbone: Backbone, config: TrainConfig, probes: Sequence[Probe] = ()) -> Standing:
    """Find the case: how many training photos, and how like those the backbone was trained on.

    Args:
        material: the photos; none of the test is looked at.
        backbone: without batch norms, the probes tell instead.
        config: `large`, `engine`, `threads` and `seed` count.
        probes: of every cut, where they were made.
    """
    train = material.split.train
    labels = material.labels(train)
    classes = len(material.dataset.classes)
    tensors = backbone.tensors()
    frozen = sum(
        values.size for name, values in tensors.items() if not name.endswith(RUNNING) and "classifier" not in name
    )
    parameters = frozen + (backbone.cuts[LAST] + 1) * classes
    counts = np.bincount(labels, minlength=classes).tolist()
    size = judge_size(counts, parameters, large=True if config.large else None)
    similarity = _similarity(material, backbone, config) if backbone.norms else similarity_from_probes(probes)
    case, candidates, why = find_case(size, similarity)
    return Standing(size, similarity, case, candidates, (size.why, similarity.why(), why))


def _similarity(material: Material, backbone: Backbone, config: TrainConfig) -> Similarity:
    """The measure of some training photos; the result is kept, not the statistics, which are long."""
    train = material.split.train
    chosen = train[choose_photos(material.labels(train), seed=config.seed)]
    with Store() as store:
        keeper = Keeper(store)
        known = backbone.fingerprint(STATISTICS, config.engine), SIMILARITY_VERSION, str(config.seed)
        key = entry_key("similarity", *known, *(material.survey.facts[index].digest for index in chosen))
        found = keeper.get_many([key]).get(key)
        if isinstance(found, dict):
            return Similarity.from_store(found)
        survey = survey_photos(
            material.dataset.subset(material.dataset.photos[index] for index in chosen),
            backbone=backbone,
            cuts=(STATISTICS,),
            engine=config.engine,
            store=None,
            threads=config.threads,
        )
        similarity = measure_similarity(backbone, survey.features[STATISTICS], seed=config.seed)
        keeper.put_many({key: similarity.to_store()})
        return similarity


def probe(material: Material, config: TrainConfig, cuts: Sequence[str]) -> tuple[Probe, ...]:
    """A linear probe at each cut, from the features of the training photos."""
    train, split = material.split.train, material.split
    return probe_cuts(
        {cut: material.survey.features[cut][train] for cut in cuts},
        material.labels(train),
        len(material.dataset.classes),
        folds=split.folds,
        clusters=material.clusters[train],
        sample_weights=material.sample_weights(config),
    )


def advise(
    material: Material, backbone: Backbone, config: TrainConfig, *, quiet: bool = True
) -> tuple[Advice, Material]:
    """Measure what costs seconds, and choose between a head on the last features and one on earlier ones.

    Args:
        material: with the features of `cuts_to_probe`.
        backbone: the net.
        config: the settings; "early" asks for an earlier cut, whatever the last one gives.
        quiet: show no progress line.

    Returns:
        The advice, and the material with the features that were computed for it.
    """
    probes = () if backbone.norms else probe(material, config, cuts_to_probe(backbone))
    standing = stand(material, backbone, config, probes)
    material = _with_places(material, backbone, standing, config, quiet=quiet)
    probes = probe(material, config, tuple(material.survey.features))
    last = next(one for one in probes if one.cut == LAST)
    earlier = min((one for one in probes if one.cut != LAST), key=lambda one: one.log_loss)
    chosen, why = best_cut(probes)
    if config.strategy == "early":
        chosen, why = earlier, f"Strategy early was asked for: of the cuts before the last, {earlier.cut} tells most."
    fitted = fit_at(material, config, chosen.cut)
    if chosen.cut != LAST and config.strategy == "auto":
        rivals = {chosen.cut: fitted, LAST: fit_at(material, config, LAST)}
        chosen, again = best_cut(tuple(judged_at(material, config, cut, head) for cut, head in rivals.items()))
        why, fitted = f"{why} With the heads that would be used there: {again}", rivals[chosen.cut]
    strategy = "head" if chosen.cut == LAST else "early"
    rule = standing.case.strategy
    agrees = "as the rule says" if strategy == rule else f"where the rule of the case says {rule}: the evidence decides"
    candidates = tuple(
        _of_probe(name, one) for name, one in (("head", last), ("early", earlier)) if name in standing.candidates
    )
    sentences = (*standing.why, why, f"Among what needs no training of a network: strategy {strategy}, {agrees}.")
    return Advice(standing, probes, strategy, chosen.cut, fitted, candidates, sentences), material


def _with_places(
    material: Material, backbone: Backbone, standing: Standing, config: TrainConfig, *, quiet: bool
) -> Material:
    """The material with the features of a late map, flattened, where the photos are unlike those of the training.

    An average over the photo forgets where in it something is. For a dog that is as well; of a character it is most of
    what there is (`benchmarks/cuts.py`). The features are long, so that is for few photos.
    """
    photos, whole = len(material.dataset.photos), material.survey.features
    if standing.similarity.verdict == "similar" or PLACES not in backbone.outputs:
        return material
    if photos * backbone.lengths[PLACES] > MOST_PLACES:
        return material
    with Store() as store, Progress(photos, "photos", quiet=quiet) as progress:
        survey = survey_photos(
            material.dataset,
            backbone=backbone,
            cuts=(PLACES,),
            engine=config.engine,
            store=store,
            threads=config.threads,
            progress=progress,
        )
    features = dict(list(whole.items())[:-1]) | survey.features | {LAST: whole[LAST]}
    return dataclasses.replace(material, survey=dataclasses.replace(material.survey, features=features))


def fit_at(material: Material, config: TrainConfig, cut: str) -> FittedHead:
    """Fit the head of the settings on the training photos; its strength is chosen on the folds inside them."""
    train = material.split.train
    return heads.fit_head(
        config.head,
        material.survey.features[cut][train],
        material.labels(train),
        len(material.dataset.classes),
        folds=material.split.folds,
        sample_weights=material.sample_weights(config),
        clusters=material.clusters[train],
        seed=config.seed,
    )


def judged_at(material: Material, config: TrainConfig, cut: str, fitted: FittedHead) -> Probe:
    """Judge a fitted head on the folds of the training photos."""
    train = material.split.train
    return judge_head(
        cut,
        fitted,
        material.labels(train),
        features=material.survey.features[cut][train],
        folds=material.split.folds,
        clusters=material.clusters[train],
        sample_weights=material.sample_weights(config),
    )


def _of_probe(strategy: str, probe: Probe) -> Candidate:
    return Candidate(
        strategy,
        probe.cut,
        probe.accuracy,
        probe.low,
        probe.high,
        probe.log_loss,
        len(probe.losses),
        probe.seconds,
        "linear probe; every training photo held out once, fold by fold",
    )


def picture_of(name: str, standing: Standing) -> str:
    """The four cases with these photos placed among them: SVG."""
    return draw_four_cases(name, standing.size, standing.similarity)


def candidates_of(advice: Advice, tried: Sequence[Candidate] = ()) -> list[Candidate]:
    """Every candidate of the case: those that were tried, and the others with the command that tries them."""
    rows = [*advice.candidates, *tried]
    known = {candidate.strategy for candidate in rows}
    untried = [name for name in advice.standing.candidates if name not in known]
    return [*rows, *(Candidate(name, "", note=f"not tried: --strategy {name} does it") for name in untried)]


def not_tried(strategy: str, left: float, cost: float) -> tuple[Candidate, str]:
    """What is said of a strategy for which too little of the budget is left; both in seconds."""
    why = f"not tried: it takes about {cost:,.0f} s or more, and {left:,.0f} s of the budget are left"
    sentence = f"Strategy {strategy} was {why}; --budget {_minutes(2 * cost)} tries it, --strategy {strategy} does it."
    return Candidate(strategy, "", seconds=cost, note=why), sentence


def _minutes(seconds: float) -> str:
    return f"{math.ceil(seconds / 60)}m"


def least_cost(config: TrainConfig, photos: int) -> float:
    """Seconds below which trying strategy deeper makes no sense, known without trying."""
    a_photo = config.filled(photos).views * SECONDS_A_VIEW + FEWEST_EPOCHS * SECONDS_A_STEP
    return photos * a_photo / 4  # a machine may be quick


def candidate_of(
    strategy: str,
    cut: str,
    logits: Float[np.ndarray, "photos classes"],
    labels: Int64[np.ndarray, "photos"],
    begun: float,
    note: str,
) -> tuple[Candidate, np.ndarray]:
    """A candidate judged on photos it has not seen, and the log loss of each, nats, at its own temperature."""
    losses = tempered_losses(logits, labels)
    right = int((logits.argmax(axis=1) == labels).sum())
    low, high = accuracy_interval(right, len(labels))
    seconds = time.perf_counter() - begun
    measures = (right / len(labels), low, high, float(losses.mean()))
    return Candidate(strategy, cut, *measures, len(labels), seconds, note), losses
