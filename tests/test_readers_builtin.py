"""Data sets known by name: each against its own package or publisher's facts; addresses only with a checksum."""

import gzip
import hashlib
import io
import struct
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.readers import BUILTIN, builtin, open_dataset


def idx(array: np.ndarray) -> bytes:
    return struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes()


def idx_files() -> dict[str, bytes]:
    """A tiny set under the four official names, packed."""
    draw = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 20), ("t10k", 10)):
        files[f"{part}-images-idx3-ubyte.gz"] = idx(draw.integers(0, 256, (count, 4, 4), dtype=np.uint8))
        files[f"{part}-labels-idx1-ubyte.gz"] = idx((np.arange(count) % 10).astype(np.uint8))
    return {name: gzip.compress(data) for name, data in files.items()}


def cifar_files() -> dict[str, bytes]:
    return {f"data_batch_{number}.bin": bytes([number]) + bytes(3072) for number in range(1, 6)} | {
        "test_batch.bin": bytes(3073)
    }


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    return folder


def modules_after(name: str) -> set[str]:
    """The modules that a fresh process has imported once it has opened a data set."""
    program = f"import sys; from headstart.readers import open_dataset; open_dataset({name!r}); print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return set(done.stdout.decode().split())


# digits


def test_digits_are_those_that_scikit_learn_gives() -> None:
    datasets = pytest.importorskip("sklearn.datasets")
    data = open_dataset("digits")
    truth = datasets.load_digits()
    assert data.labels().tolist() == truth.target.tolist()
    images = np.stack([data.fetch(photo) for photo in data.photos])
    assert images.shape == (1797, 8, 8)
    assert np.abs(images - truth.images * 255 / 16).max() <= 0.5
    assert data.classes == tuple("0123456789")
    assert {photo.split for photo in data.photos} == {None}


def test_reading_digits_does_not_import_scikit_learn() -> None:
    pytest.importorskip("sklearn")
    assert not modules_after("digits") & {"sklearn", "scipy"}


# elpv


def test_elpv_has_the_photos_of_its_package_and_the_rule_and_licence_are_stated() -> None:
    package = pytest.importorskip("elpv_dataset")
    table = Path(package.__file__).parent / "data" / "labels.csv"
    probabilities = np.genfromtxt(table, usecols=1)  # as the package's own loader reads it
    data = open_dataset("elpv")
    expected = ["defective" if probability >= 0.5 else "sound" for probability in probabilities]
    assert [data.classes[photo.label] for photo in data.photos] == expected
    assert Counter(expected) == {"sound": 588 + 920 + 117 + 178, "defective": 56 + 50 + 313 + 402}
    assert len(data.photos) == 2624
    assert data.fetch(data.photos[0]).startswith(b"\x89PNG")
    assert "0.5 or more" in data.warnings[0]
    assert "CC BY-NC-SA 4.0: not for commercial use" in data.warnings[1]
    assert "0.5" in builtin.elpv.__doc__
    assert "CC BY-NC-SA 4.0" in builtin.elpv.__doc__


def test_reading_elpv_imports_nothing_of_its_package() -> None:
    pytest.importorskip("elpv_dataset")
    assert "elpv_dataset" not in modules_after("elpv")


