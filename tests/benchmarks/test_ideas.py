"""Graphs as ideas would have them: they compute the same, with the operators that the idea is about."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.graph_ideas import in_strips, with_additions
from benchmarks.measure_ideas import ONE_PROJECTION, Change, rewritten
from benchmarks.sections.ideas import IDEAS, idea_lines
from benchmarks.sessions import image, session, texts
from support.benchmark_results import made_up

SIZE, VOCABULARY = 65, 100  # of align-tiny, at most


def operators(file: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(file, load_external_data=False).graph.node)


def strips(model: onnx.ModelProto) -> object:
    return in_strips(model, 3, least=16)


@pytest.mark.parametrize(
    ("name", "changes", "inputs", "counts"),
    [
        ("text_model_cpu", (with_additions,), texts(2, 7, VOCABULARY), {"Sum": 0}),
        ("text_model_int8_cpu", ONE_PROJECTION[:1], texts(2, 7, VOCABULARY), {"MatMulInteger": 0}),
        ("text_model_int8_cpu", ONE_PROJECTION, texts(2, 7, VOCABULARY), {"MatMulInteger": 0}),
        ("vision_model", (strips,), image(SIZE), {}),
    ],
)
def test_the_embeddings_stay_the_same(
    tiny_int8_bundle: Path,
    tmp_path: Path,
    name: str,
    changes: tuple[Change, ...],
    inputs: Mapping[str, Any],
    counts: Mapping[str, int],
) -> None:
    source = tiny_int8_bundle / "onnx" / f"{name}.onnx"
    target = rewritten(source, tmp_path / "graph.onnx", *changes)
    found, before = operators(target), operators(source)
    assert found != before
    assert {operator: found[operator] for operator in counts} == counts
    rows = [session(file, 1, spinning=False).run(None, dict(inputs))[0] for file in (source, target)]
    np.testing.assert_allclose(rows[1], rows[0], rtol=0, atol=1e-6)


def test_one_projection_joins_two_or_three_products_of_a_layer(tiny_int8_bundle: Path, tmp_path: Path) -> None:
    source = tiny_int8_bundle / "onnx" / "text_model_int8_cpu.onnx"
    files = [rewritten(source, tmp_path / f"{count}.onnx", *ONE_PROJECTION[:count]) for count in (1, 2)]
    separate, joined = (operators(file)["MatMulIntegerToFloat"] for file in files)
    layers = operators(files[1])["Split"]
    assert separate - joined == 2 * layers - 1  # in the last layer the query is one of the first token alone


def test_strips_leave_small_feature_maps_alone(tiny_bundle: Path) -> None:
    model = onnx.load(tiny_bundle / "onnx" / "vision_model.onnx")
    assert in_strips(model, 2, least=SIZE) == 0
    assert in_strips(model, 2, least=8) > 0


def test_every_idea_has_a_row_and_what_came_of_it() -> None:
    result = made_up()["ideas"]
    rows = [line for line in idea_lines(result) if line.startswith("|")][2:]
    assert len(rows) == len(IDEAS)
    assert all(line.count("1.50× [1.50 … 1.50]") == 1 for line in rows)
    assert sum("| kept" in line for line in rows) == 1
