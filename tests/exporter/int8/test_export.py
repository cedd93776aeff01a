"""``align-export --int8`` for CPUs: the graphs, the parity gate, speed, and the checks of INT8 kernels."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest

import align_runtime
from align_calibration.observers import OBSERVERS
from align_calibration.statistics_cache import statistics_key
from align_exporter.command import main
from align_exporter.int8.build import advice_of
from align_exporter.int8.calibrate import LAYER_OUTPUTS
from align_exporter.int8.cpu_text import quantize_text_for_cpu
from align_exporter.int8.speed import ROUNDS, SpeedComparison, check_fused, count_kernels
from align_exporter.variants import variant_of
from align_runtime import BuildError, Bundle, ParityError, golden
from align_runtime.backends.onnxruntime import INEXACT_WITHOUT_VNNI
from align_runtime.commands.inspect import main as inspect
from align_runtime.commands.verify import main as verify
from align_runtime.graph_entry import Graph
from align_runtime.parity import compare
from align_runtime.selftest import check_graph

TOWERS = ("vision", "text")
FILES = {tower: f"onnx/{tower}_model_int8_cpu.onnx" for tower in TOWERS}


def export(checkpoint: Path, bundle: Path, *arguments: str) -> int:
    return main([str(checkpoint), "-o", str(bundle), "--quiet", *arguments])


@pytest.fixture(scope="module")
def bundle(tiny_int8_bundle: Path) -> Bundle:
    return Bundle.open(tiny_int8_bundle)


def int8_graphs(bundle: Bundle) -> dict[str, Graph]:
    graphs = bundle.manifest.graphs
    return {graph.tower: graph for graph in graphs if (graph.variant, graph.target) == ("int8", "cpu")}


# ── the graphs ──────────────────────────────────────────────────────────────────────────────────────────────────


def test_both_towers_have_an_int8_graph_for_the_cpu_with_the_same_contract(bundle: Bundle) -> None:
    found = int8_graphs(bundle)
    assert {tower: graph.file for tower, graph in found.items()} == FILES
    for tower, graph in found.items():
        single = bundle.graph(tower, "fp32", "cpu")
        assert (graph.inputs, graph.outputs) == (single.inputs, single.outputs)
        assert (graph.variant, graph.target, graph.data) == ("int8", "cpu", None)
        assert graph.quantization is not None
        assert graph.quantization.speedup > 0
    assert found["vision"].quantization.samples == 128
    assert found["text"].quantization.scheme == "per token"
    assert not [path for path in (bundle.folder / "onnx").iterdir() if path.name.startswith(".")]


def test_shares_of_int8(bundle: Bundle) -> None:
    """All convolutions and dense layers. The products in attention stay float32: 5.5 % of a model this small."""
    shares = {}
    for tower, graph in int8_graphs(bundle).items():
        macs = graph.content.macs
        shares[tower] = macs["int8"] / sum(macs.values())
        assert sum(macs.values()) == sum(bundle.graph(tower, "fp32", "cpu").content.macs.values())
        weights = graph.content.weights
        # The embedding table and the layer norms stay float32.
        assert weights["int8"] > 0.9 * sum(weights.values())
    assert shares["vision"] == 1
    assert shares["text"] == pytest.approx(0.945, abs=0.001)


def test_onnx_runtime_computes_them_in_int8(bundle: Bundle) -> None:
    found = count_kernels(bundle.path(FILES["vision"]))
    nodes = Counter(node.op_type for node in onnx.load(bundle.folder / "onnx" / "vision_model.onnx").graph.node)
    assert found["QLinearConv"] == nodes["Conv"]
    assert found["QLinearSigmoid"] == nodes["Sigmoid"]
    assert found["QLinearMul"] == nodes["Mul"] - 1  # the normalisation of bytes
    assert found["QLinearGlobalAveragePool"] == nodes["GlobalAveragePool"] - 1  # the last, which makes the embedding
    assert found["Conv"] == found["Sigmoid"] == 0
    # Pixels are quantized already; the two summands of the last residual are dequantized.
    assert (found["Cast"], found["QuantizeLinear"], found["DequantizeLinear"]) == (0, 0, 2)


def test_files_say_what_a_session_of_ones_own_needs(bundle: Bundle) -> None:
    for graph in bundle.manifest.graphs:
        said = onnx.load(bundle.path(graph.file), load_external_data=False).doc_string
        assert said == (INEXACT_WITHOUT_VNNI if (graph.variant, graph.target) == ("int8", "cpu") else "")


def test_files_are_small(bundle: Bundle) -> None:
    """Half and not a quarter of FP32: in a model this small, the nodes take as many bytes as the weights."""
    for tower, graph in int8_graphs(bundle).items():
        assert bundle.manifest.graph_bytes(graph) < 0.55 * bundle.manifest.graph_bytes(
            bundle.graph(tower, "fp32", "cpu")
        )


def test_load_takes_the_variant_and_its_exact_name(bundle: Bundle) -> None:
    texts = golden.read(bundle).texts
    with align_runtime.load(bundle.folder, precision="int8") as model:
        found = model.embed_texts(texts)
    with align_runtime.load(bundle.folder, precision="int8_cpu") as model:
        np.testing.assert_array_equal(model.embed_texts(texts), found)
    with align_runtime.load(bundle.folder) as model:
        assert 1e-4 < np.abs(model.embed_texts(texts) - found).max() < variant_of("int8", "cpu").limits["text"].max_abs
    with pytest.raises(align_runtime.ConfigurationError, match="'int8_cuda' is not in the bundle .* fp32, int8"):
        align_runtime.load(bundle.folder, precision="int8_cuda")


def test_verify_and_inspect_describe_int8(bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify([str(bundle.folder), "--quiet"]) == 0
    assert "int8 94.4 %, float32 5.6 %" in capsys.readouterr().out
    assert inspect([str(bundle.folder)]) == 0
    printed = capsys.readouterr().out
    assert "on 128 images; " in printed
    assert "dynamic per-token quantization" in printed
    assert printed.count("fastest") == 2


def test_the_report_holds_observers_and_speed(bundle: Bundle) -> None:
    records = {
        record["graph"]["file"]: record for record in json.loads((bundle.folder / "report.json").read_text())["graphs"]
    }
    vision = records[FILES["vision"]]
    assert {trial["observer"] for trial in vision["observers"]} == {LAYER_OUTPUTS, *OBSERVERS}
    errors = [trial["error"] for trial in vision["observers"]]
    assert errors[1:] == sorted(errors[1:])  # the first was chosen: no other is notably better
    assert [comparison["case"] for comparison in vision["speed"]] == ["batch 1", "batch 8"]
    assert all(len(values) == ROUNDS for comparison in vision["speed"] for values in comparison["seconds"].values())
    assert "speed" not in records["onnx/vision_model.onnx"]
    page = (bundle.folder / "report.html").read_text()
    assert "128 calibration images" in page
    assert "as fast as" in page


def test_two_builds_differ_in_report_and_measured_speed_alone(
    bundle: Bundle, tiny_checkpoint: Path, calibration_images: Path, tmp_path: Path
) -> None:
    arguments = ("--int8", "--calibration-images", str(calibration_images))
    assert export(tiny_checkpoint, tmp_path / "again", *arguments) == 0
    for file in sorted(path for path in bundle.folder.rglob("*") if path.is_file()):
        name = file.relative_to(bundle.folder)
        same = file.read_bytes() == (tmp_path / "again" / name).read_bytes()
        assert same == (file.name not in ("align.json", "report.html", "report.json")), name
    first, second = (json.loads((folder / "align.json").read_text()) for folder in (bundle.folder, tmp_path / "again"))
    for graph in (*first["graphs"], *second["graphs"]):
        if graph["quantization"] is not None:
            graph["quantization"]["speedup"] = None  # a measurement of time: the one value that differs
    assert first == second


def test_the_key_of_cached_statistics_does_not_depend_on_the_path_of_the_graph(bundle: Bundle, tmp_path: Path) -> None:
    file = bundle.path("onnx/vision_model.onnx")
    copy = Path(shutil.copy(file, tmp_path))
    keys = [statistics_key(ir.load(path), ["pixels"], [], {}) for path in (file, copy)]
    assert keys[0] == keys[1]


# ── the gate ─────────────────────────────────────────────────────────────────────────────────────────────────────────


def damaged(bundle: Bundle, tower: str, initializer: str, factor: float, folder: Path) -> ParityError | None:
    """The error of the parity gate when `initializer`, a scale, is multiplied by `factor`; None where it passes."""
    model = ir.load(bundle.path(FILES[tower]))
    value = model.graph.initializers[initializer]
    value.const_value = ir.tensor(value.const_value.numpy() * np.float32(factor), name=initializer)
    ir.save(model, folder / "damaged.onnx")
    answers = golden.read(bundle)
    runner = align_runtime.backends.open_runner(folder / "damaged.onnx", "cpu", None)
    if tower == "text":
        inputs = {"input_ids": answers.input_ids, "attention_mask": answers.attention_mask}
        parity = compare(runner.run(inputs), answers.text_embeds, answers.texts)
    else:
        parity = compare(runner.run({"pixels": answers.pixels}), answers.image_embeds, ["?"] * len(answers.pixels))
    try:
        parity.check(tower, int8_graphs(bundle)[tower].limits)
    except ParityError as error:
        return error
    return None


@pytest.mark.parametrize(
    ("tower", "initializer", "factor"),
    [
        ("vision", "vision_model.embeddings.convolution/Conv/scale", 0.25),
        ("vision", "vision_model.embeddings.convolution/Conv/scale", 8.0),
        ("vision", "vision_model.encoder.blocks.2.expansion.expand_conv.weight/scale", 1.5),
        ("vision", "vision_model.encoder.blocks.9.depthwise_conv.depthwise_conv.weight/scale", 2.0),
        ("vision", "vision_model.encoder.blocks.11.expansion.expand_conv.weight/scale", 2.0),
        ("text", "text_model.encoder.layer.1.intermediate.dense/MatMul/weight_scale", 1.5),
    ],
)
def test_a_wrong_scale_fails(bundle: Bundle, tower: str, initializer: str, factor: float, tmp_path: Path) -> None:
    """A scale that is too small clips, one that is too large rounds, and wrong scales of weights change the weights.

    The limits of the gate allow for the noise of INT8, so it does not notice wrong scales of tensors with little
    influence, such as those of late squeeze-excite.
    """
    assert damaged(bundle, tower, initializer, 1.0, tmp_path) is None
    assert damaged(bundle, tower, initializer, factor, tmp_path) is not None


def test_a_failed_gate_gives_advice_and_leaves_nothing(
    tiny_checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ("--int8", "--int8-device", "cpu", "--parity-min-cosine", "int8=0.9999")
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments) == 1
    message = capsys.readouterr().err
    assert "onnx/vision_model_int8_cpu.onnx: min_cosine is 0.9" in message
    assert (
        "it was calibrated on 8 images; give 128 or more like those of the service with --calibration-images" in message
    )
    assert list(tmp_path.iterdir()) == []


def test_more_samples_are_advised_as_long_as_they_are_few() -> None:
    assert "give 128 or more" in advice_of("text", 127)
    assert "--calibration-captions" in advice_of("text", 127)
    enough = advice_of("vision", 128)
    assert "--calibration-images" not in enough
    assert all(option in enough for option in ("128 calibration images", "--parity-min-cosine", "--int8-device"))


# ── speed ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture
def few_observers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Exports try two observers of eight: for tests to which the scales do not matter."""
    few = {name: OBSERVERS[name] for name in ("min-max", "MSE")}
    monkeypatch.setattr("align_exporter.int8.calibrate.OBSERVERS", few)


