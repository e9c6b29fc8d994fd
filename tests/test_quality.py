"""A scan counts right, finds every planted fault, and says so in words that can be printed anywhere."""

import itertools
import json
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headstart.dataset import Dataset, Photo, Skipped
from headstart.quality import PhotoFacts, ScanReport, find_duplicates, format_report, inspect, list_skipped
from headstart.quality.concerns import lowest_share

HOSTILE = [
    "a\x1b[31mred.jpg",
    "new\nline.jpg",
    "=cmd|'/c calc'!A1.jpg",
    "\u202egpj.exe",
    "<script>.jpg",
    b"\xe9.jpg".decode("utf-8", "surrogateescape"),
    "tab\t.jpg",
    "\x00nul.jpg",
    "a" * 300,
]


def thumb(number: int) -> np.ndarray:
    coarse = np.random.default_rng(number).normal(128, 50, (4, 4))
    return np.clip(coarse.repeat(4, axis=0).repeat(4, axis=1), 0, 255).astype(np.uint8)


def fact(content: int, **other: object) -> PhotoFacts:
    plain = PhotoFacts(f"{content:064x}", None, 400, 300, "JPEG", "RGB", (), 0, thumb(content))
    return replace(plain, **other)


def dataset_of(photos: Sequence[Photo], classes: Sequence[str] = ("ant", "bee"), **other: object) -> Dataset:
    return Dataset(name="insects", root=Path(), classes=tuple(classes), photos=tuple(photos), **other)


def a_set(count: int = 60) -> tuple[list[Photo], list[PhotoFacts]]:
    photos = [Photo(f"{('ant', 'bee')[number % 2]}/{number:02d}.jpg", number % 2) for number in range(count)]
    return photos, [fact(number) for number in range(count)]


def random_set(seed: int) -> tuple[Dataset, list[PhotoFacts]]:
    """Photos with copies, near copies, three classes, three splits and broken files at random."""
    random = np.random.default_rng(seed)
    photos, facts = [], []
    for number in range(90):
        split = random.choice(["train", "val", "test"])
        photos.append(Photo(f"{split}/{number}.jpg", int(random.integers(3)), str(split)))
        facts.append(fact(int(random.integers(60))))
    for number in random.choice(90, 12, replace=False):  # a re-compressed copy: other bytes, the same look
        facts[number] = replace(facts[number], digest=f"{1000 + number:064x}")
    for number in random.choice(90, 6, replace=False):
        facts[number] = PhotoFacts(facts[number].digest, ("truncated", "the end is missing"))
    return dataset_of(photos, ("ant", "bee", "wasp")), facts


def look_alike(first: PhotoFacts, second: PhotoFacts) -> bool:
    return first.thumb is not None and second.thumb is not None and np.array_equal(first.thumb, second.thumb)


# ---------------------------------------------------------------------------------------------- counts


def test_the_document_has_the_promised_keys() -> None:
    document = inspect(*_as_arguments(a_set())).to_json()
    promised = {"images", "classes", "splits", "sizes", "skipped", "duplicates", "near_duplicates", "leaks"}
    assert document.keys() >= promised | {"label_conflicts", "warnings"}
    assert json.loads(json.dumps(document)) == document


def _as_arguments(made: tuple[list[Photo], list[PhotoFacts]]) -> tuple[Dataset, list[PhotoFacts]]:
    return dataset_of(made[0]), made[1]


@pytest.mark.parametrize("seed", range(4))
def test_classes_splits_and_skipped_files_add_up(seed: int) -> None:
    dataset, facts = random_set(seed)
    dataset = replace(dataset, skipped=(Skipped("b.txt", "not_an_image", "no photo"),))
    report = inspect(dataset, facts)
    good = [photo for photo, fact in zip(dataset.photos, facts, strict=True) if fact.rejected is None]
    assert report.images == len(good) == 84
    assert report.classes == {name: sum(dataset.classes[p.label] == name for p in good) for name in dataset.classes}
    assert report.splits == {name: sum(p.split == name for p in good) for name in ("train", "val", "test")}
    assert len(report.skipped) == 6 + 1
    assert {"path": "b.txt", "reason": "not_an_image", "detail": "no photo"} in report.skipped
    assert list(report.skipped) == list_skipped(dataset, facts)
    refused = {p.path for p, fact in zip(dataset.photos, facts, strict=True) if fact.rejected}
    assert {item["path"] for item in report.skipped if item["reason"] == "truncated"} == refused


