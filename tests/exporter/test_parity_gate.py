"""The parity gate must fail when anything on the way is wrong: a weight, the mean, a token, the padding."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import pytest

from align_exporter import builtin_samples as samples
from align_exporter import parity_gate
from align_exporter.graph.specs import GraphContract, text_contract, vision_contract
from align_exporter.variants import variant_of
from align_reference.checkpoint import load_model
from align_runtime import BuildError, Bundle, ParityError, golden
from align_runtime.parity import Parity
from align_runtime.preprocessing import ImagePreprocessing

FP32_ANY = variant_of("fp32", "any")
LIMITS = FP32_ANY.limits["vision"]
TEXT_GRAPHS = ("text_model.onnx", "text_model_cpu.onnx")


@dataclass(frozen=True)
class Subject:
    """An exported bundle, taken apart."""

    folder: Path
    vision: GraphContract
    text: GraphContract
    preprocessing: ImagePreprocessing
    answers: golden.Golden

    def measure(self, contract: GraphContract, file: Path | None = None) -> Parity:
        file = file or self.graph(f"{contract.tower}_model.onnx")
        return parity_gate.measure(file, FP32_ANY, contract, self.preprocessing, self.answers).parity

    def graph(self, name: str) -> Path:
        return self.folder / "onnx" / name


@pytest.fixture(scope="module")
def subject(tiny_bundle: Path, tiny_checkpoint: Path) -> Subject:
    bundle = Bundle.open(tiny_bundle)
    config = load_model(tiny_checkpoint).config
    preprocessing = bundle.manifest.preprocessing
    return Subject(
        folder=tiny_bundle,
        vision=vision_contract(config, preprocessing.output_size, "uint8"),
        text=text_contract(config),
        preprocessing=preprocessing,
        answers=golden.read(bundle),
    )


def disturbed(source: Path, target: Path, name: str, change: float) -> Path:
    """`source` with the first value of the largest initializer whose name contains `name` changed."""
    model = onnx.load(source)
    weights = [tensor for tensor in model.graph.initializer if name in tensor.name]
    weight = max(weights, key=lambda tensor: np.prod(tensor.dims))
    values = onnx.numpy_helper.to_array(weight).copy()
    values.flat[0] += change
    weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    onnx.save(model, target)
    return target


def test_what_was_exported_passes(subject: Subject) -> None:
    graphs = [(subject.vision, "vision_model.onnx"), *((subject.text, name) for name in TEXT_GRAPHS)]
    for contract, name in graphs:
        parity = subject.measure(contract, subject.graph(name))
        parity.check(contract.tower, LIMITS)
        assert parity.max_abs > 0  # another order of the sums: exactly nothing would mean that nothing was compared


def test_every_batch_size_and_length_is_run(subject: Subject) -> None:
    """Alone, a few and all; texts alone without padding, together with what they need and with as much as there is."""
    shapes: list[tuple[int, ...]] = []

    def run(inputs: Mapping[str, np.ndarray]) -> np.ndarray:
        shapes.append(next(iter(inputs.values())).shape[:2])
        return np.zeros((shapes[-1][0], subject.answers.text_embeds.shape[1]), np.float32)

    runner = SimpleNamespace(run=run)
    for contract in (subject.vision, subject.text):
        parity_gate.measure_runner(runner, contract, subject.preprocessing, subject.answers)
    height, (texts, width) = subject.answers.pixels.shape[1], subject.answers.input_ids.shape
    lengths = subject.answers.attention_mask.sum(axis=1).tolist()
    assert shapes == [
        *([(1, height)] * 8), (3, height), (8, height),
        *((1, length) for length in lengths),
        *((3, length) for length in sorted({max(lengths[:3]), width})),
        *((texts, length) for length in sorted({max(lengths), width})),
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["project_conv.weight", "depthwise_conv.weight", "squeeze_excite.reduce.weight"])
def test_a_disturbed_vision_weight_fails(subject: Subject, tmp_path: Path, name: str) -> None:
    file = disturbed(subject.folder / "onnx" / "vision_model.onnx", tmp_path / "vision.onnx", name, 0.05)
    with pytest.raises(ParityError, match="max_abs"):
        subject.measure(subject.vision, file).check("vision", LIMITS)


@pytest.mark.parametrize("graph", TEXT_GRAPHS)
@pytest.mark.parametrize("name", ["query/MatMul", "intermediate.dense/MatMul", "text_projection.weight"])
def test_a_disturbed_text_weight_fails(subject: Subject, tmp_path: Path, name: str, graph: str) -> None:
    file = disturbed(subject.graph(graph), tmp_path / "text.onnx", name, 0.05)
    with pytest.raises(ParityError, match="max_abs"):
        subject.measure(subject.text, file).check("text", LIMITS)


def test_a_wrong_mean_fails(subject: Subject, tmp_path: Path) -> None:
    """The normalization is off by one of 255 levels."""
    file = disturbed(subject.folder / "onnx" / "vision_model.onnx", tmp_path / "vision.onnx", "Add.1", 1 / 127.5)
    with pytest.raises(ParityError, match="max_abs"):
        subject.measure(subject.vision, file).check("vision", LIMITS)


@pytest.mark.parametrize("graph", TEXT_GRAPHS)
def test_a_swapped_token_fails(subject: Subject, graph: str) -> None:
    input_ids = subject.answers.input_ids.copy()
    row = int(np.argmax(subject.answers.attention_mask.sum(axis=1)))
    input_ids[row, [1, 2]] = input_ids[row, [2, 1]]
    assert (input_ids != subject.answers.input_ids).any()
    with pytest.raises(ParityError, match="max_abs") as caught:
        replace(subject, answers=replace(subject.answers, input_ids=input_ids)).measure(
            subject.text, subject.graph(graph)
        ).check("text", LIMITS)
    assert caught.value.sample == repr(subject.answers.texts[row])


@pytest.mark.parametrize("graph", TEXT_GRAPHS)
def test_padding_that_is_attended_to_fails(subject: Subject, graph: str) -> None:
    mask = np.ones_like(subject.answers.attention_mask)
    with pytest.raises(ParityError, match="max_abs"):
        replace(subject, answers=replace(subject.answers, attention_mask=mask)).measure(
            subject.text, subject.graph(graph)
        ).check("text", LIMITS)


def test_images_in_another_order_fail(subject: Subject) -> None:
    rolled = np.roll(subject.answers.image_embeds, 1, axis=0)
    with pytest.raises(ParityError, match="max_abs"):
        replace(subject, answers=replace(subject.answers, image_embeds=rolled)).measure(subject.vision).check(
            "vision", LIMITS
        )


def test_a_reference_that_cannot_tell_samples_apart_is_refused() -> None:
    alike = np.full((4, 8), 8**-0.5, dtype=np.float32)
    with pytest.raises(BuildError, match="same image embedding"):
        samples._check_distinct(alike, "image")
    with pytest.raises(BuildError, match="text embeddings are not finite"):
        samples._check_distinct(np.full((4, 8), np.nan, dtype=np.float32), "text")
