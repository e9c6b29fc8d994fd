"""Figure F24: whatever lies where a file of ours is expected, nothing in it is run, and it is refused in words."""

import contextlib
import json
import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from headstart.errors import HeadstartError, ImageRejected
from headstart.images import decode
from headstart.readers import open_dataset
from headstart.runs import load_run
from headstart.runs.places import FILES, MANIFEST
from headstart.weights import read_weights
from hostile_files import TRAP, hostile_contents, opened_files
from make_run import write_small_run
from test_runs_integrity import open_fully, reseal

UNREAD = ("report.html", "history.csv")  # the program itself never reads them
FREE = ("plan.json", "config.json")  # may hold any entries: an object there is only looked at
SHORT = {b"": "nothing", b"{}": "{}", b"[]": "[]", b"null": "null", b"!" * 64: "text", b"{" * 50: "braces"}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, bytes]]:
    """Every content; after all the tests of this module nothing has made the folder they would make."""
    folder = tmp_path_factory.mktemp("corpus")
    yield hostile_contents(folder) | {name: content for content, name in SHORT.items()}
    assert not (folder / TRAP).exists()


def refused(read: Callable[[], object]) -> str:
    """The one line with which a reader refuses; it ran, fetched and made nothing."""
    with opened_files() as events, pytest.raises((HeadstartError, ImageRejected)) as caught:
        read()
    if "<exec>" in events:  # a library of ours that is imported when it is first needed: not at the second time
        with opened_files() as events, pytest.raises((HeadstartError, ImageRejected)) as caught:
            read()
    assert not [event for event in events if event.startswith("<")], events
    said = str(caught.value)
    assert said and "\n" not in said
    return said


@pytest.mark.parametrize("call", ["os mkdir", "os system", "builtins eval", "subprocess getoutput"])
@pytest.mark.parametrize("way", ["protocol 0", "protocol 2", "protocol 4", "instance", "object"])
def test_the_payloads_run_where_they_are_read_carelessly(call: str, way: str, tmp_path: Path) -> None:
    """Else this file would test nothing."""
    with opened_files() as events:
        pickle.loads(hostile_contents(tmp_path)[f"pickle, {call}, {way}"])
    assert (tmp_path / TRAP).exists() and "<pickle.find_class>" in events


def test_there_are_more_than_the_hundred_and_nine_of_the_published_collection(corpus: dict[str, bytes]) -> None:
    assert len(corpus) > 400 and len(set(corpus.values())) == len(corpus)


@pytest.mark.parametrize("name", [*FILES, MANIFEST])
def test_under_the_name_of_a_file_of_a_run(name: str, corpus: dict[str, bytes], tmp_path: Path) -> None:
    path = write_small_run(tmp_path / "run").path
    for content in corpus.values():
        (path / name).write_bytes(content)
        assert name in refused(lambda: load_run(path))
        if name == MANIFEST or name in UNREAD:
            continue
        reseal(path)  # as someone who changes a run on purpose can
        if name in FREE and is_object(content):
            with opened_files() as events, contextlib.suppress(HeadstartError):
                list(load_run(path).predictions())
            assert not [event for event in events if event.startswith("<")], events
        else:
            refused(lambda: open_fully(path))


def is_object(content: bytes) -> bool:
    try:
        return isinstance(json.loads(content), dict)
    except ValueError:
        return False


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_as_weights(suffix: str, corpus: dict[str, bytes], tmp_path: Path) -> None:
    pytest.importorskip("torch")
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(corpus["torch archive, os mkdir"])
    with pytest.raises(HeadstartError):
        read_weights(path)  # imports what reads torch's format; from here on nothing is imported
    for content in corpus.values():
        path.write_bytes(content)
        for legacy in (False, True):
            assert path.name in refused(lambda legacy=legacy: read_weights(path, legacy=legacy))


def test_as_the_state_of_a_training_that_was_stopped(corpus: dict[str, bytes], tmp_path: Path) -> None:
    from headstart.training.checkpoint import read_checkpoint

    for content in corpus.values():
        (tmp_path / "state.safetensors").write_bytes(content)
        assert "state.safetensors" in refused(lambda: read_checkpoint(tmp_path / "state.safetensors"))


def test_as_a_photo(corpus: dict[str, bytes]) -> None:
    for content in corpus.values():
        refused(lambda content=content: decode(content))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_as_a_table_of_photos(suffix: str, corpus: dict[str, bytes], tmp_path: Path) -> None:
    path = tmp_path / f"photos{suffix}"
    for content in corpus.values():
        path.write_bytes(content)
        refused(lambda: open_dataset(path))


@pytest.mark.parametrize("name", ["train-images-idx3-ubyte", "train-images-idx3-ubyte.gz", "data_batch_1.bin"])
def test_as_a_file_of_a_classic_data_set(name: str, corpus: dict[str, bytes], tmp_path: Path) -> None:
    for content in corpus.values():
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        (tmp_path / "data").mkdir()
        (tmp_path / "data" / name).write_bytes(content)
        refused(lambda: open_dataset(tmp_path / "data"))
