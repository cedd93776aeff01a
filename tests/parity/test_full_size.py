"""Export, bundle and runtime with the published sizes and random conditioned weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from safetensors import safe_open

import align_runtime
from align_reference.checkpoint import load_model
from align_reference.model import unit_length
from align_runtime import Bundle, golden
from align_runtime.commands import verify
from align_runtime.graph_entry import Graph
from align_runtime.parity import compare
from support.checkpoints import crops, pixel_values
from support.fp16_emulation import run_emulated
from support.redirected import ROOMS

pytestmark = pytest.mark.slow

MAX_PARITY = 2e-5
MIN_FP16_COSINE = 0.9995
BATCHING_TOLERANCE = 1e-5
MAX_MEMORY = 6 * 2**30

# The peak from the kernel: getrusage of a child would start at the size of this process.
EXPORT = """
import sys
from pathlib import Path
from align_exporter.command import main

code = main([sys.argv[1], "-o", sys.argv[2], "--fp16", "--json"])
lines = Path("/proc/self/status").read_text().splitlines()
peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
print(peak)
sys.exit(code)
"""


@pytest.fixture(scope="module")
def exported(full_size_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, int]:
    """The bundle, and the peak memory in bytes of the process that wrote it."""
    bundle = tmp_path_factory.mktemp("full-size") / "bundle"
    command = [sys.executable, "-c", EXPORT, str(full_size_checkpoint), str(bundle)]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": os.pathsep.join(ROOMS)}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    result, peak = done.stdout.splitlines()
    assert json.loads(result)["bundle"] == str(bundle)
    return bundle, int(peak)


def test_export_stays_within_its_memory(exported: tuple[Path, int]) -> None:
    assert exported[1] < MAX_MEMORY


def graphs(bundle: Path, variant: str) -> list[Graph]:
    return [graph for graph in Bundle.open(bundle).manifest.graphs if graph.variant == variant]


def test_graphs_keep_the_reference_embeddings(exported: tuple[Path, int]) -> None:
    single = graphs(exported[0], "fp32")
    assert [(graph.tower, graph.target) for graph in single] == [("vision", "any"), ("text", "any"), ("text", "cpu")]
    for graph in single:
        assert graph.parity.max_abs <= MAX_PARITY, graph
        assert graph.parity.min_centred_cosine > 0.999999, graph


def test_graphs_compute_in_float32_alone(exported: tuple[Path, int]) -> None:
    """Known counts: EfficientNet-B7 on 289×289, BERT on 64 tokens with a last layer that computes one."""
    macs = {"vision": 8.40e9, "text": 5.134e9}
    for graph in graphs(exported[0], "fp32"):
        assert list(graph.content.macs) == list(graph.content.weights) == ["float32"]
        assert graph.content.macs["float32"] == pytest.approx(macs[graph.tower], rel=1e-3)


def test_graphs_are_no_larger_than_the_weights_they_hold(
    exported: tuple[Path, int], full_size_checkpoint: Path
) -> None:
    """Plus 1 %. The text graphs omit the pooler and share their weights; batch norm is folded into the vision graph."""
    sizes = {"vision": 0, "text": 0}
    with safe_open(full_size_checkpoint / "model.safetensors", "np") as weights:
        for name in weights.keys():  # noqa: SIM118 (safetensors' handle is no mapping)
            tower = "vision" if name.startswith("vision_model.") else "text"
            statistics = name.rpartition(".")[2] in ("running_mean", "running_var", "num_batches_tracked")
            if not statistics and "pooler" not in name:
                sizes[tower] += 4 * int(np.prod(weights.get_slice(name).get_shape()))
    for tower, size in sizes.items():
        files = [file for file in (exported[0] / "onnx").glob(f"{tower}_model*") if "fp16" not in file.name]
        assert 0.98 * size < sum(file.stat().st_size for file in files) <= 1.01 * size


def test_fp16_graphs_keep_the_reference_embeddings(exported: tuple[Path, int]) -> None:
    """With every value rounded to FP16, as in the parity gate. These weights need no FP32 island."""
    half = graphs(exported[0], "fp16")
    assert [(graph.tower, graph.target) for graph in half] == [("vision", "any"), ("text", "any")]
    for graph in half:
        assert graph.parity.min_cosine >= MIN_FP16_COSINE, graph
        assert graph.parity.min_centred_cosine >= MIN_FP16_COSINE, graph
        assert graph.islands == ()
        assert graph.content.macs["float16"] > 0.99 * sum(graph.content.macs.values())


def test_fp16_graphs_are_half_as_large(exported: tuple[Path, int]) -> None:
    manifest = Bundle.open(exported[0]).manifest
    half, single = (
        sum(manifest.graph_bytes(graph) for graph in graphs(exported[0], variant) if graph.target == "any")
        for variant in ("fp16", "fp32")
    )
    assert half <= 0.51 * single


def test_graphs_hold_their_weights_or_name_the_file_that_does(exported: tuple[Path, int]) -> None:
    """Layer norms, which stay in FP32, are large enough for external data in this size."""
    for graph in Bundle.open(exported[0]).manifest.graphs:
        model = onnx.load(exported[0] / graph.file, load_external_data=False)
        places = {entry.value for tensor in model.graph.initializer for entry in tensor.external_data}
        named = {value for value in places if value.endswith("_data")}
        assert named == (set() if graph.data is None else {Path(graph.data).name})


def test_fp16_keeps_the_embeddings_of_other_images(
    exported: tuple[Path, int], full_size_checkpoint: Path, tmp_path: Path
) -> None:
    """Weights are rounded with the channel means of the built-in samples; these are crops of other photographs."""
    values = pixel_values(4, 289, seed=5)
    model = load_model(full_size_checkpoint)
    with torch.inference_mode():
        expected = unit_length(model.get_image_features(values)).numpy()
    pixels = np.stack([np.asarray(image) for image in crops(4, 289, seed=5)])
    half = ir.load(exported[0] / "onnx" / "vision_model_fp16.onnx")
    parity = compare(run_emulated(half, {"pixels": pixels}, tmp_path, batch=2), expected, list("abcd"))
    assert parity.min_cosine >= MIN_FP16_COSINE
    assert parity.min_centred_cosine >= MIN_FP16_COSINE


def test_the_bundle_verifies_itself(exported: tuple[Path, int]) -> None:
    assert verify.main([str(exported[0]), "--quiet"]) == 0


def test_the_runtime_gives_the_reference_embeddings(exported: tuple[Path, int]) -> None:
    answers = golden.read(Bundle.open(exported[0]))
    with align_runtime.load(exported[0]) as model:
        np.testing.assert_allclose(model.embed_texts(answers.texts), answers.text_embeds, rtol=0, atol=MAX_PARITY)
        np.testing.assert_allclose(
            model.embed_images(answers.images[:3]), answers.image_embeds[:3], rtol=0, atol=MAX_PARITY
        )


def test_results_do_not_depend_on_what_else_is_in_a_batch(exported: tuple[Path, int]) -> None:
    answers = golden.read(Bundle.open(exported[0]))
    images, texts = answers.pixels, [*answers.texts, *answers.texts[:5]]
    with align_runtime.load(exported[0]) as model:
        together = model.embed_pixels(images)
        for size in (1, 3):
            parts = [model.embed_pixels(images[start : start + size]) for start in range(0, len(images), size)]
            np.testing.assert_allclose(np.concatenate(parts), together, rtol=0, atol=BATCHING_TOLERANCE)
        alone = np.concatenate([model.embed_texts([text]) for text in texts])
        np.testing.assert_allclose(model.embed_texts(texts), alone, rtol=0, atol=BATCHING_TOLERANCE)
