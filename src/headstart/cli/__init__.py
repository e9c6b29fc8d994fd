"""The commands: each one parses, makes one call and prints. Errors become one line and an exit code in `run`."""

import os
import sys
from pathlib import Path
from typing import Any

import click

from headstart import __version__
from headstart.cli.atlas import ATLAS
from headstart.cli.augmentation import augment
from headstart.cli.browsing import BROWSING
from headstart.cli.lessons import LESSONS
from headstart.cli.looking import LOOKING
from headstart.cli.options import (
    DONE,
    FAULT,
    SOME_SKIPPED,
    USAGE,
    Commands,
    Duration,
    Global,
    global_options,
    network_options,
)
from headstart.cli.practice import PRACTICE
from headstart.cli.serving import SERVING
from headstart.cli.shipping import SHIPPING
from headstart.errors import HeadstartError

DATA = click.argument("data")
FOLLOW = click.option("--follow-links", is_flag=True, help="Also read what symbolic links inside DATA point to.")
RUN = click.argument("run", type=click.Path(path_type=Path))


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="headstart")
@click.option("--json", "as_json", is_flag=True, hidden=True)
@click.option("--quiet", is_flag=True, hidden=True)
@click.option("--seed", type=click.IntRange(0, 2**32 - 1), hidden=True)
@click.option("--threads", type=click.IntRange(1, 1024), hidden=True)
@click.pass_context
def cli(context: click.Context, /, **values: Any) -> None:
    """From a folder of labelled photos to an image classifier you can trust, understand and ship.

    Start with: headstart train photos/ (one sub-folder per class).
    """
    context.obj = Global(**values)


@cli.command()
@DATA
@FOLLOW
@global_options
def scan(given: Global, data: str, follow_links: bool) -> int:
    """Look at the photos before training: counts, unreadable files, duplicates, leaks, imbalance.

    Example: headstart scan photos/
    """
    from headstart.job import scan as scan_photos
    from headstart.quality import format_report

    report = scan_photos(data, follow_links=follow_links, threads=given.threads or 0, quiet=given.quiet, say=given.say)
    document = report.to_json()
    given.show(document, format_report(report))
    return SOME_SKIPPED if document["skipped"] else DONE


@cli.command()
@DATA
@click.option("--out", type=click.Path(path_type=Path), help="The run directory to make. Default: runs/<data>-<n>.")
@click.option("--overwrite", is_flag=True, help="Replace the run at --out.")
@click.option("--strategy", help="auto (default): by measurement; head, early, deeper, full or scratch.")
@click.option(
    "--budget", type=Duration(), help="Time that auto may spend on trying more than a last layer. Default 5m."
)
@click.option("--large", is_flag=True, default=None, help="Count the photos as many, whatever the rule says.")
@click.option("--backbone", help="efficientnet-lite0 (default), efficientnet-lite1 or efficientnet-lite2.")
@click.option("--weights", type=click.Path(), help="Your own weights file for the backbone (.safetensors or .pth).")
@click.option("--cut", help="Where the backbone is sliced off, for example stage5. Default: by strategy.")
@click.option("--head", help="auto (default), ridge, logistic, mlp, knn or centroid.")
@click.option("--class-weights", help="none (default), or balanced: rare classes count as much as frequent ones.")
@click.option("--test-fraction", type=float, help="Share of photos held out where DATA has no test split. Default 0.2.")
@click.option("--folds", type=int, help="Parts of the training photos for held-out predictions. Default 5.")
@click.option("--engine", help="auto (default), openvino or torch.")
@network_options
@FOLLOW
@global_options
def train(
    given: Global,
    data: str,
    out: Path | None,
    overwrite: bool,
    resume: bool,
    checkpoint_seconds: float,
    follow_links: bool,
    **settings: Any,
) -> int:
    """Train a classifier, test it on photos it never saw, and write a run directory with a report.

    A pretrained network is fitted to the photos, by the strategy that measurements speak for; with --net, a network is
    trained from random weights.

    Example: headstart train photos/ --out runs/first

    Example: headstart train mnist=folder --net lenet --epochs 10
    """
    from headstart.cli.console import training_text
    from headstart.config import TrainConfig
    from headstart.job import train as train_photos

    settings |= {"seed": given.seed, "threads": given.threads}
    config = TrainConfig.from_dict({name: value for name, value in settings.items() if value is not None})
    run = train_photos(
        data,
        out,
        config=config,
        overwrite=overwrite,
        resume=resume,
        checkpoint_seconds=checkpoint_seconds,
        follow_links=follow_links,
        quiet=given.quiet,
        say=given.say,
    )
    given.show(run.metrics, training_text(run.metrics))
    return SOME_SKIPPED if run.metrics["data"]["skipped"] else DONE


