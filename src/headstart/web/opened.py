"""The runs that pages look at, opened once: the checked run, its test photos, its photos on this computer, its net."""

import functools
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float32, Float64

from headstart.dataset import Dataset, Photo
from headstart.errors import DataError, ImageRejected, RunError
from headstart.files import shown
from headstart.readers import open_dataset
from headstart.runs import Run, RunSummary, list_runs, load_run, read_manifest
from headstart.web.folders import Folders

if TYPE_CHECKING:
    from headstart.explain import Subject

KEPT = 3  # runs that stay open
SHARE = 0.5  # of a run's test photos that must be in a data set that is said to be its own
NEAREST = 6  # training photos beside a photo
MEMORY = 400 * 2**20  # bytes of training features that are kept for it, at most


class NoSuchRunError(RunError):
    """There is no directory of that name among the runs."""


class OpenRun:
    """A run with what the pages need of it; everything is made when it is first asked for.

    Args:
        name: of its folder.
        run: opened and checked.
        folders: where photos are.
    """

    def __init__(self, name: str, run: Run, folders: Folders) -> None:
        self.name, self.run = name, run
        self.lock = threading.RLock()  # one computation at a time: what watches a net's layers is not for two
        self._folders = folders
        self._photos: tuple[str, Dataset, dict[str, Photo]] | None = None
        self._train: tuple[str, list[Photo], Float32[np.ndarray, "photos features"]] | None = None

    @functools.cached_property
    def rows(self) -> list[dict[str, Any]]:
        """Every test photo, in the order of predictions.csv: its place there is its number on the pages."""
        return list(self.run.predictions())

    @functools.cached_property
    def cells(self) -> dict[tuple[str, str], list[int]]:
        """The numbers of the test photos of each label and prediction, those it is surest of first."""
        found: dict[tuple[str, str], list[int]] = {}
        for number in sorted(range(len(self.rows)), key=lambda place: -self.rows[place]["probability"]):
            found.setdefault((self.rows[number]["label"], self.rows[number]["predicted"]), []).append(number)
        return found

    @functools.cached_property
    def subject(self) -> "Subject":
        """The net, to look into. Hold `lock` while it works."""
        from headstart.explain import subject_of

        return subject_of(self.run.classifier, self.name)

    @property
    def data(self) -> str | None:
        """What was named as the run's data, if anything was."""
        return self._folders.of_run(self.name)

    def dataset(self) -> tuple[Dataset, dict[str, Photo]] | None:
        """The run's photos with a list of them by path; None where nobody said where they are, or they are gone."""
        data = self.data
        if data is None:
            return None
        with self.lock:
            if self._photos is None or self._photos[0] != data:
                try:
                    found = open_dataset(data)
                except DataError:
                    return None
                self._photos = data, found, {photo.path: photo for photo in found.photos}
            return self._photos[1:]

    def check_data(self, data: str) -> None:
        """Refuse data that are not the run's.

        Raises:
            DataError: they cannot be read, or hold fewer than half of the run's test photos.
        """
        paths = {photo.path for photo in open_dataset(data).photos}
        there = sum(row["path"] in paths for row in self.rows)
        if there < SHARE * len(self.rows):
            raise DataError(
                f"{shown(data)} holds {there:,} of the {len(self.rows):,} test photos of {shown(self.name)}; expected "
                "the data that the run was trained on; give their folder"
            )

    def test_photo(self, number: int) -> Any:
        """Bytes or pixels of a test photo. Raises ImageRejected: there is none of that number, or it is not at hand."""
        if not 0 <= number < len(self.rows):
            raise ImageRejected("missing", f"the run has {len(self.rows):,} test photos, counted from 0")
        opened = self.dataset()
        photo = None if opened is None else opened[1].get(self.rows[number]["path"])
        if opened is None or photo is None:
            raise ImageRejected("missing", "the photos of this run are not known here; say where they are")
        return opened[0].fetch(photo)

    def training_photos(self) -> list[Photo]:
        """The run's photos that are in no test."""
        opened = self.dataset()
        tested = {row["path"] for row in self.rows}
        return [] if opened is None else [photo for photo in opened[0].photos if photo.path not in tested]

    def training_photo(self, number: int) -> Any:
        """Bytes or pixels of a training photo. Raises ImageRejected."""
        listed, opened = self.training_photos(), self.dataset()
        if opened is None or not 0 <= number < len(listed):
            raise ImageRejected("missing", "there is no such training photo")
        return opened[0].fetch(listed[number])

    def nearest(self, features: Float32[np.ndarray, "features"]) -> tuple[list[dict[str, Any]], int]:
        """The training photos whose features point most in the same direction.

        Args:
            features: of a photo, at the run's cut.

        Returns:
            `{"number", "path", "label", "similarity"}` of the nearest, the nearest first; similarity is the cosine. And
            how many were compared.
        """
        listed, matrix = self._training_features()
        if not listed:
            return [], 0
        found = matrix @ (features / max(float(np.linalg.norm(features)), 1e-12)).astype(np.float32)
        order = np.argsort(-np.nan_to_num(found, nan=-2.0), kind="stable")[:NEAREST]
        opened = self.dataset()
        classes: Sequence[str] = () if opened is None else opened[0].classes
        places = {photo.path: place for place, photo in enumerate(self.training_photos())}
        return [
            {
                "number": places[listed[place].path],
                "path": listed[place].path,
                "label": classes[listed[place].label],
                "similarity": float(found[place]),
            }
            for place in order.tolist()
        ], len(listed)

    def _training_features(self) -> tuple[list[Photo], Float32[np.ndarray, "photos features"]]:
        """The training photos and their features, each of length 1; from the store where a training left them."""
        data, opened = self.data, self.dataset()
        if data is None or opened is None:
            return [], np.zeros((0, 1), np.float32)
        with self.lock:
            if self._train is None or self._train[0] != data:
                listed = self.training_photos()
                matrix = self._computed(opened[0], listed)
                self._train = data, listed[:: _step(len(listed), matrix.shape[1])], matrix
            return self._train[1], self._train[2]

    def _computed(self, dataset: Dataset, listed: Sequence[Photo]) -> Float32[np.ndarray, "photos features"]:
        from headstart.features import survey_photos
        from headstart.store import Store

        classifier = self.run.classifier
        some = listed[:: _step(len(listed), classifier.backbone.classifier_cuts[classifier.cut])]
        with Store() as store:
            survey = survey_photos(
                dataset.subset(some),
                backbone=classifier.backbone,
                cuts=(classifier.cut,),
                engine=classifier.engine,
                store=store,
            )
        matrix = np.asarray(survey.features[classifier.cut], np.float32)
        lengths: Float64[np.ndarray, "photos"] = np.linalg.norm(matrix.astype(np.float64), axis=1)
        return np.asarray(matrix / np.maximum(lengths, 1e-12)[:, None], np.float32)


