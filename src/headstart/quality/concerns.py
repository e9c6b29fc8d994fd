"""What is wrong with the photos, in plain sentences: how many, for example which, and what to do about it."""

import re
import statistics
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from headstart.dataset import Dataset, list_names
from headstart.files import shown
from headstart.quality.duplicates import Duplicates
from headstart.quality.fingerprint import PhotoFacts

FEW = 20  # photos of a class; of these about 4 are tested
TINY = 64  # pixels of the shorter side
LONG = 2.0  # times as long as wide: half of the photo lies outside its middle square
UNEVEN = 3.0  # times as many photos in the largest class as in the smallest
TELLTALE = 0.2  # share of photos whose class a side issue gives away, above guessing the largest class
OUTSIDERS = 0.005  # share of photos up to which an odd one is worth naming
OUTSIZE = 30.0  # times as many pixels as the median photo, or as few
GREY_MODES = frozenset({"1", "L", "LA", "La", "I", "F", "I;16", "I;16L", "I;16B", "I;16N"})


def describe_conflicts(conflicts: Sequence[Mapping[str, Any]], near: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say which photos carry several labels: the same bytes, and near copies."""
    sentences = []
    if conflicts:
        photos = sum(len(conflict["paths"]) for conflict in conflicts)
        sentences.append(
            f"{photos:,} photos carry more than one label: the same bytes lie in several classes, for example "
            f"{_labelled(conflicts[0])}. They are used neither for training nor for the test; keep the right one of "
            "each."
        )
    if near:
        sentences.append(
            f"{_count(len(near), 'pair')} of near copies {_are(len(near))} labelled differently, for example "
            f"{_labelled(near[0])}. Look at them: a label is wrong, or they differ in a detail that matters."
        )
    return sentences


def describe_leaks(leaks: Sequence[Mapping[str, Any]], complete: bool) -> list[str]:
    """Say how many photos of the held-out splits are also among the photos they should be independent of."""
    if not leaks:
        return []
    kinds = Counter(leak["kind"] for leak in leaks)
    tested = len({leak["test"] for leak in leaks})
    example = leaks[0]
    return [
        f"{_count(tested, 'photo')} of a test or validation split {_are(tested)} also in another split "
        f"({'' if complete else 'more than '}{_count(kinds['exact'], 'pair')} of the same bytes, {kinds['near']:,} of "
        f"near copies), for example {shown(example['test'])} and {shown(example['train'])}. Such a test flatters: the "
        "copies are left out of training."
    ]


def describe_classes(classes: Mapping[str, int], *, hold_out: bool) -> list[str]:
    """Say which classes are empty or small; `hold_out`: a fifth of the photos will be the test."""
    sentences = []
    if empty := [name for name, count in classes.items() if count == 0]:
        sentences.append(
            f"{_count(len(empty), 'class', 'classes')} {_have(len(empty))} no readable photo: {list_names(empty)}. "
            "Add photos or remove the class."
        )
    few = sorted((count, name) for name, count in classes.items() if 0 < count < FEW)
    if few:
        named = ", ".join(f"'{shown(name)}' {count}" for count, name in few[:5]) + (" ..." if len(few) > 5 else "")
        least = few[0][0]
        tested = max(1, round(least / 5))
        luck = (
            f"With {least} photos about {tested} {_are(tested)} tested: even with all of them right, the true share "
            f"lies anywhere from {100 * lowest_share(tested):.0f} % to 100 %. "
        )
        sentences.append(
            f"{_count(len(few), 'class', 'classes')} {_have(len(few))} fewer than {FEW} photos ({named}). "
            f"{luck if hold_out else ''}Add photos of these classes."
        )
    return sentences


def lowest_share(count: int) -> float:
    """Lower end of Wilson's 95 % interval of a share when all of `count` are right: n / (n + 1.96**2).

    >>> round(lowest_share(4), 2)
    0.51
    """
    return count / (count + 1.96**2)


def describe_imbalance(imbalance: Mapping[str, Any] | None) -> list[str]:
    """Say how uneven the classes are, if one has at least `UNEVEN` times the photos of another."""
    if imbalance is None or imbalance["ratio"] < UNEVEN:
        return []
    return [
        f"{imbalance['sentence']} A classifier then leans towards the large class: add photos of the small one, or "
        "train with --class-weights balanced and compare."
    ]


def describe_skipped(skipped: Sequence[Mapping[str, str]]) -> list[str]:
    """Say how many files cannot be used, and why."""
    if not skipped:
        return []
    reasons = ", ".join(f"{count:,} {reason}" for reason, count in Counter(i["reason"] for i in skipped).most_common())
    return [
        f"{_count(len(skipped), 'file')} cannot be used ({reasons}), for example {shown(skipped[0]['path'])}. Repair "
        "or remove them."
    ]


def describe_copies(found: Duplicates, paths: Sequence[str], near_groups: Sequence[Sequence[str]]) -> list[str]:
    """Say how many photos are copies of another, exact or near, and how many look too much alike to tell."""
    sentences = []
    if found.exact:
        extra = sum(len(group) - 1 for group in found.exact)
        first, second = (shown(paths[index]) for index in found.exact[0][:2])
        sentences.append(
            f"{_count(extra, 'photo')} {'is an exact copy' if extra == 1 else 'are exact copies'} of another, for "
            f"example {second} of {first}. Copies teach nothing new; all copies of a photo stay on one side of the "
            "split."
        )
    if near_groups:
        count = sum(map(len, near_groups))
        sentences.append(
            f"{count:,} photos in {_count(len(near_groups), 'group')} look nearly the same, for example "
            f"{shown(near_groups[0][0])} and {shown(near_groups[0][1])}. Each group stays on one side of the split."
        )
    if found.crowded:
        sentences.append(
            f"{_count(len(found.crowded), 'photo')} {'looks' if len(found.crowded) == 1 else 'look'} like dozens of "
            f"others, for example {shown(paths[found.crowded[0]])}: of these only identical files are recognised as "
            "copies. If the photos come in series (one camera, one object), name the series in a manifest's column "
            "'group', so that none stands on both sides of the split."
        )
    return sentences


def describe_photos(facts: Sequence[PhotoFacts]) -> list[str]:
    """Say what is unusual about the photos themselves: tiny, long, partly grey, and what the decoder noted."""
    sentences = []
    total = len(facts)
    tiny = [min(fact.width, fact.height) for fact in facts if min(fact.width, fact.height) < TINY]
    if tiny and len(tiny) >= total / 100:
        sentences.append(
            f"{_of(len(tiny), total)} {_are(len(tiny))} smaller than {TINY} pixels (the smallest {min(tiny)}). They "
            "are enlarged for the network, which adds no detail: use the originals if there are larger ones."
        )
    long = [fact for fact in facts if max(fact.width, fact.height) >= LONG * min(fact.width, fact.height)]
    if len(long) > total / 10:
        sentences.append(
            f"{_of(len(long), total)} {_are(len(long))} at least {LONG:g} times as long as wide. The network looks at "
            "the middle square: crop the photos to the subject if it can lie outside."
        )
    grey = sum(fact.mode in GREY_MODES for fact in facts)
    if 0 < grey < total:
        sentences.append(f"{_of(grey, total)} {_are(grey)} grey, the others colour.")
    return sentences + _describe_notes(facts)


def _describe_notes(facts: Sequence[PhotoFacts]) -> list[str]:
    """What the decoder noted, each kind once; of notes that differ in their numbers the first is shown."""
    notes: dict[str, list[str]] = {}
    for fact in facts:
        for note in dict.fromkeys(fact.notes):
            notes.setdefault(re.sub(r"\d+", "", note), []).append(note)
    ranked = sorted(notes.values(), key=len, reverse=True)
    return [
        f"{_of(len(same), len(facts))}: {shown(same[0])}{'' if len(set(same)) == 1 else ', and the like'}."
        for same in ranked
    ]


def describe_outsiders(paths: Sequence[str], facts: Sequence[PhotoFacts]) -> list[str]:
    """Name the few photos that are unlike the rest in format or size: placeholders, thumbnails, scans."""
    formats = Counter(fact.format for fact in facts)
    usual = statistics.median(fact.width * fact.height for fact in facts) if facts else 0
    found = []
    for path, fact in zip(paths, facts, strict=True):
        times = fact.width * fact.height / usual
        if formats[fact.format] <= len(facts) * OUTSIDERS:
            found.append(f"{shown(path)} (one of {_count(formats[fact.format], shown(fact.format) + ' file')})")
        elif not 1 / OUTSIZE < times < OUTSIZE:
            found.append(f"{shown(path)} ({fact.width} x {fact.height} pixels)")
    if not 0 < len(found) <= len(facts) * OUTSIDERS:
        return []
    they = "it belongs" if len(found) == 1 else "they belong"
    return [
        f"{_count(len(found), 'photo')} {_are(len(found))} unlike the rest: {', '.join(found[:5])}"
        f"{' ...' if len(found) > 5 else ''}. Look whether {they} here: placeholders, thumbnails and scans hide among "
        "photos."
    ]


def describe_telltales(dataset: Dataset, facts: Sequence[PhotoFacts], usable: Sequence[int]) -> list[str]:
    """Say which side issue (format, colour, size, orientation) gives the class away: a classifier would learn that."""
    issues: dict[str, Callable[[PhotoFacts], str]] = {
        "file format": lambda fact: fact.format,
        "colour mode": lambda fact: "grey" if fact.mode in GREY_MODES else "colour",
        "size": lambda fact: f"{fact.width}x{fact.height}",
        "orientation": lambda fact: ("square", "landscape", "portrait")[
            (fact.width > fact.height) - (fact.width < fact.height)
        ],
    }
    labels = Counter(dataset.photos[index].label for index in usable)
    sentences = []
    for issue, value_of in issues.items():
        table = Counter((value_of(facts[index]), dataset.photos[index].label) for index in usable)
        largest = Counter[str]()
        for (value, _), count in table.items():
            largest[value] = max(largest[value], count)
        told, guessed = sum(largest.values()), max(labels.values(), default=0)
        # Where nearly every photo has a value of its own, the values name photos, not classes.
        if 2 <= len(largest) <= len(usable) / 10 and told - guessed >= TELLTALE * len(usable):
            mostly = _mostly(table, labels, dataset.classes)
            sentences.append(
                f"The {issue} alone tells the class of {100 * told / len(usable):.0f} % of the photos (the largest "
                f"class has {100 * guessed / len(usable):.0f} %): {mostly}. The classifier may learn that instead of "
                "the subject: take or convert the photos of all classes in the same way."
            )
    return sentences


def _mostly(table: Counter[tuple[str, int]], labels: Counter[int], classes: Sequence[str]) -> str:
    """The clearest example: a class and another one, each with the value that most of its photos have."""
    (first, label), _ = table.most_common(1)[0]
    rest = [case for case in table.most_common() if case[0][0] != first and case[0][1] != label]
    cases = [table.most_common(1)[0], *rest[:1]]
    return ", ".join(f"'{shown(classes[of])}' {value} ({n:,} of {labels[of]:,})" for (value, of), n in cases)


def _labelled(conflict: Mapping[str, Any]) -> str:
    pairs = list(zip(conflict["paths"], conflict["labels"], strict=True))
    return " and ".join(f"{shown(path)} ('{shown(label)}')" for path, label in pairs[:3])


def _count(number: int, one: str, many: str = "") -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _of(number: int, total: int) -> str:
    return f"All {total:,} photos" if number == total else f"{number:,} of {total:,} photos"


def _are(number: int) -> str:
    return "is" if number == 1 else "are"


def _have(number: int) -> str:
    return "has" if number == 1 else "have"
