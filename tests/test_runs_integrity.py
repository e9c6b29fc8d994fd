"""A run directory from a stranger: damage is found in every file, attacks cost little, nothing outside is touched."""

import hashlib
import json
import os
import random
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headstart import runs
from headstart.errors import HeadstartError, RunError
from headstart.runs import guarded, load_run, modelfile
from headstart.runs.places import FILES, MANIFEST
from headstart.weights import digest
from hostile_files import opened_files
from make_run import CLASSES, small_classifier, small_rows, write_small_run

NAMES = [*FILES, MANIFEST]
REFUSED_SECONDS, REFUSED_MEGABYTES = 1.0, 200.0


def reseal(path: Path, **manifest_changes: Any) -> None:
    """Make the manifest fit the files as they are now, as someone who changes a run on purpose can."""
    contents = {name: (path / name).read_bytes() for name in FILES if (path / name).is_file()}
    manifest = json.loads(runs.make_manifest(contents))
    (path / MANIFEST).write_bytes(runs._sealed({**manifest, **manifest_changes}))


def change_json(path: Path, name: str, change: Callable[[dict[str, Any]], Any]) -> None:
    document = json.loads((path / name).read_bytes())
    change(document)
    if name == "model.json":
        document["identity"] = modelfile.identity(document)
    (path / name).write_bytes(json.dumps(document).encode())


def open_fully(path: Path) -> None:
    run = load_run(path)
    list(run.predictions())
    _ = run.classifier


