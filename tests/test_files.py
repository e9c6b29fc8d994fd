"""State reaches the disk whole or not at all, and a file name cannot play tricks on a terminal."""

import errno
import os
import stat
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest

from headstart.errors import OutputError
from headstart.files import (
    cache_dir,
    new_directory,
    process_exists,
    sha256_file,
    shown,
    sweep_leftovers,
    write_atomic,
    write_failure,
)
from headstart.locks import FileLock


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


HOSTILE = [
    "\x1b[31mred\x1b[0m.jpg",
    "\x1b]0;title\x07.jpg",
    "line\nbreak.png",
    "carriage\rreturn.png",
    "tab\there.png",
    "null\x00.png",
    "\x9b31m.jpg",  # the one-byte form of ESC [
    "right\u202eto\u202cleft.jpg",
    "isolate\u2066\u2069.jpg",
    "zero\u200bwidth.jpg",
    "\ufeffbom.jpg",
    "line\u2028separator.jpg",
    "soft\u00adhyphen.jpg",
    "tag\U000e0041.jpg",
    "\ud800lone.jpg",
    b"latin1-\xe9\xff.jpg".decode("utf-8", "surrogateescape"),
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_shown_without_a_single_control_or_format_character(name: str) -> None:
    text = shown(name)
    assert {unicodedata.category(letter) for letter in text}.isdisjoint({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
    text.encode("utf-8")  # can be printed: no lone surrogate


@pytest.mark.parametrize("name", ["ant 1.jpg", "caf\u00e9.png", "\u5199\u771f/\u8702.jpg", "a'b\"c&<d>.jpg"])
def test_an_ordinary_name_is_shown_as_it_is(name: str) -> None:
    assert shown(name) == name
    assert shown(Path(name)) == name


def test_two_names_that_differ_in_one_raw_byte_are_shown_differently() -> None:
    assert len({shown(bytes([byte]).decode("utf-8", "surrogateescape")) for byte in range(128, 256)}) == 128


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    write_atomic(path, b"new" * 100_000)
    assert path.read_bytes() == b"new" * 100_000
    assert names(tmp_path) == ["state.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize("umask", [0o022, 0o002, 0o077])
def test_modes_are_what_the_umask_says(tmp_path: Path, umask: int) -> None:
    before = os.umask(umask)
    try:
        write_atomic(tmp_path / "file", b"x")
        with new_directory(tmp_path / "folder") as inside:
            write_atomic(inside / "file", b"x")
    finally:
        os.umask(before)
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("file", "folder/file", "folder")]
    assert modes == [0o666 & ~umask, 0o666 & ~umask, 0o777 & ~umask]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
def test_the_cache_folder_is_for_its_owner_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "deep" / "cache"))
    before = os.umask(0)
    try:
        assert stat.S_IMODE(cache_dir().stat().st_mode) == 0o700
    finally:
        os.umask(before)


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("HEADSTART_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_dir() == tmp_path / "shared" / "headstart"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative/is/ignored")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert tmp_path / "home" in cache_dir().parents


def test_a_cache_folder_that_cannot_be_made_is_one_clear_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_bytes(b"")
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "file" / "cache"))
    with pytest.raises(OutputError, match=r"cannot write .*cache: .* MB free there.*; choose another place$") as caught:
        cache_dir()
    assert "\n" not in str(caught.value)


def failing_at(function: object, turn: int, code: int) -> object:
    """The function, but its `turn`-th call raises `code`; `.calls` counts."""

    def call(*arguments: object, **named: object) -> object:
        call.calls += 1
        if call.calls == turn:
            raise OSError(code, os.strerror(code))
        return function(*arguments, **named)

    call.calls = 0
    return call


def calls_of(monkeypatch: pytest.MonkeyPatch, name: str, work: object) -> int:
    with monkeypatch.context() as patch:
        counter = failing_at(getattr(os, name), 0, 0)
        patch.setattr(os, name, counter)
        work()
    return counter.calls


FAILURES = (errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EIO)


@pytest.mark.parametrize("name", ["open", "write", "fsync", "replace"])
def test_a_disk_that_fails_at_any_call_leaves_the_old_file_and_says_where_and_how_much_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "state.json"
    write_atomic(path, b"old")
    for code in FAILURES:
        for turn in range(1, calls_of(monkeypatch, name, lambda: write_atomic(path, b"old")) + 1):
            with monkeypatch.context() as patch:
                patch.setattr(os, name, failing_at(getattr(os, name), turn, code))
                with pytest.raises(OutputError) as caught:
                    write_atomic(path, b"new")
            message = str(caught.value)
            assert str(path) in message
            assert "MB free there" in message
            assert os.strerror(code) in message
            assert "\n" not in message
            assert path.read_bytes() in (b"old", b"new")  # new: only the folder could not be synced after the rename
            assert names(tmp_path) == ["state.json"]
            write_atomic(path, b"old")


@pytest.mark.parametrize("name", ["open", "write", "fsync", "rename", "mkdir"])
def test_a_disk_that_fails_at_any_call_leaves_the_old_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "run"

    def write(content: bytes) -> None:
        with new_directory(path, overwrite=True) as inside:
            write_atomic(inside / "a", content)
            write_atomic(inside / "b", content)

    write(b"old")
    for turn in range(1, calls_of(monkeypatch, name, lambda: write(b"old")) + 1):
        with monkeypatch.context() as patch:
            patch.setattr(os, name, failing_at(getattr(os, name), turn, errno.ENOSPC))
            try:
                write(b"new")
                allowed = [{b"new"}]  # only the removal of the old one failed
            except OutputError as error:
                assert "MB free there" in str(error)
                allowed = [{b"old"}, {b"new"}]  # new: only the folder could not be synced after the rename
        assert {(path / "a").read_bytes(), (path / "b").read_bytes()} in allowed
        sweep_leftovers(tmp_path)
        assert names(tmp_path) == ["run"]
        write(b"old")


