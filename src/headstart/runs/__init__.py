"""Run directories: written complete or not at all, checked byte by byte when they are opened.

    RUN/metrics.json plan.json config.json     what came out, what was chosen and why, the settings
        model.json model.safetensors           the classifier: its description and its weights
        predictions.csv history.csv            every test photo; every epoch, where there were epochs
        report.html                            the page for people
        manifest.json                          written last: size and SHA-256 of each file above

Every file is opened under its fixed name, whatever stands in the run: no path that is recorded anywhere is followed,
and nothing in a run is code. The manifest carries the digest of its own content and must be written exactly as this
program writes it, so a changed bit in any of the files, the manifest included, is found. That shows damage; it is no
signature: who changes a file on purpose can write a manifest that fits.
"""

import functools
import hashlib
import html
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np

from headstart import __version__
from headstart.classifier import Classifier, Prediction, Source
from headstart.errors import OutputError, RunError
from headstart.files import new_directory, shown
from headstart.runs.cells import read_predictions_csv
from headstart.runs.documents import history_text, json_bytes, metrics_bytes, portable, predictions_text
from headstart.runs.guarded import check_regular, parse_json, read_regular
from headstart.runs.modelfile import check_model, pack, unpack
from headstart.runs.places import FILES, MANIFEST, OPTIONAL, TRAINING, new_run_path

if TYPE_CHECKING:
    from headstart.explain import Explanation, Subject

SCHEMA = 1  # of the run directory: raise it when a reader of the old one could misread the new one
MANIFEST_LIMIT = 64 * 1024  # bytes
Documents = dict[str, dict[str, Any]]  # file name -> JSON object
#: schema -> function that turns the documents of a run of that schema into those of the next one
MIGRATIONS: dict[int, Callable[[Documents], Documents]] = {}


