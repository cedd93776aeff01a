"""Histograms of a graph's tensors over calibration samples, in bounded memory.

Two runs of the graph for each sample. The first finds the lowest and the highest value of every tensor, inside the
graph. The second counts the values between them, so that bins never have to move. In the published sizes the feature
maps of one image have 200 million values: of large tensors it counts some, evenly spread, which the graph picks.

Outlier samples do not widen the range, but are counted: of 128 images, align-tiny has one with activations 228 times
as large as usual, and a range that included it would leave almost no integers for all others.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from math import gcd, prod
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.run_instrumented import NO_SAMPLES, Batch, run_batches, set_output, values_by_name
from align_calibration.statistics_cache import Recording, Statistics, StatisticsCache, statistics_key
from align_runtime.progress import Progress

BINS = 2048
OUTLIER_FRACTION = 0.02  # of the samples may exceed the range of a tensor at either end
# About how many values of a tensor are counted, of all samples and of one: neighbours are alike.
COUNTED, COUNTED_OF_ONE = 1 << 21, 1 << 15
COUNTED_AT_ONCE = 1 << 15  # values that stay in the processor's cache, which takes a third of the time
QUIET = Progress(quiet=True)


@dataclass(frozen=True)
class Histogram:
    """Histogram of one tensor over all samples.

    Attributes:
        lowest, highest: range of the values, without outlier samples.
        counts: int64 (BINS,), of values in equal bins between them; values outside are counted in the outermost bins.
            Of a large tensor some values are counted, not all.
        lows, highs: lowest and highest value of each sample, in order, float64 (samples,).
    """

    lowest: float
    highest: float
    counts: NDArray[np.int64]
    lows: NDArray[np.float64]
    highs: NDArray[np.float64]

    @property
    def centres(self) -> NDArray[np.floating]:
        """Centre of each bin, float64 (BINS,)."""
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
    """Histograms of the float32 `tensors` of `model`, whose symbolic dimensions are all dimensions of its inputs.

    Args:
        model: not modified.
        batches: inputs by name, one sample each.
        folder: as in `run_batches`.
        cache: where statistics are stored while they are measured, and looked up first; None for no cache.
        progress: shows the completed runs of the graph in each pass.

    Raises:
        ValueError: there are no batches, or a tensor has values that are not finite.
    """
    if not batches:
        raise ValueError(NO_SAMPLES)
    recording = _recording(model, tensors, batches, cache)
    statistics, done = recording.statistics, recording.statistics.done
    runs = len(batches)  # of either pass
    if cache is not None and done:
        progress.warn(f"{done} of {2 * runs} calibration runs are taken from the cache {cache.folder}")
    first = _find_extremes(model, tensors, batches, folder, statistics)
    for _ in progress.track("calibration: ranges", first, runs, min(done, runs)):
        recording.advance()
    ranges = _ranges(tensors, statistics)
    second = _count_values(model, ranges, batches, folder, statistics)
    for _ in progress.track("calibration: histograms", second, runs, max(done - runs, 0)):
        recording.advance()
    recording.flush()
    lows, highs = statistics.extremes.astype(np.float64).transpose(1, 2, 0)  # (tensors, samples) each
    return {
        name: Histogram(*ranges[name], statistics.counts[row], lows[row], highs[row])
        for row, name in enumerate(tensors)
    }


def _recording(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], cache: StatisticsCache | None
) -> Recording:
    """Starts with the cached statistics, or with none."""
    empty = Statistics.empty(len(batches), len(tensors), BINS)
    if cache is None:
        return Recording(empty, None, "")
    parameters = {
        "bins": BINS,
        "outlier fraction": OUTLIER_FRACTION,
        "counted": COUNTED,
        "counted of one": COUNTED_OF_ONE,
    }
    key = statistics_key(model, tensors, batches, parameters)
    return Recording(cache.load(key, empty), cache, key)


def _find_extremes(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], folder: Path, statistics: Statistics
) -> Iterator[None]:
    """First pass: fills in the extremes from where `statistics` end; yields after each run of the graph."""
    done = statistics.done
    if done >= len(batches):
        return
    instrumented = model.clone()
    tape, values = ir.tape.Tape(instrumented.graph), values_by_name(instrumented.graph)
    one = _constant(tape, "histograms/one", 1)
    cells = [
        tape.op("Reshape", [tape.op(operator, [values[name]], {"keepdims": 0}), one])
        for operator in ("ReduceMin", "ReduceMax")
        for name in tensors
    ]
    set_output(instrumented.graph, tape, cells, [len(cells)])
    for sample, output in enumerate(run_batches(instrumented, islice(batches, done, None), folder), start=done):
        statistics.extremes[sample] = output.reshape(2, len(tensors))
        yield


def _ranges(tensors: Sequence[str], statistics: Statistics) -> Mapping[str, tuple[float, float]]:
    """Lowest and highest value of each tensor, without outlier samples."""
    extremes = statistics.extremes.astype(np.float64)
    finite = np.isfinite(extremes).all(axis=(0, 1))
    if not finite.all():
        raise ValueError(f"tensor {tensors[int(finite.argmin())]!r} has values that are infinite or NaN")
    lowest = np.quantile(extremes[:, 0], OUTLIER_FRACTION, axis=0, method="lower").tolist()
    highest = np.quantile(extremes[:, 1], 1 - OUTLIER_FRACTION, axis=0, method="higher").tolist()
    return dict(zip(tensors, zip(lowest, highest, strict=True), strict=True))


def _count_values(
    model: ir.Model,
    ranges: Mapping[str, tuple[float, float]],
    batches: Sequence[Batch],
    folder: Path,
    statistics: Statistics,
) -> Iterator[None]:
    """Second pass: adds to the counts from where `statistics` end; yields after each run of the graph."""
    done = statistics.done - len(batches)
    if done >= len(batches):
        return
    graph, steps = model.graph, _steps(model.graph, list(ranges), batches)
    instrumented = model.clone()
    tape, values = ir.tape.Tape(instrumented.graph), values_by_name(instrumented.graph)
    set_output(
        instrumented.graph, tape, [_picked(tape, values[name], step) for name, step in steps.items()], ["values"]
    )
    originals = values_by_name(graph)
    for batch, output in zip(
        islice(batches, done, None), run_batches(instrumented, islice(batches, done, None), folder), strict=True
    ):
        sizes = _symbol_sizes(graph, batch)
        ends = np.cumsum([-(-_elements(originals[name], sizes) // step) for name, step in steps.items()])
        if np.isnan(output).any():  # ReduceMin and ReduceMax may skip NaN
            first = int(np.searchsorted(ends, np.isnan(output).argmax(), side="right"))
            raise ValueError(f"tensor {list(ranges)[first]!r} has values that are NaN")
        for row, (part, limits) in enumerate(zip(np.split(output, ends[:-1]), ranges.values(), strict=True)):
            statistics.counts[row] += _count(part, *limits)
        yield


def _steps(graph: ir.Graph, tensors: Sequence[str], batches: Sequence[Batch]) -> Mapping[str, int]:
    """Every how many values of each of `tensors` one is counted, so that these are about as many as may be.

    A step has no factor in common with the size of its tensor, so that it passes over no row, column or channel.
    """
    values = values_by_name(graph)
    largest = max((_symbol_sizes(graph, batch) for batch in batches), key=lambda sizes: prod(sizes.values()))
    steps, most = {}, min(COUNTED_OF_ONE, max(COUNTED // len(batches), 1))
    for name in tensors:
        elements = _elements(values[name], largest)
        step = max(elements // most, 1)
        while gcd(step, elements) > 1:
            step += 1
        steps[name] = step
    return steps


def _picked(tape: ir.tape.Tape, value: ir.Value, step: int) -> ir.Value:
    """Every `step`-th element of `value`, flat."""
    name = f"histograms/{value.name}"
    flat = tape.op("Reshape", [value, _constant(tape, f"{name}/flat", -1)])
    if step == 1:
        return flat
    bounds = {"start": 0, "end": np.iinfo(np.int64).max, "axis": 0, "step": step}
    return tape.op("Slice", [flat, *(_constant(tape, f"{name}/{part}", number) for part, number in bounds.items())])


def _constant(tape: ir.tape.Tape, name: str, number: int) -> ir.Value:
    return tape.initializer(ir.tensor(np.array([number], dtype=np.int64), name=name))


def _symbol_sizes(graph: ir.Graph, batch: Batch) -> Mapping[str, int]:
    """Sizes in `batch` of the symbolic dimensions of the inputs, by name."""
    return {
        str(name): size
        for value in graph.inputs
        for name, size in zip(value.shape or (), batch[value.name or ""].shape, strict=True)
        if not isinstance(name, int)
    }


def _elements(value: ir.Value, sizes: Mapping[str, int]) -> int:
    """Number of elements of `value`, with `sizes` for its symbolic dimensions."""
    assert value.shape is not None
    return prod(size if isinstance(size, int) else sizes[str(size)] for size in value.shape)


def _count(values: NDArray[np.float32], lowest: float, highest: float) -> NDArray[np.int64]:
    """Counts of `values`, int64 (BINS,). A range too narrow for float32 bins is counted in the first bin."""
    scale = BINS / (float(highest) - float(lowest)) if highest > lowest else np.inf
    if scale > float(np.finfo(np.float32).max):
        return np.bincount([0], weights=[values.size], minlength=BINS).astype(np.int64)
    first, bins_per_unit = np.float32(lowest), np.float32(scale)
    counts = np.zeros(BINS, dtype=np.int64)
    for start in range(0, values.size, COUNTED_AT_ONCE):
        bins = (values[start : start + COUNTED_AT_ONCE] - first) * bins_per_unit
        counts += np.bincount(np.clip(bins, 0, BINS - 1, out=bins).astype(np.intp), minlength=BINS)
    return counts
