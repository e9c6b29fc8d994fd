"""The house keeps its shape: imports point one way, rooms stay small, and the README's table of files is true."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
SOURCE = REPOSITORY / "src" / "headstart"
FORBIDDEN = {"torchvision", "pickle", "cPickle", "dill", "joblib", "cv2"}
LAZY = {
    "torch",
    "sklearn",
    "scipy",
    "openvino",
    "pyarrow",
    "onnx",
    "onnxruntime",
}  # seconds of import: only inside functions
#: rooms and files that cannot do without; whoever else needs one of them imports it inside a function
MAY_IMPORT_TORCH = (
    *("nets/", "layers/", "training/", "transfer/tail.py", "transfer/activations.py"),
    *(f"explain/{name}.py" for name in ("recording", "rectifiers", "gradients")),
    *(f"explain/{name}.py" for name in ("grad_cam", "integrated", "projection")),
    *(f"look/{name}.py" for name in ("canvas", "randomise", "maximise", "dream", "adversarial")),
    *("job/network.py", "job/preparations.py", "job/trained.py", "job/trial.py", "job/joining.py", "job/net_input.py"),
)


def order() -> list[str]:
    """Return the files of the README's table, top to bottom; a folder stands for every file in it."""
    table = (REPOSITORY / "README.md").read_text(encoding="utf-8").split("## The files", 1)[1].split("\n## ", 1)[0]
    return [name for row in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`([^`]+)`", row)]


def room_of(path: Path) -> str:
    """Return the row of the table that a source file belongs to."""
    name = path.relative_to(SOURCE).as_posix()
    folder = name.split("/")[0] + "/"
    return folder if "/" in name else name


def imports_of(path: Path, *, top_level: bool) -> set[str]:
    """Return the full names of the modules a file imports; only those outside functions if `top_level`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = list(ast.walk(tree))
    if top_level:
        inside = {
            id(child)
            for node in nodes
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or _type_checking(node)
            for child in ast.walk(node)
        }
        nodes = [node for node in nodes if id(node) not in inside]
    found = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def rooms_imported(path: Path) -> set[str]:
    rooms = set()
    for name in imports_of(path, top_level=False):
        parts = name.split(".")
        if parts[0] == "headstart" and len(parts) > 1:
            if (SOURCE / f"{parts[1]}.py").exists():
                rooms.add(f"{parts[1]}.py")
            elif (SOURCE / parts[1]).is_dir():
                rooms.add(f"{parts[1]}/")
    return rooms


def _module(path: Path) -> str:
    """Return the dotted name of a source file's module."""
    parts = path.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


FILES = sorted(path for path in SOURCE.rglob("*.py") if path != SOURCE / "__init__.py")  # it only names public things


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_a_module_imports_only_what_is_listed_above_it(path: Path) -> None:
    listed = order()
    place = listed.index(room_of(path))
    allowed = set(listed[:place]) | ({room_of(path)} if room_of(path).endswith("/") else set())
    assert rooms_imported(path) <= allowed


def test_the_table_of_files_names_every_room_once() -> None:
    assert sorted(order()) == sorted({room_of(path) for path in FILES})


@pytest.mark.parametrize("room", sorted({room_of(path) for path in FILES if room_of(path).endswith("/")}))
def test_the_modules_of_a_room_do_not_import_each_other_in_a_circle(room: str) -> None:
    inside = {_module(path): path for path in FILES if room_of(path) == room}
    arrows = {
        name: {other for other in imports_of(path, top_level=True) if other in inside} - {name}
        for name, path in inside.items()
    }
    front = f"headstart.{room.rstrip('/')}"  # importing a member always loads the front door; it may name its members
    arrows = {name: {other for other in others if other != front} for name, others in arrows.items()}
    while free := [name for name, others in arrows.items() if not others]:
        arrows = {name: others - set(free) for name, others in arrows.items() if name not in free}
    assert not arrows, f"import each other in a circle: {sorted(arrows)}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_no_module_outgrows_its_room(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
    assert path.stem not in {"utils", "helpers", "core", "common", "misc"}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_that_runs_code_from_data_or_takes_seconds_to_import_is_imported(path: Path) -> None:
    roots = {name.split(".")[0] for name in imports_of(path, top_level=False)}
    assert not roots & FORBIDDEN
    may = room_of(path) in MAY_IMPORT_TORCH or path.relative_to(SOURCE).as_posix() in MAY_IMPORT_TORCH
    at_once = {name.split(".")[0] for name in imports_of(path, top_level=True)}
    assert not (at_once & LAZY) - ({"torch"} if may else set())


RUNS_CODE = {"eval", "exec", "compile", "__import__", "os.system", "os.popen", "runpy.run_path", "marshal.loads"}
RUNS_CODE |= {"pickle.load", "pickle.loads", "pandas.read_pickle", "yaml.load", "yaml.unsafe_load", "shelve.open"}


def calls_that_run_code(source: str) -> list[str]:
    """The calls of a source text by which data could become code: see `RUNS_CODE`, and loaders that were not told."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        name = ast.unparse(node.func)
        told = {word.arg: ast.unparse(word.value) for word in node.keywords}
        unsafe = (
            name in RUNS_CODE
            or (name == "torch.load" and told.get("weights_only") != "True")
            or (name in ("np.load", "numpy.load") and told.get("allow_pickle") == "True")
            or (name.startswith("subprocess.") and told.get("shell") == "True")
            or name in ("torch.jit.load", "torch.hub.load", "torch.package.PackageImporter")
        )
        if unsafe:
            found.append(f"line {node.lineno}: {name}")
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_nothing_makes_code_of_data(path: Path) -> None:
    """Figure F24: no use of eval, pickle, an unsafe torch.load and their like anywhere."""
    assert calls_that_run_code(path.read_text(encoding="utf-8")) == []


def test_the_test_of_code_from_data_notices_each_way() -> None:
    unsafe = (
        "eval(x)",
        "torch.load(path)",
        "torch.load(path, weights_only=False)",
        "os.system(name)",
        "yaml.load(text)",
    )
    for line in (*unsafe, "np.load(path, allow_pickle=True)", "subprocess.run(name, shell=True)"):
        assert calls_that_run_code(line), line
    safe = "net.eval(); re.compile(x); torch.load(p, weights_only=True); safetensors.torch.load(d)"
    assert calls_that_run_code(safe) == []


def test_the_commands_can_be_listed_and_photos_predicted_without_loading_what_loads_torch() -> None:
    code = "import sys, headstart.cli, headstart.job, headstart.predict, headstart.runs; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(SOURCE).as_posix())
def test_library_code_raises_instead_of_asserting(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    assert not [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


def test_the_order_test_notices_an_import_from_below(tmp_path: Path) -> None:
    planted = tmp_path / "planted.py"
    planted.write_text("def f():\n    from headstart.cli import run\n    return run\n", encoding="utf-8")
    assert rooms_imported(planted) == {"cli/"}
