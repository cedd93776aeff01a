"""The parity gate: graphs against the reference, on real images and captions, in several batch sizes and lengths.

What it allows is in the table of variants (align_exporter/variants.py), and why in docs/accuracy.md.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from align_calibration.run_instrumented import open_model
from align_exporter.export_options import ExportOptions
from align_exporter.graph.specs import GraphContract
from align_exporter.variants import INT8, Variant, imported
from align_runtime.backends import Runner, open_runner
from align_runtime.golden import Golden
from align_runtime.outputs import checked_shape
from align_runtime.parity import Limits, Parity, compare
from align_runtime.preprocessing import ImagePreprocessing

FINITE = Limits(max_abs=2.0, min_cosine=-1.0, min_centred_cosine=-1.0)  # of vectors of unit length
SOME = 3  # samples of a batch that is neither one nor all


@dataclass(frozen=True)
class Measurement:
    """Embeddings of a graph and of the reference, every sample in every arrangement.

    Attributes:
        actual, expected: float32 (rows, dim).
        labels: of the rows; a sample that was run several times has several rows.
    """

    actual: NDArray[np.float32]
    expected: NDArray[np.float32]
    labels: tuple[str, ...]

    @property
    def parity(self) -> Parity:
        firsts = {label: row for row, label in reversed(list(enumerate(self.labels)))}
        return compare(self.actual, self.expected, self.labels, self.expected[sorted(firsts.values())])


def limits(variant: Variant, tower: str, options: ExportOptions) -> Limits:
    """What is allowed for the graph of `tower`: the table's limits, or what the options put in their place.

    INT8 graphs of random weights may be anything finite: such weights say nothing about the accuracy of INT8.
    """
    allowed = variant.limits[tower]
    if variant.name == INT8 and options.random_weights is not None:
        allowed = FINITE
    if variant.name in options.parity_max_abs:
        allowed = replace(allowed, max_abs=options.parity_max_abs[variant.name])
    if variant.name in options.parity_min_cosine:
        cosine = options.parity_min_cosine[variant.name]
        allowed = replace(allowed, min_cosine=cosine, min_centred_cosine=cosine)
    return allowed


def measure(
    file: Path, variant: Variant, contract: GraphContract, preprocessing: ImagePreprocessing, answers: Golden
) -> Measurement:
    """Runs the graph in `file` as it is and, where its hardware is missing here, its emulation; rows of both."""
    with closing(open_runner(file, "cpu", None)) as runner:
        measured = [measure_runner(runner, contract, preprocessing, answers)]
    if variant.emulation is not None:
        emulated = imported(variant.emulation)(ir.load(file))
        with closing(open_model(emulated, file.with_name(".emulated.onnx"), None)) as runner:
            measured.append(measure_runner(runner, contract, preprocessing, answers))
    return Measurement(
        actual=np.concatenate([entry.actual for entry in measured]),
        expected=np.concatenate([entry.expected for entry in measured]),
        labels=tuple(label for entry in measured for label in entry.labels),
    )


def measure_runner(
    runner: Runner, contract: GraphContract, preprocessing: ImagePreprocessing, answers: Golden
) -> Measurement:
    """Runs the samples, alone and together, through a graph or an engine that is loaded."""
    calls = list(_text_calls(answers) if contract.tower == "text" else _vision_calls(contract, preprocessing, answers))
    return Measurement(
        actual=np.concatenate(
            [
                checked_shape(runner.run(call.inputs), len(call.expected), call.expected.shape[1], contract.output.name)
                for call in calls
            ]
        ),
        expected=np.concatenate([call.expected for call in calls]),
        labels=tuple(label for call in calls for label in call.labels),
    )


@dataclass(frozen=True)
class _Call:
    """One run of a graph: its inputs and the reference's embeddings of them."""

    inputs: Mapping[str, NDArray[Any]]
    expected: NDArray[np.float32]
    labels: Sequence[str]


def _vision_calls(contract: GraphContract, preprocessing: ImagePreprocessing, answers: Golden) -> Iterator[_Call]:
    """Each image alone, a few at once, and all."""
    name = contract.inputs[0].name
    pixels: NDArray[Any] = answers.pixels if name == "pixels" else preprocessing.normalize(answers.pixels)
    labels = [image.name for image in answers.images]
    for rows in _slices(len(pixels)):
        yield _Call({name: pixels[rows]}, answers.image_embeds[rows], labels[rows])


def _text_calls(answers: Golden) -> Iterator[_Call]:
    """Each caption alone, without padding; a few at once, and all, padded to the longest of the batch and to the
    model's maximal length."""
    labels = [repr(text) for text in answers.texts]
    lengths = answers.attention_mask.sum(axis=1)
    for rows in _slices(len(labels)):
        longest, is_alone = int(lengths[rows].max()), rows.stop - rows.start == 1
        for length in (longest,) if is_alone else sorted({longest, answers.input_ids.shape[1]}):
            inputs = {
                "input_ids": np.ascontiguousarray(answers.input_ids[rows, :length]),
                "attention_mask": np.ascontiguousarray(answers.attention_mask[rows, :length]),
            }
            yield _Call(inputs, answers.text_embeds[rows], labels[rows])


def _slices(count: int) -> Iterator[slice]:
    yield from (slice(index, index + 1) for index in range(count))
    yield slice(0, min(SOME, count))
    yield slice(0, count)
