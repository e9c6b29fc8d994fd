"""The split: no cluster on two sides, every class in its share, the same everywhere, clear words when there is none."""

import hashlib
import random
import time
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from headstart import split as split_module
from headstart.dataset import Dataset, Photo
from headstart.errors import DataError, UsageError
from headstart.split import Split, make_split

CASES = range(25)


def data(photos: list[Photo], classes: int | tuple[str, ...]) -> Dataset:
    names = classes if isinstance(classes, tuple) else tuple(f"class {number}" for number in range(classes))
    return Dataset(name="made", root=Path(), classes=names, photos=tuple(photos))


def singles(*counts: int) -> list[Photo]:
    """`counts[c]` photos of class c, no splits."""
    return [Photo(f"{label}/{number}.jpg", label) for label, count in enumerate(counts) for number in range(count)]


def given(**parts: tuple[int, ...]) -> list[Photo]:
    """Photos with a given split: given(train=(3, 4), test=(1, 2)) has 3 training photos of class 0."""
    return [
        Photo(f"{part}/{label}/{number}.jpg", label, None if part == "none" else part)
        for part, counts in parts.items()
        for label, count in enumerate(counts)
        for number in range(count)
    ]


def alone(photos: list[Photo]) -> np.ndarray:
    return np.arange(len(photos), dtype=np.int64)


def split(photos: list[Photo], classes: int | tuple[str, ...], clusters: np.ndarray | None = None, **options) -> Split:
    clusters = alone(photos) if clusters is None else clusters
    usable = options.pop("usable", range(len(photos)))
    return make_split(data(photos, classes), usable, clusters, **({"seed": 0} | options))


def labels_of(photos: list[Photo], part: np.ndarray) -> Counter:
    return Counter(photos[index].label for index in part)


