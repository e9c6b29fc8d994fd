"""What an augmentation makes of one's own photos, before any training: the photos, and every number that was drawn."""

import dataclasses
import io
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from headstart.dataset import Dataset, Photo
from headstart.errors import ConfigError, DataError, ImageRejected, OutputError, UsageError
from headstart.files import shown, write_atomic
from headstart.images import Picture, decode
from headstart.preprocess import Preprocessing
from headstart.readers import open_dataset
from headstart.training.augment import Augmentation
from headstart.training.batches import DRAWS, seeded
from headstart.training.presets import PRESETS, find_preset
from headstart.training.preview_sheet import Tile, draw_sheet

LARGEST = 160  # px, side of the photos that are changed; about what a tile shows
PHOTOS = 4  # how many photos are shown, if nothing else is said: one of each of so many classes
# How a drawn number is said: where it is above 0 (or true), and where it is below.
WORDS: dict[str, tuple[str, str]] = {
    "crop_side": ("crop {:.0%}", ""),
    "flip_horizontal": ("flipped", ""),
    "flip_vertical": ("upside down", ""),
    "zoom": ("zoom {:.2f}", ""),
    "stretch": ("stretch {:.2f}", ""),
    "shear": ("lean {:.0f}° right", "lean {:.0f}° left"),
    "rotation": ("turn {:.0f}° left", "turn {:.0f}° right"),
    "shift_right": ("right {:.0%}", "left {:.0%}"),
    "shift_down": ("down {:.0%}", "up {:.0%}"),
    "pixels_right": ("right {} px", "left {} px"),
    "pixels_down": ("down {} px", "up {} px"),
    "brightness": ("brightness {:.2f}", ""),
    "contrast": ("contrast {:.2f}", ""),
    "saturation": ("saturation {:.2f}", ""),
    "hue": ("hue +{:.0f}°", "hue -{:.0f}°"),
    "grayscale": ("grey", ""),
    "erase": ("erased", ""),
}


@dataclass(frozen=True, eq=False)
class Variants:
    """One photo and what became of it.

    Args:
        path: its name in the data.
        label: its class.
        original: as the network would see it.
        changed: likewise, each with its own draw.
        drawn: of each, the parameters by name.
    """

    path: str
    label: str
    original: UInt8[np.ndarray, "channels size size"]
    changed: UInt8[np.ndarray, "variants channels size size"]
    drawn: tuple[dict[str, bool | int | float], ...]


