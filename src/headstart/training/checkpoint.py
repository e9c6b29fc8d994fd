"""The whole state of a training in one file, written so that a process killed at any moment leaves a good one behind.

The file is a safetensors file: every tensor by name, and in its header a JSON document with everything else and the
SHA-256 of both. Nothing in it can run code.
"""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn, optim

from headstart.errors import RunError
from headstart.files import shown, sweep_leftovers, write_atomic

SCHEMA = 1


@dataclass
class Checkpoint:
    """A training at the end of a step.

    Args:
        document: position, history, settings, and what callbacks keep besides tensors; ready for JSON.
        tensors: of the net ("net/..."), of the optimiser ("optimiser/..."), of callbacks ("callbacks/...").
    """

    document: dict[str, Any]
    tensors: dict[str, Tensor]


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Replace the checkpoint at `path` by this one; a reader sees the old or the new one, never a part.

    Raises:
        OutputError: the disk is full, read-only or broken; the old checkpoint is intact.
    """
    tensors = {name: value.detach().cpu().contiguous() for name, value in checkpoint.tensors.items()}
    document = json.dumps({"schema": SCHEMA, **checkpoint.document}, sort_keys=True)
    metadata = {"headstart": document, "sha256": _digest(document, tensors)}
    write_atomic(path, safetensors.torch.save(tensors, metadata))


def read_checkpoint(path: Path) -> Checkpoint:
    """Read what `write_checkpoint` wrote.

    Raises:
        RunError: there is no such file, it is damaged or of another kind, or another version wrote it.
    """
    sweep_leftovers(path.parent)
    try:
        data = path.read_bytes()
        metadata = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])["__metadata__"]
        tensors = safetensors.torch.load(data)
        text, digest = metadata["headstart"], metadata["sha256"]
        document = json.loads(text)
    except OSError as error:
        raise RunError(f"cannot read the checkpoint {shown(path)}: {error.strerror or error}") from error
    except (ValueError, KeyError, TypeError, RecursionError, safetensors.SafetensorError) as error:
        raise _damaged(path) from error
    if not isinstance(document, dict) or _digest(text, tensors) != digest:
        raise _damaged(path)
    if document.get("schema") != SCHEMA:
        raise RunError(
            f"the checkpoint {shown(path)} has schema {document.get('schema')}; this version reads {SCHEMA}: "
            "start the training again without resuming"
        )
    return Checkpoint(document, tensors)


def _damaged(path: Path) -> RunError:
    return RunError(
        f"the checkpoint {shown(path)} is damaged or no checkpoint of headstart; "
        "remove it and start the training again without resuming"
    )


def _digest(document: str, tensors: dict[str, Tensor]) -> str:
    digest = hashlib.sha256(document.encode())
    for name, value in sorted(tensors.items()):
        digest.update(f"\0{name}\0{value.dtype}\0{tuple(value.shape)}\0".encode())
        digest.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def net_tensors(net: nn.Module) -> dict[str, Tensor]:
    """Parameters and buffers by name; they share memory with the net."""
    return {f"net/{name}": value for name, value in net.state_dict().items()}


def restore_net(net: nn.Module, tensors: dict[str, Tensor]) -> None:
    """Copy tensors into a net.

    Raises:
        RunError: they belong to another net.
    """
    try:
        net.load_state_dict(_below("net/", tensors))
    except RuntimeError as error:
        raise RunError(
            "the checkpoint belongs to another net: its tensors do not fit; start again without resuming"
        ) from error


def optimiser_tensors(optimiser: optim.Optimizer) -> dict[str, Tensor]:
    """Everything an optimiser remembers: "optimiser/<number of the parameter>/<name>"."""
    return {
        f"optimiser/{number}/{name}": value
        for number, parameter in enumerate(_parameters(optimiser))
        for name, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def restore_optimiser(optimiser: optim.Optimizer, tensors: dict[str, Tensor]) -> None:
    """Give an optimiser its memory back, each tensor laid out in memory as its parameter is: fused rules need that."""
    parameters = _parameters(optimiser)
    fused = bool(optimiser.param_groups[0].get("fused"))
    for key, value in _below("optimiser/", tensors).items():
        number, name = key.split("/", 1)
        parameter = parameters[int(number)]
        if value.ndim and value.shape == parameter.shape:
            optimiser.state[parameter][name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
        else:
            optimiser.state[parameter][name] = value.to(parameter.device) if fused else value


def _parameters(optimiser: optim.Optimizer) -> list[Tensor]:
    return [parameter for group in optimiser.param_groups for parameter in group["params"]]


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def split_state(state: dict[str, Any], prefix: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Part a callback's state into what JSON can hold and its tensors, named below `prefix`."""
    tensors = {f"{prefix}{name}": value for name, value in state.items() if isinstance(value, Tensor)}
    return {name: value for name, value in state.items() if not isinstance(value, Tensor)}, tensors


def join_state(plain: dict[str, Any], tensors: dict[str, Tensor], prefix: str) -> dict[str, Any]:
    """The state that `split_state` parted."""
    return plain | _below(prefix, tensors)
