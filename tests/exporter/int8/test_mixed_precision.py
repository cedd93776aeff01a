"""Parts that stay float for a target, on a graph where it is known what quantizing each of them costs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest

from align_calibration.quant_params import QuantParams
from align_calibration.run_instrumented import Batch
from align_exporter.int8.build import FOR_CPU
from align_exporter.int8.calibrate import QuantizationMethod
from align_exporter.int8.calibration_samples import Calibration
from align_exporter.int8.cpu_text import dense_nodes, quantize_text_for_cpu
from align_exporter.int8.fidelity import FidelityTarget
from align_exporter.int8.mixed_precision import Candidate, Emulated, MixedPrecisionGoal, meet_target, unit_macs, unit_of
from align_runtime import BuildError
from align_runtime.progress import Progress
from support.graphs import typed

WIDTH = 16
PARTS = ("first", "second", "third", "fourth")
LAYERS = "\n  ".join(f"[{part}] v{index + 1} = MatMul (v{index}, {part}_w)" for index, part in enumerate(PARTS))
GRAPH = f"""
<ir_version: 10, opset_import: ["" : 20]>
g (float[batch, {WIDTH}] x, float[1] zero) => (float[batch, {WIDTH}] y)
<{", ".join(f"float[{WIDTH}, {WIDTH}] {part}_w = {{{', '.join(['1'] * WIDTH**2)}}}" for part in PARTS)}>
{{
  v0 = Add (x, zero)
  {LAYERS}
  axes = Constant <value_ints = [1]> ()
  norm = ReduceL2 <keepdims = 1> (v4, axes)
  y = Div (v4, norm)
}}
"""


def model() -> ir.Model:
    """Four rotations in a row."""
    generator = np.random.default_rng(0)
    found = typed(GRAPH)
    for part in PARTS:
        weights = np.linalg.qr(generator.standard_normal((WIDTH, WIDTH)))[0].astype(np.float32)
        found.graph.initializers[f"{part}_w"].const_value = ir.tensor(weights, name=f"{part}_w")
    return found


def spoiling(damage: Mapping[str, float]) -> QuantizationMethod:
    """INT8 that disturbs the weights of some parts, by `damage` relative to their size."""

    def apply(graph: ir.Model, _: Mapping[str, QuantParams], kept: Collection[str]) -> None:
        quantize_text_for_cpu(graph, kept)
        for part, size in damage.items():
            if part not in kept:
                scale = graph.graph.initializers[f"{part}/weight_scale"]
                noise = 1 + size * np.random.default_rng(1).standard_normal(WIDTH)
                scale.const_value = ir.tensor((scale.const_value.numpy() * noise).astype(np.float32), name=scale.name)

    return replace(FOR_CPU["text"], apply=apply)


def samples(seed: int, count: int = 40) -> list[Batch]:
    rows = np.random.default_rng(seed).standard_normal((count, 1, WIDTH)).astype(np.float32)
    return [{"x": row, "zero": np.zeros(1, dtype=np.float32)} for row in rows]


@pytest.fixture
def calibration(tmp_path: Path) -> Calibration:
    return Calibration(samples(2), tmp_path, None, Progress(quiet=True))


def tried(
    calibration: Calibration, target: FidelityTarget, damage: Mapping[str, float], emulated: Emulated | None = None
) -> tuple[Candidate, ...]:
    others = np.eye(WIDTH, dtype=np.float32)
    goal = MixedPrecisionGoal(target, replace(calibration, samples=samples(3)), others, tokens=8)
    method = spoiling(damage)
    return meet_target(goal, model(), method, emulated or partial(method.applied, model()), {}, calibration)


def test_the_parts_that_cost_most_stay_float_and_no_more(calibration: Calibration, tmp_path: Path) -> None:
    candidates = tried(calibration, FidelityTarget(cosine=0.999), {"second": 0.5, "fourth": 0.3})
    assert set(candidates[0].kept) == {"second", "fourth"}
    assert candidates[0].share == pytest.approx(0.5)
    assert candidates[0].fidelity.cosine > 0.999
    one = next(candidate for candidate in candidates if len(candidate.kept) == 1)
    assert one.kept == ("second",)
    assert one.fidelity.cosine < 0.999
    assert [candidate.share for candidate in candidates[1:]] == sorted(candidate.share for candidate in candidates[1:])
    assert list(tmp_path.iterdir()) == []


def test_a_target_between_is_met_with_one_part(calibration: Calibration) -> None:
    damage = {"second": 0.5, "fourth": 0.3}
    both, one, none = sorted(
        tried(calibration, FidelityTarget(cosine=0.999), damage), key=lambda candidate: candidate.share
    )
    between = (one.fidelity.cosine + none.fidelity.cosine) / 2
    candidates = tried(calibration, FidelityTarget(cosine=between), damage)
    assert both.fidelity.cosine > one.fidelity.cosine > none.fidelity.cosine
    assert candidates[0].kept == ("second",)
    assert candidates[0].share == pytest.approx(0.75)


def test_a_target_reached_at_once_keeps_nothing_float(calibration: Calibration) -> None:
    (candidate,) = tried(calibration, FidelityTarget(cosine=0.999, agreement=0.9), {})
    assert candidate.kept == ()
    assert candidate.share == 1


def test_top_1_agreement_can_be_the_target(calibration: Calibration) -> None:
    candidates = tried(calibration, FidelityTarget(agreement=0.95), {"third": 0.5})
    assert candidates[0].kept == ("third",)
    assert next(candidate for candidate in candidates if not candidate.kept).fidelity.agreement < 0.95


def test_a_missed_target_reports_the_best_candidate(calibration: Calibration, tmp_path: Path) -> None:
    damage = dict.fromkeys(PARTS, 0.5)
    with pytest.raises(BuildError) as caught:
        tried(calibration, FidelityTarget(cosine=0.9999), damage)
    message = str(caught.value)
    assert "cosine 0.9999" in message
    assert "40 held-out samples, with 50.0 % in INT8 and 2 parts in float" in message
    assert list(tmp_path.iterdir()) == []


def test_the_best_candidate_is_the_best_at_what_was_asked(calibration: Calibration) -> None:
    """In this graph, parts in float raise the cosine and lower the agreement."""

    def emulated(_: object, kept: Collection[str]) -> ir.Model:
        return spoiling(dict.fromkeys(kept, 3.0) or {"first": 1.0}).applied(model(), {})

    with pytest.raises(BuildError, match=r"with 100 % in INT8 and 0 parts in float"):
        tried(calibration, FidelityTarget(agreement=0.99), dict.fromkeys(PARTS, 0.5), emulated)


def test_the_emulated_graph_decides(calibration: Calibration) -> None:
    """The second part has to stay float only because of what FP16 adds."""
    damage = {"second": 0.5, "fourth": 0.05}
    later = spoiling({"second": 0.5, "fourth": 0.3})
    assert tried(calibration, FidelityTarget(cosine=0.995), damage)[0].kept == ("second",)
    candidates = tried(calibration, FidelityTarget(cosine=0.995), damage, partial(later.applied, model()))
    assert candidates[0].kept == ("second", "fourth")


# ── parts ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("vision_model.embeddings.convolution/Conv", "vision_model.embeddings"),
        ("vision_model.embeddings/Sigmoid", "vision_model.embeddings"),
        ("vision_model.encoder.blocks.1/Add", "vision_model.encoder.blocks.1"),
        ("vision_model.encoder.blocks.12.expansion/Mul", "vision_model.encoder.blocks.12"),
        (
            "text_model.encoder.layer.0.attention.self.query/MatMul",
            "text_model.encoder.layer.0.attention.self.query/MatMul",
        ),
        ("text_projection/Gemm", "text_projection/Gemm"),
    ],
)
def test_the_part_of_an_operator(name: str, part: str) -> None:
    assert unit_of(ir.node("Identity", [ir.val("x")], name=name)) == part


def test_macs_of_parts(tiny_bundle: Path) -> None:
    """Their sum is that of the manifest, without attention's products of activations."""
    vision = ir.load(tiny_bundle / "onnx" / "vision_model.onnx")
    assert sum(unit_macs(FOR_CPU["vision"].operators(vision.graph)).values()) == 11_906_496
    text = unit_macs(dense_nodes(ir.load(tiny_bundle / "onnx" / "text_model_cpu.onnx").graph))
    assert text["text_model.encoder.layer.0.intermediate.dense/MatMul"] == 128 * 256