@dataclass(frozen=True, eq=False)
class Run:
    """A trained classifier with everything that is known about it, opened from its directory and checked.

    Args:
        path: the directory, as it was given.
        metrics, plan, config, model: the JSON documents of the directory; `metrics["run"]` is `path`.
        manifest: size and SHA-256 of each file.
    """

    path: Path
    metrics: dict[str, Any]
    plan: dict[str, Any]
    config: dict[str, Any]
    model: dict[str, Any]
    manifest: dict[str, Any]

    @functools.cached_property
    def classifier(self) -> Classifier:
        """The classifier, its weights read when first asked for.

        Raises:
            RunError: the weights changed since the run was opened, or do not fit the description.
            BackboneError: the run refers to a backbone that is not installed here.
        """
        weights = _content(self.path, self.manifest, "model.safetensors")
        return unpack(self.model, weights, shown(self.path))

    @overload
    def predict(self, source: Source, *, threads: int = 0) -> Prediction: ...
    @overload
    def predict(self, source: list[Any] | tuple[Any, ...] | Iterator[Any], *, threads: int = 0) -> list[Prediction]: ...
    def predict(self, source: Source | Iterable[Source], *, threads: int = 0) -> Prediction | list[Prediction]:
        """Name the class of one photo, or of each of several.

        Args:
            source: a path, the bytes of an image file or uint8 pixels (height, width[, 3]); or several of them.
            threads: processor threads; 0: all this process may use.

        Returns:
            A prediction, or a list of them in the order given. A photo that cannot be read has `error` set.
        """
        if isinstance(source, str | Path | bytes | np.ndarray):
            return next(iter(self.classifier.predict([source], threads=threads)))
        return list(self.classifier.predict(source, threads=threads))

    def evaluate(
        self,
        data: str | Path,
        *,
        follow_links: bool = False,
        threads: int = 0,
        quiet: bool = True,
        say: Callable[[str], None] | None = None,
    ) -> dict[str, Any]:
        """Measure the classifier on other labelled photos.

        Args:
            data: as for `headstart.train`; every class must be one the classifier knows. All photos count.
            follow_links: also read what symbolic links inside the folder point to.
            threads: processor threads; 0: all this process may use.
            quiet: show no progress line.
            say: receives a sentence where the store could not be used as it should; None: silence.

        Returns:
            The measures of `metrics.evaluate`, with `run`, `data` and `skipped`.
        """
        from headstart.classifier.evaluation import evaluate_classifier  # predicting does not need what it imports

        judged = evaluate_classifier(
            self.classifier, data, follow_links=follow_links, threads=threads, quiet=quiet, say=say
        )
        return {"run": self.path.as_posix(), **judged}

    def explain(
        self,
        source: Source,
        *,
        method: str = "",
        label: str | None = None,
        layer: str | None = None,
        seed: int = 0,
        threads: int = 0,
        **settings: Any,
    ) -> "Explanation":
        """Explain the answer for one photo: what in it speaks for a class.

        Args:
            source: a path, the bytes of an image file or uint8 pixels (height, width[, 3]).
            method: a key of `headstart.explain.METHODS`; the class activation map, or Grad-CAM where there is none, if
                not given.
            label: the class to explain; the predicted one if not given.
            layer: for the methods that take one.
            seed: of everything that draws.
            threads: processor threads; 0: all this process may use.
            settings: of the method (`headstart.explain.METHODS[method].settings`).

        Returns:
            A frozen record: `raw` numbers, `check` (what they add up to), `stamps`, `box()`, `overlay()`, `save()`.

        Raises:
            UsageError: unknown method, class, layer or setting, or a method that does not fit the net.
            ImageRejected: the photo cannot be read.
        """
        from headstart.explain import explain, first_method  # predicting does not need what it imports

        subject = self._subject(threads)
        photo = subject.photo(source)
        methods = (method or first_method(subject, photo),)
        labels = () if label is None else (label,)
        return explain(subject, photo, methods, labels, layer=layer, seed=seed, settings=settings)[0]

    @functools.cache  # noqa: B019 - as long as the run, whose engines it keeps open
    def _subject(self, threads: int) -> "Subject":
        from headstart.explain import subject_of

        return subject_of(self.classifier, shown(self.path), threads)

    def predictions(self) -> Iterator[dict[str, Any]]:
        """Yield every test photo: path, label, predicted, probability, and probabilities by class."""
        yield from read_predictions_csv(
            _content(self.path, self.manifest, "predictions.csv"), shown(self.path / "predictions.csv")
        )

    def __repr__(self) -> str:
        test = self.metrics["test"]
        low, high = test["accuracy_ci95"]
        return (
            f"Run({shown(self.path)}: {len(self.model['classes'])} classes, test accuracy {test['accuracy']:.3f}, "
            f"95% interval {low:.3f} to {high:.3f})"
        )

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        return f"<pre>{html.escape(repr(self))}</pre>"


