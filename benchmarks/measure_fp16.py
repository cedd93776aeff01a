"""Measures FP16 recipes on the vision tower in the published sizes; writes ``benchmarks/results/fp16.json``.

    python -m benchmarks.measure_fp16

Cosines with the FP32 reference, with every value rounded to FP16 (see align_exporter/fp16/convert.py): on the built-in
samples of the export, and on crops of photographs that the export did not measure. The weights are random and
conditioned; they amplify a disturbance more than trained ones do.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from align_calibration.channel_means import measure_channel_means
from align_exporter.builtin_samples import images, one_by_one
from align_exporter.checkpoint.read_checkpoint import read_checkpoint
from align_exporter.export_options import ExportOptions
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.islands import float32_by_rule, squeeze_excite_without_residual
from align_exporter.fp16.weight_rounding import round_weights
from align_exporter.graph.passes.order import run_steps
from align_exporter.graph.specs import graph_specs
from align_exporter.graph.trace import trace
from align_reference.model import unit_length
from align_reference.source import resolve
from align_runtime.images import preprocess
from align_runtime.parity import compare
from benchmarks.result_files import describe_machine, write_result
from support.checkpoints import crops, full_size_checkpoint
from support.fp16_emulation import run_emulated

# Name → whether weights are rounded so that channels keep their means, and whether squeeze-excite stays in FP32 where
# no residual follows.
RECIPES = {"nearest": (False, False), "means": (True, False), "gates": (False, True), "both": (True, True)}


def fp16_copy(model: ir.Model, means: dict[str, Any] | None, gates: bool) -> ir.Model:
    """A copy of `model` in FP16.

    Args:
        means: of every channel's inputs, to round weights so that channels keep their means; None to round to nearest.
        gates: whether squeeze-excite stays in FP32 where no residual follows.
    """
    half = model.clone()
    float32 = (
        float32_by_rule(half.graph)
        if gates
        else float32_by_rule(half.graph) - squeeze_excite_without_residual(half.graph)
    )
    if means is not None:
        round_weights(half, means, float32)
    convert_to_fp16(half, float32)
    return half


def cosines(
    half: ir.Model, sets: Iterable[tuple[str, NDArray[np.uint8], NDArray[np.float32]]], folder: Path
) -> dict[str, Any]:
    """Parity of the emulated graph on every set: a name, pixels, and the reference's embeddings."""
    result = {}
    for name, pixels, expected in sets:
        actual = run_emulated(half, {"pixels": pixels}, folder, batch=1)
        parity = compare(actual, expected, [str(index) for index in range(len(pixels))])
        result[name] = {"min_cosine": parity.min_cosine, "min_centred_cosine": parity.min_centred_cosine}
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = read_checkpoint(resolve(str(full_size_checkpoint(folder / "checkpoint"))), ExportOptions())
        spec = graph_specs(checkpoint, "uint8", folder)[0]
        model = trace(spec.tower, spec.contract, checkpoint.model.config.text.max_position_embeddings, 20)
        run_steps(model, spec.steps)
        samples = preprocess(images(), checkpoint.preprocessing)
        others = np.stack([np.asarray(image) for image in crops(8, samples.shape[1], seed=5)])
        sets = []
        for kind, pixels in (("samples", samples), ("others", others)):
            values = torch.from_numpy(checkpoint.preprocessing.normalize(pixels))
            with torch.inference_mode():
                embeds = unit_length(torch.cat([checkpoint.model.get_image_features(row[None]) for row in values]))
            sets.append((kind, pixels, embeds.numpy()))
        means = dict(measure_channel_means(model, [{"pixels": batch} for batch in one_by_one(samples)], folder))
        recipes = []
        for recipe, (keep_means, gates) in RECIPES.items():
            half = fp16_copy(model, means if keep_means else None, gates)
            recipes.append({"recipe": recipe, **cosines(half, sets, folder)})
            print(recipes[-1], flush=True)
    write_result("fp16", {"machine": describe_machine(), "recipes": recipes})


if __name__ == "__main__":
    main()
