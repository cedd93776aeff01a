"""Scales for a graph: histograms over the calibration samples, then the observer whose embeddings are nearest.

Which observer is best differs from checkpoint to checkpoint. So every one of them (or those that the method has) is
tried on the whole graph, and the mean squared error of the embeddings decides. Observers that cannot be notably better,
by what a few samples say, are not tried on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.histograms import Histogram, measure_histograms
from align_calibration.observers import OBSERVERS, Observer, mse_after
from align_calibration.quant_params import QuantParams, QuantSpec
from align_calibration.run_instrumented import Batch, run_batches
from align_calibration.statistics_cache import StatisticsCache
from align_exporter.int8.fidelity import embedding_error, squared_distances
from align_exporter.int8.visible_ranges import visible_through
from align_runtime.errors import BuildError
from align_runtime.progress import Progress

FIRST_SAMPLES = 32  # that all observers are tried on
CERTAIN = 3.0  # standard errors of the difference of two observers, sample by sample
WORTH_TRYING = 0.05  # of the error of the best observer so far; what can be gained less is not worth more runs


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


@dataclass(frozen=True)
class ObserverTrial:
    """An observer that was tried on a graph.

    Attributes:
        scheme: its name.
        error: `embedding_error` over `samples` of the samples.
    """

    scheme: str
    error: float
    samples: int


@dataclass(frozen=True)
class QuantizationMethod:
    """How graphs are quantized for a target.

    Attributes:
        spec: the integers of activations.
        operators: those that compute in INT8.
        tensors: names of the activations that need a scale.
        apply: quantizes a float32 graph in place, with a scale for each of these tensors, but for the named parts (see
            `align_exporter.int8.mixed_precision`).
        weight_scales: rounds scales of weights to the type in which the graph stores them.
        observers: those that are tried; None for all of `OBSERVERS`.
    """

    spec: QuantSpec
    operators: Callable[[ir.Graph], Sequence[ir.Node]]
    tensors: Callable[[ir.Graph], list[str]]
    apply: Callable[[ir.Model, Mapping[str, QuantParams], Collection[str]], object]
    weight_scales: Callable[[NDArray[np.float32]], NDArray[np.float32]] = np.asarray
    observers: Mapping[str, Observer] | None = None

    @property
    def tried(self) -> Mapping[str, Observer]:
        """The observers that are tried, by name."""
        return OBSERVERS if self.observers is None else self.observers

    def with_float(self, names: Collection[str]) -> QuantizationMethod:
        """This method, with the parts `names` always float."""
        return replace(self, apply=lambda model, scales, kept: self.apply(model, scales, (*names, *kept)))

    def applied(self, model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = ()) -> ir.Model:
        """A quantized copy of `model`."""
        copy = model.clone()
        self.apply(copy, scales, kept)
        return copy


@dataclass(frozen=True)
class Choice:
    """Scales for a graph.

    Attributes:
        trials: of observers, the best first.
        few: the calibration samples that all observers were tried on.
        exact: the float graph's embeddings of these, (few, dim).
        error: `embedding_error` of the quantized graph over these.
    """

    scales: Mapping[str, QuantParams]
    trials: tuple[ObserverTrial, ...]
    few: Calibration
    exact: NDArray[np.float64]
    error: float


def choose_scales(
    model: ir.Model, method: QuantizationMethod, histograms: Mapping[str, Histogram], calibration: Calibration
) -> Choice:
    """The best scales for `model`, for which `method` has to quantize a tensor.

    Args:
        model: float32; left as it is.
        histograms: of all tensors that `method` quantizes, and perhaps of others.
    """
    tensors = method.tensors(model.graph)
    # Where readers see a tensor through a function alone, the error behind it counts, whatever the observer.
    visible = visible_through(model.graph)
    seen = {name: mse_after(visible[name])(histograms[name], method.spec) for name in tensors if name in visible}
    scales = {
        scheme: {name: seen.get(name) or observe(histograms[name], method.spec) for name in tensors}
        for scheme, observe in method.tried.items()
    }
    few = calibration.every(max(len(calibration.samples) // FIRST_SAMPLES, 1))
    exact = few.embeddings(model, "calibration: float embeddings")

    def tried(scheme: str, on: Calibration) -> NDArray[np.float64]:
        title = f"calibration: observer {list(scales).index(scheme) + 1} of {len(scales)}, {scheme}"
        return on.embeddings(method.applied(model, scales[scheme]), title)

    found = {scheme: tried(scheme, few) for scheme in scales}
    trials = _ranked(found, exact)
    best = trials[0].scheme
    error = trials[0].error
    last = [best, *(name for name in found if name != best and _may_be_better(found[name], found[best], exact))]
    if len(last) > 1 and len(few.samples) < len(calibration.samples):
        exact_of_all = calibration.embeddings(model, "calibration: float embeddings")
        final = _ranked({scheme: tried(scheme, calibration) for scheme in last}, exact_of_all)
        trials = (*final, *(trial for trial in trials if trial.scheme not in last))
        error = embedding_error(found[trials[0].scheme], exact)
    return Choice(scales[trials[0].scheme], trials, few, exact, error)


def _ranked(found: Mapping[str, NDArray[np.float64]], exact: NDArray[np.float64]) -> tuple[ObserverTrial, ...]:
    """The trials with the embeddings `found`, by observer; the best first."""
    trials = [ObserverTrial(scheme, embedding_error(rows, exact), len(rows)) for scheme, rows in found.items()]
    return tuple(sorted(trials, key=lambda trial: trial.error))


def _may_be_better(rows: NDArray[np.float64], best: NDArray[np.float64], exact: NDArray[np.float64]) -> bool:
    """Whether an observer with the embeddings `rows` may turn out notably better than the `best` so far."""
    least = squared_distances(best, exact)
    gains = least - squared_distances(rows, exact)
    return bool(gains.mean() + CERTAIN * gains.std() / np.sqrt(len(gains)) > WORTH_TRYING * least.mean())
