"""What a graph is calibrated on, and where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.histograms import Histogram, measure_histograms
from align_calibration.run_instrumented import Batch, run_batches
from align_calibration.statistics_cache import StatisticsCache
from align_runtime.console import Progress
from align_runtime.errors import BuildError


@dataclass(frozen=True)
class Calibration:
    """Samples to calibrate a graph on.

    Attributes:
        samples: inputs by name, one sample each; none for a graph that needs no scales.
        folder: as in `align_calibration.run_instrumented.run_batches`.
        cache: where statistics outlive a killed export; None for nowhere.
        progress: what shows how far the runs are.
    """

    samples: Sequence[Batch]
    folder: Path
    cache: StatisticsCache | None
    progress: Progress

    def histograms(self, model: ir.Model, tensors: Sequence[str]) -> Mapping[str, Histogram]:
        """Of the `tensors` of `model` over the samples.

        Raises:
            BuildError: a tensor is not finite on the samples.
        """
        try:
            return measure_histograms(model, tensors, self.samples, self.folder, self.cache, self.progress)
        except ValueError as error:
            raise BuildError(f"INT8 cannot be calibrated: {error}; are these trained weights?") from None

    def embeddings(self, model: ir.Model, title: str) -> NDArray[np.float64]:
        """What `model` makes of the samples, (samples, dim)."""
        bar = self.progress.track(title, self.samples, len(self.samples))
        return np.concatenate(list(run_batches(model, bar, self.folder))).astype(np.float64)
