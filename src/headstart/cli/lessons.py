"""The commands of what a layer does: shapes, hand-made filters, tables of whole nets, signal and gradient by layer."""

from pathlib import Path
from typing import Any

import click

from headstart.cli.options import DONE, Global, global_options

INPUT = click.option("--input", "size", metavar="HxWxC", help="Height, width and channels, for example 224x224x3.")
WINDOW = "One number, or HxW."
PADDING = "valid (none), same, or pixels: N, or ROWSxCOLUMNS."


def numbers(text: str, what: str, counts: tuple[int, ...]) -> tuple[int, ...]:
    """Read `3`, `3x5` or `224x224x3`; a usage error names what was wrong."""
    parts = text.lower().replace("\u00d7", "x").split("x")
    if len(parts) not in counts or not all(part.strip().lstrip("-").isdigit() for part in parts):
        wanted = " or ".join("x".join("N" * count) for count in counts)
        raise click.BadParameter(f"{what} must be {wanted}, in whole numbers; received {text!r}")
    return tuple(int(part) for part in parts)


def image_size(text: str) -> tuple[int, int, int]:
    """Read HxWxC; HxW means one channel."""
    size = numbers(text, "--input", (2, 3))
    return (size[0], size[1], size[2] if len(size) == 3 else 1)


def pair(text: str, what: str) -> Any:
    """Read one number, or HxW."""
    values = numbers(text, what, (1, 2))
    return values[0] if len(values) == 1 else values


def padding_of(text: str) -> Any:
    """Read valid, same, or pixels."""
    return text if text in ("valid", "same") else pair(text, "--padding")


@click.group()
def shape() -> None:
    """Work out a convolution or a pooling layer by hand: what comes out, what it costs, what it never looks at."""


@shape.command()
@click.option("--input", "size", required=True, metavar="HxWxC", help="Height, width and channels, as 224x224x3.")
@click.option("--filters", type=int, required=True, help="How many output channels.")
@click.option("--kernel", required=True, help=WINDOW)
@click.option("--stride", default="1", show_default=True, help=WINDOW)
@click.option("--padding", default="valid", show_default=True, help=PADDING)
@click.option("--dilation", default="1", show_default=True, help=WINDOW)
@click.option("--groups", type=int, default=1, show_default=True, help="Divides channels and filters.")
@click.option("--no-bias", is_flag=True, help="Without the one parameter a filter that is added to every sum.")
@global_options
def conv(given: Global, size: str, filters: int, groups: int, no_bias: bool, **window: str) -> int:
    """A convolution: output size, parameters, multiply-adds, rows and columns that are never read.

    Example: headstart shape conv --input 200x200x1 --filters 16 --kernel 2 --stride 2
    """
    from headstart.layers.shape_reports import shape_conv

    layer = shape_conv(
        image_size(size),
        filters,
        pair(window["kernel"], "--kernel"),
        stride=pair(window["stride"], "--stride"),
        padding=padding_of(window["padding"]),
        dilation=pair(window["dilation"], "--dilation"),
        groups=groups,
        bias=not no_bias,
    )
    given.show(layer.to_json(), layer.to_text())
    return DONE


@shape.command()
@click.option("--input", "size", required=True, metavar="HxWxC", help="Height, width and channels, as 100x100x15.")
@click.option("--size", "window", default="2", show_default=True, help=WINDOW)
@click.option("--stride", help=f"{WINDOW} Default: the window.")
@click.option("--padding", default="valid", show_default=True, help=PADDING)
@click.option("--kind", default="max", show_default=True, help="max, average or l2.")
@click.option("--ceil", is_flag=True, help="Keep a last window that hangs over the end.")
@global_options
def pool(given: Global, size: str, window: str, stride: str | None, padding: str, kind: Any, ceil: bool) -> int:
    """A pooling layer: output size, and rows and columns that are never read.

    Example: headstart shape pool --input 100x100x15 --size 2
    """
    from headstart.layers.shape_reports import shape_pool

    layer = shape_pool(
        image_size(size),
        pair(window, "--size"),
        stride=None if stride is None else pair(stride, "--stride"),
        padding=padding_of(padding),
        kind=kind,
        ceil=ceil,
    )
    given.show(layer.to_json(), layer.to_text())
    return DONE


