"""Which settings go with which strategy; and what a strategy that is not named comes down to."""

import dataclasses

from headstart.config import LoopConfig, TrainConfig
from headstart.errors import ConfigError
from headstart.files import shown
from headstart.nets import NETS

TRAINED = ("deeper", "full", "scratch")  # strategies that train a network
TUNED = ("again",)  # of a net that starts from pretrained weights
LOOP = (
    *(field.name for field in dataclasses.fields(LoopConfig) if field.name not in ("seed", "threads")),
    *("validation_fraction", "keep", "patience"),
)
BACKBONE = ("backbone", "weights")
HEAD = ("cut", "head", "folds")
#: strategy -> the settings that it looks at, besides those that all look at
OWN: dict[str, tuple[str, ...]] = {
    "auto": (*BACKBONE, *HEAD, *TUNED, "budget", "large"),
    "head": (*BACKBONE, *HEAD),
    "early": (*BACKBONE, *HEAD, "large"),
    "deeper": (*BACKBONE, "cut", *LOOP, *TUNED, "views", "large"),
    "full": (*BACKBONE, *LOOP, *TUNED, "large"),
    "scratch": ("net", "backbone", *LOOP, "image_size", "colour"),
}


def check_settings(config: TrainConfig) -> TrainConfig:
    """The settings with the strategy named; "auto" stays where a pretrained backbone is used.

    Raises:
        ConfigError: a setting was given that the strategy does not look at, or the net does not exist.
    """
    if config.net is not None and config.strategy not in ("auto", "scratch"):
        raise ConfigError(
            f"--net trains a network from scratch, and strategy {config.strategy} uses a pretrained backbone: leave "
            "one of them out"
        )
    if config.net is not None and config.net.lower() not in NETS:
        raise ConfigError(f"unknown net {shown(config.net)!r}; choose one of: {', '.join(sorted(NETS))}")
    strategy = config.strategy if config.net is None else "scratch"
    plain = TrainConfig()
    known = {name for names in OWN.values() for name in names}
    own = OWN[strategy] if config.net is None else tuple(name for name in OWN["scratch"] if name != "backbone")
    given = [name for name in sorted(known - set(own)) if getattr(config, name) != getattr(plain, name)]
    if given:
        option = "--" + given[0].replace("_", "-")
        others = [name for name, names in OWN.items() if given[0] in names]
        advice = "leave --net out" if config.net is not None else f"choose --strategy {' or '.join(others)}"
        if given[0] in LOOP and config.net is None:
            advice += ", or add --net"
        raise ConfigError(
            f"{option} belongs to {_whose(given[0])}, and this is strategy {strategy}: leave it out, or {advice}"
        )
    config = dataclasses.replace(config, strategy=strategy)
    return named_net(config) if strategy == "scratch" else config


def named_net(config: TrainConfig) -> TrainConfig:
    """The settings with the net that is trained from random weights: the one that is named, else the backbone's."""
    return dataclasses.replace(config, net=(config.net or config.backbone).lower())


def _whose(name: str) -> str:
    if name in (*BACKBONE, *HEAD, "large"):
        return "a pretrained backbone"
    return "strategy auto" if name == "budget" else "the training of a network"
