"""One training on several processes: each works on its slice of every batch, and all take the same step.

The step is that of one process with the whole batch, up to rounding. Three things see to that:

- a process's gradients count by its share of the photos (`SharedNet`), since slices can differ in size: the plain mean
  over processes, which `DistributedDataParallel` takes, would give the photos of small slices too much weight;
- batch norms take their mean and variance over the batch of all processes (`SharedBatchNorm`), not over a slice;
- `Batches` cut every batch by rank, and draw for a photo the same numbers whichever process has it.

Only dropout differs: each process draws its own. See docs/training.md for how such a training is started.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn
from torch.autograd import Function
from torch.nn.parallel import DistributedDataParallel

from headstart.errors import ConfigError

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT")  # what torchrun sets


@dataclass(frozen=True)
class Place:
    """One process among those that train together: the one that runs.

    Args:
        rank: its number, 0 to world - 1; 0 writes the files.
        world: how many there are.
        device: where its net belongs.
    """

    rank: int = 0
    world: int = 1
    device: torch.device = torch.device("cpu")  # noqa: RUF009 - a device is immutable

    @property
    def writes(self) -> bool:
        """Is this the process that writes files?"""
        return self.rank == 0


ALONE = Place()


def was_started_together() -> bool:
    """Did torchrun start this process?"""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


@contextmanager
def together() -> Iterator[Place]:
    """Meet the other processes that torchrun started, and part from them after the block; alone, a world of one.

    They speak nccl where each has an accelerator of its own, else gloo.

    Raises:
        ConfigError: some of torchrun's variables are missing, or there are fewer accelerators than processes here.
    """
    if not was_started_together():
        yield Place()
        return
    if missing := [name for name in VARIABLES if name not in os.environ]:
        raise ConfigError(f"the environment has RANK but not {', '.join(missing)}; start with torchrun")
    local, device = int(os.environ["LOCAL_RANK"]), torch.device("cpu")
    if torch.cuda.is_available():
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local + 1} of this computer has no accelerator of its own: there are "
                f"{torch.cuda.device_count()}; give torchrun --nproc-per-node {torch.cuda.device_count()}"
            )
        device = torch.device("cuda", local)
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Place(distributed.get_rank(), distributed.get_world_size(), device)
    finally:
        distributed.destroy_process_group()


def share(net: nn.Module, place: Place) -> nn.Module:
    """The net, ready to be trained together; alone, the net as it is. Everyone starts with the weights of process 0.

    Args:
        net: batch norms in it are replaced by `SharedBatchNorm`, with the same parameters, buffers and names.
        place: this process.
    """
    net = net.to(place.device)
    if place.world == 1:
        return net
    for name, module in list(net.named_modules()):
        if isinstance(module, nn.BatchNorm2d) and module.track_running_stats:
            parent, _, child = name.rpartition(".")
            setattr(net.get_submodule(parent), child, SharedBatchNorm.of(module))
    return SharedNet(net, device_ids=[place.device] if place.device.type == "cuda" else None)


class SharedNet(DistributedDataParallel):
    """A net whose gradients are those of the mean loss over the photos of all processes."""

    def forward(self, images: Tensor) -> Tensor:
        """Logits (batch, classes) of this process's photos, of which there may be none."""
        logits: Tensor = super().forward(images)  # type: ignore[no-untyped-call]
        if not torch.is_grad_enabled():
            return logits
        photos = torch.tensor(float(len(images)), device=images.device)
        distributed.all_reduce(photos)
        return _applied(_Weighted, logits, len(images) * distributed.get_world_size() / photos)


def _applied(function: type[Function], *tensors: Tensor) -> Tensor:
    result: Tensor = function.apply(*tensors)  # type: ignore[no-untyped-call]
    return result


class _Weighted(Function):
    """The same numbers forward, gradients times a weight backward."""

    @staticmethod
    def forward(context: Any, values: Tensor, weight: Tensor) -> Tensor:
        context.save_for_backward(weight)
        return values.view_as(values)

    @staticmethod
    def backward(context: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (weight,) = context.saved_tensors
        return gradients[0] * weight, None


class _Sum(Function):
    """The sum over all processes. Every process's loss hangs on every term, so gradients are summed in turn."""

    @staticmethod
    def forward(_: Any, terms: Tensor) -> Tensor:
        total = terms.clone()
        distributed.all_reduce(total)
        return total

    @staticmethod
    def backward(_: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].clone()
        distributed.all_reduce(total)
        return total


class SharedBatchNorm(nn.BatchNorm2d):
    """Batch norm over the batch of all processes (Ioffe & Szegedy 2015, arXiv:1502.03167, algorithm 1).

    torch's SyncBatchNorm does so on accelerators only.
    """

    @classmethod
    def of(cls, norm: nn.BatchNorm2d) -> "SharedBatchNorm":
        """One with the parameters and buffers of another."""
        shared = cls(norm.num_features, norm.eps, norm.momentum, norm.affine)
        for name, value in norm.named_parameters():
            shared.register_parameter(name, value if isinstance(value, nn.Parameter) else nn.Parameter(value))
        for name, buffer in norm.named_buffers():
            shared.register_buffer(name, buffer)
        return shared.train(norm.training)

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch channels height width"]:
        """Normalised by the batch of all processes in training, by the running mean and variance in evaluation."""
        if not self.training:
            return super().forward(x)
        places = torch.tensor([float(x.numel() // x.shape[1])], device=x.device, dtype=x.dtype)
        total = _applied(_Sum, torch.cat([x.sum(dim=(0, 2, 3)), places]))
        mean, places = total[:-1] / total[-1], total[-1].detach()
        away = x - mean[:, None, None]
        variance = _applied(_Sum, away.square().sum(dim=(0, 2, 3))) / places  # in a second pass: x**2 would cancel
        self._remember(mean.detach(), variance.detach() * places / (places - 1))
        scale = (variance + self.eps).rsqrt()
        if self.affine:
            return away * (scale * self.weight)[:, None, None] + self.bias[:, None, None]
        return away * scale[:, None, None]

    @torch.no_grad()
    def _remember(self, mean: Tensor, variance: Tensor) -> None:
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance, share)
