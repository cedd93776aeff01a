"""A float32 graph → the same graph in INT8 for ONNX Runtime's CPU kernels, and how it came about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir

from align_calibration.cache import StatisticsCache
from align_calibration.histograms import QUIET
from align_calibration.observe import Batch
from align_exporter.int8.acceptance import Race
from align_exporter.int8.dynamic import quantize_dynamically
from align_exporter.int8.search import Trial, best_scales
from align_exporter.int8.static import quantize_statically, quantized_nodes
from align_runtime.console import Progress

DYNAMIC = "dynamic"


@dataclass(frozen=True)
class Quantizing:
    """How an INT8 graph came about.

    Attributes:
        scheme: as in `align_runtime.graph_entry.Quantization`.
        samples: pictures that scales were measured on.
        trials: of observers, the best first; none where nothing is calibrated.
        operators: how many were quantised, by operator; every dense layer counts as ``"MatMul"``.
        races: against the float graphs of the tower.
    """

    scheme: str
    samples: int
    trials: tuple[Trial, ...]
    operators: Mapping[str, int]
    races: tuple[Race, ...] = ()


def quantize(
    model: ir.Model,
    pictures: Sequence[Batch],
    folder: Path,
    cache: StatisticsCache | None = None,
    progress: Progress = QUIET,
) -> Quantizing:
    """Quantises `model` in place: with the best scales on `pictures`, in batches of one, or dynamically without any.

    Args:
        folder, cache, progress: as in `align_calibration.histograms.measure_histograms`.

    Raises:
        BuildError: as `best_scales`.
    """
    if not pictures:
        return Quantizing(DYNAMIC, 0, (), {"MatMul": quantize_dynamically(model)})
    operators = Counter(node.op_type for node in quantized_nodes(model.graph))
    scales, trials = best_scales(model, pictures, folder, cache, progress)
    quantize_statically(model, scales)
    return Quantizing(trials[0].scheme, len(pictures), trials, operators)