def random_case(seed: int, *, mixed: bool) -> tuple[list[Photo], np.ndarray, int]:
    """Photos, one to many in a cluster; if mixed, a cluster may hold several classes, as a patient's photos do."""
    draw = random.Random(seed)
    classes = draw.randint(2, 6)
    photos = singles(*(draw.randint(8, 40) for _ in range(classes)))
    clusters = list(range(len(photos)))
    for _ in range(draw.randint(0, len(photos) // 4)):
        one, other = draw.randrange(len(photos)), draw.randrange(len(photos))
        if mixed or photos[one].label == photos[other].label:
            clusters[other] = clusters[one]
    return photos, np.array(clusters, dtype=np.int64), classes


def random_splits(*, mixed: bool):
    for seed in CASES:
        photos, clusters, classes = random_case(seed, mixed=mixed)
        fraction = random.Random(seed).uniform(0.1, 0.4)
        yield photos, clusters, split(photos, classes, clusters, seed=seed, test_fraction=fraction), fraction, classes


# hold-out


@pytest.mark.parametrize("mixed", [False, True])
def test_no_cluster_crosses_a_side_or_a_fold(mixed: bool) -> None:
    for _, clusters, result, _, _ in random_splits(mixed=mixed):
        assert not set(clusters[result.train]) & set(clusters[result.test])
        for cluster in set(clusters[result.train]):
            assert len(set(result.folds[clusters[result.train] == cluster])) == 1


@pytest.mark.parametrize("mixed", [False, True])
def test_every_usable_photo_is_in_exactly_one_part(mixed: bool) -> None:
    for photos, _, result, _, _ in random_splits(mixed=mixed):
        everything = [*result.train, *result.validation, *result.test, *result.kept_out]
        assert sorted(everything) == list(range(len(photos)))
        assert list(result.train) == sorted(result.train)
        assert list(result.test) == sorted(result.test)
        assert len(result.folds) == len(result.train)


def test_every_class_is_in_the_test_in_its_share_within_one_photo() -> None:
    for seed in CASES:
        draw = random.Random(seed)
        counts = [draw.randint(3, 90) for _ in range(draw.randint(2, 6))]
        photos = singles(*counts)
        fraction = draw.uniform(0.05, 0.5)
        result = split(photos, len(counts), seed=seed, test_fraction=fraction)
        in_test = labels_of(photos, result.test)
        for label, count in enumerate(counts):
            assert in_test[label] == max(1, min(in_test[label], count - 2))
            assert abs(in_test[label] - fraction * count) <= 1


def test_clusters_do_not_spoil_the_share_while_single_photos_can_fill_up() -> None:
    for photos, clusters, result, fraction, classes in random_splits(mixed=False):
        sizes = Counter(clusters.tolist())
        for label in range(classes):
            members = [index for index, photo in enumerate(photos) if photo.label == label]
            free = sum(sizes[clusters[index]] == 1 for index in members)
            if free >= fraction * len(members) + 1:
                assert abs(labels_of(photos, result.test)[label] - fraction * len(members)) <= 1


@pytest.mark.parametrize("mixed", [False, True])
def test_every_class_has_a_test_photo_and_two_training_photos(mixed: bool) -> None:
    for photos, _, result, _, classes in random_splits(mixed=mixed):
        assert all(labels_of(photos, result.test)[label] >= 1 for label in range(classes))
        assert all(labels_of(photos, result.train)[label] >= 2 for label in range(classes))


def test_groups_larger_than_the_share_still_give_a_test_set_near_to_it() -> None:
    photos = singles(100, 100)  # five groups of 20 in each class; wanted are 15 a class
    clusters = np.arange(200, dtype=np.int64) // 20
    result = split(photos, 2, clusters, test_fraction=0.15)
    assert labels_of(photos, result.test) == {0: 20, 1: 20}


def test_one_group_more_is_taken_where_that_comes_nearer_to_the_share() -> None:
    photos = singles(100, 100)  # ten groups of 10 in each class; wanted are 17 a class: 20 is nearer than 10
    clusters = np.arange(200, dtype=np.int64) // 10
    assert labels_of(photos, split(photos, 2, clusters, test_fraction=0.17).test) == {0: 20, 1: 20}


def test_groups_that_hold_both_classes_stay_whole() -> None:
    photos = [Photo(f"{patient}/{number}.png", number % 2) for patient in range(10) for number in range(8)]
    clusters = np.repeat(np.arange(10, dtype=np.int64), 8)
    result = split(photos, 2, clusters, test_fraction=0.2)
    assert sorted(Counter(clusters[result.test].tolist()).values()) == [8, 8]


def test_the_test_set_is_the_first_of_each_class_in_the_order_of_a_hash() -> None:
    photos = singles(10, 25)
    expected = []
    for label in (0, 1):
        members = [index for index, photo in enumerate(photos) if photo.label == label]
        members.sort(key=lambda index: hashlib.sha256(f"7\0{photos[index].path}".encode()).digest())
        expected += members[: round(0.2 * len(members))]
    assert split(photos, 2, seed=7).test.tolist() == sorted(expected)


def test_the_same_seed_gives_the_same_split_and_another_seed_another_one() -> None:
    photos, clusters, classes = random_case(5, mixed=True)
    first, again, other = (split(photos, classes, clusters, seed=seed) for seed in (3, 3, 4))
    assert first.test.tolist() == again.test.tolist()
    assert first.folds.tolist() == again.folds.tolist()
    assert first.test.tolist() != other.test.tolist()


def test_the_split_depends_on_names_and_not_on_the_order_of_photos_or_the_numbers_of_clusters() -> None:
    photos, clusters, classes = random_case(11, mixed=True)
    order = list(range(len(photos)))
    random.Random(0).shuffle(order)
    plain = split(photos, classes, clusters)
    mixed = split([photos[index] for index in order], classes, 1000 - clusters[order])
    assert {photos[index].path for index in plain.test} == {photos[order[index]].path for index in mixed.test}


def test_photos_added_to_one_class_leave_the_test_photos_of_the_others() -> None:
    before = singles(40, 40)
    after = [*before, *(Photo(f"1/new{n}.jpg", 1) for n in range(15)), *(Photo(f"2/{n}.jpg", 2) for n in range(9))]
    old, new = split(before, 2), split(after, 3)
    assert {before[i].path for i in old.test if before[i].label == 0} == {
        after[i].path for i in new.test if after[i].label == 0
    }
    # in the class that grew, the old photos stand in the same line, so one choice of them contains the other
    tested_before = {i for i in old.test.tolist() if before[i].label == 1}
    tested_after = {i for i in new.test.tolist() if i < 80 and after[i].label == 1}
    assert tested_before <= tested_after or tested_after <= tested_before


def test_the_sentence_says_where_the_test_comes_from() -> None:
    photos = singles(10, 10)
    assert "hold-out of 4 of 20 photos" in split(photos, 2, seed=9).how
    assert "seed 9" in split(photos, 2, seed=9).how
    assert "own test split (2 photos)" in split(given(train=(3, 3), test=(1, 1)), 2).how
    assert "own val split (2 photos)" in split(given(train=(3, 3), val=(1, 1)), 2).how


def test_photos_that_cannot_be_used_are_in_no_part() -> None:
    photos = singles(20, 20)
    usable = [index for index in range(40) if index % 3]
    result = split(photos, 2, usable=usable)
    assert sorted([*result.train, *result.test]) == usable


def test_names_that_are_no_text_can_be_split() -> None:
    photos = [Photo(f"{label}/\udcff\ud800{number}\n.jpg", label) for label in (0, 1) for number in range(5)]
    assert len(split(photos, 2).test) == 2


# folds


def test_the_folds_of_single_photos_are_balanced_within_one_photo_a_class() -> None:
    for seed in CASES:
        draw = random.Random(seed)
        counts = [draw.randint(3, 40) for _ in range(draw.randint(2, 6))]
        photos = singles(*counts)
        folds = draw.randint(2, 10)
        result = split(photos, len(counts), seed=seed, folds=folds)
        for label in range(len(counts)):
            sizes = [labels_of(photos, result.train[result.folds == fold])[label] for fold in range(folds)]
            assert max(sizes) - min(sizes) <= 1


def test_no_class_lies_in_one_fold_alone_where_it_has_two_clusters() -> None:
    for photos, clusters, result, _, classes in random_splits(mixed=True):
        for label in range(classes):
            members = np.array([photos[index].label == label for index in result.train])
            if len(set(clusters[result.train][members])) > 1:
                assert len(set(result.folds[members])) > 1


def test_single_photos_even_out_what_large_clusters_leave_uneven() -> None:
    photos = given(train=(20, 2), test=(1, 1))
    clusters = alone(photos)
    clusters[:8] = 0
    for seed in CASES:
        result = split(photos, 2, clusters, seed=seed, folds=2)
        assert [int(np.sum(result.folds == fold)) for fold in (0, 1)] == [11, 11]


def test_a_rare_class_goes_to_two_folds_even_if_that_is_uneven_for_the_others() -> None:
    parts = [[1] * 10, [0, *[1] * 5], [0, *[1] * 5]]  # three groups, two of them with a photo of the rare class 0
    photos = [Photo(f"{n}/{i}.jpg", label, "train") for n, part in enumerate(parts) for i, label in enumerate(part)]
    photos += given(test=(1, 1))
    clusters = np.array([*[0] * 10, *[1] * 6, *[2] * 6, 3, 4], dtype=np.int64)
    result = split(photos, 2, clusters, folds=2)
    rare = [int(result.folds[index]) for index in (10, 16)]
    assert sorted(rare) == [0, 1]


def test_there_are_never_more_folds_than_clusters_and_none_is_empty() -> None:
    photos = singles(3, 3)
    result = split(photos, 2, folds=20)
    assert sorted(result.folds) == [0, 1, 2, 3]


# given splits


def test_a_given_test_split_is_the_test_and_val_is_the_validation_set() -> None:
    photos = given(train=(5, 5), val=(2, 3), test=(4, 1))
    result = split(photos, 2)
    for part, name in ((result.train, "train"), (result.validation, "val"), (result.test, "test")):
        assert {photos[index].path for index in part} == {photo.path for photo in photos if photo.split == name}


def test_without_a_test_split_the_val_split_is_the_test() -> None:
    photos = given(train=(5, 5), val=(2, 3))
    result = split(photos, 2)
    assert {photos[index].split for index in result.test} == {"val"}
    assert len(result.validation) == 0


def test_with_a_train_split_only_a_hold_out_is_drawn_from_it() -> None:
    result = split(given(train=(10, 10)), 2)
    assert len(result.test) == 4


def test_photos_without_a_split_are_training_photos_where_others_have_one() -> None:
    photos = given(none=(5, 5), test=(2, 2))
    assert len(split(photos, 2).train) == 10


def test_a_training_photo_in_a_cluster_with_a_test_photo_is_kept_out_and_the_test_stays() -> None:
    photos = given(train=(4, 4), val=(2, 2), test=(2, 2))
    clusters = alone(photos)
    test = next(index for index, photo in enumerate(photos) if photo.split == "test")
    validation = next(index for index, photo in enumerate(photos) if photo.split == "val")
    clusters[0] = clusters[validation + 1] = clusters[test]
    clusters[1] = clusters[validation]
    result = split(photos, 2, clusters)
    assert len(result.test) == 4
    assert result.kept_out == {
        0: split_module.ALSO_IN_TEST,
        validation + 1: split_module.ALSO_IN_TEST,
        1: split_module.ALSO_IN_VALIDATION,
    }
    parts = [set(clusters[part]) for part in (result.train, result.validation, result.test)]
    assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])


