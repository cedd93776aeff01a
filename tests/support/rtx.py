"""TensorRT for RTX, the real one: it parses and builds on a CPU every graph that is made for TensorRT."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from align_exporter.engine.builder import parse_graph
from align_exporter.engine.request import EngineRequest
from align_exporter.engine.toolkits import TensorRtForRtx, open_toolkits
from align_exporter.trt_lint import check_tensorrt
from align_runtime.engine_targets import DEFAULT_CAPABILITIES, RTX
from align_runtime.engines import EngineOptions

RANGES = EngineOptions(ranges=True)


def rtx_request(*variants: str, capabilities: tuple[str, ...] = DEFAULT_CAPABILITIES) -> EngineRequest:
    """A request for one engine of each graph of `variants`, for all batches and lengths."""
    return EngineRequest(variants, options=RANGES, runtime=RTX, capabilities=capabilities)


@cache
def toolkit() -> TensorRtForRtx:
    """The toolkit for the default GPUs. An error and no skip where it is not installed: it comes with ``[dev]``."""
    (found,) = open_toolkits(rtx_request())
    assert isinstance(found, TensorRtForRtx)
    return found


def check_and_parse(file: Path) -> None:
    """What an export does with a graph for TensorRT, and the judgement of the real parser."""
    check_tensorrt(file)
    parse_graph(toolkit(), file)
