"""Loss and accuracy of a net over batches, and its logits; the net is left in the modes it was found in."""

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from jaxtyping import Float
from torch import Tensor, distributed, nn

from headstart.training.batches import Batches
from headstart.training.losses import Loss


class Tally:
    """Loss and accuracy over the batches so far, as sums over photos.

    Args:
        every: how many batches to wait until their numbers are fetched; on a computer with an accelerator each fetch
            makes the processor wait for it.
    """

    def __init__(self, every: int = 1) -> None:
        self.loss_sum, self.right, self.images = 0.0, 0.0, 0.0
        self._every = every
        self._waiting: list[tuple[Tensor, Tensor, int]] = []

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor) -> None:
        """Count one batch: its mean loss, and how many photos have their largest logit where their target is."""
        labels = targets.argmax(dim=1) if targets.is_floating_point() else targets
        self._waiting.append((loss.detach(), (logits.detach().argmax(dim=1) == labels).sum(), len(logits)))
        if len(self._waiting) >= self._every:
            self.fetch()

    def fetch(self) -> None:
        """Add up what waits."""
        for loss, right, images in self._waiting:
            self.loss_sum += loss.item() * images if images else 0.0  # the mean over none is no number
            self.right += right.item()
            self.images += images
        self._waiting.clear()

    def means(self) -> tuple[float, float]:
        """Loss and accuracy of what has been fetched; not-a-number before the first batch."""
        if not self.images:
            return math.nan, math.nan
        return self.loss_sum / self.images, self.right / self.images

    def over_all_processes(self) -> tuple[float, float]:
        """Loss and accuracy over the batches of every process that trains together with this one."""
        self.fetch()
        self.loss_sum, self.right, self.images = summed([self.loss_sum, self.right, self.images])
        return self.means()


def summed(numbers: list[float]) -> list[float]:
    """Each number summed over all processes that train together; alone, the numbers themselves."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return numbers
    device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
    sums = torch.tensor(numbers, dtype=torch.float64, device=device)
    distributed.all_reduce(sums)
    return [float(number) for number in sums]


@contextmanager
def modes_kept(net: nn.Module) -> Iterator[None]:
    """Run a block that may switch between training and evaluation; every submodule gets its own mode back."""
    modes = [(module, module.training) for module in net.modules()]
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def device_of(net: nn.Module) -> torch.device:
    """Where the net's parameters lie; the processor for a net without any."""
    return next((parameter.device for parameter in net.parameters()), torch.device("cpu"))


def layout_of(net: nn.Module) -> torch.memory_format:
    """How the net's filters lie in memory, and so how its photos best do."""
    filters = [parameter for parameter in net.parameters() if parameter.ndim == 4 and not parameter.is_contiguous()]
    is_last = any(one.is_contiguous(memory_format=torch.channels_last) for one in filters)
    return torch.channels_last if is_last else torch.contiguous_format


def forward_all(net: nn.Module, batches: Batches) -> Iterator[tuple[Tensor, Tensor]]:
    """Logits and targets of each batch of epoch 0, on the net's device, as the net stands in evaluation."""
    device, layout = device_of(net), layout_of(net)
    with modes_kept(net):
        net.eval()
        for images, targets in batches.epoch(0):
            with torch.inference_mode():
                logits = net(images.to(device, memory_format=layout))
            yield logits, targets.to(device)


def evaluate(net: nn.Module, batches: Batches, loss: Loss) -> tuple[float, float]:
    """Mean loss and accuracy over all photos.

    Args:
        net: gives logits (batch, classes).
        batches: not shuffled, not augmented, as a rule.
        loss: of `headstart.training.losses.make_loss`.

    Returns:
        Loss, and the share of photos whose largest logit is that of their class; both not-a-number without photos.
    """
    return tally_of(forward_all(net, batches), loss).over_all_processes()


def tally_of(outputs: Iterable[tuple[Tensor, Tensor]], loss: Loss) -> Tally:
    """Count pairs of logits and targets."""
    tally = Tally()
    for logits, targets in outputs:
        tally.add(loss(logits, targets), logits, targets)
    return tally


def predict_logits(net: nn.Module, batches: Batches) -> Float[Tensor, "images classes"]:
    """The logits of all photos, in the order of the batches, on the processor."""
    rows = [logits.cpu() for logits, _ in forward_all(net, batches)]
    return torch.cat(rows) if rows else torch.empty(0, batches.classes)
