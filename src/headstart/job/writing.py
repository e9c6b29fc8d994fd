"""From what was measured to a run directory: the documents, the report, and the write itself."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float64

from headstart import runs
from headstart.classifier import Classifier
from headstart.config import TrainConfig
from headstart.dataset import Dataset
from headstart.errors import DataError
from headstart.job import evidence
from headstart.job.material import Material, Timings, read_thumbnails
from headstart.report import SMALL_SIDE, answer_maps, make_thumbnail, render_report
from headstart.report.layer_table import layer_table
from headstart.report.maps import Fetch


@dataclass(frozen=True, eq=False)
class Finished:
    """A classifier that was tested.

    Args:
        classifier: what the run will answer with.
        plan: what plan.json shall hold.
        test, validation: measures of `headstart.metrics.evaluate`.
        test_probabilities: of every photo of the final test.
        diagnosis: findings, the gravest first.
        features: photos whose features were "computed" and "reused".
        provenance: what is told besides versions, weights and seed.
        history: a row an epoch, where a network was trained.
        picture: of the four cases, SVG; none where the case was not measured.
    """

    classifier: Classifier
    plan: Mapping[str, Any]
    test: Mapping[str, Any]
    validation: Mapping[str, Any]
    test_probabilities: Float64[np.ndarray, "test classes"]
    diagnosis: Sequence[Mapping[str, Any]]
    features: Mapping[str, int]
    provenance: Mapping[str, Any]
    history: Sequence[Mapping[str, float | int]] = ()
    picture: str = ""


def write(
    place: Path, finished: Finished, material: Material, config: TrainConfig, clock: Timings, *, overwrite: bool
) -> runs.Run:
    """Write the run.

    Args:
        place: the run directory.
        finished: what goes into it.
        material: the photos.
        config: the settings as they were given.
        clock: its times become part of the run, up to the moment of writing.
        overwrite: replace a run that exists there.
    """
    dataset, plan = material.dataset, dict(finished.plan)
    document: dict[str, Any] = {
        "run": place.as_posix(),
        "schema": runs.SCHEMA,
        "classes": list(dataset.classes),
        "data": material.about,
        "plan": plan,
        "test": finished.test,
        "validation": finished.validation,
        "diagnosis": list(finished.diagnosis),
        "provenance": evidence.provenance(config, finished.classifier.backbone) | dict(finished.provenance),
        "features": dict(finished.features),
    }
    fetch = _fetch(dataset)
    with clock.step("write"):
        rows = evidence.prediction_rows(dataset, material.split, finished.test_probabilities, dataset.labels())
        document["timings"] = clock.to_json()
        page = render_report(
            document,
            plan,
            config.to_dict(),
            predictions=rows,
            thumbnail=read_thumbnails(dataset),
            small=_small(fetch),
            maps=lambda worst: answer_maps(finished.classifier, worst, fetch),
            scan=material.report.to_json(),
            history=finished.history,
            picture=finished.picture,
            layers=layer_table(finished.classifier),
        )
        return runs.write_run(
            place,
            classifier=finished.classifier,
            metrics=lambda: document | {"timings": clock.to_json()},
            plan=plan,
            config=config.to_dict(),
            predictions=rows,
            history=finished.history,
            report=page,
            overwrite=overwrite,
        )


def _fetch(dataset: Dataset) -> Fetch:
    """From a photo's path to its bytes or pixels."""
    photos = {photo.path: photo for photo in dataset.photos}
    return lambda path: dataset.fetch(photos[path])


def _small(fetch: Fetch) -> Callable[[str], bytes | None]:
    """From a photo's path to a picture of it for the page of its cell; None where it can no longer be read."""

    def draw(path: str) -> bytes | None:
        try:
            return make_thumbnail(fetch(path), SMALL_SIDE)
        except DataError:
            return None

    return draw
