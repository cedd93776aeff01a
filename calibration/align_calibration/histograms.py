"""Histograms of a graph's tensors over samples, in bounded memory.

Two passes. The first finds the lowest and the highest value of every tensor for every sample, inside the graph. The
second counts values between them, so bins never have to move. Feature maps of the full size are some 500 MB a image:
the second pass hands them out in slices of tensors, one run of the graph for each slice.

Samples on which a network runs away are left out of the range, not of the counts: of 128 images, align-tiny has one
on which activations get 228 times as large as usual. A range that held them would leave nothing for all the others.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, tee
from math import prod
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from align_calibration.run_instrumented import Batch, run_batches, set_output
from align_calibration.statistics import Statistics, statistics_key
from align_calibration.statistics_cache import Recording, StatisticsCache
from align_runtime.console import Progress

BINS = 2048
OUTLIER_FRACTION = 0.02  # share of the samples that may leave the range of a tensor at either end
SLICE_ELEMENTS = 1 << 25  # of all tensors of a slice for one sample: 128 MB
COUNTED_AT_ONCE = 1 << 15  # values: these stay in the processor's cache, which takes a third of the time
QUIET = Progress(quiet=True)


@dataclass(frozen=True)
class Histogram:
    """Values of one tensor over all samples.

    Attributes:
        lowest, highest: of the values of all samples but runaways.
        counts: int64 (BINS,), values in equal parts of the range between them; those outside count at its ends.
        lows, highs: lowest and highest value of each sample, in order, float64 (samples,).
    """

    lowest: float
    highest: float
    counts: NDArray[np.int64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.floating]:
        """Middle of each bin, float64 (BINS,)."""
        width = (self.highest - self.lowest) / len(self.counts)
        return self.lowest + width * (np.arange(len(self.counts)) + 0.5)


def measure_histograms(
    model: ir.Model,
    tensors: Sequence[str],
    batches: Sequence[Batch],
    folder: Path,
    cache: StatisticsCache | None = None,
    progress: Progress = QUIET,
) -> Mapping[str, Histogram]:
    """Histograms of the float32 `tensors` of `model`, whose free dimensions are all free dimensions of its inputs.

    Args:
        model: left as it is.
        batches: inputs by name, one sample each.
        folder: as in `run_batches`.
        cache: where statistics are kept while they are measured, and found if they were before; None for nowhere.
        progress: shows how many runs of the graph each pass has done.

    Raises:
        ValueError: no batches, or values that are not finite: no scale can come of them.
    """
    if not batches:
        raise ValueError("no samples to observe the graph on")
    slices = list(_slices(model.graph, tensors, batches))
    recording = _recording(model, tensors, batches, cache)
    statistics, done = recording.statistics, recording.statistics.done
    first_runs, second_runs = len(batches), len(batches) * len(slices)
    if cache is not None and done:
        total = f"{done} of {first_runs + second_runs} runs of the calibration"
        progress.warn(f"{total} were done before and are taken from {cache.folder}")
    first = _find_extremes(model, tensors, batches, folder, statistics)
    for _ in progress.track("calibration: ranges", first, first_runs, min(done, first_runs)):
        recording.advance()
    ranges = _ranges(tensors, statistics)
    second = _count_values(model, slices, ranges, batches, folder, statistics)
    for _ in progress.track("calibration: histograms", second, second_runs, max(done - first_runs, 0)):
        recording.advance()
    recording.finish()
    lows, highs = statistics.extremes.astype(np.float64).transpose(1, 2, 0)  # (tensors, samples) each
    return {
        name: Histogram(*ranges[name], statistics.counts[row], lows[row], highs[row])
        for row, name in enumerate(tensors)
    }


def _recording(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], cache: StatisticsCache | None
) -> Recording:
    """Of what was measured before, or of nothing yet."""
    empty = Statistics.nothing(len(batches), len(tensors), BINS)
    if cache is None:
        return Recording(empty, None, "")
    parameters = {"bins": BINS, "runaways": OUTLIER_FRACTION, "slice elements": SLICE_ELEMENTS}
    key = statistics_key(model, tensors, batches, parameters)
    return Recording(cache.load(key, empty), cache, key)


def _find_extremes(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], folder: Path, statistics: Statistics
) -> Iterator[None]:
    """The first pass from where `statistics` end: fills in their extremes, a run of the graph at a time."""
    done = statistics.done
    if done >= len(batches):
        return
    watching = model.clone()
    tape, values = ir.tape.Tape(watching.graph), _by_name(watching.graph)
    one = tape.initializer(ir.tensor(np.array([1], dtype=np.int64), name="histograms.one"))
    cells = [
        tape.op("Reshape", [tape.op(operator, [values[name]], {"keepdims": 0}), one])
        for operator in ("ReduceMin", "ReduceMax")
        for name in tensors
    ]
    set_output(watching.graph, tape, cells, [len(cells)])
    for sample, output in enumerate(run_batches(watching, islice(batches, done, None), folder), start=done):
        statistics.extremes[sample] = output.reshape(2, len(tensors))
        yield


def _ranges(tensors: Sequence[str], statistics: Statistics) -> Mapping[str, tuple[float, float]]:
    """Lowest and highest value of each tensor, without runaways."""
    extremes = statistics.extremes.astype(np.float64)
    if not np.isfinite(extremes).all():
        raise ValueError("a tensor has infinite values")
    lowest = np.quantile(extremes[:, 0], OUTLIER_FRACTION, axis=0, method="lower").tolist()
    highest = np.quantile(extremes[:, 1], 1 - OUTLIER_FRACTION, axis=0, method="higher").tolist()
    return dict(zip(tensors, zip(lowest, highest, strict=True), strict=True))


def _count_values(
    model: ir.Model,
    slices: Sequence[Sequence[str]],
    ranges: Mapping[str, tuple[float, float]],
    batches: Sequence[Batch],
    folder: Path,
    statistics: Statistics,
) -> Iterator[None]:
    """The second pass from where `statistics` end: adds to their counts, a run of the graph at a time."""
    done = statistics.done - len(batches)
    rows = {name: row for row, name in enumerate(ranges)}
    for index, names in enumerate(slices):
        start = max(done - index * len(batches), 0)
        if start >= len(batches):
            continue
        for values in _values(model, names, islice(batches, start, None), folder):
            for name, part in zip(names, values, strict=True):
                statistics.counts[rows[name]] += _count(part, *ranges[name])
            yield


def _values(
    model: ir.Model, names: Sequence[str], batches: Iterable[Batch], folder: Path
) -> Iterator[list[NDArray[np.float32]]]:
    """All values of each of the tensors `names`, batch by batch, flat."""
    watching = model.clone()
    tape, values = ir.tape.Tape(watching.graph), _by_name(watching.graph)
    flat = tape.initializer(ir.tensor(np.array([-1], dtype=np.int64), name="histograms.flat"))
    set_output(watching.graph, tape, [tape.op("Reshape", [values[name], flat]) for name in names], ["values"])
    RemoveUnusedNodesPass()(watching)  # what comes after the slice
    inputs, again = tee(batches)  # the sizes of a batch are needed beside what comes of it
    for output, batch in zip(run_batches(watching, inputs, folder), again, strict=True):
        if np.isnan(output).any():  # which ReduceMin and ReduceMax pass over
            raise ValueError("a tensor has values that are not numbers")
        free = _free_sizes(model.graph, batch)
        sizes = [_elements(values[name], free) for name in names]
        yield np.split(output, np.cumsum(sizes)[:-1])


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
    """int64 (BINS,). What lies closer together than float32 can divide falls into the first bin."""
    scale = BINS / (float(highest) - float(lowest)) if highest > lowest else np.inf
    if scale > float(np.finfo(np.float32).max):
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    first, bins_per_unit = np.float32(lowest), np.float32(scale)
    counts = np.zeros(BINS, dtype=np.int64)
    for start in range(0, values.size, COUNTED_AT_ONCE):
        bins = (values[start : start + COUNTED_AT_ONCE] - first) * bins_per_unit
        counts += np.bincount(np.clip(bins, 0, BINS - 1, out=bins).astype(np.intp), minlength=BINS)
    return counts
