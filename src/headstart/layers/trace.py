"""The order in which a net's layers run, found by running it once without numbers: shapes only, no memory.

The net is copied as a skeleton: each layer is replaced by a stand-in that works out its output shape with `rules.py`,
and the tensors live on PyTorch's "meta" device, which stores none. The net itself is not touched: no hook, no mode, no
weight.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.overrides import TorchFunctionMode

from headstart.errors import HeadstartError, ShapeError
from headstart.layers.functions import function_effect
from headstart.layers.rules import Effect, Rule, Shape, rule_of

IMAGE = -1  # the number that stands for the net's input among the inputs of a step


@dataclass(frozen=True, eq=False)
class Step:
    """One layer, or one function that a net's `forward` calls itself (an addition, a concatenation).

    Args:
        name: the layer's name in the net; of a function, the name of the part that called it.
        kind: the layer's type or the function's name.
        layer: the layer; None of a function.
        inputs: numbers of the steps whose outputs it takes; IMAGE is the net's input.
        input_shapes: their shapes, without the batch.
        effect: what it does.
        known: false if its type has no rule: then only its output shape and parameters are known.
    """

    name: str
    kind: str
    layer: nn.Module | None
    inputs: tuple[int, ...]
    input_shapes: tuple[Shape, ...]
    effect: Effect
    known: bool


@dataclass(frozen=True, eq=False)
class Trace:
    """A net's steps in the order they run.

    Args:
        steps: the steps.
        image: shape of the input, (channels, height, width).
        stages: number of the step that gives each named intermediate of the net.
    """

    steps: tuple[Step, ...]
    image: Shape
    stages: dict[str, int]


def trace(net: nn.Module, image: Shape) -> Trace:
    """Run a net on the shape of one photo.

    Args:
        net: any module that takes (batch, channels, height, width); its `stages` is run if it has one, else its
            `forward`.
        image: (channels, height, width).

    Raises:
        ShapeError: a layer does not fit its input; the message names it.
    """
    recorder = Recorder()
    skeleton = recorder.skeleton_of(net, "")
    photo = recorder.image(image)
    run = getattr(skeleton, "stages", skeleton)
    try:
        with recorder:
            outputs = run(photo)
    except HeadstartError:
        raise
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        after = recorder.steps[-1].name if recorder.steps else "the input"
        reason = str(error).splitlines()[0]
        raise ShapeError(f"the net cannot take {_text(image)} photos: after {after}: {reason}") from error
    stages = outputs if isinstance(outputs, dict) else {}
    found = {name: recorder.source_of(value) for name, value in stages.items() if isinstance(value, Tensor)}
    return Trace(tuple(recorder.steps), image, {name: at for name, at in found.items() if at is not None})


@dataclass
class Recorder(TorchFunctionMode):
    """Collects the steps while the skeleton runs; as a function mode it sees every function called between layers."""

    steps: list[Step] = field(default_factory=list)
    sources: dict[int, int] = field(default_factory=dict)  # id of a tensor -> the step that made it
    alive: list[Tensor] = field(default_factory=list)  # keeps those ids from being used again
    parts: list[tuple[str, nn.Module]] = field(default_factory=list)  # now running, outermost first
    paused: bool = False

    def __post_init__(self) -> None:
        super().__init__()

    def image(self, shape: Shape) -> Tensor:
        """The input of the net."""
        photo = torch.empty(1, *shape, device="meta")
        self.alive.append(photo)
        self.sources[id(photo)] = IMAGE
        return photo

    def source_of(self, value: Tensor) -> int | None:
        """The step that made a tensor; None if it is a weight or a constant."""
        return self.sources.get(id(value))

    def record(
        self, name: str, kind: str, layer: nn.Module | None, inputs: list[Tensor], effect: Effect, known: bool = True
    ) -> int:
        """Add a step and return its number."""
        numbered = [(self.sources[id(value)], tuple(value.shape[1:])) for value in inputs if id(value) in self.sources]
        numbers, shapes = tuple(number for number, _ in numbered), tuple(shape for _, shape in numbered)
        self.steps.append(Step(name, kind, layer, numbers, shapes, effect, known))
        return len(self.steps) - 1

    def made_by(self, number: int, value: Tensor) -> Tensor:
        """Remember which step made a tensor."""
        self.alive.append(value)
        self.sources[id(value)] = number
        return value

    @contextmanager
    def pause(self) -> Iterator[None]:
        """What runs inside is part of one step."""
        before, self.paused = self.paused, True
        try:
            yield
        finally:
            self.paused = before

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        inputs = [value for value in _tensors((args, kwargs)) if id(value) in self.sources]
        if self.paused or not inputs:
            return func(*args, **kwargs)
        effect = function_effect(func, inputs, args, kwargs)
        out = torch.empty(1, *effect.output, device="meta") if effect is not None else func(*args, **kwargs)
        made = [value for value in _tensors(out) if value.device.type == "meta"]
        if not made or (all(id(value) in self.sources and value is inputs[0] for value in made) and effect is None):
            return out  # a size, a flag; or the tensor itself
        unknown = Effect(tuple(made[0].shape[1:]), None, "unknown")
        number = self.record(*self._named(func), None, inputs, effect or unknown, effect is not None)
        for value in made:
            self.made_by(number, value)
        return out

    def _named(self, func: Callable[..., Any]) -> tuple[str, str]:
        """Name and kind of a function's step: those of the module, where it is one without layers of its own."""
        part, module = self.parts[-1] if self.parts else ("", None)
        if module is not None and not any(True for _ in module.children()):
            return part, type(module).__name__
        kind = func.__name__.strip("_")
        return f"{part}.{kind}" if part else kind, kind

    def skeleton_of(self, module: nn.Module, name: str) -> nn.Module:
        """The net with a stand-in for each layer; what only holds other layers is copied without its tensors."""
        if type(module) is nn.Identity:
            return module
        rule = rule_of(module)
        children = dict(module.named_children())
        owns = any(value is not None for value in module._parameters.values())
        if rule is not None or (owns and not children):
            return StandIn(module, name, rule, self)
        copy = module.__class__.__new__(module.__class__)
        copy.__dict__ = dict(module.__dict__)
        for hooks in [key for key, value in copy.__dict__.items() if "hook" in key and isinstance(value, OrderedDict)]:
            copy.__dict__[hooks] = OrderedDict()
        copy.__dict__["training"] = False
        copy.__dict__["_parameters"] = _all_on_meta(module._parameters)
        copy.__dict__["_buffers"] = _all_on_meta(module._buffers)
        inner = {key: (child, f"{name}.{key}" if name else key) for key, child in module._modules.items()}
        copy.__dict__["_modules"] = {
            key: None if child is None else self.skeleton_of(child, path) for key, (child, path) in inner.items()
        }
        copy.register_forward_pre_hook(lambda _, given: self._enter(module, name, owns, given))
        copy.register_forward_hook(lambda *_: self._leave(), always_call=True)
        return copy

    def _enter(self, module: nn.Module, name: str, owns: bool, given: tuple[Any, ...]) -> None:
        self.parts.append((name, module))
        if owns:  # weights of its own beside its layers: shown, so that the totals are right
            inputs = _tensors(given)
            effect = Effect(tuple(inputs[0].shape[1:]), None, "unknown")
            self.record(name, type(module).__name__, module, inputs, effect, known=False)

    def _leave(self) -> None:
        self.parts.pop()


