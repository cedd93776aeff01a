"""``align-export --fp16``: the graphs, checkpoints whose activations overflow FP16, and the parity gate."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
from safetensors.torch import load_file

import align_runtime
from align_exporter.command import main
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.islands import float32_by_rule
from align_exporter.variants import variant_of
from align_reference.config import AlignConfig
from align_reference.vision import block_shapes
from align_runtime import Bundle, golden
from align_runtime.graph_entry import Graph
from align_runtime.parity import Parity, compare
from support.fp16_emulation import run_emulated
from support.overflowing import overflowing

FP32_LIMITS, FP16_LIMITS = (variant_of(name, "any").limits["vision"] for name in ("fp32", "fp16"))

FLOAT16, FLOAT32 = onnx.TensorProto.FLOAT16, onnx.TensorProto.FLOAT
TOWERS = ("vision", "text")


def export(checkpoint: Path, bundle: Path, *arguments: str) -> int:
    return main([str(checkpoint), "-o", str(bundle), "--quiet", "--fp16", *arguments])


@pytest.fixture(scope="module")
def bundle(tiny_fp16_bundle: Path) -> Bundle:
    return Bundle.open(tiny_fp16_bundle)


@pytest.fixture(scope="module")
def overflowing_checkpoint(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return overflowing(tiny_checkpoint, tmp_path_factory.mktemp("checkpoints") / "overflowing")


@pytest.fixture(scope="module")
def overflowing_bundle(overflowing_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    folder = tmp_path_factory.mktemp("overflowing") / "bundle"
    assert export(overflowing_checkpoint, folder) == 0
    return Bundle.open(folder)


def graphs(bundle: Bundle, variant: str) -> dict[str, Graph]:
    return {graph.tower: graph for graph in bundle.manifest.graphs if (graph.variant, graph.target) == (variant, "any")}


def rounded_parity(bundle: Bundle, tower: str, model: ir.Model, folder: Path) -> Parity:
    """Parity of `model` with the reference when every FP16 activation is rounded."""
    expected = golden.read(bundle)
    if tower == "text":
        inputs = {"input_ids": expected.input_ids, "attention_mask": expected.attention_mask}
        return compare(run_emulated(model, inputs, folder, batch=64), expected.text_embeds, expected.texts)
    actual = run_emulated(model, {"pixels": expected.pixels}, folder, batch=64)
    return compare(actual, expected.image_embeds, [image.name for image in expected.images])


# ── the graphs ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_both_towers_have_an_fp16_graph_with_the_same_contract(bundle: Bundle) -> None:
    half, single = graphs(bundle, "fp16"), graphs(bundle, "fp32")
    assert sorted(half) == ["text", "vision"]
    for tower in TOWERS:
        assert (half[tower].inputs, half[tower].outputs) == (single[tower].inputs, single[tower].outputs)
        assert half[tower].variant == "fp16"
        assert half[tower].file == f"onnx/{tower}_model_fp16.onnx"
    assert {path.name for path in (bundle.folder / "onnx").iterdir() if "fp16" in path.name or path.name[0] == "."} == {
        "text_model_fp16.onnx",
        "vision_model_fp16.onnx",
    }


def test_mac_operators_are_fp16_and_norms_fp32(bundle: Bundle) -> None:
    for tower in TOWERS:
        model = onnx.load(bundle.folder / "onnx" / f"{tower}_model_fp16.onnx").graph
        types = {value.name: value.type.tensor_type.elem_type for value in [*model.value_info, *model.output]}
        for node in model.node:
            if node.op_type in ("Conv", "MatMul", "Gemm") and "squeeze_excite" not in node.name:
                assert types[node.output[0]] == FLOAT16
            if node.op_type in ("LayerNormalization", "Softmax", "ReduceL2"):
                assert types[node.output[0]] == FLOAT32
        weights = Counter[int]()
        for tensor in model.initializer:
            weights[tensor.data_type] += int(np.prod(tensor.dims))
        # Squeeze-excite without a residual has 5 % of the weights of a model this small, 1 % in the published size.
        assert weights[FLOAT16] > 0.94 * (weights[FLOAT16] + weights[FLOAT32])


def test_the_only_casts_are_those_of_the_rules(bundle: Bundle, tiny_checkpoint: Path) -> None:
    layers = json.loads((tiny_checkpoint / "config.json").read_text())["text_config"]["num_hidden_layers"]
    # Into and out of each layer norm and each softmax; the mask; the embedding at the end.
    text = 2 * (2 * layers + 1) + 2 * layers + 1 + 1
    # The pixels, the normalized pixels, the last feature map; into and out of squeeze-excite without a residual.
    blocks = block_shapes(AlignConfig.from_file(tiny_checkpoint / "config.json").vision)
    expected = {"text": text, "vision": 3 + 2 * sum(not shape.residual for shape in blocks)}
    for tower, count in expected.items():
        nodes = onnx.load(bundle.folder / "onnx" / f"{tower}_model_fp16.onnx").graph.node
        casts = {node.output[0]: node for node in nodes if node.op_type == "Cast"}
        assert len(casts) == count
        assert not [node.name for node in casts.values() if node.input[0] in casts], "a cast of a cast"


def test_files_have_half_the_size(bundle: Bundle) -> None:
    """Weights are halved, except those that stay FP32. The description of the nodes, 5 % of a model this small, is not.

    For the published size, tests/parity/test_full_size.py checks 0.51.
    """
    half, single = graphs(bundle, "fp16"), graphs(bundle, "fp32")
    for tower in TOWERS:
        share = bundle.manifest.graph_bytes(half[tower]) / bundle.manifest.graph_bytes(single[tower])
        assert 0.5 < share < 0.56


def test_the_gate_measures_with_emulated_rounding(bundle: Bundle) -> None:
    """Without the emulation, ONNX Runtime on a CPU shows a smaller error than the manifest records."""
    expected = golden.read(bundle)
    with align_runtime.load(bundle.folder, precision="fp16") as model:
        shown = compare(model.embed_pixels(expected.pixels), expected.image_embeds, ["?"] * len(expected.pixels))
    recorded = graphs(bundle, "fp16")["vision"].parity
    assert 0 < shown.max_abs < recorded.max_abs < FP16_LIMITS.max_abs
    assert recorded.min_centred_cosine > 0.9999


def test_fp16_graphs_are_deterministic_and_do_not_change_the_fp32_graphs(
    bundle: Bundle, tiny_bundle: Path, tiny_checkpoint: Path, tmp_path: Path
) -> None:
    assert export(tiny_checkpoint, tmp_path / "again") == 0
    for file in (bundle.folder / "onnx").iterdir():
        content = file.read_bytes()
        assert content == (tmp_path / "again" / "onnx" / file.name).read_bytes()
        if "fp16" not in file.name:
            assert content == (tiny_bundle / "onnx" / file.name).read_bytes()


# ── overflow ───────────────────────────────────────────────────────────────────────────────────────────


def test_the_overflowing_checkpoint_is_the_same_model(overflowing_bundle: Bundle, bundle: Bundle) -> None:
    for field in ("image_embeds", "text_embeds"):
        np.testing.assert_array_equal(
            getattr(golden.read(overflowing_bundle), field), getattr(golden.read(bundle), field)
        )


def test_it_is_exported_correctly_with_one_island_per_tower(overflowing_bundle: Bundle) -> None:
    for tower, graph in graphs(overflowing_bundle, "fp16").items():
        assert graph.parity.min_centred_cosine > 0.9999
        (island,) = graph.islands
        assert any("reaches" in reason for reason in island.reasons)
        part = "text_model.encoder.layer.0.attention" if tower == "text" else "vision_model.encoder.blocks.1"
        assert all(node.startswith(part) for node in island.nodes)


@pytest.mark.parametrize("tower", TOWERS)
def test_without_islands_it_would_be_nan(
    overflowing_bundle: Bundle, bundle: Bundle, tower: str, tmp_path: Path
) -> None:
    for subject, fails in ((overflowing_bundle, True), (bundle, False)):
        model = ir.load(subject.folder / "onnx" / f"{tower}_model.onnx")
        convert_to_fp16(model, float32_by_rule(model.graph))
        parity = rounded_parity(subject, tower, model, tmp_path)
        if fails:
            with pytest.raises(align_runtime.ParityError, match="max_abs is nan"):
                parity.check(tower, FP16_LIMITS)
        else:
            parity.check(tower, FP16_LIMITS)


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_disturbed_fp16_weight_fails(bundle: Bundle, tmp_path: Path) -> None:
    for tower, name in (("vision", "blocks.3.projection.project_conv"), ("text", "layer.1.intermediate.dense")):
        model = ir.load(bundle.folder / "onnx" / f"{tower}_model_fp16.onnx")
        (weight,) = [v for k, v in model.graph.initializers.items() if name in k and v.shape and len(v.shape) > 1]
        assert weight.const_value is not None
        values = weight.const_value.numpy().copy()
        values[0] *= -1
        weight.const_value = ir.tensor(values, name=weight.name)
        with pytest.raises(align_runtime.ParityError, match="max_abs|cosine"):
            rounded_parity(bundle, tower, model, tmp_path).check(tower, FP16_LIMITS)


def test_a_missed_gate_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert export(tiny_checkpoint, tmp_path / "bundle", "--parity-max-abs", "fp16=1e-5") == 1
    assert "vision_model_fp16.onnx: max_abs is" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_overrides_are_recorded(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ("--parity-max-abs", "fp16=0.01", "--parity-min-cosine", "0.99", "--fp16-keep", "*blocks.1.*")
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments) == 0
    manifest = Bundle.open(tmp_path / "bundle").manifest
    assert manifest.provenance.options["parity_max_abs"] == {"fp16": 0.01}
    assert manifest.provenance.options["parity_min_cosine"] == {"fp32": 0.99, "fp16": 0.99}
    for graph in manifest.graphs:
        assert (graph.limits.min_cosine, graph.limits.min_centred_cosine) == (0.99, 0.99)
        assert graph.limits.max_abs == (0.01 if graph.variant == "fp16" else FP32_LIMITS.max_abs)
    (island,) = graphs(Bundle.open(tmp_path / "bundle"), "fp16")["vision"].islands
    assert all(".blocks.1." in node for node in island.nodes)
    assert all("--fp16-keep" in reason for reason in island.reasons)


def test_a_pattern_that_matches_nothing_is_an_error(tiny_checkpoint: Path, tmp_path: Path) -> None:
    arguments = ["--fp16", "--fp16-keep", "*Gemm", "--fp16-keep", "*Gem", "--json"]
    assert main([str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), *arguments]) == 2
    assert list(tmp_path.iterdir()) == []


def test_scaled_weights_differ(overflowing_checkpoint: Path, tiny_checkpoint: Path) -> None:
    scaled, plain = (load_file(path / "model.safetensors") for path in (overflowing_checkpoint, tiny_checkpoint))
    assert sum(not scaled[name].equal(plain[name]) for name in plain) >= 6
