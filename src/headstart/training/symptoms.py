"""What the course of a training and the predictions behind it say, in words with numbers: is it underfitting,
overfitting, still improving, or did the learning rate spoil it; are labels wrong, photos too few, units dead.

As in `headstart.diagnose`, nothing is said that chance explains: shares are compared by their 95 % intervals.
"""

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from jaxtyping import Float, Int64

from headstart.dataset import list_names
from headstart.diagnose import FITTED, GAP, Finding, Share, difference
from headstart.files import shown

DEAD = 0.5  # share of a layer's units that give no answer to any photo
RISE = 0.05  # of the loss, from one epoch to the next: more is no noise
STEADY = 0.5  # the last epochs' fall over the first ones': above, the loss still falls as it did at the start
EPOCHS = 4  # fewer have no course that could be judged
IMPROVING = 0.01  # of the loss, an epoch
SETTLED = 0.1  # of the highest learning rate: below, the schedule alone makes the loss fall
WORSE = 0.1  # of the loss on unseen photos, from its lowest
SURE = 0.25  # share of the unseen photos that the net is surest of
NOISE = 0.05  # of these are wrong, at least: not so where the labels are right
AS_MANY = 0.5  # of the mistakes elsewhere: a hard task has far fewer among the surest photos, wrong labels have not
ABLE = 0.6  # of the photos recognised, at least: a weaker net cannot tell wrong labels from its own mistakes
FEW = 20  # training photos of a class
RARE = 0.2  # of the photos of a class of usual size
FIVE = (
    "In this order: more photos; augmentation (--augment); a network that generalises better; regularisation (dropout, "
    "weight decay, fewer epochs); a smaller network."
)


def diagnose_history(
    rows: Sequence[Mapping[str, float]],
    *,
    classes: Sequence[str],
    train_images: int,
    validation_images: int = 0,
    chance: float | None = None,
    counts: Mapping[str, int] | None = None,
    labels: Int64[np.ndarray, "photos"] | None = None,
    probabilities: Float[np.ndarray, "photos classes"] | None = None,
    dead: Mapping[str, float] | None = None,
) -> list[Finding]:
    """Say what went wrong in a training, or what would make it better; the gravest first.

    Args:
        rows: one an epoch, as of `headstart.training.history.History`: "loss", "accuracy", "learning_rate", and where
            there were validation photos "val_loss" and "val_accuracy".
        classes: their names.
        train_images, validation_images: how many photos these shares are of.
        chance: the loss of guessing; ln(classes), the one of cross-entropy, if not given.
        counts: training photos of each class, by name.
        labels: of photos that were not trained on.
        probabilities: what the net gives each class for these photos.
        dead: activation layer -> share of its units that are silent for every photo.

    Returns:
        Findings as of `headstart.diagnose.diagnose`; each has a "cause" too: "diverged", "dead-units", "rate-too-high",
        "rate-too-low", "underfitting", "overfitting", "label-noise", "few-photos" or "still-improving". An empty list:
        nothing stands out.
    """
    rows = [dict(row) for row in rows]
    chance = math.log(len(classes)) if chance is None else chance
    found: list[Finding] = []
    if rows:
        found += _diverged(rows, chance)
    found += _dead(dead or {})
    if rows and not any(item["cause"] == "diverged" for item in found):
        found += _rate(rows, chance) or _fit(rows, train_images, validation_images)
    if labels is not None and probabilities is not None and len(labels):
        found += _label_noise(labels, probabilities)
        found += _few_photos(classes, counts or {}, labels, probabilities)
    if rows and not any(item["cause"] in ("diverged", "overfitting") for item in found):
        found += _still_improving(rows)
    return found


def _finding(cause: str, finding: str, evidence: str, remedy: str, expected_gain: str | None = None) -> Finding:
    return {
        "finding": finding,
        "evidence": evidence,
        "remedy": remedy,
        "expected_gain": expected_gain,
        "cause": cause,
    }


def _course(rows: Sequence[Mapping[str, float]], name: str) -> list[float]:
    return [float(row[name]) for row in rows if name in row]