@click.command("filter")
@click.argument("image", required=False, type=click.Path(path_type=Path))
@click.option("--kernel", default="top-edge", show_default=True, help="A name, or a matrix such as '[[-1,1]]'.")
@click.option("--rotations", is_flag=True, help="Also the filter turned by 90, 180 and 270 degrees.")
@click.option("--colour", is_flag=True, help="Filter red, green and blue and add them, instead of the brightness.")
@click.option("--pool", "window", type=int, help="Pool what is left after ReLU by windows of this many pixels.")
@click.option("--pool-kind", default="max", show_default=True, help="max, average or l2.")
@click.option("--at", "place", metavar="ROW,COL", help="Print the products under one window and their sum.")
@click.option("--out", type=click.Path(path_type=Path), help="Write filter.png, the arrays and filter.json there.")
@click.option("--overwrite", is_flag=True, help="Replace the folder at --out.")
@click.option("--demo", type=click.Choice(["curve"]), help="The curve detector on the two classic patches: no image.")
@global_options
def filter_photo(given: Global, image: Path | None, demo: str | None, out: Path | None, **how: Any) -> int:
    """Slide a hand-made filter over a photo: its numbers, the signed response, after ReLU, after pooling.

    Example: headstart filter photo.jpg --kernel top-edge --rotations --pool 2 --out lesson
    """
    from headstart.layers.filter_lesson import apply_filter
    from headstart.layers.filters import curve_demo

    if demo:
        curve = curve_demo()
        given.show(curve.to_json(), curve.to_text())
        return DONE
    if image is None:
        raise click.UsageError("give an image, or --demo curve")
    result = apply_filter(
        image,
        how["kernel"],
        all_rotations=how["rotations"],
        colour=how["colour"],
        pool=how["window"],
        pool_kind=how["pool_kind"],
        at=None if how["place"] is None else place_of(how["place"]),
    )
    if out is not None:
        given.say(f"written to {result.save(out, overwrite=how['overwrite']).as_posix()}")
    given.show(result.to_json(), result.to_text())
    return DONE


def place_of(text: str) -> tuple[int, int]:
    """Read ROW,COL."""
    row, column = numbers(text.replace(",", "x"), "--at", (2,))
    return row, column


@click.command()
@click.argument("net")
@INPUT
@click.option("--classes", type=click.IntRange(1), help="How many outputs. Default: the net's own.")
@global_options
def summary(given: Global, net: str, size: str | None, classes: int | None) -> int:
    """The table of a net or a run: layer, output shape, parameters, receptive field, multiply-adds, memory.

    Example: headstart summary vgg16
    """
    from headstart.layers.summary import summarise

    builder, name, own_size = _net_of(net, classes)
    table = summarise(builder, own_size if size is None else image_size(size), name)
    given.show(table.to_json(), table.to_text())
    return DONE


def _net_of(net: str, classes: int | None) -> tuple[Any, str, tuple[int, int, int] | None]:
    """Return a function that builds the net or a run's full network, its name, and its input size where it is known."""
    from headstart.nets import NETS, build_net

    if net.lower() in NETS or not Path(net).is_dir():
        options = {} if classes is None else {"classes": classes}
        return (lambda: build_net(net.lower(), **options)), net.lower(), None
    from headstart.runs import load_run

    classifier = load_run(net).classifier
    if classes is not None:
        raise click.UsageError("a run has its own classes; leave --classes out")
    side = classifier.backbone.preprocessing.size
    return classifier.full_network(probabilities=False), net, (side, side, 3)


@click.group()
def layers() -> None:
    """What the layers of a net do to the signal that passes through them."""


@layers.command()
@click.argument("net")
@click.option("--init", help="glorot, he, or a gain such as 0.5 (He times it). Default: as the net is built.")
@click.option("--image", "images", multiple=True, type=click.Path(path_type=Path), help="A photo; several are better.")
@INPUT
@global_options
def gains(given: Global, net: str, init: str | None, images: tuple[Path, ...], size: str | None) -> int:
    """Signal and gradient after each layer with random weights: exploding, vanishing, or about 1.

    The input is random numbers, or photos given with --image.

    Example: headstart layers gains vgg16 --init he --input 64x64x3
    """
    from headstart.layers.gains import layer_gains
    from headstart.nets import build_net

    wanted = None if size is None else image_size(size)
    built = build_net(net.lower())
    own_size: tuple[int, int, int] = getattr(built, "input_size", (224, 224, 3))
    photos = _photos(images, wanted or own_size) if images else None
    result = layer_gains(built, photos, init=init, input_size=wanted, seed=given.seed or 0, name=net.lower())
    given.show(result.to_json(), result.to_text())
    return DONE


def _photos(paths: tuple[Path, ...], size: tuple[int, int, int]) -> Any:
    """Read photos as a tensor (batch, channels, height, width), stretched to the size, of mean 0 and variance 1."""
    import numpy as np
    import torch
    from PIL import Image

    from headstart.images import decode, read_photo_bytes

    height, width, channels = size
    mode = "L" if channels == 1 else "RGB"
    pictures = [
        Image.fromarray(decode(read_photo_bytes(path), name=path.name).pixels).convert(mode).resize((width, height))
        for path in paths
    ]
    values = np.stack([np.asarray(picture, dtype=np.float32).reshape(height, width, channels) for picture in pictures])
    values = (values - values.mean()) / max(float(values.std()), 1.0)
    return torch.from_numpy(np.ascontiguousarray(values.transpose(0, 3, 1, 2)))


LESSONS: tuple[click.Command, ...] = (shape, filter_photo, summary, layers)
