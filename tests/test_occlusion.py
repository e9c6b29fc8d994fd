"""Occlusion against a naive loop, closed forms, a net that reads one corner, and Captum."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import UsageError
from headstart.explain.explanation import Asked
from headstart.explain.occlusion import occlusion, window_starts
from headstart.explain.placing import on_photo
from headstart.explain.subject import Subject
from headstart.nets import build_net
from headstart.preprocess import Preprocessing

SIDE = 32


def subject_with(net: nn.Module, channels: int = 3, side: int = SIDE, classes: int = 3) -> Subject:
    levels = {"mean": (127.0,) * channels, "std": (128.0,) * channels}
    names = tuple(f"class {number}" for number in range(classes))
    return Subject("small", Preprocessing(side, 0.875, **levels), names, lambda: net, weights="none")


def noise(height: int = 40, width: int = 40, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def asked(subject: Subject, pixels: np.ndarray | None = None, target: int = 1, **settings: Any) -> Asked:
    return Asked(subject, subject.photo(noise() if pixels is None else pixels), target, settings=settings)


def naive(subject: Subject, question: Asked, window: int, stride: int, level: int) -> np.ndarray:
    """The definition, one window and one forward pass after the other, and the mean taken pixel by pixel."""
    pixels, side = question.photo.pixels, subject.preprocessing.size
    drops: list[list[list[float]]] = [[[] for _ in range(side)] for _ in range(side)]
    starts = sorted({*range(0, side - window, stride), side - window})
    for top in starts:
        for left in starts:
            covered = pixels.copy()
            covered[top : top + window, left : left + window] = level
            both = [subject.logits([x])[0, question.target].astype(np.float64) for x in (pixels, covered)]
            for y in range(top, top + window):
                for x in range(left, left + window):
                    drops[y][x].append(both[0] - both[1])
    return np.array([[sum(cell) / len(cell) for cell in row] for row in drops])


@pytest.fixture(scope="module")
def cnn() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return build_net("nin:cifar", 3).eval()


@pytest.mark.parametrize(("window", "stride"), [(8, 8), (12, 8), (7, 5), (32, 1)])
def test_the_map_is_that_of_a_naive_loop(cnn: nn.Module, window: int, stride: int) -> None:
    subject = subject_with(cnn)
    question = asked(subject, window=window, stride=stride)
    found, loop = occlusion(question).raw, naive(subject, question, window, stride, 127)
    assert np.abs(loop).max() > 1e-6
    assert np.abs(found - loop).max() <= 1e-6 * max(1.0, float(np.abs(subject.logits([question.photo.pixels])).max()))


class Linear(nn.Module):
    """One weight a pixel."""

    def __init__(self, weights: torch.Tensor) -> None:
        super().__init__()
        self.weights = weights

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.einsum("bchw,kchw->bk", x, self.weights.to(x.dtype))


def test_of_a_linear_net_a_window_counts_what_its_pixels_add() -> None:
    weights = torch.from_numpy(np.random.default_rng(1).normal(size=(3, 3, SIDE, SIDE))).float()
    subject = subject_with(Linear(weights))
    question = asked(subject, window=8, stride=8)
    added = weights[1].numpy() * subject.normalised(question.photo.pixels)[0].numpy()  # the grey of 127 is 0
    sums = added.sum(axis=0).reshape(4, 8, 4, 8).sum(axis=(1, 3))
    assert np.abs(occlusion(question).raw - np.kron(sums, np.ones((8, 8)))).max() < 1e-3 * np.abs(sums).max()


def test_a_net_that_reads_one_corner_lights_exactly_that_corner() -> None:
    weights = torch.zeros(3, 3, SIDE, SIDE)
    weights[1, :, -8:, :8] = 1.0
    bright = np.full((SIDE, SIDE, 3), 250, np.uint8)
    raw = occlusion(asked(subject_with(Linear(weights)), bright, window=8, stride=8)).raw.copy()
    assert (raw[-8:, :8] > 100).all()
    raw[-8:, :8] = 0
    assert not raw.any()


@pytest.mark.parametrize("side", [7, 28, 32, 100, 224, 227])
@pytest.mark.parametrize(("window", "stride"), [(1, 1), (5, 3), (7, 7), (6, 1)])
def test_every_pixel_is_covered_and_no_window_leaves_the_photo(side: int, window: int, stride: int) -> None:
    starts = window_starts(side, window, stride)
    covered = {place for start in starts for place in range(start, start + window)}
    assert covered == set(range(side))
    assert starts == sorted(set(starts))


def test_without_settings_13_by_13_windows_cover_a_net_of_224() -> None:
    zeros = Linear(torch.zeros(2, 3, 224, 224))
    found = occlusion(asked(subject_with(zeros, side=224, classes=2), window=0, stride=None))
    assert {name: found.parameters[name] for name in ("window", "stride", "windows")} == {
        **{"window": 32, "stride": 16},
        "windows": 13 * 13,
    }
    assert found.raw.shape == (224, 224)
    assert not found.raw.any()


@pytest.mark.parametrize("side", [1, 2, 5, 28])
def test_small_inputs_have_windows_too(side: int) -> None:
    weights = torch.ones(2, 1, side, side)
    found = occlusion(asked(subject_with(Linear(weights), channels=1, side=side, classes=2), target=0))
    assert found.raw.shape == (side, side)
    assert np.isfinite(found.raw).all()


def test_a_fill_is_what_stands_in_the_window() -> None:
    subject = subject_with(Linear(torch.ones(3, 3, SIDE, SIDE)))
    flat = np.full((SIDE, SIDE, 3), 127, np.uint8)
    drops = {fill: occlusion(asked(subject, flat, window=8, fill=fill)).raw for fill in ("grey", "black", "white")}
    assert not drops["grey"].any()
    assert np.allclose(drops["black"], 8 * 8 * 3 * 127 / 128, rtol=1e-4)
    assert np.allclose(drops["white"], -8 * 8 * 3, rtol=1e-4)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"window": -1}, "window must be a whole number of pixels from 1 to 32"),
        ({"window": 33}, "not 33"),
        ({"window": 8.0}, "not 8.0"),
        ({"window": 8, "stride": 9}, "pixels would be left out"),
        ({"fill": "green"}, "grey, black, white, not 'green'"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        occlusion(asked(subject_with(Linear(torch.zeros(3, 3, SIDE, SIDE))), **settings))


def test_progress_ends_with_all_windows() -> None:
    told: list[tuple[int, int, str]] = []
    subject = subject_with(Linear(torch.zeros(3, 3, SIDE, SIDE)))
    question = Asked(subject, subject.photo(noise()), 0, step=lambda *words: told.append(words))
    count = occlusion(question).parameters["windows"]
    assert told[-1] == (count, count, "windows")
    assert [done for done, *_ in told] == sorted({done for done, *_ in told})


@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (41, 40)])
def test_the_map_of_a_photo_that_is_not_square_lies_where_the_net_looked(height: int, width: int) -> None:
    weights = torch.zeros(3, 3, SIDE, SIDE)
    weights[:, :, :8, :8] = 1.0  # the net reads the first corner of its square
    subject = subject_with(Linear(weights))
    question = asked(subject, np.full((height, width, 3), 250, np.uint8), window=8, stride=8)
    placed = on_photo(occlusion(question).raw.astype(np.float64), question.photo.crop, width, height)
    side = 0.875 * min(height, width)
    left, top = (width - side) / 2, (height - side) / 2
    assert placed.shape == (height, width)
    assert np.isnan(placed).sum() == pytest.approx(height * width - side * side, rel=0.1)
    strong = np.argwhere(np.nan_to_num(placed) > np.nanmax(placed) / 2)
    assert np.abs(strong.min(axis=0) - (top, left)).max() <= 1
    assert np.abs(strong.max(axis=0) + 1 - (top + side / 4, left + side / 4)).max() <= 1.5


def test_nothing_of_the_net_changes(cnn: nn.Module) -> None:
    cnn.train()
    subject = subject_with(cnn)
    subject.net  # noqa: B018 - made ready before the state is looked at
    before = {name: value.clone() for name, value in cnn.state_dict().items()}
    modes, random = [module.training for module in cnn.modules()], torch.get_rng_state()
    question = asked(subject, window=16)
    first, second = occlusion(question).raw, occlusion(question).raw
    assert first.tobytes() == second.tobytes()
    assert all(torch.equal(value, before[name]) for name, value in cnn.state_dict().items())
    assert modes == [module.training for module in cnn.modules()]
    assert torch.equal(random, torch.get_rng_state())


def test_where_windows_fit_captum_says_the_same(cnn: nn.Module) -> None:
    captum = pytest.importorskip("captum.attr")
    subject = subject_with(cnn)
    question = asked(subject, window=8, stride=4)
    x = subject.normalised(question.photo.pixels)
    theirs = captum.Occlusion(cnn).attribute(x, sliding_window_shapes=(3, 8, 8), strides=(3, 4, 4), target=1)
    found = occlusion(question).raw
    assert np.abs(found - theirs[0, 0].numpy()).max() <= 1e-5 * np.abs(found).max()


def test_on_the_fast_engine_each_window_has_the_drop_that_torch_gives(ready_cache: Path) -> None:
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    question = asked(subject, noise(300, 260, seed=4), target=207, window=112, stride=112)
    quarters = [(slice(top, top + 112), slice(left, left + 112)) for top in (0, 112) for left in (0, 112)]
    photos = [question.photo.pixels.copy() for _ in range(5)]
    for photo, quarter in zip(photos[1:], quarters, strict=True):
        photo[quarter] = 127
    with torch.no_grad():
        logits = torch.cat([subject.net(subject.normalised(photo)) for photo in photos])[:, 207].numpy()
    found = occlusion(question).raw
    for quarter, after in zip(quarters, logits[1:], strict=True):
        assert np.abs(found[quarter] - (logits[0] - after)).max() < 1e-3
    subject.close()
