"""The head put back on the backbone: one torch net with the same outputs, for gradients, export and other programs."""

from typing import TYPE_CHECKING

from headstart.backbones import Backbone
from headstart.backbones.conversion import named_outputs
from headstart.errors import ShapeError
from headstart.heads import Head, head_layers

if TYPE_CHECKING:
    import torch


def join(backbone: Backbone, cut: str, head: Head, temperature: float | None) -> "torch.nn.Module":
    """Build one net from a backbone and a head.

    Args:
        backbone: the net, with its preprocessing.
        cut: where the head takes its features.
        head: fitted to features of that cut.
        temperature: the outputs are softmax(logits / temperature); None: the logits themselves.

    Returns:
        A `WholeNet` in eval mode.

    Raises:
        UsageError: this kind of head has no form as layers.
    """
    import torch

    is_map = len(backbone.outputs[cut]) == 3
    place = cut.removesuffix("_map") if is_map else cut

    class WholeNet(torch.nn.Module):
        """uint8 photos (batch, size, size, channels) or normalised (batch, channels, size, size) in; scores out."""

        mean: torch.Tensor
        std: torch.Tensor

        def __init__(self) -> None:
            super().__init__()
            self.backbone = backbone.net()
            layers = head_layers(head)
            self.head = torch.nn.Sequential(torch.nn.Flatten(), layers) if is_map else layers
            preprocessing = backbone.preprocessing
            self.shape = preprocessing.shape
            self.register_buffer("mean", torch.tensor(preprocessing.mean).reshape(1, -1, 1, 1))
            self.register_buffer("std", torch.tensor(preprocessing.std).reshape(1, -1, 1, 1))

        def forward(self, photos: torch.Tensor) -> torch.Tensor:
            raw = photos.dtype == torch.uint8
            side, _, channels = self.shape
            expected = self.shape if raw else (channels, side, side)
            if photos.ndim != 4 or tuple(photos.shape[1:]) != expected:
                raise ShapeError(
                    f"the net takes uint8 (batch, {side}, {side}, {channels}) or normalised float32 "
                    f"(batch, {channels}, {side}, {side}); received {photos.dtype} {tuple(photos.shape)}"
                )
            x = (photos.permute(0, 3, 1, 2).float() - self.mean) / self.std if raw else photos
            logits: torch.Tensor = self.head(named_outputs(self.backbone, x, (place,))[cut])
            return logits if temperature is None else torch.softmax(logits / temperature, dim=1)

    return WholeNet().eval()
