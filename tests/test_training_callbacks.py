"""Callbacks: the same decisions as Keras's own on the same numbers, and what each leaves behind."""

import builtins
import csv
import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torch import nn

from headstart.config import LoopConfig
from headstart.errors import ConfigError, OutputError
from headstart.training.callbacks import (
    Callback,
    CSVLogger,
    EarlyStopping,
    LambdaCallback,
    ModelCheckpoint,
    ReduceLROnPlateau,
    TensorBoard,
    TerminateOnNaN,
)
from headstart.training.history import LoopState
from headstart.training.optimisers import make_optimiser
from headstart.weights import read_weights
from keras_oracle import keras


def state_of(net: nn.Module | None = None) -> LoopState:
    net = net or nn.Linear(2, 2)
    config = LoopConfig(optimiser="sgd")
    state = LoopState(net, make_optimiser(net, config), config, steps=10, learning_rate=1.0)
    state.measures = ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate")
    return state


def attach(callback: Callback, state: LoopState | None = None) -> LoopState:
    callback.loop = state or state_of()
    callback.on_train_begin({})
    return callback.loop


def values(seed: int, epochs: int = 40) -> list[float]:
    """A loss that falls, rests and jumps."""
    rng = np.random.default_rng(seed)
    return [float(value) for value in 1 + np.cumsum(rng.choice([-0.2, 0.0, 0.001, 0.15], epochs)) / 3]


class PaperModel:
    """As much of a Keras model as its callbacks look at; its weights are the number of the epoch."""

    def __init__(self, rate: float = 1.0) -> None:
        library = keras()
        self.optimizer = library.optimizers.SGD(rate)
        self.stop_training = False
        self.metrics: list[Any] = []
        self.weights = -1

    def get_weights(self) -> int:
        return self.weights

    def set_weights(self, weights: int) -> None:
        self.weights = weights


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 3},
        {"patience": 0},
        {"patience": 5, "min_delta": 0.1},
        {"patience": 2, "mode": "max"},
        {"patience": 4, "baseline": 0.5},
        {"patience": 3, "start_from_epoch": 6},
    ],
)
def test_early_stopping_stops_and_restores_at_the_epochs_of_keras(settings: dict[str, Any], seed: int) -> None:
    theirs = keras().callbacks.EarlyStopping(restore_best_weights=True, **settings)
    model = PaperModel()
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = EarlyStopping(**settings)
    state = attach(ours)
    weight = next(state.net.parameters())
    for epoch, value in enumerate(values(seed)):
        model.weights = epoch
        weight.data.fill_(epoch)
        theirs.on_epoch_end(epoch, {"val_loss": value})
        ours.on_epoch_end(epoch, {"val_loss": value})
        assert state.stopping == model.stop_training, epoch
        assert ours.wait == theirs.wait
        if state.stopping:
            break
    theirs.on_train_end()
    ours.on_train_end({})
    assert weight[0, 0].item() == model.weights


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # Keras with NumPy 2
@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    "settings",
    [
        {"patience": 2},
        {"patience": 1, "cooldown": 3},
        {"patience": 2, "factor": 0.5, "min_lr": 0.2},
        {"patience": 3, "min_delta": 0.1, "mode": "max"},
    ],
)
def test_the_rate_on_a_plateau_is_that_of_keras_after_every_epoch(settings: dict[str, Any], seed: int) -> None:
    theirs = keras().callbacks.ReduceLROnPlateau(**settings)
    model = PaperModel()
    theirs.set_model(model)
    theirs.on_train_begin()
    ours = ReduceLROnPlateau(**settings)
    state = attach(ours)
    for epoch, value in enumerate(values(seed)):
        theirs.on_epoch_end(epoch, {"val_loss": value})
        ours.on_epoch_end(epoch, {"val_loss": value})
        assert state.learning_rate == pytest.approx(float(model.optimizer.learning_rate), rel=1e-5), epoch


def test_early_stopping_says_why_and_gives_the_best_weights_back_by_default() -> None:
    callback = EarlyStopping(patience=2, verbose=1)
    state, said = state_of(), []
    state.say = said.append
    attach(callback, state)
    weight = next(state.net.parameters())
    for epoch, value in enumerate([3.0, 1.0, 2.0, 2.0]):
        weight.data.fill_(epoch)
        callback.on_epoch_end(epoch, {"val_loss": value})
    assert state.history.stopped == "early stopping"
    assert state.history.reason == "val_loss has not improved for 2 epochs; the best was epoch 2, with 1"
    callback.on_train_end({})
    assert weight[0, 0].item() == 1
    assert said == ["epoch 4: early stopping", "the weights are those of the best epoch: 2"]


