"""The loaded align-tiny and what the reference answers for the samples in its bundle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import align_runtime
from align_runtime import Model, golden


@pytest.fixture(scope="module")
def model(tiny_bundle: Path) -> Iterator[Model]:
    with align_runtime.load(tiny_bundle) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def answers(tiny_bundle: Path) -> golden.Golden:
    return golden.read(align_runtime.Bundle.open(tiny_bundle))
