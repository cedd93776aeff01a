"""A stream with its buffers, through which one batch at a time passes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from align_runtime.backends.stages import COMPUTE, DEVICE_TO_HOST, HOST_TO_DEVICE, Stopwatch
from align_runtime.backends.tensorrt.cuda import CudaGraph, DeviceMemory, PinnedMemory, Stream
from align_runtime.backends.tensorrt.engine import Engine
from align_runtime.backends.tensorrt.log import take_errors
from align_runtime.errors import DeviceError

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

Enqueue = Callable[["trt.IExecutionContext", int], None]


@dataclass(frozen=True)
class Staging:
    """Memory of one tensor for the largest profile, on both sides of the bus."""

    host: PinnedMemory
    device: DeviceMemory


@dataclass(frozen=True)
class Recording:
    """A profile ready to run: copies in, computation and copies out as one CUDA graph.

    The graph is valid for as long as its context lives and is left alone, so every profile has a context of its own.
    """

    context: trt.IExecutionContext
    graph: CudaGraph


class Lane:
    """For one thread at a time. All memory is taken at once; recordings are made when a profile is first used.

    The contexts of a lane share one block of scratch memory, since the lane's stream runs them one after the other.
    """

    def __init__(self, engine: Engine) -> None:
        """Raises DeviceError when the GPU or the host has not enough memory; nothing is left taken then."""
        self._engine = engine
        self._recordings: dict[int, Recording] = {}
        self._computations: dict[int, Recording] = {}  # without the copies
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
        """Starts `inputs` on the way through `profile`; `collect` before the next one.

        Args:
            inputs: at most the rows of the profile, at most its length; what is missing is filled up.

        Raises:
            DeviceError: the GPU is out of memory, or TensorRT failed.
        """
        self._take_in(inputs, profile)
        try:
            self._stream.launch(self.prepare(profile).graph)
        except BaseException:
            self._stream.synchronize()  # the buffers are free for others again
            raise

    def run_staged(self, inputs: Mapping[str, NDArray[Any]], profile: int, watch: Stopwatch) -> NDArray[np.float32]:
        """The output rows of `inputs`, which are those of `submit`. The stream is waited for after every stage, so
        computation has a recording of its own; it is made before time counts, and what the host copies does not."""
        self._take_in(inputs, profile)
        try:
            computation = self._recorded(self._computations, profile, self._compute).graph
            stages = {
                HOST_TO_DEVICE: partial(self._copy_in, profile),
                COMPUTE: partial(self._stream.launch, computation),
                DEVICE_TO_HOST: partial(self._copy_out, profile),
            }
            watch.start()
            for stage, work in stages.items():
                work()
                self._stream.synchronize()
                watch.lap(stage)
        except BaseException:
            self._stream.synchronize()  # nothing that was begun outlives what it works with
            raise
        return self.collect()

    def _take_in(self, inputs: Mapping[str, NDArray[Any]], profile: int) -> None:
        shapes = self._engine.shapes(profile)
        for name, values in inputs.items():
            self._fill(self._array(name, shapes[name]), values)
            self._rows = len(values)
        self._profile = profile

    def collect(self) -> NDArray[np.float32]:
        """The output rows of what was submitted last, once it is through."""
        self._stream.synchronize()
        output = self._engine.output
        return self._array(output, self._engine.shapes(self._profile)[output])[: self._rows].copy()

    def prepare(self, profile: int) -> Recording:
        """The recording of `profile`, made now if there is none."""
        return self._recorded(self._recordings, profile, self._enqueue)

    def _recorded(self, recordings: dict[int, Recording], profile: int, enqueue: Enqueue) -> Recording:
        """What `enqueue` puts into the stream for `profile`, from `recordings` or recorded now.

        TensorRT wants to run once with the shapes and addresses that are recorded, because it sets up what it needs
        on that occasion.
        """
        if profile in recordings:
            return recordings[profile]
        context = self._engine.new_context(self._scratch.address)
        if not context.set_optimization_profile_async(profile, self._stream.handle):
            raise DeviceError(f"TensorRT does not take profile {profile}: {take_errors()}")
        self._bind(context, profile)
        enqueue(context, profile)
        self._stream.synchronize()
        graph = self._stream.capture(partial(enqueue, context, profile))
        recording = recordings[profile] = Recording(context, graph)
        # In the end the graph goes first, then its context, then the memory that it computes in.
        self._resources.callback(recordings.pop, profile)
        self._resources.callback(graph.close)
        return recording

    def _bind(self, context: trt.IExecutionContext, profile: int) -> None:
        for name, shape in self._engine.profiles[profile].items():
            if not context.set_input_shape(name, shape):
                raise DeviceError(f"TensorRT does not take {name} of shape {shape}: {take_errors()}")
        missing = context.infer_shapes()
        if missing:
            raise DeviceError(f"TensorRT knows no shape of {', '.join(missing)}: {take_errors()}")
        for name, staging in self._staging.items():
            if not context.set_tensor_address(name, staging.device.address):
                raise DeviceError(f"TensorRT does not take the memory of {name}: {take_errors()}")

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
            raise DeviceError(f"TensorRT cannot run the engine: {take_errors()}")

    def _copy_out(self, profile: int) -> None:
        output = self._staging[self._engine.output]
        self._stream.to_host(output.host, output.device, self._engine.nbytes(self._engine.output, profile))

    def _array(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        return self._staging[name].host.array(shape, self._engine.dtypes[name])

    @staticmethod
    def _fill(target: NDArray[Any], values: NDArray[Any]) -> None:
        """Copies `values` to the front of `target`. Rows that are missing repeat the last one, so that they compute
        something finite; tokens that are missing are zeros, which the mask hides."""
        rows, rest = len(values), tuple(slice(size) for size in values.shape[1:])
        if values.shape[1:] != target.shape[1:]:
            target[:rows] = 0
        target[(slice(rows), *rest)] = values
        target[rows:] = target[rows - 1]

    def close(self) -> None:
        """Frees everything, last taken first, also where the GPU has failed."""
        try:
            self._stream.synchronize()
        finally:
            self._resources.close()
