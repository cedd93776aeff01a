"""Tests that need an NVIDIA GPU. Without a driver they are skipped; with one, everything else that is missing fails."""

from __future__ import annotations

import ctypes
import shutil
from pathlib import Path

import pytest

from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime.progress import Progress


def has_driver() -> bool:
    """Whether NVIDIA's driver is installed."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


@pytest.fixture(scope="session", autouse=True)
def _driver() -> None:
    if not has_driver():
        pytest.skip("needs an NVIDIA GPU: the driver, libcuda.so.1, is not installed")


@pytest.fixture(scope="session")
def engines(tiny_fp16_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny with engines that were built on this machine. Read only."""
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path_factory.mktemp("engines") / "bundle"))
    build_engines(
        folder,
        EngineRequest(batches=(1, 4)),
        open_toolkits(EngineRequest()),
        force=False,
        progress=Progress(quiet=True),
    )
    return folder
