"""Run directories: complete or not there, the same after a round trip, and nothing in them about the machine."""

import errno
import getpass
import itertools
import json
import os
import socket
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from headstart import runs
from headstart.errors import OutputError, RunError, UsageError
from headstart.runs import documents, list_runs, load_run, write_run
from headstart.runs.modelfile import pack
from headstart.runs.places import FILES, MANIFEST, new_run_path
from make_run import CLASSES, CONFIG, PLAN, small_classifier, small_metrics, small_rows, small_tensors, write_small_run

GOLDEN = Path(__file__).parent / "golden"


def test_a_run_holds_every_file_and_comes_back_as_it_was_written(tmp_path: Path) -> None:
    rows = small_rows()
    write_small_run(tmp_path / "run")
    run = load_run(tmp_path / "run")
    assert {path.name for path in run.path.iterdir()} == {*FILES, MANIFEST}
    expected = small_metrics(rows)
    assert {**run.metrics, "run": expected["run"]} == expected
    assert run.plan == PLAN and run.config == CONFIG
    again = list(run.predictions())
    assert [row["path"] for row in again] == [row["path"] for row in rows]
    for told, row in zip(again, rows, strict=True):
        assert (told["label"], told["predicted"]) == (row["label"], row["predicted"])
        assert told["probabilities"] == pytest.approx(row["probabilities"], abs=1e-6)
    assert "insects" not in repr(run) and "accuracy" in repr(run) and run._repr_html_().startswith("<pre>")


def test_metrics_of_an_opened_run_say_where_it_is_now(tmp_path: Path) -> None:
    write_small_run(tmp_path / "run")
    (tmp_path / "run").rename(tmp_path / "moved")
    assert load_run(tmp_path / "moved").metrics["run"] == (tmp_path / "moved").as_posix()


def test_the_model_file_holds_the_tensors_of_backbone_and_head_under_their_names(tmp_path: Path) -> None:
    from safetensors.numpy import load_file

    write_small_run(tmp_path / "run")
    tensors = load_file(tmp_path / "run" / "model.safetensors")
    head = small_classifier().head.tensors
    expected = {f"backbone.{name}": value for name, value in small_tensors().items()}
    expected |= {f"head.{name}": value for name, value in head.items()}
    assert tensors.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_array_equal(tensors[name], value)


def test_the_same_run_written_twice_has_the_same_bytes(tmp_path: Path) -> None:
    write_small_run(tmp_path / "a")
    write_small_run(tmp_path / "b")
    for name in (*FILES, MANIFEST):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


@pytest.mark.usefixtures("ready_cache")
def test_weights_that_are_not_the_published_ones_cannot_be_left_out() -> None:
    with pytest.raises(UsageError, match=r"made up.*not the published ones.*embed"):
        pack(small_classifier(), embed_backbone=False)


def test_an_existing_directory_is_never_replaced_unless_asked_and_only_if_it_is_a_run(tmp_path: Path) -> None:
    write_small_run(tmp_path / "run")
    before = (tmp_path / "run" / MANIFEST).read_bytes()
    with pytest.raises(OutputError, match="exists already"):
        write_small_run(tmp_path / "run", config={**CONFIG, "seed": 1})
    assert (tmp_path / "run" / MANIFEST).read_bytes() == before
    write_small_run(tmp_path / "run", config={**CONFIG, "seed": 1}, overwrite=True)
    assert load_run(tmp_path / "run").config["seed"] == 1
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "precious.jpg").write_bytes(b"x")
    with pytest.raises(OutputError, match="no run of headstart"):
        write_small_run(tmp_path / "photos", overwrite=True)
    assert (tmp_path / "photos" / "precious.jpg").read_bytes() == b"x"


def test_the_default_place_is_the_first_free_number_and_never_a_strange_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert new_run_path(None, "photos") == Path("runs/photos-1")
    (tmp_path / "runs" / "photos-1").mkdir(parents=True)
    assert new_run_path(None, "photos") == Path("runs/photos-2")
    assert new_run_path(None, "../../etc/\x1b[31m").parent == Path("runs")
    assert "/" not in new_run_path(None, "../..").name and new_run_path(None, "").name == "run-1"


