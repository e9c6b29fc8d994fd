"""Measuring a classifier on labelled photos it was not made from."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from headstart import metrics, quality
from headstart.classifier import Classifier
from headstart.errors import DataError
from headstart.features import survey_photos
from headstart.files import shown
from headstart.progress import Progress
from headstart.readers import open_dataset
from headstart.store import Store


def evaluate_classifier(
    classifier: Classifier,
    data: str | Path,
    *,
    follow_links: bool = False,
    threads: int = 0,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a classifier on other labelled photos.

    Args:
        classifier: what to measure.
        data: as for `headstart.train`; every class must be one the classifier knows. All photos count, whatever their
            split.
        follow_links: also read what symbolic links inside the folder point to.
        threads: processor threads; 0: all this process may use.
        quiet: show no progress line.
        say: receives a sentence where the store could not be used as it should; None: silence.

    Returns:
        The measures of `headstart.metrics.evaluate`, with `data` (a name) and `skipped`.

    Raises:
        DataError: the data hold a class the classifier does not know, or no photo that can be read.
    """
    dataset = open_dataset(data, follow_links=follow_links)
    used = {dataset.classes[photo.label] for photo in dataset.photos}
    if unknown := sorted(used - set(classifier.classes)):
        raise DataError(
            f"the data hold {len(unknown)} classes that the classifier does not know: "
            f"{', '.join(map(shown, unknown[:5]))}; it knows {', '.join(map(shown, classifier.classes[:8]))}; "
            "rename the folders or train again with these photos"
        )
    with Store() as store, Progress(len(dataset.photos), "photos", quiet=quiet) as progress:
        survey = survey_photos(
            dataset,
            backbone=classifier.backbone,
            cuts=(classifier.cut,),
            engine=classifier.engine,
            store=store,
            threads=threads,
            progress=progress,
        )
    if say is not None:
        for notice in survey.notices:
            say(notice)
    rows = [index for index, fact in enumerate(survey.facts) if fact.rejected is None]
    if not rows:
        raise DataError(
            f"none of the {len(dataset.photos)} photos of {shown(dataset.name)} can be read; run headstart scan"
        )
    places = np.array([classifier.classes.index(name) if name in used else -1 for name in dataset.classes])
    labels = places[[dataset.photos[row].label for row in rows]]
    probabilities = classifier.probabilities_from_features(survey.features[classifier.cut][rows])
    judged = metrics.evaluate(probabilities, labels, classifier.classes)
    return {"data": dataset.name, **judged, "skipped": quality.list_skipped(dataset, survey.facts)}
