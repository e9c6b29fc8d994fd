"""What a net computes inside: the maps of any layer, before and after its activation, from one forward pass.

Layers are named as in `headstart summary`: a stage ("stage5", "conv1"), or a module ("stage5.0.depthwise.act"). Hooks
are put on for one pass and taken off whatever happens; nothing of the net changes.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from headstart.explain.subject import Subject, unknown_layer

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.Hardtanh)  # ReLU6 is a Hardtanh; `headstart.explain.rectifiers` checks its floor
ACTIVATIONS = (*RECTIFIERS, nn.Tanh, nn.Sigmoid)

Entered = dict[int, tuple[Tensor, str]]  # id of an activation's output -> what it took, and its class


@dataclass(frozen=True, eq=False)
class Recorded:
    """One layer's values for a batch.

    Args:
        layer: the name that was asked for.
        module: the module whose output it is.
        after: the output, (batch, channels, height, width) or (batch, features).
        before: what the layer's activation took, where the output is that of an activation or a concatenation of such
            outputs; else the output itself. What was not an activation's in a concatenation stands there as it is.
        activation: the class of that activation ("ReLU6"), or the classes ("ReLU, Sigmoid"); None where the output is
            linear.
    """

    layer: str
    module: str
    after: Tensor
    before: Tensor
    activation: str | None


def module_of(subject: Subject, layer: str) -> str:
    """The module of the trunk whose output is the layer's. Raises UsageError: there is no such layer."""
    trunk = subject.trunk
    chain = getattr(trunk, "chain", {})
    if layer in chain:
        return str(chain[layer][-1])
    if layer == "logits" and "logits" not in dict(trunk.named_modules()):
        layer = "classifier"
    if layer and layer in dict(trunk.named_modules()):
        return layer
    raise unknown_layer(subject, layer)


def record(subject: Subject, x: Tensor, layers: Sequence[str]) -> tuple[Tensor, dict[str, Recorded]]:
    """Run the net once and keep what the named layers computed.

    Args:
        subject: the net.
        x: normalised pixels (batch, channels, size, size); gradients flow where it wants them.
        layers: names of stages or modules.

    Returns:
        The logits (batch, classes), and what each layer computed.

    Raises:
        UsageError: no layer has this name, or it does not run.
    """
    wanted = {layer: module_of(subject, layer) for layer in layers}
    with watching(subject.trunk, set(wanted.values())) as (seen, entered):
        logits: Tensor = subject.net(x)
    found = {}
    for layer, module in wanted.items():
        if module not in seen:
            raise unknown_layer(subject, layer)
        after = seen[module]
        before, activation = entered.get(id(after), (after, None))
        found[layer] = Recorded(layer, module, after, before, activation)
    return logits, found


class _Reached(Exception):
    """The layer has run; nothing above it is wanted."""


def reach(
    subject: Subject,
    x: Float[Tensor, "batch *shape"],
    layer: str,
    start: Callable[[Tensor], Any] | None = None,
) -> Recorded:
    """What a layer computes, before and after its activation; the layers above it do not run.

    Args:
        subject: the net.
        x: normalised pixels, of any size that the layers below take; gradients flow where it wants them.
        layer: a stage or module, by the names of `headstart summary`.
        start: what takes `x`; the trunk if not given. Another one may begin at a stage's output.

    Raises:
        UsageError: there is no such layer, or it does not run.
    """
    trunk, module = subject.trunk, module_of(subject, layer)

    def stop(*_: Any) -> None:
        raise _Reached

    with watching(trunk, {module}) as (seen, entered):
        handle = trunk.get_submodule(module).register_forward_hook(stop)
        try:
            (trunk if start is None else start)(x)
        except _Reached:
            pass
        finally:
            handle.remove()
    if module not in seen:
        raise unknown_layer(subject, layer)
    after = seen[module]
    before, activation = entered.get(id(after), (after, None))
    return Recorded(layer, module, after, before, activation)


@contextmanager
def watching(trunk: nn.Module, modules: set[str]) -> Iterator[tuple[dict[str, Tensor], Entered]]:
    """Hooks on the named modules and on every activation, until the end of the block.

    Yields:
        The outputs by module name; and for each activation's output, and each concatenation with such outputs, by its
        `id`, what it was before and the class of the activation. The net must not work in place.
    """
    seen: dict[str, Tensor] = {}
    entered: Entered = {}
    outputs: list[Tensor] = []  # kept alive, so that no id is given twice

    def keep(name: str) -> Any:
        return lambda _module, _inputs, output: seen.__setitem__(name, output)

    def enter(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        entered[id(output)] = (inputs[0], type(module).__name__)
        outputs.append(output)

    handles = []
    try:
        for name, module in trunk.named_modules():
            if isinstance(module, ACTIVATIONS):
                handles.append(module.register_forward_hook(enter))
            if name in modules:
                handles.append(module.register_forward_hook(keep(name)))
        with _Concatenations(entered, outputs):
            yield seen, entered
    finally:
        for handle in handles:
            handle.remove()


class _Concatenations(TorchFunctionMode):
    """Notes what a concatenation of activations' outputs was before them: an inception module ends so."""

    def __init__(self, entered: Entered, outputs: list[Tensor]) -> None:
        super().__init__()
        self.entered, self.outputs = entered, outputs

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = dict(kwargs or {})
        output = func(*args, **named)
        if func is torch.cat:
            parts, *rest = args or (named.pop("tensors"),)
            found = [self.entered.get(id(part), (part, "")) for part in parts]
            names = sorted({name for _, name in found if name})
            if names:
                before = func([taken for taken, _ in found], *rest, **named)
                self.entered[id(output)] = before, ", ".join(names)
                self.outputs.append(output)
        return output


def to_numpy(values: Tensor) -> Any:
    """A detached copy as a numpy array."""
    return values.detach().to(torch.float32).cpu().numpy().copy()
