"""The command that opens the local web app."""

import json
from pathlib import Path

import click

from headstart.cli.options import DONE, Global, global_options


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free one.")
@click.option(
    "--runs",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("runs"),
    show_default=True,
    help="The folder of the runs.",
)
@click.option("--no-browser", is_flag=True, help="Only print the address.")
@global_options
def ui(given: Global, port: int, folder: Path, no_browser: bool) -> int:
    """Open the local web app: runs, training, data, trying photos, looking inside, lessons; on this machine alone.

    Example: headstart ui
    """
    from headstart.web.server import UiSettings, serve_ui

    def tell(address: str) -> None:
        if given.json:
            click.echo(json.dumps({"url": address}))
        given.say(f"headstart ui is at {address} (Ctrl-C ends it)")

    serve_ui(UiSettings(runs=folder, port=port), tell=tell, browser=not no_browser)
    return DONE


BROWSING: tuple[click.Command, ...] = (ui,)
