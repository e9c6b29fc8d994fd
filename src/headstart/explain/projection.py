"""What one unit sees in a photo: its value sent back to the pixels, alone, by a rule of `rectifiers`.

Zeiler & Fergus 2014 (arXiv:1311.2901), section 2.1, with their deconvnet where a net pools by maxima; Springenberg et
al. 2015 (arXiv:1412.6806), section 3.4, with guided backpropagation where it does not. The signal starts with what the
unit had before its activation: a ReLU6 that is saturated has no slope, but what it was given says how strong it is.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from headstart.errors import UsageError
from headstart.explain.recording import module_of, reach
from headstart.explain.rectifiers import Rule, rule
from headstart.explain.subject import Subject, unknown_layer
from headstart.files import shown

Place = tuple[int, int]  # row, column of a map


def project_units(
    subject: Subject,
    photos: Float[Tensor, "units channels height width"],
    layer: str,
    units: Sequence[int],
    places: Sequence[Place] | None,
    name: Rule,
) -> Float[Tensor, "units channels height width"]:
    """Send single units back to the pixels, each in a photo of its own.

    Args:
        subject: the net; its precision is that of the computation.
        photos: normalised pixels, one for each unit, in the net's precision.
        layer: a stage or module, by the names of `headstart summary`.
        units: for each photo the channel of a map, or the place in a vector.
        places: for each photo the row and column; None where the layer gives a vector.
        name: the rule at the rectifiers: `rule_for` says which fits.

    Returns:
        The raw signal, arbitrary unit, signed; exactly 0 outside the unit's receptive field.

    Raises:
        UsageError: there is no such layer or unit; or the rule does not fit the net.
    """
    with torch.enable_grad(), rule(subject.net, name):
        leaf = photos.detach().requires_grad_()
        before = reach(subject, leaf, layer).before
        values = before[_index(layer, before, units, places)]
        (signal,) = torch.autograd.grad(values, leaf, grad_outputs=values.detach())
    return signal


def rule_for(subject: Subject, layer: str) -> tuple[Rule, str]:
    """The rule that shows what a unit of a layer sees, and why. Raises UsageError: there is no such layer."""
    pools = max_pools_below(subject, layer)
    if pools:
        return "deconv", f"deconvnet: max pooling below the layer ({', '.join(pools)}) remembers where the maxima were"
    return "guided", (
        "guided backpropagation: without max pooling below the layer a deconvnet's picture would be much the same for "
        "every photo"
    )


def max_pools_below(subject: Subject, layer: str) -> tuple[str, ...]:
    """Names of the max poolings whose output reaches a layer. Raises UsageError: there is no such layer."""
    rows = list(subject.summary.layers)
    module = module_of(subject, layer)
    at = [place for place, row in enumerate(rows) if row.name == module or layer in row.stages]
    at = at or [place for place, row in enumerate(rows) if row.name.startswith(f"{module}.")]
    if not at:
        raise unknown_layer(subject, layer)
    wanted, found = {rows[at[-1]].name}, []
    for row in reversed(rows[: at[-1] + 1]):
        if row.name in wanted:
            wanted |= set(row.inputs)
            if "MaxPool" in row.type or "max_pool" in row.type:
                found.append(row.name)
    return tuple(reversed(found))


def _index(layer: str, values: Tensor, units: Sequence[int], places: Sequence[Place] | None) -> tuple[Any, ...]:
    """Where the units are. Raises UsageError: one of them is not in the layer."""
    given = [(unit,) for unit in units] if places is None else [(u, *p) for u, p in zip(units, places, strict=False)]
    sides = tuple(values.shape[1:])
    if len(given) != len(values) or len(units) != len(values) or (places is None) != (len(sides) == 1):
        raise UsageError(
            f"{shown(layer)} gives {'a vector' if len(sides) == 1 else 'maps'} of {sides} for each of {len(values)} "
            f"photos: give a unit {'' if len(sides) == 1 else 'and a place '}for each; received {len(units)} units and "
            f"{'no' if places is None else len(places)} places"
        )
    for one in given:
        if any(not 0 <= at < side for at, side in zip(one, sides, strict=True)):
            raise UsageError(f"{shown(layer)} has units up to {tuple(side - 1 for side in sides)}, not {one}")
    return (torch.arange(len(values)), *(torch.tensor(column) for column in zip(*given, strict=True)))
