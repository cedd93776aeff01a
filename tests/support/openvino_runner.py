"""Runs graphs with OpenVINO to compare results, with the interface of the runtime's backends; not thread-safe."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
from numpy.typing import NDArray


class OpenVinoRunner:
    """Runs a graph on the CPU in float32; by default, OpenVINO uses bfloat16 where the CPU supports it.

    Args:
        file: the graph.
        threads: None for all cores.
    """

    def __init__(self, file: Path, threads: int | None = None) -> None:
        properties: dict[str, Any] = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
        if threads is not None:
            properties["INFERENCE_NUM_THREADS"] = threads
        self._model = openvino.Core().compile_model(str(file), "CPU", properties)
        self._request = self._model.create_infer_request()

    @property
    def precision(self) -> str:
        """The precision of the compiled graph."""
        return self._model.get_property("INFERENCE_PRECISION_HINT").to_string()

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        """The embeddings of `inputs`, float32 (batch, dim)."""
        (output,) = self._request.infer(dict(inputs)).values()
        return np.array(output)

    def close(self) -> None:
        """Releases the graph."""
        del self._request, self._model
