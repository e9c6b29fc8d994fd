"""Pictures made for a class or a unit: what they reach, that it is told truly, and that the net is left alone."""

import io
import math

import numpy as np
import pytest
import torch
from torch import nn

from headstart.errors import UsageError, WeightsError
from headstart.explain.recording import reach
from headstart.explain.subject import Subject
from headstart.look import canvas as canvas_module
from headstart.look.canvas import AXES, DECAY, GAIN, SHARES, Canvas, moved
from headstart.look.maximise import Maximised, maximise
from look_subjects import MEAN, STD, Chain, linear_net, small_cnn, subject_of_net, traces


def interrupt_at(number: int):
    def step(done: int, _of: int, _what: str) -> None:
        if done == number:
            raise KeyboardInterrupt

    return step


def png(picture) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def logits_by_hand(subject: Subject, pixels: np.ndarray) -> np.ndarray:
    x = (pixels.astype(np.float32).transpose(2, 0, 1)[None] - MEAN) / STD
    with torch.no_grad():
        return subject.net(torch.from_numpy(x))[0].numpy()


def test_the_waves_become_the_picture_that_the_formula_says() -> None:
    canvas = Canvas(12, 3, seed=4)
    waves = canvas.waves.detach().numpy()
    across, down = np.abs(np.fft.rfftfreq(12)), np.abs(np.fft.fftfreq(12))
    planes = []
    for channel in range(3):
        spectrum = np.zeros((12, 7), complex)
        for row in range(12):
            for column in range(7):
                fits = max(12 * math.hypot(down[row], across[column]), 1.0)
                wave = waves[channel, row, column]
                spectrum[row, column] = (wave[0] + 1j * wave[1]) * GAIN / fits**DECAY
        planes.append(np.fft.irfft2(spectrum, s=(12, 12)) * 12**2)
    expected = np.zeros((3, 12, 12))
    for share, axis, plane in zip(SHARES, AXES.numpy(), planes, strict=True):
        expected += math.sqrt(3) * share * (axis / np.linalg.norm(axis))[:, None, None] * plane
    expected = 1 / (1 + np.exp(-expected))
    np.testing.assert_allclose(canvas.pixels().detach().numpy(), expected, atol=1e-6)
    assert np.array_equal(canvas.levels(), np.rint(expected.transpose(1, 2, 0) * 255).astype(np.uint8))


