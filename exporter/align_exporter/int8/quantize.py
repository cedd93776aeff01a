"""A float32 graph → the same graph in INT8, for ONNX Runtime's CPU kernels or for TensorRT, and how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial

import onnx_ir as ir

from align_calibration.quant_params import INT8, UINT8, QuantParams
from align_calibration.ranges import TensorRange
from align_exporter.export_options import ExportOptions
from align_exporter.fp16.build import Fp16Result, decide
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.emulate import emulate_fp16
from align_exporter.int8.calibrate import ObserverTrial, QuantizationMethod, best_scales
from align_exporter.int8.calibration import Calibration
from align_exporter.int8.cpu_text import dense_nodes, quantize_text_for_cpu
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_nodes, quantized_tensors
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.fold_normalization import fold_normalization
from align_exporter.int8.insert_qdq import insert_qdq
from align_exporter.int8.mixed_precision import Candidate, Finished, MixedPrecisionGoal, meet
from align_exporter.int8.qdq_placement import place_qdq
from align_exporter.int8.speed import SpeedComparison
from align_exporter.int8.units import unit_of

BY_ROW = "per token"
FOR_CPU = {
    "vision": QuantizationMethod(UINT8, quantized_nodes, quantized_tensors, quantize_vision_for_cpu),
    "text": QuantizationMethod(
        UINT8, dense_nodes, lambda _: [], lambda model, _, kept: quantize_text_for_cpu(model, kept)
    ),
}
FOR_GPU = QuantizationMethod(
    INT8, lambda graph: place_qdq(graph).weighted_nodes, lambda graph: place_qdq(graph).tensors, insert_qdq
)


@dataclass(frozen=True)
class Int8Result:
    """How an INT8 graph came about.

    Attributes:
        samples: images or captions that scales were measured on.
        trials: of observers, the best first; none where nothing is calibrated.
        target: what was asked of it; None where nothing was.
        points: what was tried to meet the target, the graph that was taken first.
        races: against the float graphs of the tower.
    """

    samples: int
    trials: tuple[ObserverTrial, ...]
    target: FidelityTarget | None = None
    points: tuple[Candidate, ...] = ()
    races: tuple[SpeedComparison, ...] = ()

    @property
    def scheme(self) -> str:
        """As in `align_runtime.graph_entry.Quantization`."""
        return self.trials[0].scheme if self.trials else BY_ROW

    @property
    def kept(self) -> tuple[str, ...]:
        """Parts that stay float."""
        return self.points[0].kept if self.points else ()


def quantize_for_cpu(
    model: ir.Model, tower: str, calibration: Calibration, goal: MixedPrecisionGoal | None
) -> Int8Result:
    """Quantises `model` in place, for the kernels of ONNX Runtime: vision with the best scales on the samples, text
    token by token.

    Raises:
        BuildError: as `best_scales` and `meet`.
    """
    if tower == "vision":
        fold_normalization(model)
    method = FOR_CPU[tower]
    scales, quantizing = _decide(model, method, partial(method.applied, model), calibration, goal)
    method.apply(model, scales, quantizing.kept)
    return quantizing


def quantize_for_gpu(
    model: ir.Model,
    calibration: Calibration,
    goal: MixedPrecisionGoal | None,
    ranges: tuple[TensorRange, ...],
    options: ExportOptions,
) -> tuple[Int8Result, Fp16Result]:
    """Quantises `model` in place with the best scales on the samples and makes the rest FP16.

    What FP16 does not hold stays FP32, as in the FP16 graph. Weights that are not INT8 are rounded to nearest: what
    the means of channels lose by it is far below what INT8 does to them. A target is met with every FP16 value rounded.

    Args:
        ranges: of the tensors of `model`.

    Raises:
        BuildError: as `best_scales`, `meet` and `align_exporter.fp16.build.decide`.
    """

    def halved(graph: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str]) -> Fp16Result:
        float32, halving = decide(graph, ranges, options)
        casts = convert_to_fp16(graph, float32 | insert_qdq(graph, scales, kept, float32))
        return replace(halving, casts=casts)

    def finished(scales: Mapping[str, QuantParams], kept: Collection[str]) -> ir.Model:
        graph = model.clone()
        halved(graph, scales, kept)
        return emulate_fp16(graph)

    scales, quantizing = _decide(model, FOR_GPU, finished, calibration, goal)
    return quantizing, halved(model, scales, quantizing.kept)


def int8_operators(model: ir.Model, tower: str, kept: Collection[str]) -> Counter[str]:
    """How many operators of the float graph `model` are quantised for CPUs, by operator; every dense layer counts as
    ``"MatMul"``."""
    nodes = [node for node in FOR_CPU[tower].operators(model.graph) if unit_of(node) not in kept]
    return Counter("MatMul" if tower == "text" else node.op_type for node in nodes)


def _decide(
    model: ir.Model,
    method: QuantizationMethod,
    finished: Finished,
    calibration: Calibration,
    goal: MixedPrecisionGoal | None,
) -> tuple[Mapping[str, QuantParams], Int8Result]:
    """Scales, and what stays float; `model` is left as it is. `finished` is that of `meet`."""
    scales, trials = best_scales(model, method, calibration)
    quantizing = Int8Result(len(calibration.samples) if trials else 0, trials)
    if goal is not None:
        points = meet(goal, model, method, finished, scales, calibration)
        quantizing = replace(quantizing, target=goal.target, points=points)
    return scales, quantizing
