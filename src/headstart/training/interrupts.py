"""Ctrl-C while a step runs must wait for the end of the step: half a step is no state to go on from."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Interrupt:
    """Has the user asked to stop? A second request is obeyed at once.

    Args:
        seen: the answer.
    """

    def __init__(self) -> None:
        self.seen = False

    def note(self, number: int, frame: FrameType | None) -> None:
        """Take one request."""
        if self.seen:
            signal.default_int_handler(number, frame)
        self.seen = True


@contextmanager
def interrupt_kept(active: bool) -> Iterator[Interrupt]:
    """Note Ctrl-C instead of raising it, within the block; what was there before is put back.

    Only the main thread gets signals; in another one, or where `active` is false, nothing changes. A process that
    ignores Ctrl-C, such as one started in the background, still does.
    """
    interrupt = Interrupt()
    before = signal.getsignal(signal.SIGINT)
    if not active or threading.current_thread() is not threading.main_thread() or not callable(before):
        yield interrupt
        return
    signal.signal(signal.SIGINT, interrupt.note)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)