def _diverged(rows: Sequence[Mapping[str, float]], chance: float) -> Iterator[Finding]:
    """The rule of `range_finder.judge_curve`, an epoch for a step."""
    losses = _course(rows, "loss")
    rate = rows[0].get("learning_rate", math.nan)
    wrong = next((place for place, loss in enumerate(losses) if not math.isfinite(loss)), None)
    if wrong is not None:
        evidence = f"The loss is no number from epoch {wrong + 1} on; the learning rate was {rate:.2g}."
    else:
        moved = min(losses) < 0.9 * losses[-1] or losses[0] > 1.5 * chance
        if not (losses[-1] >= 0.99 * chance and moved) and losses[-1] <= 2 * losses[0]:
            return
        evidence = (
            f"The loss was {losses[0]:.3g} in the first epoch and is {losses[-1]:.3g} in the last; guessing gives "
            f"{chance:.3g}. The learning rate was {rate:.2g}."
        )
    yield _finding(
        "diverged",
        "Training diverged: the net has unlearned what it knew, if it knew anything.",
        evidence,
        f"Train again with a tenth of the learning rate (--learning-rate {rate / 10:.2g}); headstart lr finds a good "
        "one. If it diverges still: headstart check.",
    )


def _dead(dead: Mapping[str, float]) -> Iterator[Finding]:
    worst = sorted(((share, name) for name, share in dead.items() if share >= DEAD), reverse=True)
    if not worst:
        return
    listed = ", ".join(f"{shown(name)} {_percent(share)}" for share, name in worst[:5])
    yield _finding(
        "dead-units",
        f"{len(worst)} of {len(dead)} activation layers are mostly dead.",
        f"Units that are silent for every photo: {listed}. They have no gradient, so they stay so.",
        "Train again with a lower learning rate; headstart check tells whether they were dead from the start.",
    )


