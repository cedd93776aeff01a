"""Whether ONNX Runtime computes an INT8 graph for CPUs with INT8 kernels, and how fast it is beside the float graphs.

A quantized operator is a float operator between DequantizeLinear and QuantizeLinear, or a MatMulInteger with its
scales. The first kind computes in INT8 only where ONNX Runtime matches the group and fuses it to one kernel. If a
tensor has no scale, or another version matches other patterns, the group runs in float with conversions: correct, but
slower than FP32.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from align_bench.interleaved import speedup, time_interleaved
from align_runtime.backends import Runner, open_runner
from align_runtime.errors import BuildError
from align_runtime.golden import Golden
from align_runtime.onnxruntime_import import LOWEST
from align_runtime.versions import version

# Operator → the INT8 kernels that it is fused to.
KERNELS = {
    "Conv": ("QLinearConv",),
    "Sigmoid": ("QLinearSigmoid",),
    "Mul": ("QLinearMul",),
    "Add": ("QLinearAdd",),
    "GlobalAveragePool": ("QLinearGlobalAveragePool",),
    "MatMul": ("MatMulInteger",),  # not fused further: ONNX Runtime supports one scale per tensor, not per row
}

# The ONNX Runtimes whose kernels were counted, from the first to the last: all fuse every group of align-tiny's graphs.
TESTED = (LOWEST, "1.32.0")


def check_fused(file: Path, quantized: Mapping[str, int]) -> None:
    """Optimizes the graph in `file` with ONNX Runtime and counts its INT8 kernels.

    Args:
        file: the graph; a temporary file is written beside it.
        quantized: number of quantized operators, by operator, with the keys of `KERNELS`.

    Raises:
        BuildError: the number of kernels differs.
    """
    found = count_kernels(file)
    for operator, count in quantized.items():
        fused = sum(found[kernel] for kernel in KERNELS[operator])
        if fused != count:
            raise BuildError(
                f"{file.name}: onnxruntime {onnxruntime.__version__} computes {fused} of {count} quantized {operator} "
                f"in INT8; {_at_fault(onnxruntime.__version__)}"
            )


def _at_fault(installed: str) -> str:
    first, last = TESTED
    if version(first)[:3] <= version(installed)[:3] <= version(last)[:3]:
        return "the graph is at fault, not this version, which is tested; please report it"
    return f"this version is not tested; install one from {first} to {last}: pip install 'onnxruntime=={last}'"


def count_kernels(file: Path) -> Counter[str]:
    """Counts the operators of the graph in `file` after ONNX Runtime's optimizations, except those of memory layout."""
    optimized = file.with_name(f".{file.stem}.optimized.onnx")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
    options.optimized_model_filepath = str(optimized)
    try:
        onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(optimized, load_external_data=False).graph.node
    finally:
        optimized.unlink(missing_ok=True)
    return Counter(node.op_type for node in nodes)


ROUNDS = 8
INT8 = "int8"
TEXT_BATCH = 32
IMAGE_BATCHES = (1, 8)
Inputs = Sequence[Mapping[str, NDArray[Any]]]


@dataclass(frozen=True)
class SpeedComparison:
    """Interleaved A/B timing of an INT8 graph and float graphs on the same inputs.

    Attributes:
        case: the inputs, e.g. ``"batch 8"``.
        seconds: of every round, by variant.
    """

    case: str
    seconds: Mapping[str, tuple[float, ...]]

    @property
    def baseline(self) -> str:
        """The fastest float variant, by the median."""
        return min((name for name in self.seconds if name != INT8), key=lambda name: median(self.seconds[name]))

    @property
    def speedup(self) -> float:
        """How many times as fast as its baseline INT8 is: the median over pairs of rounds."""
        return speedup(self.seconds[self.baseline], self.seconds[INT8])


def compare_speed(
    candidate: Path, baselines: Mapping[str, Path], cases: Mapping[str, Inputs]
) -> tuple[SpeedComparison, ...]:
    """Times the INT8 graph in `candidate` and the float graphs in `baselines`, by variant, on all `cases`, with all
    cores."""
    with ExitStack() as stack:
        runners = {
            name: stack.enter_context(closing(open_runner(file, "cpu", None)))
            for name, file in {**baselines, INT8: candidate}.items()
        }
        return tuple(
            SpeedComparison(case, time_interleaved(_calls(runners, inputs), ROUNDS)) for case, inputs in cases.items()
        )


def check_faster(subject: str, comparisons: Iterable[SpeedComparison]) -> None:
    """Raises BuildError unless INT8 is faster than its baseline in every comparison."""
    slower = [comparison for comparison in comparisons if not comparison.speedup > 1]
    if slower:
        cases = ", ".join(f"{entry.speedup:.2f} × as fast as {entry.baseline} ({entry.case})" for entry in slower)
        raise BuildError(
            f"{subject} is {cases} on this machine; leave --int8 out, or drop --require-faster to keep the graph"
        )


def caption_cases(answers: Golden) -> dict[str, Inputs]:
    """The built-in captions as `align_runtime.Model` batches them: sorted by length."""
    lengths = answers.attention_mask.sum(axis=1)
    order = np.argsort(lengths, kind="stable")
    batches = []
    for start in range(0, len(order), TEXT_BATCH):
        rows = order[start : start + TEXT_BATCH]
        longest = int(lengths[rows].max())
        batches.append(
            {
                "input_ids": np.ascontiguousarray(answers.input_ids[rows, :longest]),
                "attention_mask": np.ascontiguousarray(answers.attention_mask[rows, :longest]),
            }
        )
    return {"captions": batches}


def image_cases(images: Mapping[str, NDArray[Any]]) -> dict[str, Inputs]:
    """One image and eight, from `images`, the inputs of a graph with at least one row, which are repeated."""
    (name, rows), *_ = images.items()
    return {f"batch {count}": [{name: rows[np.arange(count) % len(rows)]}] for count in IMAGE_BATCHES}


def _calls(runners: Mapping[str, Runner], inputs: Inputs) -> dict[str, Callable[[], object]]:
    return {name: partial(_run_all, runner, inputs) for name, runner in runners.items()}


def _run_all(runner: Runner, inputs: Inputs) -> None:
    for batch in inputs:
        runner.run(batch)
