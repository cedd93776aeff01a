"""Scales for a graph: histograms over the calibration samples, then the observer whose embeddings are nearest.

Which observer is best differs from checkpoint to checkpoint. So every one of them is tried on the whole graph, and the
mean squared error of the embeddings decides.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.histograms import Histogram, measure_histograms
from align_calibration.observers import OBSERVERS, mse_after_swish
from align_calibration.quant_params import QuantParams, QuantSpec
from align_calibration.run_instrumented import Batch, run_batches
from align_calibration.statistics_cache import StatisticsCache
from align_exporter.int8.fidelity import embedding_error
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
        error: `embedding_error` over the samples.
    """

    scheme: str
    error: float


@dataclass(frozen=True)
class QuantizationMethod:
    """How graphs are quantized for a target.

    Attributes:
        spec: the integers of activations.
        operators: those that compute in INT8.
        tensors: names of the activations that need a scale.
        apply: quantizes a float32 graph in place, with a scale for each of these tensors, but for the named parts (see
            `align_exporter.int8.mixed_precision`).
    """

    spec: QuantSpec
    operators: Callable[[ir.Graph], Sequence[ir.Node]]
    tensors: Callable[[ir.Graph], list[str]]
    apply: Callable[[ir.Model, Mapping[str, QuantParams], Collection[str]], object]

    def applied(self, model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = ()) -> ir.Model:
        """A quantized copy of `model`."""
        copy = model.clone()
        self.apply(copy, scales, kept)
        return copy


def choose_scales(
    model: ir.Model, method: QuantizationMethod, calibration: Calibration
) -> tuple[Mapping[str, QuantParams], tuple[ObserverTrial, ...]]:
    """Scales for `model`, and all trials, the best first; nothing where no tensor needs a scale.

    Args:
        model: float32; left as it is.

    Raises:
        BuildError: a tensor is not finite on the samples.
    """
    tensors = method.tensors(model.graph)
    if not tensors:
        return {}, ()
    histograms = calibration.histograms(model, tensors)
    # For the input of a swish, the error after the swish counts, whatever the observer of the other tensors.
    swished = swish_inputs(model.graph)
    fixed = {name: mse_after_swish(histograms[name], method.spec) for name in tensors if name in swished}
    exact = calibration.embeddings(model, "calibration: float embeddings")
    scales, trials = {}, []
    for number, name in enumerate(OBSERVERS, start=1):
        observe = OBSERVERS[name]
        scales[name] = {tensor: fixed.get(tensor) or observe(histograms[tensor], method.spec) for tensor in tensors}
        quantized = method.applied(model, scales[name])
        actual = calibration.embeddings(quantized, f"calibration: observer {number} of {len(OBSERVERS)}, {name}")
        trials.append(ObserverTrial(name, embedding_error(actual, exact)))
    trials.sort(key=lambda trial: trial.error)
    return scales[trials[0].scheme], tuple(trials)


def swish_inputs(graph: ir.Graph) -> set[str]:
    """Names of the tensors that only a swish reads: Mul(x, Sigmoid(x))."""
    return {
        value.name or ""
        for node in graph
        if node.op_type == "Sigmoid" and (value := node.inputs[0]) is not None
        if {use.node for use in value.uses()} == {node, *(use.node for use in node.outputs[0].uses())}
    }
