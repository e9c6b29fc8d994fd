"""A trained classifier as a file that other programs run, with proof that it says the same, and a card about it."""

import hashlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.errors import ExportError, OutputError, UsageError
from headstart.export.about import describe
from headstart.export.card import model_card
from headstart.export.formats import FORMATS
from headstart.export.graph import refuse_neighbours, whole_graph
from headstart.export.parity import Parity, Step, measure, silent
from headstart.files import new_directory, sha256_file, shown
from headstart.runs import Run, load_run
from headstart.runs.documents import json_bytes, portable

__all__ = ["FORMATS", "Exported", "Parity", "export_run"]

SCHEMA = 1  # of manifest.json
CARD, PARITY, MANIFEST = "README.md", "parity.json", "manifest.json"
FOLDER = "exported"  # where exports go that are given no place


@dataclass(frozen=True)
class Exported:
    """What was written.

    Args:
        run: the run it comes from, as it was given.
        path: the folder.
        format: a key of `FORMATS`.
        files: name -> size in bytes and SHA-256, the manifest left out.
        parity: how far the file is from the run.
        about: what the file says about itself.
    """

    run: str
    path: Path
    format: str
    files: dict[str, dict[str, Any]]
    parity: Parity
    about: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "run": self.run,
            "path": self.path.as_posix(),
            "format": self.format,
            "files": self.files,
            "parity": self.parity.to_json(),
            "about": self.about,
        }

    def to_text(self) -> str:
        """What was written and how well it agrees, for a terminal."""
        sizes = [f"{name} ({self.files[name]['size'] / 1e6:,.1f} MB)" for name in FORMATS[self.format].files]
        lines = [f"Wrote {shown(self.path)}: {', '.join(sizes)}, the model card {CARD}, {PARITY}, {MANIFEST}"]
        lines.append(self.parity.to_text())
        if self.parity.synthetic:
            lines.append("Give your own photos with --data to compare on those.")
        skipped = self.parity.skipped
        lines += [f"  skipped {shown(item['path'])}: {item['reason']}" for item in skipped[:8]]
        return "\n".join(lines + ([f"  ... and {len(skipped) - 8} more, in {PARITY}"] if len(skipped) > 8 else []))


def export_run(
    run: Run | str | Path,
    to: str,
    out: str | Path | None = None,
    data: Sequence[str | Path] = (),
    *,
    overwrite: bool = False,
    seed: int = 0,
    threads: int = 0,
    step: Step = silent,
) -> Exported:
    """Write the model of a run for other programs, after comparing it with the run on photos.

    Args:
        run: a run, or its directory.
        to: a key of `FORMATS`.
        out: the folder to make; `exported/<run>-<to>` if not given.
        data: photos to compare on: files, folders, or anything `headstart train` takes; none: 64 made-up pictures.
        overwrite: replace the export that is at `out`; a folder of anything else is never replaced.
        seed: of the made-up pictures.
        threads: processor threads; 0: all this process may use.
        step: told (done, of, what) after each few photos.

    Returns:
        What was written: the model with its description inside, a model card, the comparison, a manifest.

    Raises:
        UsageError: unknown form, or a head that has no form as a graph.
        ExportError: a package is missing, the net has no such form, or the file does not say what the run says; nothing
            is written then.
        OutputError: `out` exists, or cannot be written.
        RunError: the run is missing or damaged.
    """
    if to not in FORMATS:
        raise UsageError(f"unknown form {shown(to)!r} to export to; choose one of: {', '.join(FORMATS)}")
    form = FORMATS[to]
    run = run if isinstance(run, Run) else load_run(run)
    path = Path(out) if out is not None else Path(FOLDER) / f"{run.path.resolve().name}-{to}"
    _check_place(path, overwrite=overwrite)
    classifier = run.classifier
    refuse_neighbours(classifier.head)
    form.check_installed()
    about = describe(run)
    fresh = not path.parent.exists()
    try:
        with new_directory(path, overwrite=overwrite) as folder:
            form.write(whole_graph(classifier), about, folder)
            opened = form.open(folder, threads)
            parity = measure(classifier, opened, data, seed=seed, threads=threads, step=step)
            del opened  # a folder with open files cannot be renamed everywhere
            _check_parity(parity, form.title)
            (folder / CARD).write_text(model_card(run, to, form, about, parity), encoding="utf-8", newline="\n")
            (folder / PARITY).write_bytes(json_bytes(portable(parity.to_json())))
            files = {name: _facts(folder / name) for name in (*form.files, CARD, PARITY)}
            (folder / MANIFEST).write_bytes(_manifest(to, about.sha256, files))
    except BaseException:
        if fresh:
            with suppress(OSError):  # it holds something else by now
                path.parent.rmdir()
        raise
    return Exported(run.path.as_posix(), path, to, files, parity, about.content)


def _check_place(path: Path, *, overwrite: bool) -> None:
    if not path.exists() and not path.is_symlink():
        return
    if not overwrite:
        raise OutputError(f"{shown(path)} exists already; give another name with --out, or --overwrite")
    known = {CARD, PARITY, MANIFEST, *(name for form in FORMATS.values() for name in form.files)}
    if path.is_symlink() or not path.is_dir() or not {entry.name for entry in path.iterdir()} <= known:
        raise OutputError(f"{shown(path)} is no export of headstart, so it is not replaced; give another name")


def _check_parity(parity: Parity, title: str) -> None:
    if parity.holds:
        return
    others = [
        f"{shown(item['path'])} is {shown(item['run'])} and not {shown(item['file'])}" for item in parity.others[:2]
    ]
    raise ExportError(
        f"the {title} file does not say what the run says: {parity.to_text()}"
        + (f" By the run, {' and '.join(others)}." if others else "")
        + " Nothing was written; report this with the output of headstart doctor"
    )


def _facts(path: Path) -> dict[str, Any]:
    return {"size": path.stat().st_size, "sha256": sha256_file(path)}


def _manifest(to: str, about: str, files: dict[str, dict[str, Any]]) -> bytes:
    """The manifest, with the SHA-256 of the rest of it at its end."""
    body = {
        "schema": SCHEMA,
        "status": "complete",
        "headstart": __version__,
        "format": to,
        "about_sha256": about,
        "files": files,
    }
    return json_bytes(body | {"seal": hashlib.sha256(json_bytes(body)).hexdigest()})
