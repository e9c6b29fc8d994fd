"""The engines: the fast one gives what torch gives, the same photo always the same, and stops when told."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.backbones import Backbone, engines, open_backbone
from headstart.backbones.conversion import load_openvino
from headstart.backbones.engines import OpenVinoEngine, TorchEngine, available_threads, open_engine
from headstart.errors import BackboneError, ShapeError, UsageError
from headstart.images import decode, read_photo_bytes
from headstart.preprocess import Preprocessing

CATS, DOGS, ANT, BEE = range(281, 286), range(151, 269), (310,), (309,)  # classes of ImageNet (ILSVRC 2012), from 0
IMAGENET_CONSTANTS = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}  # those of other nets


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """On a busy machine torch's threads wait for each other far longer than these inputs take one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def backbone(ready_cache: Path) -> Backbone:
    return open_backbone("efficientnet-lite0")


def noise(count: int, size: int = 224) -> list[tuple[int, np.ndarray]]:
    draw = np.random.default_rng(0)
    return [(number, draw.integers(0, 256, (size, size, 3), np.uint8)) for number in range(count)]


def prepared(preprocessing: Preprocessing, path: Path) -> np.ndarray:
    picture = decode(read_photo_bytes(path), target=preprocessing.decode_target(), name=path.name)
    return preprocessing.apply(picture)


