"""The C++ runtime as `make cpp` builds it, called through its C API."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import pytest

import align_runtime
from align_runtime import Model
from support.native import LIBRARY, NativeModel, load_library


@pytest.fixture(scope="session")
def library() -> ctypes.CDLL:
    if not LIBRARY.exists():
        pytest.skip("the C++ runtime is not built; run `make cpp`")
    return load_library()


@pytest.fixture(scope="module")
def native(library: ctypes.CDLL, tiny_bundle: Path) -> Iterator[NativeModel]:
    with NativeModel(library, tiny_bundle) as opened:
        yield opened


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[Model]:
    with align_runtime.load(tiny_bundle) as loaded:
        yield loaded
