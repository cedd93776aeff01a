"""Which observer is best for a graph: every one is tried, and the embeddings of the samples decide."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.cache import StatisticsCache
from align_calibration.histograms import QUIET, Histogram, measure_histograms
from align_calibration.observe import Batch, run_batches
from align_calibration.observers import OBSERVERS
from align_calibration.scales import UINT8, Scale
from align_exporter.int8.static import quantize_statically, quantized_tensors
from align_runtime.console import Progress
from align_runtime.errors import BuildError

LARGEST_ERROR = 4.0


@dataclass(frozen=True)
class Trial:
    """An observer and what it does to the embeddings.

    Attributes:
        scheme: the observer's name.
        error: mean square of the distance from the float graph's embeddings, over the samples; from 0 to 4.
    """

    scheme: str
    error: float


def best_scales(
    model: ir.Model,
    batches: Sequence[Batch],
    folder: Path,
    cache: StatisticsCache | None = None,
    progress: Progress = QUIET,
) -> tuple[Mapping[str, Scale], tuple[Trial, ...]]:
    """Scales for the `quantized_tensors` of `model`, and all trials, the best first.

    Args:
        model: float32; left as it is.
        batches, folder, cache, progress: as in `measure_histograms`.

    Raises:
        BuildError: a tensor is not finite on the samples.
    """
    try:
        histograms = measure_histograms(model, quantized_tensors(model.graph), batches, folder, cache, progress)
    except ValueError as error:
        raise BuildError(f"INT8 cannot be calibrated: {error}; are these trained weights?") from None
    exact = _embeddings(model, progress.track("calibration: float embeddings", batches, len(batches)), folder)
    scales = {name: _scales(histograms, name) for name in OBSERVERS}
    trials = []
    for number, name in enumerate(OBSERVERS, start=1):
        title = f"calibration: trial {number} of {len(OBSERVERS)}, {name}"
        bar = progress.track(title, batches, len(batches))
        trials.append(Trial(name, _error(model, scales[name], exact, bar, folder)))
    trials.sort(key=lambda trial: trial.error)
    return scales[trials[0].scheme], tuple(trials)


def _scales(histograms: Mapping[str, Histogram], observer: str) -> dict[str, Scale]:
    return {name: OBSERVERS[observer](histogram, UINT8) for name, histogram in histograms.items()}


def _error(
    model: ir.Model, scales: Mapping[str, Scale], exact: NDArray[np.float64], batches: Iterable[Batch], folder: Path
) -> float:
    quantized = model.clone()
    quantize_statically(quantized, scales)
    distances = ((_embeddings(quantized, batches, folder) - exact) ** 2).sum(axis=1)
    # Not a number where the embedding is all zeros: as far as unit vectors can be.
    return float(np.where(np.isnan(distances), LARGEST_ERROR, distances).mean())


def _embeddings(model: ir.Model, batches: Iterable[Batch], folder: Path) -> NDArray[np.float64]:
    return np.concatenate(list(run_batches(model, batches, folder))).astype(np.float64)
