"""Engines turn prepared photos into features. OpenVINO is the fast one; torch is its oracle, and the one for a GPU.

Both take photos one by one from any iterable, keep only a few of them at a time, and hand out results as they come.
"""

import os
from collections import deque
from collections.abc import Hashable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8

from headstart.backbones import Backbone, check_cuts, engine_name
from headstart.backbones.conversion import STATISTICS, batch_norm_statistics, named_outputs, openvino_core
from headstart.errors import BackboneError, ShapeError, UsageError

Photos = Iterable[tuple[Hashable, UInt8[np.ndarray, "size size channels"]]]
Results = Iterator[tuple[Any, dict[str, np.ndarray]]]


class Engine(Protocol):
    """What runs a backbone. `name` tells engine, version and precision; it is part of the features' fingerprint."""

    name: str

    def run(self, images: Photos, cuts: Sequence[str] | None = None) -> Results:
        """Features of photos.

        Args:
            images: pairs of any key and a prepared photo, uint8 (size, size, channels), RGB or luminance. Read lazily,
                in the caller's thread; no photo is kept longer than its own computation.
            cuts: which of the engine's outputs; all when absent.

        Yields:
            Pairs of the key and {output: float32 array of its own}: (features,) for a cut, (channels, height, width)
            for `<cut>_map`, (classes,) for "logits", (twice the channels of all batch norms,) for "statistics". In the
            order of the photos.

        Raises:
            ShapeError: a photo has another shape or type.
        """
        ...

    def close(self) -> None:
        """Give the memory back; the engine cannot run afterwards."""
        ...


def open_engine(
    backbone: Backbone, *, cuts: Sequence[str] = ("pooled",), kind: str = "auto", threads: int = 0
) -> "OpenVinoEngine | TorchEngine":
    """The engine for a backbone.

    Args:
        backbone: the net.
        cuts: the outputs that will be asked for (names of `backbone.outputs`); the fast engine computes nothing else.
        kind: "openvino" (32-bit floats, every processor), "torch" (a GPU when there is one), or "auto", the first.
        threads: processor threads; 0: all that this process may use.

    Raises:
        BackboneError: unknown kind or cut, or the engine does not start.
    """
    if kind in ("auto", "openvino"):
        return OpenVinoEngine(backbone, cuts=cuts, threads=threads)
    if kind == "torch":
        return TorchEngine(backbone, cuts=cuts, threads=threads)
    raise BackboneError(f"unknown engine {kind!r}; choose one of: auto, openvino, torch")


def available_threads() -> int:
    """Processors this process may use (its affinity mask where the system has one)."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def flattened(features: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What an engine gives for a photo, each output as one vector: of a map all pixels of a channel, then the next.

    >>> flattened({"stem_map": np.arange(8).reshape(2, 2, 2), "stem": np.array([1.5, 5.5])})
    {'stem_map': array([0, 1, 2, 3, 4, 5, 6, 7]), 'stem': array([1.5, 5.5])}
    """
    return {cut: values.reshape(-1) for cut, values in features.items()}


class OpenVinoEngine:
    """One photo per stream, one stream per thread: no thread ever waits for another.

    A photo's features do not depend on its neighbours, on the number of threads, or on the order, to the last bit.

    Args:
        backbone, cuts, threads: as in `open_engine`.
    """

    def __init__(self, backbone: Backbone, *, cuts: Sequence[str] = ("pooled",), threads: int = 0) -> None:
        check_cuts(backbone, cuts)
        self.name = engine_name("openvino")
        self.cuts = tuple(cuts)
        self._shape = backbone.preprocessing.shape
        streams = _checked_threads(threads)
        self._limit = 2 * streams  # for each stream one photo in work and one waiting
        self._idle: deque[Any] = deque()  # requests whose results have been taken; append and pop are atomic
        core = openvino_core()
        try:
            graph = core.read_model(backbone.graph())
            _keep_outputs(graph, self.cuts)
            self._compiled: Any = core.compile_model(graph, "CPU", _settings(streams))
        except RuntimeError as error:
            reason = " ".join(str(error).split())[:300]
            raise BackboneError(f"OpenVINO cannot run {backbone.name} ({reason}); try the engine 'torch'") from error

    def run(self, images: Photos, cuts: Sequence[str] | None = None) -> Results:
        """See `Engine.run`. An interrupt leaves no computation behind."""
        wanted = _wanted(self.cuts, cuts)
        pending: deque[tuple[Any, Any]] = deque()
        try:
            for key, photo in images:
                _check_photo(photo, self._shape)
                if len(pending) == self._limit:
                    yield self._finish(pending, wanted)
                request = self._request()
                request.get_input_tensor().data[0] = photo
                pending.append((key, request))  # before it starts, so that an interrupt here loses none
                request.start_async()
            while pending:
                yield self._finish(pending, wanted)
        finally:
            for _, request in pending:
                request.wait()
                self._idle.append(request)

    def _request(self) -> Any:
        try:
            return self._idle.pop()
        except IndexError:
            if self._compiled is None:
                raise UsageError("this engine was closed; open another one") from None
            return self._compiled.create_infer_request()

    def _finish(self, pending: deque[tuple[Any, Any]], wanted: tuple[str, ...]) -> tuple[Any, dict[str, np.ndarray]]:
        key, request = pending[0]
        request.wait()
        # copies, because the next photo overwrites the request's own memory
        features = {cut: np.array(request.get_tensor(cut).data[0]) for cut in wanted}
        pending.popleft()
        self._idle.append(request)
        return key, features

    def close(self) -> None:
        """See `Engine.close`."""
        self._idle.clear()
        self._compiled = None


