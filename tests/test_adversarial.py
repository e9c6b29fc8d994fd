"""The smallest changes that were found, against closed forms of linear nets and slow loops; noise as the comparison."""

import io

import numpy as np
import pytest
import torch

from headstart.errors import UsageError, WeightsError
from headstart.look.adversarial import DRAWS, LARGEST, OVERSHOOT, adversarial, shortest
from look_subjects import MEAN, STD, linear_net, photo_of, small_cnn, traces


def linear_case(gap: float, seed: int = 0, classes: int = 3, size: int = 12):
    """A linear net, a photo, and the logits by hand; class 0 leads the next by `gap`."""
    random = np.random.default_rng(seed)
    weight = random.normal(0, 0.1, (classes, 3, size, size)).astype(np.float32)
    photo = photo_of(linear_net(weight, np.zeros(classes, np.float32)), seed)
    x = (photo.pixels.astype(np.float64).transpose(2, 0, 1) - MEAN) / STD
    raw = (weight.astype(np.float64) * x).sum(axis=(1, 2, 3))
    wanted = np.array([gap, 0.0, *[-0.3 * gap] * (classes - 2)])
    return linear_net(weight, (wanted - raw).astype(np.float32)), photo, weight.astype(np.float64), wanted


def png(picture) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


def label_by_hand(subject, pixels: np.ndarray) -> int:
    x = (pixels.astype(np.float32).transpose(2, 0, 1)[None] - MEAN) / STD
    with torch.no_grad():
        return int(subject.net(torch.from_numpy(x))[0].argmax())


def test_the_shortest_change_of_a_linear_net_is_the_distance_to_the_nearest_plane() -> None:
    subject, photo, weight, logits = linear_case(gap=6.0)
    distances = []
    for other in (1, 2):
        slope = (weight[other] - weight[0]) / STD  # of the difference of logits, by grey level
        distances.append((logits[0] - logits[other]) / np.sqrt(np.square(slope).sum()))
    found = adversarial(subject, [photo]).flips[0].shortest
    expected = (1 + OVERSHOOT) * min(distances) / np.sqrt(photo.pixels.size)
    assert found.exact == pytest.approx(expected, rel=2e-3)
    assert found.label == f"class {1 + int(np.argmin(distances))}"


def test_the_smallest_step_of_a_linear_net_is_the_gap_over_the_sum_of_the_slopes() -> None:
    subject, photo, weight, logits = linear_case(gap=6.0)
    sign = -np.sign(weight[0])  # away from the class, as the gradient of its logit says
    steps = [
        (logits[0] - logits[other]) / ((weight[other] - weight[0]) * sign / STD).sum()
        for other in (1, 2)
        if ((weight[other] - weight[0]) * sign).sum() > 0
    ]
    found = adversarial(subject, [photo]).flips[0].signs
    assert found.exact == pytest.approx(min(steps), rel=2e-3)


def test_the_whole_grey_level_that_is_told_is_the_smallest_one_of_a_slow_loop() -> None:
    for seed in range(3):
        subject, photo, weight, _ = linear_case(gap=4.0 + 3 * seed, seed=seed)
        away = -np.sign(weight[0]).transpose(1, 2, 0)
        step = 0
        while True:
            step += 1
            tried = np.clip(photo.pixels + step * away, 0, 255).round().astype(np.uint8)
            if label_by_hand(subject, tried) != 0:
                break
        found = adversarial(subject, [photo]).flips[0].signs
        assert found.largest == step
        assert np.array_equal(found.pixels, tried)


@pytest.mark.parametrize("channels", [3, 1])
def test_what_is_told_is_true_of_the_photos_that_are_saved(channels: int) -> None:
    subject = small_cnn(channels=channels, seed=2)
    photo = photo_of(subject)
    made = adversarial(subject, [photo])
    flip, files = made.flips[0], made.files()
    now = label_by_hand(subject, photo.pixels)
    assert flip.label == f"class {now}"
    found = [change for change in (flip.signs, flip.shortest) if change is not None]
    assert found
    for change in found:
        stored = np.array(files[f"000-{change.kind}.png"]).reshape(photo.pixels.shape)
        other = label_by_hand(subject, stored)
        assert other != now
        assert change.label == f"class {other}"
        difference = stored.astype(float) - photo.pixels
        assert change.largest == np.abs(difference).max()
        assert change.typical == pytest.approx(np.sqrt(np.mean(difference**2)))
        assert change.relative == pytest.approx(
            np.linalg.norm(difference) / np.linalg.norm(photo.pixels.astype(float)), rel=1e-6
        )
        assert np.array_equal(files[f"000-{change.kind}.npy"], difference.astype(np.float32))


