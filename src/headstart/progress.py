"""One progress line on stderr: a live bar with rate and time left in a terminal, sparse plain lines in a pipe."""

import shutil
import sys
import threading
import time
from types import TracebackType
from typing import TextIO

BAR_WIDTH = 24  # characters
TERMINAL_INTERVAL = 0.1  # seconds between two drawings of the bar
PLAIN_INTERVAL = 10.0  # seconds between two lines where there is no terminal


class Progress:
    """Count work done and show it, from any thread.

    Args:
        total: how many units of work there are, >= 0.
        what: what is counted, in the plural, for example "photos".
        quiet: show nothing.
        stream: where to write; stderr by default, so that stdout stays clean for results.

    >>> with Progress(10, "photos", quiet=True) as progress:
    ...     progress.advance(10)
    >>> progress.done
    10
    """

    def __init__(self, total: int, what: str, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self.total = total
        self.what = what
        self.done = 0
        self._quiet = quiet
        self._stream = sys.stderr if stream is None else stream
        self._terminal = self._stream.isatty()
        self._lock = threading.Lock()
        self._begun = self._drawn = time.monotonic()
        self._length = 0

    def __enter__(self) -> "Progress":
        self._begun = self._drawn = time.monotonic()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._lock:
            if self._terminal and self._length:
                self._draw(time.monotonic())
                self._write("\n")

    def advance(self, units: int = 1) -> None:
        """Add `units` of finished work and redraw when it is time to."""
        with self._lock:
            self.done += units
            now = time.monotonic()
            if now - self._drawn >= (TERMINAL_INTERVAL if self._terminal else PLAIN_INTERVAL):
                self._draw(now)

    def _draw(self, now: float) -> None:
        self._drawn = now
        line = self.describe(now - self._begun)
        if not self._terminal:
            self._write(line + "\n")
            return
        line = line[: shutil.get_terminal_size().columns - 1]
        self._write("\r" + line.ljust(self._length))
        self._length = len(line)

    def describe(self, seconds: float) -> str:
        """Return the line for `seconds` since the start: bar, count, rate and time left.

        >>> Progress(4, "photos", quiet=True).describe(0.0)
        '0/4 photos, 0.0/s'
        """
        rate = self.done / seconds if seconds > 0 else 0.0
        share = self.done / self.total if self.total else 1.0
        filled = round(BAR_WIDTH * min(share, 1.0))
        left = f", {_clock((self.total - self.done) / rate)} left" if rate and self.done < self.total else ""
        bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] " if self._terminal else ""
        return f"{bar}{self.done:,}/{self.total:,} {self.what}, {_rate(rate)}{left}"

    def _write(self, text: str) -> None:
        if not self._quiet:
            self._stream.write(text)
            self._stream.flush()


def _rate(rate: float) -> str:
    """Of units a second; of few, how long each takes.

    >>> _rate(1234.56), _rate(0.04)
    ('1,234.6/s', '25.0 s each')
    """
    return f"{1 / rate:,.1f} s each" if 0 < rate < 0.5 else f"{rate:,.1f}/s"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"