def test_a_step_uphill_is_one_of_torch_s_adam() -> None:
    canvas = Canvas(8, 3, seed=1)
    waves = canvas.waves.detach().clone().requires_grad_()
    adam, random = torch.optim.Adam([waves]), torch.Generator().manual_seed(0)
    for number in range(6):
        gradient = torch.randn(waves.shape, generator=random) * 10.0 ** (number - 3)
        adam.param_groups[0]["lr"] = 0.05 / (number + 1)
        waves.grad = -gradient
        adam.step()
        canvas.climb(gradient, 0.05 / (number + 1))
        np.testing.assert_allclose(canvas.waves.detach().numpy(), waves.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_a_picture_starts_almost_grey_in_every_channel() -> None:
    for size, channels in ((28, 1), (64, 3)):
        pixels = Canvas(size, channels, seed=0).pixels().detach().numpy()
        assert pixels.shape == (channels, size, size)
        assert abs(pixels - 0.5).max() < 0.1


def test_a_shift_shows_grey_where_the_picture_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    monkeypatch.setattr(canvas_module, "TURN", 0.0)
    monkeypatch.setattr(canvas_module, "SCALE", 0.0)
    x = torch.rand(3, 1, 24, 24, generator=torch.Generator().manual_seed(1))
    seen = moved(x, torch.Generator().manual_seed(7)).numpy()
    draws = 2 * torch.rand(3, 4, generator=torch.Generator().manual_seed(7)).numpy() - 1
    for number in range(3):
        right, down = canvas_module.SHIFT * 24 * draws[number, 2:]
        expected = ndimage.shift(x[number, 0].numpy(), (-down, -right), order=1, mode="grid-constant", cval=0.0)
        np.testing.assert_allclose(seen[number, 0], expected, atol=1e-5)


def test_a_turn_turns_about_the_middle_and_keeps_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(canvas_module, "SCALE", 0.0)
    monkeypatch.setattr(canvas_module, "SHIFT", 0.0)
    rows, columns = np.mgrid[:65, :65] - 32.0
    spot = np.exp(-((columns - 20) ** 2 + rows**2) / 8).astype(np.float32)
    angle = canvas_module.TURN * (2 * torch.rand(1, 4, generator=torch.Generator().manual_seed(3))[0, 0].item() - 1)
    seen = moved(torch.from_numpy(spot)[None, None], torch.Generator().manual_seed(3))[0, 0].numpy()
    x, y = (seen * columns).sum() / seen.sum(), (seen * rows).sum() / seen.sum()
    assert abs(math.hypot(x, y) - 20) < 0.1
    assert abs(abs(math.atan2(y, x)) - abs(angle)) < 0.01


def test_a_net_that_likes_red_and_not_blue_gets_a_red_picture() -> None:
    weight = np.zeros((2, 3, 16, 16), np.float32)
    weight[0, 0], weight[0, 2] = 0.05, -0.05
    made = maximise(linear_net(weight, np.zeros(2, np.float32)), classes=["class 0"], steps=48).drawn[0]
    red, _, blue = made.raw.mean(axis=(1, 2))
    assert red > 0.52 > 0.48 > blue
    assert made.value > made.first + 2
    assert made.history[-1] > made.history[0]
    assert made.stamps == ()


def test_what_is_told_is_true_of_the_picture_that_is_saved() -> None:
    subject = small_cnn(classes=4)
    with torch.no_grad():
        subject.net.dense.bias.add_(10)
    made = maximise(subject, classes=["class 2"], steps=12)
    one = made.drawn[0]
    stored = np.array(made.files()["class-2.png"])
    logits = logits_by_hand(subject, stored).astype(np.float64)
    assert one.value == pytest.approx(logits[2], rel=1e-5)
    assert one.probability == pytest.approx(np.exp(logits[2]) / np.exp(logits).sum(), rel=1e-5)
    assert np.array_equal(stored, np.rint(one.raw.transpose(1, 2, 0) * 255).astype(np.uint8))
    assert len(one.moved) == 8
    assert one.left == pytest.approx(np.mean(one.moved) / one.value)


@pytest.mark.parametrize("layer", ["conv1", "act1", "act2", "dense"])
def test_a_unit_is_raised_by_its_mean_value_before_the_activation(layer: str) -> None:
    subject = small_cnn()
    one = maximise(subject, layer=layer, units=[1], steps=12).drawn[0]
    x = torch.from_numpy((one.pixels.astype(np.float32).transpose(2, 0, 1)[None] - MEAN) / STD)
    before = {"conv1": "conv1", "act1": "norm1", "act2": "conv2", "dense": "dense"}[layer]
    with torch.no_grad():
        for name, module in subject.net.named_children():
            x = module(x)
            if name == before:
                break
    assert one.value == pytest.approx(float(x[0, 1].mean()), rel=1e-4, abs=1e-5)
    assert one.value > one.first
    assert one.probability is None


def test_the_layers_above_do_not_run() -> None:
    class Trap(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise AssertionError("it ran")

    subject = subject_of_net(Chain(conv=nn.Conv2d(3, 4, 3), act=nn.ReLU(), trap=Trap()), 16)
    x = torch.zeros(1, 3, 16, 16)
    assert reach(subject, x, "act").before.shape == (1, 4, 14, 14)
    with pytest.raises(AssertionError, match="it ran"):
        reach(subject, x, "trap")
    assert not subject.net.conv._forward_hooks


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    def made(seed: int) -> Maximised:
        return maximise(small_cnn(), classes=["0"], layer="act2", units=[3], steps=6, seed=seed)

    first, again, other = made(0), made(0), made(1)
    for one, two in zip(first.drawn, again.drawn, strict=True):
        assert one.raw.tobytes() == two.raw.tobytes()
    assert png(first.sheet()) == png(again.sheet())
    assert first.drawn[0].raw.tobytes() != other.drawn[0].raw.tobytes()


@pytest.mark.parametrize("layer", [None, "act1"])
def test_the_net_and_the_random_numbers_are_left_as_they_were(layer: str | None) -> None:
    subject = small_cnn()
    aims = {"classes": ["0"]} if layer is None else {"layer": layer, "units": [0]}
    before = traces(subject)
    maximise(subject, steps=2, **aims)
    assert traces(subject) == before

    def fail(_done: int, _of: int, _what: str) -> None:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        maximise(subject, steps=2, step=fail, **aims)
    assert traces(subject) == before


def test_an_interrupt_keeps_the_best_so_far_and_says_so() -> None:
    made = maximise(small_cnn(), classes=["0", "1"], steps=20, step=interrupt_at(7))
    assert [len(one.history) for one in made.drawn] == [7]
    assert made.drawn[0].stamps[0] == "stopped after 7 of 20 steps"
    assert made.drawn[0].value > made.drawn[0].first
    later = maximise(small_cnn(), classes=["0", "1"], steps=20, step=interrupt_at(23))
    assert [len(one.history) for one in later.drawn] == [20, 3]


def test_the_best_waves_are_kept_and_not_the_last(monkeypatch: pytest.MonkeyPatch) -> None:
    subject = small_cnn()
    good = maximise(subject, classes=["0"], steps=10, step=interrupt_at(5)).drawn[0]
    from headstart.look import maximise as module

    answers = iter([1.0, 2.0, 3.0, 4.0, 5.0, -50.0, -60.0, -70.0, -80.0, -90.0])
    true = module._finite
    monkeypatch.setattr(module, "_finite", lambda value, aim, net: true(next(answers), aim, net))
    kept = maximise(subject, classes=["0"], steps=10).drawn[0]
    # the fifth value is the best: the waves that it was measured on are those before the fifth step, as above
    assert kept.raw.tobytes() == good.raw.tobytes()


def test_a_grey_net_gets_a_grey_picture() -> None:
    made = maximise(small_cnn(size=28, channels=1), classes=["0"], steps=5)
    assert made.drawn[0].pixels.shape == (28, 28, 1)
    assert made.files()["class-0.png"].mode == "L"
    assert made.sheet().mode == "RGB"


def test_a_picture_that_does_not_rise_is_marked() -> None:
    flat = linear_net(np.zeros((3, 3, 16, 16), np.float32), np.zeros(3, np.float32))
    one = maximise(flat, classes=["0"], steps=3).drawn[0]
    assert one.stamps == ("the answer did not rise", "not recognised by the net")


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({}, "say what the pictures are for"),
        ({"layer": "act1"}, "say what the pictures are for"),
        ({"units": [1]}, "say what the pictures are for"),
        ({"classes": ["zebra"]}, "has no class 'zebra'"),
        ({"layer": "act9", "units": [0]}, "no layer 'act9'"),
        ({"layer": "act1", "units": [8]}, "units 0 to 7; there is no unit 8"),
        ({"layer": "act1", "units": [-1]}, "units 0 to 7; there is no unit -1"),
        ({"classes": ["0"], "steps": 0}, "at least 1 step; received 0"),
    ],
)
def test_what_cannot_be_made_is_refused(asked: dict, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        maximise(small_cnn(), **asked)


def test_a_net_that_answers_no_number_is_refused_and_not_drawn() -> None:
    subject = small_cnn()
    with torch.no_grad():
        subject.net.dense.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="answers nan for class 0"):
        maximise(subject, classes=["0"], steps=2)


def test_a_class_with_a_strange_name_makes_a_plain_file_name() -> None:
    net = small_cnn()
    subject = Subject("x", net.preprocessing, ("../a\x1b[31m", "b", "c"), net.build, net.weights)
    made = maximise(subject, classes=["0"], steps=1)
    assert set(made.files()) == {"sheet.png", "class-0.png", "class-0.npy"}
    assert "\x1b" not in made.to_text()


@pytest.mark.full
def test_the_default_net_recognises_its_own_pictures(ready_cache) -> None:
    from headstart.look.opening import open_subject

    made = maximise(open_subject("efficientnet-lite0"), classes=["207", "340"], steps=96)
    for one in made.drawn:
        assert one.probability >= 0.9
        assert one.left >= 0.7
