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
from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.dataset.calibration_dataset import ENOUGH
from align_calibration.observers import min_max, widened
from align_calibration.quant_params import INT8, UINT8, QuantParams
from align_exporter.build_types import BaseGraph, Draft, Fp16Result, Int8Result
from align_exporter.fp16.build import decide_float32
from align_exporter.fp16.convert import convert_to_fp16, emulate_fp16
from align_exporter.int8.calibrate import QuantizationMethod, choose_scales
from align_exporter.int8.cpu_text import dense_nodes, quantize_text_for_cpu
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_nodes, quantized_tensors
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.first_layers import first_layers
from align_exporter.int8.fold_normalization import fold_normalization
from align_exporter.int8.insert_qdq import insert_qdq, round_scales_to_fp16
from align_exporter.int8.mixed_precision import Emulated, MixedPrecisionGoal, meet_target, stays_float
from align_exporter.int8.prepare_weights import RoundedLayers, prepare_weights
from align_exporter.int8.qdq_placement import place_qdq
from align_exporter.int8.round_weights import replace_weights
from align_runtime.graph_entry import SAMPLE_WORDS

LEAST_EXACT = np.float32(np.finfo(np.float16).smallest_normal)


def shared_scales(scales: NDArray[np.float32]) -> NDArray[np.float32]:
    """Scales of TensorRT's graph, which are FP16, where these are exact to 11 bits: then both graphs have the same
    weights, which are rounded once."""
    return np.where(scales >= LEAST_EXACT, round_scales_to_fp16(scales), scales)


FOR_CPU = {
    "vision": QuantizationMethod(UINT8, quantized_nodes, quantized_tensors, quantize_vision_for_cpu, shared_scales),
    "text": QuantizationMethod(
        UINT8, dense_nodes, lambda _: [], lambda model, _, kept: quantize_text_for_cpu(model, kept)
    ),
}
_BY_PLACEMENT = QuantizationMethod(
    INT8,
    lambda graph: place_qdq(graph).weighted_nodes,
    lambda graph: place_qdq(graph).tensors,
    insert_qdq,
    round_scales_to_fp16,
)
# A text may hold words that no calibration text held, and in a transformer one of them may have values that none had.
# On trained weights the wider ranges made the mean error a third larger, and that of the worst text less than half as
# large; observers that clip are best on the calibration texts, and far behind on others.
TEXT_OBSERVERS = {"min-max, a fifth wider": widened(min_max, 1.2)}
FOR_TENSORRT = {"vision": _BY_PLACEMENT, "text": replace(_BY_PLACEMENT, observers=TEXT_OBSERVERS)}


def build_for_cpu(base: BaseGraph) -> Draft:
    """The draft for ONNX Runtime's CPU kernels, U8S8: vision with calibrated scales, text dynamic per token.

    Raises:
        BuildError: a tensor is not finite on the calibration inputs, or the target cannot be met.
    """
    model, method = base.copy(), FOR_CPU[base.tower]
    ir.external_data.load_to_model(model)
    with base.run.progress.phase(f"{base.tower} int8_cpu: calibration"):
        if base.tower == "vision":
            fold_normalization(model)
        prepared = prepare_weights(model, method, base.calibration, _known(base))
        method = prepared.method
        scales, result = _choose(base, model, method, partial(method.applied, model))
        kernels = _quantized_operators(model, base.tower, method, result.kept)
        method.apply(model, scales, result.kept)
    result = replace(result, migration=prepared.migration)
    return Draft(model, int8=result, kernels=kernels, advice=advice_of(base.tower, len(base.calibration.samples)))


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
        prepared = prepare_weights(model, FOR_TENSORRT[base.tower], base.calibration, _known(base))
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

        scales, result = _choose(base, model, prepared.method, emulated)
        fp16 = quantized(model, scales, result.kept)
    result = replace(result, migration=prepared.migration)
    return Draft(model, fp16=fp16, int8=result, advice=advice_of(base.tower, len(base.calibration.samples)))


def _choose(
    base: BaseGraph, model: ir.Model, method: QuantizationMethod, emulated: Emulated
) -> tuple[Mapping[str, QuantParams], Int8Result]:
    """The scales, and what stays float for the target; `model` is left as it is.

    Args:
        emulated: as in `meet_target`.
    """
    run, contract, tensors = base.run, base.spec.contract, method.tensors(model.graph)
    scales: Mapping[str, QuantParams] = {}
    first: tuple[str, ...] = ()
    result = Int8Result(0, ())
    if tensors:
        # Outliers of a text were moved: its tensors have other values than those of the base graph.
        histograms = base.histograms if base.tower == "vision" else base.calibration.histograms(model, tensors)
        choice = choose_scales(model, method, histograms, base.calibration)
        scales, first = choice.scales, first_layers(model, method, choice)
        method = method.with_float(first)
        result = Int8Result(len(base.calibration.samples), choice.trials, first)
    if run.options.has_int8_target:
        goal = MixedPrecisionGoal(
            target=FidelityTarget(run.options.int8_min_cosine, run.options.int8_min_agreement),
            held_out=replace(base.calibration, samples=run.inputs.held_out(contract)),
            others=run.inputs.other_embeddings(base.tower),
            tokens=run.checkpoint.facts.max_length,
        )

        def with_first(scales: Mapping[str, QuantParams], kept: Collection[str]) -> ir.Model:
            return emulated(scales, (*first, *kept))

        candidates = meet_target(goal, model, method, with_first, scales, base.calibration)
        result = replace(result, target=goal.target, candidates=candidates)
    _warn_of_few(base, result)
    return scales, result


def _known(base: BaseGraph) -> RoundedLayers | None:
    return base.rounded if base.tower == "vision" else None


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
