"""How values become text in the page: the template, its filters, and the safety of all that is printed."""

import base64
import functools
import hashlib
from importlib import resources
from typing import Any

from headstart.files import shown


def asset(name: str) -> str:
    """The text of a file of this folder."""
    text: str = resources.files("headstart.report").joinpath(name).read_text(encoding="utf-8")
    return text


def safe(text: str) -> Any:
    """Mark our own text as HTML, so that it is not escaped."""
    from markupsafe import Markup

    return Markup(text)  # noqa: S704 - never text from the data


def style_hash(style: str) -> str:
    """The hash by which the page's content policy allows its one style."""
    return "sha256-" + base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()


@functools.cache
def template() -> Any:
    """The page, ready to be filled."""
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(asset),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=printed,
    )
    environment.filters |= {"percent": percent, "percent_figure": percent_figure, "count": count}
    environment.filters |= {"seconds": seconds, "figure": figure}
    return environment.get_template("report.html")


def printed(value: object) -> object:
    """What every printed expression passes: text of the data shows its control characters instead of sending them."""
    if hasattr(value, "__html__"):
        return value
    return "\n".join(map(shown, value.split("\n"))) if isinstance(value, str) else value


def percent(share: float | None) -> Any:
    """A share as a figure with its sign, in one piece; a dash where there is none."""
    return "-" if share is None else safe(f'<span class="num">{percent_figure(share)}&nbsp;%</span>')


def percent_figure(share: float) -> str:
    """One decimal, but never 100.0 when something is missing, nor 0.0 when something is there.

    >>> percent_figure(0.99999), percent_figure(1.0), percent_figure(0.9477)
    ('>99.9', '100', '94.8')
    """
    if share in (0.0, 1.0):
        return f"{100 * share:.0f}"
    text = f"{100 * share:.1f}"
    return {"100.0": ">99.9", "0.0": "<0.1"}.get(text, text)


def count(number: int) -> str:
    """A whole number with its thousands apart."""
    return f"{number:,}"


def seconds(value: float) -> Any:
    """A duration in the unit that suits it."""
    if value >= 120:
        return safe(f"{value / 60:.1f}&nbsp;min")
    return safe(f"{value:.1f}&nbsp;s" if value >= 1 else f"{1000 * value:.0f}&nbsp;ms")


def figure(value: object) -> str:
    """A number with four digits; any other value as it is."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
