"""Zero-shot decisions and retrieval of align-tiny's INT8 graphs on its held-out set are nearly those of FP32.

The graphs for GPUs run on the CPU with every FP16 value rounded, as in the parity gate.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
from numpy.typing import NDArray

import align_runtime
from align_exporter.fp16.convert import emulate_fp16
from align_runtime.bundle_writing import inventory, write_manifest
from support.decisions import HeldOut, cosine_statistics
from training.folder import read_folder

Answers = dict[str, float]


@pytest.fixture(scope="module")
def held_out(tiny_checkpoint: Path) -> HeldOut:
    return HeldOut.draw(read_folder(tiny_checkpoint)[2])


@pytest.fixture(scope="module")
def exact(tiny_int8_bundle: Path, held_out: HeldOut) -> Answers:
    with align_runtime.load(tiny_int8_bundle) as model:
        return evaluate(model, held_out)


def for_gpus_on_the_cpu(source: Path, folder: Path) -> Path:
    """A bundle with the INT8 graphs for GPUs in `source`, rounded, whose manifest allows every device."""
    shutil.copytree(source, folder)
    manifest = align_runtime.Bundle.open(source).manifest
    graphs = [graph for graph in manifest.graphs if (graph.variant, graph.target) == ("int8", "gpu")]
    for graph in graphs:
        ir.save(emulate_fp16(ir.load(source / graph.file)), folder / graph.file)
    here = tuple(replace(graph, target="any") for graph in graphs)
    write_manifest(folder, replace(manifest, graphs=here, files=inventory(folder)))
    return folder


def evaluate(model: align_runtime.Model, held_out: HeldOut) -> Answers:
    """Top-1 accuracies and recall of `model` in per cent."""
    return held_out.decide(held_out.images(model.embed_pixels), held_out.words(model.embed_texts))


def check(exact: Answers, quantized: Answers) -> None:
    """Top-1 accuracy drops by at most half a point, and recall by at most one."""
    assert exact["shapes"] > 97
    assert exact["digits"] > 91
    assert quantized["shapes"] >= exact["shapes"] - 0.5
    assert quantized["digits"] >= exact["digits"] - 0.5
    assert quantized["recall"] >= exact["recall"] - 1
    assert quantized != exact  # INT8 was used


def test_decisions_of_the_graphs_for_cpus(tiny_int8_bundle: Path, held_out: HeldOut, exact: Answers) -> None:
    with align_runtime.load(tiny_int8_bundle, precision="int8") as model:
        check(exact, evaluate(model, held_out))


def test_decisions_of_the_graphs_for_gpus(
    tiny_int8_bundle: Path, held_out: HeldOut, exact: Answers, tmp_path: Path
) -> None:
    bundle = for_gpus_on_the_cpu(tiny_int8_bundle, tmp_path / "bundle")
    with align_runtime.load(bundle, precision="int8") as model:
        check(exact, evaluate(model, held_out))


def test_decisions_are_those_of_the_evaluation_after_training(
    exact: Answers, tiny_checkpoint: Path, held_out: HeldOut
) -> None:
    committed = json.loads((tiny_checkpoint / "evaluation.json").read_text())
    # One or two decisions may depend on rounding.
    assert exact["shapes"] == pytest.approx(100 * committed["shapes"]["top1"], abs=0.2)
    assert exact["digits"] == pytest.approx(100 * committed["digits"]["top1"], abs=0.2)
    assert exact["recall"] == pytest.approx(100 * committed["text_to_image_recall_at_1"], abs=0.2)
    assert len(held_out.retrieved) == committed["retrieval_images"]


def test_embeddings_of_other_images_decide_wrongly(held_out: HeldOut) -> None:
    """One-hot embeddings: all correct as they are, all wrong when every image has those of its neighbour."""
    kinds = ("shapes", "digits")
    sizes = {kind: len(held_out.texts[kind]) for kind in kinds}
    words = {kind: np.eye(size, dtype=np.float32) for kind, size in sizes.items()}
    truth = {kind: held_out.truth(kind) for kind in kinds}
    for shift, expected in ((0, 100), (1, 0)):
        images = {kind: words[kind][(truth[kind] + shift) % sizes[kind]] for kind in kinds}
        assert [held_out.top1(kind, images[kind], words[kind]) for kind in kinds] == [expected, expected]


def test_recall_counts_the_captions_that_find_their_image(held_out: HeldOut) -> None:
    count = len(held_out.retrieved)
    images = np.eye(count, dtype=np.float32)
    assert held_out.recall(images, images) == 100
    assert held_out.recall(images, np.roll(images, 1, axis=0)) == 0
    half = np.where(np.arange(count)[:, None] % 2, images, 0)  # zeros: the first image wins
    assert held_out.recall(half, images) == pytest.approx(50, abs=0.2)


def test_a_row_without_direction_is_undefined() -> None:
    reference = rows([1, 0], [0, 1], [1, 1], [1, 0])
    assert cosine_statistics(rows([2, 0], [0, 1], [1, 1], [1, 0]), reference) == pytest.approx(
        {"mean_cosine": 1, "p5_cosine": 1, "min_cosine": 1, "undefined_rows": 0}
    )
    found = cosine_statistics(rows([0, 0], [np.nan, 1], [1, 1], [-1, 0]), reference)
    assert found["undefined_rows"] == 2
    assert found["min_cosine"] == pytest.approx(-1)
    assert found["mean_cosine"] == pytest.approx(0)


def rows(*values: list[float]) -> dict[str, NDArray[np.float32]]:
    return {"shapes": np.array(values[:2], dtype=np.float32), "digits": np.array(values[2:], dtype=np.float32)}
