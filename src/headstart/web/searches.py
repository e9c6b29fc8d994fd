"""Searches for what excites a unit most, behind the pages, which give way while a page waits for an answer."""

import contextlib
import threading
from collections import OrderedDict
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from headstart.dataset import Dataset
from headstart.errors import HeadstartError
from headstart.web.maps import unit_tiles
from headstart.web.opened import OpenRun

if TYPE_CHECKING:
    from headstart.explain import Subject

SCANNED = 300  # photos that are searched for what excites a unit
REMEMBERED = 400  # searches whose findings stay in memory
LONGEST_HOLD = 2.0  # seconds that a search gives way for between two photos, whatever is asked for meanwhile


class Searches:
    """Searches for what excites units, one at a time behind the pages, in a net of their own."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="search")
        self._lock = threading.Lock()
        self._work: OrderedDict[tuple[str, ...], Future[dict[str, Any]]] = OrderedDict()
        self._steps: dict[tuple[str, ...], tuple[int, int, str]] = {}
        self._subjects: dict[str, Subject] = {}
        self._holding = 0  # answers that a page waits for
        self._free = threading.Condition()

    def get(self, opened: OpenRun, dataset: Dataset, layer: str, unit: int) -> dict[str, Any]:
        """The patches of a unit; `{"done", "of", "what"}` while they are searched for: the first call begins it.

        What was asked for and has not begun gives way to what is asked for now.
        """
        key = opened.name, opened.run.manifest["seal"], opened.data or "", layer, str(unit)
        with self._lock:
            work = self._work.get(key)
            if work is None or work.cancelled():
                for other, waiting in list(self._work.items()):
                    if waiting.cancel():
                        del self._work[other]
                work = self._work[key] = self._pool.submit(self._search, key, opened, dataset, layer, unit)
                while len(self._work) > REMEMBERED:
                    self._work.popitem(last=False)
        try:
            return work.result(timeout=0.05)
        except TimeoutError:
            done, of, what = self._steps.get(key, (0, 0, "waiting"))
            return {"done": done, "of": of, "what": what}

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Within it a search stops at its next photo: both processors are for what a page waits for."""
        with self._free:
            self._holding += 1
        try:
            yield
        finally:
            with self._free:
                self._holding -= 1
                self._free.notify_all()

    def _search(self, key: tuple[str, ...], opened: OpenRun, dataset: Dataset, layer: str, unit: int) -> dict[str, Any]:
        from headstart.explain import subject_of
        from headstart.look.units import look_at_units

        def step(done: int, of: int, what: str) -> None:
            self._steps[key] = done, of, what
            with self._free:
                self._free.wait_for(lambda: not self._holding, LONGEST_HOLD)

        try:
            if opened.run.manifest["seal"] not in self._subjects:
                self._subjects = {opened.run.manifest["seal"]: subject_of(opened.run.classifier, opened.name)}
            photos = dataset.photos[:: max(1, -(-len(dataset.photos) // SCANNED))]
            subject = self._subjects[opened.run.manifest["seal"]]
            found = look_at_units(subject, dataset.subset(photos), layer, [unit], step=step)
        except HeadstartError as error:
            return {"missing": str(error)}
        finally:
            self._steps.pop(key, None)
        return unit_tiles(found, found.units[0])

    def close(self) -> None:
        """Begin no more searches."""
        self._pool.shutdown(wait=False, cancel_futures=True)