def evenly(paths: list[Path], count: int) -> list[Path]:
    return [paths[len(paths) * number // count] for number in range(count)]


def real_photos(shared_data: Path, preprocessing: Preprocessing, each: int) -> list[tuple[str, np.ndarray]]:
    chosen = []
    for folder in ("ants_bees/val/ants", "ants_bees/val/bees", "cats_dogs/cat", "cats_dogs/dog", "sign_digits"):
        chosen += evenly(sorted((shared_data / folder).rglob("*.[jJ][pP][gG]")), each)
    return [(path.name, prepared(preprocessing, path)) for path in chosen]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    a, b = a.astype(np.float64), b.astype(np.float64)
    return (a * b).sum(axis=1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))


def compare_with_torch(backbone: Backbone, photos: list[tuple[str, np.ndarray]]) -> None:
    outputs = tuple(backbone.outputs)
    fast = dict(OpenVinoEngine(backbone, cuts=outputs).run(photos))
    slow = dict(TorchEngine(backbone, cuts=outputs, device="cpu", threads=1).run(photos))
    assert fast.keys() == slow.keys() == {key for key, _ in photos}
    for output, shape in backbone.outputs.items():
        a, b = (np.stack([engine[key][output] for key, _ in photos]) for engine in (fast, slow))
        assert a.shape == b.shape == (len(photos), *shape)
        assert a.dtype == b.dtype == np.float32
        assert cosines(a.reshape(len(photos), -1), b.reshape(len(photos), -1)).min() >= 0.9999, output
        assert np.abs(a - b).max() <= 1e-3 * np.abs(b).max(), output


def test_the_fast_engine_gives_torchs_features_at_every_cut_on_real_photos(
    backbone: Backbone, shared_data: Path
) -> None:
    compare_with_torch(backbone, real_photos(shared_data, backbone.preprocessing, each=2))


@pytest.mark.full
@pytest.mark.parametrize("name", ["efficientnet-lite0", "efficientnet-lite1", "efficientnet-lite2"])
def test_the_fast_engine_gives_torchs_features_at_every_cut_on_100_real_photos(name: str, shared_data: Path) -> None:
    backbone = open_backbone(name)
    compare_with_torch(backbone, real_photos(shared_data, backbone.preprocessing, each=20))


def test_the_torch_engine_gives_what_the_net_itself_gives(backbone: Backbone) -> None:
    photos = noise(3)
    with torch.no_grad():
        x = torch.stack([(torch.from_numpy(photo).permute(2, 0, 1).float() - 127) / 128 for _, photo in photos])
        expected = backbone.net().stages(x)
    found = dict(TorchEngine(backbone, cuts=("stage3", "stage3_map", "pooled"), device="cpu", batch_size=2).run(photos))
    for number in range(3):
        torch.testing.assert_close(torch.from_numpy(found[number]["stage3_map"]), expected["stage3"][number])
        torch.testing.assert_close(torch.from_numpy(found[number]["stage3"]), expected["stage3"][number].mean((1, 2)))
        torch.testing.assert_close(torch.from_numpy(found[number]["pooled"]), expected["pooled"][number])


def right_share(backbone: Backbone, photos: list[tuple[np.ndarray, range]], constants: Preprocessing) -> float:
    """Share of photos whose first ImageNet class is one of those their folder stands for."""
    net = backbone.net()
    right = 0
    with torch.inference_mode():
        for start in range(0, len(photos), 8):
            batch = photos[start : start + 8]
            logits = net(torch.from_numpy(constants.normalise(np.stack([photo for photo, _ in batch]))))
            right += sum(int(best) in wanted for best, (_, wanted) in zip(logits.argmax(1), batch, strict=True))
    return right / len(photos)


def test_the_right_constants_recognise_more_real_photos_than_those_of_other_nets(
    backbone: Backbone, shared_data: Path
) -> None:
    photos = []
    for folder, wanted in (("ants_bees/val/ants", ANT), ("ants_bees/val/bees", BEE)):
        for path in evenly(sorted((shared_data / folder).glob("*.jpg")), 20):
            photos.append((prepared(backbone.preprocessing, path), wanted))
    right = right_share(backbone, photos, backbone.preprocessing)
    wrong = right_share(backbone, photos, Preprocessing(**{**backbone.preprocessing.to_dict(), **IMAGENET_CONSTANTS}))
    assert right > 0.6  # of 1,000 classes, so chance is one in a thousand
    assert right > wrong


# the same photo, the same features


def test_features_do_not_depend_on_threads_order_or_neighbours_to_the_last_bit(backbone: Backbone) -> None:
    photos = noise(7)
    alone = {}
    for key, photo in photos:
        alone |= dict(OpenVinoEngine(backbone, threads=1).run([(key, photo)])) if key < 2 else {}
    for threads in (1, 2, 3):
        for order in (photos, photos[::-1]):
            found = dict(OpenVinoEngine(backbone, threads=threads).run(order))
            for key in alone:
                np.testing.assert_array_equal(found[key]["pooled"], alone[key]["pooled"])


def test_asking_for_the_statistics_too_changes_no_feature_by_a_bit(backbone: Backbone) -> None:
    cuts = ("stem", "stage5", "pooled")
    plain, more = (
        dict(OpenVinoEngine(backbone, cuts=wanted, threads=1).run(noise(3))) for wanted in (cuts, (*cuts, "statistics"))
    )
    for key in plain:
        assert plain[key].keys() == set(cuts)
        for cut in cuts:
            np.testing.assert_array_equal(more[key][cut], plain[key][cut])


def test_results_come_in_the_order_of_the_photos(backbone: Backbone) -> None:
    for engine in (OpenVinoEngine(backbone), TorchEngine(backbone, device="cpu", batch_size=2, threads=1)):
        assert [key for key, _ in engine.run(noise(5))] == [0, 1, 2, 3, 4]


def test_results_stay_when_later_photos_are_computed(backbone: Backbone) -> None:
    engine = OpenVinoEngine(backbone, threads=1)
    results = engine.run(noise(6))
    _, first = next(results)
    before = first["pooled"].copy()
    rest = list(results)
    np.testing.assert_array_equal(first["pooled"], before)
    assert len({features["pooled"].tobytes() for _, features in rest} | {before.tobytes()}) == 6
    assert first["pooled"].flags.owndata
    assert first["pooled"].flags.writeable


def test_a_photo_may_be_changed_once_the_next_is_asked_for(backbone: Backbone) -> None:
    """The caller may fill the same memory again and again."""
    photos = noise(4)
    expected = dict(OpenVinoEngine(backbone, threads=1).run(photos))

    def reused() -> Iterator[tuple[int, np.ndarray]]:
        memory = np.empty((224, 224, 3), np.uint8)
        for key, photo in photos:
            memory[:] = photo
            yield key, memory

    for key, features in OpenVinoEngine(backbone, threads=2).run(reused()):
        np.testing.assert_array_equal(features["pooled"], expected[key]["pooled"])


def test_a_photo_in_any_memory_layout_is_taken(backbone: Backbone) -> None:
    ((_, photo),) = noise(1)
    engine = OpenVinoEngine(backbone, threads=1)
    turned = np.asfortranarray(photo)
    mirrored = photo[:, ::-1].copy()[:, ::-1]
    found = dict(engine.run([("plain", photo), ("turned", turned), ("mirrored", mirrored)]))
    np.testing.assert_array_equal(found["turned"]["pooled"], found["plain"]["pooled"])
    np.testing.assert_array_equal(found["mirrored"]["pooled"], found["plain"]["pooled"])


def test_the_fast_engine_computes_in_32_bits_and_only_what_was_asked_for(backbone: Backbone) -> None:
    compiled = OpenVinoEngine(backbone, cuts=("stage5", "pooled"), threads=2)._compiled
    assert {name for output in compiled.outputs for name in output.get_names()} >= {"stage5", "pooled"}
    assert len(compiled.outputs) == 2
    assert engines._settings(1)["INFERENCE_PRECISION_HINT"] == "f32"  # few machines would show that it is missing
    assert compiled.get_property("INFERENCE_PRECISION_HINT") == load_openvino().Type.f32
    assert compiled.get_property("NUM_STREAMS") == 2


# lazily, and a bounded number at a time


def test_no_more_than_a_few_photos_are_taken_ahead_of_the_results(backbone: Backbone) -> None:
    taken = 0

    def source() -> Iterator[tuple[int, np.ndarray]]:
        nonlocal taken
        for key, photo in noise(1) * 40:
            taken += 1
            yield key, photo

    for done, _ in enumerate(OpenVinoEngine(backbone, threads=2).run(source())):
        assert taken - done <= 2 * 2 + 1
    assert taken == 40


def test_nothing_is_computed_before_the_first_result_is_asked_for(backbone: Backbone) -> None:
    def source() -> Iterator[tuple[int, np.ndarray]]:
        raise AssertionError("taken too early")
        yield

    for kind in ("openvino", "torch"):
        open_engine(backbone, kind=kind, threads=1).run(source())


def test_no_photos_give_no_results(backbone: Backbone) -> None:
    for kind in ("openvino", "torch"):
        assert list(open_engine(backbone, kind=kind, threads=1).run([])) == []


def test_two_runs_of_one_engine_do_not_disturb_each_other(backbone: Backbone) -> None:
    photos = noise(12)
    engine = OpenVinoEngine(backbone, threads=2)
    expected = {key: features["pooled"] for key, features in engine.run(photos)}
    found: dict[int, list[tuple[int, np.ndarray]]] = {}

    def work(number: int) -> None:
        found[number] = [(key, features["pooled"]) for key, features in engine.run(photos)]

    workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number in range(3):
        assert [key for key, _ in found[number]] == list(range(12))
        for key, features in found[number]:
            np.testing.assert_array_equal(features, expected[key])


# interrupted


@pytest.mark.parametrize("error", [KeyboardInterrupt, ValueError])
def test_an_error_between_photos_waits_for_those_in_work_and_leaves_the_engine_usable(
    backbone: Backbone, error: type[BaseException]
) -> None:
    photos = noise(3)
    engine = OpenVinoEngine(backbone, threads=2)
    expected = {key: features["pooled"] for key, features in engine.run(photos)}
    threads = threading.active_count()

    def source() -> Iterator[tuple[int, np.ndarray]]:
        yield from photos
        raise error

    with pytest.raises(error):
        list(engine.run(source()))
    assert threading.active_count() == threads
    again = {key: features["pooled"] for key, features in engine.run(photos)}
    for key in expected:
        np.testing.assert_array_equal(again[key], expected[key])


def test_a_run_that_is_not_finished_gives_its_places_back(backbone: Backbone) -> None:
    engine = OpenVinoEngine(backbone, threads=1)
    for _ in range(5):
        next(engine.run(noise(4)))
        gc.collect()
    assert len(engine._idle) == 2  # as many as ever were in work at a time


@pytest.mark.skipif(os.name == "nt", reason="signals of this kind exist on POSIX only")
@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_an_interrupted_process_ends_at_once(ready_cache: Path, kind: str) -> None:
    code = f"""
        import itertools
        import numpy as np
        from headstart.backbones import open_backbone
        from headstart.backbones.engines import open_engine
        engine = open_engine(open_backbone("efficientnet-lite0"), kind={kind!r}, threads=1)
        photo = np.zeros((224, 224, 3), np.uint8)
        for number, _ in engine.run((number, photo) for number in itertools.count()):
            if number == 3:
                print("running", flush=True)
    """
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(code)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "running\n"
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)  # at once, but torch takes its time to leave a busy machine
    assert process.returncode == -signal.SIGINT
    assert errors.rstrip().endswith("KeyboardInterrupt")


