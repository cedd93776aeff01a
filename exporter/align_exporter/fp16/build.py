"""An FP32 graph → the FP16 graph of the same tower.

1. Operators that stay FP32: by rule (`rules`), and as islands where FP16 cannot represent the calibrated ranges.
2. Weights of convolutions, rounded so that every channel keeps its mean.
3. Casts where a value goes from one float type to the other.
"""

from __future__ import annotations

from dataclasses import replace

import onnx_ir as ir

from align_calibration.channel_means import measure_channel_means
from align_calibration.ranges import TensorRange
from align_exporter.build_types import BaseGraph, Draft, Fp16Result
from align_exporter.export_options import ExportOptions
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.islands import assign_islands, float32_by_rule
from align_exporter.fp16.weight_rounding import round_weights


def build_fp16(base: BaseGraph) -> Draft:
    """The FP16 draft of `base`.

    Raises:
        BuildError: more FP32 islands than a graph may have.
    """
    options, ranges = base.run.options, base.ranges
    with base.run.progress.phase(f"{base.tower} fp16: conversion"):
        model = base.copy()
        float32, result = decide_float32(model, ranges, options)
        images = base.run.inputs.for_means(base.spec.contract)
        if images is not None:
            round_weights(model, measure_channel_means(model, images, base.data_folder), float32)
        return Draft(model, fp16=replace(result, casts=convert_to_fp16(model, float32)))


def decide_float32(
    model: ir.Model, ranges: tuple[TensorRange, ...], options: ExportOptions
) -> tuple[frozenset[ir.Node], Fp16Result]:
    """The operators of the FP32 graph `model` that stay FP32, and the record of it, still without casts.

    Args:
        ranges: activation ranges of `model`.

    Raises:
        BuildError: as `assign_islands`.
    """
    assignment = assign_islands(model, ranges, options.fp16_keep, options.fp16_headroom)
    ruled = float32_by_rule(model.graph)
    names = tuple(node.name or "" for node in model.graph if node in ruled)
    operators = tuple(node.name or "" for node in model.graph)
    return assignment.float32, Fp16Result(ranges, names, assignment.islands, 0, operators)