def test_sizes_are_smallest_median_and_largest() -> None:
    photos, facts = a_set(5)
    shapes = [(100, 50), (200, 100), (300, 300), (400, 100), (1000, 2000)]
    facts = [replace(one, width=width, height=height) for one, (width, height) in zip(facts, shapes, strict=True)]
    sizes = inspect(dataset_of(photos), facts).sizes
    assert sizes["width"] == {"min": 100, "median": 300, "max": 1000}
    assert sizes["height"] == {"min": 50, "median": 100, "max": 2000}
    assert sizes["megapixels"] == {"min": 0.005, "median": 0.04, "max": 2.0}
    assert sizes["aspect"] == {"min": 0.5, "median": 2.0, "max": 4.0}


def test_a_photo_without_split_counts_as_training_where_others_have_one() -> None:
    photos, facts = a_set(10)
    photos[3] = replace(photos[3], split="test")
    assert inspect(dataset_of(photos), facts).splits == {"train": 9, "test": 1}
    assert inspect(*_as_arguments(a_set(10))).splits == {}


def test_a_data_set_without_a_readable_photo_still_has_a_report() -> None:
    photos, _ = a_set(4)
    report = inspect(dataset_of(photos), [PhotoFacts("0" * 64, ("empty", "the file has no bytes"))] * 4)
    assert report.images == 0
    assert report.sizes == {}
    assert report.imbalance is None
    assert len(report.skipped) == 4
    assert "2 classes have no readable photo: 'ant', 'bee'." in " ".join(report.warnings)
    assert format_report(report)


# ---------------------------------------------------------------------------- copies, leaks, conflicts


@pytest.mark.parametrize("seed", range(8))
def test_every_pair_of_copies_in_different_splits_is_a_leak(seed: int) -> None:
    dataset, facts = random_set(seed)
    order = {"train": 0, "val": 1, "test": 2}
    expected = set()
    for (first, one), (second, two) in itertools.combinations(zip(dataset.photos, facts, strict=True), 2):
        if one.rejected or two.rejected or first.split == second.split or not look_alike(one, two):
            continue
        train, test = sorted((first, second), key=lambda photo: order[photo.split])
        expected.add((test.path, train.path, "exact" if one.digest == two.digest else "near"))
    report = inspect(dataset, facts)
    assert len(expected) > 5
    assert {(leak["test"], leak["train"], leak["kind"]) for leak in report.leaks} == expected
    assert len(report.leaks) == len(expected)


@pytest.mark.parametrize("seed", range(8))
def test_every_photo_with_the_same_bytes_in_two_classes_is_reported(seed: int) -> None:
    dataset, facts = random_set(seed)
    same: dict[str, list[Photo]] = {}
    for photo, one in zip(dataset.photos, facts, strict=True):
        if one.rejected is None:
            same.setdefault(one.digest, []).append(photo)
    expected = {
        tuple((photo.path, dataset.classes[photo.label]) for photo in group)
        for group in same.values()
        if len({photo.label for photo in group}) > 1
    }
    report = inspect(dataset, facts)
    assert expected
    told = {tuple(zip(item["paths"], item["labels"], strict=True)) for item in report.label_conflicts}
    assert told == expected


@pytest.mark.parametrize("seed", range(4))
def test_near_copies_with_different_labels_are_reported_apart(seed: int) -> None:
    dataset, facts = random_set(seed)
    report = inspect(dataset, facts)
    labels = {photo.path: dataset.classes[photo.label] for photo in dataset.photos}
    digests = {photo.path: one.digest for photo, one in zip(dataset.photos, facts, strict=True)}
    for item in report.near_label_conflicts:
        first, second = item["paths"]
        assert digests[first] != digests[second]
        assert item["labels"] == [labels[first], labels[second]]
        assert labels[first] != labels[second]


@pytest.mark.parametrize("seed", range(4))
def test_a_near_group_holds_everything_that_looks_the_same(seed: int) -> None:
    dataset, facts = random_set(seed)
    looks: dict[bytes, set[int]] = {}
    for index, one in enumerate(facts):
        if one.thumb is not None:
            looks.setdefault(one.thumb.tobytes(), set()).add(index)
    expected = {
        frozenset(dataset.photos[index].path for index in group)
        for group in looks.values()
        if len({facts[index].digest for index in group}) > 1
    }
    assert {frozenset(group) for group in inspect(dataset, facts).near_duplicates} == expected


def test_what_was_found_before_is_not_searched_again() -> None:
    dataset, facts = random_set(0)
    assert inspect(dataset, facts, find_duplicates(facts)).to_json() == inspect(dataset, facts).to_json()


