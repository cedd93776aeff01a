"""Verifies the precision of an engine's layers, as TensorRT's inspector reports it.

The inspector names, for each layer, the ONNX operators that were fused into it (``"Metadata": "[ONNX Layer: name]"``)
and the types of its inputs, outputs and weights, either as ``"Half"`` or within a description of the memory layout, as
in ``"Channel major FP16 format where channel % 8 == 0"``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from align_exporter.variants import VARIANTS
from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.engine import Engine
from align_runtime.errors import PrecisionError

TYPES = {
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "float16": re.compile(r"\b(half|fp16)\b", re.IGNORECASE),
    "float32": re.compile(r"\b(float|fp32)\b", re.IGNORECASE),
}
OPERATOR = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
COPIES = ("Reformat", "NoOp", "Constant", "Shuffle", "shuffle", "constant", "move", "signal", "wait")
# Share of the operators of a type that the inspector must report in that type: fusion hides some, and TensorRT may
# build an INT8 layer in FP16 where that is faster.
MIN_REPORTED = 0.5


def layers_of(engine: Engine) -> list[dict[str, Any]]:
    """Returns the layers of `engine` as the inspector describes them; none if it was built without these details."""
    inspector = engine.handle.create_engine_inspector()
    description = json.loads(inspector.get_engine_information(libraries.trt.LayerInformationFormat.JSON))
    return [layer for layer in description.get("Layers", []) if isinstance(layer, dict)]


def check_layers(
    subject: str, variant: str, layers: list[dict[str, Any]], expected: Mapping[str, str]
) -> dict[str, int]:
    """Returns how many convolutions and matrix products of the graph the engine computes in each type.

    Args:
        subject: the engine, for messages.
        variant: its label.
        layers: from `layers_of`.
        expected: type of every convolution and matrix product in the graph, by the operator's name.

    Raises:
        PrecisionError: one is computed in float32 but has a narrower type in the graph, or too few are reported in the
            type of the label.
    """
    found = dict(_types(layers, expected))
    widened = sorted(name for name, dtype in found.items() if dtype == "float32" != expected[name])
    if widened:
        raise PrecisionError(
            f"{subject} is labelled {variant} but computes {len(widened)} of {len(expected)} convolutions and matrix "
            f"products in float32, first {widened[0]!r}, which is {expected[widened[0]]} in the graph; the engine is "
            "discarded, try another --engine-level"
        )
    dtype = next(row.element_type for row in VARIANTS if row.name == variant)
    wanted = [name for name, kind in expected.items() if kind == dtype]
    verified = sum(found.get(name) == dtype for name in wanted)
    if verified < MIN_REPORTED * len(wanted) or not wanted:
        raise PrecisionError(
            f"{subject} is labelled {variant} but reports {verified} convolutions and matrix products in {dtype}, of "
            f"{len(wanted)} in the graph; the engine is discarded, try another --engine-level"
        )
    return dict(sorted(Counter(found.get(name, "unknown") for name in expected).items()))


def _types(layers: list[dict[str, Any]], expected: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Yields name and type of each operator of `expected` that `layers` report."""
    for layer in layers:
        if layer.get("LayerType") in COPIES:
            continue
        dtype = _type_of(layer)
        if dtype is not None:
            for name in OPERATOR.findall(str(layer.get("Metadata", ""))):
                if name in expected:
                    yield name, dtype


def _type_of(layer: Mapping[str, Any]) -> str | None:
    """Returns the narrowest type of a layer's tensors: a fused layer may also hold a cast to a wider one."""
    weights = layer.get("Weights")
    texts = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])]:
        texts.append(str(tensor.get("Format/Datatype", "")))
    for dtype, pattern in TYPES.items():
        if any(pattern.search(text) for text in texts):
            return dtype
    return None
