"""What an engine says of its layers: the precision that was really built.

The inspector names, per layer, the ONNX operators that went into it (``"Metadata": "[ONNX Layer: name]"``, several for
a fused layer) and the types of its inputs, outputs and weights, either as ``"Half"`` or within a description
of the memory layout, as in ``"Channel major FP16 format where channel % 8 == 0"``.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.engine import Engine
from align_runtime.errors import PrecisionError
from align_runtime.precision import MIN_SHARE, RULES

TYPES = {
    "int8": re.compile(r"\bint8\b", re.IGNORECASE),
    "float16": re.compile(r"\b(half|fp16)\b", re.IGNORECASE),
    "float32": re.compile(r"\b(float|fp32)\b", re.IGNORECASE),
}
OPERATOR = re.compile(r"\[ONNX Layer: ([^\]]+)\]")
COPIES = ("Reformat", "NoOp", "Constant", "Shuffle", "shuffle", "constant", "move", "signal", "wait")


def layers_of(engine: Engine) -> list[dict[str, Any]]:
    """The layers of `engine` as the inspector describes them."""
    inspector = engine.handle.create_engine_inspector()
    told = json.loads(inspector.get_engine_information(libraries.trt.LayerInformationFormat.JSON))
    return [layer for layer in told.get("Layers", []) if isinstance(layer, dict)]  # names only: no details were built


def check_layers(
    subject: str, variant: str, layers: list[dict[str, Any]], products: Mapping[str, str]
) -> dict[str, int]:
    """How many of the graph's products were built in which type.

    Args:
        subject: the engine, for messages.
        variant: what it is called.
        layers: of the engine.
        products: type of every convolution and matrix product of the graph, by its name there.

    Raises:
        PrecisionError: a product is in float32 that is not so in the graph, or too few are seen in the type that
            the engine is named for.
    """
    built = dict(_built(layers, products))
    fallen = sorted(name for name, dtype in built.items() if dtype == "float32" != products[name])
    if fallen:
        raise PrecisionError(
            f"{subject} calls itself {variant} but computes {len(fallen)} of {len(products)} products in float32 that "
            f"the graph has in {products[fallen[0]]}, first {fallen[0]!r}; it is not kept"
        )
    dtype, _ = RULES[variant]
    wanted = [name for name, kind in products.items() if kind == dtype]
    shown = sum(built.get(name) == dtype for name in wanted)
    if shown < MIN_SHARE * len(wanted) or not wanted:
        raise PrecisionError(
            f"{subject} calls itself {variant} but tells of {shown} products in {dtype}, where the graph has "
            f"{len(wanted)}; it is not kept"
        )
    return dict(sorted(Counter(built.get(name, "unknown") for name in products).items()))


def _built(layers: list[dict[str, Any]], products: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    for layer in layers:
        if layer.get("LayerType") in COPIES:
            continue
        dtype = _computed_in(layer)
        if dtype is not None:
            for name in OPERATOR.findall(str(layer.get("Metadata", ""))):
                if name in products:
                    yield name, dtype


def _computed_in(layer: Mapping[str, Any]) -> str | None:
    """The least of the types that a layer touches: beside its operands it may hold a cast to a wider type."""
    weights = layer.get("Weights")
    told = [str(weights.get("Type", ""))] if isinstance(weights, dict) else []
    for tensor in [*layer.get("Inputs", []), *layer.get("Outputs", [])]:
        told.append(str(tensor.get("Format/Datatype", "")))
    for dtype, pattern in TYPES.items():
        if any(pattern.search(text) for text in told):
            return dtype
    return None