def test_every_flipped_bit_and_every_cut_in_any_file_is_refused_with_the_name_of_the_file(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    original = {name: (path / name).read_bytes() for name in NAMES}
    draw = random.Random(20240801)
    sizes = [len(original[name]) for name in NAMES]
    for number in range(1_200):
        name = draw.choice(NAMES) if number % 2 else draw.choices(NAMES, sizes)[0]
        data = bytearray(original[name])
        if number < 1_000:
            bit = draw.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
        else:
            del data[draw.randrange(len(data)) :]
        (path / name).write_bytes(data)
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            load_run(path)
        (path / name).write_bytes(original[name])
    load_run(path)


def test_a_file_that_grew_or_is_missing_is_refused_with_its_name(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    for name in NAMES:
        original = (path / name).read_bytes()
        (path / name).write_bytes(original + b"\n")
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            load_run(path)
        (path / name).unlink()
        with pytest.raises(RunError, match=name.replace(".", r"\.") + r".*missing"):
            load_run(path)
        (path / name).write_bytes(original)


def test_a_file_of_another_run_is_noticed(tmp_path: Path) -> None:
    write_small_run(tmp_path / "a")
    write_small_run(tmp_path / "b", seed=1)
    for name in ("metrics.json", "predictions.csv"):
        shutil.copytree(tmp_path / "a", tmp_path / name)
        shutil.copy(tmp_path / "b" / name, tmp_path / name / name)
        with pytest.raises(RunError, match=name.replace(".", r"\.")):
            load_run(tmp_path / name)


def test_classes_in_another_order_or_other_preprocessing_are_refused_even_with_a_fitting_manifest(
    tmp_path: Path,
) -> None:
    def reorder(model: dict[str, Any]) -> None:
        model["classes"].reverse()

    def recrop(model: dict[str, Any]) -> None:
        model["preprocessing"]["crop_fraction"] = 1.0

    for number, change in enumerate((reorder, recrop)):
        path = write_small_run(tmp_path / str(number)).path
        model = json.loads((path / "model.json").read_bytes())
        change(model)
        (path / "model.json").write_bytes(json.dumps(model).encode())
        reseal(path)
        with pytest.raises(RunError, match=r"model\.json is damaged.*identity"):
            load_run(path)
    path = write_small_run(tmp_path / "both").path
    change_json(path, "model.json", reorder)
    reseal(path)
    with pytest.raises(RunError, match="same classes in the same order"):
        load_run(path)


def test_weights_that_are_not_numbers_are_refused(tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    for value in (np.nan, np.inf):
        path = write_small_run(tmp_path / str(value)).path
        tensors = load_file(path / "model.safetensors")
        tensors["head.weight"] = np.array(tensors["head.weight"])
        tensors["head.weight"][0, 0] = value
        save_file(tensors, path / "model.safetensors")
        head = {name.removeprefix("head."): array for name, array in tensors.items() if name.startswith("head.")}
        known = digest(head)
        change_json(path, "model.json", lambda model, known=known: model["head"].update(weights_sha256=known))
        reseal(path)
        with pytest.raises(RunError, match=r"head\.weight.*NaN or infinite"):
            _ = load_run(path).classifier


def test_the_head_of_another_classifier_is_refused_even_with_a_fitting_manifest(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    write_small_run(tmp_path / "other", classifier=small_classifier(seed=1))
    shutil.copy(tmp_path / "other" / "model.safetensors", path)
    reseal(path)
    with pytest.raises(RunError, match="head of another classifier"):
        _ = load_run(path).classifier


def test_weights_changed_after_the_run_was_opened_are_refused(tmp_path: Path) -> None:
    run = write_small_run(tmp_path / "run")
    data = bytearray((run.path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (run.path / "model.safetensors").write_bytes(data)
    with pytest.raises(RunError, match=r"model\.safetensors is damaged"):
        _ = run.classifier


def header(entries: dict[str, Any], body: bytes = b"", length: int | None = None) -> bytes:
    text = json.dumps(entries).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + body


def entry(shape: list[int], offsets: list[int], dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


def write(name: str, data: bytes) -> Callable[[Path], None]:
    return lambda path: (path / name).write_bytes(data)  # type: ignore[return-value]


def declare(tensors: Any) -> Callable[[Path], None]:
    return lambda path: change_json(path, "model.json", lambda model: model.update(tensors=tensors))


def set_model(**values: Any) -> Callable[[Path], None]:
    return lambda path: change_json(path, "model.json", lambda model: model.update(values))


def sparse(name: str, size: int) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        with (path / name).open("r+b") as file:
            file.truncate(size)

    return make


def claimed(name: str, size: Any) -> Callable[[Path], None]:
    def make(path: Path) -> None:
        manifest = json.loads((path / MANIFEST).read_bytes())
        manifest["files"][name]["size"] = size
        (path / MANIFEST).write_bytes(runs._sealed(manifest))

    return make


ONE = {"head.weight": entry([3, 12], [0, 144])}
SIZE_ATTACKS: dict[str, Callable[[Path], Any]] = {
    "header of 2**63 bytes": write("model.safetensors", header(ONE, length=2**63)),
    "header of 2**64 - 1 bytes": write("model.safetensors", header(ONE, length=2**64 - 1)),
    "header longer than the file": write("model.safetensors", header(ONE, length=10_000)),
    "header of 40 MB": write("model.safetensors", header({"a" * 40_000_000: entry([1], [0, 4])}, b"\0" * 4)),
    "header of a million tensors": write("model.safetensors", header({f"{n}": 0 for n in range(60_000)})),
    "file of 7 bytes": write("model.safetensors", b"\0" * 7),
    "declared shape of 10**18": declare({"head.weight": {"dtype": "F32", "shape": [10**9, 10**9]}}),
    "declared and stored shape of 10**18": lambda path: (
        declare({"head.weight": {"dtype": "F32", "shape": [10**9, 10**9]}})(path),
        write("model.safetensors", header({"head.weight": entry([10**9, 10**9], [0, 4 * 10**18])}))(path),
    ),
    "overlapping tensors": write(
        "model.safetensors", header({"a": entry([4], [0, 16]), "b": entry([4], [0, 16])}, b"\0" * 16)
    ),
    "negative offsets": write("model.safetensors", header({"a": entry([4], [-16, 0])}, b"\0" * 16)),
    "negative shape": declare({"head.weight": {"dtype": "F32", "shape": [-1, 12]}}),
    "fractional shape": declare({"head.weight": {"dtype": "F32", "shape": [1.5, 12]}}),
    "8 TB of weights": sparse("model.safetensors", 8 * 2**40),
    "1 GB of metrics": sparse("metrics.json", 2**30),
    "1 TB of predictions": sparse("predictions.csv", 2**40),
    "100 MB of JSON": write("plan.json", b'{"a":[' + b"1," * 50_000_000 + b"1]}"),
    "a million empty lists": write("metrics.json", b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"),
    "brackets 100,000 deep": write("config.json", b"[" * 100_000),
    "brackets 99,000 deep": write("metrics.json", b"[" * 99_000 + b"]" * 99_000),
    "6 MB of short texts": write("metrics.json", b'{"a":[' + b'"ab",' * 1_200_000 + b'"a"]}'),
    "a number of a million digits": write("plan.json", b'{"a":' + b"9" * 900_000 + b"}"),
    "10**9 classes": set_model(classes=10**9),
    "net with 10**9 outputs": set_model(
        backbone={
            "name": "efficientnet-lite0",
            "options": {"classes": 10**9},
            "weights_sha256": "0",
            "source": "",
            "embedded": True,
        }
    ),
    "manifest of 1 GB": sparse(MANIFEST, 2**30),
    "negative size in the manifest": claimed("plan.json", -1),
    "huge size in the manifest": claimed("plan.json", 2**70),
    "size in the manifest that is no number": claimed("plan.json", [1]),
}
MEASURE = """
import json, sys, time
from pathlib import Path
from headstart.errors import HeadstartError
from headstart.runs import load_run

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM"))

for path in sys.argv[1:]:
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts again from what is in use
    begun, word = time.perf_counter(), "accepted"
    try:
        run = load_run(Path(path))
        list(run.predictions())
        run.classifier
    except HeadstartError as error:
        word = f"refused: {error}"
    print(json.dumps([time.perf_counter() - begun, peak(), word]))
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory is read from Linux's /proc")
def test_a_run_that_claims_to_be_huge_is_refused_quickly_and_in_little_memory(tmp_path: Path) -> None:
    paths = []
    for number, (name, attack) in enumerate(SIZE_ATTACKS.items()):
        path = write_small_run(tmp_path / str(number)).path
        attack(path)
        if "manifest" not in name and all((path / file).stat().st_size < 2**29 for file in FILES):
            reseal(path)
        paths.append(str(path))
    command = [sys.executable, "-c", MEASURE, *paths]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for name, line in zip(SIZE_ATTACKS, done.stdout.splitlines(), strict=True):
        seconds, megabytes, word = json.loads(line)
        assert word.startswith("refused") and "\n" not in word, (name, word)
        assert seconds <= REFUSED_SECONDS and megabytes <= REFUSED_MEGABYTES, (name, seconds, megabytes)


def link_to(target: str) -> Callable[[Path], None]:
    return lambda place: place.symlink_to(target)


ESCAPES: dict[str, Callable[[Path], Any]] = {
    "link to an absolute path": lambda place: place.symlink_to(place.parent.parent / "outside" / place.name),
    "link through ..": link_to("../outside/bait"),
    "link to /etc/passwd": link_to("/etc/passwd"),
    "link to a device": link_to("/dev/zero"),
    "link to itself": lambda place: place.symlink_to(place.name),
    "dangling link": link_to("nowhere"),
    "hard link": lambda place: os.link(place.parent.parent / "outside" / place.name, place),
    "pipe": lambda place: os.mkfifo(place),
    "folder": lambda place: place.mkdir(),
    "device": lambda place: os.mknod(place, 0o020666, os.makedev(1, 5)),
}


@pytest.mark.parametrize("kind", list(ESCAPES))
def test_a_file_of_a_run_that_leads_elsewhere_is_never_opened(kind: str, tmp_path: Path) -> None:
    write_small_run(tmp_path / "outside")
    (tmp_path / "outside" / "bait").write_bytes(b"bait")
    for name in NAMES:
        path = tmp_path / "run"
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(tmp_path / "outside", path)
        (path / "bait").unlink()
        (path / name).unlink()
        try:
            ESCAPES[kind](path / name)
        except PermissionError:
            pytest.skip("making devices needs privileges")
        with opened_files() as opened, pytest.raises(RunError, match=name.replace(".", r"\.")):
            load_run(path)
        assert_inside(opened, path)


RECORDED = [
    "../outside/bait",
    "/etc/passwd",
    "..\\outside\\bait",
    "%2e%2e/outside/bait",
    "bait\0.json",
    "file:///etc/passwd",
    "\\\\server\\share\\x",
    "C:\\Windows\\win.ini",
    "~/.ssh/id_rsa",
    "METRICS.JSON",
    "metrics.json/../../outside/bait",
    "con",
    "metrics.json::$DATA",
    "metrics.json ",
    "./metrics.json",
    "/dev/stdin",
]


@pytest.mark.parametrize("text", RECORDED)
def test_a_path_that_is_recorded_in_a_run_is_never_followed(text: str, tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "bait").write_bytes(b"bait")
    path = write_small_run(tmp_path / "run", config={"weights": text, "data": text, "report": text}).path
    change_json(path, "metrics.json", lambda metrics: metrics.update(run=text))
    change_json(path, "model.json", lambda model: model["backbone"].update(source=text))
    reseal(path)
    with opened_files() as opened:
        run = load_run(path)
        list(run.predictions())
    assert_inside(opened, path)
    assert run.path == path
    reseal(path, files={**run.manifest["files"], text: run.manifest["files"]["plan.json"]})
    with opened_files() as opened, pytest.raises(RunError, match=r"manifest\.json does not name the files of a run"):
        load_run(path)
    assert_inside(opened, path)


def assert_inside(opened: list[str], folder: Path) -> None:
    """Nothing was opened but plain files of the folder, by their own names."""
    assert opened
    for name in opened:
        assert name in {str(folder / known) for known in NAMES}, name


def test_an_architecture_or_a_head_that_the_program_does_not_have_is_refused_by_name(tmp_path: Path) -> None:
    for number, (part, name) in enumerate(
        [("backbone", "os.system"), ("backbone", "../x"), ("head", "__import__('os')")]
    ):
        path = write_small_run(tmp_path / str(number)).path
        key = "name" if part == "backbone" else "kind"
        change_json(path, "model.json", lambda model, part=part, key=key, name=name: model[part].update({key: name}))
        reseal(path)
        with pytest.raises(RunError, match=f"unknown {part}"):
            load_run(path)


def test_a_model_description_of_any_wrong_form_is_an_error_in_words(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    original = (path / "model.json").read_bytes()
    for key in json.loads(original):
        for value in (None, 0, -1, "x", [], {}, [1], {"name": "x"}, 1e308, True):
            if key == "identity" or (key == "thresholds" and value is None):
                continue
            if (key, value) in (("temperature", 1e308), ("cut", "x")):
                continue  # possible, and known only when the backbone is there
            change_json(path, "model.json", lambda model, key=key, value=value: model.update({key: value}))
            reseal(path)
            with pytest.raises(HeadstartError) as caught:
                open_fully(path)
            assert "\n" not in str(caught.value)
            (path / "model.json").write_bytes(original)


def test_the_limits_hold_every_run_the_program_itself_can_write() -> None:
    row = [0] * 1000
    row[:50] = [99] * 50  # 50,000 test photos of 1,000 classes fill at most 50 cells a row
    cells = json.dumps([row] * 1000, separators=(",", ":"))
    assert 2 * len(cells) <= 0.75 * FILES["metrics.json"]
    assert json.dumps([[0] * 1000] * 2000).count("[") < guarded.CONTAINER_LIMIT


def test_a_manifest_in_another_form_is_refused_although_it_says_the_same(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    manifest = json.loads((path / MANIFEST).read_bytes())
    (path / MANIFEST).write_bytes(json.dumps(manifest).encode())
    with pytest.raises(RunError, match=r"manifest\.json is damaged"):
        load_run(path)


def test_the_hashes_in_the_manifest_are_those_of_another_program(tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    done = subprocess.run(["sha256sum", *FILES], cwd=path, capture_output=True, text=True, check=True)
    known = json.loads((path / MANIFEST).read_bytes())["files"]
    for line in done.stdout.splitlines():
        digest, name = line.split()
        assert known[name] == {"sha256": digest, "size": (path / name).stat().st_size}
    assert hashlib.sha256((path / "plan.json").read_bytes()).hexdigest() == known["plan.json"]["sha256"]
    assert len(small_rows()) == 24 and len(CLASSES) == 3
