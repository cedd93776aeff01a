"""A graph goes into a bundle only under the precision that it computes in."""

from __future__ import annotations

from pathlib import Path

import pytest

from align_exporter.command import main
from align_exporter.graph.content import proven_content
from align_runtime import BuildError, PrecisionError
from align_runtime.precision import RULES, content_of
from support import onnx_models


def test_content_of_what_was_written(tmp_path: Path) -> None:
    file = onnx_models.write(tmp_path, onnx_models.half_model())
    assert proven_content(tmp_path, file.name, "fp16", 16) == content_of(file, 16)


def test_a_graph_in_another_precision_is_not_built(tmp_path: Path) -> None:
    onnx_models.write(tmp_path, onnx_models.half_model())
    with pytest.raises(
        PrecisionError, match=r"graph\.onnx calls itself fp32 but computes 0\.6 % of its MACs in float32"
    ):
        proven_content(tmp_path, "graph.onnx", "fp32", 16)


def test_a_graph_without_shapes_is_not_built(tmp_path: Path) -> None:
    made = onnx_models.half_model()
    del made.graph.value_info[:]
    onnx_models.write(tmp_path, made)
    with pytest.raises(BuildError, match=r"graph\.onnx cannot be checked: the type of 'x' is missing in the file"):
        proven_content(tmp_path, "graph.onnx", "fp16", 16)


def test_an_export_that_breaks_the_rule_leaves_no_bundle(
    small_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(RULES, "fp32", ("float64", 1.0))
    assert main([str(small_checkpoint), "-o", str(tmp_path / "bundle"), "--quiet"]) == 1
    message = "onnx/vision_model.onnx calls itself fp32 but computes 0 % of its MACs in float64; at least 100 % must be"
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
