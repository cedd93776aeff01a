"""Lowest and highest value of every channel of tensors whose last axis is their channels, over samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.run_instrumented import NO_SAMPLES, Batch, run_batches, set_output


class ChannelRange(NamedTuple):
    """float32 (channels,) each."""

    lowest: NDArray[np.float32]
    highest: NDArray[np.float32]


def measure_channel_ranges(
    model: ir.Model, tensors: Sequence[str], samples: Sequence[Batch], folder: Path
) -> Mapping[str, ChannelRange]:
    """The range of each channel of `tensors`, float32 (…, channels), by name.

    Args:
        model: float32; not modified.
        samples: inputs by name.
        folder: as in `align_calibration.run_instrumented.run_batches`.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError(NO_SAMPLES)
    instrumented = model.clone()
    graph, tape = instrumented.graph, ir.tape.Tape(instrumented.graph)
    values = {value.name: value for node in graph for value in node.outputs}
    parts = list[ir.Value]()
    for number, name in enumerate(tensors):
        channels = _channels(values[name])
        shape = tape.initializer(ir.tensor(np.array([-1, channels]), name=f"channel_ranges/{number}"))
        rows = tape.op("Reshape", [values[name], shape])
        axis = tape.initializer(ir.tensor(np.array([0]), name=f"channel_ranges/{number}/axis"))
        # Both ends as a maximum, so that samples are merged in one way.
        parts += [tape.op("ReduceMax", [side, axis], {"keepdims": 0}) for side in (tape.op("Neg", [rows]), rows)]
    sizes = [size for name in tensors for size in [_channels(values[name])] * 2]
    set_output(graph, tape, parts, [sum(sizes)])
    largest = np.maximum.reduce(list(run_batches(instrumented, samples, folder)))
    ends = np.split(largest, np.cumsum(sizes)[:-1])
    return {name: ChannelRange(-ends[2 * index], ends[2 * index + 1]) for index, name in enumerate(tensors)}


def merged(first: Mapping[str, ChannelRange], second: Mapping[str, ChannelRange]) -> Mapping[str, ChannelRange]:
    """The ranges over the samples of both, of the same tensors."""
    return {
        name: ChannelRange(np.minimum(lowest, second[name].lowest), np.maximum(highest, second[name].highest))
        for name, (lowest, highest) in first.items()
    }


def _channels(value: ir.Value) -> int:
    size = value.shape[-1] if value.shape else None
    if not isinstance(size, int):
        raise ValueError(f"the number of channels of {value.name!r} is not known")
    return size
