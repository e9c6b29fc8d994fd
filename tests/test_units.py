"""What excites a unit: the scan against brute force, its cache, exact crops, effective fields, projections."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from headstart.errors import DataError, UsageError
from headstart.explain.projection import project_units
from headstart.explain.recording import reach
from headstart.images import decode
from headstart.look import scan as scanning
from headstart.look import units as looking
from headstart.look.maps import layer_maps, route_to
from headstart.look.opening import open_subject
from headstart.look.scan import photos_of, scan
from headstart.look.units import crops_of, effective_field, field_of, in_original, look_at_units
from small_subjects import everything, noise_photo, random_net, subject_for, subject_of_shape


def small_subject(shape="alexnet", **options):
    """A subject in single precision, as it is used."""
    net = random_net(shape, **options).float()
    return subject_for(net, channels=1 if shape == "lenet" else 3, classes=10 if shape == "lenet" else 5)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """50 photos of unlike sizes in two class folders; two of them the same, one unreadable."""
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(3)
    for number in range(50):
        place = folder / ("cats" if number % 3 else "dogs")
        place.mkdir(exist_ok=True)
        rows, columns = 72 + 8 * (number % 4), 72 + 12 * (number % 3)
        coarse = random.integers(0, 255, (7, 9, 3), np.uint8)
        image = Image.fromarray(coarse).resize((columns, rows), Image.Resampling.BICUBIC)
        pixels = np.asarray(image).astype(int) + random.integers(-20, 20, (rows, columns, 3))
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(place / f"{number:02d}.png")
    (folder / "cats" / "zz.png").write_bytes((folder / "cats" / "01.png").read_bytes())
    (folder / "dogs" / "broken.png").write_bytes((folder / "dogs" / "03.png").read_bytes()[:300])
    return folder


@pytest.fixture(scope="module")
def truth(photos):
    """What layer 4 of the small AlexNet gives for every photo."""
    return brute_force(small_subject(), photos, "4")


def brute_force(subject, folder, layer):
    """Every unit's values in every photo, from one forward pass each: {path: (units, rows, columns)}."""
    found = {}
    for path in sorted(folder.rglob("*.png")):
        if path.stem == "broken":
            continue
        pixels = subject.preprocessing.apply(decode(path.read_bytes(), name="", target=72))
        x = torch.from_numpy(subject.preprocessing.normalise(pixels[None]))
        with torch.no_grad():
            found[path.relative_to(folder).as_posix()] = reach(subject, x, layer).before[0].numpy()
    return found


# --- the scan ----------------------------------------------------------------------------------


def test_the_strongest_photos_are_those_of_a_sort_over_all_photos(photos, truth):
    subject = small_subject()
    scanned = scan(subject, photos, "4")
    assert scanned.read == 51
    assert len(scanned.rejected) == 1
    assert "broken.png" in next(iter(scanned.rejected.values()))
    for unit in range(scanned.units):
        peaks = {path: float(maps[unit].max()) for path, maps in truth.items() if path != "cats/zz.png"}
        expected = sorted(peaks, key=lambda path: (-peaks[path], path))[:9]
        best = scanned.best(unit, 9)
        assert [scanned.dataset.photos[photo].path for photo in best] == expected
        for photo, path in zip(best, expected, strict=True):
            assert scanned.value(photo, unit) == pytest.approx(peaks[path], rel=1e-5)
            row, column = scanned.place(photo, unit)
            assert truth[path][unit, row, column] == pytest.approx(peaks[path], rel=1e-5)


def test_without_the_border_the_strongest_inner_value_counts(photos, truth):
    subject = small_subject()
    scanned = scan(subject, photos, "4")
    inner = {path: maps[:, 1:-1, 1:-1] for path, maps in truth.items() if path != "cats/zz.png"}
    for unit in range(scanned.units):
        peaks = {path: float(maps[unit].max()) for path, maps in inner.items()}
        expected = sorted(peaks, key=lambda path: (-peaks[path], path))[:5]
        best = scanned.best(unit, 5, no_border=True)
        assert [scanned.dataset.photos[photo].path for photo in best] == expected
        row, column = scanned.place(best[0], unit, no_border=True)
        assert truth[expected[0]][unit, row, column] == pytest.approx(peaks[expected[0]], rel=1e-5)
        assert 0 < row < scanned.grid[0] - 1
        assert 0 < column < scanned.grid[1] - 1


