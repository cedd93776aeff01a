"""Means and covariances of what convolutions and dense layers read: how far an error in a weight reaches.

For weights w and an input patch x, the error of an output is Δw·x. Over the samples it has the mean Δw·E[x] and the
variance Δwᵀ·C·Δw with the covariance C = E[x·xᵀ] − E[x]·E[x]ᵀ. Both expectations are measured here, patch by patch and
inside the graph. A patch holds what one output channel reads at one position: for a depthwise convolution those of its
own channel, for a dense layer a token.

Positions of a feature map are subsampled: neighbours are alike, and the largest map has a hundred thousand of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, prod, sqrt
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass

from align_calibration.run_instrumented import NO_SAMPLES, Batch, run_batches, set_output

POSITIONS = 256  # of a feature map, in each sample
SLICE_ELEMENTS = 1 << 25  # of all moments that one run returns: 128 MB


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the patches that a convolution or dense layer reads.

    Attributes:
        mean: E[x], float64 (groups, inputs of one output channel).
        covariance: E[x·xᵀ] − E[x]·E[x]ᵀ, float32 (groups, inputs, inputs).
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float32]

    @property
    def second(self) -> NDArray[np.float64]:
        """E[x·xᵀ], float64 (groups, inputs, inputs)."""
        return self.covariance + outer_square(self.mean)


def outer_square(vectors: NDArray[np.float64]) -> NDArray[np.float64]:
    """v·vᵀ for each of `vectors` (groups, inputs), (groups, inputs, inputs)."""
    return vectors[:, :, None] * vectors[:, None, :]


def measure_moments(
    model: ir.Model, nodes: Sequence[ir.Node], samples: Sequence[Batch], folder: Path
) -> Iterator[tuple[ir.Node, Moments]]:
    """Yields each of `nodes`, convolutions and dense layers of `model` with constant weights, with its moments.

    Args:
        model: float32; not modified.
        samples: inputs by name, batches of one.
        folder: as in `align_calibration.run_instrumented.run_batches`.

    Raises:
        ValueError: no samples.
    """
    if not samples:
        raise ValueError(NO_SAMPLES)
    for part in _slices(nodes):
        instrumented = model.clone()
        graph, tape = instrumented.graph, ir.tape.Tape(instrumented.graph)
        twins = {node.name: node for node in graph}
        rows = [row for node in part for row in _add_moments(tape, twins[node.name])]
        set_output(graph, tape, rows, ["moments"])
        RemoveUnusedNodesPass()(instrumented)
        sums: NDArray[np.float64] = sum(  # type: ignore[assignment]
            output.astype(np.float64) / len(samples) for output in run_batches(instrumented, samples, folder)
        )
        start = 0
        for node in part:
            groups, inputs = patch_shape(node)
            middle, end = start + groups * inputs, start + groups * inputs * (inputs + 1)
            mean, second = sums[start:middle].reshape(groups, inputs), sums[middle:end].reshape(groups, inputs, inputs)
            yield node, Moments(mean, (second - outer_square(mean)).astype(np.float32))
            start = end


def patch_shape(node: ir.Node) -> tuple[int, int]:
    """Groups of the convolution or dense layer `node`, and how many inputs each of its output channels reads."""
    shape = [size for size in _weights(node).shape or () if isinstance(size, int)]
    if node.op_type == "Conv":
        return node.attributes.get_int("group", 1), prod(shape[1:])
    return 1, shape[1 if node.attributes.get_int("transB", 0) else 0]


def _weights(node: ir.Node) -> ir.Value:
    weights = node.inputs[1]
    assert weights is not None
    return weights


def _slices(nodes: Sequence[ir.Node]) -> Iterator[list[ir.Node]]:
    part, size = list[ir.Node](), 0
    for node in nodes:
        groups, inputs = patch_shape(node)
        elements = groups * inputs * (inputs + 1)
        if part and size + elements > SLICE_ELEMENTS:
            yield part
            part, size = [], 0
        part.append(node)
        size += elements
    if part:
        yield part


def _add_moments(tape: ir.tape.Tape, node: ir.Node) -> list[ir.Value]:
    """The mean and the second moment of the patches of `node`, both flat."""
    groups, inputs = patch_shape(node)
    name, value = node.name or "", node.inputs[0]
    assert value is not None
    patches = _patches(tape, node, value) if node.op_type == "Conv" else value
    if node.op_type == "Conv":  # (1, groups · inputs, height, width) → (groups, inputs, positions)
        columns = tape.op("Reshape", [patches, _constant(tape, f"{name}/patches", [groups, inputs, -1])])
        rows = tape.op("Transpose", [columns], {"perm": [0, 2, 1]})
    else:
        rows = tape.op("Reshape", [patches, _constant(tape, f"{name}/patches", [1, -1, inputs])])
        columns = tape.op("Transpose", [rows], {"perm": [0, 2, 1]})
    axis, flat = _constant(tape, f"{name}/positions", [1]), _constant(tape, f"{name}/flat", [-1])
    mean = tape.op("ReduceMean", [rows, axis])  # (groups, 1, inputs)
    sizes = tape.op("Size", [tape.op("ReduceMean", [rows, _constant(tape, f"{name}/all", [0, 2])])])
    count = tape.op("Cast", [sizes], {"to": ir.DataType.FLOAT})
    second = tape.op("Div", [tape.op("MatMul", [columns, rows]), count])
    return [tape.op("Reshape", [part, flat]) for part in (mean, second)]


def _patches(tape: ir.tape.Tape, node: ir.Node, value: ir.Value) -> ir.Value:
    """A grid of the patches of the convolution `node`, (1, groups · inputs, height, width)."""
    groups, inputs = patch_shape(node)
    _, per_group, *kernel = (size for size in _weights(node).shape or () if isinstance(size, int))
    sizes = [size for size in (node.outputs[0].shape or ())[2:] if isinstance(size, int)]
    step = max(1, ceil(sqrt(prod(sizes) / POSITIONS)))
    strides = [stride * step for stride in node.attributes.get_ints("strides", [1, 1])]
    name, pads = node.name or "", node.attributes.get_ints("pads", [0, 0, 0, 0])
    if inputs == per_group and not any(pads):
        bounds = [
            _constant(tape, f"{name}/{part}", numbers)
            for part, numbers in (
                ("starts", [0, 0]),
                ("ends", [2**31 - 1] * 2),
                ("axes", [2, 3]),
                ("steps", list(strides)),
            )
        ]
        return tape.op("Slice", [value, *bounds])
    # Each output channel of this convolution copies one element of the patch.
    unit = np.eye(inputs, dtype=np.float32).reshape(inputs, per_group, *kernel)
    copies = tape.initializer(ir.tensor(np.tile(unit, (groups, 1, 1, 1)), name=f"{name}/unit"))
    return tape.op("Conv", [value, copies], {"group": groups, "pads": list(pads), "strides": strides})


def _constant(tape: ir.tape.Tape, name: str, numbers: list[int]) -> ir.Value:
    return tape.initializer(ir.tensor(np.array(numbers, dtype=np.int64), name=f"moments/{name}"))
