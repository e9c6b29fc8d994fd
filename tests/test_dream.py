"""Deep dreams: a layer answers more strongly, the photo keeps its shape, and the net is left alone."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.errors import ShapeError, UsageError, WeightsError
from headstart.explain.subject import Photo, Subject
from headstart.images import decode
from headstart.look.dream import STRIDE, dream
from look_subjects import MEAN, STD, Chain, photo_of, seeded, small_cnn, subject_of_net, traces


def wide_photo(subject: Subject, width: int = 90, height: int = 60) -> Photo:
    pixels = np.random.default_rng(3).integers(40, 215, (height, width, 3)).astype(np.uint8)
    picture = decode(pixels, name="wide")
    crop = subject.preprocessing.crop_box(width, height)
    return Photo("folder/wide.png", picture, subject.preprocessing.apply(picture), crop)


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def mean_square_by_hand(subject: Subject, pixels: np.ndarray, layers: list[str]) -> float:
    x = torch.from_numpy((pixels.astype(np.float32).transpose(2, 0, 1)[None] - MEAN) / STD)
    with torch.no_grad():
        for name in layers:
            x = subject.net.get_submodule(name)(x)
    return float(x.square().mean())


def test_the_layer_answers_more_strongly_and_the_numbers_are_true_of_what_is_saved() -> None:
    subject = small_cnn()
    made = dream(subject, wide_photo(subject), "conv2", side=60)
    assert made.pixels.shape == made.before.shape == (40, 60, 3)
    stored = np.array(made.files()["dream.png"])
    below = ["conv1", "norm1", "act1", "pool", "conv2"]
    for pixels, told in zip((made.before, stored), made.strengths, strict=True):
        assert told == pytest.approx(mean_square_by_hand(subject, pixels, below), rel=1e-5)
    assert made.strengths[1] > 1.5 * made.strengths[0]
    assert np.array_equal(stored, np.rint(made.raw).astype(np.uint8))


def test_what_the_net_sees_is_told_of_the_middle_square_as_prepared_for_any_photo() -> None:
    subject = small_cnn()
    made = dream(subject, wide_photo(subject), "conv2", side=60, octaves=1, steps=2)
    for pixels, (label, share) in zip((made.before, made.pixels), made.answers, strict=True):
        square = np.asarray(Image.fromarray(pixels).resize((32, 32), Image.Resampling.BILINEAR, box=(10, 0, 50, 40)))
        x = torch.from_numpy((square.astype(np.float32).transpose(2, 0, 1)[None] - MEAN) / STD)
        with torch.no_grad():
            shares = torch.softmax(subject.net(x)[0].double(), 0).numpy()
        assert label == f"class {shares.argmax()}"
        assert share == pytest.approx(shares.max(), abs=1e-5)


def test_one_step_follows_the_gradient_by_so_many_grey_levels_of_the_mean_pixel() -> None:
    # a layer that is the input itself: the gradient of the mean square is the normalised picture, times a constant
    same = nn.Conv2d(3, 3, 1, bias=False)
    net = Chain(same=same, relu=nn.ReLU(), gap=nn.AdaptiveAvgPool2d(1), flat=nn.Flatten())
    with torch.no_grad():
        net.same.weight.copy_(torch.eye(3)[:, :, None, None])
    subject = subject_of_net(net, 32)
    photo = photo_of(subject)
    made = dream(subject, photo, "same", side=32, octaves=1, steps=1)
    before = made.before.astype(np.float64)
    uphill = (before - MEAN) / STD
    expected = before + STRIDE * uphill / np.abs(uphill).mean()
    np.testing.assert_allclose(made.raw, np.clip(expected, 0, 255), atol=1e-3)


def test_the_same_seed_gives_the_same_bytes_and_another_does_not() -> None:
    subject = small_cnn()
    photo = wide_photo(subject)
    first, again, other = (dream(subject, photo, "act2", side=48, steps=3, seed=seed) for seed in (0, 0, 1))
    assert first.raw.tobytes() == again.raw.tobytes() != other.raw.tobytes()
    assert png(first.sheet()) == png(again.sheet())


def test_the_net_and_the_random_numbers_are_left_as_they_were_also_when_it_fails() -> None:
    subject = small_cnn()
    photo = wide_photo(subject)
    before = traces(subject)
    dream(subject, photo, "conv2", side=40, octaves=2, steps=1)
    assert traces(subject) == before

    def fail(_done: int, _of: int, _what: str) -> None:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        dream(subject, photo, "conv2", side=40, octaves=1, steps=1, step=fail)
    assert traces(subject) == before


def test_an_interrupt_keeps_what_there_is_at_the_full_size() -> None:
    def stop(done: int, _of: int, _what: str) -> None:
        if done == 5:
            raise KeyboardInterrupt

    subject = small_cnn()
    made = dream(subject, wide_photo(subject), "conv2", side=60, octaves=3, steps=4, step=stop)
    assert made.stamps == ("stopped after 5 of 12 steps",)
    assert made.pixels.shape == (40, 60, 3)
    assert np.abs(made.pixels.astype(int) - made.before).max() > 0


def test_a_grey_net_dreams_in_grey() -> None:
    subject = small_cnn(size=28, channels=1)
    made = dream(subject, photo_of(subject), "conv2", octaves=1, steps=2)
    assert made.pixels.shape == (36, 36, 1)
    assert made.files()["dream.png"].mode == "L"
    assert made.sheet().mode == "RGB"


def test_octaves_are_as_many_as_are_large_enough_for_the_net() -> None:
    subject = small_cnn()
    # 41 px is 9/7 of 32; 41, 29, 21 px are at least 45 % of 32, and 15 px is 47 % of it
    assert dream(subject, wide_photo(subject), "conv1", steps=1).asked == 4
    assert dream(subject, wide_photo(subject), "conv1", side=14, steps=1).asked == 1


@pytest.mark.parametrize(
    ("layer", "settings", "said"),
    [
        ("dense", {}, "gives no maps"),
        ("conv9", {}, "no layer 'conv9'"),
        ("conv1", {"side": 0}, "side of 1 to 4096"),
        ("conv1", {"side": 5000}, "side of 1 to 4096"),
        ("conv1", {"steps": 0}, "a step at least"),
        ("conv1", {"octaves": 0}, "an octave"),
    ],
)
def test_what_cannot_be_dreamed_is_refused(layer: str, settings: dict, said: str) -> None:
    subject = small_cnn()
    with pytest.raises(UsageError, match=said):
        dream(subject, photo_of(subject), layer, **settings)


def test_a_photo_too_small_for_the_layers_says_what_to_do() -> None:
    net = seeded(lambda: Chain(conv=nn.Conv2d(3, 4, 11, stride=4), act=nn.ReLU(), pool=nn.MaxPool2d(3)))
    subject = subject_of_net(net, 64)
    with pytest.raises(ShapeError, match=r"cannot take a photo of 12 x 12 px .* larger side, or fewer octaves"):
        dream(subject, photo_of(subject), "pool", side=12, octaves=1)


def test_a_layer_of_no_numbers_is_refused_and_not_drawn() -> None:
    subject = small_cnn()
    with torch.no_grad():
        subject.net.conv1.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="conv1 of a small net gives nan"):
        dream(subject, photo_of(subject), "conv1", side=32, octaves=1, steps=1)


@pytest.mark.full
def test_the_default_net_dreams_of_a_photo(shared_data, ready_cache) -> None:
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    photo = subject.photo(sorted((shared_data / "ants_bees" / "val" / "ants").glob("*.jpg"))[3])
    made = dream(subject, photo, "stage5")
    assert max(made.pixels.shape) == 288
    assert made.strengths[1] > 2 * made.strengths[0]
