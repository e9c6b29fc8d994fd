"""A converted net in the cache: written whole or not at all, every file hashed, made anew when missing or damaged."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.numpy

from headstart.backbones.conversion import CONVERSION_VERSION, GRAPH_FILES, convert, openvino_version
from headstart.errors import BackboneError, OutputError
from headstart.files import cache_dir, new_directory, sha256_file, shown
from headstart.nets import NETS_VERSION, build_net
from headstart.preprocess import Preprocessing
from headstart.weights import Tensors, load_checked, tensors_of

SCHEMA = 1  # of an entry; part of its key
TENSOR_FILE = "weights.safetensors"
ENTRY_FILES = (*GRAPH_FILES, TENSOR_FILE)
DAY = 86_400  # seconds


def hash_of(*parts: object) -> str:
    """SHA-256 of values that JSON can hold, 64 hexadecimal digits.

    >>> hash_of("a", {"x": 1, "y": 2}) == hash_of("a", {"y": 2, "x": 1}) != hash_of("a")
    True
    """
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class ConvertedNet:
    """The entry of one net with its weights: `model.xml`, `model.bin`, `weights.safetensors` and `manifest.json`.

    Args:
        name, net_options: what `headstart.nets.build_net` takes.
        weights_sha256: hash of the tensors.
        preprocessing: its size and constants are part of the graph.
        origin: gives the tensors again when the entry has to be made.
    """

    name: str
    net_options: dict[str, Any]
    weights_sha256: str
    preprocessing: Preprocessing
    origin: Callable[[], Tensors] = field(repr=False)

    @property
    def folder(self) -> Path:
        """Where the entry is or will be: under the hash of everything the conversion depends on."""
        code = (SCHEMA, CONVERSION_VERSION, NETS_VERSION, openvino_version())
        net = (self.name, self.net_options, self.weights_sha256, self.preprocessing.to_dict())
        return cache_dir() / "backbones" / hash_of(code, net)

    def manifest(self, say: Callable[[str], None] | None = None) -> dict[str, Any]:
        """What the entry holds; the entry is made when it is not there or its files have other sizes.

        Args:
            say: told when a conversion starts.
        """
        found = read_entry(self.folder)
        if found is not None:
            _note_use(self.folder)
            return found
        if say is not None:
            say(f"converting {self.name} for the fast engine: once for these weights, some seconds")
        return self._make()

    def intact(self, *files: str) -> Path:
        """The folder of the entry, after comparing these files with their hashes; made anew when one differs.

        Raises:
            BackboneError: what was just written reads back different.
        """
        folder = self.folder
        if not same_hashes(folder, self.manifest(), files) and not same_hashes(folder, self._make(), files):
            raise BackboneError(f"what was written to {shown(folder)} reads back different: check the disk there")
        return folder

    def _make(self) -> dict[str, Any]:
        net = build_net(self.name, **self.net_options)
        load_checked(net, self.origin())
        folder = self.folder
        try:
            with new_directory(folder, overwrite=folder.exists()) as aside:
                outputs, norms = convert(net, self.preprocessing, net.cuts, aside)
                (aside / TENSOR_FILE).write_bytes(safetensors.numpy.save(tensors_of(net)))
                body = {
                    "net": self.name,
                    "cuts": list(net.cuts),
                    "outputs": {name: list(shape) for name, shape in outputs.items()},
                    "norms": [asdict(norm) for norm in norms],
                    "files": {file: _size_and_hash(aside / file) for file in ENTRY_FILES},
                }
                sealed = {"manifest": body, "sha256": hash_of(body)}
                (aside / "manifest.json").write_text(json.dumps(sealed, indent=1), encoding="utf-8")
        except OutputError:
            theirs = read_entry(folder)  # another process was faster: its entry is as good
            if theirs is None:
                raise
            return theirs
        return body


def _size_and_hash(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": sha256_file(path)}


def read_entry(folder: Path) -> dict[str, Any] | None:
    """The manifest of an entry whose files are there in their sizes; None where anything is missing or damaged."""
    try:
        sealed = json.loads((folder / "manifest.json").read_bytes())
        body: dict[str, Any] = sealed["manifest"]
        whole = sealed["sha256"] == hash_of(body)
        whole = whole and all((folder / file).stat().st_size == body["files"][file]["bytes"] for file in ENTRY_FILES)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return body if whole else None


def same_hashes(folder: Path, manifest: dict[str, Any], files: tuple[str, ...]) -> bool:
    """Whether these files of an entry have the hashes that its manifest names."""
    try:
        return all(sha256_file(folder / file) == manifest["files"][file]["sha256"] for file in files)
    except OSError:
        return False


def _note_use(entry: Path) -> None:
    """Remember, at most once a day, that a net was used; a cache that cannot be written forgets it."""
    with suppress(OSError):
        manifest = entry / "manifest.json"
        if time.time() - manifest.stat().st_mtime > DAY:
            os.utime(manifest)