# refused


@pytest.mark.parametrize(
    ("photo", "received"),
    [
        (np.zeros((224, 224), np.uint8), r"uint8 \(224, 224\)"),
        (np.zeros((240, 240, 3), np.uint8), r"uint8 \(240, 240, 3\)"),
        (np.zeros((224, 224, 3), np.float32), r"float32 \(224, 224, 3\)"),
        (np.zeros((1, 224, 224, 3), np.uint8), r"uint8 \(1, 224, 224, 3\)"),
    ],
)
@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_a_photo_of_another_shape_or_type_is_refused(
    backbone: Backbone, kind: str, photo: np.ndarray, received: str
) -> None:
    engine = open_engine(backbone, kind=kind, threads=1)
    with pytest.raises(ShapeError, match=rf"uint8 \(224, 224, 3\); got {received}; use Preprocessing\.apply"):
        list(engine.run(iter([*noise(1), ("wrong", photo)])))


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_a_cut_that_does_not_exist_or_was_not_asked_for_is_refused(backbone: Backbone, kind: str) -> None:
    with pytest.raises(BackboneError, match=r"efficientnet-lite0 has no cut 'stage8'; choose from: stem, "):
        open_engine(backbone, kind=kind, cuts=("stage8",))
    with pytest.raises(BackboneError, match="opened for pooled; it does not compute 'stage5'"):
        list(open_engine(backbone, kind=kind, threads=1).run(noise(1), ("stage5",)))


