"""The pages that teach: a convolution by hand, padding and stride, pooling, first filters, learning rate, dropout, the
four cases. Every number on them is computed here by the code that the rest of headstart uses.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Float64
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from headstart.errors import UsageError
from headstart.files import shown
from headstart.layers.filter_lesson import GREY
from headstart.layers.filters import filter_image
from headstart.layers.kernels import CURVE_PATCH, KERNELS, OTHER_PATCH, read_kernel
from headstart.layers.shape_reports import POOL_KINDS, shape_conv, shape_pool
from headstart.layers.shapes import Axis
from headstart.nets import NETS
from headstart.web.forms import fields_of
from headstart.web.jobs import Job, Jobs
from headstart.web.opened import Opened
from headstart.web.rendering import answer, page, picture, png, whole_number
from headstart.web.screening import photo_bytes

SIDE = 16  # px of a photo of one's own in the lesson
LARGEST = 24  # px of a picture or map whose every number is shown
STEPS = 30  # of the descent in the bowl
USUAL_NET = "small-cnn"  # whose learning rates are tried
Plane = Float64[np.ndarray, "rows columns"]


def _drawn(*rows: str) -> Plane:
    """A small drawing: a digit is tens of brightness, a dot none."""
    return np.array([[25.0 * int(letter) if letter.isdigit() else 0.0 for letter in row] for row in rows])


PICTURES: dict[str, tuple[str, Plane]] = {
    "curve": ("a curve, 7 x 7", CURVE_PATCH),
    "other": ("another line, 7 x 7", OTHER_PATCH),
    "seven": (
        "a seven, 12 x 12",
        _drawn(
            "............",
            "..99999999..",
            "..99999999..",
            ".......99...",
            ".......99...",
            "......99....",
            "......99....",
            ".....99.....",
            ".....99.....",
            "....99......",
            "....99......",
            "............",
        ),
    ),
    "steps": ("light and dark, 8 x 8", _drawn(*4 * ["22226666"], *4 * ["66662222"])),
}


class LearnPages:
    """The lessons.

    Args:
        opened: the runs, for filters and cases of one's own.
        jobs: the processes, for the learning rates of a net on a folder.
    """

    def __init__(self, opened: Opened, jobs: Jobs) -> None:
        self._opened, self._jobs = opened, jobs

    def routes(self) -> list[Route]:
        """The addresses."""
        return [
            Route("/learn", self.index),
            Route("/learn/convolution", self.convolution),
            Route("/learn/convolution/numbers", self.convolution_numbers),
            Route("/learn/convolution/photo", self.convolution_photo, methods=["POST"]),
            Route("/learn/windows", self.windows),
            Route("/learn/windows/numbers", self.windows_numbers),
            Route("/learn/pooling", self.pooling),
            Route("/learn/pooling/numbers", self.pooling_numbers),
            Route("/learn/filters", self.filters),
            Route("/learn/filters/{name}/sheet.png", self.filter_sheet),
            Route("/learn/rate", self.rate),
            Route("/learn/rate", self.try_rates, methods=["POST"]),
            Route("/learn/rate/numbers", self.rate_numbers),
            Route("/learn/dropout", self.dropout),
            Route("/learn/dropout/numbers", self.dropout_numbers),
            Route("/learn/cases", self.cases),
        ]

    def index(self, _request: Request) -> Response:
        """GET /learn: the lessons."""
        return page("learn.html", here="learn")

    def convolution(self, _request: Request) -> Response:
        """GET /learn/convolution: a filter over a small picture; hover a number to see what it is the sum of."""
        pictures = [(name, title) for name, (title, _) in PICTURES.items()]
        return page("convolution.html", here="learn", pictures=pictures, kernels=list(KERNELS))

    def convolution_numbers(self, request: Request) -> Response:
        """GET .../numbers?picture=&kernel=: picture, filter, response, ReLU and pooling, number by number."""
        return answer(_convolved(_picture(request), request.query_params.get("kernel", "curve")))

    async def convolution_photo(self, request: Request) -> Response:
        """POST .../photo?kernel=: the same with the photo in the body, as 16 x 16 grey levels."""
        content, kernel = await photo_bytes(request), request.query_params.get("kernel", "top-edge")
        return answer(await run_in_threadpool(lambda: _convolved(_grey(content), kernel)))

    def windows(self, _request: Request) -> Response:
        """GET /learn/windows: padding, stride and dilation."""
        return page("windows.html", here="learn")

    def windows_numbers(self, request: Request) -> Response:
        """GET .../numbers?size=&kernel=&stride=&padding=&dilation=: the windows of one axis, and the arithmetic."""
        size = whole_number(request, "size", 8, low=1, high=LARGEST)
        kernel, stride = (whole_number(request, name, 3, low=1, high=LARGEST) for name in ("kernel", "stride"))
        dilation = whole_number(request, "dilation", 1, low=1, high=8)
        text = request.query_params.get("padding", "valid")
        padding: Any = text if text in ("valid", "same") else whole_number(request, "padding", high=LARGEST)
        axis = Axis.of(size, kernel, stride, padding, dilation)
        layer = shape_conv((size, size, 1), 1, kernel, stride=stride, padding=padding, dilation=dilation)
        windows = [
            [place * stride + cell * dilation - axis.padding[0] for cell in range(kernel)]
            for place in range(axis.output)
        ]
        read = {pixel for window in windows for pixel in window}
        return answer(
            {
                "size": size,
                "padding": list(axis.padding),
                "output": axis.output,
                "windows": windows,
                "unread": [pixel for pixel in range(size) if pixel not in read],
                "text": layer.to_text().splitlines(),
            }
        )

    def pooling(self, _request: Request) -> Response:
        """GET /learn/pooling: what pooling keeps of a map."""
        return page("pooling.html", here="learn", kinds=list(POOL_KINDS))

    def pooling_numbers(self, request: Request) -> Response:
        """GET .../numbers?size=&stride=&kind=: a map, its windows, what is made of each, and which cell won."""
        from headstart.layers.reference import pool2d

        window = whole_number(request, "size", 2, low=1, high=6)
        stride = whole_number(request, "stride", window, low=1, high=6)
        kind: Any = request.query_params.get("kind", "max")
        shape = shape_pool((8, 8, 1), window, stride=stride, kind=kind)
        values = np.maximum(filter_image(PICTURES["steps"][1], KERNELS["sobel-x"]).response, 0.0) / 25
        values = np.pad(values, 1) + np.add.outer(np.arange(8), np.arange(8)) % 5
        pooled = pool2d(values[None, None], window, stride, kind)[0, 0]
        return answer(
            {
                "values": values.tolist(),
                "pooled": pooled.tolist(),
                "window": window,
                "stride": stride,
                "kind": kind,
                "rule": POOL_KINDS[kind],
                "text": shape.to_text().splitlines(),
            }
        )

    def filters(self, request: Request) -> Response:
        """GET /learn/filters?run=: the first layer's filters of a run, or of the pretrained backbone."""
        names = [found.path.name for found in self._opened.summaries() if found.status == "complete"]
        chosen = request.query_params.get("run", "")
        return page("filters.html", here="learn", runs=names, chosen=chosen if chosen in names else "")

    def filter_sheet(self, request: Request) -> Response:
        """GET .../NAME/sheet.png: the filters as a picture; `backbone` is the one that headstart brings along."""
        from headstart.look.filters import look_at_filters
        from headstart.look.opening import open_subject

        name = request.path_params["name"]
        if name == "backbone":
            return picture(png(look_at_filters(open_subject("efficientnet-lite0")).sheet()), "image/png")
        opened = self._opened.get(name.removeprefix("run-"))
        with opened.lock:
            return picture(png(look_at_filters(opened.subject).sheet()), "image/png")

    def rate(self, request: Request) -> Response:
        """GET /learn/rate?job=: too low, good, bouncing, diverged, in the simplest valley and of a net on photos."""
        number = whole_number(request, "job", 0)
        job = self._jobs.get(number) if number else None
        if job is not None and job.kind != "rates":
            raise UsageError(f"job {number} tries no learning rates; its page is /jobs/{number}")
        return page("rate.html", here="learn", job=job, nets=sorted(NETS), net=job.about["net"] if job else USUAL_NET)

    async def try_rates(self, request: Request) -> Response:
        """POST /learn/rate: train a net shortly with several rates; the answer is the page, with the job's number."""
        form = await fields_of(request)
        job = await run_in_threadpool(self._try_rates, form.get("data") or "digits", form.get("net") or USUAL_NET)
        return RedirectResponse(f"/learn/rate?job={job.number}#trained", 303)

    def _try_rates(self, data: str, net: str) -> Job:
        if net not in NETS:
            raise UsageError(f"unknown net {shown(net)[:40]!r}; choose one of: {', '.join(sorted(NETS))}")
        named = self._opened.folders.data(self._opened.folders.remember(data)) or data
        command = ["lr", "--json", f"--net={net}", "--optimiser=sgd", "--", named]
        return self._jobs.start("rates", f"Learning rates of {net}", command, {"net": net, "data": named})

    def rate_numbers(self, request: Request) -> Response:
        """GET .../numbers?rate=: where gradient descent goes in a valley of curvature 1."""
        from headstart.training.range_finder import descend_bowl, judge_bowl

        rate = _real(request, "rate", 0.5, 0.001, 4.0)
        places = descend_bowl(1.0, rate, STEPS)
        return answer(
            {
                "rate": rate,
                "places": places,
                "losses": [place**2 / 2 for place in places],
                "verdict": judge_bowl(1.0, rate),
                "factor": 1 - rate,
            }
        )

    def dropout(self, _request: Request) -> Response:
        """GET /learn/dropout: units that are left out while training."""
        return page("dropout.html", here="learn")

    def dropout_numbers(self, request: Request) -> Response:
        """GET .../numbers?rate=&kind=&seed=: activations, which stay, and what comes out in training and in use."""
        from headstart.layers.reference import dropout, keep_mask

        rate = _real(request, "rate", 0.5, 0.0, 0.95)
        kind: Any = request.query_params.get("kind", "inverted")
        if kind not in ("inverted", "classical"):
            raise UsageError(f"unknown kind {shown(kind)[:40]!r}; choose one of: inverted, classical")
        random = np.random.default_rng(whole_number(request, "seed", 0))
        values = np.array([[3.0, 1.0, 4.0, 1.0, 5.0, 9.0, 2.0, 6.0, 5.0, 3.0, 5.0, 8.0]])
        keep = keep_mask((1, values.shape[1]), rate, random)
        many = keep_mask((20_000, values.shape[1]), rate, random)
        mean = dropout(np.repeat(values, len(many), axis=0), rate, many, kind).sum(axis=1).mean()
        return answer(
            {
                "values": values[0].tolist(),
                "keep": keep[0].tolist(),
                "training": dropout(values, rate, keep, kind)[0].tolist(),
                "use": dropout(values, rate, None, kind)[0].tolist(),
                "sum": float(values.sum()),
                "mean_sum": float(mean),
                "kind": kind,
            }
        )

    def cases(self, request: Request) -> Response:
        """GET /learn/cases?run=: the four cases of transfer learning, a run's own among them with its numbers."""
        from headstart.transfer.cases import CASES, STRATEGIES

        names = [found.path.name for found in self._opened.summaries() if found.status == "complete"]
        chosen = request.query_params.get("run", "")
        plan = self._opened.get(chosen).run.plan if chosen in names else {}
        cases = [(case, STRATEGIES[case.strategy]) for case in CASES.values()]
        return page("cases.html", here="learn", runs=names, chosen=chosen, plan=plan, cases=cases)