def test_a_directory_appears_complete_or_not_at_all(tmp_path: Path) -> None:
    with new_directory(tmp_path / "new" / "run") as inside:
        (inside / "part").mkdir()
        (inside / "part" / "file").write_bytes(b"x")
        assert not (tmp_path / "new" / "run").exists()
    assert (tmp_path / "new" / "run" / "part" / "file").read_bytes() == b"x"
    with pytest.raises(KeyboardInterrupt), new_directory(tmp_path / "broken") as inside:
        (inside / "file").write_bytes(b"x")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["new"]


def test_an_existing_directory_is_refused_unless_overwriting_is_asked_for(tmp_path: Path) -> None:
    with new_directory(tmp_path / "run") as inside:
        (inside / "old").write_bytes(b"x")
    with pytest.raises(OutputError, match=r"run exists already; give another name"), new_directory(tmp_path / "run"):
        pass
    with pytest.raises(ValueError, match="stop"), new_directory(tmp_path / "run", overwrite=True):
        raise ValueError("stop")
    assert names(tmp_path / "run") == ["old"]
    with new_directory(tmp_path / "run", overwrite=True) as inside:
        (inside / "new").write_bytes(b"x")
    assert names(tmp_path / "run") == ["new"]
    assert names(tmp_path) == ["run"]


def test_a_directory_that_another_process_made_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="made by another process meanwhile"),
        new_directory(tmp_path / "run") as inside,
    ):
        (inside / "mine").write_bytes(b"x")
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "theirs").write_bytes(b"x")
    assert names(tmp_path / "run") == ["theirs"]


def test_a_mistake_inside_the_block_is_not_called_a_full_disk(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), new_directory(tmp_path / "run"):
        (tmp_path / "absent").read_bytes()


KILLED = """
import os, sys
from pathlib import Path
from headstart import files
path = Path(sys.argv[1])
step = sys.argv[2]
if step == "file":
    os.fsync = lambda handle: os.kill(os.getpid(), 9)
    files.write_atomic(path / "state", b"new")
rename = os.rename
def die(source, target, *rest, **named):
    if step == "before" or Path(target).name == "run" and step == "between":
        os.kill(os.getpid(), 9)
    rename(source, target)
    if Path(target) == path / "run" and step == "after":
        os.kill(os.getpid(), 9)
os.rename = die
with files.new_directory(path / "run", overwrite=True) as inside:
    (inside / "content").write_bytes(b"new")
"""


@pytest.mark.skipif(os.name == "nt", reason="no kill -9 there")
@pytest.mark.parametrize(
    ("step", "content"), [("file", b"old"), ("before", b"old"), ("between", b"old"), ("after", b"new")]
)
def test_a_writer_killed_at_any_step_leaves_the_old_or_the_new_state_once_swept(
    tmp_path: Path, step: str, content: bytes
) -> None:
    write_atomic(tmp_path / "state", b"old")
    with new_directory(tmp_path / "run") as inside:
        (inside / "content").write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), step], check=False)
    assert done.returncode == -9
    assert len(names(tmp_path)) > 2 or step == "between"
    assert sweep_leftovers(tmp_path) >= 1
    assert names(tmp_path) == ["run", "state"]
    assert (tmp_path / "run" / "content").read_bytes() == content
    assert (tmp_path / "state").read_bytes() == b"old"


def test_a_sweep_touches_neither_living_writers_nor_other_peoples_files(tmp_path: Path) -> None:
    foreign = ".headstart-00000000-1-00000000.tmp"  # of another machine, just written
    for name in (".headstart-notes.tmp", "file.tmp", ".hidden", foreign):
        (tmp_path / name).write_bytes(b"x")
    with new_directory(tmp_path / "run") as inside:
        assert sweep_leftovers(tmp_path) == 0
        assert inside.is_dir()
    assert names(tmp_path) == sorted([".headstart-notes.tmp", "file.tmp", ".hidden", foreign, "run"])
    os.utime(tmp_path / foreign, (0, 0))  # and the same, decades old
    assert sweep_leftovers(tmp_path) == 1
    assert sweep_leftovers(tmp_path / "absent") == 0


def test_the_hash_of_a_file_is_the_published_one(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_the_message_of_a_failure_shows_a_hostile_path_escaped() -> None:
    error = write_failure(Path("/\x1b[2J/x"), OSError(errno.ENOSPC, "No space left on device"))
    assert "\x1b" not in str(error)
    assert "free some space" in str(error)


def test_a_process_is_known_to_exist_or_not() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    assert process_exists(os.getpid())
    if os.name != "nt":
        assert not process_exists(child.pid)


HOLD = """
import sys, time
from pathlib import Path
from headstart.locks import FileLock
lock = FileLock(Path(sys.argv[1]))
print(lock.acquire(), flush=True)
time.sleep(60)
"""


def test_a_lock_excludes_other_processes_and_ends_with_its_own(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "True\n"
        lock = FileLock(path)
        assert not lock.acquire()
    finally:
        child.kill()
        child.wait()
        child.stdout.close()
    assert lock.acquire()
    assert lock.acquire()
    assert not FileLock(path).acquire()
    lock.release()
    lock.release()
    with FileLock(path) as other:
        assert other.acquire()
