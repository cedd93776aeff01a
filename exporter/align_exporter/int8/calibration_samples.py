"""The samples that an INT8 graph is calibrated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.histograms import Histogram, measure_histograms
from align_calibration.run_instrumented import Batch, run_batches
from align_calibration.statistics_cache import StatisticsCache
from align_runtime.errors import BuildError
from align_runtime.progress import Progress


@dataclass(frozen=True)
class Calibration:
    """Samples, and what is needed to run graphs on them.

    Attributes:
        samples: inputs by name, one sample each; empty for a graph that needs no scales.
        folder: as in `align_calibration.run_instrumented.run_batches`.
        cache: cached statistics, so that a killed export resumes; None for no cache.
    """

    samples: Sequence[Batch]
    folder: Path
    cache: StatisticsCache | None
    progress: Progress

    def every(self, step: int, start: int = 0) -> Calibration:
        """Of the samples every `step`-th from `start` on."""
        return replace(self, samples=self.samples[start::step])

    def at_most(self, count: int) -> Calibration:
        """Of the samples at most `count`, evenly spread."""
        return self.every(max(-(-len(self.samples) // count), 1))

    def histograms(self, model: ir.Model, tensors: Sequence[str]) -> Mapping[str, Histogram]:
        """Histograms of the `tensors` of `model` over the samples.

        Raises:
            BuildError: a tensor is not finite on the samples.
        """
        try:
            return measure_histograms(model, tensors, self.samples, self.folder, self.cache, self.progress)
        except ValueError as error:
            raise BuildError(f"INT8 cannot be calibrated: {error}; are these trained weights?") from None

    def embeddings(self, model: ir.Model, title: str) -> NDArray[np.float64]:
        """The embeddings that `model` gives for the samples, (samples, dim)."""
        bar = self.progress.track(title, self.samples, len(self.samples))
        return np.concatenate(list(run_batches(model, bar, self.folder))).astype(np.float64)
