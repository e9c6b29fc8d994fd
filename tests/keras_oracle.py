"""Keras on PyTorch as a second opinion; the tests that ask for it are skipped where it is not installed."""

import os
from typing import Any

import pytest


def keras() -> Any:
    """The package, told to compute with PyTorch; skips the test if it is missing."""
    os.environ.setdefault("KERAS_BACKEND", "torch")
    return pytest.importorskip("keras")
