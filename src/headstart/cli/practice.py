"""The commands before a training from scratch: which learning rate, and does the net learn at all."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from headstart.cli.options import DONE, FAULT, Global, global_options


def settings(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add what both commands take: the data, the net and the settings of the loop that matter here."""
    for option in reversed(
        (
            click.argument("data"),
            click.option("--net", required=True, help="A net by name, for example lenet, small-cnn or resnet18."),
            click.option(
                "--optimiser", help="sgd, rmsprop, adagrad, adadelta, adam (default), adamax, nadam or adamw."
            ),
            click.option("--momentum", type=float, help="Of sgd. Default 0.9."),
            click.option("--loss", help="cross-entropy (default) or mse."),
            click.option("--batch-size", type=int, help="Photos a step. Default 128."),
            click.option(
                "--image-size", type=int, help="Side of the photos, pixels. Default: what fits net and photos."
            ),
            click.option("--colour", help="auto (default), gray or colour."),
            click.option("--follow-links", is_flag=True, help="Also read what symbolic links inside DATA point to."),
        )
    ):
        command = option(command)
    return global_options(command)


@click.command()
@settings
@click.option("--steps", type=click.IntRange(20), default=100, show_default=True, help="Of each short training.")
@click.option("--out", type=click.Path(path_type=Path), help="Draw the losses there: an .svg or a .png file.")
def lr(given: Global, data: str, out: Path | None, steps: int, follow_links: bool, **values: Any) -> int:
    """Find the learning rate: try all in one short run, then train shortly with seven of them.

    Example: headstart lr photos/ --net small-cnn --out rates.svg
    """
    from headstart.job.practice import describe_rates, try_rates
    from headstart.training.curves import check_suffix, draw_rates, write_drawing

    config = _config(given, values)
    if out is not None:
        check_suffix(out)
    found = try_rates(data, config, steps=steps, quiet=given.quiet, follow_links=follow_links)
    if out is not None:
        write_drawing(
            draw_rates(found.tested, found.trials, f"{config.net} on {Path(data).name}, {config.optimiser}"), out
        )
        given.say(f"drawn in {out.as_posix()}")
    document = describe_rates(found, config)
    lines = [f"{trial.rate:<10g} {trial.verdict:<10} {trial.why}" for trial in found.trials]
    given.show(document, "\n".join([*lines, "", f"suggestion: --learning-rate {document['suggestion']:g}"]))
    return DONE


@click.command()
@settings
@click.option("--learning-rate", type=float, help="Default: the optimiser's usual one.")
def check(given: Global, data: str, follow_links: bool, **values: Any) -> int:
    """Let a net learn 50 photos by heart; if it cannot, or for the wrong reasons, say what is wrong.

    Example: headstart check photos/ --net small-cnn
    """
    from headstart.job.practice import check as check_data

    result = check_data(data, _config(given, values), quiet=given.quiet, follow_links=follow_links)
    given.show(result.to_json(), result.to_text())
    return DONE if result.passed else FAULT


def _config(given: Global, values: dict[str, Any]) -> Any:
    from headstart.config import TrainConfig

    values |= {"seed": given.seed, "threads": given.threads, "strategy": "scratch"}
    return TrainConfig.from_dict({name: value for name, value in values.items() if value is not None}).filled()


PRACTICE: tuple[click.Command, ...] = (lr, check)