def test_the_shares_are_counted_over_all_photos(photos):
    subject = small_subject(clipped=True)
    scanned = scan(subject, photos, "4")
    truth = np.stack(list(brute_force(subject, photos, "4").values()))  # photos, units, rows, columns
    rows, columns = truth.shape[2:]
    for unit in range(scanned.units):
        facts = scanned.facts(unit)
        assert facts["saturated"] == pytest.approx((truth[:, unit] >= 6).mean(), abs=1e-6)
        assert facts["dead"] == pytest.approx((truth[:, unit].max(axis=(1, 2)) <= 0).mean())
        places = [np.unravel_index(maps[unit].argmax(), (rows, columns)) for maps in truth]
        at_border = [row in (0, rows - 1) or column in (0, columns - 1) for row, column in places]
        assert facts["border"] == pytest.approx(np.mean(at_border))
    assert facts["border_places"] == pytest.approx(1 - (rows - 2) * (columns - 2) / (rows * columns))


def test_equal_values_are_ordered_by_name_and_one_content_counts_once(tmp_path):
    random = np.random.default_rng(0)
    same = random.integers(0, 255, (80, 80, 3), np.uint8)
    for name in ("d", "a", "c"):
        pixels = same.copy()
        pixels[0, 0] = random.integers(0, 255, 3)  # outside what the unit sees: other bytes, the same value
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    net = nn.Sequential(nn.Conv2d(3, 2, 3, stride=40, padding=0), nn.Flatten(), nn.Linear(8, 5)).eval()
    with torch.no_grad():
        net[0].weight.zero_()
        net[0].weight[0, :, 1, 1] = 1.0
    subject = subject_for(net, side=80)
    scanned = scan(subject, tmp_path, "0")
    for unit in (0, 1):
        names = [Path(scanned.dataset.photos[photo].path).name for photo in scanned.best(unit, 9)]
        assert names == ["a.png", "c.png", "d.png"]
    assert scanned.place(0, 1) == (0, 0)  # of equal places the first


def test_a_second_scan_computes_nothing_and_says_the_same(photos, monkeypatch):
    subject = small_subject()
    first = scan(subject, photos, "1")
    monkeypatch.setattr(scanning, "layer_maps", lambda *_: pytest.fail("computed again"))
    second = scan(subject, photos, "1")
    assert first.hashes == second.hashes
    assert first.rejected == second.rejected
    for name in ("values", "places", "inner_values", "inner_places", "saturated"):
        assert getattr(first, name).tobytes() == getattr(second, name).tobytes()


