"""Traced text graphs of the small checkpoint, shared by the tests of this folder."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx_ir as ir
import pytest

from align_exporter.graph.specs import text_contract
from align_exporter.graph.towers import PackedTextTower, TextTower
from align_reference.checkpoint import load_model
from align_reference.model import AlignModel
from support.trace_cache import TraceCache


@pytest.fixture(scope="session")
def small_model(small_checkpoint: Path) -> AlignModel:
    """The reference model of the small checkpoint."""
    return load_model(small_checkpoint).eval()


@pytest.fixture(scope="session")
def traced_text(small_model: AlignModel, traces: TraceCache) -> Callable[[str], ir.Model]:
    """Gives a copy of the text graph for a target, ``"any"`` or ``"cpu"``, as it is traced, before all passes."""
    contract, config = text_contract(small_model.config), small_model.config.text
    towers = {"any": TextTower(small_model), "cpu": PackedTextTower(small_model)}
    graphs = {
        target: traces(tower.eval(), contract, config.max_position_embeddings, 20) for target, tower in towers.items()
    }
    return lambda target: graphs[target].clone()