def test_no_cluster_crosses_given_splits_whatever_they_are() -> None:
    for seed in CASES:
        draw = random.Random(seed)
        photos = given(train=(30, 30, 30), val=(8, 8, 8), test=(9, 9, 9))
        clusters = np.array([draw.randrange(100) for _ in photos], dtype=np.int64)
        result = split(photos, 3, clusters)
        parts = [set(clusters[part]) for part in (result.train, result.validation, result.test)]
        assert not (parts[0] & parts[1] or parts[0] & parts[2] or parts[1] & parts[2])
        assert len(result.test) == 27
        everything = [*result.train, *result.validation, *result.test, *result.kept_out]
        assert sorted(everything) == list(range(len(photos)))


# label conflicts


def test_the_same_content_under_two_labels_is_in_no_part() -> None:
    photos = singles(10, 10)
    digests = [f"{index:x}" for index in range(20)]
    digests[3] = digests[4] = digests[15] = "same"
    digests[7] = digests[8] = "copies of one label"
    clusters = alone(photos)
    clusters[4] = clusters[15] = 3
    clusters[8] = 7
    result = split(photos, 2, clusters, digests=digests)
    assert result.kept_out == dict.fromkeys((3, 4, 15), split_module.LABEL_CONFLICT)
    assert not {3, 4, 15} & {*result.train.tolist(), *result.test.tolist()}


