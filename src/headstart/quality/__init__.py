"""What is in the data and what is wrong with it, said before anything is trained."""

import itertools
import statistics
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from headstart.dataset import Dataset
from headstart.files import shown
from headstart.quality import concerns
from headstart.quality.duplicates import Duplicates, clusters, find_duplicates, unite
from headstart.quality.fingerprint import QUALITY_VERSION, THUMB_SIDE, PhotoFacts, photo_fingerprint
from headstart.quality.scan_report import MOST_LEAKS, ScanReport, format_report

__all__ = [
    "QUALITY_VERSION",
    "THUMB_SIDE",
    "Duplicates",
    "PhotoFacts",
    "ScanReport",
    "clusters",
    "find_duplicates",
    "format_report",
    "inspect",
    "list_skipped",
    "photo_fingerprint",
]

_SPLITS = ("train", "val", "test")  # a photo is compared with those of the splits before its own


def inspect(dataset: Dataset, facts: Sequence[PhotoFacts], found: Duplicates | None = None) -> ScanReport:
    """Count the photos of a data set and find what is wrong with them.

    Args:
        dataset: the photos with their labels and splits.
        facts: of each photo of the data set, in order.
        found: what `find_duplicates(facts)` returned, where it is known already.

    Returns:
        The report; nothing in it depends on the order of time or threads.
    """
    found = find_duplicates(facts) if found is None else found
    usable = [index for index, fact in enumerate(facts) if fact.rejected is None]
    good = [facts[index] for index in usable]
    paths = [photo.path for photo in dataset.photos]
    labels = Counter(dataset.photos[index].label for index in usable)
    classes = {name: labels[label] for label, name in enumerate(dataset.classes)}
    skipped = list_skipped(dataset, facts)
    near_groups = _near_groups(found, paths)
    leaks = list(itertools.islice(_leaks(dataset, facts, found), MOST_LEAKS + 1))
    conflicts = [group for group in found.exact if len({dataset.photos[index].label for index in group}) > 1]
    near_conflicts = [
        pair for pair in found.near.tolist() if dataset.photos[pair[0]].label != dataset.photos[pair[1]].label
    ]
    exact_labels, near_labels = _labelled(dataset, conflicts), _labelled(dataset, near_conflicts)
    imbalance, splits = _imbalance(classes), _splits(dataset, usable)
    return ScanReport(
        name=dataset.name,
        images=len(usable),
        classes=classes,
        splits=splits,
        sizes=_sizes(good),
        formats=dict(Counter(fact.format for fact in good).most_common()),
        modes=dict(Counter(fact.mode for fact in good).most_common()),
        skipped=tuple(skipped),
        ignored=dataset.ignored,
        duplicates=tuple(tuple(paths[index] for index in group) for group in found.exact),
        near_duplicates=near_groups,
        leaks=tuple(leaks[:MOST_LEAKS]),
        label_conflicts=tuple(exact_labels),
        near_label_conflicts=tuple(near_labels),
        imbalance=imbalance,
        warnings=(
            *dataset.warnings,
            *concerns.describe_conflicts(exact_labels, near_labels),
            *concerns.describe_leaks(leaks[:MOST_LEAKS], len(leaks) <= MOST_LEAKS),
            *concerns.describe_classes(classes, hold_out=not splits),
            *concerns.describe_skipped(skipped),
            *concerns.describe_copies(found, paths, near_groups),
            *concerns.describe_imbalance(imbalance),
            *concerns.describe_telltales(dataset, facts, usable),
            *concerns.describe_photos(good),
            *concerns.describe_outsiders([paths[index] for index in usable], good),
        ),
    )


def list_skipped(dataset: Dataset, facts: Sequence[PhotoFacts]) -> list[dict[str, str]]:
    """Every file that cannot be used, by path: {"path", "reason", "detail"}; reason is a code, detail a sentence."""
    listed = [{"path": item.path, "reason": item.reason, "detail": item.detail} for item in dataset.skipped]
    refused = [
        {"path": photo.path, "reason": fact.rejected[0], "detail": fact.rejected[1]}
        for photo, fact in zip(dataset.photos, facts, strict=True)
        if fact.rejected is not None
    ]
    return sorted(listed + refused, key=lambda item: item["path"])


def _split_of(dataset: Dataset) -> list[str]:
    """The split of each photo; where some photos have one, the others are for training."""
    if all(photo.split is None for photo in dataset.photos):
        return [""] * len(dataset.photos)
    return [photo.split or "train" for photo in dataset.photos]


def _splits(dataset: Dataset, usable: Sequence[int]) -> dict[str, int]:
    splits = _split_of(dataset)
    count = Counter(splits[index] for index in usable)
    return {name: count[name] for name in _SPLITS if name in splits}


def _sizes(facts: Sequence[PhotoFacts]) -> dict[str, dict[str, float]]:
    if not facts:
        return {}
    width = np.array([fact.width for fact in facts], dtype=float)
    height = np.array([fact.height for fact in facts], dtype=float)
    values = {"width": width, "height": height, "megapixels": width * height / 1e6, "aspect": width / height}
    return {
        name: {
            "min": round(float(value.min()), 6),
            "median": round(statistics.median(value.tolist()), 6),  # numpy's imports numpy.ma: 0.05 s more
            "max": round(float(value.max()), 6),
        }
        for name, value in values.items()
    }


def _near_groups(found: Duplicates, paths: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    joined = unite(len(paths), [*found.near.tolist(), *found.exact])
    groups: dict[int, list[str]] = {int(joined[first]): [] for first, _ in found.near.tolist()}
    for index, path in enumerate(paths):
        if (place := int(joined[index])) in groups:
            groups[place].append(path)
    return tuple(tuple(groups[place]) for place in sorted(groups))


def _leaks(dataset: Dataset, facts: Sequence[PhotoFacts], found: Duplicates) -> Iterator[dict[str, str]]:
    """Every pair of copies, exact or near, whose photos lie in different splits."""
    splits = _split_of(dataset)
    copies = {facts[group[0]].digest: group for group in found.exact}
    pairs = itertools.chain(
        (("exact", pair) for group in found.exact for pair in itertools.combinations(group, 2)),
        (
            ("near", pair)
            for first, second in found.near.tolist()
            for pair in itertools.product(
                copies.get(facts[first].digest, (first,)), copies.get(facts[second].digest, (second,))
            )
        ),
    )
    for kind, pair in pairs:
        if splits[pair[0]] != splits[pair[1]]:
            train, test = sorted(pair, key=lambda index: _SPLITS.index(splits[index]))
            yield {
                "test": dataset.photos[test].path,
                "train": dataset.photos[train].path,
                "kind": kind,
                "splits": f"{splits[test]}-{splits[train]}",
            }


def _labelled(dataset: Dataset, groups: Sequence[Sequence[int]]) -> list[dict[str, list[str]]]:
    return [
        {
            "paths": [dataset.photos[index].path for index in group],
            "labels": [dataset.classes[dataset.photos[index].label] for index in group],
        }
        for group in groups
    ]


def _imbalance(classes: Mapping[str, int]) -> dict[str, Any] | None:
    present = {name: count for name, count in classes.items() if count}
    if len(present) < 2:
        return None
    largest, smallest = max(present, key=lambda name: present[name]), min(present, key=lambda name: present[name])
    ratio = present[largest] / present[smallest]
    return {
        "ratio": round(ratio, 4),
        "largest": largest,
        "smallest": smallest,
        "sentence": f"Class '{shown(largest)}' has {ratio:.1f} times as many photos as '{shown(smallest)}' "
        f"({present[largest]:,} against {present[smallest]:,}).",
    }
