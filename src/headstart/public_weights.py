"""The usual public ImageNet weights of the classic nets: where they are, how photos must look, loaded by name or not at
all.

A file is taken from where the user says, else from the cache folder `weights/`, else from the network, once. Its hash
is compared with the eight digits that its name carries. Nothing in it is executed.
"""

import hashlib
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.errors import WeightsError
from headstart.files import cache_dir, new_directory, sha256_file, shown
from headstart.nets import build_net
from headstart.preprocess import Levels, Preprocessing
from headstart.weights import Tensors, load_checked, read_weights

if TYPE_CHECKING:
    import torch

ADDRESS = "https://download.pytorch.org/models/"
TIMEOUT = 30  # seconds without an answer
BLOCK = 1 << 20  # bytes read at once

# Grey levels 0..255: mean and spread of ImageNet's colours, and the plain range of the nets that came from TensorFlow.
IMAGENET = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
PLAIN = (127.5, 127.5, 127.5), (127.5, 127.5, 127.5)


@dataclass(frozen=True)
class Public:
    """One public file.

    Args:
        file: its name; the eight digits before the suffix start its SHA-256.
        preprocessing: how its photos were prepared when it was trained.
        options: what the net must be built with to have the file's tensors.
    """

    file: str
    preprocessing: Preprocessing
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def sha256_start(self) -> str:
        """The first eight hexadecimal digits of the file's SHA-256."""
        return self.file.rpartition("-")[2].partition(".")[0]


def _photos(size: int, resized: int, colours: tuple[Levels, Levels]) -> Preprocessing:
    """The shorter side was resized to `resized` pixels, and the centre square of `size` cut out."""
    return Preprocessing(size, size / resized, *colours)


_USUAL = _photos(224, 256, IMAGENET)

#: name of a net in `headstart.nets.NETS` -> its public file, as torchvision 0.28 lists them
PUBLIC: dict[str, Public] = {
    "alexnet": Public("alexnet-owt-7be5be79.pth", _USUAL),
    "vgg11": Public("vgg11-8a719046.pth", _USUAL),
    "vgg13": Public("vgg13-19584684.pth", _USUAL),
    "vgg16": Public("vgg16-397923af.pth", _USUAL),
    "vgg19": Public("vgg19-dcbb9e9d.pth", _USUAL),
    "googlenet": Public("googlenet-1378be20.pth", _photos(224, 256, PLAIN), {"auxiliary": True}),
    "inception-v3": Public("inception_v3_google-0cc3c7bd.pth", _photos(299, 342, PLAIN), {"auxiliary": True}),
    "resnet18": Public("resnet18-f37072fd.pth", _USUAL),
    "resnet34": Public("resnet34-b627a593.pth", _USUAL),
    "resnet50": Public("resnet50-0676ba61.pth", _USUAL),
    "resnet101": Public("resnet101-63fe2227.pth", _USUAL),
    "resnet152": Public("resnet152-394f9c45.pth", _USUAL),
}


def load_public(name: str, weights: Path | None = None) -> "torch.nn.Module":
    """A net with its public ImageNet weights, 1,000 classes, in eval mode; its auxiliary heads are loaded with it.

    Args:
        name: a key of `PUBLIC`.
        weights: the file, where it is at hand; else it is looked for in the cache, and then fetched.

    Raises:
        WeightsError: no public weights of this name, the file cannot be had, or it does not fit the net in every
            tensor.
        OutputError: the cache cannot be written.
    """
    public = _public(name)
    path = public_file(name) if weights is None else Path(weights)
    official = weights is None or sha256_start(path) == public.sha256_start
    tensors = read_weights(path, legacy=official)  # torch's old format only for files whose hash is known
    net: torch.nn.Module = build_net(name, **public.options)
    load_checked(net, with_counters(tensors, list(net.state_dict())))
    return net.eval()


def public_file(name: str, fetch: Callable[..., Any] = urllib.request.urlopen) -> Path:
    """The public file of a net in the cache; fetched the first time, and checked each time.

    Args:
        name: a key of `PUBLIC`.
        fetch: opens an address.

    Raises:
        WeightsError: there is no such file, no network, or what came is not the file; the message says what to put
            where.
        OutputError: the cache cannot be written.
    """
    public = _public(name)
    folder = cache_dir() / "weights" / public.file
    path = folder / public.file
    if path.is_file() and sha256_start(path) == public.sha256_start:
        return path
    with new_directory(folder, overwrite=True) as aside:
        _download(public, aside / public.file, path, fetch)
    return path


def sha256_start(path: Path) -> str:
    """The first eight hexadecimal digits of a file's SHA-256. Raises WeightsError."""
    try:
        return sha256_file(path)[:8]
    except OSError as error:
        raise WeightsError(f"cannot read the weights file {shown(path)}: {error.strerror or error}") from error


def with_counters(tensors: Tensors, names: list[str]) -> Tensors:
    """Add the counters of batches that files of before 2018 lack; they play no part in the outputs.

    Only if the file has none at all: a file that lacks some is damaged.
    """
    counters = [name for name in names if name.endswith(".num_batches_tracked")]
    if any(name in tensors for name in counters):
        return tensors
    return {**tensors, **{name: np.zeros((), np.int64) for name in counters}}


def _public(name: str) -> Public:
    if name not in PUBLIC:
        raise WeightsError(f"there are no public weights of {name!r}; there are some of: {', '.join(PUBLIC)}")
    return PUBLIC[name]


def _download(public: Public, into: Path, final: Path, fetch: Callable[..., Any]) -> None:
    """Fetch a file and compare its hash."""
    advice = f"put the file (SHA-256 {public.sha256_start}...) at {shown(final)}, or name it with --weights"
    try:
        with fetch(ADDRESS + public.file, timeout=TIMEOUT) as answer, into.open("wb") as file:
            total = hashlib.sha256()
            while block := answer.read(BLOCK):
                total.update(block)
                file.write(block)
    except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
        reason = getattr(error, "reason", None) or error
        raise WeightsError(f"cannot fetch {ADDRESS}{public.file} ({reason}); {advice}") from error
    digest = total.hexdigest()
    if not digest.startswith(public.sha256_start):
        raise WeightsError(f"what came from {ADDRESS}{public.file} is not the file (SHA-256 {digest[:8]}...); {advice}")