def test_very_many_leaks_are_cut_and_the_sentence_says_so() -> None:
    photos = [Photo(f"{number}.jpg", 0, "train" if number % 2 else "test") for number in range(300)]
    report = inspect(dataset_of(photos), [fact(1)] * 300)  # 150 x 150 pairs of one content
    assert len(report.leaks) == 10_000
    assert "more than 10,000 pairs of the same bytes" in " ".join(report.warnings)


# -------------------------------------------------------------------------------------------- warnings


def warnings_of(photos: Sequence[Photo], facts: Sequence[PhotoFacts], **other: object) -> str:
    return "\n".join(inspect(dataset_of(photos, **other), facts).warnings)


def test_a_sound_set_has_no_warning() -> None:
    report = inspect(*_as_arguments(a_set()))
    assert report.warnings == ()
    assert "Nothing to complain about." in format_report(report)


def test_the_warnings_of_the_reader_are_passed_on() -> None:
    assert warnings_of(*a_set(), warnings=("the sky is low",)) == "the sky is low"


def test_an_uneven_set_is_told_with_its_ratio() -> None:
    photos, facts = a_set(260)
    photos = [replace(photo, label=int(number < 26)) for number, photo in enumerate(photos)]
    report = inspect(dataset_of(photos), facts)
    assert report.imbalance["ratio"] == 9.0
    assert (report.imbalance["largest"], report.imbalance["smallest"]) == ("ant", "bee")
    assert "Class 'ant' has 9.0 times as many photos as 'bee' (234 against 26)." in "\n".join(report.warnings)


@pytest.mark.parametrize("count", [1, 2, 12, 19])
def test_small_classes_are_told_with_what_luck_could_do(count: int) -> None:
    photos, facts = a_set(40)
    photos = [replace(photo, label=int(number < count)) for number, photo in enumerate(photos)]
    text = warnings_of(photos, facts)
    assert f"1 class has fewer than 20 photos ('bee' {count})" in text
    tested = max(1, round(count / 5))
    assert f"from {100 * lowest_share(tested):.0f} % to 100 %" in text


def test_the_lowest_share_is_the_end_of_wilsons_interval() -> None:
    for count in (1, 2, 4, 20, 1000):
        shares = np.linspace(0, 1, 200_001)[1:]
        inside = np.abs(1 - shares) <= 1.96 * np.sqrt(shares * (1 - shares) / count)  # the score test accepts them
        assert lowest_share(count) == pytest.approx(shares[inside].min(), abs=1e-4)


def test_leaks_conflicts_copies_and_skipped_files_are_told_with_numbers_and_names() -> None:
    photos, facts = a_set(60)
    photos = [replace(photo, split="test" if number < 10 else "train") for number, photo in enumerate(photos)]
    facts[20] = facts[0]  # bytes of a test photo in training
    facts[22] = replace(facts[2], digest="f" * 64)  # a re-compressed one
    facts[41] = facts[40]  # the same bytes as an ant and as a bee
    facts[50] = PhotoFacts("e" * 64, ("empty", "the file has no bytes"))
    text = warnings_of(photos, facts)
    assert "2 photos carry more than one label" in text
    assert "ant/40.jpg ('ant') and bee/41.jpg ('bee')" in text
    assert "2 photos of a test or validation split are also in another split" in text
    assert "1 pair of the same bytes, 1 of near copies" in text
    assert "ant/00.jpg and ant/20.jpg" in text
    assert "1 file cannot be used (1 empty), for example ant/50.jpg" in text
    assert "2 photos are exact copies of another" in text
    assert "2 photos in 1 group look nearly the same" in text


def test_photos_of_a_fixed_scene_are_told_once() -> None:
    photos, facts = a_set(100)
    facts = [replace(one, thumb=facts[0].thumb) if number < 40 else one for number, one in enumerate(facts)]
    text = warnings_of(photos, facts)
    assert "40 photos look like dozens of others" in text
    assert "nearly the same" not in text


def test_tiny_long_and_grey_photos_are_told() -> None:
    photos, facts = a_set(60)
    facts[:3] = [replace(one, width=40, height=28) for one in facts[:3]]
    facts[3:23] = [replace(one, width=1200, height=300) for one in facts[3:23]]
    facts[30:34] = [replace(one, mode="L") for one in facts[30:34]]
    text = warnings_of(photos, facts)
    assert "3 of 60 photos are smaller than 64 pixels (the smallest 28)" in text
    assert "20 of 60 photos are at least 2 times as long as wide" in text
    assert "4 of 60 photos are grey, the others colour." in text


