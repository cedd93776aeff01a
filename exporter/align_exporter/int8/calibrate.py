"""Scales for a graph: of some ways to find them the one whose embeddings are nearest to the float graph's.

Scales by what the layers behind a tensor make of it (layer_outputs.py) are hard to beat, and which observer comes next
differs from checkpoint to checkpoint. So all are tried on the whole graph, and the mean squared error of the embeddings
decides: an observer has to be notably better. What is clearly worse on a few samples is not tried on more.
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
# Samples of each round, at most, and what stays for the next: errors up to so many times the smallest. A few samples
# say little about errors that are alike. For the last round nothing stays that was worse than layer outputs in the one
# before, and of the observers only the best two; it is held where more than one scheme has stayed.
ROUNDS = ((8, 2.0), (32, 1.25), (128, 1.0))
OBSERVERS_AT_LAST = 2
NOTABLE = 0.05  # of the error of layer outputs: an observer has to gain so much


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
        trials: of observers, the chosen one first, then the best; last those that were tried on fewer samples.
        samples: the calibration samples of the last round.
        exact: the float graph's embeddings of these, (samples, dim).
        error: `embedding_error` of the quantized graph over these.
    """

    scales: Mapping[str, QuantParams]
    trials: tuple[ObserverTrial, ...]
    samples: Calibration
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
    trials, stay = dict[str, ObserverTrial](), list(scales)
    for number, (count, factor) in enumerate(ROUNDS, start=1):
        samples = calibration.at_most(count)
        exact = samples.embeddings(model, f"calibration: float embeddings, round {number}")
        for scheme in stay:
            title = f"calibration: observers, round {number}, {scheme}"
            actual = samples.embeddings(method.applied(model, scales[scheme]), title)
            trials[scheme] = ObserverTrial(scheme, embedding_error(actual, exact), len(exact))
        last, bar = stay, factor * min(trials[scheme].error for scheme in stay)
        if number > 1 and LAYER_OUTPUTS in stay:
            bar = min(bar, trials[LAYER_OUTPUTS].error)
        stay = sorted((one for one in stay if trials[one].error <= bar), key=lambda one: trials[one].error)
        if number > 1:
            observers = [one for one in stay if one != LAYER_OUTPUTS][:OBSERVERS_AT_LAST]
            stay = [one for one in stay if one == LAYER_OUTPUTS or one in observers]
        if len(exact) == len(calibration.samples) or (number > 1 and len(stay) == 1):
            break
    least = (1 - NOTABLE) * trials[LAYER_OUTPUTS].error if LAYER_OUTPUTS in last else np.inf

    def rank(trial: ObserverTrial) -> tuple[bool, bool, float]:
        return trial.scheme not in last, trial.scheme != LAYER_OUTPUTS and trial.error >= least, trial.error

    best, *others = sorted(trials.values(), key=rank)
    return Choice(scales[best.scheme], (best, *others), samples, exact, best.error)


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
