"""The packed text tower: equal to the padded tower for any mask, without computing padding."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray

from align_exporter.graph.checks import check_operators
from align_exporter.graph.passes.order import run_steps, text_steps
from align_exporter.graph.specs import text_contract
from align_exporter.graph.towers import PackedTextTower, pack
from align_exporter.pipeline import write_graph
from align_reference.model import AlignModel, unit_length
from align_runtime import BuildError

# Both graphs do the same float32 arithmetic in another order; measured 2.1e-7 over these masks.
TOLERANCE = 1e-6

SEQUENCE = 9
MASKS: dict[str, list[list[int]]] = {
    "no padding": [[1] * SEQUENCE, [1] * SEQUENCE],
    "one row": [[1, 1, 1, 0, 0, 0, 0, 0, 0]],
    "one token": [[1]],
    "padding on the right": [[1, 1, 1, 1, 0, 0], [1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0]],
    "padding on the left": [[0, 0, 1, 1], [0, 1, 1, 1]],
    "zeros in the middle": [[1, 0, 1, 1, 0, 1], [1, 1, 0, 0, 1, 0]],
    "first token masked": [[0, 1, 1, 1], [1, 1, 1, 0]],
    "a row without tokens": [[1, 1, 0, 0], [0, 0, 0, 0], [1, 1, 1, 0]],
    "no tokens at all": [[0, 0, 0], [0, 0, 0]],
    "only the last token": [[0, 0, 0, 0, 1], [0, 0, 0, 1, 0]],
}


@pytest.fixture(scope="module")
def model(small_model: AlignModel) -> AlignModel:
    return small_model


@pytest.fixture(scope="module")
def graphs(
    model: AlignModel, traced_text: Callable[[str], ir.Model], tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    """The plain and the packed text graph with the passes of an export."""
    folder, contract = tmp_path_factory.mktemp("graphs"), text_contract(model.config)
    files = {}
    for target in ("any", "cpu"):
        graph = traced_text(target)
        run_steps(graph, text_steps(model.config, target))
        check_operators(graph, contract, model.config, target)
        files[target] = folder / f"{target}.onnx"
        write_graph(graph, "text", files[target])
    return files


@pytest.fixture(scope="module")
def plain(graphs: dict[str, Path]) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graphs["any"], providers=["CPUExecutionProvider"])


@pytest.fixture(scope="module")
def packed(graphs: dict[str, Path]) -> onnxruntime.InferenceSession:
    return onnxruntime.InferenceSession(graphs["cpu"], providers=["CPUExecutionProvider"])


def inputs(mask: Any, seed: int = 0) -> dict[str, NDArray[np.int64]]:
    """Random tokens at every position, also where the mask is 0: they must not change the result."""
    attention_mask = np.array(mask, dtype=np.int64)
    ids = np.random.default_rng(seed).integers(1, 100, attention_mask.shape)
    return {"input_ids": ids, "attention_mask": attention_mask}


@pytest.mark.parametrize("name", MASKS)
def test_any_mask_gives_the_results_of_the_padded_graph(
    name: str, plain: onnxruntime.InferenceSession, packed: onnxruntime.InferenceSession
) -> None:
    feed = inputs(MASKS[name])
    np.testing.assert_allclose(packed.run(None, feed)[0], plain.run(None, feed)[0], rtol=0, atol=TOLERANCE)


def test_random_masks_give_the_results_of_the_reference(
    model: AlignModel, packed: onnxruntime.InferenceSession
) -> None:
    generator = np.random.default_rng(1)
    for seed in range(40):
        shape = (int(generator.integers(1, 7)), int(generator.integers(1, 40)))
        feed = inputs(generator.random(shape) < generator.random((shape[0], 1)), seed)
        with torch.inference_mode():
            features = model.get_text_features(*(torch.from_numpy(value) for value in feed.values()))
        expected = unit_length(features).numpy()
        np.testing.assert_allclose(packed.run(None, feed)[0], expected, rtol=0, atol=TOLERANCE)


def test_a_token_changes_the_result_unless_it_is_masked(packed: onnxruntime.InferenceSession) -> None:
    """The comparisons above would also pass if neither the graph nor the reference read the tokens."""
    feed = inputs(MASKS["zeros in the middle"])
    before = packed.run(None, feed)[0]
    masked = {**feed, "input_ids": np.where(feed["attention_mask"] == 1, feed["input_ids"], 7)}
    np.testing.assert_array_equal(packed.run(None, masked)[0], before)
    real = {**feed, "input_ids": np.where(feed["attention_mask"] == 0, feed["input_ids"], 7)}
    assert np.abs(packed.run(None, real)[0] - before).max() > 1e-3


def test_padding_of_the_caller_gives_bit_identical_results(packed: onnxruntime.InferenceSession) -> None:
    """Padding is removed before the first layer, so the arithmetic is the same."""
    feed = inputs(MASKS["padding on the right"])
    longer = {name: np.pad(value, ((0, 0), (0, 58))) for name, value in feed.items()}
    np.testing.assert_array_equal(packed.run(None, longer)[0], packed.run(None, feed)[0])


def test_packing_keeps_the_tokens_and_the_first_position() -> None:
    packing = pack(torch.tensor([[1, 1, 0, 0], [0, 0, 0, 0], [0, 0, 1, 0]]), num_heads=2)
    assert packing.places.tolist() == [0, 1, 4, 5, 6, 7, 8, 10]
    assert packing.columns.tolist() == [0, 1, 0, 1, 2, 3, 0, 2]
    assert packing.starts.tolist() == [0, 2, 6]
    assert packing.padded.shape == (3, 2, 4)
    assert packing.padded[0].tolist() == [[0, 2, 2, 2], [1, 3, 3, 3]]
    attended = packing.bias[:, 0, 0] == 0
    assert attended.tolist() == [[True, True, False, False], [False] * 4, [False, True, False, False]]


def test_padding_and_packing_again_is_the_identity() -> None:
    mask = torch.tensor([[1, 0, 1, 1], [1, 0, 0, 0], [0, 1, 1, 0]])
    packing = pack(mask, num_heads=3)
    heads = torch.arange(len(packing.places) * 3)
    assert torch.equal(heads[packing.padded].flatten()[packing.packed].flatten(), heads)


def test_a_packing_that_drops_a_token_is_noticed(
    model: AlignModel, plain: onnxruntime.InferenceSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The comparison above fails for a tower that treats the second token of each row as padding."""
    tower = PackedTextTower(model).eval()
    feed = inputs(MASKS["padding on the right"])

    def difference() -> float:
        with torch.inference_mode():
            embeds = tower(*(torch.from_numpy(value) for value in feed.values())).numpy()
        return float(np.abs(embeds - plain.run(None, feed)[0]).max())

    assert difference() < TOLERANCE

    def dropping(attention_mask: torch.Tensor, num_heads: int) -> Any:
        shortened = attention_mask.clone()
        shortened[:, 1] = 0
        return pack(shortened, num_heads)

    monkeypatch.setattr("align_exporter.graph.towers.pack", dropping)
    assert difference() > 1000 * TOLERANCE


