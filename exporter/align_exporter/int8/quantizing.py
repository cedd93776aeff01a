"""A float32 graph → the same graph in INT8, for ONNX Runtime's CPU kernels or for TensorRT, and how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from align_calibration.observe import Batch
from align_calibration.ranges import TensorRange
from align_calibration.scales import INT8, UINT8
from align_exporter.fp16.convert import convert
from align_exporter.fp16.halve import Halving, decide
from align_exporter.int8.acceptance import Race
from align_exporter.int8.per_token import quantize_per_token
from align_exporter.int8.placement import place
from align_exporter.int8.search import Method, Trial, best_scales
from align_exporter.int8.signed import quantize_signed
from align_exporter.int8.static import quantize_statically, quantized_nodes, quantized_tensors
from align_exporter.options import ExportOptions

BY_ROW = "per token"
FOR_CPU = Method(UINT8, quantized_tensors, quantize_statically)
FOR_GPU = Method(INT8, lambda graph: place(graph).tensors, quantize_signed)


@dataclass(frozen=True)
class Quantizing:
    """How an INT8 graph came about.

    Attributes:
        scheme: as in `align_runtime.graph_entry.Quantization`.
        samples: pictures or captions that scales were measured on.
        trials: of observers, the best first; none where nothing is calibrated.
        operators: how many were quantised, by operator; every dense layer counts as ``"MatMul"``.
        races: against the float graphs of the tower.
    """

    scheme: str
    samples: int
    trials: tuple[Trial, ...]
    operators: Mapping[str, int]
    races: tuple[Race, ...] = ()


def quantize_for_cpu(model: ir.Model, pictures: Sequence[Batch], folder: Path) -> Quantizing:
    """Quantises `model` in place: with the best scales on `pictures`, in batches of one, or token by token without any.

    Args:
        folder: as in `align_calibration.observe.run_batches`.

    Raises:
        BuildError: as `best_scales`.
    """
    if not pictures:
        return Quantizing(BY_ROW, 0, (), {"MatMul": quantize_per_token(model)})
    operators = Counter(node.op_type for node in quantized_nodes(model.graph))
    scales, trials = best_scales(model, FOR_CPU, pictures, folder)
    FOR_CPU.apply(model, scales)
    return Quantizing(trials[0].scheme, len(pictures), trials, operators)


def quantize_for_gpu(
    model: ir.Model, samples: Sequence[Batch], ranges: tuple[TensorRange, ...], options: ExportOptions, folder: Path
) -> tuple[Quantizing, Halving]:
    """Quantises `model` in place with the best scales on `samples`, in batches of one, and makes the rest FP16.

    What FP16 does not hold stays FP32, as in the FP16 graph. Weights that are not INT8 are rounded to nearest: what
    the means of channels lose by it is far below what INT8 does to them.

    Args:
        ranges: of the tensors of `model`.
        folder: as in `align_calibration.observe.run_batches`.

    Raises:
        BuildError: as `best_scales` and `decide`.
    """
    operators = Counter(node.op_type for node in place(model.graph).products)
    scales, trials = best_scales(model, FOR_GPU, samples, folder)
    float32, halving = decide(model, ranges, options)
    casts = convert(model, float32 | quantize_signed(model, scales, float32))
    return Quantizing(trials[0].scheme, len(samples), trials, operators), replace(halving, casts=casts)
