"""Keras on PyTorch as a second opinion; the tests that ask for it are skipped where it is not installed."""

import os
import tempfile
from typing import Any

import pytest


def keras() -> Any:
    """The package, told to compute with PyTorch and to keep its settings out of the home folder; skips if missing."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    if "KERAS_HOME" not in os.environ:
        os.environ["KERAS_HOME"] = tempfile.mkdtemp(prefix="keras-")
    return pytest.importorskip("keras")
