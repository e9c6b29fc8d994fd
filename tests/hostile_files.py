"""Files that would run code, or fill memory, in a program that reads them carelessly; made here, byte by byte.

A payload asks for one harmless deed, to make the folder `TRAP`: where it exists afterwards, code was run.
"""

import gzip
import io
import json
import os
import struct
import sys
import zipfile
import zlib
from pathlib import Path
from typing import Any

TRAP = "sprung"
#: what published collections of malicious pickles call; each takes a text, which is a command, a path or code
CALLS = (
    *(
        "os system",
        "os popen",
        "os mkdir",
        "os makedirs",
        "posix system",
        "nt system",
        "posix mkdir",
        "commands getoutput",
    ),
    *("subprocess getoutput", "subprocess call", "subprocess Popen", "subprocess check_output", "subprocess run"),
    *(
        "builtins eval",
        "builtins exec",
        "builtins compile",
        "builtins __import__",
        "__builtin__ eval",
        "builtins getattr",
    ),
    *("runpy run_path", "runpy _run_code", "code InteractiveInterpreter", "timeit timeit", "cProfile run", "bdb Bdb"),
    *("pty spawn", "webbrowser open", "shutil rmtree", "shutil copy", "importlib import_module", "ctypes CDLL"),
    *(
        "pip main",
        "pip._internal main",
        "pdb run",
        "doctest debug_script",
        "trace Trace",
        "asyncio run",
        "pickle loads",
    ),
    *("socket create_connection", "urllib.request urlopen", "http.client HTTPSConnection", "requests get", "sys exit"),
    *(
        "torch load",
        "torch.hub load",
        "torch.jit.unsupported_tensor_ops exec",
        "numpy.testing._private.utils runstring",
    ),
    *(
        "operator attrgetter",
        "functools partial",
        "types FunctionType",
        "marshal loads",
        "multiprocessing.util spawnv_passfds",
    ),
    *(
        "keras.models load_model",
        "tensorflow.io.read_file ReadFile",
        "idlelib.run Executive",
        "lib2to3.pgen2.grammar Grammar",
    ),
)


#: what the interpreter reports when something is run, fetched or made
DEEDS = ("exec", "compile", "pickle.find_class", "marshal.loads", "os.system", "os.exec", "os.posix_spawn", "os.mkdir")
DEEDS += ("subprocess.Popen", "socket.connect", "ctypes.dlopen", "webbrowser.open", "shutil.rmtree", "shutil.copyfile")


class opened_files:  # noqa: N801 - used as a context manager
    """Record every file this process opens, and in angle brackets every deed of `DEEDS`.

    An audit hook cannot be removed, so one serves all.
    """

    active: list[str] | None = None
    hooked = False

    def __enter__(self) -> list[str]:
        if not opened_files.hooked:
            sys.addaudithook(self.hook)
            opened_files.hooked = True
        opened_files.active = []
        return opened_files.active

    def __exit__(self, *_: object) -> None:
        opened_files.active = None

    @staticmethod
    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        if opened_files.active is None:
            return
        if event == "open" and not isinstance(arguments[0], int):
            opened_files.active.append(os.fsdecode(arguments[0]))
        elif event in DEEDS:
            opened_files.active.append(f"<{event}>")


def _words(place: str) -> str:
    return f"__import__('os').mkdir({place!r})"


def _text(call: str, place: str) -> bytes:
    """What the call takes: Python where it runs Python, a path where it makes one, else a command of the shell."""
    python = any(word in call for word in ("eval", "exec", "compile", "run", "timeit", "debug", "code"))
    return (_words(place) if python else place if "mk" in call or "make" in call else f"mkdir {place}").encode()


def _pickles(call: str, place: str) -> dict[str, bytes]:
    """The same call in five ways that a pickle has for it."""
    module, name = (part.encode() for part in call.split(" "))
    text = _text(call, place)
    short = b"\x8c" + bytes([len(text)]) + text if len(text) < 256 else b"X" + struct.pack("<I", len(text)) + text
    named = b"\x8c" + bytes([len(module)]) + module + b"\x8c" + bytes([len(name)]) + name + b"\x93"
    return {
        "protocol 0": b"c" + module + b"\n" + name + b"\n(S'" + text.replace(b"'", b'"') + b"'\ntR.",
        "protocol 2": b"\x80\x02c" + module + b"\n" + name + b"\nX" + struct.pack("<I", len(text)) + text + b"\x85R.",
        "protocol 4": b"\x80\x04" + named + short + b"\x85R.",
        "instance": b"(S'" + text.replace(b"'", b'"') + b"'\ni" + module + b"\n" + name + b"\n.",
        "object": b"(c" + module + b"\n" + name + b"\nS'" + text.replace(b"'", b'"') + b"'\no.",
    }


