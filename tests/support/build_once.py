"""Folders that are built once a test run and read by all of its processes (pytest-xdist workers)."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest


def shared_folder(temporary: pytest.TempPathFactory) -> Path:
    """The folder of this run that all of its processes know."""
    root = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent  # each worker has a folder of its own below that of the run
    shared = root / "shared"
    shared.mkdir(exist_ok=True)
    return shared


def build_once(temporary: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """The folder `name`, built by whichever process asks first; the others wait for it. Read only: see `changed`."""
    shared = shared_folder(temporary)
    folder = shared / name
    with (shared / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            partial = shared / f".{name}.building"
            build(partial)
            partial.rename(folder)
            (shared / f"{name}.files").write_text(json.dumps(_files(folder)))
    return folder


def changed(shared: Path) -> list[str]:
    """The files in folders of `build_once` that were written, added or removed since, as ``name/path``."""
    found = []
    for record in sorted(shared.glob("*.files")):
        before, after = json.loads(record.read_text()), _files(record.with_suffix(""))
        paths = sorted(path for path in before | after if before.get(path) != after.get(path))
        found += [f"{record.stem}/{path}" for path in paths]
    return found


def _files(folder: Path) -> dict[str, list[int]]:
    """Size and time of the last change of each file, by its path."""
    stats = {path: path.stat() for path in folder.rglob("*") if path.is_file()}
    return {path.relative_to(folder).as_posix(): [stat.st_size, stat.st_mtime_ns] for path, stat in stats.items()}