@pytest.mark.usefixtures("few_observers")
def test_a_slower_graph_is_refused_where_speed_is_required(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slower = SpeedComparison("batch 1", {"fp32": (1.0,) * ROUNDS, "int8": (1.25,) * ROUNDS})
    monkeypatch.setattr("align_exporter.pipeline.compare_speed", lambda *_: (slower,))
    arguments = ("--int8", "--no-calibration-cache", "--require-faster")
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments) == 1
    assert "vision_model_int8_cpu.onnx is 0.80 × as fast as fp32 (batch 1)" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("few_observers")
def test_speed_is_recorded_against_every_float_graph_and_required_of_a_bundle_that_is_up_to_date(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measured = []

    def slower(candidate: Path, baselines: dict[str, Path], _: object) -> tuple[SpeedComparison, ...]:
        assert all(file.is_file() for file in (candidate, *baselines.values()))
        measured.append((candidate.name, {name: file.name for name, file in baselines.items()}))
        seconds = dict.fromkeys(baselines, (2.0,) * ROUNDS) | {"int8": (2.5,) * ROUNDS}
        return (SpeedComparison("batch 1", seconds),)

    monkeypatch.setattr("align_exporter.pipeline.compare_speed", slower)
    arguments = ("--fp16", "--int8", "--int8-device", "cpu", "--no-calibration-cache")
    assert main([str(tiny_checkpoint), "-o", str(tmp_path / "bundle"), *arguments]) == 0
    assert measured == [
        (f"{tower}_model_int8_cpu.onnx", {"fp32": graph, "fp16": f"{tower}_model_fp16.onnx"})
        for tower, graph in (("vision", "vision_model.onnx"), ("text", "text_model_cpu.onnx"))
    ]
    graphs = int8_graphs(Bundle.open(tmp_path / "bundle"))
    assert {graph.quantization.speedup for graph in graphs.values() if graph.quantization} == {0.8}
    assert capsys.readouterr().err.count("INT8 scales of the vision tower were measured on 8 images") == 1
    assert export(tiny_checkpoint, tmp_path / "bundle", *arguments, "--require-faster") == 1
    assert "0.80 × as fast" in capsys.readouterr().err
    assert len(measured) == 2  # it was up to date, and not built again


# ── INT8 kernels ───────────────────────────────────────────────────────────────────────────────────────────


def test_a_float_graph_labelled_int8_fails_the_self_test(bundle: Bundle) -> None:
    for tower, graph in int8_graphs(bundle).items():
        single = bundle.graph(tower, "fp32", "cpu")
        named = Graph(**{**vars(graph), "file": single.file, "data": single.data, "content": single.content})
        check = check_graph(bundle, named, golden.read(bundle), "cpu", None)
        assert any("is labelled int8, but only 0 % of its MACs are in int8" in failure for failure in check.failures)


def test_a_graph_that_does_not_fuse_is_refused(bundle: Bundle, tmp_path: Path) -> None:
    """A tensor without its Q/DQ pair: the graph still runs, with float operators around the tensor."""
    model = ir.load(bundle.path(FILES["vision"]))
    (node,) = [node for node in model.graph if node.name == "vision_model.encoder.blocks.4.expansion/Mul/dequantized"]
    quantizer = node.inputs[0].producer()
    ir.convenience.replace_all_uses_with(node.outputs[0], quantizer.inputs[0])
    ir.save(model, tmp_path / "graph.onnx")
    wanted = {"Conv": sum(node.op_type == "Conv" for node in model.graph)}
    check_fused(bundle.path(FILES["vision"]), wanted)
    with pytest.raises(BuildError, match=r"graph\.onnx: .* \d+ of 84 quantized Conv"):
        check_fused(tmp_path / "graph.onnx", wanted)
    assert [path.name for path in tmp_path.iterdir()] == ["graph.onnx"]


def test_dense_layers_that_do_not_fuse_are_refused(bundle: Bundle) -> None:
    count = quantize_text_for_cpu(ir.load(bundle.folder / "onnx" / "text_model_cpu.onnx"))
    check_fused(bundle.path(FILES["text"]), {"MatMul": count})
    with pytest.raises(BuildError, match=f"0 of {count} quantized MatMul"):
        check_fused(bundle.folder / "onnx" / "text_model_cpu.onnx", {"MatMul": count})


def test_the_embedding_of_a_text_does_not_depend_on_its_batch(tiny_int8_bundle: Path) -> None:
    texts = [text for text in golden.read(Bundle.open(tiny_int8_bundle)).texts if text]
    with align_runtime.load(tiny_int8_bundle, precision="int8") as model:
        together = model.embed_texts(texts)
        alone = np.concatenate([model.embed_texts([text]) for text in texts])
    assert np.abs(together - alone).max() < 2e-3
