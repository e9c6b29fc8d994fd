"""Frozen, strict settings: the only place where a default of training stands."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from headstart.errors import ConfigError

STRATEGIES = ("auto", "head", "early", "deeper", "full", "scratch")
CLASS_WEIGHTS = ("none", "balanced")
COLOURS = ("auto", "gray", "colour")
KEEP = ("best", "last")
# The names of the tables in headstart.training, which cannot be asked here: importing it takes seconds.
OPTIMISERS = ("sgd", "rmsprop", "adagrad", "adadelta", "adam", "adamax", "nadam", "adamw")
LOSSES = ("cross-entropy", "mse")
SCHEDULES = ("constant", "step", "cosine", "one-cycle", "plateau")
TUNING_RATE = 5e-4  # of adam, at the top of one-cycle: weights that are good already take small steps
UNLIKE_RATE = 1.5e-3  # the same for photos that are not similar to those the weights come from: more has to change
TUNING_CLIP = 1.0  # longest gradient then: one photo that is hard at the top of the rate can undo all that was learned
MANY = 2_000  # training photos from which views of each are worth less than the room they take
AUGMENTS = ("none", "photos", "digits", "any-way-up", "cifar")


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """What the training loop of a network goes by; each function of it checks the values it uses."""

    epochs: int = 10  # passes over the training photos
    batch_size: int = 128  # photos a step
    optimiser: str = "adam"  # or sgd, rmsprop, adagrad, adadelta, adamax, nadam, adamw
    learning_rate: float = 0.0  # at its highest; 0: the optimiser's usual default
    momentum: float = 0.9  # of sgd; 0: plain gradient descent
    nesterov: bool = False  # of sgd: look ahead along the momentum
    loss: str = "cross-entropy"  # or mse: half the sum of squares against one-hot labels
    label_smoothing: float = 0.0  # share of each label that is spread over all classes
    weight_decay: float = 0.0  # of adamw and sgd: weights shrink by learning rate times this, every step
    l1: float = 0.0  # added to the loss: this times the sum of the weights' sizes
    l2: float = 0.0  # added to the loss: this times the sum of the weights' squares
    clip_norm: float = 0.0  # longest gradient of a step; 0: as long as it is
    schedule: str = "constant"  # of the learning rate: constant, step, cosine, one-cycle or plateau
    augment: str = "none"  # change the training photos at random: photos, digits, any-way-up or cifar
    mixup: float = 0.0  # alpha of the Beta distribution that photos are mixed by; 0: not mixed
    seed: int = 0  # of the split, the folds, the weights, the order of photos and everything else that is drawn
    threads: int = 0  # processor threads; 0: all this process may use


@dataclass(frozen=True, kw_only=True)
class TrainConfig(LoopConfig):
    """Everything that changes a trained model, and nothing that does not. Stored as `config.json` in the run.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    >>> TrainConfig(seed=3).seed
    3
    """

    backbone: str = "efficientnet-lite0"  # a name of headstart.backbones.BACKBONES
    weights: str | None = None  # the user's own weights file for that backbone; None: the ImageNet weights
    strategy: str = "auto"  # head, early, deeper, full or scratch (see headstart.transfer.cases); auto: by measurement
    budget: float = 300.0  # seconds that auto may spend on trying what is more than a new last layer
    large: bool = False  # count the photos as many, whatever the rule says
    cut: str = "pooled"  # where the backbone is sliced off; where deeper begins to train
    views: int = 0  # of each photo, changed by `augment`, that deeper keeps; 1: as it is; 0: 8, or 4 from 2,000 photos
    head: str = "auto"  # a name of headstart.heads.HEADS, or auto: the lower held-out log loss
    class_weights: str = "none"  # balanced: every class counts the same, however few its photos
    test_fraction: float = 0.2  # share of the photos held out once, where the data bring no test split
    folds: int = 5  # parts of the training photos for held-out predictions
    engine: str = "auto"  # openvino, torch, or auto: the fast one
    net: str | None = None  # a name of headstart.nets.NETS, trained from random weights; None: no network is trained
    image_size: int = 0  # side of the photos that the net sees, pixels; 0: chosen by the net and the photos
    colour: str = "auto"  # gray, colour, or auto: gray where every training photo is
    validation_fraction: float = 0.2  # share of the training photos, where the data bring no validation split
    batch_size: int = 0  # photos a step; 0: 128 from random weights, 32 from pretrained ones, fewer of few photos
    learning_rate: float = 0.0  # at its highest; 0: by the optimiser; pretrained 0.0005, 0.0015 where not similar
    clip_norm: float = 0.0  # longest gradient of a step; 0: 1 from pretrained weights, else as long as it is
    augment: str = "auto"  # none, photos, digits, any-way-up, cifar; auto: none from random weights, else by similarity
    schedule: str = "one-cycle"  # of the learning rate: constant, step, cosine, one-cycle or plateau
    keep: str = "best"  # the weights of the best epoch by validation (see docs/transfer.md); last: of the last epoch
    again: bool = True  # of deeper and full: then train on up to 2,000 photos, the validation photos too
    patience: int = 0  # epochs without a lower validation loss after which training ends; 0: all epochs are run

    def __post_init__(self) -> None:
        """Check each value's type and range, so that a wrong setting stops here and not an hour later."""
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.default)
        for name, choices in _CHOICES.items():
            _check_choice(name, getattr(self, name), choices)
        for name, (low, high) in _RANGES.items():
            _check_range(name, getattr(self, name), low, high)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "TrainConfig":
        """Build from a plain dict; an unknown key is an error, never ignored."""
        known = {field.name for field in dataclasses.fields(cls)}
        if unknown := sorted(values.keys() - known):
            raise ConfigError(f"unknown setting {unknown[0]!r}; known: {', '.join(sorted(known))}")
        return cls(**values)

    def to_dict(self) -> dict[str, Any]:
        """Return a plain dict that `from_dict` turns back into an equal config."""
        return dataclasses.asdict(self)

    def filled(self, photos: int = 0) -> "TrainConfig":
        """The same with a number or a name where a setting of the loop says "by the strategy".

        From random weights the learning rate stays 0 where it is: it depends on the optimiser, and a batch that was not
        set has at most a tenth of the photos, or 16: ten epochs of a step or two would teach nothing. From pretrained
        ones it has at most a quarter of them.

        Args:
            photos: to train on; 0: unknown.

        >>> TrainConfig(net="lenet").filled().batch_size, TrainConfig(strategy="deeper").filled().batch_size
        (128, 32)
        >>> TrainConfig(net="lenet").filled().clip_norm, TrainConfig(strategy="deeper").filled().clip_norm
        (0.0, 1.0)
        """
        pretrained = self.net is None and self.strategy != "scratch"
        usual, steps = (32, 4) if pretrained else (128, 10)
        if photos:
            usual = max(1, min(usual, max(photos // steps, 16), photos // 4))
        return dataclasses.replace(
            self,
            batch_size=self.batch_size or usual,
            augment="none" if self.augment == "auto" else self.augment,
            views=self.views or (4 if photos >= MANY else 8),
            learning_rate=self.learning_rate or (TUNING_RATE if pretrained else 0.0),
            clip_norm=self.clip_norm or (TUNING_CLIP if pretrained else 0.0),
        )


_CHOICES = {
    "strategy": STRATEGIES,
    "class_weights": CLASS_WEIGHTS,
    "optimiser": OPTIMISERS,
    "loss": LOSSES,
    "schedule": SCHEDULES,
    "augment": ("auto", *AUGMENTS),
    "colour": COLOURS,
    "keep": KEEP,
}
_RANGES: dict[str, tuple[float, float]] = {
    "test_fraction": (0.05, 0.5),
    "validation_fraction": (0.05, 0.5),
    "folds": (2, 20),
    "seed": (0, 2**32 - 1),
    "threads": (0, 1024),
    "epochs": (1, 100_000),
    "batch_size": (0, 1_000_000),
    "budget": (0, 1e9),
    "views": (0, 64),
    "learning_rate": (0, 100),
    "momentum": (0, 0.9999),
    "label_smoothing": (0, 0.9),
    "weight_decay": (0, 10),
    "l1": (0, 10),
    "l2": (0, 10),
    "clip_norm": (0, 1e9),
    "mixup": (0, 10),
    "image_size": (0, 1024),
    "patience": (0, 100_000),
}


def _check_type(name: str, value: object, default: object) -> None:
    expected: tuple[type, ...] = (str, type(None)) if default is None else (type(default),)
    if isinstance(default, float):
        expected = (float, int)
    if isinstance(value, bool) != isinstance(default, bool) or not isinstance(value, expected):
        wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in expected)
        raise ConfigError(f"setting {name} must be {wanted}; received {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"unknown {name} {value!r}; choose one of: {', '.join(choices)}")


def _check_range(name: str, value: int | float, low: int | float, high: int | float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"setting {name} must lie between {low:g} and {high:g}; received {value!r}")
