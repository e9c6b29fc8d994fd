"""The commands that make a model ready for other programs: export."""

from pathlib import Path

import click

from headstart.cli.options import DONE, SOME_SKIPPED, Global, global_options
from headstart.cli.showing import Steps


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--to", required=True, help="onnx (one file) or openvino (model.xml and model.bin).")
@click.option(
    "--data",
    multiple=True,
    metavar="PHOTOS",
    help="Photos to compare on: a file, a folder or a data set; may be given several times. Default: 64 made-up ones.",
)
@click.option("--out", type=click.Path(path_type=Path), help="The folder to make. Default: exported/<run>-<to>.")
@click.option("--overwrite", is_flag=True, help="Replace the export at --out.")
@global_options
def export(given: Global, run: Path, to: str, data: tuple[str, ...], out: Path | None, overwrite: bool) -> int:
    """Write a trained classifier for other programs, after comparing it with the run on photos; with a model card.

    Example: headstart export runs/photos-1 --to onnx --data photos/
    """
    from headstart.export import export_run

    steps = Steps(given.quiet)
    seed, threads = given.seed or 0, given.threads or 0
    try:
        done = export_run(run, to, out, data, overwrite=overwrite, seed=seed, threads=threads, step=steps)
    finally:
        steps.end()
    given.show(done.to_json(), done.to_text())
    return SOME_SKIPPED if done.parity.skipped else DONE


SHIPPING: tuple[click.Command, ...] = (export,)
