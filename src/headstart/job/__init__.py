"""The main job, read from top to bottom: a folder of photos in, a tested and documented classifier out."""

import dataclasses
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int64

from headstart import heads, quality, runs
from headstart.backbones import Backbone, open_backbone
from headstart.classifier import Classifier
from headstart.config import LoopConfig, TrainConfig
from headstart.dataset import Dataset
from headstart.diagnose import diagnose
from headstart.errors import ConfigError, DataError
from headstart.features import Survey, survey_photos
from headstart.files import shown
from headstart.heads import FittedHead
from headstart.job import evidence
from headstart.nets import NETS
from headstart.progress import Progress
from headstart.readers import open_dataset
from headstart.report import make_thumbnail, render_report
from headstart.split import Split, make_split
from headstart.store import Store

FOR_HEAD = ("backbone", "weights", "cut", "head", "folds")  # settings that matter with a pretrained backbone only
FOR_SCRATCH = (
    *(field.name for field in dataclasses.fields(LoopConfig) if field.name not in ("seed", "threads")),
    *("image_size", "colour", "validation_fraction", "keep", "patience"),
)  # and where a network is trained only


@dataclass
class Timings:
    """Wall-clock seconds of each step of a run."""

    seconds: dict[str, float] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)
    _open: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Add the time of the block to `name`."""
        self._open[name] = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - self._open.pop(name)

    def to_json(self) -> dict[str, float]:
        """Return every step, one that still runs up to now, and `total`."""
        now = time.perf_counter()
        running = {name: self.seconds.get(name, 0.0) + now - begun for name, begun in self._open.items()}
        steps = self.seconds | running | {"total": now - self.begun}
        return {name: round(value, 4) for name, value in steps.items()}


def scan(
    data: str | Path,
    *,
    follow_links: bool = False,
    threads: int = 0,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> quality.ScanReport:
    """Look at labelled photos without training: counts, sizes, unreadable files, duplicates, leaks, imbalance.

    Args:
        data: as for `train`.
        follow_links: also read what symbolic links inside the folder point to.
        threads: decoding threads; 0: all this process may use.
        quiet: show no progress line.
        say: receives a sentence where the store could not be used as it should; None: silence.

    Returns:
        The report; `to_json()` is the document of `headstart scan --json`.

    Raises:
        DataError: there is no such data set, or nothing in it is a photo.
    """
    dataset = open_dataset(data, follow_links=follow_links)
    with Store() as store, Progress(len(dataset.photos), "photos", quiet=quiet) as progress:
        survey = survey_photos(dataset, store=store, threads=threads, progress=progress)
    if say is not None:
        for notice in survey.notices:
            say(notice)
    return quality.inspect(dataset, survey.facts)


def train(
    data: str | Path,
    out: str | Path | None = None,
    *,
    config: TrainConfig | None = None,
    overwrite: bool = False,
    resume: bool = False,
    checkpoint_seconds: float = 60.0,
    follow_links: bool = False,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> runs.Run:
    """Train a classifier on labelled photos, test it, and write a run directory.

    Args:
        data: a folder of class folders, a manifest, IDX or CIFAR files, or a built-in name (see `headstart.readers`).
        out: the run directory to make; `runs/<data>-<n>` by default. Nothing is written beside the photos.
        config: every setting; the defaults of `TrainConfig` when absent.
        overwrite: replace a run that exists at `out`.
        resume: go on with the training of a network that was interrupted before it became the run at `out`.
        checkpoint_seconds: how often the state of such a training is kept, > 0; its folder is `<out>.training`.
        follow_links: also read what symbolic links inside the folder point to.
        quiet: show no progress line.
        say: receives a sentence at each step; None: silence.

    Returns:
        The run: its metrics, and its classifier ready to predict.

    Raises:
        HeadstartError: the data, the settings or the place to write to cannot be used; the text says what to do.
    """
    config = TrainConfig() if config is None else config
    say = _silence if say is None else say
    if _strategy(config) == "scratch":
        from headstart.job.scratch import train_scratch  # imports torch, which takes seconds

        return train_scratch(
            data,
            out,
            config=dataclasses.replace(config, strategy="scratch", net=str(config.net).lower()),
            overwrite=overwrite,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            follow_links=follow_links,
            quiet=quiet,
            say=say,
        )
    if resume:
        raise ConfigError("only the training of a network can be resumed: add --net, or leave --resume out")
    clock = Timings()
    with clock.step("scan"):
        dataset = open_dataset(data, follow_links=follow_links)
        place = runs.new_run_path(out, dataset.name, overwrite=overwrite)
        say(f"{len(dataset.photos):,} photos in {len(dataset.classes)} classes; the run goes to {place}")
    with clock.step("start"):
        backbone = open_backbone(config.backbone, Path(config.weights) if config.weights else None, say=say)
        _check_choices(config, backbone)
    with clock.step("features"):
        survey = _survey(dataset, backbone, config, quiet=quiet)
        for notice in survey.notices:
            say(notice)
    with clock.step("scan"):
        found = quality.find_duplicates(survey.facts)
        report = quality.inspect(dataset, survey.facts, found)
        usable = [index for index, fact in enumerate(survey.facts) if fact.rejected is None]
        clusters = quality.clusters(dataset, survey.facts, found)
        split = make_split(
            dataset,
            usable,
            clusters,
            seed=config.seed,
            test_fraction=config.test_fraction,
            folds=config.folds,
            digests=[fact.digest for fact in survey.facts],
        )
    labels = np.array([photo.label for photo in dataset.photos], dtype=np.int64)
    features = survey.features[config.cut]
    with clock.step("fit"):
        say(f"features ready ({survey.computed:,} computed, {survey.reused:,} reused); fitting the last layer")
        fitted = _fit(features, labels, clusters, split, len(dataset.classes), config)
        temperature = heads.fit_temperature(fitted.held_out, labels[split.train])
        classifier = Classifier(
            backbone=backbone,
            cut=config.cut,
            head=fitted.head,
            classes=dataset.classes,
            temperature=temperature,
            engine=config.engine,
        )
    with clock.step("evaluate"):
        judged = evidence.judge(classifier, fitted, features, labels, split)
        plan = evidence.make_plan(config, fitted, split, dataset)
        document = {
            "run": place.as_posix(),
            "schema": runs.SCHEMA,
            "classes": list(dataset.classes),
            "data": evidence.describe_data(dataset, survey, split, report),
            "plan": plan,
            "test": judged.test,
            "validation": judged.validation,
            "diagnosis": diagnose(
                {"test": judged.test, "validation": judged.validation},
                report,
                classes=dataset.classes,
                train_accuracy=judged.train_accuracy,
                suspicious=evidence.find_suspicious(dataset, split, judged.held_out, labels),
            ),
            "provenance": evidence.provenance(config, backbone),
            "features": {"computed": survey.computed, "reused": survey.reused},
        }
    with clock.step("write"):
        rows = evidence.prediction_rows(dataset, split, judged.test_probabilities, labels)
        document["timings"] = clock.to_json()
        page = render_report(
            document,
            plan,
            config.to_dict(),
            predictions=rows,
            thumbnail=read_thumbnails(dataset),
            scan=report.to_json(),
        )
        return runs.write_run(
            place,
            classifier=classifier,
            metrics=lambda: document | {"timings": clock.to_json()},
            plan=plan,
            config=config.to_dict(),
            predictions=rows,
            report=page,
            overwrite=overwrite,
        )


def evaluate(
    run: str | Path | runs.Run,
    data: str | Path,
    *,
    follow_links: bool = False,
    threads: int = 0,
    quiet: bool = True,
    say: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Measure a trained classifier on other labelled photos.

    Args:
        run: a run, or the path of its directory.
        data: as for `train`; every class must be one that the classifier knows. All photos count, whatever their split.
        follow_links: also read what symbolic links inside the folder point to.
        threads: processor threads; 0: all this process may use.
        quiet: show no progress line.
        say: receives a sentence where the store could not be used as it should; None: silence.

    Returns:
        The measures of `metrics.evaluate`, with `run`, `data` and `skipped`.

    Raises:
        HeadstartError: the run or the data cannot be used, or the data hold a class the classifier does not know.
    """
    loaded = run if isinstance(run, runs.Run) else runs.load_run(Path(run))
    return loaded.evaluate(data, follow_links=follow_links, threads=threads, quiet=quiet, say=say)


