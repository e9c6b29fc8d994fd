"""What the commands that look inside have in common: opening a net, a progress line, writing and printing a look."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from headstart.cli.options import DONE, SOME_SKIPPED, Global

if TYPE_CHECKING:
    from headstart.explain import Subject

LOOKS = Path("looks")
OUT = click.option(
    "--out", type=click.Path(path_type=Path), help="The folder to write. Default: one of its own in looks/."
)
WEIGHTS = click.option("--weights", type=click.Path(path_type=Path), help="A weights file, where NET is a net's name.")
NET = click.argument("net", metavar="NET_OR_RUN")


def words(_context: click.Context, _option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """What was given several times, or once with commas."""
    return tuple(word.strip() for entry in given for word in entry.split(",") if word.strip())


class Steps:
    """A progress line for work that says how far it is: done, of how many, of what.

    Args:
        quiet: show nothing.
    """

    def __init__(self, quiet: bool) -> None:
        self._quiet = quiet
        self._line: Any = None
        self._what = ""

    def __call__(self, done: int, of: int, what: str) -> None:
        """Show the state of the work."""
        from headstart.progress import Progress

        if self._line is None or self._what != what or done < self._line.done:
            self.end()
            self._line, self._what = Progress(of, what, quiet=self._quiet), what
            self._line.__enter__()
        self._line.advance(done - self._line.done)

    def end(self) -> None:
        """Close the line."""
        if self._line is not None:
            self._line.__exit__(None, None, None)
            self._line = None


def opened(given: Global, net: str, weights: Path | None) -> "Subject":
    """What is looked into."""
    from headstart.look.opening import open_subject

    return open_subject(net, weights, seed=given.seed or 0, threads=given.threads or 0, say=given.say)


def told(given: Global, subject: "Subject", out: Path | None, name: str, see: Callable[[Steps], Any]) -> int:
    """Look, write the folder, print the result and every photo that could not be read; the exit code."""
    from headstart.look.writing import save_look

    steps = Steps(given.quiet)
    try:
        result = see(steps)
    finally:
        steps.end()
    safe = "".join(letter if letter.isalnum() or letter in "._-" else "-" for letter in f"{subject.name}-{name}")
    place = save_look(result, LOOKS / safe.strip("-.") if out is None else out, overwrite=True)
    pictures = sorted(path.as_posix() for path in place.glob("*.png"))
    skipped = getattr(result, "skipped", ())
    document = {**result.to_json(), "skipped": list(skipped), "folder": place.as_posix()}
    lines = [result.to_text(), *pictures[:3], *["..."] * (len(pictures) > 3)]
    lines += [f"Skipped {len(skipped)} files:", *(f"  {line}" for line in skipped)] if skipped else []
    given.show(document, "\n".join(lines))
    return SOME_SKIPPED if skipped else DONE


def readable(given: Global, subject: "Subject", images: tuple[str, ...]) -> tuple[list[Any], int]:
    """The photos that can be read, and how many cannot; each of those is named. Raises UsageError: none can."""
    from headstart.errors import ImageRejected
    from headstart.files import shown

    photos, errors = [], []
    for path in images:
        try:
            photos.append(subject.photo(path))
        except ImageRejected as error:
            errors.append(f"{shown(path)}: {error}")
            given.say(errors[-1])
    if not photos:
        raise ImageRejected("none_readable", f"no photo can be read; {errors[0]}")
    return photos, len(errors)