def test_an_unknown_engine_and_a_negative_number_of_threads_are_refused(backbone: Backbone) -> None:
    with pytest.raises(BackboneError, match="unknown engine 'gpu'; choose one of: auto, openvino, torch"):
        open_engine(backbone, kind="gpu")
    with pytest.raises(UsageError, match=r"threads must be 0 \(all\) or more; got -1"):
        open_engine(backbone, threads=-1)


@pytest.mark.parametrize("kind", ["openvino", "torch"])
def test_a_closed_engine_says_so(backbone: Backbone, kind: str) -> None:
    engine = open_engine(backbone, kind=kind, threads=1)
    assert len(list(engine.run(noise(1)))) == 1
    engine.close()
    with pytest.raises(UsageError, match="this engine was closed; open another one"):
        list(engine.run(noise(1)))


def test_the_torch_engine_leaves_the_number_of_threads_as_it_was(backbone: Backbone) -> None:
    torch.set_num_threads(1)
    list(TorchEngine(backbone, device="cpu", threads=2).run(noise(1)))
    assert torch.get_num_threads() == 1


def test_the_names_of_the_engines_tell_version_and_precision(backbone: Backbone) -> None:
    fast, slow = (open_engine(backbone, kind=kind) for kind in ("auto", "torch"))
    version = fast.name.removeprefix("openvino-").removesuffix("-f32")
    assert load_openvino().__version__.startswith(f"{version}-")
    assert slow.name == f"torch-{torch.__version__}-f32"


def test_all_processors_this_process_may_use_are_counted() -> None:
    assert 1 <= available_threads() <= (os.cpu_count() or 1)
    if hasattr(os, "sched_setaffinity"):
        code = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
        code += "from headstart.backbones.engines import available_threads; print(available_threads())"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "1\n"


INTERRUPTED = """
    import gc, os, signal
    from headstart.backbones import open_backbone
    from headstart.backbones.engines import open_engine

    backbone = open_backbone("efficientnet-lite0")
    first, second = open_engine(backbone), open_engine(backbone)
    for engine in (first, second):  # in the order in which they came
        engine.close()
    del first, second, engine
    gc.collect()
    try:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10**6):
            pass
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.usefixtures("ready_cache")
def test_an_interrupt_after_engines_were_closed_is_an_interrupt_and_no_crash() -> None:
    code = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n" + textwrap.dedent(INTERRUPTED)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr
