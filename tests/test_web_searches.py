"""Searches behind the pages: they give way to what a page waits for, but not for ever."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from headstart.dataset import Dataset, Photo
from headstart.errors import UsageError
from headstart.web import searches
from headstart.web.opened import OpenRun
from web_server import until

PHOTOS = 40


class Look:
    """In the place of `look_at_units`: photos that take a few milliseconds each, and a count of them."""

    def __init__(self) -> None:
        self.done = 0
        self.fails = False

    def __call__(self, _subject: Any, _photos: Any, _layer: str, units: list[int], *, step: Callable[..., None]) -> Any:
        if self.fails:
            raise UsageError("there is no such unit")
        for self.done in range(1, PHOTOS + 1):
            step(self.done, PHOTOS, "photos scanned")
            time.sleep(0.005)
        return SimpleNamespace(units=units)


@pytest.fixture
def look(monkeypatch: pytest.MonkeyPatch) -> Look:
    made = Look()
    monkeypatch.setattr("headstart.look.units.look_at_units", made)
    monkeypatch.setattr("headstart.explain.subject_of", lambda *_: None)
    monkeypatch.setattr(searches, "unit_tiles", lambda _found, unit: {"patches": [unit]})
    return made


class Bare(OpenRun):
    """A run of which a search needs the name alone."""

    data = None

    def __init__(self) -> None:
        self.name, self.run = "small", SimpleNamespace(manifest={"seal": "x"}, classifier=None)  # type: ignore[assignment]


@pytest.fixture
def asked(tmp_path: Path) -> Iterator[Callable[[int], dict[str, Any]]]:
    """What is answered about a unit."""
    work, opened = searches.Searches(), Bare()
    dataset = Dataset("none", tmp_path, ("a", "b"), (Photo("a/1.jpg", 0),))
    ask: Any = lambda unit: work.get(opened, dataset, "stage1", unit)  # noqa: E731
    ask.held = work.held
    yield ask
    work.close()


def test_a_search_stops_while_a_page_waits_and_goes_on_afterwards(look: Look, asked: Any) -> None:
    asked(0)
    until(lambda: look.done > 2)
    with asked.held(), asked.held():
        time.sleep(0.05)  # the photo that was under way
        before = look.done
        time.sleep(0.3)
        assert look.done == before < PHOTOS
    until(lambda: asked(0) == {"patches": [0]})
    assert look.done == PHOTOS


def test_it_gives_way_for_a_limited_time_only(look: Look, asked: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(searches, "LONGEST_HOLD", 0.01)
    with asked.held():
        until(lambda: asked(0) == {"patches": [0]})


def test_what_fails_while_a_page_waits_lets_the_search_go_on(look: Look, asked: Any) -> None:
    with pytest.raises(ZeroDivisionError), asked.held():
        raise ZeroDivisionError
    until(lambda: asked(0) == {"patches": [0]})


def test_what_waits_gives_way_to_what_is_asked_for_now_and_findings_are_kept(look: Look, asked: Any) -> None:
    asked(0)
    asked(1)
    asked(2)  # 1 has not begun: it never will
    until(lambda: asked(2) == {"patches": [2]})
    count = look.done
    assert asked(0) == {"patches": [0]} and asked(2) == {"patches": [2]} and look.done == count
    look.fails = True
    until(lambda: asked(3) == {"missing": "there is no such unit"})


def test_clicks_from_several_places_are_counted_singly(look: Look, asked: Any) -> None:
    asked(0)
    ready = threading.Barrier(5)

    def click() -> None:
        with asked.held():
            ready.wait(10)

    clicks = [threading.Thread(target=click) for _ in range(4)]
    for one in clicks:
        one.start()
    ready.wait(10)
    for one in clicks:
        one.join(10)
    until(lambda: asked(0) == {"patches": [0]})
