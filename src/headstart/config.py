"""Frozen, strict settings: the only place where a default of training stands."""

import dataclasses
from dataclasses import dataclass
from typing import Any

from headstart.errors import ConfigError

STRATEGIES = ("auto", "head")
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Everything that changes a trained model, and nothing that does not. Stored as `config.json` in the run.

    Raises:
        ConfigError: a value is of the wrong type or out of range.

    >>> TrainConfig(seed=3).seed
    3
    """

    backbone: str = "efficientnet-lite0"  # a name of headstart.backbones.BACKBONES
    weights: str | None = None  # the user's own weights file for that backbone; None: the ImageNet weights
    strategy: str = "auto"  # auto: choose by measurement; head: frozen backbone, new last layer
    cut: str = "pooled"  # where the backbone is sliced off: one of its named cuts
    head: str = "auto"  # a name of headstart.heads.HEADS, or auto: the lower held-out log loss
    class_weights: str = "none"  # balanced: every class counts the same, however few its photos
    test_fraction: float = 0.2  # share of the photos held out once, where the data bring no test split
    folds: int = 5  # parts of the training photos for held-out predictions
    seed: int = 0  # of the split, the folds and the heads that draw
    threads: int = 0  # processor threads; 0: all this process may use
    engine: str = "auto"  # openvino, torch, or auto: the fast one

    def __post_init__(self) -> None:
        """Check each value's type and range, so that a wrong setting stops here and not an hour later."""
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.default)
        _check_choice("strategy", self.strategy, STRATEGIES)
        _check_choice("class_weights", self.class_weights, CLASS_WEIGHTS)
        _check_range("test_fraction", self.test_fraction, 0.05, 0.5)
        _check_range("folds", self.folds, 2, 20)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        _check_range("threads", self.threads, 0, 1024)

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


def _check_type(name: str, value: object, default: object) -> None:
    expected: tuple[type, ...] = (str, type(None)) if default is None else (type(default),)
    if isinstance(default, float):
        expected = (float, int)
    if isinstance(value, bool) or not isinstance(value, expected):
        wanted = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in expected)
        raise ConfigError(f"setting {name} must be {wanted}; received {value!r}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ConfigError(f"setting {name} must be one of {', '.join(choices)}; received {value!r}")


def _check_range(name: str, value: int | float, low: int | float, high: int | float) -> None:
    if not low <= value <= high:
        raise ConfigError(f"setting {name} must lie between {low:g} and {high:g}; received {value!r}")
