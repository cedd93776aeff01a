"""How much faster the INT8 vision graph for CPUs would be if a swish were one table look-up.

ONNX Runtime computes it as a look-up (QLinearSigmoid) and a product (QLinearMul). A custom operator could do both in
one look-up. Its gain is at most that of leaving the product out, which this measures: the embeddings are then wrong,
and the time is that of the best possible operator.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from align_bench.interleaved import time_interleaved
from align_runtime.backends.onnxruntime import sum_exactly
from align_runtime.processors import available_cores

AS_IT_IS, ONE_PASS = "as it is", "one look-up"
BATCHES = (1, 8)


def without_products(model: onnx.ModelProto) -> int:
    """Has every reader of a swish read its sigmoid instead, in place; returns how many there are."""
    sigmoids = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "QLinearSigmoid"}
    replaced = {}
    for node in [node for node in model.graph.node if node.op_type == "QLinearMul"]:
        first, second = node.input[0], node.input[3]
        for features, gate in ((first, second), (second, first)):
            if sigmoids.get(gate) == features:
                replaced[node.output[0]] = gate
                model.graph.node.remove(node)
    for node in model.graph.node:
        for index, name in enumerate(node.input):
            node.input[index] = replaced.get(name, name)
    return len(replaced)


def measure_swish(file: Path, pixels: NDArray[np.uint8], rounds: int) -> list[dict[str, Any]]:
    """A record for each of `BATCHES`: seconds of each round, interleaved, of the INT8 graph in `file` and of the bound.

    Args:
        pixels: one image, uint8 (1, height, width, 3).
    """
    with tempfile.TemporaryDirectory() as name:
        fused, bound = Path(name) / "fused.onnx", Path(name) / "bound.onnx"
        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        options.optimized_model_filepath = str(fused)
        _session(file, options)
        model = onnx.load(fused)
        swishes = without_products(model)
        onnx.save(model, bound)
        sessions = {AS_IT_IS: _session(fused), ONE_PASS: _session(bound)}
    return [
        {"batch": batch, "swishes": swishes, "seconds": _seconds(sessions, pixels, batch, rounds)} for batch in BATCHES
    ]


def _session(file: Path, options: onnxruntime.SessionOptions | None = None) -> onnxruntime.InferenceSession:
    options = options or onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, available_cores()
    sum_exactly(options)
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def _seconds(
    sessions: dict[str, onnxruntime.InferenceSession], pixels: NDArray[np.uint8], batch: int, rounds: int
) -> dict[str, Sequence[float]]:
    inputs = {"pixels": np.repeat(pixels, batch, axis=0)}
    candidates = {name: lambda session=session: session.run(None, inputs) for name, session in sessions.items()}
    return time_interleaved(candidates, rounds)
