"""Graphs on the CPU through ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from align_runtime.errors import AlignError, BundleError, InputError
from align_runtime.memory import MAPPED, MemoryUse, out_of_memory
from align_runtime.onnxruntime_import import import_onnxruntime, is_older
from align_runtime.processors import available_cores, check_thread_count, limited_cores
from align_runtime.workers import check_startable

LOG_ERRORS_ONLY = 3  # warnings about graph rewrites are of no use to the user of a bundle
OUT_OF_MEMORY = ("std::bad_alloc", "Failed to allocate memory", "out of memory")  # in messages of ONNX Runtime

# A thread that waits for the next operator spins so long before it sleeps: to wake it takes longer than many an
# operator (docs/benchmarks.md, "Threads"). Before the version that has this limit, threads would spin for tens of
# milliseconds, and take cores from everything else.
SPIN_MICROSECONDS = 1000
BOUNDED_SPINNING = "1.26"

INEXACT_WITHOUT_VNNI = (
    "On an x86 processor without VNNI, ONNX Runtime's sums of INT8 products saturate, unless the session option "
    "session.x64quantprecision is 1."
)


def open_file(file: Path, threads: int | None, memory: MemoryUse, _precision: str, _streams: int) -> OnnxRuntimeRunner:
    """Loads an ONNX file; see `align_runtime.backends.open_runner`.

    The precision is that of the file, and any number of threads may run a session.
    """
    return OnnxRuntimeRunner(file, threads, memory)


class OnnxRuntimeRunner:
    """One graph in one session, which any number of threads may share."""

    def __init__(
        self,
        file: Path,
        threads: int | None,
        memory: MemoryUse = MAPPED,
        configure: Callable[[Any], None] | None = None,
    ) -> None:
        """Loads the graph in `file`.

        Args:
            threads: of one run; None for all cores.
            configure: adds another provider than the CPU's to the SessionOptions.

        Raises:
            BackendUnavailableError: ONNX Runtime is not installed, or too old.
            ConfigurationError: `threads` is out of range.
            BundleError: ONNX Runtime cannot load the file.
            DeviceError: there is not enough memory, or the threads cannot be started.
        """
        onnxruntime = import_onnxruntime()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        sum_exactly(options)
        keep_float_biases(options)
        bounded = configure is None and not is_older(onnxruntime, BOUNDED_SPINNING)
        options.add_session_config_entry("session.intra_op.allow_spinning", "1" if bounded else "0")
        options.add_session_config_entry("session.intra_op.spin_duration_us", str(SPIN_MICROSECONDS))
        check_thread_count("threads", threads)
        options.intra_op_num_threads = threads or limited_cores() or 0  # 0: one for each physical core
        check_startable((threads or available_cores()) - 1)  # beside the caller's own; ONNX Runtime would hang
        options.enable_cpu_mem_arena = memory.arena
        if memory.in_order:
            options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
        if memory.data:
            _add_data(options, memory.data)
        try:
            if configure is not None:
                configure(options)
            providers = ["CPUExecutionProvider"] if configure is None else None
            self._session = onnxruntime.InferenceSession(str(file), options, providers=providers)
        except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
            damaged = BundleError(f"ONNX Runtime cannot load {file}: {_first_line(error)}")
            raise _error(error, f"load {file}", damaged) from None
        outputs = [output.name for output in self._session.get_outputs()]
        if len(outputs) != 1:
            raise BundleError(f"{file} has {len(outputs)} outputs, expected one; export the checkpoint again")
        self._outputs = outputs

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
        try:
            return self._session.run(self._outputs, dict(inputs))[0]
        except Exception as error:
            shapes = {name: value.shape for name, value in inputs.items()}
            refused = InputError(f"the graph does not take inputs of shape {shapes}: {_first_line(error)}")
            raise _error(error, f"run inputs of shape {shapes}", refused) from None

    def prepare(self) -> None:
        """Does nothing: ONNX Runtime sets up nothing that later calls share."""

    def close(self) -> None:
        del self._session


def sum_exactly(options: Any) -> None:
    """Selects kernels in ONNX Runtime's SessionOptions whose sums of uint8 × int8 products do not saturate.

    Without VNNI the default ones add two products at 16 bits: on align-tiny, the `int8_cpu` vision graph then has
    cosines down to 0.83. The exact ones take 1.7 times as long, also on processors with VNNI, which do not need them.
    """
    options.add_session_config_entry("session.x64quantprecision", "0" if has_vnni() else "1")


def keep_float_biases(options: Any) -> None:
    """Disables the rewrite WeightBiasQuantization in ONNX Runtime's SessionOptions.

    It quantizes a float bias to int32 where Conv stands between DequantizeLinear and QuantizeLinear. In an FP16 graph
    it computes the quantized values in FP16, where those above 65504 become infinite. With it, the `int8` vision graph
    of the published sizes has cosines near 0 (ONNX Runtime 1.32).
    """
    options.add_session_config_entry("optimization.disable_specified_optimizers", "WeightBiasQuantization")


@cache
def has_vnni(cpuinfo: Path = Path("/proc/cpuinfo")) -> bool:
    """Whether the processor has VNNI, which sums byte products without saturation; False if unknown (not Linux)."""
    return cpuinfo.is_file() and "vnni" in cpuinfo.read_text(encoding="utf-8", errors="replace")


def _add_data(options: Any, data: Mapping[str, bytes]) -> None:
    """Hands the content of files to a session of `options`, which copies what it needs while it is created."""
    sizes = [len(content) for content in data.values()]
    options.add_external_initializers_from_files_in_memory(list(data), list(data.values()), sizes)


def _error(error: Exception, action: str, otherwise: AlignError) -> AlignError:
    """DeviceError if memory ran out in the `action` that raised `error`; otherwise the error given.

    ONNX Runtime has no exception of its own for it.
    """
    if isinstance(error, MemoryError) or any(words in str(error) for words in OUT_OF_MEMORY):
        return out_of_memory(action)
    return otherwise


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
