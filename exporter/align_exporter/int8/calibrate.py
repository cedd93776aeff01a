"""Scales for a graph: of some ways to find them the one whose embeddings are nearest to the float graph's.

Scales by what the layers behind a tensor make of it (layer_outputs.py) are hard to beat, and which observer comes next
differs from checkpoint to checkpoint. So all are tried on the whole graph, on a few samples, and the mean squared error
of the embeddings decides: an observer has to be notably better. One that is worse on the first of these samples is not
tried on the others.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.histograms import Histogram
from align_calibration.observers import OBSERVERS, Observer, mse_after, percentile
from align_calibration.quant_params import QuantParams, QuantSpec
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.fidelity import embedding_error
from align_exporter.int8.layer_outputs import scales_by_outputs
from align_exporter.int8.visible_ranges import visible_through

LAYER_OUTPUTS = "layer outputs"
START = percentile(0.9999)  # of layer outputs, and what tensors get that no convolution reads
TRIED_SAMPLES = 32
FIRST_SAMPLES = 8  # of these: on them everything is tried
NOTABLE = 0.05  # of the error of layer outputs: an observer has to gain so much, on the few samples


@dataclass(frozen=True)
class ObserverTrial:
    """An observer that was tried on a graph.

    Attributes:
        scheme: its name, or `LAYER_OUTPUTS`.
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
        observers: those that are tried; None for all of `OBSERVERS` and `LAYER_OUTPUTS`.
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
        trials: of observers, the chosen one first, then the best; last those that were not tried on all samples.
        few: the calibration samples that they were tried on.
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
    scales = _schemes(model, method, histograms, calibration)
    few = calibration.at_most(TRIED_SAMPLES)
    exact = few.embeddings(model, "calibration: float embeddings")

    def tried(schemes: Collection[str], step: int) -> dict[str, ObserverTrial]:
        found = {}
        for number, scheme in enumerate(schemes, start=1):
            title = f"calibration: observer {number} of {len(schemes)}, {scheme}"
            actual = few.every(step).embeddings(method.applied(model, scales[scheme]), title)
            found[scheme] = ObserverTrial(scheme, embedding_error(actual, exact[::step]), len(actual))
        return found

    step = max(len(exact) // FIRST_SAMPLES, 1)
    first = tried(scales, step)
    bar = first[LAYER_OUTPUTS].error if LAYER_OUTPUTS in first else np.inf
    last = first if step == 1 else tried([scheme for scheme in scales if first[scheme].error <= bar], 1)
    least = (1 - NOTABLE) * last[LAYER_OUTPUTS].error if LAYER_OUTPUTS in last else np.inf
    order = sorted(
        last.values(), key=lambda trial: (trial.scheme != LAYER_OUTPUTS and trial.error >= least, trial.error)
    )
    others = sorted((first[scheme] for scheme in scales if scheme not in last), key=lambda trial: trial.error)
    return Choice(scales[order[0].scheme], (*order, *others), few, exact, order[0].error)


def _schemes(
    model: ir.Model, method: QuantizationMethod, histograms: Mapping[str, Histogram], calibration: Calibration
) -> Mapping[str, Mapping[str, QuantParams]]:
    """The scales that are tried, by the name of the observer."""
    tensors = method.tensors(model.graph)
    # Where readers see a tensor through a function alone, the error behind it counts, whatever the observer.
    visible = visible_through(model.graph)
    seen = {name: mse_after(visible[name])(histograms[name], method.spec) for name in tensors if name in visible}

    def observed(observe: Observer) -> dict[str, QuantParams]:
        return {name: seen.get(name) or observe(histograms[name], method.spec) for name in tensors}

    scales = {scheme: observed(observe) for scheme, observe in method.tried.items()}
    if method.observers is None:
        start = observed(START)
        by_outputs = scales_by_outputs(model, start, method.spec, histograms, calibration)
        scales = ({LAYER_OUTPUTS: {**start, **by_outputs}} if by_outputs else {}) | scales
    return scales
