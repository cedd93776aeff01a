"""What is measured of a graph's tensors on samples, run by run of the graph, so that it can be kept and resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from platform import machine
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from align_calibration.run_instrumented import Batch

FORMAT = 1  # of the arrays below, and of the order in which runs fill them


@dataclass
class Statistics:
    """Extremes and counts so far.

    Attributes:
        done: runs of the graph that are in them.
        extremes: float32 (samples, 2, tensors): lowest and highest value of every tensor for every sample.
        counts: int64 (tensors, bins): how many values fell into each bin.
    """

    done: int
    extremes: NDArray[np.float32]
    counts: NDArray[np.int64]

    @classmethod
    def nothing(cls, samples: int, tensors: int, bins: int) -> Statistics:
        """Before the first run."""
        extremes = np.zeros((samples, 2, tensors), dtype=np.float32)
        return cls(0, extremes, np.zeros((tensors, bins), dtype=np.int64))


def statistics_key(
    model: ir.Model, tensors: Sequence[str], batches: Sequence[Batch], parameters: Mapping[str, float]
) -> str:
    """What decides over the statistics of `tensors`, as 64 hexadecimal digits.

    The sha256 of the graph with its weights, the tensors' names, the samples in order, the parameters of the
    measurement, and what computes: another ONNX Runtime or architecture rounds otherwise, and a bundle made from what
    it measured would not be the one that is made here. Processors of one architecture are not told apart.
    """
    digest = hashlib.sha256()
    tools = f"{machine()} onnxruntime {onnxruntime.__version__} numpy {np.__version__}"
    for text in (f"format {FORMAT}", tools, repr(sorted(parameters.items())), repr(list(tensors))):
        _add(digest, text.encode())
    _add(digest, ir.to_proto(model).SerializeToString(deterministic=True))
    for value in model.graph.initializers.values():
        if isinstance(value.const_value, ir.ExternalTensor):  # of which the graph holds only the file's name
            _add(digest, value.const_value.tobytes())
    for batch in batches:
        for name, array in sorted(batch.items()):
            _add(digest, f"{name} {array.dtype.str} {array.shape}".encode())
            _add(digest, array.tobytes())
    return digest.hexdigest()


def _add(digest: Any, content: bytes) -> None:
    """Length first, so that no two lists of contents run together into the same bytes."""
    digest.update(len(content).to_bytes(8, "little"))
    digest.update(content)
