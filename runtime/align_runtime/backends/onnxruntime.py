"""Graphs on the CPU through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError, InputError

LOG_ERRORS_ONLY = 3  # warnings about graph rewrites say nothing to the user of a bundle
MAX_THREADS = 1024  # ONNX Runtime would start any number at once, until the machine is out of memory


class OnnxRuntimeRunner:
    """One graph in one session; ONNX Runtime lets many threads share it."""

    def __init__(self, file: Path, threads: int | None) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise BackendUnavailableError(
                f"onnxruntime cannot be imported ({error}); install it with: pip install 'align-onnx[cpu]'"
            ) from None
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        # Without VNNI, sums of products of uint8 and int8 saturate at 16 bits. Exact ones take 1.7 times as long, with
        # VNNI as well, where they are not needed.
        options.add_session_config_entry("session.x64quantprecision", "0" if has_vnni() else "1")
        keep_float_biases(options)
        # Threads that spin for their next task take a core from whatever else runs here: the other tower, streams,
        # other processes. Alone on two cores they gained 2 % at most.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if threads is not None:
            if type(threads) is not int or not 1 <= threads <= MAX_THREADS:
                raise ConfigurationError(f"threads is {threads!r}; 1 to {MAX_THREADS} is needed, or None for all cores")
            options.intra_op_num_threads = threads
        try:
            self._session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
            raise BundleError(f"ONNX Runtime cannot load {file}: {_first_line(error)}") from None
        self._outputs = [output.name for output in self._session.get_outputs()]

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            return self._session.run(self._outputs, dict(inputs))[0]
        except Exception as error:
            shapes = {name: value.shape for name, value in inputs.items()}
            raise InputError(f"the graph refused inputs of shape {shapes}: {_first_line(error)}") from None

    def prepare(self) -> None:
        """Nothing: what ONNX Runtime sets up, it sets up per call."""

    def close(self) -> None:
        del self._session


def keep_float_biases(options: Any) -> None:
    """Switches a rewrite of ONNX Runtime off, in its SessionOptions.

    It makes int32 of a float bias where Conv stands between DequantizeLinear and QuantizeLinear, and in an FP16 graph
    it counts the steps of the bias in FP16: more than 65504 of them are infinite. With it ONNX Runtime 1.32 gives the
    vision graph `int8` in the published sizes cosines near 0.
    """
    options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")


@cache
def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor adds products of bytes without saturation; False where nothing tells (not Linux)."""
    return cpuinfo.is_file() and "vnni" in cpuinfo.read_text(encoding="utf-8", errors="replace")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
