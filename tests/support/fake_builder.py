"""The builder of the double of TensorRT: a plan is JSON that names the graph and the options.

The classes implement those of TensorRT; see `support.strict_double.make_module`. `_fake` is the `FakeTensorRt` of their
module.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.strict_double import Violation


class Builder:
    def __init__(self, logger: Any) -> None:
        pass

    def create_network(self, flags: int = 0) -> Any:
        strongly_typed = flags == 1 << int(self._fake.module.NetworkDefinitionCreationFlag.STRONGLY_TYPED)
        if not strongly_typed and (flags or self._fake.major < 11):
            raise Violation(f"flags {flags:#b} give no strongly typed network on TensorRT {self._fake.major}")
        return self._fake.new("INetworkDefinition", _graph=None)

    def create_builder_config(self) -> Any:
        tf32 = 1 << int(self._fake.module.BuilderFlag.TF32)  # set by default
        return self._fake.new("IBuilderConfig", _flags=tf32, _profiles=[], _cache=None, _limits={})

    def create_optimization_profile(self) -> Any:
        return self._fake.new("IOptimizationProfile", _shapes={})

    def build_serialized_network(self, network: Any, config: Any) -> Any:
        if self._fake.flag(config._flags, "TF32"):
            raise Violation("float32 convolutions are built in TF32")
        if self._fake.flag(config._flags, "EXCLUDE_LEAN_RUNTIME") and not self._fake.flag(
            config._flags, "VERSION_COMPATIBLE"
        ):
            raise Violation("the lean runtime is excluded from an engine that is not version-compatible")
        if not config._profiles:
            raise Violation("a network with dynamic shapes is built without a profile")
        self._fake.built += 1
        object.__setattr__(config._cache, "_content", b"timings")
        plan = {
            "graph": str(network._graph),
            "profiles": config._profiles,
            "version": self._fake.module.__version__,
            "host_code": self._fake.flag(config._flags, "VERSION_COMPATIBLE"),
            "detailed": config.profiling_verbosity is self._fake.module.ProfilingVerbosity.DETAILED,
            "demoted": sorted(self._fake.demoted),
            "scaled": self._fake.scaled,
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
        self._fake.cached += bool(serialized_timing_cache)
        return self._fake.new("ITimingCache", _content=serialized_timing_cache)

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> bool:
        if ignore_mismatch:
            raise Violation("timings of another GPU are accepted")
        if cache._content and self._fake.refuse_timings:
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
    def __init__(self, network: Any, logger: Any) -> None:
        object.__setattr__(self, "_network", network)

    def parse_from_file(self, model: str) -> bool:
        assert Path(model).is_file()
        object.__setattr__(self._network, "_graph", Path(model).resolve())
        return True
