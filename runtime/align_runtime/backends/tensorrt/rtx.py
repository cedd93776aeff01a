"""Engines on TensorRT for RTX, which compiles their kernels for the GPU when it first runs them.

It has never run on a GPU. Unlike TensorRT it captures CUDA graphs itself, one for each shape, so a lane has one context
and captures nothing. What was compiled is kept in a file beside the engine and loaded the next time.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.cuda_runtime import on_gpu
from align_runtime.backends.tensorrt.engine import Engine, open_engine, this_machine
from align_runtime.backends.tensorrt.lane import Lane, Run
from align_runtime.backends.tensorrt.log import take_errors, tensorrt_log
from align_runtime.backends.tensorrt.runner import TensorRtRunner
from align_runtime.bundle import Bundle
from align_runtime.engine_choice import choose_engine
from align_runtime.engine_files import compiled_kernels_file, put_file, read_compiled_kernels
from align_runtime.engine_targets import BUILD, RTX, TITLES, Machine
from align_runtime.engines import EngineEntry, Shapes, read_plan
from align_runtime.errors import AlignError, BackendUnavailableError, BundleError
from align_runtime.graph_entry import Graph
from align_runtime.versions import version

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import rtx, trt

OLDEST = (7, 5)
DATACENTER = ((9, 0), (12, 0))  # from Hopper on, up to Blackwell's workstation and GeForce cards
REASONS = {
    "VERSION_MISMATCH": "it is of another version of TensorRT for RTX",
    "UNSUPPORTED_CC": "it was not built for this compute capability",
    "OLD_CUDA_DRIVER": "the driver is too old",
    "OLD_CUDA_RUNTIME": "the CUDA runtime is too old",
    "INSUFFICIENT_GPU_MEMORY": "the GPU has too little memory",
    "MALFORMED_ENGINE": "it is not an engine that this version reads",
    "CUDA_ERROR": "CUDA does not work here",
}

logger = logging.getLogger(__name__)


def open_graph(bundle: Bundle, graph: Graph, gpu: int, _check_hashes: bool) -> RtxRunner:
    """Loads the engine of `graph` that fits the GPU with the index `gpu`; see `align_runtime.backends.open_graph`.

    The engine's sha256 is always compared: the library trusts the bytes that it reads.
    """
    machine = this_machine(gpu, RTX)
    check_gpu_kind(machine)
    entry = choose_engine(bundle, graph, machine, RTX)
    plan = read_plan(bundle, entry)
    with on_gpu(gpu):
        check_validity(plan, entry, machine)
    return RtxRunner(plan, entry, gpu, compiled_kernels_file(bundle.folder, entry, machine))


def check_gpu_kind(machine: Machine) -> None:
    """Raises BackendUnavailableError for GPUs that TensorRT for RTX does not run on."""
    capability = version(machine.compute_capability)[:2]
    if capability < OLDEST:
        raise BackendUnavailableError(
            f"{TITLES[RTX]} needs compute capability 7.5 or newer, {machine.gpu} has {machine.compute_capability}; use "
            "device='cuda'"
        )
    if DATACENTER[0] <= capability < DATACENTER[1]:
        raise BackendUnavailableError(
            f"{TITLES[RTX]} does not run on compute capability {machine.compute_capability} ({machine.gpu}); use "
            "device='tensorrt'"
        )


def check_validity(plan: bytes, entry: EngineEntry, machine: Machine) -> None:
    """Asks the library whether the engine in `plan` runs on the current GPU, by its header alone.

    Raises:
        BundleError: it is not an engine.
        BackendUnavailableError: it does not run here; the message says why.
    """
    take_errors()
    runtime: rtx.Runtime = libraries.rtx.Runtime(tensorrt_log(libraries.rtx))
    verdict, found = runtime.get_engine_validity(plan[: runtime.engine_header_size])
    flags = {name: int(getattr(libraries.rtx.EngineInvalidityDiagnostics, name)) for name in REASONS}
    names = [name for name, flag in flags.items() if int(found) & flag]
    reasons = " and ".join(REASONS[name] for name in names)
    if verdict == libraries.rtx.EngineValidity.INVALID:
        error = BundleError if names == ["MALFORMED_ENGINE"] else BackendUnavailableError
        raise error(f"{entry.file} does not run on {machine.gpu}: {reasons or take_errors()}; {BUILD[RTX]}")
    if verdict == libraries.rtx.EngineValidity.SUBOPTIMAL:
        logger.warning("%s runs slower on %s than it could: %s", entry.file, machine.gpu, reasons or "no reason given")


class RtxRunner(TensorRtRunner):
    """One engine of TensorRT for RTX on a GPU, which any number of threads may share."""

    def __init__(self, plan: bytes, entry: EngineEntry, gpu: int, compiled: Path) -> None:
        """See `TensorRtRunner`.

        Args:
            compiled: file of the kernels that were compiled before, which need not exist.
        """
        self._compiled = compiled
        super().__init__(plan, entry, gpu)

    def _open(self, plan: bytes, entry: EngineEntry) -> Engine:
        engine = open_engine(plan, entry, libraries.rtx)
        handle: Any = engine.handle  # of the other library than its type names
        config: rtx.IRuntimeConfig = handle.create_runtime_config()
        config.set_execution_context_allocation_strategy(engine.setup)
        config.cuda_graph_strategy = libraries.rtx.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
        # Not lazily, which gives one input other embeddings once its kernels are compiled in the background.
        config.dynamic_shapes_kernel_specialization_strategy = (
            libraries.rtx.DynamicShapesKernelSpecializationStrategy.EAGER
        )
        self._cache = config.create_runtime_cache()
        self._kept = read_compiled_kernels(self._compiled)
        if self._kept and not self._cache.deserialize(self._kept):
            logger.warning("%s is from another GPU or driver; kernels are compiled again", self._compiled.name)
        config.set_runtime_cache(self._cache)
        profiles = shapes_within(*entry.profiles) if entry.options.ranges else entry.profiles
        return replace(engine, setup=config, profiles=profiles)

    def _new_lane(self) -> Lane:
        return RtxLane(self.engine)

    def prepare(self) -> None:
        super().prepare()
        self._keep()

    def close(self) -> None:
        super().close()
        self._keep()

    def _keep(self) -> None:
        """Writes what was compiled. Without it the next start takes longer, which is no reason to fail."""
        serialized = self._cache.serialize()
        content = b"" if serialized is None else bytes(memoryview(serialized))
        if not content or content == self._kept:
            return
        try:
            put_file(self._compiled, content)
        except (OSError, AlignError) as error:
            logger.warning("compiled kernels cannot be kept in %s (%s)", self._compiled, error)
        self._kept = content


class RtxLane(Lane):
    """A lane with one context for all shapes."""

    def __init__(self, engine: Engine) -> None:
        super().__init__(engine)
        self._context: trt.IExecutionContext | None = None
        self._optimization_profile = -1
        self._bound = -1  # the profile whose shapes the context has
        self._ready: set[int] = set()

    def prepare(self, profile: int) -> Run:
        """What enqueues a run in `profile`. The first run compiles its kernels and captures them."""
        context = self._context_in(profile)

        def run() -> None:
            self._enqueue(context, profile)

        if profile not in self._ready:
            run()
            self._stream.synchronize()
            self._ready.add(profile)
        return run

    def _prepare_computation(self, profile: int) -> Run:
        self.prepare(profile)
        context = self._context_in(profile)

        def run() -> None:
            self._compute(context, profile)

        return run

    def _context_in(self, profile: int) -> trt.IExecutionContext:
        """The context, with the shapes of `profile`."""
        if self._context is None:
            self._context = self._engine.new_context(self._scratch.address)
            self._resources.callback(self._forget)  # before the memory that it uses
        if self._bound != profile:
            chosen = profile if self._engine.handle.num_optimization_profiles > 1 else 0
            self._bound = -1
            if self._optimization_profile != chosen:
                self._choose(self._context, chosen)
                self._optimization_profile = chosen
            self._bind(self._context, profile)
            self._bound = profile
        return self._context

    def _forget(self) -> None:
        self._context = None


def shapes_within(least: Shapes, usual: Shapes, most: Shapes) -> tuple[Shapes, ...]:
    """The shapes that inputs are padded to in a range: powers of two, and the three sizes that the range names."""
    first = next(iter(usual))
    free = len(most[first]) if len(most[first]) == 2 else 1  # both dimensions of a text, the first of images
    sizes = [_sizes(least[first][axis], usual[first][axis], most[first][axis]) for axis in range(free)]
    return tuple({name: (*chosen, *shape[free:]) for name, shape in most.items()} for chosen in product(*sizes))


def _sizes(least: int, usual: int, most: int) -> list[int]:
    powers = (1 << exponent for exponent in range(most.bit_length()))
    return sorted({least, usual, most, *(size for size in powers if size >= least)})