def test_early_stopping_keeps_the_last_weights_if_told_so() -> None:
    callback = EarlyStopping(patience=1, restore_best_weights=False)
    state = attach(callback)
    weight = next(state.net.parameters())
    for epoch, value in enumerate([1.0, 2.0]):
        weight.data.fill_(epoch)
        callback.on_epoch_end(epoch, {"val_loss": value})
    callback.on_train_end({})
    assert weight[0, 0].item() == 1


def test_more_accuracy_is_better_without_being_told() -> None:
    callback = EarlyStopping("val_accuracy", patience=1)
    state = attach(callback)
    for epoch, value in enumerate([0.1, 0.2, 0.3]):
        callback.on_epoch_end(epoch, {"val_accuracy": value})
    assert not state.stopping
    callback.on_epoch_end(3, {"val_accuracy": 0.3})
    assert state.stopping


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_never_the_best(value: float) -> None:
    callback = EarlyStopping(patience=3)
    attach(callback)
    for epoch, loss in enumerate([value, 1.0, value]):
        callback.on_epoch_end(epoch, {"val_loss": loss})
    assert callback.best == 1.0 and callback.best_epoch == 1


def test_a_restored_callback_goes_on_as_the_other_would() -> None:
    numbers = values(3)
    for make in (lambda: EarlyStopping(patience=4), lambda: ReduceLROnPlateau(patience=2, cooldown=1)):
        one, other = make(), make()
        state = attach(one)
        for epoch, value in enumerate(numbers[:5]):
            one.on_epoch_end(epoch, {"val_loss": value})
        rate, stopped = state.learning_rate, state.stopping
        second = attach(other)
        second.learning_rate = rate
        other.load_state(one.state_dict())
        assert not stopped
        for epoch, value in enumerate(numbers[5:], start=5):
            one.on_epoch_end(epoch, {"val_loss": value})
            other.on_epoch_end(epoch, {"val_loss": value})
            assert (second.learning_rate, second.stopping) == (state.learning_rate, state.stopping)


def test_model_checkpoint_writes_the_best_only_and_names_it(tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path / "new" / "{epoch:02d}-{val_loss:.1f}.safetensors")
    state = attach(callback)
    weight = next(state.net.parameters())
    for epoch, value in enumerate([3.0, 1.0, 2.0, 0.5]):
        weight.data.fill_(epoch)
        callback.on_epoch_end(epoch, {"val_loss": value})
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == [
        "01-3.0.safetensors",
        "02-1.0.safetensors",
        "04-0.5.safetensors",
    ]
    found = read_weights(tmp_path / "new" / "04-0.5.safetensors")
    assert found.keys() == {"weight", "bias"}
    assert (found["weight"] == 3).all()


def test_model_checkpoint_writes_every_epoch_or_every_so_many_batches_if_told_so(tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path / "{epoch}.safetensors", save_best_only=False)
    attach(callback)
    for epoch in range(3):
        callback.on_epoch_end(epoch, {"loss": 1.0})
    assert len(list(tmp_path.iterdir())) == 3
    folder = tmp_path / "batches"
    callback = ModelCheckpoint(folder / "{batch}.safetensors", save_best_only=False, save_freq=4)
    attach(callback)
    for batch in range(10):
        callback.on_train_batch_end(batch, {"loss": 1.0})
    assert sorted(path.name for path in folder.iterdir()) == ["4.safetensors", "8.safetensors"]


def test_model_checkpoint_beats_the_threshold_first_and_writes_nothing_where_another_process_does(
    tmp_path: Path,
) -> None:
    callback = ModelCheckpoint(tmp_path / "{epoch}.safetensors", initial_value_threshold=0.5)
    state = attach(callback)
    callback.on_epoch_end(0, {"val_loss": 0.6})
    callback.on_epoch_end(1, {"val_loss": 0.4})
    state.writes = False
    callback.on_epoch_end(2, {"val_loss": 0.3})
    assert [path.name for path in tmp_path.iterdir()] == ["2.safetensors"]


def test_the_csv_file_holds_what_keras_writes(tmp_path: Path) -> None:
    rows = [{"loss": 1.5, "accuracy": 0.25, "val_loss": 2.0}, {"loss": 1.25, "accuracy": 0.5, "val_loss": 1.0}]
    theirs = keras().callbacks.CSVLogger(str(tmp_path / "keras.csv"), separator=";")
    theirs.on_train_begin()
    ours = CSVLogger(tmp_path / "ours.csv", separator=";")
    attach(ours)
    for epoch, row in enumerate(rows):
        theirs.on_epoch_end(epoch, dict(row))
        ours.on_epoch_end(epoch, dict(row))
    theirs.on_train_end()
    found = [(tmp_path / name).read_text(encoding="utf-8").splitlines() for name in ("ours.csv", "keras.csv")]
    assert list(csv.reader(found[0], delimiter=";")) == list(csv.reader(found[1], delimiter=";"))


