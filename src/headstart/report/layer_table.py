"""The layers of the network below the last layer, for the report, without loading torch where the job did without it.

The tables of the backbones that headstart comes with stand in `layers.json`, as `headstart summary NET --json` gives
them; a test compares the two. Where torch is loaded, because a network was trained, the table is worked out anew.
"""

import json
import sys
from typing import Any

from headstart.classifier import Classifier
from headstart.report.printing import asset

COLUMNS = ("name", "type", "output", "parameters", "macs", "field")  # of a row in layers.json


def layer_table(classifier: Classifier) -> dict[str, Any] | None:
    """The layers up to the cut that the head reads; None where there is no table at hand.

    Returns:
        net: its name; input: (height, width, channels); rows: `COLUMNS` each; parameters, macs: their sums; head: its
        kind; features: what the head reads; head_parameters: numbers that were fitted.
    """
    known = _made(classifier) if "torch" in sys.modules else _stored(classifier)
    count = None if known is None else known["cuts"].get(classifier.cut.removesuffix("_map"))
    if known is None or count is None:
        return None
    table = [dict(zip(COLUMNS, row, strict=True)) for row in known["rows"][:count]]
    numbers = [values for name, values in classifier.head.tensors.items() if "weight" in name or "bias" in name]
    return {
        "net": classifier.backbone.name,
        "input": list(classifier.backbone.preprocessing.shape),
        "rows": table,
        "parameters": sum(row["parameters"] for row in table),
        "macs": sum(row["macs"] or 0 for row in table),
        "head": classifier.head.kind,
        "features": classifier.backbone.classifier_cuts[classifier.cut],
        "head_parameters": int(sum(values.size for values in numbers)),
    }


def _stored(classifier: Classifier) -> dict[str, Any] | None:
    known: dict[str, Any] | None = json.loads(asset("layers.json")).get(classifier.backbone.name)
    fits = known is not None and known["input"] == list(classifier.backbone.preprocessing.shape)
    return known if fits else None


def _made(classifier: Classifier) -> dict[str, Any]:
    from headstart.nets import build_net

    backbone = classifier.backbone
    options = dict(backbone.net_options)
    return table_of(lambda: build_net(backbone.name, **options), backbone.preprocessing.shape)


def table_of(build: Any, size: tuple[int, int, int]) -> dict[str, Any]:
    """What layers.json holds of a net: `input`, `cuts` (how many rows lead to each) and `rows`.

    Args:
        build: makes the net; its weights are never made.
        size: (height, width, channels) of its photos.
    """
    from headstart.layers.summary import summarise  # imports torch

    table = summarise(build, size)
    rows: list[list[Any]] = []
    cuts: dict[str, int] = {}
    for number, row in enumerate(table.layers, start=1):
        field = None if row.receptive_field is None else row.receptive_field.to_json()["size"]
        rows.append([row.name, row.type, list(row.output_shape), row.parameters, row.macs, field])
        cuts |= dict.fromkeys(row.stages, number)
    return {"input": list(size), "cuts": cuts, "rows": rows}
