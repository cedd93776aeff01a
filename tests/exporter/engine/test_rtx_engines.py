"""Engines that TensorRT for RTX really builds, on this CPU: every variant of both towers, and what is refused."""

from __future__ import annotations

import ctypes
import hashlib
import re
import shutil
from collections import Counter
from pathlib import Path

import onnx_ir as ir
import pytest

import align_runtime
from align_exporter.engine.build import build_engines
from align_exporter.engine.builder import parse_graph
from align_exporter.engine.network import check_network
from align_exporter.engine.request import EngineOutcome, EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_exporter.graph.content import product_types
from align_runtime.backends.tensorrt.libraries import rtx
from align_runtime.backends.tensorrt.log import tensorrt_log
from align_runtime.backends.tensorrt.rtx import check_validity
from align_runtime.bundle import Bundle
from align_runtime.commands import inspect
from align_runtime.engine_choice import choose_engine
from align_runtime.engine_targets import TENSORRT, Machine, RtxTarget
from align_runtime.engines import engines_of, read_plan
from align_runtime.errors import BackendUnavailableError, BuildError, BundleError, PrecisionError
from align_runtime.progress import Progress
from support.lint_faults import Fault, asymmetric, change_operator, mixed_sum, quantized
from support.rtx import rtx_request, toolkit


def build(folder: Path, request: EngineRequest) -> list[EngineOutcome]:
    return build_engines(folder, request, open_toolkits(request), False, Progress(quiet=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fixture", "variants", "capabilities", "count"),
    [
        ("tiny_fp16_bundle", ("fp32", "fp16"), ("8.6", "8.9", "12.0"), 4),
        ("tiny_fp16_bundle", ("fp16",), ("7.5", "8.0"), 4),  # an engine for Turing, and another one
        ("tiny_int8_bundle", ("int8",), ("7.5", "8.6", "8.9", "12.0", "12.1"), 4),
    ],
    ids=["floats", "fp16, with Turing", "int8, with Turing"],
)
def test_every_variant_of_both_towers_is_built(
    fixture: str,
    variants: tuple[str, ...],
    capabilities: tuple[str, ...],
    count: int,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = Path(shutil.copytree(request.getfixturevalue(fixture), tmp_path / "bundle"))
    outcomes = build(folder, rtx_request(*variants, capabilities=capabilities))
    assert len(outcomes) == count
    bundle = Bundle.open(folder)
    assert sorted(engines_of(bundle), key=lambda entry: entry.file) == sorted(
        (outcome.entry for outcome in outcomes), key=lambda entry: entry.file
    )
    for entry in engines_of(bundle):
        graph = bundle.graph(entry.tower, entry.variant, "tensorrt")
        assert hashlib.sha256(read_plan(bundle, entry)).hexdigest() == entry.sha256
        assert entry.source == {name: bundle.manifest.files[name].sha256 for name in graph.files}
        assert entry.products == Counter(product_types(folder / graph.file).values())
        assert (entry.runtime, entry.parity, len(entry.profiles)) == ("rtx", None, 3)
        assert isinstance(entry.machine, RtxTarget)
        assert entry.machine.compute_capabilities in {("7.5",), tuple(each for each in capabilities if each != "7.5")}
    assert inspect.main([str(folder)]) == 0
    printed = capsys.readouterr().out
    assert printed.count("by TensorRT for RTX") == count
    assert "built for compute capability 8." in printed


@pytest.mark.slow
def test_a_profile_for_each_shape(tiny_fp16_bundle: Path, tmp_path: Path) -> None:
    """Two batches and two lengths are four profiles of the text tower, and its engine holds the kernels four times."""
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))
    shapes = EngineRequest(("fp16",), (1, 4), (8, 32), runtime="rtx", capabilities=("8.9",))
    ranges = rtx_request("fp16", capabilities=("8.6",))
    for outcome, ranged in zip(build(folder, shapes), build(folder, ranges), strict=True):
        assert len(outcome.entry.profiles) == (4 if outcome.entry.tower == "text" else 2)
        assert outcome.entry.bytes > 1.5 * ranged.entry.bytes


