"""Maps of photos by their features: the measures against scikit-learn and slow loops, the grid, the notes."""

import importlib.util
import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from headstart.dataset import Dataset
from headstart.errors import DataError, UsageError, WeightsError
from headstart.look.features import feature_map, principal, thumbnail, unlabelled
from headstart.look.features_sheet import draw_map, snapped
from headstart.look.neighbours import agreement, chance, trustworthiness
from headstart.readers import open_dataset
from headstart.store import Store
from look_subjects import small_cnn, traces


def png(picture: Image.Image) -> bytes:
    out = io.BytesIO()
    picture.save(out, "PNG")
    return out.getvalue()


@pytest.mark.parametrize(("count", "neighbours"), [(25, 10), (40, 1), (60, 5), (9, 4)])
def test_trustworthiness_is_that_of_scikit_learn(count: int, neighbours: int) -> None:
    manifold = pytest.importorskip("sklearn.manifold")
    random = np.random.default_rng(count)
    points = random.normal(size=(count, 7))
    for places in (random.normal(size=(count, 2)), points[:, :2] + 0.1 * random.normal(size=(count, 2))):
        expected = manifold.trustworthiness(points, places, n_neighbors=neighbours)
        assert trustworthiness(points, places, neighbours) == pytest.approx(expected, abs=1e-12)


def test_trustworthiness_is_the_sum_of_its_definition() -> None:
    random = np.random.default_rng(0)
    points, places, k = random.normal(size=(12, 4)), random.normal(size=(12, 2)), 3
    lost = 0
    for i in range(12):
        others = [j for j in range(12) if j != i]
        truth = sorted(others, key=lambda j: np.linalg.norm(points[i] - points[j]))
        shown = sorted(others, key=lambda j: np.linalg.norm(places[i] - places[j]))
        lost += sum(max(0, truth.index(j) + 1 - k) for j in shown[:k])
    expected = 1 - 2 * lost / (12 * k * (2 * 12 - 3 * k - 1))
    assert trustworthiness(points, places, k) == pytest.approx(expected, abs=1e-12)


def test_a_map_that_keeps_all_is_trusted_fully_and_one_at_random_is_not() -> None:
    random = np.random.default_rng(1)
    plane = random.normal(size=(200, 2))
    turn = np.linalg.qr(random.normal(size=(30, 30)))[0][:2]
    assert trustworthiness(plane @ turn, plane, 10) == 1.0
    assert 0.4 < trustworthiness(plane @ turn, random.normal(size=(200, 2)), 10) < 0.6


def test_too_many_neighbours_are_refused() -> None:
    points = np.random.default_rng(0).normal(size=(8, 3))
    with pytest.raises(UsageError, match="trustworthiness of 8 points takes 1 to 3 neighbours, not 4"):
        trustworthiness(points, points[:, :2], 4)


def test_agreement_counts_the_labels_of_the_nearest_as_scikit_learn_finds_them() -> None:
    neighbors = pytest.importorskip("sklearn.neighbors")
    random = np.random.default_rng(2)
    points, labels = random.normal(size=(50, 6)), random.integers(0, 3, 50)
    near = neighbors.NearestNeighbors(n_neighbors=5).fit(points).kneighbors(return_distance=False)
    assert agreement(points, labels) == pytest.approx((labels[near] == labels[:, None]).mean())


def test_chance_is_what_all_pairs_say() -> None:
    labels = np.random.default_rng(3).integers(0, 4, 30)
    same = [labels[i] == labels[j] for i in range(30) for j in range(30) if i != j]
    assert chance(labels) == pytest.approx(np.mean(same))


def test_the_main_axes_are_those_of_a_principal_component_analysis() -> None:
    decomposition = pytest.importorskip("sklearn.decomposition")
    random = np.random.default_rng(4)
    for shape in ((30, 100), (100, 8)):
        features = random.normal(size=shape) * np.linspace(1, 3, shape[1])
        expected = decomposition.PCA(2, svd_solver="full").fit_transform(features)
        places = principal(features)
        for axis in range(2):
            sign = np.sign(expected[:, axis] @ places[:, axis])
            np.testing.assert_allclose(places[:, axis], sign * expected[:, axis], atol=1e-8)
            assert places[np.abs(places[:, axis]).argmax(), axis] > 0


