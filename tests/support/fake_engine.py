"""The runtime of the double of TensorRT: engines compute with ONNX Runtime on the memory of the double of the GPU.

The classes implement those of TensorRT; see `support.strict_double.make_module`. `_fake` is the `FakeTensorRt` of their
module.
"""

from __future__ import annotations

import ctypes
import json
import math
import weakref
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from align_exporter.graph.content import product_types
from support.fake_cuda import FakeCuda, Work
from support.strict_double import Violation, complain

FORMATS = {
    "float16": "Half",
    "float32": "Row major linear FP32",
    "int8": "Thirty-two wide channel vectorized row major Int8 format",
}
TYPES = {"tensor(uint8)": "UINT8", "tensor(int64)": "INT64", "tensor(float)": "FLOAT"}
DTYPES = {"UINT8": np.uint8, "INT64": np.int64, "FLOAT": np.float32}
SCRATCH = 4096


class Runtime:
    def __init__(self, logger: Any) -> None:
        object.__setattr__(self, "_logger", logger)
        object.__setattr__(self, "engine_host_code_allowed", False)

    def deserialize_cuda_engine(self, serialized_engine: bytes) -> Any:
        try:
            plan = json.loads(bytes(serialized_engine))
        except ValueError:
            complain(self._logger, "Magic tag does not match")
            return None
        if plan["host_code"] and not self.engine_host_code_allowed:
            complain(self._logger, "the engine contains host code, which is not allowed")
            return None
        if not plan["host_code"] and plan["version"] != self._fake.module.__version__:
            complain(self._logger, f"the engine is of version {plan['version']}")
            return None
        session = onnxruntime.InferenceSession(plan["graph"], providers=["CPUExecutionProvider"])
        return self._fake.new("ICudaEngine", _plan=plan, _session=session, _logger=self._logger)


class ICudaEngine:
    num_io_tensors = property(lambda self: len(_tensors(self)))
    num_optimization_profiles = property(lambda self: len(self._plan["profiles"]))

    def get_tensor_name(self, index: int) -> str:
        return _tensors(self)[index].name

    def get_tensor_mode(self, name: str) -> Any:
        modes = self._fake.module.TensorIOMode
        return modes.INPUT if name in [tensor.name for tensor in self._session.get_inputs()] else modes.OUTPUT

    def get_tensor_dtype(self, name: str) -> Any:
        return getattr(self._fake.module.DataType, TYPES[_tensor(self, name).type])

    def get_tensor_shape(self, name: str) -> tuple[int, ...]:
        return tuple(size if isinstance(size, int) else -1 for size in _tensor(self, name).shape)

    def get_tensor_profile_shape(self, name: str, profile_index: int) -> list[tuple[int, ...]]:
        return [tuple(shape) for shape in self._plan["profiles"][profile_index][name]]

    def get_device_memory_size_for_profile_v2(self, profile_index: int) -> int:
        return SCRATCH * (profile_index + 1)

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        if self._fake.no_contexts:
            complain(self._logger, "Out of memory")
            return None
        managed = strategy is self._fake.module.ExecutionContextAllocationStrategy.USER_MANAGED
        context = self._fake.new(
            "IExecutionContext", _engine=self, _managed=managed, _memory=0, _addresses={}, _shapes={}, _profile=-1,
            _warm=False,
        )  # fmt: skip
        self._fake.contexts.append(weakref.ref(context))
        return context

    def create_engine_inspector(self) -> Any:
        return self._fake.new("EngineInspector", _engine=self)


class EngineInspector:
    def get_engine_information(self, format: Any) -> str:
        assert format is self._fake.module.LayerInformationFormat.JSON
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
            raise Violation("memory is set for a context that has memory of its own")
        self._fake.cuda.block(memory, size, pinned=False)
        needed = max(SCRATCH * (profile + 1) for profile in range(len(self._engine._plan["profiles"])))
        if size < needed:
            raise Violation(f"{size} bytes are set for a context that needs {needed}")
        object.__setattr__(self, "_memory", memory)

    def set_optimization_profile_async(self, profile_index: int, stream_handle: int) -> bool:
        self._fake.cuda.stream(stream_handle)
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
        self._fake.cuda.block(memory, 1, pinned=False)
        self._addresses[name] = memory
        return True

    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._managed and not self._memory:
            raise Violation("a context without memory runs")
        if set(self._addresses) != {tensor.name for tensor in _tensors(self._engine)} or self.infer_shapes():
            raise Violation("a context runs without shapes or addresses of all tensors")
        capturing = self._fake.cuda.stream(stream_handle).recorded is not None
        if capturing and not self._warm:
            raise Violation("a context is captured that never ran with these shapes")
        object.__setattr__(self, "_warm", True)
        held, addresses = weakref.ref(self), tuple(self._addresses.values())

        def run() -> None:
            context = held()
            if context is None:
                raise Violation("a context is destroyed before its work is done")
            _compute(context)

        self._fake.cuda.enqueue(stream_handle, Work(run, (*addresses, self._memory)))
        return True


def _tensors(engine: Any) -> list[Any]:
    return [*engine._session.get_inputs(), *engine._session.get_outputs()]


def _tensor(engine: Any, name: str) -> Any:
    return next(tensor for tensor in _tensors(engine) if tensor.name == name)


def _compute(context: Any) -> None:
    """Runs the graph; inputs and output are in the memory of the GPU."""
    session, addresses, cuda = context._engine._session, context._addresses, context._fake.cuda
    inputs = {}
    for tensor in session.get_inputs():
        dtype = np.dtype(DTYPES[TYPES[tensor.type]])
        inputs[tensor.name] = _on_gpu(cuda, addresses[tensor.name], context._shapes[tensor.name], dtype)
    (output,) = session.get_outputs()
    result = session.run([output.name], inputs)[0] * np.float32(context._engine._plan["scaled"])
    _on_gpu(cuda, addresses[output.name], result.shape, result.dtype)[...] = result


def _on_gpu(cuda: FakeCuda, address: int, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    size = math.prod(shape) * dtype.itemsize
    cuda.block(address, size, pinned=False)
    return np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(address)).view(dtype).reshape(shape)


def _layer(name: str, dtype: str, demoted: list[str]) -> dict[str, Any]:
    """Describes a convolution fused with its activation, as the inspector does."""
    tensors = [{"Name": name, "Format/Datatype": FORMATS["float32" if name in demoted else dtype]}]
    metadata = f"[ONNX Layer: {name}]\x1f[ONNX Layer: {name}_sigmoid]"
    return {"Name": f"{name}_myl", "LayerType": "conv", "Inputs": tensors, "Outputs": tensors, "Metadata": metadata}


def _metadata(names: Iterable[str]) -> str:
    return "\x1f".join(f"[ONNX Layer: {name}]" for name in names)
