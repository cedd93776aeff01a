"""The checks of operators for activations that use the counted operators themselves."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
import torch

from align_exporter.graph.checks import check_file, check_operators
from align_exporter.graph.passes.order import run_steps, text_steps
from align_exporter.graph.specs import text_contract
from align_exporter.graph.towers import TextTower
from align_exporter.graph.trace import trace
from align_exporter.pipeline import write_graph
from align_reference.config import AlignConfig
from align_runtime import BuildError
from align_runtime.backends import open_runner
from support.checkpoints import build_model, small_config, token_batch

PLAIN = AlignConfig.from_dict(small_config(text_config={"hidden_act": "relu"}))


@pytest.mark.parametrize(
    ("activation", "opset", "count"),
    [("tanh", 20, 2), ("gelu_new", 20, 2), ("gelu_pytorch_tanh", 18, 2), ("gelu_pytorch_tanh", 20, 0)],
)
def test_tanh_of_an_activation_is_not_taken_for_the_pooler(
    activation: str, opset: int, count: int, tmp_path: Path
) -> None:
    model, file = build_model(small_config(text_config={"hidden_act": activation})), tmp_path / "text.onnx"
    contract = text_contract(model.config)
    graph = trace(TextTower(model).eval(), contract, model.config.text.max_position_embeddings, opset)
    run_steps(graph, text_steps(model.config))
    assert Counter(node.op_type for node in graph.graph)["Tanh"] == count
    check_operators(graph, contract, model.config)
    if count:
        with pytest.raises(BuildError, match="2 Tanh nodes, expected 0"):
            check_operators(graph, contract, PLAIN)  # its activation has no Tanh
    write_graph(graph, "text", file)
    check_file(file, contract, opset, None)
    ids, mask = token_batch(model.config, 3, 9)
    found = open_runner(file, "cpu", 1).run({"input_ids": ids.numpy(), "attention_mask": mask.numpy()})
    with torch.inference_mode():
        expected = torch.nn.functional.normalize(model.get_text_features(ids, mask))
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=0, atol=2e-6)
