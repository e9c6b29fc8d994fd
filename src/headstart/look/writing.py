"""What a look leaves: a folder with its numbers and pictures, and `result.json`, written last."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from PIL import Image

from headstart import __version__
from headstart.errors import OutputError
from headstart.explain.bundle import npy, png
from headstart.files import new_directory, shown

RESULT = "result.json"
Content = bytes | np.ndarray | Image.Image


@runtime_checkable
class Look(Protocol):
    """What every look gives: a document, a text for a terminal, and files."""

    def to_json(self) -> dict[str, Any]:
        """The result for a program."""
        ...

    def to_text(self) -> str:
        """The result for a person."""
        ...

    def files(self) -> Mapping[str, Content]:
        """File names and what they hold: raw numbers (.npy) and pictures (.png)."""
        ...


def save_look(look: Look, place: Path, *, overwrite: bool = False) -> Path:
    """Write the folder of a look: complete or not at all.

    Args:
        look: what was seen.
        place: the folder to make.
        overwrite: replace a folder that this function wrote; nothing else is ever replaced.

    Raises:
        OutputError: there is something else at `place`, or it cannot be written.
    """
    if overwrite and place.exists() and not is_look(place):
        raise OutputError(f"{shown(place)} is no look of headstart, so it is not replaced; give another --out")
    with new_directory(place, overwrite=overwrite) as folder:
        for name, content in look.files().items():
            (folder / name).write_bytes(_bytes(content))
        document = {"headstart": __version__, **look.to_json(), "skipped": list(getattr(look, "skipped", ()))}
        (folder / RESULT).write_text(json.dumps(document, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    return place


def is_look(place: Path) -> bool:
    """Whether a folder holds nothing but what `save_look` writes, with its result."""
    if place.is_symlink() or not (place / RESULT).is_file():
        return False
    return all(entry.suffix in (".npy", ".png", ".json") and entry.is_file() for entry in place.iterdir())


def _bytes(content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    return npy(content) if isinstance(content, np.ndarray) else png(content)
