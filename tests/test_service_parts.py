"""Decoders that can be killed, the lanes of the engine, the counts for Prometheus, the names of uploads."""

import asyncio
import contextlib
import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest
from PIL import Image

from headstart.classifier import Classifier
from headstart.errors import ImageRejected, UsageError
from headstart.images import decode
from headstart.preprocess import Preprocessing
from headstart.service.batching import Batcher
from headstart.service.decoding import Decoders
from headstart.service.metrics import Metrics
from headstart.service.openapi import describe
from headstart.service.refusals import Refused
from headstart.service.settings import ServiceSettings
from make_run import FEATURES, small_classifier
from service_running import jpeg

LINUX = pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs /proc, which this system has not")
PREPROCESSING = Preprocessing(224, 0.875, (127.0,) * 3, (128.0,) * 3)
T = TypeVar("T")


def with_decoders(work: Callable[[Decoders], Awaitable[T]], **settings: Any) -> T:
    async def run() -> T:
        decoders = Decoders(PREPROCESSING, **{"count": 1, "max_bytes": 32_000_000, "seconds": 20.0, **settings})
        await decoders.open()
        try:
            return await work(decoders)
        finally:
            await decoders.close()

    return asyncio.run(run())


async def kill(decoders: Decoders, number: signal.Signals) -> None:
    for pid in decoders.processes:
        os.kill(pid, number)
    await asyncio.sleep(0.2)


def test_a_decoder_gives_the_pixels_that_training_and_prediction_see() -> None:
    photo = jpeg(3, 700)
    expected = PREPROCESSING.apply(decode(photo, target=PREPROCESSING.decode_target()))
    np.testing.assert_array_equal(with_decoders(lambda decoders: decoders.decode("a.jpg", photo)), expected)


def test_a_decoder_refuses_with_the_reasons_of_the_library_and_goes_on() -> None:
    async def work(decoders: Decoders) -> list[str]:
        reasons = []
        for name, data in (("a.jpg", b""), ("b", b"hello"), ("c.png", jpeg()[:-500]), ("d\0e\udc80", jpeg())):
            try:
                await decoders.decode(name, data)
            except ImageRejected as error:
                reasons.append(error.reason)
        assert decoders.restarts == 0
        return reasons

    assert with_decoders(work) == ["empty", "not_an_image", "truncated"]


def test_a_decoder_that_was_killed_while_idle_costs_no_photo_its_answer() -> None:
    async def work(decoders: Decoders) -> int:
        await kill(decoders, signal.SIGKILL)
        await decoders.decode("", jpeg())
        return decoders.restarts

    assert with_decoders(work) == 1


def test_a_photo_that_hangs_its_decoder_is_refused_in_time_and_the_next_one_is_answered() -> None:
    async def work(decoders: Decoders) -> tuple[str, float]:
        await kill(decoders, signal.SIGSTOP)
        began = time.monotonic()
        with pytest.raises(ImageRejected) as refused:
            await decoders.decode("", jpeg())
        seconds = time.monotonic() - began
        await decoders.decode("", jpeg())
        return refused.value.reason, seconds

    reason, seconds = with_decoders(work, seconds=3.0)
    assert reason == "bomb" and seconds < 6


def test_a_photo_that_breaks_its_decoder_is_refused_and_the_next_one_is_answered() -> None:
    async def work(decoders: Decoders) -> str:
        await kill(decoders, signal.SIGSTOP)
        under_way = asyncio.create_task(decoders.decode("", jpeg()))
        await asyncio.sleep(0.1)
        for pid in decoders.processes:  # as if a codec had touched memory that is not its own
            os.kill(pid, signal.SIGSEGV)
            os.kill(pid, signal.SIGCONT)
        with pytest.raises(ImageRejected) as refused:
            await under_way
        await decoders.decode("", jpeg())
        return refused.value.reason

    assert with_decoders(work) == "corrupt"


def test_a_photo_whose_decoder_is_killed_twice_is_told_to_come_back() -> None:
    async def work(decoders: Decoders) -> int:
        async def hunt() -> None:
            while True:
                for pid in decoders.processes:
                    with contextlib.suppress(ProcessLookupError):  # dead already, and not yet replaced
                        os.kill(pid, signal.SIGKILL)
                await asyncio.sleep(0.005)

        hunter = asyncio.create_task(hunt())
        try:
            with pytest.raises(Refused) as refused:
                await decoders.decode("", jpeg(side=3000))
        finally:
            hunter.cancel()
        return refused.value.status

    assert with_decoders(work) == 503


def test_a_photo_whose_client_left_half_way_leaves_nothing_for_the_next_one() -> None:
    async def work(decoders: Decoders) -> np.ndarray:
        await kill(decoders, signal.SIGSTOP)
        under_way = asyncio.create_task(decoders.decode("", jpeg(1)))
        await asyncio.sleep(0.1)
        under_way.cancel()
        with pytest.raises(asyncio.CancelledError):
            await under_way
        return await decoders.decode("", jpeg(2))

    expected = PREPROCESSING.apply(decode(jpeg(2), target=PREPROCESSING.decode_target()))
    np.testing.assert_array_equal(with_decoders(work), expected)


@LINUX
def test_a_decoder_has_a_cap_on_memory_and_dies_of_none_of_it() -> None:
    out = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(out, "PNG")  # 108 MB of pixels in 100 kB

    async def work(decoders: Decoders) -> str:
        with pytest.raises(ImageRejected) as refused:
            await decoders.decode("", out.getvalue())
        assert decoders.restarts == 0
        return refused.value.reason

    assert with_decoders(work, headroom=64 * 2**20) == "bomb"


