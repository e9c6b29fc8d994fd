"""The main job, read from top to bottom: a folder of photos in, a tested and documented classifier out."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart import quality, runs
from headstart.config import TrainConfig
from headstart.errors import ConfigError
from headstart.features import survey_photos
from headstart.job.choices import TRAINED, check_settings
from headstart.progress import Progress
from headstart.readers import open_dataset
from headstart.store import Store


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
    config = check_settings(TrainConfig() if config is None else config)
    say = _silence if say is None else say
    if config.strategy in TRAINED:
        from headstart.job.network import train_network  # imports torch, which takes seconds

        return train_network(
            data,
            out,
            config=config,
            overwrite=overwrite,
            resume=resume,
            checkpoint_seconds=checkpoint_seconds,
            follow_links=follow_links,
            quiet=quiet,
            say=say,
        )
    if resume:
        raise ConfigError(
            "only the training of a network can be resumed: add --net, or --strategy deeper, full or scratch"
        )
    from headstart.job.pretrained import train_head

    return train_head(data, out, config=config, overwrite=overwrite, follow_links=follow_links, quiet=quiet, say=say)


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
