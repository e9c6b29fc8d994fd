"""Maps of photos that were trained on come from the store; what somebody sends is kept nowhere."""

from pathlib import Path

import numpy as np
import pytest

import headstart
from headstart.errors import UsageError
from headstart.explain import Subject, explain, subject_of
from headstart.explain.stored import logits_of, outputs_of
from headstart.store import Store


@pytest.fixture
def trained(ready_cache: Path, photo_folder: Path, tmp_path: Path) -> headstart.Run:
    config = headstart.TrainConfig(strategy="head", threads=1)
    return headstart.train(photo_folder, tmp_path / "run", config=config, quiet=True)


def kept() -> int:
    """Entries of the store."""
    with Store() as store:
        return int(store.info().features)


def test_a_photo_that_was_trained_on_starts_no_engine(
    trained: headstart.Run, photo_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = photo_folder / "disks" / "03.png"
    fresh = subject_of(trained.classifier, "run", 1)
    sent = explain(fresh, path.read_bytes(), ("cam",))[0]  # bytes: by the engine
    fresh.close()
    explain(subject_of(trained.classifier, "run", 1), path, ("cam",))  # its map is kept from here on
    monkeypatch.setattr(Subject, "outputs", lambda *_: pytest.fail("an engine was started"))
    monkeypatch.setattr(Subject, "logits", lambda *_: pytest.fail("an engine was started"))
    subject = subject_of(trained.classifier, "run", 1)
    found = explain(subject, path, ("cam",))[0]
    np.testing.assert_allclose(found.raw, sent.raw, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found.logits, sent.logits, rtol=1e-4, atol=1e-5)
    assert found.check is not None and found.check.residual < 1e-5
    expected = trained.predict(path).probabilities
    assert found.probability == pytest.approx(expected[found.label], abs=1e-5)


def test_of_a_photo_that_was_sent_nothing_is_kept(trained: headstart.Run, photo_folder: Path) -> None:
    photo = photo_folder / "bars" / "05.png"
    subject = subject_of(trained.classifier, "run", 1)
    before = kept()
    explain(subject, photo.read_bytes(), ("cam",))
    explain(subject, subject.photo(photo).picture.pixels, ("cam",))
    assert kept() == before
    explain(subject, photo, ("cam",))
    assert kept() == before + 1  # the map; its features are there since the training


def test_known_and_unknown_photos_keep_their_order(trained: headstart.Run, photo_folder: Path) -> None:
    paths = [photo_folder / "bars" / "01.png", photo_folder / "disks" / "02.png", photo_folder / "bars" / "03.png"]
    subject = subject_of(trained.classifier, "run", 1)
    photos = [subject.photo(path) for path in paths]
    photos[1] = subject.photo(paths[1].read_bytes())
    (name,) = [output for output in trained.classifier.backbone.outputs if output == "head_map"]
    outputs_of(subject, photos[2:], (name,))
    found = outputs_of(subject, photos, (name,))
    expected = subject.outputs([photo.pixels for photo in photos], (name,))[name]
    for own, other in zip(found, expected, strict=True):
        assert own[name].shape == other.shape
        np.testing.assert_allclose(own[name], other, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(
        logits_of(subject, photos), subject.logits([photo.pixels for photo in photos]), rtol=1e-4, atol=1e-5
    )
    assert outputs_of(subject, [], (name,)) == []


def test_an_output_that_there_is_not_is_named(trained: headstart.Run, photo_folder: Path) -> None:
    subject = subject_of(trained.classifier, "run", 1)
    with pytest.raises(UsageError, match="no layer 'moon'"):
        outputs_of(subject, [subject.photo(photo_folder / "bars" / "01.png")], ("moon",))