def _zipped(files: dict[str, bytes]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return out.getvalue()


def _npy(pickled: bytes) -> bytes:
    head = b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }"
    head += b" " * (63 - (len(head) + 10) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + pickled


def hostile_contents(folder: Path) -> dict[str, bytes]:
    """Name -> content, more than 350 of them; a payload would make `folder / TRAP`."""
    place = str(folder / TRAP)
    found: dict[str, bytes] = {}
    for call in CALLS:
        for way, content in _pickles(call, place).items():
            found[f"pickle, {call}, {way}"] = content
    for call in CALLS[:12]:
        pickled = _pickles(call, place)["protocol 2"]
        found |= {
            f"torch archive, {call}": _zipped({"archive/data.pkl": pickled, "archive/version": b"3\n"}),
            f"torch archive in capitals, {call}": _zipped(
                {"x/DATA.PKL": pickled, "x/data.pkl": pickled, "x/version": b"3"}
            ),
            f"torch archive with constants, {call}": _zipped({"a/constants.pkl": pickled, "a/code/x.py": b"0"}),
            f"npy of objects, {call}": _npy(pickled),
            f"npz of objects, {call}": _zipped({"head.npy": _npy(pickled)}),
            f"joblib, {call}": zlib.compress(pickled),
            f"gzip, {call}": gzip.compress(pickled),
            f"old torch file, {call}": b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19." + b"\x80\x02M\xe9\x03." + pickled,
            f"pickle that breaks off after the call, {call}": pickled[:-1],
            f"text before the pickle, {call}": b"{}\n" + pickled,
        }
    zeros = zlib.compress(b"\0" * 20_000_000, 9)
    deep = b"\0"
    for _ in range(5):
        deep = _zipped({f"{number}.zip": deep for number in range(10)})
    found |= {
        "zip that expands a thousand times": _zipped({"archive/data.pkl": b"\0" * 20_000_000}),
        "npz that expands a thousand times": _zipped({"head.npy": _npy(b"")[:-1] + b"\0" * 20_000_000}),
        "zips in zips": deep,
        "zip of 20,000 files": _zipped({str(number): b"" for number in range(20_000)}),
        "zip with a name that climbs": _zipped({"../../" + TRAP: b"x", "/" + TRAP: b"x"}),
        "deflated zeros": zeros,
        "yaml": f"!!python/object/apply:os.mkdir [{place!r}]".encode(),
        "yaml that multiplies": b"a: &a [x,x]\nb: &b [*a,*a]\nc: [*b,*b]",
        "python": _words(place).encode(),
        "html": f"<script>{_words(place)}</script>".encode(),
        "template": b"{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "xml that multiplies": b'<!DOCTYPE x [<!ENTITY a "aa"><!ENTITY b "&a;&a;">]><x>&b;</x>',
        "xml that reads a file": b'<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]><x>&a;</x>',
        "keras with a lambda": json.dumps({"class_name": "Lambda", "config": {"function": [_words(place)]}}).encode(),
        "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "onnx with outside data": b"\x08\x07:\x20\x0a\x1e\x0a\x00j\x1a\x0a\x08location\x12\x0e../../etc/passwd",
        "program": b"\x7fELF\x02\x01\x01" + bytes(57),
        "script": b"#!/bin/sh\nmkdir " + place.encode(),
        "sqlite": b"SQLite format 3\0" + bytes(84),
        "tar": TRAP.encode().ljust(100, b"\0") + b"0000644\0" + bytes(404),
        "seven zip": b"7z\xbc\xaf'\x1c\0\x04" + bytes(24),
        "json with a key twice": b'{"a": 1, "a": 2}',
        "json with a prototype": b'{"__proto__": {"x": 1}, "__class__": "os.system", "py/object": "os.system"}',
        "json with a lone surrogate": b'{"a": "\\ud800"}',
        "json with nan": b'{"a": NaN, "b": Infinity}',
        "utf-16": '{"a": 1}'.encode("utf-16"),
        "mark of utf-8 first": b"\xef\xbb\xbf{}",
        "a null byte": b'{"a": "\0"}',
    }
    return found
