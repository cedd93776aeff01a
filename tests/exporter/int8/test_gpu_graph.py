"""``align-export --int8`` for TensorRT: the graphs and what the parity gate notices; no GPU is needed."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

import align_runtime
from align_calibration.quant_params import QuantParams
from align_exporter.fp16.convert import emulate_fp16
from align_exporter.graph.passes.order import CLEAN_UP, run_steps
from align_exporter.int8.build import FOR_TENSORRT, TEXT_OBSERVERS
from align_exporter.int8.mixed_precision import unit_macs, unit_of
from align_exporter.trt_lint import check_tensorrt, findings
from align_exporter.trt_lint.finding import is_quantized
from align_runtime import Bundle, ConfigurationError, ParityError, golden
from align_runtime.backends import open_runner
from align_runtime.commands.inspect import main as inspect
from align_runtime.commands.verify import main as verify
from align_runtime.graph_entry import Graph
from align_runtime.parity import Parity, compare

TOWERS = ("vision", "text")


@pytest.fixture(scope="module")
def bundle(tiny_int8_bundle: Path) -> Bundle:
    return Bundle.open(tiny_int8_bundle)


def graph_of(bundle: Bundle, tower: str) -> Graph:
    return bundle.graph(tower, "int8", "cuda")


# ── the graphs ──────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("tower", TOWERS)
def test_the_graph_is_in_the_bundle_with_the_contract_of_fp32(bundle: Bundle, tower: str) -> None:
    graph, single = graph_of(bundle, tower), bundle.graph(tower, "fp32", "cuda")
    assert (graph.file, graph.target, graph.exact_variant) == (f"onnx/{tower}_model_int8.onnx", "gpu", "int8")
    assert (graph.variant, graph.data, graph.islands) == ("int8", None, ())
    assert (graph.inputs, graph.outputs) == (single.inputs, single.outputs)
    assert graph.quantization is not None
    assert graph.quantization.speedup is None
    assert graph.quantization.samples == (128 if tower == "vision" else len(golden.read(bundle).texts))


def test_every_device_gets_its_graph_and_exact_names_select_one_graph(bundle: Bundle) -> None:
    for tower in TOWERS:
        for device, target in (("cpu", "cpu"), ("cuda", "gpu"), ("tensorrt", "gpu")):
            assert bundle.graph(tower, "int8", device).target == target
        assert bundle.graph(tower, "int8_cpu", "cpu").target == "cpu"
        with pytest.raises(ConfigurationError, match=r"'int8_cpu' is not in .* on cuda; it has: fp32, int8"):
            bundle.graph(tower, "int8_cpu", "cuda")
    with align_runtime.load(bundle.folder, precision="int8", device="cpu") as model:
        assert {tower.graph.target for tower in (model._parts.images.tower, model._parts.texts.tower)} == {"cpu"}


@pytest.mark.parametrize(("tower", "least"), [("vision", 0.85), ("text", 0.94)])
def test_shares_of_int8(bundle: Bundle, tower: str, least: float) -> None:
    """Float are the convolutions of squeeze-excite (0.9 % of align-tiny) and the products in attention (5.5 %)."""
    macs = graph_of(bundle, tower).content.macs
    assert macs["int8"] > least * sum(macs.values())
    assert macs.get("float32", 0) < 0.01 * sum(macs.values())  # gates in blocks without a residual
    assert sum(macs.values()) == sum(bundle.graph(tower, "fp32", "cuda").content.macs.values())


@pytest.mark.parametrize("tower", TOWERS)
def test_the_graph_is_quantized_and_passes_the_tensorrt_linter(bundle: Bundle, tower: str) -> None:
    file = bundle.path(graph_of(bundle, tower).file)
    check_tensorrt(file)
    graph = onnx.load(file).graph
    operators = Counter(node.op_type for node in graph.node)
    single = Counter(node.op_type for node in onnx.load(bundle.folder / "onnx" / f"{tower}_model.onnx").graph.node)
    products = "Conv" if tower == "vision" else "MatMul"
    assert operators[products] == single[products]
    assert operators["QuantizeLinear"] > 10
    # Every quantized activation is dequantized, and every quantized weight.
    assert operators["DequantizeLinear"] > operators["QuantizeLinear"] + 10


def test_the_linter_passes_whichever_unit_stays_float(bundle: Bundle) -> None:
    """The first block of a stage ends with an unquantized convolution, which is the shortcut of the next block."""
    model = ir.load(bundle.folder / "onnx" / "vision_model.onnx")
    scales = dict.fromkeys(FOR_TENSORRT["vision"].tensors(model.graph), QuantParams(1.0, 0, "int8"))
    parts = list(unit_macs(FOR_TENSORRT["vision"].operators(model.graph)))
    assert len(parts) == 18
    for part in parts:
        quantized = FOR_TENSORRT["vision"].applied(model, scales, [part])
        run_steps(quantized, CLEAN_UP)
        found = [finding for finding in findings(quantized) if finding.rule != "known types"]
        assert found == [], part
        floats = [node for node in quantized.graph if node.op_type == "Conv" and unit_of(node) == part]
        assert not any(is_quantized(node.inputs[index]) for node in floats for index in (0, 1))


@pytest.mark.parametrize("tower", TOWERS)
def test_files_are_small(bundle: Bundle, tower: str) -> None:
    single = bundle.manifest.graph_bytes(bundle.graph(tower, "fp32", "cuda"))
    assert bundle.manifest.graph_bytes(graph_of(bundle, tower)) < 0.45 * single


def test_verify_and_inspect_name_what_was_not_measured(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([str(bundle.folder), "--quiet"]) == 0
    printed = capsys.readouterr().out
    assert "Graphs for GPUs were run on cpu" in printed
    assert "made for cpu" not in printed
    assert inspect([str(bundle.folder)]) == 0
    printed = capsys.readouterr().out
    assert "onnx/vision_model_int8.onnx: activation ranges by the observer '" in printed
    assert "on 128 images; speed not measured" in printed
    assert "captions; speed not measured" in printed


@pytest.mark.parametrize("tower", TOWERS)
def test_any_session_computes_what_ours_computes(bundle: Bundle, tower: str) -> None:
    """ONNX Runtime's WeightBiasQuantization loses FP16 biases before a QuantizeLinear; only our runner turns it off."""
    file, samples = bundle.path(graph_of(bundle, tower).file), golden.read(bundle)
    feed = {spec.name: getattr(samples, spec.name) for spec in graph_of(bundle, tower).inputs}
    (plain,) = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, feed)
    np.testing.assert_array_equal(plain, open_runner(file, "cpu", None).run(feed))


