"""What is said of maps, on nets and pictures whose truth is known: colours are the classes."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch import nn

from headstart.errors import DataError, UsageError
from headstart.explain.explanation import Asked, Check, Found, Method
from headstart.explain.subject import Photo, Subject
from headstart.look.curves import (
    BASELINES,
    Curves,
    area_under,
    blurred,
    centre,
    chance,
    curves,
    edges,
    map_order,
    order_of,
)
from headstart.look.material import gather
from headstart.look.mosaic import (
    Sure,
    draw_mosaics,
    evidence,
    known_small,
    made_photo,
    mosaic,
    paste,
    pointed,
    pointing,
)
from headstart.look.randomise import cascade, sanity, spearman, verdict
from headstart.look.trust import Mean, mean_of, trust
from headstart.look.writing import save_look
from headstart.nets import build_net
from headstart.preprocess import Preprocessing

SIDE = 32
COLOURS = {"blue": (20, 20, 230), "green": (20, 230, 20), "red": (230, 20, 20), "white": (235, 235, 235)}


class ColourNet(nn.Module):
    """Its logits are means of maps: how much of a class's colour a place has."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 12, 1)
        self.act = nn.ReLU()
        self.last = nn.Linear(12, len(names))
        levels = torch.tensor([COLOURS[name] for name in names]).float().sub(127).div(128)
        with torch.no_grad():
            self.conv.weight.zero_()
            self.conv.bias.zero_()
            self.last.weight.zero_()
            self.last.bias.zero_()
            for place, level in enumerate(levels):
                self.conv.weight[place, :, 0, 0] = level
                self.conv.bias[place] = -1.7 if level.sum() < 0 else -1.5  # rectified: only near its own colour
                self.last.weight[place, place] = 40.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.act(self.conv(x)).mean(dim=(2, 3)))


def colour_subject(names: tuple[str, ...] = tuple(COLOURS)) -> Subject:
    net = ColourNet(names)
    return Subject("colours", Preprocessing(SIDE, 1.0, (127.0,) * 3, (128.0,) * 3), names, lambda: net, "colours")


def colour_map(asked: Asked) -> Found:
    """The class activation map of `ColourNet`, by the definition."""
    net = asked.subject.net
    x = asked.subject.normalised(asked.photo.pixels)
    maps = torch.einsum("c,chw->hw", net.last.weight[asked.target], net.act(net.conv(x))[0])
    total = float(maps.mean() + net.last.bias[asked.target])
    logit = float(asked.subject.logits([asked.photo.pixels])[0, asked.target])
    return Found(maps.detach().numpy(), check=Check(total, logit, "mean + bias = logit"))


def bright_map(asked: Asked) -> Found:
    """Edges of the photo: nothing of the net, nothing of the class."""
    return Found(edges(asked.photo.pixels, 0).astype(np.float32), stamps=("an edge filter: by hand",))


def refusing(asked: Asked) -> Found:
    raise UsageError("this net has no such thing; use another")


COLOUR = Method("colour", "Colours", colour_map, "", signed=True, exact_identity=True)
EDGES = Method("edges", "Edges", bright_map, "", class_specific=False)
REFUSING = Method("refusing", "Refusing", refusing, "")


