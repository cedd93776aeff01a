"""Bundles with engines that the doubles built."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import align_runtime
from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime import golden
from align_runtime.bundle import Bundle
from align_runtime.golden import Golden
from align_runtime.progress import Progress
from support.gpu_doubles import GpuDoubles, installed

QUIET = Progress(quiet=True)


@pytest.fixture(scope="session")
def engine_bundle(tiny_fp16_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny with FP32 and FP16 engines of the double of TensorRT 11. Not to be changed."""
    folder = tmp_path_factory.mktemp("engines") / "bundle"
    shutil.copytree(tiny_fp16_bundle, folder)
    with installed("tensorrt-11"):
        build_engines(
            folder, EngineRequest(batches=(1, 4)), open_toolkits(EngineRequest()), force=False, progress=QUIET
        )
    return folder


@pytest.fixture
def engine_copy(engine_bundle: Path, tmp_path: Path) -> Path:
    """A copy of `engine_bundle` for tests that change it."""
    return Path(shutil.copytree(engine_bundle, tmp_path / "bundle"))


@pytest.fixture
def tiny_copy(tiny_fp16_bundle: Path, tmp_path: Path) -> Path:
    """A copy of align-tiny with FP16 graphs, without engines."""
    return Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))


@pytest.fixture
def doubles() -> Iterator[GpuDoubles]:
    with installed("tensorrt-11") as made:
        yield made


@pytest.fixture(scope="session")
def answers(tiny_fp16_bundle: Path) -> Golden:
    return golden.read(Bundle.open(tiny_fp16_bundle))


@pytest.fixture(scope="session")
def expected(tiny_fp16_bundle: Path, answers: Golden) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of the same graphs on the CPU."""
    with align_runtime.load(tiny_fp16_bundle, precision="fp16") as model:
        return model.embed_texts(answers.texts), model.embed_pixels(answers.pixels)
