"""A strict double of TensorRT with the surface of the real bindings.

Its engines compute with ONNX Runtime on the memory of `fake_cuda`. It refuses what TensorRT refuses, as far as our code
could do it.
"""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import Any

from support import fake_builder, fake_engine, fake_rtx
from support.fake_cuda import FakeCuda
from support.strict_double import make_module
from support.surfaces import read_surface


class FakeTensorRt:
    """A TensorRT of one version, or TensorRT for RTX.

    Attributes:
        module: replaces ``tensorrt``.
        demoted: operators that its engines compute in float32, against the types of the graph.
        scaled: factor on the outputs of its engines.
        built: number of plans built; `cached`: number of those that found a timing cache.
        refuse_timings: whether a timing cache is from another GPU.
        no_contexts: whether engines return no execution context, as if out of memory.
        validity: of TensorRT for RTX, its verdict on every engine: its name, the bits of its reasons, what it logs.
        compiled: of TensorRT for RTX, how many shapes it compiled kernels for.
    """

    def __init__(self, surface: str, cuda: FakeCuda) -> None:
        self.cuda = cuda
        self.major = int(surface.rpartition("-")[2])
        self.demoted: set[str] = set()
        self.scaled = 1.0
        self.built = 0
        self.cached = 0
        self.refuse_timings = False
        self.no_contexts = False
        self.validity = ("VALID", 0, "")
        self.compiled = 0
        self.contexts: list[weakref.ref[Any]] = []
        known = read_surface(surface)
        behaviours = {
            name: value
            for source in (fake_builder, fake_engine, *([fake_rtx] if surface.startswith("tensorrt_rtx") else []))
            for name, value in vars(source).items()
            if name in known.classes and isinstance(value, type)
        }
        self.module: ModuleType = make_module(known.wheel.partition("_cu13")[0], known, behaviours, _Functions())
        for name in behaviours:
            getattr(self.module, name)._fake = self
        cuda.users.append(self._in_use)

    def new(self, kind: str, **values: Any) -> Any:
        """Returns an object as TensorRT creates it."""
        made = object.__new__(getattr(self.module, kind))
        for name, value in {"_initialized": True, **values}.items():
            object.__setattr__(made, name, value)
        return made

    def flag(self, flags: int, name: str) -> bool:
        """Whether `flags` of a builder hold the flag `name`."""
        return bool(flags >> int(getattr(self.module.BuilderFlag, name)) & 1)

    def _in_use(self, address: int) -> bool:
        contexts = [context() for context in self.contexts]
        return any(
            address == context._memory or address in context._addresses.values() for context in contexts if context
        )


class _Functions:
    """Functions of the module."""

    @staticmethod
    def nptype(trt_type: Any) -> type:
        return fake_engine.DTYPES[trt_type.name]
