"""Shifts and scales the channels of activations that dense layers read: exact in float, far better in INT8.

before: MatMul(x, W) + b      after: MatMul((x − z) · 1/f, diag(f) · W) + (b + z·W), for all layers that read x

z per channel of x: the middle of its range
f per channel of x: max|x − z|^α, with geometric mean 1; behind GELU and attention at least that of the median channel:
  one that is small on the calibration samples may be large on another input, and would be made larger still

A few channels of a transformer are ten to a hundred times as large as the others. They set the scale, and the others
keep few integers. Two things make them small. Most lie on one side of 0, and a symmetric scale needs twice the integers
for them: Wei et al., "Outlier Suppression+: Accurate quantization of large language models by equivalent and optimal
shifting and scaling", 2023, section 4.1. What is left is moved into the weights: Xiao et al., "SmoothQuant: Accurate
and Efficient Post-Training Quantization for Large Language Models", 2022, section 4, whose factors also depend on the
weights: with a scale per output channel and rounding by round_weights.py that gained nothing (docs/int8.md).

Both papers fold 1/f and z into the layer norm before. In BERT the residual reads the layer norm too, so they are
operators of their own, which cost as much as a bias.

What is fitted to few calibration samples may not hold on others: a network without outliers loses more than it gains
(align-tiny, calibrated on the 36 built-in captions: cosine 0.80 instead of 0.998). So which of `MIGRATIONS` is used is
measured on samples that it was not fitted to (prepare_weights.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.channel_ranges import ChannelRange
from align_exporter.graph.ir_helpers import add_constant, constant_values, name_of, operand, producer_of, set_constant
from align_exporter.int8.biases import bias_operand, bias_values
from align_exporter.int8.insert_qdq import output_axis

LEAST = 1e-3  # of the largest channel: one that is always 0 gets no larger factor than this allows
Vector = NDArray[np.float64]


@dataclass(frozen=True)
class Migration:
    """What is done to channels.

    Attributes:
        shifted: whether z is the middle of the range; otherwise it is 0.
        behind_norms: α behind layer norms, where a channel is large on every input; 0 for no factors.
        elsewhere: α behind GELU and attention, where its size depends on the input.
    """

    shifted: bool
    behind_norms: float
    elsewhere: float


# Exponents from 0.7 to 1 behind norms, and from 0.35 to 0.5 elsewhere, measured alike on trained weights.
UNCHANGED = "none"
MIGRATIONS: Mapping[str, Migration] = {
    UNCHANGED: Migration(False, 0.0, 0.0),
    "scaled behind norms": Migration(False, 0.85, 0.0),
    "shifted": Migration(True, 0.85, 0.0),
    "shifted and scaled": Migration(True, 0.85, 0.35),
}


def migrate_outliers(
    graph: ir.Graph, layers: Sequence[ir.Node], ranges: Mapping[str, ChannelRange], migration: Migration
) -> None:
    """Rewrites the dense `layers` of `graph`, in place.

    Args:
        ranges: of the tensors that they read, by name.
    """
    readers: dict[ir.Value, list[ir.Node]] = {}
    for node in layers:
        readers.setdefault(operand(node, 0), []).append(node)
    for value, nodes in readers.items():
        lowest, highest = (ends.astype(np.float64) for ends in ranges[name_of(value)])
        shift = np.zeros_like(lowest)
        if migration.shifted and all(bias_operand(node) is not None for node in nodes):
            shift = _stored((lowest + highest) / 2)
        is_norm = producer_of(value).op_type == "LayerNormalization"
        exponent = migration.behind_norms if is_norm else migration.elsewhere
        sizes = np.maximum(shift - lowest, highest - shift)
        if not is_norm:
            sizes = np.maximum(sizes, np.median(sizes))
        factors = 1 / _stored(1 / _factors(sizes, exponent))
        _rewrite(graph, value, nodes, shift, factors)


def _stored(values: Vector) -> Vector:
    """`values` as FP16 holds them, where it does: weights and biases compensate for what the graph really computes."""
    with np.errstate(over="ignore"):
        rounded = values.astype(np.float16).astype(np.float64)
    return np.where(np.isfinite(rounded) & (rounded != 0), rounded, values.astype(np.float32))


def _by_input(node: ir.Node) -> Vector:
    """The weights of the dense layer `node`, float64 (inputs, outputs)."""
    return np.moveaxis(constant_values(operand(node, 1)).astype(np.float64), output_axis(node), 1)


def _factors(sizes: Vector, exponent: float) -> Vector:
    if not sizes.any():
        return np.ones_like(sizes)
    factors = np.maximum(sizes, LEAST * sizes.max()) ** exponent
    return factors / np.exp(np.log(factors).mean())


def _rewrite(graph: ir.Graph, value: ir.Value, nodes: Sequence[ir.Node], shift: Vector, factors: Vector) -> None:
    """Makes `nodes` read (value − shift) / factors."""
    steps = [("Sub", "shift", shift)] if shift.any() else []
    steps += [("Mul", "migration", 1 / factors)] if (factors != 1).any() else []
    current, new = value, list[ir.Node]()
    for operator, suffix, numbers in steps:
        constant = add_constant(graph, f"{name_of(value)}/{suffix}", numbers.astype(np.float32))
        output = ir.val(f"{name_of(value)}/{suffix}/{operator}", dtype=ir.DataType.FLOAT, shape=value.shape)
        new.append(ir.node(operator, [current, constant], outputs=[output], name=output.name))
        current = output
    graph.insert_after(producer_of(value), new)
    for node in nodes:
        weights, bias = _by_input(node), bias_operand(node)
        node.replace_input_with(0, current)
        if bias is not None and shift.any():
            set_constant(*bias, (bias_values(bias) + shift @ weights).astype(np.float32))
        moved = np.moveaxis(weights * factors[:, None], 1, output_axis(node))
        set_constant(node, 1, np.ascontiguousarray(moved, dtype=np.float32))
