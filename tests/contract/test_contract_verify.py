"""Contract: align-verify and align-bench on TensorRT take every graph that has an engine, and tell which have none."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from align_bench.measure import measure
from align_bench.plan import Plan
from align_bench.timing import Effort
from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime.bundle import Bundle
from align_runtime.commands import verify
from align_runtime.progress import Progress
from support.gpu_doubles import installed

QUIET = Progress(quiet=True)


def test_contract_verify_tells_which_graphs_have_no_engine(tiny_copy: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = [str(tiny_copy), "--device", "tensorrt", "--json"]
    with installed("tensorrt-11"):
        build_engines(
            tiny_copy, EngineRequest(variants=("fp16",), batches=(4,)), open_toolkits(EngineRequest()), False, QUIET
        )
        assert verify.main(command) == 0
        result = json.loads(capsys.readouterr().out)
        assert (result["ok"], result["complete"]) == (True, False)
        assert [check["variant"] for check in result["checks"]] == ["fp16", "fp16"]
        reasons = {entry["file"]: entry["reason"] for entry in result["not_checked"]}
        assert set(reasons) == {"onnx/vision_model.onnx", "onnx/text_model.onnx", "onnx/text_model_cpu.onnx"}
        assert "made for CPUs" in reasons["onnx/text_model_cpu.onnx"]
        assert "engine" in reasons["onnx/vision_model.onnx"]
        assert verify.main(command[:-1]) == 0
        assert "2 of 5 graphs checked on tensorrt: passed" in capsys.readouterr().out
        assert verify.main([*command, "--precision", "fp32"]) == 2  # what was asked for is not left out
        assert json.loads(capsys.readouterr().out)["error"]["type"] == "BackendUnavailableError"
        shutil.rmtree(tiny_copy / "engines")
        assert verify.main(command) == 2  # nothing was checked
        assert json.loads(capsys.readouterr().out)["error"]["type"] == "BackendUnavailableError"


def test_contract_bench_measures_int8_on_a_gpu(tiny_int8_bundle: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_int8_bundle, tmp_path / "bundle"))
    for device in ("cuda", "tensorrt"):
        assert Plan(devices=(device,)).variants(Bundle.open(folder), device) == ("fp32", "int8")
    plan = Plan(
        devices=("tensorrt",), batches=(1,), lengths=(8,), effort=Effort(7, 1), clients=(), rates=(), starts=0
    )  # fmt: skip
    with installed("tensorrt-11"):
        build_engines(folder, EngineRequest(batches=(1,)), open_toolkits(EngineRequest()), False, QUIET)
        record = measure(Bundle.open(folder), plan, QUIET)
    assert [(timing.case.precision, timing.case.tower) for timing in record.timings] == [
        ("fp32", "vision"), ("fp32", "text"), ("int8", "vision"), ("int8", "text"),
    ]  # fmt: skip
    assert all("host to device" in timing.stages for timing in record.timings)