@LINUX
def test_a_decoder_knows_no_token_and_ignores_the_signals_of_its_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_TOKEN", "correct-horse-battery")

    async def work(decoders: Decoders) -> bytes:
        environment = Path(f"/proc/{decoders.processes[0]}/environ").read_bytes()
        await kill(decoders, signal.SIGINT)
        await kill(decoders, signal.SIGTERM)
        await decoders.decode("", jpeg())
        assert decoders.restarts == 0
        return environment

    assert b"correct-horse" not in with_decoders(work)


def test_a_decoder_loads_no_engine_and_no_server() -> None:
    code = "import sys, headstart.service.worker; print(sorted({'torch', 'openvino', 'starlette'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


class FakeEngine:
    """Features that are made of the photo; one photo breaks it."""

    name = "fake"

    def run(self, images: Any, cuts: Any) -> Any:
        for key, photo in images:
            if photo[0, 0, 0] == 255:
                raise RuntimeError("broken")
            yield key, {cuts[0]: np.full(FEATURES, photo[0, 0, 0], np.float32) / 100}

    def close(self) -> None:
        pass


def batcher(monkeypatch: pytest.MonkeyPatch) -> tuple[Batcher, Classifier]:
    classifier = small_classifier()
    monkeypatch.setattr(type(classifier), "engine_for", lambda _self, _threads: FakeEngine())
    return Batcher(classifier, threads=1), classifier


def test_every_photo_gets_its_own_answer_however_many_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, classifier = batcher(monkeypatch)

    async def work() -> list[np.ndarray]:
        photos = [np.full((224, 224, 3), value, np.uint8) for value in range(100)]
        waiting = [asyncio.create_task(lanes.compute(photo)) for photo in photos]
        lanes.open()
        return await asyncio.gather(*waiting)

    try:
        rows = asyncio.run(work())
    finally:
        lanes.close()
    features = np.repeat(np.arange(100, dtype=np.float32)[:, None], FEATURES, axis=1) / 100
    np.testing.assert_allclose(rows, classifier.probabilities_from_features(features), rtol=1e-6)


@pytest.mark.parametrize(("waiting", "batches"), [(100, [64, 36]), (5, [5]), (1, [1])])
def test_photos_that_wait_are_computed_together_up_to_a_limit(
    waiting: int, batches: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    class Counting(FakeEngine):
        def run(self, images: Any, cuts: Any) -> Any:
            photos = list(images)
            seen.append(len(photos))
            return super().run(photos, cuts)

    lanes, classifier = batcher(monkeypatch)
    monkeypatch.setattr(type(classifier), "engine_for", lambda _self, _threads: Counting())

    async def work() -> None:
        photos = [asyncio.create_task(lanes.compute(np.zeros((224, 224, 3), np.uint8))) for _ in range(waiting)]
        await asyncio.sleep(0)  # all of them wait before the engine is there
        lanes.open()
        await asyncio.gather(*photos)

    try:
        asyncio.run(work())
    finally:
        lanes.close()
    assert seen == batches


def test_a_photo_that_breaks_the_engine_is_an_error_of_its_own_request(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, _ = batcher(monkeypatch)
    lanes.open()

    async def work() -> np.ndarray:
        with pytest.raises(RuntimeError, match="broken"):
            await lanes.compute(np.full((224, 224, 3), 255, np.uint8))
        return await lanes.compute(np.zeros((224, 224, 3), np.uint8))

    try:
        assert asyncio.run(work()).sum() == pytest.approx(1)
    finally:
        lanes.close()


def test_closing_cancels_what_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    lanes, _ = batcher(monkeypatch)

    async def work() -> None:
        waiting = asyncio.create_task(lanes.compute(np.zeros((224, 224, 3), np.uint8)))
        await asyncio.sleep(0)
        lanes.close()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(work())


def test_the_counts_have_the_form_that_prometheus_reads_and_no_label_of_a_client() -> None:
    metrics = Metrics(("/v1/predict",), {"headstart_ready": ("Ready.", lambda: 1.0)})
    for seconds in (0.004, 0.03, 0.03, 99.0):
        metrics.request("/v1/predict", 200, seconds)
    metrics.request("/v1/predict", 503, 0.0)
    metrics.request('/x"} evil 1\n', 404, 0.0)
    metrics.photo("predicted")
    text = metrics.text()
    line = re.compile(r'# (HELP|TYPE) [a-z_]+ .+|[a-z_]+(\{[a-z]+="[^"\\\n]*"(,[a-z]+="[^"\\\n]*")*\})? [0-9.e+-]+')
    assert all(line.fullmatch(each) for each in text.splitlines())
    assert "evil" not in text and 'route="other",status="404"} 1' in text
    found = re.findall(r'seconds_bucket\{le="(.+?)"\} (\d+)', text)
    assert found[0] == ("0.01", "1") and dict(found)["0.05"] == "3" and found[-1] == ("+Inf", "4")
    assert "headstart_predict_seconds_count 4\n" in text and "headstart_predict_seconds_sum 99.064" in text


@pytest.mark.parametrize(
    ("values", "message"), [({"queue": 0}, "queue"), ({"workers": -1}, "workers"), ({"decode_seconds": 0.0}, "decode")]
)
def test_settings_that_make_no_service_are_refused(values: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ServiceSettings(**values)


def test_the_description_names_every_status_of_a_prediction_and_the_token_where_one_is_wanted() -> None:
    plain, closed = describe(token=False), describe(token=True)
    statuses = plain["paths"]["/v1/predict"]["post"]["responses"]
    assert set(statuses) >= {"200", "400", "403", "413", "415", "422", "503"}
    assert "security" not in plain and closed["security"] == [{"token": []}]
    refs = set(re.findall(r"#/components/schemas/(\w+)", json.dumps(plain)))
    assert refs == set(plain["components"]["schemas"])
