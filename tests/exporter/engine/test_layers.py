"""The precision of an engine, read from the layers that TensorRT's inspector reports."""

from __future__ import annotations

from typing import Any

import pytest

from align_exporter.engine.layers import check_layers
from align_runtime.errors import PrecisionError

HALF, SINGLE = "Channel major FP16 format where channel % 8 == 0", "Row major linear FP32"
GRAPH = {"stem": "float16", "expand": "float16", "project": "float16", "squeeze": "float32"}


def layer(kind: str, given: str, *operators: str, **more: Any) -> dict[str, Any]:
    metadata = "\x1e".join(f"[ONNX Layer: {operator}]" for operator in operators)
    tensors = [{"Name": "x", "Format/Datatype": given}]
    return {"Name": "n", "LayerType": kind, "Inputs": tensors, "Outputs": tensors, "Metadata": metadata, **more}


def built(**given: str) -> list[dict[str, Any]]:
    """Layers of one convolution each."""
    return [layer("CaskConvolution", kind, name, f"{name}_swish") for name, kind in given.items()]


def test_operators_are_counted_by_type() -> None:
    layers = [
        *built(stem=HALF, project=HALF, squeeze=SINGLE),
        layer("kgen", "Half", "expand", "swish", "add"),  # a fused layer, with the short name of the type
        layer("Reformat", SINGLE, "stem"),  # a copy of an input
        layer("kgen", SINGLE, "normalise"),
    ]
    assert check_layers("an engine", "fp16", layers, GRAPH) == {"float16": 3, "float32": 1}


def test_a_layer_with_a_fused_cast_has_the_narrower_type() -> None:
    fused = layer("fusion", SINGLE, "stem", Weights={"Type": "Half", "Count": 9})
    layers = [fused, *built(expand=HALF, project=HALF, squeeze=SINGLE)]
    assert check_layers("an engine", "fp16", layers, GRAPH)["float16"] == 3


def test_a_float32_fallback_is_refused() -> None:
    with pytest.raises(PrecisionError, match="1 of 4 .*'expand'"):
        check_layers("an engine", "fp16", built(stem=HALF, expand="Float", project=HALF, squeeze=SINGLE), GRAPH)


@pytest.mark.parametrize("layers", [[], built(squeeze=SINGLE), built(stem=HALF), [layer("kgen", HALF)]])
def test_an_engine_that_reports_too_little_is_refused(layers: list[dict[str, Any]]) -> None:
    with pytest.raises(PrecisionError, match=r"reports [01] .* in float16, of 3"):
        check_layers("an engine", "fp16", layers, GRAPH)


def test_int8_may_leave_some_operators_in_fp16_but_not_most() -> None:
    graph = dict.fromkeys("abcd", "int8")
    int8 = "Thirty-two wide channel vectorized row major Int8 format"
    some = check_layers("an engine", "int8", built(a=int8, b=int8, c=HALF), graph)
    assert some == {"float16": 1, "int8": 2, "unknown": 1}
    with pytest.raises(PrecisionError, match="reports 1 .* in int8, of 4"):
        check_layers("an engine", "int8", built(a=int8, b=HALF, c=HALF, d=HALF), graph)


def test_a_label_that_the_graph_does_not_have_is_refused() -> None:
    with pytest.raises(PrecisionError, match="reports 0 .* in int8, of 0"):
        check_layers("an engine", "int8", built(stem=HALF), {"stem": "float16"})
