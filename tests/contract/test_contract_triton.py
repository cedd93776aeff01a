"""Engines in a model repository of Triton: its TensorRT backend runs the shapes of their profiles and no others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from align_runtime import Bundle
from align_runtime.engines import engines_of
from align_serving.triton.command import main

model_config_pb2 = pytest.importorskip("tritonclient.grpc.model_config_pb2")
text_format = pytest.importorskip("google.protobuf.text_format")


def test_profiles_batches_and_cuda_graphs(engine_bundle: Path, tmp_path: Path) -> None:
    folder = tmp_path / "repository"
    arguments = ["--backend", "tensorrt", "--precision", "fp16", "--quiet"]
    assert main([str(engine_bundle), str(folder), *arguments]) == 0
    for entry in engines_of(Bundle.open(engine_bundle)):
        if entry.variant != "fp16":
            continue
        place = folder / f"align_{entry.tower}_tower"
        config = text_format.Parse((place / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
        assert (config.backend, config.max_batch_size) == ("tensorrt", max(batches(entry.profiles)))
        assert not config.HasField("dynamic_batching")
        assert config.parameters["align_batches"].string_value.split() == list(
            map(str, sorted(batches(entry.profiles)))
        )
        (group,) = config.instance_group
        assert group.kind == model_config_pb2.ModelInstanceGroup.KIND_GPU
        assert list(group.profile) == [str(index) for index in range(len(entry.profiles))]
        assert config.optimization.cuda.graphs
        captured = [
            {name: (spec.batch_size, *shape.dim) for name, shape in spec.input.items()}
            for spec in config.optimization.cuda.graph_spec
        ]
        assert captured == [dict(shapes) for shapes in entry.profiles]
        warmed = {
            (sample.batch_size, *sorted((name, tuple(given.dims)) for name, given in sample.inputs.items()))
            for sample in config.model_warmup
        }
        assert warmed == {
            (next(iter(shapes.values()))[0], *sorted((name, tuple(shape[1:])) for name, shape in shapes.items()))
            for shapes in entry.profiles
        }
        assert (place / "1" / "model.plan").read_bytes() == (engine_bundle / entry.file).read_bytes()


def batches(profiles: tuple[object, ...]) -> set[int]:
    return {next(iter(shapes.values()))[0] for shapes in profiles}  # type: ignore[attr-defined]


def test_of_several_engines_one_is_named(engine_copy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As where a bundle was built for on two machines."""
    (entry,) = [
        entry for entry in engines_of(Bundle.open(engine_copy)) if (entry.tower, entry.variant) == ("vision", "fp16")
    ]
    copied = json.loads((engine_copy / entry.file).with_suffix(".json").read_text())
    copied["file"] = "engines/other.plan"
    copied["machine"]["gpu"] = "NVIDIA L4"
    (engine_copy / "engines" / "other.json").write_text(json.dumps(copied))
    (engine_copy / "engines" / "other.plan").write_bytes((engine_copy / entry.file).read_bytes())
    arguments = [str(engine_copy), str(tmp_path / "repository"), "--backend", "tensorrt", "--precision", "fp16"]
    arguments += ["--towers", "vision", "--quiet"]
    assert main(arguments) == 2
    assert "got 2; the bundle has: " in (said := capsys.readouterr().err)
    assert "engines/other.plan for NVIDIA L4" in said
    assert "name one with --gpu" in said
    assert main([*arguments, "--gpu", "NVIDIA L4"]) == 0
    assert main([*arguments, "--gpu", "NVIDIA T4"]) == 2


def test_the_runtime_serves_engines_with_padding(engine_bundle: Path, tmp_path: Path) -> None:
    """The Python backend on the device tensorrt: dynamic batches of any size, the engines in each version."""
    folder = tmp_path / "repository"
    arguments = ["--device", "tensorrt", "--precision", "fp16", "--quiet"]
    assert main([str(engine_bundle), str(folder), *arguments]) == 0
    config = text_format.Parse((folder / "align_texts" / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    assert (config.backend, list(config.dynamic_batching.preferred_batch_size)) == ("python", [4])
    assert json.loads((folder / "align_texts" / "1" / "settings.json").read_text())["device"] == "tensorrt"
    assert {entry.tower for entry in engines_of(Bundle.open(folder / "align_texts" / "1" / "bundle"))} == {"text"}
