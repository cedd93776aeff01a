"""What the double of TensorRT for RTX does otherwise than that of TensorRT: it compiles kernels and captures graphs.

The classes implement those of TensorRT for RTX; see `support.strict_double.make_module`. `_fake` is the `FakeTensorRt`
of their module.
"""

from __future__ import annotations

import json
from typing import Any

from support import fake_engine
from support.strict_double import Violation, complain


class Runtime(fake_engine.Runtime):
    engine_header_size = property(lambda self: 64)

    def get_engine_validity(self, buffer: Any) -> tuple[Any, int]:
        if len(buffer) != self.engine_header_size:
            raise Violation(f"{len(buffer)} bytes are given for a header of {self.engine_header_size}")
        if bytes(buffer[:1]) != b"{":
            return self._fake.module.EngineValidity.INVALID, 32
        verdict, reasons, message = self._fake.validity
        if message:
            complain(self._logger, message)
        return getattr(self._fake.module.EngineValidity, verdict), reasons


class ICudaEngine(fake_engine.ICudaEngine):
    num_io_tensors = fake_engine.ICudaEngine.num_io_tensors
    num_optimization_profiles = fake_engine.ICudaEngine.num_optimization_profiles

    def create_runtime_config(self) -> Any:
        return self._fake.new("IRuntimeConfig", _cache=None, _strategy=None, _frozen=False)

    def create_execution_context(self, strategy: Any = None, runtime_config: Any = None) -> Any:
        """With an allocation strategy alone it would capture nothing and compile everything at each start."""
        config = runtime_config
        if config is None or config._cache is None:
            raise Violation("a context is created without a runtime configuration or its cache")
        if config.cuda_graph_strategy is not self._fake.module.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE:
            raise Violation("a context that captures no CUDA graphs")
        if config.dynamic_shapes_kernel_specialization_strategy is not (
            self._fake.module.DynamicShapesKernelSpecializationStrategy.EAGER
        ):
            raise Violation("a context whose results change while it compiles")
        object.__setattr__(config, "_frozen", True)
        context = fake_engine.ICudaEngine.create_execution_context(self, config._strategy)
        if context is not None:
            object.__setattr__(context, "_cache", config._cache)
        return context


class IRuntimeConfig:
    def set_execution_context_allocation_strategy(self, strategy: Any) -> None:
        object.__setattr__(self, "_strategy", strategy)

    def create_runtime_cache(self) -> Any:
        return self._fake.new("IRuntimeCache", _content=[])

    def set_runtime_cache(self, cache: Any) -> bool:
        if self._frozen:
            raise Violation("a cache is set after the first context")
        object.__setattr__(self, "_cache", cache)
        return True


class IRuntimeCache:
    def serialize(self) -> Any:
        return json.dumps({"for": self._fake.cuda.gpus[0][0].decode(), "shapes": self._content}).encode()

    def deserialize(self, blob: Any) -> bool:
        try:
            values = json.loads(bytes(blob))
        except ValueError:
            return False
        if values["for"] != self._fake.cuda.gpus[0][0].decode():
            return False
        self._content.extend(values["shapes"])
        return True


class IExecutionContext(fake_engine.IExecutionContext):
    def execute_async_v3(self, stream_handle: int) -> bool:
        if self._fake.cuda.stream(stream_handle).recorded is not None:
            raise Violation("a context that captures for itself is captured")
        shapes = [list(self._shapes[name]) for name in sorted(self._shapes)]
        if shapes not in self._cache._content:
            self._fake.compiled += 1
            self._cache._content.append(shapes)
        return fake_engine.IExecutionContext.execute_async_v3(self, stream_handle)
