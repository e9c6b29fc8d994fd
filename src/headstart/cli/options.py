"""What every command has in common: its exit codes, the global options, and how a result is shown."""

import functools
import json
from collections.abc import Callable
from typing import Any

import click

DONE, FAULT, USAGE, SOME_SKIPPED = 0, 1, 2, 3
SENTENCE = 200  # letters, more than any command's first sentence has


class Commands(click.Group):
    """A group whose list of commands shows whole sentences; click alone cuts them off."""

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a line or two a command."""
        with formatter.section("Commands"):
            names = self.list_commands(ctx)
            formatter.write_dl([(name, self.commands[name].get_short_help_str(limit=SENTENCE)) for name in names])


class Global:
    """The options every command takes: before the command or after it."""

    def __init__(self, **values: Any) -> None:
        self.json: bool = values.get("as_json", False)
        self.quiet: bool = values.get("quiet", False)
        self.seed: int | None = values.get("seed")
        self.threads: int | None = values.get("threads")

    def over(self, outer: "Global") -> "Global":
        """Fill what was not given after the command with what was given before it."""
        self.json |= outer.json
        self.quiet |= outer.quiet
        self.seed = outer.seed if self.seed is None else self.seed
        self.threads = outer.threads if self.threads is None else self.threads
        return self

    def say(self, text: str) -> None:
        """Print a message for the person to stderr, unless quiet."""
        if not self.quiet:
            click.echo(text, err=True)

    def show(self, document: Any, text: str) -> None:
        """Print the result to stdout: one JSON document, or the text for a person."""
        click.echo(json.dumps(document, allow_nan=False) if self.json else text)


def global_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add --json, --quiet, --seed and --threads, handed to the command as one `Global`."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else there.")
    @click.option("--quiet", is_flag=True, help="No progress and no messages on stderr.")
    @click.option("--seed", type=click.IntRange(0, 2**32 - 1), help="Seed of everything that draws. Default 0.")
    @click.option("--threads", type=click.IntRange(1, 1024), help="Processor threads. Default: all.")
    @functools.wraps(command)
    def wrapped(*args: Any, **values: Any) -> Any:
        own = Global(**{name: values.pop(name) for name in ("as_json", "quiet", "seed", "threads")})
        outer = click.get_current_context().find_object(Global)
        return command(own.over(outer) if outer else own, *args, **values)

    return wrapped


class Duration(click.ParamType[float]):
    """Seconds, written as 90, 90s, 5m or 1h."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Seconds of what was typed."""
        text = str(value).strip().lower()
        unit = {"s": 1.0, "m": 60.0, "h": 3600.0}.get(text[-1:], 0.0)
        try:
            seconds = float(text[:-1]) * unit if unit else float(text)
        except ValueError:
            seconds = -1.0
        if not 0 <= seconds < 1e9:
            self.fail(f"{value!r} is no length of time; expected for example 90s, 5m or 1h", param, ctx)
        return seconds


#: what `train` takes for a network that is trained from random weights: option, type, help
NETWORK = (
    ("--net", str, "Train this network from random weights: lenet, cifar-cnn, resnet18, ... (headstart summary NET)."),
    ("--epochs", int, "Passes over the training photos. Default 10."),
    ("--batch-size", int, "Photos a step. Default 128 from random weights, 32 from pretrained ones."),
    ("--optimiser", str, "sgd, rmsprop, adagrad, adadelta, adam (default), adamax, nadam or adamw."),
    (
        "--learning-rate",
        float,
        "At its highest. Default: by the optimiser; from pretrained weights 0.0005 or 0.0015.",
    ),
    ("--schedule", str, "Of the rate: one-cycle (default), constant, step, cosine or plateau."),
    ("--momentum", float, "Of sgd. Default 0.9."),
    ("--nesterov", None, "Of sgd: look ahead along the momentum."),
    ("--loss", str, "cross-entropy (default) or mse."),
    ("--label-smoothing", float, "Share of each label that is spread over all classes. Default 0."),
    ("--weight-decay", float, "Weights shrink by the rate times this, every step. Default 0; adamw 0.004."),
    ("--l1", float, "Times the sum of the weights' sizes, added to the loss. Default 0."),
    ("--l2", float, "Times the sum of the weights' squares, added to the loss. Default 0."),
    ("--clip-norm", float, "Longest gradient of a step. Default: 1 from pretrained weights, else as long as it is."),
    ("--augment", str, "none, photos, digits, any-way-up or cifar: change the training photos. Default: by strategy."),
    ("--views", int, "Of each photo, changed by --augment, that deeper keeps. Default 8; 4 from 2,000 photos."),
    ("--mixup", float, "Alpha of the Beta distribution that photos are mixed by. Default 0: not mixed."),
    ("--image-size", int, "Side of the photos that the network sees, pixels. Default: by the network and the photos."),
    ("--colour", str, "gray, colour, or auto (default): gray where every training photo is."),
    ("--validation-fraction", float, "Share of the training photos where DATA has no val split. Default 0.2."),
    ("--keep", str, "The weights of the best epoch by validation loss (best, default) or those of the last."),
    (
        "--again/--no-again",
        None,
        "Then train deeper or full on the validation photos too (default).",
    ),
    ("--patience", int, "Stop after so many epochs without a lower validation loss. Default 0: run all."),
)


def network_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the settings of a network's training, each None where it is not given, and --resume."""
    resume = click.option("--resume", is_flag=True, help="Go on with a training of --net that was interrupted.")
    every = click.option(
        "--checkpoint-seconds",
        type=click.FloatRange(min=0, min_open=True),
        default=60.0,
        help="How often the state of such a training is kept, beside the run. Default 60.",
    )
    command = resume(every(command))
    for name, kind, text in reversed(NETWORK):
        if kind is None:
            command = click.option(name, is_flag=True, default=None, help=text)(command)
        else:
            command = click.option(name, type=kind, help=text)(command)
    return command
