"""ONNX Runtime sessions set up as the runtime does it, and inputs of any size for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from align_runtime.backends.onnxruntime import SPIN_MICROSECONDS, sum_exactly

Inputs = Mapping[str, NDArray[Any]]


def session(file: Path, threads: int, spinning: bool, cores: str = "") -> onnxruntime.InferenceSession:
    """A session of the graph in `file`.

    Args:
        spinning: whether a thread that waits spins for a millisecond before it sleeps.
        cores: those that its threads are tied to, in ONNX Runtime's notation; empty for any.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    sum_exactly(options)
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spinning else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
    if cores:
        options.add_session_config_entry("session.intra_op_thread_affinities", cores)
    return onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])


def texts(rows: int, tokens: int, vocabulary: int = 20000) -> Inputs:
    """Texts of random tokens, without padding."""
    ids = np.random.default_rng(0).integers(vocabulary // 20, vocabulary, (rows, tokens))
    return {"input_ids": ids, "attention_mask": np.ones_like(ids)}


def image(size: int) -> Inputs:
    """One image of random pixels, `size` high and wide."""
    return {"pixels": np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)}
