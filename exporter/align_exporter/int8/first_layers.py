"""Whether the first layers of an EfficientNet stay float: the one tensor between stem and first depthwise convolution.

That convolution looks for edges, with weights that nearly cancel each other. Where an image is smooth, the rounding of
what the stem gives is all that it finds. On trained ReLU6 networks this tensor costs more than all others together
(docs/int8.md); on others nothing. So it is measured, on the calibration samples. These layers have 1 to 4 % of the MACs
of a small EfficientNet, and 1 % in the published sizes.
"""

from __future__ import annotations

import onnx_ir as ir

from align_calibration.quant_params import UINT8
from align_exporter.graph.ir_helpers import name_of
from align_exporter.int8.calibrate import Choice, QuantizationMethod
from align_exporter.int8.fidelity import embedding_error
from align_exporter.int8.mixed_precision import unit_of
from align_exporter.int8.qdq_placement import is_depthwise

WORTH = 0.9  # they stay float where the error falls below this share of itself


def first_layers(model: ir.Model, method: QuantizationMethod, choice: Choice) -> tuple[str, ...]:
    """The parts of `model` that stay float before any target is asked for; none where that is not worth it."""
    names = _first_depthwise(model.graph, method)
    if not names or not choice.error:
        return ()
    quantized = method.applied(model, choice.scales, names)
    actual = choice.samples.embeddings(quantized, "calibration: first layers in float")
    return names if embedding_error(actual, choice.exact) < WORTH * choice.error else ()


def _first_depthwise(graph: ir.Graph, method: QuantizationMethod) -> tuple[str, ...]:
    """The first depthwise convolution, where another convolution is before it and others are behind it.

    ONNX Runtime's convolutions read and write integers: for CPUs the stem before it stays float as well.
    """
    convolutions = [node for node in graph if node.op_type == "Conv"]
    depthwise = next((node for node in convolutions[1:-1] if is_depthwise(node)), None)
    if depthwise is None:
        return ()
    stem = (unit_of(convolutions[0]),) if method.spec == UINT8 else ()
    return (*stem, name_of(depthwise))
