"""What graphs compute and store, counted by `content_of`, against counts by other means; and the gate of precision."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from align_exporter.command import main
from align_exporter.graph.content import ELEMENT_TYPES, checked_content, content_of, product_types
from align_exporter.graph.towers import TextTower
from align_reference.checkpoint import load_model
from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from align_runtime import BuildError, Bundle, PrecisionError
from align_runtime.precision import RULES
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
    """Dequantized on both sides, or multiplied as integers; weights alone in int8 are only stored so."""
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


def add_flat_convolution(made: onnx.ModelProto) -> None:
    made.graph.node.append(helper.make_node("Conv", ["x", "dense"], ["flat"]))
    made.graph.value_info.append(onnx_models.value("flat", ["batch", 4], TensorProto.FLOAT16))


def hide(attribute: onnx.AttributeProto) -> Callable[[onnx.ModelProto], None]:
    return lambda made: made.graph.node[0].attribute.append(attribute)


def subgraph() -> onnx.GraphProto:
    constant = helper.make_node("Constant", [], ["c"], value=onnx_models.weight("", [1]))
    return helper.make_graph([constant], "branch", [], [onnx_models.value("c", [1])])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (retype("x", TensorProto.FLOAT), "MatMul 'dense' has operands of different types, float16 and float32"),
        (
            lambda made: made.graph.initializer[2].CopyFrom(onnx_models.weight("bias", [5], TensorProto.FLOAT16)),
            "Gemm 'projection' has operands of different types, float16 and float32",
        ),
        (add_node("MatMul", ["axes", "axes"], ["q"], name="ints"), "MatMul 'ints' computes in int64"),
        (drop("type", "y"), "the type of 'y'"),
        (drop("type", "z"), "the type of 'z'"),
        (drop("shape", "y"), "the shape of 'y'"),
        (drop("shape", "z"), "the shape of 'z'"),
        (size("y", 2), "the shape of 'y' has the dimension ''"),
        (size("z", 2, dim_param="2*u1"), "the shape of 'z' has the dimension '2*u1'"),
        (add_node("MatMul", ["x"], ["q"], name="one"), "MatMul 'one' has 1 inputs and 1 outputs"),
        (add_flat_convolution, "Conv 'flat' has a second operand of 2 dimensions"),
        (add_node("Einsum", ["x", "dense"], ["q"], name="hidden"), "Einsum 'hidden'"),
        (add_node("QLinearConv", ["x", "y"], ["q"]), "QLinearConv 'q'"),
        (add_node("DequantizeLinear", ["nowhere", "y"], ["q"]), "the type of 'nowhere'"),
        (add_node("MatMulInteger", ["x", "axes"], ["q"], name="mixed"), "MatMulInteger 'mixed' has operands of diff"),
        (add_node("MatMulInteger", ["axes", "axes"], ["q"], name="wide"), "MatMulInteger 'wide' computes in int64"),
        (add_node("Relu", ["x"], ["r"], domain="com.microsoft"), "Relu 'r'"),
        (
            lambda made: made.graph.initializer.append(TensorProto(name="odd", data_type=17, dims=[1], raw_data=b"0")),
            "a constant has the element type FLOAT8E4M3FN",
        ),
        (hide(helper.make_attribute("then_branch", subgraph())), "'then_branch'"),
        (lambda made: made.functions.add(name="hidden", domain="local"), "functions"),
        (lambda made: made.graph.ClearField("node"), "no nodes"),
    ],
)
def test_what_cannot_be_counted_is_an_error(change: Any, reason: str, tmp_path: Path) -> None:
    """As a file, which is named, and as a model in memory."""
    made = changed(change)
    with pytest.raises(BuildError, match=r"^graph\.onnx ") as caught:
        content_of(onnx_models.write(tmp_path, made), 7)
    assert reason in str(caught.value)
    with pytest.raises(BuildError) as caught:
        content_of(ir.from_proto(made), 7)
    assert reason in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"hello world, this is not a graph", b"\x80" * 20])
def test_a_file_that_is_not_a_graph(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "graph.onnx"
    file.write_bytes(content)
    for count in (lambda: content_of(file, 7), lambda: product_types(file)):
        with pytest.raises(BuildError, match=r"^graph\.onnx "):
            count()


def test_a_missing_file_and_a_folder(tmp_path: Path) -> None:
    for file in (tmp_path / "nothing.onnx", tmp_path):
        with pytest.raises(BuildError, match="cannot be read"):
            content_of(file, 7)


def test_every_plain_element_type_has_numpys_name() -> None:
    for dtype, name in ELEMENT_TYPES.items():
        if dtype != ir.DataType.STRING:  # numpy's is that of any object
            assert dtype.numpy().name == name


def test_a_model_in_memory_counts_as_its_file_does(tmp_path: Path) -> None:
    file = onnx_models.write(tmp_path, onnx_models.half_model())
    model = ir.load(file)
    assert content_of(model, 7) == content_of(file, 7)
    assert product_types(model) == product_types(file)


def test_types_of_products_by_name(tmp_path: Path) -> None:
    file = onnx_models.write(tmp_path, onnx_models.half_model())
    assert product_types(file) == {"dense": "float16", "scores": "float16", "projection": "float32"}
    made = onnx.shape_inference.infer_shapes(onnx.parser.parse_model(QUANTIZED))
    types = product_types(onnx_models.write(tmp_path, made))
    assert types == {"int8": "int8", "weights_only": "float32", "float": "float32", "integer": "int8"}
    for change, word in ((drop("type", "y"), "'y'"), (retype("x", TensorProto.FLOAT), "'dense'")):
        with pytest.raises(BuildError, match=word):
            product_types(onnx_models.write(tmp_path, changed(change)))


def test_onnx_runtime_takes_no_graph_with_forged_types(tiny_bundle: Path) -> None:
    """Why types that the file gives can be relied on, once the graph was run."""
    made = onnx.load(tiny_bundle / "onnx" / "vision_model.onnx")
    convolution = next(node for node in made.graph.node if node.op_type == "Conv")
    retype(convolution.output[0], TensorProto.FLOAT16)(made)
    with pytest.raises(Exception, match="Type Error"):
        onnxruntime.InferenceSession(made.SerializeToString(), providers=["CPUExecutionProvider"])


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_content_of_what_was_written(tmp_path: Path) -> None:
    file = onnx_models.write(tmp_path, onnx_models.half_model())
    assert checked_content(tmp_path, file.name, "fp16", 16) == content_of(file, 16)


def test_a_graph_in_another_precision_is_not_built(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, onnx_models.half_model())
    with pytest.raises(PrecisionError, match=r"graph\.onnx is labelled fp32, .* 0\.6 % "):
        checked_content(tmp_path, "graph.onnx", "fp32", 16)


def test_a_graph_without_shapes_is_not_built(tmp_path: Path) -> None:
    made = onnx_models.half_model()
    del made.graph.value_info[:]
    onnx_models.write(tmp_path, made)
    with pytest.raises(BuildError, match="type of 'x'"):
        checked_content(tmp_path, "graph.onnx", "fp16", 16)


def test_an_export_that_breaks_the_rule_leaves_no_bundle(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RULES, "fp32", ("float64", 1.0))
    assert main([str(small_checkpoint), "-o", str(tmp_path / "bundle"), "--quiet"]) == 1
    assert "onnx/vision_model.onnx is labelled fp32, but only 0 % of its MACs are in float64" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