# ── the graph ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_dense_layers_compute_tokens_only(graphs: dict[str, Path], tmp_path: Path) -> None:
    """Rows of every layer norm and activation: the number of tokens, in the last layer the number of texts."""
    graph = onnx.load(graphs["cpu"])
    names = [node.output[0] for node in graph.graph.node if node.op_type in ("LayerNormalization", "Gelu")]
    graph.graph.output.extend(onnx.helper.make_tensor_value_info(name, 1, None) for name in names)
    onnx.save(graph, tmp_path / "all.onnx")
    everything = onnxruntime.InferenceSession(tmp_path / "all.onnx", providers=["CPUExecutionProvider"])
    feed = inputs([[1, 1, 1, 0, 0, 0, 0, 0], [1, 1, 0, 0, 0, 0, 0, 0]])
    rows = {name: value.shape[:2] for name, value in zip(names, everything.run(names, feed), strict=True)}
    last = [name for name in rows if "layer.1." in name]
    assert len(last) == 3
    assert {name: shape for name, shape in rows.items() if name not in last} == dict.fromkeys(
        [name for name in names if name not in last], (1, 5)
    )
    assert {rows[name] for name in last} == {(1, 2)}


def test_both_graphs_have_standard_operators_only(graphs: dict[str, Path]) -> None:
    for file in graphs.values():
        assert {node.domain for node in onnx.load(file).graph.node} == {""}


def test_the_graph_for_any_target_has_no_data_dependent_shape(graphs: dict[str, Path]) -> None:
    plain, packed = ({node.op_type for node in onnx.load(graphs[target]).graph.node} for target in ("any", "cpu"))
    dynamic = {"NonZero", "Compress", "Unique", "If", "Loop"}
    assert not plain & dynamic
    assert packed & dynamic == {"NonZero"}


def test_a_packed_graph_is_refused_for_any_target(model: AlignModel, graphs: dict[str, Path]) -> None:
    graph, contract = ir.load(graphs["cpu"]), text_contract(model.config)
    check_operators(graph, contract, model.config, "cpu")
    with pytest.raises(BuildError, match="2 NonZero nodes, expected 0"):
        check_operators(graph, contract, model.config)


def test_the_passes_of_the_plain_tower_are_reported_for_the_packed_one(
    model: AlignModel, graphs: dict[str, Path]
) -> None:
    """Its shapes are data-dependent, so no target of a Reshape can become constant; the expected number shows that."""
    counts = run_steps(ir.load(graphs["cpu"]), text_steps(model.config))
    assert "the pass ConstantReshape made 0 rewrites, expected 6" in map(str, counts)
