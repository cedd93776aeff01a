"""ONNX Runtimes that are too old: the error says so, and does not blame the graph."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

import align_runtime
from align_exporter.export_options import ExportOptions
from align_exporter.freshness import provenance
from align_exporter.int8.speed import check_fused
from align_exporter.pipeline import build_bundle
from align_reference.source import resolve
from align_runtime.commands import verify
from align_runtime.devices import resolve_device
from align_runtime.errors import BackendUnavailableError, BuildError
from align_runtime.onnxruntime_import import LOWEST, NEEDED, check_onnxruntime
from align_runtime.progress import Progress
from align_runtime.versions import version as parsed

OLD = (
    "onnxruntime 1.29.1 is too old to compute int8 graphs for GPUs on a CPU, 1.30 or newer is needed (the graph is not "
    "at fault); upgrade it: pip install -U 'onnxruntime>=1.30'"
)


def pretend(monkeypatch: pytest.MonkeyPatch, installed: str) -> None:
    monkeypatch.setattr(onnxruntime, "__version__", installed)


@pytest.mark.parametrize("version", ["1.9.0", "1.24.1", "0.30"])
def test_a_version_that_is_too_old_for_everything(
    tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> None:
    pretend(monkeypatch, version)
    with pytest.raises(BackendUnavailableError) as caught:
        align_runtime.load(tiny_bundle)
    assert str(caught.value) == (
        f"onnxruntime {version} is too old, 1.24.2 or newer is needed; upgrade it: pip install -U 'align-onnx[cpu]'"
    )
    assert resolve_device("auto") == "cpu"  # whose error says what is wrong


@pytest.mark.parametrize("version", ["1.24.2", "1.24.2.dev20260101", "1.24.2+cu130", "1.100", "2.0.0"])
def test_versions_that_are_new_enough(tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    pretend(monkeypatch, version)
    with align_runtime.load(tiny_bundle, towers=("text",)) as model:
        assert model.embed_texts(["a cat"]).shape[0] == 1


def test_graphs_that_need_a_newer_one(monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, "1.29.1")
    for variant, target in (("fp32", "any"), ("fp16", "any"), ("int8", "cpu")):
        check_onnxruntime(variant, target)
    with pytest.raises(BackendUnavailableError) as caught:
        check_onnxruntime("int8", "gpu")
    assert str(caught.value) == OLD
    pretend(monkeypatch, "1.30.0")
    check_onnxruntime("int8", "gpu")


def test_verify_leaves_out_what_the_installed_version_computes_wrong(
    tiny_int8_bundle: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pretend(monkeypatch, "1.29.1")
    assert verify.main([str(tiny_int8_bundle), "--quiet"]) == 0
    printed = capsys.readouterr().out
    for tower in ("vision", "text"):
        assert f"not checked: onnx/{tower}_model_int8.onnx: {OLD}" in printed
    assert "5 of 7 graphs checked on cpu: passed" in printed
    assert verify.main([str(tiny_int8_bundle), "--quiet", "--precision", "int8"]) == 2  # asked for
    assert OLD in capsys.readouterr().err


def test_an_export_of_such_graphs_ends_before_it_begins(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretend(monkeypatch, "1.29.1")
    source, both = resolve(str(tiny_checkpoint)), ExportOptions(precisions=("int8",))
    with pytest.raises(BackendUnavailableError, match=re.escape(OLD)):
        build_bundle(source, provenance(source, both), tmp_path / "bundle", both, Progress(quiet=True))
    assert not list(tmp_path.iterdir())
    for row in ExportOptions(precisions=("fp16", "int8"), int8_device="cpu").variants:
        check_onnxruntime(row.name, row.target)


def quantizer(file: Path) -> Path:
    """y = QuantizeLinear(x) with a scale of 1, in FP16."""
    ends = [
        helper.make_tensor_value_info("x", TensorProto.FLOAT16, ["n"]),
        helper.make_tensor_value_info("y", TensorProto.INT8, ["n"]),
    ]
    constants = [helper.make_tensor("scale", TensorProto.FLOAT16, [], [1.0]), helper.make_tensor("zero", 3, [], [0])]
    node = helper.make_node("QuantizeLinear", ["x", "scale", "zero"], ["y"])
    graph = helper.make_graph([node], "graph", ends[:1], ends[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), file)
    return file


def test_the_reason_for_the_bound_holds_here(tmp_path: Path) -> None:
    """Before 1.30 the result is 1, -1 and 2."""
    session = onnxruntime.InferenceSession(str(quantizer(tmp_path / "graph.onnx")), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.array([1.75, -1.75, 2.25], dtype=np.float16)})
    assert found.tolist() == [2, -2, 2]


@pytest.mark.parametrize(
    ("version", "reason"),
    [
        ("1.32.0", "the graph is at fault, not this version, which is tested; please report it"),
        ("1.33.0", "this version is not tested; install one from 1.24.2 to 1.32.0: pip install 'onnxruntime==1.32.0'"),
    ],
)
def test_kernels_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, reason: str) -> None:
    pretend(monkeypatch, version)
    with pytest.raises(BuildError) as caught:
        check_fused(quantizer(tmp_path / "graph.onnx"), {"Conv": 1})
    assert str(caught.value) == f"graph.onnx: onnxruntime {version} computes 0 of 1 quantized Conv in INT8; {reason}"


def test_the_package_requires_them() -> None:
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    assert extras["cpu"] == [f"onnxruntime>={LOWEST}"]
    newest = max(NEEDED.values(), key=parsed)
    assert f"onnxruntime>={newest}" in extras["export"]  # it verifies every graph that it can write
