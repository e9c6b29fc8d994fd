"""Integrated gradients: closed forms, the sum, the budget, and what is said when it does not converge."""

import numpy as np
import pytest
import torch
from torch import nn

from headstart.backbones import open_backbone
from headstart.errors import UsageError
from headstart.explain.gradients import taken
from headstart.explain.integrated import BASELINES, baseline, integrate, integrated_gradients, slopes_at
from headstart.explain.subject import Subject
from small_subjects import SHAPES, asked, noise_photo, subject_for, subject_of_shape


@pytest.fixture(autouse=True)
def same_random_weights():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def silent(*_):
    pass


def along(function, slope):
    """A net of one number: its logit and its gradient on the way from 0 to 1."""
    taken_at = []

    def evaluate(places):
        taken_at.extend(places)
        return [function(a) for a in places], [torch.full((1, 1, 1), slope(a), dtype=torch.float64) for a in places]

    return evaluate, taken_at


WAY = torch.ones(1, 1, 1, dtype=torch.float64)


# --- closed forms -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", BASELINES)
def test_of_a_linear_net_it_is_the_weight_times_the_way_whatever_the_baseline(kind):
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 4)).double()
    nn.init.normal_(net[1].weight, generator=torch.Generator().manual_seed(0))
    subject = subject_for(net, side=8, classes=4)
    question = asked(subject, target=3, baseline=kind)
    x, base = taken(subject, question.photo.pixels), baseline(question, kind)
    wanted = net[1].weight[3].detach().reshape(3, 8, 8) * (x - base)[0]

    def evaluate(places):
        logits, slopes = slopes_at(subject, torch.cat([base + a * (x - base) for a in places]), 3)
        return logits.tolist(), list(slopes)

    mean = integrate(evaluate, (x - base)[0], 128, silent).mean
    assert float((mean * (x - base)[0] - wanted).abs().max()) <= 1e-10
    found = integrated_gradients(question)
    assert np.allclose(found.raw, wanted, rtol=1e-6)
    assert found.check.residual <= 1e-6
    assert found.parameters["gradients"] == 9
    assert found.stamps == ()


def test_a_polynomial_adds_up_to_its_rise():
    evaluate, _ = along(lambda a: a**4 - a, lambda a: 4 * a**3 - 1)
    evaluate_up, _ = along(lambda a: a**4 + a, lambda a: 4 * a**3 + 1)
    assert float(integrate(evaluate_up, WAY, 64, silent).mean) == pytest.approx(2, rel=0.02)
    # a rise of 0 is never close enough: all gradients are spent, and the sum is near 0 all the same
    nothing = integrate(evaluate, WAY, 64, silent)
    assert len(nothing.places) == 64
    assert float(nothing.mean) == pytest.approx(0, abs=0.01)


def test_a_steep_rise_at_the_beginning_is_found_where_even_steps_miss_it():
    """As of trained nets: most of the logit comes in the first hundredths of the way."""

    def rise(a):
        return 1 / (1 + np.exp(-(a - 0.03) / 0.002))

    def slope(a):
        return rise(a) * (1 - rise(a)) / 0.002

    evaluate, places = along(rise, slope)
    found = integrate(evaluate, WAY, 128, silent)
    target = rise(1.0) - rise(0.0)
    assert abs(float(found.mean) - target) <= 0.02 * target
    assert len(places) == len(set(places)) == len(found.places) < 64
    middles = (np.arange(64) + 0.5) / 64
    assert abs(np.mean([slope(a) for a in middles]) - target) > 0.1 * target


def test_a_sum_that_is_right_by_luck_does_not_count_as_converged():
    """The nine first places see a slope of 1, and so steep is the whole; between them it goes up and down."""

    def slope(a):
        return 1 + 40 * np.sin(8 * np.pi * a)

    def rise(a):
        return a - 40 / (8 * np.pi) * (np.cos(8 * np.pi * a) - 1)

    first = np.linspace(0, 1, 9)
    assert abs(np.diff(first) @ (slope(first)[1:] + slope(first)[:-1]) / 2 - (rise(1) - rise(0))) < 1e-9  # luck
    evaluate, places = along(rise, slope)
    found = integrate(evaluate, WAY, 1000, silent)
    assert len(places) > 64
    assert found.rough <= 0.1
    assert float(found.mean) == pytest.approx(1, rel=0.02)