def _picture(request: Request) -> Plane:
    name = request.query_params.get("picture", "curve")
    if name not in PICTURES:
        raise UsageError(f"unknown picture {shown(name)[:40]!r}; choose one of: {', '.join(PICTURES)}")
    return PICTURES[name][1]


def _grey(content: bytes) -> Plane:
    """A photo as a few grey levels, 0..255, whole numbers."""
    from PIL import Image

    from headstart.images import decode

    pixels = decode(content, target=SIDE).pixels
    small = np.asarray(Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.BOX), np.float64)
    return np.asarray(np.rint(small @ GREY))


def _convolved(image: Plane, text: str) -> dict[str, Any]:
    """Everything that the page of the convolution shows. Raises UsageError, ShapeError."""
    name, kernel = read_kernel(text)
    if kernel.ndim == 3:
        raise UsageError("the picture of this lesson is grey; give one matrix, not three")
    filtered = filter_image(image, kernel, 2 if min(image.shape) - max(kernel.shape) >= 1 else None)
    return {
        "picture": image.tolist(),
        "filter": name,
        "kernel": kernel.tolist(),
        "response": filtered.response.tolist(),
        "relu": filtered.relu.tolist(),
        "pooled": None if filtered.pooled is None else filtered.pooled.tolist(),
    }


def _real(request: Request, name: str, default: float, low: float, high: float) -> float:
    """A number of the address, within its limits. Raises UsageError."""
    text = request.query_params.get(name)
    try:
        value = default if text is None else float(text)
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise UsageError(f"{name} must be a number from {low:g} to {high:g}; received {shown(str(text))[:40]!r}")
    return value
