"""``align-export --int8`` with a fidelity target: parts that stay float, and the error where it is missed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import onnx_ir as ir
import pytest

from align_exporter.command import main
from align_runtime import Bundle
from align_runtime.commands.inspect import main as inspect
from align_runtime.commands.verify import main as verify
from align_runtime.graph_entry import Graph


def export(checkpoint: Path, bundle: Path, *arguments: str) -> int:
    return main([str(checkpoint), "-o", str(bundle), "--quiet", *arguments])


def int8_graphs(bundle: Bundle) -> dict[str, Graph]:
    graphs = bundle.manifest.graphs
    return {graph.tower: graph for graph in graphs if (graph.variant, graph.target) == ("int8", "cpu")}


def test_parts_stay_float_until_the_target_is_reached(
    tiny_checkpoint: Path, calibration_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--int8", "--int8-device", "cpu", "--calibration-images", str(calibration_images))
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments, "--int8-min-cosine", "0.999") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    assert bundle.manifest.provenance.options["int8_min_cosine"] == 0.999
    graph = int8_graphs(bundle)["vision"]
    assert graph.quantization is not None
    assert graph.quantization.samples == 96  # a quarter is held out
    kept = graph.quantization.kept
    assert 0 < len(kept) < 10
    model = ir.load(bundle.path(graph.file))
    dequantized = {node.name for node in model.graph if node.op_type == "DequantizeLinear"}
    weights = "depthwise_conv.depthwise_conv.weight/dequantized"
    for block in range(17):
        part = f"vision_model.encoder.blocks.{block}"
        assert (f"{part}.{weights}" in dequantized) == (part not in kept)
    records = json.loads((bundle.folder / "report.json").read_text())["graphs"]
    (record,) = [record for record in records if record["graph"]["file"] == graph.file]
    chosen, *others = record["candidates"]
    assert [*record["first_layers"], *chosen["kept"]] == list(kept)  # whether first layers stay is measured before
    assert chosen["cosine"] >= 0.999
    share = graph.content.macs["int8"] / sum(graph.content.macs.values())
    assert chosen["int8_share"] == pytest.approx(share)
    assert any(point["kept"] == [] and point["cosine"] < 0.999 for point in others)
    assert "cosine 0.999" in (bundle.folder / "report.html").read_text()
    assert inspect([str(bundle.folder)]) == 0
    assert f"{len(kept)} parts in float for accuracy" in capsys.readouterr().out
    assert verify([str(bundle.folder), "--quiet"]) == 0


def test_a_missed_target_leaves_nothing(
    tiny_checkpoint: Path, calibration_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = (
        "--int8",
        "--int8-device",
        "cpu",
        "--calibration-images",
        str(calibration_images),
        "--int8-min-cosine",
        "0.999999",
    )
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments) == 1
    message = capsys.readouterr().err
    assert "cosine 0.999999" in message
    assert "50 % of the MACs in INT8" in message
    assert "on 32 held-out samples" in message
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_parts_stay_float_in_a_graph_for_gpus_too(
    tiny_checkpoint: Path, calibration_images: Path, tmp_path: Path
) -> None:
    """The target is met by what is written, with every FP16 value rounded, and no rule of TensorRT is broken."""
    arguments = ("--int8", "--int8-device", "gpu", "--calibration-images", str(calibration_images))
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments, "--int8-min-cosine", "0.9985") == 0
    bundle = Bundle.open(tmp_path / "bundle")
    graph = bundle.graph("vision", "int8", "cuda")
    assert graph.quantization is not None
    assert 0 < len(graph.quantization.kept) < 10
    records = json.loads((bundle.folder / "report.json").read_text())["graphs"]
    (record,) = [record for record in records if record["graph"]["file"] == graph.file]
    chosen, *others = record["candidates"]
    assert chosen["kept"] == list(graph.quantization.kept)
    assert chosen["cosine"] >= 0.9985
    assert chosen["int8_share"] == pytest.approx(graph.content.macs["int8"] / sum(graph.content.macs.values()))
    assert any(point["kept"] == [] and point["cosine"] < 0.9985 for point in others)
    assert verify([str(bundle.folder), "--quiet"]) == 0


def test_too_few_images_are_an_error_before_anything_is_built(
    tiny_checkpoint: Path, calibration_images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in sorted(calibration_images.iterdir())[:28]:
        shutil.copy(path, tmp_path)
    arguments = ("--int8", "--calibration-images", str(tmp_path), "--int8-min-cosine", "0.9")
    assert main([str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), *arguments]) == 2
    message = capsys.readouterr().err
    assert "7 images are held out of the calibration" in message
    assert "read align-tiny" in message
    assert "trace" not in message
