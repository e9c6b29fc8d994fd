"""A net that is a chain of named stages: the classic nets are one, each with its own table of stages."""

from collections.abc import Callable, Iterable, Mapping

from jaxtyping import Float
from torch import Tensor, nn

from headstart.errors import ShapeError, UsageError
from headstart.layers.initialise import initialise


class Staged(nn.Module):
    """A chain of named stages.

    A net makes its layers and then calls `chain_up`, which says what they are for.

    Attributes:
        cuts: names of the stages in order; the last is "pooled", the vector that the last layer takes.
        feature_dim: channels of each cut's map, or length of its vector.
        input_size: (height, width, channels) that the net was made for.
    """

    cuts: tuple[str, ...]
    feature_dim: dict[str, int]
    input_size: tuple[int, int, int]

    def chain_up(
        self,
        chain: Mapping[str, tuple[str, ...]],
        feature_dim: Iterable[int],
        input_size: tuple[int, int, int],
        sides: Mapping[str, tuple[str, str]] | None = None,
        init: str = "he",
    ) -> None:
        """Name the stages, and start the weights from the global random numbers.

        Args:
            chain: for each stage, in order, the layers that make it, one after the other; the last is "logits".
            feature_dim: channels of each stage but "logits".
            input_size: (height, width, channels).
            sides: outputs beside the chain (auxiliary heads): the stage they take, and their layer.
            init: as of `headstart.layers.initialise.initialise`.
        """
        self.chain, self.sides = dict(chain), dict(sides or {})
        *cuts, _ = self.chain
        self.cuts = tuple(cuts)
        self.feature_dim = dict(zip(cuts, feature_dim, strict=True))
        self.input_size = input_size
        initialise(self, init, seed=None)

    def stages(self, x: Float[Tensor, "batch channels height width"]) -> dict[str, Tensor]:
        """Every named intermediate: the cuts, "logits" (batch, classes), and auxiliary heads where the net has them."""
        named = {}
        for stage in self.chain:
            x = named[stage] = self._run(stage, x)
        return named | {side: self.get_submodule(layer)(named[stage]) for side, (stage, layer) in self.sides.items()}

    def resume(self, cut: str, x: Float[Tensor, "batch *shape"]) -> Float[Tensor, "batch classes"]:
        """The logits, from the output of one stage: `resume(cut, stages(photos)[cut])` equals `forward(photos)`."""
        if cut not in self.cuts:
            raise ShapeError(f"the net has no cut {cut!r}; choose one of: {', '.join(self.cuts)}")
        stages = list(self.chain)
        for stage in stages[stages.index(cut) + 1 :]:
            x = self._run(stage, x)
        return x

    def forward(self, x: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """Logits of normalised pixels; auxiliary heads are in `stages` only."""
        for stage in self.chain:
            x = self._run(stage, x)
        return x

    def names_in(self, names: Iterable[str]) -> Callable[[str], str] | None:  # noqa: ARG002 - other nets look at them
        """None: weights files use the net's own names."""
        return None

    def _run(self, stage: str, x: Tensor) -> Tensor:
        for layer in self.chain[stage]:
            x = self.get_submodule(layer)(x)
        return x


def checked_counts(classes: int, in_channels: int) -> None:
    """Refuse nets without classes or input channels. Raises UsageError."""
    if classes < 1 or in_channels < 1:
        raise UsageError(f"a net needs at least 1 class and 1 input channel; got {classes=} and {in_channels=}")
