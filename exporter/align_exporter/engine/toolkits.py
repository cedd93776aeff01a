"""Where the two libraries that build engines differ: TensorRT, on the GPU that runs them, and TensorRT for RTX."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

from align_exporter.engine.layers import check_layers, layers_of
from align_exporter.engine.network import check_network
from align_exporter.engine.request import EngineRequest
from align_runtime.backends.tensorrt import libraries
from align_runtime.backends.tensorrt.engine import this_machine
from align_runtime.backends.tensorrt.runner import TensorRtRunner
from align_runtime.engine_targets import RTX, TENSORRT, TITLES, TURING, Machine, RtxTarget
from align_runtime.engines import AMPERE_PLUS, SAME_CAPABILITY, THIS_GPU, EngineEntry, EngineOptions
from align_runtime.errors import BackendUnavailableError
from align_runtime.parity import Parity
from align_runtime.versions import version

if TYPE_CHECKING:
    from align_runtime.backends.tensorrt.libraries import trt

ALWAYS_STRONGLY_TYPED = 11  # the first major version of TensorRT without the flag


@dataclass(frozen=True)
class TensorRt:
    """TensorRT on this machine, which runs and measures what it built."""

    machine: Machine

    title: ClassVar[str] = TITLES[TENSORRT]
    has_timings: ClassVar[bool] = True

    @property
    def api(self) -> Any:
        return libraries.trt

    def network_flags(self) -> int:
        """The flags of a strongly typed network: one bit up to TensorRT 10, none from 11 on."""
        if version(libraries.trt.__version__)[0] >= ALWAYS_STRONGLY_TYPED:
            return 0
        return 1 << int(libraries.trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)

    def configure(self, config: trt.IBuilderConfig, options: EngineOptions) -> None:
        config.builder_optimization_level = options.level
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

    def verified(
        self,
        entry: EngineEntry,
        plan: bytes,
        expected: Mapping[str, str],
        network: trt.INetworkDefinition,  # noqa: ARG002 (the engine itself says more)
        measure: Callable[[TensorRtRunner], Parity],
    ) -> EngineEntry:
        """`entry` with the precision and the parity that were measured on the engine in `plan`.

        Args:
            expected: type of every convolution and matrix product in the graph, by the operator's name.

        Raises:
            PrecisionError, ParityError: it is another precision than its label, or too far from the reference.
        """
        runner = TensorRtRunner(plan, entry)
        try:
            found = check_layers(entry.file, entry.variant, layers_of(runner.engine), expected)
            parity = measure(runner)
        finally:
            runner.close()
        parity.check(entry.file, entry.limits)
        return replace(entry, products=found, parity=parity)


@dataclass(frozen=True)
class TensorRtForRtx:
    """TensorRT for RTX, which builds for GPUs that need not be here. It has no timings and no optimization levels."""

    machine: RtxTarget

    title: ClassVar[str] = TITLES[RTX]
    has_timings: ClassVar[bool] = False

    @property
    def api(self) -> Any:
        return libraries.rtx

    def network_flags(self) -> int:
        return 0  # always strongly typed

    def configure(self, config: trt.IBuilderConfig, options: EngineOptions) -> None:  # noqa: ARG002 (there are none)
        chosen: Any = config
        known = libraries.rtx.ComputeCapability
        chosen.num_compute_capabilities = len(self.machine.compute_capabilities)
        for index, capability in enumerate(self.machine.compute_capabilities):
            chosen.set_compute_capability(getattr(known, f"SM{capability.replace('.', '')}"), index)

    def verified(
        self,
        entry: EngineEntry,
        plan: bytes,  # noqa: ARG002 (one fused layer, which says no types and runs on no CPU)
        expected: Mapping[str, str],
        network: trt.INetworkDefinition,
        measure: Callable[[TensorRtRunner], Parity],  # noqa: ARG002
    ) -> EngineEntry:
        """`entry` with the precision of the network that the engine was built from; its parity needs a GPU.

        Raises:
            PrecisionError: the network has other types than the graph.
        """
        return replace(entry, products=check_network(entry.file, network, expected))


Toolkit = TensorRt | TensorRtForRtx


def open_toolkits(request: EngineRequest) -> tuple[Toolkit, ...]:
    """What builds the engines of `request`: one engine of every graph for each.

    Raises:
        BackendUnavailableError: the library, its builder, or what it needs to build is missing.
    """
    return TOOLKITS[request.runtime](request)


def _tensorrt(request: EngineRequest) -> tuple[Toolkit, ...]:  # noqa: ARG001 (every request is for this machine)
    machine = this_machine()
    if not hasattr(libraries.trt, "Builder"):
        raise BackendUnavailableError(
            "only TensorRT's lean runtime is installed, which cannot build engines; install TensorRT with: "
            "pip install 'align-onnx[tensorrt]'"
        )
    return (TensorRt(machine),)


def _rtx(request: EngineRequest) -> tuple[Toolkit, ...]:
    """Turing has an engine of its own: one that is for Turing and others holds kernels for Turing alone."""
    turing = tuple(each for each in request.capabilities if each == TURING)
    later = tuple(each for each in request.capabilities if each != TURING)
    installed = libraries.rtx.__version__
    return tuple(TensorRtForRtx(RtxTarget(group, installed)) for group in (later, turing) if group)


TOOLKITS: dict[str, Callable[[EngineRequest], tuple[Toolkit, ...]]] = {TENSORRT: _tensorrt, RTX: _rtx}