@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_files_have_the_mode_that_the_umask_says(tmp_path: Path, umask: int) -> None:
    old = os.umask(umask)
    try:
        write_small_run(tmp_path / "run")
    finally:
        os.umask(old)
    for name in (*FILES, MANIFEST):
        assert stat.S_IMODE((tmp_path / "run" / name).stat().st_mode) == 0o666 & ~umask, name


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_disk_that_refuses_any_of_the_writes_leaves_no_run_and_keeps_the_old_one(
    tmp_path: Path, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_small_run(tmp_path / "run")
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    real = Path.write_bytes
    for nth, name in itertools.product(range(len(FILES) + 1), ("run", "other")):
        calls = itertools.count()

        def refusing(self: Path, data: bytes, nth: int = nth, calls: "itertools.count[int]" = calls) -> int:
            if next(calls) == nth:
                real(self, data[: len(data) // 2])
                raise OSError(code, os.strerror(code), str(self))
            return real(self, data)

        with monkeypatch.context() as patch:
            patch.setattr(Path, "write_bytes", refusing)
            with pytest.raises(OutputError, match=r"MB free"):
                write_small_run(tmp_path / name, overwrite=True)
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    write_small_run(tmp_path / "other")


def test_a_process_killed_while_writing_leaves_no_directory_that_passes_for_a_run(tmp_path: Path) -> None:
    code = (
        "import sys, os, signal, random; sys.path.insert(0, sys.argv[1])\n"
        "from pathlib import Path\n"
        "from make_run import write_small_run\n"
        "real, out, nth = Path.write_bytes, Path(sys.argv[2]), 0\n"
        "for nth in range(10):\n"
        "    if os.fork() == 0:\n"
        "        count = iter(range(99))\n"
        "        def dying(self, data):\n"
        "            if next(count) == nth: os.kill(os.getpid(), signal.SIGKILL)\n"
        "            return real(self, data)\n"
        "        Path.write_bytes = dying\n"
        "        write_small_run(out / f'run-{nth}', overwrite=True)\n"
        "        os._exit(0)\n"
        "    os.wait()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path)], check=True, timeout=120)
    found = list_runs(tmp_path)
    assert [run.status for run in found] == [
        "complete"
    ]  # the one whose write was never reached: 8 files and a manifest
    assert load_run(found[0].path).metrics["classes"] == list(CLASSES)


def test_no_file_of_a_run_tells_the_machine_the_user_or_an_absolute_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, work = tmp_path / "home" / "ann", tmp_path / "home" / "ann" / "secret-project"
    work.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.chdir(work)
    rows = small_rows()
    metrics = small_metrics(rows) | {"run": str(work / "runs" / "x"), "notes": [f"read {work}/photos and {home}/more"]}
    plan = {**PLAN, "why": [f"weights {home}/nets/mine.pth"]}
    config = {**CONFIG, "weights": str(home / "nets" / "mine.pth"), "out": "C:\\Users\\ann\\out"}
    write_run(
        work / "runs" / "x", classifier=small_classifier(), metrics=metrics, plan=plan, config=config, predictions=rows
    )
    content = b"".join(path.read_bytes() for path in (work / "runs" / "x").iterdir())
    for private in (str(tmp_path), "home/ann", "secret-project", "Users", tempfile.gettempdir()):
        assert private.encode() not in content, private
    for name in (socket.gethostname(), getpass.getuser()):
        assert len(name) < 6 or name.encode() not in content  # a short one can stand in any text
    assert json.loads((work / "runs" / "x" / "config.json").read_bytes())["weights"] == "mine.pth"


def test_numbers_that_json_has_not_become_null_and_are_never_written(tmp_path: Path) -> None:
    metrics = small_metrics(small_rows())
    metrics["test"]["log_loss"] = float("nan")
    metrics["extra"] = {"far": np.float32("inf"), "count": np.int64(3), "row": np.arange(2)}
    run = write_small_run(tmp_path / "run", metrics=metrics)
    assert run.metrics["test"]["log_loss"] is None
    assert run.metrics["extra"] == {"far": None, "count": 3, "row": [0, 1]}


def test_a_result_too_large_for_its_file_is_written_without_its_bulkiest_parts_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(documents, "METRICS_LIMIT", 400_000)
    metrics = small_metrics(small_rows())
    metrics["data"]["skipped"] = [{"path": f"bees/{number:09d}.jpg", "reason": "corrupt"} for number in range(12_000)]
    run = write_small_run(tmp_path / "run", metrics=metrics)
    assert len(run.metrics["data"]["skipped"]) == 5_000
    assert "7000 of the 12000 files" in run.metrics["left_out"][-1]
    assert len(metrics["data"]["skipped"]) == 12_000  # the caller's own value stays


def test_listing_never_fails_whatever_lies_in_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "runs"
    assert list_runs(folder) == []
    write_small_run(folder / "good")
    write_small_run(folder / "cut")
    (folder / "cut" / "metrics.json").write_bytes(b"{")
    write_small_run(folder / "newer")
    _with_manifest(folder / "newer", schema=99)
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "file").write_text("x")
    (folder / "loop").symlink_to("loop")
    (folder / "odd").mkdir()
    os.mkfifo(folder / "odd" / MANIFEST)
    (folder / "\udcff\x1b[31m").mkdir()
    found = {run.path.name: run for run in list_runs(folder)}
    assert {name: run.status for name, run in found.items()} == {
        "good": "complete",
        "cut": "damaged",
        "newer": "damaged",
        "empty": "unfinished",
        "odd": "damaged",
        "\udcff\x1b[31m": "unfinished",
    }
    assert found["good"].classes == 3 and 0 <= (found["good"].accuracy or -1) <= 1
    assert "metrics.json" in found["cut"].problem and "upgrade" in found["newer"].problem
    assert list_runs(folder / "file") == []


def _with_manifest(path: Path, **changes: object) -> None:
    """Rewrite a manifest with other values and a seal that fits, as another version of the program would."""
    manifest = json.loads((path / MANIFEST).read_bytes())
    (path / MANIFEST).write_bytes(runs._sealed({**manifest, **changes}))


def test_a_run_of_a_newer_program_is_refused_with_advice(tmp_path: Path) -> None:
    write_small_run(tmp_path / "run")
    _with_manifest(tmp_path / "run", schema=2)
    with pytest.raises(RunError, match=r"manifest\.json is of schema 2; this headstart reads up to 1: upgrade"):
        load_run(tmp_path / "run")


def test_a_run_of_an_older_schema_is_brought_up_to_date(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_small_run(tmp_path / "run")

    def from_1(documents: dict[str, dict[str, object]]) -> dict[str, dict[str, object]]:
        return {**documents, "config.json": {**documents["config.json"], "new_setting": 1}}

    monkeypatch.setattr(runs, "SCHEMA", 2)
    monkeypatch.setitem(runs.MIGRATIONS, 1, from_1)
    assert load_run(tmp_path / "run").config["new_setting"] == 1


def test_a_run_that_does_not_say_complete_is_refused(tmp_path: Path) -> None:
    write_small_run(tmp_path / "run")
    _with_manifest(tmp_path / "run", status="writing")
    with pytest.raises(RunError, match="does not say that the run is complete"):
        load_run(tmp_path / "run")


def test_a_missing_run_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"no run at .*gone.*headstart train"):
        load_run(tmp_path / "gone")


def expected_of_golden() -> dict[str, list[list[float]]]:
    values: dict[str, list[list[float]]] = json.loads((GOLDEN / "expected-1.json").read_text())
    return values


@pytest.mark.usefixtures("ready_cache")
@pytest.mark.parametrize("schema", [1])
def test_the_golden_run_of_every_released_schema_gives_the_outputs_it_gave_then(schema: int) -> None:
    run = load_run(GOLDEN / f"run-{schema}")
    expected = json.loads((GOLDEN / f"expected-{schema}.json").read_text())
    assert run.classifier.classes == tuple(expected["classes"])
    features = np.array(expected["features"], np.float32)
    np.testing.assert_allclose(run.classifier.logits_from_features(features), expected["logits"], rtol=0, atol=1e-5)
    probabilities = run.classifier.probabilities_from_features(features)
    np.testing.assert_allclose(probabilities, expected["probabilities"], rtol=0, atol=1e-5)
