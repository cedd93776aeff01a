"""Which observer is best for a graph: every one is tried, and the embeddings of the samples decide."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import onnx_ir as ir

from align_calibration.histograms import Histogram
from align_calibration.observers import OBSERVERS, mse_after_swish
from align_calibration.quant_params import QuantParams, QuantSpec
from align_exporter.int8.calibration import Calibration
from align_exporter.int8.fidelity import embedding_error


@dataclass(frozen=True)
class ObserverTrial:
    """An observer and what it does to the embeddings.

    Attributes:
        scheme: the observer's name.
        error: `embedding_error` over the samples.
    """

    scheme: str
    error: float


@dataclass(frozen=True)
class QuantizationMethod:
    """How graphs are quantised for a target.

    Attributes:
        grid: the numbers of activations.
        operators: those that compute in INT8.
        tensors: names of the activations that need a scale.
        apply: quantises a float32 graph in place, with a scale for each of them, but for the named parts (see
            `align_exporter.int8.units`).
    """

    grid: QuantSpec
    operators: Callable[[ir.Graph], Sequence[ir.Node]]
    tensors: Callable[[ir.Graph], list[str]]
    apply: Callable[[ir.Model, Mapping[str, QuantParams], Collection[str]], object]

    def applied(self, model: ir.Model, scales: Mapping[str, QuantParams], kept: Collection[str] = ()) -> ir.Model:
        """A quantised copy of `model`."""
        copy = model.clone()
        self.apply(copy, scales, kept)
        return copy


def best_scales(
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
    swished = swish_inputs(model.graph)
    exact = calibration.embeddings(model, "calibration: float embeddings")
    scales, trials = {}, []
    for number, name in enumerate(OBSERVERS, start=1):
        scales[name] = _scales(histograms, name, method.grid, swished)
        quantized = method.applied(model, scales[name])
        actual = calibration.embeddings(quantized, f"calibration: trial {number} of {len(OBSERVERS)}, {name}")
        trials.append(ObserverTrial(name, embedding_error(actual, exact)))
    trials.sort(key=lambda trial: trial.error)
    return scales[trials[0].scheme], tuple(trials)


def swish_inputs(graph: ir.Graph) -> set[str]:
    """Names of the tensors that nothing but a swish reads: Mul(x, Sigmoid(x))."""
    return {
        value.name or ""
        for node in graph
        if node.op_type == "Sigmoid" and (value := node.inputs[0]) is not None
        if {use.node for use in value.uses()} == {node, *(use.node for use in node.outputs[0].uses())}
    }


def _scales(
    histograms: Mapping[str, Histogram], observer: str, grid: QuantSpec, swished: Collection[str]
) -> dict[str, QuantParams]:
    """For what a swish reads, the error behind it counts, whatever the observer of the others."""
    return {
        name: (mse_after_swish if name in swished else OBSERVERS[observer])(histogram, grid)
        for name, histogram in histograms.items()
    }
