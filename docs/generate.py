"""Write the reference pages from the program's own help and docstrings: `python docs/generate.py`.

A test runs the same functions and fails when a committed page differs, so no page can go stale.
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path

import click

import headstart
from headstart import config
from headstart.cli import cli

HERE = Path(__file__).resolve().parent


def commands(group: click.Group, prefix: str = "headstart") -> Iterator[tuple[str, click.Command]]:
    """Yield every command with its full name, groups before their members."""
    for name, command in group.commands.items():
        yield f"{prefix} {name}", command
        if isinstance(command, click.Group):
            yield from commands(command, f"{prefix} {name}")


def commands_page() -> str:
    """The help of every command, as the terminal shows it."""
    parts = ["# Commands", "", "Written from the commands' own help by `docs/generate.py`.", ""]
    parts += [
        "Every command takes `--json`, `--quiet`, `--seed` and `--threads`. Results go to stdout, progress and",
        "messages to stderr. Exit codes: 0 done; 1 the input or the environment is at fault (one line on stderr);",
        "2 wrong usage; 3 done, but some inputs were skipped (each is named); 130 interrupted.",
        "",
    ]
    for name, command in [("headstart", cli), *commands(cli)]:
        names = cli.context_settings["help_option_names"]
        context = click.Context(
            command, info_name=name, max_content_width=100, terminal_width=100, help_option_names=names
        )
        parts += [f"## {name}", "", "```", command.get_help(context), "```", ""]
    return "\n".join(parts)


def settings_page() -> str:
    """Every setting of a training run: type, default, and the comment beside it in the source."""
    source = inspect.getsource(config)
    lines = source.splitlines()
    parts = [
        "# Settings",
        "",
        "Written from `headstart.config.TrainConfig` by `docs/generate.py`. Each is an option of",
        "`headstart train` (with `-` for `_`), a field of `TrainConfig` in Python, and a key of a run's `config.json`.",
        "",
    ]
    parts += ["| setting | type | default | meaning |", "|---|---|---|---|"]
    rows: dict[str, str] = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ClassDef) and node.name in ("LoopConfig", "TrainConfig"):
            for field in node.body:
                if isinstance(field, ast.AnnAssign) and field.value is not None:
                    comment = lines[field.lineno - 1].split("#", 1)[1].strip()
                    kind = ast.unparse(field.annotation).replace("|", "or")
                    name = ast.unparse(field.target)  # the one of TrainConfig comes last, and counts
                    rows[name] = f"| `{name}` | {kind} | `{ast.unparse(field.value)}` | {comment} |"
    return "\n".join([*parts, *rows.values(), ""])


def python_page() -> str:
    """The public names of the package, with signature and docstring."""
    parts = [
        "# Python",
        "",
        "Written from the docstrings by `docs/generate.py`.",
        "",
        inspect.getdoc(headstart) or "",
        "",
    ]
    for name in sorted(headstart.__all__):
        thing = getattr(headstart, name)
        if name.startswith("__"):
            continue
        signature = f"{inspect.signature(thing)}" if callable(thing) and not _is_error(thing) else ""
        parts += [f"## headstart.{name}", "", "```", f"{name}{signature}", "```", "", inspect.getdoc(thing) or "", ""]
        if inspect.isclass(thing) and not _is_error(thing):
            for member, value in vars(thing).items():
                if not member.startswith("_") and (text := inspect.getdoc(value)) and not isinstance(value, str):
                    parts += [f"**{name}.{member}**", "", text, ""]
    return "\n".join(parts)


def _is_error(thing: object) -> bool:
    return inspect.isclass(thing) and issubclass(thing, Exception)


PAGES = {"commands.md": commands_page, "settings.md": settings_page, "python.md": python_page}


def main() -> None:
    """Write every page."""
    for name, make in PAGES.items():
        (HERE / name).write_text(make(), encoding="utf-8")
        sys.stdout.write(f"docs/{name}\n")


if __name__ == "__main__":
    main()