def write_run(
    out: str | Path,
    *,
    classifier: Classifier,
    metrics: Mapping[str, Any] | Callable[[], Mapping[str, Any]],
    plan: Mapping[str, Any],
    config: Mapping[str, Any],
    predictions: Iterable[Mapping[str, Any]],
    history: Sequence[Mapping[str, float | int]] | None = None,
    report: str | None = None,
    overwrite: bool = False,
    embed_backbone: bool = True,
) -> Run:
    """Write a run directory: aside, synced, then renamed to `out`, so that it is there complete or not at all.

    Args:
        out: the directory to make.
        classifier: what was trained.
        metrics, plan, config: the documents, of JSON values; absolute paths of this machine are taken out of them.
            Metrics may be a function: it is called when all else is ready to be written, so that it can tell the time.
        predictions: every test photo: path, label, predicted, probability, probabilities by class.
        history: a row an epoch, every row with the same columns; None where there were no epochs.
        report: the page of `headstart.report.render_report`.
        overwrite: replace the run that is at `out`; a directory of anything else is never replaced.
        embed_backbone: put the weights of the backbone into the run. False makes a run of some kilobytes that needs
            the same backbone, by name and SHA-256 of its weights, installed wherever it is used.

    Returns:
        The run, opened from what was written.

    Raises:
        OutputError: `out` exists, or cannot be written.
    """
    path = new_run_path(out, "", overwrite=overwrite)
    model, weights = pack(classifier, embed_backbone=embed_backbone)
    contents = {
        "plan.json": json_bytes(portable(plan)),
        "config.json": json_bytes(portable(config)),
        "model.json": json_bytes(model),
        "model.safetensors": weights,
        "predictions.csv": predictions_text(predictions, classifier.classes).encode(),
    }
    if history:
        contents["history.csv"] = history_text(history).encode()
    if report is not None:
        contents["report.html"] = report.encode()
    contents["metrics.json"] = metrics_bytes(portable(metrics() if callable(metrics) else metrics))
    for name, data in contents.items():
        if len(data) > FILES[name]:
            raise OutputError(f"{name} would be {len(data):,} bytes; a run holds at most {FILES[name]:,} of it")
    manifest = make_manifest(contents)
    with new_directory(path, overwrite=overwrite) as folder:
        for name, data in {**contents, MANIFEST: manifest}.items():
            (folder / name).write_bytes(data)
    return load_run(path)


def make_manifest(contents: Mapping[str, bytes]) -> bytes:
    """Return manifest.json for the other files of a run, given by name."""
    files = {name: {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)} for name, data in contents.items()}
    return _sealed({"schema": SCHEMA, "status": "complete", "headstart": __version__, "files": files})


def _sealed(content: Mapping[str, Any]) -> bytes:
    """Write a manifest in its only form: sorted keys, and last the SHA-256 of the rest in that form."""
    rest = {name: content[name] for name in sorted(content) if name != "seal"}
    seal = hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()
    return (json.dumps({**rest, "seal": seal}, indent=1, sort_keys=True) + "\n").encode()


def load_run(path: str | Path) -> Run:
    """Open a run directory, after comparing every byte of it with its manifest.

    Args:
        path: the directory. It may come from anyone: see the head of this module.

    Returns:
        The run; its classifier is built when first asked for.

    Raises:
        RunError: it is missing, incomplete, damaged, or of a newer program; the text names the file and what to do.
    """
    path = Path(path)
    manifest = read_manifest(path)
    for name in manifest["files"]:
        check_regular(path, name, *_known(path, manifest, name))
    documents = {name: _document(path, manifest, name) for name in FILES if name.endswith(".json")}
    schema = manifest["schema"]
    for step in range(schema, SCHEMA):
        documents = MIGRATIONS[step](documents)
    metrics, model = documents["metrics.json"], documents["model.json"]
    check_model(model, shown(path / "model.json"))
    _check_agreement(path, metrics, model)
    metrics["run"] = path.as_posix()
    return Run(path, metrics, documents["plan.json"], documents["config.json"], model, manifest)


def read_manifest(path: Path) -> dict[str, Any]:
    """Read and check manifest.json alone: form, seal, schema, status, and that it names the files of a run.

    Raises:
        RunError: as `load_run`.
    """
    place = shown(path / MANIFEST)
    if not path.is_dir():
        raise RunError(f"no run at {shown(path)}: there is no such directory; headstart train makes one")
    data = read_regular(path, MANIFEST, MANIFEST_LIMIT)
    manifest = parse_json(data, place)
    schema = manifest.get("schema")
    if type(schema) is int and schema > SCHEMA:
        raise RunError(f"{place} is of schema {schema}; this headstart reads up to {SCHEMA}: upgrade headstart")
    if type(schema) is not int or (schema != SCHEMA and schema not in MIGRATIONS):
        raise RunError(f"{place} is damaged: its schema is {shown(repr(schema))[:40]}")
    if _sealed(manifest) != data:
        raise RunError(f"{place} is damaged: its content does not fit its seal; copy the run again")
    if manifest.get("status") != "complete":
        raise RunError(f"{place} does not say that the run is complete; train again")
    files = manifest.get("files")
    if not isinstance(files, dict) or not FILES.keys() - OPTIONAL <= files.keys() <= FILES.keys():
        raise RunError(f"{place} does not name the files of a run ({', '.join(FILES)})")
    return manifest