@cli.command()
@DATA
@click.option("--backbone", help="efficientnet-lite0 (default), efficientnet-lite1 or efficientnet-lite2.")
@click.option("--weights", type=click.Path(), help="Your own weights file for the backbone (.safetensors or .pth).")
@click.option("--budget", type=Duration(), help="Time for what takes long: changed views, other backbones. Default 5m.")
@click.option("--large", is_flag=True, default=None, help="Count the photos as many, whatever the rule says.")
@click.option("--picture", type=click.Path(path_type=Path), help="Also draw the four cases with these photos: an SVG.")
@FOLLOW
@global_options
def plan(given: Global, data: str, picture: Path | None, follow_links: bool, **settings: Any) -> int:
    """Say what training would do and why, what each strategy would give and what would help; train no network.

    Example: headstart plan photos/ --picture cases.svg
    """
    from headstart.cli.console import skipped_lines
    from headstart.config import TrainConfig
    from headstart.files import write_atomic
    from headstart.job.planning import plan as plan_training

    settings |= {"seed": given.seed, "threads": given.threads}
    config = TrainConfig.from_dict({name: value for name, value in settings.items() if value is not None})
    result = plan_training(data, config=config, follow_links=follow_links, quiet=given.quiet, say=given.say)
    if picture is not None:
        write_atomic(picture, result.picture.encode())
    skipped = result.material.about["skipped"]
    given.show(result.to_json(), "\n".join([result.to_text(), *skipped_lines(skipped, "the output of --json")]))
    return SOME_SKIPPED if skipped else DONE


@cli.command()
@RUN
@DATA
@FOLLOW
@global_options
def evaluate(given: Global, run: Path, data: str, follow_links: bool) -> int:
    """Measure a trained classifier on other labelled photos.

    Example: headstart evaluate runs/photos-1 other_photos/
    """
    from headstart.cli.console import evaluation_text
    from headstart.job import evaluate as evaluate_run

    document = evaluate_run(
        run, data, follow_links=follow_links, threads=given.threads or 0, quiet=given.quiet, say=given.say
    )
    given.show(document, evaluation_text(document))
    return SOME_SKIPPED if document["skipped"] else DONE


@cli.command()
@RUN
@click.argument("images", nargs=-1, required=True)
@click.option("--topk", type=click.IntRange(1), default=1, show_default=True, help="How many classes to name a photo.")
@click.option(
    "--format", "layout", type=click.Choice(["table", "csv", "jsonl"]), help="Default table; --json means jsonl."
)
@global_options
def predict(given: Global, run: Path, images: tuple[str, ...], topk: int, layout: str | None) -> int:
    """Name the class of photos: files, or folders of them.

    Example: headstart predict runs/photos-1 new.jpg inbox/ --format csv
    """
    from headstart.predict import predict_paths, write_predictions
    from headstart.runs import load_run

    layout = layout or ("jsonl" if given.json else "table")
    rows = predict_paths(load_run(run), images, threads=given.threads or 0)
    failed = write_predictions(rows, layout, sys.stdout, topk=topk)
    return SOME_SKIPPED if failed else DONE


@cli.command()
@click.argument("first", type=click.Path(path_type=Path))
@click.argument("second", type=click.Path(path_type=Path))
@global_options
def compare(given: Global, first: Path, second: Path) -> int:
    """Compare two runs on the test photos they share: which flipped, and whether that is more than chance.

    Example: headstart compare runs/photos-1 runs/photos-2
    """
    from headstart.comparison import compare as compare_runs
    from headstart.runs import load_run

    result = compare_runs(load_run(first), load_run(second))
    given.show(result.to_json(), result.to_text())
    return DONE