def _settings(streams: int) -> dict[str, Any]:
    return {
        "PERFORMANCE_HINT": "THROUGHPUT",
        "NUM_STREAMS": streams,
        "INFERENCE_NUM_THREADS": streams,
        "INFERENCE_PRECISION_HINT": "f32",  # some processors would silently take bfloat16: other features there
        "ENABLE_CPU_PINNING": False,  # two programs pinned to the same cores would share them while others idle
        # no CACHE_DIR: it saves a tenth of a second at the start, but a damaged file there is used without notice
    }


def _keep_outputs(graph: Any, cuts: Sequence[str]) -> None:
    for result in list(graph.get_results()):
        if not result.output(0).get_tensor().get_names() & set(cuts):
            graph.remove_result(result)


def _checked_threads(threads: int) -> int:
    if threads < 0:
        raise UsageError(f"threads must be 0 (all) or more; got {threads}")
    return threads or available_threads()


def _wanted(opened: tuple[str, ...], cuts: Sequence[str] | None) -> tuple[str, ...]:
    wanted = opened if cuts is None else tuple(cuts)
    if unknown := [cut for cut in wanted if cut not in opened]:
        raise BackboneError(f"this engine was opened for {', '.join(opened)}; it does not compute {unknown[0]!r}")
    return wanted


def _check_photo(photo: object, shape: tuple[int, int, int]) -> None:
    if not isinstance(photo, np.ndarray) or photo.shape != shape or photo.dtype != np.uint8:
        received = f"{photo.dtype} {photo.shape}" if isinstance(photo, np.ndarray) else type(photo).__name__
        raise ShapeError(f"an engine takes prepared photos, uint8 {shape}; got {received}; use Preprocessing.apply")


class TorchEngine:
    """The net itself, in float32 (no TensorFloat-32), in batches; on the GPU when there is one.

    Args:
        backbone, cuts, threads: as in `open_engine`.
        device: "cpu", "cuda", ...; absent: "cuda" where torch finds one, else "cpu".
        batch_size: photos computed together; 8 was fastest on a processor, a GPU wants more.
    """

    def __init__(
        self,
        backbone: Backbone,
        *,
        cuts: Sequence[str] = ("pooled",),
        threads: int = 0,
        device: str | None = None,
        batch_size: int = 0,
    ) -> None:
        import torch

        check_cuts(backbone, cuts)
        self.name = engine_name("torch")
        self.cuts = tuple(cuts)
        self._threads = _checked_threads(threads)
        self._preprocessing = backbone.preprocessing
        self._device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._batch_size = batch_size or (8 if self._device.type == "cpu" else 64)
        self._places = tuple(backbone.cuts)
        net: Any = backbone.net()
        self._net: Any = net.to(self._device, memory_format=torch.channels_last)

    def run(self, images: Photos, cuts: Sequence[str] | None = None) -> Results:
        """See `Engine.run`."""
        wanted = _wanted(self.cuts, cuts)
        source = iter(images)
        while batch := list(islice(source, self._batch_size)):
            for _, photo in batch:
                _check_photo(photo, self._preprocessing.shape)
            features = self._compute(np.stack([photo for _, photo in batch]), wanted)
            for row, (key, _) in enumerate(batch):
                yield key, {cut: features[cut][row].copy() for cut in wanted}

    def _compute(
        self, photos: UInt8[np.ndarray, "n size size channels"], wanted: tuple[str, ...]
    ) -> dict[str, np.ndarray]:
        import torch

        if self._net is None:
            raise UsageError("this engine was closed; open another one")
        before = torch.get_num_threads()
        torch.set_num_threads(self._threads)
        try:
            exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
            with torch.inference_mode(), exact:
                x = torch.from_numpy(self._preprocessing.normalise(photos)).to(self._device)
                x = x.contiguous(memory_format=torch.channels_last)
                if STATISTICS in wanted:
                    outputs, _ = batch_norm_statistics(self._net, x, self._places)
                else:
                    outputs = named_outputs(self._net, x, self._places)
                return {cut: outputs[cut].cpu().numpy() for cut in wanted}
        finally:
            torch.set_num_threads(before)

    def close(self) -> None:
        """See `Engine.close`."""
        self._net = None