def test_every_thumbnail_has_a_cell_of_its_own_even_where_all_places_are_one() -> None:
    random = np.random.default_rng(5)
    for places in (random.normal(size=(60, 2)), np.zeros((60, 2)), np.repeat([[0.0, 1.0], [5.0, 2.0]], 30, axis=0)):
        cells, columns, rows = snapped(places)
        assert len({tuple(cell) for cell in cells.tolist()}) == 60
        assert (cells >= 0).all()
        assert (cells < [columns, rows]).all()


def test_thumbnails_stay_beside_one_another_as_on_the_map() -> None:
    places = np.random.default_rng(6).normal(size=(80, 2)) * [2.0, 1.0]
    cells, _, _ = snapped(places)
    right, up = np.corrcoef(places[:, 0], cells[:, 0])[0, 1], np.corrcoef(places[:, 1], cells[:, 1])[0, 1]
    assert right > 0.95
    assert up < -0.85  # row 0 is on top
    assert trustworthiness(places, cells.astype(float), 8) > 0.9


def test_the_sheet_shows_each_thumbnail_whole_with_the_colour_of_its_class() -> None:
    colours = np.array([[250, 0, 0], [0, 250, 0], [0, 0, 250]], np.uint8)
    labels = np.repeat([0, 1, 2], 7)
    pictures = np.broadcast_to(colours[labels][:, None, None], (21, 8, 8, 3))
    sheet = draw_map("t", ["w"], np.random.default_rng(0).normal(size=(21, 2)), pictures, labels, ["a", "b", "c"])
    pixels = np.array(sheet).reshape(-1, 3)
    inner = [(pixels == colour).all(axis=1).sum() for colour in colours]
    assert len(set(inner)) == 1
    assert inner[0] == 7 * round((inner[0] / 7) ** 0.5) ** 2  # seven whole squares
    for edge in ((230, 159, 0), (0, 114, 178), (0, 158, 115)):
        assert (pixels == edge).all(axis=1).sum() > 7 * 4 * 20


def test_many_classes_share_a_legend_that_stays_short() -> None:
    labels = np.arange(40) % 20
    places = np.random.default_rng(0).normal(size=(40, 2))
    names = [f"a class with a long name, number {n}" for n in range(20)]
    sheet = draw_map("t", ["w"], places, np.zeros((40, 8, 8, 3), np.uint8), labels, names)
    assert sheet.height < 1400
    assert (np.array(sheet).reshape(-1, 3) == (0x9A, 0xA1, 0xAB)).all(axis=1).sum() > 1000


def test_a_map_of_photos_tells_what_it_shows_and_leaves_the_net_alone(photo_folder: Path) -> None:
    pytest.importorskip("sklearn")
    subject = small_cnn()
    before = traces(subject)
    made = feature_map(subject, open_dataset(photo_folder), layer="act2")
    assert traces(subject) == before
    assert made.kind == "tsne"
    assert made.features.shape == (48, 12)
    assert made.trust["tsne"] > 0.8 > 0.65 > made.trust["random"]
    assert made.trust["tsne"] == pytest.approx(trustworthiness(made.features, made.places, 10))
    assert made.alike["map"] == pytest.approx(agreement(made.places, made.labels))
    assert made.alike["chance"] == pytest.approx(23 / 47)
    assert made.to_json()["photos"][0]["label"] == "bars"
    again = feature_map(subject, open_dataset(photo_folder), layer="act2")
    assert made.places.tobytes() == again.places.tobytes()
    assert png(made.sheet()) == png(again.sheet())


def test_the_features_are_the_means_of_the_layer_after_its_activation(photo_folder: Path) -> None:
    subject = small_cnn()
    made = feature_map(subject, open_dataset(photo_folder), layer="act1", kind="pca")
    photo = subject.photo(photo_folder / made.names[5])
    with torch.no_grad():
        x = subject.net.act1(subject.net.norm1(subject.net.conv1(subject.normalised(photo.pixels))))
    np.testing.assert_allclose(made.features[5], x.mean(dim=(2, 3))[0].numpy(), rtol=1e-4, atol=1e-5)
    assert np.array_equal(made.thumbnails[5], thumbnail((photo_folder / made.names[5]).read_bytes()))