def test_an_engine_is_for_rtx_alone(tiny_fp16_bundle: Path, tmp_path: Path) -> None:
    """TensorRT does not take an engine of TensorRT for RTX for its own."""
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))
    (text, _) = reversed(build(folder, rtx_request("fp16")))
    bundle = Bundle.open(folder)
    here = Machine(gpu="NVIDIA L4", compute_capability="8.9", driver="13.0", tensorrt="11.4.0.106")
    assert text.entry.file == f"engines/text_fp16.rtx-sm86-sm89-sm120.{text.entry.machine.tensorrt}.plan"
    with pytest.raises(BackendUnavailableError, match="has no TensorRT engine of the text tower"):
        choose_engine(bundle, bundle.graph("text", "fp16", "tensorrt"), here, TENSORRT)


def test_without_a_gpu_an_engine_does_not_load(tiny_fp16_bundle: Path, tmp_path: Path) -> None:
    """The real library and the real CUDA runtime, up to what they need a GPU for."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        pass
    else:
        pytest.skip("this machine has a driver")
    folder = Path(shutil.copytree(tiny_fp16_bundle, tmp_path / "bundle"))
    (vision, _) = build(folder, rtx_request("fp16"))
    with pytest.raises(BackendUnavailableError, match="no NVIDIA GPU can be used here.*check nvidia-smi"):
        align_runtime.load(folder, precision="fp16", device="tensorrt-rtx")
    plan = read_plan(Bundle.open(folder), vision.entry)
    assert rtx.Runtime(tensorrt_log(rtx)).engine_header_size == 64
    here = Machine(gpu="NVIDIA L4", compute_capability="8.9", driver="13.0", tensorrt=rtx.__version__)
    with pytest.raises(BackendUnavailableError, match="Error reading CUDA GPU properties"):  # the header is right
        check_validity(plan, vision.entry, here)
    with pytest.raises(BundleError, match="not an engine that this version reads"):
        check_validity(b"x" * 64 + plan, vision.entry, here)


# What must not be built. The linter would refuse these graphs too; here the real parser does.
REFUSED = [
    (asymmetric, "QuantizeLinear 's/quantized'", "Non-zero zero point is not supported"),
    (change_operator("turn", "StringNormalizer"), "StringNormalizer 'turn'", "not supported"),
    (mixed_sum, "Add 'residual'", "must have same input types"),
]


@pytest.mark.parametrize(("plant", "operator", "reason"), REFUSED)
def test_a_planted_fault_is_refused_with_its_operator(
    plant: Fault.plant, operator: str, reason: str, tmp_path: Path
) -> None:
    model = quantized()
    plant(model)
    ir.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BuildError) as caught:
        parse_graph(toolkit(), tmp_path / "graph.onnx")
    message = str(caught.value)
    assert operator in message
    assert reason in message
    assert not re.search(r"cudaError|/_src/", message)  # about its own source, and a driver that nothing needs


@pytest.mark.parametrize("wrong", ["float32", "int8"])
def test_a_network_of_other_types_is_refused(wrong: str, tmp_path: Path) -> None:
    ir.save(quantized(), tmp_path / "graph.onnx")
    parsed = parse_graph(toolkit(), tmp_path / "graph.onnx")
    expected = product_types(tmp_path / "graph.onnx")
    assert check_network("an engine", parsed.network, expected) == Counter(expected.values())
    assert expected["scores"] == "float16"
    with pytest.raises(PrecisionError, match=f"1 of {len(expected)} .*'scores': expected {wrong}, got float16"):
        check_network("an engine", parsed.network, {**expected, "scores": wrong})
    with pytest.raises(PrecisionError, match="'gone': expected int8, got no such layer"):
        check_network("an engine", parsed.network, {**expected, "gone": "int8"})
