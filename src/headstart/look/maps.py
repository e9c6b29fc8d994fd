"""The maps of one layer for photo after photo, before the activation, with as little computed as possible.

Where the fast engine gives the layer itself it does all the work; where it gives the stage before, torch runs only what
lies between; else torch runs the net as far as the layer.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
from jaxtyping import Float32

from headstart.backbones import engine_name
from headstart.backbones.engines import OpenVinoEngine, TorchEngine, open_engine
from headstart.explain.subject import Subject
from headstart.look.wiring import ACTIVATIONS, row_of

BATCH = 8  # photos that torch runs together
Pixels = Any  # uint8 (size, size, channels)
Maps = Float32[np.ndarray, "units rows columns"]


@dataclass(frozen=True)
class Route:
    """How the maps of a layer are made.

    Args:
        layer: as it was named.
        output: what the fast engine gives: of the layer itself, or of a stage below it; None: torch does it all.
        cut: the stage that torch goes on from; None: nothing is left to do, or everything.
        engine: name and version of what runs: values of another one may differ in the last digits.
    """

    layer: str
    output: str | None
    cut: str | None
    engine: str


def route_to(subject: Subject, layer: str) -> Route:
    """The cheapest way to a layer's values. Raises UsageError: there is no such layer."""
    row = row_of(subject, layer)
    torch = engine_name("torch")
    if subject.classifier is None:
        return Route(layer, None, None, torch)
    backbone, kind = subject.classifier.backbone, engine_name(subject.classifier.engine)
    places = {name: place for place, known in enumerate(subject.summary.layers) for name in (known.name, *known.stages)}
    cuts = [cut for cut in getattr(subject.trunk, "cuts", ()) if cut in places]
    for cut in reversed(cuts):
        output = f"{cut}_map" if f"{cut}_map" in backbone.outputs else cut
        if output not in backbone.outputs:
            continue
        if row_of(subject, cut).name == row.name and row.type not in ACTIVATIONS:
            return Route(layer, output, None, kind)
        if row_of(subject, cut).name != row.name and places[row_of(subject, cut).name] < places[row.name]:
            return Route(layer, output, cut, f"{kind} {torch}")
    return Route(layer, None, None, torch)


def layer_maps(subject: Subject, route: Route, photos: Iterable[Pixels]) -> Iterator[Maps]:
    """What a layer computes from prepared photos, before its activation, one photo after the other.

    Args:
        subject: the net.
        route: of `route_to`.
        photos: uint8 (size, size, channels); read lazily.

    Yields:
        (units, rows, columns); of a vector maps of one place.
    """
    if route.output is None:
        yield from _in_batches(photos, lambda batch: _from_pixels(subject, route.layer, batch))
        return
    with closing(_engine(subject, route.output)) as engine:
        found = (maps[route.output] for _, maps in engine.run(enumerate(photos), (route.output,)))
        if route.cut is None:
            yield from (_as_maps(maps) for maps in found)
        else:
            yield from _in_batches(found, lambda batch: _from_cut(subject, route, batch))


def _engine(subject: Subject, output: str) -> OpenVinoEngine | TorchEngine:
    classifier: Any = subject.classifier
    return open_engine(classifier.backbone, cuts=(output,), kind=classifier.engine, threads=subject.threads)


def _in_batches(items: Iterable[Any], run: Callable[[list[Any]], Any]) -> Iterator[Maps]:
    source = iter(items)
    while batch := list(islice(source, BATCH)):
        yield from (_as_maps(maps) for maps in run(batch))


def _as_maps(values: Float32[np.ndarray, "..."]) -> Maps:
    return values.reshape(-1, 1, 1) if values.ndim == 1 else values


def _from_pixels(subject: Subject, layer: str, batch: list[Pixels]) -> Float32[np.ndarray, "..."]:
    import torch

    from headstart.explain.gradients import taken
    from headstart.explain.recording import reach, to_numpy

    with torch.no_grad():
        x = torch.cat([taken(subject, pixels) for pixels in batch])
        values: Float32[np.ndarray, "..."] = to_numpy(reach(subject, x, layer).before)
    return values


def _from_cut(subject: Subject, route: Route, batch: list[Any]) -> Float32[np.ndarray, "..."]:
    """The rest of the way, from the maps of a stage."""
    import torch

    from headstart.explain.recording import reach, to_numpy

    with torch.no_grad():
        stage = torch.from_numpy(np.stack(batch))
        found = reach(subject, stage, route.layer, lambda maps: subject.trunk.resume(route.cut, maps))
        values: Float32[np.ndarray, "..."] = to_numpy(found.before)
    return values
