"""Contract: what copying costs is told apart from what computing costs, with the same results."""

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


def test_contract_stages_give_what_a_run_gives(subject: Subject, doubles: GpuDoubles) -> None:
    pixels = golden.read(subject.bundle).pixels
    expected = subject.tower("vision").run({"pixels": pixels})
    for _ in range(LANES):  # each makes a recording of its own
        embeds, seconds = staged(subject).run_staged({"pixels": pixels})
    np.testing.assert_array_equal(embeds, expected)
    assert tuple(seconds) == STAGES
    assert min(seconds.values()) > 0
    recorded = doubles.cuda.calls["cudaGraphInstantiate"]
    staged(subject).run_staged({"pixels": pixels})
    assert doubles.cuda.calls["cudaGraphInstantiate"] == recorded
    np.testing.assert_array_equal(subject.tower("vision").run({"pixels": pixels}), expected)


def test_contract_each_stage_is_waited_for(subject: Subject, doubles: GpuDoubles) -> None:
    pixels = golden.read(subject.bundle).pixels[:1]
    for _ in range(LANES):
        staged(subject).run_staged({"pixels": pixels})
    before = doubles.cuda.calls.copy()
    staged(subject).run_staged({"pixels": pixels})
    assert doubles.cuda.calls - before == {"cudaMemcpyAsync": 2, "cudaGraphLaunch": 1, "cudaStreamSynchronize": 4}


@pytest.mark.parametrize("function", ["cudaMemcpyAsync", "cudaGraphLaunch", "cudaStreamSynchronize"])
@pytest.mark.parametrize("recorded", [1, LANES])  # with one, the second lane fails while it makes its recording
def test_contract_an_error_in_a_stage_is_told_and_the_lane_goes_on(
    subject: Subject, doubles: GpuDoubles, function: str, recorded: int
) -> None:
    pixels = golden.read(subject.bundle).pixels[:1]
    for _ in range(recorded):
        expected, _ = staged(subject).run_staged({"pixels": pixels})
    doubles.cuda.failures = {function: (doubles.cuda.calls[function] + 1, "cudaErrorIllegalAddress")}
    with pytest.raises(DeviceError, match="cudaErrorIllegalAddress"):
        staged(subject).run_staged({"pixels": pixels})
    np.testing.assert_array_equal(staged(subject).run_staged({"pixels": pixels})[0], expected)


def test_contract_a_bench_has_stages_of_copying(subject: Subject) -> None:
    timing = time_case(subject, Case("vision", "fp16", "tensorrt", 1, "64x48", None, 1), Effort(7, 0.01))
    assert list(timing.stages) == ["decode", "preprocess", *STAGES, "end to end"]
