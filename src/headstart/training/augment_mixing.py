"""Augmentation that covers part of a photo, or mixes two photos and their labels."""

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int64
from torch import Tensor

PerPhoto = Float[Tensor, "batch"]


def erase(
    batch: Float[Tensor, "batch channels height width"],
    which: Bool[Tensor, "batch"],
    top: PerPhoto,
    left: PerPhoto,
    height: PerPhoto,
    width: PerPhoto,
    fill: Float[Tensor, "channels 1 1"],
) -> Float[Tensor, "batch channels height width"]:
    """Cover a rectangle of the photos that `which` names: the network must not rely on one part.

    Zhong, Zheng, Kang, Li & Yang 2020, "Random Erasing Data Augmentation", AAAI, section 3.2.

    Args:
        batch: any scale of values.
        which: the photos to change.
        top: of the rectangle, a share of the photo's height, 0..1; edges are rounded to whole pixels.
        left: likewise, of the width.
        height: likewise.
        width: likewise.
        fill: the colour of the rectangle, in the scale of `batch`.
    """
    rows, columns = batch.shape[2:]
    inside_rows = _between(rows, top, top + height)
    inside_columns = _between(columns, left, left + width)
    covered = which[:, None, None] & inside_rows[:, :, None] & inside_columns[:, None, :]
    return torch.where(covered[:, None], fill.to(batch.dtype), batch)


def _between(side: int, start: PerPhoto, stop: PerPhoto) -> Bool[Tensor, "batch side"]:
    place = torch.arange(side)
    return (place >= (start * side).round()[:, None]) & (place < (stop * side).round()[:, None])


def draw_mixup(
    count: int, alpha: float, generator: torch.Generator
) -> tuple[Float32[Tensor, "batch"], Int64[Tensor, "batch"]]:
    """Draw how much of each photo stays, and which photo of the batch the rest comes from.

    Zhang, Cisse, Dauphin & Lopez-Paz 2018, "mixup: Beyond Empirical Risk Minimization", section 2; the share is drawn
    for every photo, and at least a half of it stays (a pair the other way round is the same mixture).

    Args:
        count: photos in the batch.
        alpha: both parameters of the Beta distribution, > 0; 0.2 keeps most photos nearly pure, 1 draws uniformly.
        generator: where the draws come from.

    Returns:
        The share of each photo that stays, 0.5 to 1, and the index of its partner.
    """
    seed = int(torch.randint(0, 2**63 - 1, (), generator=generator))  # torch draws Beta from its global generator only
    share = torch.from_numpy(np.random.default_rng(seed).beta(alpha, alpha, count).astype(np.float32))
    return torch.maximum(share, 1 - share), torch.randperm(count, generator=generator)


def mixed(
    values: Float32[Tensor, "batch *rest"], share: Float32[Tensor, "batch"], partner: Int64[Tensor, "batch"]
) -> Float32[Tensor, "batch *rest"]:
    """`share * values + (1 - share) * values[partner]`: photos, or their one-hot labels.

    >>> mixed(torch.tensor([[0.0], [8.0]]), torch.tensor([0.75, 1.0]), torch.tensor([1, 0])).tolist()
    [[2.0], [8.0]]
    """
    return torch.lerp(values[partner], values, share.reshape(-1, *[1] * (values.ndim - 1)))
