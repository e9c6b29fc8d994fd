"""Which epoch is kept: the last, unless an earlier one is clearly better on the same photos; and across a restart."""

import dataclasses
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor, nn

from headstart.config import LoopConfig
from headstart.training.callbacks import ClearlyBest, LambdaCallback
from headstart.training.choosing import CALIBRATED, is_clearly_lower
from headstart.training.history import LoopState
from headstart.training.loop import fit
from headstart.training.optimisers import make_optimiser

PHOTOS, CLASSES = 40, 3
LABELS = torch.arange(PHOTOS) % CLASSES


class Table(nn.Module):
    """A net whose logits of photo i are row i of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(PHOTOS, CLASSES))

    def forward(self, images: Tensor) -> Tensor:
        return self.rows[images.flatten().long()]


class Numbers:
    """Photos that are their own numbers."""

    images, classes, shape, steps = PHOTOS, CLASSES, (1, 1, 1), 1

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        yield torch.arange(PHOTOS, dtype=torch.float32).reshape(-1, 1, 1, 1), LABELS


def logits(margin: float, wrong: int = 0, first: int = 0) -> Tensor:
    """The own class ahead by the margin, of a few photos behind by it; with a little noise."""
    sign = torch.ones(PHOTOS)
    sign[first : first + wrong] = -1
    noise = torch.randn(PHOTOS, CLASSES, generator=torch.Generator().manual_seed(wrong)) * 0.1 * margin
    return noise + margin * sign[:, None] * nn.functional.one_hot(LABELS, CLASSES)


def kept(*epochs: Tensor, planned: int = 0) -> tuple[int, Tensor, list[float]]:
    """The epoch that is kept, the weights in the end, and the losses told, of a net that goes through these logits."""
    net, config = Table(), LoopConfig(epochs=planned or len(epochs))
    state = LoopState(net, make_optimiser(net, config), config, steps=1, learning_rate=1.0)
    callback = ClearlyBest(Numbers())
    callback.loop = state
    callback.on_train_begin({})
    told = []
    for number, rows in enumerate(epochs):
        with torch.no_grad():
            net.rows.copy_(rows)
        state.history.rows.append({"epoch": number + 1.0})
        logs: dict[str, float] = {}
        callback.on_epoch_end(number, logs)
        told.append(logs[CALIBRATED])
        assert state.history.rows[-1][CALIBRATED] == logs[CALIBRATED] or math.isinf(logs[CALIBRATED])
    callback.on_train_end({})
    return state.history.kept, net.rows.detach().clone(), told


def test_the_last_epoch_is_kept_where_an_earlier_one_is_better_by_a_little() -> None:
    best, last = logits(4.0, wrong=5), logits(4.0, wrong=6, first=20)  # other photos are wrong: chance may explain it
    number, weights, told = kept(logits(4.0, wrong=20), best, last)
    assert told[1] < told[2] < told[0]
    assert number == 3 and torch.equal(weights, last)


def test_an_earlier_epoch_is_kept_where_it_is_clearly_better() -> None:
    good = logits(4.0, wrong=2)
    number, weights, _told = kept(logits(4.0, wrong=20), good, logits(4.0, wrong=15))
    assert number == 2 and torch.equal(weights, good)


def test_a_training_that_ended_early_keeps_the_lowest_loss_however_little_lower_it_is() -> None:
    best, last = logits(4.0, wrong=5), logits(4.0, wrong=6, first=20)
    number, weights, _told = kept(best, last, planned=5)
    assert number == 1 and torch.equal(weights, best)


def test_logits_that_are_no_numbers_never_win() -> None:
    good = logits(4.0, wrong=2)
    assert kept(good, torch.full((PHOTOS, CLASSES), math.nan))[0] == 1
    assert kept(torch.full((PHOTOS, CLASSES), math.nan), good)[0] == 2


def test_being_far_too_sure_costs_nothing_since_it_is_calibrated_afterwards() -> None:
    rows = logits(1.0, wrong=5)
    told = kept(rows, 50 * rows)[2]
    assert told[0] == pytest.approx(told[1], rel=1e-3)
    plain = [float(nn.functional.cross_entropy(scale * rows, LABELS)) for scale in (1, 50)]
    assert plain[1] > 3 * plain[0]


def test_the_loss_told_is_the_lowest_over_all_temperatures() -> None:
    rows = logits(1.0, wrong=9)
    rest = 1 / (PHOTOS + 2)  # Platt's prior: of the target as of the loss
    target = torch.full((PHOTOS, CLASSES), rest / (CLASSES - 1)).scatter(1, LABELS[:, None], 1 - rest).double()

    def loss(log_temperature: float) -> float:
        return float(-(target * (rows.double() / math.exp(log_temperature)).log_softmax(dim=1)).sum(dim=1).mean())

    found = minimize_scalar(loss, bounds=(-6, 6), method="bounded")
    assert kept(rows)[2][0] == pytest.approx(found.fun, rel=1e-4)


@pytest.mark.parametrize(
    ("ours", "theirs", "clear"),
    [([1, 1, 1, 1], [2, 2, 2, 2], True), ([1, 1], [1, 1], False), ([0, 2, 0, 2], [1, 1, 1, 1.2], False)],
)
def test_clearly_lower_is_by_more_than_one_standard_error(ours: list, theirs: list, clear: bool) -> None:
    assert is_clearly_lower(np.array(ours, float), np.array(theirs, float)) is clear


class Half(Numbers):
    """As many steps as make an interrupt in the middle possible."""

    steps = 4

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(first, self.steps):
            rows = torch.arange(step, PHOTOS, self.steps)
            yield rows.float().reshape(-1, 1, 1, 1), LABELS[rows]


def test_an_interrupted_training_keeps_the_same_epoch_and_weights_after_it_goes_on(tmp_path: Path) -> None:
    config = LoopConfig(epochs=6, batch_size=10, learning_rate=0.3, optimiser="sgd")
    straight, broken = Table(), Table()
    expected = fit(straight, Half(), Numbers(), config, callbacks=[ClearlyBest(Numbers())])

    def interrupt(epoch: int, logs: dict) -> None:
        if epoch == 3:
            raise KeyboardInterrupt

    begun = [ClearlyBest(Numbers()), LambdaCallback(on_epoch_begin=interrupt)]
    place = tmp_path / "checkpoint"
    with pytest.raises(KeyboardInterrupt):
        fit(broken, Half(), Numbers(), config, callbacks=begun, checkpoint=place, checkpoint_seconds=1e-9)
    broken = Table()
    again = [ClearlyBest(Numbers()), LambdaCallback()]
    found = fit(broken, Half(), Numbers(), config, callbacks=again, checkpoint=place, resume=True)
    assert torch.equal(broken.rows, straight.rows) and found.kept == expected.kept > 0
    assert [row[CALIBRATED] for row in found.rows] == [row[CALIBRATED] for row in expected.rows]
    finished = Table()  # what is over already still says which epoch it kept
    over = fit(finished, Half(), Numbers(), config, callbacks=again, checkpoint=place, resume=True)
    assert over.kept == expected.kept and torch.equal(finished.rows, straight.rows)
    assert dataclasses.asdict(over) == dataclasses.asdict(found)
