"""Which pixels a unit of a net really depends on, found with gradients instead of arithmetic."""

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional

SILENT = (nn.ReLU, nn.ReLU6, nn.Tanh, nn.Sigmoid, nn.Dropout, nn.LocalResponseNorm, nn.BatchNorm2d, nn.BatchNorm1d)
Box = tuple[int, int, int, int]


class Spread(nn.Module):
    """A convolution of one channel with equal positive weights, where a whole one stood: it reaches the same pixels."""

    def __init__(self, conv: nn.Conv2d) -> None:
        super().__init__()
        self.options = {"stride": conv.stride, "padding": conv.padding, "dilation": conv.dilation}
        self.register_buffer("weight", torch.ones(1, 1, *conv.kernel_size, dtype=torch.float64))
        self.weight /= self.weight.numel()

    def forward(self, x: Tensor) -> Tensor:
        return functional.conv2d(x.mean(dim=1, keepdim=True), self.weight, **self.options)


def linear_copy(net: nn.Module) -> nn.Module:
    """The net without anything that could hide a dependence: positive weights, no ReLU, mean instead of maximum."""
    net = copy.deepcopy(net).eval()
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, SILENT):
                setattr(parent, name, nn.Identity())
            elif isinstance(child, nn.MaxPool2d):
                pool = nn.AvgPool2d(child.kernel_size, child.stride, child.padding, child.ceil_mode)
                setattr(parent, name, pool)
            elif isinstance(child, nn.Conv2d):
                setattr(parent, name, Spread(child))
            elif isinstance(child, nn.Linear):
                setattr(parent, name, nn.Identity())
    return net


def gradient_boxes(linear: nn.Module, image: tuple[int, int, int], units: dict[str, list[tuple[int, int]]]) -> dict:
    """The pixels with a gradient, by stage and unit, as `(x0, y0, x1, y1)` half open; None if there are none.

    Args:
        linear: of `linear_copy`.
        image: (channels, height, width).
        units: for each stage the (row, column) of its units; negative and too large numbers wrap around.
    """
    photo = torch.ones(1, *image, dtype=torch.float64, requires_grad=True)
    stages = linear.stages(photo) if hasattr(linear, "stages") else {"": linear(photo)}
    found = {}
    for stage, places in units.items():
        rows, columns = stages[stage].shape[2:]
        for row, column in [(row % rows, column % columns) for row, column in places]:
            value = stages[stage][0, :, row, column].sum()
            (gradient,) = torch.autograd.grad(value, photo, retain_graph=True)
            found[stage, (row, column)] = _box(gradient[0].sum(dim=0) != 0)
    return found


def _box(seen: Tensor) -> Box | None:
    rows, columns = torch.where(seen.any(dim=1))[0], torch.where(seen.any(dim=0))[0]
    if not len(rows):
        return None
    return columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1
