"""The command that makes a model a service: serve."""

import json
from pathlib import Path

import click

from headstart.cli.options import DONE, Global, global_options


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on; others need a token.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any free one.")
@click.option("--token", envvar="HEADSTART_TOKEN", help="Clients must send it. Better: set HEADSTART_TOKEN.")
@click.option("--insecure-no-auth", is_flag=True, help="Let other machines in without a token.")
@click.option("--allow-host", multiple=True, metavar="NAME", help="A host name requests may be for, as of a proxy.")
@click.option("--queue", type=click.IntRange(1), default=128, show_default=True, help="Photos taken on at a time.")
@click.option("--workers", type=click.IntRange(1, 64), help="Processes that decode. Default: by processors, up to 4.")
@click.option("--max-mb", type=click.FloatRange(0.1, 1000), default=32, show_default=True, help="Of one request.")
@global_options
def serve(
    given: Global,
    run: Path,
    host: str,
    port: int,
    token: str | None,
    insecure_no_auth: bool,
    allow_host: tuple[str, ...],
    queue: int,
    workers: int | None,
    max_mb: float,
) -> int:
    """Answer other programs over HTTP: photos in, classes and probabilities out; stops in good order on SIGTERM.

    Example: headstart serve runs/photos-1 --port 8000
    """
    from headstart.service import serve as serve_run
    from headstart.service.guard import GuardSettings
    from headstart.service.settings import ServiceSettings

    max_body = int(max_mb * 1e6)
    guard = GuardSettings(
        host=host,
        port=port,
        token=token or None,
        without_token=insecure_no_auth,
        names=allow_host,
        max_body=max_body,
        max_held=max(8 * max_body, GuardSettings.max_held),
    )
    settings = ServiceSettings(guard=guard, queue=queue, workers=workers or 0, threads=given.threads or 0)

    def started(address: str) -> None:
        if not guard.local and guard.token is None:
            given.say(f"Warning: everybody who can reach {address} can use this service; there is no token.")
        if given.json:
            click.echo(json.dumps({"url": address}))
        given.say(f"Serving at {address}/v1/predict; ready when {address}/readyz says so. Stop with Ctrl-C.")

    serve_run(run, settings=settings, started=started)
    return DONE


SERVING: tuple[click.Command, ...] = (serve,)
