"""What graphs compute in, counted in their files, against counts by other means; and what they may be called."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from align_exporter.graph.towers import TextTower
from align_reference.checkpoint import load_model
from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from align_runtime import Bundle, BundleError, ConfigurationError, PrecisionError
from align_runtime.precision import (
    MAX_COUNT,
    MIN_SHARE,
    GraphContent,
    check_precision,
    content_of,
    describe,
    percentage,
)
from support import checkpoints, onnx_models

# ── counting ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def macs_of(module: nn.Module, *inputs: torch.Tensor) -> int:
    """MACs of a call, counted by torch at every matrix product and convolution that it dispatches."""
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        module(*inputs)
    return counter.get_total_flops() // 2


def test_exported_graphs_count_what_torch_counts(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    bundle, model = Bundle.open(tiny_bundle), load_model(tiny_checkpoint)
    length = bundle.manifest.model.max_length
    tokens = torch.ones((1, length), dtype=torch.int64)
    images = torch.zeros((1, 3, *bundle.manifest.preprocessing.output_size))
    expected = {
        "vision": macs_of(model.vision_model, images),
        "text": macs_of(TextTower(model).eval(), tokens, tokens),
    }
    for graph in bundle.manifest.graphs:
        content = content_of(bundle.path(graph.file), length)
        assert content == graph.content
        assert content.macs == {"float32": expected[graph.tower]}
        loaded = onnx.load(bundle.path(graph.file), load_external_data=False).graph.initializer
        floats = [int(np.prod(held.dims)) for held in loaded if held.data_type == TensorProto.FLOAT]
        assert content.weights == {"float32": sum(floats)}


def test_text_macs_follow_the_length(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    tower = TextTower(load_model(tiny_checkpoint)).eval()
    for length in (2, 11):
        tokens = torch.ones((1, length), dtype=torch.int64)
        expected = {"float32": macs_of(tower, tokens, tokens)}
        for name in ("text_model", "text_model_cpu"):
            assert content_of(tiny_bundle / "onnx" / f"{name}.onnx", length).macs == expected


def convolutions(tower: nn.Module, images: torch.Tensor) -> list[tuple[nn.Conv2d, torch.Size, torch.Size]]:
    """Every convolution with the shapes of its input and output, in the order of the forward pass."""
    calls: list[tuple[nn.Conv2d, torch.Size, torch.Size]] = []

    def note(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        calls.append((module, inputs[0].shape, output.shape))

    for module in tower.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    tower(images)
    return calls


def test_published_size_has_the_macs_of_its_architecture(tmp_path: Path) -> None:
    """From shapes alone: the graph names external weights that are nowhere, and the reference is on the meta device."""
    with torch.device("meta"):
        tower = AlignModel(AlignConfig.from_dict(checkpoints.full_size_config())).vision_model.eval()
        images = torch.zeros(1, 3, 289, 289)
    nodes, values, weights = [], [], []
    for index, (module, before, after) in enumerate(convolutions(tower, images)):
        names = f"in{index}", f"weight{index}", f"out{index}"
        nodes.append(helper.make_node("Conv", names[:2], names[2:], group=module.groups))
        values.append(onnx_models.value(names[0], ["batch", *before[1:]]))
        values.append(onnx_models.value(names[2], ["batch", *after[1:]]))
        external = TensorProto(name=names[1], data_type=TensorProto.FLOAT, dims=module.weight.shape)
        external.data_location = TensorProto.EXTERNAL
        external.external_data.add(key="location", value="nowhere")
        weights.append(external)

    def counted(keep: Callable[[onnx.NodeProto, onnx.TensorProto], bool]) -> int:
        kept = [node for node, held in zip(nodes, weights, strict=True) if keep(node, held)]
        return content_of(onnx_models.write(tmp_path, onnx_models.model(kept, values, weights)), 64).macs["float32"]

    assert len(nodes) == 1 + 4 * 55 + 51  # four blocks at the beginning do not expand
    assert counted(lambda *_: True) == macs_of(tower, images) == pytest.approx(8.40e9, rel=1e-3)
    # Squeeze-excite is pointwise too: 0.01e9, on its single pixel.
    assert counted(lambda node, held: list(held.dims[2:]) == [1, 1]) == pytest.approx(7.94e9, rel=1e-3)
    assert counted(lambda node, held: node.attribute[0].i > 1) == pytest.approx(0.42e9, rel=1e-2)


def test_types_are_counted_apart(tmp_path: Path) -> None:
    content = content_of(onnx_models.write(tmp_path, onnx_models.half_model()), 7)
    assert content.macs == {"float16": 4 * 7 * 8 * 6 + 7 * 7 * 6, "float32": 6 * 5}
    assert content.weights == {"float16": 8 * 6 + 3, "float32": 5 * 6 + 5}
    assert list(content.macs) == sorted(content.macs)


QUANTIZED = """
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, 2, 5, 5] x, float[sequence, 4] t) => (float[batch, 3, 5, 5] z, int32[sequence, 6] p)
<float s = {0.1}, uint8 o = {3}, int8[3, 2, 1, 1] w = {1,2,3,4,5,6}, float[3] ws = {1,1,1}, int8[3] wz = {0,0,0},
 int32[3] b = {1,2,3}, float[3] bs = {1,1,1}, int32[3] bz = {0,0,0}, float[3, 3, 1, 1] v = {1,2,3,4,5,6,7,8,9},
 int8[4, 6] dense = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>
{
  xq = QuantizeLinear (x, s, o)
  xd = DequantizeLinear (xq, s, o)
  wd = DequantizeLinear <axis: int = 0> (w, ws, wz)
  bd = DequantizeLinear <axis: int = 0> (b, bs, bz)
  [int8] y = Conv (xd, wd, bd)
  [weights_only] yw = Conv (x, wd)
  [float] z = Conv (y, v)
  tq, ts, tz = DynamicQuantizeLinear (t)
  [integer] p = MatMulInteger (tq, dense, tz)
}
"""


def test_int8_is_what_both_operands_are(tmp_path: Path) -> None:
    """Dequantised on both sides, or multiplied as integers; weights alone in int8 are a way of storing them."""
    made = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(QUANTIZED))
    content = content_of(onnx_models.write(tmp_path, made), 7)
    assert content.macs == {"int8": 25 * 3 * 2 + 7 * 4 * 6, "float32": 25 * 3 * 2 + 25 * 3 * 3}
    # Zero points are no weights; the scales are.
    assert content.weights == {"int8": 6 + 24, "int32": 3, "float32": 1 + 3 + 3 + 9}


def changed(change: Callable[[onnx.ModelProto], Any]) -> onnx.ModelProto:
    made = onnx_models.half_model()
    change(made)
    return made


def drop(kind: str, name: str) -> Callable[[onnx.ModelProto], None]:
    def change(made: onnx.ModelProto) -> None:
        described = next(held for held in made.graph.value_info if held.name == name)
        if kind == "type":
            made.graph.value_info.remove(described)
        else:
            described.type.tensor_type.ClearField("shape")

    return change


def size(name: str, axis: int, **dimension: Any) -> Callable[[onnx.ModelProto], None]:
    def change(made: onnx.ModelProto) -> None:
        described = next(held for held in made.graph.value_info if held.name == name)
        described.type.tensor_type.shape.dim[axis].CopyFrom(onnx.TensorShapeProto.Dimension(**dimension))

    return change


def retype(name: str, dtype: int) -> Callable[[onnx.ModelProto], None]:
    def change(made: onnx.ModelProto) -> None:
        described = next(held for held in made.graph.value_info if held.name == name)
        described.type.tensor_type.elem_type = dtype

    return change


def add_node(*arguments: Any, **attributes: Any) -> Callable[[onnx.ModelProto], None]:
    return lambda made: made.graph.node.append(helper.make_node(*arguments, **attributes))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (retype("x", TensorProto.FLOAT), "MatMul 'dense' has operands of different types, float16 and float32"),
        (
            lambda made: made.graph.initializer[2].CopyFrom(onnx_models.weight("bias", [5], TensorProto.FLOAT16)),
            "Gemm 'projection' has operands of different types, float16 and float32",
        ),
        (add_node("MatMul", ["axes", "axes"], ["scores"], name="ints"), "MatMul 'ints' computes in int64"),
        (drop("type", "y"), "the type of 'y' is missing in the file"),
        (drop("type", "z"), "the type of 'z' is missing in the file"),
        (drop("shape", "y"), "the shape of 'y' is missing in the file"),
        (drop("shape", "z"), "the shape of 'z' is missing in the file"),
        (size("y", 2), "the shape of 'y' has the dimension '', neither a number nor a name"),
        (size("z", 2, dim_param="2*u1"), "the shape of 'z' has the dimension '2*u1', neither a number nor a name"),
        (add_node("MatMul", ["x"], ["y"], name="one"), "MatMul 'one' has 1 inputs and 1 outputs"),
        (add_node("Conv", ["x", "dense"], ["y"]), "Conv 'y' has a second operand of 2 dimensions"),
        (add_node("Einsum", ["x", "dense"], ["y"], name="hidden"), "Einsum 'hidden' is there, whose products"),
        (add_node("QLinearConv", ["x", "y"], ["q"]), "QLinearConv 'q' is there, whose products"),
        (add_node("DequantizeLinear", ["nowhere", "y"], ["q"]), "the type of 'nowhere' is missing in the file"),
        (add_node("MatMulInteger", ["x", "axes"], ["q"], name="mixed"), "MatMulInteger 'mixed' has operands of diff"),
        (add_node("MatMulInteger", ["axes", "axes"], ["q"], name="wide"), "MatMulInteger 'wide' computes in int64"),
        (add_node("Relu", ["x"], ["r"], domain="com.microsoft"), "Relu 'r' is there, whose products are not counted"),
        (
            lambda made: made.graph.initializer.append(TensorProto(name="odd", data_type=17, dims=[1])),
            "a constant has the element type 17, which is not known",
        ),
    ],
)
def test_what_cannot_be_counted_is_an_error(change: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=r"graph\.onnx cannot be checked: ") as caught:
        content_of(onnx_models.write(tmp_path, changed(change)), 7)
    assert message in str(caught.value)


def test_onnx_runtime_takes_no_graph_with_forged_types(tiny_bundle: Path) -> None:
    """Why types that the file gives can be relied on, once the graph was run."""
    made = onnx.load(tiny_bundle / "onnx" / "vision_model.onnx")
    convolution = next(node for node in made.graph.node if node.op_type == "Conv")
    retype(convolution.output[0], TensorProto.FLOAT16)(made)
    with pytest.raises(Exception, match="Type Error"):
        onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


def macs(**counts: int) -> GraphContent:
    return GraphContent(counts, {})


@pytest.mark.parametrize(
    ("precision", "content"),
    [
        ("fp32", macs(float32=10)),
        ("fp16", macs(float16=10)),
        ("fp16", macs(float16=5, float32=5)),
        ("int8", macs(int8=5, float32=3, float16=2)),
    ],
)
def test_names_that_are_true(precision: str, content: GraphContent) -> None:
    check_precision("graph.onnx", precision, content)


@pytest.mark.parametrize(
    ("precision", "content", "message"),
    [
        (
            "fp32",
            macs(float32=10**9, float16=1),
            "calls itself fp32 but computes 99.9 % of its MACs in float32; at least 100 %",
        ),
        ("fp32", macs(float64=10), "calls itself fp32 but computes 0 % of its MACs in float32"),
        (
            "fp16",
            macs(float16=31, float32=969),
            "calls itself fp16 but computes 3.1 % of its MACs in float16; at least 50 %",
        ),
        ("fp16", macs(float16=499_999, float32=500_001), "computes 50.0 % of its MACs in float16"),
        ("int8", macs(int8=49, float32=51), "calls itself int8 but computes 49.0 % of its MACs in int8; at least 50 %"),
        ("int8", macs(float16=9), "calls itself int8 but computes 0 % of its MACs in int8"),
        ("fp32", macs(int8=9), "calls itself fp32 but computes 0 % of its MACs in float32"),
        ("fp16", macs(), "calls itself fp16 but computes 0 % of its MACs"),
        ("fp32", macs(float32=0), "calls itself fp32 but computes 0 % of its MACs"),
        ("int4", macs(float32=10), "calls itself 'int4'; there are rules for fp32, fp16, int8 only"),
    ],
)
def test_names_that_are_false(precision: str, content: GraphContent, message: str) -> None:
    with pytest.raises(PrecisionError) as caught:
        check_precision("onnx/graph.onnx", precision, content)
    assert str(caught.value).startswith("onnx/graph.onnx calls itself ")
    assert message in str(caught.value)
    assert caught.value.exit_code == 1


def test_half_is_the_least_that_may_be_called_half() -> None:
    assert MIN_SHARE == 0.5


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [percentage(part, 10_000) for part in (0, 1, 314, 9_999, 10_000)] == [
        "0 %",
        "0.1 %",
        "3.1 %",
        "99.9 %",
        "100 %",
    ]
    assert describe({"float16": 31, "float32": 969}) == "float32 96.9 %, float16 3.1 %"
    assert describe({"float32": 5}) == "float32 100 %"
    assert describe({}) == "nothing"


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"macs": {}}, "here: the key 'weights' is missing"),
        ({"macs": [], "weights": {}}, "here: macs is [] (list); dict was expected"),
        ({"macs": {"float31": 1}, "weights": {}}, "here: macs: the type 'float31' is not known; known: float16"),
        ({"macs": {}, "weights": {"float32": -1}}, "here: weights: float32 is -1; a count was expected"),
        ({"macs": {"float32": MAX_COUNT}, "weights": {}}, "a count was expected"),
        ({"macs": {"float32": 1.5}, "weights": {}}, "here: macs: float32 is 1.5 (float); int was expected"),
        ({"macs": {"float32": True}, "weights": {}}, "int was expected"),
    ],
)
def test_counts_that_cannot_be(values: Any, message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        GraphContent.from_json(values, "here")
    assert message in str(caught.value)
