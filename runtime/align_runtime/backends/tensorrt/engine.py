"""A deserialized engine with its tensors and contexts, and the machine that engines are chosen for."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.cuda_runtime import check_gpu, checked
from align_runtime.backends.tensorrt.log import take_errors, tensorrt_log
from align_runtime.engine_targets import BUILD, RTX, TENSORRT, TITLES, Machine
from align_runtime.engines import EngineEntry, Shapes, shape_ranges
from align_runtime.errors import BackendUnavailableError, BundleError, ConfigurationError, DeviceError
from align_runtime.versions import version

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt


@dataclass(frozen=True)
class Engine:
    """An engine with one output, shared by all contexts.

    Attributes:
        runtime: TensorRT's runtime, which must live as long as the engine.
        handle: TensorRT's engine.
        profiles: shapes of the inputs that it runs in; those of each optimization profile, or some within its range.
        dtypes: of inputs and output, by name.
        output: name of the output.
        width: values in a row of the output.
        scratch: bytes of device memory that a context needs for intermediate tensors, in any profile.
        setup: what contexts are created with: an allocation strategy, or a runtime configuration that holds it.
        title: of the library, for messages.
    """

    runtime: trt.Runtime
    handle: trt.ICudaEngine
    profiles: tuple[Shapes, ...]
    dtypes: dict[str, np.dtype[Any]]
    output: str
    width: int
    scratch: int
    setup: Any
    title: str

    def shapes(self, profile: int) -> dict[str, tuple[int, ...]]:
        """Shapes of inputs and output in `profile`, by name."""
        inputs = dict(self.profiles[profile])
        batch = next(iter(inputs.values()))[0]
        return inputs | {self.output: (batch, self.width)}

    def nbytes(self, name: str, profile: int) -> int:
        """Size of the tensor `name` in `profile`, in bytes."""
        return prod(self.shapes(profile)[name]) * self.dtypes[name].itemsize

    def new_context(self, scratch: int) -> trt.IExecutionContext:
        """A context whose intermediate tensors lie in the `self.scratch` bytes at the GPU address `scratch`.

        Raises:
            DeviceError: the library cannot create one, mostly for lack of memory.
        """
        context = self.handle.create_execution_context(self.setup)
        if context is None:
            raise DeviceError(f"{self.title} gives no execution context: {take_errors()}")
        context.set_device_memory(scratch, self.scratch)
        return context


def open_engine(plan: bytes, entry: EngineEntry, api: Any) -> Engine:
    """Deserializes `plan`, which `entry` describes, on the current GPU.

    Args:
        api: the module of the library that built it, `libraries.trt` or `libraries.rtx`.

    Raises:
        BundleError: the library cannot load it, or it does not match `entry`.
    """
    title, build = TITLES[entry.runtime], BUILD[entry.runtime]
    runtime: trt.Runtime = api.Runtime(tensorrt_log(api))
    # A version-compatible plan contains the code of its own runtime; its sha256 was checked before.
    runtime.engine_host_code_allowed = entry.options.version_compatible
    handle = runtime.deserialize_cuda_engine(plan)
    if handle is None:
        raise BundleError(f"{title} {api.__version__} cannot load {entry.file}: {take_errors()}; {build}")
    names = [handle.get_tensor_name(index) for index in range(handle.num_io_tensors)]
    inputs = [name for name in names if handle.get_tensor_mode(name) == api.TensorIOMode.INPUT]
    outputs = [name for name in names if name not in inputs]
    if len(outputs) != 1 or _ranges(handle, inputs) != [
        [dict(shapes) for shapes in limits] for limits in shape_ranges(entry.profiles, entry.options)
    ]:
        raise BundleError(
            f"{entry.file} has the inputs {', '.join(inputs)}, the outputs {', '.join(outputs)} and profiles that do "
            f"not match its description; {build}"
        )
    dtypes = {name: np.dtype(api.nptype(handle.get_tensor_dtype(name))) for name in names}
    shape = tuple(handle.get_tensor_shape(outputs[0]))
    if dtypes[outputs[0]] != np.float32 or len(shape) != 2 or shape[1] < 1:
        raise BundleError(f"{entry.file} returns {dtypes[outputs[0]]} {shape}, expected float32 (batch, dim); {build}")
    profiles = range(handle.num_optimization_profiles)
    return Engine(
        runtime=runtime,
        handle=handle,
        profiles=entry.profiles,
        dtypes=dtypes,
        output=outputs[0],
        width=shape[1],
        scratch=max(1, *map(handle.get_device_memory_size_for_profile_v2, profiles)),  # CUDA cannot allocate 0 bytes
        setup=api.ExecutionContextAllocationStrategy.USER_MANAGED,
        title=title,
    )


def _ranges(handle: trt.ICudaEngine, inputs: list[str]) -> list[list[dict[str, tuple[int, ...]]]]:
    """The smallest, the most frequent and the largest shape of every input in each profile."""
    return [
        [
            dict(zip(inputs, map(tuple, shapes), strict=True))
            for shapes in zip(*(handle.get_tensor_profile_shape(name, profile) for name in inputs), strict=True)
        ]
        for profile in range(handle.num_optimization_profiles)
    ]


def this_machine(gpu: int = 0, runtime: str = TENSORRT) -> Machine:
    """The GPU with the index `gpu`, and the driver of this machine and its version of TensorRT or what `runtime` names.

    Raises:
        BackendUnavailableError: the library, CUDA or the GPU is missing, or the library is of a version that is none.
    """
    check_gpu(gpu)
    properties = checked(libraries.cudart.cudaGetDeviceProperties(gpu), "describe the GPU")
    driver = checked(libraries.cudart.cudaDriverGetVersion(), "get the driver's version")
    installed = (libraries.rtx if runtime == RTX else libraries.trt).__version__
    try:
        version(installed)
    except ConfigurationError as error:
        raise BackendUnavailableError(f"{TITLES[runtime]} cannot be used: {error}") from None
    return Machine(
        gpu=properties.name.decode(errors="replace").rstrip("\0"),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=f"{driver // 1000}.{driver % 1000 // 10}",
        tensorrt=installed,
    )