@dataclass(frozen=True, eq=False)
class Preview:
    """Photos of a data set under an augmentation.

    Args:
        data: name of the data set.
        preset: name of the augmentation.
        augmentation: its settings.
        seed: of the choice of photos and of every draw.
        size: side of the photos, pixels.
        photos: each with its variants.
    """

    data: str
    preset: str
    augmentation: Augmentation
    seed: int
    size: int
    photos: tuple[Variants, ...]

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, for JSON."""
        return {
            "data": self.data,
            "preset": self.preset,
            "augmentation": dataclasses.asdict(self.augmentation),
            "seed": self.seed,
            "size": self.size,
            "photos": [
                {"path": shown(photo.path), "label": shown(photo.label), "tiles": list(photo.drawn)}
                for photo in self.photos
            ],
        }

    def to_text(self) -> str:
        """What the preset does, and what was drawn for each tile."""
        lines = [f"Preset {self.preset}: {describe(self.augmentation)}"]
        for photo in self.photos:
            lines += ["", f"{shown(photo.path)} ({shown(photo.label)})"]
            lines += [
                f"  {number:2d}  {', '.join(words_of(drawn))}" for number, drawn in enumerate(photo.drawn, start=1)
            ]
        return "\n".join(lines)

    def sheet(self) -> Image.Image:
        """The picture: a row a photo, the original first."""
        rows = []
        for photo in self.photos:
            first = Tile(photo.original, shown(photo.label), ["original", shown(photo.path).rpartition("/")[2]])
            pairs = zip(photo.changed, photo.drawn, strict=True)
            rows.append([first, *(Tile(pixels, "", words_of(drawn)) for pixels, drawn in pairs)])
        title = f"Augmentation '{self.preset}' on {shown(self.data)}, {self.size} x {self.size} px, seed {self.seed}"
        return draw_sheet(title, describe(self.augmentation).split(", "), rows)

    def save(self, path: Path, *, overwrite: bool = False) -> Path:
        """Write the sheet as PNG.

        Raises:
            OutputError: the file exists and `overwrite` is false, it is a folder, or it cannot be written.
        """
        path = Path(path)
        if path.is_dir():
            raise OutputError(f"{shown(path)} is a folder; expected the name of a PNG file to write")
        if os.path.lexists(path) and not overwrite:
            raise OutputError(f"{shown(path)} exists already; give another name, or say that it may be overwritten")
        buffer = io.BytesIO()
        self.sheet().save(buffer, "PNG")
        write_atomic(path, buffer.getvalue())
        return path


def make_preview(
    data: str | Path | Dataset,
    preset: str = "photos",
    *,
    variants: int = 24,
    photos: int = PHOTOS,
    size: int = 0,
    seed: int = 0,
    follow_links: bool = False,
) -> Preview:
    """Change a few photos of a data set as training would.

    Args:
        data: as of `headstart.readers.open_dataset`, or the data set itself.
        preset: a name of `headstart.training.presets.PRESETS`.
        variants: changed photos in all, >= 1, shared out evenly.
        photos: how many photos are changed, >= 1, each of another class where there are enough.
        size: side at which the network will see them, pixels; 0: that of the photos, at most 160.
        seed: of the choice of photos and of every draw.
        follow_links: as of `open_dataset`.

    Raises:
        ConfigError: there is no such preset, or it changes nothing.
        DataError: there is no such data set, or none of its photos can be read.
        UsageError: a count is out of range.
    """
    augmentation = find_preset(preset)
    if augmentation is None:
        changing = ", ".join(name for name, one in PRESETS.items() if one is not None)
        raise ConfigError(f"preset '{preset}' changes nothing, so there is nothing to show; choose one of {changing}")
    for name, value in (("variants", variants), ("photos", photos)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1; received {value}")
    dataset = data if isinstance(data, Dataset) else open_dataset(data, follow_links=follow_links)
    photos = min(photos, variants)
    chosen = _choose(dataset, photos, size, seed)
    side = size or min(LARGEST, *(min(picture.width, picture.height) for _, picture in chosen))
    originals = _originals([picture for _, picture in chosen], side)
    counts = [variants // len(chosen) + (place < variants % len(chosen)) for place in range(len(chosen))]
    batch = torch.from_numpy(np.repeat(originals, counts, axis=0))
    shape = (batch.shape[1], side, side)
    drawn = augmentation.draw(variants, shape, seeded(seed, DRAWS, 0, 0))
    mean = batch.to(torch.float32).mean(dim=(0, 2, 3)).reshape(-1, 1, 1)
    changed = augmentation.apply(batch, drawn, mean).round().clamp(0, 255).to(torch.uint8).numpy()
    shared, start = [], 0
    for (photo, _), original, count in zip(chosen, originals, counts, strict=True):
        own = tuple(_numbers(drawn, row) for row in range(start, start + count))
        label = dataset.classes[photo.label]
        shared.append(Variants(photo.path, label, original, changed[start : start + count], own))
        start += count
    return Preview(dataset.name, preset, augmentation, seed, side, tuple(shared))


def default_path(dataset_name: str, preset: str) -> Path:
    """Where the sheet goes if nothing else is said: in the current folder.

    >>> default_path("my photos", "any-way-up").as_posix()
    'augment-my-photos-any-way-up.png'
    """
    stem = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in dataset_name).strip("-.")
    return Path(f"augment-{stem or 'data'}-{preset}.png")


def describe(augmentation: Augmentation) -> str:
    """What an augmentation does, in words.

    >>> describe(Augmentation(flip_horizontal=0.5, shift_pixels=4))
    'left and right swapped in 50 %, shift up to 4 px'
    """
    one = augmentation
    parts = (
        (one.crop < 1, f"crop to {one.crop:.0%} of the side or more"),
        (one.flip_horizontal, f"left and right swapped in {one.flip_horizontal:.0%}"),
        (one.flip_vertical, f"upside down in {one.flip_vertical:.0%}"),
        (one.zoom, f"zoom up to {1 + one.zoom:g} times"),
        (one.stretch, f"stretch up to {1 + one.stretch:g} times"),
        (one.shear, f"shear up to {one.shear:g}°"),
        (one.rotation, f"turn up to {one.rotation:g}°"),
        (one.shift, f"shift up to {one.shift:.0%} of the side"),
        (one.shift_pixels, f"shift up to {one.shift_pixels} px"),
        (one.brightness, f"brightness up to {1 + one.brightness:g} times"),
        (one.contrast, f"contrast up to {1 + one.contrast:g} times"),
        (one.saturation, f"saturation up to {1 + one.saturation:g} times"),
        (one.hue, f"hue up to {one.hue:g}°"),
        (one.grayscale, f"grey in {one.grayscale:.0%}"),
        (one.erase, f"a rectangle of up to {one.erase_area:.0%} erased in {one.erase:.0%}"),
    )
    return (", ".join(text for applies, text in parts if applies) or "nothing").replace("%", " %")


def words_of(drawn: dict[str, bool | int | float]) -> list[str]:
    """The draw of one photo in words; "unchanged" if nothing happens to it.

    >>> words_of({"flip_horizontal": True, "pixels_right": -3, "erase": False})
    ['flipped', 'left 3 px']
    """
    words = []
    for name, (above, below) in WORDS.items():
        value = drawn.get(name, 0)
        if value:  # no draw, False, 0 pixels: nothing happens
            words.append((above if value > 0 else below).format(abs(value)).replace("%", " %"))
    return words or ["unchanged"]


def _numbers(drawn: dict[str, Tensor], row: int) -> dict[str, bool | int | float]:
    values = {name: tensor[row].item() for name, tensor in drawn.items()}
    return {name: round(value, 6) if isinstance(value, float) else value for name, value in values.items()}


def _choose(dataset: Dataset, count: int, size: int, seed: int) -> list[tuple[Photo, Picture]]:
    """Readable photos drawn at random, each of another class where there are enough."""
    found: list[tuple[Photo, Picture]] = []
    for photo in _in_turn(dataset, seed):
        try:
            found.append((photo, decode(dataset.fetch(photo), target=size or LARGEST, name=photo.path)))
        except ImageRejected:
            continue
        if len(found) == count:
            break
    if not found:
        raise DataError(f"none of the {len(dataset.photos):,} photos of {shown(dataset.name)} can be read")
    return found


def _in_turn(dataset: Dataset, seed: int) -> Iterator[Photo]:
    """A photo of each class, then another of each class, and so on; the training photos, where the data say which."""
    random = np.random.default_rng(seed)
    listed = [photo for photo in dataset.photos if photo.split in (None, "train")] or list(dataset.photos)
    order = random.permutation(len(listed))
    seen: dict[int, int] = {}
    turns = []
    for place in order.tolist():
        label = listed[place].label
        turns.append((seen.get(label, 0), label, place))
        seen[label] = seen.get(label, 0) + 1
    for _, _, place in sorted(turns):
        yield listed[place]


def _originals(pictures: list[Picture], side: int) -> UInt8[np.ndarray, "photos channels side side"]:
    """The photos as a network of this input size sees them; of one channel where none has a colour."""
    gray = all(bool((picture.pixels == picture.pixels[:, :, :1]).all()) for picture in pictures)
    levels = (0.0,) if gray else (0.0, 0.0, 0.0)
    preprocessing = Preprocessing(side, 1.0, levels, tuple(1.0 for _ in levels))
    return np.stack([preprocessing.apply(picture).transpose(2, 0, 1) for picture in pictures])