def _rate(rows: Sequence[Mapping[str, float]], chance: float) -> list[Finding]:
    losses = _course(rows, "loss")
    if len(losses) < EPOCHS:
        return []
    rate = rows[0].get("learning_rate", math.nan)
    rises = [place + 2 for place in range(len(losses) - 1) if losses[place + 1] > (1 + RISE) * losses[place]]
    if len(rises) >= max(2, math.ceil(len(losses) / 4)):
        return [
            _finding(
                "rate-too-high",
                f"The learning rate is too high: {rate:.2g}.",
                f"The training loss rose by more than {_percent(RISE)} in {len(rises)} of {len(losses)} epochs, for "
                f"example from {losses[rises[0] - 2]:.3g} to {losses[rises[0] - 1]:.3g} in epoch {rises[0]}.",
                f"Train with a third of it (--learning-rate {rate / 3:.2g}), or let it fall (--schedule cosine).",
            )
        ]
    part = max(1, (len(losses) - 1) // 3)
    first, last = (losses[0] - losses[part]) / part, (losses[-1 - part] - losses[-1]) / part
    if rises or losses[-1] < chance / 2 or last < STEADY * first or losses[-1] > losses[0]:
        return []
    if first <= 0 and last <= 0:
        return []
    return [
        _finding(
            "rate-too-low",
            f"The learning rate is too low: {rate:.2g}.",
            f"After {len(losses)} epochs the loss is {losses[-1]:.3g}, guessing gives {chance:.3g}; it falls by "
            f"{last:.2g} an epoch, as steadily as at the start ({first:.2g}).",
            f"Train with ten times as much (--learning-rate {10 * rate:.2g}); headstart lr finds a good one.",
        )
    ]


def _fit(rows: Sequence[Mapping[str, float]], train_images: int, validation_images: int) -> list[Finding]:
    last = rows[-1]
    if "val_accuracy" not in last or not validation_images or not train_images:
        return []
    own = Share.of(round(last["accuracy"] * train_images), train_images)
    unseen = Share.of(round(last["val_accuracy"] * validation_images), validation_images)
    low, high = difference(own, unseen)
    gap = f"{_percent(own.value)} of the training photos are right, of unseen ones {unseen}"
    if low >= GAP:
        return [
            _finding(
                "overfitting",
                "It overfits: it knows its training photos better than unseen ones.",
                f"{gap}: a gap of {_points(own.value - unseen.value)} ({_points(low)} to {_points(high)})."
                + _turning_point(rows),
                FIVE,
                f"At most {_points(own.value - unseen.value)} of accuracy: as much as unseen photos recognised like "
                "the training photos would add.",
            )
        ]
    if own.value < FITTED and own.value <= unseen.high:
        return [
            _finding(
                "underfitting",
                "It underfits: it cannot tell even its training photos apart.",
                f"{gap}: no better on the photos it is fitted to.",
                "More photos alone will not help. Train longer, with a better learning rate (headstart lr), with less "
                "augmentation and regularisation, or take a larger network.",
            )
        ]
    return []


def _turning_point(rows: Sequence[Mapping[str, float]]) -> str:
    losses = _course(rows, "val_loss")
    if len(losses) != len(rows) or not all(map(math.isfinite, losses)):
        return ""
    best = int(np.argmin(losses))
    if losses[-1] < (1 + WORSE) * losses[best]:
        return ""
    return (
        f" The loss on unseen photos was lowest in epoch {best + 1}, {losses[best]:.3g}, and is {losses[-1]:.3g} now: "
        "what was learned since then holds for the training photos only."
    )


def _label_noise(
    labels: Int64[np.ndarray, "photos"], probabilities: Float[np.ndarray, "photos classes"]
) -> Iterator[Finding]:
    """Wrong labels are as frequent among the photos the net is surest of as elsewhere; its own mistakes are not."""
    mistakes = float((probabilities.argmax(axis=1) != labels).mean())
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")[: max(1, int(SURE * len(labels)))]
    answers = probabilities[surest].argmax(axis=1)
    wrong = Share.of(int((answers != labels[surest]).sum()), len(surest))
    if wrong.low < NOISE or wrong.value < AS_MANY * mistakes or mistakes > 1 - ABLE:
        return
    yield _finding(
        "label-noise",
        "Labels seem to be wrong.",
        f"Of the quarter of the unseen photos that the net is surest of, it contradicts the label of {wrong}; of all "
        f"it contradicts {_percent(mistakes)}. Where labels are right, it errs far less on what it is sure of.",
        "Look at these photos first and correct their labels; more photos with labels like these help little. Until "
        "then label smoothing (--label-smoothing 0.1) and fewer epochs do the least harm.",
    )


def _few_photos(
    classes: Sequence[str],
    counts: Mapping[str, int],
    labels: Int64[np.ndarray, "photos"],
    probabilities: Float[np.ndarray, "photos classes"],
) -> Iterator[Finding]:
    """Classes with few photos to learn from that are recognised less often than the others, beyond chance."""
    if not counts:
        return
    usual = float(np.median([counts.get(name, 0) for name in classes]))
    right = probabilities.argmax(axis=1) == labels
    weak = []
    for index, name in enumerate(classes):
        own = labels == index
        if counts.get(name, 0) >= max(FEW, RARE * usual) or not 0 < own.sum() < len(labels):
            continue
        mine = Share.of(int(right[own].sum()), int(own.sum()), len(classes))
        rest = Share.of(int(right[~own].sum()), int((~own).sum()), len(classes))
        if difference(rest, mine)[0] > 0:
            weak.append((mine, rest, name))
    if not weak:
        return
    mine, rest, name = min(weak, key=lambda case: case[0].value)
    names = [case[2] for case in weak]
    yield _finding(
        "few-photos",
        f"{'A class has' if len(weak) == 1 else f'{len(weak)} classes have'} too few photos: {list_names(names)}.",
        f"'{shown(name)}' has {counts.get(name, 0):,} training photos, the usual class {usual:,.0f}; "
        f"{_percent(mine.value)} of its unseen photos are recognised, {_percent(rest.value)} of the others'.",
        f"Add photos of {'it' if len(weak) == 1 else 'them'}; until then --class-weights balanced, and augmentation.",
    )


def _still_improving(rows: Sequence[Mapping[str, float]]) -> Iterator[Finding]:
    name = "val_loss" if "val_loss" in rows[-1] else "loss"
    losses = _course(rows, name)
    if len(losses) < EPOCHS or not all(map(math.isfinite, losses)) or np.argmin(losses) != len(losses) - 1:
        return
    part = max(1, len(losses) // 3)
    fall = 1 - (losses[-1] / losses[-1 - part]) ** (1 / part) if losses[-1 - part] > 0 else 0.0
    if fall < IMPROVING:
        return
    what = "unseen" if name == "val_loss" else "training"
    rates = _course(rows, "learning_rate")
    settled = bool(rates) and rates[-1] < SETTLED * max(rates)
    yield _finding(
        "still-improving",
        "It was still improving when training ended.",
        f"The loss on {what} photos is lowest in the last epoch, {losses[-1]:.3g}; over the last {part} it fell by "
        f"{_percent(fall)} an epoch{', in part because the learning rate came to its end' if settled else ''}.",
        f"Train longer: --epochs {2 * len(rows)}.",
    )


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _points(gap: float) -> str:
    return f"{100 * gap:.1f} points"
