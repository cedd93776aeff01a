"""Zero-shot decisions and retrieval of align-tiny's INT8 graphs on its held-out set: nearly those of FP32.

The graphs for GPUs are run on the CPU with every FP16 value rounded, as the gate runs them.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import pytest
import torch

import align_runtime
from align_exporter.fp16.rounding import rounded
from align_runtime.bundle import inventory, write_manifest
from training.captions import LABEL_TEMPLATE, full_caption, label
from training.evaluate import EVALUATION_SEED, PER_CLASS, RENDERINGS, zero_shot
from training.folder import read_folder
from training.pools import Pool, held_out_digits, held_out_shapes
from training.scenes import COLOURS, DIGITS, SHAPES

LABELS = {
    "shapes": [label(shape, colour) for colour in COLOURS for shape in SHAPES],
    "digits": [label(digit) for digit in DIGITS],
}
BATCH = 64
Answers = dict[str, float]


@pytest.fixture(scope="module")
def pools(tiny_checkpoint: Path) -> dict[str, Pool]:
    size = read_folder(tiny_checkpoint)[2]
    return {
        "shapes": held_out_shapes(EVALUATION_SEED, PER_CLASS, size),
        "digits": held_out_digits(EVALUATION_SEED, RENDERINGS, size),
    }


@pytest.fixture(scope="module")
def exact(tiny_int8_bundle: Path, pools: dict[str, Pool]) -> Answers:
    with align_runtime.load(tiny_int8_bundle) as model:
        return evaluate(model, pools)


def for_gpus_on_the_cpu(source: Path, folder: Path) -> Path:
    """A bundle of the INT8 graphs for GPUs in `source`, rounded, which says that any device may run them."""
    shutil.copytree(source, folder)
    manifest = align_runtime.Bundle.open(source).manifest
    graphs = [graph for graph in manifest.graphs if (graph.variant, graph.target) == ("int8", "gpu")]
    for graph in graphs:
        ir.save(rounded(ir.load(source / graph.file)), folder / graph.file)
    here = tuple(replace(graph, target="any") for graph in graphs)
    write_manifest(folder, replace(manifest, graphs=here, files=inventory(folder)))
    return folder


def evaluate(model: align_runtime.Model, pools: dict[str, Pool]) -> Answers:
    """As training.evaluate does, with the graphs of a bundle: all in per cent."""
    truth = {
        "shapes": torch.arange(len(LABELS["shapes"])).repeat_interleave(PER_CLASS),
        "digits": torch.tensor([DIGITS.index(scene.subject) for scene in pools["digits"].scenes]),
    }
    images = {kind: embed(model, pool) for kind, pool in pools.items()}
    answers = {}
    for kind, names in LABELS.items():
        texts = torch.from_numpy(model.embed_text([LABEL_TEMPLATE.format(name) for name in names]))
        answers[kind] = 100 * zero_shot(images[kind], texts, truth[kind], names).top1
    once = len(pools["digits"].scenes) // RENDERINGS
    captions = [full_caption(scene) for scene in (*pools["shapes"].scenes, *pools["digits"].scenes[:once])]
    first = [index for index, caption in enumerate(captions) if caption not in captions[:index]]
    pictures = torch.cat([images["shapes"], images["digits"][:once]])[first]
    texts = torch.from_numpy(model.embed_text([captions[index] for index in first]))
    found = (texts @ pictures.T).argmax(dim=1) == torch.arange(len(first))
    return answers | {"recall": 100 * found.double().mean().item()}


def embed(model: align_runtime.Model, pool: Pool) -> torch.Tensor:
    starts = range(0, len(pool.pixels), BATCH)
    return torch.cat([torch.from_numpy(model.embed_pixels(pool.pixels[start : start + BATCH])) for start in starts])


def check(exact: Answers, quantized: Answers) -> None:
    """Top-1 falls by half a point at most, and recall by one."""
    assert exact["shapes"] > 97
    assert exact["digits"] > 91
    assert quantized["shapes"] >= exact["shapes"] - 0.5
    assert quantized["digits"] >= exact["digits"] - 0.5
    assert quantized["recall"] >= exact["recall"] - 1
    assert quantized != exact  # it was INT8


def test_decisions_of_the_graphs_for_cpus(tiny_int8_bundle: Path, pools: dict[str, Pool], exact: Answers) -> None:
    with align_runtime.load(tiny_int8_bundle, precision="int8") as model:
        check(exact, evaluate(model, pools))


def test_decisions_of_the_graphs_for_gpus(
    tiny_int8_bundle: Path, pools: dict[str, Pool], exact: Answers, tmp_path: Path
) -> None:
    bundle = for_gpus_on_the_cpu(tiny_int8_bundle, tmp_path / "bundle")
    with align_runtime.load(bundle, precision="int8") as model:
        check(exact, evaluate(model, pools))
