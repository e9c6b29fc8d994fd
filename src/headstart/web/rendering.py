"""What goes back to the browser: pages from templates that escape everything, JSON, and pictures made anew from pixels.

No page holds a script of its own or text of the data that is not escaped: pages name files of `static/`, and these put
text on the page as text only.
"""

import base64
import functools
import io
import json
from importlib import resources
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from headstart.errors import UsageError
from headstart.files import shown
from headstart.images import decode
from headstart.runs.documents import finite

THUMBNAIL = 224  # px, longer side
QUALITY = 80  # of JPEG
KINDS = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
# Without this a browser says of a form that it comes from nowhere, and the guard refuses it.
FORMS = {"Referrer-Policy": "same-origin"}
AN_HOUR = {"Cache-Control": "private, max-age=3600"}


def page(template: str, code: int = 200, /, **values: Any) -> HTMLResponse:
    """A page of `pages/`, filled in; what is printed is escaped, control characters are shown instead of sent."""
    text: str = _templates().get_template(template).render(**values)
    return HTMLResponse(text.encode("utf-8", "backslashreplace").decode(), code, FORMS)


@functools.cache
def _templates() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("headstart.web", "pages"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=_printed,
    )
    made.filters |= {"percent": percent, "count": lambda number: f"{number:,}"}
    return made


def _printed(value: object) -> object:
    if hasattr(value, "__html__"):
        return value
    return "\n".join(map(shown, value.split("\n"))) if isinstance(value, str) else value


def percent(share: float | None) -> str:
    """One decimal, but never 100.0 when something is missing, nor 0.0 when something is there.

    >>> percent(0.99999), percent(1.0), percent(None)
    ('>99.9 %', '100 %', '-')
    """
    if share is None:
        return "-"
    if share in (0.0, 1.0):
        return f"{100 * share:.0f} %"
    text = f"{100 * share:.1f}"
    return {"100.0": ">99.9", "0.0": "<0.1"}.get(text, text) + " %"


def answer(document: Any, status: int = 200) -> Response:
    """JSON in ASCII, so that any file name survives; what is no number is null."""
    return Response(json.dumps(finite(document), allow_nan=False), status, media_type="application/json")


def picture(content: bytes, kind: str = "image/jpeg") -> Response:
    """A picture that the browser may keep for an hour."""
    return Response(content, media_type=kind, headers=AN_HOUR)


def thumbnail(source: "bytes | UInt8[np.ndarray, '...']", side: int = THUMBNAIL) -> bytes:
    """A small JPEG made from a photo's pixels: nothing of the file itself, no metadata. Raises ImageRejected."""
    image = Image.fromarray(np.ascontiguousarray(decode(source, target=side).pixels))
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return jpeg(image)


def jpeg(image: Image.Image) -> bytes:
    """The bytes of a JPEG."""
    out = io.BytesIO()
    image.convert("RGB").save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def png(image: Image.Image) -> bytes:
    """The bytes of a PNG: for maps, whose squares must stay sharp."""
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def inline(image: Image.Image, *, sharp: bool = False) -> str:
    """A picture as the address of an `img`: small ones need no request of their own."""
    kind, content = ("png", png(image)) if sharp else ("jpeg", jpeg(image))
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def static(request: Request) -> Response:
    """A file of `static/`, by its exact name."""
    found = _static_files().get(request.path_params["name"])
    if found is None:
        return Response("there is no such file\n", 404, media_type="text/plain")
    return Response(found[0], media_type=found[1], headers={"Cache-Control": "no-cache"})


@functools.cache
def _static_files() -> dict[str, tuple[bytes, str]]:
    """Every file of `static/`, read once: nothing that a browser asks for ever becomes a path."""
    folder = resources.files("headstart.web").joinpath("static")
    kinds = {entry.name: KINDS.get("." + entry.name.rpartition(".")[2]) for entry in folder.iterdir()}
    return {name: (folder.joinpath(name).read_bytes(), kind) for name, kind in kinds.items() if kind}


def whole_number(request: Request, name: str, default: int | None = None, *, low: int = 0, high: int = 10**9) -> int:
    """A whole number of the address, within its limits. Raises UsageError."""
    text = request.path_params.get(name, request.query_params.get(name))
    if text is None and default is not None:
        return default
    if not (isinstance(text, int) or (text and text.isascii() and text.isdigit() and len(text) < 12)):
        raise UsageError(f"{name} must be a whole number from {low} to {high}; received {shown(str(text))[:40]!r}")
    if not low <= int(text) <= high:
        raise UsageError(f"{name} must be a whole number from {low} to {high}; received {text}")
    return int(text)
