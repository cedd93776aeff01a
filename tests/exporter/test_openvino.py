"""OpenVINO, another reader of ONNX than the one that every graph is tried with, takes them and gives the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from align_runtime.backends import open_runner
from align_runtime.bundle import Bundle
from align_runtime.golden import Golden, read
from support.checkpoints import build_model, pixel_values, small_config
from support.openvino_runner import OpenVinoRunner
from support.oracle import oracle_of
from support.plain_export import export_vision_plainly

# Unit embeddings in float32 on both sides, by other kernels with other orders of sums: measured 3.4e-7 at most.
TOLERANCE = 2e-6

GRAPHS = {
    "vision_model": ("pixels",),
    "text_model": ("input_ids", "attention_mask"),
    "text_model_cpu": ("input_ids", "attention_mask"),
}
Inputs = dict[str, NDArray[Any]]


@pytest.fixture(scope="module")
def golden(tiny_bundle: Path) -> Golden:
    return read(Bundle.open(tiny_bundle))


def differences(file: Path, batches: list[Inputs]) -> list[float]:
    """Largest difference between OpenVINO and ONNX Runtime for each of `batches`."""
    theirs, ours = OpenVinoRunner(file), open_runner(file, "cpu", None)
    return [float(np.abs(theirs.run(batch) - ours.run(batch)).max()) for batch in batches]


def whole_and_parts(golden: Golden, names: tuple[str, ...]) -> list[Inputs]:
    """All golden rows at once, the first one alone, and three more, texts also without most of their padding."""
    whole = {name: getattr(golden, name) for name in names}
    few = [{name: values[rows] for name, values in whole.items()} for rows in (slice(0, 1), slice(1, 4))]
    if "input_ids" in names:
        length = int(few[1]["attention_mask"].sum(axis=1).max())
        few.append({name: values[:, :length] for name, values in few[1].items()})
    return [whole, *few]


@pytest.mark.parametrize("name", GRAPHS)
def test_openvino_gives_what_onnx_runtime_gives(tiny_bundle: Path, golden: Golden, name: str) -> None:
    found = differences(tiny_bundle / "onnx" / f"{name}.onnx", whole_and_parts(golden, GRAPHS[name]))
    assert max(found) <= TOLERANCE


def test_rows_are_further_apart_than_the_tolerance(golden: Golden) -> None:
    """The comparison would notice one image or text in the place of another."""
    for embeds in (golden.image_embeds, golden.text_embeds):
        assert np.abs(embeds[0] - embeds[1]).max() > 1000 * TOLERANCE


def test_openvino_is_held_to_float32(tiny_bundle: Path) -> None:
    """Its own choice on a CPU with bfloat16 would be another computation."""
    runner = OpenVinoRunner(tiny_bundle / "onnx" / "text_model.onnx")
    assert runner.precision == "f32"


def test_another_weight_is_noticed(tiny_bundle: Path, golden: Golden, tmp_path: Path) -> None:
    """OpenVINO is given a graph of which one bias differs by 1e-3."""
    model = onnx.load(tiny_bundle / "onnx" / "vision_model.onnx")
    bias = next(tensor for tensor in model.graph.initializer if tensor.name.endswith("squeeze_excite.expand.bias"))
    values = onnx.numpy_helper.to_array(bias).copy()
    values[0] += 1e-3
    bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
    onnx.save(model, tmp_path / "disturbed.onnx")
    batch = {"pixels": golden.pixels[:2]}
    disturbed = OpenVinoRunner(tmp_path / "disturbed.onnx").run(batch)
    expected = open_runner(tiny_bundle / "onnx" / "vision_model.onnx", "cpu", None).run(batch)
    assert np.abs(disturbed - expected).max() > TOLERANCE


def test_the_plain_export_is_refused_by_openvino_and_taken_by_onnx_runtime(tmp_path: Path) -> None:
    """Why the pool is global: transformers' window of `hidden_dim` is larger than the feature map."""
    config = small_config()
    model = build_model(config)
    file = export_vision_plainly(oracle_of(model, config).vision_model, tmp_path / "plain.onnx")
    (pool,) = [node for node in onnx.load(file).graph.node if node.op_type == "AveragePool"]
    window = next(attribute.ints for attribute in pool.attribute if attribute.name == "kernel_shape")
    assert list(window) == [config["vision_config"]["hidden_dim"]] * 2
    images = pixel_values(2, config["vision_config"]["image_size"]).numpy()
    assert np.isfinite(open_runner(file, "cpu", None).run({"pixel_values": images})).all()
    with pytest.raises(RuntimeError, match=r"\(dim: 64\) larger than the data shape after padding \(dim: 8\)"):
        OpenVinoRunner(file)
