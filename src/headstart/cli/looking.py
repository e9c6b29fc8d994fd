"""What a net says of photos, and how far to believe it: explain, trust."""

from pathlib import Path
from typing import Any

import click

from headstart.cli.options import DONE, FAULT, SOME_SKIPPED, Global, global_options
from headstart.cli.showing import NET, OUT, WEIGHTS, opened, told, words

EXPLAINED = Path("explained")


@click.command()
@click.argument("run", metavar="RUN")
@click.argument("images", nargs=-1, required=True)
@click.option(
    "--method",
    "methods",
    multiple=True,
    callback=words,
    help="cam, gradcam, gradient, inputxgradient, guided, guidedgradcam, deconv, occlusion, ig; several with commas. "
    "Default: cam (gradcam where there is none), gradient, guided.",
)
@click.option(
    "--class",
    "labels",
    multiple=True,
    help="The class to explain; may be given several times. Default: the predicted one.",
)
@click.option("--expected", help="The true class: also explained, with what speaks for one rather than the other.")
@click.option("--layer", help="Where gradcam looks, as headstart summary names it. Default: the last map.")
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.2,
    show_default=True,
    help="Of the box: a share of the map's largest value.",
)
@click.option(
    "--window", type=click.IntRange(1), help="Side of the covered square of occlusion, pixels of the net's input."
)
@click.option("--stride", type=click.IntRange(1), help="Step between two of them, pixels.")
@click.option("--baseline", type=click.Choice(["grey", "black", "blur"]), help="Where ig starts. Default grey.")
@click.option("--anyway", is_flag=True, default=None, help="Draw deconv also where it says nothing about the photo.")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=EXPLAINED,
    show_default=True,
    help="A folder in it for each photo.",
)
@click.option("--weights", type=click.Path(path_type=Path), help="A weights file, where RUN is the name of a net.")
@global_options
def explain(
    given: Global,
    run: str,
    images: tuple[str, ...],
    methods: tuple[str, ...],
    labels: tuple[str, ...],
    expected: str | None,
    layer: str | None,
    threshold: float,
    out: Path,
    weights: Path | None,
    **settings: Any,
) -> int:
    """Show what in a photo speaks for a class: maps over the photo, with the numbers that they add up to.

    RUN is a run, or a net such as efficientnet-lite0. What is written: raw numbers, pictures, boxes, a manifest.

    Example: headstart explain runs/photos-1 new.jpg --method cam,occlusion --expected bees
    """
    from headstart.cli.console import explained_lines
    from headstart.errors import ImageRejected
    from headstart.explain import explain as explain_photo
    from headstart.explain.bundle import folder_names, write_bundle
    from headstart.look.opening import open_subject
    from headstart.progress import Progress

    subject = open_subject(run, weights, seed=given.seed or 0, threads=given.threads or 0, say=given.say)
    chosen = {name: value for name, value in settings.items() if value is not None}
    done: list[dict[str, Any]] = []
    with Progress(len(images), "photos", quiet=given.quiet) as progress:
        for path, folder in zip(images, folder_names(images), strict=True):
            try:
                photo = subject.photo(path)
            except ImageRejected as error:
                done.append({"path": path, "error": str(error)})
            else:
                wanted = labels
                if expected is not None:
                    wanted = tuple(dict.fromkeys((*(labels or (predicted(subject, photo),)), expected)))
                found = explain_photo(
                    subject, photo, methods, wanted, layer=layer, seed=given.seed or 0, settings=chosen
                )
                manifest = write_bundle(found, out / folder, threshold=threshold, overwrite=True)
                done.append({"path": path, "folder": (out / folder).as_posix(), **manifest})
            progress.advance()
    given.show({"run": subject.name, "photos": done}, "\n".join(explained_lines(done)))
    failed = [row for row in done if "error" in row]
    return DONE if not failed else FAULT if len(failed) == len(done) else SOME_SKIPPED


def predicted(subject: Any, photo: Any) -> str:
    """The name of the class that a net gives a photo."""
    from headstart.explain.stored import logits_of

    label: str = subject.classes[int(logits_of(subject, [photo])[0].argmax())]
    return label


@click.command()
@NET
@click.argument("data", nargs=-1, required=True)
@click.option(
    "--method", "methods", multiple=True, callback=words, help="As of headstart explain; several with commas."
)
@click.option("--photos", type=click.IntRange(1), help="How many to use.")
@OUT
@WEIGHTS
@global_options
def trust(
    given: Global,
    net: str,
    data: tuple[str, ...],
    methods: tuple[str, ...],
    photos: int | None,
    out: Path | None,
    weights: Path | None,
) -> int:
    """Measure how far explanations of this net can be trusted: one table, each number beside what chance would give.

    Example: headstart trust runs/photos-1 photos/
    """
    from headstart.look.trust import PHOTOS
    from headstart.look.trust import trust as judge

    subject = opened(given, net, weights)
    sources: Any = data[0] if len(data) == 1 else list(data)
    most, seed = photos or PHOTOS, given.seed or 0
    return told(
        given, subject, out, "trust", lambda line: judge(subject, sources, methods, photos=most, seed=seed, step=line)
    )


LOOKING: tuple[click.Command, ...] = (explain, trust)
