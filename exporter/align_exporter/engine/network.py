"""Verifies the precision of a network that the parser made from a graph, by the types of its layers.

The engine of TensorRT for RTX is one fused layer, of which its inspector says no type. The network is strongly typed,
and so says what the engine computes, operator by operator: a convolution or matrix product has the type of its
operands, and INT8 where a DequantizeLinear from INT8 gives both.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from align_runtime.errors import PrecisionError

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

PRODUCTS = ("CONVOLUTION", "MATRIX_MULTIPLY")
TYPES = {"FLOAT": "float32", "HALF": "float16", "INT8": "int8"}  # as `product_types` names them
# Layers that change the shape alone: the parser puts them around the product of a Gemm and of weights of another rank.
RESHAPING = ("SHUFFLE", "SQUEEZE", "UNSQUEEZE")


def check_network(subject: str, network: trt.INetworkDefinition, expected: Mapping[str, str]) -> dict[str, int]:
    """Returns how many convolutions and matrix products `network` has in each type.

    Args:
        subject: the engine, for messages.
        expected: type of every convolution and matrix product in the graph, by the operator's name.

    Raises:
        PrecisionError: one is missing or has another type.
    """
    found = dict(_products(network))
    wrong = sorted(name for name, dtype in expected.items() if found.get(name) != dtype)
    if wrong:
        raise PrecisionError(
            f"{subject}: {len(wrong)} of {len(expected)} convolutions and matrix products have another type than in "
            f"the graph, first {wrong[0]!r}: expected {expected[wrong[0]]}, got {found.get(wrong[0], 'no such layer')}"
        )
    return dict(sorted(Counter(found[name] for name in expected).items()))


def _products(network: trt.INetworkDefinition) -> Iterator[tuple[str, str]]:
    layers = [network.get_layer(index) for index in range(network.num_layers)]
    producers = {layer.get_output(index).name: layer for layer in layers for index in range(layer.num_outputs)}
    for layer in layers:
        if layer.type.name in PRODUCTS:
            operands = [layer.get_input(index) for index in range(min(2, layer.num_inputs))]
            types = {_source_type(operand, producers) for operand in operands}
            yield layer.name, types.pop() if len(types) == 1 else operands[0].dtype.name


def _source_type(tensor: trt.ITensor, producers: Mapping[str, trt.ILayer]) -> str:
    """The type that `tensor` was computed or stored in: INT8 behind a DequantizeLinear."""
    layer = producers.get(tensor.name)
    while layer is not None and layer.type.name in RESHAPING:
        layer = producers.get(layer.get_input(0).name)
    if layer is not None and layer.type.name == "DEQUANTIZE":
        tensor = layer.get_input(0)
    return TYPES.get(tensor.dtype.name, tensor.dtype.name)
