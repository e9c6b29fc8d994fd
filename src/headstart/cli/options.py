"""What every command has in common: its exit codes, the global options, and how a result is shown."""

import functools
import json
from collections.abc import Callable
from typing import Any

import click

DONE, FAULT, USAGE, SOME_SKIPPED = 0, 1, 2, 3


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
