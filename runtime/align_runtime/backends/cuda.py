"""Graphs on an NVIDIA GPU through ONNX Runtime."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.buckets import BATCHES, Buckets, Piece, check_inputs, default_lengths, row_count
from align_runtime.backends.capture import CAPTURES
from align_runtime.backends.cuda_provider import CUDA, GRAPHS, Provider, onnxruntime_with, provider_of
from align_runtime.backends.onnxruntime import keep_float_biases
from align_runtime.backends.runner import COMPUTE, DEVICE_TO_HOST, HOST_TO_DEVICE, Stopwatch
from align_runtime.bundle import Bundle
from align_runtime.errors import BackendUnavailableError, BundleError, DeviceError
from align_runtime.graph_entry import Graph
from align_runtime.workers import Workers, check_startable

LOG_ERRORS_ONLY = 3
IN_FLIGHT = 2  # one batch runs while the next one waits for it
DEVICE_ID = "device_id"
NO_SUCH_GPU = "invalid device ordinal"  # CUDA's message
FAILURE = re.compile(r"(CUDA|CUDNN|CUDNN_FE|CUBLAS) failure \d+: [^;\n]+")  # in ONNX Runtime's messages
NOT_CAPTURED = "cannot use the graph capture feature"  # ONNX Runtime's message where a node is not on the GPU

logger = logging.getLogger(__name__)


def open_graph(bundle: Bundle, graph: Graph, gpu: int, check_hashes: bool) -> CudaRunner:
    """Loads `graph` of `bundle` onto the GPU with the index `gpu`; see `align_runtime.backends.open_graph`."""
    lengths = default_lengths(bundle.manifest.model.max_length) if graph.tower == "text" else ()
    return CudaRunner(
        bundle.graph_file(graph, check_hashes), Buckets(BATCHES, lengths), provider_of(graph.variant), gpu=gpu
    )


@dataclass(frozen=True)
class Slot:
    """A session with inputs and output of one shape at fixed addresses, which a CUDA graph requires."""

    session: Any
    binding: Any
    run_options: Any
    inputs: Mapping[str, Any]
    output: Any


class CudaRunner:
    """One graph on the GPU, which any number of threads may share.

    A thread of its own runs every batch: the GPU runs one batch at a time, and ONNX Runtime captures CUDA graphs per
    thread. Images have a session for each batch size: a convolution keeps the plan of its last shape only, makes it
    anew for another, and the CUDA graphs that were captured with the old one then compute something else. All sessions
    are opened at once, so that they read the same file.
    """

    def __init__(self, file: Path, buckets: Buckets, provider: Provider = CUDA, gpu: int = 0) -> None:
        """Loads the graph in `file` onto the GPU with the index `gpu`, to run in the shapes of `buckets`.

        Raises:
            BackendUnavailableError: ONNX Runtime, its CUDA provider, the GPU, or a library that it needs is missing.
            BundleError: the file cannot be loaded.
        """
        self._runtime = onnxruntime_with(provider)
        self._buckets, self._provider, self._gpu = buckets, provider, gpu
        self.batches, self.in_flight = buckets.batches, IN_FLIGHT
        keys = dict.fromkeys(map(self._shared_by, buckets.batches))
        with CAPTURES.shared():
            self._sessions = {key: self._open(file) for key in keys}
        session = next(iter(self._sessions.values()))
        self._output, self._width = _output_of(session, file)
        self._takes = {tensor.name: (_dtype(tensor), tuple(tensor.shape)) for tensor in session.get_inputs()}
        self._slots: dict[tuple[int, int | None], Slot] = {}
        check_startable(1)
        self._worker = Workers(1)
        self._worker.run(lambda: None)  # starts its thread: later, the interpreter may refuse

    def run(self, inputs: Mapping[str, NDArray[Any]]) -> NDArray[np.float32]:
        return self.run_staged(inputs)[0]

    def run_staged(self, inputs: Mapping[str, NDArray[Any]]) -> tuple[NDArray[np.float32], Mapping[str, float]]:
        """See `StagedRunner`. `run` takes the same steps: ONNX Runtime synchronizes after each stage anyway."""
        check_inputs(inputs, self._takes)
        watch = Stopwatch()
        return self._worker.run(partial(self._run, inputs, watch)), watch.seconds

    def prepare(self) -> None:
        """Runs every shape once, which captures its CUDA graph."""
        for batch in self._buckets.batches:
            for length in self._buckets.lengths or (None,):
                self.run(
                    {
                        name: np.zeros(_sized(shape, batch, length), dtype)
                        for name, (dtype, shape) in self._takes.items()
                    }
                )

    def close(self) -> None:
        self._worker.close()
        with CAPTURES.shared():
            self._slots.clear()
            self._sessions.clear()

    def _shared_by(self, batch: int) -> int | None:
        """The key of the session for `batch`."""
        return None if self._buckets.lengths else batch

    def _open(self, file: Path) -> Any:
        options = dict(self._provider.options)
        if self._gpu:  # the CPU provider, with which tests run this code, has no such option
            options[DEVICE_ID] = str(self._gpu)
        try:
            try:
                return self._load(file, options)
            except Exception as error:
                if NOT_CAPTURED not in str(error):
                    raise
                # Only a graph whose nodes all run on the GPU is captured, which ONNX Runtime knows after loading it.
                logger.info("%s runs without CUDA graphs: %s", file.name, _first_line(error))
                options.pop(GRAPHS)
                return self._load(file, options)
        except BackendUnavailableError:
            raise
        except Exception as error:  # ONNX Runtime's exceptions have no common base but Exception
            if NO_SUCH_GPU in str(error):
                raise BackendUnavailableError(
                    f"CUDA sees no GPU with the index {self._gpu}; see nvidia-smi and CUDA_VISIBLE_DEVICES"
                ) from None
            raise BundleError(f"ONNX Runtime cannot load {file} on the GPU: {_first_line(error)}") from None

    def _load(self, file: Path, provider_options: dict[str, str]) -> Any:
        options = self._runtime.SessionOptions()
        options.log_severity_level = LOG_ERRORS_ONLY
        keep_float_biases(options)
        providers = [(self._provider.name, provider_options)]
        return self._checked(self._runtime.InferenceSession(str(file), options, providers=providers))

    def _checked(self, session: Any) -> Any:
        """`session`, if it has the provider: ONNX Runtime falls back to the CPU silently when CUDA does not start."""
        if self._provider.name not in session.get_providers():
            raise BackendUnavailableError(
                f"ONNX Runtime has {self._provider.name} but cannot start it; check nvidia-smi, and that the driver "
                "is new enough for CUDA 13"
            )
        return session

    def _run(self, inputs: Mapping[str, NDArray[Any]], watch: Stopwatch) -> NDArray[np.float32]:
        rows = row_count(inputs)
        result = np.empty((rows, self._width), dtype=np.float32)
        tokens = next(iter(inputs.values())).shape[1]
        length = self._buckets.length(tokens) if self._buckets.lengths else None
        for piece in self._buckets.pieces(rows):
            try:
                result[piece.rows] = self._run_piece(piece, length, inputs, watch)
            except Exception as error:
                shapes = {name: values.shape for name, values in inputs.items()}
                raise DeviceError(f"the graph failed on inputs of shape {shapes}: {_first_line(error)}") from None
        return result

    def _run_piece(
        self, piece: Piece, length: int | None, inputs: Mapping[str, NDArray[Any]], watch: Stopwatch
    ) -> NDArray[np.float32]:
        rows = {name: values[piece.rows] for name, values in inputs.items()}
        slot = self._slots.get((piece.batch, length))
        if slot is not None:
            with CAPTURES.shared():
                return self._run_slot(slot, rows, watch)
        with CAPTURES.alone():
            slot = self._new_slot(piece.batch, length)
            embeds = self._run_slot(slot, rows, watch)
        self._slots[piece.batch, length] = slot
        return embeds

    def _run_slot(self, slot: Slot, rows: Mapping[str, NDArray[Any]], watch: Stopwatch) -> NDArray[np.float32]:
        watch.start()
        for name, value in slot.inputs.items():
            value.update_inplace(_filled(rows[name], tuple(value.shape())))
        watch.lap(HOST_TO_DEVICE)
        slot.session.run_with_iobinding(slot.binding, slot.run_options)
        watch.lap(COMPUTE)
        output = slot.output.numpy()
        watch.lap(DEVICE_TO_HOST)
        return output[: row_count(rows)]

    def _new_slot(self, batch: int, length: int | None) -> Slot:
        session = self._sessions[self._shared_by(batch)]
        binding = session.io_binding()
        inputs = {}
        for name, (dtype, shape) in self._takes.items():
            inputs[name] = self._allocate(_sized(shape, batch, length), dtype)
            binding.bind_ortvalue_input(name, inputs[name])
        output = self._allocate((batch, self._width), np.dtype(np.float32))
        binding.bind_ortvalue_output(self._output, output)
        run_options = self._runtime.RunOptions()
        run_options.add_run_config_entry("gpu_graph_id", str(len(self._slots) + 1))  # 0 is shared by all shapes
        return Slot(session, binding, run_options, inputs, output)

    def _allocate(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        return self._runtime.OrtValue.ortvalue_from_shape_and_type(shape, dtype, self._provider.device, self._gpu)


def _output_of(session: Any, file: Path) -> tuple[str, int]:
    """Name and width of the only output of `session`: its memory is allocated before a run, so both must be known.

    Raises:
        BundleError: there is not one output, or it is not float32 (batch, width).
    """
    match session.get_outputs():
        case [output] if output.type == "tensor(float)" and len(output.shape) == 2 and isinstance(output.shape[1], int):
            return output.name, output.shape[1]
        case outputs:
            given = ", ".join(f"{output.name} {output.type} {output.shape}" for output in outputs) or "no output"
            raise BundleError(f"{file} returns {given}, expected one float32 [batch, dim]; export the checkpoint again")


def _sized(shape: tuple[int | str, ...], batch: int, length: int | None) -> tuple[int, ...]:
    """The shape of an input in a bucket, whose free dimensions are the batch and, for texts, the length."""
    sizes = {"batch": batch, "sequence": length or 0}
    return tuple(sizes[size] if isinstance(size, str) else size for size in shape)


def _filled(values: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """`values` padded to `shape`: with copies of the last row, and with zeros as tokens, which the mask hides."""
    if values.shape == shape:
        return np.ascontiguousarray(values)
    width = [(0, 0), *((0, whole - part) for part, whole in zip(values.shape[1:], shape[1:], strict=True))]
    return np.pad(np.pad(values, width), [(0, shape[0] - len(values)), *[(0, 0)] * (values.ndim - 1)], mode="edge")


def _dtype(tensor: Any) -> np.dtype[Any]:
    """The dtype of an input, whose type ONNX Runtime spells ``"tensor(int64)"``."""
    return np.dtype(
        {"tensor(float)": "float32"}.get(tensor.type) or tensor.type.removeprefix("tensor(").removesuffix(")")
    )


def _first_line(error: Exception) -> str:
    """What an error says: of one in CUDA's libraries, what they say, which stands behind a C++ signature."""
    if found := FAILURE.search(str(error)):
        return found.group().strip()
    return (str(error).strip() or type(error).__name__).splitlines()[0]
