"""The exported FP32 graphs of align-tiny, and the checks that refuse other graphs."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from align_exporter.command import main
from align_exporter.export_options import OPSETS
from align_exporter.graph.checks import check_file, check_operators
from align_exporter.graph.specs import text_contract, vision_contract
from align_reference.checkpoint import load_model
from align_runtime import BuildError, Bundle

GRAPHS = ("vision_model", "text_model", "text_model_cpu")


def graph(bundle: Path, name: str) -> onnx.ModelProto:
    return onnx.load(bundle / "onnx" / f"{name}.onnx")


def test_graph_contract(tiny_bundle: Path) -> None:
    def describe(value: onnx.ValueInfoProto) -> tuple[str, int, list[int | str]]:
        tensor = value.type.tensor_type
        return value.name, tensor.elem_type, [size.dim_param or size.dim_value for size in tensor.shape.dim]

    dim = Bundle.open(tiny_bundle).manifest.model.embedding_dim
    height, width = Bundle.open(tiny_bundle).manifest.preprocessing.output_size
    vision, text, cpu = (graph(tiny_bundle, name).graph for name in GRAPHS)
    kind = onnx.TensorProto
    assert [describe(value) for value in vision.input] == [("pixels", kind.UINT8, ["batch", height, width, 3])]
    assert [describe(value) for value in vision.output] == [("image_embeds", kind.FLOAT, ["batch", dim])]
    assert [describe(value) for value in text.input] == [
        ("input_ids", kind.INT64, ["batch", "sequence"]),
        ("attention_mask", kind.INT64, ["batch", "sequence"]),
    ]
    assert [describe(value) for value in text.output] == [("text_embeds", kind.FLOAT, ["batch", dim])]
    assert (cpu.input, cpu.output) == (text.input, text.output)


def test_everything_that_can_be_folded_is_folded(tiny_bundle: Path) -> None:
    operators = Counter(node.op_type for node in graph(tiny_bundle, "vision_model").graph.node)
    for absent in ("BatchNormalization", "Pad", "AveragePool", "ReduceMean", "Identity", "Constant"):
        assert operators[absent] == 0
    assert operators["GlobalAveragePool"] >= 17
    # The lookups of words and positions; the token type is folded into the positions. A graph that counts positions
    # with a Range has a node on the CPU, and then ONNX Runtime captures no CUDA graph of it.
    for name, lookups in (("text_model", ["Gather", "Slice"]), ("text_model_cpu", ["Gather", "Gather"])):
        text = graph(tiny_bundle, name).graph
        assert not [tensor.name for tensor in text.initializer if "pooler" in tensor.name]
        assert not {"Tanh", "Expand", "Identity", "Constant"} & {node.op_type for node in text.node}
        tables = {tensor.name for tensor in text.initializer if "embeddings.weight" in tensor.name}
        assert sorted(node.op_type for node in text.node if node.input[0] in tables) == lookups
        assert name == "text_model_cpu" or "Range" not in {node.op_type for node in text.node}


def test_every_initializer_is_read(tiny_bundle: Path) -> None:
    for name in GRAPHS:
        model = graph(tiny_bundle, name).graph
        assert {tensor.name for tensor in model.initializer} <= {name for node in model.node for name in node.input}


def test_the_last_text_layer_computes_one_row_per_text(tiny_bundle: Path) -> None:
    text = onnx.shape_inference.infer_shapes(graph(tiny_bundle, "text_model"), data_prop=True).graph
    shapes = {value.name: value.type.tensor_type.shape.dim for value in text.value_info}
    softmaxes = [node for node in text.node if node.op_type == "Softmax"]
    assert len(softmaxes) >= 4
    assert shapes[softmaxes[-1].output[0]][2].dim_value == 1
    assert all(shapes[node.output[0]][2].dim_value != 1 for node in softmaxes[:-1])


def test_files_are_no_larger_than_their_weights(tiny_bundle: Path) -> None:
    """Plus 1 %, plus the description of the nodes, which matters only for a model this small."""
    for name in GRAPHS:
        model = graph(tiny_bundle, name)
        weights = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
        nodes = len(model.SerializeToString()) - weights
        assert nodes < 0.01 * weights + 300 * (len(model.graph.node) + len(model.graph.initializer))


def test_graphs_contain_no_trace_of_the_machine(tiny_bundle: Path) -> None:
    for name in GRAPHS:
        content = (tiny_bundle / "onnx" / f"{name}.onnx").read_bytes()
        assert not re.search(rb"site-packages|/home/|\.py\b|Traceback", content)
        assert str(Path.cwd()).encode() not in content


def test_text_graphs_share_one_file_of_weights(tiny_bundle: Path) -> None:
    """The file has every weight of at least 1 KiB once: it is no larger than what one graph refers to."""
    data = "text_model.onnx_data"
    needed = []
    for name in ("text_model", "text_model_cpu"):
        model = onnx.load(tiny_bundle / "onnx" / f"{name}.onnx", load_external_data=False).graph
        external = [tensor for tensor in model.initializer if tensor.data_location == onnx.TensorProto.EXTERNAL]
        places = [{entry.key: entry.value for entry in tensor.external_data} for tensor in external]
        assert {place["location"] for place in places} == {data}
        assert all(len(tensor.raw_data) < 1024 for tensor in model.initializer)
        needed.append({(int(place["offset"]), int(place["length"])) for place in places})
    assert needed[0] == needed[1]
    assert (tiny_bundle / "onnx" / data).stat().st_size == max(offset + length for offset, length in needed[0])
    graphs = Bundle.open(tiny_bundle).manifest.graphs
    assert [graph.data for graph in graphs] == [None, f"onnx/{data}", f"onnx/{data}"]


@pytest.mark.parametrize("name", ["text_model", "text_model_cpu"])
def test_any_batch_and_length_runs(tiny_bundle: Path, name: str) -> None:
    bundle = Bundle.open(tiny_bundle)
    session = onnxruntime.InferenceSession(bundle.path(f"onnx/{name}.onnx"), providers=["CPUExecutionProvider"])
    for batch in (1, 2, 5):
        for length in (2, 3, bundle.manifest.model.max_length):
            ids = np.full((batch, length), 5, dtype=np.int64)
            (embeds,) = session.run(None, {"input_ids": ids, "attention_mask": np.ones_like(ids)})
            np.testing.assert_allclose(np.linalg.norm(embeds, axis=1), np.ones(batch), atol=1e-5)


def test_another_number_of_operators_is_an_error(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    config = load_model(tiny_checkpoint).config
    contract = vision_contract(config, Bundle.open(tiny_bundle).manifest.preprocessing.output_size, "uint8")
    model = ir.load(tiny_bundle / "onnx" / "vision_model.onnx")
    check_operators(model, contract, config)
    convolution = next(node for node in model.graph if node.op_type == "Conv")
    convolution.op_type = "Pad"
    with pytest.raises(BuildError, match="Conv nodes, expected"):
        check_operators(model, contract, config)


def test_an_invalid_graph_or_another_contract_is_an_error(
    tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    contract = text_contract(load_model(tiny_checkpoint).config)
    model = graph(tiny_bundle, "text_model")
    model.graph.node[-1].input[0] = "nothing"
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(BuildError, match="valid ONNX"):
        check_file(tmp_path / "text.onnx", contract, 20, None)
    model = graph(tiny_bundle, "text_model")
    model.graph.output[0].type.tensor_type.shape.dim[1].dim_value += 1
    onnx.save(model, tmp_path / "text.onnx")
    with pytest.raises(BuildError, match=r"text\.onnx"):
        check_file(tmp_path / "text.onnx", contract, 20, None)
    onnx.save(graph(tiny_bundle, "text_model"), tmp_path / "text.onnx")
    with pytest.raises(BuildError, match="opset is 20, expected 21"):
        check_file(tmp_path / "text.onnx", contract, 21, None)


def test_weights_in_another_file_are_an_error(tiny_bundle: Path, tiny_checkpoint: Path) -> None:
    contract = text_contract(load_model(tiny_checkpoint).config)
    file = tiny_bundle / "onnx" / "text_model.onnx"
    check_file(file, contract, 20, "text_model.onnx_data")
    for expected in (None, "other.onnx_data"):
        with pytest.raises(BuildError, match=f"weights in .*, expected {expected or 'no file'}"):
            check_file(file, contract, 20, expected)


@pytest.mark.parametrize("opset", [OPSETS[0], OPSETS[-1]])
def test_opset(small_checkpoint: Path, tmp_path: Path, opset: int) -> None:
    assert main([str(small_checkpoint), "-o", str(tmp_path / "bundle"), "--opset", str(opset), "--quiet"]) == 0
    for name in GRAPHS:
        imports = graph(tmp_path / "bundle", name).opset_import
        assert [(entry.domain, entry.version) for entry in imports] == [("", opset)]
