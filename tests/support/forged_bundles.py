"""Bundles as someone forges them: a file is changed, and the manifest gets its new size and sha256."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from align_runtime.bundle_writing import inventory


def reseal(bundle: Path) -> None:
    """Gives a changed bundle the sizes and hashes of its files."""
    file = bundle / "align.json"
    values = json.loads(file.read_text(encoding="utf-8"))
    values["files"] = {name: vars(entry) for name, entry in inventory(bundle).items()}
    file.write_text(json.dumps(values), encoding="utf-8")


def put_graph(bundle: Path, tower: str, model: onnx.ModelProto) -> Path:
    """Puts `model` in place of the FP32 graphs of `tower`, without external weights."""
    manifest = bundle / "align.json"
    values = json.loads(manifest.read_text(encoding="utf-8"))
    for graph in values["graphs"]:
        if graph["tower"] == tower:
            graph["data"] = None
            (bundle / graph["file"]).write_bytes(model.SerializeToString())
    manifest.write_text(json.dumps(values), encoding="utf-8")
    reseal(bundle)
    return bundle


def constant_graph(tower: str, answer: NDArray[Any], size: tuple[int, int], per_row: bool = True) -> onnx.ModelProto:
    """A graph of `tower` that looks at no input: it answers with the row `answer`, once for each input.

    Args:
        per_row: False to answer with `answer` itself, however many inputs there are.
    """
    if tower == "vision":
        shapes: dict[str, tuple[int, list[Any]]] = {"pixels": (onnx.TensorProto.UINT8, ["batch", *size, 3])}
    else:
        shapes = dict.fromkeys(("input_ids", "attention_mask"), (onnx.TensorProto.INT64, ["batch", "sequence"]))
    output = {"vision": "image_embeds", "text": "text_embeds"}[tower]
    row = onnx.numpy_helper.from_array(answer, "row")
    nodes = [
        helper.make_node("Shape", [next(iter(shapes))], ["count"], start=0, end=1),
        helper.make_node("Concat", ["count", "width"], ["size"], axis=0),
        helper.make_node("Expand", ["row", "size"], [output]),
    ]
    sizes = onnx.numpy_helper.from_array(np.array(answer.shape, np.int64), "width")
    kind, declared = helper.np_dtype_to_tensor_dtype(answer.dtype), ["batch", *answer.shape]
    if not per_row:
        nodes, declared = [helper.make_node("Identity", ["row"], [output])], list(answer.shape)
    graph = helper.make_graph(
        nodes,
        "forged",
        [helper.make_tensor_value_info(name, *shape) for name, shape in shapes.items()],
        [helper.make_tensor_value_info(output, kind, declared)],
        initializer=[row, sizes],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