def _silence(_: str) -> None:
    """Say nothing."""


def _strategy(config: TrainConfig) -> str:
    """What "auto" means here, after refusing settings that the other strategy alone looks at."""
    if config.net is None and config.strategy == "scratch":
        raise ConfigError("strategy scratch trains a network: name it, for example --net lenet or --net resnet18")
    if config.net is not None and config.strategy == "head":
        raise ConfigError(
            "--net trains a network from scratch, and strategy head uses a pretrained backbone: leave one of them out"
        )
    if config.net is not None and config.net.lower() not in NETS:
        raise ConfigError(f"unknown net {shown(config.net)!r}; choose one of: {', '.join(sorted(NETS))}")
    foreign = FOR_HEAD if config.net is not None else FOR_SCRATCH
    plain = TrainConfig()
    if odd := [name for name in foreign if getattr(config, name) != getattr(plain, name)]:
        option = "--" + odd[0].replace("_", "-")
        advice = "leave --net out" if config.net is not None else "add --net"
        what = "a pretrained backbone" if config.net is not None else "the training of a network"
        raise ConfigError(f"{option} belongs to {what}: leave it out, or {advice}")
    return "head" if config.net is None else "scratch"


def _check_choices(config: TrainConfig, backbone: Backbone) -> None:
    """Refuse a cut or a head that does not exist, before any photo is decoded."""
    if config.cut not in backbone.cuts:
        raise ConfigError(f"{backbone.name} has no cut {config.cut!r}; its cuts are {', '.join(backbone.cuts)}")
    if config.head != "auto" and config.head not in heads.HEADS:
        raise ConfigError(f"unknown head {config.head!r}; known: auto, {', '.join(heads.HEADS)}")