# --- on nets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_it_adds_up_to_two_hundredths_within_its_gradients_or_the_picture_says_not(shape):
    subject = subject_of_shape(shape)
    for target in (0,) if shape == "lite" else (0, 3):
        found = integrated_gradients(asked(subject, target=target))
        x = taken(subject, noise_photo(subject).pixels)
        with torch.no_grad():
            rise = float(subject.net(x)[0, target] - subject.net(torch.zeros_like(x))[0, target])
        assert found.check.target == pytest.approx(rise, abs=1e-9)
        assert found.check.sum == pytest.approx(float(found.raw.astype(np.float64).sum()), abs=1e-4)
        assert found.parameters["gradients"] <= 128
        assert (found.check.residual <= 0.02) == (found.stamps == ()) == found.check.holds


def test_the_map_comes_close_to_that_of_five_hundred_even_steps():
    subject = subject_of_shape("alexnet")
    question = asked(subject)
    x = taken(subject, question.photo.pixels)
    total = torch.zeros_like(x)
    for chunk in ((torch.arange(500, dtype=x.dtype) + 0.5) / 500).split(50):
        total += slopes_at(subject, chunk[:, None, None, None] * x, 1)[1].sum(0, keepdim=True)
    wanted = (total / 500 * x)[0].numpy()
    found = integrated_gradients(question)
    assert np.corrcoef(found.raw.reshape(-1), wanted.reshape(-1))[0, 1] > 0.98


def test_too_few_gradients_are_marked_on_the_picture_with_what_is_missing():
    found = integrated_gradients(asked(subject_of_shape("lite"), gradients=2))
    share = 100 * found.check.residual
    assert share > 2
    assert found.stamps == (f"not converged: {share:.1f} %",)
    assert not found.check.holds
    assert found.parameters["gradients"] == 2


@pytest.mark.parametrize("most", [2, 3, 9, 10, 17, 40])
def test_no_more_gradients_than_allowed_are_computed(most):
    evaluate, places = along(lambda a: np.sin(200 * a), lambda a: 200 * np.cos(200 * a))
    told = []
    integrate(evaluate, WAY, most, lambda *step: told.append(step))
    assert len(places) == most
    assert told[-1] == (most, most, "gradients")
    assert {0.0, 1.0} <= set(places)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"baseline": "white"}, "unknown baseline 'white'; choose one of: grey, black, blur"),
        ({"gradients": 1}, "take 2 to 10,000 gradients, not 1"),
        ({"gradients": 2.5}, "not 2.5"),
        ({"gradients": True}, "not True"),
    ],
)
def test_settings_out_of_range_are_refused(settings, words):
    with pytest.raises(UsageError, match=words):
        integrated_gradients(asked(subject_of_shape("lenet"), **settings))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_baselines_are_what_they_are_called(channels):
    subject = subject_for(nn.Identity(), side=40, channels=channels)
    question = asked(subject)
    assert not baseline(question, "grey").any()
    assert torch.allclose(baseline(question, "black"), torch.tensor(-127 / 60))
    blurred, photo = baseline(question, "blur"), subject.normalised(question.photo.pixels)
    assert blurred.shape == photo.shape == (1, channels, 40, 40)
    steps = [float(picture.diff(dim=3).abs().mean()) for picture in (blurred, photo)]
    assert steps[0] < 0.25 * steps[1]
    assert float(blurred.mean()) == pytest.approx(float(photo.mean()), abs=0.2)


# --- another program, and the default backbone ------------------------------------------------


@pytest.mark.parametrize("shape", ["vgg", "resnet", "lite"])
def test_captum_with_many_steps_agrees(shape):
    attr = pytest.importorskip("captum.attr")
    subject = subject_of_shape(shape)
    question = asked(subject, gradients=200)
    x = taken(subject, question.photo.pixels)
    theirs = attr.IntegratedGradients(subject.net).attribute(
        x, torch.zeros_like(x), target=1, n_steps=200, method="riemann_middle", internal_batch_size=50
    )
    ours = integrated_gradients(question).raw
    assert np.corrcoef(ours.reshape(-1), theirs.detach().numpy().reshape(-1))[0, 1] > 0.98


@pytest.mark.full
def test_on_the_default_backbone_three_photos_add_up_within_128_gradients(shared_data):
    backbone = open_backbone("efficientnet-lite0")
    net = backbone.net()
    names = tuple(map(str, range(1000)))
    subject = Subject("lite0", backbone.preprocessing, names, lambda: net, "0" * 64)
    for path in sorted((shared_data / "ants_bees" / "val" / "bees").glob("*.jpg"))[:3]:
        photo = subject.photo(path)
        question = asked(subject)
        question = type(question)(subject, photo, int(net(subject.normalised(photo.pixels)).argmax()))
        found = integrated_gradients(question)
        assert found.parameters["gradients"] <= 128
        assert found.check.residual <= 0.02 or found.stamps
