"""The precision that was really built, read off what TensorRT's inspector tells of an engine."""

from __future__ import annotations

from typing import Any

import pytest

from align_exporter.engine.layers import check_layers
from align_runtime.errors import PrecisionError

HALF, SINGLE = "Channel major FP16 format where channel % 8 == 0", "Row major linear FP32"
PRODUCTS = {"stem": "float16", "expand": "float16", "project": "float16", "squeeze": "float32"}


def layer(kind: str, given: str, *operators: str, **more: Any) -> dict[str, Any]:
    metadata = "\x1e".join(f"[ONNX Layer: {operator}]" for operator in operators)
    told = [{"Name": "x", "Format/Datatype": given}]
    return {"Name": "n", "LayerType": kind, "Inputs": told, "Outputs": told, "Metadata": metadata, **more}


def built(**given: str) -> list[dict[str, Any]]:
    """Layers of one product each."""
    return [layer("CaskConvolution", kind, name, f"{name}_swish") for name, kind in given.items()]


def test_products_are_counted_by_type() -> None:
    layers = [
        *built(stem=HALF, project=HALF, squeeze=SINGLE),
        layer("kgen", "Half", "expand", "swish", "add"),  # a fused layer, with the short name of the type
        layer("Reformat", SINGLE, "stem"),  # a copy of a product's input, no product
        layer("kgen", SINGLE, "normalise"),
    ]
    assert check_layers("an engine", "fp16", layers, PRODUCTS) == {"float16": 3, "float32": 1}


def test_a_product_with_casts_around_it_is_in_the_narrower_type() -> None:
    fused = layer("fusion", SINGLE, "stem", Weights={"Type": "Half", "Count": 9})
    layers = [fused, *built(expand=HALF, project=HALF, squeeze=SINGLE)]
    assert check_layers("an engine", "fp16", layers, PRODUCTS)["float16"] == 3


def test_a_product_that_fell_back_is_refused() -> None:
    message = (
        "an engine calls itself fp16 but computes 1 of 4 products in float32 that the graph has in float16, first 'e"
    )
    with pytest.raises(PrecisionError, match=message):
        check_layers("an engine", "fp16", built(stem=HALF, expand="Float", project=HALF, squeeze=SINGLE), PRODUCTS)


@pytest.mark.parametrize("layers", [[], built(squeeze=SINGLE), built(stem=HALF), [layer("kgen", HALF)]])
def test_an_engine_that_tells_too_little_is_refused(layers: list[dict[str, Any]]) -> None:
    with pytest.raises(PrecisionError, match=r"tells of [01] products in float16, where the graph has 3"):
        check_layers("an engine", "fp16", layers, PRODUCTS)


def test_int8_may_leave_some_products_in_fp16_but_not_most() -> None:
    products = dict.fromkeys("abcd", "int8")
    int8 = "Thirty-two wide channel vectorized row major Int8 format"
    some = check_layers("an engine", "int8", built(a=int8, b=int8, c=HALF), products)
    assert some == {"float16": 1, "int8": 2, "unknown": 1}
    with pytest.raises(PrecisionError, match="tells of 1 products in int8, where the graph has 4"):
        check_layers("an engine", "int8", built(a=int8, b=HALF, c=HALF, d=HALF), products)


def test_a_variant_that_the_graph_is_not_is_refused() -> None:
    with pytest.raises(PrecisionError, match="calls itself int8 but tells of 0 products in int8"):
        check_layers("an engine", "int8", built(stem=HALF), {"stem": "float16"})
