"""Runs a graph whose output is statistics of its own tensors, so that memory stays that of an ordinary run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_runtime.backends import Runner, open_runner
from align_runtime.memory import MemoryUse
from align_runtime.processors import available_cores
from align_runtime.workers import Workers

OUTPUT = "statistics"
MAX_STREAMS = 4  # runs at once: each has the memory of its activations
NO_SAMPLES = "there are no calibration samples"
Batch = Mapping[str, NDArray[Any]]


def float_values(graph: ir.Graph) -> tuple[ir.Value, ...]:
    """The float32 inputs and node outputs of `graph`, in order."""
    results = (output for node in graph for output in node.outputs)
    return tuple(value for value in [*graph.inputs, *results] if value.dtype == ir.DataType.FLOAT)


def values_by_name(graph: ir.Graph) -> Mapping[str, ir.Value]:
    """The inputs, constants and node outputs of `graph`."""
    results = (output for node in graph for output in node.outputs)
    return {value.name or "": value for value in [*graph.inputs, *graph.initializers.values(), *results]}


def set_output(graph: ir.Graph, tape: ir.tape.Tape, parts: Sequence[ir.Value], shape: Sequence[int | str]) -> None:
    """Replaces the outputs of `graph` with the concatenation of `parts` along axis 0, float32 of `shape`.

    Its nodes are put in the order in which their inputs are ready, so that a tensor is freed soon.
    """
    output = tape.op("Concat", parts, {"axis": 0}, name=OUTPUT)
    output.name, output.type, output.shape = OUTPUT, ir.TensorType(ir.DataType.FLOAT), ir.Shape(shape)
    graph.outputs.clear()
    graph.outputs.append(output)
    levels, nodes = dict[ir.Value | None, int](), list(graph)
    for node in nodes:
        level = 1 + max((levels.get(value, 0) for value in node.inputs), default=0)
        levels.update(dict.fromkeys(node.outputs, level))
    graph.remove(nodes)
    graph.extend(sorted(nodes, key=lambda node: levels[node.outputs[0]]))


def open_model(model: ir.Model, file: Path, threads: int | None) -> Runner:
    """Opens `model` on the CPU; it is in `file` meanwhile, and its weights beside it, which takes a fraction of the
    time of a file that holds them.

    Args:
        file: is removed again, and so is the file of the weights.
        threads: of one run; None for all cores.
    """
    weights = file.with_suffix(".data")
    try:
        ir.save(model, file, external_data=weights.name)
        return open_runner(file, "cpu", threads, MemoryUse(in_order=True))
    finally:
        file.unlink(missing_ok=True)
        weights.unlink(missing_ok=True)


def run_batches(model: ir.Model, batches: Iterable[Batch], folder: Path) -> Iterator[NDArray[np.float32]]:
    """Yields the only output of `model` for each of `batches`, in their order.

    Several run at once, each on some of the cores: one sample keeps all of them less busy.

    Args:
        batches: read a few ahead.
        folder: for a temporary copy of the graph.

    Raises:
        ValueError: no batches.
    """
    cores = available_cores()
    streams = min(cores, MAX_STREAMS)
    runner = open_model(model, folder / f".{OUTPUT}.onnx", cores // streams)
    empty = True
    with closing(runner), closing(Workers(streams)) as workers:
        for output in workers.overlapped(runner.run, batches, streams):
            empty = False
            yield output
    if empty:
        raise ValueError(NO_SAMPLES)