def test_an_interrupted_scan_goes_on_where_it_stopped(photos, monkeypatch):
    subject = small_subject()
    whole = scan(small_subject(seed=1), photos, "1")  # other weights: another key, so nothing is shared
    monkeypatch.setattr(scanning, "PIECE", 20)
    computed = []

    def counted(subject, route, pictures):
        for maps in layer_maps(subject, route, pictures):
            computed.append(1)
            yield maps

    def interrupt(done, of, what):
        if done >= 45:
            raise KeyboardInterrupt

    monkeypatch.setattr(scanning, "layer_maps", counted)
    with pytest.raises(KeyboardInterrupt):
        scan(subject, photos, "1", step=interrupt)
    before = len(computed)
    told = []
    scanned = scan(subject, photos, "1", step=lambda *words: told.append(words))
    assert 40 <= before <= 46
    assert len(computed) - before in (11, 12)  # the last 12 again; one of the 52 files is broken
    assert [done for done, *_ in told if done < 40] == [0, 20]  # the pieces that were there already
    assert [done for done, *_ in told] == sorted(done for done, *_ in told)
    assert {words[1:] for words in told} == {(52, "photos scanned")}
    assert told[-1][0] == 52
    assert scanned.values.shape == whole.values.shape


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 nothing", None])
def test_a_damaged_piece_is_computed_again(photos, own_cache, damage):
    subject = small_subject()
    first = scan(subject, photos, "1")
    (piece,) = (own_cache / "scans").rglob("*.npz")
    content = piece.read_bytes()
    piece.write_bytes(content[: len(content) // 2] if damage is None else damage)
    np.testing.assert_array_equal(scan(subject, photos, "1").values, first.values)
    assert piece.read_bytes() == content


def test_another_net_layer_or_preparation_has_other_numbers(photos, own_cache):
    subject = small_subject()
    scan(subject, photos, "1")
    scan(subject, photos, "4")
    scan(subject_for(subject.net, middle=100.0), photos, "1")
    assert len(list((own_cache / "scans").iterdir())) == 3


def test_files_and_plain_folders_are_photos_without_labels(photos):
    some = sorted((photos / "cats").glob("*.png"))[:3]
    dataset = photos_of([*some, photos / "dogs"])
    assert len(dataset.photos) == 3 + 18
    assert dataset.classes == ()
    assert photos_of(some[0]).photos[0].path == str(some[0])
    assert photos_of(photos / "dogs").classes == ()
    assert photos_of(photos).classes == ("cats", "dogs")


def test_a_place_without_readable_photos_is_refused(tmp_path):
    with pytest.raises(DataError, match="neither a file or folder"):
        photos_of(tmp_path / "nothing")
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"none of the 1 photos can be read; the first: .*a\.png"):
        scan(small_subject(), tmp_path, "1")


def test_values_that_are_not_finite_are_refused(photos):
    net = random_net("alexnet").float()
    with torch.no_grad():
        net[0].bias[0] = float("nan")
    with pytest.raises(DataError, match="not finite"):
        scan(subject_for(net), photos, "1")


def test_a_unit_that_is_not_there_is_refused(photos):
    scanned = scan(small_subject(), some(photos), "13")
    with pytest.raises(UsageError, match="has the units 0 to 31; there is no unit 32"):
        scanned.best(32, 9)
    with pytest.raises(UsageError, match="all of a map of 1 x 1 is border"):
        scanned.best(0, 9, no_border=True)


# --- the way through the fast engine -----------------------------------------------------------


@pytest.mark.parametrize("layer", ["stem", "stage4", "stage2.1.depthwise", "head"])
def test_the_fast_way_gives_what_torch_gives_before_the_activation(ready_cache, layer):
    subject = open_subject("efficientnet-lite0")
    pixels = [noise_photo(subject, seed).pixels for seed in range(2)]
    found = list(layer_maps(subject, route_to(subject, layer), iter(pixels)))
    x = torch.from_numpy(subject.preprocessing.normalise(np.stack(pixels)))
    with torch.no_grad():
        truth = reach(subject, x, layer).before.numpy()
    assert len(found) == 2
    for maps, expected in zip(found, truth, strict=True):
        assert np.abs(maps.reshape(expected.shape) - expected).max() <= 1e-4 * np.abs(expected).max()


def test_the_engine_does_what_it_can(ready_cache):
    subject = open_subject("efficientnet-lite0")
    ways = {layer: route_to(subject, layer) for layer in ("stem", "stage5", "stage5.2", "head", "stage3.0.expand")}
    assert (ways["stage5"].output, ways["stage5"].cut) == ("stage5_map", None)
    assert (ways["stage5.2"].output, ways["stage5.2"].cut) == ("stage5_map", None)
    assert (ways["head"].output, ways["head"].cut) == ("stage7_map", "stage7")
    assert (ways["stage3.0.expand"].output, ways["stage3.0.expand"].cut) == ("stage2_map", "stage2")
    assert ways["stem"].output is None


# --- crops and fields --------------------------------------------------------------------------


@pytest.mark.parametrize("layer", ["1", "3", "4", "7"])
def test_noise_outside_the_crop_changes_nothing(layer):
    subject = small_subject()
    x = torch.from_numpy(subject.preprocessing.normalise(noise_photo(subject).pixels[None]))
    field = subject.field(layer)
    with torch.no_grad():
        before = reach(subject, x, layer).before
        rows, columns = before.shape[2:]
        outside = 0
        for place in itertools.product((0, rows // 2, rows - 1), (0, columns // 2, columns - 1)):
            left, top, right, bottom = (max(0, edge) for edge in field_of(field, place))
            noisy = x + 5 * torch.randn(x.shape, generator=torch.Generator().manual_seed(0))
            outside += (right - left) * (bottom - top) < 72 * 72
            noisy[:, :, top:bottom, left:right] = x[:, :, top:bottom, left:right]
            after = reach(subject, noisy, layer).before
            assert torch.equal(before[0, :, place[0], place[1]], after[0, :, place[0], place[1]])
    assert outside


@pytest.mark.parametrize("shape", ["alexnet", "vgg", "lenet", "nin", "lite"])
def test_no_projection_leaks_out_of_its_patch(shape, photos):
    subject = small_subject(shape)
    layer = {"alexnet": "4", "vgg": "9", "lenet": "4", "nin": "block1", "lite": "stage2"}[shape]
    found = look_at_units(subject, some(photos), layer, [0, 1], top=4)
    leaks = seen = 0
    for unit in found.units:
        for patch, signal in zip(unit.patches, unit.projections, strict=True):
            left, top, right, bottom = (max(0, edge) for edge in patch.field)
            rest = signal.copy()
            rest[:, top:bottom, left:right] = 0
            leaks += int(np.count_nonzero(rest))
            seen += int(np.count_nonzero(signal)) > 0
    assert leaks == 0
    assert seen >= 6


def test_the_patch_is_cut_from_the_originals_own_pixels(tmp_path):
    """A photo larger than the net's input: the box in the original is that of the net, times the reduction."""
    pixels = np.zeros((144, 288, 3), np.uint8)
    pixels[60:64, 150:156] = 255  # the only bright spot
    Image.fromarray(pixels).save(tmp_path / "spot.png")
    net = nn.Sequential(nn.Conv2d(3, 1, 4, stride=4), nn.Flatten(), nn.Linear(324, 5)).eval()
    with torch.no_grad():
        net[0].weight.fill_(0.1)
        net[0].bias.zero_()
    found = look_at_units(subject_for(net), [tmp_path / "spot.png"], "0", [0])
    (patch,) = found.units[0].patches
    # the net sees columns 72 to 216, two pixels to one: the spot is at 39..42, 30..32 there, in units of 4 px
    assert patch.place[0] == 7
    assert patch.crop == patch.field == (4 * patch.place[1], 28, 4 * patch.place[1] + 4, 32)
    assert patch.original == (72 + 2 * patch.crop[0], 56, 72 + 2 * patch.crop[2], 64)
    left, top, right, bottom = patch.original
    assert pixels[top:bottom, left:right].max() == 255
    assert patch.label is None


def test_a_patch_at_the_border_ends_where_the_photo_ends():
    photo = subject_of_shape("alexnet").photo(np.zeros((72, 100, 3), np.uint8))
    assert in_original((-3, -5, 8, 6), photo, 72) == (14, 0, 22, 6)


def test_the_effective_field_is_six_standard_deviations_around_the_energy():
    rows, columns = np.mgrid[:80, :100] + 0.5
    signal = np.exp(-(((rows - 30) / 6) ** 2 + ((columns - 61) / 6) ** 2) / 4)  # its square has a deviation of 6 px
    x, y, width = effective_field(signal[None].astype(np.float32))
    assert (x, y) == pytest.approx((61, 30), abs=0.01)
    assert width == pytest.approx(36, rel=0.01)
    assert effective_field(np.zeros((3, 8, 6), np.float32)) == (3.0, 4.0, 0.0)


def test_a_field_larger_than_the_photo_is_shown_where_its_energy_is():
    signals = np.zeros((3, 1, 72, 72), np.float32)
    for number, place in enumerate(((20, 20), (5, 60), (71, 71))):
        signals[number, 0, place[0], place[1]] = 1.0
    boxes = [(-40, -40, 80, 80)] * 3
    crops = crops_of(boxes, signals, 72)
    assert {crop[2] - crop[0] for crop in crops} == {8}  # never smaller than that
    for crop, place in zip(crops, ((20, 20), (5, 60), (71, 71)), strict=True):
        assert crop[0] <= place[1] < crop[2]
        assert crop[1] <= place[0] < crop[3]
        assert min(crop) >= 0
        assert max(crop) <= 72
    fitting = [(0, 0, 30, 30), (-2, 50, 28, 80), (60, 60, 90, 90)]
    assert crops_of(fitting, signals, 72) == fitting


# --- the page ----------------------------------------------------------------------------------


def test_a_projection_is_that_of_the_photo_and_place_beside_it(photos):
    subject = small_subject()
    found = look_at_units(subject, photos / "dogs", "7", [3], top=3)
    assert found.rule == "deconv"
    for patch, signal in zip(found.units[0].patches, found.units[0].projections, strict=True):
        pixels = subject.preprocessing.apply(decode(Path(patch.photo).read_bytes(), name="", target=72))
        x = torch.from_numpy(subject.preprocessing.normalise(pixels[None]))
        alone = project_units(subject, x, "7", [3], [patch.place], "deconv")[0].numpy()
        np.testing.assert_allclose(signal, alone, rtol=1e-4, atol=1e-5 * np.abs(alone).max())
        with torch.no_grad():
            value = float(reach(subject, x, "7").before[0, 3][patch.place])
        assert patch.value == pytest.approx(value, rel=1e-5)


@pytest.mark.parametrize(
    ("shape", "layer", "rule"), [("alexnet", "1", "guided"), ("alexnet", "4", "deconv"), ("lite", "stage3", "guided")]
)
def test_the_rule_follows_from_the_pooling_below_the_layer_and_the_reason_is_given(shape, layer, rule, photos):
    found = look_at_units(small_subject(shape), some(photos), layer, [0], top=2)
    assert found.rule == rule
    assert ("max pooling below the layer" in found.reason) and found.reason in found.to_text()


def test_a_net_without_rectifiers_is_looked_at_by_its_gradient(photos):
    found = look_at_units(open_subject("lenet"), some(photos), "c3", [0], top=2)
    assert found.rule == "gradient"
    assert "rectifiers" in found.to_text()


def test_the_classes_of_the_strongest_photos_are_counted(photos, truth, monkeypatch):
    found = look_at_units(small_subject(), photos, "4", [2])
    unit = found.units[0]
    assert (unit.classes, unit.crowd) == ({"cats": 33, "dogs": 17}, 50)  # one of 34 is there twice, one of 18 is broken
    monkeypatch.setattr(looking, "CROWD", 20)
    peaks = {path: float(maps[2].max()) for path, maps in truth.items() if path != "cats/zz.png"}
    strongest = sorted(peaks, key=lambda path: -peaks[path])[:20]
    again = look_at_units(small_subject(), photos, "4", [2]).units[0]
    assert again.classes["cats"] == sum(path.startswith("cats") for path in strongest)
    assert all(patch.label == patch.photo.split("/")[0] for patch in unit.patches)
    assert len({patch.photo for patch in unit.patches}) == 9


def test_units_that_stand_out_are_chosen_and_constant_ones_are_not(photos):
    net = random_net("alexnet").float()
    with torch.no_grad():
        net[0].weight[2] = 0
    subject = subject_for(net)
    scanned = scan(subject, photos, "1")
    values = scanned.values[np.isfinite(scanned.values[:, 0])].astype(float)
    top = np.sort(values, axis=0)[-9:].mean(axis=0)
    score = (top - values.mean(axis=0)) / np.maximum(values.std(axis=0), 1e-9)
    score[2] = -np.inf
    found = look_at_units(subject, photos, "1")
    assert [unit.number for unit in found.units] == np.argsort(-score)[:6].tolist()
    constant = look_at_units(subject, photos, "1", [2])
    assert constant.units[0].constant
    assert "the same of every photo" in constant.to_text()
    constant.sheet()


@pytest.mark.parametrize(("shape", "layer"), [("alexnet", "4"), ("lite", "stage4"), ("lenet", "1"), ("alexnet", "13")])
def test_the_same_bytes_come_out_twice_and_the_net_is_left_as_it_was(shape, layer, photos, own_cache):
    subject = small_subject(shape)
    before = everything(subject.net)
    first = look_at_units(subject, some(photos), layer, [0, 1], top=4)
    for path in sorted((own_cache / "scans").rglob("*.npz")):
        path.unlink()
    second = look_at_units(subject, some(photos), layer, [0, 1], top=4)
    assert everything(subject.net) == before
    assert first.to_json() == second.to_json()
    for name, content in first.files().items():
        assert content.tobytes() == second.files()[name].tobytes()
    assert f"shown {first.shown_size(first.units[0])} px" in first.to_text()


def some(photos):
    """A few of them."""
    return sorted((photos / "cats").glob("*.png"))[:6]


def test_an_interrupt_leaves_no_trace_in_the_net(photos):
    subject = small_subject()
    before = everything(subject.net)

    def interrupt(done, of, what):
        if what == "units projected":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_units(subject, some(photos), "4", [0], step=interrupt)
    assert everything(subject.net) == before


@pytest.mark.parametrize(
    ("layer", "options", "words"),
    [
        ("4", {"units": [99]}, "there is no unit 99"),
        ("4", {"top": 0}, "1 to 100 patches, not 0"),
        ("nothing", {}, "has no layer 'nothing'"),
    ],
)
def test_what_cannot_be_looked_at_is_refused(layer, options, words, photos):
    with pytest.raises(UsageError, match=words):
        look_at_units(small_subject(), photos, layer, **options)


def test_the_classes_of_a_classifier_are_no_units(photos, ready_cache):
    with pytest.raises(UsageError, match="headstart explain"):
        look_at_units(open_subject("efficientnet-lite0"), photos, "logits")
