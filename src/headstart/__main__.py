"""Where the program starts: one place turns every error into one line and an exit code, and Ctrl-C into 130."""

import os
import signal
import sys
from types import FrameType

INTERRUPTED = 130  # the exit code shells use for Ctrl-C
AGAIN = "Nothing half-written is left; run the same command again: photos it has already looked at then take no time."
# How often torch's threads look for the next piece of work before they go to sleep, read when torch is loaded. By
# default they look for milliseconds, which takes the processor from the very thread they wait for when other programs
# run; on a quiet machine this is as fast or faster (`benchmarks/training.py`).
SPIN = "30000"


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0 done; 1 the input or the environment is at fault; 2 wrong usage; 3 done, but some inputs were skipped;
    130 interrupted. Set HEADSTART_TRACEBACK=1 to see where an internal error came from.
    """
    os.environ.setdefault("GOMP_SPINCOUNT", SPIN)
    signal.signal(signal.SIGINT, _leave_at_once)  # until the imports are done there is nothing to tidy up
    try:
        from headstart.cli import run

        signal.signal(signal.SIGINT, signal.default_int_handler)
        return run(sys.argv[1:] if arguments is None else arguments)
    except KeyboardInterrupt as stop:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second Ctrl-C must not disturb the way out
        sys.stderr.write(f"\nInterrupted. {f'What was finished is kept: {stop}.' if str(stop) else AGAIN}\n")
        return INTERRUPTED


def _leave_at_once(_number: int, _frame: FrameType | None) -> None:
    os._exit(INTERRUPTED)


def start() -> None:
    """Console script: run and leave without waiting for idle threads of native libraries."""
    code = main()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except BrokenPipeError:  # the reader of the pipe has left: nobody wants the rest
        os._exit(code)
    os._exit(code)


if __name__ == "__main__":
    start()