def test_a_label_conflict_across_a_given_split_takes_both_photos_out() -> None:
    photos = given(train=(4, 4), test=(3, 3))
    digests = [str(index) for index in range(len(photos))]
    digests[0] = digests[-1]
    result = split(photos, 2, digests=digests)
    assert set(result.kept_out) == {0, len(photos) - 1}


def test_too_few_photos_left_by_label_conflicts_says_how_many_those_are() -> None:
    photos = singles(6, 6)
    digests = [str(index % 6) if index % 6 else f"own {index}" for index in range(12)]  # five photos stand in both
    text = refusal(photos, 2, digests=digests)
    assert "10 photos were left out before, because the same photo stands in two classes" in text
    assert "headstart scan names them" in text


# what cannot be split, and what is said then


def refusal(*arguments, **options) -> str:
    with pytest.raises(DataError) as caught:
        split(*arguments, **options)
    text = str(caught.value)
    assert "\n" not in text
    return text


def test_one_class_is_refused_by_name_and_count() -> None:
    text = refusal(singles(12), ("ants",))
    assert "only one class, 'ants' (12 photos)" in text
    assert "at least 2 classes" in text


@pytest.mark.parametrize("count", [0, 1, 2])
def test_a_class_with_too_few_photos_is_named_with_its_count_and_what_is_needed(count: int) -> None:
    text = refusal(singles(12, count), ("ants", "bees"))
    assert f"'bees': {count}" in text
    assert "'ants'" not in text
    assert "needs at least 3" in text
    assert "add photos, or remove the class folder" in text


