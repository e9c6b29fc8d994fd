"""Looking inside a run's net: every layer's maps of a photo, one unit large, what excites it most, what it takes from
the photo.
"""

import hashlib
import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from headstart.errors import HeadstartError, ImageRejected, UsageError
from headstart.files import shown
from headstart.web.maps import layers_of, sprite, unit_document
from headstart.web.opened import Opened, OpenRun
from headstart.web.rendering import answer, page, picture, png, whole_number
from headstart.web.screening import photo_bytes
from headstart.web.searches import Searches
from headstart.web.tryout import explained

if TYPE_CHECKING:
    from headstart.explain import Photo
    from headstart.look.activations import Activations

PHOTOS = 8  # that were sent and stay in memory, of all runs
MAPS = 24  # layers' maps that stay in memory
BARS = 5  # classes in the answer
VIEWS, BACK, POOL = ("before", "after", "pooled"), ("auto", "gradient", "guided", "deconv"), 2


class InsidePages:
    """The page that looks inside.

    Args:
        opened: the runs.
    """

    def __init__(self, opened: Opened) -> None:
        self._opened = opened
        self._photos: OrderedDict[str, bytes] = OrderedDict()
        self._maps: OrderedDict[tuple[str, ...], Activations] = OrderedDict()
        self._searches = Searches()
        self._lock = threading.Lock()

    def routes(self) -> list[Route]:
        """The addresses; a photo is `test-N`, or `sent-...` of one that was sent."""
        start = "/runs/{name}/look"
        return [
            Route(start, self.form),
            Route(start + "/layers", self.layers),
            Route(start + "/photos", self.send, methods=["POST"]),
            Route(start + "/{photo}/input.png", self.input),
            Route(start + "/{photo}/answer", self.answer),
            Route(start + "/{photo}/{layer}/sprite.png", self.sprite),
            Route(start + "/{photo}/{layer}/{unit:int}", self.unit),
            Route(start + "/{layer}/{unit:int}/patches", self.patches),
        ]

    def close(self) -> None:
        """End the searches."""
        self._searches.close()

    def form(self, request: Request) -> Response:
        """GET /runs/NAME/look?photo=&layer=&unit=: the page; everything on it is asked for by its address."""
        opened = self._opened.get(request.path_params["name"])
        threading.Thread(target=_warm, args=(opened,), daemon=True).start()
        return page("look.html", here="runs", name=opened.name, data=opened.data, photos=len(opened.rows))

    def layers(self, request: Request) -> Response:
        """GET .../layers: stages and layers in the order they run."""
        opened = self._opened.get(request.path_params["name"])
        with opened.lock:
            return answer(layers_of(opened.subject))

    async def send(self, request: Request) -> Response:
        """POST .../photos: keep the photo in the body in memory for a while; its name for the other addresses."""
        content, name = await photo_bytes(request), request.path_params["name"]
        return answer(await run_in_threadpool(self._send, name, content))

    def _send(self, name: str, content: bytes) -> dict[str, str]:
        self._opened.get(name).subject.photo(content)  # raises where it cannot be read
        key = f"sent-{hashlib.sha256(content).hexdigest()[:24]}"
        with self._lock:
            self._photos[key] = content
            self._photos.move_to_end(key)
            while len(self._photos) > PHOTOS:
                self._photos.popitem(last=False)
        return {"photo": key}

    def input(self, request: Request) -> Response:
        """GET .../PHOTO/input.png: what the net sees."""
        from headstart.explain.drawing import input_image

        opened = self._opened.get(request.path_params["name"])
        return picture(png(input_image(self._photo(opened, request.path_params["photo"]))), "image/png")

    def answer(self, request: Request) -> Response:
        """GET .../PHOTO/answer?class=&method=: the most probable classes, and a map of what speaks for one."""
        opened = self._opened.get(request.path_params["name"])
        photo = self._photo(opened, request.path_params["photo"])
        method = request.query_params.get("method")
        with self._searches.held():
            told = explained(opened, photo, request.query_params.get("class"), method, side=320)
        with opened.lock:
            shares = opened.subject.probabilities(opened.subject.logits([photo.pixels]))[0]
        best = np.argsort(-shares, kind="stable")[:BARS].tolist()
        classes = [{"label": opened.subject.classes[place], "probability": float(shares[place])} for place in best]
        return answer({"classes": classes, "map": told})

    def sprite(self, request: Request) -> Response:
        """GET .../PHOTO/LAYER/sprite.png?view=&scale=: all units of a layer in one picture; its grid is in `layers`."""
        view, scale = _choice(request, "view", VIEWS), _choice(request, "scale", ("layer", "unit"))
        with self._searches.held():
            opened, photo, layer = self._asked(request)
            return picture(png(sprite(self._activations(opened, photo, layer), view, scale)), "image/png")

    def unit(self, request: Request) -> Response:
        """GET .../PHOTO/LAYER/UNIT?view=&back=: one unit with its values, the largest sent back to the pixels."""
        back, view = _choice(request, "back", BACK), _choice(request, "view", VIEWS)
        with self._searches.held():
            opened, photo, layer = self._asked(request)
            maps = self._activations(opened, photo, layer)
            unit = whole_number(request, "unit", high=len(maps.before) - 1)
            with opened.lock:
                return answer(unit_document(opened.subject, maps, unit, view, back, POOL))

    def patches(self, request: Request) -> Response:
        """GET .../LAYER/UNIT/patches: the patches that excite a unit most; 202 with the progress while it searches."""
        opened = self._opened.get(request.path_params["name"])
        layer, unit = request.path_params["layer"], request.path_params["unit"]
        found = opened.dataset()
        if found is None:
            return answer({"missing": "The photos of this run are not known here: say on its page where they are."})
        state = self._searches.get(opened, found[0], layer, unit)
        return answer(state, 202 if "done" in state else 200)

    def _asked(self, request: Request) -> "tuple[OpenRun, Photo, str]":
        opened = self._opened.get(request.path_params["name"])
        return opened, self._photo(opened, request.path_params["photo"]), request.path_params["layer"]

    def _photo(self, opened: OpenRun, key: str) -> "Photo":
        """A photo by its name in an address. Raises ImageRejected."""
        kind, _, rest = key.partition("-")
        if kind == "test" and rest.isascii() and rest.isdigit() and len(rest) < 9:
            return opened.subject.photo(opened.test_photo(int(rest)))
        with self._lock:
            content = self._photos.get(key)
        if content is None:
            raise ImageRejected("missing", "that photo is no longer in memory; send it again")
        return opened.subject.photo(content)

    def _activations(self, opened: OpenRun, photo: "Photo", layer: str) -> "Activations":
        """The maps of a layer for a photo, kept while they are looked at."""
        from headstart.look.activations import look_at_activations

        key = opened.name, opened.subject.weights, photo.sha256, layer
        with self._lock:
            if key in self._maps:
                self._maps.move_to_end(key)
                return self._maps[key]
        with opened.lock:
            made = look_at_activations(opened.subject, photo, layer, window=POOL)
        with self._lock:
            self._maps[key] = made
            while len(self._maps) > MAPS:
                self._maps.popitem(last=False)
        return made


def _warm(opened: OpenRun) -> None:
    """Build the net while the page is still being drawn."""
    try:
        with opened.lock:
            layers_of(opened.subject)
    except HeadstartError:
        pass  # the page asks for the layers next, and is told


def _choice(request: Request, name: str, known: tuple[str, ...]) -> str:
    """A choice of the address, the first one by default. Raises UsageError."""
    given = request.query_params.get(name, known[0])
    if given not in known:
        raise UsageError(f"unknown {name} {shown(given)[:40]!r}; choose one of: {', '.join(known)}")
    return given
