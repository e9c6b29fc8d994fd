"""What every measurement says about itself: the machine, the versions, n and the spread."""

import os
import platform
import statistics
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("headstart", "numpy", "pillow", "openvino", "torch")


def machine() -> str:
    """One paragraph: processor, cores, Python, package versions."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{model}, {cores} cores, {platform.system()}, Python {platform.python_version()}\n" + ", ".join(
        f"{name} {_version(name)}" for name in PACKAGES
    )


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def given_or_trained(run: Path | None, data: Path, place: Path) -> Path:
    """A run: the one given, or one of `DATA/ants_bees` with a new last layer, written to `place`."""
    if run is not None:
        return run
    import headstart
    from headstart.config import TrainConfig

    return headstart.train(data / "ants_bees", place, config=TrainConfig(strategy="head")).path


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Median, smallest and largest, and how many: `4.31 [4.20-4.54], n = 5`."""
    low, middle, high = min(values), statistics.median(values), max(values)
    return f"{middle:.{digits}f} [{low:.{digits}f}-{high:.{digits}f}], n = {len(values)}"


def peak_memory() -> float:
    """Peak resident memory of this process, MB. On Linux `ru_maxrss` would hold the parent's from before the start."""
    try:
        lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
        return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) / 1024
    except (OSError, StopIteration):
        import resource

        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
