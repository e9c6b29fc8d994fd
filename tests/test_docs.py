"""The documents are true: generated pages are current, every command, setting and public name is described."""

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

import click
import pytest

import headstart
from headstart.cli import cli

REPOSITORY = Path(__file__).resolve().parent.parent


def generator() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", REPOSITORY / "docs" / "generate.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules["generate"] = module
    spec.loader.exec_module(module)
    return module


PAGES = generator().PAGES
COMMANDS = [("headstart", cli), *generator().commands(cli)]


@pytest.mark.parametrize("name", sorted(PAGES))
def test_a_generated_page_says_what_the_code_says_now(name: str) -> None:
    written = (REPOSITORY / "docs" / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "run: .venv/bin/python docs/generate.py"


@pytest.mark.parametrize(("name", "command"), COMMANDS, ids=[name for name, _ in COMMANDS])
def test_every_command_has_help_with_an_example_and_every_option_is_explained(
    name: str, command: click.Command
) -> None:
    assert command.help
    if not isinstance(command, click.Group):
        assert (
            f"Example: {name} " in command.help or f"Example: {name}" == command.help.strip().splitlines()[-1].strip()
        )
    for parameter in command.params:
        if isinstance(parameter, click.Option) and not parameter.hidden:
            assert parameter.help, f"{name} {parameter.name}"


def test_every_public_name_is_real_and_described() -> None:
    for name in headstart.__all__:
        thing = getattr(headstart, name)
        assert name.startswith("__") or thing.__doc__


def test_no_module_takes_the_place_of_a_public_function_once_it_is_imported() -> None:
    # Importing `package.name` sets the attribute `name` of the package: a function of that name would be gone.
    modules = {path.stem for path in (REPOSITORY / "src" / "headstart").iterdir()}
    assert not modules & set(headstart.__all__)


def test_an_unknown_name_says_which_exist() -> None:
    with pytest.raises(AttributeError, match="it has HeadstartError, Run"):
        _ = headstart.trian  # type: ignore[attr-defined]


def test_every_file_that_the_readme_links_to_exists() -> None:
    text = (REPOSITORY / "README.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (REPOSITORY / target).exists(), target


def test_every_benchmark_is_named_in_the_document_that_carries_the_numbers() -> None:
    page = (REPOSITORY / "docs" / "measurements.md").read_text(encoding="utf-8")
    for path in (REPOSITORY / "benchmarks").glob("*.py"):
        assert (
            path.name in ("all.py", "harness.py", "load.py", "training_peers.py") or f"benchmarks/{path.name}" in page
        ), path.name


def test_every_weakness_of_a_similar_program_has_its_answer_and_the_tests_that_are_named_exist() -> None:
    """Figure F39: at least 27 published weaknesses, answered one by one."""
    text = (REPOSITORY / "SECURITY.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (CVE-\d{4}-\d+) \| ([^|]+) \| ([^|]+) \|$", text, re.M)
    assert len({number for number, _, _ in rows}) == len(rows) >= 27
    named = set(re.findall(r"`(test_\w+\.py)`", text))
    assert len(named) > 5 and not {name for name in named if not (REPOSITORY / "tests" / name).exists()}
