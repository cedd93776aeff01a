"""The report of a real build."""

from __future__ import annotations

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from align_exporter.export_options import FP16_HEADROOM
from align_runtime import Bundle


@pytest.fixture(scope="module")
def report(tiny_fp16_bundle: Path) -> dict[str, Any]:
    return json.loads((tiny_fp16_bundle / "report.json").read_text(encoding="utf-8"))


def test_graphs_are_those_of_the_manifest(report: dict[str, Any], tiny_fp16_bundle: Path) -> None:
    manifest = Bundle.open(tiny_fp16_bundle).manifest
    assert [entry["graph"]["file"] for entry in report["graphs"]] == [graph.file for graph in manifest.graphs]
    for entry, graph in zip(report["graphs"], manifest.graphs, strict=True):
        assert entry["graph"] == json.loads(json.dumps(graph.to_json()))
        assert entry["bytes"] == manifest.graph_bytes(graph)
        assert len(entry["cosines"]) == len(entry["labels"]) == graph.parity.rows
        assert sum(entry["errors"]["counts"]) == graph.parity.rows * manifest.model.embedding_dim
        assert min(entry["cosines"]) == pytest.approx(graph.parity.min_cosine)
        assert entry["passed"] is True


def test_fp16_records_casts_rules_and_ranges(report: dict[str, Any]) -> None:
    graphs = {entry["graph"]["file"]: entry for entry in report["graphs"]}
    assert graphs["onnx/text_model_fp16.onnx"]["casts"] > 0
    assert graphs["onnx/text_model.onnx"]["casts"] == 0
    by_rule = graphs["onnx/text_model_fp16.onnx"]["kept_by_rule"]
    assert any(name.endswith("/Softmax") for name in by_rule)
    assert not [name for name in by_rule if "/MatMul" in name]
    assert report["headroom"] == FP16_HEADROOM
    for tower, least in (("vision", 200), ("text", 100)):
        assert len(report["ranges"][tower]) > least
        sizes = [entry["max_abs"] for entry in report["ranges"][tower]]
        assert all(size is not None and math.isfinite(size) for size in sizes)


def test_phases_and_machine(report: dict[str, Any]) -> None:
    titles = [phase["title"] for phase in report["phases"]]
    assert titles[0] == "read align-tiny"
    assert {"vision fp32: trace", "vision: activation ranges", "bundle and self-test"} <= set(titles)
    assert all(phase["seconds"] >= 0 for phase in report["phases"])
    assert abs((datetime.now(UTC) - datetime.fromisoformat(report["built"])).total_seconds()) < 86400
    assert set(report["machine"]) == {"cpu", "cores", "system"}
    assert all(report["machine"].values())


def test_without_fp16_nothing_was_measured(tiny_bundle: Path) -> None:
    report = json.loads((tiny_bundle / "report.json").read_text(encoding="utf-8"))
    assert report["ranges"] == {}
    assert {entry["graph"]["variant"] for entry in report["graphs"]} == {"fp32"}
