"""Fixtures that many tests share: bundles are built once a session."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from align_calibration.dataset.calibration_dataset import choose_samples
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.console import Progress
from support import checkpoints
from support.calibration_images import draw_images

ROOT = Path(__file__).parents[1]
QUIET = Progress(quiet=True)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands keep calibrations: not where the user does."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """align-tiny, the trained checkpoint of this repository."""
    return ROOT / "reference" / "align-tiny"


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny, exported. Read only: take `bundle_copy` to change something."""
    folder = tmp_path_factory.mktemp("bundles") / "align-tiny"
    source, options = resolve(str(tiny_checkpoint)), ExportOptions()
    build_bundle(source, provenance(source, options), folder, options, QUIET)
    return folder


@pytest.fixture(scope="session")
def tiny_fp16_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny, exported with FP16 graphs. Read only."""
    folder = tmp_path_factory.mktemp("bundles") / "align-tiny-fp16"
    source, options = resolve(str(tiny_checkpoint)), ExportOptions(precisions=("fp16",))
    build_bundle(source, provenance(source, options), folder, options, QUIET)
    return folder


@pytest.fixture(scope="session")
def calibration_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 128 images of the kind that align-tiny was trained on."""
    return draw_images(tmp_path_factory.mktemp("calibration") / "images", 128, seed=22)


@pytest.fixture(scope="session")
def tiny_int8_bundle(tiny_checkpoint: Path, calibration_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny, exported with INT8 graphs; it is too small for them to be faster. Read only."""
    folder = tmp_path_factory.mktemp("bundles") / "align-tiny-int8"
    source = resolve(str(tiny_checkpoint))
    own = choose_samples(calibration_images, None, limit=128, seed=0)
    options = ExportOptions(precisions=("int8",), dataset=own)
    build_bundle(source, provenance(source, options), folder, options, QUIET)
    return folder


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of align-tiny's bundle to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random conditioned checkpoint that is exported in seconds."""
    folder = tmp_path_factory.mktemp("checkpoints") / "small"
    return checkpoints.write_checkpoint(folder, checkpoints.small_config())


@pytest.fixture(scope="session")
def full_size_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published sizes, 690 MB of random conditioned weights."""
    return checkpoints.full_size_checkpoint(tmp_path_factory.mktemp("checkpoints") / "full-size")