def _survey(dataset: Dataset, backbone: Backbone, config: TrainConfig, *, quiet: bool) -> Survey:
    with Store() as store, Progress(len(dataset.photos), "photos", quiet=quiet) as progress:
        return survey_photos(
            dataset,
            backbone=backbone,
            cuts=(config.cut,),
            engine=config.engine,
            store=store,
            threads=config.threads,
            progress=progress,
        )


def _fit(
    features: Float32[np.ndarray, "photos features"],
    labels: Int64[np.ndarray, "photos"],
    clusters: Int64[np.ndarray, "photos"],
    split: Split,
    classes: int,
    config: TrainConfig,
) -> FittedHead:
    """Fit the head on the training photos; its strength is chosen on the folds inside them."""
    own = labels[split.train]
    weights = heads.balanced_weights(own, classes) if config.class_weights == "balanced" else None
    return heads.fit_head(
        config.head,
        features[split.train],
        own,
        classes,
        folds=split.folds,
        sample_weights=weights,
        clusters=clusters[split.train],
        seed=config.seed,
    )


def read_thumbnails(dataset: Dataset) -> Callable[[str], bytes | None]:
    """Return a function from a photo's path to the bytes of its file, for the few photos a report shows."""
    photos = {photo.path: photo for photo in dataset.photos}

    def read(path: str) -> bytes | None:
        try:
            return make_thumbnail(dataset.fetch(photos[path]))
        except (DataError, KeyError):
            return None

    return read
