"""`headstart look`: filters, maps of any layer, one value taken apart, units, dreams, features, fragility."""

from pathlib import Path
from typing import Any

import click

from headstart.cli.options import DONE, SOME_SKIPPED, Commands, Global, global_options
from headstart.cli.showing import NET, OUT, WEIGHTS, opened, readable, told

UNITS = click.option("--unit", "units", type=click.IntRange(0), multiple=True, help="Channel, from 0; several times.")
LAYER = "A stage, block or layer, as headstart summary names them."


class Either(Commands):
    """A group whose command may stand before or after what is looked into: `look filters RUN`, `look RUN filters`."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command; where the second word is one and the first is none, they change places."""
        if len(args) > 1 and args[0] not in self.commands and args[1] in self.commands:
            args = [args[1], args[0], *args[2:]]
        elif len(args) > 1 and not {args[0], args[1]} & set(self.commands):
            ctx.fail(f"no way to look is called {args[0]!r} or {args[1]!r}; choose from: {', '.join(self.commands)}")
        return super().resolve_command(ctx, args)


@click.group(cls=Either)
def look() -> None:
    """Look into a run or a net: filters, maps of any layer, units, dreams, features, fragility.

    NET_OR_RUN is a run's folder, a pretrained backbone, or any net that headstart summary knows. The words may change
    places: headstart look runs/photos-1 filters.
    """


@look.command()
@NET
@click.option("--layer", help=f"{LAYER} Default: the first.")
@UNITS
@OUT
@WEIGHTS
@global_options
def filters(
    given: Global, net: str, layer: str | None, units: tuple[int, ...], out: Path | None, weights: Path | None
) -> int:
    """The weights of a layer as pictures: of the first in colour, of deeper ones a square for each input channel.

    Example: headstart look filters efficientnet-lite0
    """
    from headstart.look.filters import look_at_filters

    subject = opened(given, net, weights)
    return told(
        given, subject, out, f"filters-{layer or 'first'}", lambda _: look_at_filters(subject, layer, units or None)
    )


@look.command()
@NET
@click.argument("image")
@click.option("--layer", required=True, help=LAYER)
@UNITS
@click.option("--pool", "window", type=click.IntRange(1), default=1, show_default=True, help="Pool the maps by this.")
@click.option(
    "--scale", default="layer", show_default=True, help="One colour scale for the layer, each unit, or a number."
)
@OUT
@WEIGHTS
@global_options
def activations(
    given: Global,
    net: str,
    image: str,
    layer: str,
    units: tuple[int, ...],
    window: int,
    scale: str,
    out: Path | None,
    weights: Path | None,
) -> int:
    """The maps that a layer makes of a photo, before and after its activation, and how many are saturated or dead.

    Example: headstart look activations runs/photos-1 new.jpg --layer stage5
    """
    from headstart.look.activations import look_at_activations

    subject = opened(given, net, weights)
    photo = subject.photo(image)
    value = _number(scale)
    return told(
        given,
        subject,
        out,
        f"activations-{layer}",
        lambda _: look_at_activations(subject, photo, layer, units or None, window, value),
    )


@look.command()
@NET
@click.argument("image")
@click.option("--layer", required=True, help=LAYER)
@click.option("--unit", type=click.IntRange(0), required=True, help="Channel, from 0.")
@click.option("--at", "place", metavar="ROW,COL", help="Place in the map. Default: where the value is largest.")
@OUT
@WEIGHTS
@global_options
def neuron(
    given: Global,
    net: str,
    image: str,
    layer: str,
    unit: int,
    place: str | None,
    out: Path | None,
    weights: Path | None,
) -> int:
    """The terms that one value of a layer is the sum of, channel by channel, with the bias.

    Example: headstart look neuron runs/photos-1 new.jpg --layer stage5 --unit 3
    """
    from headstart.cli.lessons import place_of
    from headstart.look.neuron import look_at_neuron

    subject = opened(given, net, weights)
    photo, at = subject.photo(image), None if place is None else place_of(place)
    return told(
        given, subject, out, f"neuron-{layer}-{unit}", lambda _: look_at_neuron(subject, photo, layer, unit, at)
    )


@look.command()
@NET
@click.argument("data", nargs=-1, required=True)
@click.option("--layer", required=True, help=LAYER)
@UNITS
@click.option("--top", type=click.IntRange(1, 100), default=9, show_default=True, help="Patches of a unit.")
@click.option("--no-border", is_flag=True, help="Pass over maxima at the border of the map.")
@OUT
@WEIGHTS
@global_options
def units(
    given: Global,
    net: str,
    data: tuple[str, ...],
    layer: str,
    units: tuple[int, ...],
    top: int,
    no_border: bool,
    out: Path | None,
    weights: Path | None,
) -> int:
    """What excites a unit most in your photos: the patches it sees, and what in them it reacts to.

    Example: headstart look units runs/photos-1 photos/ --layer stage5 --unit 3
    """
    from headstart.look.units import look_at_units

    subject = opened(given, net, weights)
    sources: Any = data[0] if len(data) == 1 else list(data)
    return told(
        given,
        subject,
        out,
        f"units-{layer}",
        lambda steps: look_at_units(subject, sources, layer, units or None, top, no_border, steps),
    )


