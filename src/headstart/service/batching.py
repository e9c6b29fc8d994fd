"""From prepared photos to probabilities: photos of all clients share one engine, and none waits for a batch to fill.

The fast engine computes each photo on a stream of its own, so its best batch is one: there are two lanes a stream, one
photo in work and one waiting. The torch engine computes photos together: its one lane takes whatever is waiting.
"""

import asyncio
import threading
from collections import deque
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, UInt8

from headstart.backbones.engines import OpenVinoEngine, available_threads
from headstart.classifier import Classifier

TOGETHER = 64  # photos that the torch engine is handed at once, at most


@dataclass(eq=False)
class _Waiting:
    pixels: UInt8[np.ndarray, "size size channels"]
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Float64[np.ndarray, "classes"]]


class Batcher:
    """Computes photos that many requests bring, in the order in which they come.

    Args:
        classifier: its engine, head and temperature.
        threads: processor threads; 0: all this process may use.
    """

    def __init__(self, classifier: Classifier, threads: int = 0) -> None:
        self._classifier = classifier
        self._threads = threads
        self._waiting: deque[_Waiting] = deque()
        self._news = threading.Condition()
        self._closed = False
        self._lanes: list[threading.Thread] = []
        self._most = 1

    def open(self) -> None:
        """Open the engine (seconds, the first time on a machine) and start the lanes."""
        engine = self._classifier.engine_for(self._threads)
        fast = isinstance(engine, OpenVinoEngine)
        count, self._most = (2 * (self._threads or available_threads()), 1) if fast else (1, TOGETHER)
        for number in range(count):
            lane = threading.Thread(target=self._work, name=f"lane-{number}", daemon=True)
            lane.start()
            self._lanes.append(lane)

    async def compute(self, pixels: UInt8[np.ndarray, "size size channels"]) -> Float64[np.ndarray, "classes"]:
        """Return the calibrated probabilities of a prepared photo."""
        loop = asyncio.get_running_loop()
        one = _Waiting(pixels, loop, loop.create_future())
        with self._news:
            if self._closed:
                raise RuntimeError("the engine was closed")
            self._waiting.append(one)
            self._news.notify()
        return await one.answer

    def close(self) -> None:
        """Stop the lanes and give the engine's memory back; what still waits is cancelled."""
        with self._news:
            self._closed = True
            left = list(self._waiting)
            self._waiting.clear()
            self._news.notify_all()
        for one in left:
            one.answer.cancel()
        for lane in self._lanes:
            lane.join()
        self._classifier.close()

    def _take(self) -> list[_Waiting]:
        """Wait for photos; none: the end."""
        with self._news:
            while not (self._waiting or self._closed):
                self._news.wait()
            taken = [self._waiting.popleft() for _ in range(min(self._most, len(self._waiting)))]
        return [one for one in taken if not one.answer.cancelled()] if taken and not self._closed else taken

    def _work(self) -> None:
        while not self._closed:
            if batch := self._take():
                try:
                    self._compute(batch)
                except Exception as error:  # the requests of this batch fail, the lane goes on
                    for one in batch:
                        _tell(one, error)

    def _compute(self, batch: list[_Waiting]) -> None:
        cut = self._classifier.cut
        engine = self._classifier.engine_for(self._threads)
        for index, found in engine.run(((index, one.pixels) for index, one in enumerate(batch)), (cut,)):
            row = self._classifier.probabilities_from_features(found[cut].reshape(1, -1))[0]
            _tell(batch[index], row)


def _tell(one: _Waiting, result: Float64[np.ndarray, "classes"] | Exception) -> None:
    def deliver() -> None:
        if one.answer.done():  # the client has left, or an earlier photo of the batch failed
            return
        if isinstance(result, Exception):
            one.answer.set_exception(result)
        else:
            one.answer.set_result(result)

    if not one.loop.is_closed():
        one.loop.call_soon_threadsafe(deliver)
