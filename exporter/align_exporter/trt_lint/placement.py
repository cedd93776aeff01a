"""Where pairs of QuantizeLinear and DequantizeLinear are: at the wrong place they are conversions really computed.

Source: as `align_exporter.int8.qdq_placement`, which places them; these rules read a written graph and know nothing of
how it came about. They say nothing of a graph without quantisation.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from align_exporter.int8.qdq_placement import DEPTHWISE_KERNEL, DEPTHWISE_MULTIPLE, is_depthwise
from align_exporter.trt_lint.finding import PRODUCTS, Finding, is_quantized, label, operand, producer_type


def whole_products(model: ir.Model) -> Iterator[Finding]:
    """A product has both operands quantised or none."""
    for node in _products(model):
        quantized = [is_quantized(operand(node, index)) for index in (0, 1)]
        if any(quantized) and not all(quantized):
            which = ("activation", "weights")[quantized.index(True)]
            yield Finding(
                "whole products", label(node), f"only its {which} is quantised; quantise both operands or none"
            )


def fused_dequantizers(model: ir.Model) -> Iterator[Finding]:
    """No cast stands between DequantizeLinear and what reads it: the two would not become one kernel."""
    for node in model.graph:
        if node.op_type == "Cast" and is_quantized(node.inputs[0]):
            problem = "it casts what was just dequantised; dequantise with a scale of the other type"
            yield Finding("fused dequantizers", label(node), problem)


def bare_swish(model: ir.Model) -> Iterator[Finding]:
    """Conv → Sigmoid → Mul has nothing quantised in between."""
    for node in model.graph:
        if node.op_type != "Mul":
            continue
        first, second = (_behind(value) for value in node.inputs)
        for gated, gates in ((first, second), (second, first)):
            sigmoid = gates.producer() if gates is not None else None
            if sigmoid is None or sigmoid.op_type != "Sigmoid" or _behind(sigmoid.inputs[0]) is not gated:
                continue
            if any(is_quantized(value) for value in (*node.inputs, *sigmoid.inputs)):
                yield Finding(
                    "bare swish", label(node), "a tensor inside this swish is quantised; quantise its result only"
                )


def residual_shortcut(model: ir.Model) -> Iterator[Finding]:
    """Behind a quantised convolution, a residual sum has its shortcut quantised and its branch bare.

    A branch is a result that nothing else reads: a shortcut may come from a quantised convolution, too.
    """
    for node in model.graph:
        first, second = node.inputs if node.op_type == "Add" else (None, None)
        if not any(_is_branch(_behind(value)) for value in (first, second)):
            continue
        pairs = [(first, second), (second, first)]
        if any(_is_branch(branch) and is_quantized(shortcut) for branch, shortcut in pairs):
            continue
        problem = (
            "it adds a quantised convolution's result to a shortcut; quantise the shortcut and leave the other bare"
        )
        yield Finding("residual shortcut", label(node), problem)


def depthwise_kernels(model: ir.Model) -> Iterator[Finding]:
    """Quantised depthwise convolutions have channels in eights and kernels of 3 and more."""
    for node in _products(model):
        if node.op_type != "Conv" or not is_depthwise(node) or not is_quantized(operand(node, 1)):
            continue
        assert node.inputs[1] is not None
        assert node.inputs[1].shape is not None
        channels, _, *sides = node.inputs[1].shape.numpy()
        if channels % DEPTHWISE_MULTIPLE or min(sides) < DEPTHWISE_KERNEL:
            problem = (
                f"a depthwise convolution of {channels} channels and a kernel of {'×'.join(map(str, sides))} has no "
                "INT8 kernel; leave it float"
            )
            yield Finding("depthwise kernels", label(node), problem)


def float_gates(model: ir.Model) -> Iterator[Finding]:
    """Squeeze-excite's convolutions are float."""
    pooled: set[ir.Node] = set()  # global means and what follows from them alone
    for node in model.graph:
        values = [_behind(value) for value in node.inputs]
        activations = [value for value in values if value is not None and not value.is_initializer()]
        follows = bool(activations) and all(value.producer() in pooled for value in activations)
        if node.op_type == "GlobalAveragePool" or follows:
            pooled.add(node)
        if follows and node.op_type == "Conv" and is_quantized(operand(node, 1)):
            yield Finding("float gates", label(node), "a convolution of one pixel is quantised; leave it float")


def float_attention(model: ir.Model) -> Iterator[Finding]:
    """Products of two activations are float."""
    for node in _products(model):
        second = _behind(operand(node, 1))
        numbers = second is not None and (second.is_initializer() or second.const_value is not None)
        if not numbers and (is_quantized(operand(node, 0)) or is_quantized(operand(node, 1))):
            yield Finding("float attention", label(node), "a product of two activations is quantised; leave it float")


def _products(model: ir.Model) -> Iterator[ir.Node]:
    return (node for node in model.graph if node.op_type in PRODUCTS)


def _behind(value: ir.Value | None) -> ir.Value | None:
    """`value` without the pair that quantises it: what is float, or the numbers of a constant."""
    if value is None or not is_quantized(value):
        return value
    dequantizer = value.producer()
    assert dequantizer is not None
    numbers = dequantizer.inputs[0]
    if producer_type(numbers) != "QuantizeLinear":
        return numbers
    assert numbers is not None
    quantizer = numbers.producer()
    assert quantizer is not None
    return quantizer.inputs[0]


def _is_branch(value: ir.Value | None) -> bool:
    """Whether `value` is a quantised convolution's result with one reader."""
    node = value.producer() if value is not None and len(value.uses()) == 1 else None
    return node is not None and node.op_type == "Conv" and is_quantized(operand(node, 1))


RULES = (
    whole_products,
    fused_dequantizers,
    bare_swish,
    residual_shortcut,
    depthwise_kernels,
    float_gates,
    float_attention,
)
