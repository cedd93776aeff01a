"""The linter for TensorRT: every rule is shown to fail on a correct graph with one mistake, and is held against RTX."""

from __future__ import annotations

import ast
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_exporter import trt_lint
from align_exporter.engine.builder import build_plan, parse_graph
from align_exporter.graph.ir_helpers import add_constant
from align_exporter.trt_lint import RULES, check_tensorrt, findings
from align_runtime import BuildError
from align_runtime.backends.tensorrt import log
from align_runtime.progress import Progress
from support.lint_faults import (
    BUILT,
    FAULTS,
    NOT_BUILT,
    REFUSED,
    WARNED,
    Fault,
    asymmetric,
    dequantizer,
    node,
    quantized,
    set_constant,
)
from support.rtx import RANGES, toolkit


def test_a_correct_graph_has_no_findings() -> None:
    model = quantized()
    assert findings(model) == []
    types = {node.name: node.op_type for node in model.graph}
    assert sum(operator == "DequantizeLinear" for operator in types.values()) > 10


def named(fault: Fault) -> str:
    return f"{fault.rule}: {fault.node} {fault.value}"


@pytest.mark.parametrize("fault", FAULTS, ids=named)
def test_a_rule_fails(fault: Fault) -> None:
    model = quantized()
    fault.plant(model)
    found = [finding for finding in findings(model) if (finding.rule, finding.node) == (fault.rule, fault.node)]
    assert any(fault.value in finding.problem for finding in found), list(map(str, findings(model)))


def test_every_rule_is_shown_to_fail() -> None:
    assert len({fault.rule for fault in FAULTS}) == len(RULES)


@pytest.mark.parametrize("fault", FAULTS, ids=named)
def test_the_real_builder_says_what_the_documentation_tells(
    fault: Fault, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """docs/tensorrt.md has a table of these verdicts: where the linter is stricter, it says why."""
    model = quantized()
    fault.plant(model)
    ir.save(model, tmp_path / "graph.onnx")
    assert verdict(tmp_path / "graph.onnx", caplog) == fault.verdict


def test_the_real_builder_builds_the_correct_graph(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ir.save(quantized(), tmp_path / "graph.onnx")
    assert verdict(tmp_path / "graph.onnx", caplog) == BUILT


def verdict(file: Path, caplog: pytest.LogCaptureFixture) -> str:
    """What TensorRT for RTX says to a graph of `support.lint_faults`."""
    try:
        parsed = parse_graph(toolkit(), file)
    except BuildError:
        return REFUSED
    shapes = [{"pixels": (batch, 8, 4, 4)} for batch in (1, 2, 4)]
    try:
        build_plan(toolkit(), parsed, shapes, RANGES, file.with_suffix(".timings"), Progress(quiet=True))
    except BuildError:
        return NOT_BUILT
    warned = [record for record in caplog.records if record.name == log.__name__]
    return WARNED if warned else BUILT


def test_a_bias_is_no_shortcut(tmp_path: Path) -> None:
    """A convolution whose bias is a sum of its own, which plain ONNX Runtime sessions need before a QuantizeLinear."""
    model = quantized()
    total = node(model, "residual")
    bias = add_constant(model.graph, "bias4", np.ones((1, 8, 1, 1), np.float16))
    total.replace_input_with(1, bias)
    assert findings(model) == []


@pytest.mark.parametrize(
    ("shape", "group"),
    [([12, 12, 1, 1], 1), ([12, 2, 1, 1], 4)],
    ids=["one group", "groups of several channels"],
)
def test_a_convolution_that_is_not_depthwise_may_have_any_size(shape: list[int], group: int) -> None:
    model = quantized()
    node(model, "depthwise").attributes.add(ir.AttrInt64("group", group))
    dequantizer(model, "depthwise", 1).outputs[0].shape = ir.Shape(shape)
    assert [finding for finding in findings(model) if finding.rule == "depthwise kernels"] == []


def test_the_error_names_the_findings(tmp_path: Path) -> None:
    model = quantized()
    asymmetric(model)
    ir.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BuildError, match="zero points") as caught:
        check_tensorrt(tmp_path / "graph.onnx")
    assert all(str(finding) in str(caught.value) for finding in findings(model))
    assert len(findings(model)) == 2
    assert "\n" not in str(caught.value)
    assert caught.value.exit_code == 1


def test_the_error_counts_the_findings_that_it_leaves_out(tmp_path: Path) -> None:
    model = quantized()
    for entry in [entry for entry in model.graph if entry.op_type == "DequantizeLinear"]:
        set_constant(entry.inputs[2], np.int8(3))
    ir.save(model, tmp_path / "graph.onnx")
    with pytest.raises(BuildError, match="more") as caught:
        check_tensorrt(tmp_path / "graph.onnx")
    found, message = findings(model), str(caught.value)
    shown = sum(str(finding) in message for finding in found)
    assert 0 < shown < len(found)
    assert message.endswith(f"and {len(found) - shown} more")
    assert len(message) <= 500


def test_graphs_for_other_devices_may_break_rules(tiny_bundle: Path) -> None:
    """The check is not empty: the packed text graph for CPUs has shapes that depend on data."""
    with pytest.raises(BuildError, match="data-dependent shape"):
        check_tensorrt(tiny_bundle / "onnx" / "text_model_cpu.onnx")
    check_tensorrt(tiny_bundle / "onnx" / "text_model.onnx")


def test_the_linter_shares_no_code_with_what_it_checks() -> None:
    """A helper that the placement of Q/DQ uses too would make the same mistake in both."""
    allowed = ("align_exporter.trt_lint", "align_runtime.errors")
    for file in Path(trt_lint.__file__).parent.glob("*.py"):
        for entry in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(entry, ast.ImportFrom):
                assert entry.level == 0, file.name
                names = [str(entry.module)]
            else:
                names = [alias.name for alias in entry.names] if isinstance(entry, ast.Import) else []
            for name in names:
                assert not name.startswith("align_") or name.startswith(allowed), f"{file.name} imports {name}"