@cli.command()
@RUN
@global_options
def report(given: Global, run: Path) -> int:
    """Print a run's result again, and where its report is.

    Example: headstart report runs/photos-1
    """
    from headstart.cli.console import training_text
    from headstart.runs import load_run

    loaded = load_run(run)
    given.show(loaded.metrics, training_text(loaded.metrics))
    return DONE


@cli.group(cls=Commands)
def cache() -> None:
    """The store of computed features and the converted nets: how big, whether sound, and making them smaller."""


@cache.command()
@global_options
def info(given: Global) -> int:
    """Say where the store is and what it holds.

    Example: headstart cache info
    """
    from headstart.backbones.shelf import look_at_shelf
    from headstart.store import Store

    with Store() as store:
        result = store.info()
    shelf = look_at_shelf()
    given.show(result.to_json() | {"converted": shelf.to_json()}, f"{result.to_text()}\n{shelf.to_text()}")
    return DONE


@cache.command()
@global_options
def verify(given: Global) -> int:
    """Check every entry and every converted net and drop the damaged ones; they are made again when needed.

    Example: headstart cache verify
    """
    from headstart.backbones.shelf import check_shelf
    from headstart.store import Store

    with Store() as store:
        result = store.verify()
    shelf = check_shelf()
    given.show(result.to_json() | {"converted": shelf.to_json()}, f"{result.to_text()}\n{shelf.to_text('damaged and')}")
    return DONE


@cache.command()
@click.option("--older-than", type=click.FloatRange(0), metavar="DAYS", help="Remove what was not used for DAYS.")
@click.option(
    "--max-size", type=click.FloatRange(0), metavar="MB", help="Remove the longest unused features beyond MB."
)
@global_options
def prune(given: Global, older_than: float | None, max_size: float | None) -> int:
    """Make the store smaller: features, and with --older-than converted nets.

    Example: headstart cache prune --older-than 30
    """
    from headstart.backbones.shelf import prune_shelf
    from headstart.store import Store

    if older_than is None and max_size is None:
        raise click.UsageError("say what to remove: --older-than DAYS or --max-size MB")
    with Store() as store:
        result = store.prune(older_than_days=older_than, max_bytes=None if max_size is None else int(max_size * 1e6))
    if older_than is None:
        given.show(result.to_json(), result.to_text())
        return DONE
    shelf = prune_shelf(older_than)
    given.show(result.to_json() | {"converted": shelf.to_json()}, f"{result.to_text()}\n{shelf.to_text('unused and')}")
    return DONE


@cli.command()
@global_options
def doctor(given: Global) -> int:
    """Say what this machine has, what is missing and what to do about it.

    Example: headstart doctor
    """
    from headstart.doctor import examine

    result = examine(threads=given.threads or 0)
    given.show(result.to_json(), result.to_text())
    return DONE if result.sound else FAULT


for other in (augment, *LOOKING, *ATLAS, *PRACTICE, *LESSONS, *SHIPPING, *SERVING, *BROWSING):
    cli.add_command(other)


def run(arguments: list[str]) -> int:
    """Run a command line and return its exit code; every error becomes one line on stderr here and nowhere else."""
    try:
        code = cli.main(args=arguments, prog_name="headstart", standalone_mode=False)
        return code if isinstance(code, int) else DONE
    except click.ClickException as error:
        error.show()
        return USAGE
    except click.Abort as error:
        raise KeyboardInterrupt(*(error.__cause__.args if error.__cause__ else ())) from error  # click made it of one
    except HeadstartError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        raise
    except MemoryError:
        return _fail("out of memory; use fewer threads (--threads 1), close other programs or split the data", FAULT)
    except Exception as error:
        if os.environ.get("HEADSTART_TRACEBACK"):
            raise
        return _fail(_explain(error), FAULT)


def _explain(error: Exception) -> str:
    from headstart.files import shown

    if isinstance(error, OSError) and error.strerror:
        place = f": {shown(str(error.filename))}" if error.filename else ""
        return f"{error.strerror}{place}"
    text = shown(" ".join(str(error).split()))[:300]
    return f"internal error, {type(error).__name__}: {text}; set HEADSTART_TRACEBACK=1 to see where, and report it"


def _fail(text: str, code: int) -> int:
    click.echo(f"Error: {text}", err=True)
    return code
