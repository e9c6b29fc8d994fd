"""The loop against a loop written out, and what it promises: determinism, nothing left changed, one clear line."""

import io
import math
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from crash_training import CLASSES, SIDE, Noise, digest, small_net
from headstart.config import LoopConfig
from headstart.errors import ConfigError, DataError, ShapeError
from headstart.nets import build_net
from headstart.training.callbacks import Callback, EarlyStopping, LambdaCallback, ReduceLROnPlateau, TerminateOnNaN
from headstart.training.evaluation import Tally
from headstart.training.live import LiveLine
from headstart.training.loop import evaluate, fit, predict_logits
from headstart.training.losses import make_loss
from headstart.training.schedules import learning_rate_at


def plain_net(seed: int = 0) -> nn.Module:
    """Without dropout and batch norm, so that a loop written out is short."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(36, CLASSES))


class Mixed(Noise):
    """The same photos with float targets."""

    def epoch(self, number: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        for photos, labels in super().epoch(number, first):
            yield photos, functional.one_hot(labels, CLASSES).float()


def test_the_loop_does_what_a_loop_written_out_does() -> None:
    config = LoopConfig(epochs=3, batch_size=8, optimiser="sgd", learning_rate=0.1, schedule="cosine")
    net, other = plain_net(), plain_net()
    train, validation = Noise(50), Noise(20, seed=1)  # the last batch is smaller
    history = fit(net, train, validation, config)
    momenta = [torch.zeros_like(parameter) for parameter in other.parameters()]
    step = 0
    for epoch, row in enumerate(history.rows):
        losses, right = [], 0
        for photos, labels in train.epoch(epoch):
            rate = 0.1 * (1 + math.cos(math.pi * step / 21)) / 2
            logits = other(photos)
            loss = functional.cross_entropy(logits, labels)
            for parameter, momentum, gradient in zip(
                other.parameters(), momenta, torch.autograd.grad(loss, list(other.parameters())), strict=True
            ):
                momentum.mul_(0.9).add_(gradient)
                parameter.data -= rate * momentum
            losses += [loss.item()] * len(labels)
            right += int((logits.argmax(1) == labels).sum())
            step += 1
        logits = other(validation.photos)
        assert row["epoch"] == epoch + 1
        assert row["loss"] == pytest.approx(sum(losses) / 50, rel=1e-4)
        assert row["accuracy"] == right / 50
        assert row["val_loss"] == pytest.approx(functional.cross_entropy(logits, validation.labels).item(), rel=1e-4)
        assert row["val_accuracy"] == pytest.approx((logits.argmax(1) == validation.labels).float().mean().item())
        assert row["learning_rate"] == pytest.approx(rate)
        assert row["seconds"] > 0 and row["gradient_norm"] > 0
    for mine, theirs in zip(net.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


def test_the_net_learns_the_pattern() -> None:
    net = plain_net()
    history = fit(net, Noise(400), Noise(200, seed=1), LoopConfig(epochs=6, batch_size=8, learning_rate=0.01))
    assert history.rows[-1]["val_accuracy"] > 0.8
    assert history.stopped == "" and len(history.rows) == 6


@pytest.mark.parametrize("seed", [5, 6])
def test_the_seed_decides_all_weights_whatever_the_caller_has_drawn(seed: int) -> None:
    digests = []
    for drawn in (0, 17):
        torch.manual_seed(drawn)
        net = small_net()
        fit(net, Noise(64), None, LoopConfig(epochs=2, seed=seed))
        digests.append(digest(net))
    assert digests[0] == digests[1]
    other = small_net()
    fit(other, Noise(64), None, LoopConfig(epochs=2, seed=seed + 1))
    assert digest(other) != digests[0]  # dropout has drawn otherwise


def test_one_hot_targets_give_the_training_of_labels() -> None:
    rows = [fit(plain_net(), data(48), data(24, seed=1), LoopConfig(epochs=2)).rows for data in (Noise, Mixed)]
    for one, other in zip(*rows, strict=True):
        for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
            assert one[name] == pytest.approx(other[name], rel=1e-4)


def test_modes_random_numbers_threads_layout_and_interrupt_are_as_they_were(tmp_path: Any) -> None:
    net = small_net()
    net[1].eval()
    modes = [module.training for module in net.modules()]
    torch.manual_seed(3)
    expected = torch.get_rng_state()
    handler = signal.getsignal(signal.SIGINT)
    threads = torch.get_num_threads()
    fit(net, Noise(32), Noise(16), LoopConfig(epochs=1, threads=2), checkpoint=tmp_path / "checkpoint")
    fails = LambdaCallback(on_epoch_end=lambda epoch, logs: logs["nothing"])
    with pytest.raises(KeyError):
        fit(net, Noise(32), None, LoopConfig(epochs=1, threads=2), callbacks=[fails], checkpoint=tmp_path / "other")
    assert [module.training for module in net.modules()] == modes
    assert torch.equal(torch.get_rng_state(), expected)
    assert torch.get_num_threads() == threads
    assert signal.getsignal(signal.SIGINT) is handler
    assert all(parameter.is_contiguous() for parameter in net.parameters())


def test_a_frozen_batch_norm_keeps_its_statistics_and_another_learns_them() -> None:
    net = small_net()
    fit(net, Noise(32), None, LoopConfig(epochs=1))
    assert not torch.equal(net[1].running_mean, torch.zeros(4))
    net = small_net()
    net[1].requires_grad_(False)
    fit(net, Noise(32), None, LoopConfig(epochs=1))
    assert torch.equal(net[1].running_mean, torch.zeros(4))


def test_gradients_that_the_caller_left_behind_do_not_count() -> None:
    clean, dirty = plain_net(), plain_net()
    for parameter in dirty.parameters():
        parameter.grad = torch.full_like(parameter, 100.0)
    for net in (clean, dirty):
        fit(net, Noise(32), None, LoopConfig(epochs=1))
    assert digest(clean) == digest(dirty)


def test_class_weights_count_in_the_training_and_not_in_the_validation() -> None:
    net, weights = plain_net(), torch.tensor([1.0, 2.0, 0.5])
    config = LoopConfig(epochs=1, optimiser="sgd", learning_rate=1e-12, batch_size=64)
    row = fit(net, Noise(40), Noise(40), config, class_weights=weights).rows[0]
    data = Noise(40)
    terms = functional.cross_entropy(net(data.photos), data.labels, reduction="none")
    assert row["loss"] == pytest.approx((terms * weights[data.labels]).mean().item(), rel=1e-5)
    assert row["val_loss"] == pytest.approx(terms.mean().item(), rel=1e-5)


def test_evaluating_and_predicting_leave_out_dropout_and_keep_the_order_and_the_modes() -> None:
    net, data = small_net(), Noise(20)
    modes = [module.training for module in net.modules()]
    loss, accuracy = evaluate(net, data, make_loss(LoopConfig(), CLASSES))
    logits = predict_logits(net, data)
    assert [module.training for module in net.modules()] == modes
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))  # of Noise's epoch 0
    net.eval()
    expected = net(data.photos[order])
    torch.testing.assert_close(logits, expected)
    assert loss == pytest.approx(functional.cross_entropy(expected, data.labels[order]).item(), rel=1e-5)
    assert accuracy == pytest.approx((expected.argmax(1) == data.labels[order]).double().mean().item())
    assert logits.requires_grad is False


def test_waiting_for_the_numbers_changes_none_of_them() -> None:
    at_once, later = Tally(), Tally(every=4)
    generator = torch.Generator().manual_seed(0)
    for images in (3, 5, 2, 4, 1):
        logits = torch.randn(images, 3, generator=generator)
        labels = torch.randint(0, 3, (images,), generator=generator)
        loss = functional.cross_entropy(logits, labels)
        for tally in (at_once, later):
            tally.add(loss, logits, labels)
    assert later.over_all_processes() == at_once.means()
    assert math.isnan(Tally().means()[0])


def test_hooks_are_called_in_keras_order_with_its_counts_and_logs() -> None:
    seen: list[tuple[Any, ...]] = []

    class Witness(Callback):
        def on_train_begin(self, logs: dict[str, float]) -> None:
            seen.append(("train", *logs))

        def on_epoch_begin(self, epoch: int, logs: dict[str, float]) -> None:
            seen.append(("epoch", epoch))

        def on_train_batch_begin(self, batch: int, logs: dict[str, float]) -> None:
            seen.append(("batch", batch))

        def on_train_batch_end(self, batch: int, logs: dict[str, float]) -> None:
            seen.append(("batch end", batch, *sorted(logs)))

        def on_epoch_end(self, epoch: int, logs: dict[str, float]) -> None:
            seen.append(("epoch end", epoch, *sorted(logs)))

        def on_train_end(self, logs: dict[str, float]) -> None:
            seen.append(("train end",))

    fit(plain_net(), Noise(16), Noise(8), LoopConfig(epochs=2), callbacks=[Witness()])
    batch_logs = ("accuracy", "learning_rate", "loss")
    epoch_logs = (*batch_logs, "val_accuracy", "val_loss")
    expected: list[tuple[Any, ...]] = [("train",)]
    for epoch in range(2):
        expected.append(("epoch", epoch))
        for batch in range(2):
            expected += [("batch", batch), ("batch end", batch, *batch_logs)]
        expected.append(("epoch end", epoch, *epoch_logs))
    assert seen == [*expected, ("train end",)]


def test_early_stopping_ends_the_training_and_is_recorded() -> None:
    config = LoopConfig(epochs=50, optimiser="sgd", learning_rate=1e-12)
    said: list[str] = []
    history = fit(
        plain_net(), Noise(16), Noise(8), config, callbacks=[EarlyStopping(patience=2, min_delta=0.1)], say=said.append
    )
    assert history.stopped == "early stopping" and len(history.rows) == 3
    assert said == [f"training ended early: {history.reason}"]


def test_the_plateau_schedule_lowers_the_rate_by_itself() -> None:
    config = LoopConfig(epochs=13, optimiser="sgd", learning_rate=1e-9, schedule="plateau")
    rates = [row["learning_rate"] for row in fit(plain_net(), Noise(8), None, config).rows]
    assert rates == pytest.approx([1e-9] * 11 + [1e-10] * 2)  # Keras's patience of ten
    own = ReduceLROnPlateau("loss", patience=1, factor=0.5)
    rates = [row["learning_rate"] for row in fit(plain_net(), Noise(8), None, config, callbacks=[own]).rows]
    assert rates[:4] == pytest.approx([1e-9, 1e-9, 5e-10, 2.5e-10])


def test_every_schedule_reaches_the_optimiser_at_every_step() -> None:
    seen: list[float] = []
    config = LoopConfig(epochs=2, learning_rate=0.01, schedule="one-cycle")
    watch = LambdaCallback(on_train_batch_end=lambda batch, logs: seen.append(logs["learning_rate"]))
    fit(plain_net(), Noise(40), None, config, callbacks=[watch])
    assert seen == [learning_rate_at(config, 0.01, step, 5) for step in range(10)]


@pytest.mark.parametrize("callbacks", [(), (TerminateOnNaN(),), (EarlyStopping(patience=1),)])
def test_a_loss_that_is_no_number_any_more_ends_the_training_as_diverged(callbacks: tuple[Callback, ...]) -> None:
    config = LoopConfig(epochs=5, batch_size=8, optimiser="sgd", learning_rate=1e30)
    history = fit(plain_net(), Noise(32), Noise(16), config, callbacks=callbacks)
    assert history.stopped == "diverged"
    assert len(history.rows) == 1
    assert not math.isfinite(history.rows[0]["loss"]) and math.isnan(history.rows[0]["val_loss"])
    assert "\n" not in history.reason and "at learning rate 1e+30; train again with a tenth" in history.reason


def test_a_diverged_training_that_is_resumed_is_still_diverged(tmp_path: Any) -> None:
    config = LoopConfig(epochs=5, batch_size=8, optimiser="sgd", learning_rate=1e30)
    first = fit(plain_net(), Noise(32), None, config, checkpoint=tmp_path / "checkpoint")
    again = fit(plain_net(), Noise(32), None, config, checkpoint=tmp_path / "checkpoint", resume=True)
    assert again.stopped == first.stopped == "diverged" and len(again.rows) == 1


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_pixels_that_are_no_numbers_are_named(value: float) -> None:
    data = Noise(16)
    data.photos[9, 0, 2, 2] = value
    with pytest.raises(DataError, match=r"a photo of batch [12] of epoch 1 holds values that are no numbers"):
        fit(plain_net(), data, None, LoopConfig())


def test_photos_that_the_net_cannot_take_are_refused_in_one_line() -> None:
    class Tiny(Noise):
        shape = (1, 2, 2)

        def __init__(self) -> None:
            super().__init__(8)
            self.shape = (1, 2, 2)

    with pytest.raises(ShapeError) as caught:
        fit(build_net("lenet", CLASSES), Tiny(), None, LoopConfig())
    assert str(caught.value).startswith("the net cannot take photos of 2 x 2 x 1 (height x width x channels): ")
    assert "\n" not in str(caught.value)
    with pytest.raises(ShapeError, match=r"gives \(2,\) numbers a photo.*3 classes; build the net with classes=3"):
        fit(nn.Sequential(nn.Flatten(), nn.Linear(SIDE * SIDE, 2)), Noise(8), None, LoopConfig())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"epochs": 0}, "epochs and batch_size must be 1 or more; received epochs=0"),
        ({"optimiser": "magic"}, "unknown optimiser 'magic'"),
        ({"schedule": "magic"}, "unknown schedule 'magic'"),
        ({"loss": "magic"}, "unknown loss 'magic'"),
    ],
)
def test_a_wrong_setting_is_one_clear_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        fit(plain_net(), Noise(8), None, LoopConfig(**settings))


def test_nothing_to_train_on_is_said() -> None:
    with pytest.raises(DataError, match="there is no photo to train on"):
        fit(plain_net(), Noise(0), None, LoopConfig())


def test_a_pipe_gets_a_line_an_epoch_and_quiet_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    fit(plain_net(), Noise(16), Noise(8), LoopConfig(epochs=2), quiet=True)
    assert capsys.readouterr() == ("", "")
    fit(plain_net(), Noise(16), Noise(8), LoopConfig(epochs=2), quiet=False)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1/2", "epoch 2/2"]
    assert all("validation accuracy" in line and "rate 0.001" in line for line in lines)


def test_a_terminal_gets_a_live_line_below_the_epochs(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setattr("headstart.progress.TERMINAL_INTERVAL", 0.0)
    monkeypatch.setenv("COLUMNS", "200")
    line = LiveLine(30, 3, lambda: (2, 0.5, 0.75), quiet=False)
    with line:
        line.advance(10)
        line.print_above("epoch 1/3: done")
        line.advance(20)
    text = sys.stderr.getvalue()  # type: ignore[attr-defined]
    first, rest = text.split("epoch 1/3: done\n")
    assert first.startswith("\repoch 2/3: [########") and "10/30 photos" in first and "loss 0.5000" in first
    assert "accuracy 75.00%" in first and " left" in first
    assert "30/30 photos" in rest and rest.endswith("\n")


def test_the_channels_innermost_give_the_training_of_the_usual_layout() -> None:
    """The layout that the loop chooses against a net that has no filters to lay out otherwise: an unfolded one."""

    class Unfolded(nn.Module):
        def __init__(self, net: nn.Module) -> None:
            super().__init__()
            self.weight, self.bias = nn.Parameter(net[0].weight.detach().clone().reshape(4, 9)), net[0].bias
            self.rest = nn.Sequential(*list(net)[1:])

        def forward(self, photos: Tensor) -> Tensor:
            patches = functional.unfold(photos.contiguous(), 3)
            return self.rest((self.weight @ patches + self.bias[:, None]).reshape(-1, 4, SIDE - 2, SIDE - 2))

    plain, unfolded = plain_net(), Unfolded(plain_net())
    for net in (plain, unfolded):
        fit(net, Noise(48), None, LoopConfig(epochs=2, optimiser="sgd"))
    torch.testing.assert_close(plain[0].weight.reshape(4, 9), unfolded.weight, rtol=1e-4, atol=1e-5)
