"""TensorRT without TensorRT: a strict double over the surface of the real bindings, whose engines compute with ONNX
Runtime on the memory of `fake_cuda`. It refuses what TensorRT refuses, as far as our code could do it.
"""

from __future__ import annotations

import ctypes
import json
import math
import weakref
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from align_runtime.precision import product_types
from support.fake_cuda import FakeCuda, Work
from support.strict_double import Violation, make_module
from support.surfaces import read_surface

FORMATS = {
    "float16": "Half",
    "float32": "Row major linear FP32",
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
}
TYPES = {"tensor(uint8)": "UINT8", "tensor(int64)": "INT64", "tensor(float)": "FLOAT"}
SCRATCH = 4096


class FakeTensorRt:
    """A TensorRT of one version.

    Attributes:
        module: what stands in for ``tensorrt``.
        demoted: operators that its engines compute in float32, whatever the graph says.
        scaled: what its engines multiply their outputs by.
        parse_error: operator that the parser cannot read.
        build_error: what the builder complains of.
        built: plans built so far; `cached`: those that found a timing cache.
        refuse_timings: whether a timing cache is from another GPU.
    """

    def __init__(self, surface: str, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.major = int(surface.rpartition("-")[2])
        self.demoted: set[str] = set()
        self.scaled = 1.0
        self.parse_error = ""
        self.build_error = ""
        self.built = 0
        self.cached = 0
        self.refuse_timings = False
        self.contexts: list[weakref.ref[Any]] = []
        behaviours = _behaviours(self)
        known = read_surface(surface)
        used = {name: behaviour for name, behaviour in behaviours.items() if name in known.classes}
        self.module: ModuleType = make_module(known.wheel.partition("_cu13")[0], known, used, _Functions())
        cuda.users.append(self._in_use)

    def new(self, kind: str, **values: Any) -> Any:
        """An object that TensorRT gives."""
        made = object.__new__(getattr(self.module, kind))
        for name, value in {"_initialized": True, **values}.items():
            object.__setattr__(made, name, value)
        return made

    def flag(self, flags: int, name: str) -> bool:
        return bool(flags >> int(getattr(self.module.BuilderFlag, name)) & 1)

    def _in_use(self, address: int) -> bool:
        contexts = [context() for context in self.contexts]
        return any(
            address == context._memory or address in context._addresses.values() for context in contexts if context
        )


class _Functions:
    """TensorRT's functions of the module."""

    @staticmethod
    def nptype(trt_type: Any) -> type:
        return {"UINT8": np.uint8, "INT64": np.int64, "FLOAT": np.float32}[trt_type.name]


def _complain(logger: Any, message: str) -> None:
    logger.log(type(logger).ERROR, message)


def _behaviours(fake: FakeTensorRt) -> dict[str, type]:
    return {**_building(fake), **_running(fake)}


def _building(fake: FakeTensorRt) -> dict[str, type]:
    class Builder:
        def __init__(self, logger: Any) -> None:
            object.__setattr__(self, "_logger", logger)

        def create_network(self, flags: int = 0) -> Any:
            strongly_typed = flags == 1 << int(fake.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
            if not strongly_typed and (flags or fake.major < 11):
                raise Violation(f"flags {flags:#b} give no strongly typed network on TensorRT {fake.major}")
            return fake.new("INetworkDefinition", _graph=None)

        def create_builder_config(self) -> Any:
            tf32 = 1 << int(fake.module.BuilderFlag.TF32)  # set by default
            return fake.new("IBuilderConfig", _flags=tf32, _profiles=[], _cache=None, _limits={})

        def create_optimization_profile(self) -> Any:
            return fake.new("IOptimizationProfile", _shapes={})

        def build_serialized_network(self, network: Any, config: Any) -> Any:
            if fake.flag(config._flags, "TF32"):
                raise Violation("float32 convolutions are built in TF32")
            if fake.flag(config._flags, "EXCLUDE_LEAN_RUNTIME") and not fake.flag(config._flags, "VERSION_COMPATIBLE"):
                raise Violation("a lean runtime is left out of an engine that has none")
            if not config._profiles:
                raise Violation("inputs of free sizes are built without a profile")
            monitor = config.progress_monitor
            monitor.phase_start("Building", "", 2)
            assert monitor.step_complete("Building", 0) is True
            monitor.phase_finish("Building")
            if fake.build_error:
                _complain(self._logger, fake.build_error)
                return None
            fake.built += 1
            object.__setattr__(config._cache, "_content", b"timings")
            plan = {
                "graph": str(network._graph),
                "profiles": config._profiles,
                "version": fake.module.__version__,
                "host_code": fake.flag(config._flags, "VERSION_COMPATIBLE"),
                "detailed": config.profiling_verbosity is fake.module.ProfilingVerbosity.DETAILED,
                "demoted": sorted(fake.demoted),
                "scaled": fake.scaled,
                "level": config.builder_optimization_level,
                "hardware": config.hardware_compatibility_level.name,
                "limits": config._limits,
            }
            return json.dumps(plan).encode()

    class IBuilderConfig:
        def clear_flag(self, flag: Any) -> None:
            object.__setattr__(self, "_flags", self._flags & ~(1 << int(flag)))

        def set_flag(self, flag: Any) -> None:
            object.__setattr__(self, "_flags", self._flags | 1 << int(flag))

        def set_memory_pool_limit(self, pool: Any, pool_size: int) -> None:
            self._limits[pool.name] = pool_size

        def add_optimization_profile(self, profile: Any) -> int:
            self._profiles.append(profile._shapes)
            return len(self._profiles) - 1

        def create_timing_cache(self, serialized_timing_cache: bytes) -> Any:
            fake.cached += bool(serialized_timing_cache)
            return fake.new("ITimingCache", _content=serialized_timing_cache)

        def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
            if ignore_mismatch:
                raise Violation("timings of another GPU are taken")
            if cache._content and fake.refuse_timings:
                return False
            object.__setattr__(self, "_cache", cache)
            return True

    class ITimingCache:
        def serialize(self) -> bytes:
            return self._content

    class IOptimizationProfile:
        def set_shape(self, input: str, min: Any, opt: Any, max: Any) -> None:
            self._shapes[input] = [list(min), list(opt), list(max)]

    class OnnxParser:
        num_errors = property(lambda self: len(self._errors))

        def __init__(self, network: Any, logger: Any) -> None:
            object.__setattr__(self, "_network", network)
            object.__setattr__(self, "_errors", [])

        def parse_from_file(self, model: str) -> bool:
            if fake.parse_error:
                code = fake.module.ErrorCode.UNSUPPORTED_NODE
                self._errors.append(fake.new("ParserError", _name=fake.parse_error, _code=code))
                return False
            assert Path(model).is_file()
            object.__setattr__(self._network, "_graph", Path(model).resolve())
            return True

        def get_error(self, index: int) -> Any:
            return self._errors[index]

    class ParserError:
        def node_name(self) -> str:
            return self._name

        def node_operator(self) -> str:
            return "Conv"

        def desc(self) -> str:
            return "no importer for this operator"

        def code(self) -> Any:
            return self._code

    return {made.__name__: made for made in (
        Builder, IBuilderConfig, ITimingCache, IOptimizationProfile, OnnxParser, ParserError,
    )}  # fmt: skip


def _running(fake: FakeTensorRt) -> dict[str, type]:
    class Runtime:
        def __init__(self, logger: Any) -> None:
            object.__setattr__(self, "_logger", logger)
            object.__setattr__(self, "engine_host_code_allowed", False)

        def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
            try:
                plan = json.loads(bytes(serialized_engine))
            except ValueError:
                _complain(self._logger, "Magic tag does not match")
                return None
            if plan["host_code"] and not self.engine_host_code_allowed:
                _complain(self._logger, "the engine carries host code, which is not allowed")
                return None
            if not plan["host_code"] and plan["version"] != fake.module.__version__:
                _complain(self._logger, f"the engine is of version {plan['version']}")
                return None
            session = onnxruntime.InferenceSession(plan["graph"], providers=["CPUExecutionProvider"])
            return fake.new("ICudaEngine", _plan=plan, _session=session)

    class ICudaEngine:
        num_io_tensors = property(lambda self: len(_tensors(self)))
        num_optimization_profiles = property(lambda self: len(self._plan["profiles"]))

        def get_tensor_name(self, index: int) -> str:
            return _tensors(self)[index].name

        def get_tensor_mode(self, name: str) -> Any:
            modes = fake.module.TensorIOMode
            return modes.INPUT if name in [tensor.name for tensor in self._session.get_inputs()] else modes.OUTPUT

        def get_tensor_dtype(self, name: str) -> Any:
            return getattr(fake.module.DataType, TYPES[_tensor(self, name).type])

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tuple(size if isinstance(size, int) else -1 for size in _tensor(self, name).shape)

        def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
            return [tuple(shape) for shape in self._plan["profiles"][profile_index][name]]

        def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
            return SCRATCH * (profile_index + 1)

        def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
            managed = strategy is fake.module.ExecutionContextAllocationStrategy.USER_MANAGED
            context = fake.new(
                "IExecutionContext", _engine=self, _managed=managed, _memory=0, _addresses={}, _shapes={}, _profile=-1,
                _warm=False,
            )  # fmt: skip
            fake.contexts.append(weakref.ref(context))
            return context

        def create_engine_inspector(self) -> Any:
            return fake.new("EngineInspector", _engine=self)

    class EngineInspector:
        def get_engine_information(self, format: Any) -> str:
            assert format is fake.module.LayerInformationFormat.JSON
            plan = self._engine._plan
            types = product_types(Path(plan["graph"]))
            if not plan["detailed"]:
                return json.dumps({"Layers": list(types)})
            reformat = {"Name": "Reformatting CopyNode", "LayerType": "Reformat", "Metadata": _metadata(types)}
            copies = [reformat | {"Inputs": [{"Format/Datatype": FORMATS["float32"]}], "Outputs": []}]
            return json.dumps({"Layers": copies + [_layer(name, types[name], plan["demoted"]) for name in types]})

    class IExecutionContext:
        def set_device_memory(self, memory: int, size: int) -> None:
            if not self._managed:
                raise Violation("a context that has memory of its own is given some")
            fake.cuda.block(memory, size, pinned=False)
            needed = max(SCRATCH * (profile + 1) for profile in range(len(self._engine._plan["profiles"])))
            if size < needed:
                raise Violation(f"a context that needs {needed} bytes is given {size}")
            object.__setattr__(self, "_memory", memory)

        def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
            fake.cuda.stream(stream_handle)
            object.__setattr__(self, "_profile", profile_index)
            object.__setattr__(self, "_warm", False)
            return 0 <= profile_index < len(self._engine._plan["profiles"])

        def set_input_shape(self, name: str, shape: Any) -> bool:
            low, _, high = self._engine._plan["profiles"][self._profile][name]
            self._shapes[name] = tuple(shape)
            return len(shape) == len(low) and all(a <= b <= c for a, b, c in zip(low, shape, high, strict=True))

        def infer_shapes(self) -> list[str]:
            return [tensor.name for tensor in self._engine._session.get_inputs() if tensor.name not in self._shapes]

        def set_tensor_address(self, name: str, memory: int) -> bool:
            fake.cuda.block(memory, 1, pinned=False)
            self._addresses[name] = memory
            return True

        def execute_async_v3(self, stream_handle: int) -> bool:
            if self._managed and not self._memory:
                raise Violation("a context without memory runs")
            if set(self._addresses) != {tensor.name for tensor in _tensors(self._engine)} or self.infer_shapes():
                raise Violation("a context runs without shapes or addresses of all tensors")
            recording = fake.cuda.stream(stream_handle).recorded is not None
            if recording and not self._warm:
                raise Violation("a context is recorded that never ran in these shapes")
            object.__setattr__(self, "_warm", True)
            held, addresses = weakref.ref(self), tuple(self._addresses.values())

            def run() -> None:
                context = held()
                if context is None:
                    raise Violation("a context is gone before its work is done")
                _compute(fake, context)

            fake.cuda.enqueue(stream_handle, Work(run, (*addresses, self._memory)))
            return True

    return {made.__name__: made for made in (Runtime, ICudaEngine, EngineInspector, IExecutionContext)}


def _tensors(engine: Any) -> list[Any]:
    return [*engine._session.get_inputs(), *engine._session.get_outputs()]


def _tensor(engine: Any, name: str) -> Any:
    return next(tensor for tensor in _tensors(engine) if tensor.name == name)


def _compute(fake: FakeTensorRt, context: Any) -> None:
    """From the GPU's memory to the GPU's memory."""
    session, addresses = context._engine._session, context._addresses
    inputs = {}
    for tensor in session.get_inputs():
        dtype = np.dtype(_Functions.nptype(getattr(fake.module.DataType, TYPES[tensor.type])))
        inputs[tensor.name] = _on_gpu(fake, addresses[tensor.name], context._shapes[tensor.name], dtype)
    (output,) = session.get_outputs()
    result = session.run([output.name], inputs)[0] * np.float32(context._engine._plan["scaled"])
    _on_gpu(fake, addresses[output.name], result.shape, result.dtype)[...] = result


def _on_gpu(fake: FakeTensorRt, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = math.prod(shape) * dtype.itemsize
    fake.cuda.block(address, size, pinned=False)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)


def _layer(name: str, dtype: str, demoted: list[str]) -> dict[str, Any]:
    """As the inspector tells of a convolution that was fused with what follows it."""
    told = [{"Name": name, "Format/Datatype": FORMATS["float32" if name in demoted else dtype]}]
    metadata = f"[ONNX Layer: {name}]\x1f[ONNX Layer: {name}_sigmoid]"
    return {"Name": f"{name}_myl", "LayerType": "conv", "Inputs": told, "Outputs": told, "Metadata": metadata}


def _metadata(names: Any) -> str:
    return "\x1f".join(f"[ONNX Layer: {name}]" for name in names)
