"""The command that shows what an augmentation does to one's own photos."""

from pathlib import Path

import click

from headstart.cli.options import DONE, Global, global_options
from headstart.errors import OutputError
from headstart.files import shown


@click.command()
@click.argument("data")
@click.option("--preset", default="photos", show_default=True, help="photos, digits, any-way-up or cifar.")
@click.option("--n", "variants", type=click.IntRange(1, 400), default=24, show_default=True, help="Changed photos.")
@click.option("--photos", type=click.IntRange(1, 40), default=4, show_default=True, help="Photos that are changed.")
@click.option("--size", type=click.IntRange(1, 1024), help="Side the network will see, pixels. Default: the photos'.")
@click.option("--out", type=click.Path(path_type=Path), help="The PNG file. Default: augment-DATA-PRESET.png.")
@click.option("--overwrite", is_flag=True, help="Replace the file at --out.")
@global_options
def augment(
    given: Global,
    data: str,
    preset: str,
    variants: int,
    photos: int,
    size: int | None,
    out: Path | None,
    overwrite: bool,
) -> int:
    """Write a sheet of photos as training would change them, each with the numbers that were drawn for it.

    Example: headstart augment photos/ --preset any-way-up --out sheet.png
    """
    from headstart.readers import open_dataset
    from headstart.training.preview import default_path, make_preview

    dataset = open_dataset(data)
    place = out or default_path(dataset.name, preset)
    if not dataset.arrays and place.resolve().is_relative_to(dataset.root.resolve()):
        raise OutputError(f"{shown(place)} lies in the folder of the photos, which is only read; give another --out")
    made = make_preview(dataset, preset, variants=variants, photos=photos, size=size or 0, seed=given.seed or 0)
    made.save(place, overwrite=overwrite)
    given.say(f"written to {shown(place)}")
    given.show({"out": shown(place), **made.to_json()}, made.to_text())
    return DONE