def test_many_small_classes_give_a_short_message() -> None:
    text = refusal(singles(5, *[1] * 30), tuple(f"c{number}" for number in range(31)))
    assert "and 22 more" in text
    assert len(text) < 400


def test_a_class_of_copies_of_one_photo_cannot_be_held_out() -> None:
    photos = singles(10, 5)
    clusters = alone(photos)
    clusters[10:] = 10
    assert "copies of one photo or belong to one group: 'bees': 5" in refusal(photos, ("ants", "bees"), clusters)


def test_a_group_that_ties_two_classes_together_is_explained() -> None:
    photos = singles(10, 10)
    clusters = alone(photos)
    clusters[:9] = 0  # nine ants and nine bees in one group; the other ant and the other bee in a second one
    clusters[10:19] = 0
    clusters[9] = clusters[19] = 9
    result = split(photos, ("ants", "bees"), clusters)
    assert result.test.tolist() == [9, 19]
    clusters[18] = 9  # the second group has two bees now, the first still more than enough
    assert split(photos, ("ants", "bees"), clusters).test.tolist() == [9, 18, 19]


def test_no_side_for_a_class_is_explained() -> None:
    photos = singles(4, 4)
    clusters = np.array([0, 0, 0, 1, 0, 1, 1, 1], dtype=np.int64)  # either group leaves one photo of a class
    assert "no hold-out has photos of 'ants' on both sides" in refusal(photos, ("ants", "bees"), clusters)


def test_no_usable_photo_is_an_error_of_its_own() -> None:
    assert "none of the 8 photos can be used" in refusal(singles(4, 4), 2, usable=[])


def test_test_classes_that_training_lacks_are_named_with_their_counts() -> None:
    text = refusal(given(train=(4, 4, 0, 0), test=(1, 1, 7, 2)), ("a", "b", "wasp", "fly"))
    assert "the test split has classes without a training photo: 'wasp': 7, 'fly': 2" in text


def test_validation_classes_that_training_lacks_are_named_too() -> None:
    text = refusal(given(train=(4, 4, 0), val=(1, 1, 3), test=(1, 1, 0)), ("a", "b", "wasp"))
    assert "the val split has classes without a training photo: 'wasp': 3" in text


@pytest.mark.parametrize("count", [0, 1])
def test_too_few_training_photos_beside_a_given_test_are_named(count: int) -> None:
    text = refusal(given(train=(4, count), test=(1, 0)), ("ants", "bees"))
    assert f"too few training photos: 'bees': {count}; each class needs at least 2" in text


def test_a_test_split_without_training_photos_is_refused() -> None:
    assert "there are no training photos (test: 8)" in refusal(given(test=(4, 4)), 2)
    assert "(val: 2, test: 8)" in refusal(given(test=(4, 4), val=(1, 1)), 2)


def test_a_test_split_of_broken_photos_is_refused_and_not_replaced() -> None:
    photos = given(train=(6, 6), test=(2, 2))
    assert "no photo of the test split can be used" in refusal(photos, 2, usable=range(12))


def test_hostile_class_names_are_escaped_in_messages() -> None:
    assert r"'bees\x1b[31m\x0a'" in refusal(singles(12, 1), ("ants", "bees\x1b[31m\n"))


@pytest.mark.parametrize("options", [{"test_fraction": 0.0}, {"test_fraction": 1.0}, {"folds": 1}, {"digests": ["a"]}])
def test_arguments_without_sense_are_refused(options: dict) -> None:
    with pytest.raises(UsageError, match="received"):
        split(singles(5, 5), 2, **options)


def test_clusters_of_another_length_are_refused() -> None:
    with pytest.raises(UsageError, match="10 photos; received 3"):
        split(singles(5, 5), 2, np.arange(3, dtype=np.int64))


@pytest.mark.full
def test_splitting_takes_time_in_proportion_to_the_photos() -> None:
    seconds = []
    for count in (10_000, 100_000):
        photos = singles(*[count // 100] * 100)
        begun = time.process_time()
        split(photos, 100)
        seconds.append(time.process_time() - begun)
    assert seconds[1] < 20 * seconds[0]
