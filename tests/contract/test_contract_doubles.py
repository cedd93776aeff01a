"""Contract: the doubles refuse what the real libraries refuse, and detect mistakes of our own code."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import align_runtime
from align_exporter.engine import builder
from align_exporter.engine.build import build_engines
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import open_toolkits
from align_runtime import golden
from align_runtime.backends.tensorrt import cuda_runtime, engine, lane
from align_runtime.bundle import Bundle
from align_runtime.errors import DeviceError
from align_runtime.progress import Progress
from support.gpu_doubles import GpuDoubles, installed
from support.mutants import mutants
from support.strict_double import Violation
from support.surfaces import read_surface


@pytest.fixture
def doubles() -> Iterator[GpuDoubles]:
    with installed("tensorrt-11") as made:
        yield made


def test_contract_doubles_have_the_names_of_the_real_bindings_only(doubles: GpuDoubles) -> None:
    trt = doubles.tensorrt.module
    assert not hasattr(trt.BuilderFlag, "FP16")  # gone in 11
    assert not hasattr(trt.NetworkDefinitionCreationFlag, "EXPLICIT_BATCH")
    config = trt.Builder(trt.Logger()).create_builder_config()
    with pytest.raises(AttributeError, match="no attribute 'max_workspace_size'"):
        config.max_workspace_size = 1
    with pytest.raises(AttributeError, match="num_optimization_profiles"):
        config.num_optimization_profiles = 1  # real, but read only
    with pytest.raises(TypeError, match="profiling_verbosity is a ProfilingVerbosity"):
        config.profiling_verbosity = 2
    with pytest.raises(TypeError, match="set_memory_pool_limit takes"):
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE)
    with pytest.raises(TypeError, match="set_flag takes"):
        config.set_flag(12)
    with pytest.raises(TypeError, match="No constructor"):
        trt.ICudaEngine()
    with pytest.raises(Violation, match="IBuilderConfig.reset is called, which the double does not know"):
        config.reset()


def test_contract_doubles_need_initialized_classes(doubles: GpuDoubles) -> None:
    class Log(doubles.tensorrt.module.ILogger):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            pass

    with pytest.raises(TypeError, match=r"Builder.__init__ takes"):
        doubles.tensorrt.module.Builder(Log())


def test_contract_tensorrt_10_needs_the_flag_and_11_none() -> None:
    for surface, flags in (("tensorrt-10", 0), ("tensorrt-11", 2)):
        with installed(surface) as made, pytest.raises(Violation, match="no strongly typed network"):
            made.tensorrt.module.Builder(made.tensorrt.module.Logger()).create_network(flags)


def misuse_cuda(doubles: GpuDoubles) -> None:
    """Every misuse is refused at once, except the block that is never freed."""
    device, pinned, stream = (
        cuda_runtime.DeviceMemory(8, "a test"),
        cuda_runtime.PinnedMemory(8, "a test"),
        cuda_runtime.Stream(),
    )
    with pytest.raises(Violation, match="9 bytes at .*, where 8 are"):
        stream.to_device(device, pinned, 9)
    with pytest.raises(Violation, match="no live block"):
        doubles.cuda.module.cudaFree(pinned.address)
    stream.to_device(device, pinned, 8)
    with pytest.raises(Violation, match="before the work on it is done"):
        device.close()
    with pytest.raises(Violation, match="with work on it"):
        stream.close()
    stream.synchronize()
    stream.close()
    with pytest.raises(Violation, match="no live stream"):
        stream.synchronize()
    device.close()
    with pytest.raises(Violation, match="no live block"):
        device.close()


def test_contract_cuda_double_checks_pointers_sizes_and_lifetimes() -> None:
    with pytest.raises(Violation, match="left on the GPU: {'blocks': 1}"), installed("tensorrt-11") as made:
        misuse_cuda(made)


def nothing(*_: Any, **__: Any) -> None:
    """Replaces a step that is left out."""


def twice(step: Callable[..., None]) -> Callable[..., None]:
    def call(self: Any) -> None:
        step(self)
        step(self)

    return call


def copy_too_much(self: Any, memory: Any, pinned: Any, size: int) -> None:
    cuda_runtime.Stream._to_device(self, memory, pinned, size + 1)  # type: ignore[attr-defined]


# Mistakes of our own code: the class, its step, and the replacement.
SABOTAGE = [
    (cuda_runtime.Stream, "synchronize", nothing),  # results are read too early
    (cuda_runtime.Stream, "to_host", nothing),
    (cuda_runtime.Stream, "to_device", nothing),
    (cuda_runtime.Stream, "to_device", copy_too_much),
    (cuda_runtime.Stream, "launch", nothing),
    (cuda_runtime.Stream, "close", nothing),
    (cuda_runtime.CudaGraph, "close", nothing),
    (cuda_runtime.DeviceMemory, "close", nothing),
    (cuda_runtime.DeviceMemory, "close", twice(cuda_runtime.DeviceMemory.close)),
    (cuda_runtime.PinnedMemory, "close", nothing),
    (lane.Lane, "_bind", nothing),
    (lane.Lane, "close", nothing),
    (lane.Lane, "_fill", staticmethod(nothing)),
]


def embed_batches(bundle: Path) -> None:
    """Runs more batches than there are lanes; their embeddings must be the reference's."""
    answers = golden.read(Bundle.open(bundle))
    with align_runtime.load(bundle, precision="fp16", device="tensorrt") as model:
        embeds = [model.embed_pixels(answers.pixels[start : start + 2]) for start in (0, 2, 4)]
    np.testing.assert_allclose(np.concatenate(embeds), answers.image_embeds[:6], rtol=0, atol=1e-2)


