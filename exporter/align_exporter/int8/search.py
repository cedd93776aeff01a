"""Which observer is best for a graph: every one is tried, and the embeddings of the samples decide."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.histograms import Histogram, measure_histograms
from align_calibration.observe import Batch, run_batches
from align_calibration.observers import OBSERVERS
from align_calibration.scales import Grid, Scale
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


@dataclass(frozen=True)
class Method:
    """How graphs are quantised for a target.

    Attributes:
        grid: the numbers of activations.
        tensors: names of those that need a scale.
        apply: quantises a float32 graph in place, with a scale for each of them.
    """

    grid: Grid
    tensors: Callable[[ir.Graph], list[str]]
    apply: Callable[[ir.Model, Mapping[str, Scale]], object]


def best_scales(
    model: ir.Model, method: Method, batches: Sequence[Batch], folder: Path
) -> tuple[Mapping[str, Scale], tuple[Trial, ...]]:
    """Scales for `model`, and all trials, the best first.

    Args:
        model: float32; left as it is.
        batches, folder: as in `measure_histograms`.

    Raises:
        BuildError: a tensor is not finite on the samples.
    """
    try:
        histograms = measure_histograms(model, method.tensors(model.graph), batches, folder)
    except ValueError as error:
        raise BuildError(f"INT8 cannot be calibrated: {error}; are these trained weights?") from None
    exact = _embeddings(model, batches, folder)
    scales = {name: _scales(histograms, name, method.grid) for name in OBSERVERS}
    trials = []
    for name in OBSERVERS:
        quantized = model.clone()
        method.apply(quantized, scales[name])
        trials.append(Trial(name, _error(_embeddings(quantized, batches, folder), exact)))
    trials.sort(key=lambda trial: trial.error)
    return scales[trials[0].scheme], tuple(trials)


def _scales(histograms: Mapping[str, Histogram], observer: str, grid: Grid) -> dict[str, Scale]:
    return {name: OBSERVERS[observer](histogram, grid) for name, histogram in histograms.items()}


def _error(actual: NDArray[np.float64], exact: NDArray[np.float64]) -> float:
    distances = ((actual - exact) ** 2).sum(axis=1)
    # Not a number where the embedding is all zeros: as far as unit vectors can be.
    return float(np.where(np.isnan(distances), LARGEST_ERROR, distances).mean())


def _embeddings(model: ir.Model, batches: Sequence[Batch], folder: Path) -> NDArray[np.float64]:
    return np.concatenate(list(run_batches(model, batches, folder))).astype(np.float64)
