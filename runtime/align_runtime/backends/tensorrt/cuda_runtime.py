"""CUDA memory, streams and graphs on the current GPU of a thread, with errors that say which action failed."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeVar, overload

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.tensorrt import libraries
from align_runtime.errors import BackendUnavailableError, DeviceError

T = TypeVar("T")
MIB = 1 << 20


@overload
def checked(result: tuple[libraries.cudart.cudaError_t], action: str) -> None: ...


@overload
def checked(result: tuple[libraries.cudart.cudaError_t, T], action: str) -> T: ...


def checked(result: tuple[Any, ...], action: str) -> Any:
    """The value that a CUDA call returned besides its status; `action` completes "CUDA cannot …".

    Raises:
        DeviceError: the status is an error.
    """
    status, *values = result
    if status != libraries.cudart.cudaError_t.cudaSuccess:
        _fail(status, action)
    return values[0] if values else None


def _fail(status: libraries.cudart.cudaError_t, action: str) -> NoReturn:
    if status == libraries.cudart.cudaError_t.cudaErrorMemoryAllocation:
        raise DeviceError(
            f"CUDA cannot {action}: out of memory. Close other models, or build the engine for smaller batches"
        )
    _, text = libraries.cudart.cudaGetErrorString(status)
    raise DeviceError(f"CUDA cannot {action}: {text.decode(errors='replace')} (error {int(status)})")


def check_gpu(gpu: int = 0) -> None:
    """Raises BackendUnavailableError unless CUDA sees a GPU with the index `gpu`."""
    status, count = libraries.cudart.cudaGetDeviceCount()
    if status != libraries.cudart.cudaError_t.cudaSuccess or not count:
        _, text = libraries.cudart.cudaGetErrorString(status)
        reason = text.decode(errors="replace") if int(status) else "CUDA sees none"
        raise BackendUnavailableError(
            f"no NVIDIA GPU can be used here ({reason}); check nvidia-smi, the driver and CUDA_VISIBLE_DEVICES"
        )
    if gpu >= count:
        raise BackendUnavailableError(
            f"CUDA sees {count} GPU{'s' if count > 1 else ''}, none with the index {gpu}; see nvidia-smi and "
            "CUDA_VISIBLE_DEVICES"
        )


@contextmanager
def on_gpu(gpu: int) -> Iterator[None]:
    """Makes `gpu` the current GPU of the calling thread; afterwards it is the one that was current before."""
    before = checked(libraries.cudart.cudaGetDevice(), "get the current GPU")
    if before == gpu:
        yield
        return
    checked(libraries.cudart.cudaSetDevice(gpu), f"use the GPU with the index {gpu}")
    try:
        yield
    finally:
        checked(libraries.cudart.cudaSetDevice(before), f"use the GPU with the index {before}")


class DeviceMemory:
    """`size` bytes of GPU memory at `address`."""

    def __init__(self, size: int, purpose: str) -> None:
        self.size = size
        self.address = int(checked(libraries.cudart.cudaMalloc(size), f"allocate {size / MIB:.1f} MiB for {purpose}"))

    def close(self) -> None:
        checked(libraries.cudart.cudaFree(self.address), "free GPU memory")


class PinnedMemory:
    """`size` bytes of pinned host memory at `address`, for asynchronous copies from and to the GPU."""

    def __init__(self, size: int, purpose: str) -> None:
        self.size = size
        allocated = libraries.cudart.cudaHostAlloc(size, libraries.cudart.cudaHostAllocDefault)
        self.address = int(checked(allocated, f"pin {size / MIB:.1f} MiB of host memory for {purpose}"))
        ctypes.memset(self.address, 0, size)  # a run before the first inputs must not read invalid token ids

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
        """A view of the first bytes, which must not be used after `close`."""
        count = int(np.prod(shape)) * dtype.itemsize
        if count > self.size:
            raise ValueError(f"{count} bytes do not fit into {self.size}")
        return np.ctypeslib.as_array((ctypes.c_uint8 * count).from_address(self.address)).view(dtype).reshape(shape)

    def close(self) -> None:
        checked(libraries.cudart.cudaFreeHost(self.address), "free host memory")


class Stream:
    """A stream that runs concurrently with other streams and does not synchronize with the default stream."""

    def __init__(self) -> None:
        created = libraries.cudart.cudaStreamCreateWithFlags(libraries.cudart.cudaStreamNonBlocking)
        self._stream = checked(created, "create a stream")
        self.handle = int(self._stream)

    def to_device(self, memory: DeviceMemory, pinned: PinnedMemory, size: int) -> None:
        """Enqueues a copy of the first `size` bytes."""
        kind = libraries.cudart.cudaMemcpyKind.cudaMemcpyHostToDevice
        copied = libraries.cudart.cudaMemcpyAsync(memory.address, pinned.address, size, kind, self._stream)
        checked(copied, f"copy {size} bytes to the GPU")

    def to_host(self, pinned: PinnedMemory, memory: DeviceMemory, size: int) -> None:
        """Enqueues a copy of the first `size` bytes."""
        kind = libraries.cudart.cudaMemcpyKind.cudaMemcpyDeviceToHost
        copied = libraries.cudart.cudaMemcpyAsync(pinned.address, memory.address, size, kind, self._stream)
        checked(copied, f"copy {size} bytes from the GPU")

    def synchronize(self) -> None:
        """Waits for everything enqueued. Raises DeviceError also for errors of that work."""
        checked(libraries.cudart.cudaStreamSynchronize(self._stream), "finish the work on the GPU")

    def capture(self, enqueue: Callable[[], None]) -> CudaGraph:
        """Captures what `enqueue` enqueues as a graph; nothing runs."""
        mode = libraries.cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        checked(libraries.cudart.cudaStreamBeginCapture(self._stream, mode), "begin to capture a graph")
        try:
            enqueue()
        except BaseException:
            _, graph = libraries.cudart.cudaStreamEndCapture(self._stream)  # otherwise the stream accepts no other work
            if graph is not None and int(graph):
                checked(libraries.cudart.cudaGraphDestroy(graph), "destroy a graph")
            raise
        graph = checked(libraries.cudart.cudaStreamEndCapture(self._stream), "capture a graph")
        try:
            return CudaGraph(checked(libraries.cudart.cudaGraphInstantiate(graph, 0), "instantiate a graph"))
        finally:
            checked(libraries.cudart.cudaGraphDestroy(graph), "destroy a graph")

    def launch(self, graph: CudaGraph) -> None:
        """Enqueues `graph`."""
        checked(libraries.cudart.cudaGraphLaunch(graph.executable, self._stream), "launch a graph")

    def close(self) -> None:
        checked(libraries.cudart.cudaStreamDestroy(self._stream), "destroy a stream")


class CudaGraph:
    """Captured work, for the shapes and addresses that it was captured with."""

    def __init__(self, executable: libraries.cudart.cudaGraphExec_t) -> None:
        self.executable = executable

    def close(self) -> None:
        checked(libraries.cudart.cudaGraphExecDestroy(self.executable), "free a graph")
