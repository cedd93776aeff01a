"""Mean of every channel of every feature map of a graph, over samples."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.run_instrumented import Batch, float_values, run_batches, set_output


def measure_channel_means(model: ir.Model, batches: Iterable[Batch], folder: Path) -> Mapping[str, NDArray[np.float64]]:
    """Mean over samples, height and width of each float32 tensor (n, C, h, w) of `model`: name → float64 (C,).

    Args:
        model: float32; not modified.
        batches: inputs by name, consumed one by one.
        folder: as in `run_batches`.

    Raises:
        ValueError: no batches.
    """
    instrumented = model.clone()
    graph = instrumented.graph
    channels = {value: _channels(value) for value in float_values(graph)}
    maps = {value: count for value, count in channels.items() if count is not None}
    tape = ir.tape.Tape(graph)
    batch_axis = tape.initializer(ir.tensor(np.array([0], dtype=np.int64), name="channel_means.batch"))
    space = tape.initializer(ir.tensor(np.array([2, 3], dtype=np.int64), name="channel_means.space"))
    sums = [
        tape.op("ReduceSum", [tape.op("ReduceMean", [value, space], {"keepdims": 0}), batch_axis], {"keepdims": 0})
        for value in maps
    ]
    set_output(graph, tape, sums, [sum(maps.values())])
    sizes: list[int] = []
    total = sum(run_batches(instrumented, _counted(batches, sizes), folder), np.zeros(sum(maps.values())))
    means = total / sum(sizes)
    parts = np.split(means, np.cumsum(list(maps.values()))[:-1])
    return {value.name or "": part for value, part in zip(maps, parts, strict=True)}


def _counted(batches: Iterable[Batch], sizes: list[int]) -> Iterator[Batch]:
    """Yields `batches` and appends the number of samples of each to `sizes`."""
    for batch in batches:
        sizes.append(len(next(iter(batch.values()))))
        yield batch


def _channels(value: ir.Value) -> int | None:
    """Number of channels of a feature map (n, C, h, w); None for any other tensor."""
    if value.shape is None or len(value.shape) != 4:
        return None
    size = value.shape[1]
    return size if isinstance(size, int) else None
