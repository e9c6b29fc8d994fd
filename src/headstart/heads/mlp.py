"""A small network on the features: one hidden layer with batch normalisation and dropout, trained by torch."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64

from headstart.heads.calibration import tempered_losses
from headstart.heads.checks import Material, distinct
from headstart.heads.model import FittedHead, Head
from headstart.heads.ridge import row

if TYPE_CHECKING:
    import torch

UNITS = 256
DROPOUT = 0.5
BATCH = 64  # photos a step
LEARNING_RATE, DECAY = 1e-3, 1e-2  # AdamW
MOST_EPOCHS, PATIENCE = 60, 8  # epochs; epochs without a better held-out log loss before a fold gives up


def fit_mlp(material: Material, kind: str = "mlp") -> FittedHead:
    """Fit a network with one hidden layer; see `headstart.heads.fit_head`. Imports torch.

    One network a fold is trained without its photos. After each epoch the log loss of all held-out photos is taken; the
    epoch where it is lowest gives the held-out logits, and the head is trained on all photos for as many. Batch
    normalisation is folded into the hidden layer, so that predicting needs no torch.
    """
    start = time.perf_counter()
    with _one_torch_thread():
        head, held_out, tried = _fit(material, kind)
    best = int(np.argmin([entry["log_loss"] for entry in tried]))
    return FittedHead(head, held_out, tried[best]["strength"], tuple(tried), time.perf_counter() - start)


def _fit(material: Material, kind: str) -> tuple[Head, Float32[np.ndarray, "photos classes"], list[dict[str, Any]]]:
    scaled, mean, scale = _scaled(material)
    numbers = distinct(material.folds)
    runs = [_Training(scaled, material, material.folds != fold, material.seed + 1 + int(fold)) for fold in numbers]
    tried: list[dict[str, Any]] = []
    everyone = np.arange(len(scaled))
    best = np.zeros((len(scaled), material.classes), np.float32)
    best_epoch = 0
    for epoch in range(1, MOST_EPOCHS + 1):
        held_out = np.zeros_like(best)
        for fold, run in zip(numbers, runs, strict=True):
            run.epoch()
            out = material.folds == fold
            held_out[out] = run.head(kind, mean, scale).logits(material.features[out])
        losses = tempered_losses(held_out, material.labels)
        tried.append(row(kind, epoch, losses, held_out, material, everyone, "folds"))
        if best_epoch == 0 or tried[-1]["log_loss"] < tried[best_epoch - 1]["log_loss"]:
            best_epoch, best = epoch, held_out
        if epoch - best_epoch >= PATIENCE:
            break
    final = _Training(scaled, material, np.ones(len(scaled), bool), material.seed)
    for _ in range(best_epoch):
        final.epoch()
    return final.head(kind, mean, scale), best, tried


@contextmanager
def _one_torch_thread() -> Iterator[None]:
    """Small steps with a barrier each wait for a second thread longer than it helps them, on a busy machine much so."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _scaled(
    material: Material,
) -> tuple[Float32[np.ndarray, "photos features"], Float64[np.ndarray, "features"], float]:
    mean = material.features.mean(axis=0, dtype=np.float64)
    centred = material.features - mean
    scale = float(np.sqrt(np.mean(np.square(centred)))) or 1.0
    return (centred / scale).astype(np.float32), mean, scale


class _Training:
    """One network and its optimiser. Every random number comes from its own generator."""

    def __init__(
        self, scaled: Float32[np.ndarray, "photos features"], material: Material, rows: np.ndarray, seed: int
    ) -> None:
        import torch

        chosen = np.flatnonzero(rows)
        # Batch normalisation needs two photos a step; a lone one counts twice.
        chosen = np.repeat(chosen, 2) if len(chosen) == 1 else chosen
        self._features = torch.from_numpy(scaled[chosen])
        self._labels = torch.from_numpy(material.labels[chosen])
        self._weights = torch.from_numpy(material.weights[chosen].astype(np.float32))
        self._generator = torch.Generator().manual_seed(seed)
        length, classes = scaled.shape[1], material.classes
        self._hidden = self._uniform((UNITS, length))
        self._gain, self._shift = torch.ones(UNITS), torch.zeros(UNITS)
        self._weight, self._bias = self._uniform((classes, UNITS)), torch.zeros(classes)
        self._mean, self._variance = torch.zeros(UNITS), torch.ones(UNITS)
        learned = [self._hidden, self._gain, self._shift, self._weight, self._bias]
        for tensor in learned:
            tensor.requires_grad_()
        self._optimiser = torch.optim.AdamW(learned, lr=LEARNING_RATE, weight_decay=DECAY)

    def _uniform(self, shape: tuple[int, int]) -> "torch.Tensor":
        import torch

        values: torch.Tensor = (2 * torch.rand(shape, generator=self._generator) - 1) / shape[1] ** 0.5
        return values

    def epoch(self) -> None:
        """Show every photo once, in a new order."""
        import torch

        order = torch.randperm(len(self._features), generator=self._generator)
        for rows in torch.tensor_split(order, max(1, len(order) // BATCH)):
            logits = self._forward(self._features[rows])
            losses = torch.nn.functional.cross_entropy(logits, self._labels[rows], reduction="none")
            loss = (losses * self._weights[rows]).mean()
            self._optimiser.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            self._optimiser.step()

    def _forward(self, features: "torch.Tensor") -> "torch.Tensor":
        import torch

        hidden = torch.nn.functional.batch_norm(
            features @ self._hidden.T, self._mean, self._variance, self._gain, self._shift, training=True
        )
        kept = torch.rand(hidden.shape, generator=self._generator) >= DROPOUT
        return torch.relu(hidden) * kept / (1 - DROPOUT) @ self._weight.T + self._bias

    def head(self, kind: str, mean: Float64[np.ndarray, "features"], scale: float) -> Head:
        """The network as it predicts: running statistics, nothing dropped, batch normalisation folded in."""
        plain = {
            name: getattr(self, f"_{name}").detach().numpy().astype(np.float64)
            for name in ("hidden", "gain", "shift", "mean", "variance", "weight", "bias")
        }
        factor = plain["gain"] / np.sqrt(plain["variance"] + 1e-5)
        hidden_weight = plain["hidden"] * factor[:, None] / scale
        hidden_bias = plain["shift"] - plain["mean"] * factor - hidden_weight @ mean
        tensors = {
            "hidden_weight": hidden_weight,
            "hidden_bias": hidden_bias,
            "weight": plain["weight"],
            "bias": plain["bias"],
        }
        return Head(kind, {name: value.astype(np.float32) for name, value in tensors.items()})