def test_the_csv_file_goes_on_below_or_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    for append in (False, True, False):
        logger = CSVLogger(path, append=append)
        attach(logger)
        logger.on_epoch_end(0, {"loss": 1.0})
        assert path.read_text() == "epoch,loss\n0,1.0\n" + ("0,1.0\n" if append else "")
    path.write_bytes(b"\xff\xff")
    with pytest.raises(OutputError, match=r"cannot go on below .*log\.csv"):
        attach(CSVLogger(path, append=True))


def test_terminate_on_nan_ends_the_training_at_the_batch() -> None:
    callback = TerminateOnNaN()
    state = attach(callback)
    callback.on_train_batch_end(0, {"loss": 1.0})
    assert not state.stopping
    callback.on_train_batch_end(1, {"loss": math.inf})
    assert state.history.stopped == "diverged"
    assert state.history.reason == "the loss became inf in batch 2"


def test_lambda_callback_calls_each_function_at_its_hook() -> None:
    seen: list[Any] = []
    callback = LambdaCallback(
        on_train_begin=lambda logs: seen.append("begin"),
        on_epoch_end=lambda epoch, logs: seen.append((epoch, logs["loss"])),
        on_train_batch_end=lambda batch, logs: seen.append(batch),
        on_train_end=None,
    )
    attach(callback)
    callback.on_epoch_begin(0, {})
    callback.on_train_batch_end(4, {})
    callback.on_epoch_end(2, {"loss": 1.0})
    callback.on_train_end({})
    assert seen == ["begin", 4, (2, 1.0)]
    with pytest.raises(ConfigError, match="there is no hook 'on_batch'; choose one of: on_train_begin"):
        LambdaCallback(on_batch=print)


def test_a_quantity_that_is_not_measured_is_an_error_at_the_start() -> None:
    state = state_of()
    state.measures = ("loss", "accuracy", "learning_rate")
    with pytest.raises(ConfigError, match="EarlyStopping watches 'val_loss', which this training does not measure; ch"):
        attach(EarlyStopping(), state)


def test_wrong_arguments_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="mode must be auto, min or max; received 'best'"):
        EarlyStopping(mode="best")
    with pytest.raises(ConfigError, match="factor between 0 and 1; received 1"):
        ReduceLROnPlateau(factor=1.0)
    with pytest.raises(ConfigError, match="writes weights only"):
        ModelCheckpoint("x", save_weights_only=False)
    with pytest.raises(ConfigError, match="save_freq must be 'epoch' or a number of batches >= 1; received 0"):
        ModelCheckpoint("x", save_freq=0)
    callback = ModelCheckpoint(tmp_path / "{nothing}.safetensors")
    attach(callback)
    with pytest.raises(ConfigError, match=r"cannot be filled in .*; known: epoch, val_loss"):
        callback.on_epoch_end(0, {"val_loss": 1.0})


def test_tensorboard_that_is_not_installed_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("tensorboard"):
            raise ModuleNotFoundError("No module named 'tensorboard'")
        return real(name, *rest, **named)

    real = builtins.__import__
    for name in [name for name in sys.modules if "tensorboard" in name]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ConfigError, match=r"TensorBoard is not installed.*pip install tensorboard, or use CSVLogger"):
        TensorBoard()


def test_tensorboard_files_hold_the_curves_under_keras_names(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    callback = TensorBoard(tmp_path, update_freq="batch")
    state = attach(callback)
    callback.on_train_batch_end(0, {"loss": 2.0})
    for epoch in range(2):
        state.epoch = epoch
        callback.on_epoch_end(epoch, {"loss": 1.0 - epoch, "val_accuracy": 0.5})
    callback.on_train_end({})
    curves = {}
    for part in ("train", "validation"):
        board = EventAccumulator(str(tmp_path / part))
        board.Reload()
        for tag in board.Tags()["scalars"]:
            curves[part, tag] = [(event.step, event.value) for event in board.Scalars(tag)]
    assert curves == {
        ("train", "batch_loss"): [(0, 2.0)],
        ("train", "epoch_loss"): [(0, 1.0), (1, 0.0)],
        ("validation", "epoch_accuracy"): [(0, 0.5), (1, 0.5)],
    }
