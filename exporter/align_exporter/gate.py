"""The parity gate: a graph against the reference, on real pictures and captions, in many batch sizes and lengths."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_exporter.contract import GraphContract
from align_runtime.backends import Runner, open_runner
from align_runtime.golden import Golden
from align_runtime.parity import Limits, Parity, compare, merge
from align_runtime.preprocessing import ImagePreprocessing

BATCH_SIZES = (1, 3)  # besides all at once

# Allowed per variant.
# fp32: on conditioned full-size weights the text graph is 2e-7 and the vision graph 1.4e-5 away, where the reference
# itself is 2e-6 from float64: ONNX Runtime's blocked convolution kernels add in another order (3.7e-6 with them off, at
# half the speed). The margin is for other processors' kernels. tests/exporter/test_gate.py shows what does not pass.
LIMITS = {"fp32": Limits(max_abs=5e-5, min_cosine=0.999999)}


def measure(file: Path, contract: GraphContract, preprocessing: ImagePreprocessing, answers: Golden) -> Parity:
    """Runs the graph in `file` on the samples and returns how far it is from the reference."""
    runner = open_runner(file, "cpu", None)
    try:
        if contract.tower == "text":
            return _measure_text(runner, answers)
        return _measure_vision(runner, contract.inputs[0].name, preprocessing, answers)
    finally:
        runner.close()


def _measure_vision(runner: Runner, input_name: str, preprocessing: ImagePreprocessing, answers: Golden) -> Parity:
    """All pictures one by one, in threes and all at once."""
    pixels: NDArray[Any] = answers.pixels if input_name == "pixels" else preprocessing.normalize(answers.pixels)
    labels = [picture.name for picture in answers.pictures]
    return merge(
        [
            compare(runner.run({input_name: pixels[rows]}), answers.image_embeds[rows], labels[rows])
            for rows in _slices(len(pixels))
        ]
    )


def _measure_text(runner: Runner, answers: Golden) -> Parity:
    """All captions one by one, in threes and all at once; padded to the longest of the batch (alone: not at all), and
    padded to the model's maximum."""
    labels = [repr(text) for text in answers.texts]
    lengths = answers.attention_mask.sum(axis=1)
    parts = []
    for rows in _slices(len(labels)):
        for length in sorted({int(lengths[rows].max()), answers.input_ids.shape[1]}):
            inputs = {
                "input_ids": np.ascontiguousarray(answers.input_ids[rows, :length]),
                "attention_mask": np.ascontiguousarray(answers.attention_mask[rows, :length]),
            }
            parts.append(compare(runner.run(inputs), answers.text_embeds[rows], labels[rows]))
    return merge(parts)


def _slices(count: int) -> Iterator[slice]:
    for size in (*BATCH_SIZES, count):
        for start in range(0, count, size):
            yield slice(start, min(start + size, count))
