"""Lanes: a stream with its buffers, which runs one batch at a time, and the pool that threads take lanes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from threading import Condition
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.runner import COMPUTE, DEVICE_TO_HOST, HOST_TO_DEVICE, Stopwatch
from align_runtime.backends.tensorrt.cuda_runtime import CudaGraph, DeviceMemory, PinnedMemory, Stream
from align_runtime.backends.tensorrt.engine import Engine
from align_runtime.backends.tensorrt.log import take_errors
from align_runtime.errors import DeviceError
from align_runtime.lifetime import closed

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

Run = Callable[[], None]
Enqueue = Callable[["trt.IExecutionContext", int], None]


@dataclass(frozen=True)
class Staging:
    """Host and device memory of one tensor, large enough for every profile."""

    host: PinnedMemory
    device: DeviceMemory


@dataclass(frozen=True)
class Recording:
    """A profile that is ready to run: copies in, computation and copies out as one CUDA graph.

    The graph is valid only while its context lives and is not used otherwise, so every profile has its own context.
    """

    context: trt.IExecutionContext
    graph: CudaGraph


class Lane:
    """A stream with its buffers, for one thread at a time.

    All memory is allocated at once. A profile is captured on its first use. The contexts of a lane share one block of
    scratch memory, since the lane's stream runs them one after another.
    """

    def __init__(self, engine: Engine) -> None:
        """Raises DeviceError, with everything freed, if the GPU or the host does not have enough memory."""
        self._engine = engine
        self._recordings: dict[int, Recording] = {}
        self._computations: dict[int, Recording] = {}  # without copies
        self._rows = 0
        self._profile = 0
        with ExitStack() as resources:
            self._stream = Stream()
            resources.callback(self._stream.close)
            self._scratch = DeviceMemory(engine.scratch, "scratch")
            resources.callback(self._scratch.close)
            self._staging = {name: self._stage(name, resources) for name in engine.dtypes}
            self._resources = resources.pop_all()

    def _stage(self, name: str, resources: ExitStack) -> Staging:
        size = max(self._engine.nbytes(name, profile) for profile in range(len(self._engine.profiles)))
        host = PinnedMemory(size, name)
        resources.callback(host.close)
        device = DeviceMemory(size, name)
        resources.callback(device.close)
        return Staging(host, device)

    def submit(self, inputs: Mapping[str, NDArray[Any]], profile: int) -> None:
        """Starts a run of `inputs` in `profile`. `collect` must be called before the next one.

        Args:
            inputs: at most as many rows and tokens as the profile has; they are padded to it.

        Raises:
            DeviceError: the GPU is out of memory, or TensorRT failed.
        """
        self._load(inputs, profile)
        try:
            self.prepare(profile)()
        except BaseException:
            self._stream.synchronize()  # so that nothing uses the buffers any more
            raise

    def run_staged(self, inputs: Mapping[str, NDArray[Any]], profile: int, watch: Stopwatch) -> NDArray[np.float32]:
        """The output of `inputs`, as `submit` and `collect`, with the time of each stage added to `watch`.

        The stream is synchronized after each stage, so the computation is prepared without copies. Preparing it and the
        copies between arrays and pinned memory do not count.
        """
        self._load(inputs, profile)
        try:
            stages: dict[str, Run] = {
                HOST_TO_DEVICE: partial(self._copy_in, profile),
                COMPUTE: self._prepare_computation(profile),
                DEVICE_TO_HOST: partial(self._copy_out, profile),
            }
            watch.start()
            for stage, work in stages.items():
                work()
                self._stream.synchronize()
                watch.lap(stage)
        except BaseException:
            self._stream.synchronize()  # enqueued work must end before its memory is freed
            raise
        return self.collect()

    def _load(self, inputs: Mapping[str, NDArray[Any]], profile: int) -> None:
        shapes = self._engine.shapes(profile)
        for name, values in inputs.items():
            self._fill(self._array(name, shapes[name]), values)
            self._rows = len(values)
        self._profile = profile

    def collect(self) -> NDArray[np.float32]:
        """Waits for the run that was submitted last and returns its output rows."""
        self._stream.synchronize()
        output = self._engine.output
        return self._array(output, self._engine.shapes(self._profile)[output])[: self._rows].copy()

    def settle(self) -> None:
        """Waits for whatever was submitted, after an error, which matters more than another one here."""
        with suppress(DeviceError):
            self._stream.synchronize()

    def prepare(self, profile: int) -> Run:
        """What enqueues a run in `profile`. The first time, a run sets up all that it needs."""
        return partial(self._stream.launch, self._recorded(self._recordings, profile, self._enqueue).graph)

    def _prepare_computation(self, profile: int) -> Run:
        """As `prepare`, without copies."""
        return partial(self._stream.launch, self._recorded(self._computations, profile, self._compute).graph)

    def _recorded(self, recordings: dict[int, Recording], profile: int, enqueue: Enqueue) -> Recording:
        """The recording of `profile` in `recordings`; if there is none, `enqueue` runs once and is captured.

        TensorRT requires a run with the same shapes and addresses before the capture, in which it sets up what it
        needs.
        """
        if profile in recordings:
            return recordings[profile]
        context = self._engine.new_context(self._scratch.address)
        self._choose(context, profile)
        self._bind(context, profile)
        enqueue(context, profile)
        self._stream.synchronize()
        graph = self._stream.capture(partial(enqueue, context, profile))
        recording = recordings[profile] = Recording(context, graph)
        # `close` frees the graph first, then its context, then the memory that both use.
        self._resources.callback(recordings.pop, profile)
        self._resources.callback(graph.close)
        return recording

    def _choose(self, context: trt.IExecutionContext, optimization_profile: int) -> None:
        if not context.set_optimization_profile_async(optimization_profile, self._stream.handle):
            raise DeviceError(f"{self._engine.title} does not take profile {optimization_profile}: {take_errors()}")

    def _bind(self, context: trt.IExecutionContext, profile: int) -> None:
        for name, shape in self._engine.profiles[profile].items():
            if not context.set_input_shape(name, shape):
                raise DeviceError(f"{self._engine.title} does not take {name} of shape {shape}: {take_errors()}")
        missing = context.infer_shapes()
        if missing:
            raise DeviceError(f"{self._engine.title} knows no shape of {', '.join(missing)}: {take_errors()}")
        for name, staging in self._staging.items():
            if not context.set_tensor_address(name, staging.device.address):
                raise DeviceError(f"{self._engine.title} does not take the memory of {name}: {take_errors()}")

    def _enqueue(self, context: trt.IExecutionContext, profile: int) -> None:
        self._copy_in(profile)
        self._compute(context, profile)
        self._copy_out(profile)

    def _copy_in(self, profile: int) -> None:
        for name in self._engine.profiles[profile]:
            staging = self._staging[name]
            self._stream.to_device(staging.device, staging.host, self._engine.nbytes(name, profile))

    def _compute(self, context: trt.IExecutionContext, _profile: int) -> None:
        if not context.execute_async_v3(self._stream.handle):
            raise DeviceError(f"{self._engine.title} cannot run the engine: {take_errors()}")

    def _copy_out(self, profile: int) -> None:
        output = self._staging[self._engine.output]
        self._stream.to_host(output.host, output.device, self._engine.nbytes(self._engine.output, profile))

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return self._staging[name].host.array(shape, self._engine.dtypes[name])

    @staticmethod
    def _fill(target: NDArray[Any], values: NDArray[Any]) -> None:
        """Copies `values` into `target`, padded with copies of the last row, which stay finite, and with zeros as
        tokens, which the mask hides."""
        rows, rest = len(values), tuple(slice(size) for size in values.shape[1:])
        if values.shape[1:] != target.shape[1:]:
            target[:rows] = 0
        target[(slice(rows), *rest)] = values
        target[rows:] = target[rows - 1]

    def close(self) -> None:
        """Frees everything in reverse order, also after an error of the GPU."""
        try:
            self._stream.synchronize()
        finally:
            self._resources.close()


class LanePool:
    """Lanes that threads wait for, take, and return."""

    def __init__(self, lanes: Sequence[Lane]) -> None:
        self._lanes = lanes
        self._free = list(lanes)
        self._closed = False
        self._changed = Condition()

    @contextmanager
    def take(self, most: int, least: int = 1) -> Iterator[list[Lane]]:
        """Waits until `least` lanes are free, then takes up to `most` of the free ones. All are idle when they return.

        Raises:
            ConfigurationError: the pool is closed.
        """
        with self._changed:
            self._changed.wait_for(lambda: len(self._free) >= least or self._closed)
            if self._closed:
                raise closed()
            count = min(most, len(self._free))
            taken, self._free = self._free[:count], self._free[count:]
        try:
            yield taken
        except BaseException:
            for lane in taken:
                lane.settle()
            raise
        finally:
            with self._changed:
                self._free += taken
                self._changed.notify_all()

    def close(self) -> None:
        """Waits for the lanes in use, then closes all. Threads that still wait for a lane get an error."""
        with self._changed:
            if self._closed:
                return
            self._closed = True
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._free) == len(self._lanes))
        with ExitStack() as closing:  # so that an error of one lane does not leave the others open
            for lane in self._lanes:
                closing.callback(lane.close)