def _known(path: Path, manifest: Mapping[str, Any], name: str) -> tuple[int, str]:
    """Return size and SHA-256 of a file by the manifest, the size within what such a file may have."""
    known = manifest["files"][name]
    size = known.get("size") if isinstance(known, dict) else None
    if type(size) is not int or not 0 <= size <= FILES[name]:
        raise RunError(f"{shown(path / MANIFEST)} gives {name} the size {shown(repr(size))[:40]}, which cannot be")
    return size, str(known.get("sha256"))


def _content(path: Path, manifest: Mapping[str, Any], name: str) -> bytes:
    """Read a file and compare it with the manifest once more: it may have changed since the run was opened."""
    size, digest = _known(path, manifest, name)
    data = read_regular(path, name, size)
    if len(data) != size or hashlib.sha256(data).hexdigest() != digest:
        raise RunError(f"{shown(path / name)} is damaged: it differs from the manifest; copy the run again")
    return data


def _document(path: Path, manifest: Mapping[str, Any], name: str) -> dict[str, Any]:
    return parse_json(_content(path, manifest, name), shown(path / name))


def _check_agreement(path: Path, metrics: Mapping[str, Any], model: Mapping[str, Any]) -> None:
    """The documents must speak of one model, and hold what every later step reads."""
    if metrics.get("classes") != model.get("classes") or not isinstance(model.get("classes"), list):
        raise RunError(f"{shown(path)}: metrics.json and model.json do not name the same classes in the same order")
    test = metrics.get("test")
    test = test if isinstance(test, dict) else {}
    interval = test.get("accuracy_ci95")
    if not isinstance(interval, list) or len(interval) != 2 or not isinstance(test.get("accuracy"), float | int):
        raise RunError(f"{shown(path / 'metrics.json')} holds no test result")


@dataclass(frozen=True)
class RunSummary:
    """One directory of a folder of runs.

    Args:
        path: the directory.
        status: "complete" (its manifest and metrics are sound), "damaged" or "unfinished" (it has no manifest).
        accuracy: test accuracy, 0..1; None unless complete.
        classes: number of classes; None unless complete.
        problem: what is wrong, one line; empty if complete.
    """

    path: Path
    status: str
    accuracy: float | None = None
    classes: int | None = None
    problem: str = ""


def list_runs(folder: str | Path = "runs") -> list[RunSummary]:
    """List the runs of a folder, by name. Whatever lies there, this never fails; weights are not read.

    Args:
        folder: a folder of run directories; a missing one holds none.
    """
    try:
        places = sorted(entry for entry in Path(folder).iterdir() if not entry.name.startswith("."))
        return [_summary(place) for place in places if place.is_dir()]
    except OSError:
        return []


def _summary(path: Path) -> RunSummary:
    try:
        if path.name.endswith(TRAINING):
            return RunSummary(path, "unfinished", problem="a training in progress; headstart train ... --resume")
        if not os.path.lexists(path / MANIFEST):
            return RunSummary(path, "unfinished", problem="it has no manifest.json")
        manifest = read_manifest(path)
        metrics = _document(path, manifest, "metrics.json")
        _check_agreement(path, metrics, metrics)
        return RunSummary(path, "complete", float(metrics["test"]["accuracy"]), len(metrics["classes"]))
    except (RunError, OSError, ValueError) as error:
        return RunSummary(path, "damaged", problem=shown(str(error)))
