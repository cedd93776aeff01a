"""The weight file of several graphs: equal tensors are stored once and aligned."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest

from align_exporter.graph.weight_file import ALIGNMENT, INLINE_BYTES, WeightFile
from align_runtime import BuildError

SIZE = 600  # float32: more than INLINE_BYTES, less than a page


def weight(seed: int, size: int = SIZE) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(size, dtype=np.float32)


def model(**weights: np.ndarray) -> ir.Model:
    """The sum of `weights`, all of one shape, and a small constant."""
    names = list(weights)
    nodes = [onnx.helper.make_node("Sum", [*names, "small"], ["y"])]
    tensors = [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()]
    tensors.append(onnx.numpy_helper.from_array(np.float32([2]), "small"))
    output = onnx.helper.make_tensor_value_info("y", 1, [SIZE])
    graph = onnx.helper.make_graph(nodes, "g", [], [output], tensors)
    return ir.from_proto(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10))


def write(folder: Path, *graphs: ir.Model) -> Path:
    file = WeightFile(folder / "weights.data")
    for index, graph in enumerate(graphs):
        file.move(graph)
        ir.save(graph, folder / f"{index}.onnx")
    return file.path


def result(file: Path) -> np.ndarray:
    onnx.checker.check_model(str(file), full_check=True)
    return onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"]).run(None, {})[0]


def test_equal_weights_are_stored_once_whatever_their_names(tmp_path: Path) -> None:
    data = write(tmp_path, model(a=weight(1), b=weight(2)), model(c=weight(2), d=weight(3)))
    assert data.stat().st_size == 2 * ALIGNMENT + 4 * SIZE
    np.testing.assert_array_equal(result(tmp_path / "0.onnx"), weight(1) + weight(2) + 2)
    np.testing.assert_array_equal(result(tmp_path / "1.onnx"), weight(2) + weight(3) + 2)


def test_small_tensors_stay_in_the_graph_and_large_ones_are_aligned(tmp_path: Path) -> None:
    write(tmp_path, model(a=weight(1), b=weight(2)))
    tensors = onnx.load(tmp_path / "0.onnx", load_external_data=False).graph.initializer
    places = {tensor.name: {entry.key: entry.value for entry in tensor.external_data} for tensor in tensors}
    assert places["small"] == {}
    assert 4 * SIZE >= INLINE_BYTES
    for name, offset in (("a", 0), ("b", ALIGNMENT)):
        assert places[name] == {"location": "weights.data", "offset": str(offset), "length": str(4 * SIZE)}


def test_the_same_graphs_give_the_same_bytes(tmp_path: Path) -> None:
    contents = []
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        data = write(tmp_path / name, model(a=weight(1), b=weight(2)))
        contents.append((data.read_bytes(), (tmp_path / name / "0.onnx").read_bytes()))
    assert contents[0] == contents[1]


def test_weights_that_differ_in_one_bit_are_both_stored(tmp_path: Path) -> None:
    other = weight(1)
    other.view(np.int32)[0] ^= 1
    assert write(tmp_path, model(a=weight(1), b=other)).stat().st_size > ALIGNMENT


def test_an_initializer_without_a_value_is_an_error(tmp_path: Path) -> None:
    graph = model(a=weight(1))
    graph.graph.initializers["a"].const_value = None
    with pytest.raises(BuildError, match="'a' .* no value"):
        WeightFile(tmp_path / "weights.data").move(graph)
