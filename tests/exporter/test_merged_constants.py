"""Every rewrite of a graph gives the same result whether equal constants are one initializer or several.

The weights are those with the most equal constants: freshly initialized biases and norms, squeeze-excite zero, repeated
layers and blocks. What a rewrite of one reader does to a constant that another reader shares shows in the output.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

from align_calibration.channel_means import measure_channel_means
from align_calibration.quant_params import INT8, UINT8, QuantParams, QuantSpec
from align_calibration.ranges import measure_ranges
from align_exporter.fp16.convert import convert_to_fp16, emulate_fp16
from align_exporter.fp16.islands import assign_islands
from align_exporter.fp16.weight_rounding import round_weights
from align_exporter.graph.passes.order import CLEAN_UP, run_steps, text_steps, vision_steps
from align_exporter.graph.specs import GraphContract, text_contract, vision_contract
from align_exporter.graph.towers import TextTower, VisionTower
from align_exporter.int8.cpu_text import quantize_text_for_cpu
from align_exporter.int8.cpu_vision import quantize_vision_for_cpu, quantized_tensors
from align_exporter.int8.fold_normalization import fold_normalization
from align_exporter.int8.insert_qdq import insert_qdq
from align_exporter.int8.qdq_placement import place_qdq
from align_reference.config import AlignConfig
from align_reference.model import AlignModel
from support import constant_checkpoints as made
from support.checkpoints import pixel_values, token_batch
from support.graphs import merged, run_graph, unshared
from support.trace_cache import TraceCache

Feed = Mapping[str, NDArray[Any]]
FAST = "all of it"
PIXELS = (1 / 127.5, -1.0)  # scale and offset


@pytest.fixture(
    scope="module",
    params=[pytest.param(name, marks=[] if name == FAST else [pytest.mark.slow]) for name in made.WHOLE],
)
def model(request: pytest.FixtureRequest) -> AlignModel:
    found = AlignModel(AlignConfig.from_dict(made.config()))
    found.load_state_dict(dict(made.WHOLE[request.param](made.base_state())))
    return found.eval()


def vision(model: AlignModel, traces: TraceCache) -> tuple[ir.Model, GraphContract, Feed]:
    size = (49, 49)
    contract = vision_contract(model.config, size, "uint8")
    tower = VisionTower(model, *(np.full(3, value) for value in PIXELS)).eval()
    images = np.rint((pixel_values(4, 49).numpy() + 1) * 127.5).astype(np.uint8).transpose(0, 2, 3, 1)
    return traces(tower, contract, 64, 20), contract, {"pixels": np.ascontiguousarray(images)}


def text(model: AlignModel, traces: TraceCache) -> tuple[ir.Model, GraphContract, Feed]:
    contract = text_contract(model.config)
    ids, mask = token_batch(model.config, 4, 9)
    return (
        traces(TextTower(model).eval(), contract, 64, 20),
        contract,
        {"input_ids": ids.numpy(), "attention_mask": mask.numpy()},
    )


def scales(spec: QuantSpec, names: list[str]) -> dict[str, QuantParams]:
    """Another one for every tensor."""
    return {name: spec.fit(-2 - index / 8, 4 + index / 8) for index, name in enumerate(names)}


def passes(graph: ir.Model, contract: GraphContract, model: AlignModel) -> None:
    run_steps(graph, (text_steps if contract.tower == "text" else vision_steps)(model.config))


def fp16(graph: ir.Model, feed: Feed, folder: Path) -> ir.Model:
    float32 = assign_islands(graph, measure_ranges(graph, [feed], folder), (), 8.0).float32
    means = measure_channel_means(graph, [feed], folder) if "pixels" in feed else {}
    round_weights(graph, means, float32)
    convert_to_fp16(graph, float32)
    return emulate_fp16(graph)


def int8_for_tensorrt(graph: ir.Model, feed: Feed, folder: Path) -> ir.Model:
    float32 = assign_islands(graph, measure_ranges(graph, [feed], folder), (), 8.0).float32
    found = scales(INT8, place_qdq(graph.graph).tensors)
    convert_to_fp16(graph, float32 | insert_qdq(graph, found, (), float32))
    return emulate_fp16(graph)


def int8_for_cpus(graph: ir.Model, feed: Feed, folder: Path) -> ir.Model:
    if "pixels" in feed:
        assert fold_normalization(graph)
        quantize_vision_for_cpu(graph, scales(UINT8, quantized_tensors(graph.graph)))
    else:
        quantize_text_for_cpu(graph)
    return graph


def unchanged(graph: ir.Model, feed: Feed, folder: Path) -> ir.Model:
    return graph


@pytest.mark.parametrize("build", [unchanged, fp16, int8_for_tensorrt, int8_for_cpus])
@pytest.mark.parametrize("tower", [vision, text])
def test_a_merged_graph_gives_what_one_without_shared_constants_does(
    model: AlignModel,
    traces: TraceCache,
    tower: Callable[[AlignModel, TraceCache], tuple[ir.Model, GraphContract, Feed]],
    build: Callable[[ir.Model, Feed, Path], ir.Model],
    tmp_path: Path,
) -> None:
    traced, contract, feed = tower(model, traces)
    built = []
    for variation in (merged, unshared):
        graph = variation(traced)
        passes(graph, contract, model)
        final = build(variation(graph), feed, tmp_path)
        run_steps(final, CLEAN_UP)
        built.append(final)
    one, several = built
    assert Counter(node.op_type for node in one.graph) == Counter(node.op_type for node in several.graph)
    assert operators(one) == operators(several)
    np.testing.assert_array_equal(run_graph(one, feed)[0], run_graph(several, feed)[0])


def operators(model: ir.Model) -> set[str]:
    """Names of the nodes, but for those named after a constant."""
    return {node.name or "" for node in model.graph if node.op_type != "DequantizeLinear"}


def test_equal_convolutions_are_named_after_their_own_blocks(model: AlignModel, traces: TraceCache) -> None:
    graph, contract, _ = vision(model, traces)
    graph = merged(graph)
    passes(graph, contract, model)
    names = [node.name or "" for node in graph.graph if node.op_type == "Conv"]
    blocks = {name.split(".blocks.")[1].split(".")[0] for name in names if ".blocks." in name}
    per_block = Counter(name.split(".blocks.")[1].split(".")[0] for name in names if ".blocks." in name)
    assert blocks == {"0", "1", "2", "3"}
    assert per_block == {"0": 4, "1": 4, "2": 5, "3": 5}  # the first two have no expansion
    assert len(set(names)) == len(names)