class StandIn(nn.Module):
    """Takes a layer's place: gives a tensor of the right shape and records the step."""

    def __init__(self, layer: nn.Module, name: str, rule: Rule | None, recorder: Recorder) -> None:
        super().__init__()
        self.rule, self.recorder, self.name = rule, recorder, name
        self.__dict__["layer"] = layer  # beside the modules: its weights stay where they are

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """The layer's output, without numbers."""
        inputs = _tensors((args, kwargs))
        with self.recorder.pause():
            effect = self._effect(inputs)
            known = effect is not None
            if effect is None:
                out = self._run(args, kwargs)
                effect = Effect(tuple(_tensors(out)[0].shape[1:]), None, "unknown")
            else:
                out = torch.empty(inputs[0].shape[0], *effect.output, device="meta")
        layer: nn.Module = self.__dict__["layer"]
        number = self.recorder.record(self.name, type(layer).__name__, layer, inputs, effect, known)
        for value in _tensors(out):
            self.recorder.made_by(number, value)
        return out

    def _effect(self, inputs: list[Tensor]) -> Effect | None:
        """By the rule; a layer that cannot take the shape says so with its name."""
        if self.rule is None or len(inputs) != 1:
            return None
        shape = tuple(inputs[0].shape[1:])
        layer: nn.Module = self.__dict__["layer"]
        wanted = getattr(layer, "in_channels", getattr(layer, "in_features", getattr(layer, "num_features", None)))
        received = shape[0] if len(shape) in (1, 3) else None
        if isinstance(wanted, int) and received is not None and wanted != received:
            raise ShapeError(
                f"{self.name} ({type(layer).__name__}) expects {wanted} channels or features but gets {_text(shape)}; "
                "use an input of the size and channels the net was made for"
            )
        try:
            return self.rule(layer, shape)
        except ShapeError as error:
            raise ShapeError(f"{self.name} ({type(layer).__name__}): {error}") from error

    def _run(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Run the layer itself, with its weights replaced by shapes."""
        layer: nn.Module = self.__dict__["layer"]
        tensors = {name: _on_meta(value) for name, value in [*layer.named_parameters(), *layer.named_buffers()]}
        was_training = [(part, part.training) for part in layer.modules()]
        layer.eval()
        try:
            return functional_call(layer, tensors, args, kwargs)
        finally:
            for part, mode in was_training:
                part.training = mode


class ShapesOnly(TorchFunctionMode):
    """Build a net in this block, and its weights take no memory and no time: they have a shape and no numbers."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        target = args[0] if args else kwargs.get("tensor")
        in_place = func.__name__.endswith("_") and not func.__name__.startswith("_")
        if in_place and isinstance(target, Tensor) and target.device.type == "meta":
            return target  # an initialisation: there is nothing to fill
        return func(*args, **kwargs)

    @classmethod
    @contextmanager
    def building(cls) -> Iterator[None]:
        """The block in which to build."""
        with torch.device("meta"), cls():
            yield


def _on_meta(value: Tensor) -> Tensor:
    return torch.empty_like(value, device="meta")


def _all_on_meta(tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor | None]:
    return {name: None if value is None else _on_meta(value) for name, value in tensors.items()}


def _tensors(value: Any) -> list[Tensor]:
    """Every tensor in a nesting of tuples, lists and dictionaries, in order."""
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    return [found for part in value for found in _tensors(part)] if isinstance(value, list | tuple) else []


def _text(shape: Shape) -> str:
    """Height x width x channels, or a number of features."""
    order = (*shape[1:], shape[0]) if len(shape) == 3 else shape
    return " x ".join(map(str, order)) if order else str(math.prod(order))
