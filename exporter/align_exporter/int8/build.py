"""An FP32 graph → the INT8 graph of the same tower, for ONNX Runtime's CPU kernels or for TensorRT.

For CPUs                                             For TensorRT
1. vision: pixels are read as uint8 (no              1. scales: the observer whose embeddings are nearest
   normalization in the graph)                       2. parts that stay float, where a target is asked for
2. vision: scales, by the best observer;             3. operators that stay FP32, as in the FP16 graph
   text: dynamic, per token                          4. Q/DQ by TensorRT's placement rules
3. parts that stay float, for a target               5. everything else to FP16
4. Q/DQ on every tensor that ONNX Runtime fuses
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial

import onnx_ir as ir

from align_calibration.dataset.calibration_dataset import ENOUGH
from align_calibration.quant_params import INT8, UINT8, QuantParams
from align_calibration.run_instrumented import Batch
from align_calibration.statistics_cache import StatisticsCache
from align_exporter.build_types import BaseGraph, Draft, Fp16Result, Int8Result
from align_exporter.fp16.build import decide_float32
from align_exporter.fp16.convert import convert_to_fp16, emulate_fp16
from align_exporter.int8.calibrate import Calibration, QuantizationMethod, choose_scales
from align_exporter.int8.cpu_text import dense_nodes, quantize_text_for_cpu
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_nodes, quantized_tensors
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.first_layers import first_layers
from align_exporter.int8.fold_normalization import fold_normalization
from align_exporter.int8.insert_qdq import insert_qdq, round_scales_to_fp16
from align_exporter.int8.mixed_precision import Emulated, MixedPrecisionGoal, meet_target, stays_float
from align_exporter.int8.prepare_weights import prepare_weights
from align_exporter.int8.qdq_placement import place_qdq
from align_exporter.int8.round_weights import replace_weights
from align_runtime.graph_entry import SAMPLE_WORDS

FOR_CPU = {
    "vision": QuantizationMethod(UINT8, quantized_nodes, quantized_tensors, quantize_vision_for_cpu),
    "text": QuantizationMethod(
        UINT8, dense_nodes, lambda _: [], lambda model, _, kept: quantize_text_for_cpu(model, kept)
    ),
}
FOR_TENSORRT = QuantizationMethod(
    INT8,
    lambda graph: place_qdq(graph).weighted_nodes,
    lambda graph: place_qdq(graph).tensors,
    insert_qdq,
    round_scales_to_fp16,
)


def build_for_cpu(base: BaseGraph) -> Draft:
    """The draft for ONNX Runtime's CPU kernels, U8S8: vision with calibrated scales, text dynamic per token.

    Raises:
        BuildError: a tensor is not finite on the calibration inputs, or the target cannot be met.
    """
    model, method = base.copy(), FOR_CPU[base.tower]
    ir.external_data.load_to_model(model)
    with base.run.progress.phase(f"{base.tower} int8_cpu: calibration"):
        calibration = calibration_of(base)
        if base.tower == "vision":
            fold_normalization(model)
        prepared = prepare_weights(model, method, calibration)
        method = prepared.method
        scales, result = _choose(base, model, method, calibration, partial(method.applied, model))
        kernels = _quantized_operators(model, base.tower, method, result.kept)
        method.apply(model, scales, result.kept)
    result = replace(result, migration=prepared.migration)
    return Draft(model, int8=result, kernels=kernels, advice=advice_of(base.tower, len(calibration.samples)))


def build_for_tensorrt(base: BaseGraph) -> Draft:
    """The draft for TensorRT: signed symmetric INT8 with explicit Q/DQ, FP16 elsewhere, FP32 where FP16 does not hold.

    Weights that are not INT8 are rounded to nearest: what channel means lose by it is far below what INT8 does to them.
    A target is met with every FP16 value rounded as hardware does it.

    Raises:
        BuildError: as `build_for_cpu`, or more FP32 islands than a graph may have.
    """
    model, options = base.copy(), base.run.options
    ir.external_data.load_to_model(model)

    with base.run.progress.phase(f"{base.tower} int8: calibration"):
        calibration = calibration_of(base)
        prepared = prepare_weights(model, FOR_TENSORRT, calibration)
        ranges = base.ranges if base.tower == "vision" else base.ranges_of(model)  # its outliers were moved

        def quantized(graph: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str]) -> Fp16Result:
            replace_weights(graph, prepared.weights, kept)
            float32, fp16 = decide_float32(graph, ranges, options)
            casts = convert_to_fp16(graph, float32 | insert_qdq(graph, scales, kept, float32))
            return replace(fp16, casts=casts)

        def emulated(scales: Mapping[str, QuantParams], kept: Collection[str]) -> ir.Model:
            graph = model.clone()
            quantized(graph, scales, kept)
            return emulate_fp16(graph)

        scales, result = _choose(base, model, prepared.method, calibration, emulated)
        fp16 = quantized(model, scales, result.kept)
    result = replace(result, migration=prepared.migration)
    return Draft(model, fp16=fp16, int8=result, advice=advice_of(base.tower, len(calibration.samples)))


def _choose(
    base: BaseGraph, model: ir.Model, method: QuantizationMethod, calibration: Calibration, emulated: Emulated
) -> tuple[Mapping[str, QuantParams], Int8Result]:
    """The scales, and what stays float for the target; `model` is left as it is.

    Args:
        emulated: as in `meet_target`.
    """
    run, contract = base.run, base.spec.contract
    scales, trials = choose_scales(model, method, calibration)
    first = first_layers(model, method, scales, calibration, trials)
    method = method.with_float(first)
    result = Int8Result(len(calibration.samples) if trials else 0, trials, first)
    if run.options.has_int8_target:
        goal = MixedPrecisionGoal(
            target=FidelityTarget(run.options.int8_min_cosine, run.options.int8_min_agreement),
            held_out=_calibration(base, run.inputs.held_out(contract)),
            others=run.inputs.other_embeddings(base.tower),
            tokens=run.checkpoint.facts.max_length,
        )

        def with_first(scales: Mapping[str, QuantParams], kept: Collection[str]) -> ir.Model:
            return emulated(scales, (*first, *kept))

        candidates = meet_target(goal, model, method, with_first, scales, calibration)
        result = replace(result, target=goal.target, candidates=candidates)
    _warn_of_few(base, result)
    return scales, result


def calibration_of(base: BaseGraph) -> Calibration:
    """What the INT8 graphs of `base` are calibrated on."""
    return _calibration(base, base.run.inputs.for_scales(base.spec.contract))


def _calibration(base: BaseGraph, samples: Sequence[Batch]) -> Calibration:
    place, progress = base.run.options.calibration_cache, base.run.progress
    cache = None if place is None else StatisticsCache(place, progress.warn)
    return Calibration(samples, base.data_folder, cache, progress)


def _quantized_operators(
    model: ir.Model, tower: str, method: QuantizationMethod, kept: Collection[str]
) -> Counter[str]:
    """Numbers of quantized operators of the float graph `model`, by operator; a dense layer is a ``"MatMul"``."""
    nodes = [node for node in method.operators(model.graph) if not stays_float(node, kept)]
    return Counter("MatMul" if tower == "text" else node.op_type for node in nodes)


def _warn_of_few(base: BaseGraph, result: Int8Result) -> None:
    """Unless the calibration dataset itself is small, which is said when it is read."""
    words, count = SAMPLE_WORDS[base.tower], result.samples
    if result.trials and count < ENOUGH and not 0 < base.run.inputs.dataset_count(words) < ENOUGH:
        base.run.progress.warn(
            f"INT8 scales of the {base.tower} tower were measured on {count} {words}; use {ENOUGH} or more like those "
            f"of the service (--calibration-{words})"
        )


def advice_of(tower: str, count: int) -> str:
    """What to do where the parity gate refuses the graph: one thing, as long as more samples may help."""
    words = SAMPLE_WORDS[tower]
    if count < ENOUGH:
        return (
            f"it was calibrated on {count} {words}; give {ENOUGH} or more like those of the service with "
            f"--calibration-{words}"
        )
    return (
        f"INT8 gets no closer on {count} calibration {words}; allow more with --parity-min-cosine, or leave this graph "
        "out with --int8-device"
    )
