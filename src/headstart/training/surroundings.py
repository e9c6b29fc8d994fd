"""What a training changes around itself and puts back: modes, random numbers, threads, the layout of the filters."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import distributed, nn

from headstart.allocator import memory_kept
from headstart.config import LoopConfig
from headstart.errors import ShapeError
from headstart.training.batches import Batches
from headstart.training.evaluation import device_of, modes_kept
from headstart.training.shortcuts import shortcuts


def seed_dropout(seed: int, step: int, device: torch.device) -> None:
    """Make what dropout draws in one step a function of the seed, the step and the process, and of nothing else."""
    rank = distributed.get_rank() if together() else 0
    mixed = _mix(_mix(_mix(seed) ^ step) ^ rank)
    torch.default_generator.manual_seed(mixed)
    if device.type == "cuda":
        torch.cuda.manual_seed(mixed)


def _mix(number: int) -> int:
    """Spread a number over 63 bits, so that neighbours have nothing in common (splitmix64, Steele et al. 2014)."""
    mask = 2**64 - 1
    number = (number + 0x9E3779B97F4A7C15) & mask
    number = ((number ^ (number >> 30)) * 0xBF58476D1CE4E5B9) & mask
    number = ((number ^ (number >> 27)) * 0x94D049BB133111EB) & mask
    return (number ^ (number >> 31)) >> 1


@contextmanager
def surroundings(net: nn.Module, config: LoopConfig) -> Iterator[None]:
    """Modes, random numbers, threads and the memory allocator are the caller's again after the block."""
    device, threads = device_of(net), torch.get_num_threads()
    state = torch.get_rng_state()
    cuda = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        if config.threads:
            torch.set_num_threads(config.threads)
        with memory_kept(), modes_kept(net), _channels_last(net), shortcuts(net):
            yield
    finally:
        torch.set_num_threads(threads)
        torch.set_rng_state(state)
        if cuda is not None:
            torch.cuda.set_rng_state(cuda, device)


@contextmanager
def _channels_last(net: nn.Module) -> Iterator[None]:
    """Filters with their channels innermost, the layout in which pooling and most convolutions are fastest.

    The numbers stay the same. A net that several processes share is left alone: it has laid out its memory already.
    """
    filters = [parameter for parameter in net.parameters() if parameter.ndim == 4 and parameter.is_contiguous()]
    if isinstance(net, nn.parallel.DistributedDataParallel):
        filters = []
    try:
        for parameter in filters:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
        yield
    finally:
        for parameter in filters:
            parameter.data = parameter.data.contiguous()


def together() -> bool:
    """Do several processes train one net?"""
    return distributed.is_available() and distributed.is_initialized()


def check_net(net: nn.Module, batches: Batches) -> None:
    """One blank photo through the net, so that what does not fit is said before anything is trained."""
    channels, height, width = batches.shape
    size = f"{height} x {width} x {channels}"
    with modes_kept(net), torch.no_grad():
        net.eval()
        try:
            logits = net(torch.zeros(1, *batches.shape, device=device_of(net)))
        except RuntimeError as error:
            raise ShapeError(
                f"the net cannot take photos of {size} (height x width x channels): {str(error).splitlines()[0]}; "
                "choose another image size, or a net made for this one"
            ) from error
    if tuple(logits.shape) != (1, batches.classes):
        raise ShapeError(
            f"the net gives {tuple(logits.shape[1:])} numbers a photo, and the photos have {batches.classes} classes; "
            f"build the net with classes={batches.classes}"
        )
