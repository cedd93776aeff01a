"""Builds a TensorRT plan from an ONNX graph. Networks are strongly typed: the types of the graph are the engine's."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.engine import this_machine
from align_runtime.backends.tensorrt.log import take_errors, tensorrt_log
from align_runtime.engine_files import put_file, read_timings
from align_runtime.engines import AMPERE_PLUS, SAME_CAPABILITY, THIS_GPU, EngineOptions, Machine, Shapes
from align_runtime.errors import BackendUnavailableError, BuildError
from align_runtime.progress import Progress
from align_runtime.versions import version

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

ALWAYS_STRONGLY_TYPED = 11  # the first major version without the flag


def builder_machine() -> Machine:
    """Returns this machine, on which engines can be built.

    Raises:
        BackendUnavailableError: TensorRT, its builder, CUDA or a GPU is missing.
    """
    machine = this_machine()
    if not hasattr(libraries.trt, "Builder"):
        raise BackendUnavailableError(
            "only TensorRT's lean runtime is installed, which cannot build engines; install TensorRT with: "
            "pip install 'align-onnx[tensorrt]'"
        )
    return machine


def build_plan(
    graph: Path, profiles: Sequence[Shapes], options: EngineOptions, timings: Path, progress: Progress
) -> bytes:
    """Builds the ONNX file `graph` and returns the plan.

    Args:
        profiles: shapes of the inputs, by profile.
        timings: file of the timing cache, read if it exists and written after the build.

    Raises:
        BuildError: TensorRT cannot read or build the graph; the message names the operators.
    """
    take_errors()
    builder = libraries.trt.Builder(tensorrt_log())
    network = builder.create_network(network_flags())
    parser = libraries.trt.OnnxParser(network, tensorrt_log())
    if not parser.parse_from_file(str(graph)):
        raise BuildError(f"TensorRT cannot read {graph.name}: {_parser_errors(parser)}")
    config = builder.create_builder_config()
    _configure(config, options)
    config.progress_monitor = build_monitor(graph.name, progress)
    for shapes in profiles:
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            profile.set_shape(name, shape, shape, shape)
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"TensorRT refuses the profile {dict(shapes)} of {graph.name}: {take_errors()}")
    cache = _timing_cache(config, timings, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT cannot build {graph.name}: {take_errors()}")
    put_file(timings, memoryview(cache.serialize()))
    return bytes(memoryview(plan))


def network_flags() -> int:
    """Returns the flags of a strongly typed network: one bit up to TensorRT 10, none from 11 on."""
    if version(libraries.trt.__version__)[0] >= ALWAYS_STRONGLY_TYPED:
        return 0
    return 1 << int(libraries.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def build_monitor(title: str, progress: Progress) -> trt.IProgressMonitor:
    """Returns a monitor that shows the phase and the seconds of a build. TensorRT calls it from its own threads."""
    start = time.monotonic()

    class Monitor(libraries.trt.IProgressMonitor):
        def __init__(self) -> None:
            libraries.trt.IProgressMonitor.__init__(self)
            self.steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str, num_steps: int) -> None:  # noqa: ARG002 (TensorRT's signature)
            self.steps[phase_name] = num_steps
            self._show(phase_name, 0)

        def step_complete(self, phase_name: str, step: int) -> bool:
            self._show(phase_name, step + 1)
            return True  # continue the build

        def phase_finish(self, phase_name: str) -> None:
            self.steps.pop(phase_name, None)

        def _show(self, phase: str, done: int) -> None:
            seconds = time.monotonic() - start
            progress.show(f"{title}: {phase} {done}/{self.steps.get(phase, 0)} ({seconds:.0f} s)")

    return Monitor()


def _configure(config: trt.IBuilderConfig, options: EngineOptions) -> None:
    config.builder_optimization_level = options.level
    config.profiling_verbosity = libraries.trt.ProfilingVerbosity.DETAILED  # the inspector gives types only then
    config.clear_flag(libraries.trt.BuilderFlag.TF32)  # float32 means float32
    if options.workspace is not None:
        config.set_memory_pool_limit(libraries.trt.MemoryPoolType.WORKSPACE, options.workspace)
    levels = libraries.trt.HardwareCompatibilityLevel
    config.hardware_compatibility_level = {
        THIS_GPU: levels.NONE,
        SAME_CAPABILITY: levels.SAME_COMPUTE_CAPABILITY,
        AMPERE_PLUS: levels.AMPERE_PLUS,
    }[options.hardware]
    if options.version_compatible:
        config.set_flag(libraries.trt.BuilderFlag.VERSION_COMPATIBLE)
    if options.without_lean_runtime:
        config.set_flag(libraries.trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME)


def _timing_cache(config: trt.IBuilderConfig, timings: Path, progress: Progress) -> trt.ITimingCache:
    """Returns the cache of kernel timings in the file `timings`, or an empty one if TensorRT refuses that."""
    cache = config.create_timing_cache(read_timings(timings))
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        progress.warn(f"{timings.name} is from another GPU or TensorRT; all kernels are timed again")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _parser_errors(parser: trt.OnnxParser) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    texts = [f"{error.node_operator()} {error.node_name()!r}: {error.desc()} ({error.code().name})" for error in errors]
    return "; ".join(texts) or take_errors()
