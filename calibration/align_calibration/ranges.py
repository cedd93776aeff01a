"""Activation ranges: the largest values of every tensor of a graph on samples, and its error when stored in FP16."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import numpy as np
import onnx_ir as ir

from align_calibration.run_instrumented import Batch, float_values, run_batches, set_output

INPUT = "input"  # the operator of a tensor that no node computes
FP16_MAX = 65504.0  # the largest finite value


@dataclass(frozen=True)
class TensorRange:
    """Range of one float32 tensor of a graph over all samples.

    Attributes:
        tensor: its name in the graph, which is also the name of its node.
        operator: of the node that computes it, e.g. ``"Conv"``; ``"input"`` for an input of the graph.
        max_abs: largest absolute value.
        rms: root mean square; infinite where the squares overflow float32, as those of an attention mask do.
        rounding_error: norm of the difference that rounding to FP16 makes, divided by the norm of the tensor; about
            2⁻¹² for values in FP16's normal range, up to 1 where all underflow, infinite where one overflows.
    """

    tensor: str
    operator: str
    max_abs: float
    rms: float
    rounding_error: float


def measure_ranges(
    model: ir.Model, batches: Iterable[Batch], folder: Path, largest: Mapping[str, float] = MappingProxyType({})
) -> tuple[TensorRange, ...]:
    """Runs `model` on `batches` and returns the range of each of its float32 tensors, in the order of the graph.

    Args:
        model: float32; not modified.
        batches: inputs by name.
        folder: as in `run_batches`.
        largest: absolute values that tensors reach on other samples, by name.

    Raises:
        ValueError: no batches.
    """
    instrumented = model.clone()
    tensors = _add_statistics(instrumented.graph)
    statistics = np.stack(list(run_batches(instrumented, batches, folder))).astype(np.float64)  # (batches, tensors, 4)
    energy, error, count = statistics[..., 1:].sum(0).T
    found = statistics[..., 0].max(0).tolist()
    max_abs = [max(size, largest.get(value.name or "", 0.0)) for value, size in zip(tensors, found, strict=True)]
    return tuple(
        TensorRange(
            tensor=value.name or "",
            operator=INPUT if (node := value.producer()) is None else node.op_type,
            max_abs=max_abs[row],
            rms=float(np.sqrt(energy[row] / count[row])),
            rounding_error=_rounding_error(max_abs[row], energy[row], error[row]),
        )
        for row, value in enumerate(tensors)
    )


def _add_statistics(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """Replaces the outputs of `graph` with one of shape (tensors, 4) and returns the tensors in the order of its rows.

    Columns: largest absolute value, sum of squares, sum of squared FP16 rounding errors, number of elements.
    """
    tensors = float_values(graph)
    tape = ir.tape.Tape(graph)
    axis = tape.initializer(ir.tensor(np.array([0], dtype=np.int64), name="ranges.axis"))
    rows = []
    for value in tensors:
        rounded = tape.op("Cast", [tape.op("Cast", [value], {"to": ir.DataType.FLOAT16})], {"to": ir.DataType.FLOAT})
        change = tape.op("Sub", [value, rounded])
        count = tape.op("Cast", [tape.op("Size", [value])], {"to": ir.DataType.FLOAT})
        cells = [
            tape.op("ReduceMax", [tape.op("Abs", [value])], {"keepdims": 0}),
            tape.op("ReduceSumSquare", [value], {"keepdims": 0}),
            tape.op("ReduceSumSquare", [change], {"keepdims": 0}),
            count,
        ]
        row = tape.op("Concat", [tape.op("Unsqueeze", [cell, axis]) for cell in cells], {"axis": 0})
        rows.append(tape.op("Unsqueeze", [row, axis]))
    set_output(graph, tape, rows, [len(tensors), 4])
    return tensors


def _rounding_error(largest: float, energy: float, error: float) -> float:
    if not largest <= FP16_MAX:
        return float("inf")
    return float(np.sqrt(error / energy)) if energy > 0 else 0.0