def colour_photo(name: str, seed: int = 0) -> Photo:
    random = np.random.default_rng(seed)
    pixels = np.clip(np.array(COLOURS[name]) + random.integers(-15, 16, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)
    return made_photo(f"{name} {seed}", pixels)


def sure_photos(names: tuple[str, ...], each: int = 3) -> list[Sure]:
    return [Sure(colour_photo(name, seed), place, 0.9) for place, name in enumerate(names) for seed in range(each)]


@pytest.fixture
def colour_folder(tmp_path: Path) -> Callable[..., Path]:
    def make(*names: str, each: int = 4) -> Path:
        for name in names:
            (tmp_path / "data" / name).mkdir(parents=True)
            for seed in range(each):
                pixels = colour_photo(name, seed).pixels
                Image.fromarray(pixels).save(tmp_path / "data" / name / f"{seed}.png")
        return tmp_path / "data"

    return make


# shuffling


@pytest.mark.parametrize("levels", [3, 1000])
def test_the_rank_correlation_is_the_one_of_scipy_ties_and_all(levels: int) -> None:
    random = np.random.default_rng(levels)
    for _ in range(20):
        first = random.integers(0, levels, 60).astype(np.float64)
        second = first * random.choice([-1, 1]) + random.integers(0, levels, 60)
        assert spearman(first, second) == pytest.approx(stats.spearmanr(first, second).statistic, abs=1e-12)


def test_a_constant_map_has_no_rank_correlation() -> None:
    assert math.isnan(spearman(np.ones(5), np.arange(5.0)))
    assert math.isnan(spearman(np.array([1.0, math.inf]), np.arange(2.0)))
    assert verdict(math.nan) == "constant"


def lenet() -> Subject:
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = build_net("lenet", 4)
    size, _, channels = net.input_size
    levels = (127.0,) * channels
    return Subject("lenet", Preprocessing(size, 1.0, levels, levels), ("a", "b", "c", "d"), lambda: net, "lenet")


def weights_of(subject: Subject) -> dict[str, np.ndarray]:
    return {name: value.numpy().copy() for name, value in subject.net.state_dict().items()}


def test_shuffling_goes_down_from_the_last_layer_and_only_puts_entries_in_another_order() -> None:
    subject = lenet()
    before, last = weights_of(subject), None
    weighted = [name for name in before if name.endswith("weight")]
    depth = 0
    for _part, shuffled in cascade(subject, seed=3):
        now = weights_of(shuffled)
        changed = {name for name in weighted if not np.array_equal(now[name], before[name])}
        depth += 1
        assert changed == set(weighted[-depth:])
        assert all(np.array_equal(np.sort(now[name], axis=None), np.sort(before[name], axis=None)) for name in before)
        if last is not None:
            assert all(np.array_equal(now[name], last[name]) for name in weighted[-depth + 1 :])
        last = now
    assert depth == len(weighted) == 5
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(subject).items())


def test_another_seed_shuffles_otherwise_and_the_same_seed_the_same() -> None:
    subject = lenet()
    once, again, other = (weights_of(next(cascade(subject, seed))[1]) for seed in (1, 1, 2))
    assert all(np.array_equal(once[name], again[name]) for name in once)
    assert any(not np.array_equal(once[name], other[name]) for name in once)


def test_a_map_of_edges_survives_every_shuffling_and_a_map_of_weights_does_not() -> None:
    subject = colour_subject()
    photos = [(mosaic(subject, sure_photos(tuple(COLOURS), 1)).photo, target) for target in range(4)]
    levels = sanity(subject, photos, [COLOUR, EDGES], seed=0, depths=None)
    assert [level.name for level in levels] == ["last", "conv"]
    assert all(level.mean("edges") == pytest.approx(1.0) for level in levels)
    assert verdict(levels[0].mean("edges")) == "not class-specific"
    assert all(not level.mean("colour") > 0.9 for level in levels)  # nothing left of a class's place: NaN, or low


def test_the_head_of_a_pretrained_net_is_shuffled_first_and_the_net_below_stays(ready_cache: Path) -> None:
    from headstart.explain.cam import cam
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    assert subject.classifier is not None
    head = {name: value.copy() for name, value in subject.classifier.head.tensors.items()}
    photo = subject.photo(np.random.default_rng(0).integers(0, 256, (240, 300, 3), np.uint8))
    random = torch.get_rng_state()
    asked = Asked(subject, photo, 207)
    before = cam(asked)
    levels = cascade(subject, seed=0)
    name, shuffled = next(levels)
    after = cam(Asked(shuffled, photo, 207))
    assert name == "last layer"
    assert shuffled.classifier is not None
    kept = shuffled.classifier.backbone.tensors()
    assert all(np.array_equal(value, kept[key]) for key, value in subject.classifier.backbone.tensors().items())
    assert after.check is not None
    assert after.check.holds  # the identity is of the head, whatever its weights
    assert not np.allclose(before.raw, after.raw)
    name, deeper = next(levels)
    assert name == "head"
    through_torch = deeper.outputs([photo.pixels], ("head_map",))["head_map"]
    assert not np.allclose(through_torch, subject.outputs([photo.pixels], ("head_map",))["head_map"], atol=1e-2)
    assert all(np.array_equal(value, head[key]) for key, value in subject.classifier.head.tensors.items())
    assert torch.equal(random, torch.get_rng_state())
    subject.close()


