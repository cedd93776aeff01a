"""What each means of FP16 does for the vision tower in the published sizes; writes ``benchmarks/results/fp16.json``.

    python benchmarks/measure_fp16.py

Cosines with the reference, every value rounded to FP16 (see align_exporter/fp16/emulate.py), on the samples of the
export and on parts of photographs that nothing was measured on. Random conditioned weights, which amplify a disturbance
more than trained ones do.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray

from align_calibration.channel_means import measure_channel_means
from align_exporter.builtin_samples import images, one_by_one
from align_exporter.checkpoint.read_checkpoint import read_checkpoint
from align_exporter.fp16.convert import convert_to_fp16
from align_exporter.fp16.rules import float32_by_rule, squeeze_excite_without_residual
from align_exporter.fp16.weight_rounding import round_weights
from align_exporter.graph.passes.order import run_steps
from align_exporter.graph.specs import graph_specs
from align_exporter.graph.trace import trace
from align_reference.model import unit_length
from align_reference.source import resolve
from align_runtime.images import preprocess
from align_runtime.parity import compare
from benchmarks.machine import describe
from support.checkpoints import crops, full_size_checkpoint
from support.fp16_emulation import run_emulated

ROOT = Path(__file__).parents[1]
RESULT = ROOT / "benchmarks" / "results" / "fp16.json"


def halved(model: ir.Model, means: dict[str, Any] | None, gates: bool) -> ir.Model:
    """`model` in FP16: with channels that keep their means where `means` are given, with FP32 `gates` or without."""
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
    result = {}
    for name, pixels, expected in sets:
        actual = run_emulated(half, {"pixels": pixels}, folder, batch=1)
        parity = compare(actual, expected, [str(index) for index in range(len(pixels))])
        result[name] = {"min_cosine": parity.min_cosine, "min_centred_cosine": parity.min_centred_cosine}
    return result


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = read_checkpoint(resolve(str(full_size_checkpoint(folder / "checkpoint"))), allow_pickle=False)
        plan = graph_specs(checkpoint, "uint8", folder)[0]
        model = trace(plan.tower, plan.contract, checkpoint.model.config.text.max_position_embeddings, 20)
        run_steps(model, plan.steps)
        samples = preprocess(images(), checkpoint.preprocessing)
        others = np.stack([np.asarray(image) for image in crops(8, samples.shape[1], seed=5)])
        sets = []
        for kind, pixels in (("samples", samples), ("others", others)):
            values = torch.from_numpy(checkpoint.preprocessing.normalize(pixels))
            with torch.inference_mode():
                embeds = unit_length(torch.cat([checkpoint.model.get_image_features(row[None]) for row in values]))
            sets.append((kind, pixels, embeds.numpy()))
        means = dict(measure_channel_means(model, [{"pixels": batch} for batch in one_by_one(samples)], folder))
        ways: Collection[tuple[str, dict[str, Any] | None, bool]] = (
            ("nearest", None, False),
            ("means", means, False),
            ("gates", None, True),
            ("both", means, True),
        )
        ways_measured = []
        for way, known, gates in ways:
            ways_measured.append({"way": way, **cosines(halved(model, known, gates), sets, folder)})
            print(ways_measured[-1], flush=True)
    result = {"machine": describe(), "ways": ways_measured}
    RESULT.write_text(json.dumps(result, indent=1) + "\n")
    print(f"wrote {RESULT.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
