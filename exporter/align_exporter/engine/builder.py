"""From an ONNX graph to a TensorRT plan. The graph is built as it is written: its types are the engine's."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from align_exporter.engine.progress import build_monitor
from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.engine import this_machine
from align_runtime.backends.tensorrt.log import take_errors, tensorrt_log
from align_runtime.console import Progress
from align_runtime.engines import AMPERE_PLUS, SAME_CAPABILITY, THIS_GPU, EngineOptions, Machine, Shapes, version
from align_runtime.errors import BackendUnavailableError, BuildError

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

FLAGLESS = 11  # the first major version in which every network is strongly typed


def builder_machine() -> Machine:
    """This machine, if engines can be built on it.

    Raises:
        BackendUnavailableError: TensorRT, its builder, CUDA or a GPU is missing.
    """
    machine = this_machine()
    if not hasattr(libraries.trt, "Builder"):
        raise BackendUnavailableError(
            "only TensorRT's lean runtime is installed, which builds no engines; install TensorRT with: "
            "pip install 'align-onnx[tensorrt]'"
        )
    return machine


def build_plan(
    graph: Path, profiles: Sequence[Shapes], options: EngineOptions, timings: Path, progress: Progress
) -> bytes:
    """Builds the ONNX file `graph` and returns the plan.

    Args:
        profiles: shapes of the inputs, by profile.
        timings: file of the timing cache, which is read if it is there and written.

    Raises:
        BuildError: TensorRT cannot read the graph or build it; the message names the operators.
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
            raise BuildError(f"TensorRT does not take the profile {dict(shapes)} of {graph.name}: {take_errors()}")
    cache = _timing_cache(config, timings, progress)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise BuildError(f"TensorRT cannot build {graph.name}: {take_errors()}")
    written = timings.with_suffix(".building")
    written.write_bytes(memoryview(cache.serialize()))
    written.replace(timings)
    return bytes(memoryview(plan))


def network_flags() -> int:
    """A strongly typed network: what a bit says until TensorRT 10, and all there is from 11 on."""
    if version(libraries.trt.__version__)[0] >= FLAGLESS:
        return 0
    return 1 << int(libraries.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)


def _configure(config: trt.IBuilderConfig, options: EngineOptions) -> None:
    config.builder_optimization_level = options.level
    config.profiling_verbosity = libraries.trt.ProfilingVerbosity.DETAILED  # or the engine does not tell its types
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
    """The timings of earlier builds, or none where TensorRT does not take them: they only save time."""
    cache = config.create_timing_cache(timings.read_bytes() if timings.is_file() else b"")
    if not config.set_timing_cache(cache, ignore_mismatch=False):
        progress.warn(f"{timings.name} is from another GPU or TensorRT; timings are taken anew")
        cache = config.create_timing_cache(b"")
        config.set_timing_cache(cache, ignore_mismatch=False)
    return cache


def _parser_errors(parser: trt.OnnxParser) -> str:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    told = [f"{error.node_operator()} {error.node_name()!r}: {error.desc()} ({error.code().name})" for error in errors]
    return "; ".join(told) or take_errors()
