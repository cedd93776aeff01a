"""Histograms of a graph's tensors over samples, in bounded memory.

Two passes. The first finds the lowest and the highest value of every tensor for every sample, inside the graph. The
second counts values between them, so bins never have to move. Feature maps of the full size are some 500 MB a picture:
the second pass hands them out in slices of tensors, one run of the graph for each slice.

Samples on which a network runs away are left out of the range, not of the counts: of 128 pictures, align-tiny has one
on which activations get 228 times as large as usual. A range that held them would leave nothing for all the others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from align_calibration.observe import Batch, run_batches, set_output

BINS = 2048
RUNAWAYS = 0.02  # share of the samples that may leave the range of a tensor at either end
SLICE_ELEMENTS = 1 << 25  # of all tensors of a slice for one sample: 128 MB


@dataclass(frozen=True)
class Histogram:
    """Values of one tensor over all samples.

    Attributes:
        lowest, highest: of the values of all samples but runaways.
        counts: int64 (BINS,), values in equal parts of the range between them; those outside count at its ends.
    """

    lowest: float
    highest: float
    counts: NDArray[np.int64]

    @property
    def centres(self) -> NDArray[np.floating]:
        """Middle of each bin, float64 (BINS,)."""
        width = (self.highest - self.lowest) / len(self.counts)
        return self.lowest + width * (np.arange(len(self.counts)) + 0.5)


def measure_histograms(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], folder: Path
) -> Mapping[str, Histogram]:
    """Histograms of the float32 `tensors` of `model`, whose free dimensions are all free dimensions of its inputs.

    Args:
        model: left as it is.
        batches: inputs by name, one sample each.
        folder: as in `run_batches`.

    Raises:
        ValueError: no batches, or values that are not finite: no scale can come of them.
    """
    lowest, highest = _extremes(model, tensors, batches, folder)
    ranges = dict(zip(tensors, zip(lowest.tolist(), highest.tolist(), strict=True), strict=True))
    counts = {name: np.zeros(BINS, dtype=np.int64) for name in tensors}
    for names in _slices(model.graph, tensors, batches):
        for name, values in _values(model, names, batches, folder):
            counts[name] += _count(values, *ranges[name])
    return {name: Histogram(*ranges[name], counts[name]) for name in tensors}


def _extremes(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], folder: Path
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    watching = model.clone()
    tape, values = ir.tape.Tape(watching.graph), _by_name(watching.graph)
    one = tape.initializer(ir.tensor(np.array([1], dtype=np.int64), name="histograms.one"))
    cells = [
        tape.op("Reshape", [tape.op(operator, [values[name]], {"keepdims": 0}), one])
        for operator in ("ReduceMin", "ReduceMax")
        for name in tensors
    ]
    set_output(watching.graph, tape, cells, [len(cells)])
    extremes = np.stack(list(run_batches(watching, batches, folder))).astype(np.float64)  # (batches, 2 · tensors)
    lowest = np.quantile(extremes[:, : len(tensors)], RUNAWAYS, axis=0, method="lower")
    highest = np.quantile(extremes[:, len(tensors) :], 1 - RUNAWAYS, axis=0, method="higher")
    if not np.isfinite(extremes).all():
        raise ValueError("a tensor has infinite values")
    return lowest, highest


def _values(
    model: ir.Model, names: Sequence[str], batches: Sequence[Batch], folder: Path
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """All values of the tensors `names`, batch by batch, flat."""
    watching = model.clone()
    tape, values = ir.tape.Tape(watching.graph), _by_name(watching.graph)
    flat = tape.initializer(ir.tensor(np.array([-1], dtype=np.int64), name="histograms.flat"))
    set_output(watching.graph, tape, [tape.op("Reshape", [values[name], flat]) for name in names], ["values"])
    RemoveUnusedNodesPass()(watching)  # what comes after the slice
    for batch, output in zip(batches, run_batches(watching, batches, folder), strict=True):
        if np.isnan(output).any():  # which ReduceMin and ReduceMax pass over
            raise ValueError("a tensor has values that are not numbers")
        free = _free_sizes(model.graph, batch)
        sizes = [_elements(values[name], free) for name in names]
        yield from zip(names, np.split(output, np.cumsum(sizes)[:-1]), strict=True)


def _slices(graph: ir.Graph, tensors: Sequence[str], batches: Sequence[Batch]) -> Iterator[list[str]]:
    values, names, size = _by_name(graph), list[str](), 0
    largest = max((_free_sizes(graph, batch) for batch in batches), key=lambda free: prod(free.values()))
    for name in tensors:
        elements = _elements(values[name], largest)
        if names and size + elements > SLICE_ELEMENTS:
            yield names
            names, size = [], 0
        names.append(name)
        size += elements
    if names:
        yield names


def _free_sizes(graph: ir.Graph, batch: Batch) -> Mapping[str, int]:
    """What the names of free dimensions of the inputs stand for in `batch`."""
    return {
        str(name): size
        for value in graph.inputs
        for name, size in zip(value.shape or (), batch[value.name or ""].shape, strict=True)
        if not isinstance(name, int)
    }


def _elements(value: ir.Value, free: Mapping[str, int]) -> int:
    assert value.shape is not None
    return prod(size if isinstance(size, int) else free[str(size)] for size in value.shape)


def _by_name(graph: ir.Graph) -> Mapping[str, ir.Value]:
    results = (output for node in graph for output in node.outputs)
    return {value.name or "": value for value in [*graph.inputs, *results]}


def _count(values: NDArray[np.float32], lowest: float, highest: float) -> NDArray[np.int64]:
    """int64 (BINS,)."""
    if highest <= lowest:
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    bins = (values - np.float32(lowest)) * np.float32(BINS / (highest - lowest))
    return np.bincount(np.clip(bins, 0, BINS - 1).astype(np.int32), minlength=BINS)
