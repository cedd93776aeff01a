"""Kernels are counted as what they do in the network, and every one of them once."""

from __future__ import annotations

import pytest

from benchmarks.measure_profile import group_of
from benchmarks.readme_speed import by_kind

BLOCK = "vision_model.encoder.blocks.3"


@pytest.mark.parametrize(
    ("node", "operator", "group"),
    [
        (f"{BLOCK}.depthwise_conv.depthwise_conv/Conv", "QLinearConv", "QLinearConv, depthwise"),
        (f"{BLOCK}.projection.project_conv/Conv", "Conv", "Conv, 1×1 and stem"),
        (f"{BLOCK}.squeeze_excite.reduce/Conv", "QLinearConv", "squeeze-excite"),
        (f"{BLOCK}.squeeze_excite/Mul", "QLinearMul", "squeeze-excite"),
        (f"{BLOCK}.squeeze_excite/Mul_2", "QLinearMul", "QLinearMul"),
        (f"{BLOCK}.depthwise_conv/Sigmoid", "QLinearSigmoid", "QLinearSigmoid"),
    ],
)
def test_kernels_are_told_apart(node: str, operator: str, group: str) -> None:
    assert group_of(f"{node}_kernel_time", operator) == group


def test_kinds_add_up() -> None:
    kernels = {
        "QLinearConv, depthwise": {"milliseconds": [1.0, 3.0, 2.0]},
        "QLinearMul": {"milliseconds": [5.0, 5.0, 5.0]},
        "QLinearSigmoid": {"milliseconds": [2.0, 2.0, 2.0]},
        "Cast": {"milliseconds": [0.25, 0.5, 0.25]},
    }
    kinds = by_kind(kernels)
    assert kinds["depthwise convolutions"] == 2
    assert kinds["sigmoid and product of a swish; product with the gate"] == 7
    assert kinds["everything else"] == 0.25
    assert sum(kinds.values()) == 9.25
