"""Contract: copies and compute are timed apart, with the same results."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from align_bench.measure import time_case
from align_bench.record import Case
from align_bench.subject import Subject, opened
from align_bench.timing import Effort
from align_runtime import golden
from align_runtime.backends import StagedRunner
from align_runtime.backends.runner import STAGES
from align_runtime.backends.tensorrt.runner import LANES
from align_runtime.bundle import Bundle
from align_runtime.errors import DeviceError
from support.gpu_doubles import GpuDoubles, installed


@pytest.fixture
def doubles() -> Iterator[GpuDoubles]:
    with installed("tensorrt-11") as made:
        yield made


@pytest.fixture
def subject(engine_bundle: Path, doubles: GpuDoubles) -> Iterator[Subject]:
    with opened(Bundle.open(engine_bundle), "fp16", "tensorrt") as found:
        yield found


def staged(subject: Subject) -> StagedRunner:
    runner = subject.parts.images.tower._whole
    assert isinstance(runner, StagedRunner)
    return runner


def test_contract_staged_runs_return_the_same_embeddings(subject: Subject, doubles: GpuDoubles) -> None:
    pixels = golden.read(subject.bundle).pixels
    expected = subject.tower("vision").run({"pixels": pixels})
    for _ in range(LANES):  # each lane captures its own CUDA graph
        embeds, seconds = staged(subject).run_staged({"pixels": pixels})
    np.testing.assert_array_equal(embeds, expected)
    assert tuple(seconds) == STAGES
    assert min(seconds.values()) > 0
    captured = doubles.cuda.calls["cudaGraphInstantiate"]
    staged(subject).run_staged({"pixels": pixels})
    assert doubles.cuda.calls["cudaGraphInstantiate"] == captured
    np.testing.assert_array_equal(subject.tower("vision").run({"pixels": pixels}), expected)


def test_contract_each_stage_is_synchronized(subject: Subject, doubles: GpuDoubles) -> None:
    pixels = golden.read(subject.bundle).pixels[:1]
    for _ in range(LANES):
        staged(subject).run_staged({"pixels": pixels})
    before = doubles.cuda.calls.copy()
    staged(subject).run_staged({"pixels": pixels})
    made = doubles.cuda.calls - before
    assert made == {"cudaGetDevice": 1, "cudaMemcpyAsync": 2, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 4}


@pytest.mark.parametrize("function", ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"])
@pytest.mark.parametrize("captured", [1, LANES])  # with one, the second lane fails during its capture
def test_contract_a_lane_works_again_after_an_error_in_a_stage(
    subject: Subject, doubles: GpuDoubles, function: str, captured: int
) -> None:
    pixels = golden.read(subject.bundle).pixels[:1]
    for _ in range(captured):
        expected, _ = staged(subject).run_staged({"pixels": pixels})
    doubles.cuda.failures = {function: (doubles.cuda.calls[function] + 1, "cudaErrorIllegalAddress")}
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        staged(subject).run_staged({"pixels": pixels})
    np.testing.assert_array_equal(staged(subject).run_staged({"pixels": pixels})[0], expected)


def test_contract_a_benchmark_reports_the_copies_as_stages(subject: Subject) -> None:
    timing = time_case(subject, Case("vision", "fp16", "tensorrt", 1, "64x48", None, 1), Effort(7, 0.01))
    assert list(timing.stages) == ["decode", "preprocess", *STAGES, "end to end"]