@pytest.mark.parametrize(("name", "extra"), [("digits", "digits"), ("elpv", "demo")])
def test_a_package_that_is_not_installed_is_named_with_the_command(
    monkeypatch: pytest.MonkeyPatch, name: str, extra: str
) -> None:
    monkeypatch.setattr(builtin.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(DataError, match=rf"pip install 'headstart\[{extra}\]'"):
        open_dataset(name)


@pytest.mark.parametrize("name", ["digits", "elpv"])
def test_a_package_that_is_damaged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(builtin, "_package_folder", lambda *_: tmp_path)
    with pytest.raises(DataError, match=r"cannot read .*; .*install"):
        open_dataset(name)
    with pytest.raises(DataError, match="give the name alone, without '=here'"):
        open_dataset(f"{name}=here")


# mnist, fashion-mnist, cifar10 on disk

ON_DISK = {
    "mnist": (idx_files, ["mnist", "MNIST/raw"]),
    "fashion-mnist": (idx_files, ["fashion-mnist", "FashionMNIST/raw"]),
    "cifar10": (cifar_files, ["cifar10", "cifar-10-batches-bin", "cifar10/cifar-10-batches-bin"]),
}
PLACES = [(name, place) for name, (_, places) in ON_DISK.items() for place in places]


def check(data, name: str) -> None:
    assert data.name == name
    assert len(data.classes) == 10
    assert Counter(photo.split for photo in data.photos)["test"] in (1, 10)


@pytest.mark.parametrize(("name", "place"), PLACES)
def test_sets_are_found_in_the_usual_places_of_the_shelf(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, place: str
) -> None:
    put(tmp_path / place, ON_DISK[name][0]())
    monkeypatch.setenv("HEADSTART_DATASETS", str(tmp_path))
    check(open_dataset(name), name)


@pytest.mark.parametrize("name", sorted(ON_DISK))
def test_a_folder_can_be_given_with_the_name(tmp_path: Path, name: str) -> None:
    check(open_dataset(f"{name}={put(tmp_path / 'any where', ON_DISK[name][0]())}"), name)


def test_fashion_mnist_has_its_published_class_names(tmp_path: Path) -> None:
    data = open_dataset(f"fashion-mnist={put(tmp_path, idx_files())}")
    assert data.classes[0] == "T-shirt/top"
    assert data.classes[9] == "Ankle boot"
    assert [photo.label for photo in data.photos[:12]] == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]


@pytest.mark.parametrize("name", sorted(ON_DISK))
def test_without_files_it_is_said_where_they_may_come_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.delenv("HEADSTART_DATASETS", raising=False)
    with pytest.raises(DataError, match=f"HEADSTART_DATASETS is not set.*{name}=FOLDER or {name}=URL#sha256="):
        open_dataset(name)
    monkeypatch.setenv("HEADSTART_DATASETS", str(tmp_path))
    with pytest.raises(DataError, match=f"not found in {tmp_path}"):
        open_dataset(name)
    with pytest.raises(DataError, match=f"not found in {tmp_path}"):
        open_dataset(f"{name}={tmp_path}")


def test_the_real_mnist_is_found_by_name(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_DATASETS", str(shared_data))
    assert len(open_dataset("mnist").photos) == 70_000


# from an address


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def web(tmp_path: Path) -> Iterator[tuple[str, Path, list[str]]]:
    """A server of one folder: its address, the folder, and the paths that were asked for."""
    folder = tmp_path / "web"
    folder.mkdir()
    asked: list[str] = []

    class Handler(Quiet):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

    with serving(partial(Handler, directory=str(folder))) as address:
        yield address, folder, asked


class serving:  # noqa: N801 - read as a verb
    def __init__(self, handler: Callable[..., BaseHTTPRequestHandler]) -> None:
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.thread = Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})

    def __enter__(self) -> str:
        self.thread.start()
        return f"http://127.0.0.1:{self.server.server_port}"

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


def checked(address: str, folder: Path, name: str) -> str:
    return f"{address}/{name}#sha256={hashlib.sha256((folder / name).read_bytes()).hexdigest()}"


def tar(files: dict[str, bytes], mode: str = "w:gz") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode=mode) as archive:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return packed.getvalue()


def test_the_four_files_of_mnist_are_fetched_one_by_one_and_once(web) -> None:
    address, folder, asked = web
    put(folder, idx_files())
    given = "mnist=" + ",".join(checked(address, folder, name) for name in idx_files())
    check(open_dataset(given), "mnist")
    assert sorted(asked) == sorted(f"/{name}" for name in idx_files())
    check(open_dataset(given), "mnist")
    assert len(asked) == 4


