"""CIFAR-10 in both versions, written here from their description; and batches that try to run something."""

import os
import pickle
import pickletools
import struct
import sys
from pathlib import Path

import numpy as np
import pytest

from headstart.errors import DataError
from headstart.readers import open_dataset
from headstart.readers.batches import read_batch
from headstart.readers.cifar import CLASSES

TRAIN = [f"data_batch_{number}" for number in range(1, 6)]


def images(count: int, seed: int) -> tuple[np.ndarray, list[int]]:
    draw = np.random.default_rng(seed)
    return draw.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8), draw.integers(0, 10, count).tolist()


def planes(pixels: np.ndarray) -> bytes:
    """One image as the format stores it: red, green, blue plane, row by row."""
    return b"".join(pixels[:, :, channel].tobytes() for channel in range(3))


def text(value: str) -> bytes:
    """A short text as Python 2 wrote it."""
    return b"U" + bytes([len(value)]) + value.encode()


def official_batch(label: str, rows: bytes, labels: list[int], names: list[str]) -> bytes:
    """A batch instruction by instruction, as Python 2 and the NumPy of 2009 wrote the official files."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\nq\x06cnumpy\nndarray\nq\x07K\x00\x85q\x08U\x01b\x87q\tRq\n"
        + b"(K\x01M"
        + struct.pack("<H", len(labels))
        + b"M\x00\x0c\x86cnumpy\ndtype\nq\x0bU\x02u1K\x00K\x01\x87q\x0cRq\r"
        + b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89T"
        + struct.pack("<i", len(rows))
        + rows
        + b"tb"
    )
    return (
        b"\x80\x02}q\x01(" + text("batch_label") + b"q\x02" + text(label) + b"q\x03"
        + text("labels") + b"q\x04]q\x05(" + b"".join(b"K" + bytes([value]) for value in labels) + b"e"
        + text("data") + array
        + text("filenames") + b"]q\x0e(" + b"".join(text(name) for name in names) + b"eu."
    )  # fmt: skip


def official_meta() -> bytes:
    return b"\x80\x02}q\x00(" + text("label_names") + b"]q\x01(" + b"".join(map(text, CLASSES)) + b"eu."


def plant_python(root: Path, counts: dict[str, int]) -> dict[str, tuple[np.ndarray, list[int]]]:
    root.mkdir(exist_ok=True)
    truth = {}
    for seed, (stem, count) in enumerate(counts.items()):
        pixels, labels = truth[stem] = images(count, seed)
        rows = b"".join(planes(image) for image in pixels)
        (root / stem).write_bytes(official_batch(stem, rows, labels, [f"{n}.png" for n in range(count)]))
    (root / "batches.meta").write_bytes(official_meta())
    return truth


def plant_binary(root: Path, counts: dict[str, int]) -> dict[str, tuple[np.ndarray, list[int]]]:
    root.mkdir(exist_ok=True)
    truth = {}
    for seed, (stem, count) in enumerate(counts.items()):
        pixels, labels = truth[stem] = images(count, seed)
        records = b"".join(bytes([label]) + planes(image) for image, label in zip(pixels, labels, strict=True))
        (root / f"{stem}.bin").write_bytes(records)
    (root / "batches.meta.txt").write_text("\n".join(CLASSES) + "\n\n")
    return truth


COUNTS = dict.fromkeys(TRAIN, 7) | {"test_batch": 5}


@pytest.mark.parametrize("plant", [plant_binary, plant_python])
@pytest.mark.parametrize("inside", [False, True])
def test_both_versions_give_the_images_labels_and_official_split(tmp_path: Path, plant, inside: bool) -> None:
    name = "cifar-10-batches-bin" if plant is plant_binary else "cifar-10-batches-py"
    truth = plant(tmp_path / name, COUNTS)
    data = open_dataset(tmp_path if inside else tmp_path / name)
    assert data.classes == CLASSES
    assert data.warnings == ()
    assert len(data.photos) == 40
    for photo in data.photos:
        stem, number = photo.path.split("#")
        pixels, labels = truth[stem]
        assert photo.label == labels[int(number)]
        assert photo.split == ("test" if stem == "test_batch" else "train")
        image = data.fetch(photo)
        assert image.shape == (32, 32, 3)
        assert np.array_equal(image, pixels[int(number)])


def test_the_files_written_here_are_those_that_python_would_load(tmp_path: Path) -> None:
    truth = plant_python(tmp_path, {"data_batch_1": 300})
    content = pickle.loads((tmp_path / "data_batch_1").read_bytes(), encoding="latin1")
    pixels, labels = truth["data_batch_1"]
    assert np.array_equal(content["data"].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1), pixels)
    assert content["labels"] == labels
    mine = read_batch(tmp_path / "data_batch_1")
    assert mine.keys() == content.keys()
    assert np.array_equal(mine["data"], content["data"])
    assert mine["filenames"] == content["filenames"]


@pytest.mark.parametrize("protocol", [2, 3, 4])
@pytest.mark.parametrize("keys", [str, str.encode])
def test_batches_saved_again_by_python_3_are_read(tmp_path: Path, protocol: int, keys) -> None:
    pixels, labels = images(3, 0)
    rows = np.stack([np.frombuffer(planes(image), dtype=np.uint8) for image in pixels])
    content = {keys("data"): rows, keys("labels"): labels, keys("big"): 10**12, keys("none"): None, keys("yes"): True}
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps(content, protocol=protocol))
    data = open_dataset(tmp_path)
    assert [photo.label for photo in data.photos] == labels
    assert np.array_equal(data.fetch(data.photos[2]), pixels[2])


def test_missing_batches_are_a_warning(tmp_path: Path) -> None:
    plant_binary(tmp_path, {"data_batch_1": 2, "data_batch_4": 2})
    assert open_dataset(tmp_path).warnings == (
        "only 2 of 5 training batches are there",
        "test_batch, the official test set, is not there",
    )


def test_where_both_versions_are_there_the_binary_one_is_read(tmp_path: Path) -> None:
    plant_python(tmp_path, {"data_batch_1": 9})
    plant_binary(tmp_path, {"data_batch_1": 2})
    assert len(open_dataset(tmp_path).photos) == 2


def test_class_names_come_from_the_file_beside_the_batches(tmp_path: Path) -> None:
    plant_binary(tmp_path, {"data_batch_1": 2})
    (tmp_path / "batches.meta.txt").write_text("\n".join(f"name {number}" for number in range(10)))
    assert open_dataset(tmp_path).classes[3] == "name 3"
    (tmp_path / "batches.meta.txt").write_text("a\nb\n")
    with pytest.raises(DataError, match="has 2 names; expected 10"):
        open_dataset(tmp_path)
    (tmp_path / "batches.meta.txt").unlink()
    assert open_dataset(tmp_path).classes == CLASSES


def test_a_binary_batch_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    plant_binary(tmp_path, {"data_batch_1": 2})
    path = tmp_path / "data_batch_1.bin"
    for content in (path.read_bytes()[:-1], b""):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"data_batch_1.bin is cut off: .* no multiple of 3,073"):
            open_dataset(tmp_path)


@pytest.mark.parametrize("plant", [plant_binary, plant_python])
def test_a_label_out_of_range_is_refused(tmp_path: Path, plant) -> None:
    plant(tmp_path, {"data_batch_1": 2})
    if plant is plant_binary:
        path = tmp_path / "data_batch_1.bin"
        path.write_bytes(b"\x0a" + path.read_bytes()[1:])
    else:
        rows = bytes(2 * 3072)
        (tmp_path / "data_batch_1").write_bytes(official_batch("x", rows, [3, 10], ["a", "b"]))
    with pytest.raises(DataError, match="has the label 10; expected 0 to 9"):
        open_dataset(tmp_path)


def test_every_cut_of_a_python_batch_is_refused_in_one_line(tmp_path: Path) -> None:
    good = official_batch("x", bytes(3072), [3], ["a.png"])
    path = tmp_path / "data_batch_1"
    for length in [*range(0, 200), *range(200, len(good), 97)]:
        path.write_bytes(good[:length])
        with pytest.raises(DataError, match="data_batch_1") as caught:
            open_dataset(tmp_path)
        assert "\n" not in str(caught.value)


def test_random_damage_to_a_python_batch_never_gives_another_error(tmp_path: Path) -> None:
    good = official_batch("x", bytes(3072), [3], ["a.png"])
    draw = np.random.default_rng(0)
    path = tmp_path / "data_batch_1"
    for _ in range(400):
        content = bytearray(good)
        for place in draw.integers(0, 330, 3):  # the instructions before the pixels
            content[place] = draw.integers(0, 256)
        path.write_bytes(content)
        try:
            open_dataset(tmp_path)
        except DataError as error:
            assert "\n" not in str(error)


# batches that try to run something


class Calls:
    """An object whose pickle calls a function when it is loaded."""

    def __init__(self, function, *arguments) -> None:
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


def hostile_programs(canary: Path) -> dict[str, bytes]:
    """Pickles that make the file `canary` when they are loaded, by every way the format offers."""
    command = f"__import__('os').mkdir({str(canary)!r})"
    line = command.encode()
    sized = struct.pack("<I", len(line)) + line
    good = official_batch("x", bytes(3072), [3], ["a.png"])
    return {
        "reduce": pickle.dumps({"data": Calls(eval, command)}, protocol=2),
        "reduce at the top": pickle.dumps(Calls(exec, command), protocol=2),
        "stack global": pickle.dumps({"data": Calls(eval, command)}, protocol=4),
        "system": pickle.dumps({"data": Calls(os.system, f"touch {canary}")}, protocol=4),
        "text instructions": b"(dS'data'\ncbuiltins\neval\n(S\"" + line + b'"\ntRs.',
        "inst": b'(S"' + line + b'"\nibuiltins\neval\n.',
        "obj": b"\x80\x02(cbuiltins\neval\nX" + sized + b"o.",
        "newobj": b"\x80\x02cbuiltins\neval\nX" + sized + b"\x85\x81.",
        "newobj with keywords": b"\x80\x04cbuiltins\neval\nX" + sized + b"\x85}\x92.",
        "extension": b"\x80\x02\x82\x01.",
        "persistent": b"\x80\x02K\x01Q.",
        "persistent by text": b"Pabc\n.",
        "build": b"\x80\x02}cbuiltins\neval\nX" + sized + b"\x85b.",
        "an allowed name called as another": good.replace(b"cnumpy\nndarray", b"cbuiltins\neval"),
        "a name like an allowed one": good.replace(b"cnumpy\ndtype", b"cnumpy\nload"),
        "a name with dots": b"\x80\x04}X\x04\0\0\0data\x8c\x05numpy\x8c\x12f2py.os.path.system\x93K\x01\x85Rs.",
        "after the dict": b"\x80\x02}0cbuiltins\neval\nX" + sized + b"\x85R.",
        "byte array": b"\x80\x05}\x96\x08\0\0\0\0\0\0\0" + bytes(8) + b"s.",
        "buffer": b"\x80\x05\x97.",
        "an array of objects": good.replace(b"U\x02u1", b"U\x02O8"),
        "a key that takes for ever to hash": b"\x80\x02})" + b"\x86".join([b"2"] * 60) + b"\x86K\x01s.",
    }


@pytest.mark.parametrize("name", sorted(hostile_programs(Path("x"))))
def test_nothing_in_a_batch_is_run(tmp_path: Path, name: str) -> None:
    canary = tmp_path / "canary"
    (tmp_path / "data_batch_1").write_bytes(hostile_programs(canary)[name])
    with pytest.raises(DataError, match="data_batch_1") as caught:
        open_dataset(tmp_path)
    assert "\n" not in str(caught.value)
    assert not canary.exists()


def test_the_programs_of_this_test_do_run_when_python_loads_them(tmp_path: Path) -> None:
    for name in ("reduce", "reduce at the top", "stack global", "system", "text instructions", "inst", "obj"):
        canary = tmp_path / name.replace(" ", "-")
        pickle.loads(hostile_programs(canary)[name])
        assert canary.exists()


def test_a_refused_instruction_is_named_with_the_advice_to_take_the_binary_version(tmp_path: Path) -> None:
    (tmp_path / "data_batch_1").write_bytes(pickle.dumps({"data": Calls(eval, "1")}, protocol=2))
    with pytest.raises(
        DataError, match=r"a call of '__builtin__ eval'; nothing of it was run; take the binary version"
    ):
        open_dataset(tmp_path)


PLAIN = """
PROTO FRAME STOP MARK NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 SHORT_BINSTRING BINSTRING BINUNICODE
SHORT_BINUNICODE SHORT_BINBYTES BINBYTES EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 APPEND APPENDS
SETITEM SETITEMS BINPUT LONG_BINPUT MEMOIZE BINGET LONG_BINGET GLOBAL STACK_GLOBAL REDUCE BUILD
"""
ARGUMENTS = {
    "stringnl": b"'a'\n",
    "stringnl_noescape": b"a\n",
    "stringnl_noescape_pair": b"a\nb\n",
    "unicodestringnl": b"a\n",
    "decimalnl_short": b"1\n",
    "decimalnl_long": b"1\n",
    "floatnl": b"1\n",
}


@pytest.mark.parametrize(
    "name", sorted(opcode.name for opcode in pickletools.opcodes if opcode.name not in PLAIN.split())
)
def test_every_other_instruction_of_the_format_is_refused_by_its_name(tmp_path: Path, name: str) -> None:
    opcode = next(opcode for opcode in pickletools.opcodes if opcode.name == name)
    argument = ARGUMENTS.get(opcode.arg.name, bytes(20)) if opcode.arg else b""
    program = b"\x80\x02}(K\x01K\x02" + opcode.code.encode("latin-1") + argument + b"."
    (tmp_path / "data_batch_1").write_bytes(program)
    with pytest.raises(DataError, match=f"it holds the instruction {name};"):
        read_batch(tmp_path / "data_batch_1")


def test_the_reader_of_batches_imports_nothing_that_a_batch_names(tmp_path: Path) -> None:
    good = official_batch("x", bytes(3072), [3], ["a.png"])
    (tmp_path / "data_batch_1").write_bytes(good.replace(b"cnumpy\ndtype", b"cantigravity\ndtype"))
    with pytest.raises(DataError):
        open_dataset(tmp_path)
    assert "antigravity" not in sys.modules