def test_features_of_a_backbone_are_those_of_its_engine_and_are_kept(photo_folder: Path, ready_cache: Path) -> None:
    from headstart.look.opening import open_subject

    (photo_folder / "bars" / "00.png").write_bytes(b"nothing")
    subject, told = open_subject("efficientnet-lite0", threads=1), []
    dataset = open_dataset(photo_folder)
    with Store() as store:
        made, again = (
            feature_map(subject, dataset, most=12, store=store, step=lambda *said: told.append(said)) for _ in range(2)
        )
    assert made.layer == "pooled"
    assert told[-1][:2] == (12, 12)
    pixels = [subject.photo(photo_folder / name).pixels for name in made.names]
    np.testing.assert_allclose(made.features, subject.outputs(pixels, ("pooled",))["pooled"], rtol=1e-4, atol=1e-5)
    assert made.places.tobytes() == again.places.tobytes()
    assert "bars/00.png" not in made.names
    subject.close()


def test_few_photos_are_mapped_by_their_main_axes_and_that_is_said(photo_folder: Path) -> None:
    made = feature_map(small_cnn(), open_dataset(photo_folder), layer="act2", most=20)
    assert made.kind == "pca"
    assert len(made.names) == 20
    assert any("too few for a t-SNE" in note for note in made.notes)
    assert any("20 of 48 photos" in note for note in made.notes)
    assert np.array_equal(made.places, principal(made.features))


def test_without_scikit_learn_the_map_is_of_the_main_axes(photo_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    true = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *rest: None if name == "sklearn" else true(name))
    made = feature_map(small_cnn(), open_dataset(photo_folder), layer="act2")
    assert made.kind == "pca"
    assert any("needs scikit-learn" in note for note in made.notes)


def test_photos_that_cannot_be_read_are_left_out_and_counted(photo_folder: Path) -> None:
    (photo_folder / "bars" / "03.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    made = feature_map(small_cnn(), open_dataset(photo_folder), layer="act2", kind="pca")
    assert len(made.names) == len(made.features) == len(made.thumbnails) == len(made.labels) == 47
    assert "bars/03.png" not in made.names
    assert made.labels.tolist() == [0] * 23 + [1] * 24
    assert "1 of 48 photos cannot be read and are left out." in made.notes


def test_photos_without_labels_have_no_edges_and_no_agreement(photo_folder: Path) -> None:
    names = sorted(path.relative_to(photo_folder).as_posix() for path in photo_folder.rglob("*.png"))
    made = feature_map(small_cnn(), unlabelled("photos", names[:12], photo_folder), layer="act2")
    assert made.alike == {}
    assert "Same label" not in made.to_text()
    assert made.sheet().width > 500


def test_what_cannot_be_mapped_is_refused(photo_folder: Path) -> None:
    dataset = open_dataset(photo_folder)
    with pytest.raises(UsageError, match="unknown map 'umap'"):
        feature_map(small_cnn(), dataset, kind="umap")
    with pytest.raises(UsageError, match="no layer 'act7'"):
        feature_map(small_cnn(), dataset, layer="act7")
    few = Dataset("few", dataset.root, dataset.classes, dataset.photos[:3])
    with pytest.raises(DataError, match="a map needs 4 photos or more that can be read; few has 3"):
        feature_map(small_cnn(), few, layer="act2")
    broken = small_cnn()
    with torch.no_grad():
        broken.net.conv2.bias.fill_(float("nan"))
    with pytest.raises(WeightsError, match="act2 of a small net gives what is no number"):
        feature_map(broken, dataset, layer="act2")


@pytest.mark.full
def test_ants_and_bees_are_near_their_own_on_a_map_that_can_be_trusted(shared_data: Path, ready_cache: Path) -> None:
    from headstart.look.opening import open_subject

    made = feature_map(open_subject("efficientnet-lite0"), open_dataset(shared_data / "ants_bees"), most=200)
    assert made.trust["tsne"] >= 0.8
    assert made.alike["map"] >= 0.85
