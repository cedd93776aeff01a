"""Where Q/DQ pairs are placed. TensorRT fuses a pair only at the right place; elsewhere it runs as a conversion.

Source: NVIDIA's documentation, Working with Quantized Types, "Q/DQ placement recommendations", and the quantization
recipe of EfficientNet in pytorch-quantization. The rules read a finished graph and do not know how it was made. A graph
without Q/DQ breaks none of them.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx_ir as ir

from align_exporter.trt_lint.finding import (
    MAC_OPERATORS,
    Finding,
    float_source,
    is_quantized,
    label,
    nodes_of,
    operand,
    producer_of,
)

# INT8 kernels of depthwise convolutions exist for these only.
DEPTHWISE_CHANNELS = 8  # a multiple of
SMALLEST_DEPTHWISE_KERNEL = 3


def both_operands(model: ir.Model) -> Iterator[Finding]:
    """A convolution or matrix product has both operands quantized, or neither."""
    for node in nodes_of(model, *MAC_OPERATORS):
        activation, weights = (is_quantized(operand(node, index)) for index in (0, 1))
        if activation != weights:
            which = "activation is" if activation else "weights are"
            yield Finding("both operands", label(node), f"only the {which} quantized; quantize both operands or none")


def fused_dequantizers(model: ir.Model) -> Iterator[Finding]:
    """No Cast stands between DequantizeLinear and its reader, which would keep the two from being fused."""
    for node in nodes_of(model, "Cast"):
        if is_quantized(node.inputs[0]):
            problem = "a Cast follows DequantizeLinear; dequantize with a scale of the type of the Cast instead"
            yield Finding("fused dequantizers", label(node), problem)


def fused_swish(model: ir.Model) -> Iterator[Finding]:
    """No Q/DQ stands inside a swish: Conv, Sigmoid and Mul become one kernel."""
    for node in nodes_of(model, "Mul"):
        for value, gate in (node.inputs, reversed(node.inputs)):
            sigmoid = producer_of(float_source(gate), "Sigmoid")
            if sigmoid is None or float_source(sigmoid.inputs[0]) is not float_source(value):
                continue
            if any(is_quantized(inner) for inner in (*node.inputs, *sigmoid.inputs)):
                problem = "a tensor inside this swish is quantized; quantize its result only"
                yield Finding("fused swish", label(node), problem)


def residual_shortcut(model: ir.Model) -> Iterator[Finding]:
    """A sum with a quantized convolution's result has its other operand quantized, and that result not.

    The sum is then part of the convolution's kernel. Such a result, the branch, has no other reader; a shortcut may
    come from a quantized convolution too, but a later block reads it again.
    """
    for node in nodes_of(model, "Add"):
        pairs = (tuple(node.inputs), tuple(reversed(node.inputs)))
        if any(value is not None and value.is_initializer() for value in node.inputs):
            continue  # a bias
        if not any(_is_quantized_branch(float_source(value)) for value in node.inputs):
            continue
        if not any(_is_quantized_branch(branch) and is_quantized(shortcut) for branch, shortcut in pairs):
            problem = (
                "a sum of a quantized convolution's result and a shortcut; quantize the shortcut and leave the result "
                "without Q/DQ"
            )
            yield Finding("residual shortcut", label(node), problem)


def _is_quantized_branch(value: ir.Value | None) -> bool:
    convolution = producer_of(value, "Conv")
    return convolution is not None and is_quantized(operand(convolution, 1)) and len(convolution.outputs[0].uses()) == 1


def depthwise_kernels(model: ir.Model) -> Iterator[Finding]:
    """A quantized depthwise convolution has an INT8 kernel."""
    for node in nodes_of(model, "Conv"):
        weights = operand(node, 1)
        if weights is None or weights.shape is None or not is_quantized(weights):
            continue
        channels, per_group, *kernel = weights.shape.numpy()
        # ONNX: weights are (M, C/group, kH, kW); depthwise where each group has one channel of several.
        if per_group != 1 or node.attributes.get_int("group", 1) == 1:
            continue
        if channels % DEPTHWISE_CHANNELS or min(kernel) < SMALLEST_DEPTHWISE_KERNEL:
            problem = (
                f"a depthwise convolution with {channels} channels and a {'×'.join(map(str, kernel))} kernel has no "
                "INT8 kernel in TensorRT; keep it float"
            )
            yield Finding("depthwise kernels", label(node), problem)


def float_gates(model: ir.Model) -> Iterator[Finding]:
    """Convolutions of squeeze-excite, which follow a global mean, are float."""
    pooled: set[ir.Node] = set()  # global means, and nodes whose activations all come from them
    for node in model.graph:
        sources = [float_source(value) for value in node.inputs]
        activations = [value for value in sources if value is not None and not value.is_initializer()]
        follows = bool(activations) and all(value.producer() in pooled for value in activations)
        if node.op_type == "GlobalAveragePool" or follows:
            pooled.add(node)
        if follows and node.op_type == "Conv" and is_quantized(operand(node, 1)):
            problem = "a convolution of one pixel, in squeeze-excite, is quantized; keep it float"
            yield Finding("float gates", label(node), problem)


def float_attention(model: ir.Model) -> Iterator[Finding]:
    """Products of two activations are float: TensorRT fuses them with the softmax between them."""
    for node in nodes_of(model, *MAC_OPERATORS):
        second = float_source(operand(node, 1))
        is_constant = second is not None and (second.is_initializer() or second.const_value is not None)
        if not is_constant and any(is_quantized(operand(node, index)) for index in (0, 1)):
            problem = "a product of two activations is quantized; keep it float"
            yield Finding("float attention", label(node), problem)


RULES = (
    both_operands,
    fused_dequantizers,
    fused_swish,
    residual_shortcut,
    depthwise_kernels,
    float_gates,
    float_attention,
)
