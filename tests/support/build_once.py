"""Folders that are built once a test run and read by all of its processes (pytest-xdist workers)."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def build_once(temporary: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder `name`, built by whichever process asks first; the others wait for it. Read only."""
    root = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder of its own below that of the run
    shared = root / "shared"
    shared.mkdir(exist_ok=True)
    folder = shared / name
    with (shared / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = shared / f".{name}.building"
            build(partial)
            partial.rename(folder)
    return folder
