"""Runs FP16 graphs on a CPU with every activation rounded to FP16."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime
from numpy.typing import NDArray

from align_exporter.fp16.convert import emulate_fp16


def run_emulated(model: ir.Model, inputs: Mapping[str, NDArray[Any]], folder: Path, batch: int) -> NDArray[np.float32]:
    """The output of the FP16 graph `model` for `inputs`, `batch` rows at a time; `folder` is for a temporary file."""
    file = folder / "emulated.onnx"
    ir.save(emulate_fp16(model), file)
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    file.unlink()
    rows = len(next(iter(inputs.values())))
    parts = [
        session.run(None, {name: value[start : start + batch] for name, value in inputs.items()})[0]
        for start in range(0, rows, batch)
    ]
    return np.concatenate(parts)