# mosaics


def test_a_mosaic_shows_each_photo_in_its_quarter_and_says_so() -> None:
    subject = colour_subject()
    made = mosaic(subject, [Sure(colour_photo(name), place, 1.0) for place, name in enumerate(COLOURS)])
    half = SIDE // 2
    for place, name in enumerate(COLOURS):
        rows, columns = (
            slice(place // 2 * half, place // 2 * half + half),
            slice(place % 2 * half, place % 2 * half + half),
        )
        area = np.zeros((SIDE, SIDE), bool)
        area[rows, columns] = True
        assert np.array_equal(made.areas[place], area)
        assert np.abs(made.photo.pixels[rows, columns].mean(axis=(0, 1)) - COLOURS[name]).max() < 3
    assert np.array_equal(made.photo.picture.pixels, made.photo.pixels)


def test_a_tile_is_the_photo_at_half_its_size_without_aliasing() -> None:
    subject = colour_subject()
    stripes = np.zeros((SIDE, SIDE, 3), np.uint8)
    stripes[::2] = 200  # rows of one pixel: at half the size only their mean is left
    made = mosaic(subject, [Sure(made_photo("stripes", stripes), place, 1.0) for place in range(4)])
    assert np.abs(made.photo.pixels[2:14, 2:14].astype(float) - 100).max() <= 30


@pytest.mark.parametrize(("classes", "parts"), [(4, 4), (3, 3), (2, 2)])
def test_every_mosaic_has_as_many_classes_as_there_are_and_they_fill_it(classes: int, parts: int) -> None:
    names = tuple(COLOURS)[:classes]
    made = draw_mosaics(colour_subject(names), sure_photos(names), 12, seed=1)
    assert len(made) == 12
    for one in made:
        assert len(one.areas) == parts
        assert np.array_equal(sum(area.astype(int) for area in one.areas.values()), np.ones((SIDE, SIDE), int))
        tiles = one.photo.name.removeprefix("mosaic of ").split(", ")
        assert len(set(tiles)) == 4
    if classes == 2:
        assert all(area.mean() == 0.5 for one in made for area in one.areas.values())
    again = draw_mosaics(colour_subject(names), sure_photos(names), 12, seed=1)
    assert all(np.array_equal(one.photo.pixels, two.photo.pixels) for one, two in zip(made, again, strict=True))
    assert len({one.photo.name for one in made}) > 1


def test_of_more_than_four_classes_all_come_up() -> None:
    subject = colour_subject()
    photos = [Sure(colour_photo("red", seed), seed, 1.0) for seed in range(9)]
    made = draw_mosaics(subject, photos, 40)
    assert {target for one in made for target in one.areas} == set(range(9))


def test_only_photos_that_the_net_knows_at_half_the_size_are_mixed() -> None:
    subject = colour_subject()
    weak = colour_photo("red", 5)
    faint = made_photo("faint", (weak.pixels * 0.5 + 127 * 0.5).astype(np.uint8))
    photos = [*sure_photos(tuple(COLOURS), 1), Sure(faint, 2, 0.9)]
    assert [one.photo.name for one in known_small(subject, photos)] == [one.photo.name for one in photos[:4]]


def test_of_four_kinds_that_are_no_classes_of_the_net_every_mosaic_has_one_each() -> None:
    photos = [Sure(colour_photo("red", 10 * kind + seed), seed, 1.0, kind) for kind in range(4) for seed in range(5)]
    of = {one.photo.name: one.kind for one in photos}
    for made in draw_mosaics(colour_subject(), photos, 20):
        tiles = made.photo.name.removeprefix("mosaic of ").split(", ")
        assert {of[name] for name in tiles} == {0, 1, 2, 3}


@pytest.mark.parametrize("photos", [[], sure_photos(("blue",), 8), sure_photos(("blue", "red"), 1)])
def test_too_few_photos_or_classes_for_a_mosaic_are_counted(photos: list[Sure]) -> None:
    with pytest.raises(UsageError, match=f"there are {len(photos)} of"):
        draw_mosaics(colour_subject(), photos, 2)


def test_a_perfect_map_points_right_and_a_blind_one_as_chance_has_it() -> None:
    subject = colour_subject()
    made = draw_mosaics(subject, sure_photos(tuple(COLOURS)), 10)
    perfect = pointing(subject, made, COLOUR)
    assert perfect.right.all()
    assert perfect.mass.min() > 0.95
    assert (perfect.chance == 0.25).all()
    flat = Method("flat", "Flat", lambda asked: Found(np.ones((SIDE, SIDE), np.float32)), "")
    assert pointing(subject, made, flat).mass == pytest.approx(np.full(40, 0.25))
    empty = Method("empty", "Empty", lambda asked: Found(-np.ones((3, 3), np.float32)), "")
    nowhere = pointing(subject, made, empty)
    assert not nowhere.right.any()
    assert not nowhere.mass.any()


def test_pointing_by_hand() -> None:
    values = np.array([[1.0, 2.0], [4.0, 3.0]])
    area = np.array([[False, False], [True, True]])
    assert pointed(values, area) == (True, 0.7)
    assert pointed(values, ~area) == (False, pytest.approx(0.3))


def test_what_speaks_for_a_class_is_above_0_of_a_grid_and_any_size_of_pixels() -> None:
    grid = np.array([[-2.0, 4.0], [0.0, 8.0]], np.float32)
    assert np.array_equal(evidence(grid, 2), [[0, 4], [0, 8]])
    assert evidence(grid, 32).shape == (32, 32)
    assert evidence(grid, 32).min() == 0
    pixels = np.stack([grid, -3 * grid, 0 * grid])
    assert np.array_equal(evidence(pixels, 2), [[6, 12], [0, 24]])


def test_a_pasted_photo_lies_in_its_area_on_grey_anywhere() -> None:
    subject = colour_subject()
    random, places = np.random.default_rng(0), set()
    for _ in range(200):
        made = paste(subject, Sure(colour_photo("red"), 2, 1.0), random)
        area = made.areas[2]
        assert area.sum() == round(SIDE * 96 / 224) ** 2
        assert (made.photo.pixels[~area] == 127).all()
        assert np.abs(made.photo.pixels[area].mean(axis=0) - COLOURS["red"]).max() < 4
        places.add(tuple(np.argwhere(area)[0]))
    assert {place[0] for place in places} == set(range(SIDE - 14 + 1))


# deletion and insertion


def test_the_area_under_a_curve_is_that_of_its_trapezoids() -> None:
    points = np.random.default_rng(0).random(15)
    assert area_under(points) == pytest.approx(np.trapezoid(points, dx=1 / 14))
    assert Curves(np.zeros(3), np.ones(3)).gain == 1.0


def test_the_curves_are_those_of_a_naive_loop() -> None:
    subject, photo = colour_subject(), mosaic(colour_subject(), sure_photos(tuple(COLOURS), 1)).photo
    values = colour_map(Asked(subject, photo, 1)).raw
    order = map_order(values, SIDE)
    found = curves(subject, photo, 1, {"map": order, "back": order[::-1].copy()}, steps=5)
    ranked = sorted(range(SIDE * SIDE), key=lambda place: -values.reshape(-1)[place])
    soft = blurred(photo.pixels)
    for step in (0, 1, 5):
        threshold = values.reshape(-1)[ranked[min(round(SIDE * SIDE * step / 5), SIDE * SIDE - 1)]]
        if step == 1:  # equal values are in any order: nothing may depend on it
            assert (values > threshold).sum() <= round(SIDE * SIDE / 5)
        for name, whole in (("map", order), ("back", order[::-1])):
            out, back = photo.pixels.copy(), soft.copy()
            for place in whole[: round(SIDE * SIDE * step / 5)]:
                y, x = divmod(int(place), SIDE)
                out[y, x], back[y, x] = 127, photo.pixels[y, x]
            both = subject.probabilities(subject.logits([out, back]))[:, 1]
            assert found[name].deletion[step] == pytest.approx(both[0], abs=1e-6)
            assert found[name].insertion[step] == pytest.approx(both[1], abs=1e-6)
    assert found["map"].gain > found["back"].gain + 0.2


def test_an_order_holds_every_pixel_once_from_the_largest_down() -> None:
    values = np.random.default_rng(0).integers(0, 5, (SIDE, SIDE)).astype(np.float64)
    order = order_of(values, SIDE)
    assert np.array_equal(np.sort(order), np.arange(SIDE * SIDE))
    assert (np.diff(values.reshape(-1)[order]) <= 0).all()
    ties = order_of(np.zeros((SIDE, SIDE)), SIDE)
    assert abs(np.corrcoef(ties, np.arange(SIDE * SIDE))[0, 1]) < 0.1


def test_the_order_of_a_map_is_by_size_of_pixels_and_by_value_of_a_grid() -> None:
    grid = np.array([[1.0, -9.0], [3.0, 2.0]], np.float32)
    assert map_order(grid, 2).tolist() == [2, 3, 0, 1]
    assert map_order(grid[None], 2).tolist() == [1, 2, 3, 0]


def test_edges_are_those_of_sobel_and_the_centre_is_the_middle() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    grey = pixels.astype(np.float64).mean(axis=2)
    theirs = np.hypot(ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest"))
    assert np.abs(edges(pixels, 0) - theirs).max() < 1e-9
    order = order_of(centre(pixels, 0), SIDE)
    distance = np.hypot(*(np.array(divmod(order, SIDE)) - (SIDE - 1) / 2))
    assert (np.diff(distance) >= -1e-9).all()
    assert len(np.unique(chance(pixels, 3))) == 49
    assert not np.array_equal(chance(pixels, 3), chance(pixels, 4))


def test_a_blur_keeps_the_mean_and_loses_the_detail() -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (64, 64, 1), np.uint8)
    soft = blurred(pixels).astype(np.float64)
    assert soft.mean() == pytest.approx(pixels.mean(), abs=2)
    assert soft.std() < pixels.std() / 4


# photos


def test_photos_are_those_the_net_is_right_and_sure_about_class_by_class(colour_folder: Callable[..., Path]) -> None:
    data = colour_folder("blue", "green", "red", each=5)
    Image.fromarray(colour_photo("red", 99).pixels).save(data / "blue" / "wrong.png")
    (data / "blue" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    material = gather(colour_subject(), data, 6)
    assert sorted(one.target for one in material.sure) == [0, 0, 1, 1, 2, 2]
    assert {one.target for one in material.sure[:3]} == {0, 1, 2}
    assert "wrong.png" not in {one.photo.name for one in material.sure}
    assert material.notes == ()
    assert len(gather(colour_subject(), data, 50).sure) == 15


def test_photos_without_labels_go_by_the_answer_of_the_net_and_that_is_said(tmp_path: Path) -> None:
    for name in COLOURS:
        Image.fromarray(colour_photo(name).pixels).save(tmp_path / f"{name}.png")
    for data in (tmp_path, sorted(tmp_path.glob("*.png")), [str(tmp_path)]):
        material = gather(colour_subject(), data, 4)
        assert {one.target for one in material.sure} == {0, 1, 2, 3}
        assert "no label is a class of the net" in material.notes[0]


def test_where_the_net_is_not_sure_the_most_probable_photos_stand_in(colour_folder: Callable[..., Path]) -> None:
    subject = colour_subject()
    with torch.no_grad():
        subject.net.last.weight.div_(400)  # right as before, and never sure
    material = gather(subject, colour_folder("blue", "red"), 4)
    assert len(material.sure) == 4
    assert "sure (probability 0.7 or more) of 0 of 8 photos" in material.notes[0]


# the table


def test_the_table_says_what_a_perfect_map_is_and_what_an_edge_filter_is(
    colour_folder: Callable[..., Path],
) -> None:
    data = colour_folder(*COLOURS)
    subject = colour_subject()
    result = trust(subject, data, [COLOUR, EDGES, REFUSING], photos=8)
    colour, edge, refused = result.judged
    assert colour.residual is not None
    assert colour.residual < 1e-5
    assert colour.holds
    assert colour.numbers["mosaic_peak"].value == 1.0
    assert colour.numbers["mosaic_mass"].value > 0.95
    assert colour.numbers["pasted_mass"].value > 0.95
    assert result.to_beat["mosaic_peak"]["chance"].value == 0.25
    assert edge.residual is None
    assert edge.numbers["sanity"].value == pytest.approx(1.0)
    assert edge.says == "not class-specific; an edge filter"
    assert edge.numbers["mosaic_mass"].value == pytest.approx(0.25, abs=0.05)
    assert edge.numbers["mosaic_peak"] == result.to_beat["mosaic_peak"]["edges"]
    assert edge.numbers["gain"].value == pytest.approx(result.to_beat["gain"]["edges"].value, abs=0.02)
    assert not refused.numbers
    assert "this net has no such thing" in refused.missing
    assert any("refusing cannot be measured" in note for note in result.notes)


def test_the_table_is_text_json_and_a_picture(colour_folder: Callable[..., Path]) -> None:
    result = trust(colour_subject(), colour_folder(*COLOURS), [COLOUR, EDGES, REFUSING], photos=4, seed=5)
    text = result.to_text()
    assert "colours on 4 photos of data (seed 5)" in text
    assert "mosaic: peak on its photo" in text
    assert "chance 0.25" in text
    told = json.loads(json.dumps(result.to_json(), allow_nan=False))
    assert [one["method"] for one in told["methods"]] == ["colour", "edges", "refusing"]
    assert told["methods"][0]["mosaic_peak"]["mean"] == 1.0
    sheet = result.sheet()
    assert sheet.width > 1000
    assert len(sheet.getcolors(1 << 24) or []) > 100
    assert {name: array.shape for name, array in result.files().items() if name.endswith(".npy")} == {
        "mosaic-colour.npy": (SIDE, SIDE),
        "mosaic-edges.npy": (SIDE, SIDE),
    }


def test_a_table_that_was_saved_can_be_replaced(colour_folder: Callable[..., Path], tmp_path: Path) -> None:
    result = trust(colour_subject(), colour_folder(*COLOURS), [COLOUR], photos=4)
    for _ in range(2):
        save_look(result, tmp_path / "saved", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        *("mosaic-colour.npy", "result.json", "trust.png"),
    ]


def test_the_same_seed_gives_the_same_bytes(colour_folder: Callable[..., Path]) -> None:
    data = colour_folder(*COLOURS)
    one, two = (trust(colour_subject(), data, [COLOUR, EDGES], photos=4, seed=7) for _ in range(2))
    assert json.dumps(one.to_json()) == json.dumps(two.to_json())
    assert one.sheet().tobytes() == two.sheet().tobytes()
    assert all(two.maps[name].tobytes() == values.tobytes() for name, values in one.maps.items())


def test_two_classes_are_mixed_two_and_two(colour_folder: Callable[..., Path]) -> None:
    result = trust(colour_subject(("blue", "red")), colour_folder("blue", "red"), [COLOUR], photos=6)
    assert result.to_beat["mosaic_peak"]["chance"].value == 0.5
    assert result.judged[0].numbers["mosaic_peak"].value == 1.0


def test_where_mosaics_cannot_be_made_the_rest_is_measured_and_the_reason_told(
    colour_folder: Callable[..., Path],
) -> None:
    result = trust(colour_subject(), colour_folder("blue"), [COLOUR], photos=4)
    assert "mosaic_peak" not in result.judged[0].numbers
    assert "pasted_peak" in result.judged[0].numbers
    assert any("mosaics cannot be measured" in note for note in result.notes)
    assert "–" in result.to_text()
    assert result.sheet().height > 200


def test_nothing_is_left_in_the_net(colour_folder: Callable[..., Path]) -> None:
    subject = colour_subject()
    subject.net.requires_grad_(False)
    before, random = weights_of(subject), torch.get_rng_state()
    trust(subject, colour_folder(*COLOURS), [COLOUR, "occlusion"], photos=4)
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(subject).items())
    assert torch.equal(random, torch.get_rng_state())
    assert all(not module._forward_hooks and not module.training for module in subject.net.modules())
    assert all(parameter.grad is None for parameter in subject.net.parameters())


def test_progress_goes_forward_within_each_part(colour_folder: Callable[..., Path]) -> None:
    told: list[tuple[int, int, str]] = []
    trust(colour_subject(), colour_folder(*COLOURS), [COLOUR], photos=4, step=lambda *words: told.append(words))
    assert all(0 < done <= of for done, of, _ in told)
    assert {"photos explained", "deletion and insertion"} <= {what for *_, what in told}


def test_wrong_calls_are_refused_in_words(colour_folder: Callable[..., Path], tmp_path: Path) -> None:
    data = colour_folder("blue", "red")
    with pytest.raises(UsageError, match="no method 'camm'; choose from: cam, "):
        trust(colour_subject(), data, ["camm"])
    with pytest.raises(UsageError, match="photos must be at least 1, not 0"):
        trust(colour_subject(), data, [COLOUR], photos=0)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no photos"):
        trust(colour_subject(), tmp_path / "empty", [COLOUR])
    swapped = tmp_path / "swapped"
    swapped.mkdir()
    (data / "blue").rename(swapped / "red")
    (data / "red").rename(swapped / "blue")
    with pytest.raises(DataError, match="right about no photo"):
        trust(colour_subject(), swapped, [COLOUR])


def test_a_mean_has_the_interval_of_its_values_and_leaves_out_what_is_unknown() -> None:
    values = np.array([1.0, 2.0, 4.0, math.nan])
    mean = mean_of(values)
    assert mean.value == pytest.approx(7 / 3)
    assert mean.spread == pytest.approx(1.96 * stats.sem(values[:3]))
    assert mean.n == 3
    assert str(Mean(math.nan, math.nan, 0)) == "–"
    assert mean_of(np.array([2.0])).to_json() == {"mean": 2.0, "spread": None, "n": 1}


@pytest.mark.full
def test_on_lite0_the_thresholds_hold(ready_cache: Path, shared_data: Path) -> None:
    from headstart.look.opening import open_subject

    subject = open_subject("efficientnet-lite0")
    result = trust(subject, shared_data / "cats_dogs", ["cam", "guided"], photos=24)
    cam, guided = result.judged
    assert cam.holds
    assert cam.numbers["mosaic_peak"].value >= 0.8  # dogs beside dogs: kinds further apart are told apart better
    assert cam.numbers["mosaic_mass"].value >= 0.55
    assert cam.numbers["pasted_peak"].value >= max(0.65, 3 * result.to_beat["pasted_peak"]["chance"].value)
    assert abs(cam.numbers["sanity"].value) <= 0.35
    assert guided.numbers["sanity"].value >= 0.95
    assert "not class-specific" in guided.says
    assert cam.numbers["margin"].value >= 0.15
    assert set(result.to_beat["gain"]) == set(BASELINES)
