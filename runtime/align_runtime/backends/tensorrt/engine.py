"""A deserialised engine: its tensors and what a context of it needs."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.log import take_errors, tensorrt_log
from align_runtime.engines import EngineEntry, Shapes
from align_runtime.errors import BundleError, DeviceError

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt


@dataclass(frozen=True)
class Engine:
    """An engine with one output, shared by all contexts.

    Attributes:
        runtime: TensorRT's runtime, which has to live as long as the engine.
        handle: TensorRT's engine.
        profiles: shapes of the inputs by profile.
        dtypes: of inputs and output by name.
        output: name of the output.
        width: numbers in a row of the output.
        scratch: bytes that a context needs for what it computes in between, in any profile.
    """

    runtime: trt.Runtime
    handle: trt.ICudaEngine
    profiles: tuple[Shapes, ...]
    dtypes: dict[str, np.dtype[Any]]
    output: str
    width: int
    scratch: int

    def shapes(self, profile: int) -> dict[str, tuple[int, ...]]:
        """Shapes of inputs and output in `profile`."""
        inputs = dict(self.profiles[profile])
        batch = next(iter(inputs.values()))[0]
        return inputs | {self.output: (batch, self.width)}

    def nbytes(self, name: str, profile: int) -> int:
        """Size of a tensor in `profile`."""
        return prod(self.shapes(profile)[name]) * self.dtypes[name].itemsize

    def new_context(self, scratch: int) -> trt.IExecutionContext:
        """A context that computes in the `self.scratch` bytes at the GPU's address `scratch`.

        Raises:
            DeviceError: TensorRT gives none, for want of memory most often.
        """
        strategy = libraries.trt.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self.handle.create_execution_context(strategy)
        if context is None:
            raise DeviceError(f"TensorRT gives no execution context: {take_errors()}")
        context.set_device_memory(scratch, self.scratch)
        return context


def open_engine(plan: Path, entry: EngineEntry) -> Engine:
    """Deserialises `plan`, whose description is `entry`.

    Raises:
        BundleError: TensorRT does not take it, or it is not what `entry` describes.
    """
    runtime = libraries.trt.Runtime(tensorrt_log())
    # Code of the engine's own runtime, which a version-compatible plan carries; its hash was checked before.
    runtime.engine_host_code_allowed = entry.options.version_compatible
    handle = runtime.deserialize_cuda_engine(plan.read_bytes())
    if handle is None:
        raise BundleError(
            f"TensorRT {libraries.trt.__version__} cannot load {plan}: {take_errors()}; build it again: "
            "align-export … --engine"
        )
    names = [handle.get_tensor_name(index) for index in range(handle.num_io_tensors)]
    inputs = [name for name in names if handle.get_tensor_mode(name) == libraries.trt.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(outputs) != 1 or _profiles(handle, inputs) != [dict(profile) for profile in entry.profiles]:
        raise BundleError(
            f"{plan} has the inputs {', '.join(inputs)}, the outputs {', '.join(outputs)} and profiles that its "
            "description does not give; build it again: align-export … --engine"
        )
    profiles = range(len(entry.profiles))
    return Engine(
        runtime=runtime,
        handle=handle,
        profiles=entry.profiles,
        dtypes={name: np.dtype(libraries.trt.nptype(handle.get_tensor_dtype(name))) for name in names},
        output=outputs[0],
        width=handle.get_tensor_shape(outputs[0])[1],
        scratch=max(1, *map(handle.get_device_memory_size_for_profile_v2, profiles)),  # CUDA gives no block of none
    )


def _profiles(handle: trt.ICudaEngine, inputs: list[str]) -> list[dict[str, tuple[int, ...]]]:
    """The one shape of every input in each profile, () where a profile has several."""
    return [
        {name: _only([tuple(shape) for shape in handle.get_tensor_profile_shape(name, profile)]) for name in inputs}
        for profile in range(handle.num_optimization_profiles)
    ]


def _only(shapes: list[tuple[int, ...]]) -> tuple[int, ...]:
    return shapes[0] if len(set(shapes)) == 1 else ()