@pytest.mark.parametrize("pack", [tar, partial(tar, mode="w"), partial(tar, mode="w:xz"), zipped])
@pytest.mark.parametrize("name", sorted(ON_DISK))
def test_an_archive_is_fetched_and_its_files_are_taken_out(web, own_cache: Path, name: str, pack: Callable) -> None:
    address, folder, _ = web
    files = {f"some/folder/{member}": data for member, data in ON_DISK[name][0]().items()}
    put(folder, {"set.archive": pack(files | {"some/readme.html": b"hello", "run.sh": b"rm -rf /"})})
    data = open_dataset(f"{name}={checked(address, folder, 'set.archive')}")
    check(data, name)
    assert sorted(path.name for path in data.root.iterdir()) == sorted(ON_DISK[name][0]())
    assert own_cache in data.root.parents


def test_another_content_than_the_checksum_says_is_refused_and_leaves_nothing(web, own_cache: Path) -> None:
    address, folder, _ = web
    put(folder, {"set.tar.gz": tar(cifar_files())})
    given = checked(address, folder, "set.tar.gz")
    put(folder, {"set.tar.gz": tar(cifar_files() | {"test_batch.bin": bytes(3073 * 2)})})
    with pytest.raises(DataError, match=r"has the SHA-256 [0-9a-f]{64}; expected [0-9a-f]{64}"):
        open_dataset(f"cifar10={given}")
    assert not [path for path in own_cache.rglob("*") if path.is_file()]


@pytest.mark.parametrize(
    "given",
    [
        "http:x",
        "http://",
        "HTTPS://h",
        "http://h/x.tar.gz",
        "http://h/x#sha256=abc",
        "http://h/x#md5=" + "0" * 32,
        "http://h/x#sha256=" + "g" * 64,
    ],
)
def test_an_address_without_a_checksum_is_refused_before_anything_is_asked(given: str) -> None:
    with pytest.raises(DataError, match="has no checksum; expected https://host/file#sha256="):
        open_dataset(f"mnist={given}")


def test_an_address_alone_is_refused_with_the_names_that_can_go_before_it() -> None:
    with pytest.raises(DataError, match=r"expected NAME=URL#sha256=... with a name of cifar10, digits"):
        open_dataset("https://host/photos.zip#sha256=" + "0" * 64)


def test_an_address_that_does_not_answer_is_an_error_of_one_line_without_secrets(web) -> None:
    address, _, _ = web
    with pytest.raises(DataError, match=r"cannot fetch http://127.0.0.1:\d+/gone.tar.gz: ") as caught:
        open_dataset(f"mnist={address}/gone.tar.gz?token=secret#sha256=" + "0" * 64)
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError, match="a user name or a password is not read") as caught:
        open_dataset("mnist=https://me:secret@host/x#sha256=" + "0" * 64)
    assert "secret" not in str(caught.value)
    with pytest.raises(DataError, match=r"cannot fetch http://127.0.0.1:9/x"):
        open_dataset("mnist=http://127.0.0.1:9/x#sha256=" + "0" * 64)


def test_an_answer_that_stops_half_way_is_refused() -> None:
    class Half(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b"x" * 100)

    with serving(Half) as address, pytest.raises(DataError, match=r"cannot fetch|has the SHA-256"):
        open_dataset(f"mnist={address}/x.tar.gz#sha256=" + "0" * 64)


@pytest.mark.parametrize(
    "content", [b"", b"<html>not found</html>", b"\x1f\x8b" + bytes(50), b"PK\x03\x04" + bytes(50)]
)
def test_what_is_no_archive_is_refused(web, content: bytes) -> None:
    address, folder, _ = web
    put(folder, {"set.tar.gz": content})
    with pytest.raises(DataError, match="neither a file of this data set nor a readable tar or zip archive"):
        open_dataset(f"mnist={checked(address, folder, 'set.tar.gz')}")


