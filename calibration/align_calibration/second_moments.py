"""Means and covariances of what convolutions and dense layers read: how far an error in a weight reaches.

For weights w and an input patch x, the error of an output is Δw·x. Over the samples it has the mean Δw·E[x] and the
variance Δwᵀ·C·Δw with the covariance C = E[x·xᵀ] − E[x]·E[x]ᵀ. Both expectations are measured here. A patch holds what
one output channel reads at one position: for a depthwise convolution those of its own channel, for a dense layer a
token.

Positions of a feature map are subsampled: neighbours are alike, and the largest map has a hundred thousand of them. The
graph gives what is smaller: the patches, or for grouped convolutions the sums of their products.
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
FEW_PATCHES = 0.125  # of the number of inputs; fewer say too little about how these vary together
SLICE_ELEMENTS = 1 << 26  # of all moments that are measured at once: 256 MB


@dataclass(frozen=True)
class Moments:
    """Mean and covariance of the patches that a convolution or dense layer reads.

    Attributes:
        mean: E[x], float64 (groups, inputs of one output channel).
        covariance: E[x·xᵀ] − E[x]·E[x]ᵀ, float32 (groups, inputs, inputs); None where there were too few patches.
    """

    mean: NDArray[np.float64]
    covariance: NDArray[np.float32] | None


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
    for part in _slices(nodes, len(samples)):
        instrumented = model.clone()
        graph, tape = instrumented.graph, ir.tape.Tape(instrumented.graph)
        twins = {node.name: node for node in graph}
        columns = [column for node in part for column in _add_columns(tape, twins[node.name])]
        set_output(graph, tape, columns, ["moments"])
        RemoveUnusedNodesPass()(instrumented)
        sums = [_PatchSums(*patch_shape(node), _has_covariance(node, len(samples))) for node in part]
        for output in run_batches(instrumented, samples, folder):
            start = 0
            for found in sums:
                start = found.add(output, start)
        for node, found in zip(part, sums, strict=True):
            yield node, found.moments(len(samples))


class _PatchSums:
    """Sums over samples of the means of patches and of their products, each sample with the same weight."""

    def __init__(self, groups: int, inputs: int, has_covariance: bool) -> None:
        self._means = np.zeros((groups, inputs))
        self._products = np.zeros((groups, inputs, inputs), np.float32) if has_covariance else None
        self._waiting: list[NDArray[np.float32]] = []

    def add(self, output: NDArray[np.float32], start: int) -> int:
        """Adds what `_add_columns` wrote to `output` at `start`; returns the position behind it."""
        groups, inputs = self._means.shape
        count, start = int(output[start]), start + 1
        if groups > 1:
            middle = start + groups * inputs
            end = middle + groups * inputs * inputs
            self._means += output[start:middle].reshape(groups, inputs) / count
            if self._products is not None:
                self._products += output[middle:end].reshape(groups, inputs, inputs) / np.float32(count)
            return end
        end = start + count * inputs
        rows = output[start:end].reshape(count, inputs)
        self._means += rows.mean(axis=0, dtype=np.float64)
        self._waiting.append(rows / np.float32(np.sqrt(count)))
        if sum(map(len, self._waiting)) >= inputs:
            self._multiply()
        return end

    def _multiply(self) -> None:
        """Products of many patches take hardly longer than those of one: what takes time is adding them up."""
        if self._waiting and self._products is not None:
            rows = np.concatenate(self._waiting)
            self._products[0] += rows.T @ rows
        self._waiting.clear()

    def moments(self, samples: int) -> Moments:
        """Of all that was added."""
        self._multiply()
        mean = self._means / samples
        if self._products is None:
            return Moments(mean, None)
        return Moments(mean, (self._products / samples - outer_square(mean)).astype(np.float32))


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


def _has_covariance(node: ir.Node, samples: int) -> bool:
    """Whether so many samples give enough patches."""
    if node.op_type != "Conv":
        return True
    step = _grid(node)
    return samples * prod(ceil(size / step) for size in _sides(node)) >= FEW_PATCHES * patch_shape(node)[1]


def _grid(node: ir.Node) -> int:
    """Every how many rows and columns of the feature map that the convolution `node` writes a patch is measured."""
    return max(1, ceil(sqrt(prod(_sides(node)) / POSITIONS)))


def _sides(node: ir.Node) -> list[int]:
    """Height and width of the feature map that the convolution `node` writes."""
    return [size for size in (node.outputs[0].shape or ())[2:] if isinstance(size, int)]


def _slices(nodes: Sequence[ir.Node], samples: int) -> Iterator[list[ir.Node]]:
    part, size = list[ir.Node](), 0
    for node in nodes:
        groups, inputs = patch_shape(node)
        elements = groups * inputs * (1 + inputs * _has_covariance(node, samples))
        if part and size + elements > SLICE_ELEMENTS:
            yield part
            part, size = [], 0
        part.append(node)
        size += elements
    if part:
        yield part


def _add_columns(tape: ir.tape.Tape, node: ir.Node) -> list[ir.Value]:
    """Number of positions of `node`, then its patches (positions, inputs); of a grouped convolution the sums over
    positions of patches (groups, inputs) and of their products (groups, inputs, inputs). All are flat."""
    groups, inputs = patch_shape(node)
    name, value = node.name or "", node.inputs[0]
    assert value is not None
    if node.op_type == "Conv":  # (1, groups · inputs, height, width) → (groups, positions, inputs)
        grid = _constant(tape, f"{name}/patches", [groups, inputs, -1])
        columns = tape.op("Reshape", [_patches(tape, node, value), grid])
        rows = tape.op("Transpose", [columns], {"perm": [0, 2, 1]})
    else:
        rows = tape.op("Reshape", [value, _constant(tape, f"{name}/patches", [1, -1, inputs])])
    positions = tape.op("Shape", [rows], {"start": 1, "end": 2})
    found = [rows]
    if groups > 1:
        sums = tape.op("ReduceSum", [rows, _constant(tape, f"{name}/positions", [1])])
        found = [sums, tape.op("MatMul", [columns, rows])]
    flat = _constant(tape, f"{name}/flat", [-1])
    return [
        tape.op("Cast", [positions], {"to": ir.DataType.FLOAT}),
        *(tape.op("Reshape", [part, flat]) for part in found),
    ]


def _patches(tape: ir.tape.Tape, node: ir.Node, value: ir.Value) -> ir.Value:
    """A grid of the patches of the convolution `node`, (1, groups · inputs, height, width)."""
    groups, inputs = patch_shape(node)
    _, per_group, *kernel = (size for size in _weights(node).shape or () if isinstance(size, int))
    step = _grid(node)
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
