"""What TensorRT for RTX says on this machine: it builds anywhere, and runs on few data-centre GPUs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

from align_runtime.bundle import Bundle

CAPABILITY = "SM86"


def rtx(bundle: Path, device: str, dry: bool) -> Iterator[tuple[str, Any]]:
    """Builds an engine of the FP16 vision graph for `CAPABILITY`, and tries to load and run it; on compute capability
    9.0 a refusal is expected, whose words are kept."""
    try:
        import_module("tensorrt_rtx_libs")
        trt: Any = import_module("tensorrt_rtx_bindings")
    except ImportError as error:
        yield "not installed", str(error)
        return
    said: list[str] = []

    class Log(trt.ILogger):
        def log(self, severity: Any, message: str) -> None:
            if severity <= trt.ILogger.WARNING:
                said.append(f"{severity}: {message}"[:500])

    log, start = Log(), time.perf_counter()
    opened = Bundle.open(bundle)
    builder = trt.Builder(log)
    network, config = builder.create_network(0), builder.create_builder_config()
    parsed = trt.OnnxParser(network, log).parse_from_file(
        str(opened.graph_file(opened.graph("vision", "fp16", device)))
    )
    shapes = builder.create_optimization_profile()
    height, width = opened.manifest.preprocessing.output_size
    shapes.set_shape(network.get_input(0).name, *[(batch, height, width, 3) for batch in (1, 8, 32)])
    config.add_optimization_profile(shapes)
    config.num_compute_capabilities = 1
    config.set_compute_capability(getattr(trt.ComputeCapability, CAPABILITY), 0)
    plan = builder.build_serialized_network(network, config) if parsed else None
    built = None if plan is None else len(bytes(plan))
    yield "build", {"seconds": time.perf_counter() - start, "bytes": built, "said": said[:20]}
    if plan is None:
        return
    said.clear()
    try:
        engine = trt.Runtime(log).deserialize_cuda_engine(plan)
        context = None if engine is None else engine.create_execution_context()
    except Exception as error:
        yield "load", {"error": f"{type(error).__name__}: {error}"[:500], "said": said[:20]}
        return
    yield "load", {"engine": engine is not None, "context": context is not None, "said": said[:20]}
