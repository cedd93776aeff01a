"""Which precision a graph may be labelled with, from the counts in the manifest."""

from __future__ import annotations

from typing import Any

import pytest

from align_runtime import ConfigurationError, PrecisionError
from align_runtime.precision import MAX_COUNT, MIN_SHARE, GraphContent, check_precision, describe, percentage


def macs(**counts: int) -> GraphContent:
    return GraphContent(counts, {})


@pytest.mark.parametrize(
    ("precision", "content"),
    [
        ("fp32", macs(float32=10)),
        ("fp16", macs(float16=10)),
        ("fp16", macs(float16=5, float32=5)),
        ("int8", macs(int8=5, float32=3, float16=2)),
    ],
)
def test_true_labels(precision: str, content: GraphContent) -> None:
    check_precision("graph.onnx", precision, content)


@pytest.mark.parametrize(
    ("precision", "content", "share"),
    [
        ("fp32", macs(float32=10**9, float16=1), "99.9 % of its MACs are in float32; at least 100 %"),
        ("fp32", macs(float64=10), "0 % of its MACs are in float32"),
        ("fp16", macs(float16=31, float32=969), "3.1 % of its MACs are in float16; at least 50 %"),
        ("fp16", macs(float16=499_999, float32=500_001), "50.0 % of its MACs are in float16"),
        ("bf16", macs(float32=9), "0 % of its MACs are in bfloat16"),
        ("int8", macs(int8=49, float32=51), "49.0 % of its MACs are in int8; at least 50 %"),
        ("int8", macs(float16=9), "0 % of its MACs are in int8"),
        ("fp32", macs(int8=9), "0 % of its MACs are in float32"),
        ("fp16", macs(), "0 % of its MACs"),
        ("fp32", macs(float32=0), "0 % of its MACs"),
        ("int4", macs(float32=10), "fp32, bf16, fp16, int8"),
    ],
)
def test_false_labels(precision: str, content: GraphContent, share: str) -> None:
    with pytest.raises(PrecisionError, match=r"^onnx/graph\.onnx ") as caught:
        check_precision("onnx/graph.onnx", precision, content)
    assert precision in str(caught.value)
    assert share in str(caught.value)
    assert caught.value.exit_code == 1


def test_half_is_the_least_share() -> None:
    assert MIN_SHARE == 0.5


def test_shares_are_never_rounded_to_all_or_nothing() -> None:
    assert [percentage(part, 10_000) for part in (0, 1, 314, 9_999, 10_000)] == [
        "0 %",
        "0.1 %",
        "3.1 %",
        "99.9 %",
        "100 %",
    ]
    assert describe({"float16": 31, "float32": 969}) == "float32 96.9 %, float16 3.1 %"
    assert describe({"float32": 5}) == "float32 100 %"
    assert describe({}) == "nothing"


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"macs": {}}, "'weights'"),
        ({"macs": [], "weights": {}}, "macs"),
        ({"macs": {"float31": 1}, "weights": {}}, "macs: unknown type 'float31'"),
        ({"macs": {}, "weights": {"float32": -1}}, "weights: .* -1"),
        ({"macs": {"float32": MAX_COUNT}, "weights": {}}, str(MAX_COUNT)),
        ({"macs": {"float32": 1.5}, "weights": {}}, "float32 is 1.5"),
        ({"macs": {"float32": True}, "weights": {}}, "True"),
    ],
)
def test_impossible_counts(values: Any, words: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^here: .*{words}"):
        GraphContent.from_json(values, "here")