def test_notes_of_the_decoder_are_counted_by_kind() -> None:
    photos, facts = a_set(60)
    for number in range(5):
        facts[number] = replace(facts[number], notes=(f"only the first of {number + 2} frames is used",) * 2)
    facts[9] = replace(facts[9], notes=("16-bit grey scaled to 8 bits",))
    text = warnings_of(photos, facts)
    assert "5 of 60 photos: only the first of 2 frames is used, and the like." in text
    assert "1 of 60 photos: 16-bit grey scaled to 8 bits." in text


def test_the_odd_ones_out_are_named() -> None:
    photos, facts = a_set(400)
    facts[7] = replace(facts[7], format="GIF")
    facts[8] = replace(facts[8], width=4000, height=3000)
    text = warnings_of(photos, facts)
    assert "2 photos are unlike the rest: bee/07.jpg (one of 1 GIF file), ant/08.jpg (4000 x 3000 pixels)." in text


@pytest.mark.parametrize(
    ("change", "issue", "value"),
    [
        ({"format": "PNG"}, "file format", "PNG"),
        ({"mode": "L"}, "colour mode", "grey"),
        ({"width": 300, "height": 400}, "orientation", "portrait"),
        ({"width": 600, "height": 500}, "size", "600x500"),
    ],
)
def test_a_side_issue_that_gives_the_class_away_is_told(change: dict[str, object], issue: str, value: str) -> None:
    photos, facts = a_set(60)
    told = [replace(one, **change) if photo.label else one for photo, one in zip(photos, facts, strict=True)]
    text = warnings_of(photos, told)
    assert f"The {issue} alone tells the class of 100 % of the photos (the largest class has 50 %)" in text
    assert re.search(rf"'ant' \S+ \(30 of 30\), 'bee' {value} \(30 of 30\)", text)
    half = [replace(one, **change) if number % 4 < 2 else one for number, one in enumerate(facts)]
    assert "alone tells" not in warnings_of(photos, half)  # as often in both classes


# -------------------------------------------------------------------------------------------- the text


def test_no_name_can_write_control_characters_to_the_terminal() -> None:
    names = [f"train/{name}" for name in HOSTILE]
    photos = [Photo(name, number % 2, "train") for number, name in enumerate(names)]
    photos += [Photo(f"test/{name}", number % 2, "test") for number, name in enumerate(HOSTILE)]
    facts = [fact(number % len(HOSTILE)) for number in range(len(photos))]
    facts[1] = PhotoFacts("e" * 64, ("corrupt", "bad \x1b[2J byte"))
    dataset = replace(
        dataset_of(photos, ("evil\x1b[0m\nclass", "\u202eesrever")), name="x\ry", skipped=(Skipped("\x07", "link"),)
    )
    report = inspect(dataset, facts)
    for line in format_report(report).split("\n"):
        assert line.isprintable(), line
    assert all(sentence.isprintable() for sentence in report.warnings)
    document = json.loads(json.dumps(report.to_json()))
    assert {path for group in document["duplicates"] for path in group} <= {photo.path for photo in photos}
    assert list(document["classes"]) == list(dataset.classes)


def test_the_text_says_what_there_is_and_what_is_wrong() -> None:
    dataset, facts = random_set(1)
    report = inspect(dataset, facts)
    text = format_report(report)
    assert text.startswith("insects: 84 photos in 3 classes\n")
    for name, count in report.classes.items():
        assert re.search(rf"^  {name} +{count}  #+$", text, re.M)
    assert f"Copies in different splits: {len(report.leaks)}" in text
    assert f"Skipped files: {len(report.skipped)}" in text
    assert f"Photos with several labels: {len(report.label_conflicts)}" in text
    assert max(len(line) for line in text.splitlines() if not line.startswith("  test")) <= 120


def test_of_many_classes_the_text_shows_the_largest_and_the_smallest() -> None:
    names = [f"class{number:03d}" for number in range(50)]
    labels = [number for number in range(50) for _ in range(number + 1)]
    photos = [Photo(f"{index}.jpg", label) for index, label in enumerate(labels)]
    facts = [fact(index, thumb=None, rejected=None) for index in range(len(photos))]
    text = format_report(inspect(dataset_of(photos, names), facts))
    shown = re.findall(r"^  (class\d+) ", text, re.M)
    assert shown == [*names[:33:-1], *names[2::-1]]
    assert "... 31 more classes" in text


def test_a_report_can_be_compared_by_its_document() -> None:
    dataset, facts = random_set(2)
    again = ScanReport(**{name: getattr(inspect(dataset, facts), name) for name in ScanReport.__dataclass_fields__})
    assert again.to_json() == inspect(dataset, facts).to_json()
    assert Counter(again.classes.values()).total() == 3