def test_contract_doubles_accept_the_unchanged_code(engine_bundle: Path, doubles: GpuDoubles) -> None:
    embed_batches(engine_bundle)


@pytest.mark.parametrize(("owner", "step", "instead"), SABOTAGE)
def test_contract_doubles_detect_a_step_left_out(
    engine_bundle: Path, monkeypatch: pytest.MonkeyPatch, owner: type, step: str, instead: Any
) -> None:
    monkeypatch.setattr(cuda_runtime.Stream, "_to_device", cuda_runtime.Stream.to_device, raising=False)
    monkeypatch.setattr(owner, step, instead)
    with (
        pytest.raises((Violation, AssertionError, DeviceError)),
        installed("tensorrt-11"),
    ):  # DeviceError: rows of zeros
        embed_batches(engine_bundle)


def mutated(module: ModuleType, title: str) -> dict[str, Any]:
    """The names of `module` with one call changed; see `support.mutants`."""
    source = Path(str(module.__file__)).read_text(encoding="utf-8")
    names = read_surface("tensorrt-11").names
    (mutant,) = [each for each in mutants(source, names) if each.title == title]
    namespace: dict[str, Any] = {"__name__": module.__name__}
    exec(compile(mutant.source, module.__file__ or "", "exec"), namespace)
    return namespace


def test_contract_doubles_detect_an_optional_argument_left_out(
    engine_bundle: Path, tiny_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The two arguments that the type check cannot detect."""
    wrong = mutated(engine, "create_execution_context without an argument")
    with installed("tensorrt-11"), monkeypatch.context() as patch:
        patch.setattr(engine.Engine, "new_context", wrong["Engine"].new_context)
        model = align_runtime.load(engine_bundle, precision="fp16", device="tensorrt")
        with model, pytest.raises(Violation, match="memory of its own"):
            model.warmup()
    wrong = mutated(builder, "create_network without an argument")
    with installed("tensorrt-10"), monkeypatch.context() as patch:
        patch.setattr("align_exporter.engine.build.parse_graph", wrong["parse_graph"])
        with pytest.raises(Violation, match="no strongly typed network"):
            build_engines(
                tiny_copy, EngineRequest(("fp16",)), open_toolkits(EngineRequest()), False, Progress(quiet=True)
            )