def test_every_cut_of_an_archive_is_refused(web) -> None:
    address, folder, _ = web
    for whole in (tar(idx_files()), zipped(idx_files())):
        for part in range(1, 10):
            put(folder, {"set": whole[: len(whole) * part // 10]})
            with pytest.raises(DataError):
                open_dataset(f"mnist={checked(address, folder, 'set')}")


def test_an_archive_without_a_wanted_file_is_refused(web) -> None:
    address, folder, _ = web
    put(folder, {"set.zip": zipped({"readme.txt": b"hello"})})
    with pytest.raises(DataError, match=r"nothing in .*set.zip is a file of this data set"):
        open_dataset(f"mnist={checked(address, folder, 'set.zip')}")


def hostile_tar() -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, data in cifar_files().items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
        for name in ("../test_batch.bin", "/tmp/test_batch.bin", "a/../../../../test_batch.bin"):
            member = tarfile.TarInfo(name)
            member.size = 3073
            archive.addfile(member, io.BytesIO(bytes([7]) + bytes(3072)))
        for kind, name, target in (
            (tarfile.SYMTYPE, "data_batch_9", "/etc/passwd"),
            (tarfile.LNKTYPE, "data_batch_8", "/etc/passwd"),
            (tarfile.FIFOTYPE, "data_batch_7", ""),
            (tarfile.CHRTYPE, "data_batch_6", ""),
            (tarfile.DIRTYPE, "batches.meta", ""),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            archive.addfile(member)
    return packed.getvalue()


def test_no_member_of_an_archive_chooses_its_place_or_is_a_link(web, tmp_path: Path, own_cache: Path) -> None:
    address, folder, _ = web
    put(folder, {"set.tar.gz": hostile_tar()})
    before = sorted(path for path in tmp_path.rglob("*"))
    data = open_dataset(f"cifar10={checked(address, folder, 'set.tar.gz')}")
    assert sorted(path.name for path in data.root.iterdir()) == sorted(cifar_files())
    assert all(path.is_file() and not path.is_symlink() for path in data.root.iterdir())
    assert sorted(path for path in tmp_path.rglob("*")) == before
    assert not Path("/tmp/test_batch.bin").exists()
    assert not [path for path in own_cache.rglob("*batch*") if data.root not in path.parents]


@pytest.mark.parametrize("pack", [tar, zipped])
def test_bombs_are_refused_before_they_unpack(web, monkeypatch: pytest.MonkeyPatch, pack: Callable) -> None:
    address, folder, _ = web
    put(folder, {"set": pack({"readme": b"x", "test_batch.bin": bytes(4_000_000)})})
    monkeypatch.setattr("headstart.readers.download._MOST_BYTES", 1_000_000)
    with pytest.raises(DataError, match=r"is larger than 1,000,000 bytes|has 4,000,000 bytes; that is no built-in"):
        open_dataset(f"cifar10={checked(address, folder, 'set')}")
    put(folder, {"many": pack({f"{number}": b"" for number in range(60)})})
    monkeypatch.setattr("headstart.readers.download._MOST_MEMBERS", 50)
    with pytest.raises(DataError, match="more than 50 files"):
        open_dataset(f"cifar10={checked(address, folder, 'many')}")


def test_an_endless_answer_is_cut_off(monkeypatch: pytest.MonkeyPatch, own_cache: Path) -> None:
    class Endless(Quiet):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while True:
                    self.wfile.write(bytes(1 << 16))
            except OSError:
                self.close_connection = True

    monkeypatch.setattr("headstart.readers.download._MOST_BYTES", 3_000_000)
    with serving(Endless) as address, pytest.raises(DataError, match="is larger than 3,000,000 bytes"):
        open_dataset(f"mnist={address}/x#sha256=" + "0" * 64)
    assert not [path for path in own_cache.rglob("*") if path.is_file()]


# the table


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_every_built_in_set_says_what_it_is(name: str) -> None:
    assert BUILTIN[name].__doc__
    assert name == name.lower()


def test_no_network_module_is_imported_unless_an_address_is_given() -> None:
    assert not modules_after("digits") & {"urllib.request", "http.client", "pickletools"}
