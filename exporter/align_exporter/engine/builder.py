"""Builds a plan from an ONNX graph. Networks are strongly typed: the types of the graph are the engine's."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_exporter.engine.toolkits import Toolkit
from align_runtime.backends.tensorrt.log import plain, take_errors, tensorrt_log
from align_runtime.engine_files import put_file, read_timings
from align_runtime.engines import EngineOptions, Shapes, shape_ranges
from align_runtime.errors import BuildError
from align_runtime.progress import Progress

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt


@dataclass(frozen=True)
class ParsedGraph:
    """A graph that the parser has read.

    Attributes:
        name: of its file.
        parser: owns the weights of the network, and so has to outlive the build.
    """

    name: str
    builder: trt.Builder
    network: trt.INetworkDefinition
    parser: trt.OnnxParser


def parse_graph(toolkit: Toolkit, file: Path) -> ParsedGraph:
    """Has the parser of `toolkit` read the ONNX file `file`.

    Raises:
        BuildError: it cannot; the message names the operators.
    """
    take_errors()
    log = tensorrt_log(toolkit.api)
    builder: trt.Builder = toolkit.api.Builder(log)
    network = builder.create_network(toolkit.network_flags())
    parser: trt.OnnxParser = toolkit.api.OnnxParser(network, log)
    if not parser.parse_from_file(str(file)):
        raise BuildError(f"{toolkit.title} cannot read {file.name}: {_parser_errors(parser)}")
    return ParsedGraph(file.name, builder, network, parser)


def build_plan(
    toolkit: Toolkit,
    graph: ParsedGraph,
    profiles: tuple[Shapes, ...],
    options: EngineOptions,
    timings: Path,
    progress: Progress,
) -> bytes:
    """Builds `graph` and returns the plan.

    Args:
        profiles: as in `align_runtime.engines.EngineEntry`.
        timings: file of the timing cache, read if it exists and written after the build, where the library has one.

    Raises:
        BuildError: the library refuses it; the message says what it says.
    """
    config = graph.builder.create_builder_config()
    config.profiling_verbosity = toolkit.api.ProfilingVerbosity.DETAILED  # the inspector gives types only then
    config.clear_flag(toolkit.api.BuilderFlag.TF32)  # float32 means float32
    toolkit.configure(config, options)
    config.progress_monitor = build_monitor(toolkit.api, graph.name, progress)
    for least, usual, most in shape_ranges(profiles, options):
        profile = graph.builder.create_optimization_profile()
        for name in usual:
            profile.set_shape(name, least[name], usual[name], most[name])
        if config.add_optimization_profile(profile) < 0:
            raise BuildError(f"{toolkit.title} refuses the profile {dict(usual)} of {graph.name}: {take_errors()}")
    cache = _timing_cache(config, timings, progress) if toolkit.has_timings else None
    plan = graph.builder.build_serialized_network(graph.network, config)
    if plan is None:
        raise BuildError(f"{toolkit.title} cannot build {graph.name}: {take_errors()}")
    if cache is not None:
        put_file(timings, memoryview(cache.serialize()))
    return bytes(memoryview(plan))


def build_monitor(api: Any, title: str, progress: Progress) -> trt.IProgressMonitor:
    """Returns a monitor that shows the phase and the seconds of a build. TensorRT calls it from its own threads."""
    start = time.monotonic()

    class Monitor(api.IProgressMonitor):
        def __init__(self) -> None:
            api.IProgressMonitor.__init__(self)
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
    texts = [f"{error.node_operator()} {error.node_name()!r}: {_reason(error)}" for error in errors]
    return "; ".join(texts) or take_errors()


def _reason(error: trt.ParserError) -> str:
    description = plain(error.desc())
    return f"{'not supported' if description == 'false' else description} ({error.code().name})"
