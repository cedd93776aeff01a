"""An FP32 graph and what was measured of it → the FP16 graph and what was decided on the way."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

import onnx_ir as ir

from align_calibration.channel_means import measure_channel_means
from align_calibration.ranges import TensorRange
from align_calibration.run_instrumented import Batch
from align_exporter.export_options import ExportOptions
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.islands import assign_islands
from align_exporter.fp16.rules import float32_by_rule
from align_exporter.fp16.weight_rounding import round_weights
from align_runtime.graph_entry import Island


@dataclass(frozen=True)
class Fp16Result:
    """How an FP16 graph came about.

    Attributes:
        ranges: of the FP32 graph's tensors.
        ruled: names of the operators that stay FP32 in every FP16 graph.
        islands: what else stays FP32.
        casts: number of casts added.
        operators: names of all operators of the FP32 graph, which ``--fp16-keep`` may mean.
    """

    ranges: tuple[TensorRange, ...]
    ruled: tuple[str, ...]
    islands: tuple[Island, ...]
    casts: int
    operators: tuple[str, ...]


def halve(
    model: ir.Model,
    ranges: tuple[TensorRange, ...],
    images: Iterable[Batch] | None,
    options: ExportOptions,
    folder: Path,
) -> Fp16Result:
    """Converts the FP32 graph `model` in place.

    Args:
        ranges: of its tensors.
        images: samples for the means of channels; None for a graph without convolutions.
        folder: as in `align_calibration.run_instrumented.run_batches`.

    Raises:
        BuildError: as `assign_islands`.
    """
    float32, halving = decide(model, ranges, options)
    if images is not None:
        round_weights(model, measure_channel_means(model, images, folder), float32)
    return replace(halving, casts=convert_to_fp16(model, float32))


def decide(
    model: ir.Model, ranges: tuple[TensorRange, ...], options: ExportOptions
) -> tuple[frozenset[ir.Node], Fp16Result]:
    """The operators of the FP32 graph `model` that stay FP32, and the record, still without casts.

    Raises:
        BuildError: as `assign_islands`.
    """
    ruled = float32_by_rule(model.graph)
    names = tuple(node.name or "" for node in model.graph if node in ruled)
    assignment = assign_islands(model, ranges, options.fp16_keep, options.fp16_headroom)
    operators = tuple(node.name or "" for node in model.graph)
    return assignment.float32, Fp16Result(ranges, names, assignment.islands, 0, operators)
