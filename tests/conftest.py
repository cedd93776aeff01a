"""Fixtures that many tests share: bundles and checkpoints are built once a run."""

from __future__ import annotations

import gc
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from align_calibration.dataset.calibration_dataset import select_dataset
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.progress import Progress
from support import checkpoints
from support.build_once import build_once, changed, shared_folder
from support.calibration_images import draw_images
from support.rtx import check_and_parse
from support.trace_cache import TraceCache

ROOT = Path(__file__).parents[1]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first, so that no process is left with a long one when the other has finished."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_collection_finish() -> None:
    """The garbage collector passes over what importing torch and transformers left."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


@pytest.fixture(scope="session", autouse=True)
def user_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where the commands cache calibration statistics: not where the user does."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def shared_folders_stay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into what others read; an error at the end of the run names the files."""
    yield
    assert changed(shared_folder(tmp_path_factory)) == []


@pytest.fixture(scope="session")
def traces(tmp_path_factory: pytest.TempPathFactory) -> TraceCache:
    """Traces each tower once a run, see `support.trace_cache`."""
    folder = shared_folder(tmp_path_factory) / "traced"
    folder.mkdir(exist_ok=True)
    return TraceCache(folder)


@pytest.fixture(scope="session", autouse=True)
def traced_once(traces: TraceCache) -> Iterator[None]:
    """Exports in this process use `traces`."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_exporter.pipeline.trace", traces)
        yield


@pytest.fixture(scope="session", autouse=True)
def judged_by_tensorrt() -> Iterator[None]:
    """Every graph for TensorRT that a test exports in this process is read by the parser of TensorRT for RTX."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("align_exporter.pipeline.check_tensorrt", check_and_parse)
        yield


@pytest.fixture(scope="session")
def tiny_checkpoint() -> Path:
    """align-tiny, the trained checkpoint of this repository."""
    return ROOT / "reference" / "align-tiny"


def exported(temporary: pytest.TempPathFactory, name: str, checkpoint: Path, options: ExportOptions) -> Path:
    def build(folder: Path) -> None:
        source = resolve(str(checkpoint))
        build_bundle(source, provenance(source, options), folder, options, Progress(quiet=True))

    return build_once(temporary, name, build)


@pytest.fixture(scope="session")
def tiny_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny, exported. Read only: take `bundle_copy` to change something."""
    return exported(tmp_path_factory, "align-tiny", tiny_checkpoint, ExportOptions())


@pytest.fixture(scope="session")
def tiny_fp16_bundle(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny, exported with FP16 graphs. Read only."""
    return exported(tmp_path_factory, "align-tiny-fp16", tiny_checkpoint, ExportOptions(precisions=("fp16",)))


@pytest.fixture(scope="session")
def calibration_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 128 images of the kind that align-tiny was trained on."""
    return build_once(tmp_path_factory, "images", lambda folder: draw_images(folder, 128, seed=22))


@pytest.fixture(scope="session")
def tiny_int8_bundle(tiny_checkpoint: Path, calibration_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """align-tiny, exported with INT8 graphs for CPUs and TensorRT. Read only."""
    dataset = select_dataset(calibration_images, None, limit=512, seed=0)
    options = ExportOptions(precisions=("int8",), dataset=dataset)
    return exported(tmp_path_factory, "align-tiny-int8", tiny_checkpoint, options)


@pytest.fixture
def bundle_copy(tiny_bundle: Path, tmp_path: Path) -> Path:
    """A copy of align-tiny's bundle to damage."""
    return Path(shutil.copytree(tiny_bundle, tmp_path / "bundle"))


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A conditioned random checkpoint that is exported in seconds."""
    return build_once(
        tmp_path_factory, "small", lambda folder: checkpoints.write_checkpoint(folder, checkpoints.small_config())
    )


@pytest.fixture(scope="session")
def small_bundle(small_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`small_checkpoint`, exported. Read only."""
    return exported(tmp_path_factory, "small-bundle", small_checkpoint, ExportOptions())


@pytest.fixture(scope="session")
def full_size_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published sizes, 690 MB of conditioned random weights."""
    return build_once(tmp_path_factory, "full-size", checkpoints.full_size_checkpoint)
