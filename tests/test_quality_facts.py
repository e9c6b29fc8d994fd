"""The facts of a photo survive storing, and its fingerprint is what it is said to be."""

import json
import time

import numpy as np
import pytest
from PIL import Image

from headstart.quality import QUALITY_VERSION, THUMB_SIDE, PhotoFacts, photo_fingerprint


def in_blocks(levels: np.ndarray, height: int, width: int) -> np.ndarray:
    """A grey photo with each level as a block of equal size."""
    grey = levels.astype(np.uint8).repeat(height, axis=0).repeat(width, axis=1)
    return np.repeat(grey[:, :, None], 3, axis=2)


def test_facts_come_back_from_json_as_they_went() -> None:
    thumb = np.random.default_rng(0).integers(0, 256, (16, 16), dtype=np.uint8)
    facts = PhotoFacts("ab" * 32, None, 640, 480, "JPEG", "CMYK", ("inverted", "\udce9"), 2**64 - 2, thumb)
    back = PhotoFacts.from_dict(json.loads(json.dumps(facts.to_dict())))
    assert back.to_dict() == facts.to_dict()
    assert np.array_equal(back.thumb, thumb)
    assert back.thumb.dtype == np.uint8
    assert (back.digest, back.width, back.height, back.dhash) == ("ab" * 32, 640, 480, 2**64 - 2)
    assert (back.format, back.mode, back.notes, back.rejected) == ("JPEG", "CMYK", ("inverted", "\udce9"), None)


def test_facts_of_a_rejected_photo_come_back_without_a_thumbnail() -> None:
    facts = PhotoFacts(digest="00" * 32, rejected=("truncated", "the end is missing"))
    back = PhotoFacts.from_dict(json.loads(json.dumps(facts.to_dict())))
    assert back.rejected == ("truncated", "the end is missing")
    assert back.thumb is None


def test_a_field_that_is_missing_is_an_error_and_not_a_default() -> None:
    values = PhotoFacts(digest="00" * 32).to_dict()
    for name in values:
        with pytest.raises(KeyError):
            PhotoFacts.from_dict({key: value for key, value in values.items() if key != name})


@pytest.mark.parametrize("seed", range(5))
def test_the_difference_hash_is_the_comparison_of_neighbouring_cells(seed: int) -> None:
    random = np.random.default_rng(seed)
    levels = random.permutation(72).reshape(8, 9) * 3 + 10  # no two cells alike
    dhash, _ = photo_fingerprint(in_blocks(levels, 40, 60))
    clear = 0
    for row in range(8):
        for column in range(8):
            step = levels[row, column + 1] - levels[row, column]
            if abs(step) > 50:  # the soft edges of the cells may turn a smaller one
                clear += 1
                assert (dhash >> (63 - 8 * row - column)) & 1 == (step > 0)
    assert clear > 20


def test_the_thumbnail_is_the_luminance_of_the_cells() -> None:
    smooth = np.add.outer(np.arange(16) * 6, np.arange(16) * 6) + 30  # a ramp: soft edges leave it as it is
    _, thumb = photo_fingerprint(in_blocks(smooth, 25, 30))
    inner = (slice(1, -1), slice(1, -1))
    assert np.abs(thumb[inner].astype(int) - smooth[inner]).max() <= 1


@pytest.mark.parametrize(("colour", "luminance"), [((255, 0, 0), 76), ((0, 255, 0), 150), ((0, 0, 255), 29)])
def test_colours_count_by_their_luminance(colour: tuple[int, int, int], luminance: int) -> None:
    pixels = np.tile(np.array(colour, dtype=np.uint8), (50, 70, 1))  # 0.299 R + 0.587 G + 0.114 B, ITU-R BT.601
    _, thumb = photo_fingerprint(pixels)
    assert np.all(np.abs(thumb.astype(int) - luminance) <= 1)


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (300, 1), (8, 9), (63, 65), (64, 64), (127, 129), (513, 300)])
def test_every_size_has_a_fingerprint(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 77, dtype=np.uint8)
    dhash, thumb = photo_fingerprint(pixels)
    assert dhash == 0
    assert thumb.shape == (THUMB_SIDE, THUMB_SIDE)
    assert np.all(thumb == 77)


def test_a_photo_at_another_scale_has_nearly_the_same_thumbnail() -> None:
    random = np.random.default_rng(3)
    photo = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(
        (800, 600), Image.Resampling.BICUBIC
    )
    _, expected = photo_fingerprint(np.asarray(photo))
    for width in (131, 256, 400, 777):
        copy = photo.resize((width, width * 3 // 4), Image.Resampling.LANCZOS)
        _, thumb = photo_fingerprint(np.asarray(copy))
        assert np.sqrt(np.mean((thumb.astype(float) - expected) ** 2)) < 2.5


def test_a_read_only_and_a_strided_array_give_the_same_fingerprint() -> None:
    pixels = np.random.default_rng(4).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    expected = photo_fingerprint(pixels)
    doubled = pixels.repeat(2, axis=0)
    frozen = pixels.copy()
    frozen.setflags(write=False)
    for same in (frozen, doubled[::2], np.asfortranarray(pixels)):
        dhash, thumb = photo_fingerprint(same)
        assert dhash == expected[0]
        assert np.array_equal(thumb, expected[1])


def test_a_fingerprint_costs_little() -> None:
    pixels = np.random.default_rng(5).integers(0, 256, (375, 500, 3), dtype=np.uint8)
    best = min(_cpu_seconds(pixels) for _ in range(30))
    assert best < 0.002  # about 0.3 ms when nothing else runs; a photo's features take 7


def _cpu_seconds(pixels: np.ndarray) -> float:
    begun = time.process_time()
    photo_fingerprint(pixels)
    return time.process_time() - begun


def test_the_version_is_a_text_for_cache_keys() -> None:
    assert QUALITY_VERSION
    assert isinstance(QUALITY_VERSION, str)
