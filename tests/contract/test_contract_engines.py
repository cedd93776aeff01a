"""Contract: engines are built, described, cached and refused correctly, on strict doubles of the bindings."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_exporter.graph.content import product_types
from align_runtime.bundle import Bundle
from align_runtime.engines import EngineOptions, engines_of
from align_runtime.errors import ParityError, PrecisionError
from align_runtime.progress import Progress
from support.gpu_doubles import GpuDoubles, installed

QUIET = Progress(quiet=True)
FP16 = EngineRequest(variants=("fp16",), batches=(1, 4))


def build(folder: Path, request: EngineRequest, force: bool = False) -> list[str | None]:
    """Builds engines and returns the reasons."""
    outcomes = build_engines(folder, request, open_toolkits(request), force, QUIET)
    return [outcome.reason for outcome in outcomes]


@pytest.mark.parametrize("surface", ["tensorrt-11", "tensorrt-10"])
def test_contract_engines_are_built_and_described(tiny_copy: Path, surface: str) -> None:
    with installed(surface) as doubles:
        assert build(tiny_copy, FP16) == ["no engine yet"] * 2
        assert doubles.tensorrt.built == 2
        entries = engines_of(Bundle.open(tiny_copy))
        plans = [json.loads((tiny_copy / entry.file).read_text()) for entry in entries]
    assert [(entry.tower, entry.variant) for entry in entries] == [("text", "fp16"), ("vision", "fp16")]
    text, vision = entries
    assert vision.machine.gpu == "NVIDIA Double 80GB"
    assert (vision.machine.compute_capability, vision.machine.driver) == ("9.0", "13.0")
    assert vision.machine.tensorrt.startswith(f"{surface[-2:]}.")
    assert len(vision.profiles) == 2
    assert len(text.profiles) == 2 * 3  # lengths 8, 16 and the longest, 32
    assert set(vision.products) == {"float16", "float32"}  # squeeze-excite and the projection stay float32
    assert vision.products["float16"] > vision.products["float32"]
    assert vision.parity.max_abs <= vision.limits.max_abs
    assert all(plan["hardware"] == "NONE" and plan["level"] == 3 and plan["limits"] == {} for plan in plans)


def test_contract_options_reach_the_builder(tiny_copy: Path) -> None:
    options = EngineOptions(5, 1 << 30, "ampere_plus", version_compatible=True, without_lean_runtime=True)
    with installed("tensorrt-11"):
        build(tiny_copy, replace(FP16, options=options))
        entry = engines_of(Bundle.open(tiny_copy))[0]
        plan = json.loads((tiny_copy / entry.file).read_text())
    assert (plan["level"], plan["limits"], plan["hardware"]) == (5, {"WORKSPACE": 1 << 30}, "AMPERE_PLUS")
    assert plan["host_code"] is True
    assert entry.options == options


def test_contract_engines_are_kept_until_something_changes(engine_copy: Path) -> None:
    with installed("tensorrt-11") as doubles:
        assert build(engine_copy, FP16) == [None, None]
        assert doubles.tensorrt.built == 0
        assert build(engine_copy, FP16, force=True) == ["--force"] * 2
        assert doubles.tensorrt.cached == 2
        assert build(engine_copy, replace(FP16, batches=(1, 2))) == ["changed: profiles"] * 2
        slower = replace(FP16, batches=(1, 2), options=EngineOptions(level=2))
        assert build(engine_copy, slower) == ["changed: options"] * 2
        doubles.cuda.module.__dict__["cudaGetDeviceProperties"] = _other_gpu(doubles)
        assert build(engine_copy, slower) == ["changed: GPU (NVIDIA Double 80GB → NVIDIA Other)"] * 2
        assert doubles.tensorrt.built == 8
        assert len(engines_of(Bundle.open(engine_copy))) == 6  # FP32 and FP16 of the one, FP16 of the other
    with installed("tensorrt-10"):
        (reason, _) = build(engine_copy, slower)
        assert reason is not None
        assert reason.startswith("changed: TensorRT (11.4.0.106 → 10.16.1.11)")


def _other_gpu(doubles: GpuDoubles) -> object:
    def properties(device: int) -> tuple[object, ...]:
        status, found = doubles.cuda.cudaGetDeviceProperties(device)
        found.name = b"NVIDIA Other"
        return status, found

    return properties


def test_contract_timings_of_another_gpu_are_not_taken(engine_copy: Path) -> None:
    with installed("tensorrt-11") as doubles:
        doubles.tensorrt.refuse_timings = True
        assert build(engine_copy, FP16, force=True) == ["--force"] * 2


def test_contract_an_fp16_engine_with_an_fp32_convolution_is_refused(tiny_copy: Path) -> None:
    graph = Bundle.open(tiny_copy).graph("vision", "fp16", "tensorrt")
    products = product_types(tiny_copy / graph.file)
    fallen = next(name for name, dtype in products.items() if dtype == "float16")
    with installed("tensorrt-11") as doubles:
        doubles.tensorrt.demoted = {fallen}
        with pytest.raises(PrecisionError, match=re.escape(fallen)):
            build(tiny_copy, FP16)
        assert list((tiny_copy / "engines").glob("*.plan")) == []
        assert list((tiny_copy / "engines").glob("*.building")) == []


def test_contract_an_engine_far_from_the_reference_is_refused(tiny_copy: Path) -> None:
    with installed("tensorrt-11") as doubles:
        doubles.tensorrt.scaled = 1.2
        with pytest.raises(ParityError) as caught:
            build(tiny_copy, FP16)
        assert caught.value.subject.startswith("engines/vision_fp16")
        assert caught.value.metric == "max_abs"
        assert list((tiny_copy / "engines").glob("*.plan")) == []
