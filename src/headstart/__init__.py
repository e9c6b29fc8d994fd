"""headstart turns a folder of labelled photos into an image classifier its owner can trust, understand and ship.

```
import headstart
run = headstart.train("photos/")
run.predict("new.jpg").label
headstart.load("runs/photos-1").evaluate("other_photos/")
```

Importing the package is quick: each name is loaded from its module when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.comparison import compare as compare
    from headstart.config import TrainConfig as TrainConfig
    from headstart.errors import HeadstartError as HeadstartError
    from headstart.job import scan as scan
    from headstart.job import train as train
    from headstart.job.planning import plan as plan
    from headstart.readers import open_dataset as open_dataset
    from headstart.runs import Run as Run
    from headstart.runs import load_run as load

__version__ = "0.1.0"

_HOMES = {
    "plan": ("headstart.job.planning", "plan"),
    "scan": ("headstart.job", "scan"),
    "train": ("headstart.job", "train"),
    "load": ("headstart.runs", "load_run"),
    "compare": ("headstart.comparison", "compare"),
    "open_dataset": ("headstart.readers", "open_dataset"),
    "Run": ("headstart.runs", "Run"),
    "TrainConfig": ("headstart.config", "TrainConfig"),
    "HeadstartError": ("headstart.errors", "HeadstartError"),
}
__all__ = [
    "HeadstartError",
    "Run",
    "TrainConfig",
    "__version__",
    "compare",
    "load",
    "open_dataset",
    "plan",
    "scan",
    "train",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'headstart' has no attribute {name!r}; it has {', '.join(__all__)}")
    module, attribute = _HOMES[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