def _step(photos: int, features: int) -> int:
    """Every how manieth photo is compared, so that the features fit in memory."""
    return max(1, -(-photos * features * 4 // MEMORY))


class Opened:
    """The folder of the runs, and the few of them that are open.

    Args:
        place: the folder; it need not be there yet.
    """

    def __init__(self, place: Path) -> None:
        self.place = place
        self.folders = Folders(place)
        self._open: OrderedDict[str, tuple[str, OpenRun]] = OrderedDict()
        self._lock = threading.Lock()

    def summaries(self) -> list[RunSummary]:
        """Every directory of the folder, by name."""
        return list_runs(self.place)

    def get(self, name: str) -> OpenRun:
        """A run by the name of its directory, opened if it is not, and again if it was replaced.

        Raises:
            NoSuchRunError: there is none.
            RunError: it is damaged.
        """
        known = {summary.path.name: summary.path for summary in self.summaries()}
        if name not in known:
            raise NoSuchRunError(f"there is no run {shown(name)[:80]} in {shown(self.place)}; see the list of runs")
        seal = str(read_manifest(known[name]).get("seal"))
        with self._lock:
            if name in self._open and self._open[name][0] == seal:
                self._open.move_to_end(name)
                return self._open[name][1]
        made = OpenRun(name, load_run(known[name]), self.folders)
        with self._lock:
            self._open[name] = seal, made
            self._open.move_to_end(name)
            while len(self._open) > KEPT:
                self._open.popitem(last=False)
        return made
