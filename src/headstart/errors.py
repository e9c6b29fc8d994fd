"""The exceptions meant for the user. Each message says what happened, what was expected, what was received, what to do.

HeadstartError
├── UsageError          wrong usage of a command or function (exit code 2)
├── ConfigError         a setting is unknown, of the wrong type or out of range
├── DataError           the data set as a whole cannot be used
│   └── ImageRejected   one photo cannot be used, with a reason code
├── ShapeError          a tensor does not fit a layer
├── WeightsError        a weights file does not belong to the net
├── BackboneError       a backbone is unknown, not installed or cannot be converted
├── StoreError          the feature store cannot be opened or written
├── ExportError         a run cannot be exported, or what was exported computes something else
├── OutputError         a file cannot be written (disk full, read-only, exists already)
└── RunError            a run directory is missing, damaged or of another version
"""


class HeadstartError(Exception):
    """Base of every error whose text is written for the user; the command line prints it as one line and exits."""

    exit_code = 1


class UsageError(HeadstartError):
    """The call itself is wrong: arguments that exclude each other, a value outside its choices."""

    exit_code = 2


class ConfigError(HeadstartError):
    """A setting is unknown, of the wrong type or out of range."""


class DataError(HeadstartError):
    """The data set as a whole cannot be used."""


class ImageRejected(DataError):
    """One photo cannot be used.

    Args:
        reason: a code from `headstart.images.REASONS`, for tables and scripts.
        detail: the sentence for the user, without the path.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail

    def __reduce__(self) -> tuple[type["ImageRejected"], tuple[str, str]]:
        return (type(self), (self.reason, self.detail))


class ShapeError(HeadstartError):
    """A tensor does not fit a layer."""


class WeightsError(HeadstartError):
    """A weights file does not belong to the net."""


class BackboneError(HeadstartError):
    """A backbone is unknown, not installed or cannot be converted."""


class StoreError(HeadstartError):
    """The feature store cannot be opened or written."""


class ExportError(HeadstartError):
    """A run cannot be exported, or what was exported computes something else."""


class OutputError(HeadstartError):
    """A file cannot be written: the disk is full, the place is read-only, or it exists already."""


class RunError(HeadstartError):
    """A run directory is missing, damaged or of another version."""
