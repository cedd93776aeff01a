"""Running passes: required and optional steps, and what happens where a pass finds another number of matches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from align_exporter.graph.checks import check_file, check_operators
from align_exporter.graph.passes.order import CLEAN_UP, PassCount, Step, run_steps, text_steps, vision_steps
from align_exporter.graph.specs import text_contract
from align_exporter.pipeline import write_graph
from align_exporter.trt_lint import check_tensorrt
from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from align_runtime.errors import BuildError
from support.checkpoints import small_config
from support.graphs import CHAIN, typed


class RewriteNothing:
    """A pass that reports a number of rewrites and makes none."""

    def __init__(self, count: int) -> None:
        self.count = count

    def __call__(self, model: ir.Model) -> int:
        return self.count


@pytest.mark.parametrize(("expected", "required"), [(3, True), (None, True), (3, False), (None, False)])
def test_the_expected_number_of_rewrites_is_returned(expected: int | None, required: bool) -> None:
    (count,) = run_steps(typed(CHAIN), [Step(RewriteNothing(3), expected, required)])
    assert count == PassCount("RewriteNothing", 3, expected)
    assert count.is_expected


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_required_pass_with_another_number_of_rewrites_is_an_error(count: int) -> None:
    with pytest.raises(BuildError) as caught:
        run_steps(typed(CHAIN), [Step(RewriteNothing(count), expected=2, required=True)])
    message = str(caught.value)
    for part in ("RewriteNothing", f"{count} rewrites", "expected 2", "--dump-graph traced", "constraints.txt", "Step"):
        assert part in message
    assert len(message) <= 500


@pytest.mark.parametrize("count", [0, 1, 3])
def test_an_optional_pass_with_another_number_of_rewrites_is_told(count: int) -> None:
    found, *_ = run_steps(typed(CHAIN), [Step(RewriteNothing(count), expected=2), *CLEAN_UP])
    assert not found.is_expected
    assert str(found) == f"the pass RewriteNothing made {count} rewrites, expected 2"


def test_only_the_pools_are_required() -> None:
    config = AlignConfig.from_dict(small_config())
    steps = [*vision_steps(config), *text_steps(config), *text_steps(config, "cpu")]
    assert {step.name for step in steps if step.required and step.expected is not None} == {"GlobalPool"}


def test_a_text_graph_without_any_optimization_passes_the_checks(
    small_model: AlignModel, traced_text: Callable[[str], ir.Model], tmp_path: Path
) -> None:
    graph, contract = traced_text("any"), text_contract(small_model.config)
    run_steps(graph, CLEAN_UP)
    check_operators(graph, contract, small_model.config)
    write_graph(graph, "text", tmp_path / "text.onnx")
    check_file(tmp_path / "text.onnx", contract, 20, None)
    check_tensorrt(tmp_path / "text.onnx")
    operators = Counter(node.op_type for node in graph.graph)
    assert operators["Expand"] > 0  # of the token types
    assert operators["Concat"] > 0  # of the targets of Reshape
