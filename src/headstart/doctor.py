"""What this machine has: versions, processors, memory, disk, cache, backbones; and what to do about what is missing."""

import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from headstart import __version__
from headstart.backbones import BACKBONES, backbone_status
from headstart.errors import HeadstartError
from headstart.files import cache_dir, shown

PACKAGES = ("numpy", "pillow", "openvino", "torch", "safetensors", "jinja2", "click")
LITTLE_SPACE = 1_000_000_000  # bytes free under which a feature store soon fills the disk
LITTLE_MEMORY = 2_000_000_000  # bytes


@dataclass(frozen=True)
class Finding:
    """One thing looked at: `level` is ok, note (works, but) or fault (the main job does not run)."""

    level: str
    what: str
    detail: str


@dataclass(frozen=True)
class Examination:
    """All findings, in the order they were looked at."""

    findings: tuple[Finding, ...]

    @property
    def sound(self) -> bool:
        """Whether the main job can run."""
        return all(finding.level != "fault" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return {"sound", "findings": [{"level", "what", "detail"}]}."""
        return {"sound": self.sound, "findings": [vars(finding) for finding in self.findings]}

    def to_text(self) -> str:
        """One aligned line a finding."""
        width = max(len(finding.what) for finding in self.findings)
        return "\n".join(f"{f.level:<5}  {f.what:<{width}}  {f.detail}" for f in self.findings)


def examine(threads: int = 0) -> Examination:
    """Look at everything the main job needs.

    Args:
        threads: how many processor threads the user means to use; 0: all this process may use.

    Returns:
        The findings. Nothing is changed but the cache folder, which is made if absent.
    """
    return Examination(
        (
            Finding("ok", "headstart", f"{__version__}, Python {platform.python_version()} on {platform.system()}"),
            *(_package(name) for name in PACKAGES),
            _processors(threads),
            _memory(),
            _cache(),
            *(_backbone(name) for name in BACKBONES),
        )
    )


def _package(name: str) -> Finding:
    try:
        return Finding("ok", name, version(name))
    except PackageNotFoundError:
        return Finding("fault", name, f"not installed; run: pip install {name}")


def _processors(threads: int) -> Finding:
    usable = len(os.sched_getaffinity(0)) if sys.platform == "linux" else os.cpu_count() or 1
    if threads > usable:
        return Finding("note", "processors", f"{usable} usable, {threads} threads asked for: more than there are")
    return Finding("ok", "processors", f"{usable} usable, {platform.machine()}")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not every system tells
        return Finding("note", "memory", "this system does not tell how much there is")
    level = "ok" if total >= LITTLE_MEMORY else "note"
    return Finding(level, "memory", f"{total / 1e9:.1f} GB" + ("" if level == "ok" else "; use --threads 1"))


def _cache() -> Finding:
    try:
        place = cache_dir()
    except HeadstartError as error:
        return Finding("note", "cache", f"{error}; features will be computed again each time")
    free = shutil.disk_usage(place).free
    if not os.access(place, os.W_OK):
        return Finding("note", "cache", f"{shown(place)} cannot be written; set HEADSTART_CACHE to a folder that can")
    text = f"{shown(_home_short(place))}, {free / 1e9:.1f} GB free"
    return Finding("ok" if free >= LITTLE_SPACE else "note", "cache", text)


def _home_short(place: Path) -> str:
    home = Path.home()
    return f"~/{place.relative_to(home).as_posix()}" if place.is_relative_to(home) else place.as_posix()


def _backbone(name: str) -> Finding:
    installed, text = backbone_status(name)
    needed = name == "efficientnet-lite0"
    return Finding("ok" if installed else ("fault" if needed else "note"), name, text)