def test_the_shortest_is_shorter_than_equal_steps() -> None:
    subject, photo, _, _ = linear_case(gap=6.0)
    flip = adversarial(subject, [photo]).flips[0]
    assert flip.shortest.typical <= flip.signs.typical


def test_noise_is_counted_as_a_slow_loop_counts_it() -> None:
    subject, photo, _, _ = linear_case(gap=4.0)
    flip = adversarial(subject, [photo], seed=5).flips[0]
    draws = np.random.default_rng(5).choice(np.array([-1.0, 1.0], np.float32), (DRAWS, *photo.pixels.shape))

    def turned(size: int) -> int:
        tried = [np.clip(photo.pixels + size * draw, 0, 255).astype(np.uint8) for draw in draws]
        return sum(label_by_hand(subject, one) != 0 for one in tried)

    assert flip.noise == turned(flip.signs.largest)
    assert flip.noisy.probability > 0
    expected = next((2**k for k in range(8) if turned(2**k) >= DRAWS / 2), None)
    assert flip.noise_size == expected


def test_noise_needs_a_larger_size_than_the_gradient() -> None:
    subject, photo, _, _ = linear_case(gap=6.0, size=24)
    flip = adversarial(subject, [photo]).flips[0]
    assert (flip.noise_size or 256) >= 4 * flip.signs.largest


def test_a_net_that_nothing_moves_says_that_no_change_was_found() -> None:
    subject = linear_net(np.zeros((3, 3, 12, 12), np.float32), np.array([1.0, 0.0, 0.0], np.float32))
    photo = photo_of(subject)
    made = adversarial(subject, [photo])
    flip = made.flips[0]
    assert (flip.signs, flip.shortest, flip.noise, flip.noise_size) == (None, None, 0, None)
    assert f"none up to {LARGEST} grey levels" in made.to_text()
    assert made.sheets()["000.png"].width > 900
    assert set(made.files()) == {"000.png"}
    assert shortest(subject, photo.pixels, 0) is None


def test_the_median_of_photos_without_a_change_is_larger_than_all() -> None:
    subject = linear_net(np.zeros((3, 3, 12, 12), np.float32), np.array([1.0, 0.0, 0.0], np.float32))
    made = adversarial(subject, [photo_of(subject), photo_of(subject, 1)])
    assert "signs more than 64, shortest more than 64" in made.summary()
    assert "random signs more than 128" in made.to_text().splitlines()[-1]


def test_the_same_seed_gives_the_same_bytes() -> None:
    subject, photo, _, _ = linear_case(gap=3.0)
    first, again = adversarial(subject, [photo]), adversarial(subject, [photo])
    for name, content in first.files().items():
        other = again.files()[name]
        assert content.tobytes() == other.tobytes() if isinstance(content, np.ndarray) else png(content) == png(other)
    assert first.to_json()["photos"] == again.to_json()["photos"]


def test_the_net_and_the_random_numbers_are_left_as_they_were_also_when_it_fails() -> None:
    subject = small_cnn()
    before = traces(subject)
    adversarial(subject, [photo_of(subject)])
    assert traces(subject) == before

    def fail(_done: int, _of: int, _what: str) -> None:
        raise ValueError("full")

    with pytest.raises(ValueError, match="full"):
        adversarial(subject, [photo_of(subject)], step=fail)
    assert traces(subject) == before


def test_an_interrupt_keeps_the_photos_that_are_done(monkeypatch: pytest.MonkeyPatch) -> None:
    subject, photo, _, _ = linear_case(gap=3.0)
    from headstart.look import adversarial as module

    true, calls = module._flip, []

    def flip(*given):
        calls.append(given)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return true(*given)

    monkeypatch.setattr(module, "_flip", flip)
    assert len(adversarial(subject, [photo] * 3).flips) == 1
    calls[:] = [None]
    with pytest.raises(KeyboardInterrupt):
        adversarial(subject, [photo])


def test_no_photo_and_no_numbers_are_refused() -> None:
    subject = small_cnn()
    with pytest.raises(UsageError, match="no photo to change"):
        adversarial(subject, [])
    with torch.no_grad():
        subject.net.dense.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="no number"):
        adversarial(subject, [photo_of(subject)])


@pytest.mark.full
def test_photos_of_the_default_net_turn_with_few_grey_levels_and_not_by_noise(shared_data, ready_cache) -> None:
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    paths = sorted((shared_data / "ants_bees" / "val").rglob("*.jpg"))[3::50][:3]
    made = adversarial(subject, [subject.photo(path) for path in paths])
    for flip in made.flips:
        assert flip.shortest.typical < 2
        assert (flip.noise_size or 256) >= 8
