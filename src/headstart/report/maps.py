"""Where in a photo the evidence for a wrong answer lies: class activation maps of the mistakes that the report shows.

They come from the fast engine, without gradients, so they cost some hundredths of a second each. A run is worth more
than its pictures: whatever goes wrong here becomes a sentence.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from headstart.classifier import Classifier
from headstart.errors import DataError, HeadstartError
from headstart.report.facts import Row
from headstart.report.pictures import THUMBNAIL_SIDE, jpeg

MAPPED = 8  # mistakes with a map
AGREE = 1e-3  # share of a logit by which what the map adds up to may differ from it
MEANING = (
    "The picture beside a photo is where the evidence for the wrong answer lies: orange speaks for it, blue against "
    "it. The values of such a map and a constant add up to the classifier's own score; that was checked for each."
)
INSTEAD = "headstart explain shows other kinds of evidence."

Fetch = Callable[[str], bytes | np.ndarray]


@dataclass(frozen=True)
class Maps:
    """Maps of some photos.

    Args:
        pictures: from a photo's path to the bytes of a JPEG.
        words: what they show, or why there are none; empty where nothing was asked for.
    """

    pictures: Mapping[str, bytes] = field(default_factory=dict)
    words: str = ""


def answer_maps(classifier: Classifier, rows: Sequence[Row], fetch: Fetch) -> Maps:
    """Lay over each photo what each place adds to the score of the class that was said.

    Args:
        classifier: whose answers they are.
        rows: test photos; the first `MAPPED` of them are looked at.
        fetch: from a path to the photo's bytes or pixels.
    """
    if not rows:
        return Maps()
    try:
        pictures = dict(_drawn(classifier, rows[:MAPPED], fetch))
    except (HeadstartError, RuntimeError, ValueError, MemoryError) as error:
        reason = str(error).split(";")[0].strip() or type(error).__name__
        return Maps(words=f"There are no maps of the evidence: {reason}. {INSTEAD}")
    return Maps(pictures, MEANING if pictures else f"There are no maps of the evidence. {INSTEAD}")


def _drawn(classifier: Classifier, rows: Sequence[Row], fetch: Fetch) -> Iterator[tuple[str, bytes]]:
    from headstart.explain import subject_of
    from headstart.explain.cam import evidence_of, map_of
    from headstart.explain.drawing import overlay
    from headstart.explain.stored import outputs_of

    # one thread: an engine of one stream starts in half the time, and other pictures are drawn meanwhile
    subject, cut = subject_of(classifier, "this model", threads=1), classifier.cut
    try:
        name = map_of(subject, proven=False)  # what each map adds up to is checked below
        photos = []
        for row in rows:
            try:
                content = fetch(row["path"])
                photo = subject.photo(content)
            except DataError:
                continue  # it changed since the test, and is shown without a picture, too
            digest = hashlib.sha256(content).hexdigest() if isinstance(content, bytes) else ""
            photos.append((row, replace(photo, digest=digest)))
        found = outputs_of(subject, [photo for _, photo in photos], tuple(dict.fromkeys((cut, name))))
    finally:
        subject.close()
    for (row, photo), values in zip(photos, found, strict=True):
        target = classifier.classes.index(row["predicted"])
        logit = float(classifier.logits_from_features(values[cut].reshape(1, -1))[0, target])
        evidence = evidence_of(classifier.head, values[name], target)
        if abs(float(evidence.places.mean()) + evidence.constant - logit) <= AGREE * max(abs(logit), 1.0):
            yield row["path"], jpeg(overlay(photo, evidence.places, THUMBNAIL_SIDE))
