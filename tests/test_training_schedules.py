"""Schedules against literal values and torch's own."""

import pytest
import torch

from headstart.config import LoopConfig
from headstart.errors import ConfigError
from headstart.training.schedules import SCHEDULES, learning_rate_at


def rates(schedule: str, epochs: int, steps: int, base: float = 0.1) -> list[float]:
    config = LoopConfig(schedule=schedule, epochs=epochs)
    return [learning_rate_at(config, base, step, steps) for step in range(epochs * steps)]


@pytest.mark.parametrize("name", ["constant", "plateau"])
def test_a_constant_rate_stays(name: str) -> None:
    assert set(rates(name, 3, 4)) == {0.1}


def test_step_divides_by_ten_after_one_half_and_again_after_three_quarters() -> None:
    assert rates("step", 4, 2) == pytest.approx([0.1] * 4 + [0.01] * 2 + [0.001] * 2)


def test_cosine_passes_through_the_known_values_of_the_cosine() -> None:
    found = rates("cosine", 2, 6)
    assert [found[step] for step in (0, 4, 6, 8)] == pytest.approx([0.1, 0.075, 0.05, 0.025])


@pytest.mark.parametrize("total", [2, 5, 10, 97])
def test_cosine_equals_torchs(total: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, total)
    for rate in rates("cosine", 1, total):
        assert rate == pytest.approx(schedule.get_last_lr()[0], abs=1e-12)
        optimiser.step()
        schedule.step()


@pytest.mark.parametrize("total", [10, 50, 97])
def test_one_cycle_equals_torchs(total: int) -> None:
    optimiser = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=total, cycle_momentum=False)
    for step, rate in enumerate(rates("one-cycle", 1, total)):
        assert rate == pytest.approx(schedule.get_last_lr()[0], abs=1e-12), step
        optimiser.step()
        if step < total - 1:
            schedule.step()


@pytest.mark.parametrize("name", sorted(SCHEDULES))
@pytest.mark.parametrize("total", [1, 2, 3, 4, 30])
def test_every_schedule_stays_between_nothing_and_the_highest_rate_for_any_number_of_steps(
    name: str, total: int
) -> None:
    assert all(0 <= rate <= 0.1 + 1e-12 for rate in rates(name, 1, total))
    assert 0 <= learning_rate_at(LoopConfig(schedule=name, epochs=1), 0.1, total + 5, total) <= 0.1  # one step too many


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(ConfigError, match="unknown schedule 'noam'; choose one of: constant, cosine, one-cycle"):
        learning_rate_at(LoopConfig(schedule="noam"), 0.1, 0, 1)
