"""align-inspect as a user calls it: output, JSON, exit codes."""

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from align_runtime.bundle import Bundle
from align_runtime.commands import inspect
from align_runtime.graph_entry import Island, Quantization
from align_runtime.manifest import Manifest


def test_inspect_prints_the_essence(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle)]) == 0
    printed = capsys.readouterr().out
    for word in ("ALIGN bundle of align-tiny", "onnx/text_model.onnx", "fp32", "opset 20", "torch 2", "65×65 pixels"):
        assert word in printed
    assert "_input" not in printed  # no names of options
    rows = [line.split() for line in printed.splitlines() if line.startswith(("vision", "text"))]
    assert [row[:3] for row in rows] == [["vision", "fp32", "CPU,"], ["text", "fp32", "GPU"], ["text", "fp32", "CPU"]]
    counts = printed[printed.index("MACs per input") :].splitlines()
    assert [line.count("float32 100 %") for line in counts[2:]] == [2, 2, 2]


def test_inspect_as_json(tiny_bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tiny_bundle), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert list(result) == [
        "bundle", "manifest_sha256", "schema_version", "provenance", "model", "preprocessing", "graphs", "files",
        "engines", "skipped_engines", "missing_files",
    ]  # fmt: skip
    assert result["manifest_sha256"] == sha256((tiny_bundle / "align.json").read_bytes()).hexdigest()
    for graph in result["graphs"]:
        files = [graph["file"]] + ([graph["data"]] if graph["data"] else [])
        assert graph["bytes"] == sum((tiny_bundle / file).stat().st_size for file in files)
        assert sum(graph["content"]["macs"].values()) > sum(graph["content"]["weights"].values()) > 0
    assert result["provenance"]["options"]["pixel_input"] == "uint8"


def forged(bundle: Path, **changes: Any) -> Manifest:
    """The manifest of `bundle` with `changes` to its graph for text on CPUs."""
    manifest = Bundle.open(bundle).manifest
    graphs = [replace(graph, **changes) if graph.target == "cpu" else graph for graph in manifest.graphs]
    return replace(manifest, graphs=tuple(graphs))


@pytest.mark.parametrize(
    ("quantization", "words"),
    [
        (Quantization("percentile 99.99", 128, 1.31), ["'percentile 99.99' on 128 captions", "1.31 times as fast as"]),
        (Quantization("per token", 0, 0.8), ["dynamic per-token", "NOT FASTER", "0.80 times"]),
        (Quantization("per token", 0, 1.0), ["NOT FASTER", "1.00 times"]),
        (Quantization("mse", 9, None, ("a",)), ["'mse' on 9 captions", "1 part in float", "not measured"]),
        (Quantization("mse", 9, None, ("a", "b")), ["2 parts in float"]),
    ],
)
def test_inspect_says_how_fast_int8_is(tiny_bundle: Path, quantization: Quantization, words: list[str]) -> None:
    (line,) = inspect.quantization_lines(forged(tiny_bundle, variant="int8", quantization=quantization))
    assert line.startswith("onnx/text_model_cpu.onnx: ")
    for word in words:
        assert word in line
    assert ("NOT FASTER" in line) == ("NOT FASTER" in words)


@pytest.mark.parametrize(
    ("nodes", "reasons", "line"),
    [
        (("/Pow",), ("it reaches 1e+05",), "/Pow stays FP32: it reaches 1e+05"),
        (("/Pow", "/Add"), ("a", "b"), "/Pow and 1 other operator stay FP32: a (1 more reason in report.html)"),
        (("/Pow", "/Add", "/C"), ("a", "b", "c"), "/Pow and 2 other operators stay FP32: a (2 more reasons in"),
    ],
)
def test_inspect_lists_islands(tiny_bundle: Path, nodes: Any, reasons: Any, line: str) -> None:
    (found,) = inspect.island_lines(forged(tiny_bundle, islands=(Island(nodes, reasons),)))
    assert found.startswith(f"onnx/text_model_cpu.onnx: {line}")


def test_devices_of_graphs_in_words(tiny_bundle: Path) -> None:
    manifest = Bundle.open(tiny_bundle).manifest
    assert [inspect.runs_on(graph, manifest) for graph in manifest.graphs] == ["CPU, GPU", "GPU", "CPU"]
    quantized = replace(manifest.graphs[1], variant="int8", target="gpu", quantization=Quantization("mse", 9, None))
    assert inspect.runs_on(quantized, manifest) == "GPU (TensorRT)"


def test_inspect_of_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert inspect.main([str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err.startswith("align-inspect: error: ")