def test_the_report_says_so_too(bundle: Bundle) -> None:
    records = json.loads((bundle.folder / "report.json").read_text())["graphs"]
    found = {record["graph"]["file"]: record for record in records}
    assert [trial["observer"] for trial in found["onnx/text_model_int8.onnx"]["observers"]] == list(TEXT_OBSERVERS)
    assert len(found["onnx/vision_model_int8.onnx"]["observers"]) > 1
    for tower in TOWERS:
        record = found[f"onnx/{tower}_model_int8.onnx"]
        assert record["speed"] == []
        assert record["casts"] > 0
    page = (bundle.folder / "report.html").read_text()
    assert page.count("Speed was not measured") == len(TOWERS)
    assert "calibration captions" in page


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def parity(bundle: Bundle, tower: str, model: ir.Model, folder: Path) -> Parity:
    """Parity as the gate measures it, with every FP16 activation rounded."""
    ir.save(emulate_fp16(model), folder / "rounded.onnx")
    runner, answers = open_runner(folder / "rounded.onnx", "cpu", None), golden.read(bundle)
    if tower == "text":
        inputs = {"input_ids": answers.input_ids, "attention_mask": answers.attention_mask}
        return compare(runner.run(inputs), answers.text_embeds, answers.texts)
    names = [image.name for image in answers.images]
    return compare(runner.run({"pixels": answers.pixels}), answers.image_embeds, names)


@pytest.mark.parametrize(
    ("tower", "initializer", "factor"),
    [
        ("vision", "Add/scale", 0.25),  # the pixels
        ("vision", "vision_model.encoder.blocks.2.expansion/Mul/scale", 8.0),
        ("vision", "vision_model.encoder.blocks.2.expansion.expand_conv/Conv/weight/scale", 2.0),
        ("vision", "vision_model.encoder.blocks.9.depthwise_conv.depthwise_conv/Conv/weight/scale", 2.0),
        ("text", "text_model.encoder.layer.0.output.LayerNorm/LayerNormalization/scale", 0.125),
        ("text", "text_model.encoder.layer.1.intermediate/Gelu/scale", 16.0),
        ("text", "text_model.encoder.layer.1.intermediate.dense/MatMul/weight/scale", 1.5),
    ],
)
def test_a_wrong_scale_fails(bundle: Bundle, tower: str, initializer: str, factor: float, tmp_path: Path) -> None:
    graph = graph_of(bundle, tower)
    model = ir.load(bundle.path(graph.file))
    parity(bundle, tower, model, tmp_path).check(tower, graph.limits)
    names = (initializer, f"{initializer}/float16")  # in both float types where it is needed in both
    assert any(name in model.graph.initializers for name in names)
    for name in names:
        value = model.graph.initializers.get(name)
        if value is not None and value.const_value is not None:
            numbers = value.const_value.numpy()
            value.const_value = ir.tensor((numbers * factor).astype(numbers.dtype), name=name)
    assert findings(model) == []  # the linter does not check the values of scales
    with pytest.raises(ParityError):
        parity(bundle, tower, model, tmp_path).check(tower, graph.limits)


def test_the_gate_also_measured_with_emulated_rounding(bundle: Bundle) -> None:
    """Every sample counts twice, as it is and emulated: ONNX Runtime on a CPU hides overflow in FP16."""
    assert graph_of(bundle, "vision").parity.rows == 2 * bundle.graph("vision", "int8", "cpu").parity.rows