@look.command()
@NET
@click.option("--class", "classes", multiple=True, help="A class to make a picture of; several times.")
@click.option("--layer", help=f"{LAYER} With --unit.")
@UNITS
@click.option("--steps", type=click.IntRange(1), help="Of gradient ascent a picture.")
@OUT
@WEIGHTS
@global_options
def maximise(
    given: Global,
    net: str,
    classes: tuple[str, ...],
    layer: str | None,
    units: tuple[int, ...],
    out: Path | None,
    weights: Path | None,
    steps: int | None,
) -> int:
    """Pictures made so that a class or a unit answers as strongly as it can: what it has learned to look for.

    Example: headstart look maximise runs/photos-1 --class ants --class bees
    """
    from headstart.look.maximise import STEPS
    from headstart.look.maximise import maximise as make

    subject = opened(given, net, weights)
    seed, most = given.seed or 0, steps or STEPS
    return told(
        given,
        subject,
        out,
        f"maximise-{layer or 'classes'}",
        lambda line: make(subject, classes=classes, layer=layer, units=units, steps=most, seed=seed, step=line),
    )


@look.command()
@NET
@click.argument("image")
@click.option("--layer", required=True, help=LAYER)
@click.option("--side", type=click.IntRange(16, 4096), help="Longer side of the dream, pixels.")
@click.option("--octaves", type=click.IntRange(1), help="Sizes that are worked on.")
@click.option("--steps", type=click.IntRange(1), help="Of each size.")
@OUT
@WEIGHTS
@global_options
def dream(
    given: Global, net: str, image: str, layer: str, out: Path | None, weights: Path | None, **sizes: int | None
) -> int:
    """Deep dream: a photo changed so that a layer sees more of what it already sees in it.

    Example: headstart look dream efficientnet-lite0 new.jpg --layer stage5
    """
    from headstart.look.dream import dream as make

    subject = opened(given, net, weights)
    photo = subject.photo(image)
    chosen: dict[str, Any] = {name: value for name, value in sizes.items() if value is not None}
    seed = given.seed or 0
    return told(
        given, subject, out, f"dream-{layer}", lambda line: make(subject, photo, layer, seed=seed, step=line, **chosen)
    )


@look.command()
@NET
@click.argument("data", nargs=-1, required=True)
@click.option("--map", "kind", type=click.Choice(["tsne", "pca"]), default="tsne", show_default=True, help="How.")
@click.option("--layer", help=f"{LAYER} Default: where the head reads.")
@click.option("--photos", type=click.IntRange(4), help="How many at most, each class in proportion.")
@OUT
@WEIGHTS
@global_options
def features(
    given: Global,
    net: str,
    data: tuple[str, ...],
    kind: str,
    layer: str | None,
    photos: int | None,
    out: Path | None,
    weights: Path | None,
) -> int:
    """All photos as a map of thumbnails: near ones look alike to the net; and how far the map can be trusted.

    Example: headstart look features runs/photos-1 photos/
    """
    from headstart.look.features import MOST, feature_map
    from headstart.look.scan import photos_of
    from headstart.store import Store

    subject = opened(given, net, weights)
    sources: Any = data[0] if len(data) == 1 else list(data)
    most, seed = photos or MOST, given.seed or 0
    with Store() as store:
        return told(
            given,
            subject,
            out,
            f"features-{kind}",
            lambda line: feature_map(
                subject, photos_of(sources), layer=layer, kind=kind, most=most, seed=seed, store=store, step=line
            ),
        )


@look.command()
@NET
@click.argument("images", nargs=-1, required=True)
@OUT
@WEIGHTS
@global_options
def adversarial(given: Global, net: str, images: tuple[str, ...], out: Path | None, weights: Path | None) -> int:
    """How small a change of a photo gives it another class: fragile, or not.

    Example: headstart look adversarial runs/photos-1 new.jpg
    """
    from headstart.look.adversarial import adversarial as attack

    subject = opened(given, net, weights)
    photos, failed = readable(given, subject, images)
    seed = given.seed or 0
    told(given, subject, out, "adversarial", lambda line: attack(subject, photos, seed=seed, step=line))
    return SOME_SKIPPED if failed else DONE


def _number(text: str) -> str | float:
    try:
        return float(text)
    except ValueError:
        return text


ATLAS: tuple[click.Command, ...] = (look,)
