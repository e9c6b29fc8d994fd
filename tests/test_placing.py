"""From a map back to the photo: against labels of scipy, boxes worked out by hand, and what enlarging must keep."""

import numpy as np
import pytest
from scipy import ndimage

from headstart.errors import UsageError
from headstart.explain.placing import box_of, largest_group, on_photo, rounded, spread
from headstart.preprocess import Preprocessing


def groups_of_scipy(mask: np.ndarray) -> list[np.ndarray]:
    labels, count = ndimage.label(mask)  # by sides, unless told otherwise
    return [labels == number for number in range(1, count + 1)]


@pytest.mark.parametrize("share", [0.2, 0.45, 0.6, 0.8])
@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (7, 7), (16, 33)])
def test_the_largest_group_is_one_of_the_largest_of_scipy(share: float, shape: tuple[int, int]) -> None:
    random = np.random.default_rng(7)
    for _ in range(25):
        mask = random.random(shape) < share
        groups = groups_of_scipy(mask)
        found = largest_group(mask)
        if not groups:
            assert not found.any()
            continue
        most = max(int(group.sum()) for group in groups)
        largest = [group for group in groups if group.sum() == most]
        first = min(largest, key=lambda group: int(np.flatnonzero(group)[0]))  # of equal ones the first, row by row
        assert np.array_equal(found, first)


def test_a_snake_through_the_whole_map_is_one_group() -> None:
    mask = np.zeros((21, 21), bool)
    mask[::2] = True
    for number, row in enumerate(range(1, 21, 2)):
        mask[row, 20 if number % 2 == 0 else 0] = True
    assert len(groups_of_scipy(mask)) == 1
    assert np.array_equal(largest_group(mask), mask)


def test_places_that_touch_by_a_corner_do_not_hang_together() -> None:
    assert largest_group(np.eye(4, dtype=bool)).sum() == 1


@pytest.mark.parametrize("times", [2, 3, 8, 32])
def test_a_whole_numbered_enlargement_keeps_the_mean(times: int) -> None:
    values = np.random.default_rng(times).normal(3.0, 10.0, (7, 7))
    fine = spread(values, 7 * times, 7 * times)
    assert fine.shape == (7 * times, 7 * times)
    assert fine.mean() == pytest.approx(values.mean(), rel=1e-5)


def test_an_enlargement_is_the_one_of_torch_without_aligned_corners() -> None:
    import torch

    values = np.random.default_rng(0).normal(size=(5, 8))
    fine = spread(values, 40, 20)
    theirs = torch.nn.functional.interpolate(torch.from_numpy(values)[None, None], size=(20, 40), mode="bilinear")
    assert np.abs(fine - theirs[0, 0].numpy()).max() < 1e-5


def test_a_map_lies_on_its_part_of_the_photo_and_is_nan_elsewhere() -> None:
    values = np.array([[1.0, 1.0], [1.0, 1.0]])
    placed = on_photo(values, (10.0, 3.0, 30.0, 23.0), width=40, height=26)
    inside = np.zeros((26, 40), bool)
    inside[3:23, 10:30] = True
    assert np.array_equal(np.isnan(placed), ~inside)
    assert np.allclose(placed[inside], 1.0)


@pytest.mark.parametrize(("width", "height"), [(640, 480), (480, 640), (31, 31), (3, 1000)])
def test_a_map_has_the_size_of_the_photo_and_begins_where_the_crop_does(width: int, height: int) -> None:
    crop = Preprocessing(224, 0.875, (127.0,), (128.0,)).crop_box(width, height)
    placed = on_photo(np.ones((7, 7)), crop, width, height)
    rows, columns = np.nonzero(~np.isnan(placed))
    assert placed.shape == (height, width)
    assert (columns[0], rows[0]) == pytest.approx(crop[:2], abs=0.5)
    assert (columns.max() + 1, rows.max() + 1) == pytest.approx(crop[2:], abs=0.5)


def test_a_box_in_whole_pixels_stays_inside_and_is_never_empty() -> None:
    assert rounded((-3.2, 0.4, 7.6, 99.0), width=10, height=12) == (0, 0, 8, 12)
    assert rounded((9.9, 11.9, 10.0, 12.0), width=10, height=12) == (9, 11, 10, 12)
    assert rounded((2.0, 2.0, 2.1, 2.1), width=10, height=12) == (2, 2, 3, 3)


def test_the_box_is_the_one_worked_out_by_hand() -> None:
    # 4 x 4 places over a crop of 4 x 4 pixels that begins at (10, 20): nothing is enlarged
    strength = np.array([[9.0, 0, 0, 0], [0, 0, 0, 0], [0, 2, 10, 0], [0, 0, 3, 1]])
    crop = (10.0, 20.0, 14.0, 24.0)
    assert box_of(strength, crop, 0.2) == (11, 22, 13, 24)  # 2, 10 and 3; the 9 is alone, the 1 is too weak
    assert box_of(strength, crop, 0.5) == (10, 20, 11, 21)  # 9 and 10 are alone, each: the first counts
    assert box_of(strength, crop, 0.05) == (11, 22, 14, 24)


def test_the_threshold_itself_is_inside() -> None:
    strength = np.array([[0.0, 2.0, 10.0]])
    assert box_of(np.repeat(strength, 3, axis=0), (0.0, 0.0, 3.0, 3.0), 0.2) == (1, 0, 3, 3)


def test_a_box_grows_with_the_photo() -> None:
    strength = np.zeros((7, 7))
    strength[2:5, 1:4] = 1.0
    small, large = box_of(strength, (0.0, 0.0, 70.0, 70.0)), box_of(strength, (0.0, 0.0, 7000.0, 7000.0))
    assert small is not None
    assert large is not None
    assert np.abs(np.array(large) / 100 - np.array(small)).max() < 0.5
    assert np.abs(np.array(small) - (10, 20, 40, 50)).max() <= 4  # bilinear: a little beyond the places' edges


def test_a_map_without_a_value_above_0_has_no_box() -> None:
    assert box_of(np.full((3, 3), -1.0), (0.0, 0.0, 9.0, 9.0)) is None
    assert box_of(np.zeros((3, 3)), (0.0, 0.0, 9.0, 9.0)) is None


def test_the_box_of_a_constant_map_is_the_whole_crop() -> None:
    assert box_of(np.ones((7, 7)), (5.0, 0.0, 105.0, 100.0)) == (5, 0, 105, 100)


@pytest.mark.parametrize("threshold", [0.0, 1.0, -0.2, 20.0])
def test_a_threshold_that_is_no_share_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="above 0 and below 1"):
        box_of(np.ones((2, 2)), (0.0, 0.0, 2.0, 2.0), threshold)
